//! The text form of a scenario.
//!
//! Statements, each ended by a line end or a semicolon; `#` begins a comment. What is not said keeps
//! its default ([`Scenario::default`]).
//!
//! ```text
//! name evening
//! duration 60s
//! warmup 5s                       # is not measured
//! controller delta-v1             # or default, fixed, oracle
//! down rate 50Mbit/s delay 10ms jitter 2ms queue 200kB loss 2% reorder 1% 3ms duplicate 0.1% corrupt 0.1%
//! up delay 10ms loss burst 1% 5
//! video fps 60 rate 20Mbit/s min 1Mbit/s max 80Mbit/s slices 4 encode 4ms keyframe 5 noise 15% scene 2.5 4s fixed
//! decode 2ms
//! input 50
//! attack 1%
//! clock host 5000s 0
//! protocol xx first-packet 4294900000 rekey 1h rekey-packets 100000 ping 100ms parity 12.5%
//! at 10s down rate 5Mbit/s        # the rest of `down` stays as it is
//! at 20s jump client -5s
//! at 30s rebind
//! at 40s vanish
//! at 45s restart
//! at 50s close client
//! at 52s content 4Mbit/s          # the pictures need no more
//! at 53s pause 2                  # the second stream has no pictures
//! at 54s resume 2
//! main start 0s stop 50s delay 5ms
//! flow start 10s stop 40s delay 30ms reverse controller delta-v1
//! cross cubic hystart start 5s stop 35s delay 10ms
//! cross web every 1s size 500kB
//! cross cbr 8Mbit/s on 5s off 5s reverse
//! limit latency 130ms freeze 100ms recovery 3 keyframes 0 shown 97% stuck 1s
//! ```
//!
//! Instead of `rate`, the capacity of a path may be `steps RATE TIME RATE TIME ...` (over and over), `trace NAME`
//! with `xFACTOR` and `from TIME` behind it where wanted (a file of the directory of traces: mahimahi or
//! seconds and Mbit/s), `lte RATE` (a mobile link of that mean, made from the seed) or `wifi RATE` (a Wi-Fi
//! link of that rate while it sends). `queue` takes bytes or a time; `codel` (5 ms, 100 ms) and `mark 2ms 10ms`
//! (ECN for L4S) manage it, `droptail` does not. `jitter sd 5ms` is normally distributed.
//!
//! Each `flow` is another stream on the same paths, with a host and a client of its own; `main` says when the
//! first one runs. `delay` is beyond that of the paths, each way; `reverse` swaps the ends. `cross` is other traffic:
//! a bulk transfer with CUBIC (slow start ends at losses, with `hystart` also at growing delay), web downloads that
//! come by chance `every` so often with heavy-tailed sizes of this mean, or a constant rate with pauses.
//!
//! Times are in `us`, `ms`, `s`, `min` or `h`; sizes in `B`, `kB`, `MB`; rates in `bit/s`, `kbit/s`, `Mbit/s`,
//! `Gbit/s` or `unlimited`; shares in `%`. Loss is `none`, a share, `burst SHARE PACKETS`, or `gilbert ENTER
//! LEAVE GOOD BAD`.

use core::fmt::{self, Write as _};
use core::str::FromStr;

use rift_core::Bitrate;

use super::{Action, ClockConfig, Controller, FlowConfig, Limits, ProtocolConfig, Scenario};
use crate::cross::{CrossConfig, CrossKind};
use crate::link::{Aqm, Capacity, LinkConfig, QueueLimit, TraceRef};
use crate::loss::Loss;
use crate::source::SourceConfig;
use crate::world::Side;

/// The text is not a scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("statement {statement} (`{text}`): {fault}")]
pub struct ScenarioError {
    /// Which statement, from 1.
    pub statement: usize,
    /// Its text.
    pub text: String,
    /// What is wrong with it.
    pub fault: String,
}

impl FromStr for Scenario {
    type Err = ScenarioError;

    fn from_str(text: &str) -> Result<Self, ScenarioError> {
        let mut scenario = Self::default();
        let mut paths = None;
        let without_comments = text.lines().map(|line| line.split('#').next().unwrap_or(""));
        let statements = without_comments.flat_map(|line| line.split(';')).map(str::trim);
        for (i, statement) in statements.filter(|s| !s.is_empty()).enumerate() {
            read_statement(&mut scenario, &mut paths, statement).map_err(|fault| ScenarioError {
                statement: i + 1,
                text: statement.to_owned(),
                fault,
            })?;
        }
        scenario.timeline.sort_by_key(|&(at, _)| at);
        Ok(scenario)
    }
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

/// `paths` are down and up as the timeline has left them, once it has begun.
fn read_statement(
    scenario: &mut Scenario,
    paths: &mut Option<(LinkConfig, LinkConfig)>,
    statement: &str,
) -> Result<(), String> {
    let mut words = statement.split_whitespace().peekable();
    let keyword = words.next().unwrap_or("");
    match keyword {
        "name" => scenario.name = word(&mut words)?.to_owned(),
        "duration" => scenario.duration_us = time(&mut words)?,
        "warmup" => scenario.warmup_us = time(&mut words)?,
        "controller" => scenario.controller = controller(&mut words)?,
        "main" => read_flow(&mut words, &mut scenario.main)?,
        "flow" => {
            if scenario.flows.len() >= FLOWS_MAX {
                return Err(format!("there are {FLOWS_MAX} more streams already"));
            }
            let mut flow = FlowConfig::default();
            read_flow(&mut words, &mut flow)?;
            scenario.flows.push(flow);
        }
        "cross" => {
            if scenario.cross.len() >= FLOWS_MAX {
                return Err(format!("there are {FLOWS_MAX} sources of other traffic already"));
            }
            scenario.cross.push(cross(&mut words)?);
        }
        "down" => read_link(&mut words, &mut scenario.down)?,
        "up" => read_link(&mut words, &mut scenario.up)?,
        "video" => read_video(&mut words, &mut scenario.source)?,
        "decode" => scenario.decode_us = time(&mut words)?,
        "input" => scenario.input_per_s = number(&mut words)?,
        "attack" => scenario.attack = share(&mut words)?,
        "clock" => {
            let side = side(&mut words)?;
            let clock = ClockConfig { start_us: time(&mut words)?, drift_ppm: number(&mut words)? };
            match side {
                Side::Host => scenario.host_clock = clock,
                Side::Client => scenario.client_clock = clock,
            }
        }
        "protocol" => read_protocol(&mut words, &mut scenario.protocol)?,
        "limit" => read_limits(&mut words, &mut scenario.limits)?,
        "at" => {
            let at = time(&mut words)?;
            let (down, up) = paths.get_or_insert_with(|| (scenario.down.clone(), scenario.up.clone()));
            let action = match word(&mut words)? {
                "down" => {
                    read_link(&mut words, down)?;
                    Action::Down(down.clone())
                }
                "up" => {
                    read_link(&mut words, up)?;
                    Action::Up(up.clone())
                }
                "jump" => Action::ClockJump(side(&mut words)?, signed_time(&mut words)?),
                "rebind" => Action::Rebind,
                "vanish" => Action::Vanish,
                "restart" => Action::Restart,
                "content" => Action::Content(limit(&mut words)?),
                "pause" => Action::Pause(stream(&mut words, scenario)?),
                "resume" => Action::Resume(stream(&mut words, scenario)?),
                "close" => Action::Close(side(&mut words)?),
                other => return Err(format!("no action is called `{other}`")),
            };
            if scenario.timeline.last().is_some_and(|&(last, _)| at < last) {
                return Err("`at` statements must be in order of time".into());
            }
            scenario.timeline.push((at, action));
        }
        other => return Err(format!("no statement is called `{other}`")),
    }
    match words.next() {
        Some(extra) => Err(format!("`{extra}` is too much")),
        None => Ok(()),
    }
}

fn read_link(words: &mut Words<'_>, link: &mut LinkConfig) -> Result<(), String> {
    while let Some(key) = words.next() {
        match key {
            "rate" => {
                link.capacity = limit(words)?.map_or(Capacity::Unlimited, Capacity::Constant);
            }
            "steps" => link.capacity = steps(words)?,
            "trace" => link.capacity = trace(words)?,
            "lte" => link.capacity = Capacity::Cellular(rate(words)?),
            "wifi" => link.capacity = Capacity::WiFi(rate(words)?),
            "delay" => link.delay_us = time(words)?,
            "jitter" if words.next_if_eq(&"sd").is_some() => link.jitter_sd_us = time(words)?,
            "jitter" => link.jitter_us = time(words)?,
            "queue" => link.queue = queue(words)?,
            "droptail" => link.aqm = Aqm::DropTail,
            "codel" => {
                let (target_us, interval_us) =
                    if is_quantity(words) { (time(words)?, time(words)?) } else { CODEL_US };
                link.aqm = Aqm::CoDel { target_us, interval_us };
            }
            "mark" => {
                let (low_us, high_us) = (time(words)?, time(words)?);
                if high_us < low_us {
                    return Err("`mark` takes the shorter wait first".into());
                }
                link.aqm = Aqm::Mark { low_us, high_us };
            }
            "loss" => link.loss = loss(words)?,
            "reorder" => (link.reorder, link.reorder_us) = (share(words)?, time(words)?),
            "duplicate" => link.duplicate = share(words)?,
            "corrupt" => link.corrupt = share(words)?,
            other => return Err(format!("a path has no `{other}`")),
        }
    }
    Ok(())
}

/// RFC 8289 section 4.4.
const CODEL_US: (u64, u64) = (5_000, 100_000);

/// Whether a number comes next.
fn is_quantity(words: &mut Words<'_>) -> bool {
    words.peek().is_some_and(|word| word.starts_with(|c: char| c.is_ascii_digit()))
}

fn limit(words: &mut Words<'_>) -> Result<Option<Bitrate>, String> {
    if words.next_if_eq(&"unlimited").is_some() { Ok(None) } else { rate(words).map(Some) }
}

fn steps(words: &mut Words<'_>) -> Result<Capacity, String> {
    let mut steps = vec![(rate(words)?, time(words)?)];
    while is_quantity(words) {
        steps.push((rate(words)?, time(words)?));
    }
    if steps.iter().any(|&(_, us)| us == 0) {
        return Err("a step takes more than no time".into());
    }
    Ok(Capacity::Steps(steps.into()))
}

fn trace(words: &mut Words<'_>) -> Result<Capacity, String> {
    let name = word(words)?.to_owned();
    if name.contains(['/', '\\']) {
        return Err(format!("`{name}` is not the name of a file in the directory of traces"));
    }
    let mut trace = TraceRef { name, scale: 1.0, from_us: 0, data: None };
    if let Some(word) = words.next_if(|word| word.starts_with('x')) {
        let factor: f64 = word[1..].parse().unwrap_or(0.0);
        if !(0.001..=1_000.0).contains(&factor) {
            return Err(format!("`{word}` is no factor from x0.001 to x1000"));
        }
        trace.scale = factor;
    }
    if words.next_if_eq(&"from").is_some() {
        trace.from_us = time(words)?;
    }
    Ok(Capacity::Trace(trace))
}

fn queue(words: &mut Words<'_>) -> Result<QueueLimit, String> {
    // Only times end in `s`.
    match words.peek() {
        Some(word) if word.ends_with(['s', 'h', 'n']) => time(words).map(QueueLimit::Time),
        _ => size(words).map(QueueLimit::Bytes),
    }
}

fn loss(words: &mut Words<'_>) -> Result<Loss, String> {
    if words.next_if_eq(&"none").is_some() {
        return Ok(Loss::None);
    }
    if words.next_if_eq(&"burst").is_some() {
        let rate = share(words)?;
        let packets: f64 = number(words)?;
        return Ok(Loss::bursts(rate, packets));
    }
    if words.next_if_eq(&"gilbert").is_some() {
        return Ok(Loss::GilbertElliott {
            enter: share(words)?,
            leave: share(words)?,
            loss_good: share(words)?,
            loss_bad: share(words)?,
        });
    }
    Ok(Loss::Random { rate: share(words)? })
}

fn read_video(words: &mut Words<'_>, source: &mut SourceConfig) -> Result<(), String> {
    while let Some(key) = words.next() {
        match key {
            "fps" => source.fps = number(words)?,
            "rate" => source.rate = rate(words)?,
            "min" => source.rate_min = Some(rate(words)?),
            "max" => source.rate_max = Some(rate(words)?),
            "scene" => (source.scene_factor, source.scene_us) = (number(words)?, time(words)?),
            "content" => source.content = limit(words)?,
            "slices" => source.slices = number(words)?,
            "encode" => source.encode_us = u32::try_from(time(words)?).map_err(|_| "too long")?,
            "keyframe" => source.keyframe_factor = number(words)?,
            "noise" => source.noise = share(words)?,
            "fixed" => source.adaptive = false,
            other => return Err(format!("video has no `{other}`")),
        }
    }
    Ok(())
}

/// More streams, or sources of other traffic, are no home's network.
const FLOWS_MAX: usize = 64;

fn controller(words: &mut Words<'_>) -> Result<Controller, String> {
    let name = word(words)?;
    Controller::find(name).ok_or_else(|| {
        let names = Controller::ALL.map(Controller::name).join(", ");
        format!("no controller is called `{name}`; there are {names}")
    })
}

/// The number of a stream that was described before, from 1.
fn stream(words: &mut Words<'_>, scenario: &Scenario) -> Result<usize, String> {
    let number: usize = number(words)?;
    let last = 1 + scenario.flows.len();
    if (1..=last).contains(&number) { Ok(number) } else { Err(format!("streams are numbered 1 to {last}")) }
}

fn read_flow(words: &mut Words<'_>, flow: &mut FlowConfig) -> Result<(), String> {
    while let Some(key) = words.next() {
        match key {
            "start" => flow.start_us = time(words)?,
            "stop" => flow.stop_us = Some(time(words)?),
            "delay" => flow.delay_us = time(words)?,
            "reverse" => flow.reverse = true,
            "controller" => flow.controller = Some(controller(words)?),
            other => return Err(format!("a stream has no `{other}`")),
        }
    }
    ends_after_it_starts(flow.start_us, flow.stop_us)
}

fn ends_after_it_starts(start_us: u64, stop_us: Option<u64>) -> Result<(), String> {
    if stop_us.is_some_and(|stop_us| stop_us <= start_us) {
        return Err("`stop` must be later than `start`".into());
    }
    Ok(())
}

fn cross(words: &mut Words<'_>) -> Result<CrossConfig, String> {
    let kind = match word(words)? {
        "cubic" => CrossKind::Cubic { hystart: words.next_if_eq(&"hystart").is_some() },
        "web" => {
            let (mut every_us, mut bytes) = (1_000_000, 500_000);
            if words.next_if_eq(&"every").is_some() {
                every_us = time(words)?;
            }
            if words.next_if_eq(&"size").is_some() {
                bytes = size(words)?;
            }
            if every_us == 0 || bytes == 0 {
                return Err("downloads take some time and have some size".into());
            }
            CrossKind::Web { every_us, bytes }
        }
        "cbr" => {
            let rate = rate(words)?;
            let (mut on_us, mut off_us) = (0, 0);
            if words.next_if_eq(&"on").is_some() {
                on_us = time(words)?;
                if words.next_if_eq(&"off").is_none() {
                    return Err("`on` needs an `off`".into());
                }
                off_us = time(words)?;
                if on_us == 0 || off_us == 0 {
                    return Err("turns take some time".into());
                }
            }
            if rate.as_bps() == 0 {
                return Err("a rate of nothing is no traffic".into());
            }
            CrossKind::Cbr { rate, on_us, off_us }
        }
        other => return Err(format!("no traffic is called `{other}`; there are cubic, web, cbr")),
    };
    let mut config = CrossConfig { kind, start_us: 0, stop_us: None, delay_us: 0, reverse: false };
    while let Some(key) = words.next() {
        match key {
            "start" => config.start_us = time(words)?,
            "stop" => config.stop_us = Some(time(words)?),
            "delay" => config.delay_us = time(words)?,
            "reverse" => config.reverse = true,
            other => return Err(format!("other traffic has no `{other}`")),
        }
    }
    ends_after_it_starts(config.start_us, config.stop_us)?;
    Ok(config)
}

fn read_protocol(words: &mut Words<'_>, protocol: &mut ProtocolConfig) -> Result<(), String> {
    while let Some(key) = words.next() {
        match key {
            "xx" => protocol.ik = false,
            "ik" => protocol.ik = true,
            "first-packet" => protocol.first_packet_id = number(words)?,
            "rekey" => protocol.rekey_us = time(words)?,
            "rekey-packets" => protocol.rekey_packets = number(words)?,
            "ping" => protocol.ping_us = time(words)?,
            "parity" => protocol.parity = share(words)?,
            other => return Err(format!("the protocol has no `{other}`")),
        }
    }
    Ok(())
}

fn read_limits(words: &mut Words<'_>, limits: &mut Limits) -> Result<(), String> {
    while let Some(key) = words.next() {
        match key {
            "latency" => limits.latency_us = Some(time(words)?),
            "freeze" => limits.freeze_us = Some(time(words)?),
            "recovery" => limits.recovery_rtts = Some(number(words)?),
            "keyframes" => limits.keyframes = Some(number(words)?),
            "shown" => limits.shown = Some(share(words)?),
            "stuck" => limits.stuck_us = Some(time(words)?),
            other => return Err(format!("no limit is called `{other}`")),
        }
    }
    Ok(())
}

fn word<'a>(words: &mut Words<'a>) -> Result<&'a str, String> {
    words.next().ok_or_else(|| "a word is missing at the end".into())
}

fn number<T: FromStr>(words: &mut Words<'_>) -> Result<T, String> {
    let word = word(words)?;
    word.parse().map_err(|_| format!("`{word}` is not a number that fits"))
}

fn side(words: &mut Words<'_>) -> Result<Side, String> {
    match word(words)? {
        "host" => Ok(Side::Host),
        "client" => Ok(Side::Client),
        other => Err(format!("`{other}` is neither `host` nor `client`")),
    }
}

/// A number directly followed by one of `units`, each with its factor.
fn quantity(words: &mut Words<'_>, units: &[(&str, f64)]) -> Result<f64, String> {
    let word = word(words)?;
    let split = word.find(|c: char| c.is_ascii_alphabetic() || c == '%').unwrap_or(word.len());
    let (value, unit) = word.split_at(split);
    let value: f64 = value.parse().map_err(|_| format!("`{word}` does not begin with a number"))?;
    let known = units.iter().find(|&&(name, _)| name == unit).filter(|_| value.is_finite());
    known.map(|&(_, factor)| value * factor).ok_or_else(|| {
        let names: Vec<_> = units.iter().map(|&(name, _)| name).collect();
        format!("`{word}` needs a unit: {}", names.join(", "))
    })
}

fn signed_time(words: &mut Words<'_>) -> Result<i64, String> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("min", 60e6), ("h", 3600e6)];
    quantity(words, &units).map(|us| us.round() as i64)
}

fn time(words: &mut Words<'_>) -> Result<u64, String> {
    u64::try_from(signed_time(words)?).map_err(|_| "a time must not be negative".into())
}

fn size(words: &mut Words<'_>) -> Result<u64, String> {
    quantity(words, &[("B", 1.0), ("kB", 1e3), ("MB", 1e6)]).map(|bytes| bytes.round() as u64)
}

fn rate(words: &mut Words<'_>) -> Result<Bitrate, String> {
    let units = [("bit/s", 1.0), ("kbit/s", 1e3), ("Mbit/s", 1e6), ("Gbit/s", 1e9)];
    quantity(words, &units).map(|bps| Bitrate::from_bps(bps.round() as u64))
}

fn share(words: &mut Words<'_>) -> Result<f64, String> {
    // Rounded as `percent` does, so that what is written is read back exactly.
    let share = (quantity(words, &[("%", 1.0)])? * 1e9).round() / 1e11;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a share is from 0% to 100%".into()) }
}

impl fmt::Display for Scenario {
    /// Writes the whole scenario, defaults included, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "name {}; duration {}us", self.name, self.duration_us)?;
        write!(f, "; warmup {}us; controller {}", self.warmup_us, self.controller)?;
        write!(f, "; down {}; up {}", LinkText(&self.down), LinkText(&self.up))?;
        let s = &self.source;
        write!(
            f,
            "; video fps {} rate {}bit/s{}{}{} slices {} encode {}us keyframe {} noise {}% scene {} {}us{}",
            s.fps,
            s.rate.as_bps(),
            RateText(" min ", s.rate_min),
            RateText(" max ", s.rate_max),
            RateText(" content ", s.content),
            s.slices,
            s.encode_us,
            s.keyframe_factor,
            percent(s.noise),
            s.scene_factor,
            s.scene_us,
            if s.adaptive { "" } else { " fixed" }
        )?;
        write!(f, "; decode {}us; input {}", self.decode_us, self.input_per_s)?;
        write!(f, "; attack {}%", percent(self.attack))?;
        for (side, clock) in [("host", self.host_clock), ("client", self.client_clock)] {
            write!(f, "; clock {side} {}us {}", clock.start_us, clock.drift_ppm)?;
        }
        let p = &self.protocol;
        write!(
            f,
            "; protocol {} first-packet {} rekey {}us rekey-packets {} ping {}us parity {}%",
            if p.ik { "ik" } else { "xx" },
            p.first_packet_id,
            p.rekey_us,
            p.rekey_packets,
            p.ping_us,
            percent(p.parity)
        )?;
        write!(f, "; main{}", FlowText(&self.main))?;
        for flow in &self.flows {
            write!(f, "; flow{}", FlowText(flow))?;
        }
        for cross in &self.cross {
            write_cross(f, cross)?;
        }
        for (at, action) in &self.timeline {
            write!(f, "; at {at}us ")?;
            match action {
                Action::Down(link) => write!(f, "down {}", LinkText(link))?,
                Action::Up(link) => write!(f, "up {}", LinkText(link))?,
                Action::ClockJump(side, by_us) => write!(f, "jump {} {by_us}us", side.name())?,
                Action::Rebind => f.write_str("rebind")?,
                Action::Vanish => f.write_str("vanish")?,
                Action::Restart => f.write_str("restart")?,
                Action::Close(side) => write!(f, "close {}", side.name())?,
                Action::Content(Some(rate)) => write!(f, "content {}bit/s", rate.as_bps())?,
                Action::Content(None) => f.write_str("content unlimited")?,
                Action::Pause(stream) => write!(f, "pause {stream}")?,
                Action::Resume(stream) => write!(f, "resume {stream}")?,
            }
        }
        write_limits(f, &self.limits)
    }
}

fn write_limits(f: &mut fmt::Formatter<'_>, limits: &Limits) -> fmt::Result {
    let mut text = String::new();
    for (name, us) in
        [("latency", limits.latency_us), ("freeze", limits.freeze_us), ("stuck", limits.stuck_us)]
    {
        if let Some(us) = us {
            write!(text, " {name} {us}us")?;
        }
    }
    if let Some(rtts) = limits.recovery_rtts {
        write!(text, " recovery {rtts}")?;
    }
    if let Some(count) = limits.keyframes {
        write!(text, " keyframes {count}")?;
    }
    if let Some(share) = limits.shown {
        write!(text, " shown {}%", percent(share))?;
    }
    if text.is_empty() { Ok(()) } else { write!(f, "; limit{text}") }
}

/// A share as the number before the `%`, rounded far below what matters.
fn percent(share: f64) -> f64 {
    (share * 1e11).round() / 1e9
}

/// A rate behind a word, where there is one.
struct RateText(&'static str, Option<Bitrate>);

impl fmt::Display for RateText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(word, Some(rate)) = self else { return Ok(()) };
        write!(f, "{word}{}bit/s", rate.as_bps())
    }
}

struct FlowText<'a>(&'a FlowConfig);

impl fmt::Display for FlowText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flow = self.0;
        write!(f, " start {}us", flow.start_us)?;
        if let Some(stop_us) = flow.stop_us {
            write!(f, " stop {stop_us}us")?;
        }
        write!(f, " delay {}us{}", flow.delay_us, if flow.reverse { " reverse" } else { "" })?;
        if let Some(controller) = flow.controller {
            write!(f, " controller {controller}")?;
        }
        Ok(())
    }
}

fn write_cross(f: &mut fmt::Formatter<'_>, cross: &CrossConfig) -> fmt::Result {
    match cross.kind {
        CrossKind::Cubic { hystart } => {
            write!(f, "; cross cubic{}", if hystart { " hystart" } else { "" })?;
        }
        CrossKind::Web { every_us, bytes } => write!(f, "; cross web every {every_us}us size {bytes}B")?,
        CrossKind::Cbr { rate, on_us, off_us } => {
            write!(f, "; cross cbr {}bit/s", rate.as_bps())?;
            if off_us > 0 {
                write!(f, " on {on_us}us off {off_us}us")?;
            }
        }
    }
    write!(f, " start {}us", cross.start_us)?;
    if let Some(stop_us) = cross.stop_us {
        write!(f, " stop {stop_us}us")?;
    }
    write!(f, " delay {}us{}", cross.delay_us, if cross.reverse { " reverse" } else { "" })
}

struct LinkText<'a>(&'a LinkConfig);

impl fmt::Display for LinkText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = self.0;
        match &link.capacity {
            Capacity::Unlimited => f.write_str("rate unlimited")?,
            Capacity::Constant(rate) => write!(f, "rate {}bit/s", rate.as_bps())?,
            Capacity::Cellular(rate) => write!(f, "lte {}bit/s", rate.as_bps())?,
            Capacity::WiFi(rate) => write!(f, "wifi {}bit/s", rate.as_bps())?,
            Capacity::Steps(steps) => {
                f.write_str("steps")?;
                for (rate, us) in steps.iter() {
                    write!(f, " {}bit/s {us}us", rate.as_bps())?;
                }
            }
            Capacity::Trace(trace) => {
                write!(f, "trace {} x{} from {}us", trace.name, trace.scale, trace.from_us)?;
            }
        }
        write!(f, " delay {}us jitter {}us", link.delay_us, link.jitter_us)?;
        write!(f, " jitter sd {}us", link.jitter_sd_us)?;
        match link.queue {
            QueueLimit::Bytes(bytes) => write!(f, " queue {bytes}B")?,
            QueueLimit::Time(us) => write!(f, " queue {us}us")?,
        }
        match link.aqm {
            Aqm::DropTail => f.write_str(" droptail")?,
            Aqm::CoDel { target_us, interval_us } => write!(f, " codel {target_us}us {interval_us}us")?,
            Aqm::Mark { low_us, high_us } => write!(f, " mark {low_us}us {high_us}us")?,
        }
        match link.loss {
            Loss::None => f.write_str(" loss none")?,
            Loss::Random { rate } => write!(f, " loss {}%", percent(rate))?,
            Loss::GilbertElliott { enter, leave, loss_good, loss_bad } => write!(
                f,
                " loss gilbert {}% {}% {}% {}%",
                percent(enter),
                percent(leave),
                percent(loss_good),
                percent(loss_bad)
            )?,
        }
        write!(f, " reorder {}% {}us", percent(link.reorder), link.reorder_us)?;
        write!(f, " duplicate {}% corrupt {}%", percent(link.duplicate), percent(link.corrupt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "
        name evening
        duration 60s
        down rate 50Mbit/s delay 10ms jitter 2ms queue 200kB loss 2% reorder 1% 3ms duplicate 0.5% corrupt 0.25%
        up delay 10ms loss burst 1% 5
        video fps 30 rate 2Mbit/s slices 2 encode 4ms keyframe 5 noise 30% fixed   # a comment; not a statement
        input 5; attack 1%
        clock host 1h -20
        protocol xx first-packet 4294900000 rekey 1min
        at 10s down rate 5Mbit/s
        at 20s jump client -5s
        at 30s rebind
        at 40s vanish; at 45s restart; at 50s close client
        at 55s down loss none
        limit latency 130ms freeze 100ms recovery 3 keyframes 0 shown 97% stuck 1s";

    #[test]
    fn every_statement_is_understood() {
        let s: Scenario = EXAMPLE.parse().unwrap();
        assert_eq!(s.name, "evening");
        assert_eq!(s.down.capacity, Capacity::Constant(Bitrate::from_mbps(50)));
        assert_eq!((s.down.delay_us, s.down.jitter_us), (10_000, 2_000));
        assert_eq!(s.down.queue, QueueLimit::Bytes(200_000));
        assert_eq!(s.down.loss, Loss::Random { rate: 0.02 });
        assert_eq!(s.up.loss, Loss::bursts(0.01, 5.0));
        assert_eq!((s.source.fps, s.source.slices, s.source.adaptive), (30, 2, false));
        assert_eq!(s.host_clock, ClockConfig { start_us: 3_600_000_000, drift_ppm: -20 });
        assert_eq!((s.protocol.ik, s.protocol.rekey_us), (false, 60_000_000));
        assert_eq!(s.protocol.first_packet_id, 4_294_900_000);
        assert_eq!(s.timeline.len(), 7);
        let Action::Down(first) = &s.timeline[0].1 else { panic!("{:?}", s.timeline[0]) };
        let narrow = Capacity::Constant(Bitrate::from_mbps(5));
        assert_eq!((&first.capacity, first.loss), (&narrow, s.down.loss));
        let Action::Down(last) = &s.timeline[6].1 else { panic!("{:?}", s.timeline[6]) };
        assert_eq!((&last.capacity, last.loss), (&narrow, Loss::None));
        assert_eq!(s.timeline[1], (20_000_000, Action::ClockJump(Side::Client, -5_000_000)));
        assert_eq!(s.limits.shown, Some(0.97));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let text = EXAMPLE.parse::<Scenario>().unwrap().to_string();
        let again: Scenario = text.parse().unwrap();
        assert_eq!(again.to_string(), text);
        assert_eq!(again.timeline.len(), 7);
        let plain = Scenario::default();
        assert_eq!(plain.to_string().parse::<Scenario>(), Ok(plain));
    }

    #[test]
    fn capacities_queues_and_video_are_understood_and_written() {
        let text = "warmup 5s; controller oracle; down steps 20Mbit/s 20s 5Mbit/s 10s queue 200ms codel;
            up trace Verizon-LTE-short.down x0.25 from 3s queue 3MB mark 2ms 10ms jitter sd 5ms;
            video rate 5Mbit/s min 1Mbit/s max 80Mbit/s scene 2.5 4s content 4Mbit/s;
            at 20s content unlimited; at 21s down lte 8Mbit/s droptail; at 22s up wifi 80Mbit/s; at 23s content 1Mbit/s";
        let s: Scenario = text.parse().unwrap();
        assert_eq!((s.warmup_us, s.controller), (5_000_000, Controller::Oracle));
        let mbps = Bitrate::from_mbps;
        assert_eq!(s.down.capacity, Capacity::Steps([(mbps(20), 20_000_000), (mbps(5), 10_000_000)].into()));
        assert_eq!(s.down.queue, QueueLimit::Time(200_000));
        assert_eq!(s.down.aqm, Aqm::CoDel { target_us: 5_000, interval_us: 100_000 });
        assert_eq!((s.up.jitter_sd_us, s.up.aqm), (5_000, Aqm::Mark { low_us: 2_000, high_us: 10_000 }));
        assert_eq!(s.missing_traces().collect::<Vec<_>>(), ["Verizon-LTE-short.down"]);
        assert_eq!((s.source.rate_min, s.source.content), (Some(mbps(1)), Some(mbps(4))));
        assert_eq!(s.timeline[0].1, Action::Content(None));
        assert_eq!(s.to_string().parse::<Scenario>(), Ok(s));
    }

    #[test]
    fn streams_and_other_traffic_are_understood_and_written() {
        let text =
            "main start 5s delay 1ms; flow start 10s stop 40s delay 30ms reverse controller oracle; flow;
            cross cubic; cross cubic hystart start 5s stop 35s delay 10ms; cross web every 2s size 50kB;
            cross cbr 8Mbit/s on 5s off 6s reverse; cross cbr 1Mbit/s; at 40s pause 2; at 60s resume 2";
        let s: Scenario = text.parse().unwrap();
        assert_eq!(s.main, FlowConfig { start_us: 5_000_000, delay_us: 1_000, ..FlowConfig::default() });
        let far = FlowConfig {
            start_us: 10_000_000,
            stop_us: Some(40_000_000),
            delay_us: 30_000,
            reverse: true,
            controller: Some(Controller::Oracle),
        };
        assert_eq!(s.flows, [far, FlowConfig::default()]);
        let kinds: Vec<_> = s.cross.iter().map(|cross| cross.kind).collect();
        let rate = Bitrate::from_mbps;
        assert_eq!(kinds[1], CrossKind::Cubic { hystart: true });
        assert_eq!(kinds[2], CrossKind::Web { every_us: 2_000_000, bytes: 50_000 });
        assert_eq!(kinds[3], CrossKind::Cbr { rate: rate(8), on_us: 5_000_000, off_us: 6_000_000 });
        assert_eq!(kinds[4], CrossKind::Cbr { rate: rate(1), on_us: 0, off_us: 0 });
        assert_eq!((s.cross[1].stop_us, s.cross[3].reverse), (Some(35_000_000), true));
        assert_eq!(s.timeline[0].1, Action::Pause(2));
        assert_eq!(s.to_string().parse::<Scenario>(), Ok(s));
    }

    #[test]
    fn faults_are_told_with_their_place() {
        for (text, fault) in [
            ("name a; speed 3", "statement 2"),
            ("down delay 10", "needs a unit"),
            ("down delay -1ms", "negative"),
            ("up loss 120%", "0% to 100%"),
            ("at 5s explode", "no action"),
            ("at 5s rebind; at 4s rebind", "order of time"),
            ("duration", "missing"),
            ("duration 5s 6s", "too much"),
            ("input many", "not a number"),
            ("clock cellar 1s 0", "neither"),
            ("controller magic", "delta-v1"),
            ("down steps 5Mbit/s", "missing"),
            ("down steps 5Mbit/s 0s", "no time"),
            ("down trace a/b", "directory"),
            ("down trace a x0", "x0.001"),
            ("down mark 5ms 1ms", "shorter"),
            ("down queue 5apples", "needs a unit"),
            ("flow start 5s stop 4s", "later than"),
            ("flow speed 5", "a stream has no"),
            ("flow controller magic", "delta-v1"),
            ("cross torrent", "cubic, web, cbr"),
            ("cross cbr 8Mbit/s on 5s", "needs an `off`"),
            ("cross web every 0s", "some time"),
            ("cross cubic stop 0s", "later than"),
            ("at 5s pause 2", "numbered 1 to 1"),
        ] {
            let error = text.parse::<Scenario>().unwrap_err().to_string();
            assert!(error.contains(fault), "{text}: {error}");
        }
    }
}

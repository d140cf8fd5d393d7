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

mod quantity;
#[cfg(test)]
mod tests;
mod write;

use core::str::FromStr;

use rift_core::Bitrate;

use quantity::{Words, number, rate, share, side, signed_time, size, time, word};

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

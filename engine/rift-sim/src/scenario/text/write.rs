//! Writes a scenario as text that is read back as the same scenario.

use core::fmt::{self, Write as _};

use rift_core::Bitrate;

use super::super::{Action, FlowConfig, Limits, Scenario};
use crate::cross::{CrossConfig, CrossKind};
use crate::link::{Aqm, Capacity, LinkConfig, QueueLimit};
use crate::loss::Loss;

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

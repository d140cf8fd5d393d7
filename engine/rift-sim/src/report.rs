//! What came out of a run.

use core::fmt;

use rift_core::DropCounters;
use rift_core::delta2::DecisionTrace;

use crate::check::Violations;
use crate::check::input::InputCounters;
use crate::check::player::PlayerCounters;
use crate::check::stale::Stale;
use crate::cross::CrossCounters;
use crate::link::LinkCounters;
use crate::metrics::{NEVER_US, StreamLog, StreamMetrics};
use crate::source::KeyframeCause;

/// The outcome of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The scenario's name.
    pub name: String,
    /// The scenario's text form, in full.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// Virtual time that passed, in microseconds.
    pub simulated_us: u64,
    /// Events handled.
    pub events: u64,
    /// Fingerprint of everything that happened, in order: the same for the same scenario, seed and code.
    pub fingerprint: u64,
    /// What was broken.
    pub violations: Violations,
    /// Frames encoded.
    pub frames: u64,
    /// Keyframes of each cause.
    pub keyframes: KeyframeCounts,
    /// Times that the host was told to reference nothing newer than an older frame.
    pub invalidations: u64,
    /// Slices that the host refused to send.
    pub slices_refused: u64,
    /// Decoder and screen.
    pub player: PlayerCounters,
    /// From capture to screen.
    pub latency: Distribution,
    /// From typing to applying.
    pub input_latency: Distribution,
    /// Keyboard and mouse.
    pub input: InputCounters,
    /// From host to client.
    pub down: LinkCounters,
    /// From client to host.
    pub up: LinkCounters,
    /// Datagrams that the host dropped.
    pub host_drops: DropCounters,
    /// Datagrams that the client dropped.
    pub client_drops: DropCounters,
    /// Sessions that the host saw begin.
    pub sessions: u64,
    /// How often the last session's keys were renewed: from host to client, from client to host.
    pub key_generations: (u32, u32),
    /// From the start to the first picture, in microseconds.
    pub first_picture_us: Option<u64>,
    /// One sample for each 100 ms.
    pub samples: Vec<Sample>,
    /// What the stream was worth, from the end of the warm-up on.
    pub stream: StreamMetrics,
    /// Every frame and target.
    pub log: StreamLog,
    /// Every decision about the rate.
    pub decisions: Vec<Decision>,
    /// Every time in which the newest complete picture was stale, and why.
    pub stale: Vec<Stale>,
    /// The streams beside the first.
    pub flows: Vec<FlowReport>,
    /// What sources of cross traffic did, in the scenario's order.
    pub cross: Vec<CrossCounters>,
}

/// A stream beside the first.
#[derive(Clone, Debug, Default)]
pub struct FlowReport {
    /// What it was worth while it ran, from the end of its warm-up on.
    pub stream: StreamMetrics,
    /// One sample for each 100 ms.
    pub samples: Vec<Sample>,
    /// Every frame and target.
    pub log: StreamLog,
    /// When its newest picture was stale, and why.
    pub stale: Vec<Stale>,
    /// What its controller decided.
    pub decisions: Vec<Decision>,
}

/// A decision about the rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// Virtual time in microseconds.
    pub at_us: u64,
    /// What was decided and why. Its time is by the host's clock.
    pub trace: DecisionTrace,
}

/// What one end put on the path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathCounters {
    /// Packets.
    pub packets: u64,
    /// Packets among them that were lost or dropped.
    pub gone: u64,
    /// Their bytes, with IP and UDP headers.
    pub wire_bytes: u64,
    /// Bytes of those that have left the path at its other end or are on its last stretch.
    pub arrived_wire_bytes: u64,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketRecord {
    /// When it was handed to the path, in microseconds.
    pub sent_us: u64,
    /// When it arrived, or one of the two below.
    pub arrived_us: u64,
    /// Its bytes, with IP and UDP headers.
    pub wire_bytes: u32,
}

impl PacketRecord {
    /// It has not left the queue.
    pub const UNDER_WAY: u64 = u64::MAX;
    /// It was lost, dropped or damaged.
    pub const LOST: u64 = u64::MAX - 1;

    /// When it arrived whole, if it did.
    #[must_use]
    pub fn arrived(&self) -> Option<u64> {
        (self.arrived_us < Self::LOST).then_some(self.arrived_us)
    }
}

/// Keyframes by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyframeCounts {
    /// The first of a session.
    pub first: u64,
    /// Asked for by the client.
    pub requested: u64,
    /// For want of a reference.
    pub no_reference: u64,
}

impl KeyframeCounts {
    pub(crate) fn add(&mut self, cause: KeyframeCause) {
        match cause {
            KeyframeCause::First => self.first += 1,
            KeyframeCause::Requested => self.requested += 1,
            KeyframeCause::NoReference => self.no_reference += 1,
        }
    }

    /// Those beyond the first of each session.
    #[must_use]
    pub fn beyond_first(&self) -> u64 {
        self.requested + self.no_reference
    }
}

/// A distribution of durations in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// How many values.
    pub count: u64,
    /// Median.
    pub p50: u32,
    /// 95th percentile.
    pub p95: u32,
    /// 99th percentile.
    pub p99: u32,
    /// Largest.
    pub max: u32,
}

impl Distribution {
    /// Of `values`.
    #[must_use]
    pub fn of(values: &[u32]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let at = |share: f64| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
        };
        Self { count: sorted.len() as u64, p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1.0) }
    }
}

/// The state of things at one moment, and what happened in the 100 ms before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Virtual time in microseconds.
    pub at_us: u64,
    /// Frames shown.
    pub shown: u32,
    /// Longest time from capture to screen, in microseconds.
    pub latency_us: u32,
    /// UDP payload bytes handed to the path from host to client.
    pub down_bytes: u64,
    /// How long a packet sent now would wait in that path's queue, in microseconds.
    pub queue_us: u64,
    /// Packets lost on that path or dropped by its queue.
    pub lost: u64,
    /// The encoder's target in kilobits per second.
    pub target_kbps: u32,
    /// What that path offered, in bytes with headers; 0 without a limit.
    pub offered_bytes: u64,
    /// Bytes of this stream that arrived over it, with headers.
    pub arrived_bytes: u64,
    /// What the sender has sent since its session began: video packets for the first time, parity, video packets
    /// again.
    pub sender: [u64; 3],
}

impl Report {
    /// Whether every rule held.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.violations.count() == 0
    }

    /// The command that repeats this run.
    #[must_use]
    pub fn reproduce(&self) -> String {
        format!("wavry netsim --seed {} --text '{}'", self.seed, self.scenario)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u32| f64::from(us) / 1e3;
        let seconds = self.simulated_us as f64 / 1e6;
        writeln!(f, "{}, seed {}: {seconds:.1} s, {} events", self.name, self.seed, self.events)?;
        let p = &self.player;
        let shown = if self.frames > 0 { p.shown as f64 / self.frames as f64 * 100.0 } else { 0.0 };
        writeln!(
            f,
            "  frames       {} encoded, {} shown ({shown:.2} %), {} late, {} as reference only; longest gap {:.1} ms",
            self.frames,
            p.shown,
            p.late,
            p.not_for_show,
            p.gap_us_max as f64 / 1e3
        )?;
        let k = &self.keyframes;
        writeln!(
            f,
            "  keyframes    {} first, {} requested, {} for want of a reference; {} reference invalidations",
            k.first, k.requested, k.no_reference, self.invalidations
        )?;
        for (name, d) in [("latency", &self.latency), ("input", &self.input_latency)] {
            writeln!(
                f,
                "  {name:<12} p50 {:.1} ms, p95 {:.1}, p99 {:.1}, max {:.1} ({} values)",
                ms(d.p50),
                ms(d.p95),
                ms(d.p99),
                ms(d.max),
                d.count
            )?;
        }
        let i = &self.input;
        writeln!(
            f,
            "  events       {} typed, {} applied, {} skipped, {} made up",
            i.sent, i.applied, i.skipped, i.made_up
        )?;
        for (name, link, drops) in
            [("down", &self.down, &self.client_drops), ("up", &self.up, &self.host_drops)]
        {
            write!(
                f,
                "  {name:<12} {} packets, {:.2} Mbit/s, {} lost, {} queue full, longest queue {:.1} ms",
                link.packets,
                link.bytes as f64 * 8.0 / seconds.max(1e-6) / 1e6,
                link.lost,
                link.queue_full,
                link.queue_us_max as f64 / 1e3
            )?;
            for (reason, count) in drops.iter() {
                write!(f, ", {reason} {count}")?;
            }
            writeln!(f)?;
        }
        write_stream(f, &self.stream)?;
        write_stale(f, &self.stale)?;
        write_shared(f, &self.stream, self.flows.len())?;
        writeln!(f, "  fingerprint  {:016x}", self.fingerprint)?;
        for violation in self.violations.kept() {
            writeln!(f, "  BROKEN       {violation}")?;
        }
        if !self.passed() {
            writeln!(f, "  {} violations; repeat with: {}", self.violations.count(), self.reproduce())?;
        }
        Ok(())
    }
}

fn write_stream(f: &mut fmt::Formatter<'_>, m: &StreamMetrics) -> fmt::Result {
    let ms = |us: u32| match us {
        NEVER_US => "lost".to_owned(),
        us => format!("{:.1}", f64::from(us) / 1e3),
    };
    write!(f, "  stream       {:.2} Mbit/s in complete frames", m.goodput_mbps)?;
    if let (Some(capacity), Some(utilisation)) = (m.capacity_mbps, m.utilisation) {
        write!(f, ", {:.1} % of {capacity:.2} with headers", utilisation * 100.0)?;
    }
    let [p50, p95, p99] = m.delay_us.map(ms);
    writeln!(f, "; {:.2} % packets lost, {:.1} % redundant", m.packet_loss * 100.0, m.redundancy * 100.0)?;
    write!(
        f,
        "  to complete  p50 {p50} ms, p95 {p95}, p99 {p99}, {:.2} % over 50 ms, ",
        m.over_50ms * 100.0
    )?;
    write!(f, "{:.2} % over 100; {} of {} never", m.over_100ms * 100.0, m.incomplete, m.frames)?;
    writeln!(f)?;
    write!(f, "  age          stale {:.2} %, p99 {:.1} ms", m.stale * 100.0, m.age_p99_us as f64 / 1e3)?;
    if let Some(standing) = m.standing_p95_us {
        write!(f, "; standing queue p95 {} ms", ms(standing))?;
    }
    if let Some(ramp) = m.ramp_us {
        write!(f, "; 80 % after {:.2} s", ramp as f64 / 1e6)?;
    }
    writeln!(f)
}

fn write_stale(f: &mut fmt::Formatter<'_>, stale: &[Stale]) -> fmt::Result {
    let mut sums: std::collections::BTreeMap<_, (u64, u64)> = std::collections::BTreeMap::new();
    for one in stale {
        let (count, us) = sums.entry(one.cause).or_default();
        *count += 1;
        *us += one.to_us - one.from_us;
    }
    if sums.is_empty() {
        return Ok(());
    }
    f.write_str("  stale by     ")?;
    for (i, (cause, (count, us))) in sums.iter().enumerate() {
        let comma = if i > 0 { ", " } else { "" };
        write!(f, "{comma}{cause} {count} x, {:.2} s", *us as f64 / 1e6)?;
    }
    writeln!(f)
}

fn write_shared(f: &mut fmt::Formatter<'_>, m: &StreamMetrics, others: usize) -> fmt::Result {
    let shared = &m.shared;
    let mut parts = Vec::new();
    if let Some(jain) = shared.jain.filter(|_| others > 0) {
        parts.push(format!("Jain {jain:.3}"));
    }
    if let Some(share) = shared.least_share {
        parts.push(format!("least share {share:.2}"));
    }
    if let Some(together) = shared.together.filter(|_| others > 0) {
        parts.push(format!("{:.1} % used together", together * 100.0));
    }
    if let Some(unsteady) = shared.unsteady {
        parts.push(format!("rate varies by {:.0} %", unsteady * 100.0));
    }
    if let Some(mbps) = shared.beside_mbps {
        parts.push(format!("{mbps:.2} Mbit/s beside others"));
    }
    if let Some(us) = shared.left_behind_us {
        parts.push(format!("queue {:.1} ms a second after them", f64::from(us) / 1e3));
    }
    if parts.is_empty() { Ok(()) } else { writeln!(f, "  sharing      {}", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let values: Vec<u32> = (1..=100).rev().collect();
        let d = Distribution::of(&values);
        assert_eq!((d.p50, d.p95, d.p99, d.max, d.count), (50, 95, 99, 100, 100));
        assert_eq!(Distribution::of(&[]), Distribution::default());
        assert_eq!(Distribution::of(&[7]).p50, 7);
    }
}

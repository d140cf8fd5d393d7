//! How much a link carries, and when.
//!
//! Owns the description of a capacity ([`Capacity`]) and its course in time ([`Course`]); knows nothing of
//! queues. Invariant: what a course offers between two moments is the same however it was asked before, so
//! that a run can be measured against what the link really had.

use std::sync::Arc;

use fastrand::Rng;
use rift_core::Bitrate;

use super::synthetic;
use super::trace::Trace;

const NS_PER_S: u128 = 1_000_000_000;

/// What a link can carry.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Capacity {
    /// Everything at once.
    #[default]
    Unlimited,
    /// Always the same rate.
    Constant(Bitrate),
    /// Rates, each for so many microseconds, over and over.
    Steps(Arc<[(Bitrate, u64)]>),
    /// As it was measured.
    Trace(TraceRef),
    /// A mobile network of this mean rate: slow and fast fading, outages.
    Cellular(Bitrate),
    /// A Wi-Fi network that has this rate while it sends: aggregates, a share of the airtime that wanders,
    /// droughts.
    WiFi(Bitrate),
}

/// A trace by its name, and how it is used.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceRef {
    /// Of the file.
    pub name: String,
    /// Capacity is multiplied by this.
    pub scale: f64,
    /// Where in the trace the run begins, in microseconds.
    pub from_us: u64,
    /// What is in the file, once that has been read.
    pub data: Option<Arc<Trace>>,
}

impl Capacity {
    /// The course that this capacity takes. `seed` decides all that is random about it.
    ///
    /// A trace that was not loaded has no capacity at all.
    #[must_use]
    pub fn course(&self, seed: u64) -> Course {
        let constant = |bps| Course(Kind::Fluid(Fluid::new(vec![(bps, u64::MAX)])));
        match self {
            Self::Unlimited => Course(Kind::Unlimited),
            Self::Constant(rate) => constant(rate.as_bps()),
            Self::Steps(steps) => {
                Course(Kind::Fluid(Fluid::new(steps.iter().map(|&(rate, us)| (rate.as_bps(), us)).collect())))
            }
            Self::Trace(trace) => match trace.data.as_deref() {
                None => constant(0),
                Some(Trace::Opportunities(at_ms)) => {
                    let bytes = Trace::opportunity_bytes(trace.scale);
                    let grants = at_ms.iter().map(|&ms| (ms * 1_000, bytes));
                    let period_us = trace.data.as_deref().map_or(1, Trace::period_us);
                    Course(Kind::Grants(Grants::new(grants, period_us, trace.from_us)))
                }
                Some(Trace::Rates(rates)) => {
                    let ends = rates.iter().skip(1).map(|&(at, _)| at);
                    let ends = ends.chain(trace.data.as_deref().map(Trace::period_us));
                    let steps = rates.iter().zip(ends);
                    let scaled = |bps: u64| (bps as f64 * trace.scale).round() as u64;
                    let steps = steps.map(|(&(at, bps), end)| (scaled(bps), end - at)).collect();
                    Course(Kind::Fluid(Fluid { shift_us: trace.from_us, ..Fluid::new(steps) }))
                }
            },
            Self::Cellular(mean) => {
                let (grants, period_us) = synthetic::cellular(*mean, &mut Rng::with_seed(seed));
                Course(Kind::Grants(Grants::new(grants.into_iter(), period_us, 0)))
            }
            Self::WiFi(rate) => {
                let (grants, period_us) = synthetic::wifi(*rate, &mut Rng::with_seed(seed));
                Course(Kind::Grants(Grants::new(grants.into_iter(), period_us, 0)))
            }
        }
    }

    /// The trace that it needs.
    pub fn trace_mut(&mut self) -> Option<&mut TraceRef> {
        if let Self::Trace(trace) = self { Some(trace) } else { None }
    }
}

/// A capacity in time. Bytes are those on the wire, IP and UDP headers included.
#[derive(Clone, Debug)]
pub struct Course(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Unlimited,
    Fluid(Fluid),
    Grants(Grants),
}

impl Course {
    /// When `bytes` have left whose turn it is from `from_ns` on, in nanoseconds; [`u64::MAX`] for never.
    /// Calls come in the order of time.
    pub fn finish_ns(&mut self, from_ns: u64, bytes: u64) -> u64 {
        match &mut self.0 {
            Kind::Unlimited => from_ns,
            Kind::Fluid(fluid) => fluid.finish_ns(from_ns, bytes),
            Kind::Grants(grants) => grants.finish_ns(from_ns, bytes),
        }
    }

    /// Bytes that could have been sent between two moments in microseconds; `None` if there is no limit.
    #[must_use]
    pub fn offered(&self, from_us: u64, to_us: u64) -> Option<u64> {
        match &self.0 {
            Kind::Unlimited => None,
            Kind::Fluid(fluid) => Some(fluid.until(to_us).saturating_sub(fluid.until(from_us))),
            Kind::Grants(grants) => Some(grants.until(to_us).saturating_sub(grants.until(from_us))),
        }
    }

    /// The rate at a moment in microseconds, which for a course without rates is the mean of the 100 ms
    /// before; `None` if there is no limit.
    #[must_use]
    pub fn rate(&self, at_us: u64) -> Option<Bitrate> {
        match &self.0 {
            Kind::Unlimited => None,
            Kind::Fluid(fluid) => Some(Bitrate::from_bps(fluid.step(u128::from(at_us) * 1_000).0)),
            Kind::Grants(grants) => {
                let from_us = at_us.saturating_sub(100_000);
                let bytes = grants.until(at_us + 1).saturating_sub(grants.until(from_us));
                Some(Bitrate::from_bps(bytes * 8_000_000 / (at_us - from_us).max(1)))
            }
        }
    }

    /// The rate over the whole of it; `None` if there is no limit.
    #[must_use]
    pub fn mean_rate(&self) -> Option<Bitrate> {
        match &self.0 {
            Kind::Unlimited => None,
            Kind::Fluid(fluid) => Some(fluid.mean_rate()),
            Kind::Grants(grants) => Some(Bitrate::from_bps(grants.total() * 8_000_000 / grants.period_us)),
        }
    }

    /// Whether packets leave at moments and not at a rate.
    #[must_use]
    pub fn is_granted(&self) -> bool {
        matches!(self.0, Kind::Grants(_))
    }

    /// When the rate changes within the first `until_us` microseconds: the moment, the rates before and after.
    #[must_use]
    pub fn changes(&self, until_us: u64) -> Vec<(u64, Bitrate, Bitrate)> {
        let Kind::Fluid(fluid) = &self.0 else { return Vec::new() };
        let mut changes = Vec::new();
        let mut at_ns = 0u128;
        let mut before = fluid.step(0).0;
        // A change of rate every millisecond is no step but a trace.
        while changes.len() < 10_000 {
            at_ns += fluid.step(at_ns).1;
            if at_ns > u128::from(until_us) * 1_000 {
                break;
            }
            let after = fluid.step(at_ns).0;
            if after != before {
                let at_us = u64::try_from(at_ns / 1_000).unwrap_or(u64::MAX);
                changes.push((at_us, Bitrate::from_bps(before), Bitrate::from_bps(after)));
            }
            before = after;
        }
        changes
    }
}

/// Rates one after another.
#[derive(Clone, Debug)]
struct Fluid {
    /// Bits per second, and until when in nanoseconds from the start of a period.
    steps: Vec<(u64, u128)>,
    period_ns: u128,
    shift_us: u64,
}

impl Fluid {
    /// `steps` are bits per second, and for how many microseconds.
    fn new(steps: Vec<(u64, u64)>) -> Self {
        let mut end = 0u128;
        let mut ends = Vec::with_capacity(steps.len().max(1));
        for (bps, us) in steps {
            end += u128::from(us) * 1_000;
            if us > 0 {
                ends.push((bps, end));
            }
        }
        if ends.is_empty() {
            ends.push((0, 1));
            end = 1;
        }
        Self { steps: ends, period_ns: end, shift_us: 0 }
    }

    /// The rate at `at_ns` and for how long it holds.
    fn step(&self, at_ns: u128) -> (u64, u128) {
        if let [(bps, _)] = self.steps[..] {
            // Again and again the same: no division of 128 bits for each packet.
            return (bps, self.period_ns);
        }
        let within = (at_ns + u128::from(self.shift_us) * 1_000) % self.period_ns;
        let (bps, end) = self.steps[self.steps.partition_point(|&(_, end)| end <= within)];
        (bps, end - within)
    }

    fn finish_ns(&self, from_ns: u64, bytes: u64) -> u64 {
        let mut need = u128::from(bytes) * 8 * NS_PER_S;
        let mut at = u128::from(from_ns);
        if self.steps.iter().all(|&(bps, _)| bps == 0) {
            return u64::MAX;
        }
        loop {
            let (bps, left_ns) = self.step(at);
            let sent = u128::from(bps) * left_ns;
            if sent >= need {
                let ns = match u64::try_from(need) {
                    Ok(need) => need.div_ceil(bps.max(1)).into(),
                    Err(_) => need.div_ceil(u128::from(bps.max(1))),
                };
                return u64::try_from(at + ns).unwrap_or(u64::MAX);
            }
            need -= sent;
            at += left_ns;
        }
    }

    /// Bytes offered from the start until `at_us`.
    fn until(&self, at_us: u64) -> u64 {
        let in_period = |ns: u128| {
            let mut bits_ns = 0;
            let mut begin = 0;
            for &(bps, end) in &self.steps {
                bits_ns += u128::from(bps) * (end.min(ns) - begin);
                if end >= ns {
                    break;
                }
                begin = end;
            }
            bits_ns
        };
        let total = |us: u64| {
            let ns = u128::from(us) * 1_000;
            let periods = ns / self.period_ns;
            periods.saturating_mul(if periods > 0 { in_period(self.period_ns) } else { 0 })
                + in_period(ns % self.period_ns)
        };
        let bits_ns = total(at_us.saturating_add(self.shift_us)) - total(self.shift_us);
        u64::try_from(bits_ns / (8 * NS_PER_S)).unwrap_or(u64::MAX)
    }

    fn mean_rate(&self) -> Bitrate {
        let mut bits_ns = 0;
        let mut begin = 0;
        for &(bps, end) in &self.steps {
            bits_ns += u128::from(bps) * (end - begin);
            begin = end;
        }
        Bitrate::from_bps(u64::try_from(bits_ns / self.period_ns).unwrap_or(u64::MAX))
    }
}

/// Moments at which so many bytes may leave. What nobody uses at its moment is lost.
#[derive(Clone, Debug)]
struct Grants {
    /// In microseconds from the start of a period, in order.
    at_us: Arc<[u64]>,
    bytes: Arc<[u32]>,
    /// Bytes before each grant, and of all.
    before: Arc<[u64]>,
    period_us: u64,
    shift_us: u64,
    /// The grant at hand: its period, its place there, and how much of it was used.
    cycle: u64,
    index: usize,
    used: u32,
}

impl Grants {
    fn new(grants: impl Iterator<Item = (u64, u32)>, period_us: u64, shift_us: u64) -> Self {
        let (mut at_us, mut bytes, mut before) = (Vec::new(), Vec::new(), vec![0]);
        let mut total = 0;
        for (at, len) in grants {
            at_us.push(at);
            bytes.push(len);
            total += u64::from(len);
            before.push(total);
        }
        Self {
            at_us: at_us.into(),
            bytes: bytes.into(),
            before: before.into(),
            period_us: period_us.max(1),
            shift_us,
            cycle: 0,
            index: 0,
            used: 0,
        }
    }

    fn total(&self) -> u64 {
        self.before[self.at_us.len()]
    }

    fn finish_ns(&mut self, from_ns: u64, bytes: u64) -> u64 {
        if self.total() == 0 {
            return u64::MAX;
        }
        // A grant is there for whoever waits at its microsecond.
        self.advance_to(from_ns / 1_000 + u64::from(!from_ns.is_multiple_of(1_000)) + self.shift_us);
        let mut need = bytes;
        loop {
            let left = u64::from(self.bytes[self.index] - self.used);
            if left >= need {
                self.used += need as u32;
                let at_us = self.cycle * self.period_us + self.at_us[self.index];
                return at_us.saturating_sub(self.shift_us) * 1_000;
            }
            need -= left;
            self.next();
        }
    }

    /// Moves on to the first grant at `us` or later, on the trace's own time.
    fn advance_to(&mut self, us: u64) {
        let (cycle, within) = (us / self.period_us, us % self.period_us);
        if (cycle, within) <= (self.cycle, self.at_us[self.index]) {
            return;
        }
        self.used = 0;
        self.cycle = cycle;
        self.index = self.at_us.partition_point(|&at| at < within);
        if self.index == self.at_us.len() {
            self.index = 0;
            self.cycle += 1;
        }
    }

    fn next(&mut self) {
        self.used = 0;
        self.index += 1;
        if self.index == self.at_us.len() {
            self.index = 0;
            self.cycle += 1;
        }
    }

    /// Bytes of all grants before `at_us`.
    fn until(&self, at_us: u64) -> u64 {
        let total = |us: u64| {
            let index = self.at_us.partition_point(|&at| at < us % self.period_us);
            us / self.period_us * self.total() + self.before[index]
        };
        total(at_us.saturating_add(self.shift_us)) - total(self.shift_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(steps: &[(u32, u64)]) -> Course {
        Capacity::Steps(steps.iter().map(|&(mbps, us)| (Bitrate::from_mbps(mbps), us)).collect()).course(1)
    }

    fn opportunities(at_ms: &[u64], scale: f64, from_us: u64) -> Course {
        let data = Some(Arc::new(Trace::Opportunities(at_ms.to_vec())));
        Capacity::Trace(TraceRef { name: "t".into(), scale, from_us, data }).course(1)
    }

    #[test]
    fn a_step_in_the_middle_of_a_packet_slows_it_down() {
        // 1000 bytes at 8 Mbit/s take a millisecond, at 4 Mbit/s two.
        let mut course = steps(&[(8, 1_000), (4, 2_000)]);
        assert_eq!(course.finish_ns(0, 1_000), 1_000_000);
        assert_eq!(course.finish_ns(500_000, 1_000), 2_000_000);
        assert_eq!(course.finish_ns(2_900_000, 1_000), 3_950_000, "and round again");
        assert_eq!(course.offered(0, 3_000), Some(2_000));
        assert_eq!(course.offered(500, 6_500), Some(4_000));
        assert_eq!(course.rate(3_500), Some(Bitrate::from_mbps(8)));
        let rates: Vec<_> =
            course.changes(4_000).iter().map(|&(at, _, after)| (at, after.as_bps())).collect();
        assert_eq!(rates, [(1_000, 4_000_000), (3_000, 8_000_000), (4_000, 4_000_000)]);
    }

    #[test]
    fn an_outage_holds_a_packet_and_no_capacity_holds_it_for_ever() {
        let mut course = steps(&[(8, 1_000), (0, 5_000)]);
        assert_eq!(course.finish_ns(500_000, 1_000), 6_500_000);
        assert_eq!(steps(&[(0, 1_000)]).finish_ns(0, 1), u64::MAX);
    }

    /// Packets share opportunities; what is left of one when the queue runs empty is lost.
    #[test]
    fn opportunities_are_used_in_part_and_wasted() {
        let mut course = opportunities(&[0, 5, 5, 9], 1.0, 0);
        assert_eq!(course.finish_ns(0, 1_000), 0);
        // 500 bytes of the first, 500 of the second.
        assert_eq!(course.finish_ns(0, 1_000), 5_000_000);
        assert_eq!(course.finish_ns(5_000_000, 1_000), 5_000_000);
        // The second at 5 ms and what is left of the first would be enough, but nobody waited.
        assert_eq!(course.finish_ns(5_000_001, 1_500), 9_000_000);
        // Round again: the period is 10 ms.
        assert_eq!(course.finish_ns(9_000_000, 1_500), 10_000_000);
        assert_eq!(course.offered(0, 10_000), Some(6_000));
        assert_eq!(course.offered(5_000, 20_000), Some(10_500));
    }

    #[test]
    fn a_trace_can_be_scaled_and_begun_in_the_middle() {
        let mut course = opportunities(&[0, 4, 9], 0.25, 3_000);
        assert_eq!(course.finish_ns(0, 375), 1_000_000);
        assert_eq!(course.finish_ns(1_000_000, 376), 7_000_000);
        assert_eq!(course.offered(0, 10_000), Some(1_125));
        assert_eq!(course.mean_rate(), Some(Bitrate::from_bps(900_000)));
    }

    #[test]
    fn what_was_not_loaded_has_no_capacity() {
        let trace = TraceRef { name: "t".into(), scale: 1.0, from_us: 0, data: None };
        assert_eq!(Capacity::Trace(trace).course(1).finish_ns(0, 1), u64::MAX);
    }

    /// However packets are spaced, a saturated course delivers what it says it offers.
    #[test]
    fn a_busy_link_delivers_what_is_offered() {
        for capacity in [
            Capacity::Constant(Bitrate::from_mbps(37)),
            Capacity::Cellular(Bitrate::from_mbps(8)),
            Capacity::WiFi(Bitrate::from_mbps(60)),
        ] {
            let mut course = capacity.course(5);
            let (mut at, mut sent) = (0, 0u64);
            while at < 150_000_000_000 {
                sent += 1_228;
                at = course.finish_ns(at, 1_228);
            }
            let offered = course.offered(0, at / 1_000).unwrap();
            assert!(offered.abs_diff(sent) <= 60_000, "{capacity:?}: {offered} {sent}");
        }
    }
}

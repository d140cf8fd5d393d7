//! One direction of a network path.
//!
//! A packet waits in a queue, is put on the wire when the link's capacity allows, may be lost, damaged or
//! doubled there, and arrives after delay and jitter. Owns packets while they wait and decides their fate;
//! what they carry it does not look at. Invariant: apart from packets picked for reordering, what arrives does
//! so in the order sent.

mod aqm;
mod capacity;
mod synthetic;
mod trace;

use std::collections::VecDeque;

use fastrand::Rng;
use rift_core::Timestamp;
use rift_core::endpoint::Ecn;

use crate::loss::{Loss, LossProcess};

pub use aqm::Aqm;
use aqm::{AqmState, Verdict};
pub use capacity::{Capacity, Course, TraceRef};
pub(crate) use synthetic::{next_after, normal};
pub use trace::{Trace, TraceError};

/// IPv4 and UDP headers, which take room on the wire too.
pub const IP_UDP_HEADER_LEN: u64 = 28;

/// How much waits in a queue before packets are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueLimit {
    /// Bytes, those being sent included.
    Bytes(u64),
    /// What the link sends in so many microseconds at its rate of the moment; at its mean where it has no rates.
    Time(u64),
}

/// What a link does to packets. Probabilities are from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkConfig {
    /// How fast packets leave the queue.
    pub capacity: Capacity,
    /// Propagation delay in microseconds.
    pub delay_us: u64,
    /// Each packet is delayed by up to this much more, evenly spread, without overtaking.
    pub jitter_us: u64,
    /// Each packet is delayed by a normally distributed time of this deviation, if that is positive, without
    /// overtaking.
    pub jitter_sd_us: u64,
    /// More than the queue holds is dropped.
    pub queue: QueueLimit,
    /// What else the queue does.
    pub aqm: Aqm,
    /// Which packets are lost on the wire.
    pub loss: Loss,
    /// Share of packets that take `reorder_us` longer and may be overtaken.
    pub reorder: f64,
    /// See `reorder`.
    pub reorder_us: u64,
    /// Share of packets that arrive twice.
    pub duplicate: f64,
    /// Share of packets of which one bit is flipped.
    pub corrupt: f64,
}

impl Default for LinkConfig {
    /// A path without faults: unlimited rate, no delay, a queue of 1 MB.
    fn default() -> Self {
        Self {
            capacity: Capacity::Unlimited,
            delay_us: 0,
            jitter_us: 0,
            jitter_sd_us: 0,
            queue: QueueLimit::Bytes(1_000_000),
            aqm: Aqm::DropTail,
            loss: Loss::None,
            reorder: 0.0,
            reorder_us: 2_000,
            duplicate: 0.0,
            corrupt: 0.0,
        }
    }
}

impl LinkConfig {
    /// How much longer a packet that is picked for reordering takes, in microseconds.
    #[must_use]
    pub fn reorder_us_max(&self) -> u64 {
        if self.reorder > 0.0 { self.reorder_us } else { 0 }
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The queue dropped it.
    Dropped,
    /// Lost on the wire.
    Lost,
    /// It arrives.
    Arrives {
        /// When.
        at: Timestamp,
        /// When a second copy arrives, if one does.
        again: Option<Timestamp>,
        /// The bit of the packet that is flipped, if one is.
        flipped_bit: Option<usize>,
        /// The ECN field with which it arrives.
        ecn: Ecn,
    },
}

/// What happened on a link so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Packets handed to the link.
    pub packets: u64,
    /// Their bytes, without IP and UDP headers.
    pub bytes: u64,
    /// Packets for which the queue had no room.
    pub queue_full: u64,
    /// Packets that the queue dropped early.
    pub dropped_early: u64,
    /// Packets that were marked.
    pub marked: u64,
    /// Packets lost on the wire.
    pub lost: u64,
    /// Packets picked for reordering.
    pub reordered: u64,
    /// Packets doubled.
    pub duplicated: u64,
    /// Packets damaged.
    pub corrupted: u64,
    /// The longest time that a packet waited for its turn, in microseconds.
    pub queue_us_max: u64,
}

impl LinkCounters {
    /// Packets that did not arrive.
    #[must_use]
    pub fn gone(&self) -> u64 {
        self.queue_full + self.dropped_early + self.lost
    }
}

/// A link, its state, and the packets in its queue, of which each carries a `T`.
#[derive(Clone, Debug)]
pub struct Link<T> {
    config: LinkConfig,
    course: Course,
    course_seed: u64,
    loss: LossProcess,
    aqm: AqmState,
    rng: Rng,
    waiting: VecDeque<Waiting<T>>,
    waiting_bytes: u64,
    /// The packet being sent.
    sending: Option<Sending<T>>,
    /// When the link was or will be free, in nanoseconds.
    free_ns: u64,
    last_arrival: Timestamp,
    counters: LinkCounters,
    standing: Standing,
}

#[derive(Clone, Debug)]
struct Waiting<T> {
    since: Timestamp,
    /// Without IP and UDP headers.
    len: usize,
    ecn: Ecn,
    item: T,
}

impl<T> Waiting<T> {
    fn bytes(&self) -> u64 {
        self.len as u64 + IP_UDP_HEADER_LEN
    }
}

#[derive(Clone, Debug)]
struct Sending<T> {
    packet: Waiting<T>,
    from_ns: u64,
    until_ns: u64,
    /// To be dropped, which takes no time.
    dropped: bool,
}

impl<T> Link<T> {
    /// A link with an empty queue. `seed` decides all that is random about it.
    #[must_use]
    pub fn new(config: LinkConfig, seed: u64) -> Self {
        Self {
            loss: LossProcess::new(config.loss),
            course: config.capacity.course(seed),
            course_seed: seed,
            config,
            aqm: AqmState::default(),
            rng: Rng::with_seed(seed),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            sending: None,
            free_ns: 0,
            last_arrival: Timestamp::ZERO,
            counters: LinkCounters::default(),
            standing: Standing::default(),
        }
    }

    /// Hands a packet with `len` bytes of UDP payload to the link at `now`. Gives it back if the queue has no
    /// room for it. Go on with [`poll`](Self::poll).
    ///
    /// # Errors
    /// The packet.
    pub fn send(&mut self, now: Timestamp, len: usize, ecn: Ecn, item: T) -> Result<(), T> {
        self.counters.packets += 1;
        self.counters.bytes += len as u64;
        let packet = Waiting { since: now, len, ecn, item };
        if !self.has_room(now, packet.bytes()) {
            self.counters.queue_full += 1;
            return Err(packet.item);
        }
        self.waiting_bytes += packet.bytes();
        self.waiting.push_back(packet);
        if self.sending.is_none() {
            let from_ns = self.free_ns.max(now.as_micros().saturating_mul(1_000));
            self.send_next(from_ns);
        }
        Ok(())
    }

    /// When [`poll`](Self::poll) has something to give; [`Timestamp::NEVER`] if nothing waits.
    #[must_use]
    pub fn poll_at(&self) -> Timestamp {
        let until_ns = self.sending.as_ref().map_or(u64::MAX, |sending| sending.until_ns);
        if until_ns == u64::MAX { Timestamp::NEVER } else { Timestamp::from_micros(until_ns.div_ceil(1_000)) }
    }

    /// The next packet that has left the queue by `now`, and what becomes of it.
    pub fn poll(&mut self, now: Timestamp) -> Option<(T, Fate)> {
        if self.poll_at() > now {
            return None;
        }
        let Sending { packet, until_ns, dropped, .. } = self.sending.take()?;
        self.waiting_bytes -= packet.bytes();
        self.free_ns = until_ns;
        self.send_next(until_ns);
        if dropped {
            self.counters.dropped_early += 1;
            return Some((packet.item, Fate::Dropped));
        }
        let left = Timestamp::from_micros(until_ns.div_ceil(1_000));
        let fate = self.fly(left, &packet);
        Some((packet.item, fate))
    }

    /// Changes the link. Packets that have left keep the fate they had.
    pub fn reconfigure(&mut self, now: Timestamp, config: LinkConfig) {
        if config.loss != self.config.loss {
            self.loss = LossProcess::new(config.loss);
        }
        if config.capacity != self.config.capacity {
            self.course = config.capacity.course(self.course_seed);
            let now_ns = now.as_micros().saturating_mul(1_000);
            if let Some(sending) = &mut self.sending
                && sending.until_ns > now_ns
            {
                // What is left of the packet being sent leaves at the new rate.
                let (bytes, sent_ns) = (sending.packet.bytes(), now_ns.saturating_sub(sending.from_ns));
                let whole_ns = sending.until_ns - sending.from_ns;
                let left = bytes - (u128::from(bytes) * u128::from(sent_ns) / u128::from(whole_ns)) as u64;
                sending.until_ns = self.course.finish_ns(now_ns, left);
                sending.from_ns = now_ns;
            }
        }
        self.config = config;
    }

    /// What the link does now.
    #[must_use]
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// What it can carry.
    #[must_use]
    pub fn course(&self) -> &Course {
        &self.course
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> &LinkCounters {
        &self.counters
    }

    /// How long a packet sent at `now` would wait for its turn, in microseconds.
    #[must_use]
    pub fn queue_us(&self, now: Timestamp) -> u64 {
        let Some(sending) = &self.sending else { return 0 };
        let waiting = self.waiting_bytes - sending.packet.bytes();
        let until_ns = if waiting == 0 {
            sending.until_ns
        } else {
            self.course.clone().finish_ns(sending.until_ns, waiting)
        };
        (until_ns / 1_000).saturating_sub(now.as_micros())
    }

    /// The shortest wait in each stretch of [`STANDING_WINDOW_US`] in which packets left, in microseconds, with
    /// the number of the stretch: what is left of a queue when bursts are taken away.
    #[must_use]
    pub fn standing_us(&self) -> &[(u32, u32)] {
        &self.standing.shortest
    }

    fn has_room(&self, now: Timestamp, bytes: u64) -> bool {
        let most = match self.config.queue {
            QueueLimit::Bytes(bytes) => bytes,
            QueueLimit::Time(us) => {
                let rate = if self.course.is_granted() {
                    self.course.mean_rate()
                } else {
                    self.course.rate(now.as_micros())
                };
                rate.map_or(u64::MAX, |rate| rate.bytes_in(us))
            }
        };
        // A queue of any size holds one packet.
        self.waiting_bytes + bytes <= most.max(bytes)
    }

    /// Takes the next packet out of the queue, from `from_ns` on.
    fn send_next(&mut self, from_ns: u64) {
        let Some(packet) = self.waiting.pop_front() else { return };
        // From a queue with several packets being sent, the last began when the one before it was done.
        let from_ns = from_ns.max(packet.since.as_micros().saturating_mul(1_000));
        let from_us = from_ns / 1_000;
        let wait_us = from_us.saturating_sub(packet.since.as_micros());
        let mut ecn = packet.ecn;
        let verdict = if self.config.aqm == Aqm::DropTail {
            Verdict::Send
        } else {
            let backlog = self.waiting_bytes;
            let chance = self.rng.f64();
            self.aqm.judge(self.config.aqm, from_us, wait_us, backlog, ecn, chance)
        };
        let until_ns = match verdict {
            Verdict::Drop => from_ns,
            Verdict::Send | Verdict::Mark => self.course.finish_ns(from_ns, packet.bytes()),
        };
        if verdict == Verdict::Mark {
            self.counters.marked += 1;
            ecn = Ecn::Ce;
        }
        // Where packets leave at moments, the wait is that for the moment.
        let turn_us = if self.course.is_granted() { until_ns / 1_000 } else { from_us };
        let wait_us = turn_us.saturating_sub(packet.since.as_micros());
        if until_ns != u64::MAX {
            self.counters.queue_us_max = self.counters.queue_us_max.max(wait_us);
            if self.config.capacity != Capacity::Unlimited {
                self.standing.add(turn_us, wait_us);
            }
        }
        let dropped = verdict == Verdict::Drop;
        self.sending = Some(Sending { packet: Waiting { ecn, ..packet }, from_ns, until_ns, dropped });
    }

    fn fly(&mut self, left: Timestamp, packet: &Waiting<T>) -> Fate {
        if self.loss.next(&mut self.rng) {
            self.counters.lost += 1;
            return Fate::Lost;
        }
        let at = self.arrival(left);
        let again = self.happens(self.config.duplicate).then(|| {
            self.counters.duplicated += 1;
            self.arrival(left)
        });
        let flipped_bit = (packet.len > 0 && self.happens(self.config.corrupt)).then(|| {
            self.counters.corrupted += 1;
            self.rng.usize(..packet.len * 8)
        });
        Fate::Arrives { at, again, flipped_bit, ecn: packet.ecn }
    }

    fn arrival(&mut self, left: Timestamp) -> Timestamp {
        let jitter_us = if self.config.jitter_us > 0 { self.rng.u64(..=self.config.jitter_us) } else { 0 };
        let normal_us = if self.config.jitter_sd_us > 0 {
            (normal(&mut self.rng) * self.config.jitter_sd_us as f64).max(0.0) as u64
        } else {
            0
        };
        let at = left.plus_micros(self.config.delay_us).plus_micros(jitter_us + normal_us);
        if self.happens(self.config.reorder) {
            self.counters.reordered += 1;
            return at.plus_micros(self.config.reorder_us);
        }
        // Where the delay was cut, packets sent before still come first.
        self.last_arrival = self.last_arrival.max(at);
        self.last_arrival
    }

    fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.f64() < probability
    }
}

/// Length of the stretches in which a standing queue is looked for: a frame at 60 per second.
pub const STANDING_WINDOW_US: u64 = 16_667;

/// The shortest wait in each stretch of time.
#[derive(Clone, Debug, Default)]
struct Standing {
    shortest: Vec<(u32, u32)>,
}

impl Standing {
    fn add(&mut self, at_us: u64, wait_us: u64) {
        let window = u32::try_from(at_us / STANDING_WINDOW_US).unwrap_or(u32::MAX);
        let wait_us = u32::try_from(wait_us).unwrap_or(u32::MAX);
        match self.shortest.last_mut() {
            Some((last, shortest)) if *last == window => *shortest = (*shortest).min(wait_us),
            _ => self.shortest.push((window, wait_us)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rift_core::Bitrate;

    fn at(us: u64) -> Timestamp {
        Timestamp::from_micros(us)
    }

    fn rated(mbps: u32) -> LinkConfig {
        LinkConfig { capacity: Capacity::Constant(Bitrate::from_mbps(mbps)), ..LinkConfig::default() }
    }

    /// Sends packets of `len` bytes at the given times and gives the fate of each, in the order of leaving.
    fn fates(link: &mut Link<usize>, times: impl IntoIterator<Item = u64>, len: usize) -> Vec<(usize, Fate)> {
        let mut fates = Vec::new();
        for (i, us) in times.into_iter().enumerate() {
            while let Some(fate) = link.poll(at(us)) {
                fates.push(fate);
            }
            if let Err(i) = link.send(at(us), len, Ecn::Ect1, i) {
                fates.push((i, Fate::Dropped));
            }
        }
        while link.poll_at() < Timestamp::NEVER {
            let now = link.poll_at();
            fates.extend(link.poll(now));
        }
        fates
    }

    fn arrivals(fates: &[(usize, Fate)]) -> Vec<u64> {
        let arrival = |fate: &(usize, Fate)| match fate.1 {
            Fate::Arrives { at, .. } => Some(at.as_micros()),
            _ => None,
        };
        fates.iter().filter_map(arrival).collect()
    }

    #[test]
    fn rate_and_delay_set_the_arrival() {
        let mut link = Link::new(LinkConfig { delay_us: 10_000, ..rated(8) }, 1);
        // 1000 bytes at 1 byte per microsecond.
        let fates = fates(&mut link, [0, 0, 50_000], 972);
        assert_eq!(arrivals(&fates), [11_000, 12_000, 61_000]);
        link.send(at(100_000), 972, Ecn::NotEct, 0).unwrap();
        link.send(at(100_000), 972, Ecn::NotEct, 1).unwrap();
        assert_eq!(link.queue_us(at(100_500)), 1_500);
    }

    /// Rounding to microseconds must not add up.
    #[test]
    fn a_fast_link_has_its_rate() {
        let mut link = Link::new(rated(1_000), 1);
        let fates = fates(&mut link, std::iter::repeat_n(0, 800), 1_222);
        assert_eq!(arrivals(&fates).last(), Some(&8_000));
    }

    #[test]
    fn a_full_queue_drops_the_newest() {
        let mut link = Link::new(LinkConfig { queue: QueueLimit::Bytes(3_000), ..rated(8) }, 1);
        let dropped: Vec<_> = (0..5).filter(|&i| link.send(at(0), 972, Ecn::NotEct, i).is_err()).collect();
        assert_eq!(dropped, [3, 4]);
        assert_eq!(link.counters().queue_full, 2);
        assert!(link.poll(at(1_000)).is_some());
        assert!(link.send(at(1_000), 972, Ecn::NotEct, 5).is_ok(), "room again once one has left");
    }

    #[test]
    fn a_queue_of_time_holds_what_leaves_in_that_time() {
        let mut link = Link::new(LinkConfig { queue: QueueLimit::Time(20_000), ..rated(8) }, 1);
        let taken = (0..50).filter(|&i| link.send(at(0), 972, Ecn::NotEct, i).is_ok()).count();
        assert_eq!(taken, 20);
    }

    /// What is in the queue when the rate changes leaves at the new rate, the packet being sent included.
    #[test]
    fn a_change_of_rate_reaches_what_waits() {
        let mut link = Link::new(rated(8), 1);
        for i in 0..3 {
            link.send(at(0), 972, Ecn::NotEct, i).unwrap();
        }
        link.reconfigure(at(500), rated(4));
        let mut left = Vec::new();
        while link.poll_at() < Timestamp::NEVER {
            left.push(link.poll_at().as_micros());
            link.poll(link.poll_at());
        }
        assert_eq!(left, [1_500, 3_500, 5_500]);
    }

    #[test]
    fn jitter_does_not_reorder_and_reordering_does() {
        let jittery =
            LinkConfig { delay_us: 5_000, jitter_us: 4_000, jitter_sd_us: 2_000, ..LinkConfig::default() };
        let overtaken = |config: LinkConfig| {
            let mut link = Link::new(config, 7);
            let times = arrivals(&fates(&mut link, (0..2_000).map(|i| i * 100), 500));
            assert!(times.iter().zip(0u64..).all(|(&t, i)| t >= i * 100 + 5_000));
            times.windows(2).filter(|w| w[1] < w[0]).count()
        };
        assert_eq!(overtaken(jittery.clone()), 0);
        let count = overtaken(LinkConfig { reorder: 0.05, reorder_us: 3_000, ..jittery });
        assert!((40..200).contains(&count), "{count}");
    }

    #[test]
    fn normal_jitter_has_its_deviation() {
        let mut link = Link::new(LinkConfig { jitter_sd_us: 5_000, ..LinkConfig::default() }, 3);
        let times = arrivals(&fates(&mut link, (0..4_000).map(|i| i * 100_000), 500));
        let mut late: Vec<_> = times.iter().zip(0u64..).map(|(&t, i)| t - i * 100_000).collect();
        late.sort_unstable();
        assert!((1_800..2_200).contains(&late.iter().filter(|&&us| us == 0).count()));
        // The 84th percentile of a normal distribution is one deviation above the mean.
        assert!((4_600..5_400).contains(&late[3_365]), "{}", late[3_365]);
    }

    #[test]
    fn doubled_and_damaged_packets_are_as_many_as_asked_for() {
        let config = LinkConfig { duplicate: 0.1, corrupt: 0.2, ..LinkConfig::default() };
        let mut link = Link::new(config, 3);
        for (_, fate) in fates(&mut link, 0..10_000, 100) {
            if let Fate::Arrives { flipped_bit: Some(bit), .. } = fate {
                assert!(bit < 800);
            }
        }
        let counters = link.counters();
        assert!((900..1_100).contains(&counters.duplicated), "{counters:?}");
        assert!((1_850..2_150).contains(&counters.corrupted), "{counters:?}");
        assert_eq!(counters.gone(), 0);
    }

    #[test]
    fn codel_keeps_a_queue_short_that_drop_tail_lets_stand() {
        // 10 % more than the link carries, for three seconds.
        let load = || (0..3_300).map(|i| i * 910);
        let longest = |aqm| {
            let mut link = Link::new(LinkConfig { aqm, ..rated(8) }, 1);
            let fates = fates(&mut link, load(), 972);
            (link.standing_us().last().unwrap().1, fates.iter().filter(|f| f.1 == Fate::Dropped).count())
        };
        let (tail_us, tail_dropped) = longest(Aqm::DropTail);
        let (codel_us, codel_dropped) = longest(Aqm::CoDel { target_us: 5_000, interval_us: 100_000 });
        assert!(tail_us > 250_000 && tail_dropped == 0, "{tail_us}");
        assert!(codel_us < tail_us / 2 && codel_dropped > 50, "{codel_us} {codel_dropped}");
    }

    #[test]
    fn marks_reach_the_receiver() {
        let mut link =
            Link::new(LinkConfig { aqm: Aqm::Mark { low_us: 2_000, high_us: 4_000 }, ..rated(8) }, 1);
        let marked: Vec<_> = fates(&mut link, std::iter::repeat_n(0, 10), 972)
            .into_iter()
            .map(|(_, fate)| matches!(fate, Fate::Arrives { ecn: Ecn::Ce, .. }))
            .collect();
        assert_eq!(marked[..2], [false, false]);
        assert!(marked[4..].iter().all(|&m| m), "{marked:?}");
        assert_eq!(link.counters().marked, marked.iter().filter(|&&m| m).count() as u64);
    }

    /// Bursts are no standing queue.
    #[test]
    fn a_standing_queue_is_what_stays_between_bursts() {
        let burst = |count: u64| {
            let mut link = Link::new(rated(8), 1);
            // Every 16.667 ms so many milliseconds of packets, three seconds long.
            let times = (0..180).flat_map(|i| std::iter::repeat_n(i * 16_667, count as usize));
            fates(&mut link, times, 972);
            link.standing_us().iter().map(|&(_, us)| us).max().unwrap()
        };
        assert!(burst(15) < 1_000, "{}", burst(15));
        assert!(burst(18) > 100_000, "{}", burst(18));
    }

    #[test]
    fn the_same_seed_gives_the_same_fates() {
        let config = LinkConfig {
            jitter_us: 3_000,
            loss: Loss::bursts(0.05, 4.0),
            reorder: 0.1,
            duplicate: 0.1,
            corrupt: 0.1,
            ..LinkConfig::default()
        };
        let run = |seed| fates(&mut Link::new(config.clone(), seed), (0..1_000).map(|i| i * 10), 1_200);
        assert_eq!(run(5), run(5));
        assert_ne!(run(5), run(6));
    }
}

//! One direction of a network path.
//!
//! A packet waits in a drop-tail queue, is put on the wire at the link's rate, may be lost, damaged or
//! doubled there, and arrives after delay and jitter. Owns the fate of packets, never their bytes.
//! Invariant: apart from packets picked for reordering, what arrives does so in the order sent.

use fastrand::Rng;
use rift_core::{Bitrate, Timestamp};

use crate::loss::{Loss, LossProcess};

/// IPv4 and UDP headers, which take room on the wire too.
const IP_UDP_HEADER_LEN: u64 = 28;

/// What a link does to packets. Probabilities are from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkConfig {
    /// How fast packets leave the queue; unlimited where `None`.
    pub rate: Option<Bitrate>,
    /// Propagation delay in microseconds.
    pub delay_us: u64,
    /// Each packet is delayed by up to this much more, evenly spread, without overtaking.
    pub jitter_us: u64,
    /// Bytes that the queue holds, those being sent included; more are dropped.
    pub queue_bytes_max: u64,
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
            rate: None,
            delay_us: 0,
            jitter_us: 0,
            queue_bytes_max: 1_000_000,
            loss: Loss::None,
            reorder: 0.0,
            reorder_us: 2_000,
            duplicate: 0.0,
            corrupt: 0.0,
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The queue was full.
    QueueFull,
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

/// A link and its state.
#[derive(Clone, Debug)]
pub struct Link {
    config: LinkConfig,
    loss: LossProcess,
    rng: Rng,
    /// When everything in the queue has left.
    busy_until: Timestamp,
    last_arrival: Timestamp,
    counters: LinkCounters,
}

impl Link {
    /// A link with an empty queue. `seed` decides all that is random about it.
    #[must_use]
    pub fn new(config: LinkConfig, seed: u64) -> Self {
        Self {
            config,
            loss: LossProcess::new(config.loss),
            rng: Rng::with_seed(seed),
            busy_until: Timestamp::ZERO,
            last_arrival: Timestamp::ZERO,
            counters: LinkCounters::default(),
        }
    }

    /// Sends a packet of `len` bytes of UDP payload at `now` and tells what becomes of it.
    pub fn send(&mut self, now: Timestamp, len: usize) -> Fate {
        self.counters.packets += 1;
        self.counters.bytes += len as u64;
        let Some(left) = self.enqueue(now, len as u64 + IP_UDP_HEADER_LEN) else {
            self.counters.queue_full += 1;
            return Fate::QueueFull;
        };
        if self.loss.next(&mut self.rng) {
            self.counters.lost += 1;
            return Fate::Lost;
        }
        let at = self.arrival(left);
        let again = self.happens(self.config.duplicate).then(|| {
            self.counters.duplicated += 1;
            self.arrival(left)
        });
        let flipped_bit = (len > 0 && self.happens(self.config.corrupt)).then(|| {
            self.counters.corrupted += 1;
            self.rng.usize(..len * 8)
        });
        Fate::Arrives { at, again, flipped_bit }
    }

    /// Changes the link; packets that were sent keep the fate they had.
    pub fn reconfigure(&mut self, config: LinkConfig) {
        if config.loss != self.config.loss {
            self.loss = LossProcess::new(config.loss);
        }
        self.config = config;
    }

    /// What the link does now.
    #[must_use]
    pub fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> &LinkCounters {
        &self.counters
    }

    /// How long a packet sent at `now` would wait for its turn, in microseconds.
    #[must_use]
    pub fn queue_us(&self, now: Timestamp) -> u64 {
        self.busy_until.micros_since(now)
    }

    /// When a packet of `bytes` has left, or `None` if the queue has no room for it.
    fn enqueue(&mut self, now: Timestamp, bytes: u64) -> Option<Timestamp> {
        let Some(rate) = self.config.rate else { return Some(now) };
        let wait_us = self.busy_until.micros_since(now);
        if rate.bytes_in(wait_us) + bytes > self.config.queue_bytes_max.max(bytes) {
            return None;
        }
        self.counters.queue_us_max = self.counters.queue_us_max.max(wait_us);
        self.busy_until = now.plus_micros(wait_us).plus_micros(rate.micros_for(bytes));
        Some(self.busy_until)
    }

    fn arrival(&mut self, left: Timestamp) -> Timestamp {
        let jitter_us = if self.config.jitter_us > 0 { self.rng.u64(..=self.config.jitter_us) } else { 0 };
        let at = left.plus_micros(self.config.delay_us).plus_micros(jitter_us);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Timestamp {
        Timestamp::from_micros(us)
    }

    fn arrival(fate: Fate) -> Option<Timestamp> {
        if let Fate::Arrives { at, .. } = fate { Some(at) } else { None }
    }

    #[test]
    fn rate_and_delay_set_the_arrival() {
        let config =
            LinkConfig { rate: Some(Bitrate::from_mbps(8)), delay_us: 10_000, ..LinkConfig::default() };
        let mut link = Link::new(config, 1);
        // 1000 bytes at 1 byte per microsecond.
        assert_eq!(arrival(link.send(at(0), 972)), Some(at(11_000)));
        assert_eq!(arrival(link.send(at(0), 972)), Some(at(12_000)));
        assert_eq!(link.queue_us(at(500)), 1_500);
        assert_eq!(arrival(link.send(at(50_000), 972)), Some(at(61_000)));
    }

    #[test]
    fn a_full_queue_drops_the_newest() {
        let config =
            LinkConfig { rate: Some(Bitrate::from_mbps(8)), queue_bytes_max: 3_000, ..LinkConfig::default() };
        let mut link = Link::new(config, 1);
        let fates: Vec<_> = (0..5).map(|_| link.send(at(0), 972)).collect();
        assert_eq!(fates.iter().filter(|&&f| f == Fate::QueueFull).count(), 2);
        assert_eq!(link.counters().queue_full, 2);
        assert!(arrival(link.send(at(1_000), 972)).is_some(), "room again once one has left");
    }

    #[test]
    fn jitter_does_not_reorder_and_reordering_does() {
        let jittery = LinkConfig { delay_us: 5_000, jitter_us: 4_000, ..LinkConfig::default() };
        let overtaken = |config: LinkConfig| {
            let mut link = Link::new(config, 7);
            let times: Vec<_> = (0..2_000).filter_map(|i| arrival(link.send(at(i * 100), 500))).collect();
            assert!(times.iter().zip(0u64..).all(|(&t, i)| t >= at(i * 100 + 5_000)));
            times.windows(2).filter(|w| w[1] < w[0]).count()
        };
        assert_eq!(overtaken(jittery), 0);
        let count = overtaken(LinkConfig { reorder: 0.05, reorder_us: 3_000, ..jittery });
        assert!((40..200).contains(&count), "{count}");
    }

    #[test]
    fn doubled_and_damaged_packets_are_as_many_as_asked_for() {
        let config = LinkConfig { duplicate: 0.1, corrupt: 0.2, ..LinkConfig::default() };
        let mut link = Link::new(config, 3);
        for i in 0..10_000 {
            if let Fate::Arrives { flipped_bit: Some(bit), .. } = link.send(at(i), 100) {
                assert!(bit < 800);
            }
        }
        let counters = link.counters();
        assert!((900..1_100).contains(&counters.duplicated), "{counters:?}");
        assert!((1_850..2_150).contains(&counters.corrupted), "{counters:?}");
        assert_eq!(counters.lost + counters.queue_full, 0);
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
        let run = |seed| {
            let mut link = Link::new(config, seed);
            (0..1_000).map(|i| link.send(at(i * 10), 1_200)).collect::<Vec<_>>()
        };
        assert_eq!(run(5), run(5));
        assert_ne!(run(5), run(6));
    }
}

//! Downloads that come by chance.

use std::collections::BTreeMap;

use fastrand::Rng;
use rift_core::Timestamp;

use super::tcp::{Tcp, TcpConfig};
use super::{CrossPacket, SEGMENT_BYTES, WIRE_BYTES};
use crate::link::next_after;

/// Of the Pareto distribution of sizes; between 1 and 2 the variance has no bound, as measured of web objects
/// (Crovella and Bestavros 1997).
const SHAPE: f64 = 1.5;
/// Sizes are cut at so many times the mean, so that one download does not decide a run.
const CUT: f64 = 100.0;
/// More than this at one time is a path that cannot carry what is asked of it; the rest is not begun.
const OPEN_MAX: usize = 200;

/// The downloads.
#[derive(Debug)]
pub(super) struct Web {
    every_us: u64,
    bytes: u64,
    /// A connection is set up in one round trip.
    rtt_us: u64,
    stop: Timestamp,
    rng: Rng,
    next_at: Timestamp,
    next_connection: u32,
    /// In order of their beginning, so that runs repeat.
    open: BTreeMap<u32, Tcp>,
    done: u64,
}

impl Web {
    pub(super) fn new(
        every_us: u64,
        bytes: u64,
        rtt_us: u64,
        start: Timestamp,
        stop: Timestamp,
        seed: u64,
    ) -> Self {
        let mut rng = Rng::with_seed(seed);
        let next_at = start.plus_micros(next_after(&mut rng, every_us as f64));
        Self {
            every_us,
            bytes,
            rtt_us,
            stop,
            rng,
            next_at,
            next_connection: 0,
            open: BTreeMap::new(),
            done: 0,
        }
    }

    pub(super) fn done(&self) -> u64 {
        self.done
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.open.is_empty()
    }

    pub(super) fn poll_at(&self) -> Timestamp {
        let next = if self.next_at < self.stop { self.next_at } else { Timestamp::NEVER };
        self.open.values().map(Tcp::poll_at).min().unwrap_or(Timestamp::NEVER).min(next)
    }

    pub(super) fn poll_packet(&mut self, now: Timestamp) -> Option<CrossPacket> {
        while self.next_at <= now && self.next_at < self.stop {
            self.begin();
        }
        let open = self.open.iter_mut();
        open.filter_map(|(&connection, tcp)| Some((connection, tcp.poll_packet(now)?)))
            .map(|(connection, number)| CrossPacket { wire_bytes: WIRE_BYTES, connection, number })
            .next()
    }

    pub(super) fn on_acknowledged(&mut self, now: Timestamp, packet: &CrossPacket) {
        let Some(tcp) = self.open.get_mut(&packet.connection) else { return };
        tcp.on_acknowledged(now, packet.number);
        if tcp.is_done() {
            self.open.remove(&packet.connection);
            self.done += 1;
        }
    }

    fn begin(&mut self) {
        let begins = self.next_at.plus_micros(self.rtt_us);
        let bytes = self.size();
        self.next_at = self.next_at.plus_micros(next_after(&mut self.rng, self.every_us as f64).max(1));
        if self.open.len() < OPEN_MAX {
            let config = TcpConfig { hystart: true, segments: Some(bytes.div_ceil(SEGMENT_BYTES).max(1)) };
            // A download that has begun is not broken off.
            self.open.insert(self.next_connection, Tcp::new(config, begins, Timestamp::NEVER));
            self.next_connection += 1;
        }
    }

    fn size(&mut self) -> u64 {
        let least = self.bytes as f64 * (SHAPE - 1.0) / SHAPE;
        let bytes = least * (1.0 - self.rng.f64()).powf(-1.0 / SHAPE);
        bytes.min(self.bytes as f64 * CUT) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::run;
    use super::super::{CrossConfig, CrossKind};
    use super::*;
    use crate::loss::Loss;

    #[test]
    fn downloads_come_at_their_pace_and_end() {
        let web = CrossConfig {
            kind: CrossKind::Web { every_us: 500_000, bytes: 200_000 },
            start_us: 2_000_000,
            stop_us: Some(190_000_000),
            delay_us: 0,
            reverse: false,
        };
        let out = run(&[web], 50, 10_000, 200_000, Loss::None, 200);
        let counters = out.counters[0];
        assert!((300..460).contains(&counters.downloads), "{counters:?}");
        let mbps = counters.arrived_bytes as f64 * 8.0 / 188e6;
        assert!((2.0..5.0).contains(&mbps), "{mbps}");
        assert_eq!(out.per_second[0][..2], [0, 0]);
        assert_eq!(out.per_second[0][198], 0, "{:?}", out.per_second[0]);
    }

    #[test]
    fn sizes_have_a_heavy_tail_and_their_mean() {
        let mut web = Web::new(1, 100_000, 0, Timestamp::ZERO, Timestamp::NEVER, 7);
        let mut sizes: Vec<u64> = (0..20_000).map(|_| web.size()).collect();
        sizes.sort_unstable();
        let mean = sizes.iter().sum::<u64>() as f64 / sizes.len() as f64;
        assert!((85_000.0..110_000.0).contains(&mean), "{mean}");
        assert!(sizes[10_000] < 60_000, "half are smaller than most think: {}", sizes[10_000]);
        // The largest hundredth carries a good part of all bytes.
        let tail = sizes[19_800..].iter().sum::<u64>() as f64 / (mean * 20_000.0);
        assert!((0.12..0.4).contains(&tail), "{tail}");
    }
}

//! Packets at a constant rate, with pauses.

use rift_core::{Bitrate, Timestamp};

use super::{CrossPacket, WIRE_BYTES};

/// The source.
#[derive(Debug)]
pub(super) struct Cbr {
    rate: Bitrate,
    on_us: u64,
    off_us: u64,
    start: Timestamp,
    stop: Timestamp,
    /// Packets of this turn so far, and which turn it is.
    sent: u64,
    turn: u64,
    number: u64,
}

impl Cbr {
    pub(super) fn new(rate: Bitrate, on_us: u64, off_us: u64, start: Timestamp, stop: Timestamp) -> Self {
        // Without a pause there is one turn.
        let on_us = if off_us == 0 { u64::MAX } else { on_us };
        let rate = rate.max(Bitrate::from_bps(1_000));
        Self { rate, on_us, off_us, start, stop, sent: 0, turn: 0, number: 0 }
    }

    pub(super) fn poll_at(&self) -> Timestamp {
        let at = self.next_at();
        if at < self.stop { at } else { Timestamp::NEVER }
    }

    pub(super) fn poll_packet(&mut self, now: Timestamp) -> Option<CrossPacket> {
        if now < self.poll_at() {
            return None;
        }
        self.sent += 1;
        if self.due_us() >= self.on_us {
            (self.sent, self.turn) = (0, self.turn + 1);
        }
        self.number += 1;
        Some(CrossPacket { wire_bytes: WIRE_BYTES, connection: 0, number: self.number })
    }

    /// The rate at a moment, if it sends then.
    pub(super) fn rate_at(&self, now: Timestamp) -> Option<Bitrate> {
        let since_us = now.micros_since(self.start);
        let is_on = self.off_us == 0 || since_us % (self.on_us + self.off_us) < self.on_us;
        (now >= self.start && now < self.stop && is_on).then_some(self.rate)
    }

    /// When the next packet is due, from the beginning of the turn.
    fn due_us(&self) -> u64 {
        let us = u128::from(self.sent) * u128::from(WIRE_BYTES) * 8_000_000 / u128::from(self.rate.as_bps());
        u64::try_from(us).unwrap_or(u64::MAX)
    }

    fn next_at(&self) -> Timestamp {
        let turns_us = if self.turn == 0 { 0 } else { self.turn.saturating_mul(self.on_us + self.off_us) };
        self.start.plus_micros(turns_us).plus_micros(self.due_us())
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::run;
    use super::super::{CrossConfig, CrossKind};
    use super::*;
    use crate::loss::Loss;

    #[test]
    fn it_sends_at_its_rate_in_its_turns() {
        let cbr = CrossConfig {
            kind: CrossKind::Cbr { rate: Bitrate::from_mbps(8), on_us: 2_000_000, off_us: 3_000_000 },
            start_us: 1_000_000,
            stop_us: Some(12_000_000),
            delay_us: 0,
            reverse: false,
        };
        let out = run(&[cbr], 20, 0, 100_000, Loss::None, 15);
        let per_second: Vec<u64> = out.per_second[0].iter().map(|bytes| bytes / 100_000).collect();
        // 1 MB a second while it sends.
        let expected = [0, 10, 10, 0, 0, 0, 10, 10, 0, 0, 0, 10, 0, 0, 0, 0];
        for (second, (got, want)) in per_second.iter().zip(expected).enumerate() {
            assert!(got.abs_diff(want) <= 1, "second {second}: {per_second:?}");
        }
        assert_eq!(out.dropped, 0);
    }

    #[test]
    fn without_a_pause_it_never_stops() {
        let mut cbr = Cbr::new(Bitrate::from_mbps(12), 0, 0, Timestamp::ZERO, Timestamp::NEVER);
        for i in 0..10_000u64 {
            assert_eq!(cbr.poll_at(), Timestamp::from_micros(i * 1_000));
            assert!(cbr.poll_packet(cbr.poll_at()).is_some());
        }
        assert_eq!(cbr.rate_at(Timestamp::from_micros(77)), Some(Bitrate::from_mbps(12)));
    }
}

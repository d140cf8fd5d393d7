//! Round-trip time and clock offset, from Ping and Pong.
//!
//! Owns the pings under way and what their answers tell. Never sends: the link asks when one is due.
//! Invariant: only an answer to a ping that was sent, and only the first one, is believed.

use crate::Timestamp;
use crate::message::proto::{Ping, Pong};

/// Pings that may be under way; more are forgotten, oldest first. At the shortest sensible interval
/// of 50 ms these span 800 ms, beyond which a sample says more about loss than about the path.
const OUTSTANDING: usize = 16;
/// Offset samples that are compared; the one with the shortest round trip counts.
const OFFSET_SAMPLES: usize = 16;
/// Assumed before the first sample, in microseconds.
const INITIAL_RTT_US: u64 = 50_000;

/// Smoothed round-trip time (as in RFC 6298 section 2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct RttEstimator {
    smoothed_us: u64,
    variance_us: u64,
    latest_us: Option<u64>,
}

impl RttEstimator {
    pub(crate) fn new() -> Self {
        Self { smoothed_us: INITIAL_RTT_US, variance_us: INITIAL_RTT_US / 2, latest_us: None }
    }

    pub(crate) fn on_sample(&mut self, rtt_us: u64) {
        if self.latest_us.is_none() {
            self.smoothed_us = rtt_us;
            self.variance_us = rtt_us / 2;
        } else {
            let deviation = self.smoothed_us.abs_diff(rtt_us);
            self.variance_us = (3 * self.variance_us + deviation) / 4;
            self.smoothed_us = (7 * self.smoothed_us + rtt_us) / 8;
        }
        self.latest_us = Some(rtt_us);
    }

    pub(crate) fn smoothed_us(&self) -> u64 {
        self.smoothed_us
    }

    pub(crate) fn variance_us(&self) -> u64 {
        self.variance_us
    }

    pub(crate) fn latest_us(&self) -> Option<u64> {
        self.latest_us
    }

    /// How long to wait for an acknowledgement before sending again.
    pub(crate) fn retransmit_after_us(&self) -> u64 {
        (self.smoothed_us + 4 * self.variance_us).clamp(20_000, 1_000_000)
    }
}

/// The pings of one side.
#[derive(Debug)]
pub(crate) struct Pinger {
    interval_us: u64,
    next_at: Timestamp,
    /// Timestamps of pings under way; 0 is a free place.
    outstanding: [u64; OUTSTANDING],
    next_place: usize,
    rtt: RttEstimator,
    offset: ClockOffset,
}

/// What an answer told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RttSample {
    pub(crate) rtt_us: u64,
}

impl Pinger {
    /// The first ping is due at `now`.
    pub(crate) fn new(now: Timestamp, interval_us: u64) -> Self {
        Self {
            interval_us,
            next_at: now,
            outstanding: [0; OUTSTANDING],
            next_place: 0,
            rtt: RttEstimator::new(),
            offset: ClockOffset::default(),
        }
    }

    pub(crate) fn rtt(&self) -> &RttEstimator {
        &self.rtt
    }

    /// The peer's clock less the own one, in microseconds.
    pub(crate) fn offset_us(&self) -> Option<i64> {
        self.offset.best_us()
    }

    pub(crate) fn poll_timeout(&self) -> Timestamp {
        self.next_at
    }

    /// The ping that is due at `now`.
    pub(crate) fn poll_ping(&mut self, now: Timestamp) -> Option<Ping> {
        if now < self.next_at {
            return None;
        }
        self.next_at = now.plus_micros(self.interval_us);
        // 0 marks a free place; a ping of the epoch's first microsecond names the next one.
        let stamp = now.as_micros().max(1);
        self.outstanding[self.next_place] = stamp;
        self.next_place = (self.next_place + 1) % OUTSTANDING;
        Some(Ping { timestamp_us: stamp })
    }

    /// Takes an answer; `None` if it answers nothing that is under way.
    pub(crate) fn on_pong(&mut self, now: Timestamp, pong: &Pong) -> Option<RttSample> {
        let place = self.outstanding.iter().position(|&t| t != 0 && t == pong.timestamp_us)?;
        self.outstanding[place] = 0;
        let total_us = now.as_micros().checked_sub(pong.timestamp_us)?;
        // A peer that claims to have held the ping for longer than the whole took is not believed.
        let held_us = pong.transmitted_us.saturating_sub(pong.received_us);
        let rtt_us = if held_us <= total_us { total_us - held_us } else { total_us };
        self.rtt.on_sample(rtt_us);
        if pong.received_us != 0 && pong.transmitted_us >= pong.received_us {
            self.offset.on_sample(rtt_us, four_stamps_offset(now, pong));
        }
        Some(RttSample { rtt_us })
    }

    /// The own clock jumped: what is under way and what was learned of the offset means nothing now.
    pub(crate) fn on_clock_jump(&mut self, now: Timestamp) {
        self.outstanding = [0; OUTSTANDING];
        self.offset = ClockOffset::default();
        self.next_at = now;
    }
}

/// RFC 5905 section 8: ((T2 - T1) + (T3 - T4)) / 2.
fn four_stamps_offset(now: Timestamp, pong: &Pong) -> i64 {
    let there = i128::from(pong.received_us) - i128::from(pong.timestamp_us);
    let back = i128::from(pong.transmitted_us) - i128::from(now.as_micros());
    i64::try_from((there + back) / 2).unwrap_or(0)
}

/// The offset of the sample with the shortest round trip among the last ones: the less time it was
/// under way, the less the two directions can differ.
#[derive(Debug, Default)]
struct ClockOffset {
    samples: [Option<(u64, i64)>; OFFSET_SAMPLES],
    next: usize,
}

impl ClockOffset {
    fn on_sample(&mut self, rtt_us: u64, offset_us: i64) {
        self.samples[self.next] = Some((rtt_us, offset_us));
        self.next = (self.next + 1) % OFFSET_SAMPLES;
    }

    fn best_us(&self) -> Option<i64> {
        self.samples.iter().flatten().min_by_key(|(rtt, _)| *rtt).map(|(_, offset)| *offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Timestamp {
        Timestamp::from_micros(us)
    }

    /// An answer of a peer whose clock is `offset` ahead, with `there` and `back` us on the way.
    fn pong(ping: Ping, offset: u64, there: u64, held: u64) -> Pong {
        let received_us = ping.timestamp_us + offset + there;
        Pong { timestamp_us: ping.timestamp_us, received_us, transmitted_us: received_us + held }
    }

    /// Proves R-SESS-9.
    #[test]
    fn offset_comes_from_the_least_delayed_sample() {
        let mut pinger = Pinger::new(at(1000), 100_000);
        let ping = pinger.poll_ping(at(1000)).unwrap();
        assert_eq!(pinger.poll_ping(at(1001)), None);
        // 30 ms there, 2 ms back: wrong by 14 ms.
        let sample = pinger.on_pong(at(1000 + 32_500), &pong(ping, 7_000_000, 30_000, 500)).unwrap();
        assert_eq!(sample.rtt_us, 32_000);
        assert_eq!(pinger.offset_us(), Some(7_014_000));
        let ping = pinger.poll_ping(at(200_000)).unwrap();
        pinger.on_pong(at(204_000), &pong(ping, 7_000_000, 2_000, 0)).unwrap();
        assert_eq!(pinger.offset_us(), Some(7_000_000));
        let ping = pinger.poll_ping(at(400_000)).unwrap();
        pinger.on_pong(at(450_000), &pong(ping, 7_000_000, 48_000, 0)).unwrap();
        assert_eq!(pinger.offset_us(), Some(7_000_000));
    }

    #[test]
    fn an_answer_counts_once_and_only_to_a_ping_that_was_sent() {
        let mut pinger = Pinger::new(at(0), 100_000);
        let ping = pinger.poll_ping(at(5)).unwrap();
        let answer = pong(ping, 0, 10, 0);
        assert!(pinger.on_pong(at(25), &answer).is_some());
        assert_eq!(pinger.on_pong(at(26), &answer), None);
        assert_eq!(pinger.on_pong(at(26), &Pong { timestamp_us: 0, ..answer }), None);
        assert_eq!(pinger.on_pong(at(26), &Pong { timestamp_us: 77, ..answer }), None);
    }

    #[test]
    fn hostile_times_do_not_overflow() {
        let mut pinger = Pinger::new(at(0), 1);
        for (received_us, transmitted_us) in [(u64::MAX, u64::MAX), (1, u64::MAX), (u64::MAX, 0), (0, 0)] {
            let ping = pinger.poll_ping(at(u64::MAX - 1)).unwrap();
            let answer = Pong { timestamp_us: ping.timestamp_us, received_us, transmitted_us };
            pinger.on_pong(at(u64::MAX), &answer);
            pinger.next_at = at(0);
        }
    }

    #[test]
    fn the_estimate_follows_the_samples() {
        let mut rtt = RttEstimator::new();
        (0..100).for_each(|_| rtt.on_sample(20_000));
        assert_eq!((rtt.smoothed_us(), rtt.latest_us()), (20_000, Some(20_000)));
        assert!(rtt.variance_us() < 100);
        (0..100).for_each(|_| rtt.on_sample(80_000));
        assert!(rtt.smoothed_us() > 79_000);
    }
}

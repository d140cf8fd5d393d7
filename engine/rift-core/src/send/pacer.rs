//! When the next burst may leave.

use crate::{Bitrate, FrameId, Timestamp};

/// Below this the clock of the pacer would not move in any useful way.
const RATE_MIN: Bitrate = Bitrate::from_mbps(1);

/// Spaces bursts, not packets.
///
/// The state is one point in time: when everything sent so far would have passed a link of the pacing
/// rate. The first burst of a frame leaves as long as less than a burst is still on that link, so
/// frames up to `burst_bytes_max` never wait inside and hardly before; each further burst of a long
/// frame waits until the link is empty.
#[derive(Debug)]
pub(super) struct Pacer {
    rate: Bitrate,
    burst_bytes_max: u64,
    /// In nanoseconds, because a packet at a high rate takes little more than one microsecond.
    drained_ns: u64,
    /// When something was sent last.
    sent_ns: u64,
    frame: Option<FrameId>,
    /// Encoded bytes of `frame` in the burst that is leaving.
    burst_bytes: u64,
    /// Something waits for the link.
    is_held: bool,
}

impl Pacer {
    pub(super) fn new(rate: Bitrate, burst_bytes_max: u32) -> Self {
        let burst_bytes_max = u64::from(burst_bytes_max.max(1));
        Self {
            rate: rate.max(RATE_MIN),
            burst_bytes_max,
            drained_ns: 0,
            sent_ns: 0,
            frame: None,
            burst_bytes: 0,
            is_held: false,
        }
    }

    /// Sets how many encoded bytes leave without a pause.
    pub(super) fn set_burst(&mut self, burst_bytes_max: u32) {
        self.burst_bytes_max = u64::from(burst_bytes_max.max(1));
    }

    /// What was to leave must wait until [`opens_at`](Self::opens_at).
    pub(super) fn hold(&mut self) {
        self.is_held = true;
    }

    pub(super) fn set_rate(&mut self, rate: Bitrate) {
        let rate = rate.max(RATE_MIN);
        // What was on the link after the last send takes the time of the new rate.
        let debt_ns = u128::from(self.drained_ns.saturating_sub(self.sent_ns));
        let debt_ns = debt_ns * u128::from(self.rate.as_bps()) / u128::from(rate.as_bps());
        self.drained_ns = self.sent_ns.saturating_add(u64::try_from(debt_ns).unwrap_or(u64::MAX));
        self.rate = rate;
    }

    /// When `encoded_bytes` more of `frame` may leave; [`Timestamp::ZERO`] within a burst.
    pub(super) fn opens_at(&self, frame: FrameId, encoded_bytes: u64) -> Timestamp {
        if self.frame != Some(frame) {
            let head_start_ns = self.nanos_for(self.burst_bytes_max);
            Timestamp::from_micros(self.drained_ns.saturating_sub(head_start_ns).div_ceil(1000))
        } else if self.burst_bytes + encoded_bytes <= self.burst_bytes_max {
            Timestamp::ZERO
        } else {
            Timestamp::from_micros(self.drained_ns.div_ceil(1000))
        }
    }

    /// Takes `encoded_bytes` of `frame` into the burst that is leaving, or into a new one.
    pub(super) fn admit(&mut self, frame: FrameId, encoded_bytes: u64) {
        if self.frame == Some(frame) && self.burst_bytes + encoded_bytes <= self.burst_bytes_max {
            self.burst_bytes += encoded_bytes;
        } else {
            self.frame = Some(frame);
            self.burst_bytes = encoded_bytes;
        }
    }

    /// Accounts for `datagram_bytes` that leave now, of whatever kind.
    pub(super) fn on_sent(&mut self, now: Timestamp, datagram_bytes: u64) {
        let now_ns = now.as_micros().saturating_mul(1000);
        self.sent_ns = now_ns;
        // At most a burst is made up for: who comes later than that was not waiting for the link.
        let late_ns = now_ns.saturating_sub(self.drained_ns);
        let is_excused =
            core::mem::take(&mut self.is_held) && late_ns <= self.nanos_for(self.burst_bytes_max);
        let from_ns = if is_excused { self.drained_ns } else { self.drained_ns.max(now_ns) };
        self.drained_ns = from_ns.saturating_add(self.nanos_for(datagram_bytes));
    }

    /// Forgets a state that no sending can have led to: the clock was set back.
    pub(super) fn limit(&mut self, now: Timestamp) {
        // A frame's first burst and all its parity on top of a burst, and the retransmission budget.
        let most_ns = self.nanos_for(self.burst_bytes_max * 5);
        let now_ns = now.as_micros().saturating_mul(1000);
        self.sent_ns = self.sent_ns.min(now_ns);
        self.drained_ns = self.drained_ns.min(now_ns.saturating_add(most_ns));
    }

    fn nanos_for(&self, bytes: u64) -> u64 {
        let ns = u128::from(bytes) * 8_000_000_000 / u128::from(self.rate.as_bps());
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(5_000_000);

    fn pacer() -> Pacer {
        // 100 bytes take 8 us.
        Pacer::new(Bitrate::from_mbps(100), 1000)
    }

    #[test]
    fn a_burst_is_never_split_and_the_next_waits_for_the_link() {
        let mut pacer = pacer();
        for _ in 0..2 {
            assert!(pacer.opens_at(FrameId(1), 500) <= NOW);
            pacer.admit(FrameId(1), 500);
            pacer.on_sent(NOW, 500);
        }
        assert_eq!(pacer.opens_at(FrameId(1), 500), NOW.plus_micros(80));
        pacer.admit(FrameId(1), 500);
        assert_eq!(pacer.opens_at(FrameId(1), 500), Timestamp::ZERO);
    }

    #[test]
    fn a_new_frame_starts_while_less_than_a_burst_is_under_way() {
        let mut pacer = pacer();
        pacer.admit(FrameId(1), 1000);
        pacer.on_sent(NOW, 1000);
        assert_eq!(pacer.opens_at(FrameId(2), 1000), NOW);
        pacer.admit(FrameId(2), 1000);
        pacer.on_sent(NOW, 1000);
        assert_eq!(pacer.opens_at(FrameId(3), 1), NOW.plus_micros(80));
    }

    #[test]
    fn a_late_wake_up_does_not_lower_the_rate_and_a_pause_earns_nothing() {
        let mut pacer = pacer();
        pacer.admit(FrameId(1), 1000);
        pacer.on_sent(NOW, 1000);
        pacer.hold();
        let late = NOW.plus_micros(80 + 30);
        pacer.admit(FrameId(1), 1000);
        pacer.on_sent(late, 1000);
        assert_eq!(pacer.opens_at(FrameId(1), 1000), NOW.plus_micros(160), "from when it might have left");
        pacer.hold();
        let later = NOW.plus_micros(160 + 81);
        pacer.admit(FrameId(1), 1000);
        pacer.on_sent(later, 1000);
        assert_eq!(pacer.opens_at(FrameId(1), 1000), later.plus_micros(80), "more than a burst late");
        let idle = later.plus_micros(90);
        pacer.admit(FrameId(1), 1000);
        pacer.on_sent(idle, 1000);
        assert_eq!(pacer.opens_at(FrameId(1), 1000), idle.plus_micros(80), "nothing was waiting");
    }

    #[test]
    fn small_packets_at_a_high_rate_are_not_rounded_away() {
        let mut pacer = Pacer::new(Bitrate::from_mbps(6000), 1000);
        pacer.admit(FrameId(1), 1000);
        for _ in 0..1000 {
            pacer.on_sent(NOW, 1200);
        }
        assert_eq!(pacer.opens_at(FrameId(1), 1000), NOW.plus_micros(1600));
    }

    #[test]
    fn a_clock_set_back_does_not_stop_the_stream() {
        let mut pacer = pacer();
        pacer.admit(FrameId(1), 1000);
        pacer.on_sent(NOW, 1000);
        let earlier = Timestamp::from_micros(1000);
        pacer.limit(earlier);
        assert!(pacer.opens_at(FrameId(2), 1) <= earlier.plus_micros(400));
        pacer.on_sent(Timestamp::NEVER, 1000);
        pacer.limit(earlier);
        assert!(pacer.opens_at(FrameId(2), 1) <= earlier.plus_micros(400));
    }

    #[test]
    fn a_new_rate_counts_for_what_is_under_way() {
        let mut pacer = pacer();
        pacer.admit(FrameId(1), 1000);
        pacer.on_sent(NOW, 1000);
        assert_eq!(pacer.opens_at(FrameId(1), 1000), NOW.plus_micros(80));
        pacer.set_rate(Bitrate::from_mbps(200));
        assert_eq!(pacer.opens_at(FrameId(1), 1000), NOW.plus_micros(40));
        pacer.set_rate(Bitrate::from_mbps(50));
        assert_eq!(pacer.opens_at(FrameId(1), 1000), NOW.plus_micros(160));
    }

    #[test]
    fn a_rate_of_zero_still_moves() {
        let mut pacer = Pacer::new(Bitrate::ZERO, 1000);
        pacer.admit(FrameId(1), 1000);
        pacer.on_sent(NOW, 1000);
        assert_eq!(pacer.opens_at(FrameId(1), 1000), NOW.plus_micros(8000));
    }
}

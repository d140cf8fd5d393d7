//! Sound between the network and the audio device.
//!
//! Owns the few packets that wait to be played. Never decodes or resamples. Invariant: packets leave in
//! order of their timestamps, each once, and no more than the configured time of sound ever waits: the
//! oldest is dropped first (RIFT section 5).

use crate::DropReason;
use crate::message::AudioPacket;

/// The longest packet that is taken: the largest Opus frame (RFC 6716 section 3.4).
const PACKET_MAX: usize = 1275;
/// Packets that can wait at all, whatever their duration: 20 ms of the shortest Opus frame.
const PACKETS_MAX: usize = 8;

/// One packet to be played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioFrame<'a> {
    /// Of the first sample, in microseconds of the host's clock.
    pub timestamp_us: u64,
    /// Sound that is missing before this packet, in microseconds: to be concealed.
    pub lost_us: u64,
    /// Raw Opus.
    pub payload: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    timestamp_us: u64,
    slot: u8,
    len: u16,
}

/// Sound waiting to be played.
#[derive(Debug)]
pub struct AudioQueue {
    waiting: Vec<Waiting>,
    free: Vec<u8>,
    bytes: Vec<u8>,
    frame_us: u64,
    queue_us_max: u64,
    /// Timestamp that the next packet should have; nothing before it is taken.
    next_us: Option<u64>,
    dropped: u64,
}

impl AudioQueue {
    /// A queue of packets that last `frame_us` each, in which at most `queue_us_max` of sound waits.
    #[must_use]
    pub fn new(frame_us: u64, queue_us_max: u64) -> Self {
        Self {
            waiting: Vec::with_capacity(PACKETS_MAX + 1),
            free: (0..PACKETS_MAX as u8).rev().collect(),
            bytes: vec![0; PACKETS_MAX * PACKET_MAX],
            frame_us: frame_us.max(1),
            queue_us_max,
            next_us: None,
            dropped: 0,
        }
    }

    /// Takes a packet; drops the oldest ones if more than the allowed time would wait.
    ///
    /// # Errors
    /// [`DropReason::Stale`] if its time has passed, [`DropReason::Duplicate`] if it is there already,
    /// [`DropReason::Malformed`] if no Opus packet is that long.
    pub fn handle(&mut self, packet: &AudioPacket<'_>) -> Result<(), DropReason> {
        let timestamp_us = packet.timestamp_us;
        if packet.payload.len() > PACKET_MAX || timestamp_us > u64::MAX / 2 {
            return Err(DropReason::Malformed);
        }
        if self.next_us.is_some_and(|next| timestamp_us < next && next - timestamp_us < STALE_US_MAX) {
            return Err(DropReason::Stale);
        }
        let at = self.waiting.partition_point(|w| w.timestamp_us < timestamp_us);
        if self.waiting.get(at).is_some_and(|w| w.timestamp_us == timestamp_us) {
            return Err(DropReason::Duplicate);
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if at == 0 => return Err(DropReason::NoRoom),
            None => {
                let oldest = self.drop_oldest();
                return self.insert(at - 1, timestamp_us, oldest, packet.payload);
            }
        };
        self.insert(at, timestamp_us, slot, packet.payload)
    }

    /// The next packet to play.
    pub fn poll(&mut self) -> Option<AudioFrame<'_>> {
        if self.waiting.is_empty() {
            return None;
        }
        let oldest = self.waiting.remove(0);
        self.free.push(oldest.slot);
        let expected = self.next_us.unwrap_or(oldest.timestamp_us);
        self.next_us = Some(oldest.timestamp_us + self.frame_us);
        let start = usize::from(oldest.slot) * PACKET_MAX;
        Some(AudioFrame {
            timestamp_us: oldest.timestamp_us,
            lost_us: oldest.timestamp_us.saturating_sub(expected),
            payload: &self.bytes[start..start + usize::from(oldest.len)],
        })
    }

    /// Sound that waits, in microseconds.
    #[must_use]
    pub fn queued_us(&self) -> u64 {
        self.waiting.len() as u64 * self.frame_us
    }

    /// Packets that were dropped because too much sound waited.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn insert(&mut self, at: usize, timestamp_us: u64, slot: u8, payload: &[u8]) -> Result<(), DropReason> {
        let start = usize::from(slot) * PACKET_MAX;
        self.bytes[start..start + payload.len()].copy_from_slice(payload);
        self.waiting.insert(at, Waiting { timestamp_us, slot, len: payload.len() as u16 });
        while self.waiting.len() > 1 && self.queued_us() > self.queue_us_max {
            let slot = self.drop_oldest();
            self.free.push(slot);
        }
        Ok(())
    }

    fn drop_oldest(&mut self) -> u8 {
        let oldest = self.waiting.remove(0);
        self.dropped += 1;
        self.next_us = Some(oldest.timestamp_us + self.frame_us);
        oldest.slot
    }
}

/// A packet further in the past than this is not late: the host's clock has been set back.
const STALE_US_MAX: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(timestamp_us: u64, payload: &[u8]) -> AudioPacket<'_> {
        AudioPacket { timestamp_us, payload }
    }

    fn queue() -> AudioQueue {
        AudioQueue::new(5_000, 20_000)
    }

    #[test]
    fn packets_leave_in_order_and_tell_what_is_missing() {
        let mut queue = queue();
        for (stamp, payload) in [(5_000, [1]), (15_000, [3]), (10_000, [2]), (25_000, [5])] {
            queue.handle(&packet(stamp, &payload)).unwrap();
        }
        let mut played = Vec::new();
        while let Some(frame) = queue.poll() {
            played.push((frame.timestamp_us, frame.lost_us, frame.payload[0]));
        }
        assert_eq!(played, [(5_000, 0, 1), (10_000, 0, 2), (15_000, 0, 3), (25_000, 5_000, 5)]);
        assert_eq!(queue.handle(&packet(20_000, &[4])), Err(DropReason::Stale));
    }

    /// Proves R-AUD-2.
    #[test]
    fn never_more_than_the_limit_waits_and_the_oldest_goes_first() {
        let mut queue = queue();
        for n in 0..100u64 {
            queue.handle(&packet(n * 5_000, &[n as u8])).unwrap();
            assert!(queue.queued_us() <= 20_000);
        }
        assert_eq!(queue.dropped(), 96);
        assert_eq!(queue.poll().unwrap().payload, [96]);
    }

    #[test]
    fn duplicates_and_impossible_packets_are_refused() {
        let mut queue = queue();
        queue.handle(&packet(5_000, &[1])).unwrap();
        assert_eq!(queue.handle(&packet(5_000, &[1])), Err(DropReason::Duplicate));
        assert_eq!(queue.handle(&packet(0, &[0; PACKET_MAX + 1])), Err(DropReason::Malformed));
        assert_eq!(queue.handle(&packet(u64::MAX, &[])), Err(DropReason::Malformed));
    }

    #[test]
    fn short_packets_cannot_outgrow_the_pool() {
        let mut queue = AudioQueue::new(1, u64::MAX);
        for n in 0..100u64 {
            queue.handle(&packet(n, &[n as u8])).unwrap();
        }
        assert_eq!(queue.waiting.len(), PACKETS_MAX);
        assert_eq!(queue.poll().unwrap().payload, [100 - PACKETS_MAX as u8]);
    }

    #[test]
    fn a_host_clock_set_back_does_not_silence_the_stream() {
        let mut queue = queue();
        queue.handle(&packet(60_000_000, &[1])).unwrap();
        queue.poll();
        queue.handle(&packet(5_000, &[2])).unwrap();
        assert_eq!(queue.poll().unwrap().payload, [2]);
    }
}

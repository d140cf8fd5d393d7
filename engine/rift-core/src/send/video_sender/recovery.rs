//! Sending lost chunks again.

use super::super::retransmit::Refused;
use super::super::{Batch, BatchKind};
use super::{Active, VideoSender};
use crate::{FrameId, PacketId, Timestamp};

/// Two reports of one loss that are closer than this are the same report, whatever the round trip.
const RTT_US_MIN: u64 = 1000;

/// A frame that is too late to be shown is still what later ones predict from. So many round trips after it
/// was submitted a second request for it can have been served; by then a frame that does without is as near.
const LATE_RTTS: u64 = 3;

/// From this round trip on what was sent again in vain is too late whatever becomes of the next copy, in microseconds.
const LONG_RTT_US: u64 = 100_000;

/// Why a lost packet is not sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NackRefusal {
    Unknown,
    Stale,
    Duplicate,
    Late,
    Queue(Refused),
}

impl VideoSender {
    pub(super) fn begin_retransmission(&mut self) -> Option<Active> {
        let kind = BatchKind::Retransmission;
        let mut batch = Batch { count: 0, body_len: 0, last_body_len: 0, kind, frame_id: FrameId(0) };
        // Chunks of frames that are gone are passed over at the front and end a batch elsewhere.
        while let Some(chunk) = self.retransmissions.front() {
            if self.store.find(chunk).is_some() {
                break;
            }
            self.retransmissions.pop();
        }
        for chunk in self.retransmissions.iter().take(self.group_max) {
            let Some((slot, slice)) = self.store.find(chunk) else { break };
            let len = slice.body_len_of(chunk.chunk);
            if batch.count == 0 {
                batch.body_len = len;
                batch.frame_id = slot.frame_id;
            } else if len > batch.body_len || batch.last_body_len < batch.body_len {
                break;
            }
            batch.last_body_len = len;
            batch.count += 1;
        }
        (batch.count > 0).then(|| Active::new(batch))
    }

    pub(super) fn seal_retransmission(
        &mut self,
        packet_id: PacketId,
        seal: impl FnOnce(&[u8]) -> Option<usize>,
    ) -> Option<usize> {
        let chunk = self.retransmissions.front()?;
        let (slot, slice) = self.store.find(chunk)?;
        let template = slot.template(slice, chunk.chunk);
        let len = template.write(chunk.chunk, slot.payload(slice, chunk.chunk), &mut self.scratch)?;
        let sealed = seal(&self.scratch[..len])?;
        self.history.record(packet_id, chunk);
        self.retransmissions.pop();
        Some(sealed)
    }

    pub(super) fn queue_retransmission(&mut self, now: Timestamp, id: PacketId) -> Result<(), NackRefusal> {
        let chunk = self.history.chunk(id).ok_or(NackRefusal::Unknown)?;
        let Some((slot, slice)) = self.store.find(chunk) else {
            return Err(if self.store.is_evicted(chunk) { NackRefusal::Late } else { NackRefusal::Stale });
        };
        let body_len = slice.body_len_of(chunk.chunk);
        if self.is_bypassed(slot.frame_id) {
            return Err(NackRefusal::Stale);
        }
        let arrives_us = now.micros_since(slot.submitted_at).saturating_add(self.rtt_us / 2);
        let rtt_us = self.rtt_us.max(self.latest_rtt_us);
        if arrives_us > self.retransmit_us_max.max(rtt_us.saturating_mul(LATE_RTTS)) {
            return Err(NackRefusal::Late);
        }
        // A report that crossed the retransmission on its way. One eighth less, because a round trip
        // may be shorter than the smoothed one.
        let repeat_us = (self.rtt_us - self.rtt_us / 8).max(RTT_US_MIN);
        let resent_at = self.store.resent_at(chunk).ok_or(NackRefusal::Stale)?;
        if *resent_at != Timestamp::NEVER && now < resent_at.plus_micros(repeat_us) {
            return Err(NackRefusal::Duplicate);
        }
        let is_again = *resent_at != Timestamp::NEVER;
        self.retransmissions.push(chunk, body_len).map_err(NackRefusal::Queue)?;
        *resent_at = now;
        // A frame that does without what is missing comes as soon as a second copy, and all behind it with it.
        self.is_past_repair |= is_again && rtt_us >= LONG_RTT_US;
        Ok(())
    }

    /// No frame from the newest on predicts from `frame`.
    fn is_bypassed(&self, frame: FrameId) -> bool {
        let (from, to) = self.bypassed;
        (from..to).contains(&frame)
    }
}

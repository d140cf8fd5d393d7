//! Which frame the next ones should predict from while a long path loses packets.
//!
//! Owns that preference. A frame that is lost on a short path is repaired before the next ones are due; on a long one
//! all that predict from it are lost with it, and so would be those behind the frame that goes past it if that were
//! lost as well, which nobody knows for a round trip. As long as the path loses packets each frame therefore predicts
//! from one that the client is known to have, and whatever comes whole can be shown: the acknowledged reference
//! pictures of H.263 annex N. Never makes an encoder forget anything. Invariant: a preference is a frame that the
//! client has decoded.

use crate::FrameId;
use crate::feedback::PacketOutcome;
use crate::send::SliceMeta;

/// From this round trip on a frame that was lost is not repaired before it is late, in microseconds.
const ROUND_TRIP_US: u64 = 100_000;
/// For no more frames than this: what they predict from gets older, and larger frames are no remedy.
const FRAMES_MAX: u32 = 64;

/// The preference.
#[derive(Debug, Default)]
pub(super) struct Fallback {
    /// The newest frame that the client is known to have, as long as it is to be predicted from.
    known: Option<FrameId>,
    /// The newest frame that was acknowledged.
    acknowledged: Option<FrameId>,
    /// The newest frame that packets of were lost.
    lossy: FrameId,
    /// Frames since it began.
    frames: u32,
    is_due: bool,
}

impl Fallback {
    /// The newest frame that the client has decoded.
    pub(super) fn acknowledged(&self) -> Option<FrameId> {
        self.acknowledged
    }

    /// The client says that nothing newer than `last_valid` will come; what it says takes `rtt_us` to be answered.
    pub(super) fn begin_if_long(&mut self, last_valid: FrameId, rtt_us: u64) {
        if rtt_us >= ROUND_TRIP_US {
            self.begin(last_valid);
        }
    }

    /// Nothing newer than `last_valid` will come, and what is lost now would not be repaired in time either.
    pub(super) fn begin(&mut self, last_valid: FrameId) {
        if self.known.is_none() {
            self.frames = 0;
        }
        // What the client said may have been overtaken by an acknowledgement, which encoders go by.
        self.known = Some(last_valid).max(self.known).max(self.acknowledged);
        // The next frame is told of by what the client asks for itself.
        self.is_due = false;
    }

    /// A slice was handed over for sending.
    pub(super) fn on_slice(&mut self, meta: &SliceMeta) {
        if meta.keyframe {
            self.known = None;
        }
        if meta.last_slice && self.known.is_some() {
            self.frames += 1;
            self.is_due = true;
            if self.frames >= FRAMES_MAX {
                self.known = None;
            }
        }
    }

    /// A packet's fate is known.
    #[inline]
    pub(super) fn on_outcome(&mut self, outcome: &PacketOutcome) {
        if outcome.is_lost() {
            self.lossy = self.lossy.max(outcome.packet.frame);
        }
    }

    /// The client has decoded `frame`.
    pub(super) fn on_frame_acked(&mut self, frame: FrameId) {
        self.acknowledged = self.acknowledged.max(Some(frame));
        if self.known.is_some_and(|known| frame > known) {
            // Where it left behind all that lost anything, what is under way now will most likely be there too.
            self.known = (frame <= self.lossy).then_some(frame);
        }
    }

    /// What the next frame should predict from, once per frame.
    pub(super) fn poll(&mut self) -> Option<FrameId> {
        self.known.filter(|_| core::mem::take(&mut self.is_due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;
    use crate::feedback::{Fate, SentPacket};

    fn slice(frame: u64, keyframe: bool) -> SliceMeta {
        SliceMeta {
            frame_id: FrameId(frame),
            slice_index: 0,
            last_slice: true,
            keyframe,
            reference: Some(FrameId(frame - 1)).filter(|_| !keyframe),
            timestamp: Timestamp::ZERO,
            capture_us: 0,
            encode_us: 0,
        }
    }

    fn lose(fallback: &mut Fallback, frame: u64) {
        let packet = SentPacket { frame: FrameId(frame), ..SentPacket::default() };
        fallback.on_outcome(&PacketOutcome { packet, fate: Fate::Lost });
    }

    /// Proves R-REC-15.
    #[test]
    fn frames_predict_from_what_is_known_until_one_comes_that_left_after_all_losses() {
        let mut fallback = Fallback::default();
        lose(&mut fallback, 10);
        fallback.begin_if_long(FrameId(9), 300_000);
        assert_eq!(fallback.poll(), None, "the request itself is told");
        for frame in 30..40 {
            fallback.on_slice(&slice(frame, false));
            assert_eq!(fallback.poll(), Some(FrameId(9)), "{frame}");
            assert_eq!(fallback.poll(), None, "once");
        }
        // The first of them was lost and the second came.
        lose(&mut fallback, 30);
        lose(&mut fallback, 33);
        fallback.on_frame_acked(FrameId(31));
        fallback.on_slice(&slice(40, false));
        assert_eq!(fallback.poll(), Some(FrameId(31)));
        fallback.on_frame_acked(FrameId(8));
        fallback.on_slice(&slice(41, false));
        assert_eq!(fallback.poll(), Some(FrameId(31)), "an old acknowledgement");
        fallback.on_frame_acked(FrameId(34));
        fallback.on_slice(&slice(42, false));
        assert_eq!(fallback.poll(), None);
        // A request that was overtaken.
        fallback.begin_if_long(FrameId(33), 300_000);
        fallback.on_slice(&slice(43, false));
        assert_eq!(fallback.poll(), Some(FrameId(34)));
    }

    /// Proves R-REC-15.
    #[test]
    fn a_short_path_a_keyframe_and_age_need_none_of_it() {
        let mut fallback = Fallback::default();
        fallback.begin_if_long(FrameId(9), ROUND_TRIP_US - 1);
        fallback.on_slice(&slice(12, false));
        assert_eq!(fallback.poll(), None);
        fallback.begin_if_long(FrameId(9), ROUND_TRIP_US);
        fallback.on_slice(&slice(13, true));
        assert_eq!(fallback.poll(), None);
        fallback.begin_if_long(FrameId(9), ROUND_TRIP_US);
        let told = (14..200).filter(|&frame| {
            fallback.on_slice(&slice(frame, false));
            fallback.poll().is_some()
        });
        assert_eq!(told.count() as u32, FRAMES_MAX - 1);
    }
}

//! Which long-term reference the library holds, and what to tell it after a loss.
//!
//! Owns: the picture that recovery may predict from. OpenH264 keeps one short-term reference (the frame
//! before) and two long-term ones, of which it uses one once that was confirmed; so recovery goes back to the
//! confirmed one. Never: calls the library.
//! Invariant: the confirmed picture is one whose mark reached the receiver, as far as was ever said: a mark is
//! confirmed by an acknowledgement, or, while none has come yet, by [`FRAMES_UNTIL_TRUSTED`] frames without a report
//! of loss.

use crate::h264::{LongTermMark, SliceHeader};

/// Frames after which a mark is trusted without an acknowledgement: a loss would have been reported by then (a
/// quarter of a second at 60 frames per second).
pub(super) const FRAMES_UNTIL_TRUSTED: u64 = 16;

/// Frames between a confirmation and the next mark.
pub(super) const FRAMES_BETWEEN_MARKS: u32 = 4;

/// A marked picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marked {
    /// The picture.
    pub(super) frame_id: u64,
    /// Its `frame_num`.
    pub(super) frame_num: u32,
    /// The frame that carries the mark: this or a later one.
    marked_by: u64,
}

/// How to honour a wish for an old reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recovery {
    /// The frame before is old enough.
    None,
    /// Predict from the confirmed long-term reference. A pending mark that was lost is to be dropped.
    LongTerm {
        /// The mark to drop.
        lost: Option<Marked>,
    },
    /// Nothing old enough is held.
    Keyframe,
}

/// The long-term references of one stream.
#[derive(Debug, Default)]
pub(super) struct LongTermReferences {
    confirmed: Option<u64>,
    pending: Option<Marked>,
    last_encoded: Option<u64>,
    acknowledged: Option<u64>,
}

impl LongTermReferences {
    /// A frame was encoded.
    pub(super) fn on_encoded(&mut self, frame_id: u64, header: &SliceHeader) {
        if header.idr {
            *self = Self { confirmed: Some(frame_id), acknowledged: self.acknowledged, ..Self::default() };
        } else {
            let modulus = 1u32 << header.frame_num_bits;
            match header.mark {
                Some(LongTermMark::Current { .. }) => {
                    self.pending =
                        Some(Marked { frame_id, frame_num: header.frame_num, marked_by: frame_id });
                }
                // The library marks the frame before, never an older one.
                Some(LongTermMark::Earlier { difference, .. }) => {
                    let frame_num = header.frame_num.wrapping_sub(difference) & (modulus - 1);
                    self.pending = self.last_encoded.map(|last| Marked {
                        frame_id: last,
                        frame_num,
                        marked_by: frame_id,
                    });
                }
                None => {}
            }
        }
        self.last_encoded = Some(frame_id);
    }

    /// The receiver has a frame and all that it was predicted from.
    pub(super) fn on_acknowledged(&mut self, frame_id: u64) {
        self.acknowledged = self.acknowledged.max(Some(frame_id));
    }

    /// A mark to confirm before `frame_id` is encoded.
    pub(super) fn poll_confirmation(&mut self, frame_id: u64) -> Option<Marked> {
        let pending = self.pending?;
        let due = match self.acknowledged {
            Some(acknowledged) => acknowledged >= pending.marked_by,
            None => frame_id > pending.marked_by + FRAMES_UNTIL_TRUSTED,
        };
        if !due {
            return None;
        }
        self.pending = None;
        self.confirmed = Some(pending.frame_id);
        Some(pending)
    }

    /// What to do so that the next frame predicts from `newest` or older.
    pub(super) fn recover(&mut self, newest: u64) -> Recovery {
        if self.last_encoded.is_none_or(|last| last <= newest) {
            return Recovery::None;
        }
        if self.confirmed.is_none_or(|confirmed| confirmed > newest) {
            return Recovery::Keyframe;
        }
        let lost = self.pending.take_if(|pending| pending.marked_by > newest);
        Recovery::LongTerm { lost }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h264::Reference;

    fn header(frame_num: u32, idr: bool, mark: Option<LongTermMark>) -> SliceHeader {
        let reference = (!idr).then_some(Reference::Newest);
        SliceHeader {
            first_macroblock: 0,
            pps_id: 0,
            frame_num,
            frame_num_bits: 15,
            idr,
            idr_id: 0,
            reference,
            is_reference: true,
            mark,
        }
    }

    fn started() -> LongTermReferences {
        let mut references = LongTermReferences::default();
        references.on_encoded(10, &header(0, true, Some(LongTermMark::Current { index: 0 })));
        for id in 11..20 {
            references.on_encoded(id, &header(id as u32 - 10, false, None));
        }
        references.on_encoded(20, &header(10, false, Some(LongTermMark::Current { index: 1 })));
        references
    }

    #[test]
    fn a_lost_mark_is_dropped_and_the_keyframe_serves() {
        let mut references = started();
        let lost = Some(Marked { frame_id: 20, frame_num: 10, marked_by: 20 });
        assert_eq!(references.recover(19), Recovery::LongTerm { lost });
        assert_eq!(references.poll_confirmation(100), None, "a dropped mark is never confirmed");
        assert_eq!(references.recover(9), Recovery::Keyframe, "the keyframe itself was lost");
    }

    #[test]
    fn going_back_to_what_was_acknowledged_never_takes_a_keyframe() {
        let mut references = started();
        references.on_acknowledged(20);
        assert!(references.poll_confirmation(21).is_some());
        for id in 21..200u64 {
            assert_eq!(references.poll_confirmation(id), None);
            references.on_encoded(id, &header(id as u32 - 10, false, None));
            assert_eq!(references.recover(20), Recovery::LongTerm { lost: None }, "{id}");
        }
    }

    #[test]
    fn a_mark_that_arrived_survives_a_later_loss() {
        let mut references = started();
        references.on_encoded(21, &header(11, false, None));
        assert_eq!(references.recover(20), Recovery::LongTerm { lost: None });
        references.on_acknowledged(20);
        assert_eq!(references.poll_confirmation(22).map(|marked| marked.frame_id), Some(20));
        references.on_encoded(22, &header(12, false, None));
        assert_eq!(references.recover(19), Recovery::Keyframe, "older ones are gone by then");
    }

    #[test]
    fn acknowledgements_are_believed_over_time() {
        let mut references = started();
        assert_eq!(references.poll_confirmation(20 + FRAMES_UNTIL_TRUSTED), None);
        references.on_acknowledged(15);
        assert_eq!(
            references.poll_confirmation(1000),
            None,
            "a receiver that acknowledges has the last word"
        );
        references.on_acknowledged(20);
        assert!(references.poll_confirmation(1001).is_some());
    }

    #[test]
    fn no_loss_needs_nothing() {
        assert_eq!(started().recover(20), Recovery::None);
        assert_eq!(LongTermReferences::default().recover(5), Recovery::None);
    }
}

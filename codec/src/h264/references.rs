//! Which frames a decoder holds, by the numbers that slices use (ITU-T H.264 section 8.2.5).
//!
//! Owns: the map from `frame_num` and long-term index to frame ids. Never: holds pictures.
//! Invariant: [`PictureReferences::resolve`] names a frame that was recorded, or nothing.

use super::slice_header::{LongTermMark, SliceHeader};

/// Short-term frames remembered. A decoded picture buffer holds 16; encoders here never go further back.
const SHORT_TERM_MAX: usize = 16;
/// Long-term indices (section 7.4.2.1.1: at most `max_num_ref_frames`, 16).
const LONG_TERM_MAX: usize = 16;

/// How a slice names the picture it predicts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// The most recent reference picture in decoding order.
    Newest,
    /// The short-term picture with this `frame_num`.
    ShortTerm {
        /// `frame_num` of that picture.
        frame_num: u32,
    },
    /// The long-term picture with this index.
    LongTerm {
        /// `long_term_frame_idx`.
        index: u8,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    frame_num: u32,
    frame_id: u64,
}

/// The reference pictures held, by frame id.
#[derive(Debug, Clone, Default)]
pub struct PictureReferences {
    /// Newest at the end of the ring.
    short_term: [Option<Held>; SHORT_TERM_MAX],
    next: usize,
    newest: Option<Held>,
    long_term: [Option<u64>; LONG_TERM_MAX],
}

impl PictureReferences {
    /// The frame that a slice of `frame_id` with this header predicts from. `None` for a keyframe (which
    /// predicts from none) and for a picture that is not held.
    ///
    /// `frame_num` starts anew at each IDR picture and wraps after as few as 16 frames, so a number alone could
    /// name a frame from before a loss. Both it and the id count encoded frames: unless they moved together
    /// since the newest frame held, an IDR picture or a whole cycle went missing in between.
    pub fn resolve(&self, frame_id: u64, header: &SliceHeader) -> Option<u64> {
        let reference = header.reference?;
        let cycle = 1u64 << header.frame_num_bits;
        let newest = self.newest?;
        let ids_passed = frame_id.wrapping_sub(newest.frame_id);
        let numbers_passed = u64::from(header.frame_num).wrapping_sub(u64::from(newest.frame_num));
        if ids_passed % cycle != numbers_passed % cycle {
            return None;
        }
        let frame_num = match reference {
            Reference::LongTerm { index } => return *self.long_term.get(usize::from(index))?,
            Reference::ShortTerm { frame_num } => frame_num,
            Reference::Newest => header.frame_num.wrapping_sub(1) & (cycle as u32 - 1),
        };
        self.short_term(frame_num).filter(|&held| frame_id.wrapping_sub(held) < cycle)
    }

    /// Records a frame that was encoded or decoded whole.
    pub fn record(&mut self, frame_id: u64, header: &SliceHeader) {
        if !header.is_reference {
            return;
        }
        if header.idr {
            *self = Self::default();
        }
        match header.mark {
            Some(LongTermMark::Current { index }) => {
                if let Some(slot) = self.long_term.get_mut(usize::from(index)) {
                    *slot = Some(frame_id);
                }
                // A later slice may still name it by being next; the list starts with it either way.
                self.push(header.frame_num, frame_id);
            }
            Some(LongTermMark::Earlier { difference, index }) => {
                let earlier = header.frame_num.wrapping_sub(difference) & ((1 << header.frame_num_bits) - 1);
                let held = self.short_term(earlier);
                if let Some(slot) = self.long_term.get_mut(usize::from(index)) {
                    *slot = held;
                }
                self.push(header.frame_num, frame_id);
            }
            None => self.push(header.frame_num, frame_id),
        }
    }

    fn push(&mut self, frame_num: u32, frame_id: u64) {
        // An older picture with the same number was overwritten by wrap-around: it can no longer be named.
        for slot in &mut self.short_term {
            if slot.is_some_and(|held| held.frame_num == frame_num) {
                *slot = None;
            }
        }
        self.newest = Some(Held { frame_num, frame_id });
        self.short_term[self.next] = self.newest;
        self.next = (self.next + 1) % SHORT_TERM_MAX;
    }

    fn short_term(&self, frame_num: u32) -> Option<u64> {
        self.short_term.iter().flatten().find(|held| held.frame_num == frame_num).map(|held| held.frame_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BITS: u32 = 4;

    fn header(frame_num: u32, reference: Option<Reference>, mark: Option<LongTermMark>) -> SliceHeader {
        let idr = reference.is_none();
        SliceHeader {
            first_macroblock: 0,
            pps_id: 0,
            frame_num,
            frame_num_bits: BITS,
            idr,
            idr_id: 0,
            reference,
            is_reference: true,
            mark,
        }
    }

    #[test]
    fn newest_is_the_frame_before_and_not_an_older_one() {
        let mut held = PictureReferences::default();
        held.record(100, &header(0, None, None));
        held.record(101, &header(1, Some(Reference::Newest), None));
        assert_eq!(held.resolve(102, &header(2, Some(Reference::Newest), None)), Some(101));
        // Frame number 2 never came: a frame that builds on it must not fall back on 101.
        assert_eq!(held.resolve(103, &header(3, Some(Reference::Newest), None)), None);
        let named = header(3, Some(Reference::ShortTerm { frame_num: 1 }), None);
        assert_eq!(held.resolve(103, &named), Some(101));
        assert_eq!(held.resolve(103 + 16, &named), None, "16 frames later the number means another one");
    }

    #[test]
    fn numbers_wrap_and_old_frames_are_forgotten() {
        let mut held = PictureReferences::default();
        held.record(0, &header(0, None, None));
        for id in 1..40u64 {
            let next = header(id as u32 % 16, Some(Reference::Newest), None);
            assert_eq!(held.resolve(id, &next), Some(id - 1));
            held.record(id, &next);
        }
    }

    #[test]
    fn a_lost_keyframe_is_noticed() {
        let mut held = PictureReferences::default();
        held.record(0, &header(0, None, Some(LongTermMark::Current { index: 0 })));
        for id in 1..6 {
            held.record(id, &header(id as u32, Some(Reference::Newest), None));
        }
        // Frame 6 was an IDR picture with number 0 and never came; frame 7 has number 1.
        assert_eq!(held.resolve(7, &header(1, Some(Reference::Newest), None)), None);
        assert_eq!(held.resolve(7, &header(1, Some(Reference::LongTerm { index: 0 }), None)), None);
        assert_eq!(held.resolve(7, &header(7, Some(Reference::LongTerm { index: 0 }), None)), Some(0));
    }

    #[test]
    fn long_term_marks_follow_the_standard() {
        let mut held = PictureReferences::default();
        held.record(0, &header(0, None, Some(LongTermMark::Current { index: 0 })));
        held.record(1, &header(1, Some(Reference::Newest), None));
        let mark = Some(LongTermMark::Earlier { difference: 1, index: 1 });
        held.record(2, &header(2, Some(Reference::Newest), mark));
        let by_index = |index| header(3, Some(Reference::LongTerm { index }), None);
        assert_eq!(held.resolve(3, &by_index(0)), Some(0));
        assert_eq!(held.resolve(3, &by_index(1)), Some(1));
        assert_eq!(held.resolve(3, &by_index(2)), None);
        held.record(9, &header(0, None, None));
        assert_eq!(held.resolve(3, &by_index(0)), None, "an IDR empties the buffer");
    }
}

//! Frames that were handed out, and whether later ones can be predicted from them.
//!
//! Owns the memory of the last frames given to the decoder. Invariant: a frame counts as good only if
//! all its slices were handed out, the decoder did not reject it and what it predicts from is good.

use super::frame::Frame;
use crate::FrameId;

/// Frames remembered: 4 s at 60 Hz. Only frames that were handed out take room, so the last good one
/// is remembered over an outage of any length.
const FRAMES: usize = 256;

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: u64,
    reference: u64,
    keyframe: bool,
    good: bool,
}

/// The last frames handed out.
#[derive(Debug)]
pub(super) struct History {
    entries: Vec<Option<Entry>>,
    newest: Option<u64>,
    newest_good: Option<u64>,
    newest_decoded: Option<u64>,
    /// Rejected before its last slice was handed out.
    rejected: Option<u64>,
    /// A frame was rejected and nothing good was handed out since.
    broken: bool,
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            entries: vec![None; FRAMES],
            newest: None,
            newest_good: None,
            newest_decoded: None,
            rejected: None,
            broken: false,
        }
    }

    /// All slices of a frame were handed out.
    pub(super) fn on_handed_out(&mut self, frame: &Frame) {
        let good = self.rejected != Some(frame.id) && (frame.keyframe || self.is_good(frame.reference()));
        self.entries[index(frame.id)] =
            Some(Entry { id: frame.id, reference: frame.reference(), keyframe: frame.keyframe, good });
        self.newest = Some(frame.id);
        if good {
            self.newest_good = Some(frame.id);
            self.broken = false;
        }
    }

    /// The decoder has decoded the frame without error.
    pub(super) fn on_decoded(&mut self, id: u64) {
        if self.is_good(id) {
            self.newest_decoded = self.newest_decoded.max(Some(id));
        }
    }

    /// The decoder has rejected the frame: nothing predicted from it is good.
    pub(super) fn on_decode_failed(&mut self, id: u64) {
        self.broken = true;
        if self.entry(id).is_none() {
            self.rejected = Some(id);
            return;
        }
        for later in id..=self.newest.unwrap_or(id) {
            let Some(entry) = self.entry(later) else { continue };
            let stays = later != id && (entry.keyframe || self.is_good(entry.reference));
            if let Some(entry) = &mut self.entries[index(later)] {
                entry.good &= stays;
            }
        }
        self.newest_good = self.entries.iter().flatten().filter(|e| e.good).map(|e| e.id).max();
        self.newest_decoded = self.newest_decoded.filter(|&d| self.is_good(d)).or(self.newest_good);
        // A keyframe that was handed out behind the rejected frame has repaired it already.
        self.broken = self.newest_good != self.newest;
    }

    /// Later frames can be predicted from this one.
    pub(super) fn is_good(&self, id: u64) -> bool {
        self.entry(id).is_some_and(|e| e.good)
    }

    /// The newest frame that later ones can be predicted from.
    pub(super) fn newest_good(&self) -> Option<FrameId> {
        self.newest_good.map(FrameId)
    }

    /// The newest frame that the decoder has confirmed.
    pub(super) fn newest_decoded(&self) -> Option<FrameId> {
        self.newest_decoded.map(FrameId)
    }

    /// A frame was rejected and nothing good was handed out since.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    fn entry(&self, id: u64) -> Option<Entry> {
        self.entries[index(id)].filter(|e| e.id == id)
    }
}

fn index(id: u64) -> usize {
    (id % FRAMES as u64) as usize
}

//! What the decode thread can keep up with, and what waits before it.
//!
//! Owns the count of frames that were handed over and are not done. Never measures. Invariant: what waits takes no longer
//! than [`WAIT_US`] to decode, as far as the time of the last frames tells; a frame that would make it longer is not
//! handed over, and the host makes one that does without it.

use rift_core::load::FrameLoad;
use rift_core::{FrameId, Timestamp};

/// Most that may wait before the decoder, in microseconds of its work: what is not decoded by then is shown too late, if at
/// all.
const WAIT_US: u64 = 120_000;

/// The decoder's load.
#[derive(Debug, Default)]
pub(crate) struct DecoderLoad {
    load: FrameLoad,
    /// The session's.
    fps: u32,
    /// Frames handed over whose last slice is not decoded.
    waiting: u64,
    refused: Option<FrameId>,
}

/// What the host is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Frames per second; 0 for all.
    pub(crate) max_fps: u32,
    /// Frames that would only wait, were they made now.
    pub(crate) skip_frames: u32,
}

impl DecoderLoad {
    /// A session has begun.
    pub(crate) fn on_session(&mut self, fps: u32) {
        self.fps = fps;
    }

    /// Whether a frame is to be handed over of which this slice is the next one. Told at a frame's first slice, it is the
    /// same for all others.
    pub(crate) fn takes(&mut self, frame: FrameId, index: u32) -> bool {
        if index == 0 {
            let is_behind = self.waiting >= 2 && self.waiting * self.load.mean_us() > WAIT_US;
            self.refused = is_behind.then_some(frame);
        }
        self.refused != Some(frame)
    }

    /// A frame's last slice was handed over.
    pub(crate) fn on_handed_over(&mut self) {
        self.waiting += 1;
    }

    /// The decoder is done with a frame, in `busy_us`. What the host is to be told, if that is news.
    pub(crate) fn on_done(&mut self, now: Timestamp, busy_us: u64) -> Option<Limit> {
        self.waiting = self.waiting.saturating_sub(1);
        if !self.load.on_frame(now, busy_us, self.fps) {
            return None;
        }
        let max_fps = self.load.limit().unwrap_or(0);
        let skip_frames = if max_fps == 0 { 0 } else { u32::try_from(self.waiting).unwrap_or(u32::MAX) };
        Some(Limit { max_fps, skip_frames })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoder_that_is_behind_gets_whole_frames_or_none() {
        let mut load = DecoderLoad::default();
        load.on_session(60);
        let hand_over = |load: &mut DecoderLoad, frame| {
            let taken = [0, 1].map(|index| load.takes(FrameId(frame), index));
            assert_eq!(taken[0], taken[1]);
            if taken[0] {
                load.on_handed_over();
            }
            taken[0]
        };
        assert!(hand_over(&mut load, 0));
        assert_eq!(load.on_done(Timestamp::ZERO, 30_000), None);
        assert_eq!((1..10).filter(|&frame| hand_over(&mut load, frame)).count(), 5, "of 30 ms each");
        // One done, one in.
        assert_eq!(load.on_done(Timestamp::from_micros(30_000), 30_000), None);
        assert!(hand_over(&mut load, 10) && !hand_over(&mut load, 11));
    }

    #[test]
    fn the_host_hears_of_it_once_and_when_it_is_over() {
        let mut load = DecoderLoad::default();
        load.on_session(60);
        let mut now = Timestamp::ZERO;
        let mut run = |load: &mut DecoderLoad, frames: u32, busy_us: u64| -> Vec<Limit> {
            let frame = |_| {
                now = now.plus_micros(busy_us.max(16_667));
                load.on_handed_over();
                load.on_done(now, busy_us)
            };
            (0..frames).filter_map(frame).collect()
        };
        assert_eq!(run(&mut load, 60, 10_000), []);
        (0..3).for_each(|_| load.on_handed_over());
        let told = run(&mut load, 60, 22_000);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!((36..=43).contains(&told[0].max_fps) && told[0].skip_frames == 3, "{told:?}");
        let told = run(&mut load, 300, 5_000);
        assert_eq!(told.last(), Some(&Limit { max_fps: 0, skip_frames: 0 }), "{told:?}");
    }
}

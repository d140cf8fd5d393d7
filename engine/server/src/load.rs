//! What the encoder can keep up with: fewer frames first, and smaller ones where that would be less than half of them.
//!
//! Owns what follows from the time that encoding takes, apart from what the network asks for. Never measures.
//! Invariant: pictures become larger again only after the encoder could have made them for [`UP_US`], since each change
//! of size costs a keyframe.

use rift_core::Timestamp;
use rift_core::delta2::Scale;
use rift_core::load::FrameLoad;

/// How long larger pictures must be possible before they are made, in microseconds.
const UP_US: u64 = 5_000_000;
/// The share of a frame's time that they may take then.
const UP_SHARE: f64 = 0.7;

/// The encoder's load.
#[derive(Debug, Default)]
pub(crate) struct EncoderLoad {
    load: FrameLoad,
    scale: Scale,
    calm_since: Option<Timestamp>,
}

impl EncoderLoad {
    /// A frame was encoded in `busy_us`, by `now`; `fps` are wanted. Whether [`fps`](Self::fps) or
    /// [`scale`](Self::scale) changed.
    pub(crate) fn on_encoded(&mut self, now: Timestamp, busy_us: u64, fps: u32) -> bool {
        let changed = self.load.on_frame(now, busy_us, fps);
        if let Some(smaller) = smaller(self.scale)
            && self.load.limit().is_some_and(|limit| limit < fps / 2)
        {
            self.change(smaller);
            return true;
        }
        let period_us = 1e6 / f64::from(fps.max(1));
        let fits = larger(self.scale).filter(|&larger| {
            let busy_us = self.load.mean_us() as f64 * pixels(larger) / pixels(self.scale);
            self.load.limit().is_none() && busy_us < UP_SHARE * period_us
        });
        let Some(larger) = fits else {
            self.calm_since = None;
            return changed;
        };
        if now.micros_since(*self.calm_since.get_or_insert(now)) < UP_US {
            return changed;
        }
        self.change(larger);
        true
    }

    fn change(&mut self, to: Scale) {
        self.load.rescale(pixels(to) / pixels(self.scale));
        self.scale = to;
        self.calm_since = None;
    }

    /// Frames per second to make of those that are wanted.
    pub(crate) fn fps(&self, wanted: u32) -> u32 {
        self.load.limit().map_or(wanted, |limit| limit.min(wanted))
    }

    /// The largest pictures to make.
    pub(crate) fn scale(&self) -> Scale {
        self.scale
    }
}

/// Share of the captured pixels.
fn pixels(scale: Scale) -> f64 {
    match scale {
        Scale::Full => 1.0,
        Scale::ThreeQuarters => 0.5625,
        Scale::Half => 0.25,
    }
}

fn smaller(scale: Scale) -> Option<Scale> {
    match scale {
        Scale::Full => Some(Scale::ThreeQuarters),
        Scale::ThreeQuarters => Some(Scale::Half),
        Scale::Half => None,
    }
}

fn larger(scale: Scale) -> Option<Scale> {
    match scale {
        Scale::Full => None,
        Scale::ThreeQuarters => Some(Scale::Full),
        Scale::Half => Some(Scale::ThreeQuarters),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodes for `for_us`; a frame of full size takes `full_us`.
    fn run(load: &mut EncoderLoad, at_us: &mut u64, for_us: u64, full_us: f64) -> u32 {
        let (mut changes, end) = (0, *at_us + for_us);
        while *at_us < end {
            let busy_us = (full_us * pixels(load.scale())) as u64;
            *at_us += busy_us.max(1_000_000 / u64::from(load.fps(60)));
            changes += u32::from(load.on_encoded(Timestamp::from_micros(*at_us), busy_us, 60));
        }
        changes
    }

    #[test]
    fn a_little_too_slow_is_fewer_frames_and_far_too_slow_smaller_ones() {
        let (mut load, mut at) = (EncoderLoad::default(), 0);
        run(&mut load, &mut at, 1_000_000, 21_700.0);
        assert_eq!(load.scale(), Scale::Full);
        assert!((38..=44).contains(&load.fps(60)), "{}", load.fps(60));
        let (mut load, mut at) = (EncoderLoad::default(), 0);
        run(&mut load, &mut at, 1_000_000, 50_000.0);
        assert_eq!(load.scale(), Scale::ThreeQuarters);
        assert!((28..=36).contains(&load.fps(60)), "{}", load.fps(60));
        run(&mut load, &mut at, 2_000_000, 200_000.0);
        assert_eq!(load.scale(), Scale::Half);
    }

    #[test]
    fn sizes_come_back_one_by_one_and_do_not_swing() {
        let (mut load, mut at) = (EncoderLoad::default(), 0);
        run(&mut load, &mut at, 3_000_000, 150_000.0);
        assert_eq!(load.scale(), Scale::Half);
        run(&mut load, &mut at, 4_000_000, 8_000.0);
        assert_eq!(load.scale(), Scale::Half);
        run(&mut load, &mut at, 20_000_000, 8_000.0);
        assert_eq!((load.scale(), load.fps(60)), (Scale::Full, 60));
        // Full size would be possible at 50 frames: three quarters at 60 stay.
        run(&mut load, &mut at, 3_000_000, 60_000.0);
        let scale = load.scale();
        run(&mut load, &mut at, 5_000_000, 17_500.0);
        assert!(run(&mut load, &mut at, 60_000_000, 17_500.0) <= 1 && load.scale() == scale);
    }
}

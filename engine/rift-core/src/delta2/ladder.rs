//! Frame rate and resolution that a rate suffices for.

use super::PathState;
use crate::Timestamp;

/// How large a picture the encoder should make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Scale {
    /// Half the width and height.
    Half,
    /// Three quarters.
    ThreeQuarters,
    /// As captured.
    #[default]
    Full,
}

/// A step of the ladder: percent of the frame rate, scale, and the share of the full picture's comfortable rate
/// below which it is left downwards.
const STEPS: [(u32, Scale, f64); 5] = [
    (100, Scale::Full, 0.060),
    (100, Scale::ThreeQuarters, 0.035),
    (75, Scale::ThreeQuarters, 0.024),
    (50, Scale::ThreeQuarters, 0.016),
    (50, Scale::Half, 0.0),
];
/// Comfortable, in bits per second at 60 frames: full quality of a busy 1080p picture.
const COMFORT_BPS: f64 = 30e6;
/// Upwards only at so much more than where the step was left.
const HYSTERESIS: f64 = 1.6;
/// Published: one step down after 1 s, one up after 5 s.
const DOWN_US: u64 = 1_000_000;
const UP_US: u64 = 5_000_000;

/// The ladder and where it is.
#[derive(Debug)]
pub(super) struct Ladder {
    fps_max: u32,
    step: usize,
    low_since: Option<Timestamp>,
    high_since: Option<Timestamp>,
}

impl Ladder {
    pub(super) fn new(fps_max: u32) -> Self {
        Self { fps_max: fps_max.max(1), step: 0, low_since: None, high_since: None }
    }

    pub(super) fn update(&mut self, now: Timestamp, video_bps: f64, state: PathState) {
        let share = video_bps / (COMFORT_BPS * f64::from(self.fps_max) / 60.0);
        let is_low = share < STEPS[self.step].2;
        let is_high =
            self.step > 0 && state == PathState::Stable && share > STEPS[self.step - 1].2 * HYSTERESIS;
        let hold = |since: &mut Option<Timestamp>, holds: bool| {
            if !holds {
                *since = None;
            }
            holds.then(|| now.micros_since(*since.get_or_insert(now)))
        };
        if hold(&mut self.low_since, is_low).is_some_and(|us| us >= DOWN_US) && self.step + 1 < STEPS.len() {
            self.step += 1;
            self.low_since = None;
        }
        if hold(&mut self.high_since, is_high).is_some_and(|us| us >= UP_US) {
            self.step -= 1;
            self.high_since = None;
        }
    }

    pub(super) fn fps(&self) -> u32 {
        (self.fps_max * STEPS[self.step].0 / 100).max(1)
    }

    pub(super) fn scale(&self) -> Scale {
        STEPS[self.step].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves R-CTRL-13.
    #[test]
    fn steps_take_time_and_a_rate_between_two_steps_changes_nothing() {
        let mut ladder = Ladder::new(60);
        let mut now = Timestamp::ZERO;
        let mut run = |ladder: &mut Ladder, us: u64, bps: f64| {
            for _ in 0..us / 10_000 {
                now = now.plus_micros(10_000);
                ladder.update(now, bps, PathState::Stable);
            }
            (ladder.fps(), ladder.scale())
        };
        assert_eq!(run(&mut ladder, 3_000_000, 5e6), (60, Scale::Full));
        assert_eq!(run(&mut ladder, 900_000, 1.5e6), (60, Scale::Full));
        assert_eq!(run(&mut ladder, 200_000, 1.5e6), (60, Scale::ThreeQuarters));
        // Above where the first step was left, but not clearly.
        assert_eq!(run(&mut ladder, 20_000_000, 2.2e6), (60, Scale::ThreeQuarters));
        assert_eq!(run(&mut ladder, 4_900_000, 3.2e6), (60, Scale::ThreeQuarters));
        assert_eq!(run(&mut ladder, 200_000, 3.2e6), (60, Scale::Full));
        assert_eq!(run(&mut ladder, 10_000_000, 0.1e6), (30, Scale::Half));
    }
}

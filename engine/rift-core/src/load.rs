//! How many frames per second a stage can take: an encoder or decoder, from how long it works on each.
//!
//! Owns the bookkeeping of one stage. Never measures time itself and never looks at frames. Invariants: one long frame,
//! as when the machine stood still, changes nothing; a limit leaves room to work off what has piled up; it is raised
//! only after the stage was clearly faster for [`CALM_US`].

use crate::Timestamp;

/// Work beyond what fits the frames' time, after which the stage is too slow, in microseconds: what would wait before it
/// then, were nothing left out.
const EXCESS_US: f64 = 60_000.0;
/// Most that one frame counts for, in frames' times.
const FRAME_MAX: f64 = 4.0;
/// How fast the mean follows: the weight of the newest frame.
const WEIGHT: f64 = 0.25;
/// Share of what a stage can take that it is given.
const SHARE: f64 = 0.88;
/// A limit is raised where the stage could take so much more.
const RAISE: f64 = 1.15;
/// And has been able to for so long, in microseconds.
pub const CALM_US: u64 = 2_000_000;

/// The load of one stage.
#[derive(Clone, Debug, Default)]
pub struct FrameLoad {
    mean_us: f64,
    excess_us: f64,
    limit: Option<u32>,
    calm_since: Option<Timestamp>,
}

impl FrameLoad {
    /// Of a stage that has done nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The stage has worked on a frame for `busy_us`, by `now`; `fps` come per second where nothing limits them. Returns
    /// whether the limit changed.
    pub fn on_frame(&mut self, now: Timestamp, busy_us: u64, fps: u32) -> bool {
        let fps = fps.max(1);
        let current = self.limit.map_or(fps, |limit| limit.min(fps));
        let period_us = 1e6 / f64::from(current);
        let busy_us = (busy_us as f64).min(FRAME_MAX * period_us);
        let weight = if self.mean_us > 0.0 { WEIGHT } else { 1.0 };
        self.mean_us += weight * (busy_us - self.mean_us);
        self.excess_us = (self.excess_us + busy_us - period_us).max(0.0);
        let able = SHARE * 1e6 / self.mean_us.max(1.0);
        if self.excess_us >= EXCESS_US {
            self.excess_us = 0.0;
            self.calm_since = None;
            let limit = (able as u32).clamp(1, current);
            let changed = self.limit != Some(limit);
            self.limit = Some(limit);
            return changed;
        }
        let Some(limit) = self.limit else { return false };
        if able < f64::from(limit) * RAISE {
            self.calm_since = None;
            return false;
        }
        if now.micros_since(*self.calm_since.get_or_insert(now)) < CALM_US {
            return false;
        }
        self.calm_since = None;
        self.limit = if able >= f64::from(fps) { None } else { Some(able as u32) };
        true
    }

    /// Frames per second that the stage can take; `None` while it takes what comes.
    #[must_use]
    pub fn limit(&self) -> Option<u32> {
        self.limit
    }

    /// Mean time that it works on a frame, in microseconds; 0 before the first.
    #[must_use]
    pub fn mean_us(&self) -> u64 {
        self.mean_us as u64
    }

    /// Frames will take `factor` times as long from now on, as where pictures become smaller. Takes the limit away.
    pub fn rescale(&mut self, factor: f64) {
        *self = Self { mean_us: self.mean_us * factor, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames come as fast as the limit lets them, at most 60 per second; each takes what `busy_us` says at its time.
    /// The limit, and how often it changed.
    fn run(load: &mut FrameLoad, from_us: &mut u64, for_us: u64, busy_us: impl Fn(u64) -> u64) -> u32 {
        let (mut changes, end) = (0, *from_us + for_us);
        while *from_us < end {
            *from_us += 1_000_000 / u64::from(load.limit().unwrap_or(60));
            let now = Timestamp::from_micros(*from_us);
            changes += u32::from(load.on_frame(now, busy_us(*from_us), 60));
        }
        changes
    }

    #[test]
    fn a_stage_that_is_a_third_too_slow_is_given_less_within_300_ms() {
        let (mut load, mut at) = (FrameLoad::new(), 0);
        run(&mut load, &mut at, 1_000_000, |_| 10_000);
        assert_eq!(load.limit(), None);
        run(&mut load, &mut at, 400_000, |_| 21_700);
        let limit = load.limit().unwrap();
        assert!((38..=43).contains(&limit), "{limit}");
        // It settles, and stays.
        run(&mut load, &mut at, 1_000_000, |_| 21_700);
        assert_eq!(run(&mut load, &mut at, 20_000_000, |_| 21_700), 0);
        assert!((38..=43).contains(&load.limit().unwrap()), "{:?}", load.limit());
    }

    #[test]
    fn it_gets_everything_again_two_seconds_after_it_is_fast_enough() {
        let (mut load, mut at) = (FrameLoad::new(), 0);
        run(&mut load, &mut at, 2_000_000, |_| 30_000);
        assert!(load.limit().is_some());
        run(&mut load, &mut at, 1_900_000, |_| 5_000);
        assert!(load.limit().is_some());
        run(&mut load, &mut at, 800_000, |_| 5_000);
        assert_eq!(load.limit(), None);
    }

    #[test]
    fn single_long_frames_are_no_overload() {
        let (mut load, mut at) = (FrameLoad::new(), 0);
        let hiccups = |at: u64| if at % 1_000_000 < 17_000 { 300_000 } else { 9_000 };
        assert_eq!(run(&mut load, &mut at, 20_000_000, hiccups), 0);
        // A little under what it can take is none either.
        assert_eq!(run(&mut load, &mut at, 20_000_000, |at| 15_000 + at % 1_700), 0);
    }

    #[test]
    fn smaller_pictures_begin_anew() {
        let (mut load, mut at) = (FrameLoad::new(), 0);
        run(&mut load, &mut at, 1_000_000, |_| 40_000);
        assert!(load.limit().unwrap() < 30);
        load.rescale(0.25);
        assert_eq!(load.limit(), None);
        assert!((9_000..=10_500).contains(&load.mean_us()), "{}", load.mean_us());
        assert_eq!(run(&mut load, &mut at, 3_000_000, |_| 10_000), 0);
    }
}

//! From the difference of two clocks to the time that a packet waited.

use crate::Timestamp;

/// Seconds over which the least delay counts as that of the empty path. Long enough to outlive the fullest
/// queue that a stream or its rivals build, short enough to learn a new route.
const WINDOW_S: usize = 30;
const BUCKET_US: u64 = 1_000_000;
/// Clocks that are not disciplined differ by up to 100 ppm (two crystals of 50 ppm); half as much again for
/// one that is being slewed. What changes faster is a queue.
const DRIFT_MAX: f64 = 150e-6;
/// A line through fewer seconds than this says more about queues than about clocks.
const DRIFT_BUCKETS_MIN: usize = 10;
/// Share of a new estimate of the drift that is taken over each second: queues come and go, drift stays.
const DRIFT_GAIN: f64 = 0.25;
/// A delay that differs from all others by more than this, in microseconds, is no delay but a clock that was
/// set.
const JUMP_US: i64 = 5_000_000;

/// The least delay of one second.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    at_us: u64,
    /// Less `DelayBase::origin_us`.
    least_us: f64,
}

/// The delay of the empty path, as the least of the last 30 s with the drift of the clocks removed.
///
/// The drift is the slope of the line that lies below the least delays of all seconds and as near to them
/// as possible (Moon, Skelly and Towsley, "Estimation and removal of clock skew from network delay
/// measurements", 1999): the edge of their lower convex hull that spans the middle of the window.
#[derive(Clone, Debug)]
pub struct DelayBase {
    buckets: [Bucket; WINDOW_S],
    len: usize,
    /// Where the current bucket lies.
    newest: usize,
    origin_us: i64,
    drift: f64,
    /// The line at time zero, less `origin_us`.
    floor_us: f64,
}

impl Default for DelayBase {
    fn default() -> Self {
        Self {
            buckets: [Bucket { at_us: 0, least_us: 0.0 }; WINDOW_S],
            len: 0,
            newest: 0,
            origin_us: 0,
            drift: 0.0,
            floor_us: 0.0,
        }
    }
}

impl DelayBase {
    /// Takes the raw delay of a packet that left at `sent_at`; how much longer than on the empty path it was
    /// under way, in microseconds.
    pub fn on_delay(&mut self, sent_at: Timestamp, delay_us: i64) -> u64 {
        let at_us = sent_at.as_micros();
        if self.len == 0 || delay_us.saturating_sub(self.origin_us).saturating_abs() > JUMP_US {
            *self = Self { origin_us: delay_us, len: 1, ..Self::default() };
            self.buckets[0] = Bucket { at_us, least_us: 0.0 };
        }
        let relative_us = delay_us.saturating_sub(self.origin_us) as f64;
        let bucket = &mut self.buckets[self.newest];
        if at_us.saturating_sub(bucket.at_us) < BUCKET_US || at_us < bucket.at_us {
            bucket.least_us = bucket.least_us.min(relative_us);
        } else {
            self.newest = (self.newest + 1) % WINDOW_S;
            self.len = (self.len + 1).min(WINDOW_S);
            self.buckets[self.newest] = Bucket { at_us, least_us: relative_us };
            self.fit();
        }
        self.floor_us = self.floor_us.min(relative_us - self.drift * at_us as f64);
        (relative_us - self.floor_us - self.drift * at_us as f64).max(0.0) as u64
    }

    /// How fast the client's clock gains on the host's, in parts per million.
    #[must_use]
    pub fn drift_ppm(&self) -> f64 {
        self.drift * 1e6
    }

    fn fit(&mut self) {
        if self.len > DRIFT_BUCKETS_MIN {
            let found = self.hull_slope().clamp(-DRIFT_MAX, DRIFT_MAX);
            self.drift += DRIFT_GAIN * (found - self.drift);
        }
        let drift = self.drift;
        let at_zero = |b: &Bucket| b.least_us - drift * b.at_us as f64;
        self.floor_us = self.in_order().map(|b| at_zero(&b)).fold(f64::INFINITY, f64::min);
    }

    fn in_order(&self) -> impl Iterator<Item = Bucket> + '_ {
        let oldest = self.newest + WINDOW_S + 1 - self.len;
        (0..self.len).map(move |i| self.buckets[(oldest + i) % WINDOW_S])
    }

    /// Slope of the edge of the lower convex hull above the mean time. The newest second has only begun
    /// and is left out.
    fn hull_slope(&self) -> f64 {
        let count = self.len - 1;
        let mut hull = [Bucket { at_us: 0, least_us: 0.0 }; WINDOW_S];
        let mut size = 0;
        let mut middle_us = 0.0;
        let slope = |a: Bucket, b: Bucket| (b.least_us - a.least_us) / (b.at_us - a.at_us).max(1) as f64;
        for bucket in self.in_order().take(count) {
            middle_us += bucket.at_us as f64 / count as f64;
            while size >= 2 && slope(hull[size - 2], hull[size - 1]) >= slope(hull[size - 1], bucket) {
                size -= 1;
            }
            hull[size] = bucket;
            size += 1;
        }
        let edge = hull[..size].windows(2).find(|e| e[1].at_us as f64 >= middle_us);
        edge.map_or(0.0, |e| slope(e[0], e[1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFSET_US: i64 = -7_000_000_000;

    /// Packets every 16 ms for `seconds`: their true waiting time, and the estimate's error after 15 s.
    fn run(seconds: u64, drift_ppm: f64, waited: impl Fn(u64) -> u64) -> (f64, f64) {
        let mut base = DelayBase::default();
        let (mut worst, mut least): (f64, f64) = (0.0, 0.0);
        for i in 0..seconds * 60 {
            let at_us = 9_000_000_000 + i * 16_667;
            let wait_us = waited(i);
            let drifted = (drift_ppm * 1e-6 * (i * 16_667) as f64) as i64;
            let found =
                base.on_delay(Timestamp::from_micros(at_us), OFFSET_US + 10_000 + drifted + wait_us as i64);
            if i > 15 * 60 {
                let error = found as f64 - wait_us as f64;
                (worst, least) = (worst.max(error), least.min(error));
            }
        }
        (worst, least)
    }

    /// Proves R-FB-5.
    #[test]
    fn drift_is_no_queue_and_no_lack_of_one() {
        for drift_ppm in [0.0, 60.0, -60.0, 100.0] {
            // A queue that comes and goes within seconds.
            let (worst, least) = run(90, drift_ppm, |i| if i % 150 < 100 { i % 150 * 100 } else { 0 });
            assert!(worst < 1_200.0 && least > -1_200.0, "{drift_ppm} ppm: {worst} {least}");
        }
    }

    #[test]
    fn a_queue_that_stays_for_seconds_is_seen_all_the_time() {
        let mut base = DelayBase::default();
        for i in 0..20 * 60u64 {
            let wait_us = if i > 5 * 60 { 40_000 } else { 0 };
            let found = base.on_delay(Timestamp::from_micros(i * 16_667), wait_us);
            assert!(found.abs_diff(wait_us as u64) < 3_000, "{found} at {i}");
        }
    }

    #[test]
    fn a_shorter_route_is_learned_at_once_and_a_longer_one_within_the_window() {
        let mut base = DelayBase::default();
        let at = |base: &mut DelayBase, s: u64, delay: i64| {
            base.on_delay(Timestamp::from_micros(s * 1_000_000), delay)
        };
        (0..40).for_each(|s| assert_eq!(at(&mut base, s, 50_000), 0));
        assert_eq!(at(&mut base, 40, 20_000), 0);
        assert!(at(&mut base, 41, 50_000) >= 29_000);
        let last = (42..80).map(|s| at(&mut base, s, 50_000)).last();
        assert!(last < Some(5_000), "{last:?}");
    }

    #[test]
    fn absurd_delays_neither_panic_nor_stick() {
        let mut base = DelayBase::default();
        for (at, delay) in [(0, i64::MIN), (u64::MAX, i64::MAX), (3, 0), (2, i64::MAX), (u64::MAX, i64::MIN)]
        {
            base.on_delay(Timestamp::from_micros(at), delay);
            base.on_delay(Timestamp::from_micros(at), delay.saturating_add(1));
        }
        base.on_delay(Timestamp::from_micros(5_000_000), 100);
        assert!(base.on_delay(Timestamp::from_micros(5_000_000), 900) <= 800);
    }
}

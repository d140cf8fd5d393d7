//! The congestion window of CUBIC (RFC 9438), in segments.

use super::hystart::HyStart;
use rift_core::Timestamp;

/// Section 4.6.
const BETA: f64 = 0.7;
/// Section 5.1, in segments per cubic second.
const C: f64 = 0.4;
/// RFC 6928.
pub(super) const WINDOW_FIRST: f64 = 10.0;
const WINDOW_MIN: f64 = 2.0;

/// The window.
#[derive(Clone, Debug)]
pub(super) struct Cubic {
    window: f64,
    threshold: f64,
    /// Set at a reduction, used when the window grows again.
    w_max: f64,
    /// What Reno would have (section 4.3).
    w_est: f64,
    /// When growth began after the last reduction, and the window then.
    epoch: Option<(Timestamp, f64)>,
    /// The window before the last reduction.
    prior: f64,
    hystart: Option<HyStart>,
}

impl Cubic {
    pub(super) fn new(hystart: bool) -> Self {
        Self {
            window: WINDOW_FIRST,
            threshold: f64::INFINITY,
            w_max: 0.0,
            w_est: 0.0,
            epoch: None,
            prior: 0.0,
            hystart: hystart.then(HyStart::default),
        }
    }

    /// Segments that may be under way.
    pub(super) fn window(&self) -> f64 {
        self.window
    }

    pub(super) fn is_in_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// A segment was acknowledged while nothing is being repaired. `number` counts transmissions, `next` is the
    /// number of the next one.
    pub(super) fn on_acknowledged(
        &mut self,
        now: Timestamp,
        rtt_us: u64,
        srtt_us: f64,
        number: u64,
        next: u64,
    ) {
        if self.is_in_slow_start() {
            let growth = match &mut self.hystart {
                Some(hystart) => hystart.on_acknowledged(rtt_us, number, next),
                None => Some(1.0),
            };
            match growth {
                Some(growth) => self.window += growth,
                None => self.threshold = self.window,
            }
            return;
        }
        let (began, start) = match self.epoch {
            Some(epoch) => epoch,
            None => {
                // The window may have grown past what the last reduction found, as after slow start.
                self.w_max = self.w_max.max(self.window);
                self.w_est = self.window;
                *self.epoch.insert((now, self.window))
            }
        };
        let t = now.micros_since(began) as f64 / 1e6;
        let k = ((self.w_max - start) / C).max(0.0).cbrt();
        let w_cubic = |t: f64| C * (t - k).powi(3) + self.w_max;
        let alpha = if self.w_est < self.prior { 3.0 * (1.0 - BETA) / (1.0 + BETA) } else { 1.0 };
        self.w_est += alpha / self.window;
        if w_cubic(t) < self.w_est {
            self.window = self.window.max(self.w_est);
        } else {
            let target = w_cubic(t + srtt_us / 1e6).clamp(self.window, 1.5 * self.window);
            self.window += (target - self.window) / self.window;
        }
    }

    /// A loss was noticed, the first of a window.
    pub(super) fn on_loss(&mut self) {
        // Fast convergence (section 4.7).
        self.w_max = if self.window < self.w_max { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.prior = self.window;
        self.window = (self.window * BETA).max(WINDOW_MIN);
        self.threshold = self.window;
        self.epoch = None;
    }

    /// Nothing was heard for a retransmission timeout (RFC 5681 section 3.1).
    pub(super) fn on_timeout(&mut self) {
        self.on_loss();
        self.window = 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Grows for `seconds` at a round trip of 100 ms, as if no segment were ever lost.
    fn grow(cubic: &mut Cubic, from: Timestamp, seconds: f64) -> Timestamp {
        let mut now = from;
        let end = from.plus_micros((seconds * 1e6) as u64);
        let mut number = 0;
        while now < end {
            let segments = cubic.window().floor() as u64;
            for i in 0..segments {
                let at = now.plus_micros(i * 100_000 / segments);
                cubic.on_acknowledged(at, 100_000, 100_000.0, number, number + segments);
                number += 1;
            }
            now = now.plus_micros(100_000);
        }
        now
    }

    /// RFC 9438 figure 1: back at the old window after K seconds, along a cubic curve that is flat there.
    #[test]
    fn the_window_follows_the_cubic_function() {
        let mut cubic = Cubic::new(false);
        cubic.window = 1_000.0;
        cubic.threshold = 1.0;
        cubic.on_loss();
        assert!((cubic.window() - 700.0).abs() < 1e-9);
        let k = (300.0f64 / C).cbrt();
        let mut now = grow(&mut cubic, Timestamp::ZERO, 0.0);
        let mut windows = Vec::new();
        for step in 1..=4 {
            now = grow(&mut cubic, now, k / 2.0);
            windows.push(cubic.window());
            let t = f64::from(step) * k / 2.0;
            let expected = C * (t - k).powi(3) + 1_000.0;
            assert!((cubic.window() - expected).abs() < 30.0, "{t}: {} {expected}", cubic.window());
        }
        assert!(windows[0] > 950.0 && windows[1] < 1_020.0 && windows[3] > 1_250.0, "{windows:?}");
    }

    #[test]
    fn small_windows_grow_like_reno() {
        let mut cubic = Cubic::new(false);
        cubic.window = 20.0;
        cubic.threshold = 1.0;
        cubic.on_loss();
        grow(&mut cubic, Timestamp::ZERO, 1.0);
        // Ten round trips of 0.53 segments.
        assert!((18.0..21.0).contains(&cubic.window()), "{}", cubic.window());
    }

    #[test]
    fn slow_start_doubles_and_a_smaller_maximum_makes_room() {
        let mut cubic = Cubic::new(false);
        grow(&mut cubic, Timestamp::ZERO, 0.3);
        assert!((75.0..85.0).contains(&cubic.window()), "{}", cubic.window());
        cubic.on_loss();
        let first = cubic.w_max;
        cubic.on_loss();
        assert!(cubic.w_max < first * 0.7, "{} {first}", cubic.w_max);
    }
}

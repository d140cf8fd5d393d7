//! How long packets wait, and how much of it is noise.

use crate::Timestamp;
use crate::feedback::DelayBase;

/// A noise window is a quarter of a second, and the quietest of the last four counts: a queue that builds up
/// within a second does not hide itself.
const WINDOW_US: u64 = 250_000;
const WINDOWS: usize = 4;
/// Noise has spread; a standing queue has none. So much of the spread explains how far the mean lies above
/// the least of 30 s: with normal jitter the mean is 1.7 deviations above the least of 15 frames and 3.3
/// above the least of 1800.
const FLOOR_SPREADS: f64 = 2.2;
/// More than this is not noise that a stream should live with, in microseconds.
const FLOOR_MAX_US: f64 = 30_000.0;

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    count: u32,
    sum_us: f64,
    least_us: f64,
}

impl Window {
    fn mean_us(&self) -> f64 {
        self.sum_us / f64::from(self.count.max(1))
    }
}

/// The waiting time of the first packet of each frame: later ones wait behind their own frame.
#[derive(Debug)]
pub(super) struct QueueDelay {
    base: DelayBase,
    windows: [Window; WINDOWS],
    current: usize,
    began: Timestamp,
    /// Of the last two frames.
    last_us: [f64; 2],
    /// Told for each packet, so made once for each frame.
    noise_us: f64,
    floor_us: f64,
}

impl QueueDelay {
    /// Nothing has arrived: as noisy as a path may be.
    pub(super) fn new() -> Self {
        Self {
            base: DelayBase::default(),
            windows: [Window::default(); WINDOWS],
            current: 0,
            began: Timestamp::ZERO,
            last_us: [0.0; 2],
            noise_us: FLOOR_MAX_US,
            floor_us: FLOOR_MAX_US,
        }
    }

    /// The first packet of a frame arrived.
    pub(super) fn on_first_packet(&mut self, sent_at: Timestamp, delay_us: i64) {
        let waited_us = self.base.on_delay(sent_at, delay_us) as f64;
        if sent_at.micros_since(self.began) >= WINDOW_US || sent_at < self.began {
            self.began = sent_at;
            self.current = (self.current + 1) % WINDOWS;
            self.windows[self.current] = Window::default();
        }
        let window = &mut self.windows[self.current];
        window.least_us = if window.count == 0 { waited_us } else { window.least_us.min(waited_us) };
        window.sum_us += waited_us;
        window.count += 1;
        self.last_us = [waited_us, self.last_us[0]];
        let least = |of: fn(&Window) -> f64| self.whole().map(of).fold(FLOOR_MAX_US, f64::min).max(0.0);
        let noise_us = least(|w| w.mean_us() - w.least_us);
        let quietest_us = least(Window::mean_us);
        self.floor_us = quietest_us.min(FLOOR_SPREADS * noise_us);
        self.noise_us = noise_us;
    }

    /// How long the last frame's first packet waited, in microseconds.
    pub(super) fn waited_us(&self) -> f64 {
        self.last_us[0]
    }

    /// The shorter of the last two waits: one late packet is no queue.
    pub(super) fn steady_us(&self) -> f64 {
        self.last_us[0].min(self.last_us[1])
    }

    /// The spread of the quietest window, in microseconds.
    pub(super) fn noise_us(&self) -> f64 {
        self.noise_us
    }

    /// What the waits are on a quiet path of this kind, in microseconds.
    pub(super) fn floor_us(&self) -> f64 {
        self.floor_us
    }

    /// Windows with enough frames to have a spread.
    fn whole(&self) -> impl Iterator<Item = &Window> {
        self.windows.iter().filter(|w| w.count >= 4)
    }
}

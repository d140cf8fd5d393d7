//! Bounds a frame rate without adding delay to a source that keeps to it. Owns a schedule; never sleeps itself.
//!
//! Invariant: over any span the number of frames let through is at most `span * fps + 1.5`. A frame that comes up to
//! half an interval early is let through at once, so the jitter of a 60 Hz source under a bound of 60 costs nothing.
#![forbid(unsafe_code)]

/// Slowest rate that can be set, frames per second.
const FPS_MIN: f32 = 0.1;
/// Fastest rate that can be set, frames per second.
const FPS_MAX: f32 = 1000.0;

/// When the next frame may be taken.
#[derive(Debug, Clone)]
pub struct FramePacer {
    interval_ns: u64,
    due_ns: u64,
}

impl FramePacer {
    /// At most `fps` frames per second, within 0.1 to 1000.
    pub fn new(fps: f32) -> Self {
        Self { interval_ns: interval_ns(fps), due_ns: 0 }
    }

    /// Changes the bound; the next frame is due as if the last had been taken under it.
    pub fn set_fps(&mut self, fps: f32) {
        let interval_ns = interval_ns(fps);
        self.due_ns = self.due_ns.saturating_sub(self.interval_ns).saturating_add(interval_ns);
        self.interval_ns = interval_ns;
    }

    /// When the next frame may be taken; in the past if it may be taken now.
    pub fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// A frame was taken.
    pub fn on_frame(&mut self, now_ns: u64) {
        let credit_from = now_ns.saturating_sub(self.interval_ns / 2);
        self.due_ns = self.due_ns.max(credit_from).saturating_add(self.interval_ns);
    }

    /// Time between two frames.
    pub fn interval_ns(&self) -> u64 {
        self.interval_ns
    }
}

fn interval_ns(fps: f32) -> u64 {
    // Not a number is taken as the slowest rate: it cannot flood anything.
    let fps = if fps.is_nan() { FPS_MIN } else { fps.clamp(FPS_MIN, FPS_MAX) };
    (1e9 / f64::from(fps)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_flood_is_bounded() {
        let mut pacer = FramePacer::new(50.0);
        let taken = (0..10_000 * MS)
            .step_by(MS as usize)
            .filter(|&now| {
                let take = now >= pacer.due_ns();
                if take {
                    pacer.on_frame(now);
                }
                take
            })
            .count();
        assert!((499..=502).contains(&taken), "{taken} frames in 10 s at 50 fps");
    }

    #[test]
    fn jitter_below_half_an_interval_costs_nothing() {
        let mut pacer = FramePacer::new(50.0);
        for frame in 1..200u64 {
            let jitter = if frame % 2 == 0 { 4 * MS } else { 0 };
            let now = frame * 20 * MS - jitter;
            assert!(pacer.due_ns() <= now, "frame {frame} would wait");
            pacer.on_frame(now);
        }
    }

    #[test]
    fn a_new_rate_holds_at_once() {
        let mut pacer = FramePacer::new(10.0);
        for now in [1000, 1100, 1200] {
            pacer.on_frame(now * MS);
        }
        let slow = pacer.due_ns();
        pacer.set_fps(100.0);
        assert_eq!(slow - pacer.due_ns(), 90 * MS);
        assert_eq!(pacer.interval_ns(), 10 * MS);
    }

    #[test]
    fn nonsense_rates_are_bounded() {
        for (fps, expected) in [(f32::NAN, 10_000), (-1.0, 10_000), (0.0, 10_000), (f32::INFINITY, 1)] {
            let interval = FramePacer::new(fps).interval_ns();
            assert!(interval.abs_diff(expected * MS) < MS, "{fps}: {interval}");
        }
    }
}

//! How many packets a path loses in a row.

/// Losses that end count this much for the mean.
const GAIN: f64 = 0.08;
/// What is lost in a row is not taken to be more than this, in packets.
const PACKETS_MAX: f64 = 64.0;

/// The mean length of runs of lost packets.
#[derive(Clone, Copy, Debug)]
pub struct LossRuns {
    mean: f64,
    /// Lost in a row now.
    current: u32,
}

impl Default for LossRuns {
    fn default() -> Self {
        Self { mean: 1.0, current: 0 }
    }
}

impl LossRuns {
    /// The next packet in order of ids was lost, or not.
    #[inline]
    pub fn on_packet(&mut self, is_lost: bool) {
        if is_lost {
            self.current = self.current.saturating_add(1);
        } else if self.current > 0 {
            let run = f64::from(core::mem::take(&mut self.current)).min(PACKETS_MAX);
            self.mean += GAIN * (run - self.mean);
        }
    }

    /// The run under way is not of the kind that is looked for.
    #[inline]
    pub fn forget_current(&mut self) {
        self.current = 0;
    }

    /// In packets, from 1 up.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted_once_they_end() {
        let mut runs = LossRuns::default();
        for _ in 0..200 {
            (0..8).for_each(|_| runs.on_packet(true));
            (0..50).for_each(|_| runs.on_packet(false));
        }
        assert!((runs.mean() - 8.0).abs() < 0.01, "{}", runs.mean());
        (0..1_000).for_each(|_| runs.on_packet(true));
        assert!((runs.mean() - 8.0).abs() < 0.01, "not over yet");
        runs.forget_current();
        runs.on_packet(false);
        assert!((runs.mean() - 8.0).abs() < 0.01);
    }
}

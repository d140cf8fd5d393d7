//! How many packets of a group are lost.
//!
//! Owns the model of a path that loses packets in runs. Never knows what a loss costs.

use super::protection::PARITIES_MAX;

/// Counts of losses that are told apart: one more than can be mended, and all more than that.
pub(super) const COUNTS: usize = PARITIES_MAX + 2;

/// The distribution of how many of some packets in a row are lost, by the model of Gilbert (1960): a path that loses
/// all or nothing, and changes from one to the other at random.
#[derive(Clone, Debug)]
pub(super) struct Losses {
    /// From losing nothing to losing, per packet, and back.
    begins: f64,
    ends: f64,
    /// Probability of each count of losses, with the path losing nothing, and losing. The last is for all more.
    counts: [[f64; 2]; COUNTS],
}

impl Losses {
    pub(super) fn new(loss: f64, run: f64) -> Self {
        let loss = loss.clamp(0.0, 0.5);
        // Losses that know nothing of each other have runs of this mean, which is the least.
        let ends = (1.0 / run.max(1.0)).min(1.0 - loss);
        let begins = loss * ends / (1.0 - loss);
        let mut counts = [[0.0; 2]; COUNTS];
        counts[0] = [1.0 - loss, loss];
        Self { begins, ends, counts }
    }

    /// One more packet is sent, in the state of the path; then that may change.
    pub(super) fn add_packet(&mut self) {
        let last = self.counts.len() - 1;
        let mut lost_before = 0.0;
        for (count, [well, bad]) in self.counts.iter_mut().enumerate() {
            let lost = if count == last { lost_before + *bad } else { lost_before };
            lost_before = *bad;
            let kept = *well;
            *well = kept * (1.0 - self.begins) + lost * self.ends;
            *bad = kept * self.begins + lost * (1.0 - self.ends);
        }
    }

    /// The probability of each count of losses. The last is for all more.
    pub(super) fn counts(&self) -> [f64; COUNTS] {
        self.counts.map(|[well, bad]| well + bad)
    }

    /// The probability of more losses than `count`.
    pub(super) fn more_than(&self, count: usize) -> f64 {
        self.counts.iter().skip(count + 1).map(|[well, bad]| well + bad).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_of_losses_is_that_of_the_path() {
        // Independent losses: the binomial distribution.
        let mut losses = Losses::new(0.05, 1.0);
        (0..30).for_each(|_| losses.add_packet());
        let none = 0.95f64.powi(30);
        assert!((losses.more_than(0) - (1.0 - none)).abs() < 1e-9);
        let one = 30.0 * 0.05 * 0.95f64.powi(29);
        assert!((losses.more_than(1) - (1.0 - none - one)).abs() < 1e-9);
        // In runs of eight the same share hits far fewer groups, and those harder.
        let mut runs = Losses::new(0.05, 8.0);
        (0..30).for_each(|_| runs.add_packet());
        assert!(runs.more_than(0) < 0.3 && runs.more_than(4) > 0.1);
        (0..100).for_each(|_| runs.add_packet());
        let all: f64 = runs.counts.iter().flatten().sum();
        assert!((all - 1.0).abs() < 1e-9);
    }
}

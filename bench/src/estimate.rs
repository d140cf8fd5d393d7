//! A figure out of many samples, and how far to trust it.
//!
//! Samples of two contenders are taken turn about, in blocks. Each block gives one median per contender
//! and one ratio of medians; the estimate is the median over the blocks. What slows the machine for
//! longer than a block slows both, and what disturbs single samples does not reach a median.

use std::time::{Duration, Instant};

/// A median and the noise around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Median over the blocks.
    pub value: f64,
    /// Half the distance between the quartiles of the blocks, in the unit of the value.
    pub noise: f64,
}

impl Estimate {
    /// Of the blocks' figures.
    ///
    /// # Panics
    /// Without a figure.
    #[must_use]
    pub fn of(mut blocks: Vec<f64>) -> Self {
        blocks.sort_by(f64::total_cmp);
        let at = |share: f64| blocks[((blocks.len() - 1) as f64 * share).round() as usize];
        Self { value: at(0.5), noise: (at(0.75) - at(0.25)) / 2.0 }
    }

    /// Of the ratio of two contenders, block by block.
    #[must_use]
    pub fn ratio(of: &[f64], to: &[f64]) -> Self {
        Self::of(of.iter().zip(to).map(|(of, to)| of / to).collect())
    }

    /// In another unit.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self { value: self.value * factor, noise: self.noise * factor }
    }
}

/// The median, in nanoseconds.
///
/// # Panics
/// Without a sample.
#[must_use]
pub fn median_ns(samples: &mut [Duration]) -> f64 {
    let middle = samples.len() / 2;
    samples.select_nth_unstable(middle).1.as_nanos() as f64
}

/// How long `work` takes.
///
/// # Errors
/// What `work` fails with.
pub fn timed<E>(work: impl FnOnce() -> Result<(), E>) -> Result<Duration, E> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_disturbed_block_changes_nothing() {
        let estimate = Estimate::of(vec![2.0, 90.0, 2.2, 1.8, 2.0]);
        assert_eq!(estimate.value, 2.0);
        assert!((estimate.noise - 0.1).abs() < 1e-9, "{estimate:?}");
    }

    #[test]
    fn a_slow_phase_of_the_machine_cancels_in_the_ratio() {
        let ratio = Estimate::ratio(&[13.0, 130.0, 13.0], &[10.0, 100.0, 10.0]);
        assert_eq!(ratio, Estimate { value: 1.3, noise: 0.0 });
    }
}

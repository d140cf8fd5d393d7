//! How much later than its time something happened: a datagram left, a thread woke.

/// Steps of the histogram, in microseconds each.
const STEP_US: u64 = 10;
const STEPS: usize = 2_000;

/// A histogram of lateness, up to 20 ms.
#[derive(Clone, Debug)]
pub struct Lateness {
    counts: Box<[u64]>,
    most_us: u64,
}

impl Default for Lateness {
    fn default() -> Self {
        Self { counts: vec![0; STEPS].into_boxed_slice(), most_us: 0 }
    }
}

impl Lateness {
    /// It happened so many microseconds late.
    pub fn add(&mut self, us: u64) {
        let step = usize::try_from(us / STEP_US).unwrap_or(STEPS).min(STEPS - 1);
        self.counts[step] += 1;
        self.most_us = self.most_us.max(us);
    }

    /// The lateness that a share `p` did not exceed, in microseconds, rounded up to 10.
    #[must_use]
    pub fn quantile_us(&self, p: f64) -> u64 {
        let all: u64 = self.counts.iter().sum();
        let rank = (p * all as f64).ceil() as u64;
        let mut below = 0;
        for (step, count) in (1..).zip(&self.counts) {
            below += count;
            if below >= rank && below > 0 {
                return step * STEP_US;
            }
        }
        0
    }

    /// The greatest one, in microseconds.
    #[must_use]
    pub fn most_us(&self) -> u64 {
        self.most_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_added() {
        let mut lateness = Lateness::default();
        assert_eq!((lateness.quantile_us(0.99), lateness.most_us()), (0, 0));
        (0..100).for_each(|i| lateness.add(i * 10));
        lateness.add(1_000_000);
        assert_eq!((lateness.quantile_us(0.5), lateness.quantile_us(0.9)), (510, 910));
        assert_eq!(lateness.most_us(), 1_000_000);
    }
}

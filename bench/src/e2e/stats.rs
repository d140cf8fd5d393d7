//! Percentiles of a run, and the median of runs.

use serde::Serialize;

/// Percentiles of one quantity, in milliseconds unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    /// Half of the values are at or below.
    pub(crate) p50: f64,
    /// 95 of 100 values are at or below.
    pub(crate) p95: f64,
    /// 99 of 100 values are at or below.
    pub(crate) p99: f64,
}

impl Percentiles {
    /// Of these values, by nearest rank. Without values they are not numbers.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
        };
        Self { p50: at(0.50), p95: at(0.95), p99: at(0.99) }
    }

    /// The median of each percentile over several runs.
    pub(crate) fn median(runs: &[Self]) -> Self {
        let of = |part: fn(&Self) -> f64| median(runs.iter().map(part));
        Self { p50: of(|p| p.p50), p95: of(|p| p.p95), p99: of(|p| p.p99) }
    }
}

/// The middle value, or the mean of the two in the middle. Not a number without values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_medians() {
        let percentiles = Percentiles::of((1..=100).rev().map(f64::from));
        assert_eq!(percentiles, Percentiles { p50: 50.0, p95: 95.0, p99: 99.0 });
        assert!(Percentiles::of([]).p50.is_nan());
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }
}

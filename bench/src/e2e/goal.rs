//! What the engine has to reach, and whether it does.

use std::fmt;

use serde::Serialize;

/// A bound on one figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Goal {
    /// What is bounded.
    pub(crate) what: String,
    /// What was measured.
    pub(crate) measured: f64,
    /// What it may be at most.
    pub(crate) at_most: f64,
    /// Unit; empty for a ratio.
    pub(crate) unit: &'static str,
}

impl Goal {
    /// A figure and its bound.
    pub(crate) fn new(what: impl Into<String>, measured: f64, at_most: f64, unit: &'static str) -> Self {
        Self { what: what.into(), measured, at_most, unit }
    }

    /// Whether the figure keeps to it, with this share of its bound for noise. A figure that is not a number
    /// never does.
    pub(crate) fn is_met(&self, noise: f64) -> bool {
        self.measured <= self.at_most * (1.0 + noise)
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_met(0.0) { "met" } else { "missed" };
        write!(
            f,
            "{:<58}{:>9.3} {:<3} at most {:>6.3}  {verdict}",
            self.what, self.measured, self.unit, self.at_most
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_with_and_without_noise() {
        assert!(Goal::new("a", 1.0, 1.0, "").is_met(0.0));
        assert!(!Goal::new("a", 1.04, 1.0, "").is_met(0.0));
        assert!(Goal::new("a", 1.04, 1.0, "").is_met(0.05));
        assert!(!Goal::new("a", f64::NAN, 1.0, "").is_met(0.05));
    }
}

//! Points in time, as the protocol core sees them.
//!
//! The core never reads a clock: whoever drives it passes a [`Timestamp`] with each input. All
//! arithmetic saturates, so a clock that jumps cannot panic the core.

use core::fmt;
use core::ops::{Add, Sub};
use core::time::Duration;

/// Microseconds since an epoch of the caller's choice (on Linux, of `CLOCK_MONOTONIC`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The epoch.
    pub const ZERO: Self = Self(0);
    /// Later than every real point in time; the neutral element of [`Ord::min`].
    pub const NEVER: Self = Self(u64::MAX);

    /// The point `us` microseconds after the epoch.
    #[must_use]
    pub const fn from_micros(us: u64) -> Self {
        Self(us)
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Microseconds since `earlier`, 0 if `earlier` is later.
    #[must_use]
    pub const fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This point moved by `us` microseconds into the future.
    #[must_use]
    pub const fn plus_micros(self, us: u64) -> Self {
        Self(self.0.saturating_add(us))
    }

    /// This point moved by `us` microseconds into the past.
    #[must_use]
    pub const fn minus_micros(self, us: u64) -> Self {
        Self(self.0.saturating_sub(us))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        self.plus_micros(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
    }
}

impl Sub for Timestamp {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_micros(self.micros_since(earlier))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER { f.write_str("never") } else { write!(f, "{}us", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Timestamp::NEVER.plus_micros(1), Timestamp::NEVER);
        assert_eq!(Timestamp::ZERO.minus_micros(1), Timestamp::ZERO);
        assert_eq!(Timestamp::from_micros(3) - Timestamp::from_micros(5), Duration::ZERO);
        assert_eq!(Timestamp::from_micros(3) + Duration::MAX, Timestamp::NEVER);
    }
}

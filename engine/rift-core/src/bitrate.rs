//! Bits per second.

use core::fmt;

/// A data rate in bits per second. Arithmetic saturates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bitrate(u64);

impl Bitrate {
    /// No data at all.
    pub const ZERO: Self = Self(0);

    /// From bits per second.
    #[must_use]
    pub const fn from_bps(bps: u64) -> Self {
        Self(bps)
    }

    /// From kilobits (1000 bits) per second, the unit on the wire.
    #[must_use]
    pub const fn from_kbps(kbps: u32) -> Self {
        Self(kbps as u64 * 1000)
    }

    /// From megabits (10^6 bits) per second.
    #[must_use]
    pub const fn from_mbps(mbps: u32) -> Self {
        Self(mbps as u64 * 1_000_000)
    }

    /// Bits per second.
    #[must_use]
    pub const fn as_bps(self) -> u64 {
        self.0
    }

    /// Kilobits per second, rounded down, saturating at `u32::MAX`.
    #[must_use]
    pub const fn as_kbps(self) -> u32 {
        let kbps = self.0 / 1000;
        if kbps > u32::MAX as u64 { u32::MAX } else { kbps as u32 }
    }

    /// Microseconds that `bytes` take at this rate; `u64::MAX` at rate 0.
    #[must_use]
    pub const fn micros_for(self, bytes: u64) -> u64 {
        if self.0 == 0 {
            return u64::MAX;
        }
        let us = bytes as u128 * 8_000_000 / self.0 as u128;
        if us > u64::MAX as u128 { u64::MAX } else { us as u64 }
    }

    /// Bytes that pass in `us` microseconds at this rate, rounded down.
    #[must_use]
    pub const fn bytes_in(self, us: u64) -> u64 {
        let bytes = self.0 as u128 * us as u128 / 8_000_000;
        if bytes > u64::MAX as u128 { u64::MAX } else { bytes as u64 }
    }
}

impl fmt::Debug for Bitrate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} Mbit/s", self.0 / 1_000_000, self.0 / 1000 % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_bytes_are_inverse() {
        let rate = Bitrate::from_mbps(50);
        assert_eq!(rate.micros_for(6250), 1000);
        assert_eq!(rate.bytes_in(1000), 6250);
        assert_eq!(Bitrate::ZERO.micros_for(1), u64::MAX);
    }
}

//! The engine's clock.
//!
//! Owns nothing: it is a view of the kernel's monotonic clock. A shard loop reads it once per batch and
//! passes the value down; nothing below the loop reads a clock of its own.

#![forbid(unsafe_code)]

use crate::sys;

/// Nanoseconds of `CLOCK_MONOTONIC`: never steps, stands still while the machine is suspended.
///
/// Answered by the vDSO, so it is not a system call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// The time now, in nanoseconds since an arbitrary point (boot).
    #[inline]
    #[must_use]
    pub fn now(&self) -> u64 {
        sys::monotonic_ns()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advances_with_real_time() {
        let clock = Clock;
        let before = clock.now();
        std::thread::sleep(std::time::Duration::from_millis(3));
        let passed = clock.now() - before;
        assert!((3_000_000..2_000_000_000).contains(&passed), "{passed} ns for a 3 ms sleep");
    }
}

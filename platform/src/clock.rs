//! The clock of this crate: `CLOCK_MONOTONIC`, the same one on which the network core and XInput-free measurements
//! are taken, so stage times of one machine can be subtracted from each other. It never reads wall time.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`, by vDSO, without a system call.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Monotonic time starts at boot and is never negative.
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// What is left until `deadline`; zero once it has passed.
pub(crate) fn left_until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// `duration` in the form that poll(2) takes.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advances_with_instant() {
        let (clock, instant) = (monotonic_ns(), Instant::now());
        std::thread::sleep(Duration::from_millis(5));
        let (by_clock, by_instant) = (monotonic_ns() - clock, instant.elapsed().as_nanos() as u64);
        assert!(by_clock.abs_diff(by_instant) < 2_000_000, "{by_clock} against {by_instant}");
    }

    #[test]
    fn a_passed_deadline_leaves_nothing() {
        assert_eq!(left_until(Instant::now()), Duration::ZERO);
        assert!(left_until(Instant::now() + Duration::from_secs(9)) > Duration::from_secs(8));
    }
}

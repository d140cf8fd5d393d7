//! The clock of one end, which agrees with virtual time in nothing but being monotonic between jumps.

use rift_core::Timestamp;

/// Below this many microseconds products with a drift have room in 64 bits, sums of two included.
const WIDE_US: i64 = i64::MAX / 200_000;

/// A clock that is off by an amount, runs fast or slow, and can be made to jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    offset_us: i64,
    drift_ppm: i32,
}

impl Clock {
    /// A clock that shows `offset_us` when virtual time is 0 and gains `drift_ppm` microseconds per second.
    /// Drift is cut to 10 % either way.
    #[must_use]
    pub fn new(offset_us: i64, drift_ppm: i32) -> Self {
        Self { offset_us, drift_ppm: drift_ppm.clamp(-100_000, 100_000) }
    }

    /// What the clock shows at virtual time `world`. Saturates at 0.
    #[must_use]
    pub fn local(&self, world: Timestamp) -> Timestamp {
        let us = i64::try_from(world.as_micros()).unwrap_or(i64::MAX);
        if us < WIDE_US && self.is_narrow() {
            // In 64 bits where they suffice, which is 1.4 years: this is asked several times for each packet.
            let local = us + us * i64::from(self.drift_ppm) / 1_000_000 + self.offset_us;
            return Timestamp::from_micros(local.max(0) as u64);
        }
        let us = i128::from(world.as_micros());
        let local = us + us * i128::from(self.drift_ppm) / 1_000_000 + i128::from(self.offset_us);
        Timestamp::from_micros(u64::try_from(local.max(0)).unwrap_or(u64::MAX))
    }

    /// The first virtual time, not before `from`, at which the clock shows `local` or more.
    #[must_use]
    pub fn world(&self, local: Timestamp, from: Timestamp) -> Timestamp {
        if local == Timestamp::NEVER {
            return Timestamp::NEVER;
        }
        let us = i64::try_from(local.as_micros()).unwrap_or(i64::MAX);
        let per_million = 1_000_000 + i64::from(self.drift_ppm);
        let guess = if us < WIDE_US && self.is_narrow() {
            let elapsed = us - self.offset_us;
            if self.drift_ppm == 0 {
                return from.max(Timestamp::from_micros(elapsed.max(0) as u64));
            }
            i128::from(elapsed - elapsed * i64::from(self.drift_ppm) / per_million)
        } else {
            (i128::from(local.as_micros()) - i128::from(self.offset_us)) * 1_000_000 / i128::from(per_million)
        };
        // Rounding is off by one in either, and 10 % of drift by one more.
        let guess = (guess - 2).max(0);
        let mut at = from.max(Timestamp::from_micros(u64::try_from(guess).unwrap_or(u64::MAX)));
        while self.local(at) < local && at < Timestamp::NEVER {
            at = at.plus_micros(1);
        }
        at
    }

    /// Whether the offset leaves room in 64 bits.
    fn is_narrow(&self) -> bool {
        self.offset_us.unsigned_abs() < WIDE_US as u64 / 2
    }

    /// Makes the clock jump by `by_us`.
    pub fn jump(&mut self, by_us: i64) {
        self.offset_us = self.offset_us.saturating_add(by_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn world_is_the_first_moment_that_shows_local(
            offset in prop_oneof![0i64..1 << 40, 0i64..1 << 55],
            drift in prop_oneof![Just(0), -100_000i32..100_000],
            local in prop_oneof![0u64..1 << 41, 0u64..1 << 55],
        ) {
            let clock = Clock::new(offset, drift);
            let local = Timestamp::from_micros(local);
            let world = clock.world(local, Timestamp::ZERO);
            prop_assert!(clock.local(world) >= local);
            if world > Timestamp::ZERO {
                prop_assert!(clock.local(world.minus_micros(1)) < local);
            }
        }
    }

    #[test]
    fn a_jump_moves_the_reading() {
        let mut clock = Clock::new(1_000_000, 0);
        clock.jump(-500_000);
        assert_eq!(clock.local(Timestamp::ZERO), Timestamp::from_micros(500_000));
        clock.jump(-900_000);
        assert_eq!(clock.local(Timestamp::ZERO), Timestamp::ZERO, "no time before the epoch");
    }
}

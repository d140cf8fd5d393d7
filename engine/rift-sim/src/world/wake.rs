//! When an endpoint is to be called next.

use rift_core::Timestamp;

/// Calls at one moment after which a timer that does not advance is a fault.
const STUCK_CALLS: u32 = 200;
/// How often an endpoint with such a timer is called from then on, in microseconds.
const STUCK_PAUSE_US: u64 = 1_000;

/// The pending call of an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wake {
    at: Timestamp,
    last: Timestamp,
    calls: u32,
}

impl Default for Wake {
    fn default() -> Self {
        Self { at: Timestamp::NEVER, last: Timestamp::NEVER, calls: 0 }
    }
}

impl Wake {
    /// Asks for a call at `at`; gives the time for which an event must be queued, if one must.
    pub(super) fn arm(&mut self, now: Timestamp, at: Timestamp) -> Option<Timestamp> {
        let mut at = at.max(now);
        if at == now && self.is_stuck() {
            at = now.plus_micros(STUCK_PAUSE_US);
        }
        if at == Timestamp::NEVER || at >= self.at {
            return None;
        }
        self.at = at;
        Some(at)
    }

    /// Whether an event at `now` is the pending call and not an older one.
    pub(super) fn fires(&mut self, now: Timestamp) -> bool {
        if self.at != now {
            return false;
        }
        self.at = Timestamp::NEVER;
        true
    }

    /// The endpoint is called at `now`. True once if it was called over and over at one moment.
    pub(super) fn on_call(&mut self, now: Timestamp) -> bool {
        self.calls = if self.last == now { self.calls + 1 } else { 1 };
        self.last = now;
        self.calls == STUCK_CALLS
    }

    fn is_stuck(&self) -> bool {
        self.calls >= STUCK_CALLS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Timestamp {
        Timestamp::from_micros(us)
    }

    #[test]
    fn only_the_earliest_call_is_queued() {
        let mut wake = Wake::default();
        assert_eq!(wake.arm(at(0), at(50)), Some(at(50)));
        assert_eq!(wake.arm(at(0), at(60)), None);
        assert_eq!(wake.arm(at(0), at(20)), Some(at(20)));
        assert!(wake.fires(at(20)));
        assert!(!wake.fires(at(50)), "overtaken");
        assert_eq!(wake.arm(at(50), Timestamp::NEVER), None);
    }

    #[test]
    fn a_timer_that_does_not_advance_is_noticed_and_slowed_down() {
        let mut wake = Wake::default();
        let noticed = (0..300).filter(|_| wake.on_call(at(5))).count();
        assert_eq!(noticed, 1);
        assert_eq!(wake.arm(at(5), at(0)), Some(at(1_005)));
    }
}

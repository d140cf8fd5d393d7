//! What a queue does to packets besides keeping them: nothing, drop some early, or mark them.

use rift_core::endpoint::Ecn;

/// How a queue is managed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Aqm {
    /// Packets are dropped when there is no room.
    #[default]
    DropTail,
    /// `CoDel` (RFC 8289).
    CoDel {
        /// The wait that is accepted, in microseconds.
        target_us: u64,
        /// For how long more is accepted, in microseconds.
        interval_us: u64,
    },
    /// Packets of ECT(1) are marked with a probability that grows from 0 to 1 between two waits, as in an L4S
    /// queue (RFC 9332). Equal waits make a step.
    Mark {
        /// No mark up to this wait, in microseconds.
        low_us: u64,
        /// Always marked from this wait on, in microseconds.
        high_us: u64,
    },
}

/// What is to be done with a packet whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Send,
    Mark,
    Drop,
}

/// The state of a managed queue.
#[derive(Clone, Debug, Default)]
pub(super) struct AqmState {
    codel: Codel,
}

impl AqmState {
    /// A packet has waited for `wait_us` and its turn is now; `backlog` bytes wait behind it. `chance` is
    /// evenly spread from 0 to 1.
    pub(super) fn judge(
        &mut self,
        aqm: Aqm,
        now_us: u64,
        wait_us: u64,
        backlog: u64,
        ecn: Ecn,
        chance: f64,
    ) -> Verdict {
        match aqm {
            Aqm::DropTail => Verdict::Send,
            Aqm::CoDel { target_us, interval_us } => {
                if self.codel.drops(now_us, wait_us, backlog, target_us, interval_us.max(1)) {
                    Verdict::Drop
                } else {
                    Verdict::Send
                }
            }
            Aqm::Mark { low_us, high_us } => {
                let span = high_us.saturating_sub(low_us) as f64;
                let over = wait_us.saturating_sub(low_us) as f64;
                let is_marked = wait_us >= low_us && over >= span * chance;
                if is_marked && ecn == Ecn::Ect1 { Verdict::Mark } else { Verdict::Send }
            }
        }
    }
}

/// RFC 8289 section 5, one packet at a time.
#[derive(Clone, Debug, Default)]
struct Codel {
    /// From when on the wait has been too long for a whole interval.
    above_at: Option<u64>,
    drop_next: u64,
    count: u32,
    last_count: u32,
    is_dropping: bool,
}

/// A queue with no more than one full packet is never too long.
const MTU: u64 = 1_500;

impl Codel {
    fn drops(&mut self, now: u64, wait: u64, backlog: u64, target: u64, interval: u64) -> bool {
        let ok_to_drop = if wait < target || backlog <= MTU {
            self.above_at = None;
            false
        } else {
            now >= *self.above_at.get_or_insert(now + interval)
        };
        if self.is_dropping {
            if !ok_to_drop {
                self.is_dropping = false;
                return false;
            }
            if now < self.drop_next {
                return false;
            }
            self.count += 1;
            self.drop_next = control_law(self.drop_next, interval, self.count);
            return true;
        }
        if !ok_to_drop {
            return false;
        }
        self.is_dropping = true;
        // If it was dropping not long ago, the rate that controlled the queue then is a good start.
        let delta = self.count - self.last_count;
        let is_recent = now.saturating_sub(self.drop_next) < 16 * interval;
        self.count = if delta > 1 && is_recent { delta } else { 1 };
        self.drop_next = control_law(now, interval, self.count);
        self.last_count = self.count;
        true
    }
}

fn control_law(at: u64, interval: u64, count: u32) -> u64 {
    at + (interval as f64 / f64::from(count).sqrt()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODEL: Aqm = Aqm::CoDel { target_us: 5_000, interval_us: 100_000 };

    /// Drops of packets that come every millisecond and wait for `wait_us`, in the first second.
    fn drops(wait_us: impl Fn(u64) -> u64) -> Vec<u64> {
        let mut state = AqmState::default();
        let judged = (0..1_000).map(|ms| {
            (ms, state.judge(CODEL, ms * 1_000, wait_us(ms), 100_000, Ecn::NotEct, 0.0) == Verdict::Drop)
        });
        judged.filter(|&(_, dropped)| dropped).map(|(ms, _)| ms).collect()
    }

    /// The control law: intervals of 100 ms over the square root of the count.
    #[test]
    fn a_standing_queue_is_dropped_from_at_growing_speed() {
        let dropped = drops(|_| 20_000);
        assert_eq!(dropped[..5], [100, 200, 271, 329, 379], "{dropped:?}");
    }

    #[test]
    fn a_burst_and_a_short_queue_are_not() {
        assert_eq!(drops(|_| 4_900), []);
        assert_eq!(drops(|ms| if ms % 90 == 0 { 1_000 } else { 60_000 }), []);
        let mut state = AqmState::default();
        assert!(
            (0..1_000).all(|ms| {
                state.judge(CODEL, ms * 1_000, 50_000, 1_400, Ecn::NotEct, 0.0) == Verdict::Send
            })
        );
    }

    #[test]
    fn marks_follow_the_ramp_and_only_for_who_understands_them() {
        let ramp = Aqm::Mark { low_us: 2_000, high_us: 10_000 };
        let judge = |aqm, wait, ecn, chance| AqmState::default().judge(aqm, 0, wait, 9_000, ecn, chance);
        assert_eq!(judge(ramp, 1_999, Ecn::Ect1, 0.0), Verdict::Send);
        assert_eq!(judge(ramp, 6_000, Ecn::Ect1, 0.49), Verdict::Mark);
        assert_eq!(judge(ramp, 6_000, Ecn::Ect1, 0.51), Verdict::Send);
        assert_eq!(judge(ramp, 10_000, Ecn::Ect1, 0.99), Verdict::Mark);
        assert_eq!(judge(ramp, 90_000, Ecn::Ect0, 0.0), Verdict::Send);
        assert_eq!(judge(Aqm::Mark { low_us: 1_000, high_us: 1_000 }, 1_000, Ecn::Ect1, 0.99), Verdict::Mark);
    }
}

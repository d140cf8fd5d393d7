//! Moments at which the machine stood still: a virtual one does when others need its processors.
//!
//! Owns one thread per core that sleeps a millisecond at a time, before all normal threads, and notes when it slept for
//! longer. Such a stall is in no simulated run, and a few of them are what a 99th percentile consists of.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use rift_sim::metrics::StreamLog;
use wavry_runtime::clock::Clock;
use wavry_runtime::cores;

const NAP: Duration = Duration::from_millis(1);
/// Waking so much later is a stall, in microseconds.
const LATE_US: u64 = 2_000;
/// A frame under way within this time was held up, in microseconds before and after.
const BEFORE_US: u64 = 60_000;
const AFTER_US: u64 = 20_000;

/// From when until when, in microseconds of the run.
pub(super) type Stall = (u64, u64);

/// Watches every core until `over`.
pub(super) fn watch<'scope>(
    scope: &'scope Scope<'scope, '_>,
    epoch_ns: u64,
    over: &'scope AtomicBool,
) -> anyhow::Result<Vec<ScopedJoinHandle<'scope, Vec<Stall>>>> {
    let watch = |core| {
        scope.spawn(move || {
            // Where it may not, it sees less, and more is compared.
            let _ = cores::pin_to(core);
            cores::raise_priority(true);
            let mut stalls = Vec::new();
            while !over.load(Ordering::Acquire) {
                let begun = Clock.now();
                thread::sleep(NAP);
                let ended = Clock.now();
                let due = begun + NAP.as_nanos() as u64;
                if ended.saturating_sub(due) / 1000 > LATE_US {
                    stalls.push((due.saturating_sub(epoch_ns) / 1000, ended.saturating_sub(epoch_ns) / 1000));
                }
            }
            stalls
        })
    };
    Ok(cores::allowed()?.into_iter().map(watch).collect())
}

/// What was watched. A thread that panicked saw nothing.
pub(super) fn seen(watches: Vec<ScopedJoinHandle<'_, Vec<Stall>>>) -> Vec<Stall> {
    watches.into_iter().flat_map(|watch| watch.join().unwrap_or_default()).collect()
}

/// The log without frames that were under way during a stall.
pub(super) fn without(log: &StreamLog, stalls: &[Stall]) -> StreamLog {
    let mut log = log.clone();
    log.frames.retain(|frame| {
        let held = |&(from, to): &Stall| {
            (from.saturating_sub(BEFORE_US)..to + AFTER_US).contains(&frame.captured_us)
        };
        !stalls.iter().any(held)
    });
    log
}

#[cfg(test)]
mod tests {
    use super::*;
    use rift_core::FrameId;

    #[test]
    fn frames_near_a_stall_are_left_out() {
        let mut log = StreamLog::default();
        for frame in 0..100 {
            log.on_captured(FrameId(frame), frame * 16_667, 1_000);
        }
        let left: Vec<u64> = without(&log, &[(500_000, 510_000)]).frames.iter().map(|f| f.id.0).collect();
        let expected: Vec<u64> = (0..=26).chain(32..100).collect();
        assert_eq!(left, expected);
    }
}

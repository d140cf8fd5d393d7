//! The verifying thread: signatures and key exchanges, off the forwarding core.
//!
//! Owns the verifier. Never touches a socket. Invariant: peers that are bound come first, and at most so many per second
//! are verified as the operator allows.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wavry_runtime::Waker;
use wavry_runtime::clock::Clock;
use wavry_runtime::spsc::{Consumer, Producer};

use super::metrics::{Metrics, add};
use crate::limits::Budget;
use crate::verify::{Job, Outcome, Policy, Verifier};

/// The ends of the rings that the thread holds.
pub(super) struct VerifyingLinks {
    pub(super) forwarders: Vec<ForwarderEnd>,
    pub(super) policies: Consumer<Arc<Policy>>,
}

/// The ends of those to one forwarding thread.
pub(super) struct ForwarderEnd {
    pub(super) new_jobs: Consumer<Job>,
    pub(super) known_jobs: Consumer<Job>,
    pub(super) outcomes: Producer<Outcome>,
    pub(super) waker: Waker,
    pub(super) metrics: Arc<Metrics>,
}

pub(super) struct Verifying {
    verifier: Verifier,
    links: VerifyingLinks,
    budget: Budget,
    /// The forwarding thread that is looked at first.
    turn: usize,
}

impl Verifying {
    pub(super) fn new(verifier: Verifier, links: VerifyingLinks, per_second: u32) -> Self {
        Self { verifier, links, budget: Budget::new(per_second, per_second / 10 + 1), turn: 0 }
    }

    /// Until the forwarding threads are gone.
    pub(super) fn run(mut self) {
        while !self.links.forwarders.iter().all(|end| end.outcomes.is_abandoned()) {
            while let Some(policy) = self.links.policies.pop() {
                self.verifier.set_policy(policy);
            }
            if self.links.forwarders.iter().all(|end| end.known_jobs.is_empty() && end.new_jobs.is_empty()) {
                std::thread::park_timeout(Duration::from_millis(100));
                continue;
            }
            if !self.budget.take(Clock.now()) {
                std::thread::park_timeout(Duration::from_millis(2));
                continue;
            }
            let Some((job, number)) = self.next_job() else { continue };
            let end = &mut self.links.forwarders[number];
            add(&end.metrics.verified, 1);
            if let Some(outcome) = self.verifier.verify(&job, unix_ms()) {
                // It has room for everything that both queues hold.
                let _ = end.outcomes.push(outcome);
                end.waker.wake();
            }
        }
    }

    /// The next job and the forwarding thread that it is from; threads take turns.
    fn next_job(&mut self) -> Option<(Job, usize)> {
        let count = self.links.forwarders.len();
        self.turn = (self.turn + 1) % count;
        let order = (self.turn..count).chain(0..self.turn);
        let ends = &mut self.links.forwarders;
        let known = order.clone().find_map(|number| Some((ends[number].known_jobs.pop()?, number)));
        known.or_else(|| order.into_iter().find_map(|number| Some((ends[number].new_jobs.pop()?, number))))
    }
}

pub(super) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

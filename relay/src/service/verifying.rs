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
    pub(super) new_jobs: Consumer<Job>,
    pub(super) known_jobs: Consumer<Job>,
    pub(super) outcomes: Producer<Outcome>,
    pub(super) policies: Consumer<Arc<Policy>>,
    pub(super) waker: Waker,
    pub(super) metrics: Arc<Metrics>,
}

pub(super) struct Verifying {
    verifier: Verifier,
    links: VerifyingLinks,
    budget: Budget,
}

impl Verifying {
    pub(super) fn new(verifier: Verifier, links: VerifyingLinks, per_second: u32) -> Self {
        Self { verifier, links, budget: Budget::new(per_second, per_second / 10 + 1) }
    }

    /// Until the forwarding thread is gone.
    pub(super) fn run(mut self) {
        while !self.links.outcomes.is_abandoned() {
            while let Some(policy) = self.links.policies.pop() {
                self.verifier.set_policy(policy);
            }
            if self.links.known_jobs.is_empty() && self.links.new_jobs.is_empty() {
                std::thread::park_timeout(Duration::from_millis(100));
                continue;
            }
            if !self.budget.take(Clock.now()) {
                std::thread::park_timeout(Duration::from_millis(2));
                continue;
            }
            let Some(job) = self.links.known_jobs.pop().or_else(|| self.links.new_jobs.pop()) else {
                continue;
            };
            add(&self.links.metrics.verified, 1);
            if let Some(outcome) = self.verifier.verify(&job, unix_ms()) {
                // It has room for everything that both queues hold.
                let _ = self.links.outcomes.push(outcome);
                self.links.waker.wake();
            }
        }
    }
}

pub(super) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

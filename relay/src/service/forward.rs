//! The forwarding thread: receives batches, decides, sends batches.
//!
//! Owns a socket and the sessions whose datagrams come to it. Never waits but in [`Transport::turn`], never allocates, never verifies a signature.
//! Invariants: datagrams of one sender leave in the order in which they came, with the marks (DSCP, ECN) that they had.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::Thread;

use wavry_runtime::clock::Clock;
use wavry_runtime::shutdown::Shutdown;
use wavry_runtime::spsc::{Consumer, Producer};
use wavry_runtime::transport::{Ecn, MAX_SEGMENTS, TX_SLOT_LEN, TrafficClass, Transmit, Transport, TxSlot};

use super::fast_path::FastPath;
use super::metrics::{Metrics, add};
use super::privileges;
use super::verifying::unix_ms;
use crate::core::{Action, Now, Relay};
use crate::drop_reason::DropReason;
use crate::verify::{Job, Outcome, Policy};

/// Send slots held ready for one received batch: its receiver, its sender for answers, and a few more.
const SPARE: usize = 8;

/// The ends of the rings that the thread holds.
pub(super) struct ForwarderLinks {
    pub(super) new_jobs: Producer<Job>,
    pub(super) known_jobs: Producer<Job>,
    pub(super) outcomes: Consumer<Outcome>,
    pub(super) policies: Consumer<Arc<Policy>>,
    pub(super) verifying: Thread,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shutdown: Shutdown,
}

pub(super) struct Forwarder<T> {
    transport: T,
    relay: Relay,
    links: ForwarderLinks,
    drain_ns: u64,
    out: Outgoing,
    fast: Option<FastPath>,
}

/// A send slot that is being filled with datagrams for one receiver.
struct Open {
    slot: TxSlot,
    head: Head,
    len: usize,
    segment_len: usize,
    segments: usize,
}

/// What all datagrams of a batch have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Head {
    to: SocketAddr,
    from: Option<IpAddr>,
    class: TrafficClass,
    ecn: Ecn,
}

impl Open {
    /// Whether another datagram fits the batch: same receiver and marks, none longer than the first, and only the last
    /// one shorter.
    fn takes(&self, head: &Head, len: usize) -> bool {
        self.head == *head
            && len <= self.segment_len
            && self.len == self.segments * self.segment_len
            && self.segments < MAX_SEGMENTS
            && self.len + len <= TX_SLOT_LEN
    }
}

impl<T: Transport> Forwarder<T> {
    pub(super) fn new(transport: T, relay: Relay, links: ForwarderLinks, drain_ns: u64) -> Self {
        Self { transport, relay, links, drain_ns, out: Outgoing::new(), fast: None }
    }

    /// Has sessions carried by the fast path where it can.
    pub(super) fn with_fast_path(mut self, fast: Option<FastPath>) -> Self {
        if let Some(fast) = &fast {
            self.relay.enable_fast_path(fast.base());
        }
        self.fast = fast;
        self
    }

    /// Until asked to end, and then for as long as sessions last or draining may take.
    pub(super) fn run(mut self) -> std::io::Result<()> {
        privileges::give_up();
        self.links.metrics.ready.store(true, Ordering::Relaxed);
        let mut end_ns = u64::MAX;
        loop {
            let now = now();
            if end_ns == u64::MAX && self.links.shutdown.requested() {
                tracing::info!(sessions = self.relay.len(), "draining");
                self.links.metrics.ready.store(false, Ordering::Relaxed);
                self.relay.drain();
                end_ns = now.ns.saturating_add(self.drain_ns);
            }
            if now.ns >= end_ns || (end_ns != u64::MAX && self.relay.is_empty()) {
                return self.transport.flush();
            }
            self.receive(now);
            self.take_outcomes(now);
            while let Some(policy) = self.links.policies.pop() {
                self.relay.apply_policy(&policy);
            }
            self.relay.handle_timeout(now);
            self.drive_fast_path(now);
            self.links.metrics.set_sessions(self.relay.len(), self.relay.counters());
            let due = self.relay.poll_timeout().min(end_ns);
            self.transport.turn((due != u64::MAX).then_some(due))?;
        }
    }

    #[inline]
    fn drive_fast_path(&mut self, now: Now) {
        if let Some(fast) = &mut self.fast {
            fast.drive(&mut self.relay, now);
        }
    }

    fn receive(&mut self, now: Now) {
        loop {
            // While a batch is borrowed from the transport nothing else can be asked of it.
            while self.out.spare.len() < SPARE
                && let Some(slot) = self.transport.acquire()
            {
                self.out.spare.push(slot);
            }
            let Some(batch) = self.transport.poll_receive() else { break };
            let (from, local) = (batch.from, batch.to);
            let (class, ecn) = (batch.class, batch.ecn);
            let metrics = &*self.links.metrics;
            let (mut forwarded, mut bytes, mut answered, mut wake) = (0, 0, 0, false);
            for datagram in batch.datagrams() {
                let mut action = self.relay.handle_datagram(now, from, datagram);
                if action == Action::TakeBack
                    && let Some(fast) = &mut self.fast
                {
                    fast.drive(&mut self.relay, now);
                    action = self.relay.handle_datagram(now, from, datagram);
                }
                match action {
                    Action::Forward(to) => {
                        if self.out.put(&Head { to, from: None, class, ecn }, datagram) {
                            forwarded += 1;
                            bytes += datagram.len() as u64;
                        } else {
                            metrics.on_drop(DropReason::NoBuffer);
                        }
                    }
                    Action::Drop(reason) => metrics.on_drop(reason),
                    // It was taken back just now.
                    Action::TakeBack => {}
                    action @ (Action::Answer | Action::DropAndAnswer(_)) => {
                        if let Action::DropAndAnswer(reason) = action {
                            metrics.on_drop(reason);
                        }
                        answered += u64::from(self.out.put(&Head::answer(from, local), self.relay.answer()));
                    }
                    Action::Verify { known } => {
                        let ring = if known { &mut self.links.known_jobs } else { &mut self.links.new_jobs };
                        let job = Job::new(from, datagram);
                        if job.is_some_and(|job| ring.push(job).is_ok()) {
                            wake = true;
                        } else {
                            metrics.on_drop(DropReason::VerifyQueue);
                        }
                    }
                }
            }
            add(&metrics.forwarded, forwarded);
            add(&metrics.forwarded_bytes, bytes);
            add(&metrics.answered, answered);
            if wake {
                self.links.verifying.unpark();
            }
            self.commit();
        }
        self.out.close();
        self.commit();
        let counters = self.transport.counters();
        self.links.metrics.receive_overflow.store(counters.socket_drops, Ordering::Relaxed);
        self.links.metrics.merging_changes.store(counters.merging_changes, Ordering::Relaxed);
    }

    fn take_outcomes(&mut self, now: Now) {
        while let Some(outcome) = self.links.outcomes.pop() {
            if self.out.spare.is_empty()
                && let Some(slot) = self.transport.acquire()
            {
                self.out.spare.push(slot);
            }
            if let Some(to) = self.relay.handle_verified(now, &outcome) {
                self.out.put(&Head::answer(to, None), self.relay.answer());
                self.out.close();
                self.commit();
            }
        }
    }

    fn commit(&mut self) {
        for (slot, transmit) in self.out.done.drain(..) {
            self.transport.commit(slot, transmit);
        }
    }
}

impl Head {
    /// Of what the relay itself says.
    fn answer(to: SocketAddr, from: Option<IpAddr>) -> Self {
        Self { to, from, class: TrafficClass::Cs5, ecn: Ecn::NotEct }
    }
}

/// Send slots on their way from empty to committed.
struct Outgoing {
    spare: Vec<TxSlot>,
    open: Option<Open>,
    done: Vec<(TxSlot, Transmit)>,
}

impl Outgoing {
    fn new() -> Self {
        Self { spare: Vec::with_capacity(SPARE), open: None, done: Vec::with_capacity(SPARE + 1) }
    }

    /// Queues a datagram, in one batch with those before it if they go to the same place.
    #[inline]
    fn put(&mut self, head: &Head, datagram: &[u8]) -> bool {
        if !self.open.as_ref().is_some_and(|open| open.takes(head, datagram.len())) {
            self.close();
            let Some(slot) = self.spare.pop() else { return false };
            self.open = Some(Open { slot, head: *head, len: 0, segment_len: datagram.len(), segments: 0 });
        }
        let Some(open) = &mut self.open else { return false };
        open.slot[open.len..open.len + datagram.len()].copy_from_slice(datagram);
        open.len += datagram.len();
        open.segments += 1;
        true
    }

    /// Ends the batch that is being filled.
    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            let transmit = Transmit {
                to: open.head.to,
                from: open.head.from,
                len: open.len,
                segment_len: open.segment_len,
                class: open.head.class,
                ecn: open.head.ecn,
            };
            self.done.push((open.slot, transmit));
        }
    }
}

fn now() -> Now {
    Now { ns: Clock.now(), unix_ms: unix_ms() }
}

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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use rift_crypto::Identity;
    use rift_relay::lease::{Claims, IssuerKey, KeyRing};
    use rift_relay::peer::{PeerConfig, RelayPeer};
    use rift_relay::wire::SessionId;
    use wavry_runtime::spsc;
    use zeroize::Zeroizing;

    use super::*;
    use crate::core::{Now, Relay, RelayLimits};

    const PER_SECOND: u32 = 1000;
    const SESSION: SessionId = SessionId([7; 16]);

    /// What a peer shows when the relay has asked it to.
    fn shown(relay: &mut Relay, issuer: &IssuerKey, relay_identity: &Identity) -> Vec<u8> {
        let from = "192.0.2.9:900".parse().unwrap();
        let identities = [[1; 32], [2; 32]].map(|seed| Identity::from_seed(seed).unwrap());
        let peers = identities.each_ref().map(Identity::wavry_id);
        let claims = Claims::from_now(SESSION, relay_identity.wavry_id(), peers, unix_ms(), 300_000, 50_000);
        let [identity, _] = identities;
        let config = PeerConfig { identity, token: issuer.mint(&claims), seed: [3; 32] };
        let mut peer = RelayPeer::new(config, 0).unwrap();
        peer.handle_timeout(0);
        let ask = peer.poll_transmit(0).unwrap().to_vec();
        relay.handle_datagram(Now { ns: 1, unix_ms: unix_ms() }, from, &ask);
        peer.handle_datagram(0, relay.answer());
        peer.poll_transmit(0).unwrap().to_vec()
    }

    /// Proves RELAY-LIMIT-6: bogus leases from any number of addresses, each of which answered its challenge, take as
    /// many verifications as there are and no more, and no bound peer waits behind them.
    #[test]
    fn bogus_leases_of_many_addresses_hold_up_no_bound_peer() {
        let relay_identity = Identity::from_seed([9; 32]).unwrap();
        let [issuer, stranger] = [[4; 32], [5; 32]].map(|seed| IssuerKey::from_seed(seed).unwrap());
        let policy = Arc::new(Policy { issuers: KeyRing::new(vec![issuer.public()]), ..Policy::default() });
        let (verifier, key) = Verifier::new(&relay_identity, &Zeroizing::new([6; 32]), policy).unwrap();
        let mut relay = Relay::new(RelayLimits::default(), key, [8; 64]);
        let bogus = shown(&mut relay, &stranger, &relay_identity);
        let mut good =
            Job::new("192.0.2.1:1000".parse().unwrap(), &shown(&mut relay, &issuer, &relay_identity));
        let (mut new_jobs, new_job_end) = spsc::ring(512);
        let (mut known_jobs, known_job_end) = spsc::ring(16);
        let (outcome_end, mut outcomes) = spsc::ring(1024);
        let (_policies, policy_end) = spsc::ring(1);
        let end = ForwarderEnd {
            new_jobs: new_job_end,
            known_jobs: known_job_end,
            outcomes: outcome_end,
            waker: Waker::new().unwrap(),
            metrics: Arc::default(),
        };
        let links = VerifyingLinks { forwarders: vec![end], policies: policy_end };
        let verifying = Verifying::new(verifier, links, PER_SECOND);
        let thread = std::thread::spawn(move || verifying.run());

        let began = Instant::now();
        let (mut shed, mut refused) = (0, 0);
        let (mut asked_at, mut answered_at) = (None, None);
        for number in 0u32.. {
            // Ten thousand a second, each from an address of its own.
            let due = Duration::from_micros(100) * number;
            if due >= Duration::from_secs(1) {
                break;
            }
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            let from = SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 4000));
            shed += u32::from(new_jobs.push(Job::new(from, &bogus).unwrap()).is_err());
            if new_jobs.len() > 500
                && let Some(job) = good.take()
            {
                asked_at = Some((Instant::now(), refused));
                assert!(known_jobs.push(job).is_ok());
            }
            while let Some(outcome) = outcomes.pop() {
                match outcome.result {
                    Ok(_) => answered_at = Some((Instant::now(), refused)),
                    Err(_) => refused += 1,
                }
            }
        }
        let most = (began.elapsed().as_secs_f64() * f64::from(PER_SECOND)) as u32 + PER_SECOND / 10 + 1;
        drop(outcomes);
        thread.join().unwrap();
        assert!(shed > 0 && refused > PER_SECOND / 10 && refused <= most, "{refused} of at most {most}");
        let (asked, before) = asked_at.unwrap();
        let (answered, after) = answered_at.unwrap();
        // Five hundred wait, for half a second; as many as can be under way are before it.
        assert!(after - before < 250, "behind {} bogus ones, for {:?}", after - before, answered - asked);
    }
}

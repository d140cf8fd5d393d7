//! One session: two peers, at most.

use std::net::SocketAddr;

use rift_crypto::WavryId;
use rift_relay::agreement::RelayKeys;
use rift_relay::lease::{CLOCK_SKEW_MS, Claims, LeaseId};
use rift_relay::siphash::SipKey;
use rift_relay::wire::{Role, SessionId};

use super::fast::Fast;
use super::{IDLE_NS, WAITING_NS};
use crate::direction::Direction;
use crate::verify::{Outcome, Policy};

/// Where a session stands. One that is over or was never granted is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// One peer presented.
    WaitingPeer,
    /// Both did.
    Active,
    /// Both did, and at least one renewed since.
    Renewed,
}

/// A session of the table.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) identities: [WavryId; 2],
    /// By [`Role`].
    pub(super) peers: [Option<Bound>; 2],
    pub(super) last_ns: u64,
    pub(super) renewed: bool,
    pub(super) fast: Fast,
}

/// A peer that proved itself.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) address: SocketAddr,
    /// What it sends.
    pub(super) direction: Direction,
    pub(super) answer_key: SipKey,
    /// Time of the newest challenge that it answered; older proofs are stale.
    pub(super) challenge_ms: u64,
    pub(super) lease: LeaseId,
    pub(super) expires_ms: u64,
    /// End of its own lease; the direction ends with the earlier of both.
    expires_ns: u64,
    pub(super) soft_kbps: u32,
    pub(super) hard_kbps: u32,
}

impl Session {
    pub(super) fn new(now_ns: u64, id: SessionId, identities: [WavryId; 2]) -> Self {
        Self { id, identities, peers: [None, None], last_ns: now_ns, renewed: false, fast: Fast::default() }
    }

    pub(super) fn peer(&self, role: Role) -> Option<&Bound> {
        self.peers[role as usize].as_ref()
    }

    pub(super) fn state(&self) -> State {
        match (self.peers.iter().all(Option::is_some), self.renewed) {
            (false, _) => State::WaitingPeer,
            (true, false) => State::Active,
            (true, true) => State::Renewed,
        }
    }

    /// Both directions end when the first of both leases does.
    pub(super) fn level_expiry(&mut self) {
        let end = self.peers.iter().flatten().map(|bound| bound.expires_ns).min();
        for bound in self.peers.iter_mut().flatten() {
            bound.direction.set_expiry(end.unwrap_or(0));
        }
    }

    /// Whether a lease is over, with the skew that clocks may have.
    pub(super) fn has_lapsed(&self, now_ns: u64) -> bool {
        self.peers.iter().flatten().any(|bound| now_ns >= bound.expires_ns + CLOCK_SKEW_MS * 1_000_000)
    }

    /// Whether nobody came, or nothing is sent.
    pub(super) fn is_silent(&self, now_ns: u64) -> bool {
        let patience = if self.state() == State::WaitingPeer { WAITING_NS } else { IDLE_NS };
        now_ns.saturating_sub(self.last_ns) >= patience
    }

    pub(super) fn is_forbidden(&self, policy: &Policy) -> bool {
        self.peers.iter().flatten().any(|bound| policy.forbids(bound.lease, self.id, &self.identities))
    }
}

impl Bound {
    /// A peer with new keys: sequences begin anew.
    pub(super) fn new(
        now_ns: u64,
        outcome: &Outcome,
        claims: &Claims,
        keys: RelayKeys,
        expires_ns: u64,
        soft_kbps: u32,
        hard_kbps: u32,
    ) -> Self {
        Self {
            address: outcome.from,
            direction: Direction::new(keys.forward, now_ns, expires_ns, soft_kbps, hard_kbps),
            answer_key: keys.answer,
            challenge_ms: outcome.challenge_ms,
            lease: claims.id,
            expires_ms: claims.expires_ms,
            expires_ns,
            soft_kbps,
            hard_kbps,
        }
    }

    /// A newer lease or address; keys, sequences and what the buckets hold stay.
    pub(super) fn renew(
        &mut self,
        outcome: &Outcome,
        claims: &Claims,
        expires_ns: u64,
        soft_kbps: u32,
        hard_kbps: u32,
    ) {
        self.address = outcome.from;
        self.challenge_ms = outcome.challenge_ms;
        // An older lease that is still good shortens nothing.
        if claims.expires_ms >= self.expires_ms {
            self.lease = claims.id;
            self.expires_ms = claims.expires_ms;
            self.expires_ns = expires_ns;
            (self.soft_kbps, self.hard_kbps) = (soft_kbps, hard_kbps);
            self.direction.renew(expires_ns, soft_kbps, hard_kbps);
        }
    }
}

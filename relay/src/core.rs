//! The session logic of a relay (RELAY-1 §4 to §9), sans-IO.
//!
//! Owns the sessions and everything that limits them; memory for all of it is taken at construction. Never verifies a
//! signature itself: [`Action::Verify`] hands the datagram out, [`Relay::handle_verified`] takes the result. Invariants:
//! an address that did not prove itself gets no state and no answer longer than its datagram; no running session ends
//! or moves for lack of room or by anything but a proof of its peer.

mod fast;
mod session;

use std::collections::HashMap;
use std::net::SocketAddr;

use rift_crypto::WavryId;
use rift_relay::present::{
    ACK_DATAGRAM_LEN, Ack, CHALLENGE_DATAGRAM_LEN, Challenge, Present, Reject, RejectReason,
};
use rift_relay::siphash;
use rift_relay::wire::{Forward, Header, Kind, Role, SessionId};

pub use crate::challenge::CHALLENGE_LIFE_MS;
use crate::challenge::ChallengeKeys;
use crate::drop_reason::DropReason;
use crate::limits::{AddressLimits, Budget, NETWORK_PLACES, PROOF_PLACES};
use crate::verify::{Grant, Outcome, Policy, RelayKey};
pub use fast::FastCommand;
use fast::FastTable;
pub use session::State;
use session::{Bound, Session};

/// How long a session waits for its second peer.
pub const WAITING_NS: u64 = 30_000_000_000;
/// How long a session may be silent.
pub const IDLE_NS: u64 = 60_000_000_000;
/// Every session is looked at so often.
const SWEEP_NS: u64 = 1_000_000_000;
/// In so many parts.
const SWEEP_PARTS: u64 = 100;

/// Sizes and limits.
#[derive(Clone, Copy, Debug)]
pub struct RelayLimits {
    /// Sessions at most; about 800 bytes each.
    pub sessions: usize,
    /// Answers per second to those who did not prove anything.
    pub answers_per_second: u32,
    /// Proofs per second and address.
    pub proofs_per_second: u32,
    /// Proofs of an address at once.
    pub proofs_burst: u32,
    /// Wrong leases and proofs per minute for which a network is blocked.
    pub violations: u32,
    /// Average rate that no lease exceeds, kbit/s.
    pub soft_kbps_max: u32,
    /// Short-term rate that no lease exceeds, kbit/s.
    pub hard_kbps_max: u32,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            sessions: 1000,
            answers_per_second: 20_000,
            // Several households may share an address behind a carrier's NAT.
            proofs_per_second: 20,
            proofs_burst: 100,
            violations: 1000,
            soft_kbps_max: 100_000,
            hard_kbps_max: 200_000,
        }
    }
}

/// The time, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub ns: u64,
    /// Unix time in milliseconds, for leases only.
    pub unix_ms: u64,
}

/// What is to be done with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send it on, unchanged.
    Forward(SocketAddr),
    /// Send [`Relay::answer`] back.
    Answer,
    /// Send [`Relay::answer`] back; the datagram itself was dropped.
    DropAndAnswer(DropReason),
    /// Give it to a [`Verifier`](crate::verify::Verifier).
    Verify {
        /// It comes from a bound peer, at its address: before those whom nobody knows.
        known: bool,
    },
    /// Nothing.
    Drop(DropReason),
    /// Do what [`Relay::poll_fast`] says, and hand the datagram in again: its session was the fast path's until now.
    TakeBack,
}

/// Counts of what happened to sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// Peers bound.
    pub bound: u64,
    /// Leases renewed.
    pub renewed: u64,
    /// Peers that moved to another address.
    pub moved: u64,
    /// Sessions that became active.
    pub activated: u64,
    /// Sessions that ended: lease over, nobody came, or silence.
    pub expired: u64,
    /// Sessions ended by the operator.
    pub revoked: u64,
    /// Presentations refused.
    pub rejected: u64,
}

/// The sessions of one forwarding thread.
#[derive(Debug)]
pub struct Relay {
    limits: RelayLimits,
    key: RelayKey,
    challenges: ChallengeKeys,
    index: HashMap<SessionId, u32>,
    /// The slot of the last FORWARD: the next one of a train is of the same session.
    recent: u32,
    slots: Box<[Option<Session>]>,
    free: Vec<u32>,
    addresses: AddressLimits,
    /// For those who proved nothing, and for bound peers.
    answers: [Budget; 2],
    answer: [u8; ACK_DATAGRAM_LEN],
    answer_len: usize,
    draining: bool,
    sweep_at_ns: u64,
    swept: usize,
    counters: SessionCounters,
    fast: Option<FastTable>,
}

impl Relay {
    /// A relay without sessions. `secret` is new with every start.
    #[must_use]
    pub fn new(limits: RelayLimits, key: RelayKey, secret: [u8; 64]) -> Self {
        let sessions = limits.sessions.max(1);
        Self {
            limits,
            key,
            challenges: ChallengeKeys::new(std::array::from_fn(|i| secret[i])),
            // Twice as many: a table that is never more than half full is cleaned in place when removed entries fill it, and
            // one that is fuller grows.
            index: HashMap::with_capacity(2 * sessions),
            recent: 0,
            slots: (0..sessions).map(|_| None).collect(),
            free: (0..sessions as u32).rev().collect(),
            addresses: AddressLimits::new(
                siphash::key(std::array::from_fn(|i| secret[32 + i])),
                [PROOF_PLACES, NETWORK_PLACES],
                limits.proofs_per_second,
                limits.proofs_burst,
                limits.violations,
            ),
            answers: [Budget::new(limits.answers_per_second, limits.answers_per_second / 10 + 1); 2],
            answer: [0; ACK_DATAGRAM_LEN],
            answer_len: 0,
            draining: false,
            sweep_at_ns: 0,
            swept: 0,
            counters: SessionCounters::default(),
            fast: None,
        }
    }

    /// Bytes that sessions take at most, all of them at construction. What limits addresses is the same for any number of sessions, half a
    /// megabyte, and not among them.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let index = self.index.capacity() * (size_of::<(SessionId, u32)>() + 1) * 8 / 7;
        self.slots.len() * size_of::<Option<Session>>() + self.free.capacity() * 4 + index + self.fast_bytes()
    }

    /// Sessions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Counts since the start.
    #[must_use]
    pub fn counters(&self) -> SessionCounters {
        self.counters
    }

    /// Where a session stands; `None` if it is not here.
    #[must_use]
    pub fn state(&self, id: SessionId) -> Option<State> {
        self.find(id).map(Session::state)
    }

    /// Takes no new sessions from now on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// What [`Action::Answer`] is about.
    #[must_use]
    pub fn answer(&self) -> &[u8] {
        &self.answer[..self.answer_len]
    }

    /// A datagram from `from`.
    #[inline]
    pub fn handle_datagram(&mut self, now: Now, from: SocketAddr, datagram: &[u8]) -> Action {
        let header = match Header::decode(datagram) {
            Ok(header) => header,
            Err(malformed) => return Action::Drop(malformed.into()),
        };
        match header.kind {
            Kind::Forward => self.on_forward(now, from, &header, datagram),
            Kind::LeasePresent | Kind::LeaseRenew => self.on_present(now, from, &header, datagram),
            Kind::ProbeReq => self.on_probe(now, &header, datagram),
            _ => Action::Drop(DropReason::Kind),
        }
    }

    /// A verifier is done. Afterwards [`answer`](Self::answer) is to be sent to the returned address, if any.
    pub fn handle_verified(&mut self, now: Now, outcome: &Outcome) -> Option<SocketAddr> {
        let granted = outcome.result.and_then(|grant| self.bind(now, outcome, &grant));
        match granted {
            Ok(true) => {}
            Ok(false) => return None,
            Err(reason) => {
                if matches!(
                    reason,
                    RejectReason::InvalidSignature | RejectReason::WrongRelay | RejectReason::Banned
                ) {
                    self.addresses.on_violation(now.ns, outcome.from);
                }
                self.reject(outcome.session, reason, outcome.nonce);
            }
        }
        Some(outcome.from)
    }

    /// Ends what is over.
    pub fn handle_timeout(&mut self, now: Now) {
        if now.ns < self.sweep_at_ns {
            return;
        }
        self.sweep_at_ns = now.ns + SWEEP_NS / SWEEP_PARTS;
        let part = self.slots.len().div_ceil(SWEEP_PARTS as usize);
        for _ in 0..part {
            let slot = self.swept;
            self.swept = (slot + 1) % self.slots.len();
            let Some(session) = &mut self.slots[slot] else { continue };
            if !session.has_lapsed(now.ns) && session.is_silent(now.ns) && session.fast.must_look(now.ns) {
                self.list(slot as u32);
            } else if session.has_lapsed(now.ns) || session.is_silent(now.ns) {
                self.remove(slot);
                self.counters.expired += 1;
            } else {
                self.tick_fast(now, slot);
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, on the clock of [`Now::ns`]; `u64::MAX` if never.
    #[must_use]
    pub fn poll_timeout(&self) -> u64 {
        if self.is_empty() { u64::MAX } else { self.sweep_at_ns }
    }

    /// Ends every session that the lists forbid.
    pub fn apply_policy(&mut self, policy: &Policy) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].as_ref().is_some_and(|session| session.is_forbidden(policy)) {
                self.remove(slot);
                self.counters.revoked += 1;
            }
        }
    }

    #[inline]
    fn on_forward(&mut self, now: Now, from: SocketAddr, header: &Header, datagram: &[u8]) -> Action {
        let Some(forward) = Forward::decode(header, datagram) else {
            return Action::Drop(DropReason::Header);
        };
        let slot = self.slot_of(header.session);
        let Some(session) = slot.and_then(|slot| self.slots[slot as usize].as_mut()) else {
            return self.hint(now, from, &forward, datagram.len(), true, DropReason::UnknownSession);
        };
        let [client, host] = &mut session.peers;
        let (sender, receiver) = match forward.role {
            Role::Client => (client, host),
            Role::Host => (host, client),
        };
        let Some(sender) = sender else {
            return self.hint(now, from, &forward, datagram.len(), true, DropReason::Unbound);
        };
        if !sender.direction.is_authentic(&forward) {
            return Action::Drop(DropReason::Mac);
        }
        if sender.address != from {
            // The peer, behind a NAT that forgot it; or somebody who copied its datagram. Only the former can prove it.
            return self.hint(now, from, &forward, datagram.len(), false, DropReason::Address);
        }
        session.last_ns = now.ns;
        if session.fast.is_handed_over() {
            session.fast.on_up(now.ns);
            if let Some(slot) = slot {
                self.list(slot);
            }
            return Action::TakeBack;
        }
        let Some(receiver) = receiver else { return Action::Drop(DropReason::NoPeer) };
        match sender.direction.pass(now.ns, forward.sequence, datagram.len()) {
            Ok(()) => Action::Forward(receiver.address),
            Err(reason) => Action::Drop(reason),
        }
    }

    /// Where a session is, if it is here; remembers it for the next one.
    #[inline]
    fn slot_of(&mut self, id: SessionId) -> Option<u32> {
        if self.slots[self.recent as usize].as_ref().is_some_and(|session| session.id == id) {
            return Some(self.recent);
        }
        let slot = self.index.get(&id).copied();
        self.recent = slot.unwrap_or(self.recent);
        slot
    }

    /// Drops a FORWARD and tells its sender that a proof is wanted, if there is budget for it.
    #[cold]
    fn hint(
        &mut self,
        now: Now,
        from: SocketAddr,
        forward: &Forward,
        len: usize,
        unknown: bool,
        reason: DropReason,
    ) -> Action {
        // Only a peer's own datagram, or a copy, has a right MAC: strangers cannot use up what bound peers are answered with.
        let is_peer = reason == DropReason::Address;
        if len < CHALLENGE_DATAGRAM_LEN || !self.answers[usize::from(is_peer)].take(now.ns) {
            return Action::Drop(reason);
        }
        self.challenge(now, from, forward.session, forward.role, unknown, 0);
        Action::DropAndAnswer(reason)
    }

    fn on_present(&mut self, now: Now, from: SocketAddr, header: &Header, datagram: &[u8]) -> Action {
        let Some(present) = Present::decode(header, datagram) else {
            return Action::Drop(DropReason::Header);
        };
        let bound = self.find(present.session).and_then(|session| session.peer(present.role));
        let Some(proof) = present.proof else {
            let unknown = bound.is_none();
            let is_peer = bound.is_some_and(|bound| bound.address == from);
            if !self.answers[usize::from(is_peer)].take(now.ns) {
                return Action::Drop(DropReason::AnswerLimit);
            }
            self.challenge(now, from, present.session, present.role, unknown, present.nonce);
            return Action::Answer;
        };
        let now_ms = now.ns / 1_000_000;
        let (session, role) = (present.session, present.role);
        let Some(given_ms) = self.challenges.time_of(now_ms, from, session, role, proof.challenge) else {
            return Action::Drop(DropReason::Challenge);
        };
        if let Some(bound) = bound {
            if given_ms < bound.challenge_ms || (given_ms == bound.challenge_ms && bound.address != from) {
                return Action::Drop(DropReason::StaleProof);
            }
            if given_ms == bound.challenge_ms {
                // The acknowledgement was lost.
                let ack = self.ack_of(present.session, bound, present.nonce);
                self.put_answer(&ack);
                return Action::Answer;
            }
        }
        let known = bound.is_some_and(|bound| bound.address == from);
        let is_bound = bound.is_some();
        let is_new = self.find(present.session).is_none();
        let refusal = if !known && self.addresses.is_blocked(now.ns, from) {
            return Action::Drop(DropReason::Blocked);
        } else if !self.addresses.admit(now.ns, from) {
            Some(RejectReason::RateLimited)
        } else if present.renew && !is_bound {
            Some(RejectReason::UnknownSession)
        } else if is_new && self.draining {
            Some(RejectReason::Draining)
        } else if is_new && self.free.is_empty() {
            Some(RejectReason::SessionFull)
        } else {
            None
        };
        if let Some(reason) = refusal {
            self.reject(present.session, reason, present.nonce);
            return Action::Answer;
        }
        Action::Verify { known }
    }

    /// Enters a grant. `Ok(false)` if a newer proof came first.
    fn bind(&mut self, now: Now, outcome: &Outcome, grant: &Grant) -> Result<bool, RejectReason> {
        let claims = &grant.claims;
        let expires_ns =
            now.ns.saturating_add((claims.expires_ms.saturating_sub(now.unix_ms)).saturating_mul(1_000_000));
        let soft = claims.soft_kbps.min(self.limits.soft_kbps_max);
        let hard = claims.hard_kbps.min(self.limits.hard_kbps_max);
        let identities = [claims.client, claims.host];
        let slot = match self.index.get(&outcome.session) {
            Some(&slot) => slot,
            None if outcome.renew => return Err(RejectReason::UnknownSession),
            None if self.draining => return Err(RejectReason::Draining),
            None => self.insert(now, outcome.session, identities).ok_or(RejectReason::SessionFull)?,
        };
        let Some(session) = self.slots[slot as usize].as_mut() else { return Err(RejectReason::SessionFull) };
        if session.identities != identities {
            return Err(RejectReason::SessionFull);
        }
        let was_active = session.state() == State::Active || session.state() == State::Renewed;
        let role = outcome.role as usize;
        let place = &mut session.peers[role];
        if place.as_ref().is_some_and(|bound| bound.challenge_ms >= outcome.challenge_ms) {
            return Ok(false);
        }
        match (place.as_mut(), grant.keys) {
            (None, None) => return Err(RejectReason::UnknownSession),
            (Some(bound), None) => {
                self.counters.renewed += 1;
                if bound.address != outcome.from {
                    self.counters.moved += 1;
                    session.fast.on_moved(role);
                }
                session.fast.on_renewed();
                bound.renew(outcome, claims, expires_ns, soft, hard);
                session.renewed = true;
            }
            (_, Some(keys)) => {
                self.counters.bound += 1;
                let next = Bound::new(now.ns, outcome, claims, keys, expires_ns, soft, hard);
                *place = Some(next);
                session.fast.on_epoch(role);
            }
        }
        session.last_ns = now.ns;
        session.level_expiry();
        if !was_active && session.peers.iter().all(Option::is_some) {
            self.counters.activated += 1;
        }
        self.list(slot);
        let ack = self.slots[slot as usize]
            .as_ref()
            .and_then(|session| session.peer(outcome.role))
            .map(|bound| self.ack_of(outcome.session, bound, outcome.nonce));
        if let Some(ack) = ack {
            self.put_answer(&ack);
        }
        Ok(true)
    }

    fn on_probe(&mut self, now: Now, header: &Header, datagram: &[u8]) -> Action {
        // Header, nonce u64, time u64: sent back as they came.
        if datagram.len() != 36 {
            return Action::Drop(DropReason::Header);
        }
        if !self.answers[0].take(now.ns) {
            return Action::Drop(DropReason::AnswerLimit);
        }
        let mut out = [0; 36];
        out.copy_from_slice(datagram);
        if let Some(head) = out.first_chunk_mut() {
            Header { kind: Kind::ProbeRsp, ..*header }.encode(head);
        }
        self.put_answer(&out);
        Action::Answer
    }

    fn insert(&mut self, now: Now, id: SessionId, identities: [WavryId; 2]) -> Option<u32> {
        let slot = self.free.pop()?;
        if self.index.is_empty() {
            self.sweep_at_ns = now.ns + SWEEP_NS / SWEEP_PARTS;
        }
        self.slots[slot as usize] = Some(Session::new(now.ns, id, identities));
        self.index.insert(id, slot);
        Some(slot)
    }

    fn remove(&mut self, slot: usize) {
        if let Some(session) = self.slots[slot].take() {
            self.index.remove(&session.id);
            self.forget_fast(&session);
            self.free.push(slot as u32);
        }
    }

    fn find(&self, id: SessionId) -> Option<&Session> {
        self.index.get(&id).and_then(|&slot| self.slots[slot as usize].as_ref())
    }

    fn ack_of(&self, session: SessionId, bound: &Bound, nonce: u64) -> [u8; ACK_DATAGRAM_LEN] {
        let ack = Ack {
            session,
            expires_ms: bound.expires_ms,
            soft_kbps: bound.soft_kbps,
            hard_kbps: bound.hard_kbps,
            nonce,
            public: self.key.public,
            signature: self.key.signature,
        };
        ack.encode(bound.answer_key)
    }

    fn reject(&mut self, session: SessionId, reason: RejectReason, nonce: u64) {
        self.counters.rejected += 1;
        self.put_answer(&Reject { session, reason, nonce }.encode());
    }

    fn challenge(
        &mut self,
        now: Now,
        from: SocketAddr,
        session: SessionId,
        role: Role,
        unknown: bool,
        nonce: u64,
    ) {
        let challenge = self.challenges.give(from, session, role, now.ns / 1_000_000);
        self.put_answer(&Challenge { session, unknown, nonce, challenge }.encode());
    }

    fn put_answer(&mut self, bytes: &[u8]) {
        self.answer[..bytes.len()].copy_from_slice(bytes);
        self.answer_len = bytes.len();
    }
}

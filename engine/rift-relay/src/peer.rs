//! A peer's side of the relay protocol: shows its lease, wraps what it sends, notices when the relay or its own address
//! changed (RELAY-1 §4 to §8).
//!
//! Owns the attempt in progress and the keys agreed on. Never touches a socket or a clock; times are microseconds on
//! any clock that goes forward. Invariants: the same seed and inputs give the same outputs; a datagram from outside
//! starts at most one attempt per [`HINT_INTERVAL_US`]; keys that work are kept until the relay confirmed others.

mod attempt;

use rift_crypto::{Identity, WavryId};
use zeroize::Zeroizing;

use crate::agreement::{Binding, ExchangeKey, RelayKeys, signed_relay_key};
use crate::lease::{self, Claims, LeaseError};
use crate::mac::forward_mac;
use crate::present::{Ack, Challenge, Reject, RejectReason};
use crate::siphash::SipKey;
use crate::wire::{FORWARD_LEN, Forward, Header, Kind, Role};
use attempt::{Attempt, Due, Secrets};

/// A hint from the network (a challenge that nobody asked for) starts an attempt at most this often.
pub const HINT_INTERVAL_US: u64 = 200_000;
/// A peer that sends and hears nothing for so long asks whether the relay still knows it.
pub const SILENCE_US: u64 = 1_500_000;
/// So does a peer that waits for the other one. Well below the 30 s after which a relay forgets it.
pub const KEEPALIVE_US: u64 = 10_000_000;
/// Pause after an attempt that nobody answered, or that was refused for a reason that may pass.
pub const PAUSE_US: u64 = 1_000_000;

/// What a peer is made of.
#[derive(Debug)]
pub struct PeerConfig {
    /// Whose signature proves who it is.
    pub identity: Identity,
    /// The lease, as one line of text.
    pub token: String,
    /// From the operating system's randomness, or from a test's own.
    pub seed: [u8; 32],
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// The relay forwards from now on.
    Bound {
        /// What may be sent on average, kbit/s.
        soft_kbps: u32,
        /// What may be sent for short, kbit/s.
        hard_kbps: u32,
    },
    /// The lease, or the address, was renewed without interruption.
    Renewed,
    /// The relay refused.
    Rejected(RejectReason),
    /// The relay does not answer; it is tried again.
    NoAnswer,
}

/// What a datagram was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// From the other peer: its payload begins at [`FORWARD_LEN`].
    Payload,
    /// For this side, or nothing of use.
    Control,
}

/// A lease that cannot be used by this peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseUnusable {
    /// Not a lease.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// For others.
    #[error("the lease is for other machines: neither its client nor its host has this machine's Wavry ID")]
    OtherPeers,
    /// A newer lease must be for the same session.
    #[error("the new lease is for another session, relay or pair of machines")]
    OtherSession,
}

/// One end of a session on a relay.
#[derive(Debug)]
pub struct RelayPeer {
    identity: Identity,
    secrets: Secrets,
    token: String,
    claims: Claims,
    role: Role,
    bound: Option<Bound>,
    attempt: Option<Attempt>,
    /// When to begin an attempt by itself.
    start_at: u64,
    /// Before this, hints are ignored.
    hints_from: u64,
    heard_at: u64,
    sent_at: u64,
    /// A relay key whose signature was checked before.
    trusted_key: Option<[u8; 32]>,
    events: std::collections::VecDeque<PeerEvent>,
    out: Vec<u8>,
}

/// What holds between this peer and the relay.
#[derive(Debug)]
struct Bound {
    keys: RelayKeys,
    sequence: u64,
}

impl RelayPeer {
    /// A peer that presents its lease with the first [`handle_timeout`](Self::handle_timeout).
    ///
    /// # Errors
    /// [`LeaseUnusable`].
    pub fn new(config: PeerConfig, now_us: u64) -> Result<Self, LeaseUnusable> {
        let token = config.token.trim().to_owned();
        let claims = lease::read_unverified(token.as_bytes())?;
        let role = role_of(&claims, config.identity.wavry_id()).ok_or(LeaseUnusable::OtherPeers)?;
        Ok(Self {
            identity: config.identity,
            secrets: Secrets::new(&Zeroizing::new(config.seed)),
            token,
            claims,
            role,
            bound: None,
            attempt: None,
            start_at: now_us,
            hints_from: now_us,
            heard_at: now_us,
            sent_at: 0,
            trusted_key: None,
            events: std::collections::VecDeque::with_capacity(8),
            out: Vec::with_capacity(crate::present::PRESENT_MAX),
        })
    }

    /// What the lease says.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Which side of the session it is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether the relay forwards.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.bound.is_some()
    }

    /// The key of the MAC of what this peer sends, once bound: for load generators, which make FORWARDs in eBPF.
    #[must_use]
    pub fn forward_key(&self) -> Option<SipKey> {
        self.bound.as_ref().map(|bound| bound.keys.forward)
    }

    /// Takes a newer lease for the same session, and renews at once.
    ///
    /// # Errors
    /// [`LeaseUnusable`]; the old one stays.
    pub fn set_lease(&mut self, now_us: u64, token: &str) -> Result<(), LeaseUnusable> {
        let token = token.trim();
        if token == self.token {
            return Ok(());
        }
        let claims = lease::read_unverified(token.as_bytes())?;
        let old = &self.claims;
        if (claims.session, claims.relay, claims.client, claims.host)
            != (old.session, old.relay, old.client, old.host)
        {
            return Err(LeaseUnusable::OtherSession);
        }
        token.clone_into(&mut self.token);
        self.claims = claims;
        self.attempt = None;
        self.start_at = now_us;
        Ok(())
    }

    /// Writes the header of the next FORWARD; `false`, and nothing written, while the relay does not forward.
    #[inline]
    pub fn wrap(&mut self, now_us: u64, payload_len: usize, out: &mut [u8; FORWARD_LEN]) -> bool {
        let Some(bound) = &mut self.bound else { return false };
        if payload_len == 0 || payload_len > crate::wire::PAYLOAD_MAX {
            return false;
        }
        let (sequence, payload_len) = (bound.sequence, payload_len as u16);
        bound.sequence += 1;
        let mac = forward_mac(bound.keys.forward, sequence, payload_len, self.role);
        Forward { session: self.claims.session, role: self.role, sequence, mac, payload_len }.encode(out);
        self.sent_at = now_us;
        true
    }

    /// A datagram that came from the relay's address.
    pub fn handle_datagram(&mut self, now_us: u64, datagram: &[u8]) -> Handled {
        let Ok(header) = Header::decode(datagram) else { return Handled::Control };
        if header.session != self.claims.session {
            return Handled::Control;
        }
        match header.kind {
            Kind::Forward => {
                let from_other = Forward::decode(&header, datagram)
                    .is_some_and(|forward| forward.role == self.role.other());
                if from_other {
                    self.heard_at = now_us;
                    return Handled::Payload;
                }
            }
            Kind::LeaseChallenge => {
                if let Some(challenge) = Challenge::decode(&header, datagram) {
                    self.on_challenge(now_us, &challenge);
                }
            }
            Kind::LeaseAck => {
                if let Some((ack, tag)) = Ack::decode(&header, datagram) {
                    self.on_ack(now_us, &ack, tag);
                }
            }
            Kind::LeaseReject => {
                if let Some(reject) = Reject::decode(&header, datagram) {
                    self.on_reject(now_us, reject);
                }
            }
            _ => {}
        }
        Handled::Control
    }

    /// The time is `now_us`.
    pub fn handle_timeout(&mut self, now_us: u64) {
        if let Some(attempt) = &mut self.attempt {
            match attempt.due(now_us) {
                Due::Nothing | Due::Send => {}
                Due::GiveUp => {
                    self.attempt = None;
                    self.start_at = now_us + PAUSE_US;
                    self.push(PeerEvent::NoAnswer);
                }
            }
            return;
        }
        if now_us >= self.due_at() {
            // Not again before this one ended or the next silence.
            self.start_at = u64::MAX;
            self.heard_at = now_us;
            let nonce = self.secrets.nonce();
            self.attempt = Some(Attempt::ask(now_us, nonce, self.bound.is_some()));
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> u64 {
        self.attempt.as_ref().map_or_else(|| self.due_at(), Attempt::due_at)
    }

    /// The next datagram for the relay.
    pub fn poll_transmit(&mut self, now_us: u64) -> Option<&[u8]> {
        let attempt = self.attempt.as_mut()?;
        if !matches!(attempt.due(now_us), Due::Send) {
            return None;
        }
        self.out.clear();
        attempt.write(self.claims.session, self.role, self.token.as_bytes(), &mut self.out);
        attempt.on_sent(now_us);
        Some(&self.out)
    }

    /// What happened since the last time.
    pub fn poll_event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    fn due_at(&self) -> u64 {
        let quiet = if self.bound.is_none() {
            u64::MAX
        } else if self.sent_at > self.heard_at {
            // The oldest unanswered datagram is not kept; the newest heard one is near enough.
            self.heard_at.saturating_add(SILENCE_US).max(self.hints_from)
        } else {
            self.heard_at.saturating_add(KEEPALIVE_US)
        };
        quiet.min(self.start_at)
    }

    fn on_challenge(&mut self, now_us: u64, challenge: &Challenge) {
        let renew = self.bound.is_some() && !challenge.unknown;
        match &self.attempt {
            Some(attempt) if attempt.asked(challenge.nonce) => {}
            // Nobody asked: the relay does not know the session, or not from this address.
            None if challenge.nonce == 0 && now_us >= self.hints_from && self.bound.is_some() => {}
            _ => return,
        }
        self.hints_from = now_us + HINT_INTERVAL_US;
        let nonce = self.attempt.as_ref().map_or_else(|| self.secrets.nonce(), Attempt::nonce);
        let exchange = if renew { None } else { self.secrets.exchange_key() };
        if !renew && exchange.is_none() {
            return;
        }
        let public = exchange.as_ref().map_or([0; 32], ExchangeKey::public);
        let mut attempt = Attempt::ask(now_us, nonce, renew);
        let present = attempt.present(self.claims.session, self.role, self.token.as_bytes(), None);
        let signed = crate::present::signed_bytes(&present, self.claims.relay, &challenge.challenge, &public);
        let signature = self.identity.sign(&signed);
        attempt.prove(now_us, challenge.challenge, exchange, signature);
        self.attempt = Some(attempt);
    }

    fn on_ack(&mut self, now_us: u64, ack: &Ack, tag: u64) {
        let Some(attempt) = self.attempt.as_ref().filter(|attempt| attempt.presented(ack.nonce)) else {
            return;
        };
        let renewed = attempt.exchange().is_none();
        let keys = match attempt.exchange() {
            None => self.bound.as_ref().map(|bound| bound.keys),
            Some((exchange, challenge)) => {
                if self.trusted_key != Some(ack.public)
                    && !self.claims.relay.verify(&signed_relay_key(&ack.public), &ack.signature)
                {
                    return;
                }
                let binding = Binding {
                    session: self.claims.session,
                    role: self.role,
                    peer_public: &exchange.public(),
                    relay_public: &ack.public,
                    challenge,
                };
                exchange.agree(&ack.public, &binding).ok()
            }
        };
        let Some(keys) = keys.filter(|keys| ack.tag(keys.answer) == tag) else { return };
        self.trusted_key = Some(ack.public);
        self.attempt = None;
        self.heard_at = now_us;
        if renewed {
            self.push(PeerEvent::Renewed);
        } else {
            self.bound = Some(Bound { keys, sequence: 0 });
            self.push(PeerEvent::Bound { soft_kbps: ack.soft_kbps, hard_kbps: ack.hard_kbps });
        }
    }

    fn on_reject(&mut self, now_us: u64, reject: Reject) {
        if self.attempt.as_ref().is_none_or(|attempt| attempt.nonce() != reject.nonce) {
            return;
        }
        self.attempt = None;
        match reject.reason {
            RejectReason::UnknownSession => {
                // Only the relay, or somebody on the path, has seen the nonce.
                self.bound = None;
                self.start_at = now_us;
            }
            reason => {
                self.start_at = now_us + PAUSE_US;
                self.push(PeerEvent::Rejected(reason));
            }
        }
    }

    fn push(&mut self, event: PeerEvent) {
        if self.events.len() < 8 {
            self.events.push_back(event);
        }
    }
}

/// The role that a lease gives to an identity.
#[must_use]
pub fn role_of(claims: &Claims, identity: WavryId) -> Option<Role> {
    Role::ALL.into_iter().find(|&role| claims.peer(role) == identity)
}

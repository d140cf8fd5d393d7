//! Verification of leases and proofs: pure, slow (about 0.2 ms), and therefore never on a forwarding thread.
//!
//! Owns the relay's identity, its half of the key exchange, the issuers' keys, the lists of what was revoked, and a cache
//! of leases whose signature was verified. Never knows sessions. Invariant: a grant means that an issuer signed the
//! lease for this relay, and that the identity it names for that role signed this challenge.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rift_crypto::{Identity, WavryId};
use rift_relay::agreement::{Binding, ExchangeKey, NoAgreement, RelayKeys, signed_relay_key};
use rift_relay::lease::{Claims, KeyRing, LeaseId};
use rift_relay::present::{PRESENT_MAX, Present, RejectReason};
use rift_relay::wire::{Header, Role, SessionId};

/// Verified leases that are remembered.
const CACHED: usize = 4096;

/// A datagram to be verified.
#[derive(Clone)]
pub struct Job {
    /// Where from.
    pub from: SocketAddr,
    len: u16,
    datagram: [u8; PRESENT_MAX],
}

impl Job {
    /// A job for a LEASE_PRESENT or LEASE_RENEW; `None` for what is too long to be one.
    #[must_use]
    pub fn new(from: SocketAddr, datagram: &[u8]) -> Option<Self> {
        let mut job = Self { from, len: datagram.len() as u16, datagram: [0; PRESENT_MAX] };
        job.datagram.get_mut(..datagram.len())?.copy_from_slice(datagram);
        Some(job)
    }
}

/// What became of a job.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Where to answer.
    pub from: SocketAddr,
    /// Whose session.
    pub session: SessionId,
    /// Which peer.
    pub role: Role,
    /// Whether it is a renewal.
    pub renew: bool,
    /// Of the attempt.
    pub nonce: u64,
    /// When the challenge was given, relay's time in milliseconds.
    pub challenge_ms: u64,
    /// The grant, or why there is none.
    pub result: Result<Grant, RejectReason>,
}

/// A lease and a proof that hold.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    /// What the lease says.
    pub claims: Claims,
    /// New keys; `None` in a renewal.
    pub keys: Option<RelayKeys>,
}

/// Who and what is no longer welcome.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Keys that may sign leases.
    pub issuers: KeyRing,
    /// Identities.
    pub banned: HashSet<WavryId>,
    /// Leases and sessions.
    pub revoked: HashSet<SessionId>,
}

impl Policy {
    /// Whether a lease may not be used (any more).
    #[must_use]
    pub fn forbids(&self, lease: LeaseId, session: SessionId, identities: &[WavryId]) -> bool {
        self.revoked.contains(&lease)
            || self.revoked.contains(&session)
            || identities.iter().any(|identity| self.banned.contains(identity))
    }
}

/// What a relay says of itself in every LEASE_ACK.
#[derive(Clone, Copy, Debug)]
pub struct RelayKey {
    /// Its half of the key exchange, new with every start.
    pub public: [u8; 32],
    /// Its identity's signature over it.
    pub signature: [u8; 64],
}

/// The hash of a token and what it says.
type Verified = ([u8; 32], Claims);

/// The verifier of one thread.
pub struct Verifier {
    relay: WavryId,
    exchange: ExchangeKey,
    policy: Arc<Policy>,
    cache: Box<[Option<Verified>]>,
}

impl Verifier {
    /// A verifier, and what the relay says of its key.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(
        identity: &Identity,
        secret: &zeroize::Zeroizing<[u8; 32]>,
        policy: Arc<Policy>,
    ) -> Result<(Self, RelayKey), NoAgreement> {
        let exchange = ExchangeKey::from_secret(secret)?;
        let public = exchange.public();
        let key = RelayKey { public, signature: identity.sign(&signed_relay_key(&public)) };
        let cache = vec![None; CACHED].into_boxed_slice();
        Ok((Self { relay: identity.wavry_id(), exchange, policy, cache }, key))
    }

    /// Uses other lists from now on.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        // A key may have been taken away.
        self.cache.fill(None);
        self.policy = policy;
    }

    /// Verifies; `None` for what is no presentation with a proof.
    pub fn verify(&mut self, job: &Job, unix_ms: u64) -> Option<Outcome> {
        let datagram = &job.datagram[..usize::from(job.len)];
        let header = Header::decode(datagram).ok()?;
        let present = Present::decode(&header, datagram)?;
        let challenge = present.proof?.challenge;
        Some(Outcome {
            from: job.from,
            session: present.session,
            role: present.role,
            renew: present.renew,
            nonce: present.nonce,
            challenge_ms: challenge.first_chunk().map_or(0, |ms| u64::from_be_bytes(*ms)),
            result: self.grant(&present, unix_ms),
        })
    }

    fn grant(&mut self, present: &Present<'_>, unix_ms: u64) -> Result<Grant, RejectReason> {
        let claims = self.open(present.token)?;
        if claims.relay != self.relay {
            return Err(RejectReason::WrongRelay);
        }
        if claims.session != present.session {
            return Err(RejectReason::InvalidSignature);
        }
        if !claims.is_current(unix_ms) {
            return Err(RejectReason::Expired);
        }
        if self.policy.forbids(claims.id, claims.session, &[claims.client, claims.host]) {
            return Err(RejectReason::Banned);
        }
        if !present.is_proved_by(claims.peer(present.role), self.relay) {
            return Err(RejectReason::InvalidSignature);
        }
        let proof = present.proof.ok_or(RejectReason::InvalidSignature)?;
        let keys = if present.renew {
            None
        } else {
            let binding = Binding {
                session: present.session,
                role: present.role,
                peer_public: proof.public,
                relay_public: &self.exchange.public(),
                challenge: proof.challenge,
            };
            let keys = self.exchange.agree(proof.public, &binding);
            Some(keys.map_err(|_| RejectReason::InvalidSignature)?)
        };
        Ok(Grant { claims, keys })
    }

    /// The claims of a token, whose signature is verified once.
    fn open(&mut self, token: &[u8]) -> Result<Claims, RejectReason> {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token).as_ref());
        let place = usize::from(u16::from_be_bytes([hash[0], hash[1]])) % CACHED;
        if let Some((known, claims)) = &self.cache[place]
            && *known == hash
        {
            return Ok(*claims);
        }
        let claims = self.policy.issuers.open(token).map_err(|_| RejectReason::InvalidSignature)?;
        self.cache[place] = Some((hash, claims));
        Ok(claims)
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verifier({})", self.relay)
    }
}

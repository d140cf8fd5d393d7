//! The datagrams by which a peer shows its lease and a relay answers (RELAY-1 §4).
//!
//! ```text
//! LEASE_PRESENT, LEASE_RENEW   role u8 | token length u16 | token | nonce u64 | proof length u8 (0 or 120) | proof
//!   proof                      challenge [24] | X25519 public key [32] (zero in a renewal) | signature [64]
//! LEASE_CHALLENGE              nonce u64 | challenge [24]
//! LEASE_ACK                    expiry u64 ms | soft u32 kbit/s | hard u32 kbit/s | nonce u64
//!                              | relay's X25519 public key [32] | signature over it [64] | tag u64
//! LEASE_REJECT                 reason u16 | nonce u64
//! challenge                    relay's time u64 ms | MAC [16]
//! ```
//!
//! Owns these layouts and what the peer's signature covers. Never decides. Invariant: no answer is longer than the
//! shortest datagram that it can answer, so nothing here amplifies.

use aws_lc_rs::digest::{SHA256, digest};
use rift_crypto::WavryId;

use crate::agreement::PUBLIC_LEN;
use crate::lease::TOKEN_MAX;
use crate::siphash::{self, SipKey};
use crate::wire::{FLAG_UNKNOWN, HEADER_LEN, Header, Kind, Role, SessionId, read_u64};

/// Bytes of a challenge.
pub const CHALLENGE_LEN: usize = 24;
/// Bytes of a proof.
pub const PROOF_LEN: usize = CHALLENGE_LEN + PUBLIC_LEN + 64;
/// Bytes of a LEASE_CHALLENGE. Nothing shorter is answered with one.
pub const CHALLENGE_DATAGRAM_LEN: usize = HEADER_LEN + 8 + CHALLENGE_LEN;
/// Bytes of a LEASE_ACK.
pub const ACK_DATAGRAM_LEN: usize = HEADER_LEN + 128;
/// Bytes of a LEASE_REJECT.
pub const REJECT_DATAGRAM_LEN: usize = HEADER_LEN + 10;
/// Longest LEASE_PRESENT.
pub const PRESENT_MAX: usize = HEADER_LEN + 3 + TOKEN_MAX + 8 + 1 + PROOF_LEN;

/// Shortest token worth an answer: its signature alone is longer.
const TOKEN_MIN: usize = 64;
/// Bytes that a signature covers: label, kind, role, session, relay, challenge, key, hash of the token.
const SIGNED_LEN: usize = 24 + 1 + 1 + 16 + 32 + CHALLENGE_LEN + PUBLIC_LEN + 32;

/// A LEASE_PRESENT or LEASE_RENEW.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present<'a> {
    /// Whether it is a renewal: the keys stay, the lease and the address may change.
    pub renew: bool,
    /// Whose.
    pub session: SessionId,
    /// Who presents.
    pub role: Role,
    /// The lease.
    pub token: &'a [u8],
    /// Chosen by the peer for this attempt; answers repeat it.
    pub nonce: u64,
    /// Missing in the first datagram of an attempt.
    pub proof: Option<Proof<'a>>,
}

/// That whoever presents has the identity that the lease names, and receives at the address it sends from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof<'a> {
    /// As the relay sent it.
    pub challenge: &'a [u8; CHALLENGE_LEN],
    /// The peer's half of the key exchange; zero in a renewal.
    pub public: &'a [u8; PUBLIC_LEN],
    /// By the peer's identity over [`signed_bytes`].
    pub signature: &'a [u8; 64],
}

impl<'a> Present<'a> {
    /// Reads a datagram whose header is known; `None` if it is not well formed.
    #[must_use]
    pub fn decode(header: &Header, datagram: &'a [u8]) -> Option<Self> {
        let renew = match header.kind {
            Kind::LeasePresent => false,
            Kind::LeaseRenew => true,
            _ => return None,
        };
        let (&[role, high, low], rest) = datagram.get(HEADER_LEN..)?.split_first_chunk::<3>()?;
        let token_len = usize::from(u16::from_be_bytes([high, low]));
        if !(TOKEN_MIN..=TOKEN_MAX).contains(&token_len) {
            return None;
        }
        let (token, rest) = rest.split_at_checked(token_len)?;
        let (nonce, rest) = rest.split_first_chunk::<8>()?;
        let (&proof_len, rest) = rest.split_first()?;
        let proof = match usize::from(proof_len) {
            0 if rest.is_empty() => None,
            PROOF_LEN if rest.len() == PROOF_LEN => {
                let (challenge, rest) = rest.split_first_chunk()?;
                let (public, rest) = rest.split_first_chunk()?;
                Some(Proof { challenge, public, signature: rest.first_chunk()? })
            }
            _ => return None,
        };
        Some(Self {
            renew,
            session: header.session,
            role: Role::from_wire(role)?,
            token,
            nonce: u64::from_be_bytes(*nonce),
            proof,
        })
    }

    /// Appends it to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let kind = if self.renew { Kind::LeaseRenew } else { Kind::LeasePresent };
        push_header(out, kind, 0, self.session);
        out.push(self.role as u8);
        out.extend((self.token.len() as u16).to_be_bytes());
        out.extend(self.token);
        out.extend(self.nonce.to_be_bytes());
        match &self.proof {
            None => out.push(0),
            Some(proof) => {
                out.push(PROOF_LEN as u8);
                out.extend(proof.challenge);
                out.extend(proof.public);
                out.extend(proof.signature);
            }
        }
    }

    /// Whether the proof is that of `identity` for `relay`.
    #[must_use]
    pub fn is_proved_by(&self, identity: WavryId, relay: WavryId) -> bool {
        self.proof.as_ref().is_some_and(|proof| {
            let signed = signed_bytes(self, relay, proof.challenge, proof.public);
            identity.verify(&signed, proof.signature)
        })
    }
}

/// What the peer's identity signs.
#[must_use]
pub fn signed_bytes(
    present: &Present<'_>,
    relay: WavryId,
    challenge: &[u8; CHALLENGE_LEN],
    public: &[u8; PUBLIC_LEN],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(SIGNED_LEN);
    out.extend(b"wavry-relay-presenting-1");
    out.push(u8::from(present.renew));
    out.push(present.role as u8);
    out.extend(present.session.0);
    out.extend(relay.0);
    out.extend(challenge);
    out.extend(public);
    out.extend(digest(&SHA256, present.token).as_ref());
    out
}

/// A LEASE_CHALLENGE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Whose.
    pub session: SessionId,
    /// Whether the relay has no such session.
    pub unknown: bool,
    /// Of the attempt that it answers; 0 if it answers a FORWARD.
    pub nonce: u64,
    /// To be signed.
    pub challenge: [u8; CHALLENGE_LEN],
}

impl Challenge {
    /// Reads a datagram whose header is known.
    #[must_use]
    pub fn decode(header: &Header, datagram: &[u8]) -> Option<Self> {
        if header.kind != Kind::LeaseChallenge || datagram.len() != CHALLENGE_DATAGRAM_LEN {
            return None;
        }
        Some(Self {
            session: header.session,
            unknown: header.flags & FLAG_UNKNOWN != 0,
            nonce: read_u64(datagram, HEADER_LEN),
            challenge: *datagram.last_chunk()?,
        })
    }

    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> [u8; CHALLENGE_DATAGRAM_LEN] {
        let mut out = [0; CHALLENGE_DATAGRAM_LEN];
        let flags = if self.unknown { FLAG_UNKNOWN } else { 0 };
        write_header(&mut out, Kind::LeaseChallenge, flags, self.session);
        out[20..28].copy_from_slice(&self.nonce.to_be_bytes());
        out[28..].copy_from_slice(&self.challenge);
        out
    }
}

/// A LEASE_ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Whose.
    pub session: SessionId,
    /// End of the lease, Unix time in milliseconds.
    pub expires_ms: u64,
    /// Average rate, kbit/s.
    pub soft_kbps: u32,
    /// Short-term rate, kbit/s.
    pub hard_kbps: u32,
    /// Of the attempt.
    pub nonce: u64,
    /// The relay's half of the key exchange.
    pub public: [u8; PUBLIC_LEN],
    /// By the relay's identity over [`crate::agreement::signed_relay_key`].
    pub signature: [u8; 64],
}

impl Ack {
    /// Reads a datagram whose header is known, with its tag, which [`Ack::tag`] must equal.
    #[must_use]
    pub fn decode(header: &Header, datagram: &[u8]) -> Option<(Self, u64)> {
        if header.kind != Kind::LeaseAck || datagram.len() != ACK_DATAGRAM_LEN {
            return None;
        }
        let rates = read_u64(datagram, 28);
        let ack = Self {
            session: header.session,
            expires_ms: read_u64(datagram, 20),
            soft_kbps: (rates >> 32) as u32,
            hard_kbps: rates as u32,
            nonce: read_u64(datagram, 36),
            public: *datagram.get(44..)?.first_chunk()?,
            signature: *datagram.get(76..)?.first_chunk()?,
        };
        Some((ack, read_u64(datagram, 140)))
    }

    /// The datagram, tagged.
    #[must_use]
    pub fn encode(&self, answer_key: SipKey) -> [u8; ACK_DATAGRAM_LEN] {
        let mut out = self.untagged();
        let tag = siphash::hash(answer_key, &out[..ACK_DATAGRAM_LEN - 8]);
        out[ACK_DATAGRAM_LEN - 8..].copy_from_slice(&tag.to_be_bytes());
        out
    }

    /// The tag that it must have.
    #[must_use]
    pub fn tag(&self, answer_key: SipKey) -> u64 {
        siphash::hash(answer_key, &self.untagged()[..ACK_DATAGRAM_LEN - 8])
    }

    fn untagged(&self) -> [u8; ACK_DATAGRAM_LEN] {
        let mut out = [0; ACK_DATAGRAM_LEN];
        write_header(&mut out, Kind::LeaseAck, 0, self.session);
        out[20..28].copy_from_slice(&self.expires_ms.to_be_bytes());
        out[28..32].copy_from_slice(&self.soft_kbps.to_be_bytes());
        out[32..36].copy_from_slice(&self.hard_kbps.to_be_bytes());
        out[36..44].copy_from_slice(&self.nonce.to_be_bytes());
        out[44..76].copy_from_slice(&self.public);
        out[76..140].copy_from_slice(&self.signature);
        out
    }
}

/// Why a relay refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum RejectReason {
    /// The lease is over, or not good yet.
    Expired = 1,
    /// Of the lease, or of the proof.
    InvalidSignature = 2,
    /// The lease is for another relay.
    WrongRelay = 3,
    /// No room, or the session belongs to other peers.
    SessionFull = 4,
    /// The identity or the lease was revoked.
    Banned = 5,
    /// Too many attempts from this address.
    RateLimited = 6,
    /// There is no such session to renew: present (this project's own).
    UnknownSession = 7,
    /// The relay is about to stop and takes no new sessions (this project's own).
    Draining = 8,
}

impl RejectReason {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Expired,
        Self::InvalidSignature,
        Self::WrongRelay,
        Self::SessionFull,
        Self::Banned,
        Self::RateLimited,
        Self::UnknownSession,
        Self::Draining,
    ];

    /// What it means, and what to do about it.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Expired => "the lease is over or not good yet: get a new one, and check both clocks",
            Self::InvalidSignature => {
                "the signature is wrong: the relay does not trust the lease's issuer, or the lease is for another identity"
            }
            Self::WrongRelay => "the lease is for another relay",
            Self::SessionFull => "the relay has no room, or the session belongs to other peers",
            Self::Banned => "the lease or the identity was revoked",
            Self::RateLimited => "too many attempts from this address",
            Self::UnknownSession => "the relay does not know the session (any more)",
            Self::Draining => "the relay is about to stop and takes no new sessions",
        }
    }
}

/// A LEASE_REJECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Whose.
    pub session: SessionId,
    /// Why.
    pub reason: RejectReason,
    /// Of the attempt.
    pub nonce: u64,
}

impl Reject {
    /// Reads a datagram whose header is known.
    #[must_use]
    pub fn decode(header: &Header, datagram: &[u8]) -> Option<Self> {
        if header.kind != Kind::LeaseReject || datagram.len() != REJECT_DATAGRAM_LEN {
            return None;
        }
        let number = u16::from_be_bytes([datagram[20], datagram[21]]);
        let reason = RejectReason::ALL.into_iter().find(|reason| *reason as u16 == number)?;
        Some(Self { session: header.session, reason, nonce: read_u64(datagram, 22) })
    }

    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> [u8; REJECT_DATAGRAM_LEN] {
        let mut out = [0; REJECT_DATAGRAM_LEN];
        write_header(&mut out, Kind::LeaseReject, 0, self.session);
        out[20..22].copy_from_slice(&(self.reason as u16).to_be_bytes());
        out[22..].copy_from_slice(&self.nonce.to_be_bytes());
        out
    }
}

fn write_header(out: &mut [u8], kind: Kind, flags: u8, session: SessionId) {
    if let Some(head) = out.first_chunk_mut::<HEADER_LEN>() {
        Header { kind, flags, session }.encode(head);
    }
}

fn push_header(out: &mut Vec<u8>, kind: Kind, flags: u8, session: SessionId) {
    let mut head = [0; HEADER_LEN];
    Header { kind, flags, session }.encode(&mut head);
    out.extend(head);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rift_crypto::Identity;

    const RELAY: WavryId = WavryId([9; 32]);

    fn present<'a>(token: &'a [u8], proof: Option<Proof<'a>>) -> Present<'a> {
        Present { renew: false, session: SessionId([1; 16]), role: Role::Client, token, nonce: 7, proof }
    }

    /// Proves RELAY-PROOF-3: whatever the signature covers cannot be changed.
    #[test]
    fn a_proof_is_good_for_exactly_what_was_signed() {
        let identity = Identity::from_seed([1; 32]).unwrap();
        let token = [b'x'; 100];
        let (challenge, public) = ([2; CHALLENGE_LEN], [3; PUBLIC_LEN]);
        let signature = identity.sign(&signed_bytes(&present(&token, None), RELAY, &challenge, &public));
        let proof = Proof { challenge: &challenge, public: &public, signature: &signature };
        let good = present(&token, Some(proof));
        let id = identity.wavry_id();
        assert!(good.is_proved_by(id, RELAY));
        assert!(!good.is_proved_by(Identity::from_seed([2; 32]).unwrap().wavry_id(), RELAY));
        assert!(!good.is_proved_by(id, WavryId([8; 32])));
        assert!(!present(&token, None).is_proved_by(id, RELAY));
        for changed in [
            Present { renew: true, ..good },
            Present { role: Role::Host, ..good },
            Present { session: SessionId([2; 16]), ..good },
            Present { token: &token[..99], ..good },
            Present { proof: Some(Proof { challenge: &[4; CHALLENGE_LEN], ..proof }), ..good },
            Present { proof: Some(Proof { public: &[4; PUBLIC_LEN], ..proof }), ..good },
        ] {
            assert!(!changed.is_proved_by(id, RELAY), "{changed:?}");
        }
    }

    /// Proves RELAY-CHAL-2: no answer is longer than what it answers.
    #[test]
    fn no_answer_amplifies() {
        let mut ask = Vec::new();
        present(&[b'x'; TOKEN_MIN], None).encode(&mut ask);
        let answers = [CHALLENGE_DATAGRAM_LEN, REJECT_DATAGRAM_LEN];
        assert!(answers.iter().all(|&len| len <= ask.len()));
        let mut shown = Vec::new();
        let proof = Proof { challenge: &[0; 24], public: &[0; 32], signature: &[0; 64] };
        present(&[b'x'; TOKEN_MIN], Some(proof)).encode(&mut shown);
        assert!(shown.len() >= ACK_DATAGRAM_LEN);
        let short = [&ask[..20], &[0, 0, 63][..], &[b'x'; 63], &[0; 9]].concat();
        assert!(Present::decode(&Header::decode(&short).unwrap(), &short).is_none());
    }

    #[test]
    fn answers_round_trip() {
        let session = SessionId([4; 16]);
        let challenge = Challenge { session, unknown: true, nonce: 5, challenge: [6; CHALLENGE_LEN] };
        let bytes = challenge.encode();
        assert_eq!(Challenge::decode(&Header::decode(&bytes).unwrap(), &bytes), Some(challenge));
        for reason in RejectReason::ALL {
            let reject = Reject { session, reason, nonce: 8 };
            let bytes = reject.encode();
            assert_eq!(Reject::decode(&Header::decode(&bytes).unwrap(), &bytes), Some(reject));
        }
        let ack = Ack {
            session,
            expires_ms: 1,
            soft_kbps: 2,
            hard_kbps: 3,
            nonce: 4,
            public: [5; PUBLIC_LEN],
            signature: [6; 64],
        };
        let bytes = ack.encode([1, 2]);
        let (read, tag) = Ack::decode(&Header::decode(&bytes).unwrap(), &bytes).unwrap();
        assert_eq!((read, tag), (ack, ack.tag([1, 2])));
        assert_ne!(tag, ack.tag([1, 3]));
        assert_ne!(tag, Ack { expires_ms: 9, ..ack }.tag([1, 2]));
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same_bytes(
            token in prop::collection::vec(any::<u8>(), TOKEN_MIN..=TOKEN_MAX),
            renew: bool, host: bool, nonce: u64, proved: bool, cut in 0_usize..1300,
        ) {
            let proof = Proof { challenge: &[1; 24], public: &[2; 32], signature: &[3; 64] };
            let role = if host { Role::Host } else { Role::Client };
            let present = Present { renew, role, nonce, ..present(&token, proved.then_some(proof)) };
            let mut bytes = Vec::new();
            present.encode(&mut bytes);
            prop_assert!(bytes.len() <= PRESENT_MAX);
            prop_assert_eq!(Present::decode(&Header::decode(&bytes).unwrap(), &bytes), Some(present));
            if cut < bytes.len() && let Ok(header) = Header::decode(&bytes[..cut]) {
                prop_assert_eq!(Present::decode(&header, &bytes[..cut]), None);
            }
        }
    }
}

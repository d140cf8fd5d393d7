//! How a peer and its relay agree on the keys of their MACs (RELAY-1 §5).
//!
//! Owns the X25519 exchange and the derivation. The peer's half is new with every LEASE_PRESENT, the relay's with
//! every start of its process; the relay's is signed by its identity, which the lease names. Nothing here has to do
//! with the keys by which the peers seal what they send each other.
//!
//! ```text
//! okm = HKDF-SHA256(X25519(own, theirs), "wavry-relay-keys-v1" | session | role | peer key | relay key | challenge)
//! forward key = okm[0..16], answer key = okm[16..32]
//! ```

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroizing;

use crate::present::CHALLENGE_LEN;
use crate::siphash::{self, SipKey};
use crate::wire::{Role, SessionId};

/// Bytes of an X25519 public key (RFC 7748).
pub const PUBLIC_LEN: usize = 32;

/// One half of an exchange.
pub struct ExchangeKey {
    private: PrivateKey,
    public: [u8; PUBLIC_LEN],
}

impl ExchangeKey {
    /// From 32 secret bytes of good randomness.
    ///
    /// # Errors
    /// When the library refuses them, which it does for no bytes that are known.
    pub fn from_secret(secret: &Zeroizing<[u8; 32]>) -> Result<Self, NoAgreement> {
        let private = PrivateKey::from_private_key(&X25519, &secret[..]).map_err(|_| NoAgreement)?;
        let computed = private.compute_public_key().map_err(|_| NoAgreement)?;
        let public = computed.as_ref().try_into().map_err(|_| NoAgreement)?;
        Ok(Self { private, public })
    }

    /// From the operating system's randomness.
    ///
    /// # Errors
    /// When there is none.
    pub fn generate() -> Result<Self, NoAgreement> {
        let mut secret = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut secret[..]).map_err(|_| NoAgreement)?;
        Self::from_secret(&secret)
    }

    /// What the other side needs.
    #[must_use]
    pub fn public(&self) -> [u8; PUBLIC_LEN] {
        self.public
    }

    /// The keys that both sides derive. `binding` is the same on both.
    ///
    /// # Errors
    /// When `theirs` is a point of small order, so that the result would be known to anybody.
    pub fn agree(&self, theirs: &[u8; PUBLIC_LEN], binding: &Binding<'_>) -> Result<RelayKeys, NoAgreement> {
        let info = [
            b"wavry-relay-keys-v1",
            &binding.session.0[..],
            &[binding.role as u8],
            binding.peer_public,
            binding.relay_public,
            binding.challenge,
        ];
        agree(&self.private, UnparsedPublicKey::new(&X25519, theirs), NoAgreement, |shared| {
            let mut okm = Zeroizing::new([0; 32]);
            Salt::new(HKDF_SHA256, &[])
                .extract(shared)
                .expand(&info, OkmLen)
                .and_then(|okm_source| okm_source.fill(&mut okm[..]))
                .map_err(|_| NoAgreement)?;
            let half = |at: usize| {
                let mut bytes = [0; 16];
                bytes.copy_from_slice(&okm[at..at + 16]);
                siphash::key(bytes)
            };
            Ok(RelayKeys { forward: half(0), answer: half(16) })
        })
    }
}

impl std::fmt::Debug for ExchangeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ExchangeKey(..)")
    }
}

/// What the keys are bound to.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// The session.
    pub session: SessionId,
    /// The peer's role in it.
    pub role: Role,
    /// The peer's half of the exchange.
    pub peer_public: &'a [u8; PUBLIC_LEN],
    /// The relay's half.
    pub relay_public: &'a [u8; PUBLIC_LEN],
    /// The challenge that the peer answered.
    pub challenge: &'a [u8; CHALLENGE_LEN],
}

/// Keys between one peer and its relay.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RelayKeys {
    /// Of the MAC in every FORWARD.
    pub forward: SipKey,
    /// Of the tag in every LEASE_ACK.
    pub answer: SipKey,
}

impl std::fmt::Debug for RelayKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RelayKeys(..)")
    }
}

/// No keys could be agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no keys could be agreed on with the other side")]
pub struct NoAgreement;

struct OkmLen;

impl KeyType for OkmLen {
    fn len(&self) -> usize {
        32
    }
}

/// What the relay's identity signs to vouch for its half of the exchange.
#[must_use]
pub fn signed_relay_key(public: &[u8; PUBLIC_LEN]) -> Vec<u8> {
    [b"wavry-relay-exchange-v1", &public[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> ExchangeKey {
        ExchangeKey::from_secret(&Zeroizing::new([byte; 32])).unwrap()
    }

    #[test]
    fn both_sides_derive_the_same_and_nobody_else_does() {
        let (peer, relay, other) = (key(1), key(2), key(3));
        let binding = Binding {
            session: SessionId([5; 16]),
            role: Role::Client,
            peer_public: &peer.public(),
            relay_public: &relay.public(),
            challenge: &[6; CHALLENGE_LEN],
        };
        let keys = peer.agree(&relay.public(), &binding).unwrap();
        assert!(keys == relay.agree(&peer.public(), &binding).unwrap());
        assert!(keys.forward != keys.answer);
        assert!(keys != other.agree(&relay.public(), &binding).unwrap());
        for changed in [
            Binding { session: SessionId([4; 16]), ..binding },
            Binding { role: Role::Host, ..binding },
            Binding { challenge: &[7; CHALLENGE_LEN], ..binding },
        ] {
            assert!(keys != peer.agree(&relay.public(), &changed).unwrap());
        }
    }

    #[test]
    fn a_point_of_small_order_is_refused() {
        let (peer, relay) = (key(1), key(2));
        let binding = Binding {
            session: SessionId([5; 16]),
            role: Role::Client,
            peer_public: &peer.public(),
            relay_public: &relay.public(),
            challenge: &[6; CHALLENGE_LEN],
        };
        assert_eq!(relay.agree(&[0; 32], &binding).err(), Some(NoAgreement));
    }
}

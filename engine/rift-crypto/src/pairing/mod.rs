//! Pairing: a person carries six digits from the host's screen to the client, and both sides prove to
//! each other that they have the same six (RIFT §3.11).
//!
//! Owns SPAKE2 (RFC 9382 describes the idea; the group and encodings are those of the `spake2` crate
//! over Ed25519, as in python-spake2), the key confirmation around it, the PIN, and the count of
//! wrong ones. Never sends, never shows anything, keeps no time: it runs inside a sealed channel
//! whose handshake both ends finished, and says yes or no.
//!
//! ```text
//! client                                                     host: PairingGate::open(pin)
//! PairingClient::start           Start    A [33]      ->     PairingGate::respond
//! PairingClient::confirm         Reply    B [33]      <-
//!                                Confirm  MAC_c [32]  ->     PairingGate::verify
//! PairingClientConfirmed::finish Accept   MAC_h [32]  <-     right: allow the peer
//!                                Refuse               <-     wrong: count it
//! ```
//!
//! ```text
//! K     = SPAKE2(PIN, "rift-pair-v1 client" || hash, "rift-pair-v1 host" || hash)
//! MAC_c = HMAC-SHA256(HKDF-SHA256(K, "rift-pair-v1 client"), hash || A || B)
//! MAC_h = HMAC-SHA256(HKDF-SHA256(K, "rift-pair-v1 host"),   hash || A || B)
//! ```
//!
//! Why it holds:
//! * `A` and `B` say nothing about the PIN, so listening or replaying gains nothing, and each run
//!   lets an active attacker test one PIN of a million.
//! * The client confirms first. A host learns of a wrong PIN before it proved anything, so it can
//!   count every guess: nobody tests a PIN against a host without the host seeing it fail.
//! * `hash` is the handshake hash of the channel. Someone who sits between two channels and passes
//!   the messages on has two different hashes, and both ends see a wrong PIN.
//!
//! Invariant: [`PairingGate`] accepts one client and then closes, or closes at the third wrong PIN.

pub(crate) mod client;
pub(crate) mod gate;
pub(crate) mod message;
pub(crate) mod pin;
mod spake;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use zeroize::Zeroizing;

use crate::{CryptoError, kdf};

/// Length of a SPAKE2 message: a side byte and a point.
pub const SPAKE_LEN: usize = 33;

/// Length of a key confirmation.
pub const CONFIRM_LEN: usize = 32;

const CLIENT_LABEL: &[u8] = b"rift-pair-v1 client";
const HOST_LABEL: &[u8] = b"rift-pair-v1 host";

/// Why a pairing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PairingError {
    /// The message has the wrong length or kind, or carries no point of the group.
    #[error("malformed pairing message")]
    Malformed,
    /// The two sides used different PINs, or somebody is passing messages between two channels.
    #[error("wrong PIN")]
    WrongPin,
    /// The host is not, or no longer, in pairing mode.
    #[error("the host is not in pairing mode")]
    NotPairing,
    /// See [`CryptoError`].
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

/// What both sides can compute once they have the same key: the confirmation each of them sends.
struct Confirmations {
    client: [u8; CONFIRM_LEN],
    host: [u8; CONFIRM_LEN],
}

impl Confirmations {
    fn new(
        shared: &Zeroizing<[u8; 32]>,
        handshake_hash: &[u8; 32],
        start: &[u8; SPAKE_LEN],
        reply: &[u8; SPAKE_LEN],
    ) -> Self {
        let transcript = [&handshake_hash[..], start, reply].concat();
        let mac = |label| {
            let key = hmac::Key::new(HMAC_SHA256, &*kdf::derive(shared, label));
            let mut mac = [0; CONFIRM_LEN];
            mac.copy_from_slice(hmac::sign(&key, &transcript).as_ref());
            mac
        };
        Self { client: mac(CLIENT_LABEL), host: mac(HOST_LABEL) }
    }
}

/// Compares a received confirmation, in a time that does not depend on where they differ.
fn verify(expected: &[u8; CONFIRM_LEN], received: &[u8]) -> Result<(), PairingError> {
    verify_slices_are_equal(expected, received).map_err(|_| PairingError::WrongPin)
}

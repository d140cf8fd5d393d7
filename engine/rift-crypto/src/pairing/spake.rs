//! The `spake2` crate with RIFT's identities, fixed-size messages and our own randomness.

use spake2::{Ed25519Group, Identity, Password, Spake2};
use zeroize::Zeroizing;

use super::{CLIENT_LABEL, HOST_LABEL, PairingError, SPAKE_LEN};
use crate::{EphemeralSecret, Pin, kdf};

/// One side of one SPAKE2 run.
pub(super) struct Exchange(Spake2<Ed25519Group>);

impl Exchange {
    pub(super) fn client(
        pin: &Pin,
        handshake_hash: &[u8; 32],
        secret: EphemeralSecret,
    ) -> Result<(Self, [u8; SPAKE_LEN]), PairingError> {
        let [client, host] = identities(handshake_hash);
        let (state, message) =
            Spake2::start_a_with_rng(&password(pin), &client, &host, ScalarSource::new(secret));
        Ok((Self(state), to_array(message)?))
    }

    pub(super) fn host(
        pin: &Pin,
        handshake_hash: &[u8; 32],
        secret: EphemeralSecret,
    ) -> Result<(Self, [u8; SPAKE_LEN]), PairingError> {
        let [client, host] = identities(handshake_hash);
        let (state, message) =
            Spake2::start_b_with_rng(&password(pin), &client, &host, ScalarSource::new(secret));
        Ok((Self(state), to_array(message)?))
    }

    /// The shared key: the same on both sides if the PIN, the handshake and the messages were.
    pub(super) fn finish(self, received: &[u8; SPAKE_LEN]) -> Result<Zeroizing<[u8; 32]>, PairingError> {
        let key = Zeroizing::new(self.0.finish(received).map_err(|_| PairingError::Malformed)?);
        let mut shared = Zeroizing::new([0; 32]);
        if key.len() != shared.len() {
            return Err(PairingError::Malformed);
        }
        shared.copy_from_slice(&key);
        Ok(shared)
    }
}

fn identities(handshake_hash: &[u8; 32]) -> [Identity; 2] {
    [CLIENT_LABEL, HOST_LABEL].map(|label| Identity::new(&[label, handshake_hash].concat()))
}

fn password(pin: &Pin) -> Password {
    Password::new(pin.digits())
}

fn to_array(message: Vec<u8>) -> Result<[u8; SPAKE_LEN], PairingError> {
    message.try_into().map_err(|_| PairingError::Malformed)
}

/// Expands a secret into the 64 bytes that the group reduces to its scalar.
struct ScalarSource {
    secret: Zeroizing<[u8; 32]>,
    blocks: u8,
}

impl ScalarSource {
    fn new(secret: EphemeralSecret) -> Self {
        Self { secret: secret.into_bytes(), blocks: 0 }
    }
}

impl rand_core::CryptoRng for ScalarSource {}

impl rand_core::RngCore for ScalarSource {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        for chunk in dest.chunks_mut(32) {
            let mut label = *b"rift-spake2-scalar-v1 ?";
            label[label.len() - 1] = self.blocks;
            chunk.copy_from_slice(&kdf::derive(&self.secret, &label)[..chunk.len()]);
            self.blocks = self.blocks.wrapping_add(1);
        }
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

//! A machine's long-term identity: one 32-byte seed and the two key pairs that follow from it.

use aws_lc_rs::agreement::{PrivateKey, X25519};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

use crate::handshake::payload::{PROOF_LEN, STATIC_KEY_LABEL};
use crate::{CryptoError, WavryId, kdf};

/// HKDF label of the X25519 static key.
const X25519_LABEL: &[u8] = b"rift-x25519-static-v1";

/// The long-term keys of one machine.
///
/// The seed is an Ed25519 private key (RFC 8032 §5.1.5) whose public half is the [`WavryId`]; the
/// X25519 key that the handshakes use is HKDF-SHA256 of the seed under `rift-x25519-static-v1`, so
/// the 32 bytes on disk are all there is to back up. The seed and everything derived from it are
/// wiped on drop.
pub struct Identity {
    seed: Zeroizing<[u8; 32]>,
    signing: Ed25519KeyPair,
    id: WavryId,
    static_private: Zeroizing<[u8; 32]>,
    static_public: [u8; 32],
    /// Identity key and signature over the static key, as every handshake sends them. Ed25519 is
    /// deterministic, so signing once is the same as signing each time.
    proof: [u8; PROOF_LEN],
}

impl Identity {
    /// Makes a new identity from the operating system's randomness.
    ///
    /// # Errors
    /// [`CryptoError::Randomness`].
    pub fn generate() -> Result<Self, CryptoError> {
        let mut seed = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *seed).map_err(|_| CryptoError::Randomness)?;
        Self::from_zeroizing_seed(seed)
    }

    /// The identity that `seed` stands for; the same seed always gives the same identity.
    ///
    /// # Errors
    /// [`CryptoError::Key`] if the library refuses the seed, which it does for no known seed.
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, CryptoError> {
        Self::from_zeroizing_seed(Zeroizing::new(seed))
    }

    /// The public name of this identity.
    #[must_use]
    pub fn wavry_id(&self) -> WavryId {
        self.id
    }

    /// The X25519 public key of this identity (RFC 7748).
    #[must_use]
    pub fn static_public(&self) -> [u8; 32] {
        self.static_public
    }

    /// Signs `message` with the Ed25519 key.
    ///
    /// Callers put a label in front of what they sign, as the handshake does with
    /// `rift-static-v1`, so that a signature made for one purpose means nothing in another.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        signature_bytes(&self.signing, message)
    }

    pub(crate) fn from_zeroizing_seed(seed: Zeroizing<[u8; 32]>) -> Result<Self, CryptoError> {
        let signing = Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|_| CryptoError::Key)?;
        let id: [u8; 32] = signing.public_key().as_ref().try_into().map_err(|_| CryptoError::Key)?;
        let static_private = kdf::derive(&seed, X25519_LABEL);
        let static_public = x25519_public(&static_private)?;

        let mut proof = [0; PROOF_LEN];
        proof[..32].copy_from_slice(&id);
        proof[32..].copy_from_slice(&signature_bytes(&signing, &signed_static(&static_public)));
        Ok(Self { seed, signing, id: WavryId(id), static_private, static_public, proof })
    }

    pub(crate) fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    pub(crate) fn static_private(&self) -> &Zeroizing<[u8; 32]> {
        &self.static_private
    }

    pub(crate) fn proof(&self) -> &[u8; PROOF_LEN] {
        &self.proof
    }

    /// An identity whose handshakes carry a signature that does not match, as an impostor's would.
    #[cfg(test)]
    pub(crate) fn with_forged_proof(mut self, proof: [u8; PROOF_LEN]) -> Self {
        self.proof = proof;
        self
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.id)
    }
}

/// What the identity key signs to vouch for a static key.
pub(crate) fn signed_static(static_public: &[u8; 32]) -> [u8; STATIC_KEY_LABEL.len() + 32] {
    let mut message = [0; STATIC_KEY_LABEL.len() + 32];
    message[..STATIC_KEY_LABEL.len()].copy_from_slice(STATIC_KEY_LABEL);
    message[STATIC_KEY_LABEL.len()..].copy_from_slice(static_public);
    message
}

fn signature_bytes(signing: &Ed25519KeyPair, message: &[u8]) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes.copy_from_slice(signing.sign(message).as_ref());
    bytes
}

fn x25519_public(private: &[u8; 32]) -> Result<[u8; 32], CryptoError> {
    let key = PrivateKey::from_private_key(&X25519, private).map_err(|_| CryptoError::Key)?;
    let public = key.compute_public_key().map_err(|_| CryptoError::Key)?;
    public.as_ref().try_into().map_err(|_| CryptoError::Key)
}

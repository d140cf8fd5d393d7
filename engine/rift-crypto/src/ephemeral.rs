//! One-time secrets, so that whoever owns randomness decides where it comes from.

use zeroize::Zeroizing;

use crate::CryptoError;

/// 32 secret bytes for exactly one handshake or one pairing attempt: the X25519 ephemeral key of
/// the former, the seed of the SPAKE2 scalar of the latter.
///
/// It is consumed by what it is given to, cannot be cloned, and is wiped on drop. Using the same
/// bytes twice gives away the traffic of both uses, so outside of simulations and test vectors,
/// where a run must be repeatable, [`EphemeralSecret::generate`] is the only right constructor.
pub struct EphemeralSecret(Zeroizing<[u8; 32]>);

impl EphemeralSecret {
    /// Draws the secret from the operating system.
    ///
    /// # Errors
    /// [`CryptoError::Randomness`].
    pub fn generate() -> Result<Self, CryptoError> {
        let mut bytes = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| CryptoError::Randomness)?;
        Ok(Self(bytes))
    }

    /// Takes the secret from the caller, who answers for its randomness and its single use.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(crate) fn into_bytes(self) -> Zeroizing<[u8; 32]> {
        self.0
    }
}

impl std::fmt::Debug for EphemeralSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EphemeralSecret(..)")
    }
}

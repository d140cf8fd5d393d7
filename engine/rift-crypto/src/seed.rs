//! Randomness of the operating system, for those who may not draw it themselves.

use crate::CryptoError;

/// 32 unpredictable bytes: what a sans-IO endpoint is seeded with.
///
/// # Errors
/// [`CryptoError::Randomness`].
pub fn random_seed() -> Result<[u8; 32], CryptoError> {
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| CryptoError::Randomness)?;
    Ok(seed)
}

//! The one failure that every secret-making function shares.

/// The machine could not do the cryptography at all. Not the peer's fault, and not worth retrying
/// at once: it means the kernel gave no randomness or the library refused its own key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CryptoError {
    /// The operating system did not deliver random bytes.
    #[error("the operating system did not deliver random bytes")]
    Randomness,
    /// A key was refused by the cryptographic library.
    #[error("the cryptographic library refused a key")]
    Key,
}

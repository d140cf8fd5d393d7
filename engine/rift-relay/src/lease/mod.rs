//! Leases: who may use which relay for which session, until when, and how fast (RELAY-1 §3).
//!
//! Owns the token format (PASETO v4.public), the claims, and the keys that sign them. Never reads a clock: the caller
//! says what time it is. Invariant: claims come only out of a token whose signature verified under a key that is in
//! the ring.

mod claims;
mod date;
mod key;
mod paseto;

pub use claims::{
    CLOCK_SKEW_MS, Claims, ClaimsError, LIFETIME_DEFAULT_MS, LeaseId, RATE_MAX_KBPS, RENEW_AT_PERCENT,
};
pub use date::{format_rfc3339, parse_rfc3339};
pub use key::{IssuerKey, IssuerPublic, KeyError, KeyRing};
pub use paseto::{TOKEN_MAX, TokenError};

/// A lease is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// See [`TokenError`].
    #[error(transparent)]
    Token(#[from] TokenError),
    /// See [`ClaimsError`].
    #[error(transparent)]
    Claims(#[from] ClaimsError),
}

impl KeyRing {
    /// The claims of a token that one of the ring's keys signed. Times are not compared with any clock.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn open(&self, token: &[u8]) -> Result<Claims, LeaseError> {
        Ok(Claims::from_json(&paseto::verify(self, token)?)?)
    }
}

impl IssuerKey {
    /// A signed lease.
    #[must_use]
    pub fn mint(&self, claims: &Claims) -> String {
        paseto::sign(self, claims.to_json().as_bytes())
    }
}

/// The claims of a token whose signature nobody checked: for showing, and for a peer, whose own lease it is.
///
/// # Errors
/// [`LeaseError`].
pub fn read_unverified(token: &[u8]) -> Result<Claims, LeaseError> {
    Ok(Claims::from_json(paseto::Parts::split(token)?.message())?)
}

/// The id of the key that a token says signed it.
///
/// # Errors
/// [`TokenError`].
pub fn key_id(token: &[u8]) -> Result<String, TokenError> {
    paseto::Parts::split(token)?.key_id()
}

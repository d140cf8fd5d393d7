//! What a lease says.
//!
//! Owns names, units and ranges of the claims. Never checks a signature. Invariant: a [`Claims`] is consistent: it
//! ends after it begins, its two peers differ, and its rates are above 0 and within [`RATE_MAX_KBPS`].

use rift_crypto::WavryId;
use serde::{Deserialize, Serialize};

use super::date::{format_rfc3339, parse_rfc3339};
use crate::wire::{Role, SessionId};

/// How far the clocks of an issuer and a relay may be apart, in milliseconds.
pub const CLOCK_SKEW_MS: u64 = 30_000;
/// How long a lease is good for unless its issuer says otherwise, in milliseconds.
pub const LIFETIME_DEFAULT_MS: u64 = 300_000;
/// The part of its lifetime after which a lease is renewed.
pub const RENEW_AT_PERCENT: u64 = 80;
/// Highest rate that a lease can allow, in kbit/s.
pub const RATE_MAX_KBPS: u32 = 10_000_000;

/// The unique number of a lease, by which it can be revoked.
pub type LeaseId = SessionId;

/// The claims of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Claim `jti`.
    pub id: LeaseId,
    /// Claim `sid`.
    pub session: SessionId,
    /// Claim `aud`: the identity of the one relay that it is for.
    pub relay: WavryId,
    /// Claim `client`.
    pub client: WavryId,
    /// Claim `host`.
    pub host: WavryId,
    /// Claim `iat`, Unix time in milliseconds.
    pub issued_ms: u64,
    /// Claim `nbf`, Unix time in milliseconds.
    pub not_before_ms: u64,
    /// Claim `exp`, Unix time in milliseconds.
    pub expires_ms: u64,
    /// Claim `soft_kbps`: what each peer may send on average.
    pub soft_kbps: u32,
    /// Claim `hard_kbps`: what each peer may send for short.
    pub hard_kbps: u32,
}

impl Claims {
    /// Those of a lease that begins now, with the session's id for its own: one lease for one session. `kbps` is the rate that
    /// each peer may send on average and for short.
    #[must_use]
    pub fn from_now(
        session: SessionId,
        relay: WavryId,
        [client, host]: [WavryId; 2],
        now_ms: u64,
        life_ms: u64,
        kbps: u32,
    ) -> Self {
        Self {
            id: session,
            session,
            relay,
            client,
            host,
            issued_ms: now_ms,
            not_before_ms: now_ms,
            expires_ms: now_ms.saturating_add(life_ms),
            soft_kbps: kbps,
            hard_kbps: kbps,
        }
    }
}

/// The claims are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ClaimsError {
    /// Not the JSON of a lease.
    #[error("the lease does not say what a lease must say")]
    Malformed,
    /// Impossible values.
    #[error("the lease contradicts itself")]
    Inconsistent,
}

#[derive(Serialize, Deserialize)]
struct Json {
    jti: String,
    sid: String,
    aud: String,
    client: String,
    host: String,
    iat: String,
    nbf: String,
    exp: String,
    soft_kbps: u32,
    hard_kbps: u32,
}

impl Claims {
    /// The identity that the lease names for a role.
    #[must_use]
    pub fn peer(&self, role: Role) -> WavryId {
        match role {
            Role::Client => self.client,
            Role::Host => self.host,
        }
    }

    /// Whether it is good at `unix_ms`, as far as clocks agree.
    #[must_use]
    pub fn is_current(&self, unix_ms: u64) -> bool {
        unix_ms.saturating_add(CLOCK_SKEW_MS) >= self.not_before_ms
            && unix_ms < self.expires_ms.saturating_add(CLOCK_SKEW_MS)
    }

    /// When a peer asks for it to be renewed, Unix time in milliseconds.
    #[must_use]
    pub fn renew_ms(&self) -> u64 {
        let from = self.issued_ms.max(self.not_before_ms).min(self.expires_ms);
        from + (self.expires_ms - from) / 100 * RENEW_AT_PERCENT
    }

    pub(super) fn to_json(self) -> String {
        let json = Json {
            jti: self.id.to_string(),
            sid: self.session.to_string(),
            aud: self.relay.to_string(),
            client: self.client.to_string(),
            host: self.host.to_string(),
            iat: format_rfc3339(self.issued_ms),
            nbf: format_rfc3339(self.not_before_ms),
            exp: format_rfc3339(self.expires_ms),
            soft_kbps: self.soft_kbps,
            hard_kbps: self.hard_kbps,
        };
        // Strings and numbers always serialise.
        serde_json::to_string(&json).unwrap_or_default()
    }

    pub(super) fn from_json(bytes: &[u8]) -> Result<Self, ClaimsError> {
        let json: Json = serde_json::from_slice(bytes).map_err(|_| ClaimsError::Malformed)?;
        let malformed = ClaimsError::Malformed;
        let identity = |text: &str| text.parse::<WavryId>().map_err(|_| malformed);
        let number = |text: &str| text.parse::<SessionId>().map_err(|_| malformed);
        let time = |text: &str| parse_rfc3339(text).ok_or(malformed);
        let claims = Self {
            id: number(&json.jti)?,
            session: number(&json.sid)?,
            relay: identity(&json.aud)?,
            client: identity(&json.client)?,
            host: identity(&json.host)?,
            issued_ms: time(&json.iat)?,
            not_before_ms: time(&json.nbf)?,
            expires_ms: time(&json.exp)?,
            soft_kbps: json.soft_kbps,
            hard_kbps: json.hard_kbps,
        };
        let rates = 1..=RATE_MAX_KBPS;
        let consistent = claims.expires_ms > claims.not_before_ms
            && claims.client != claims.host
            && rates.contains(&claims.soft_kbps)
            && rates.contains(&claims.hard_kbps)
            && claims.soft_kbps <= claims.hard_kbps;
        if consistent { Ok(claims) } else { Err(ClaimsError::Inconsistent) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            id: SessionId([1; 16]),
            session: SessionId([2; 16]),
            relay: WavryId([3; 32]),
            client: WavryId([4; 32]),
            host: WavryId([5; 32]),
            issued_ms: 1_640_995_200_000,
            not_before_ms: 1_640_995_200_000,
            expires_ms: 1_640_995_500_000,
            soft_kbps: 50_000,
            hard_kbps: 100_000,
        }
    }

    /// Proves RELAY-LEASE-3: the claims and their spelling.
    #[test]
    fn claims_as_json() {
        let json = claims().to_json();
        assert!(json.contains(r#""exp":"2022-01-01T00:05:00Z""#), "{json}");
        assert_eq!(Claims::from_json(json.as_bytes()), Ok(claims()));
        // What a later version adds is no reason to refuse.
        let more = json.replacen('{', r#"{"region":"eu","#, 1);
        assert_eq!(Claims::from_json(more.as_bytes()), Ok(claims()));
    }

    #[test]
    fn impossible_claims_are_refused() {
        let refused = |change: fn(&mut Claims)| {
            let mut changed = claims();
            change(&mut changed);
            assert_eq!(Claims::from_json(changed.to_json().as_bytes()), Err(ClaimsError::Inconsistent));
        };
        refused(|c| c.expires_ms = c.not_before_ms);
        refused(|c| c.client = c.host);
        refused(|c| c.soft_kbps = 0);
        refused(|c| c.hard_kbps = RATE_MAX_KBPS + 1);
        refused(|c| c.hard_kbps = c.soft_kbps - 1);
        let json = claims().to_json();
        for (from, to) in [("soft_kbps\":50000", "soft_kbps\":-1"), ("\"exp\"", "\"xxx\""), ("2022-", "22-")]
        {
            assert_eq!(Claims::from_json(json.replace(from, to).as_bytes()), Err(ClaimsError::Malformed));
        }
        let twice = json.replacen('{', r#"{"exp":"2099-01-01T00:00:00Z","#, 1);
        assert_eq!(Claims::from_json(twice.as_bytes()), Err(ClaimsError::Malformed), "a claim given twice");
    }

    #[test]
    fn validity_and_renewal() {
        let claims = claims();
        assert!(!claims.is_current(claims.not_before_ms - CLOCK_SKEW_MS - 1));
        assert!(claims.is_current(claims.not_before_ms - CLOCK_SKEW_MS));
        assert!(claims.is_current(claims.expires_ms + CLOCK_SKEW_MS - 1));
        assert!(!claims.is_current(claims.expires_ms + CLOCK_SKEW_MS));
        assert_eq!(claims.renew_ms(), claims.not_before_ms + 240_000);
    }
}

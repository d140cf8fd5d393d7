//! PASETO v4.public: `v4.public.` | base64url(message | Ed25519 signature) | `.` | base64url(footer).
//!
//! Owns the token format (paseto-standard, "Version4"). The footer is `{"kid":"k4.pid..."}`, the id of the signing
//! key as PASERK defines it, so that keys can change while leases are out. No other version or purpose is read: there
//! is nothing to choose, so nothing to confuse.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::key::{IssuerKey, KeyRing};

/// Longest token that is looked at, in bytes. A LEASE_PRESENT with it and a proof still fits 1280 bytes.
pub const TOKEN_MAX: usize = 1024;

const HEADER: &str = "v4.public.";
const SIGNATURE_LEN: usize = 64;

/// A token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TokenError {
    /// Not a v4.public token, or too long.
    #[error("not a lease: it is one line that begins with v4.public.")]
    Malformed,
    /// Signed by a key that is not trusted (any more).
    #[error("the lease is signed by a key that is not in the list of issuers")]
    UnknownKey,
    /// Changed, or not signed by that key.
    #[error("the signature of the lease is wrong")]
    Signature,
}

/// Pre-authentication encoding: count and lengths as 64-bit little-endian numbers, so that no two lists of pieces have
/// the same bytes.
fn pae(pieces: [&[u8]; 4]) -> Vec<u8> {
    let mut out = Vec::with_capacity(40 + pieces.iter().map(|piece| piece.len()).sum::<usize>());
    out.extend((pieces.len() as u64).to_le_bytes());
    for piece in pieces {
        out.extend((piece.len() as u64 & (u64::MAX >> 1)).to_le_bytes());
        out.extend(piece);
    }
    out
}

fn sign_with(key: &IssuerKey, message: &[u8], footer: &[u8], implicit: &[u8]) -> String {
    let signature = key.sign(&pae([HEADER.as_bytes(), message, footer, implicit]));
    let mut token = String::from(HEADER);
    URL_SAFE_NO_PAD.encode_string([message, &signature].concat(), &mut token);
    if !footer.is_empty() {
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(footer, &mut token);
    }
    token
}

/// Signs `message` and names the key in the footer.
pub(super) fn sign(key: &IssuerKey, message: &[u8]) -> String {
    let footer = format!("{{\"kid\":\"{}\"}}", key.public().id());
    sign_with(key, message, footer.as_bytes(), b"")
}

/// The message of a token that a key of the ring signed.
pub(super) fn verify(ring: &KeyRing, token: &[u8]) -> Result<Vec<u8>, TokenError> {
    let parts = Parts::split(token)?;
    let key = ring.find(&parts.key_id()?).ok_or(TokenError::UnknownKey)?;
    parts.verify(|message, signature| key.verify(message, signature), b"")?;
    Ok(parts.message().to_vec())
}

/// A token taken apart. Nothing is checked but the format.
pub(super) struct Parts {
    body: Vec<u8>,
    footer: Vec<u8>,
}

impl Parts {
    pub(super) fn split(token: &[u8]) -> Result<Self, TokenError> {
        if token.len() > TOKEN_MAX {
            return Err(TokenError::Malformed);
        }
        let text = std::str::from_utf8(token).map_err(|_| TokenError::Malformed)?;
        let rest = text.strip_prefix(HEADER).ok_or(TokenError::Malformed)?;
        let (body, footer) = rest.split_once('.').map_or((rest, None), |(body, footer)| (body, Some(footer)));
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed);
        let body = decode(body)?;
        if body.len() < SIGNATURE_LEN {
            return Err(TokenError::Malformed);
        }
        Ok(Self { body, footer: footer.map(decode).transpose()?.unwrap_or_default() })
    }

    pub(super) fn message(&self) -> &[u8] {
        &self.body[..self.body.len() - SIGNATURE_LEN]
    }

    pub(super) fn key_id(&self) -> Result<String, TokenError> {
        #[derive(Deserialize)]
        struct Footer {
            kid: String,
        }
        let footer: Footer = serde_json::from_slice(&self.footer).map_err(|_| TokenError::Malformed)?;
        Ok(footer.kid)
    }

    fn verify(
        &self,
        verifies: impl Fn(&[u8], &[u8; SIGNATURE_LEN]) -> bool,
        implicit: &[u8],
    ) -> Result<(), TokenError> {
        let signature = self.body.last_chunk::<SIGNATURE_LEN>().ok_or(TokenError::Malformed)?;
        let signed = pae([HEADER.as_bytes(), self.message(), &self.footer, implicit]);
        if verifies(&signed, signature) { Ok(()) } else { Err(TokenError::Signature) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = r#"{"data":"this is a signed message","exp":"2022-01-01T00:00:00+00:00"}"#;
    const FOOTER: &str = r#"{"kid":"zVhMiPBP9fRf2snEcT7gFTioeA9COcNy9DfgL1W60haN"}"#;
    const BODY: &str = "v4.public.eyJkYXRhIjoidGhpcyBpcyBhIHNpZ25lZCBtZXNzYWdlIiwiZXhwIjoiMjAyMi0wMS0wMVQwMDowMDowMCswMDowMCJ9";
    const FOOTER_TEXT: &str = ".eyJraWQiOiJ6VmhNaVBCUDlmUmYyc25FY1Q3Z0ZUaW9lQTlDT2NOeTlEZmdMMVc2MGhhTiJ9";

    fn key() -> IssuerKey {
        let seed = 0xb4cb_fb43_df4c_e210_727d_953e_4a71_3307_u128.to_be_bytes();
        let rest = 0xfa19_bb7d_9f85_0414_38d9_e11b_942a_3774_u128.to_be_bytes();
        IssuerKey::from_seed(std::array::from_fn(|i| if i < 16 { seed[i] } else { rest[i - 16] })).unwrap()
    }

    /// The vectors 4-S-1 to 4-S-3 of paseto-standard/test-vectors, v4.json.
    ///
    /// Proves RELAY-LEASE-1.
    #[test]
    fn published_vectors_sign_and_verify() {
        let signatures = [
            (
                "",
                "",
                "bg_XBBzds8lTZShVlwwKSgeKpLT3yukTw6JUz3W4h_ExsQV-P0V54zemZDcAxFaSeef1QlXEFtkqxT1ciiQEDA",
            ),
            (
                FOOTER,
                "",
                "v3Jt8mx_TdM2ceTGoqwrh4yDFn0XsHvvV_D0DtwQxVrJEBMl0F2caAdgnpKlt4p7xBnx1HcO-SPo8FPp214HDw",
            ),
            (
                FOOTER,
                r#"{"test-vector":"4-S-3"}"#,
                "NPWciuD3d0o5eXJXG5pJy-DiVEoyPYWs1YSTwWHNJq6DZD3je5gf-0M4JR9ipdUSJbIovzmBECeaWmaqcaP0DQ",
            ),
        ];
        for (footer, implicit, signature) in signatures {
            let expected = format!("{BODY}{signature}{}", if footer.is_empty() { "" } else { FOOTER_TEXT });
            let token = sign_with(&key(), MESSAGE.as_bytes(), footer.as_bytes(), implicit.as_bytes());
            assert_eq!(token, expected);
            let parts = Parts::split(token.as_bytes()).unwrap();
            assert_eq!(parts.message(), MESSAGE.as_bytes());
            let public = key().public();
            assert_eq!(parts.verify(|m, s| public.verify(m, s), implicit.as_bytes()), Ok(()));
            assert_eq!(parts.verify(|m, s| public.verify(m, s), b"other"), Err(TokenError::Signature));
        }
    }

    /// As the vectors 4-F-1 and following have it: another version or purpose is no lease.
    #[test]
    fn other_versions_and_purposes_are_refused() {
        let ring = KeyRing::new(vec![key().public()]);
        let good = sign(&key(), b"{}");
        for header in ["v4.local.", "v3.public.", "v2.public.", "v1.public.", "V4.public."] {
            let other = good.replacen(HEADER, header, 1);
            assert_eq!(verify(&ring, other.as_bytes()), Err(TokenError::Malformed), "{header}");
        }
        assert_eq!(verify(&ring, good.as_bytes()), Ok(b"{}".to_vec()));
    }

    /// Proves RELAY-LEASE-2: keys are found by id, and a key that was taken away signs no more.
    #[test]
    fn keys_rotate_by_id() {
        let (old, new) = (key(), IssuerKey::from_seed([9; 32]).unwrap());
        let (by_old, by_new) = (sign(&old, b"{}"), sign(&new, b"{}"));
        let both = KeyRing::new(vec![old.public(), new.public()]);
        assert!(verify(&both, by_old.as_bytes()).is_ok() && verify(&both, by_new.as_bytes()).is_ok());
        let only_new = KeyRing::new(vec![new.public()]);
        assert_eq!(verify(&only_new, by_old.as_bytes()), Err(TokenError::UnknownKey));
        // A token that names one key and is signed by another.
        let footer = format!("{{\"kid\":\"{}\"}}", new.public().id());
        let liar = sign_with(&old, b"{}", footer.as_bytes(), b"");
        assert_eq!(verify(&both, liar.as_bytes()), Err(TokenError::Signature));
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let ring = KeyRing::new(vec![key().public()]);
        let token = sign(&key(), br#"{"a":1}"#).into_bytes();
        for at in 0..token.len() {
            let mut changed = token.clone();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(verify(&ring, &changed).is_err(), "character {at}");
        }
        assert!(verify(&ring, &token[..token.len() - 1]).is_err());
        assert_eq!(verify(&ring, &vec![b'v'; TOKEN_MAX + 1]), Err(TokenError::Malformed));
    }
}

//! The name of a peer: its Ed25519 public key, written as text.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A Wavry ID: the 32 bytes of an Ed25519 public key (RFC 8032 §5.1.5).
///
/// As text it is base64url without padding (RFC 4648 §5), always 43 characters. Parsing is strict:
/// one key has one spelling.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WavryId(pub [u8; 32]);

impl WavryId {
    /// Length of the text form, in characters.
    pub const TEXT_LEN: usize = 43;

    /// Whether `signature` over `message` was made by the holder of this identity.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for WavryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&encode_key(&self.0))
    }
}

impl fmt::Debug for WavryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WavryId({self})")
    }
}

/// The text is not a Wavry ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a Wavry ID (43 characters of A-Z a-z 0-9 - _)")]
pub struct ParseWavryIdError;

impl FromStr for WavryId {
    type Err = ParseWavryIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        decode_key(text).map(Self).ok_or(ParseWavryIdError)
    }
}

/// 32 bytes as base64url: the text form of every public key in files and on screens.
pub(crate) fn encode_key(key: &[u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(key)
}

/// The inverse of [`encode_key`]; `None` for anything it cannot have written.
pub(crate) fn decode_key(text: &str) -> Option<[u8; 32]> {
    if text.len() != WavryId::TEXT_LEN {
        return None;
    }
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_43_characters_of_base64url() {
        let id = WavryId([0xfb; 32]);
        assert_eq!(id.to_string(), "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s");
        assert_eq!(format!("{id:?}"), "WavryId(-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s)");
    }

    #[test]
    fn a_second_spelling_of_the_same_key_is_refused() {
        let text = WavryId([0; 32]).to_string();
        let respelled = format!("{}B", &text[..42]); // sets one of the two unused bits
        assert!(text.parse::<WavryId>().is_ok());
        assert_eq!(respelled.parse::<WavryId>(), Err(ParseWavryIdError));
        assert!(format!("{text}=").parse::<WavryId>().is_err());
        assert!(format!(" {text}").parse::<WavryId>().is_err());
        assert!("".parse::<WavryId>().is_err());
    }

    proptest! {
        #[test]
        fn text_round_trips(key: [u8; 32]) {
            prop_assert_eq!(WavryId(key).to_string().parse(), Ok(WavryId(key)));
        }

        #[test]
        fn any_text_parses_or_fails_without_panic(text in ".{0,50}") {
            if let Ok(id) = text.parse::<WavryId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}

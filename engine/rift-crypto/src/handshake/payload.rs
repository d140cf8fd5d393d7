//! What the Noise payloads of the handshake carry, byte for byte (RIFT §3.3 to §3.6).
//!
//! Owns the layout only; the encryption around it is Noise's, the meaning of `app` is the
//! caller's. Every decoder takes arbitrary bytes and either returns borrowed parts or an error.
//!
//! ```text
//! offer    0 count u8 (1..=8) | 1 suites u8 x count
//! choice   0 suite u8
//! proof    0 identity [32], Ed25519 | 32 signature [64] over "rift-static-v1" || X25519 static key
//!
//!          XX                        IK
//! MSG1     offer | app               offer | proof | app
//! MSG2     choice | proof | app      choice | proof | app
//! MSG3     proof | app               (none)
//! ```
//!
//! The payload of XX MSG1 travels in the clear, though altering it breaks the handshake.

use super::HandshakeError;
use crate::{Suite, SuiteList};

/// Longest application part of a payload, in bytes.
pub const MAX_APP_LEN: usize = 700;

/// Most suites an offer may list; numbers this version does not know are counted and skipped.
pub const MAX_SUITES: usize = 8;

/// Length of identity key and signature together, in bytes.
pub const PROOF_LEN: usize = 32 + 64;

/// What stands before the static key in the signed message.
pub const STATIC_KEY_LABEL: &[u8] = b"rift-static-v1";

/// Longest payload of any handshake message, in bytes: an offer of eight, a proof and `app`.
pub const MAX_PAYLOAD_LEN: usize = 1 + MAX_SUITES + PROOF_LEN + MAX_APP_LEN;

/// Splits an offer off the front: the suites this version knows, in order, and the rest.
///
/// # Errors
/// [`HandshakeError::Malformed`] if the count is 0, over [`MAX_SUITES`] or beyond the bytes there
/// are.
pub fn decode_offer(bytes: &[u8]) -> Result<(SuiteList, &[u8]), HandshakeError> {
    let (&count, rest) = bytes.split_first().ok_or(HandshakeError::Malformed)?;
    let count = usize::from(count);
    if count == 0 || count > MAX_SUITES {
        return Err(HandshakeError::Malformed);
    }
    let (numbers, rest) = rest.split_at_checked(count).ok_or(HandshakeError::Malformed)?;
    let mut suites = SuiteList::new(&[]);
    for suite in numbers.iter().filter_map(|&number| Suite::from_wire(number)) {
        suites.push(suite);
    }
    Ok((suites, rest))
}

/// Splits the responder's choice off the front.
///
/// # Errors
/// [`HandshakeError::Malformed`] if there is no byte, [`HandshakeError::SuiteNotOffered`] if this
/// version does not know the suite and so cannot have offered it.
pub fn decode_choice(bytes: &[u8]) -> Result<(Suite, &[u8]), HandshakeError> {
    let (&number, rest) = bytes.split_first().ok_or(HandshakeError::Malformed)?;
    Ok((Suite::from_wire(number).ok_or(HandshakeError::SuiteNotOffered)?, rest))
}

/// Splits an identity proof, still unverified, off the front.
///
/// # Errors
/// [`HandshakeError::Malformed`] if there are fewer than [`PROOF_LEN`] bytes.
pub fn decode_proof(bytes: &[u8]) -> Result<(&[u8; PROOF_LEN], &[u8]), HandshakeError> {
    bytes.split_first_chunk().ok_or(HandshakeError::Malformed)
}

/// Checks the length of what is left for the application.
///
/// # Errors
/// [`HandshakeError::Malformed`] if it is longer than [`MAX_APP_LEN`].
pub fn decode_app(bytes: &[u8]) -> Result<&[u8], HandshakeError> {
    if bytes.len() > MAX_APP_LEN { Err(HandshakeError::Malformed) } else { Ok(bytes) }
}

/// A payload under construction, in a buffer of fixed size.
pub(crate) struct PayloadWriter {
    bytes: [u8; MAX_PAYLOAD_LEN],
    len: usize,
}

impl PayloadWriter {
    pub(crate) fn new() -> Self {
        Self { bytes: [0; MAX_PAYLOAD_LEN], len: 0 }
    }

    pub(crate) fn offer(self, suites: &SuiteList) -> Self {
        let suites = suites.as_slice();
        let mut writer = self.put(&[suites.len() as u8]);
        for suite in suites {
            writer = writer.put(&[suite.to_wire()]);
        }
        writer
    }

    pub(crate) fn choice(self, suite: Suite) -> Self {
        self.put(&[suite.to_wire()])
    }

    pub(crate) fn proof(self, proof: &[u8; PROOF_LEN]) -> Self {
        self.put(proof)
    }

    /// # Errors
    /// [`HandshakeError::AppTooLong`].
    pub(crate) fn app(self, app: &[u8]) -> Result<Self, HandshakeError> {
        if app.len() > MAX_APP_LEN { Err(HandshakeError::AppTooLong) } else { Ok(self.put(app)) }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Each payload has at most one of each part, so `MAX_PAYLOAD_LEN` always suffices.
    fn put(mut self, part: &[u8]) -> Self {
        self.bytes[self.len..self.len + part.len()].copy_from_slice(part);
        self.len += part.len();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn suites() -> impl Strategy<Value = SuiteList> {
        prop_oneof![
            Just(SuiteList::new(&[Suite::ChaCha20Poly1305])),
            Just(SuiteList::new(&[Suite::Aes256Gcm])),
            Just(SuiteList::new(&[Suite::Aes256Gcm, Suite::ChaCha20Poly1305])),
            Just(SuiteList::new(&[Suite::ChaCha20Poly1305, Suite::Aes256Gcm])),
        ]
    }

    fn app() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..=MAX_APP_LEN)
    }

    proptest! {
        #[test]
        fn longest_payload_round_trips(suites in suites(), proof: [u8; PROOF_LEN], app in app()) {
            let written = PayloadWriter::new().offer(&suites).proof(&proof).app(&app).unwrap();
            let (read_suites, rest) = decode_offer(written.as_slice()).unwrap();
            let (read_proof, rest) = decode_proof(rest).unwrap();
            prop_assert_eq!(read_suites, suites);
            prop_assert_eq!(read_proof, &proof);
            prop_assert_eq!(decode_app(rest).unwrap(), &app[..]);
        }

        #[test]
        fn choice_round_trips(aes: bool, app in app()) {
            let suite = if aes { Suite::Aes256Gcm } else { Suite::ChaCha20Poly1305 };
            let written = PayloadWriter::new().choice(suite).app(&app).unwrap();
            prop_assert_eq!(decode_choice(written.as_slice()), Ok((suite, &app[..])));
        }

        #[test]
        fn decoders_take_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..900)) {
            if let Ok((suites, rest)) = decode_offer(&bytes) {
                prop_assert!(suites.as_slice().len() <= 2 && rest.len() < bytes.len());
            }
            let _ = decode_choice(&bytes);
            let _ = decode_proof(&bytes);
            prop_assert_eq!(decode_app(&bytes).is_ok(), bytes.len() <= MAX_APP_LEN);
        }
    }

    #[test]
    fn unknown_suites_are_skipped_but_counted() {
        let (suites, rest) = decode_offer(&[3, 200, 2, 1, 0xaa]).unwrap();
        assert_eq!(suites.as_slice(), [Suite::Aes256Gcm, Suite::ChaCha20Poly1305]);
        assert_eq!(rest, [0xaa]);
        assert_eq!(decode_offer(&[1, 77]).unwrap().0.as_slice(), []);
    }

    #[test]
    fn offers_of_none_of_too_many_and_cut_short_are_malformed() {
        for bytes in [&[][..], &[0], &[9, 1, 1, 1, 1, 1, 1, 1, 1, 1], &[2, 1]] {
            assert_eq!(decode_offer(bytes), Err(HandshakeError::Malformed));
        }
    }

    #[test]
    fn app_part_over_the_limit_is_not_written() {
        assert!(PayloadWriter::new().app(&[0; MAX_APP_LEN]).is_ok());
        assert_eq!(PayloadWriter::new().app(&[0; MAX_APP_LEN + 1]).err(), Some(HandshakeError::AppTooLong));
    }
}

//! Pairing messages as bytes, to travel in a field of a sealed control message.
//!
//! ```text
//! 0 kind u8: 1 Start, 2 Reply, 3 Confirm, 4 Accept, 5 Refuse
//! 1 Start, Reply: SPAKE2 message [33] | Confirm, Accept: MAC [32]
//!   Refuse: reason u8 (1 not pairing, 2 wrong PIN), attempts left u8
//! ```

use super::{CONFIRM_LEN, PairingError, SPAKE_LEN};

/// One message of a pairing, in either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairingMessage {
    /// Client to host: begins an attempt.
    Start([u8; SPAKE_LEN]),
    /// Host to client: the other half of the exchange.
    Reply([u8; SPAKE_LEN]),
    /// Client to host: proves the client's PIN.
    Confirm([u8; CONFIRM_LEN]),
    /// Host to client: the PIN was right, and this proves that the host has it too.
    Accept([u8; CONFIRM_LEN]),
    /// Host to client: no.
    Refuse(Refusal),
}

/// Why a host refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is not in pairing mode.
    NotPairing,
    /// The PIN was wrong.
    WrongPin {
        /// How many more wrong ones pairing mode survives.
        attempts_left: u8,
    },
}

impl PairingMessage {
    /// The bytes that [`decode`](Self::decode) reads.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, body): (u8, &[u8]) = match self {
            Self::Start(message) => (1, message),
            Self::Reply(message) => (2, message),
            Self::Confirm(mac) => (3, mac),
            Self::Accept(mac) => (4, mac),
            Self::Refuse(Refusal::NotPairing) => (5, &[1, 0]),
            Self::Refuse(Refusal::WrongPin { attempts_left }) => (5, &[2, *attempts_left]),
        };
        [&[kind], body].concat()
    }

    /// Reads one message, which must fill `bytes` exactly.
    ///
    /// # Errors
    /// [`PairingError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, PairingError> {
        let (kind, body) = bytes.split_first().ok_or(PairingError::Malformed)?;
        match (kind, body) {
            (1, body) => fixed(body).map(Self::Start),
            (2, body) => fixed(body).map(Self::Reply),
            (3, body) => fixed(body).map(Self::Confirm),
            (4, body) => fixed(body).map(Self::Accept),
            (5, [1, 0]) => Ok(Self::Refuse(Refusal::NotPairing)),
            (5, [2, attempts_left]) => Ok(Self::Refuse(Refusal::WrongPin { attempts_left: *attempts_left })),
            _ => Err(PairingError::Malformed),
        }
    }
}

fn fixed<const N: usize>(body: &[u8]) -> Result<[u8; N], PairingError> {
    body.try_into().map_err(|_| PairingError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_message_has_its_golden_bytes() {
        let golden: [(PairingMessage, Vec<u8>); 6] = [
            (PairingMessage::Start([7; 33]), [&[1][..], &[7; 33]].concat()),
            (PairingMessage::Reply([7; 33]), [&[2][..], &[7; 33]].concat()),
            (PairingMessage::Confirm([7; 32]), [&[3][..], &[7; 32]].concat()),
            (PairingMessage::Accept([7; 32]), [&[4][..], &[7; 32]].concat()),
            (PairingMessage::Refuse(Refusal::NotPairing), vec![5, 1, 0]),
            (PairingMessage::Refuse(Refusal::WrongPin { attempts_left: 2 }), vec![5, 2, 2]),
        ];
        for (message, bytes) in golden {
            assert_eq!(message.encode(), bytes);
            assert_eq!(PairingMessage::decode(&bytes), Ok(message));
            for cut in 0..bytes.len() {
                assert_eq!(PairingMessage::decode(&bytes[..cut]), Err(PairingError::Malformed));
            }
            assert_eq!(PairingMessage::decode(&[&bytes[..], &[0]].concat()), Err(PairingError::Malformed));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_what_encodes_them_or_fail(
            kind in 0u8..8,
            body in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..40),
                proptest::collection::vec(any::<u8>(), 32..=33),
                proptest::collection::vec(0u8..4, 2),
            ],
        ) {
            let bytes = [&[kind], &body[..]].concat();
            if let Ok(message) = PairingMessage::decode(&bytes) {
                prop_assert_eq!(message.encode(), bytes);
            }
        }
    }
}

//! Pairing mode of the host (RIFT section 16).
//!
//! Owns the PIN and how long it holds. Never keeps a peer: attempts belong to the sessions. Invariant:
//! outside of pairing mode nobody is paired, and three wrong PINs end it.

use rift_crypto::{
    CONFIRM_LEN, CryptoError, EphemeralSecret, PairingError, PairingGate, PairingHost, PairingMessage, Pin,
    Refusal,
};

use crate::Timestamp;

/// Pairing mode while it lasts.
#[derive(Debug)]
pub(super) struct PairingMode {
    gate: PairingGate,
    until: Timestamp,
}

/// What a pairing message led to.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Answer, and wait for the next message of this attempt.
    Reply(PairingMessage, Box<PairingHost>),
    /// Answer: the peer is paired, and pairing mode is over.
    Accepted(PairingMessage),
    /// Answer: a wrong PIN, with the tries that are left.
    WrongPin(PairingMessage, u8),
    /// Answer: pairing mode is over.
    Closed(PairingMessage),
    /// The peer does not follow the protocol.
    Violation,
}

impl PairingMode {
    pub(super) fn open(pin: Pin, until: Timestamp) -> Result<Self, CryptoError> {
        Ok(Self { gate: PairingGate::open(pin)?, until })
    }

    pub(super) fn is_open(&self) -> bool {
        self.gate.is_open()
    }

    pub(super) fn until(&self) -> Timestamp {
        self.until
    }

    /// Judges a message of a peer whose attempt so far is `attempt`.
    pub(super) fn handle(
        &mut self,
        data: &[u8],
        attempt: Option<Box<PairingHost>>,
        handshake_hash: &[u8; 32],
        secret: EphemeralSecret,
    ) -> Verdict {
        match (PairingMessage::decode(data), attempt) {
            (Ok(PairingMessage::Start(start)), None) => {
                match self.gate.respond_with(handshake_hash, &start, secret) {
                    Ok((host, reply)) => Verdict::Reply(PairingMessage::Reply(reply), Box::new(host)),
                    Err(PairingError::NotPairing) => closed(),
                    Err(_) => Verdict::Violation,
                }
            }
            (Ok(PairingMessage::Confirm(confirm)), Some(host)) => self.verify(*host, &confirm),
            _ => Verdict::Violation,
        }
    }

    fn verify(&mut self, host: PairingHost, confirm: &[u8; CONFIRM_LEN]) -> Verdict {
        match self.gate.verify(host, confirm) {
            Ok(accept) => Verdict::Accepted(PairingMessage::Accept(accept)),
            Err(PairingError::WrongPin) => {
                let attempts_left = self.gate.attempts_left();
                let refusal = Refusal::WrongPin { attempts_left };
                Verdict::WrongPin(PairingMessage::Refuse(refusal), attempts_left)
            }
            Err(_) => closed(),
        }
    }
}

/// The answer of a host that is not in pairing mode.
pub(super) fn closed() -> Verdict {
    Verdict::Closed(PairingMessage::Refuse(Refusal::NotPairing))
}

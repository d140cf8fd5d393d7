//! The client's side of pairing (RIFT section 16).

use rift_crypto::{
    EphemeralSecret, PairingClient, PairingClientConfirmed, PairingError, PairingMessage, Pin, Refusal,
};

/// One attempt with one PIN.
#[derive(Debug)]
pub(super) enum PairingAttempt {
    /// The host's half of the exchange is awaited.
    Started(Box<PairingClient>),
    /// The host's verdict is awaited.
    Confirmed(PairingClientConfirmed),
    /// It is over.
    Done,
}

/// What a pairing message led to.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Answer and wait.
    Reply(PairingMessage),
    /// The host proved that it knows the PIN.
    Paired,
    /// The PIN was wrong; tries left.
    WrongPin(u8),
    /// The host left pairing mode.
    Closed,
    /// The host does not follow the protocol.
    Violation,
}

impl PairingAttempt {
    /// Begins; the first message is to be sent.
    pub(super) fn start(
        pin: &Pin,
        handshake_hash: &[u8; 32],
        secret: EphemeralSecret,
    ) -> Result<(Self, PairingMessage), PairingError> {
        let (client, start) = PairingClient::start_with(pin, handshake_hash, secret)?;
        Ok((Self::Started(Box::new(client)), PairingMessage::Start(start)))
    }

    /// Takes the host's next message.
    pub(super) fn handle(&mut self, data: &[u8]) -> Verdict {
        match (PairingMessage::decode(data), core::mem::replace(self, Self::Done)) {
            (Ok(PairingMessage::Reply(reply)), Self::Started(client)) => match client.confirm(&reply) {
                Ok((confirmed, confirm)) => {
                    *self = Self::Confirmed(confirmed);
                    Verdict::Reply(PairingMessage::Confirm(confirm))
                }
                Err(_) => Verdict::Violation,
            },
            (Ok(PairingMessage::Accept(accept)), Self::Confirmed(confirmed)) => {
                // A host that accepts without knowing the PIN is not the one the person looks at.
                if confirmed.finish(&accept).is_ok() { Verdict::Paired } else { Verdict::WrongPin(0) }
            }
            (Ok(PairingMessage::Refuse(Refusal::WrongPin { attempts_left })), _) => {
                Verdict::WrongPin(attempts_left)
            }
            (Ok(PairingMessage::Refuse(Refusal::NotPairing)), _) => Verdict::Closed,
            _ => Verdict::Violation,
        }
    }
}

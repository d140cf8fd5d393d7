//! The side that types the PIN.

use super::spake::Exchange;
use super::{CONFIRM_LEN, Confirmations, PairingError, SPAKE_LEN, verify};
use crate::{EphemeralSecret, Pin};

/// A client that sent its Start and waits for the Reply.
pub struct PairingClient {
    exchange: Exchange,
    handshake_hash: [u8; 32],
    start: [u8; SPAKE_LEN],
}

impl PairingClient {
    /// Begins an attempt with the PIN as typed, over the channel of `handshake_hash`. Returns the
    /// body of the Start message.
    ///
    /// # Errors
    /// [`PairingError::Crypto`].
    pub fn start(pin: &Pin, handshake_hash: &[u8; 32]) -> Result<(Self, [u8; SPAKE_LEN]), PairingError> {
        Self::start_with(pin, handshake_hash, EphemeralSecret::generate()?)
    }

    /// [`start`](Self::start) with the secret given, for runs that must be repeatable.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(
        pin: &Pin,
        handshake_hash: &[u8; 32],
        secret: EphemeralSecret,
    ) -> Result<(Self, [u8; SPAKE_LEN]), PairingError> {
        let (exchange, start) = Exchange::client(pin, handshake_hash, secret)?;
        Ok((Self { exchange, handshake_hash: *handshake_hash, start }, start))
    }

    /// Takes the host's Reply and returns the body of the Confirm message.
    ///
    /// # Errors
    /// [`PairingError::Malformed`].
    pub fn confirm(
        self,
        reply: &[u8; SPAKE_LEN],
    ) -> Result<(PairingClientConfirmed, [u8; CONFIRM_LEN]), PairingError> {
        let shared = self.exchange.finish(reply)?;
        let confirmations = Confirmations::new(&shared, &self.handshake_hash, &self.start, reply);
        Ok((PairingClientConfirmed { expected: confirmations.host }, confirmations.client))
    }
}

/// A client that sent its Confirm and waits for the verdict.
pub struct PairingClientConfirmed {
    expected: [u8; CONFIRM_LEN],
}

impl PairingClientConfirmed {
    /// Takes the body of the host's Accept. On success the host at the other end of this very
    /// channel showed the PIN that was typed, and may be remembered.
    ///
    /// # Errors
    /// [`PairingError::WrongPin`] if the host accepts without knowing the PIN. It is not the host
    /// the person is looking at.
    pub fn finish(self, accept: &[u8; CONFIRM_LEN]) -> Result<(), PairingError> {
        verify(&self.expected, accept)
    }
}

impl std::fmt::Debug for PairingClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PairingClient(..)")
    }
}

impl std::fmt::Debug for PairingClientConfirmed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PairingClientConfirmed(..)")
    }
}

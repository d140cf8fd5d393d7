//! The side that shows the PIN: pairing mode, from its opening to the client it accepts or the
//! third wrong PIN.

use super::spake::Exchange;
use super::{CONFIRM_LEN, Confirmations, PairingError, SPAKE_LEN, verify};
use crate::{CryptoError, EphemeralSecret, Pin};

/// Pairing mode. One PIN, at most [`PairingGate::ATTEMPTS`] wrong tries over all clients together.
///
/// Opening many attempts at once gains an attacker nothing: each must pass through
/// [`verify`](Self::verify), which counts.
#[derive(Debug)]
pub struct PairingGate {
    /// `None` once the mode ended.
    pin: Option<Pin>,
    attempts_left: u8,
    /// Tells this gate's attempts from those begun under an earlier gate and PIN.
    token: [u8; 16],
}

impl PairingGate {
    /// How many wrong PINs end the mode.
    pub const ATTEMPTS: u8 = 3;

    /// Enters pairing mode with `pin`, which the caller shows to the person.
    ///
    /// # Errors
    /// [`CryptoError::Randomness`].
    pub fn open(pin: Pin) -> Result<Self, CryptoError> {
        let mut token = [0; 16];
        aws_lc_rs::rand::fill(&mut token).map_err(|_| CryptoError::Randomness)?;
        Ok(Self { pin: Some(pin), attempts_left: Self::ATTEMPTS, token })
    }

    /// Whether a client can still pair.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.pin.is_some()
    }

    /// How many more wrong PINs the mode survives; 0 once it ended.
    #[must_use]
    pub fn attempts_left(&self) -> u8 {
        self.attempts_left
    }

    /// Ends pairing mode and wipes the PIN.
    pub fn close(&mut self) {
        self.pin = None;
        self.attempts_left = 0;
    }

    /// Answers the body of a Start message that came over the channel of `handshake_hash`. Returns
    /// the body of the Reply.
    ///
    /// # Errors
    /// [`PairingError::NotPairing`], [`PairingError::Malformed`], [`PairingError::Crypto`].
    pub fn respond(
        &self,
        handshake_hash: &[u8; 32],
        start: &[u8; SPAKE_LEN],
    ) -> Result<(PairingHost, [u8; SPAKE_LEN]), PairingError> {
        self.respond_with(handshake_hash, start, EphemeralSecret::generate()?)
    }

    /// [`respond`](Self::respond) with the secret given, for runs that must be repeatable.
    ///
    /// # Errors
    /// As [`respond`](Self::respond).
    pub fn respond_with(
        &self,
        handshake_hash: &[u8; 32],
        start: &[u8; SPAKE_LEN],
        secret: EphemeralSecret,
    ) -> Result<(PairingHost, [u8; SPAKE_LEN]), PairingError> {
        let pin = self.pin.as_ref().ok_or(PairingError::NotPairing)?;
        let (exchange, reply) = Exchange::host(pin, handshake_hash, secret)?;
        let shared = exchange.finish(start)?;
        let confirmations = Confirmations::new(&shared, handshake_hash, start, &reply);
        Ok((PairingHost { confirmations, token: self.token }, reply))
    }

    /// Judges the body of the client's Confirm. On success the client at the other end of that
    /// channel may be allowed, pairing mode is over, and the returned bytes are the body of the
    /// Accept message.
    ///
    /// # Errors
    /// [`PairingError::WrongPin`], which counts: at the third, pairing mode is over.
    /// [`PairingError::NotPairing`] if it is over already, or if the attempt began under an earlier
    /// PIN.
    pub fn verify(
        &mut self,
        host: PairingHost,
        confirm: &[u8; CONFIRM_LEN],
    ) -> Result<[u8; CONFIRM_LEN], PairingError> {
        if !self.is_open() || host.token != self.token {
            return Err(PairingError::NotPairing);
        }
        match verify(&host.confirmations.client, confirm) {
            Ok(()) => {
                self.close();
                Ok(host.confirmations.host)
            }
            Err(error) => {
                self.attempts_left -= 1;
                if self.attempts_left == 0 {
                    self.close();
                }
                Err(error)
            }
        }
    }
}

/// One client's attempt, between the host's Reply and the client's Confirm. Good for one verdict.
pub struct PairingHost {
    confirmations: Confirmations,
    token: [u8; 16],
}

impl std::fmt::Debug for PairingHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PairingHost(..)")
    }
}

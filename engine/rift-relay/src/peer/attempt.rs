//! One attempt to present or renew: ask, prove, repeat.
//!
//! Owns the retransmission of both datagrams and the secrets that attempts use up. A proof is sent five times, after
//! 100 ms and each time twice as long: somebody verifies it. To ask costs a relay next to nothing, and beside a flood only
//! one in some questions comes through, so it is asked sixteen times, 200 ms apart after the first two.
//! Never decides when an attempt begins.

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use zeroize::Zeroizing;

use crate::agreement::ExchangeKey;
use crate::present::{CHALLENGE_LEN, Present, Proof};
use crate::wire::{Role, SessionId};

const FIRST_US: u64 = 100_000;
const ASKS: u32 = 16;
const PROOFS: u32 = 5;
/// Doublings of the pause between questions.
const ASK_DOUBLINGS_MAX: u32 = 1;

/// What an attempt wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Send,
    GiveUp,
}

#[derive(Debug)]
pub(super) struct Attempt {
    nonce: u64,
    renew: bool,
    proved: Option<Proved>,
    sent: u32,
    due_at: u64,
}

#[derive(Debug)]
struct Proved {
    challenge: [u8; CHALLENGE_LEN],
    /// `None` in a renewal.
    exchange: Option<ExchangeKey>,
    signature: [u8; 64],
}

impl Attempt {
    pub(super) fn ask(now_us: u64, nonce: u64, renew: bool) -> Self {
        Self { nonce, renew, proved: None, sent: 0, due_at: now_us }
    }

    /// Goes on with the proof.
    pub(super) fn prove(
        &mut self,
        now_us: u64,
        challenge: [u8; CHALLENGE_LEN],
        exchange: Option<ExchangeKey>,
        signature: [u8; 64],
    ) {
        self.proved = Some(Proved { challenge, exchange, signature });
        self.sent = 0;
        self.due_at = now_us;
    }

    pub(super) fn nonce(&self) -> u64 {
        self.nonce
    }

    /// Whether it waits for a challenge with this nonce.
    pub(super) fn asked(&self, nonce: u64) -> bool {
        self.proved.is_none() && self.nonce == nonce
    }

    /// Whether it waits for an acknowledgement with this nonce.
    pub(super) fn presented(&self, nonce: u64) -> bool {
        self.proved.is_some() && self.nonce == nonce
    }

    /// The own half of the key exchange and the challenge it is bound to; `None` in a renewal.
    pub(super) fn exchange(&self) -> Option<(&ExchangeKey, &[u8; CHALLENGE_LEN])> {
        let proved = self.proved.as_ref()?;
        Some((proved.exchange.as_ref()?, &proved.challenge))
    }

    pub(super) fn due_at(&self) -> u64 {
        self.due_at
    }

    pub(super) fn due(&self, now_us: u64) -> Due {
        match now_us >= self.due_at {
            false => Due::Nothing,
            true if self.sent < if self.proved.is_none() { ASKS } else { PROOFS } => Due::Send,
            true => Due::GiveUp,
        }
    }

    pub(super) fn on_sent(&mut self, now_us: u64) {
        let doublings = if self.proved.is_none() { self.sent.min(ASK_DOUBLINGS_MAX) } else { self.sent };
        self.due_at = now_us + (FIRST_US << doublings);
        self.sent += 1;
    }

    pub(super) fn present<'a>(
        &self,
        session: SessionId,
        role: Role,
        token: &'a [u8],
        proof: Option<Proof<'a>>,
    ) -> Present<'a> {
        Present { renew: self.renew, session, role, token, nonce: self.nonce, proof }
    }

    pub(super) fn write(&self, session: SessionId, role: Role, token: &[u8], out: &mut Vec<u8>) {
        let Some(proved) = &self.proved else {
            return self.present(session, role, token, None).encode(out);
        };
        let public = proved.exchange.as_ref().map_or([0; 32], ExchangeKey::public);
        let proof = Proof { challenge: &proved.challenge, public: &public, signature: &proved.signature };
        self.present(session, role, token, Some(proof)).encode(out);
    }
}

/// Secrets for attempts, expanded from one seed.
pub(super) struct Secrets {
    prk: Prk,
    used: u64,
}

struct Len32;

impl KeyType for Len32 {
    fn len(&self) -> usize {
        32
    }
}

impl Secrets {
    pub(super) fn new(seed: &Zeroizing<[u8; 32]>) -> Self {
        Self { prk: Salt::new(HKDF_SHA256, b"wavry-relay-peer-v1").extract(&seed[..]), used: 0 }
    }

    fn next(&mut self) -> Zeroizing<[u8; 32]> {
        let number = self.used.to_be_bytes();
        self.used += 1;
        let mut out = Zeroizing::new([0; 32]);
        // 32 bytes are what was asked for, so neither call can fail.
        if let Ok(okm) = self.prk.expand(&[&number], Len32) {
            let _ = okm.fill(&mut out[..]);
        }
        out
    }

    /// Never 0, which stands for "not asked for".
    pub(super) fn nonce(&mut self) -> u64 {
        let bytes = self.next();
        u64::from_be_bytes(std::array::from_fn(|i| bytes[i])).max(1)
    }

    pub(super) fn exchange_key(&mut self) -> Option<ExchangeKey> {
        ExchangeKey::from_secret(&self.next()).ok()
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(..)")
    }
}

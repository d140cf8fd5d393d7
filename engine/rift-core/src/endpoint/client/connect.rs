//! From nothing to a channel: the initiator's side of the handshake (RIFT section 3).
//!
//! Owns the handshake under way and its repetition. Never believes anything that is not authentic,
//! except that an attempt is in vain. Invariant: five tries per message, then the attempt is over.

use rift_crypto::{
    COOKIE_LEN, Established, HandshakeError, Identity, Initiator, MAX_MESSAGE_LEN, Suite, WavryId,
};

use super::ExpectedHost;
use crate::endpoint::Via;
use crate::message::proto::Hello;
use crate::session::CloseReason;
use crate::session::bodies::{Introduction, Msg1Body, Pattern, RejectReason, decode_alias, write_datagram};
use crate::session::entropy::Entropy;
use crate::wire::{HANDSHAKE_HEADER_LEN, HandshakeHeader, HandshakeKind};
use crate::{Alias, DropReason, HandshakeId, Timestamp};

/// Pause before the first repetition, in microseconds; it doubles with each (RIFT R-HAND-9).
const REPEAT_FIRST_US: u64 = 100_000;
/// Tries in all.
const TRIES_MAX: u32 = 5;
/// Cookies that are taken in one attempt: one, and one more for a change of the minute under way.
const COOKIES_MAX: u32 = 2;

/// A handshake message that is sent until it is answered.
#[derive(Debug)]
pub(super) struct Repeated {
    kind: HandshakeKind,
    body: Vec<u8>,
    tries: u32,
    due_at: Timestamp,
    pause_us: u64,
}

impl Repeated {
    fn new(now: Timestamp, kind: HandshakeKind, body: Vec<u8>) -> Self {
        Self { kind, body, tries: 0, due_at: now, pause_us: REPEAT_FIRST_US }
    }

    /// Writes the datagram that is due to the start of `out`; its length.
    pub(super) fn poll(&mut self, now: Timestamp, id: HandshakeId, out: &mut [u8]) -> Option<usize> {
        if now < self.due_at || self.tries == TRIES_MAX {
            return None;
        }
        let len = write_datagram(self.kind, id, self.tries.into(), &self.body, out)?;
        self.tries += 1;
        self.due_at = now.plus_micros(self.pause_us);
        self.pause_us *= 2;
        Some(len)
    }

    /// Whether the last try was not answered in its time.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.tries == TRIES_MAX && now >= self.due_at
    }

    pub(super) fn poll_timeout(&self) -> Timestamp {
        self.due_at
    }

    pub(super) fn on_clock_jump(&mut self, now: Timestamp) {
        self.due_at = now;
    }
}

/// A handshake that waits for the host's message.
pub(super) struct Connecting {
    initiator: Initiator,
    pattern: Pattern,
    noise_msg1: Vec<u8>,
    cookies: u32,
    id: HandshakeId,
    alias: Alias,
    hello: Hello,
    expect: Option<ExpectedHost>,
    msg1: Repeated,
}

/// A finished handshake.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) established: Established,
    pub(super) local_alias: Alias,
    pub(super) remote_alias: Alias,
    pub(super) via: Via,
    pub(super) id: HandshakeId,
    /// XX: what the host must get before it knows the client.
    pub(super) msg3: Option<Repeated>,
}

/// What a datagram led to.
pub(super) enum Step {
    /// Nothing, or the same handshake goes on.
    Wait,
    /// The host cannot take this handshake; another one may do.
    UseXx,
    /// The host says no, unauthenticated, with this reason.
    Rejected(u8),
    /// A channel.
    Connected(Box<Connected>),
    /// This host is not to be talked to.
    Failed(CloseReason),
}

impl core::fmt::Debug for Connecting {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Connecting({:?}, {:?})", self.pattern, self.id)
    }
}

impl Connecting {
    /// Begins the shorter handshake if the host's static key is known and `allow_ik`, else the longer.
    pub(super) fn begin(
        now: Timestamp,
        identity: &Identity,
        entropy: &mut Entropy,
        expect: Option<ExpectedHost>,
        hello: Hello,
        allow_ik: bool,
    ) -> Result<Self, HandshakeError> {
        let suites = Suite::supported();
        let ephemeral = entropy.ephemeral();
        let id = HandshakeId(entropy.number());
        let alias = Alias((entropy.number() as u32).max(1));
        let known = expect.and_then(|host| host.static_public.map(|key| (host.id, key))).filter(|_| allow_ik);
        let mut noise = [0; MAX_MESSAGE_LEN];
        let (initiator, pattern, len) = if let Some((id, static_public)) = known {
            let mut initiator = Initiator::ik_with(identity, static_public, id, suites, ephemeral)?;
            let introduction = Introduction { alias, hello: hello.clone() };
            let len = initiator.write_msg1(&introduction.encode(), &mut noise)?;
            (initiator, Pattern::Ik, len)
        } else {
            let mut initiator =
                expecting(Initiator::xx_with(identity, suites, ephemeral)?, expect.map(|e| e.id));
            let len = initiator.write_msg1(&[], &mut noise)?;
            (initiator, Pattern::Xx, len)
        };
        let noise_msg1 = noise[..len].to_vec();
        let body = Msg1Body { pattern, cookie: None, noise: &noise_msg1 }.encode();
        let msg1 = Repeated::new(now, HandshakeKind::Msg1, body);
        Ok(Self { initiator, pattern, noise_msg1, cookies: 0, id, alias, hello, expect, msg1 })
    }

    /// Takes a handshake datagram.
    pub(super) fn handle(
        mut self: Box<Self>,
        now: Timestamp,
        header: &HandshakeHeader,
        datagram: &[u8],
    ) -> (Result<Step, DropReason>, Option<Box<Self>>) {
        if header.handshake_id != self.id {
            return (Err(DropReason::BadHandshake), Some(self));
        }
        let body = &datagram[HANDSHAKE_HEADER_LEN..];
        match header.kind {
            HandshakeKind::Retry => (self.on_retry(now, body), Some(self)),
            HandshakeKind::Reject => (self.on_reject(body), Some(self)),
            HandshakeKind::Msg2 => self.on_msg2(now, body),
            _ => (Err(DropReason::Unexpected), Some(self)),
        }
    }

    pub(super) fn poll(&mut self, now: Timestamp, out: &mut [u8]) -> Option<usize> {
        self.msg1.poll(now, self.id, out)
    }

    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.msg1.is_over(now)
    }

    pub(super) fn poll_timeout(&self) -> Timestamp {
        self.msg1.poll_timeout()
    }

    pub(super) fn on_clock_jump(&mut self, now: Timestamp) {
        self.msg1.on_clock_jump(now);
    }

    /// The host is busy and wants to see that the client receives at its address.
    fn on_retry(&mut self, now: Timestamp, body: &[u8]) -> Result<Step, DropReason> {
        let cookie: [u8; COOKIE_LEN] = body.try_into().map_err(|_| DropReason::BadHandshake)?;
        if self.cookies == COOKIES_MAX {
            return Err(DropReason::RateLimited);
        }
        self.cookies += 1;
        let body = Msg1Body { pattern: self.pattern, cookie: Some(cookie), noise: &self.noise_msg1 };
        self.msg1 = Repeated::new(now, HandshakeKind::Msg1, body.encode());
        Ok(Step::Wait)
    }

    fn on_reject(&self, body: &[u8]) -> Result<Step, DropReason> {
        let &[reason] = body else { return Err(DropReason::BadHandshake) };
        let is_fixable = self.pattern == Pattern::Ik && reason == RejectReason::CannotRead as u8;
        Ok(if is_fixable { Step::UseXx } else { Step::Rejected(reason) })
    }

    fn on_msg2(
        mut self: Box<Self>,
        now: Timestamp,
        message: &[u8],
    ) -> (Result<Step, DropReason>, Option<Box<Self>>) {
        let msg2 = match self.initiator.read_msg2(message) {
            Ok(msg2) => msg2,
            // Not the host's: the genuine one may still come.
            Err(HandshakeError::NotAuthentic | HandshakeError::Malformed) => {
                return (Err(DropReason::BadHandshake), Some(self));
            }
            Err(HandshakeError::WrongIdentity | HandshakeError::BadSignature) => {
                return (Ok(Step::Failed(CloseReason::WrongPeer)), None);
            }
            Err(_) => return (Ok(Step::Failed(CloseReason::CryptoFailed)), None),
        };
        // In IK the proof is checked against the expected identity as well as in XX.
        if self.expect.is_some_and(|host| host.id != msg2.peer.id) {
            return (Ok(Step::Failed(CloseReason::WrongPeer)), None);
        }
        let step = self.finish(now, &msg2.app).map_or_else(Step::Failed, |c| Step::Connected(Box::new(c)));
        (Ok(step), None)
    }

    fn finish(mut self, now: Timestamp, app: &[u8]) -> Result<Connected, CloseReason> {
        let (remote_alias, _) = decode_alias(app).map_err(|_| CloseReason::WrongPeer)?;
        let (via, msg3) = match self.pattern {
            Pattern::Ik => (Via::Ik, None),
            Pattern::Xx => {
                let introduction = Introduction { alias: self.alias, hello: self.hello };
                let mut out = [0; MAX_MESSAGE_LEN];
                let len = self
                    .initiator
                    .write_msg3(&introduction.encode(), &mut out)
                    .map_err(|_| CloseReason::CryptoFailed)?;
                (Via::Xx, Some(Repeated::new(now, HandshakeKind::Msg3, out[..len].to_vec())))
            }
        };
        let established = self.initiator.into_keys().map_err(|_| CloseReason::CryptoFailed)?;
        Ok(Connected { established, local_alias: self.alias, remote_alias, via, id: self.id, msg3 })
    }
}

fn expecting(initiator: Initiator, id: Option<WavryId>) -> Initiator {
    match id {
        Some(id) => initiator.expect_peer(id),
        None => initiator,
    }
}

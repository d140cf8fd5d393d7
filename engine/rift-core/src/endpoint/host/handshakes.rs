//! Handshakes that clients begin, up to the channel (RIFT section 3).
//!
//! Owns a table of fixed size of handshakes under way, the RETRY cookie, and the answers to send. Never
//! decides who may do what: it hands over channels with proved peers. Invariants: an address that is
//! not validated never gets more bytes than came from it; under load nothing is kept for it at all; a
//! repeated message gets the answer of the first.

use std::collections::VecDeque;

use rift_crypto::{
    CookieKey, Established, HandshakeError, Identity, MAX_MESSAGE_LEN, PeerProof, Responder, Suite,
};

use crate::endpoint::Path;
use crate::message::proto::Hello;
use crate::session::LinkConfig;
use crate::session::bodies::{Introduction, Msg1Body, Pattern, RejectReason, write_datagram};
use crate::session::entropy::Entropy;
use crate::session::link::Channel;
use crate::wire::{HANDSHAKE_HEADER_LEN, HandshakeHeader, HandshakeKind};
use crate::{Alias, DropReason, HandshakeId, PacketId, Timestamp};

/// How long a handshake is remembered: the initiator's five tries take 3.1 s.
const ENTRY_LIFE_US: u64 = 5_000_000;
/// Answers that may wait to be sent. Each answers one datagram, so more means that nobody drains them.
const ANSWERS_MAX: usize = 64;
const SECOND_US: u64 = 1_000_000;
const MINUTE_US: u64 = 60_000_000;
/// How often the cookie's secret changes, in minutes.
const COOKIE_KEY_MINUTES: u64 = 60;

/// A peer that finished the handshake.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) channel: Channel,
    pub(super) peer: PeerProof,
    pub(super) handshake_hash: [u8; 32],
    pub(super) hello: Hello,
    pub(super) path: Path,
}

/// What handshakes need of the endpoint.
pub(super) struct Context<'a> {
    pub(super) identity: &'a Identity,
    pub(super) entropy: &'a mut Entropy,
    pub(super) link: &'a LinkConfig,
    /// Aliases of sessions; one more session can be taken.
    pub(super) taken: &'a [Alias],
    pub(super) has_room: bool,
}

/// The table.
#[derive(Debug)]
pub(super) struct Handshakes {
    entries: Vec<Entry>,
    capacity: usize,
    per_second: u32,
    /// The second in which handshakes are counted.
    second: Timestamp,
    begun: u32,
    cookies: CookieKey,
    /// When the cookies' secret was changed.
    cookie_key_minute: u64,
    answers: VecDeque<Answer>,
}

#[derive(Debug)]
struct Entry {
    id: HandshakeId,
    begun_at: Timestamp,
    /// The initiator's first message: only the same one gets the same answer.
    msg1: Vec<u8>,
    alias: Alias,
    msg2: Vec<u8>,
    answers_sent: u64,
    state: State,
}

enum State {
    /// XX: the peer is not known yet.
    AwaitMsg3(Box<Responder>),
    /// IK: the peer may be a replay until a packet opens.
    AwaitPacket(Box<Arrival>),
    /// The session has it; only kept to recognise repetitions.
    Done,
}

#[derive(Debug)]
struct Answer {
    path: Path,
    kind: HandshakeKind,
    id: HandshakeId,
    packet_id: u64,
    body: Vec<u8>,
}

impl core::fmt::Debug for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::AwaitMsg3(_) => "AwaitMsg3",
            Self::AwaitPacket(_) => "AwaitPacket",
            Self::Done => "Done",
        })
    }
}

impl Handshakes {
    pub(super) fn new(now: Timestamp, capacity: usize, per_second: u32, entropy: &mut Entropy) -> Self {
        let capacity = capacity.clamp(4, 4096);
        Self {
            entries: Vec::with_capacity(capacity),
            capacity,
            per_second,
            second: now,
            begun: 0,
            cookies: CookieKey::new(entropy.draw()),
            cookie_key_minute: now.as_micros() / MINUTE_US,
            answers: VecDeque::with_capacity(ANSWERS_MAX),
        }
    }

    /// How many handshakes are remembered.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes a handshake datagram; the peer if that was the last one of XX.
    pub(super) fn handle(
        &mut self,
        now: Timestamp,
        path: Path,
        header: &HandshakeHeader,
        datagram: &[u8],
        context: &mut Context<'_>,
    ) -> Result<Option<Arrival>, DropReason> {
        match header.kind {
            HandshakeKind::Msg1 => {
                self.handle_msg1(now, path, header.handshake_id, datagram, context).map(|()| None)
            }
            HandshakeKind::Msg3 => {
                let message = &datagram[HANDSHAKE_HEADER_LEN..];
                self.handle_msg3(now, path, header.handshake_id, message, context).map(Some)
            }
            _ => Err(DropReason::Unexpected),
        }
    }

    /// Tries a packet for an alias that no session has: the first packet of an IK initiator proves that
    /// it is there. Returns the peer and the length of the body behind the header.
    pub(super) fn handle_first_packet(
        &mut self,
        alias: Alias,
        packet_id: PacketId,
        datagram: &mut [u8],
        has_room: bool,
    ) -> Result<(Arrival, usize), DropReason> {
        let waiting = |e: &&mut Entry| e.alias == alias && matches!(e.state, State::AwaitPacket(_));
        let entry = self.entries.iter_mut().find(waiting).ok_or(DropReason::UnknownAlias)?;
        if !has_room {
            return Err(DropReason::NoRoom);
        }
        let State::AwaitPacket(arrival) = &mut entry.state else { return Err(DropReason::UnknownAlias) };
        let body_len = arrival.channel.opener.open(packet_id, datagram)?.len();
        match core::mem::replace(&mut entry.state, State::Done) {
            State::AwaitPacket(arrival) => Ok((*arrival, body_len)),
            _ => Err(DropReason::UnknownAlias),
        }
    }

    /// Writes the answer that is due to the start of `out`; where to, and its length.
    pub(super) fn poll_answer(&mut self, out: &mut [u8]) -> Option<(Path, usize)> {
        let answer = self.answers.front()?;
        let len = write_datagram(answer.kind, answer.id, answer.packet_id, &answer.body, out)?;
        let path = answer.path;
        self.answers.pop_front();
        Some((path, len))
    }

    /// Forgets what is over.
    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        self.entries.retain(|e| !is_over(e, now));
    }

    pub(super) fn poll_timeout(&self) -> Timestamp {
        if !self.answers.is_empty() {
            return Timestamp::ZERO;
        }
        let first = self.entries.iter().map(|e| e.begun_at.plus_micros(ENTRY_LIFE_US)).min();
        first.unwrap_or(Timestamp::NEVER)
    }

    fn handle_msg1(
        &mut self,
        now: Timestamp,
        path: Path,
        id: HandshakeId,
        datagram: &[u8],
        context: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let body = Msg1Body::decode(datagram)?;
        if self.answers.len() == ANSWERS_MAX {
            return Err(DropReason::RateLimited);
        }
        if let Some(entry) = self.entries.iter_mut().find(|e| e.id == id) {
            if entry.msg1 != body.noise {
                return Err(DropReason::BadHandshake);
            }
            entry.answers_sent += 1;
            let answer = Answer {
                path,
                kind: HandshakeKind::Msg2,
                id,
                packet_id: entry.answers_sent - 1,
                body: entry.msg2.clone(),
            };
            self.answers.push_back(answer);
            return Ok(());
        }
        self.on_time(now, context.entropy);
        let minute = now.as_micros() / MINUTE_US;
        if !self.admits(path, id, minute, &body)? {
            let cookie = self.cookies.issue(&path.remote, id.0, minute);
            self.answer(path, HandshakeKind::Retry, id, cookie.to_vec());
            return Ok(());
        }
        self.begun += 1;
        match respond(now, path, &body, self.free_alias(context), context) {
            Ok((msg2, alias, state)) => {
                self.answer(path, HandshakeKind::Msg2, id, msg2.clone());
                let msg1 = body.noise.to_vec();
                self.entries.push(Entry { id, begun_at: now, msg1, alias, msg2, answers_sent: 1, state });
                Ok(())
            }
            Err(Failure::Reject(reason)) => {
                self.answer(path, HandshakeKind::Reject, id, vec![reason as u8]);
                Err(DropReason::BadHandshake)
            }
            Err(Failure::Drop) => Err(DropReason::BadHandshake),
        }
    }

    fn handle_msg3(
        &mut self,
        now: Timestamp,
        path: Path,
        id: HandshakeId,
        message: &[u8],
        context: &mut Context<'_>,
    ) -> Result<Arrival, DropReason> {
        let entry = self.entries.iter_mut().find(|e| e.id == id).ok_or(DropReason::BadHandshake)?;
        let State::AwaitMsg3(responder) = &mut entry.state else { return Err(DropReason::Duplicate) };
        if !context.has_room {
            // Not read, so the repetition can still succeed.
            return Err(DropReason::NoRoom);
        }
        let msg3 = match responder.read_msg3(message) {
            Ok(msg3) => msg3,
            // Forged or damaged: the genuine one may still come.
            Err(HandshakeError::NotAuthentic) => return Err(DropReason::BadHandshake),
            Err(_) => {
                entry.state = State::Done;
                return Err(DropReason::BadHandshake);
            }
        };
        let State::AwaitMsg3(responder) = core::mem::replace(&mut entry.state, State::Done) else {
            return Err(DropReason::BadHandshake);
        };
        let introduction = Introduction::decode(&msg3.app)?;
        let established = responder.into_keys().map_err(|_| DropReason::BadHandshake)?;
        let alias = entry.alias;
        Ok(arrival(now, path, established, alias, introduction, context.link))
    }

    /// Whether a new handshake is taken without more ado. Under load only from an address that is
    /// proved by a cookie.
    fn admits(
        &self,
        path: Path,
        id: HandshakeId,
        minute: u64,
        body: &Msg1Body<'_>,
    ) -> Result<bool, DropReason> {
        let is_loaded = self.begun >= self.per_second || self.entries.len() >= self.capacity / 4 * 3;
        match body.cookie {
            Some(cookie) if !self.cookies.verify(&path.remote, id.0, minute, &cookie) => {
                // An old one: there is a new one for it.
                Ok(false)
            }
            None if is_loaded => Ok(false),
            _ if self.entries.len() >= self.capacity => Err(DropReason::RateLimited),
            _ => Ok(true),
        }
    }

    fn on_time(&mut self, now: Timestamp, entropy: &mut Entropy) {
        let minute = now.as_micros() / MINUTE_US;
        if minute.abs_diff(self.cookie_key_minute) >= COOKIE_KEY_MINUTES {
            self.cookies.rotate(entropy.draw());
            self.cookie_key_minute = minute;
        }
        if now.micros_since(self.second) >= SECOND_US || now < self.second {
            self.second = now;
            self.begun = 0;
            self.handle_timeout(now);
        }
    }

    fn answer(&mut self, path: Path, kind: HandshakeKind, id: HandshakeId, body: Vec<u8>) {
        self.answers.push_back(Answer { path, kind, id, packet_id: 0, body });
    }

    fn free_alias(&self, context: &mut Context<'_>) -> Alias {
        loop {
            let alias = Alias(context.entropy.number() as u32);
            let is_used = self.entries.iter().any(|e| e.alias == alias) || context.taken.contains(&alias);
            if alias != Alias(0) && !is_used {
                return alias;
            }
        }
    }
}

/// Over after its time; and after the clock went back before its beginning.
fn is_over(entry: &Entry, now: Timestamp) -> bool {
    now.micros_since(entry.begun_at) >= ENTRY_LIFE_US || now < entry.begun_at
}

enum Failure {
    Reject(RejectReason),
    Drop,
}

/// The answer to a first message.
fn respond(
    now: Timestamp,
    path: Path,
    body: &Msg1Body<'_>,
    alias: Alias,
    context: &mut Context<'_>,
) -> Result<(Vec<u8>, Alias, State), Failure> {
    let ephemeral = context.entropy.ephemeral();
    let responder = match body.pattern {
        Pattern::Xx => Responder::xx_with(context.identity, ephemeral),
        Pattern::Ik => Responder::ik_with(context.identity, ephemeral),
    };
    let mut responder = responder.map_err(|_| Failure::Drop)?;
    let msg1 = responder.read_msg1(body.noise).map_err(|error| match (error, body.pattern) {
        (HandshakeError::NotAuthentic, Pattern::Ik) => Failure::Reject(RejectReason::CannotRead),
        _ => Failure::Drop,
    })?;
    let suite = Suite::choose(Suite::supported(), &msg1.suites)
        .ok_or(Failure::Reject(RejectReason::NoCommonSuite))?;
    let mut out = [0; MAX_MESSAGE_LEN];
    let len = responder.write_msg2(suite, &alias.0.to_be_bytes(), &mut out).map_err(|_| Failure::Drop)?;
    let state = match body.pattern {
        Pattern::Xx => State::AwaitMsg3(Box::new(responder)),
        Pattern::Ik => {
            let introduction = Introduction::decode(&msg1.app).map_err(|_| Failure::Drop)?;
            let established = responder.into_keys().map_err(|_| Failure::Drop)?;
            let arrival = arrival(now, path, established, alias, introduction, context.link);
            State::AwaitPacket(Box::new(arrival))
        }
    };
    Ok((out[..len].to_vec(), alias, state))
}

fn arrival(
    now: Timestamp,
    path: Path,
    established: Established,
    alias: Alias,
    introduction: Introduction,
    config: &LinkConfig,
) -> Arrival {
    Arrival {
        peer: established.peer,
        handshake_hash: established.handshake_hash,
        channel: Channel::new(now, established.keys, alias, introduction.alias, config),
        hello: introduction.hello,
        path,
    }
}

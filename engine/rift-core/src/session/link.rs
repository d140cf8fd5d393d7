//! A session's upkeep, the same for host and client.
//!
//! Owns the path, keys, reliable messages, pings and the end of one session. Never knows what the
//! session carries. Invariant: what is handed on was opened with the session's keys, once.

use rift_crypto::PacketKeys;

use super::keys::{Opener, RenewalRule, Sealer, Use};
use super::reliable::{ReliableReceiver, ReliableSender};
use super::rtt::{Pinger, RttEstimator};
use super::{CloseReason, Features, LinkConfig, Violation};
use crate::endpoint::Path;
use crate::message::proto::control_message::Control;
use crate::message::proto::{Close, KeyUpdateAck, Pong};
use crate::message::{Incoming, encode_control};
use crate::wire::{
    DEFAULT_DATAGRAM_LEN, MAX_DATAGRAM_LEN, TAG_LEN, TRANSPORT_HEADER_LEN, TRANSPORT_OVERHEAD,
};
use crate::{Alias, DropReason, PacketId, Timestamp};

/// The longest pause between pings (RIFT R-SESS-3), in microseconds.
const PING_INTERVAL_MAX_US: u64 = 500_000;
/// How often the end is told (RIFT R-SESS-5).
const CLOSE_REPEATS: u8 = 3;
/// Pause between two of them, in microseconds.
const CLOSE_PAUSE_US: u64 = 20_000;
/// Two calls further apart than this mean that the clock jumped or this machine slept: calls come at
/// least with every ping. Half the time limit would end the session within two more.
const CLOCK_JUMP_US: u64 = 1_000_000;

/// Both ends of an established channel before the session begins.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    pub(crate) local_alias: Alias,
    pub(crate) remote_alias: Alias,
}

impl Channel {
    pub(crate) fn new(
        now: Timestamp,
        keys: PacketKeys,
        local_alias: Alias,
        remote_alias: Alias,
        config: &LinkConfig,
    ) -> Self {
        let rule = RenewalRule { packets: config.rekey_packets, lifetime_us: config.rekey_us };
        Self {
            sealer: Sealer::new(now, keys.seal, config.first_packet_id, rule),
            opener: Opener::new(keys.open),
            local_alias,
            remote_alias,
        }
    }
}

/// What became of a message.
#[derive(Debug)]
pub(crate) enum Taken<'a> {
    /// It was the link's, and there is nothing to tell.
    Done,
    /// A round trip was measured, in microseconds.
    Rtt(u64),
    /// The session is over.
    Ended(CloseReason),
    /// It is not the link's.
    Other(Incoming<'a>),
}

/// Totals of one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Datagrams sealed.
    pub sent_packets: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Datagrams opened.
    pub received_packets: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Datagrams that came with the congestion mark.
    pub marked_packets: u64,
    /// How often something waited for a key update to be acknowledged.
    pub key_waits: u64,
    /// How often the peer's address changed.
    pub path_changes: u64,
}

/// Telling the peer of the end.
#[derive(Debug)]
struct Ending {
    reason: CloseReason,
    left: u8,
    next_at: Timestamp,
}

/// A session's upkeep.
#[derive(Debug)]
pub(crate) struct Link {
    path: Path,
    channel: Channel,
    outgoing: ReliableSender,
    incoming: ReliableReceiver,
    pinger: Pinger,
    pong_due: Option<Pong>,
    last_received: Timestamp,
    last_call: Timestamp,
    timeout_us: u64,
    datagram_len: usize,
    ending: Option<Ending>,
    counters: LinkCounters,
}

impl Link {
    pub(crate) fn new(now: Timestamp, path: Path, channel: Channel, config: &LinkConfig) -> Self {
        let datagram_len = datagram_len(config);
        Self {
            path,
            channel,
            outgoing: ReliableSender::new(datagram_len - TRANSPORT_OVERHEAD),
            incoming: ReliableReceiver::new(),
            pinger: Pinger::new(now, config.ping_interval_us.min(PING_INTERVAL_MAX_US)),
            pong_due: None,
            last_received: now,
            last_call: now,
            timeout_us: config.timeout_us,
            datagram_len,
            ending: None,
            counters: LinkCounters::default(),
        }
    }

    pub(crate) fn path(&self) -> Path {
        self.path
    }

    pub(crate) fn local_alias(&self) -> Alias {
        self.channel.local_alias
    }

    pub(crate) fn rtt(&self) -> &RttEstimator {
        self.pinger.rtt()
    }

    pub(crate) fn clock_offset_us(&self) -> Option<i64> {
        self.pinger.offset_us()
    }

    pub(crate) fn counters(&self) -> &LinkCounters {
        &self.counters
    }

    /// Key generations of both directions: sending, receiving.
    pub(crate) fn generations(&self) -> (u32, u32) {
        (self.channel.sealer.generation(), self.channel.opener.generation())
    }

    /// The longest datagram, in bytes.
    pub(crate) fn datagram_len(&self) -> usize {
        self.datagram_len
    }

    /// The extensions were agreed on.
    pub(crate) fn set_features(&mut self, features: Features) {
        self.channel.sealer.set_renewable(features.contains(Features::KEY_UPDATE.with(Features::RELIABLE)));
    }

    /// Opens a datagram in place and returns its body. Follows the peer to a new address if this is
    /// its newest packet.
    #[inline]
    pub(crate) fn open<'a>(
        &mut self,
        now: Timestamp,
        path: &Path,
        packet_id: PacketId,
        datagram: &'a mut [u8],
    ) -> Result<&'a mut [u8], DropReason> {
        let newest = self.channel.opener.newest();
        let len = datagram.len();
        let body = self.channel.opener.open(packet_id, datagram)?;
        self.on_opened(now, path, len, newest.is_none_or(|newest| packet_id.0 > newest));
        Ok(body)
    }

    /// As [`open`](Self::open), with the body into `body`, which must have its length.
    #[inline]
    pub(crate) fn open_into(
        &mut self,
        now: Timestamp,
        path: &Path,
        packet_id: PacketId,
        datagram: &[u8],
        body: &mut [u8],
    ) -> Result<(), DropReason> {
        let newest = self.channel.opener.newest();
        self.channel.opener.open_into(packet_id, datagram, body)?;
        self.on_opened(now, path, datagram.len(), newest.is_none_or(|newest| packet_id.0 > newest));
        Ok(())
    }

    #[inline]
    fn on_opened(&mut self, now: Timestamp, path: &Path, len: usize, is_newest: bool) {
        if is_newest && self.path != *path {
            self.path = *path;
            self.counters.path_changes += 1;
        }
        self.last_received = now;
        self.counters.received_packets += 1;
        self.counters.received_bytes += len as u64;
    }

    pub(crate) fn on_congestion_mark(&mut self) {
        self.counters.marked_packets += 1;
    }

    /// Takes what is the link's business. After `Taken::Done` call
    /// [`poll_message`](Self::poll_message) until it gives nothing.
    pub(crate) fn handle<'a>(
        &mut self,
        now: Timestamp,
        incoming: Incoming<'a>,
    ) -> Result<Taken<'a>, DropReason> {
        match incoming {
            Incoming::Reliable(segment) => self.incoming.handle_segment(&segment)?,
            Incoming::ReliableAck(next) => {
                if let Err(violation) = self.outgoing.on_ack(next) {
                    return Ok(Taken::Ended(CloseReason::Protocol(violation)));
                }
            }
            Incoming::Control(Control::Ping(ping)) => {
                let received_us = now.as_micros();
                self.pong_due =
                    Some(Pong { timestamp_us: ping.timestamp_us, received_us, transmitted_us: received_us });
            }
            Incoming::Control(Control::Pong(pong)) => {
                let sample = self.pinger.on_pong(now, &pong).ok_or(DropReason::Unexpected)?;
                return Ok(Taken::Rtt(sample.rtt_us));
            }
            Incoming::Control(Control::Close(close)) => {
                return Ok(Taken::Ended(CloseReason::Remote(close.code())));
            }
            other => return Ok(Taken::Other(other)),
        }
        Ok(Taken::Done)
    }

    /// The next reliable message that is not the link's own.
    ///
    /// # Errors
    /// Why the session cannot go on.
    pub(crate) fn poll_message(&mut self) -> Result<Option<Control>, CloseReason> {
        while let Some(control) = self.incoming.poll_message().map_err(CloseReason::Protocol)? {
            match control {
                Control::KeyUpdate(update) => {
                    self.channel.opener.on_update(&update).map_err(CloseReason::Protocol)?;
                    let ack = KeyUpdateAck { generation: update.generation };
                    self.push_urgent(Control::KeyUpdateAck(ack))?;
                }
                Control::KeyUpdateAck(ack) => {
                    self.channel.sealer.on_update_ack(ack.generation).map_err(CloseReason::Protocol)?;
                }
                Control::Close(close) => return Err(CloseReason::Remote(close.code())),
                other => return Ok(Some(other)),
            }
        }
        Ok(None)
    }

    /// Queues a message that must arrive.
    ///
    /// # Errors
    /// [`DropReason::NoRoom`] if it is too long or too much waits.
    pub(crate) fn push(&mut self, control: Control) -> Result<(), DropReason> {
        self.outgoing.push(control)
    }

    /// Whether all reliable messages arrived.
    pub(crate) fn is_idle(&self) -> bool {
        self.outgoing.is_idle()
    }

    /// From now on this session does nothing but tell the peer that it is over, a few times.
    pub(crate) fn close(&mut self, now: Timestamp, reason: CloseReason) {
        if self.ending.is_none() {
            // Who ended it himself, or is not there, need not be told.
            let is_silent = matches!(reason, CloseReason::Remote(_) | CloseReason::Unreachable);
            let left = if is_silent { 0 } else { CLOSE_REPEATS };
            self.ending = Some(Ending { reason, left, next_at: now });
        }
    }

    /// Whether the end was declared.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Whether the end was told often enough.
    pub(crate) fn is_drained(&self) -> bool {
        self.ending.as_ref().is_some_and(|e| e.left == 0)
    }

    /// Seals the upkeep message that is due into `out`; the length of the datagram.
    pub(crate) fn poll_upkeep(&mut self, now: Timestamp, out: &mut [u8]) -> Option<usize> {
        if self.ending.is_some() {
            return self.poll_close(now, out);
        }
        if let Some(mut pong) = self.pong_due {
            pong.transmitted_us = now.as_micros().max(pong.received_us);
            let len = self.seal_control(&Control::Pong(pong), out)?;
            self.pong_due = None;
            return Some(len);
        }
        if now >= self.pinger.poll_timeout()
            && self.channel.sealer.available(Use::Upkeep) > 0
            && let Some(ping) = self.pinger.poll_ping(now)
        {
            return self.seal_control(&Control::Ping(ping), out);
        }
        if self.incoming.is_ack_due() {
            return self.seal_body(out, Use::Upkeep, |link, body| link.incoming.poll_ack(body));
        }
        if self.outgoing.poll_timeout() <= now {
            let retransmit_us = self.pinger.rtt().retransmit_after_us();
            return self.seal_body(out, Use::Upkeep, |link, body| {
                link.outgoing.poll_segment(now, retransmit_us, body)
            });
        }
        None
    }

    /// Seals a control message into `out`; the length of the datagram.
    pub(crate) fn seal_control(&mut self, control: &Control, out: &mut [u8]) -> Option<usize> {
        self.seal_body(out, Use::Upkeep, |_, body| encode_control(control, body))
    }

    /// Seals the body that `write` puts into the room it is given; the length of the datagram.
    #[inline]
    pub(crate) fn seal_body(
        &mut self,
        out: &mut [u8],
        purpose: Use,
        write: impl FnOnce(&mut Self, &mut [u8]) -> Option<usize>,
    ) -> Option<usize> {
        if self.channel.sealer.available(purpose) == 0 {
            self.counters.key_waits += 1;
            return None;
        }
        let end = out.len().min(self.datagram_len);
        let body = out.get_mut(TRANSPORT_HEADER_LEN..end.checked_sub(TAG_LEN)?)?;
        let body_len = write(self, body)?;
        let len = self.channel.sealer.seal(self.channel.remote_alias, out, body_len)?;
        self.count_sent(len);
        Some(len)
    }

    /// Seals `body` into `out` and returns the length of the datagram. `None` if `out` is too short or nothing may be
    /// sealed.
    #[inline]
    pub(crate) fn seal_from(&mut self, body: &[u8], out: &mut [u8]) -> Option<usize> {
        let len = self.channel.sealer.seal_from(self.channel.remote_alias, body, out)?;
        self.count_sent(len);
        Some(len)
    }

    #[inline]
    fn count_sent(&mut self, len: usize) {
        self.counters.sent_packets += 1;
        self.counters.sent_bytes += len as u64;
    }

    /// How many payload packets can be sealed now, and the id of the first.
    pub(crate) fn payload_room(&self) -> (u64, PacketId) {
        (self.channel.sealer.available(Use::Payload), self.channel.sealer.next_id())
    }

    pub(crate) fn on_key_wait(&mut self) {
        self.counters.key_waits += 1;
    }

    /// Notices what time brings; the reason if the session must end now.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) -> Option<CloseReason> {
        if self.ending.is_some() {
            return None;
        }
        if now.micros_since(self.last_received) >= self.timeout_us {
            return Some(CloseReason::Vanished);
        }
        match self.channel.sealer.poll_update(now) {
            Ok(None) => None,
            Ok(Some(update)) => self.push_urgent(Control::KeyUpdate(update)).err(),
            Err(_) => Some(CloseReason::KeyExhausted),
        }
    }

    /// Called before anything else with every call's time: a clock that jumped means nothing to the
    /// session, so all that is measured from earlier times begins anew. True if it jumped.
    pub(crate) fn on_call(&mut self, now: Timestamp) -> bool {
        let last = core::mem::replace(&mut self.last_call, now);
        let limit_us = CLOCK_JUMP_US.min(self.timeout_us / 2);
        if now.micros_since(last) <= limit_us && last.micros_since(now) <= limit_us {
            return false;
        }
        self.last_received = now;
        self.pinger.on_clock_jump(now);
        self.outgoing.on_clock_jump(now);
        self.channel.sealer.on_clock_jump(now);
        if let Some(ending) = &mut self.ending {
            ending.next_at = now;
        }
        true
    }

    /// When to call again at the latest.
    pub(crate) fn poll_timeout(&self) -> Timestamp {
        if let Some(ending) = &self.ending {
            return if ending.left == 0 { Timestamp::NEVER } else { ending.next_at };
        }
        if self.channel.sealer.available(Use::Upkeep) == 0 {
            // Nothing can leave until the peer acknowledges the key; time must still be noticed.
            return self.last_call.plus_micros(CLOCK_JUMP_US / 2);
        }
        if self.pong_due.is_some() || self.incoming.is_ack_due() {
            return Timestamp::ZERO;
        }
        self.pinger
            .poll_timeout()
            .min(self.outgoing.poll_timeout())
            .min(self.last_received.plus_micros(self.timeout_us))
    }

    fn poll_close(&mut self, now: Timestamp, out: &mut [u8]) -> Option<usize> {
        let ending = self.ending.as_mut()?;
        if ending.left == 0 || now < ending.next_at {
            return None;
        }
        ending.left -= 1;
        ending.next_at = now.plus_micros(CLOSE_PAUSE_US);
        let close = Close { code: ending.reason.code().into(), message: String::new() };
        self.seal_control(&Control::Close(close), out)
    }

    fn push_urgent(&mut self, control: Control) -> Result<(), CloseReason> {
        let is_full = self.outgoing.push_first(control).is_err();
        if is_full { Err(CloseReason::Protocol(Violation::Unacknowledged)) } else { Ok(()) }
    }
}

/// The longest datagram of a session: as configured, within what the protocol and paths allow.
pub(crate) fn datagram_len(config: &LinkConfig) -> usize {
    config.datagram_len.clamp(DEFAULT_DATAGRAM_LEN, MAX_DATAGRAM_LEN)
}

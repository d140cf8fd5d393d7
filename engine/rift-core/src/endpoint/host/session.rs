//! One peer of the host: streaming, measuring, pairing, or about to be turned away.

use std::collections::VecDeque;

use rift_crypto::{PairingHost, PeerProof};

use super::HostEvent;
use super::stream::{BATCH_MAX, Streaming};
use crate::endpoint::{Ecn, Path, TrafficClass, Transmit};
use crate::message::proto::RefusalReason;
use crate::message::proto::control_message::Control;
use crate::message::{self, Incoming};
use crate::session::link::{Link, Taken};
use crate::session::{CloseCode, CloseReason, Features, Violation};
use crate::{DropReason, PacketId, Timestamp};

/// How long a refused client has to acknowledge that it was told, in microseconds.
const REFUSAL_US: u64 = 500_000;

/// A peer with a channel.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) link: Link,
    pub(super) peer: PeerProof,
    pub(super) name: String,
    pub(super) handshake_hash: [u8; 32],
    pub(super) role: Role,
}

/// What the peer is here for.
#[derive(Debug)]
pub(super) enum Role {
    /// It gets the stream.
    Streaming(Box<Streaming>),
    /// It asked for no stream: a measurement of the path.
    Measuring,
    /// It wants onto the allow-list; with the attempt under way.
    Pairing(Option<Box<PairingHost>>),
    /// It was told no; until then at the latest it is let go.
    Refused {
        /// When.
        until: Timestamp,
    },
    /// Over; only the end is still told.
    Over,
}

impl Role {
    pub(super) fn refused(now: Timestamp) -> Self {
        Self::Refused { until: now.plus_micros(REFUSAL_US) }
    }
}

/// What a datagram led to.
#[derive(Debug)]
pub(super) enum Outcome {
    Done,
    /// A reliable message for the endpoint.
    Message(Control),
    Ended(CloseReason),
}

impl Session {
    /// Opens and takes a datagram.
    pub(super) fn handle_datagram(
        &mut self,
        now: Timestamp,
        path: Path,
        packet_id: PacketId,
        datagram: &mut [u8],
        events: &mut VecDeque<HostEvent>,
    ) -> Result<Outcome, DropReason> {
        let body = self.link.open(now, &path, packet_id, datagram)?;
        Self::handle_body(&mut self.link, &mut self.role, now, body, events)
    }

    /// Takes the body of a datagram that was opened.
    pub(super) fn handle_body(
        link: &mut Link,
        role: &mut Role,
        now: Timestamp,
        body: &[u8],
        events: &mut VecDeque<HostEvent>,
    ) -> Result<Outcome, DropReason> {
        if link.is_ending() {
            return Err(DropReason::Unexpected);
        }
        let incoming = message::decode(body).map_err(|_| DropReason::Malformed)?;
        match link.handle(now, incoming)? {
            Taken::Done => Ok(match link.poll_message() {
                Ok(None) => Outcome::Done,
                Ok(Some(control)) => Outcome::Message(control),
                Err(reason) => Outcome::Ended(reason),
            }),
            Taken::Rtt(sample_us) => {
                if let Role::Streaming(stream) = role {
                    stream.on_rtt(now, link, sample_us);
                    stream.poll_changes(now, events);
                }
                Ok(Outcome::Done)
            }
            Taken::Ended(reason) => Ok(Outcome::Ended(reason)),
            // Published peers send these as they are.
            Taken::Other(Incoming::Control(
                control @ (Control::SelectMonitor(_) | Control::Clipboard(_)),
            )) => Ok(Outcome::Message(control)),
            Taken::Other(incoming) => match role {
                Role::Streaming(stream) => {
                    let rtt_us = link.rtt().smoothed_us().max(10_000);
                    let result = stream.handle(now, &incoming, rtt_us, events);
                    stream.poll_changes(now, events);
                    result.map(|()| Outcome::Done)
                }
                _ if matches!(incoming, Incoming::Unknown) => Ok(Outcome::Done),
                _ => Err(DropReason::Unexpected),
            },
        }
    }

    /// The next reliable message after the first one that a datagram led to.
    pub(super) fn poll_message(&mut self) -> Outcome {
        match self.link.poll_message() {
            Ok(None) => Outcome::Done,
            Ok(Some(control)) => Outcome::Message(control),
            Err(reason) => Outcome::Ended(reason),
        }
    }

    /// Tells the peer no, for a reason that it is told.
    pub(super) fn refuse(&mut self, now: Timestamp, reason: RefusalReason) {
        let ack =
            crate::message::proto::HelloAck { accepted: false, refusal: reason.into(), ..Default::default() };
        // There is room: nothing was queued before.
        let _ = self.link.push(Control::HelloAck(ack));
        self.role = Role::refused(now);
    }

    /// Notices what time brings; why the session must end, if so.
    pub(super) fn handle_timeout(
        &mut self,
        now: Timestamp,
        events: &mut VecDeque<HostEvent>,
    ) -> Option<CloseReason> {
        if let Role::Refused { until } = self.role
            && (now >= until || self.link.is_idle())
        {
            return Some(CloseReason::Local(CloseCode::Refused));
        }
        if let Role::Streaming(stream) = &mut self.role {
            stream.handle_timeout(now, events);
        }
        self.link.handle_timeout(now)
    }

    /// The clock jumped.
    pub(super) fn on_clock_jump(&mut self, now: Timestamp) {
        if let Role::Streaming(stream) = &mut self.role {
            stream.on_clock_jump(now);
        }
    }

    /// Whether the rest of a batch must leave before anything else.
    pub(super) fn is_mid_batch(&self) -> bool {
        matches!(&self.role, Role::Streaming(stream) if stream.is_mid_batch())
    }

    /// Seals upkeep and other small messages.
    pub(super) fn poll_control(&mut self, now: Timestamp, out: &mut [u8]) -> Option<Transmit> {
        let len = self.link.poll_upkeep(now, out).or_else(|| match &mut self.role {
            Role::Streaming(stream) if !self.link.is_ending() => stream.poll_control(&mut self.link, out),
            _ => None,
        })?;
        Some(transmit(&self.link, len, len, TrafficClass::Control))
    }

    /// Seals sound and video.
    pub(super) fn poll_media(&mut self, now: Timestamp, out: &mut [u8]) -> Option<Transmit> {
        let Role::Streaming(stream) = &mut self.role else { return None };
        if self.link.is_ending() {
            return None;
        }
        let (len, segment_len, class) = stream.poll_media(now, &mut self.link, out)?;
        let is_scalable = class == TrafficClass::Video && stream.rate().answers_marks();
        let ecn = if is_scalable { Ecn::Ect1 } else { Ecn::NotEct };
        Some(Transmit { ecn, ..transmit(&self.link, len, segment_len, class) })
    }

    pub(super) fn poll_timeout(&self) -> Timestamp {
        let own = match &self.role {
            Role::Streaming(stream) if self.link.payload_room().0 >= BATCH_MAX => stream.poll_timeout(),
            Role::Refused { until } => *until,
            _ => Timestamp::NEVER,
        };
        own.min(self.link.poll_timeout())
    }

    pub(super) fn features(&self) -> Features {
        if let Role::Streaming(stream) = &self.role { stream.features } else { Features::NONE }
    }
}

/// A message that only another phase of the session may bring.
pub(super) const OUT_OF_PHASE: CloseReason = CloseReason::Protocol(Violation::OutOfPhase);

fn transmit(link: &Link, len: usize, segment_len: usize, class: TrafficClass) -> Transmit {
    // Who does not answer marks must not ask for them (RFC 3168 section 6.1).
    Transmit { path: link.path(), len, segment_len, class, ecn: Ecn::NotEct }
}

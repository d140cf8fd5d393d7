//! Who may do what: admission, refusal, pairing.

use rift_crypto::{PairingMessage, WavryId};

use super::handshakes::Arrival;
use super::pairing::{self, Verdict};
use super::session::{OUT_OF_PHASE, Role, Session};
use super::stream::{EVENTS_MAX, Streaming, fps_of};
use super::{HostEndpoint, HostEvent, SESSIONS_MAX};
use crate::message::proto::control_message::Control;
use crate::message::proto::{self, Hello, HelloAck, MonitorList, RefusalReason};
use crate::session::link::Link;
use crate::session::{CloseCode, CloseReason, Features};
use crate::{Alias, Timestamp};

/// The protocol version of a Hello that says one; 0 says none.
const PROTOCOL_VERSION: u32 = 1;
/// The longest name that is passed on, in characters.
const NAME_MAX: usize = 100;

impl HostEndpoint {
    /// Whether one more peer can be taken, if need be in place of one that is only told no.
    pub(super) fn has_room(&self) -> bool {
        self.sessions.len() < SESSIONS_MAX || self.expendable().is_some()
    }

    /// Takes in a session.
    fn take_in(&mut self, session: Session) {
        self.sessions.retain(|s| !s.link.is_drained());
        if self.sessions.len() == SESSIONS_MAX
            && let Some(index) = self.expendable()
        {
            self.sessions.remove(index);
        }
        self.sessions.push(session);
    }

    /// Who makes room first: whoever is on the way out, then the oldest that pairs. So nobody can keep
    /// others out by knocking again and again.
    fn expendable(&self) -> Option<usize> {
        let first = |wanted: fn(&Role) -> bool| self.sessions.iter().position(|s| wanted(&s.role));
        first(|role| matches!(role, Role::Over | Role::Refused { .. }))
            .or_else(|| first(|role| matches!(role, Role::Pairing(_))))
    }

    /// Decides what a peer that proved who it is may do.
    pub(super) fn admit(&mut self, now: Timestamp, arrival: Arrival) {
        let Arrival { channel, peer, handshake_hash, hello, path } = arrival;
        let link = Link::new(now, path, channel, &self.config.link);
        let name = printable(&hello.client_name);
        let mut session = Session { link, peer, name, handshake_hash, role: Role::Measuring };
        let features = Features::from_bits(hello.features).common(self.config.features);
        session.link.set_features(features);
        match self.refusal(&hello, peer.id) {
            Some(reason) => {
                session.refuse(now, reason);
                // Strangers can cause these at will.
                if self.events.len() < EVENTS_MAX {
                    self.events.push_back(HostEvent::ClientRefused { peer: peer.id, reason });
                }
                self.take_in(session);
            }
            None if hello.pairing => {
                let _ = session.link.push(Control::HelloAck(self.hello_ack(&hello, features, Alias(0))));
                session.role = Role::Pairing(None);
                self.take_in(session);
            }
            None => self.start(now, session, &hello, features),
        }
    }

    /// Why a client is turned away, if it is.
    fn refusal(&self, hello: &Hello, peer: WavryId) -> Option<RefusalReason> {
        let streams_now = self.sessions.iter().find(|s| matches!(s.role, Role::Streaming(_)));
        if hello.protocol_version != 0 && hello.protocol_version != PROTOCOL_VERSION {
            Some(RefusalReason::VersionMismatch)
        } else if hello.pairing {
            (!self.is_pairing()).then_some(RefusalReason::PairingClosed)
        } else if !self.config.allowed.contains(&peer) {
            Some(RefusalReason::NotPaired)
        } else if hello.supported_codecs.is_empty() {
            None
        } else if !hello.supported_codecs.contains(&(self.config.stream.codec as i32)) {
            Some(RefusalReason::NoCommonCodec)
        } else if streams_now.is_some_and(|s| s.peer.id != peer) {
            Some(RefusalReason::Busy)
        } else {
            None
        }
    }

    /// Takes a client. Without a codec in its Hello it only measures.
    fn start(&mut self, now: Timestamp, mut session: Session, hello: &Hello, features: Features) {
        let alias = session.link.local_alias();
        let ack = self.hello_ack(hello, features, alias);
        let peer = session.peer.id;
        if hello.supported_codecs.is_empty() {
            let _ = session.link.push(Control::HelloAck(ack));
            self.take_in(session);
            return;
        }
        let older = self.sessions.iter().position(|s| matches!(s.role, Role::Streaming(_)));
        if let Some(older) = older {
            self.end(older, now, CloseReason::Local(CloseCode::Replaced));
        }
        let _ = session.link.push(Control::HelloAck(ack));
        if !self.monitors.is_empty() {
            let list = MonitorList { monitors: self.monitors.clone() };
            let _ = session.link.push(Control::MonitorList(list));
        }
        if let Some(format) = self.audio_format.filter(|_| features.contains(Features::AUDIO_FORMAT)) {
            let _ = session.link.push(Control::AudioFormat(format));
        }
        let stream = Streaming::new(&self.config, hello, features, &session.link);
        let target = stream.rate().target();
        self.events.push_back(HostEvent::SessionStarted {
            peer,
            name: session.name.clone(),
            max_resolution: hello.max_resolution,
            fps: target.fps,
            bitrate: target.bitrate,
            features,
        });
        session.role = Role::Streaming(Box::new(stream));
        self.take_in(session);
    }

    fn hello_ack(&mut self, hello: &Hello, features: Features, alias: Alias) -> HelloAck {
        let offer = &self.config.stream;
        let is_stream = !hello.supported_codecs.is_empty() && !hello.pairing;
        HelloAck {
            accepted: true,
            selected_codec: offer.codec.into(),
            stream_resolution: is_stream.then_some(offer.resolution),
            fps: fps_of(offer, hello),
            initial_bitrate_kbps: offer.initial_bitrate.as_kbps(),
            keyframe_interval_ms: 0,
            session_id: self.entropy.draw::<16>().to_vec(),
            session_alias: alias.0,
            public_addr: String::new(),
            features: features.bits(),
            refusal: RefusalReason::RefusalNone.into(),
        }
    }

    pub(super) fn handle_pairing(
        &mut self,
        index: usize,
        now: Timestamp,
        data: &[u8],
    ) -> Result<(), CloseReason> {
        let session = &mut self.sessions[index];
        let Role::Pairing(attempt) = &mut session.role else { return Err(OUT_OF_PHASE) };
        let attempt = attempt.take();
        let verdict = match &mut self.pairing {
            Some(mode) => mode.handle(data, attempt, &session.handshake_hash, self.entropy.ephemeral()),
            None => pairing::closed(),
        };
        let (answer, next) = match verdict {
            Verdict::Violation => return Err(OUT_OF_PHASE),
            Verdict::Reply(answer, attempt) => (answer, Role::Pairing(Some(attempt))),
            Verdict::Accepted(answer) => {
                let (id, name) = (session.peer.id, session.name.clone());
                if !self.config.allowed.contains(&id) {
                    self.config.allowed.push(id);
                }
                self.pairing = None;
                self.events.push_back(HostEvent::Paired { id, name });
                // The client ends the session; if it does not, it vanishes.
                (answer, Role::Measuring)
            }
            Verdict::WrongPin(answer, left) => {
                self.events.push_back(HostEvent::PairingFailed { attempts_left: left.into() });
                if left == 0 {
                    self.pairing = None;
                }
                (answer, Role::refused(now))
            }
            Verdict::Closed(answer) => (answer, Role::refused(now)),
        };
        let _ = session.link.push(pairing_control(&answer));
        session.role = next;
        Ok(())
    }
}

fn pairing_control(message: &PairingMessage) -> Control {
    let data = message.encode();
    let step = data.first().copied().unwrap_or(0).into();
    Control::Pairing(proto::Pairing { step, data })
}

/// A name from the network, fit to be shown: without control characters and not too long.
fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect()
}

//! The host's end: handshakes of anybody, one streaming session, measurements, pairing.
//!
//! Owns who may do what. Never touches media itself, and never keeps more than [`SESSIONS_MAX`] peers.
//! Invariants: at most one session streams; only peers on the allow-list stream or give input; every
//! `SessionStarted` is followed by one `SessionEnded` with `ReleaseAllInput`.

mod config;
mod event;
mod handshakes;
mod pairing;
mod rate;
mod session;
mod sound;
mod stream;

use std::collections::VecDeque;

use rift_crypto::{PairingMessage, Pin, WavryId};

use super::{Ecn, Path, SessionInfo, TrafficClass, Transmit};
use crate::message::proto::control_message::Control;
use crate::message::proto::{
    self, ClipboardMessage, CursorPosition, CursorShape, Hello, HelloAck, Monitor, MonitorList, RefusalReason,
};
use crate::send::{SenderCounters, SliceMeta};
use crate::session::entropy::Entropy;
use crate::session::link::Link;
use crate::session::{CloseCode, CloseReason, Features};
use crate::wire::{Header, TRANSPORT_HEADER_LEN, TransportHeader};
use crate::{Alias, Bitrate, DropCounters, DropReason, Timestamp};
use handshakes::{Arrival, Context, Handshakes};
use pairing::{PairingMode, Verdict};
use session::{OUT_OF_PHASE, Outcome, Role, Session};
use stream::{EVENTS_MAX, Streaming, fps_of};

pub use config::{ControllerKind, HostConfig, StreamOffer};
pub use event::HostEvent;

/// Peers with a channel at one time: the one that streams and those that are measured, paired or told
/// no, each of which is gone within seconds. A session's buffers for reliable messages are 90 kB.
const SESSIONS_MAX: usize = 8;
/// The protocol version of a Hello that says one; 0 says none.
const PROTOCOL_VERSION: u32 = 1;
/// The longest name that is passed on, in characters.
const NAME_MAX: usize = 100;

/// The host's end of everything.
#[derive(Debug)]
pub struct HostEndpoint {
    config: HostConfig,
    entropy: Entropy,
    handshakes: Handshakes,
    sessions: Vec<Session>,
    pairing: Option<PairingMode>,
    monitors: Vec<Monitor>,
    events: VecDeque<HostEvent>,
    drops: DropCounters,
}

impl HostEndpoint {
    /// A host without sessions.
    #[must_use]
    pub fn new(config: HostConfig, now: Timestamp) -> Self {
        let mut entropy = Entropy::new(config.seed);
        Self {
            handshakes: Handshakes::new(now, config.max_handshakes, config.handshakes_per_s, &mut entropy),
            monitors: config.stream.monitors.clone(),
            config,
            entropy,
            sessions: Vec::with_capacity(SESSIONS_MAX),
            pairing: None,
            events: VecDeque::with_capacity(EVENTS_MAX),
            drops: DropCounters::default(),
        }
    }

    /// Takes a datagram that came over `path`; opens it in place.
    ///
    /// # Errors
    /// Why it was not used; counted in [`drops`](Self::drops). None of these is worth more than that.
    pub fn handle_datagram(
        &mut self,
        now: Timestamp,
        path: Path,
        ecn: Ecn,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let result = match Header::decode(datagram) {
            Ok(Header::Transport(header)) => self.handle_transport(now, path, ecn, header, datagram),
            Ok(Header::Handshake(header)) => self.handle_handshake(now, path, &header, datagram),
            Err(reason) => Err(reason),
        };
        if let Err(reason) = result {
            self.drops.add(reason);
        }
        result
    }

    /// Notices what time brings.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.handshakes.handle_timeout(now);
        if self.pairing.as_ref().is_some_and(|mode| now >= mode.until()) {
            let was_open = self.pairing.take().is_some_and(|mode| mode.is_open());
            if was_open {
                self.events.push_back(HostEvent::PairingExpired);
            }
        }
        for index in 0..self.sessions.len() {
            let session = &mut self.sessions[index];
            session.link.on_call(now);
            if let Some(reason) = session.handle_timeout(now) {
                self.end(index, now, reason);
            }
        }
        self.sessions.retain(|s| !s.link.is_drained());
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) and [`poll_transmit`](Self::poll_transmit)
    /// again if nothing else happens. [`Timestamp::ZERO`]: at once.
    #[must_use]
    pub fn poll_timeout(&self) -> Timestamp {
        let pairing = self.pairing.as_ref().map_or(Timestamp::NEVER, PairingMode::until);
        let sessions = self.sessions.iter().map(Session::poll_timeout).min().unwrap_or(Timestamp::NEVER);
        sessions.min(pairing).min(self.handshakes.poll_timeout())
    }

    /// Seals what is to leave next into `buf`, which should have 64 KiB so that whole groups fit. `None`
    /// when there is nothing for now.
    pub fn poll_transmit(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        if let Some(session) = self.sessions.iter_mut().find(|s| s.is_mid_batch())
            && let Some(transmit) = session.poll_media(now, buf)
        {
            return Some(transmit);
        }
        if let Some((path, len)) = self.handshakes.poll_answer(buf) {
            let class = TrafficClass::Control;
            return Some(Transmit { path, len, segment_len: len, class, ecn: Ecn::NotEct });
        }
        let control = self.sessions.iter_mut().find_map(|s| s.poll_control(now, buf));
        control.or_else(|| self.sessions.iter_mut().find_map(|s| s.poll_media(now, buf)))
    }

    /// The next thing that the program must know or do.
    pub fn poll_event(&mut self) -> Option<HostEvent> {
        self.events.pop_front()
    }

    /// Takes a slice of an encoded frame, with one copy.
    ///
    /// # Errors
    /// [`DropReason::Unexpected`] if nobody streams; else as
    /// [`VideoSender::submit_slice`](crate::send::VideoSender::submit_slice).
    pub fn submit_slice(&mut self, now: Timestamp, meta: &SliceMeta, data: &[u8]) -> Result<(), DropReason> {
        let Some((_, stream)) = streaming(&mut self.sessions) else { return Err(DropReason::Unexpected) };
        let result = stream.submit_slice(now, meta, data);
        stream.poll_changes(&mut self.events);
        result
    }

    /// Takes a packet of encoded sound whose first sample is of `timestamp`.
    ///
    /// # Errors
    /// [`DropReason::Unexpected`] if nobody streams, [`DropReason::NoRoom`] if it is too long.
    pub fn submit_audio(
        &mut self,
        now: Timestamp,
        timestamp: Timestamp,
        data: &[u8],
    ) -> Result<(), DropReason> {
        let _ = now;
        let Some((_, stream)) = streaming(&mut self.sessions) else { return Err(DropReason::Unexpected) };
        stream.submit_audio(timestamp, data)
    }

    /// Tells how the cursor looks.
    ///
    /// # Errors
    /// [`DropReason::Unexpected`] if nobody streams who understands it, [`DropReason::NoRoom`] if it is
    /// too large or too much waits.
    pub fn submit_cursor_shape(&mut self, shape: CursorShape) -> Result<(), DropReason> {
        self.push(Features::CURSOR, Control::CursorShape(shape))
    }

    /// Tells where the cursor is. Only the newest position is sent.
    pub fn submit_cursor_position(&mut self, position: CursorPosition) {
        if let Some((_, stream)) = streaming(&mut self.sessions) {
            stream.set_cursor(position);
        }
    }

    /// Tells what is on the clipboard.
    ///
    /// # Errors
    /// [`DropReason::Unexpected`] if nobody streams, [`DropReason::NoRoom`] beyond 1 MiB or if too much
    /// waits.
    pub fn submit_clipboard(&mut self, text: &str) -> Result<(), DropReason> {
        self.push(Features::NONE, Control::Clipboard(ClipboardMessage { text: text.to_owned() }))
    }

    /// Sets what monitors can be chosen from, and tells the client.
    pub fn set_monitors(&mut self, monitors: Vec<Monitor>) {
        self.monitors = monitors;
        let list = MonitorList { monitors: self.monitors.clone() };
        // Without a session there is nobody to tell; the next one is told when it starts.
        let _ = self.push(Features::NONE, Control::MonitorList(list));
    }

    /// Sets what sessions from now on get. The running one is not changed.
    pub fn set_stream(&mut self, stream: StreamOffer) {
        self.monitors.clone_from(&stream.monitors);
        self.config.stream = stream;
    }

    /// Sets who may stream. A running session of anybody else ends.
    pub fn set_allowed(&mut self, now: Timestamp, allowed: Vec<WavryId>) {
        self.config.allowed = allowed;
        let is_out = |s: &Session| {
            matches!(s.role, Role::Streaming(_) | Role::Measuring)
                && !self.config.allowed.contains(&s.peer.id)
        };
        let out: Vec<_> = (0..self.sessions.len()).filter(|&i| is_out(&self.sessions[i])).collect();
        for index in out {
            self.end(index, now, CloseReason::Local(CloseCode::Refused));
        }
    }

    /// Enters pairing mode: until then, or until a client proves this PIN, or three try a wrong one.
    ///
    /// # Errors
    /// [`CryptoError`](rift_crypto::CryptoError) if the machine gives no randomness.
    pub fn open_pairing(&mut self, pin: Pin, until: Timestamp) -> Result<(), rift_crypto::CryptoError> {
        self.pairing = Some(PairingMode::open(pin, until)?);
        Ok(())
    }

    /// Leaves pairing mode.
    pub fn close_pairing(&mut self) {
        self.pairing = None;
    }

    /// Ends every session. Go on with `poll_transmit` until [`is_drained`](Self::is_drained), so that
    /// the clients learn of it.
    pub fn close(&mut self, now: Timestamp, reason: CloseReason) {
        for index in 0..self.sessions.len() {
            self.end(index, now, reason);
        }
        self.pairing = None;
    }

    /// Whether no session is there any more, not even one that is still told its end.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.sessions.iter().all(|s| s.link.is_drained())
    }

    /// How the streaming session is doing.
    #[must_use]
    pub fn session(&self) -> Option<SessionInfo> {
        let session = self.sessions.iter().find(|s| matches!(s.role, Role::Streaming(_)))?;
        Some(SessionInfo::of(&session.link, session.peer.id, session.features()))
    }

    /// What the video sender of the streaming session counted.
    #[must_use]
    pub fn sender_counters(&self) -> Option<&SenderCounters> {
        self.sessions.iter().find_map(|s| match &s.role {
            Role::Streaming(stream) => Some(stream.sender().counters()),
            _ => None,
        })
    }

    /// Packets of sound of the streaming session that made room for newer ones or were too long.
    #[must_use]
    pub fn audio_dropped(&self) -> u64 {
        self.sessions
            .iter()
            .map(|s| if let Role::Streaming(t) = &s.role { t.audio_dropped() } else { 0 })
            .sum()
    }

    /// What the encoder was told last: bitrate and frames per second.
    #[must_use]
    pub fn target(&self) -> Option<(Bitrate, u32)> {
        self.sessions.iter().find_map(|s| match &s.role {
            Role::Streaming(stream) => {
                let target = stream.rate().target();
                Some((target.bitrate, target.fps))
            }
            _ => None,
        })
    }

    /// The identity that clients see.
    #[must_use]
    pub fn wavry_id(&self) -> WavryId {
        self.config.identity.wavry_id()
    }

    /// Whether pairing mode is on.
    #[must_use]
    pub fn is_pairing(&self) -> bool {
        self.pairing.as_ref().is_some_and(PairingMode::is_open)
    }

    /// How many handshakes are remembered: bounded by the configuration, whoever sends what.
    #[must_use]
    pub fn handshakes_under_way(&self) -> usize {
        self.handshakes.len()
    }

    /// Datagrams that were not used.
    #[must_use]
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    fn handle_transport(
        &mut self,
        now: Timestamp,
        path: Path,
        ecn: Ecn,
        header: TransportHeader,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let known = self.sessions.iter().position(|s| s.link.local_alias() == header.alias);
        let (index, outcome) = if let Some(index) = known {
            let session = &mut self.sessions[index];
            session.link.on_call(now);
            let outcome = session.handle_datagram(now, path, header.packet_id, datagram, &mut self.events)?;
            (index, outcome)
        } else {
            let has_room = self.has_room();
            let (mut arrival, len) =
                self.handshakes.handle_first_packet(header.alias, header.packet_id, datagram, has_room)?;
            arrival.path = path;
            self.admit(now, arrival);
            let index = self.sessions.len() - 1;
            let Session { link, role, .. } = &mut self.sessions[index];
            let body = &datagram[TRANSPORT_HEADER_LEN..][..len];
            (index, Session::handle_body(link, role, now, body, &mut self.events)?)
        };
        if ecn == Ecn::Ce {
            self.sessions[index].link.on_congestion_mark();
        }
        self.handle_outcome(index, now, outcome);
        Ok(())
    }

    fn handle_handshake(
        &mut self,
        now: Timestamp,
        path: Path,
        header: &crate::wire::HandshakeHeader,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let has_room = self.has_room();
        let taken: [Alias; SESSIONS_MAX] =
            core::array::from_fn(|i| self.sessions.get(i).map_or(Alias(0), |s| s.link.local_alias()));
        let mut context = Context {
            identity: &self.config.identity,
            entropy: &mut self.entropy,
            link: &self.config.link,
            taken: &taken,
            has_room,
        };
        if let Some(arrival) = self.handshakes.handle(now, path, header, datagram, &mut context)? {
            self.admit(now, arrival);
        }
        Ok(())
    }

    /// Whether one more peer can be taken, now that those are let go who know that they are out.
    fn has_room(&mut self) -> bool {
        self.sessions.retain(|s| !s.link.is_drained());
        self.sessions.len() < SESSIONS_MAX
    }

    /// Decides what a peer that proved who it is may do.
    fn admit(&mut self, now: Timestamp, arrival: Arrival) {
        let Arrival { channel, peer, handshake_hash, hello, path } = arrival;
        let link = Link::new(now, path, channel, &self.config.link);
        let name = printable(&hello.client_name);
        let mut session = Session { link, peer, name, handshake_hash, role: Role::Measuring };
        let features = Features::from_bits(hello.features).common(self.config.features);
        session.link.set_features(features);
        match self.refusal(&hello, peer.id) {
            Some(reason) => {
                session.refuse(now, reason);
                self.events.push_back(HostEvent::ClientRefused { peer: peer.id, reason });
                self.sessions.push(session);
            }
            None if hello.pairing => {
                let _ = session.link.push(Control::HelloAck(self.hello_ack(&hello, features, Alias(0))));
                session.role = Role::Pairing(None);
                self.sessions.push(session);
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
            self.sessions.push(session);
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
        self.sessions.push(session);
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

    /// Does what a datagram of session `index` led to.
    fn handle_outcome(&mut self, index: usize, now: Timestamp, mut outcome: Outcome) {
        loop {
            match outcome {
                Outcome::Ended(reason) => return self.end(index, now, reason),
                Outcome::Message(control) => {
                    if let Err(reason) = self.handle_message(index, now, control) {
                        return self.end(index, now, reason);
                    }
                }
                Outcome::Done => {
                    if matches!(self.sessions[index].role, Role::Refused { .. })
                        && let Some(reason) = self.sessions[index].handle_timeout(now)
                    {
                        self.end(index, now, reason);
                    }
                    return;
                }
            }
            outcome = self.sessions[index].poll_message();
        }
    }

    /// Takes a reliable message.
    fn handle_message(&mut self, index: usize, now: Timestamp, control: Control) -> Result<(), CloseReason> {
        let is_streaming = matches!(self.sessions[index].role, Role::Streaming(_));
        let event = match control {
            Control::Pairing(message) => return self.handle_pairing(index, now, &message.data),
            Control::Clipboard(message) if is_streaming => HostEvent::Clipboard(message.text),
            Control::SelectMonitor(message) if is_streaming => HostEvent::MonitorSelected(message.monitor_id),
            Control::DisplayModeRequest(mode) if is_streaming => {
                HostEvent::DisplayModeRequested { width: mode.width, height: mode.height, fps: mode.fps }
            }
            // Known messages that this side has no use for, and those of newer versions.
            _ => return Ok(()),
        };
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
        Ok(())
    }

    fn handle_pairing(&mut self, index: usize, now: Timestamp, data: &[u8]) -> Result<(), CloseReason> {
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

    /// Queues a reliable message for the streaming session.
    fn push(&mut self, needs: Features, control: Control) -> Result<(), DropReason> {
        let Some((link, stream)) = streaming(&mut self.sessions) else { return Err(DropReason::Unexpected) };
        if !stream.features.contains(needs) {
            return Err(DropReason::Unexpected);
        }
        link.push(control)
    }

    /// Ends session `index`; the peer is still told.
    fn end(&mut self, index: usize, now: Timestamp, reason: CloseReason) {
        let session = &mut self.sessions[index];
        session.link.close(now, reason);
        let was = core::mem::replace(&mut session.role, Role::Over);
        if let Role::Streaming(_) = was {
            self.events.push_back(HostEvent::ReleaseAllInput);
            self.events.push_back(HostEvent::SessionEnded { peer: session.peer.id, reason });
        }
    }
}

/// The session that streams.
fn streaming(sessions: &mut [Session]) -> Option<(&mut Link, &mut Streaming)> {
    sessions.iter_mut().find_map(|s| match &mut s.role {
        Role::Streaming(stream) => Some((&mut s.link, &mut **stream)),
        _ => None,
    })
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

//! The client's end: one connection to one host.
//!
//! Owns the way from nothing to a session and what the program must know of it. Never reconnects by
//! itself, except that it falls back to the longer handshake. Invariant: `Closed` comes exactly once,
//! whatever happens.

mod config;
mod connect;
mod event;
mod pairing;
mod stream;

use std::collections::VecDeque;

use rift_crypto::PeerProof;

use super::{Ecn, Path, SessionInfo, TrafficClass, Transmit};
use crate::input::{InputEvent, InputState};
use crate::message::proto::control_message::Control;
use crate::message::proto::{
    self, ClipboardMessage, Codec, DisplayModeRequest, Hello, HelloAck, RefusalReason, SelectMonitor,
};
use crate::message::{self, Incoming};
use crate::receive::{AudioFrame, ReadySlice, ReceiverCounters};
use crate::session::bodies::bounded;
use crate::session::entropy::Entropy;
use crate::session::link::{Channel, Link, Taken};
use crate::session::{CloseCode, CloseReason, Features, Violation};
use crate::wire::{Header, TransportHeader};
use crate::{Bitrate, DropCounters, DropReason, FrameId, HandshakeId, Timestamp};
use connect::{Connected, Connecting, Repeated, Step};
use pairing::{PairingAttempt, Verdict};
use stream::Streaming;

pub use config::{ClientConfig, ExpectedHost, Purpose};
pub use event::{ClientEvent, Refusal, StreamInfo, Via};

/// Events that may wait for the program; beyond, those that only report are dropped.
const EVENTS_MAX: usize = 256;
const PROTOCOL_VERSION: u32 = 1;

/// The client's end.
#[derive(Debug)]
pub struct ClientEndpoint {
    config: ClientConfig,
    entropy: Entropy,
    phase: Phase,
    /// There from the start where a stream is wanted, so that nothing is allocated later.
    streaming: Option<Box<Streaming>>,
    last_call: Timestamp,
    events: VecDeque<ClientEvent>,
    drops: DropCounters,
}

#[derive(Debug)]
enum Phase {
    Connecting(Box<Connecting>),
    Session(Box<Session>),
    Closed,
}

#[derive(Debug)]
struct Session {
    link: Link,
    peer: PeerProof,
    via: Via,
    handshake_hash: [u8; 32],
    handshake_id: HandshakeId,
    /// XX: sent until the first packet of the host opens.
    msg3: Option<Repeated>,
    features: Features,
    is_accepted: bool,
    pairing: Option<PairingAttempt>,
}

impl ClientEndpoint {
    /// A client that begins to connect at `now`.
    #[must_use]
    pub fn new(config: ClientConfig, now: Timestamp) -> Self {
        let mut entropy = Entropy::new(config.seed);
        let is_stream = matches!(config.purpose, Purpose::Stream);
        let streaming = is_stream.then(|| Box::new(Streaming::new(now, &config.receiver)));
        let mut events = VecDeque::with_capacity(EVENTS_MAX);
        let phase = begin(now, &config, &mut entropy, true, &mut events);
        Self { config, entropy, phase, streaming, last_call: now, events, drops: DropCounters::default() }
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
        self.on_call(now);
        let result = match Header::decode(datagram) {
            Ok(Header::Transport(header)) => self.handle_transport(now, path, ecn, header, datagram),
            Ok(Header::Handshake(header)) => self.handle_handshake(now, &header, datagram),
            Err(reason) => Err(reason),
        };
        if let Err(reason) = result {
            self.drops.add(reason);
        }
        result
    }

    /// Notices what time brings.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.on_call(now);
        let reason = match &mut self.phase {
            Phase::Connecting(connecting) => connecting.is_over(now).then_some(CloseReason::Unreachable),
            Phase::Session(session) if session.link.is_drained() => {
                self.phase = Phase::Closed;
                None
            }
            Phase::Session(session) => {
                let is_deaf = session.msg3.as_ref().is_some_and(|m| m.is_over(now));
                if is_deaf { Some(CloseReason::Unreachable) } else { session.link.handle_timeout(now) }
            }
            Phase::Closed => None,
        };
        if let Some(streaming) = &mut self.streaming {
            streaming.handle_timeout(now);
        }
        if let Some(reason) = reason {
            self.close(now, reason);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) and [`poll_transmit`](Self::poll_transmit)
    /// again if nothing else happens. [`Timestamp::ZERO`]: at once.
    #[must_use]
    pub fn poll_timeout(&self) -> Timestamp {
        match &self.phase {
            Phase::Connecting(connecting) => connecting.poll_timeout(),
            Phase::Session(session) => {
                let msg3 = session.msg3.as_ref().map_or(Timestamp::NEVER, Repeated::poll_timeout);
                let link = session.link.poll_timeout();
                let streaming = match &self.streaming {
                    // Without room nothing can leave until the host acknowledges the key.
                    Some(s) if session.can_send() && session.link.payload_room().0 > 0 => s.poll_timeout(),
                    _ => Timestamp::NEVER,
                };
                msg3.min(link).min(streaming)
            }
            Phase::Closed => Timestamp::NEVER,
        }
    }

    /// Seals what is to leave next into `buf`. `None` when there is nothing for now.
    pub fn poll_transmit(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        let host = self.config.host;
        match &mut self.phase {
            Phase::Connecting(connecting) => {
                connecting.poll(now, buf).map(|len| single(host, len, TrafficClass::Control))
            }
            Phase::Session(session) => {
                let (len, class) = session.poll_transmit(now, self.streaming.as_deref_mut(), buf)?;
                Some(single(session.link.path(), len, class))
            }
            Phase::Closed => None,
        }
    }

    /// The next thing that the program must know or do.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// Takes an input event; it leaves with the next [`poll_transmit`](Self::poll_transmit).
    ///
    /// # Errors
    /// [`DropReason::Unexpected`] without a stream or where the host does not understand it; else as
    /// [`InputSender::submit`](crate::input::InputSender::submit).
    pub fn submit_input(&mut self, now: Timestamp, event: InputEvent) -> Result<(), DropReason> {
        self.streaming_session()?.0.submit_input(now, event)
    }

    /// The next slice for the decoder.
    pub fn poll_slice(&mut self, now: Timestamp) -> Option<ReadySlice<'_>> {
        self.streaming.as_mut()?.poll_slice(now)
    }

    /// The next packet of sound for the decoder; to be asked for when it is to be played.
    pub fn poll_audio(&mut self) -> Option<AudioFrame<'_>> {
        self.streaming.as_mut()?.poll_audio()
    }

    /// The decoder has decoded `frame` without error.
    pub fn on_decoded(&mut self, now: Timestamp, frame: FrameId) {
        if let Some(streaming) = &mut self.streaming {
            streaming.on_decoded(now, frame);
        }
    }

    /// The decoder has rejected `frame`.
    pub fn on_decode_failed(&mut self, now: Timestamp, frame: FrameId) {
        if let Some(streaming) = &mut self.streaming {
            streaming.on_decode_failed(now, frame);
        }
    }

    /// The picture of `frame` is visible since `now`.
    pub fn on_shown(&mut self, now: Timestamp, frame: FrameId) {
        let _ = now;
        if let Some(streaming) = &mut self.streaming {
            streaming.on_shown(frame);
        }
    }

    /// Asks for another monitor.
    ///
    /// # Errors
    /// [`DropReason::Unexpected`] without a stream, [`DropReason::NoRoom`] if too much waits.
    pub fn select_monitor(&mut self, monitor_id: u32) -> Result<(), DropReason> {
        self.push(Features::NONE, Control::SelectMonitor(SelectMonitor { monitor_id }))
    }

    /// Asks for another display mode: pixels, and frames per second.
    ///
    /// # Errors
    /// As [`select_monitor`](Self::select_monitor); also where the host does not understand it.
    pub fn request_display_mode(&mut self, width: u32, height: u32, fps: u32) -> Result<(), DropReason> {
        let mode = DisplayModeRequest { width, height, fps };
        self.push(Features::DISPLAY_MODE, Control::DisplayModeRequest(mode))
    }

    /// Tells what is on the clipboard.
    ///
    /// # Errors
    /// As [`select_monitor`](Self::select_monitor); [`DropReason::NoRoom`] also beyond 1 MiB.
    pub fn submit_clipboard(&mut self, text: &str) -> Result<(), DropReason> {
        self.push(Features::NONE, Control::Clipboard(ClipboardMessage { text: text.to_owned() }))
    }

    /// Ends the session or the attempt. Go on with `poll_transmit` and `handle_timeout` until
    /// [`is_drained`](Self::is_drained), so that the host learns of it.
    pub fn close(&mut self, now: Timestamp, reason: CloseReason) {
        let is_news = match &mut self.phase {
            Phase::Closed => false,
            Phase::Connecting(_) => {
                self.phase = Phase::Closed;
                true
            }
            Phase::Session(session) => {
                let is_news = !session.link.is_ending();
                session.link.close(now, reason);
                session.msg3 = None;
                is_news
            }
        };
        if is_news {
            self.events.push_back(ClientEvent::Closed(reason));
        }
    }

    /// Whether nothing is left to be done.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        match &self.phase {
            Phase::Connecting(_) => false,
            Phase::Session(session) => session.link.is_drained(),
            Phase::Closed => true,
        }
    }

    /// The host's clock less the client's, in microseconds: a host time less this is the same moment on
    /// the client's clock.
    #[must_use]
    pub fn clock_offset_us(&self) -> Option<i64> {
        if let Phase::Session(session) = &self.phase { session.link.clock_offset_us() } else { None }
    }

    /// How the session is doing.
    #[must_use]
    pub fn session(&self) -> Option<SessionInfo> {
        let Phase::Session(session) = &self.phase else { return None };
        Some(SessionInfo::of(&session.link, session.peer.id, session.features))
    }

    /// What the video receiver counted.
    #[must_use]
    pub fn receiver_counters(&self) -> Option<&ReceiverCounters> {
        self.streaming.as_ref().map(|s| s.receiver_counters())
    }

    /// Packets of sound dropped because too much waited.
    #[must_use]
    pub fn audio_dropped(&self) -> u64 {
        self.streaming.as_ref().map_or(0, |s| s.audio_dropped())
    }

    /// Input events given up because too many waited.
    #[must_use]
    pub fn input_dropped(&self) -> u64 {
        self.streaming.as_ref().map_or(0, |s| s.input().dropped())
    }

    /// The keys and buttons that are held, as far as they were submitted.
    #[must_use]
    pub fn input_state(&self) -> Option<&InputState> {
        self.streaming.as_ref().map(|s| s.input().state())
    }

    /// The newest frame that was shown.
    #[must_use]
    pub fn newest_shown(&self) -> Option<FrameId> {
        self.streaming.as_ref().and_then(|s| s.newest_shown())
    }

    /// Datagrams that were not used.
    #[must_use]
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// Called before anything else with every call's time.
    fn on_call(&mut self, now: Timestamp) {
        let went_back = now < self.last_call;
        self.last_call = now;
        let jumped = match &mut self.phase {
            Phase::Connecting(connecting) => {
                if went_back {
                    connecting.on_clock_jump(now);
                }
                false
            }
            Phase::Session(session) => {
                let jumped = session.link.on_call(now);
                if let Some(msg3) = session.msg3.as_mut().filter(|_| jumped) {
                    msg3.on_clock_jump(now);
                }
                jumped
            }
            Phase::Closed => false,
        };
        if let Some(streaming) = self.streaming.as_mut().filter(|_| jumped) {
            streaming.on_clock_jump(now);
        }
    }

    fn handle_handshake(
        &mut self,
        now: Timestamp,
        header: &crate::wire::HandshakeHeader,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let connecting = match core::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Connecting(connecting) => connecting,
            other => {
                self.phase = other;
                return Err(DropReason::Unexpected);
            }
        };
        let (result, rest) = connecting.handle(now, header, datagram);
        if let Some(rest) = rest {
            self.phase = Phase::Connecting(rest);
        }
        match result? {
            Step::Wait => {}
            Step::UseXx => {
                self.phase = begin(now, &self.config, &mut self.entropy, false, &mut self.events);
            }
            Step::Rejected(reason) => {
                self.events.push_back(ClientEvent::Refused(Refusal::Unauthenticated(reason)));
                self.close(now, CloseReason::Remote(CloseCode::Refused));
            }
            Step::Failed(reason) => {
                self.phase = Phase::Closed;
                self.events.push_back(ClientEvent::Closed(reason));
            }
            Step::Connected(connected) => self.start(now, *connected),
        }
        Ok(())
    }

    fn start(&mut self, now: Timestamp, connected: Connected) {
        let Connected { established, local_alias, remote_alias, via, id, msg3 } = connected;
        let (peer, handshake_hash) = (established.peer, established.handshake_hash);
        let config = &self.config.link;
        let channel = Channel::new(now, established.keys, local_alias, remote_alias, config);
        self.phase = Phase::Session(Box::new(Session {
            link: Link::new(now, self.config.host, channel, config),
            peer,
            via,
            handshake_hash,
            handshake_id: id,
            msg3,
            features: Features::NONE,
            is_accepted: false,
            pairing: None,
        }));
    }

    fn handle_transport(
        &mut self,
        now: Timestamp,
        path: Path,
        ecn: Ecn,
        header: TransportHeader,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let Phase::Session(session) = &mut self.phase else { return Err(DropReason::UnknownAlias) };
        if session.link.local_alias() != header.alias {
            return Err(DropReason::UnknownAlias);
        }
        let id = header.packet_id;
        let body = session.link.open(now, path, id, datagram)?;
        session.msg3 = None;
        if ecn == Ecn::Ce {
            session.link.on_congestion_mark();
        }
        if session.link.is_ending() {
            return Err(DropReason::Unexpected);
        }
        if let Some(streaming) = &mut self.streaming {
            streaming.on_packet(now, id, ecn);
        }
        let incoming = message::decode(body).map_err(|_| DropReason::Malformed)?;
        if let Incoming::Media(media) = &incoming {
            let streaming = self.streaming.as_mut().ok_or(DropReason::Unexpected)?;
            return streaming.handle_media(now, id, body, media);
        }
        match session.link.handle(now, incoming)? {
            Taken::Done => self.handle_messages(now),
            Taken::Rtt(sample_us) => {
                if let Some(streaming) = &mut self.streaming {
                    streaming.on_rtt(&session.link);
                }
                self.report(ClientEvent::RttSample(sample_us));
            }
            Taken::Ended(reason) => self.close(now, reason),
            Taken::Other(Incoming::Control(control)) => return self.handle_control(control),
            Taken::Other(Incoming::Unknown) => {}
            Taken::Other(_) => return Err(DropReason::Unexpected),
        }
        Ok(())
    }

    /// Takes an unreliable control message.
    fn handle_control(&mut self, control: Control) -> Result<(), DropReason> {
        match control {
            Control::InputAck(ack) => {
                let streaming = self.streaming.as_mut().ok_or(DropReason::Unexpected)?;
                streaming.on_input_ack(ack.sequence);
            }
            Control::CursorPosition(position) => self.report(ClientEvent::CursorPosition(position)),
            Control::CongestionControl(rate) => self.report(ClientEvent::StreamChanged {
                bitrate: Bitrate::from_kbps(rate.target_bitrate_kbps),
                fps: rate.target_fps,
            }),
            _ => return Err(DropReason::Unexpected),
        }
        Ok(())
    }

    /// Takes all reliable messages that are whole.
    fn handle_messages(&mut self, now: Timestamp) {
        loop {
            let Phase::Session(session) = &mut self.phase else { return };
            if session.link.is_ending() {
                return;
            }
            let result = match session.link.poll_message() {
                Ok(None) => return,
                Ok(Some(control)) => self.handle_message(now, control),
                Err(reason) => Err(reason),
            };
            if let Err(reason) = result {
                return self.close(now, reason);
            }
        }
    }

    fn handle_message(&mut self, now: Timestamp, control: Control) -> Result<(), CloseReason> {
        match control {
            Control::HelloAck(ack) => return self.handle_hello_ack(now, &ack),
            Control::Pairing(message) => return self.handle_pairing(now, &message.data),
            Control::MonitorList(list) => self.report(ClientEvent::Monitors(list.monitors)),
            Control::Clipboard(message) => self.report(ClientEvent::Clipboard(message.text)),
            Control::CursorShape(shape) => self.report(ClientEvent::CursorShape(shape)),
            Control::AudioFormat(format) => {
                if let Some(streaming) = &mut self.streaming {
                    streaming.set_audio_frame(u64::from(format.frame_us.clamp(2_500, 60_000)));
                }
                self.report(ClientEvent::AudioFormat(format));
            }
            // Known messages that this side has no use for, and those of newer versions.
            _ => {}
        }
        Ok(())
    }

    fn handle_hello_ack(&mut self, now: Timestamp, ack: &HelloAck) -> Result<(), CloseReason> {
        let Phase::Session(session) = &mut self.phase else { return Ok(()) };
        if session.is_accepted {
            return Err(CloseReason::Protocol(Violation::OutOfPhase));
        }
        if !ack.accepted {
            self.events.push_back(match ack.refusal() {
                RefusalReason::NotPaired => ClientEvent::PairingRequired,
                reason => ClientEvent::Refused(Refusal::Host(reason)),
            });
            return Err(CloseReason::Remote(CloseCode::Refused));
        }
        session.is_accepted = true;
        // The host takes away from what was offered, and adds nothing.
        session.features = Features::from_bits(ack.features).common(self.config.features);
        session.link.set_features(session.features);
        if let Some(streaming) = &mut self.streaming {
            streaming.start(now, session.features);
            streaming.on_rtt(&session.link);
        }
        if let Purpose::Pair(pin) = &self.config.purpose {
            let secret = self.entropy.ephemeral();
            let (attempt, start) = PairingAttempt::start(pin, &session.handshake_hash, secret)
                .map_err(|_| CloseReason::CryptoFailed)?;
            session.pairing = Some(attempt);
            let _ = session.link.push(pairing_control(&start));
            return Ok(());
        }
        let mut session_id = [0; 16];
        if ack.session_id.len() == session_id.len() {
            session_id.copy_from_slice(&ack.session_id);
        }
        let stream = StreamInfo {
            codec: Codec::try_from(ack.selected_codec).unwrap_or(Codec::H264),
            resolution: ack.stream_resolution,
            fps: ack.fps,
            initial_bitrate: Bitrate::from_kbps(ack.initial_bitrate_kbps),
            features: session.features,
            session_id,
        };
        self.events.push_back(ClientEvent::Connected { peer: session.peer, stream, via: session.via });
        Ok(())
    }

    fn handle_pairing(&mut self, now: Timestamp, data: &[u8]) -> Result<(), CloseReason> {
        let Phase::Session(session) = &mut self.phase else { return Ok(()) };
        let out_of_phase = CloseReason::Protocol(Violation::OutOfPhase);
        let Some(attempt) = &mut session.pairing else { return Err(out_of_phase) };
        match attempt.handle(data) {
            Verdict::Reply(message) => {
                let _ = session.link.push(pairing_control(&message));
                Ok(())
            }
            Verdict::Paired => {
                let host = session.peer;
                self.events.push_back(ClientEvent::Paired { host });
                self.close(now, CloseReason::Local(CloseCode::Normal));
                Ok(())
            }
            Verdict::WrongPin(attempts_left) => {
                self.events.push_back(ClientEvent::WrongPin { attempts_left: attempts_left.into() });
                Err(CloseReason::Remote(CloseCode::Refused))
            }
            Verdict::Closed => {
                let reason = Refusal::Host(RefusalReason::PairingClosed);
                self.events.push_back(ClientEvent::Refused(reason));
                Err(CloseReason::Remote(CloseCode::Refused))
            }
            Verdict::Violation => Err(out_of_phase),
        }
    }

    /// Tells the program something that it can do without.
    fn report(&mut self, event: ClientEvent) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }

    fn streaming_session(&mut self) -> Result<(&mut Streaming, &mut Session), DropReason> {
        match (&mut self.phase, &mut self.streaming) {
            (Phase::Session(session), Some(streaming)) if session.can_send() => Ok((streaming, session)),
            _ => Err(DropReason::Unexpected),
        }
    }

    fn push(&mut self, needs: Features, control: Control) -> Result<(), DropReason> {
        let (_, session) = self.streaming_session()?;
        if !session.features.contains(needs) {
            return Err(DropReason::Unexpected);
        }
        session.link.push(control)
    }
}

impl Session {
    /// Whether the session is on and may carry payload.
    fn can_send(&self) -> bool {
        self.is_accepted && !self.link.is_ending()
    }

    fn poll_transmit(
        &mut self,
        now: Timestamp,
        streaming: Option<&mut Streaming>,
        buf: &mut [u8],
    ) -> Option<(usize, TrafficClass)> {
        if let Some(msg3) = &mut self.msg3
            && let Some(len) = msg3.poll(now, self.handshake_id, buf)
        {
            return Some((len, TrafficClass::Control));
        }
        if let Some(len) = self.link.poll_upkeep(now, buf) {
            return Some((len, TrafficClass::Control));
        }
        let streaming = streaming.filter(|_| self.can_send())?;
        streaming
            .poll_input(now, &mut self.link, buf)
            .or_else(|| streaming.poll_feedback(now, &mut self.link, buf))
    }
}

/// Begins to connect; `Closed` if even that fails.
fn begin(
    now: Timestamp,
    config: &ClientConfig,
    entropy: &mut Entropy,
    allow_ik: bool,
    events: &mut VecDeque<ClientEvent>,
) -> Phase {
    let hello = bounded(Hello {
        client_name: config.name.clone(),
        platform: config.platform.into(),
        supported_codecs: match config.purpose {
            Purpose::Stream => config.codecs.iter().map(|&c| c.into()).collect(),
            Purpose::Pair(_) | Purpose::Ping => Vec::new(),
        },
        max_resolution: Some(config.max_resolution),
        max_fps: config.max_fps,
        input_caps: 0,
        protocol_version: PROTOCOL_VERSION,
        public_addr: String::new(),
        features: config.features.bits(),
        pairing: matches!(config.purpose, Purpose::Pair(_)),
    });
    match Connecting::begin(now, &config.identity, entropy, config.expect, hello, allow_ik) {
        Ok(connecting) => Phase::Connecting(Box::new(connecting)),
        Err(_) => {
            events.push_back(ClientEvent::Closed(CloseReason::CryptoFailed));
            Phase::Closed
        }
    }
}

fn single(path: Path, len: usize, class: TrafficClass) -> Transmit {
    Transmit { path, len, segment_len: len, class, ecn: Ecn::NotEct }
}

fn pairing_control(message: &rift_crypto::PairingMessage) -> Control {
    let data = message.encode();
    let step = data.first().copied().unwrap_or(0).into();
    Control::Pairing(proto::Pairing { step, data })
}

//! The client's end: one connection to one host.
//!
//! Owns the way from nothing to a session and what the program must know of it. Never reconnects by
//! itself, except that it falls back to the longer handshake. Invariant: `Closed` comes exactly once,
//! whatever happens.

mod config;
mod connect;
mod dispatch;
mod event;
mod pairing;
mod session;
mod stream;

use std::collections::VecDeque;
use std::slice::ChunksMut;

use super::{Ecn, Path, SessionInfo, TrafficClass, Transmit};
use crate::input::{InputEvent, InputState};
use crate::message::proto::control_message::Control;
use crate::message::proto::{ClipboardMessage, DisplayModeRequest, EncoderControl, Hello, SelectMonitor};
use crate::receive::{AudioFrame, ReadySlice, ReceiverCounters};
use crate::session::bodies::bounded;
use crate::session::entropy::Entropy;
use crate::session::{CloseReason, Features};
use crate::wire::Header;
use crate::{DropCounters, DropReason, FrameId, Timestamp};
use connect::{Connecting, Repeated};
use session::Session;
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

impl ClientEndpoint {
    /// A client that begins to connect at `now`.
    #[must_use]
    pub fn new(mut config: ClientConfig, now: Timestamp) -> Self {
        let mut entropy = Entropy::new(&mut config.seed);
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
        self.handle_one(now, &path, ecn, datagram)
    }

    /// Takes a batch of datagrams that came together, each as [`handle_datagram`](Self::handle_datagram) does, and tells
    /// how many of them were not used.
    pub fn handle_datagrams(
        &mut self,
        now: Timestamp,
        path: &Path,
        ecn: Ecn,
        datagrams: ChunksMut<'_, u8>,
    ) -> u64 {
        self.on_call(now);
        let mut refused = 0;
        for datagram in datagrams {
            refused += u64::from(self.handle_one(now, path, ecn, datagram).is_err());
        }
        refused
    }

    #[inline]
    fn handle_one(
        &mut self,
        now: Timestamp,
        path: &Path,
        ecn: Ecn,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
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

    /// The next slice for the decoder. None before `Connected`, even if video came first.
    pub fn poll_slice(&mut self, now: Timestamp) -> Option<ReadySlice<'_>> {
        match (&self.phase, &mut self.streaming) {
            (Phase::Session(session), Some(streaming)) if session.is_accepted => streaming.poll_slice(now),
            _ => None,
        }
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

    /// Tells that the decoder can take `max_fps` frames per second, 0 for all that come, and that `skip_frames` frames, at
    /// most 8, would only wait before it if they were made now (RIFT R-REC-14).
    ///
    /// # Errors
    /// As [`select_monitor`](Self::select_monitor).
    pub fn limit_frame_rate(&mut self, max_fps: u32, skip_frames: u32) -> Result<(), DropReason> {
        self.push(Features::NONE, Control::EncoderControl(EncoderControl { skip_frames, max_fps }))
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
    #[inline]
    fn on_call(&mut self, now: Timestamp) {
        // As in all calls for one batch but the first.
        if now != self.last_call {
            self.on_time(now);
        }
    }

    fn on_time(&mut self, now: Timestamp) {
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

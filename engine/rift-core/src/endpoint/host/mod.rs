//! The host's end: handshakes of anybody, one streaming session, measurements, pairing.
//!
//! Owns who may do what. Never touches media itself, and never keeps more than [`SESSIONS_MAX`] peers.
//! Invariants: at most one session streams; only peers on the allow-list stream or give input; every
//! `SessionStarted` is followed by one `SessionEnded` with `ReleaseAllInput`.

mod admission;
mod config;
mod dispatch;
mod doubted;
mod event;
mod fallback;
mod handshakes;
mod pairing;
mod rate;
mod session;
mod sound;
mod stream;

use std::collections::VecDeque;
use std::slice::ChunksMut;

use rift_crypto::{Pin, WavryId};

use super::{Ecn, Path, SessionInfo, TrafficClass, Transmit};
use crate::delta2::DecisionTrace;
use crate::message::proto::control_message::Control;
use crate::message::proto::{
    AudioFormat, ClipboardMessage, CursorPosition, CursorShape, Monitor, MonitorList,
};
use crate::send::{SenderCounters, SliceMeta};
use crate::session::entropy::Entropy;
use crate::session::link::Link;
use crate::session::{CloseCode, CloseReason, Features};
use crate::wire::Header;
use crate::{Bitrate, DropCounters, DropReason, Timestamp};
use handshakes::Handshakes;
use pairing::PairingMode;
use session::{Role, Session};
use stream::{EVENTS_MAX, Streaming};

pub use config::{ControllerKind, HostConfig, StreamOffer};
pub use event::HostEvent;

/// Peers with a channel at one time: the one that streams and those that are measured, paired or told
/// no, each of which is gone within seconds. A session's buffers for reliable messages are 90 kB.
const SESSIONS_MAX: usize = 8;
/// The host's end of everything.
#[derive(Debug)]
pub struct HostEndpoint {
    config: HostConfig,
    entropy: Entropy,
    handshakes: Handshakes,
    sessions: Vec<Session>,
    pairing: Option<PairingMode>,
    monitors: Vec<Monitor>,
    audio_format: Option<AudioFormat>,
    events: VecDeque<HostEvent>,
    drops: DropCounters,
}

impl HostEndpoint {
    /// A host without sessions.
    #[must_use]
    pub fn new(mut config: HostConfig, now: Timestamp) -> Self {
        let mut entropy = Entropy::new(&mut config.seed);
        Self {
            handshakes: Handshakes::new(now, config.max_handshakes, config.handshakes_per_s, &mut entropy),
            monitors: config.stream.monitors.clone(),
            audio_format: None,
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

    /// Takes a batch of datagrams that came together, each as [`handle_datagram`](Self::handle_datagram) does, and tells
    /// how many of them were not used.
    pub fn handle_datagrams(
        &mut self,
        now: Timestamp,
        path: &Path,
        ecn: Ecn,
        datagrams: ChunksMut<'_, u8>,
    ) -> u64 {
        datagrams.map(|datagram| u64::from(self.handle_datagram(now, *path, ecn, datagram).is_err())).sum()
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
            if session.link.on_call(now) {
                session.on_clock_jump(now);
            }
            if let Some(reason) = session.handle_timeout(now, &mut self.events) {
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
        stream.poll_changes(now, &mut self.events);
        result
    }

    /// As [`submit_slice`](Self::submit_slice) without the copy: exchanges the buffer for an empty one.
    ///
    /// # Errors
    /// As [`submit_slice`](Self::submit_slice); the buffer is emptied all the same.
    pub fn submit_buffer(
        &mut self,
        now: Timestamp,
        meta: &SliceMeta,
        data: &mut Vec<u8>,
    ) -> Result<(), DropReason> {
        let Some((_, stream)) = streaming(&mut self.sessions) else {
            data.clear();
            return Err(DropReason::Unexpected);
        };
        let result = stream.submit_buffer(now, meta, data);
        stream.poll_changes(now, &mut self.events);
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

    /// Sets the format of the sound where it is not the published one (48 kHz, stereo, 5 ms), and tells the
    /// client, also those to come.
    pub fn set_audio_format(&mut self, format: AudioFormat) {
        self.audio_format = Some(format);
        // As above.
        let _ = self.push(Features::AUDIO_FORMAT, Control::AudioFormat(format));
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

    /// Sets what the encoder is to make, where the controller is
    /// [`External`](ControllerKind::External): bitrate of the video, frames per second, parity packets per
    /// data packet. Does nothing otherwise.
    pub fn set_target(&mut self, now: Timestamp, bitrate: Bitrate, fps: u32, parity: f32) {
        if let Some((_, stream)) = streaming(&mut self.sessions) {
            stream.set_target(now, bitrate, fps, parity, &mut self.events);
        }
    }

    /// Sets how fast the packets of a frame follow each other, where the controller is
    /// [`External`](ControllerKind::External). Does nothing otherwise.
    pub fn set_pace(&mut self, pace: Bitrate) {
        if let Some((_, stream)) = streaming(&mut self.sessions) {
            stream.set_external_pace(pace);
        }
    }

    /// The next decision of the controller, oldest first. Those that nobody fetches are overwritten.
    pub fn poll_decision(&mut self) -> Option<DecisionTrace> {
        streaming(&mut self.sessions)?.1.poll_decision()
    }

    /// How things stand for the controller, whether it decided anything or not.
    #[must_use]
    pub fn decision(&self, now: Timestamp) -> Option<DecisionTrace> {
        self.sessions.iter().find_map(|s| match &s.role {
            Role::Streaming(stream) => Some(stream.rate().trace(now)),
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

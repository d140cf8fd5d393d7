//! The protocol core behind the world's traits.

use std::net::SocketAddr;

use rift_core::endpoint::{
    ClientConfig, ClientEndpoint, ClientEvent, ControllerKind, Ecn, ExpectedHost, HostConfig, HostEndpoint,
    HostEvent, Path, StreamOffer, Transmit,
};
use rift_core::input::InputEvent;
use rift_core::message::proto::{Codec, Resolution};
use rift_core::send::{SenderCounters, SliceMeta};
use rift_core::session::{CloseCode, CloseReason, LinkConfig};
use rift_core::{Bitrate, DropReason, FrameId, PacketId, Timestamp};
use rift_crypto::Identity;

use crate::endpoint::{
    Client, ClientNotice, Departure, EncodedSlice, Endpoint, Host, HostNotice, Input, WholeSlice,
};
use crate::report::{Decision, Report};
use crate::scenario::{Controller, Scenario};
use crate::world::{Peers, run_with};

/// Runs `scenario` with the protocol core at both ends.
#[must_use]
pub fn run(scenario: &Scenario, seed: u64) -> Report {
    run_with(scenario, seed, RealPeers::new())
}

/// Makes [`rift_core`]'s endpoints. The identities are the same in every run; all else is seeded.
#[derive(Debug)]
pub struct RealPeers {
    expect: ExpectedHost,
}

impl RealPeers {
    /// A host and a client that have been paired.
    #[must_use]
    pub fn new() -> Self {
        let host = identity(HOST_SEED);
        Self { expect: ExpectedHost { id: host.wavry_id(), static_public: Some(host.static_public()) } }
    }
}

impl Default for RealPeers {
    fn default() -> Self {
        Self::new()
    }
}

const HOST_SEED: u8 = 0x11;
const CLIENT_SEED: u8 = 0x22;

/// Room for frames that do not come. With twice the room that a client has by default, its table is too large for the
/// heap of a thread (64 MiB in glibc) and is mapped afresh for each run: only what frames reach is ever touched, where
/// the heap would clear all of it each time, a fifteenth of a run.
const FRAME_BYTES_MAX: usize = 4 << 20;

fn identity(byte: u8) -> Identity {
    Identity::from_seed([byte; 32]).expect("every seed gives an identity")
}

/// 32 bytes from 8.
fn stretch(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

fn link_config(scenario: &Scenario) -> LinkConfig {
    let protocol = &scenario.protocol;
    LinkConfig {
        first_packet_id: PacketId(protocol.first_packet_id),
        rekey_us: protocol.rekey_us,
        rekey_packets: protocol.rekey_packets,
        ping_interval_us: protocol.ping_us,
        ..LinkConfig::default()
    }
}

impl Peers for RealPeers {
    type Host = HostEndpoint;
    type Client = ClientEndpoint;

    fn host(&mut self, scenario: &Scenario, seed: u64, now: Timestamp) -> HostEndpoint {
        let (least, most) = scenario.source.bounds();
        let offer = StreamOffer {
            codec: Codec::H264,
            resolution: Resolution { width: 1280, height: 720 },
            fps: scenario.source.fps,
            initial_bitrate: scenario.source.rate,
            min_bitrate: least,
            max_bitrate: most,
            monitors: Vec::new(),
        };
        let mut config = HostConfig::new(identity(HOST_SEED), stretch(seed), offer);
        config.allowed = vec![identity(CLIENT_SEED).wavry_id()];
        config.link = link_config(scenario);
        config.sender.parity = scenario.protocol.parity as f32;
        match scenario.controller {
            Controller::Default => {}
            Controller::DeltaV1 => config.controller = ControllerKind::DeltaV1,
            Controller::Fixed => config.controller = ControllerKind::Fixed,
            Controller::Oracle => config.controller = ControllerKind::External,
        }
        HostEndpoint::new(config, now)
    }

    fn client(&mut self, scenario: &Scenario, seed: u64, host: SocketAddr, now: Timestamp) -> ClientEndpoint {
        let mut config = ClientConfig::new(identity(CLIENT_SEED), stretch(seed), Path::to(host));
        let static_public = self.expect.static_public.filter(|_| scenario.protocol.ik);
        config.expect = Some(ExpectedHost { static_public, ..self.expect });
        config.name = "simulated client".into();
        config.max_fps = scenario.source.fps;
        config.link = link_config(scenario);
        config.receiver.frame_bytes_max = FRAME_BYTES_MAX;
        ClientEndpoint::new(config, now)
    }
}

fn departure(transmit: Transmit) -> Departure {
    Departure {
        to: transmit.path.remote,
        len: transmit.len,
        segment_len: transmit.segment_len,
        ecn: transmit.ecn,
    }
}

impl Endpoint for HostEndpoint {
    fn handle_datagram(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        ecn: Ecn,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        self.handle_datagram(now, Path::to(from), ecn, datagram)
    }
    fn handle_timeout(&mut self, now: Timestamp) {
        self.handle_timeout(now);
    }
    fn poll_timeout(&self) -> Timestamp {
        self.poll_timeout()
    }
    fn poll_transmit(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Departure> {
        self.poll_transmit(now, buf).map(departure)
    }
    fn close(&mut self, now: Timestamp) {
        self.close(now, CloseReason::Local(CloseCode::Normal));
    }
}

impl Host for HostEndpoint {
    fn submit_slice(&mut self, now: Timestamp, slice: &EncodedSlice<'_>) -> Result<(), DropReason> {
        let meta = SliceMeta {
            frame_id: slice.frame_id,
            slice_index: slice.index,
            last_slice: slice.last,
            keyframe: slice.keyframe,
            reference: slice.reference,
            timestamp: slice.captured_at,
            capture_us: 0,
            encode_us: slice.encode_us,
        };
        self.submit_slice(now, &meta, slice.data)
    }

    fn poll_notice(&mut self) -> Option<HostNotice> {
        loop {
            return Some(match self.poll_event()? {
                HostEvent::SessionStarted { .. } => HostNotice::SessionStarted,
                HostEvent::SessionEnded { .. } => HostNotice::SessionEnded,
                HostEvent::Input(event) => match input_of(event) {
                    Some(input) => HostNotice::Input(input),
                    None => continue,
                },
                HostEvent::ReleaseAllInput => HostNotice::ReleaseAllInput,
                HostEvent::KeyframeNeeded => HostNotice::KeyframeNeeded,
                HostEvent::ReferenceInvalidated { last_valid } => {
                    HostNotice::ReferenceInvalidated(last_valid)
                }
                HostEvent::ReferencePreferred { known } => HostNotice::ReferencePreferred(known),
                HostEvent::FrameAcknowledged(frame) => HostNotice::FrameAcknowledged(frame),
                HostEvent::RateChanged { bitrate, fps, .. } => HostNotice::RateChanged { bitrate, fps },
                HostEvent::SkipFrames(frames) => HostNotice::SkipFrames(frames),
                HostEvent::EncoderHeld(held) => HostNotice::EncoderHeld(held),
                _ => continue,
            });
        }
    }

    fn key_generations(&self) -> (u32, u32) {
        self.session().map_or((0, 0), |session| session.key_generations)
    }

    fn sender_counters(&self) -> Option<SenderCounters> {
        self.sender_counters().copied()
    }

    fn set_target(&mut self, now: Timestamp, video: Bitrate, fps: u32, parity: f32, pace: Bitrate) {
        self.set_target(now, video, fps, parity);
        self.set_pace(pace);
    }

    fn poll_decision(&mut self) -> Option<Decision> {
        let trace = self.poll_decision()?;
        Some(Decision { at_us: 0, trace })
    }
}

impl Endpoint for ClientEndpoint {
    fn handle_datagram(
        &mut self,
        now: Timestamp,
        from: SocketAddr,
        ecn: Ecn,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        self.handle_datagram(now, Path::to(from), ecn, datagram)
    }
    fn handle_timeout(&mut self, now: Timestamp) {
        self.handle_timeout(now);
    }
    fn poll_timeout(&self) -> Timestamp {
        self.poll_timeout()
    }
    fn poll_transmit(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Departure> {
        self.poll_transmit(now, buf).map(departure)
    }
    fn close(&mut self, now: Timestamp) {
        self.close(now, CloseReason::Local(CloseCode::Normal));
    }
}

impl Client for ClientEndpoint {
    fn submit_input(&mut self, now: Timestamp, input: Input) {
        let event = match input {
            Input::Key { code, pressed } => InputEvent::Key { keycode: code, pressed },
            Input::Button { button, pressed } => InputEvent::MouseButton { button, pressed },
            Input::Pointer { x, y } => InputEvent::MouseMove { x, y },
            Input::Motion { dx, dy } => InputEvent::MouseMoveRelative { dx, dy },
        };
        // What is refused never arrives, which the checkers see.
        let _ = self.submit_input(now, event);
    }

    fn poll_slice(&mut self, now: Timestamp) -> Option<WholeSlice<'_>> {
        self.poll_slice(now).map(|slice| WholeSlice {
            frame_id: slice.frame_id,
            index: slice.index,
            last: slice.last,
            show: slice.show,
            show_at: slice.show_at,
            deadline: slice.deadline,
            data: slice.data,
        })
    }

    fn poll_notice(&mut self) -> Option<ClientNotice> {
        loop {
            return Some(match self.poll_event()? {
                ClientEvent::Connected { .. } => ClientNotice::Connected,
                ClientEvent::Closed(_) => ClientNotice::Closed,
                _ => continue,
            });
        }
    }

    fn on_decoded(&mut self, now: Timestamp, frame: FrameId) {
        self.on_decoded(now, frame);
    }
    fn on_decode_failed(&mut self, now: Timestamp, frame: FrameId) {
        self.on_decode_failed(now, frame);
    }
    fn on_shown(&mut self, now: Timestamp, frame: FrameId) {
        self.on_shown(now, frame);
    }
}

fn input_of(event: InputEvent) -> Option<Input> {
    match event {
        InputEvent::Key { keycode, pressed } => Some(Input::Key { code: keycode, pressed }),
        InputEvent::MouseButton { button, pressed } => Some(Input::Button { button, pressed }),
        InputEvent::MouseMove { x, y } => Some(Input::Pointer { x, y }),
        InputEvent::MouseMoveRelative { dx, dy } => Some(Input::Motion { dx, dy }),
        _ => None,
    }
}

//! Whole endpoints: datagrams from outside, and bodies from a peer that has the keys.

use prost::Message as _;
use rift_core::endpoint::{ClientEndpoint, ClientEvent, Ecn, HostEndpoint, HostEvent};
use rift_core::input::{InputEvent, InputState};
use rift_core::message::ReliableSegment;
use rift_core::message::proto::control_message::Control;
use rift_core::message::proto::{self, message::Body};
use rift_core::send::SliceMeta;
use rift_core::wire::{HandshakeHeader, HandshakeKind, TransportHeader, crc16_kermit};
use rift_core::{Alias, FrameId, HandshakeId, PacketId, Timestamp};

use super::peer::{self, Channel, START, drain, ignore};
use super::script::{script, steps};

const STEPS_MAX: usize = 32;
const NOTICES_MAX: u32 = 10_000;

/// What a step of a script does; its first byte, modulo their number.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Verb {
    /// A sealed body.
    Body = 0,
    /// A control message in reliable segments.
    Reliable = 1,
    /// Time passes: a u16 of milliseconds, little-endian.
    Wait = 2,
    /// A sealed body, some packet ids on.
    Skip = 3,
    /// A datagram as it is, with its checksum made right.
    Raw = 4,
    /// The endpoint's own side does something: a slice, or a key.
    Own = 5,
}

const VERBS: [Verb; 6] = [Verb::Body, Verb::Reliable, Verb::Wait, Verb::Skip, Verb::Raw, Verb::Own];

/// An endpoint under test, with what must hold of it.
trait Subject {
    fn handle(&mut self, now: Timestamp, datagram: &mut [u8]);
    fn wait(&mut self, now: Timestamp);
    fn own(&mut self, now: Timestamp, bytes: &[u8]);
    fn settle(&mut self, now: Timestamp);
}

fn play(subject: &mut impl Subject, mut channel: Option<Channel>, data: &[u8]) {
    let mut now = START;
    let mut segment = 0;
    for step in steps(data).take(STEPS_MAX) {
        let Some((&verb, rest)) = step.split_first() else { continue };
        match VERBS[usize::from(verb) % VERBS.len()] {
            Verb::Body => {
                if let Some(channel) = &mut channel {
                    subject.handle(now, &mut channel.seal(rest, 0));
                }
            }
            Verb::Skip => {
                if let (Some(channel), Some((&skip, body))) = (&mut channel, rest.split_first()) {
                    subject.handle(now, &mut channel.seal(body, skip));
                }
            }
            Verb::Reliable => {
                let Some(channel) = &mut channel else { continue };
                let pieces = rest.chunks(1_000);
                let count = pieces.len();
                for (i, piece) in pieces.enumerate() {
                    let mut body = [0; 1_100];
                    let piece = ReliableSegment { sequence: segment, more: i + 1 < count, data: piece };
                    segment += 1;
                    let Some(len) = piece.encode(&mut body) else { continue };
                    subject.handle(now, &mut channel.seal(&body[..len], 0));
                }
            }
            Verb::Wait => {
                let ms = rest.first_chunk().map_or(1, |b| u16::from_le_bytes(*b));
                now = now.plus_micros(u64::from(ms) * 1_000);
                subject.wait(now);
            }
            Verb::Raw => {
                let mut datagram = rest.to_vec();
                fix_checksum(&mut datagram);
                subject.handle(now, &mut datagram);
            }
            Verb::Own => subject.own(now, rest),
        }
        subject.settle(now);
    }
    // Whatever happened, time goes on and comes to an end of work.
    for _ in 0..20 {
        now = now.plus_micros(500_000);
        subject.wait(now);
        subject.settle(now);
    }
}

/// Mutation alone does not find checksums; a MSG1 must also be long enough.
fn fix_checksum(datagram: &mut Vec<u8>) {
    let covered = if datagram.get(4..8) == Some(&[0; 4]) { 28 } else { 16 };
    if covered == 28 && datagram.get(8) == Some(&1) && datagram.len() >= 30 {
        datagram.resize(datagram.len().max(1_200), 0);
    }
    if datagram.len() >= covered + 2 {
        let checksum = crc16_kermit(&datagram[..covered]).to_be_bytes();
        datagram[covered..covered + 2].copy_from_slice(&checksum);
    }
}

struct HostSubject {
    host: HostEndpoint,
    input: InputState,
    sessions: u32,
    frame: u64,
}

impl Subject for HostSubject {
    fn handle(&mut self, now: Timestamp, datagram: &mut [u8]) {
        ignore(self.host.handle_datagram(now, peer::path(), Ecn::NotEct, datagram));
    }
    fn wait(&mut self, now: Timestamp) {
        if self.host.poll_timeout() <= now {
            self.host.handle_timeout(now);
        }
    }
    fn own(&mut self, now: Timestamp, bytes: &[u8]) {
        let meta = SliceMeta {
            frame_id: FrameId(self.frame),
            slice_index: 0,
            last_slice: true,
            keyframe: self.frame == 0,
            reference: self.frame.checked_sub(1).map(FrameId),
            timestamp: now,
            capture_us: 0,
            encode_us: 1,
        };
        self.frame += 1;
        ignore(self.host.submit_slice(now, &meta, &bytes.repeat(50)));
    }
    fn settle(&mut self, now: Timestamp) {
        drain(|buf| self.host.poll_transmit(now, buf).map(|t| t.len));
        let mut notices = 0;
        while let Some(event) = self.host.poll_event() {
            notices += 1;
            assert!(notices < NOTICES_MAX, "never runs out of events");
            match event {
                HostEvent::SessionStarted { .. } => self.sessions += 1,
                HostEvent::SessionEnded { .. } => {
                    assert!(self.sessions > 0, "an end without a beginning");
                    self.sessions -= 1;
                }
                HostEvent::Input(event) => {
                    assert!(event.is_valid(), "{event:?}");
                    assert!(self.sessions > 0, "input without a session");
                    self.input.apply(&event);
                }
                HostEvent::ReleaseAllInput => self.input = InputState::default(),
                HostEvent::Clipboard(text) => assert!(text.len() <= 1 << 20),
                _ => {}
            }
        }
        assert!(self.sessions > 0 || self.input.is_empty(), "keys are down and nobody is there");
    }
}

struct ClientSubject {
    client: ClientEndpoint,
    newest: Option<(FrameId, u32)>,
    closed: bool,
}

impl Subject for ClientSubject {
    fn handle(&mut self, now: Timestamp, datagram: &mut [u8]) {
        ignore(self.client.handle_datagram(now, peer::path(), Ecn::NotEct, datagram));
    }
    fn wait(&mut self, now: Timestamp) {
        if self.client.poll_timeout() <= now {
            self.client.handle_timeout(now);
        }
    }
    fn own(&mut self, now: Timestamp, bytes: &[u8]) {
        for &byte in bytes.iter().take(40) {
            let event = InputEvent::Key { keycode: u16::from(byte >> 1), pressed: byte & 1 == 1 };
            ignore(self.client.submit_input(now, event));
        }
    }
    fn settle(&mut self, now: Timestamp) {
        let mut slices = 0;
        while let Some(slice) = self.client.poll_slice(now) {
            slices += 1;
            assert!(slices < NOTICES_MAX, "never runs out of slices");
            let place = (slice.frame_id, slice.index);
            assert!(self.newest.is_none_or(|newest| newest < place), "{place:?} after {:?}", self.newest);
            self.newest = Some(place);
            if slice.last {
                let frame = slice.frame_id;
                self.client.on_decoded(now, frame);
                self.client.on_shown(now, frame);
            }
        }
        while self.client.poll_audio().is_some() {}
        drain(|buf| self.client.poll_transmit(now, buf).map(|t| t.len));
        let mut notices = 0;
        while let Some(event) = self.client.poll_event() {
            notices += 1;
            assert!(notices < NOTICES_MAX, "never runs out of events");
            if let ClientEvent::Closed(_) = event {
                assert!(!self.closed, "closed twice");
                self.closed = true;
            }
        }
    }
}

fn host_subject() -> HostSubject {
    HostSubject { host: peer::host(), input: InputState::default(), sessions: 0, frame: 0 }
}

fn client_subject() -> ClientSubject {
    ClientSubject { client: peer::client(), newest: None, closed: false }
}

/// A client that has the keys talks to a host.
pub(super) fn run_host(data: &[u8]) {
    let mut subject = host_subject();
    let channel = peer::join_host(&mut subject.host).expect("a sound handshake");
    play(&mut subject, Some(channel), data);
}

/// A host that has the keys talks to a client.
pub(super) fn run_client(data: &[u8]) {
    let mut subject = client_subject();
    let channel = peer::join_client(&mut subject.client).expect("a sound handshake");
    play(&mut subject, Some(channel), data);
}

/// Somebody without keys talks to both.
pub(super) fn run_outsider(data: &[u8]) {
    play(&mut host_subject(), None, data);
    play(&mut client_subject(), None, data);
}

fn step(verb: Verb, body: &[u8]) -> Vec<u8> {
    [&[verb as u8], body].concat()
}

fn reliable(control: Control) -> Vec<u8> {
    step(Verb::Reliable, &proto::ControlMessage { control: Some(control) }.encode_to_vec())
}

fn unreliable(control: Control) -> Vec<u8> {
    let control = proto::ControlMessage { control: Some(control) };
    step(Verb::Body, &proto::Message { body: Some(Body::Control(control)) }.encode_to_vec())
}

fn hello_ack() -> Vec<u8> {
    reliable(Control::HelloAck(proto::HelloAck {
        accepted: true,
        selected_codec: 1,
        stream_resolution: Some(proto::Resolution { width: 640, height: 480 }),
        fps: 60,
        initial_bitrate_kbps: 5_000,
        session_id: vec![1; 16],
        features: 2_047,
        ..Default::default()
    }))
}

/// Sessions of a few messages each: `opening` and one of the others.
fn sessions(opening: &[Vec<u8>], others: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let wait = step(Verb::Wait, &[20, 0]);
    others
        .iter()
        .map(|other| {
            let all = opening.iter().chain([other, &wait, other]);
            script(all.map(|step| &step[..]))
        })
        .collect()
}

/// What goes either way.
fn common() -> Vec<Vec<u8>> {
    vec![
        unreliable(Control::Ping(proto::Ping { timestamp_us: 1_000_000 })),
        unreliable(Control::Pong(proto::Pong { timestamp_us: 1_000_000, received_us: 5, transmitted_us: 6 })),
        unreliable(Control::Close(proto::Close { code: 1, message: "bye".into() })),
        reliable(Control::KeyUpdate(proto::KeyUpdate { generation: 1, first_packet_id: 100 })),
        reliable(Control::KeyUpdateAck(proto::KeyUpdateAck { generation: 1 })),
        reliable(Control::Clipboard(proto::ClipboardMessage { text: "text".repeat(600) })),
        reliable(Control::Pairing(proto::Pairing { step: 1, data: vec![1; 34] })),
        step(
            Verb::Body,
            &proto::Message { body: Some(Body::ReliableAck(proto::ReliableAck { next_sequence: 1 })) }
                .encode_to_vec(),
        ),
    ]
}

pub(super) fn host_seeds() -> Vec<Vec<u8>> {
    let mut others = common();
    others.extend(super::input_batch::messages().iter().map(|m| step(Verb::Body, m)));
    others.extend([
        unreliable(Control::StatsReport(proto::StatsReport {
            period_ms: 100,
            received_packets: 90,
            lost_packets: 3,
            rtt_us: 20_000,
            jitter_us: 500,
        })),
        unreliable(Control::Nack(proto::Nack { packet_ids: vec![0, 1, 2, 3, 4] })),
        unreliable(Control::FrameAck(proto::FrameAck { frame_id: 1 })),
        unreliable(Control::KeyframeRequest(proto::KeyframeRequest { newest_frame_id: 1 })),
        unreliable(Control::ReferenceInvalidation(proto::ReferenceInvalidation { last_valid_frame_id: 0 })),
        unreliable(Control::EncoderControl(proto::EncoderControl { skip_frames: 2, max_fps: 0 })),
        unreliable(Control::ArrivalFeedback(proto::ArrivalFeedback {
            first_packet_id: 0,
            report_us: 1_000_500,
            arrivals: vec![0, 1, 0, 2, 0xff, 0xff],
            marked_packets: 1,
        })),
        reliable(Control::SelectMonitor(proto::SelectMonitor { monitor_id: 1 })),
        reliable(Control::DisplayModeRequest(proto::DisplayModeRequest { width: 800, height: 600, fps: 30 })),
    ]);
    let opening = [step(Verb::Body, &[]), step(Verb::Own, &[1; 60]), step(Verb::Own, &[2; 60])];
    sessions(&opening, others)
}

pub(super) fn client_seeds() -> Vec<Vec<u8>> {
    let mut others = common();
    others.extend(super::receiver::messages().iter().map(|m| step(Verb::Body, m)));
    others.extend([
        unreliable(Control::InputAck(proto::InputAck { sequence: 3 })),
        unreliable(Control::CongestionControl(proto::CongestionControl {
            target_bitrate_kbps: 900,
            target_fps: 30,
        })),
        unreliable(Control::CursorPosition(proto::CursorPosition {
            x: 1,
            y: 2,
            visible: true,
            ..Default::default()
        })),
        reliable(Control::CursorShape(proto::CursorShape {
            serial: 1,
            width: 2,
            height: 2,
            bgra: vec![9; 16],
            ..Default::default()
        })),
        reliable(Control::MonitorList(proto::MonitorList {
            monitors: vec![proto::Monitor { id: 1, name: "DP-1".into(), width: 640, height: 480 }],
        })),
        reliable(Control::AudioFormat(proto::AudioFormat {
            channels: 2,
            frame_us: 5_000,
            sample_rate_hz: 48_000,
        })),
    ]);
    sessions(&[hello_ack(), step(Verb::Own, &[61, 63, 60])], others)
}

pub(super) fn outsider_seeds() -> Vec<Vec<u8>> {
    let handshake = |kind, body: &[u8]| {
        let header = HandshakeHeader { kind, handshake_id: HandshakeId(9), packet_id: PacketId(0) };
        step(Verb::Raw, &[&header.encode()[..], body].concat())
    };
    let transport = TransportHeader { alias: Alias(55), packet_id: PacketId(1) }.encode();
    [
        handshake(HandshakeKind::Msg1, &[&[1, 0, 0, 40][..], &[4; 40]].concat()),
        handshake(HandshakeKind::Msg1, &[&[2, 16, 0, 90][..], &[4; 120]].concat()),
        handshake(HandshakeKind::Msg2, &[5; 200]),
        handshake(HandshakeKind::Msg3, &[6; 200]),
        handshake(HandshakeKind::Retry, &[7; 16]),
        handshake(HandshakeKind::Reject, &[1]),
        step(Verb::Raw, &[&transport[..], &[9; 60]].concat()),
    ]
    .iter()
    .map(|step| script([&step[..]]))
    .collect()
}

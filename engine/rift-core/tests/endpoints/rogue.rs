//! Peers with genuine keys that send whatever they like.

use std::net::SocketAddr;

use prost::Message as _;
use rift_core::endpoint::{ClientEndpoint, Ecn, HostEvent, Path, Purpose};
use rift_core::input::InputEvent;
use rift_core::message::proto::control_message::Control;
use rift_core::message::proto::{self, message::Body};
use rift_core::session::{CloseReason, Features, Violation};
use rift_core::wire::{
    HANDSHAKE_HEADER_LEN, HandshakeHeader, HandshakeKind, Header, TRANSPORT_HEADER_LEN, TransportHeader,
};
use rift_core::{Alias, HandshakeId, PacketId, Timestamp};
use rift_crypto::{Initiator, MAX_MESSAGE_LEN, OpenKey, PacketKeys, Responder, SealKey, Suite};

use crate::world::{Datagram, World, client_config, host_address, host_config, identity};

/// Seals anything.
struct Rogue {
    seal: SealKey,
    open: OpenKey,
    alias: Alias,
    next_id: u64,
}

impl Rogue {
    fn packet(&mut self, body: &[u8]) -> Vec<u8> {
        let header = TransportHeader { alias: self.alias, packet_id: PacketId(self.next_id) }.encode();
        let mut sealed = body.to_vec();
        let tag = self.seal.seal_in_place(self.next_id, &header, &mut sealed);
        self.next_id += 1;
        [&header[..], &sealed, &tag].concat()
    }
}

fn address() -> SocketAddr {
    "10.66.6.6:666".parse().unwrap()
}

fn control(control: Control) -> Vec<u8> {
    let control = proto::ControlMessage { control: Some(control) };
    proto::Message { body: Some(Body::Control(control)) }.encode_to_vec()
}

fn reliable(sequence: u64, control: Control) -> Vec<u8> {
    let data = proto::ControlMessage { control: Some(control) }.encode_to_vec();
    proto::Message { body: Some(Body::Reliable(proto::ReliableSegment { sequence, more: false, data })) }
        .encode_to_vec()
}

fn handshake_datagram(kind: HandshakeKind, body: &[u8], pad_to: usize) -> Vec<u8> {
    let header = HandshakeHeader { kind, handshake_id: HandshakeId(6), packet_id: PacketId(0) };
    let mut datagram = [&header.encode()[..], body].concat();
    datagram.resize(datagram.len().max(pad_to), 0);
    datagram
}

/// Lets client 1, which the host allows, connect by hand.
fn rogue_client(world: &mut World, hello: proto::Hello) -> Rogue {
    let mut buf = [0; MAX_MESSAGE_LEN];
    let mut initiator = Initiator::xx(&identity(1), Suite::supported()).unwrap();
    let len = initiator.write_msg1(b"", &mut buf).unwrap();
    let body = [&[1, 0][..], &(len as u16).to_be_bytes(), &buf[..len]].concat();
    let msg2 = exchange(world, handshake_datagram(HandshakeKind::Msg1, &body, 1200));
    let msg2 = initiator.read_msg2(&msg2[0][HANDSHAKE_HEADER_LEN..]).unwrap();
    let alias = Alias(u32::from_be_bytes(msg2.app[..4].try_into().unwrap()));
    let app = [&77u32.to_be_bytes()[..], &hello.encode_to_vec()].concat();
    let len = initiator.write_msg3(&app, &mut buf).unwrap();
    exchange(world, handshake_datagram(HandshakeKind::Msg3, &buf[..len], 0));
    let PacketKeys { seal, open } = initiator.into_keys().unwrap().keys;
    Rogue { seal, open, alias, next_id: 0 }
}

fn streaming_hello() -> proto::Hello {
    proto::Hello { supported_codecs: vec![1], features: Features::ALL.bits(), ..Default::default() }
}

/// Gives the host a datagram and takes what it sends back.
fn exchange(world: &mut World, bytes: Vec<u8>) -> Vec<Vec<u8>> {
    world.deliver(Datagram { at: world.now, from: address(), to: host_address(), bytes });
    let mut buf = vec![0; 65_536];
    let mut sent = vec![];
    while let Some(t) = world.host.poll_transmit(world.now, &mut buf) {
        sent.extend(buf[..t.len].chunks(t.segment_len).map(<[u8]>::to_vec));
    }
    world.host_events.extend(core::iter::from_fn(|| world.host.poll_event()));
    sent
}

/// Numbers that programmers forget.
fn number(rng: &mut fastrand::Rng) -> u64 {
    match rng.u8(..6) {
        0 => 0,
        1 => u64::MAX,
        2 => u64::MAX - rng.u64(..70_000),
        3 => 1 << rng.u8(..64),
        4 => rng.u64(..100),
        _ => rng.u64(..),
    }
}

fn hostile_body(rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut n = || number(rng);
    let (a, b, c, d) = (n(), n(), n(), n());
    let small = |v: u64| v as u32;
    let bytes = vec![a as u8; (b % 1000) as usize];
    let body = match rng.u8(..16) {
        0 => return control(Control::Ping(proto::Ping { timestamp_us: a })),
        1 => {
            return control(Control::Pong(proto::Pong {
                timestamp_us: a,
                received_us: b,
                transmitted_us: c,
            }));
        }
        2 => {
            return control(Control::StatsReport(proto::StatsReport {
                period_ms: small(a),
                received_packets: small(b),
                lost_packets: small(c),
                rtt_us: d,
                jitter_us: small(a),
            }));
        }
        3 => {
            return control(Control::Nack(proto::Nack {
                packet_ids: (0..b % 900).map(|i| a.wrapping_add(i * (c % 3))).collect(),
            }));
        }
        4 => return control(Control::FrameAck(proto::FrameAck { frame_id: a })),
        5 => return control(Control::KeyframeRequest(proto::KeyframeRequest { newest_frame_id: a })),
        6 => {
            let last_valid_frame_id = a;
            return control(Control::ReferenceInvalidation(proto::ReferenceInvalidation {
                last_valid_frame_id,
            }));
        }
        7 => {
            return control(Control::ArrivalFeedback(proto::ArrivalFeedback {
                first_packet_id: a,
                report_us: b,
                arrivals: bytes,
                marked_packets: c as u32,
            }));
        }
        8 => return control(Control::InputAck(proto::InputAck { sequence: a })),
        9 => {
            let x = f32::from_bits(a as u32);
            Body::InputBatch(proto::InputBatch {
                first_sequence: b,
                events: vec![
                    proto::InputMessage {
                        timestamp_us: c,
                        event: Some(proto::input_message::Event::MouseMove(proto::MouseMove { x, y: x })),
                    };
                    (d % 70) as usize
                ],
                pressed_keys: vec![small(c); (a % 60) as usize],
                pressed_buttons: small(d),
            })
        }
        10 => Body::Media(proto::MediaMessage {
            media: Some(proto::media_message::Media::Video(proto::VideoChunk {
                frame_id: a,
                chunk_index: small(b),
                chunk_count: small(c),
                timestamp_us: d,
                keyframe: a & 1 == 0,
                payload: bytes,
                capture_us: small(d),
                encode_us: small(c),
                slice_index: small(b) % 40,
                last_slice: b & 1 == 0,
                reference_distance: small(a),
            })),
        }),
        11 => Body::Media(proto::MediaMessage {
            media: Some(proto::media_message::Media::Fec(proto::FecPacket {
                group_id: a,
                first_packet_id: b,
                shard_count: small(c),
                parity_index: small(d),
                payload: bytes,
                shard_lengths: vec![small(a), small(c)],
                parity_count: small(b),
                frame_id: d,
                code: small(c) % 3,
                runs: vec![small(a) % 70, small(d) % 130],
            })),
        }),
        12 => Body::Media(proto::MediaMessage {
            media: Some(proto::media_message::Media::Audio(proto::AudioPacket {
                timestamp_us: a,
                payload: bytes,
            })),
        }),
        13 => Body::Reliable(proto::ReliableSegment { sequence: a, more: b & 1 == 0, data: bytes }),
        14 => return control(Control::CursorPosition(proto::CursorPosition::default())),
        _ => return (0..rng.usize(..200)).map(|_| rng.u8(..)).collect(),
    };
    proto::Message { body: Some(body) }.encode_to_vec()
}

/// Proves R-ROB-1 and R-MSG-4 for a peer with genuine keys: no panic, bounded events, only valid input, and the
/// host still serves.
#[test]
fn a_client_that_sends_anything_hurts_nobody() {
    for seed in 0..40 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut world = World::new(host_config(&[1, 2]));
        let mut rogue = rogue_client(&mut world, streaming_hello());
        assert!(world.host.session().is_some());
        for n in 0..400u64 {
            let packet = rogue.packet(&hostile_body(&mut rng));
            exchange(&mut world, packet);
            if n % 20 == 0 {
                world.submit_frame_quietly(n / 20, 20_000, 2);
            }
            world.now = world.now.plus_micros(rng.u64(..3000));
            world.host.handle_timeout(world.now);
        }
        for event in &world.host_events {
            if let HostEvent::Input(event) = event {
                assert!(event.is_valid(), "{event:?}");
            }
        }
        world.run_ms(4000);
        world.connect(client_config(2, Purpose::Stream));
        world.run_ms(300);
        assert!(world.is_connected(0), "seed {seed}");
    }
}

/// The same the other way round: a host that sends anything.
#[test]
fn a_host_that_sends_anything_hurts_nobody() {
    for seed in 0..40 {
        let mut rng = fastrand::Rng::with_seed(1000 + seed);
        let mut now = Timestamp::from_micros(1_000_000_000);
        let mut client = ClientEndpoint::new(client_config(1, Purpose::Stream), now);
        let mut rogue = rogue_host(&mut client, now);
        let ack = proto::HelloAck {
            accepted: true,
            fps: u32::MAX,
            initial_bitrate_kbps: u32::MAX,
            session_id: vec![1; 3],
            features: u64::MAX,
            ..Default::default()
        };
        give(&mut client, now, rogue.packet(&reliable(0, Control::HelloAck(ack))));
        assert!(client.submit_input(now, InputEvent::Key { keycode: 1, pressed: true }).is_ok());
        let mut buf = vec![0; 65_536];
        for _ in 0..600 {
            give(&mut client, now, rogue.packet(&hostile_body(&mut rng)));
            while client.poll_slice(now).is_some() {}
            while client.poll_audio().is_some() {}
            client.handle_timeout(now);
            let mut sent = 0;
            while client.poll_transmit(now, &mut buf).is_some() {
                sent += 1;
                assert!(sent < 100, "the client sends without end");
            }
            now = now.plus_micros(rng.u64(..3000));
        }
    }
}

/// Proves R-SEAL-7: a client that never acknowledges the host's key gets nothing sealed from the announced id on,
/// video stops, and the session ends.
#[test]
fn a_client_that_never_acknowledges_a_key_is_let_go() {
    let mut config = host_config(&[1]);
    config.link.rekey_packets = 2000;
    let mut world = World::new(config);
    let mut rogue = rogue_client(&mut world, streaming_hello());
    let mut announced = None;
    let mut newest = 0;
    let mut next_reliable = 0;
    world.tap = Some(vec![]);
    for n in 0..3000u64 {
        world.submit_frame_quietly(n, 30_000, 1);
        let mut received: Vec<_> = world.tap.replace(vec![]).unwrap().into_iter().map(|d| d.bytes).collect();
        world.network.clear();
        let ping = control(Control::Ping(proto::Ping { timestamp_us: n + 1 }));
        received.extend(exchange(&mut world, rogue.packet(&ping)));
        for mut datagram in received {
            let Ok(Header::Transport(header)) = Header::decode(&datagram) else { continue };
            newest = newest.max(header.packet_id.0);
            let (head, sealed) = datagram.split_first_chunk_mut::<TRANSPORT_HEADER_LEN>().unwrap();
            let body =
                rogue.open.open_in_place(header.packet_id.0, head, sealed).expect("sealed with the old key");
            let Ok(message) = proto::Message::decode(&body[..]) else { panic!("not a message") };
            if let Some(Body::Reliable(segment)) = message.body {
                let content = proto::ControlMessage::decode(&segment.data[..]).unwrap();
                if let Some(Control::KeyUpdate(update)) = content.control {
                    announced = Some(update.first_packet_id);
                } else {
                    next_reliable = next_reliable.max(segment.sequence + 1);
                }
            }
        }
        let ack = proto::ReliableAck { next_sequence: next_reliable };
        let ack = proto::Message { body: Some(Body::ReliableAck(ack)) }.encode_to_vec();
        let ack = rogue.packet(&ack);
        exchange(&mut world, ack);
        world.now = world.now.plus_micros(10_000);
        world.host.handle_timeout(world.now);
        if world.host.session().is_none() {
            break;
        }
    }
    let announced = announced.expect("the host announced a key");
    assert!(newest < announced, "{newest} sealed, {announced} announced");
    world.drain();
    assert_eq!(world.ended(), [(identity(1).wavry_id(), CloseReason::KeyExhausted)]);
}

/// A key update out of turn, and pairing messages outside of pairing, end the session with the peer's fault.
#[test]
fn what_no_honest_peer_sends_ends_the_session() {
    let update =
        |generation, first_packet_id| Control::KeyUpdate(proto::KeyUpdate { generation, first_packet_id });
    let cases = [
        (update(2, 5000), Violation::KeyUpdate),
        (update(1, 0), Violation::KeyUpdate),
        (Control::KeyUpdateAck(proto::KeyUpdateAck { generation: 1 }), Violation::KeyUpdate),
        (Control::Pairing(proto::Pairing { step: 1, data: vec![1; 34] }), Violation::OutOfPhase),
    ];
    for (message, violation) in cases {
        let mut world = World::new(host_config(&[1]));
        let mut rogue = rogue_client(&mut world, streaming_hello());
        let packet = rogue.packet(&reliable(0, message));
        exchange(&mut world, packet);
        assert_eq!(world.ended(), [(identity(1).wavry_id(), CloseReason::Protocol(violation))]);
    }
}

/// A published peer sends small things without the means to repeat them.
#[test]
fn published_messages_are_understood_unreliably() {
    let mut world = World::new(host_config(&[1]));
    let mut rogue = rogue_client(&mut world, streaming_hello());
    for message in [
        Control::SelectMonitor(proto::SelectMonitor { monitor_id: 5 }),
        Control::Clipboard(proto::ClipboardMessage { text: "hi".into() }),
    ] {
        let packet = rogue.packet(&control(message));
        exchange(&mut world, packet);
    }
    assert!(world.host_events.contains(&HostEvent::MonitorSelected(5)));
    assert!(world.host_events.contains(&HostEvent::Clipboard("hi".into())));
}

/// An acknowledgement of what was never sent is dropped, so that no encoder predicts from it.
#[test]
fn frames_that_were_not_sent_cannot_be_acknowledged() {
    let mut world = World::new(host_config(&[1]));
    let mut rogue = rogue_client(&mut world, streaming_hello());
    let packet = rogue.packet(&control(Control::FrameAck(proto::FrameAck { frame_id: 1_000_000 })));
    exchange(&mut world, packet);
    assert!(world.host_drops.contains(&rift_core::DropReason::Unexpected), "{:?}", world.host_drops);
    assert!(!world.host_events.iter().any(|e| matches!(e, HostEvent::FrameAcknowledged(_))));
}

/// Proves R-REC-16: a request that comes too late for a resend is answered by a frame that does without, and those
/// behind it predict from what the client is known to have.
#[test]
fn what_is_too_old_to_be_sent_again_is_gone_past() {
    let mut world = World::new(host_config(&[1]));
    let mut rogue = rogue_client(&mut world, streaming_hello());
    let mut say = |world: &mut World, message: Control| {
        let packet = rogue.packet(&control(message));
        exchange(world, packet);
    };
    for id in 0..3 {
        world.submit_frame_quietly(id, 3_000, 1);
    }
    say(&mut world, Control::FrameAck(proto::FrameAck { frame_id: 1 }));
    // Everything that has left, whatever it carried: what the acknowledged frames had is not needed.
    let all = Control::Nack(proto::Nack { packet_ids: (0..40).collect() });
    let last_valid = rift_core::FrameId(1);
    let gone_past = |world: &World| {
        let told = |e: &&HostEvent| **e == HostEvent::ReferenceInvalidated { last_valid };
        world.host_events.iter().filter(told).count()
    };
    world.run_ms(50);
    say(&mut world, all.clone());
    assert_eq!(gone_past(&world), 0, "in time, it is sent again");
    world.run_ms(400);
    say(&mut world, all.clone());
    assert_eq!(gone_past(&world), 1);
    say(&mut world, all);
    assert_eq!(gone_past(&world), 1, "the next frame does without it");
    world.submit_frame_quietly(3, 3_000, 1);
    exchange(&mut world, rogue.packet(&[]));
    assert!(world.host_events.contains(&HostEvent::ReferencePreferred { known: last_valid }));
}

/// Proves R-MSG-2: unknown fields, inside of known messages and instead of them, are skipped; what is known
/// counts.
#[test]
fn unknown_fields_are_skipped() {
    // Field 4000, a string, and field 4001, a number.
    const UNKNOWN: [u8; 10] = [0x82, 0xfa, 0x01, 2, b'h', b'i', 0x88, 0xfa, 0x01, 7];
    let mut world = World::new(host_config(&[1]));
    let mut rogue = rogue_client(&mut world, streaming_hello());
    let request = proto::ReferenceInvalidation { last_valid_frame_id: 5 }.encode_to_vec();
    let request = [&request[..], &UNKNOWN].concat();
    let in_control = [&[0x3a, request.len() as u8][..], &request, &UNKNOWN].concat();
    let in_message = [&UNKNOWN[..], &[0x0a, in_control.len() as u8], &in_control, &UNKNOWN].concat();
    for body in [&UNKNOWN[..], &in_message, &[]] {
        let packet = rogue.packet(body);
        exchange(&mut world, packet);
    }
    assert!(world.host_drops.is_empty(), "{:?}", world.host_drops);
    let last_valid = rift_core::FrameId(5);
    assert!(world.host_events.contains(&HostEvent::ReferenceInvalidated { last_valid }));
}

/// A Hello of another protocol version is refused, with the reason.
#[test]
fn another_version_is_refused() {
    let mut world = World::new(host_config(&[1]));
    let hello = proto::Hello { protocol_version: 9, ..streaming_hello() };
    rogue_client(&mut world, hello);
    assert!(matches!(
        world.host_events[..],
        [HostEvent::ClientRefused { reason: proto::RefusalReason::VersionMismatch, .. }]
    ));
}

fn give(client: &mut ClientEndpoint, now: Timestamp, mut bytes: Vec<u8>) {
    let _ = client.handle_datagram(now, Path::to(host_address()), Ecn::NotEct, &mut bytes);
    while client.poll_event().is_some() {}
}

/// Answers a client's handshake by hand.
fn rogue_host(client: &mut ClientEndpoint, now: Timestamp) -> Rogue {
    let mut buf = vec![0; 65_536];
    let len = client.poll_transmit(now, &mut buf).unwrap().len;
    let Ok(Header::Handshake(header)) = Header::decode(&buf[..len]) else { panic!() };
    let body = &buf[HANDSHAKE_HEADER_LEN..len];
    let noise_len = usize::from(u16::from_be_bytes([body[2], body[3]]));
    let mut responder = Responder::xx(&identity(100)).unwrap();
    let msg1 = responder.read_msg1(&body[4..4 + noise_len]).unwrap();
    let suite = Suite::choose(Suite::supported(), &msg1.suites).unwrap();
    let mut msg2 = [0; MAX_MESSAGE_LEN];
    let len = responder.write_msg2(suite, &9u32.to_be_bytes(), &mut msg2).unwrap();
    let answer = HandshakeHeader { kind: HandshakeKind::Msg2, ..header };
    give(client, now, [&answer.encode()[..], &msg2[..len]].concat());
    let len = client.poll_transmit(now, &mut buf).unwrap().len;
    let msg3 = responder.read_msg3(&buf[HANDSHAKE_HEADER_LEN..len]).unwrap();
    let alias = Alias(u32::from_be_bytes(msg3.app[..4].try_into().unwrap()));
    let PacketKeys { seal, open } = responder.into_keys().unwrap().keys;
    Rogue { seal, open, alias, next_id: 0 }
}

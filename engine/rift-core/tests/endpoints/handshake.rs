//! Connecting: both handshakes, and everybody who tries to disturb them.

use rift_core::endpoint::{ClientEvent, ExpectedHost, HostEvent, Purpose, Refusal, Via};
use rift_core::message::proto::{Codec, RefusalReason};
use rift_core::session::{CloseCode, CloseReason, Features};
use rift_core::wire::{HANDSHAKE_HEADER_LEN, HandshakeKind, Header};

use crate::world::{Fate, World, client_config, host_config, identity, known_host};

fn via(world: &World) -> Option<Via> {
    world.clients[0]
        .events
        .iter()
        .find_map(|e| if let ClientEvent::Connected { via, .. } = e { Some(*via) } else { None })
}

/// Proves R-HAND-1, R-HAND-15 and R-SESS-1: with nothing known the longer handshake connects in one and a half
/// round trips, both sides know each other, and the monitors follow.
#[test]
fn xx_connects() {
    let mut world = World::with_client();
    world.run_ms(21);
    assert_eq!(via(&world), Some(Via::Xx));
    let connected = |e: &ClientEvent| {
        if let ClientEvent::Connected { peer, stream, .. } = e { Some((*peer, stream.clone())) } else { None }
    };
    let (peer, stream) = world.clients[0].events.iter().find_map(connected).unwrap();
    assert_eq!(peer.id, identity(100).wavry_id());
    assert_eq!(peer.static_public, identity(100).static_public());
    assert_eq!(stream.resolution.unwrap().width, 1280);
    assert!(matches!(&world.host_events[0], HostEvent::SessionStarted { peer, name, .. }
        if *peer == identity(1).wavry_id() && name == "client 1"));
    assert!(world.clients[0].events.iter().any(|e| matches!(e, ClientEvent::Monitors(m) if m[0].id == 3)));
}

#[test]
fn ik_connects_where_the_host_is_known() {
    let mut world = World::new(host_config(&[1]));
    let mut config = client_config(1, Purpose::Stream);
    config.expect = Some(known_host());
    world.connect(config);
    world.run_ms(21);
    assert_eq!(via(&world), Some(Via::Ik));
}

/// A host whose key changed rejects the short handshake; the long one then shows that it is another.
#[test]
fn ik_to_a_host_with_another_key_falls_back_and_fails() {
    let mut world = World::new(host_config(&[1]));
    let mut config = client_config(1, Purpose::Stream);
    let other = identity(55);
    config.expect = Some(ExpectedHost { id: other.wavry_id(), static_public: Some(other.static_public()) });
    world.connect(config);
    world.run_ms(100);
    assert_eq!(world.closed(0), [CloseReason::WrongPeer]);
    assert!(world.host_events.is_empty());
}

/// Proves R-HAND-13.
#[test]
fn xx_to_another_host_than_expected_ends() {
    let mut world = World::new(host_config(&[1]));
    let mut config = client_config(1, Purpose::Stream);
    config.expect = Some(ExpectedHost { id: identity(55).wavry_id(), static_public: None });
    world.connect(config);
    world.run_ms(5000);
    assert_eq!(world.closed(0), [CloseReason::WrongPeer]);
    assert!(world.host_events.is_empty(), "the host learned nothing of the client");
}

/// Proves R-HAND-9: five tries from 100 ms with doubling, then the attempt is over.
#[test]
fn nobody_answers() {
    let mut world = World::with_client();
    let start = world.now;
    world.tap = Some(vec![]);
    world.fault = Box::new(|_| Fate::Lose);
    world.run_ms(10_000);
    let sent: Vec<_> =
        world.tap.take().unwrap().iter().map(|d| d.at.micros_since(start) / 1000 - 5).collect();
    assert_eq!(sent, [0, 100, 300, 700, 1500]);
    assert_eq!(world.closed(0), [CloseReason::Unreachable]);
    assert!(world.clients[0].endpoint.is_drained());
}

fn kind_of(bytes: &[u8]) -> Option<HandshakeKind> {
    match Header::decode(bytes) {
        Ok(Header::Handshake(header)) => Some(header.kind),
        _ => None,
    }
}

/// Proves R-HAND-9 and R-HAND-10: whichever handshake message is lost, it comes again, is answered with the same
/// bytes, and makes one session.
#[test]
fn any_lost_handshake_message_is_repeated() {
    for expect in [None, Some(known_host())] {
        for lost in [HandshakeKind::Msg1, HandshakeKind::Msg2, HandshakeKind::Msg3] {
            let mut world = World::new(host_config(&[1]));
            let mut config = client_config(1, Purpose::Stream);
            config.expect = expect;
            world.connect(config);
            world.tap = Some(vec![]);
            let mut is_lost = false;
            world.fault = Box::new(move |d| {
                if kind_of(&d.bytes) == Some(lost) && !core::mem::replace(&mut is_lost, true) {
                    Fate::Lose
                } else {
                    Fate::Deliver
                }
            });
            world.run_ms(400);
            assert!(world.is_connected(0), "{lost:?} {expect:?}");
            let started = world.host_events.iter().filter(|e| matches!(e, HostEvent::SessionStarted { .. }));
            assert_eq!(started.count(), 1);
            let tap = world.tap.take().unwrap();
            for kind in [HandshakeKind::Msg1, HandshakeKind::Msg2, HandshakeKind::Msg3] {
                let mut bodies: Vec<_> = tap
                    .iter()
                    .filter(|d| kind_of(&d.bytes) == Some(kind))
                    .map(|d| d.bytes[HANDSHAKE_HEADER_LEN..].to_vec())
                    .collect();
                bodies.dedup();
                assert!(bodies.len() <= 1, "{kind:?} came in two versions");
            }
        }
    }
}

/// Duplicated, delayed handshake messages make one session.
#[test]
fn duplicates_make_one_session() {
    let mut world = World::with_client();
    world.fault = Box::new(|_| Fate::Twice);
    world.run_ms(500);
    assert!(world.is_connected(0));
    let started = world.host_events.iter().filter(|e| matches!(e, HostEvent::SessionStarted { .. })).count();
    assert_eq!(started, 1);
}

/// Proves R-HAND-16: somebody who is not on the list gets a reason and nothing else.
#[test]
fn a_stranger_is_told_to_pair() {
    for expect in [None, Some(known_host())] {
        let mut world = World::new(host_config(&[2]));
        let mut config = client_config(1, Purpose::Stream);
        config.expect = expect;
        world.connect(config);
        world.run_ms(2000);
        assert!(world.clients[0].events.contains(&ClientEvent::PairingRequired));
        assert_eq!(world.closed(0), [CloseReason::Remote(CloseCode::Refused)]);
        assert!(!world.host_events.iter().any(|e| matches!(e, HostEvent::SessionStarted { .. })));
        assert!(world.host.is_drained());
    }
}

/// Proves R-SESS-8.
#[test]
fn while_one_streams_another_is_refused_and_the_same_one_takes_over() {
    let mut world = World::new(host_config(&[1, 2]));
    world.connect(client_config(1, Purpose::Stream));
    world.run_ms(100);
    world.connect(client_config(2, Purpose::Stream));
    world.run_ms(300);
    assert!(world.clients[1].events.contains(&ClientEvent::Refused(Refusal::Host(RefusalReason::Busy))));
    assert!(world.ended().is_empty() && world.closed(0).is_empty());

    let mut again = client_config(1, Purpose::Stream);
    again.seed = [77; 32];
    world.connect(again);
    world.run_ms(300);
    assert!(world.is_connected(2));
    let replaced = CloseReason::Local(CloseCode::Replaced);
    assert_eq!(world.ended(), [(identity(1).wavry_id(), replaced)]);
    assert_eq!(world.closed(0), [CloseReason::Remote(CloseCode::Replaced)]);
}

#[test]
fn a_client_without_the_hosts_codec_is_refused() {
    let mut world = World::new(host_config(&[1]));
    let mut config = client_config(1, Purpose::Stream);
    config.codecs = vec![Codec::Av1];
    world.connect(config);
    world.run_ms(300);
    let refused = ClientEvent::Refused(Refusal::Host(RefusalReason::NoCommonCodec));
    assert!(world.clients[0].events.contains(&refused));
}

/// A client that only measures gets no stream and disturbs none.
#[test]
fn a_ping_measures_beside_a_running_stream() {
    let mut world = World::new(host_config(&[1, 2]));
    world.connect(client_config(1, Purpose::Stream));
    world.run_ms(100);
    world.connect(client_config(2, Purpose::Ping));
    world.run_ms(1000);
    assert!(world.is_connected(1));
    let samples: Vec<_> = world.clients[1]
        .events
        .iter()
        .filter_map(|e| if let ClientEvent::RttSample(us) = e { Some(*us) } else { None })
        .collect();
    assert!(samples.len() >= 9 && samples.iter().all(|&us| us == 10_000), "{samples:?}");
    assert!(world.ended().is_empty() && world.closed(0).is_empty());
}

/// Proves R-SESS-2: the host takes away what it does not understand, and adds nothing.
#[test]
fn features_are_what_both_understand() {
    let mut config = host_config(&[1]);
    config.features = Features::ALL.without(Features::CURSOR);
    let mut world = World::new(config);
    let mut config = client_config(1, Purpose::Stream);
    config.features = Features::ALL.without(Features::SLICES);
    world.connect(config);
    world.run_ms(100);
    let common = Features::ALL.without(Features::CURSOR).without(Features::SLICES);
    assert_eq!(world.host.session().unwrap().features, common);
    assert_eq!(world.clients[0].endpoint.session().unwrap().features, common);
}

/// Proves R-HAND-4: handshakes of two clients behind one address do not mix.
#[test]
fn two_clients_behind_one_address_are_kept_apart() {
    let mut world = World::new(host_config(&[1, 2]));
    world.connect(client_config(1, Purpose::Stream));
    world.connect(client_config(2, Purpose::Ping));
    // The host sees both at the first one's address; each gets all that comes there.
    let shared = world.clients[0].address;
    world.clients[1].address = shared;
    world.is_shared = true;
    world.run_ms(300);
    assert!(world.is_connected(0) && world.is_connected(1));
}

/// Video that overtakes HelloAck waits for it.
#[test]
fn video_that_comes_before_the_answer_waits() {
    let mut world = World::with_client();
    while world.host.session().is_none() {
        world.run_ms(1);
    }
    // What the host said so far is lost: its first reliable message is repeated later.
    world.network.retain(|d| d.from != world.host_address);
    world.submit_frame(0, 20_000, 2);
    world.run_ms(8);
    let video = world.clients[0].endpoint.receiver_counters().unwrap().chunks;
    assert!(video > 15 && !world.is_connected(0) && world.clients[0].slices.is_empty());
    world.run_ms(300);
    assert!(world.is_connected(0));
    assert_eq!(world.clients[0].slices.len(), 2);
}

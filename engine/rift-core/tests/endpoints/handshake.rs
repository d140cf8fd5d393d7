//! Connecting: both handshakes, and everybody who tries to disturb them.

use rift_core::endpoint::{ClientEvent, ExpectedHost, HostEvent, Purpose, Via};
use rift_core::session::CloseReason;

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

//! A PIN carried from the host's screen to the client.

use rift_core::Timestamp;
use rift_core::endpoint::{ClientEvent, HostEvent, Purpose, Refusal};
use rift_core::message::proto::RefusalReason;
use rift_crypto::Pin;

use crate::world::{World, client_config, host_config, identity};

fn pin(text: &str) -> Pin {
    text.parse().unwrap()
}

fn pairing_world() -> World {
    let mut world = World::new(host_config(&[]));
    world.host.open_pairing(pin("123456"), Timestamp::NEVER).unwrap();
    world
}

/// Proves R-PAIR-5: afterwards both know each other, and the client may stream, by the short handshake.
#[test]
fn the_right_pin_pairs() {
    let mut world = pairing_world();
    world.connect(client_config(1, Purpose::Pair(pin("123 456"))));
    world.run_ms(300);
    let paired = |e: &ClientEvent| if let ClientEvent::Paired { host } = e { Some(*host) } else { None };
    let host = world.clients[0].events.iter().find_map(paired).unwrap();
    assert_eq!((host.id, host.static_public), (identity(100).wavry_id(), identity(100).static_public()));
    let id = identity(1).wavry_id();
    assert!(world.host_events.contains(&HostEvent::Paired { id, name: "client 1".into() }));
    assert!(!world.host.is_pairing(), "pairing mode takes one client");
    assert!(world.clients[0].endpoint.is_drained());

    let mut config = client_config(1, Purpose::Stream);
    config.seed = [66; 32];
    config.expect =
        Some(rift_core::endpoint::ExpectedHost { id: host.id, static_public: Some(host.static_public) });
    world.connect(config);
    world.run_ms(100);
    assert!(world.is_connected(1));
}

/// Proves R-PAIR-3: each wrong PIN is told to both sides, and the third ends pairing mode, also for the right
/// PIN.
#[test]
fn three_wrong_pins_end_pairing_mode() {
    let mut world = pairing_world();
    for (n, left) in [(1, 2), (2, 1), (3, 0)] {
        let client = world.connect(client_config(n, Purpose::Pair(pin("654321"))));
        world.run_ms(1000);
        assert!(world.clients[client].events.contains(&ClientEvent::WrongPin { attempts_left: left }));
        assert_eq!(world.closed(client).len(), 1);
        assert!(world.host_events.contains(&HostEvent::PairingFailed { attempts_left: left }));
    }
    assert!(!world.host.is_pairing());
    let client = world.connect(client_config(4, Purpose::Pair(pin("123456"))));
    world.run_ms(1000);
    let refused = ClientEvent::Refused(Refusal::Host(RefusalReason::PairingClosed));
    assert!(world.clients[client].events.contains(&refused));
    assert!(!world.host_events.iter().any(|e| matches!(e, HostEvent::Paired { .. })));
}

/// Proves R-PAIR-4.
#[test]
fn a_host_that_is_not_in_pairing_mode_refuses() {
    let mut world = World::new(host_config(&[1]));
    world.connect(client_config(1, Purpose::Pair(pin("123456"))));
    world.run_ms(1000);
    let refused = ClientEvent::Refused(Refusal::Host(RefusalReason::PairingClosed));
    assert!(world.clients[0].events.contains(&refused));
}

#[test]
fn pairing_mode_ends_with_its_time() {
    let mut world = World::new(host_config(&[]));
    let until = world.now.plus_micros(60_000_000);
    world.host.open_pairing(pin("123456"), until).unwrap();
    world.run_ms(59_999);
    assert!(world.host.is_pairing());
    world.run_ms(2);
    assert!(!world.host.is_pairing());
    assert_eq!(world.host_events, [HostEvent::PairingExpired]);
}

/// Pairing goes on beside a running stream.
#[test]
fn pairing_does_not_disturb_a_stream() {
    let mut world = World::streaming();
    world.host.open_pairing(pin("111222"), Timestamp::NEVER).unwrap();
    world.connect(client_config(2, Purpose::Pair(pin("111222"))));
    world.run_ms(300);
    assert!(world.clients[1].events.iter().any(|e| matches!(e, ClientEvent::Paired { .. })));
    assert!(world.ended().is_empty() && world.closed(0).is_empty());
}

//! Key updates in a running session.

use std::collections::BTreeSet;

use rift_core::PacketId;
use rift_core::endpoint::{HostConfig, Purpose};
use rift_core::input::InputEvent;
use rift_core::wire::Header;

use crate::world::{Fate, World, client_config, host_config};

/// Renews keys every 3000 packets from `first_packet_id` on.
fn world(first_packet_id: u64) -> World {
    let mut config: HostConfig = host_config(&[1]);
    config.link.rekey_packets = 3000;
    config.link.first_packet_id = PacketId(first_packet_id);
    let mut client = client_config(1, Purpose::Stream);
    client.link = config.link.clone();
    let mut world = World::new(config);
    world.connect(client);
    world.run_ms(100);
    assert!(world.is_connected(0));
    world
}

/// Streams `frames` frames with input at each; returns how many slices arrived.
fn stream(world: &mut World, frames: u64) -> usize {
    let before = world.clients[0].slices.len();
    for id in 0..frames {
        world.submit_frame(id, 45_000, 2);
        for step in 0..8u8 {
            let now = world.now;
            let event = InputEvent::MouseMoveRelative { dx: f32::from(step), dy: 1.0 };
            world.clients[0].endpoint.submit_input(now, event).unwrap();
            world.run_ms(2);
        }
    }
    world.run_ms(60);
    world.clients[0].slices.len() - before
}

/// Proves R-SEAL-8 and R-SEAL-3: keys change several times in both directions in the middle of the
/// traffic, packets overtake each other, ids cross 2^32, no frame is lost to it and no id is used twice.
#[test]
fn keys_change_under_full_traffic_without_a_loss() {
    let mut world = world((1 << 32) - 4000);
    world.tap = Some(vec![]);
    let mut n = 0u64;
    world.fault = Box::new(move |_| {
        n += 1;
        Fate::Late(n * 7919 % 3000)
    });
    assert_eq!(stream(&mut world, 500), 1000);
    let (host, client) = (world.host.session().unwrap(), world.clients[0].endpoint.session().unwrap());
    assert!(host.key_generations.0 >= 3, "{:?}", host.key_generations);
    assert!(client.key_generations.0 >= 1, "{:?}", client.key_generations);
    // The receiving side counts a key when it is announced, the sending side when it is in use.
    assert!(client.key_generations.1 - host.key_generations.0 <= 1);
    assert!(host.key_generations.1 - client.key_generations.0 <= 1);
    assert_eq!((host.link.key_waits, client.link.key_waits), (0, 0));
    let mut seen = BTreeSet::new();
    for d in world.tap.take().unwrap() {
        if let Ok(Header::Transport(header)) = Header::decode(&d.bytes) {
            assert!(seen.insert((header.alias.0, header.packet_id)), "{header:?} sealed twice");
        }
    }
    assert!(seen.iter().any(|(_, id)| id.0 > 1 << 32));
}

/// Proves R-SEAL-6 by time: an hour after the session began, and again an hour later.
#[test]
fn keys_change_every_hour() {
    let mut world = World::new(host_config(&[1]));
    let mut config = client_config(1, Purpose::Ping);
    config.link.ping_interval_us = 500_000;
    world.connect(config);
    world.run_ms(100);
    world.run_ms(3_590_000);
    assert_eq!(world.clients[0].endpoint.session().unwrap().key_generations, (0, 0));
    world.run_ms(30_000);
    let announced = world.clients[0].endpoint.session().unwrap().key_generations.1;
    assert_eq!(announced, 1, "the host announced its next key");
    assert!(world.closed(0).is_empty());
}

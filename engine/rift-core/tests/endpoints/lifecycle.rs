//! Ends of sessions, changes of address, and clocks.

use rift_core::Timestamp;
use rift_core::endpoint::{HostEvent, Path, Purpose};
use rift_core::input::InputEvent;
use rift_core::session::{CloseCode, CloseReason};

use crate::world::{Datagram, Fate, World, client_config, host_config, identity};

const KEY_DOWN: InputEvent = InputEvent::Key { keycode: 30, pressed: true };

fn press(world: &mut World) {
    let now = world.client_now(0);
    world.clients[0].endpoint.submit_input(now, KEY_DOWN).unwrap();
    world.run_ms(20);
    assert!(world.host_events.contains(&HostEvent::Input(KEY_DOWN)));
}

fn position(world: &World, wanted: impl Fn(&HostEvent) -> bool) -> usize {
    world.host_events.iter().position(wanted).unwrap()
}

/// Proves R-SESS-5 and R-SESS-6: both sides know why it ended, although two of three messages are lost, and
/// the host lets go of the keys.
#[test]
fn an_end_is_told_with_its_reason() {
    for by_host in [false, true] {
        let mut world = World::streaming();
        press(&mut world);
        let now = world.now;
        let reason = CloseReason::Local(CloseCode::ShuttingDown);
        let mut lost = 0;
        world.fault = Box::new(move |_| {
            lost += 1;
            if lost <= 2 { Fate::Lose } else { Fate::Deliver }
        });
        if by_host {
            world.host.close(now, reason);
        } else {
            world.clients[0].endpoint.close(now, reason);
        }
        world.run_ms(200);
        let remote = CloseReason::Remote(CloseCode::ShuttingDown);
        let (at_host, at_client) = if by_host { (reason, remote) } else { (remote, reason) };
        assert_eq!(world.closed(0), [at_client]);
        assert_eq!(world.ended(), [(identity(1).wavry_id(), at_host)]);
        let release = position(&world, |e| *e == HostEvent::ReleaseAllInput);
        assert!(release < position(&world, |e| matches!(e, HostEvent::SessionEnded { .. })));
        assert!(world.host.is_drained() && world.clients[0].endpoint.is_drained());
        assert!(world.host.session().is_none());
    }
}

/// Proves R-SESS-4 and R-SESS-6: a client that vanishes is noticed within 3 s, its keys are let go, and the
/// next client is served.
#[test]
fn a_vanished_client_makes_room_for_the_next() {
    let mut world = World::new(host_config(&[1, 2]));
    world.connect(client_config(1, Purpose::Stream));
    world.run_ms(100);
    press(&mut world);
    world.clients[0].is_gone = true;
    world.run_ms(2900);
    assert!(world.ended().is_empty());
    world.run_ms(200);
    assert_eq!(world.ended(), [(identity(1).wavry_id(), CloseReason::Vanished)]);
    assert!(world.host_events.contains(&HostEvent::ReleaseAllInput));
    world.connect(client_config(2, Purpose::Stream));
    world.run_ms(100);
    assert!(world.is_connected(1));
    world.submit_frame(0, 5000, 1);
    world.run_ms(20);
    assert_eq!(world.clients[1].slices.len(), 1);
}

#[test]
fn a_vanished_host_is_noticed() {
    let mut world = World::streaming();
    world.fault = Box::new(|d| if d.from.port() == 4810 { Fate::Lose } else { Fate::Deliver });
    world.run_ms(3200);
    assert_eq!(world.closed(0), [CloseReason::Vanished]);
}

/// A client that comes back with a new process takes its place at once, without waiting for the timeout.
#[test]
fn a_restarted_client_does_not_wait() {
    let mut world = World::streaming();
    world.clients[0].is_gone = true;
    let mut config = client_config(1, Purpose::Stream);
    config.seed = [9; 32];
    world.connect(config);
    world.run_ms(100);
    assert!(world.is_connected(1));
}

/// Proves R-SESS-7: the host follows the client to a new address with the first packet from there, and no
/// copy of an older packet moves it back.
#[test]
fn the_session_follows_the_clients_address() {
    let mut world = World::streaming();
    world.tap = Some(vec![]);
    world.run_ms(150);
    let old = world.clients[0].address;
    let new = "10.9.9.9:40000".parse().unwrap();
    world.clients[0].address = new;
    world.run_ms(150);
    assert_eq!(world.host.session().unwrap().path, Path::to(new));
    let tap = world.tap.take().unwrap();
    for copy in tap.iter().filter(|d| d.from == old || d.from == new) {
        world.deliver(Datagram { from: old, ..copy.clone() });
    }
    assert_eq!(world.host.session().unwrap().path, Path::to(new));
    // A packet that was delayed and opens, but is not the newest, does not count either.
    let mut held = vec![];
    world.fault = Box::new(|_| Fate::Late(7_000));
    world.run_ms(100);
    held.append(&mut world.network);
    world.fault = Box::new(|_| Fate::Deliver);
    world.run_ms(300);
    for late in held.into_iter().filter(|d| d.from == new) {
        world.deliver(Datagram { from: old, ..late });
    }
    assert_eq!(world.host.session().unwrap().path, Path::to(new));
    world.submit_frame(0, 5000, 1);
    world.run_ms(50);
    assert_eq!(world.clients[0].slices.len(), 1);
    assert_eq!(world.host.session().unwrap().link.path_changes, 1);
}

/// Proves R-SESS-9: clocks an hour apart; the client knows by how much.
#[test]
fn clocks_need_not_agree() {
    let mut world = World::new(host_config(&[1]));
    world.host_clock_us = 3_600_000_000;
    world.connect(client_config(1, Purpose::Stream));
    world.run_ms(500);
    assert_eq!(world.clients[0].endpoint.clock_offset_us(), Some(3_600_000_000));
    for id in 0..20 {
        world.submit_frame(id, 8000, 1);
        world.run_ms(16);
    }
    world.run_ms(50);
    assert_eq!(world.clients[0].slices.len(), 20);
}

/// Proves R-SESS-10: clocks that jump by an hour, forwards and backwards, on either side, end nothing and stop
/// nothing for long.
#[test]
fn a_clock_that_jumps_does_not_end_the_session() {
    const HOUR_US: i64 = 3_600_000_000;
    for on_host in [false, true] {
        for jump in [HOUR_US, -HOUR_US / 4, 4_000_000, -4_000_000] {
            let mut world = World::new(host_config(&[1]));
            world.now = Timestamp::from_micros(10_000_000_000);
            world.connect(client_config(1, Purpose::Stream));
            world.run_ms(300);
            press(&mut world);
            if on_host {
                world.host_clock_us += jump;
            } else {
                world.clients[0].clock_us += jump;
            }
            world.run_ms(4000);
            assert!(world.ended().is_empty() && world.closed(0).is_empty(), "{on_host} {jump}");
            let up = InputEvent::Key { keycode: 30, pressed: false };
            let now = world.client_now(0);
            world.clients[0].endpoint.submit_input(now, up).unwrap();
            world.run_ms(50);
            assert!(world.host_events.contains(&HostEvent::Input(up)), "{on_host} {jump}");
            let before = world.clients[0].slices.len();
            for id in 0..120 {
                world.submit_frame(id, 4000, 1);
                world.run_ms(16);
            }
            assert!(world.clients[0].slices.len() > before + 60, "{on_host} {jump}");
        }
    }
}

/// Proves R-SESS-3: with nothing to stream, each side is heard of at least every 500 ms, whatever interval is
/// configured.
#[test]
fn a_silent_session_is_kept_alive() {
    let mut config = host_config(&[1]);
    config.link.ping_interval_us = 60_000_000;
    let mut world = World::new(config);
    let mut config = client_config(1, Purpose::Ping);
    config.link.ping_interval_us = 60_000_000;
    world.connect(config);
    world.run_ms(100);
    world.tap = Some(vec![]);
    world.run_ms(10_000);
    let tap = world.tap.take().unwrap();
    for from in [world.host_address, world.clients[0].address] {
        let times: Vec<_> = tap.iter().filter(|d| d.from == from).map(|d| d.at).collect();
        let longest = times.windows(2).map(|w| w[1].micros_since(w[0])).max().unwrap();
        assert!(longest <= 500_000, "{longest} us of silence");
    }
    assert!(world.is_connected(0) && world.closed(0).is_empty());
}

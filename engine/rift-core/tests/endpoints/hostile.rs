//! Bytes that nobody meant: garbage, cut and twisted datagrams, in every phase of a session.

use proptest::prelude::*;
use rift_core::endpoint::Purpose;

use crate::world::{Datagram, Fate, World, client_config, host_address, host_config, identity, known_host};

/// Proves R-ROB-1 and R-MSG-3: garbage from anywhere, at both ends, in any phase: no panic, no end, no loop.
#[test]
fn garbage_changes_nothing() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut world = World::with_client();
    for id in 0..200u64 {
        for _ in 0..20 {
            let len = rng.usize(..1500);
            let mut bytes: Vec<u8> = core::iter::repeat_with(|| rng.u8(..)).take(len).collect();
            // Half of them get past the first checks.
            if rng.bool() && len >= 18 {
                bytes[..4].copy_from_slice(&[0x52, 0x49, 0, 1]);
                let checksum = rift_core::wire::crc16_kermit(&bytes[..16]);
                bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
            }
            let (client, host) = (world.clients[0].address, host_address());
            let (from, to) = if rng.bool() { (client, host) } else { (host, client) };
            world.deliver(Datagram { at: world.now, from, to, bytes });
        }
        if id >= 5 {
            world.submit_frame(id - 5, 5000, 1);
        }
        world.run_ms(if id < 5 { 20 } else { 10 });
    }
    assert!(world.is_connected(0) && world.closed(0).is_empty() && world.ended().is_empty());
    assert!(world.clients[0].slices.len() > 150);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Proves R-ROB-1: genuine datagrams, cut, twisted, doubled, delayed and lost at random, from the first
    /// message on, with a client of either handshake. In the end a fresh client still gets its stream.
    #[test]
    fn twisted_sessions_hurt_nobody(seed: u64, is_known: bool) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut world = World::new(host_config(&[1, 2]));
        let mut config = client_config(1, Purpose::Stream);
        config.expect = is_known.then(known_host);
        world.connect(config);
        let mut twisting = rng.fork();
        world.fault = Box::new(move |d| {
            match twisting.u8(..100) {
                0..10 => { let len = twisting.usize(..d.bytes.len()); d.bytes.truncate(len); Fate::Deliver }
                10..20 => { let at = twisting.usize(..d.bytes.len()); d.bytes[at] ^= twisting.u8(1..); Fate::Deliver }
                20..30 => Fate::Lose,
                30..40 => Fate::Twice,
                40..50 => Fate::Late(twisting.u64(..50_000)),
                _ => Fate::Deliver,
            }
        });
        for id in 0..100 {
            if world.host.session().is_some() {
                world.submit_frame_quietly(id, 20_000, 2);
            }
            world.run_ms(10);
        }
        world.fault = Box::new(|_| Fate::Deliver);
        world.clients[0].is_gone = true;
        world.run_ms(4000);
        world.connect(client_config(2, Purpose::Stream));
        world.run_ms(400);
        prop_assert!(world.is_connected(1));
        prop_assert_eq!(world.host.session().unwrap().peer, identity(2).wavry_id());
    }
}

/// Proves R-ROB-2: the same seeds and inputs give the same datagrams and events, byte for byte.
#[test]
fn two_runs_are_identical() {
    let run = || {
        let mut world = World::with_client();
        world.tap = Some(vec![]);
        let mut rng = fastrand::Rng::with_seed(7);
        world.fault =
            Box::new(move |_| if rng.u8(..20) == 0 { Fate::Lose } else { Fate::Late(rng.u64(..2000)) });
        world.run_ms(400);
        for id in 0..60 {
            world.submit_frame_quietly(id, 30_000, 3);
            world.run_ms(16);
        }
        let tap: Vec<_> = world.tap.take().unwrap().into_iter().map(|d| (d.at, d.bytes)).collect();
        (tap, world.host_events, format!("{:?}", world.clients[0].events))
    };
    let (first, second) = (run(), run());
    assert!(first.0.len() > 500);
    assert!(first == second);
}

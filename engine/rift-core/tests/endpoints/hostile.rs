//! Bytes that nobody meant: garbage, cut and twisted datagrams, in every phase of a session.

use proptest::prelude::*;
use rift_core::DropReason;
use rift_core::endpoint::Purpose;
use rift_core::wire::Header;

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

/// Proves R-WIRE-1, R-WIRE-2, R-WIRE-3, R-WIRE-4 and R-WIRE-5: what is wrong with a header is found first, in this order, and
/// costs a counter, at either end.
#[test]
fn bad_headers_are_dropped_with_their_reason() {
    assert_eq!(rift_core::wire::crc16_kermit(b"123456789"), 0x2189);
    let mut world = World::streaming();
    let checked = |mut bytes: Vec<u8>, len: usize| {
        let checksum = rift_core::wire::crc16_kermit(&bytes[..len]);
        bytes[len..len + 2].copy_from_slice(&checksum.to_be_bytes());
        bytes
    };
    let header = |alias: u8, len: usize| {
        let mut bytes = vec![0; len];
        bytes[..4].copy_from_slice(&[0x52, 0x49, 0, 1]);
        bytes[7] = alias;
        bytes
    };
    let mut unknown_kind = header(0, 40);
    unknown_kind[8] = 9;
    let mut reserved = header(0, 40);
    (reserved[8], reserved[10]) = (1, 1);
    let cases = [
        (vec![], DropReason::TooShort),
        (header(1, 17), DropReason::TooShort),
        (vec![0; 40], DropReason::BadMagic),
        (header(1, 40), DropReason::BadChecksum),
        (header(0, 40), DropReason::BadChecksum),
        // Alias 0, and too short for a handshake header.
        (checked(header(0, 29), 16), DropReason::BadHeader),
        (checked(unknown_kind, 28), DropReason::BadHeader),
        (checked(reserved, 28), DropReason::BadHeader),
        (checked(header(1, 40), 16), DropReason::UnknownAlias),
    ];
    for (bytes, reason) in cases {
        for to in [host_address(), world.clients[0].address] {
            let from = world.host_address;
            world.deliver(Datagram { at: world.now, from, to, bytes: bytes.clone() });
        }
        assert_eq!(world.host_drops.pop(), Some(reason));
        assert_eq!(world.clients[0].drops.pop(), Some(reason));
    }
}

/// Proves R-WIRE-6 and R-WIRE-7: in each direction ids go up one by one from 0 over all channels, and no datagram
/// is longer than was allowed.
#[test]
fn ids_are_consecutive_and_datagrams_fit() {
    for datagram_len in [1200, 1400] {
        let mut config = host_config(&[1]);
        config.link.datagram_len = datagram_len;
        let mut world = World::new(config);
        world.tap = Some(vec![]);
        world.connect(client_config(1, Purpose::Stream));
        world.run_ms(100);
        for id in 0..20 {
            world.submit_frame(id, 60_000, 3);
            let now = world.now;
            world.host.submit_audio(now, now, &[1; 120]).unwrap();
            world.run_ms(16);
        }
        world.host.submit_clipboard(&"x".repeat(5000)).unwrap();
        world.run_ms(100);
        let tap = world.tap.take().unwrap();
        for from in [world.host_address, world.clients[0].address] {
            let ids: Vec<_> = tap
                .iter()
                .filter(|d| d.from == from)
                .filter_map(|d| match Header::decode(&d.bytes) {
                    Ok(Header::Transport(header)) => Some(header.packet_id.0),
                    _ => None,
                })
                .collect();
            assert!(ids.len() > 20 && ids.iter().copied().eq(0..ids.len() as u64));
        }
        let longest = tap.iter().map(|d| d.bytes.len()).max().unwrap();
        assert!((datagram_len - 60..=datagram_len).contains(&longest), "{longest}");
    }
}

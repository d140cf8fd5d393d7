//! Attackers on the path and off it, against handshakes and running sessions.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rift_core::endpoint::{HostEvent, Purpose};
use rift_core::wire::{HANDSHAKE_HEADER_LEN, HandshakeKind, Header, TRANSPORT_HEADER_LEN};
use rift_core::{DropReason, FrameId, HandshakeId};

use crate::world::{Datagram, Fate, World, client_config, host_address, host_config, known_host};

fn header_kind(bytes: &[u8]) -> Option<HandshakeKind> {
    match Header::decode(bytes) {
        Ok(Header::Handshake(header)) => Some(header.kind),
        _ => None,
    }
}

/// The same handshake datagram under another handshake id.
fn renamed(bytes: &[u8], id: u64) -> Vec<u8> {
    let Ok(Header::Handshake(mut header)) = Header::decode(bytes) else { panic!() };
    header.handshake_id = HandshakeId(id);
    [&header.encode()[..], &bytes[HANDSHAKE_HEADER_LEN..]].concat()
}

fn address(n: u32) -> SocketAddr {
    format!("172.{}.{}.{}:{}", 16 + n % 16, n / 256 % 256, n % 256, 1000 + n % 60_000).parse().unwrap()
}

/// Every datagram that the endpoints made in a session of half a second.
fn recording(expect_known: bool) -> (World, Vec<Datagram>) {
    let mut world = World::new(host_config(&[1]));
    world.tap = Some(vec![]);
    let mut config = client_config(1, Purpose::Stream);
    config.expect = expect_known.then(known_host);
    world.connect(config);
    world.run_ms(100);
    assert!(world.is_connected(0));
    for id in 0..10 {
        world.submit_frame(id, 20_000, 1);
        world.run_ms(16);
    }
    let tap = world.tap.take().unwrap();
    (world, tap)
}

/// Proves R-HAND-6 and R-HAND-7: ten thousand first messages from invented addresses take no state beyond the
/// fixed table, nobody gets more bytes than came in its name, a client that really is at its address
/// still gets in.
#[test]
fn a_flood_of_first_messages_takes_no_state_and_amplifies_nothing() {
    let (_, tap) = recording(false);
    let msg1 = tap.iter().find(|d| header_kind(&d.bytes) == Some(HandshakeKind::Msg1)).unwrap();
    let mut world = World::new(host_config(&[1]));
    world.tap = Some(vec![]);
    let mut received = BTreeMap::<SocketAddr, usize>::new();
    let mut under_way = 0;
    for n in 0..10_000u32 {
        let from = address(n % 997);
        let bytes = renamed(&msg1.bytes, 1_000_000 + u64::from(n));
        *received.entry(from).or_default() += bytes.len();
        world.deliver(Datagram { at: world.now, from, to: host_address(), bytes });
        world.drain();
        under_way = under_way.max(world.host.handshakes_under_way());
        if n == 5000 {
            world.connect(client_config(1, Purpose::Stream));
        }
        world.run_ms(1);
    }
    assert!(under_way <= 64 * 3 / 4 + 1, "{under_way} handshakes kept");
    assert!(world.is_connected(0), "the genuine client got in through RETRY");
    let tap = world.tap.take().unwrap();
    let mut sent = BTreeMap::<SocketAddr, usize>::new();
    let mut retries = 0;
    for d in tap.iter().filter(|d| d.from == host_address() && d.to != world.clients[0].address) {
        *sent.entry(d.to).or_default() += d.bytes.len();
        retries += u32::from(header_kind(&d.bytes) == Some(HandshakeKind::Retry));
    }
    for (to, bytes) in &sent {
        assert!(received.get(to).is_some_and(|r| bytes <= r), "{to} got {bytes} bytes");
    }
    assert!(retries > 9000, "{retries}");
}

/// Proves R-HAND-8 at the endpoint: a cookie is no good from another address or for another handshake.
#[test]
fn a_stolen_cookie_opens_nothing() {
    let mut config = host_config(&[1]);
    config.handshakes_per_s = 0;
    let mut world = World::new(config);
    world.tap = Some(vec![]);
    world.connect(client_config(1, Purpose::Stream));
    world.run_ms(100);
    assert!(world.is_connected(0));
    let tap = world.tap.take().unwrap();
    // The second MSG1 carries the cookie.
    let with_cookie: Vec<_> =
        tap.iter().filter(|d| header_kind(&d.bytes) == Some(HandshakeKind::Msg1)).collect();
    assert_eq!(with_cookie.len(), 2);
    let good = with_cookie[1].clone();
    let renamed = Datagram { bytes: renamed(&good.bytes, 99), ..good.clone() };
    // The host has not seen it: the same cookie in a fresh world with the same secret.
    let fresh = |datagram: Datagram| {
        let mut config = host_config(&[1]);
        config.handshakes_per_s = 0;
        let mut world = World::new(config);
        world.tap = Some(vec![]);
        world.deliver(datagram);
        world.drain();
        header_kind(&world.tap.unwrap()[0].bytes)
    };
    assert_eq!(fresh(good.clone()), Some(HandshakeKind::Msg2));
    assert_eq!(fresh(Datagram { from: address(7), ..good }), Some(HandshakeKind::Retry));
    assert_eq!(fresh(renamed), Some(HandshakeKind::Retry));
}

/// Proves R-HAND-11: the first message of an IK handshake, replayed to an idle host, to the host during the
/// session and after it, from the same and from another address, has no effect.
#[test]
fn a_replayed_ik_first_message_changes_nothing() {
    let (mut world, tap) = recording(true);
    let msg1 = tap.iter().find(|d| header_kind(&d.bytes) == Some(HandshakeKind::Msg1)).unwrap().clone();

    let mut idle = World::new(host_config(&[1]));
    idle.deliver(msg1.clone());
    idle.run_ms(10_000);
    assert!(idle.host_events.is_empty(), "{:?}", idle.host_events);
    assert_eq!(idle.host.handshakes_under_way(), 0);

    let events = world.host_events.len();
    for n in 0..20 {
        world.deliver(Datagram { from: address(n), ..msg1.clone() });
        world.deliver(msg1.clone());
        // Past the life of the remembered handshake too, when the host answers it as a new one.
        world.run_ms(400);
    }
    let news: Vec<_> =
        world.host_events[events..].iter().filter(|e| !matches!(e, HostEvent::RateChanged { .. })).collect();
    assert!(news.is_empty(), "{news:?}");
    assert!(world.closed(0).is_empty());
    assert_eq!(world.host.session().unwrap().path.remote, world.clients[0].address);
    for id in 10..20 {
        world.submit_frame(id, 20_000, 1);
        world.run_ms(16);
    }
    world.run_ms(50);
    assert_eq!(world.clients[0].slices.len(), 20);
}

/// Proves R-HAND-14: damaged and forged copies of every handshake message come first, the genuine ones still
/// connect.
#[test]
fn forged_handshake_messages_do_not_end_the_handshake() {
    for expect in [None, Some(known_host())] {
        for bit in [0, 7, 40 * 8, 60 * 8, 100 * 8 + 3] {
            let mut world = World::new(host_config(&[1]));
            let mut config = client_config(1, Purpose::Stream);
            config.expect = expect;
            world.connect(config);
            let mut forged = vec![];
            for _ in 0..200 {
                // Everything under way is overtaken by a damaged copy of itself.
                for datagram in world.network.clone() {
                    let is_later = matches!(
                        header_kind(&datagram.bytes),
                        Some(HandshakeKind::Msg2 | HandshakeKind::Msg3)
                    );
                    if is_later && !forged.contains(&datagram.bytes) {
                        forged.push(datagram.bytes.clone());
                        let mut copy = datagram.clone();
                        copy.bytes[HANDSHAKE_HEADER_LEN + bit / 8] ^= 1 << (bit % 8);
                        world.deliver(copy);
                    }
                }
                world.run_ms(1);
            }
            assert!(!forged.is_empty() && world.is_connected(0), "bit {bit}, {expect:?}");
        }
    }
}

/// Proves R-SEAL-5 and R-SEAL-4 at the endpoints: a recorded session, played back to its sender, its receiver, and
/// from another address, opens nowhere and moves nobody.
#[test]
fn reflected_and_replayed_packets_have_no_effect() {
    let (mut world, tap) = recording(false);
    let client = world.clients[0].address;
    world.run_ms(20);
    let (events, slices) = (world.host_events.len(), world.clients[0].slices.len());
    for drops in [&mut world.host_drops, &mut world.clients[0].drops] {
        drops.clear();
    }
    let packets: Vec<_> = tap.iter().filter(|d| header_kind(&d.bytes).is_none()).collect();
    let mut alias_of = BTreeMap::new();
    for d in &packets {
        alias_of.insert(d.to == client, d.bytes[4..8].to_vec());
    }
    for d in &packets {
        // To its receiver again, from somewhere else.
        world.deliver(Datagram { from: address(5), ..(*d).clone() });
        // Back to its sender, under the sender's alias, so that it reaches the keys.
        let mut reflected = (*d).clone();
        reflected.to = d.from;
        reflected.from = d.to;
        reflected.bytes[4..8].copy_from_slice(&alias_of[&(d.from == client)]);
        let checksum = rift_core::wire::crc16_kermit(&reflected.bytes[..16]);
        reflected.bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
        world.deliver(reflected);
    }
    let used = |drops: &[DropReason]| {
        drops
            .iter()
            .filter(|r| !matches!(r, DropReason::Replayed | DropReason::TooOld | DropReason::BadSeal))
            .count()
    };
    assert_eq!(world.host_drops.len() + world.clients[0].drops.len(), 2 * packets.len());
    assert_eq!(used(&world.host_drops) + used(&world.clients[0].drops), 0);
    assert_eq!((world.host_events.len(), world.clients[0].slices.len()), (events, slices));
    assert_eq!(world.host.session().unwrap().path.remote, client);
}

/// Proves R-SEAL-2 at the endpoints: one flipped bit anywhere in a packet, and it is as if it was lost.
#[test]
fn tampered_packets_are_lost_packets() {
    let mut world = World::streaming();
    let mut n = 0usize;
    world.fault = Box::new(move |d| {
        n += 1;
        if header_kind(&d.bytes).is_none() && n.is_multiple_of(3) {
            let bit = n * 7919 % (d.bytes.len() * 8);
            d.bytes[bit / 8] ^= 1 << (bit % 8);
        }
        Fate::Deliver
    });
    for id in 0..30 {
        world.submit_frame(id, 10_000, 2);
        world.run_ms(16);
    }
    let session = world.host.session().unwrap();
    assert!(world.closed(0).is_empty() && world.ended().is_empty());
    assert!(session.link.received_packets > 20);
    assert!(world.clients[0].drops.contains(&DropReason::BadSeal));
    assert!(world.clients[0].drops.contains(&DropReason::BadChecksum));
}

/// Proves R-SEAL-11: every packet with video is overtaken by copies of it in which a bit is wrong somewhere. The copies
/// change nothing: each picture comes as it was sent.
#[test]
fn what_does_not_open_leaves_no_trace_in_a_picture() {
    let mut world = World::streaming();
    let client = world.clients[0].address;
    let (mut sent, mut forged) = (Vec::new(), 0);
    for id in 0..20 {
        let slices = world.submit_frame(id, 15_000, 2);
        sent.extend((0..).zip(slices).map(|(index, slice)| (FrameId(id), index, slice)));
        for _ in 0..16 {
            for datagram in world.network.clone() {
                let is_new = datagram.to == client && datagram.at <= world.now.plus_micros(1_000);
                for at in [0, 30, 600, 1_170, 1_181].into_iter().filter(|_| is_new) {
                    let mut copy = datagram.clone();
                    if let Some(byte) = copy.bytes.get_mut(TRANSPORT_HEADER_LEN + at) {
                        *byte ^= 1 << (id % 8);
                        world.deliver(copy);
                        forged += 1;
                    }
                }
                if is_new {
                    // Right behind them, so that each was the next in line.
                    world.deliver(datagram);
                }
            }
            world.run_ms(1);
        }
    }
    assert!(forged > 500, "{forged}");
    world.run_ms(50);
    assert_eq!(world.clients[0].slices, sent);
    let drops = &world.clients[0].drops;
    assert_eq!(drops.iter().filter(|&&reason| reason == DropReason::BadSeal).count(), forged);
}

/// Strangers who knock all the time, with real handshakes, keep nobody out.
#[test]
fn knocking_strangers_keep_nobody_out() {
    let mut config = host_config(&[1]);
    config.handshakes_per_s = 1000;
    let mut world = World::new(config);
    for n in 0..40u8 {
        world.connect(client_config(100 + n, Purpose::Stream));
        if n == 20 {
            world.connect(client_config(1, Purpose::Stream));
        }
        world.run_ms(3);
    }
    world.run_ms(200);
    assert!(world.is_connected(21));
    assert_eq!((0..41).filter(|&n| world.is_connected(n)).count(), 1);
}

/// Proves R-SEAL-1: nothing that was streamed, typed or named can be read off the wire.
#[test]
fn no_plaintext_on_the_wire() {
    let mut world = World::with_client();
    world.tap = Some(vec![]);
    world.run_ms(100);
    world.host.submit_clipboard("correct horse battery staple").unwrap();
    let frames = world.submit_frame(0, 5000, 1);
    world.run_ms(100);
    assert_eq!(world.clients[0].slices.len(), 1);
    let tap = world.tap.take().unwrap();
    for secret in [&b"battery"[..], b"client 1", b"left", &frames[0][100..116]] {
        let shows = tap.iter().any(|d| d.bytes.windows(secret.len()).any(|w| w == secret));
        assert!(!shows, "{secret:?}");
    }
    assert!(
        tap.iter().all(|d| header_kind(&d.bytes).is_some() || d.bytes.len() >= TRANSPORT_HEADER_LEN + 16)
    );
}

/// Proves R-HAND-3: somebody on the path who changes the offered suites, which travel in the clear, gets no session
/// with a worse one, but none at all.
#[test]
fn a_downgrade_ends_in_no_session() {
    // Behind the header, four bytes of our own and the ephemeral key: how many suites, and which.
    const OFFER: usize = HANDSHAKE_HEADER_LEN + 4 + 32;
    let changes: [fn(&mut [u8]); 3] = [
        |offer| offer.swap(1, 2),
        |offer| offer[1] = if offer[1] == 1 { 2 } else { 1 },
        |offer| offer[offer[0] as usize] = 77,
    ];
    for change in changes {
        let mut world = World::with_client();
        world.fault = Box::new(move |d| {
            if header_kind(&d.bytes) == Some(HandshakeKind::Msg1) {
                change(&mut d.bytes[OFFER..]);
            }
            Fate::Deliver
        });
        world.run_ms(5000);
        assert!(!world.is_connected(0) && world.host_events.is_empty());
        assert_eq!(world.closed(0).len(), 1);
    }
}

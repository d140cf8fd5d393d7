//! What an attacker can do to sessions, by the names of THREATS.md.

#![allow(clippy::unwrap_used)]

mod world;

use rift_relay::lease::IssuerKey;
use rift_relay::mac::forward_mac;
use rift_relay::peer::PeerEvent;
use rift_relay::present::{CHALLENGE_DATAGRAM_LEN, RejectReason};
use rift_relay::wire::{FORWARD_LEN, Forward, Header, Kind, Role, SessionId};
use wavry_relay::core::{Action, RelayLimits, State};
use wavry_relay::drop_reason::DropReason;
use world::*;

const PAYLOAD: [u8; 100] = [7; 100];

/// Proves RELAY-BIND-1, RELAY-FWD-1: the ordinary course.
#[test]
fn two_peers_talk_through_the_relay() {
    let mut world = World::new();
    let (mut client, mut host) = world.pair();
    assert_eq!(world.relay.state(SESSION), Some(State::Active));
    assert!(matches!(host.events()[..], [PeerEvent::Bound { soft_kbps: 50_000, hard_kbps: 100_000 }]));
    for _ in 0..100 {
        world.send(0, &PAYLOAD, &mut [&mut client, &mut host]);
        world.send(1, b"to the client", &mut [&mut client, &mut host]);
    }
    assert_eq!(host.got, vec![PAYLOAD.to_vec(); 100]);
    assert_eq!(client.got, vec![b"to the client".to_vec(); 100]);
}

/// Proves RELAY-PROOF-1: the published lease was a bearer token, and a copy from another address diverted the stream.
#[test]
fn copied_lease_moves_nothing() {
    let mut world = World::new();
    let token = world.lease();
    let (mut client, mut host) = world.pair();
    // The thief has the token and an identity of its own, and says it is the client.
    let mut thief = world.peer(1, &token, attacker_address());
    let ask = thief.ask(world.us);
    let (action, sent) = world.deliver(attacker_address(), &ask);
    assert_eq!(action, Action::Answer);
    thief.receive(world.us, &sent[0].1);
    let mut forged = thief.peer.poll_transmit(world.us).unwrap().to_vec();
    // Signed by somebody else than the lease names: as a thief without the key would have to.
    let len = forged.len();
    forged[len - 64..].copy_from_slice(&identity(3).sign(b"anything"));
    let (action, sent) = world.deliver(attacker_address(), &forged);
    assert_eq!(action, Action::Verify { known: false });
    assert_eq!(sent.len(), 1);
    let header = Header::decode(&sent[0].1).unwrap();
    assert_eq!(header.kind, Kind::LeaseReject);
    assert_eq!(sent[0].1[21], RejectReason::InvalidSignature as u8);
    assert_eq!(world.send(1, &PAYLOAD, &mut [&mut client, &mut host]), Action::Forward(client_address()));
    assert_eq!(client.got.len(), 1);
}

/// Proves RELAY-PROOF-2, RELAY-CHAL-3: a copied presentation is good from the address that it was made for, and once.
#[test]
fn copied_presentation_is_good_from_nowhere_else() {
    let mut world = World::new();
    let token = world.lease();
    let mut client = world.peer(1, &token, client_address());
    let ask = client.ask(world.us);
    let (_, sent) = world.deliver(client_address(), &ask);
    client.receive(world.us, &sent[0].1);
    let shown = client.peer.poll_transmit(world.us).unwrap().to_vec();
    let (action, _) = world.deliver(attacker_address(), &shown);
    assert_eq!(action, Action::Drop(DropReason::Challenge));
    let (action, _) = world.deliver(client_address(), &shown);
    assert_eq!(action, Action::Verify { known: false });
    // The same again is a lost acknowledgement, answered without a signature.
    let (action, _) = world.deliver(client_address(), &shown);
    assert_eq!(action, Action::Answer);
    assert_eq!(world.verified, 1);
    world.us += 31_000_000;
    let (action, _) = world.deliver(client_address(), &shown);
    assert_eq!(action, Action::Drop(DropReason::Challenge), "a challenge lives 30 s");
}

/// Proves RELAY-PROOF-4: an older proof, replayed from the address that the peer has left, takes nothing back.
#[test]
fn old_proof_does_not_move_a_peer_back() {
    let mut world = World::new();
    let token = world.lease();
    let mut client = world.peer(1, &token, client_address());
    let ask = client.ask(world.us);
    let (_, sent) = world.deliver(client_address(), &ask);
    client.receive(world.us, &sent[0].1);
    let old = client.peer.poll_transmit(world.us).unwrap().to_vec();
    let (_, sent) = world.deliver(client_address(), &old);
    client.receive(world.us, &sent[0].1);
    let mut host = world.peer(2, &token, host_address());
    world.run(5, &mut [&mut client, &mut host]);
    client.address = address("192.0.2.1:1001");
    world.us += 300_000;
    world.send(0, &PAYLOAD, &mut [&mut client, &mut host]);
    world.run(5, &mut [&mut client, &mut host]);
    let (action, _) = world.deliver(client_address(), &old);
    assert_eq!(action, Action::Drop(DropReason::StaleProof));
    let action = world.send(1, &PAYLOAD, &mut [&mut client, &mut host]);
    assert_eq!(action, Action::Forward(client.address));
}

/// Proves RELAY-CHAL-1: a million spoofed sources get no state, and no answer longer than what they sent.
#[test]
fn no_state_and_no_amplification_before_return_routability() {
    let mut world =
        World::with(RelayLimits { sessions: 10, answers_per_second: 2_000_000, ..RelayLimits::default() });
    let token = world.lease();
    let mut asking = world.peer(1, &token, client_address());
    let ask = asking.ask(world.us);
    let memory = world.relay.memory_bytes();
    for n in 0..1_000_000_u32 {
        world.us += 1;
        let (action, sent) = world.deliver(std::net::SocketAddr::from((n.to_be_bytes(), 9)), &ask);
        assert_eq!(action, Action::Answer);
        assert!(sent[0].1.len() <= ask.len() && sent[0].1.len() == CHALLENGE_DATAGRAM_LEN);
    }
    assert_eq!((world.relay.len(), world.relay.memory_bytes(), world.verified), (0, memory, 0));
    let (client, _) = world.pair();
    assert!(client.peer.is_bound(), "a newcomer is served as before");
}

/// Proves RELAY-LIMIT-1: answers to those who proved nothing have a budget; forwarding does not depend on it.
#[test]
fn reflection_is_bounded() {
    let mut world =
        World::with(RelayLimits { sessions: 10, answers_per_second: 100, ..RelayLimits::default() });
    let (mut client, mut host) = world.pair();
    let mut junk = [0; 200];
    let forward =
        Forward { session: SessionId([9; 16]), role: Role::Client, sequence: 1, mac: 2, payload_len: 164 };
    forward.encode(junk.first_chunk_mut().unwrap());
    let mut answered = 0;
    for _ in 0..200_000 {
        world.us += 5;
        answered += world.deliver(attacker_address(), &junk).1.len();
    }
    assert!(answered <= 100 + 11, "{answered} answers in a second");
    junk[..FORWARD_LEN].fill(0);
    forward.encode(junk.first_chunk_mut().unwrap());
    assert_eq!(
        world.deliver(attacker_address(), &junk[..CHALLENGE_DATAGRAM_LEN - 1]).1.len(),
        0,
        "too short"
    );
    assert_eq!(world.send(0, &PAYLOAD, &mut [&mut client, &mut host]), Action::Forward(host_address()));
}

/// Proves RELAY-FWD-2, RELAY-FWD-3: forged, far ahead, old and repeated sequences, from the right address.
#[test]
fn forged_and_replayed_sequences_change_nothing() {
    let mut world = World::new();
    let (mut client, mut host) = world.pair();
    let good = client.wrap(world.us, &PAYLOAD).unwrap();
    for far in [1, 500, 1 << 19, u64::MAX - 1, u64::MAX] {
        let mut forged = good.clone();
        forged[20..28].copy_from_slice(&u64::to_be_bytes(far));
        assert_eq!(world.deliver(client_address(), &forged).0, Action::Drop(DropReason::Mac));
    }
    // With a key, but not this peer's.
    let mut forged = good.clone();
    let mac = forward_mac([1, 2], 0, 100, Role::Client);
    forged[28..36].copy_from_slice(&mac.to_be_bytes());
    assert_eq!(world.deliver(client_address(), &forged).0, Action::Drop(DropReason::Mac));
    // Said to come from the other peer.
    let mut forged = good.clone();
    forged[3] = 1;
    assert_eq!(world.deliver(host_address(), &forged).0, Action::Drop(DropReason::Mac));
    assert_eq!(
        world.deliver(client_address(), &good[..good.len() - 1]).0,
        Action::Drop(DropReason::Mac),
        "cut"
    );
    assert_eq!(world.deliver(client_address(), &good).0, Action::Forward(host_address()));
    assert_eq!(world.deliver(client_address(), &good).0, Action::Drop(DropReason::Replay));
    for _ in 0..300 {
        world.send(0, &PAYLOAD, &mut [&mut client, &mut host]);
    }
    assert_eq!(world.deliver(client_address(), &good).0, Action::Drop(DropReason::Old));
    assert_eq!(host.got.len(), 300);
}

/// Proves RELAY-MOVE-1: a datagram from another address, right MAC and all, moves nothing; only a proof does.
#[test]
fn spoofed_source_does_not_divert() {
    let mut world = World::new();
    let (mut client, mut host) = world.pair();
    let copied = client.wrap(world.us, &PAYLOAD).unwrap();
    let (action, sent) = world.deliver(attacker_address(), &copied);
    assert_eq!(action, Action::DropAndAnswer(DropReason::Address));
    assert!(sent[0].1.len() <= copied.len());
    assert_eq!(world.send(1, &PAYLOAD, &mut [&mut client, &mut host]), Action::Forward(client_address()));
}

/// Proves RELAY-MOVE-2: the published relay killed a session when a NAT gave a peer another port.
#[test]
fn port_change_of_a_nat_heals_within_two_round_trips() {
    let mut world = World::new();
    let (mut client, mut host) = world.pair();
    world.run(300, &mut [&mut client, &mut host]);
    client.events();
    client.address = address("192.0.2.1:55555");
    assert_eq!(
        world.send(0, &PAYLOAD, &mut [&mut client, &mut host]),
        Action::DropAndAnswer(DropReason::Address)
    );
    world.run(1, &mut [&mut client, &mut host]);
    assert_eq!(client.events(), [PeerEvent::Renewed]);
    assert_eq!(world.send(0, &PAYLOAD, &mut [&mut client, &mut host]), Action::Forward(host_address()));
    assert_eq!(world.send(1, &PAYLOAD, &mut [&mut client, &mut host]), Action::Forward(client.address));
    assert_eq!(world.relay.counters().moved, 1);
}

/// Proves RELAY-RENEW-1: the published LEASE_RENEW needed no token and no proof.
#[test]
fn renewal_without_proof_is_not_taken() {
    let mut world = World::new();
    let (mut client, mut host) = world.pair();
    let mut newer = world.claims();
    newer.expires_ms += 1_000_000;
    client.peer.set_lease(world.us, &world.issuer.mint(&newer)).unwrap();
    let ask = client.ask(world.us);
    assert_eq!(Header::decode(&ask).unwrap().kind, Kind::LeaseRenew);
    let (action, sent) = world.deliver(client_address(), &ask);
    assert_eq!((action, sent[0].1.len()), (Action::Answer, CHALLENGE_DATAGRAM_LEN));
    client.receive(world.us, &sent[0].1);
    let mut shown = client.peer.poll_transmit(world.us).unwrap().to_vec();
    *shown.last_mut().unwrap() ^= 1;
    let (action, sent) = world.deliver(client_address(), &shown);
    assert_eq!(action, Action::Verify { known: true });
    assert_eq!(Header::decode(&sent[0].1).unwrap().kind, Kind::LeaseReject);
    // The refusal was another's doing; the genuine one still counts.
    *shown.last_mut().unwrap() ^= 1;
    let (_, sent) = world.deliver(client_address(), &shown);
    assert_eq!(Header::decode(&sent[0].1).unwrap().kind, Kind::LeaseAck);
    assert_eq!(world.send(0, &PAYLOAD, &mut [&mut client, &mut host]), Action::Forward(host_address()));
}

/// Proves RELAY-RENEW-2: a fresh lease did not extend a session; here it does, and nothing in flight is lost.
#[test]
fn fresh_lease_extends_the_session_without_a_gap() {
    let mut world = World::new();
    let (mut client, mut host) = world.pair();
    let in_flight = client.wrap(world.us, &PAYLOAD).unwrap();
    for _ in 0..20 {
        world.run(200_000 / 20, &mut [&mut client, &mut host]);
        world.send(0, &PAYLOAD, &mut [&mut client, &mut host]);
        world.send(1, &PAYLOAD, &mut [&mut client, &mut host]);
    }
    let token = world.lease();
    client.peer.set_lease(world.us, &token).unwrap();
    host.peer.set_lease(world.us, &token).unwrap();
    world.run(2, &mut [&mut client, &mut host]);
    assert_eq!(world.relay.state(SESSION), Some(State::Renewed));
    assert_eq!(world.deliver(client_address(), &in_flight).0, Action::Forward(host_address()), "sent before");
    for _ in 0..20 {
        world.run(10_000, &mut [&mut client, &mut host]);
        assert_eq!(world.send(0, &PAYLOAD, &mut [&mut client, &mut host]), Action::Forward(host_address()));
    }
}

/// Proves RELAY-EXP-1: expiry was not looked at after admission.
#[test]
fn expired_lease_stops_both_directions() {
    let mut world = World::new();
    let (mut client, mut host) = world.pair();
    for _ in 0..30 {
        world.run(10_000, &mut [&mut client, &mut host]);
        world.send(0, &PAYLOAD, &mut [&mut client, &mut host]);
    }
    for sender in 0..2 {
        let action = world.send(sender, &PAYLOAD, &mut [&mut client, &mut host]);
        assert_eq!(action, Action::Drop(DropReason::Expired));
    }
    world.run(40_000, &mut []);
    assert_eq!((world.relay.len(), world.relay.counters().expired), (0, 1));
}

fn refused(world: &mut World, token: &str, byte: u8) -> Vec<PeerEvent> {
    let mut peer = world.peer(byte, token, client_address());
    world.run(3, &mut [&mut peer]);
    assert!(!peer.peer.is_bound());
    peer.events()
}

/// Proves RELAY-LEASE-4: for another relay, over, too early, of an unknown issuer, for a session of others.
#[test]
fn wrong_leases_are_refused_with_the_reason() {
    let mut world = World::new();
    let good = world.claims();
    let mint = |world: &World, change: fn(&mut rift_relay::lease::Claims)| {
        let mut claims = good;
        change(&mut claims);
        world.issuer.mint(&claims)
    };
    let elsewhere = mint(&world, |c| c.relay = identity(50).wavry_id());
    assert_eq!(refused(&mut world, &elsewhere, 1), [PeerEvent::Rejected(RejectReason::WrongRelay)]);
    let over = mint(&world, |c| {
        c.not_before_ms -= 400_000;
        c.expires_ms -= 331_000;
    });
    assert_eq!(refused(&mut world, &over, 1), [PeerEvent::Rejected(RejectReason::Expired)]);
    let early = mint(&world, |c| c.not_before_ms += 60_000);
    assert_eq!(refused(&mut world, &early, 1), [PeerEvent::Rejected(RejectReason::Expired)]);
    let stranger = IssuerKey::from_seed([5; 32]).unwrap().mint(&good);
    assert_eq!(refused(&mut world, &stranger, 1), [PeerEvent::Rejected(RejectReason::InvalidSignature)]);
    let (mut client, mut host) = world.pair();
    // An issuer that gives one session number to two pairs: the first keeps it.
    let others = mint(&world, |c| c.client = identity(7).wavry_id());
    let mut other = world.peer(7, &others, attacker_address());
    world.run(3, &mut [&mut other]);
    assert_eq!(other.events(), [PeerEvent::Rejected(RejectReason::SessionFull)]);
    assert_eq!(world.send(0, &PAYLOAD, &mut [&mut client, &mut host]), Action::Forward(host_address()));
}

/// Proves RELAY-BAN-1: a revoked lease or a banned identity is refused, and its running session ends.
#[test]
fn revocation_ends_a_running_session() {
    let mut world = World::new();
    let (mut client, mut host) = world.pair();
    let mut policy = world.policy();
    policy.banned.insert(identity(1).wavry_id());
    world.relay.apply_policy(&policy);
    assert_eq!((world.relay.len(), world.relay.counters().revoked), (0, 1));
    world.verifier.set_policy(std::sync::Arc::new(policy));
    client.events();
    world.send(0, &PAYLOAD, &mut [&mut client, &mut host]);
    world.run(2_000, &mut [&mut client, &mut host]);
    assert!(client.events().contains(&PeerEvent::Rejected(RejectReason::Banned)));
}

/// Proves RELAY-EPOCH-1: the published window was not reset when a peer restarted.
#[test]
fn restarted_peer_begins_at_sequence_0_again() {
    let mut world = World::new();
    let (mut client, mut host) = world.pair();
    for _ in 0..1000 {
        world.us += 1000;
        world.send(0, &PAYLOAD, &mut [&mut client, &mut host]);
    }
    let old = client.wrap(world.us, &PAYLOAD).unwrap();
    let token = world.lease();
    let mut restarted = world.peer(1, &token, client_address());
    world.run(3, &mut [&mut restarted, &mut host]);
    assert_eq!(world.send(0, &PAYLOAD, &mut [&mut restarted, &mut host]), Action::Forward(host_address()));
    assert_eq!(world.deliver(client_address(), &old).0, Action::Drop(DropReason::Mac), "the old key is gone");
}

/// Proves RELAY-EPOCH-2: after a restart of the relay both peers are back within a second, by themselves.
#[test]
fn sessions_go_on_within_a_second_after_a_restart_of_the_relay() {
    let mut world = World::with(RelayLimits { sessions: 1000, ..RelayLimits::default() });
    let (mut client, mut host) = world.pair();
    world.run(500, &mut [&mut client, &mut host]);
    world.restart_relay();
    let begun = world.us;
    let mut back = None;
    for _ in 0..1000 {
        for sender in 0..2 {
            let action = world.send(sender, &PAYLOAD, &mut [&mut client, &mut host]);
            if sender == 1 && matches!(action, Action::Forward(_)) && back.is_none() {
                back = Some(world.us - begun);
            }
        }
        world.run(1, &mut [&mut client, &mut host]);
    }
    let back = back.expect("the session never came back");
    assert!(back < 1_000_000, "{back} us");
    assert_eq!(world.relay.state(SESSION), Some(State::Active));
}

/// Proves RELAY-DRAIN-1: a relay that is about to stop forwards what runs and takes nothing new.
#[test]
fn draining_refuses_newcomers_only() {
    let mut world = World::new();
    let (mut client, mut host) = world.pair();
    world.relay.drain();
    assert_eq!(world.send(0, &PAYLOAD, &mut [&mut client, &mut host]), Action::Forward(host_address()));
    let mut claims = world.claims();
    claims.session = SessionId([0x22; 16]);
    let token = world.issuer.mint(&claims);
    assert_eq!(refused(&mut world, &token, 1), [PeerEvent::Rejected(RejectReason::Draining)]);
}

/// Proves RELAY-LIMIT-2: a full relay refuses new sessions before it spends a signature on them.
#[test]
fn full_relay_sheds_newcomers_and_keeps_sessions() {
    let mut world = World::with(RelayLimits { sessions: 1, ..RelayLimits::default() });
    let (mut client, mut host) = world.pair();
    let verified = world.verified;
    let mut claims = world.claims();
    claims.session = SessionId([0x22; 16]);
    let token = world.issuer.mint(&claims);
    assert_eq!(refused(&mut world, &token, 1), [PeerEvent::Rejected(RejectReason::SessionFull)]);
    assert_eq!(world.verified, verified);
    assert_eq!(world.send(0, &PAYLOAD, &mut [&mut client, &mut host]), Action::Forward(host_address()));
}

/// Proves RELAY-LIMIT-4: one address cannot fill the verifier, and is told so.
#[test]
fn bogus_leases_of_one_address_are_limited() {
    let mut world = World::new();
    let stranger = IssuerKey::from_seed([5; 32]).unwrap().mint(&world.claims());
    let mut bogus = world.peer(1, &stranger, attacker_address());
    let ask = bogus.ask(world.us);
    let (_, sent) = world.deliver(attacker_address(), &ask);
    bogus.receive(world.us, &sent[0].1);
    let shown = bogus.peer.poll_transmit(world.us).unwrap().to_vec();
    for _ in 0..10_000 {
        world.us += 100;
        world.deliver(attacker_address(), &shown);
    }
    assert!(world.verified <= 121, "{} verified in a second", world.verified);
    let (client, _) = world.pair();
    assert!(client.peer.is_bound());
}

/// Proves RELAY-LIMIT-5: the published limit of 1000 packets per second and address could not carry its own rate.
#[test]
fn a_bound_peer_may_use_all_of_its_rate() {
    let mut world = World::new();
    let (mut client, mut host) = world.pair();
    // 49 Mbit/s of 1236-byte datagrams for a second: 4955 a second, all from one address.
    for _ in 0..4955 {
        world.us += 202;
        let action = world.send(1, &[3; 1200], &mut [&mut client, &mut host]);
        assert_eq!(action, Action::Forward(client_address()));
    }
}

/// Proves RELAY-WAIT-1: a session whose second peer never comes is forgotten; one that waits and says so is kept.
#[test]
fn waiting_sessions_end_after_30_s_of_silence() {
    let mut world = World::new();
    let token = world.lease();
    let mut host = world.peer(2, &token, host_address());
    world.run(5, &mut [&mut host]);
    assert_eq!(world.relay.state(SESSION), Some(State::WaitingPeer));
    world.run(100_000, &mut [&mut host]);
    assert_eq!(world.relay.state(SESSION), Some(State::WaitingPeer), "the host keeps it");
    world.run(31_500, &mut []);
    assert_eq!(world.relay.state(SESSION), None);
}

/// Proves RELAY-PROBE-1: a probe is answered with the same bytes, and nothing else that a relay sends is.
#[test]
fn probes_are_echoed() {
    let mut world = World::new();
    let mut probe = [5; 36];
    Header { kind: Kind::ProbeReq, flags: 0, session: SessionId([0; 16]) }
        .encode(probe.first_chunk_mut().unwrap());
    let (_, sent) = world.deliver(attacker_address(), &probe);
    assert_eq!(sent[0].1[20..], probe[20..]);
    assert_eq!(Header::decode(&sent[0].1).unwrap().kind, Kind::ProbeRsp);
    let (action, _) = world.deliver(attacker_address(), &sent[0].1);
    assert_eq!(action, Action::Drop(DropReason::Kind), "two relays cannot be made to talk to each other");
}

/// Proves RELAY-MEM-1: 10,000 sessions take at most 10 MB, those of the fast path included, and all of it at the start.
#[test]
fn ten_thousand_sessions_fit_ten_megabytes() {
    let mut world = World::with(RelayLimits { sessions: 10_000, ..RelayLimits::default() });
    world.relay.enable_fast_path(0);
    let maps = wavry_xdp::relay::RelayProgram::bytes(10_000);
    let total = world.relay.memory_bytes() + maps;
    assert!(total <= 10_000_000, "{total}, {maps} of them in the fast path's maps");
}

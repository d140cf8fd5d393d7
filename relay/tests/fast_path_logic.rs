//! Which path carries a session, without maps: what the session logic wants done, and what it makes of the results.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod world;

use std::collections::BTreeMap;

use rift_relay::wire::SessionId;
use wavry_relay::core::{Action, FastCommand};
use wavry_relay::drop_reason::DropReason;
use wavry_xdp::relay::{Session, State};
use world::{Peer, SESSION, World, address};

/// The maps, and what was asked of them.
#[derive(Default)]
struct Maps {
    sessions: BTreeMap<SessionId, Option<Session>>,
    states: BTreeMap<u32, (u16, [State; 2])>,
    room: Option<usize>,
    done: Vec<&'static str>,
    /// No neighbour is known.
    is_nowhere: bool,
}

impl Maps {
    /// Does all that the relay wants.
    fn drive(&mut self, world: &mut World) {
        let now = world.now();
        while let Some(command) = world.relay.poll_fast(now) {
            match command {
                FastCommand::Know { id, slot, .. } => {
                    self.done.push("know");
                    if self.room.is_some_and(|room| self.sessions.len() >= room) {
                        world.relay.handle_unknown(slot);
                    } else {
                        self.sessions.insert(id, None);
                    }
                }
                FastCommand::Forget { id } => {
                    self.done.push("forget");
                    assert!(self.sessions.remove(&id).is_some());
                }
                FastCommand::Find { slot, to } => {
                    self.done.push("find");
                    let ways = if self.is_nowhere { [None; 2] } else { [Some(1), Some(2)] };
                    world.relay.handle_ways(now, slot, to, ways);
                }
                FastCommand::HandOver { id, entry, states, .. } => {
                    self.done.push("hand over");
                    let before = self.states.insert(entry.slot, (entry.generation, states));
                    assert!(before.is_none_or(|(generation, _)| generation != entry.generation));
                    *self.sessions.get_mut(&id).expect("known first") = Some(entry);
                }
                FastCommand::Update { id, entry, .. } => {
                    self.done.push("update");
                    let old = self.sessions[&id].expect("handed over before");
                    assert_eq!((old.slot, old.generation), (entry.slot, entry.generation));
                    self.sessions.insert(id, Some(entry));
                }
                FastCommand::TakeBack { id, slot, entry_slot } => {
                    self.done.push("take back");
                    assert!(self.sessions.insert(id, None).unwrap().is_some());
                    world.relay.handle_taken_back(slot, self.states[&entry_slot].1.map(Some));
                }
                FastCommand::Look { slot, entry_slot } => {
                    self.done.push("look");
                    let last = self.states[&entry_slot].1.map(|state| state.refilled_ns);
                    world.relay.handle_activity(now, slot, last[0].max(last[1]));
                }
            }
        }
    }

    fn done(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.done)
    }

    fn entry(&self) -> Session {
        self.sessions[&SESSION].expect("handed over")
    }

    /// The fast path lets datagrams of a role pass, up to this sequence.
    fn pass(&mut self, now_ns: u64, role: usize, sequence: u64) {
        let slot = self.entry().slot;
        let state = &mut self.states.get_mut(&slot).unwrap().1[role];
        (state.next, state.seen, state.refilled_ns) = (sequence + 1, [u64::MAX; 4], now_ns);
    }
}

/// A world with a fast path, and two bound peers whose session it carries.
fn handed_over() -> (World, Maps, Peer, Peer) {
    let mut world = World::new();
    world.relay.enable_fast_path(7);
    let mut maps = Maps::default();
    let (client, host) = world.pair();
    maps.drive(&mut world);
    assert_eq!(maps.done(), ["know", "find", "hand over"]);
    assert_eq!((world.relay.handed_over(), world.relay.unknown_to_fast()), (1, 0));
    (world, maps, client, host)
}

fn run(world: &mut World, maps: &mut Maps, ms: u64, peers: &mut [&mut Peer]) {
    for _ in 0..ms.div_ceil(10) {
        world.run(10, peers);
        maps.drive(world);
    }
}

#[test]
fn an_active_session_is_handed_over_with_what_its_leases_say() {
    let (world, maps, ..) = handed_over();
    let entry = maps.entry();
    assert_eq!(entry.slot, 7 + world.relay.len() as u32 - 1);
    assert_eq!(entry.peers.map(|peer| peer.address), [world::client_address(), world::host_address()]);
    assert_eq!(entry.peers.map(|peer| peer.way), [1, 2]);
    assert!(entry.flows.iter().all(|flow| flow.hard_rate == 12_500_000 && flow.soft_rate == 6_250_000));
    assert_ne!(entry.flows[0].key, entry.flows[1].key);
}

/// Proves RELAY-FAST-2: userspace knows what passed, and decides over nothing before it does.
#[test]
fn a_datagram_that_goes_up_brings_the_session_back() {
    let (mut world, mut maps, mut client, mut host) = handed_over();
    let early: Vec<_> = (0..100).map(|_| client.wrap(world.us, b"through the fast path").unwrap()).collect();
    maps.pass(world.now().ns, 0, 99);
    assert_eq!(world.deliver(client.address, &early[99]).0, Action::TakeBack);
    assert_eq!(world.deliver(client.address, &early[99]).0, Action::TakeBack, "until it was taken back");
    maps.drive(&mut world);
    assert_eq!(maps.done(), ["take back"]);
    for datagram in &early {
        assert_eq!(world.deliver(client.address, datagram).0, Action::Drop(DropReason::Replay));
    }
    let action = world.send(0, b"next", &mut [&mut client, &mut host]);
    assert_eq!(action, Action::Forward(host.address));

    // It returns after a second, the next time after two.
    for pause_ms in [1000, 2000, 4000] {
        run(&mut world, &mut maps, pause_ms - 20, &mut [&mut client, &mut host]);
        assert_eq!(world.relay.handed_over(), 0);
        run(&mut world, &mut maps, 1100, &mut [&mut client, &mut host]);
        assert_eq!(maps.done(), ["find", "hand over"]);
        let sequence = maps.states[&maps.entry().slot].1[0].next;
        assert_eq!(sequence, 101, "it goes on where userspace was");
        let again = client.wrap(world.us, b"up again").unwrap();
        assert_eq!(world.deliver(client.address, &again).0, Action::TakeBack);
        maps.drive(&mut world);
        assert_eq!(maps.done(), ["take back"]);
    }
}

#[test]
fn forged_and_foreign_datagrams_bring_nothing_back() {
    let (mut world, mut maps, mut client, _) = handed_over();
    let good = client.wrap(world.us, &[1; 100]).unwrap();
    let mut forged = good.clone();
    forged[28] ^= 1;
    assert_eq!(world.deliver(client.address, &forged).0, Action::Drop(DropReason::Mac));
    let elsewhere = world.deliver(world::attacker_address(), &good).0;
    assert_eq!(elsewhere, Action::DropAndAnswer(DropReason::Address));
    maps.drive(&mut world);
    assert_eq!((maps.done(), world.relay.handed_over()), (vec![], 1));
}

#[test]
fn a_new_epoch_forgets_what_the_old_one_remembered() {
    let (mut world, mut maps, client, mut host) = handed_over();
    maps.pass(world.now().ns, 0, 5000);
    maps.pass(world.now().ns, 1, 3000);
    let token = world.lease();
    let mut again = world.peer(1, &token, client.address);
    run(&mut world, &mut maps, 20, &mut [&mut again, &mut host]);
    assert_eq!(maps.done(), ["take back", "find", "hand over"]);
    let states = maps.states[&maps.entry().slot].1;
    assert_eq!(
        states.map(|state| state.next),
        [0, 3001],
        "the client's sequence begins anew, the host's does not"
    );
}

#[test]
fn a_renewal_changes_the_entry_in_place_and_a_move_takes_it_back() {
    let (mut world, mut maps, mut client, mut host) = handed_over();
    let before = maps.entry();
    world.us += 60_000_000;
    maps.pass(world.now().ns, 0, 10);
    let token = world.lease();
    for peer in [&mut client, &mut host] {
        peer.peer.set_lease(world.us, &token).unwrap();
    }
    run(&mut world, &mut maps, 20, &mut [&mut client, &mut host]);
    let after = maps.entry();
    assert!(maps.done().iter().all(|&done| done == "update" || done == "find"));
    assert!(after.flows[0].expires_ns > before.flows[0].expires_ns);
    assert_eq!((after.generation, after.flows[0].key), (before.generation, before.flows[0].key));

    // A peer that renewed a moment ago does not believe that it has to again.
    run(&mut world, &mut maps, 300, &mut [&mut client, &mut host]);
    maps.done();
    client.address = address("192.0.2.77:7777");
    let datagram = client.wrap(world.us, &[1; 100]).unwrap();
    let (_, sent) = world.deliver(client.address, &datagram);
    world.route(sent, &mut [&mut client, &mut host]);
    run(&mut world, &mut maps, 500, &mut [&mut client, &mut host]);
    assert_eq!(maps.done(), ["take back", "find", "hand over"]);
    assert_eq!(maps.entry().peers[0].address, client.address);
    assert_eq!(maps.states[&maps.entry().slot].1[0].next, 11);
}

#[test]
fn silence_is_what_the_fast_path_says() {
    let (mut world, mut maps, ..) = handed_over();
    for _ in 0..4 {
        run(&mut world, &mut maps, 30_000, &mut []);
        maps.pass(world.now().ns, 1, 5);
    }
    assert_eq!(world.relay.len(), 1, "two minutes of which userspace saw nothing");
    let done = maps.done();
    assert!(done.contains(&"look"), "{done:?}");
    run(&mut world, &mut maps, 63_000, &mut []);
    assert_eq!(world.relay.len(), 0);
    assert!(maps.sessions.is_empty(), "nothing is left in the map");
}

#[test]
fn sessions_of_two_families_or_without_a_way_stay() {
    let mut world = World::new();
    world.relay.enable_fast_path(0);
    let mut maps = Maps::default();
    let token = world.lease();
    let mut client = world.peer(1, &token, address("[2001:db8::1]:1000"));
    let mut host = world.peer(2, &token, world::host_address());
    run(&mut world, &mut maps, 3000, &mut [&mut client, &mut host]);
    assert_eq!((maps.done(), world.relay.handed_over()), (vec!["know"], 0));
    assert!(matches!(world.send(0, b"x", &mut [&mut client, &mut host]), Action::Forward(_)));

    let (mut world, mut maps, mut client, mut host) = handed_over();
    maps.is_nowhere = true;
    world.relay.handle_routes_changed();
    maps.drive(&mut world);
    assert_eq!(maps.done(), ["find", "take back"]);
    run(&mut world, &mut maps, 5000, &mut [&mut client, &mut host]);
    assert!(maps.done().iter().all(|&done| done == "find"));
    assert!(matches!(world.send(0, b"x", &mut [&mut client, &mut host]), Action::Forward(_)));
    maps.is_nowhere = false;
    run(&mut world, &mut maps, 2500, &mut [&mut client, &mut host]);
    assert_eq!(world.relay.handed_over(), 1);
}

/// Proves RELAY-FAST-3, RELAY-FAST-4: a map without room.
#[test]
fn sessions_without_room_are_counted_and_come_in_later() {
    let mut world = World::new();
    world.relay.enable_fast_path(0);
    let mut maps = Maps { room: Some(0), ..Maps::default() };
    let (mut client, mut host) = world.pair();
    maps.drive(&mut world);
    assert_eq!((maps.done(), world.relay.unknown_to_fast()), (vec!["know"], 1));
    assert!(matches!(world.send(0, b"x", &mut [&mut client, &mut host]), Action::Forward(_)));
    maps.room = None;
    run(&mut world, &mut maps, 2000, &mut [&mut client, &mut host]);
    assert_eq!((world.relay.unknown_to_fast(), world.relay.handed_over()), (0, 1));
}

#[test]
fn what_ends_is_forgotten_and_its_slot_has_another_generation() {
    let (mut world, mut maps, ..) = handed_over();
    let before = maps.entry();
    let mut policy = world.policy();
    policy.revoked.insert(SESSION);
    world.relay.apply_policy(&policy);
    maps.drive(&mut world);
    assert_eq!((maps.done(), maps.sessions.len(), world.relay.handed_over()), (vec!["forget"], 0, 0));
    let (_client, _host) = world.pair();
    maps.drive(&mut world);
    assert_eq!(maps.entry().slot, before.slot);
    assert_ne!(maps.entry().generation, before.generation);
}

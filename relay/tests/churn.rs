//! A day of sessions that come, renew, move, fall silent and end, in virtual time, with the maps of the real program where
//! it may be loaded: at the end nothing is left of any of them, and nothing has grown.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use rift_crypto::Identity;
use rift_relay::agreement::RelayKeys;
use rift_relay::lease::{Claims, KeyRing};
use rift_relay::wire::{Role, SessionId};
use wavry_relay::core::{FastCommand, IDLE_NS, Now, Relay, RelayLimits, WAITING_NS};
use wavry_relay::verify::{Grant, Outcome, Policy, Verifier};
use wavry_xdp::program::LoadError;
use wavry_xdp::relay::{Budgets, RelayConfig, RelayProgram, SessionMap, State};
use zeroize::Zeroizing;

const SECOND_NS: u64 = 1_000_000_000;
const DAY: u64 = 24 * 3600;
const SLOTS: usize = 128;
const UNIX_MS: u64 = 1_700_000_000_000;
/// Lifetime of a lease, and when it is renewed, seconds.
const LEASE: u64 = 300;
const RENEWED_AFTER: u64 = 240;

/// The program's maps, or what stands for them.
enum Maps {
    Real(SessionMap),
    Fake(BTreeMap<(u32, u8), State>),
}

impl Maps {
    fn new() -> Self {
        let budgets = Budgets { strangers: 1, answered: 1, proved: 1, known: 1 };
        let (sessions, slots) = (SLOTS as u32, SLOTS as u32);
        let config = RelayConfig { port: 4820, sessions, slots, challenge_keys: [[1; 2]; 2], budgets };
        match RelayProgram::load(&config) {
            Ok(program) => Self::Real(program.sessions()),
            Err(error @ LoadError::NotPermitted) => {
                eprintln!("with maps that are none: {error}");
                Self::Fake(BTreeMap::new())
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn write(&mut self, slot: u32, role: u8, generation: u16, state: &State) {
        match self {
            Self::Real(map) => map.write_state(slot, role, generation, state).unwrap(),
            Self::Fake(states) => {
                states.insert((slot, role), *state);
            }
        }
    }

    fn read(&self, slot: u32, role: u8) -> State {
        match self {
            Self::Real(map) => map.read_state(slot, role).unwrap(),
            Self::Fake(states) => states[&(slot, role)],
        }
    }
}

/// The maps with what is expected to be in them.
struct Table {
    maps: Maps,
    known: BTreeSet<SessionId>,
    /// Slot and generation of what the program carries.
    carried: BTreeMap<SessionId, (u32, u16)>,
    commands: u64,
}

impl Table {
    fn drive(&mut self, relay: &mut Relay, now: Now) {
        while let Some(command) = relay.poll_fast(now) {
            self.commands += 1;
            match command {
                FastCommand::Know { id, entry_slot, .. } => {
                    assert!(self.known.insert(id), "entered twice");
                    if let Maps::Real(map) = &self.maps {
                        map.put_slow(&id.0, entry_slot).unwrap();
                    }
                }
                FastCommand::Forget { id } => {
                    assert!(self.known.remove(&id), "taken out twice");
                    self.carried.remove(&id);
                    if let Maps::Real(map) = &self.maps {
                        map.remove(&id.0).unwrap();
                    }
                }
                FastCommand::Find { slot, to } => relay.handle_ways(now, slot, to, [Some(1), Some(2)]),
                FastCommand::HandOver { id, entry, states, .. } => {
                    for (role, state) in (0..).zip(&states) {
                        self.maps.write(entry.slot, role, entry.generation, state);
                    }
                    if let Maps::Real(map) = &self.maps {
                        map.put(&id.0, &entry).unwrap();
                    }
                    assert_eq!(self.carried.insert(id, (entry.slot, entry.generation)), None);
                }
                FastCommand::Update { id, entry, .. } => {
                    assert_eq!(self.carried[&id], (entry.slot, entry.generation));
                    if let Maps::Real(map) = &self.maps {
                        map.put(&id.0, &entry).unwrap();
                    }
                }
                FastCommand::TakeBack { id, slot, entry_slot } => {
                    assert_eq!(self.carried.remove(&id).unwrap().0, entry_slot);
                    if let Maps::Real(map) = &self.maps {
                        map.put_slow(&id.0, entry_slot).unwrap();
                    }
                    let states = [0, 1].map(|role| Some(self.maps.read(entry_slot, role)));
                    relay.handle_taken_back(slot, states);
                }
                FastCommand::Look { slot, entry_slot } => {
                    let last = [0, 1].map(|role| self.maps.read(entry_slot, role).refilled_ns);
                    relay.handle_activity(now, slot, last[0].max(last[1]));
                }
            }
        }
    }

    /// As the program notes that datagrams passed.
    fn pass(&mut self, id: SessionId, now: Now) {
        let Some(&(slot, generation)) = self.carried.get(&id) else { return };
        for role in 0..2 {
            let state = self.maps.read(slot, role);
            let passed = State { next: state.next + 1, refilled_ns: now.ns, ..state };
            self.maps.write(slot, role, generation, &passed);
        }
    }
}

/// What a session does until it ends.
struct Life {
    id: SessionId,
    /// Seconds.
    begun: u64,
    ends: u64,
    renews: u64,
    is_alone: bool,
    ports: [u16; 2],
}

/// A sequence that only has to be the same each time (Vigna's splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn now(second: u64) -> Now {
    Now { ns: (1000 + second) * SECOND_NS, unix_ms: UNIX_MS + second * 1000 }
}

struct Day {
    relay: Relay,
    table: Table,
    identities: [Identity; 3],
    /// Presentations that were taken, and refused for want of room.
    granted: u64,
    full: u64,
}

impl Day {
    /// A verified presentation of one peer, as the verifying thread hands it back.
    fn present(&mut self, life: &Life, role: Role, now: Now, renew: bool) -> bool {
        let peers = [self.identities[0].wavry_id(), self.identities[1].wavry_id()];
        let relay = self.identities[2].wavry_id();
        let port = life.ports[role as usize];
        let keys = RelayKeys { forward: [life.begun, port.into()], answer: [1, 2] };
        let outcome = Outcome {
            from: SocketAddr::from(([10, 0, role as u8, 1], port)),
            session: life.id,
            role,
            renew,
            nonce: 1,
            challenge_ms: now.ns / 1_000_000,
            result: Ok(Grant {
                claims: Claims::from_now(life.id, relay, peers, now.unix_ms, LEASE * 1000, 1000),
                keys: (!renew).then_some(keys),
            }),
        };
        let before = self.relay.counters().rejected;
        assert_eq!(self.relay.handle_verified(now, &outcome), Some(outcome.from));
        let taken = self.relay.counters().rejected == before;
        self.granted += u64::from(taken);
        self.full += u64::from(!taken);
        taken
    }
}

/// Proves RELAY-MEM-1 over time: memory, maps and counters after a day are those of the sessions that there are.
#[test]
fn a_day_of_churn_leaves_nothing_and_grows_nothing() {
    let identities = [1u8, 2, 3].map(|byte| Identity::from_seed([byte; 32]).unwrap());
    let policy = Policy { issuers: KeyRing::default(), ..Policy::default() };
    let (_, key) = Verifier::new(&identities[2], &Zeroizing::new([1; 32]), Arc::new(policy)).unwrap();
    let limits = RelayLimits { sessions: SLOTS, ..RelayLimits::default() };
    let mut relay = Relay::new(limits, key, [1; 64]);
    relay.enable_fast_path(0);
    let table = Table { maps: Maps::new(), known: BTreeSet::new(), carried: BTreeMap::new(), commands: 0 };
    let mut day = Day { relay, table, identities, granted: 0, full: 0 };
    let mut chance = Chance(24);
    let mut lives: Vec<Life> = Vec::new();
    let (mut sessions, mut moves, mut renewals, mut most) = (0u128, 0u64, 0u64, 0);
    let memory = day.relay.memory_bytes();
    let mut resident_then = 0;
    for second in 0..DAY {
        let now = now(second);
        // More than there is room for at times: then newcomers are refused.
        if chance.below(10) < 4 {
            sessions += 1;
            let life = Life {
                id: SessionId(sessions.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes()),
                begun: second,
                ends: second + 1 + chance.below(600),
                renews: second + RENEWED_AFTER,
                is_alone: chance.below(10) == 0,
                ports: [0, 1].map(|_| 1024 + chance.below(60_000) as u16),
            };
            if day.present(&life, Role::Client, now, false) {
                if !life.is_alone {
                    assert!(day.present(&life, Role::Host, now, false), "the second peer needs no room");
                }
                lives.push(life);
            }
        }
        lives.retain(|life| life.ends > second);
        for life in &mut lives {
            if second >= life.renews && day.relay.state(life.id).is_some() {
                life.renews = second + RENEWED_AFTER;
                if chance.below(2) == 0 {
                    life.ports[0] ^= 1;
                    moves += 1;
                }
                for role in Role::ALL.into_iter().take(2 - usize::from(life.is_alone)) {
                    renewals += u64::from(day.present(life, role, now, true));
                }
            }
            if (second - life.begun).is_multiple_of(20) {
                day.table.pass(life.id, now);
            }
        }
        day.table.drive(&mut day.relay, now);
        for part in 0..100 {
            let now = Now { ns: now.ns + part * SECOND_NS / 100, ..now };
            day.relay.handle_timeout(now);
            day.table.drive(&mut day.relay, now);
        }
        most = most.max(day.relay.len());
        assert_eq!(day.table.known.len(), day.relay.len(), "second {second}");
        assert_eq!(day.table.carried.len(), day.relay.handed_over());
        assert_eq!(day.relay.unknown_to_fast(), 0);
        if second.is_multiple_of(3600) {
            // Places of removed sessions do not count until the table is cleaned.
            assert!(day.relay.memory_bytes() <= memory, "hour {}", second / 3600);
            if second == 3600 {
                resident_then = resident();
            }
        }
    }
    let grown = resident().saturating_sub(resident_then);
    println!(
        "{sessions} sessions, at most {most} at once, {renewals} renewals, {moves} moves, {} refused, {} commands, grown \
         by {grown} bytes in 23 hours",
        day.full, day.table.commands
    );
    assert!(grown < 1 << 20, "{grown}");
    assert!(sessions > 30_000 && renewals > 10_000 && moves > 5_000 && day.full > 0);
    assert_eq!(most, SLOTS, "it was full at times");

    // Everybody leaves.
    for second in DAY..DAY + (IDLE_NS.max(WAITING_NS) / SECOND_NS) + 5 {
        for part in 0..100 {
            let now = Now { ns: now(second).ns + part * SECOND_NS / 100, ..now(second) };
            day.relay.handle_timeout(now);
            day.table.drive(&mut day.relay, now);
        }
    }
    assert!(day.relay.is_empty() && day.table.known.is_empty() && day.table.carried.is_empty());
    let counters = day.relay.counters();
    assert_eq!(counters.bound + counters.renewed, day.granted);
    assert_eq!((counters.renewed, counters.rejected), (renewals, day.full));
    assert_eq!(counters.moved, moves);
    // The real map is empty: it has room for as many as ever, and no more.
    if let Maps::Real(map) = &day.table.maps {
        let fits =
            (0..=SLOTS as u32).take_while(|&n| map.put_slow(&u128::from(n).to_be_bytes(), n).is_ok()).count();
        assert_eq!(fits, SLOTS);
    }
}

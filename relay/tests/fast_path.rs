//! The fast path, packet by packet through the kernel (`BPF_PROG_TEST_RUN`), against the same decision in userspace:
//! same verdict, same bytes, same state afterwards.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod fast;
mod program;
#[path = "fast/step.rs"]
mod step;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rift_relay::present::{CHALLENGE_DATAGRAM_LEN, Present, Proof};
use rift_relay::wire::{Role, SessionId};
use wavry_relay::challenge::ChallengeKeys;
use wavry_relay::direction::Direction;
use wavry_runtime::clock::Clock;
use wavry_xdp::program::Verdict;
use wavry_xdp::relay::{
    Budgets, Counters, Dropped, GENERATION_MAX, Passed, Peer, RelayConfig, RelayProgram, Session, SessionMap,
    State, Way, WayTable,
};

use fast::Frame;
use fast::model::{Decision, Known, Model};
use step::{Sequence, Step, plain_step, step};

const PORT: u16 = 4820;
/// The device that test runs come from.
const LOOPBACK: u32 = 1;
const V4: [u8; 16] = [4; 16];
const V6: [u8; 16] = [6; 16];
const SLOW: [u8; 16] = [5; 16];
const ABSENT: [u8; 16] = [7; 16];
/// Sequences of datagrams that are compared.
const CASES: u32 = 400;
/// So much that nothing is refused for it.
const PLENTY: Budgets =
    Budgets { strangers: 400_000_000, answered: 400_000_000, proved: 400_000_000, known: 400_000_000 };
/// Hardly anything.
const SCARCE: Budgets = Budgets { strangers: 1, answered: 1, proved: 1, known: 1 };
/// Longer than any test.
const HOUR_NS: u64 = 3_600_000_000_000;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The program with four ways: to each peer of an IPv4 and an IPv6 session.
struct Lab {
    program: RelayProgram,
    map: SessionMap,
    _ways: WayTable,
    model: Model,
    generation: u16,
}

impl Lab {
    /// `None`, with the reason printed, where eBPF programs may not be loaded.
    fn new(budgets: Budgets, vlan: Option<u16>) -> Option<Self> {
        let challenges = ChallengeKeys::new(std::array::from_fn(|i| i as u8 * 7));
        let config = RelayConfig { port: PORT, sessions: 8, slots: 8, challenge_keys: challenges.0, budgets };
        let program = program::load(&config)?;
        let sources = ["10.77.0.1", "10.78.0.1", "fd77::1", "fd78::1"].map(ip);
        let mut table = program.ways();
        let mut ways = BTreeMap::new();
        for (number, source) in (10..).zip(sources) {
            let way = Way {
                device: LOOPBACK,
                vlan,
                mtu: 1400,
                to_mac: [2, 0, 0, 0, 9, number as u8],
                from_mac: [2, 0, 0, 0, 8, number as u8],
                source,
            };
            table.set(number, &way).unwrap();
            ways.insert(number, way);
        }
        table.set_locals(&sources).unwrap();
        let map = program.sessions();
        map.put_slow(&SLOW, 1).unwrap();
        let slow = Session { generation: 0, ..session(V4, &Direction::new([0; 2], 0, 0, 1, 1), 0) };
        let slow = Known { session: slow, directions: [Direction::new([0; 2], 0, 0, 1, 1); 2] };
        let sessions = BTreeMap::from([(SLOW, slow)]);
        let model =
            Model { port: PORT, sessions, ways, locals: sources.to_vec(), is_generic: false, challenges };
        Some(Self { program, map, _ways: table, model, generation: 0 })
    }

    fn set_generic(&mut self, is_generic: bool) {
        self.program.set_generic(is_generic).unwrap();
        self.model.is_generic = is_generic;
    }

    /// Hands both sessions over, with these states.
    fn hand_over(&mut self, directions: &[Direction; 2]) {
        self.generation = self.generation % GENERATION_MAX + 1;
        for (slot, id) in [(2, V4), (3, V6)] {
            for (role, direction) in (0..).zip(directions) {
                self.map.write_state(slot, role, self.generation, &direction.state()).unwrap();
            }
            let session = Session {
                slot,
                flows: directions.map(|direction| direction.flow()),
                ..session(id, &directions[0], self.generation)
            };
            self.map.put(&id, &session).unwrap();
            self.model.sessions.insert(id, Known { session, directions: *directions });
        }
    }

    fn states(&self) -> Vec<State> {
        let slots = [(2, 0), (2, 1), (3, 0), (3, 1)];
        slots.map(|(slot, role)| self.map.read_state(slot, role).unwrap()).to_vec()
    }

    fn model_states(&self) -> Vec<State> {
        [V4, V6]
            .iter()
            .flat_map(|id| self.model.sessions[id].directions.map(|direction| direction.state()))
            .collect()
    }

    /// Puts a frame through the program and the model and compares everything.
    fn check(&mut self, frame: &Frame, bytes: &[u8]) -> Result<Decision, TestCaseError> {
        let before = (self.states(), self.program.counters().read().unwrap());
        let mut out = vec![0; bytes.len() + 64];
        let begun_ns = Clock.now();
        let run = self.program.program().test_run(bytes, &mut out, 1).unwrap();
        let after = (self.states(), self.program.counters().read().unwrap());
        // The program read the clock itself; what it read is in the state that it filled.
        let filled = before.0.iter().zip(&after.0).find(|(a, b)| a.refilled_ns != b.refilled_ns);
        let now_ns = filled.map_or(begun_ns, |(_, state)| state.refilled_ns);

        let decision = self.model.decide(bytes, now_ns);
        let verdict = match decision {
            Decision::Forwarded(_) | Decision::Answered => Verdict::Tx,
            Decision::Passed(_) | Decision::NotOurs => Verdict::Pass,
            Decision::Dropped(_) => Verdict::Drop,
        };
        prop_assert_eq!(run.verdict, verdict, "{:?} {:?}", decision, frame);
        prop_assert_eq!(&after.0, &self.model_states(), "{:?} {:?}", decision, frame);
        let expected = match decision {
            Decision::Forwarded(role) => {
                let id: [u8; 16] = frame.payload[4..20].try_into().unwrap();
                self.model.sent_on(frame, &self.model.sessions[&id].session, role).bytes()
            }
            Decision::Answered => {
                // The time of the challenge is the program's; that of a probe is not read.
                let at = run.len.saturating_sub(24);
                let time_ms = u64::from_be_bytes(out[at..at + 8].try_into().unwrap());
                let is_challenge = frame.payload[2] != 0x20;
                prop_assert!(
                    !is_challenge || (begun_ns / 1_000_000..=Clock.now() / 1_000_000).contains(&time_ms)
                );
                prop_assert!(run.len <= bytes.len());
                self.model.answer(frame, time_ms).bytes()
            }
            _ => bytes.to_vec(),
        };
        prop_assert_eq!(&out[..run.len], &expected[..], "{:?} {:?}", decision, frame);
        prop_assert_eq!(
            counted(&before.1, &after.1),
            [decision]
                .into_iter()
                .filter(|d| *d != Decision::NotOurs)
                .map(|d| if let Decision::Forwarded(_) = d { Decision::Forwarded(Role::Client) } else { d })
                .collect::<Vec<_>>()
        );
        if let Decision::Forwarded(_) = decision {
            let bytes = after.1.forwarded_bytes - before.1.forwarded_bytes;
            prop_assert_eq!(bytes, frame.payload.len() as u64);
        }
        Ok(decision)
    }
}

/// What was counted between two readings; roles are not.
fn counted(before: &Counters, after: &Counters) -> Vec<Decision> {
    let mut all = Vec::new();
    let mut add = |count: u64, decision| all.extend((0..count).map(|_| decision));
    add(after.forwarded - before.forwarded, Decision::Forwarded(Role::Client));
    add(after.answered - before.answered, Decision::Answered);
    for &reason in Passed::ALL {
        add(after.passed(reason) - before.passed(reason), Decision::Passed(reason));
    }
    for &reason in Dropped::ALL {
        add(after.dropped(reason) - before.dropped(reason), Decision::Dropped(reason));
    }
    all
}

/// The session of an id, both directions as given.
fn session(id: [u8; 16], direction: &Direction, generation: u16) -> Session {
    let (addresses, way) =
        if id == V6 { (["fd77::2", "fd78::2"], 12) } else { (["10.77.0.2", "10.78.0.2"], 10) };
    let peer = |index: usize| Peer {
        address: SocketAddr::new(ip(addresses[index]), 40_000 + index as u16),
        way: way + index as u16,
    };
    Session { slot: 0, generation, peers: [peer(0), peer(1)], flows: [direction.flow(); 2] }
}

/// What a direction can have come to.
fn direction() -> impl Strategy<Value = Direction> {
    let next = prop_oneof![Just(0u64), 1u64..500, Just((1 << 48) - 3), Just(1 << 40)];
    let expiry = prop_oneof![9 => Just(true), 1 => Just(false)];
    let rate = prop_oneof![Just(1_000u32), Just(1_000_000)];
    (
        any::<[u64; 2]>(),
        next,
        any::<[u64; 4]>(),
        expiry,
        (rate.clone(), rate),
        0u64..8000,
        0u64..8000,
        any::<bool>(),
    )
        .prop_map(|(key, next, seen, is_valid, (soft, hard), hard_level, soft_level, full)| {
            let now_ns = Clock.now();
            let expires_ns = if is_valid { now_ns + HOUR_NS } else { now_ns - 1 };
            let mut direction = Direction::new(key, now_ns, expires_ns, soft, hard);
            let mut state = State { next, seen, ..direction.state() };
            if next == 0 {
                state.seen = [0; 4];
            }
            if !full {
                (state.hard, state.soft) = (hard_level * 1_000_000_000, soft_level * 1_000_000_000);
            }
            direction.set_state(&state);
            direction
        })
}

/// Runs `cases` sequences of datagrams and says how often each decision was taken.
fn compare(lab: &mut Lab, cases: u32) -> BTreeMap<String, u32> {
    let seen = RefCell::new(BTreeMap::new());
    let lab = RefCell::new(lab);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let strategy = ((direction(), direction()), proptest::collection::vec(step(), 1..30));
    runner
        .run(&strategy, |((client, host), steps)| {
            let mut lab = lab.borrow_mut();
            lab.hand_over(&[client, host]);
            for step in &steps {
                let frame = step.frame(&lab.model);
                let mut bytes = frame.bytes();
                if let Some((at, value)) = step.broken
                    && let Some(byte) = bytes.get_mut(at)
                {
                    *byte = value;
                }
                if let Some(cut) = step.cut {
                    bytes.truncate(cut);
                }
                // What a broken header leads to is compared where it is not sent on; its bytes are the other test's.
                let is_broken = bytes != frame.bytes();
                let decision =
                    if is_broken { lab.check_broken(&frame, &bytes)? } else { lab.check(&frame, &bytes)? };
                *seen.borrow_mut().entry(format!("{decision:?}")).or_default() += 1;
            }
            Ok(())
        })
        .unwrap();
    seen.into_inner()
}

impl Lab {
    /// As [`check`](Self::check), but bytes are compared only if they are not sent on.
    fn check_broken(&mut self, frame: &Frame, bytes: &[u8]) -> Result<Decision, TestCaseError> {
        let mut out = vec![0; bytes.len() + 64];
        let before = self.states();
        let begun_ns = Clock.now();
        let run = self.program.program().test_run(bytes, &mut out, 1).unwrap();
        let after = self.states();
        let filled = before.iter().zip(&after).find(|(a, b)| a.refilled_ns != b.refilled_ns);
        let now_ns = filled.map_or(begun_ns, |(_, state)| state.refilled_ns);
        let decision = self.model.decide(bytes, now_ns);
        let verdict = match decision {
            Decision::Forwarded(_) | Decision::Answered => Verdict::Tx,
            Decision::Passed(_) | Decision::NotOurs => Verdict::Pass,
            Decision::Dropped(_) => Verdict::Drop,
        };
        prop_assert_eq!(run.verdict, verdict, "{:?} {:?} {:02x?}", decision, frame, bytes);
        prop_assert_eq!(&after, &self.model_states());
        if verdict != Verdict::Tx {
            prop_assert_eq!(&out[..run.len], bytes);
        }
        Ok(decision)
    }
}

/// Proves RELAY-FAST-1, and RELAY-FWD-1, RELAY-FWD-2, RELAY-FWD-3 for the fast path: verdict, bytes and state of random sequences of datagrams.
#[test]
fn decides_as_userspace_does() {
    for (vlan, is_generic) in [(None, false), (None, true), (Some(100), false)] {
        let Some(mut lab) = Lab::new(PLENTY, vlan) else { return };
        lab.set_generic(is_generic);
        // A slow machine may ask for fewer, and then not every answer is seen.
        let cases = std::env::var("PROPTEST_CASES").map_or(CASES, |cases| cases.parse().unwrap());
        let seen = compare(&mut lab, cases);
        println!("VLAN {vlan:?}, generic {is_generic}: {seen:?}");
        if vlan.is_none() && cases >= CASES {
            // A comparison that never saw an answer would prove nothing about it.
            let mut wanted = vec!["Forwarded(Client)", "Forwarded(Host)", "Passed(Slow)", "Passed(Absent)"];
            wanted.extend([
                "Dropped(Challenge)",
                "Passed(Address)",
                "Passed(Way)",
                "Passed(Unusual)",
                "Passed(Control)",
                "NotOurs",
            ]);
            wanted.extend(["Dropped(Replay)", "Dropped(Old)", "Dropped(FarAhead)", "Dropped(Expired)"]);
            wanted.extend(["Dropped(HardLimit)", "Dropped(SoftLimit)"]);
            wanted.push("Answered");
            if !is_generic {
                wanted.extend(["Dropped(Mac)", "Dropped(Header)", "Dropped(Magic)", "Dropped(Version)"]);
                wanted.push("Dropped(Kind)");
            }
            for decision in wanted {
                assert!(seen.get(decision).is_some_and(|&count| count >= 3), "{decision}: {seen:?}");
            }
        }
    }
}

#[test]
fn any_bytes_are_decided_alike() {
    let Some(mut lab) = Lab::new(PLENTY, None) else { return };
    let idle = Direction::new([1, 2], Clock.now(), Clock.now() + HOUR_NS, 1_000, 1_000);
    lab.hand_over(&[idle, idle]);
    let lab = RefCell::new(lab);
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let frame = Frame::new("10.77.0.2:1".parse().unwrap(), "10.77.0.1:4820".parse().unwrap(), vec![]);
    runner
        .run(&(proptest::collection::vec(any::<u8>(), 0..200), any::<bool>()), |(bytes, whole)| {
            let frame = Frame { payload: bytes.clone(), ..frame.clone() };
            let bytes = if whole { frame.bytes() } else { [&[0; 14][..], &bytes].concat() };
            lab.borrow_mut().check_broken(&frame, &bytes).map(|_| ())
        })
        .unwrap();
}

/// A lab with both sessions handed over, empty windows, and high rates.
fn busy_lab(budgets: Budgets) -> Option<Lab> {
    let mut lab = Lab::new(budgets, None)?;
    let fresh = Direction::new([1, 2], Clock.now(), Clock.now() + HOUR_NS, 10_000_000, 10_000_000);
    lab.hand_over(&[fresh, fresh]);
    Some(lab)
}

/// A datagram of the IPv4 session's client, as it comes.
fn plain(lab: &Lab, sequence: u64) -> Vec<u8> {
    Step { sequence: Sequence::Exactly(sequence), ..plain_step() }.frame(&lab.model).bytes()
}

fn verdict(program: &RelayProgram, frame: &[u8]) -> Verdict {
    program.program().test_run(frame, &mut [0; 2048], 1).unwrap().verdict
}

/// Proves RELAY-FAST-2: a session that was taken back is carried by one path only, and nothing that passed is forgotten.
#[test]
fn a_session_is_taken_back_with_what_it_remembers() {
    let Some(mut lab) = busy_lab(SCARCE) else { return };
    for sequence in 0..100 {
        assert_eq!(verdict(&lab.program, &plain(&lab, sequence)), Verdict::Tx);
    }
    let known = &lab.model.sessions[&V4];
    let (slot, generation, old) = (known.session.slot, known.session.generation, known.session);
    lab.map.put_slow(&V4, slot).unwrap();
    lab.map.settle();
    assert_eq!(verdict(&lab.program, &plain(&lab, 100)), Verdict::Pass);
    let state = lab.map.take_state(slot, 0).unwrap();
    assert_eq!(state.next, 100);
    assert_eq!(lab.map.read_state(slot, 0).unwrap(), state);
    // A run that is late, with the session as it was, finds another generation and changes nothing.
    lab.map.put(&V4, &old).unwrap();
    assert_eq!(verdict(&lab.program, &plain(&lab, 100)), Verdict::Pass);
    assert_eq!(lab.map.read_state(slot, 0).unwrap(), state);
    let mut direction = known.directions[0];
    direction.set_state(&state);
    assert_eq!(direction.pass(Clock.now(), 99, 136), Err(wavry_relay::drop_reason::DropReason::Replay));
    direction.pass(Clock.now(), 100, 136).unwrap();

    // So does one that is later still.
    lab.map.write_state(slot, 0, generation + 1, &direction.state()).unwrap();
    lab.map.put(&V4, &old).unwrap();
    assert_eq!(verdict(&lab.program, &plain(&lab, 101)), Verdict::Pass);
    assert_eq!(lab.map.read_state(slot, 0).unwrap(), direction.state());
    // Handed over again, it goes on.
    lab.map.put(&V4, &Session { generation: generation + 1, ..old }).unwrap();
    assert_eq!(verdict(&lab.program, &plain(&lab, 100)), Verdict::Drop);
    assert_eq!(verdict(&lab.program, &plain(&lab, 101)), Verdict::Tx);
    assert!(lab.map.last_ns(slot, 0).unwrap() > direction.state().refilled_ns);
    lab.map.remove(&V4).unwrap();
    lab.model.sessions.remove(&V4);
    assert!(lab.map.remove(&V4).is_err());
}

/// Proves RELAY-FWD-3 where a card spreads one direction over processors: two of them decide over the same datagrams at the
/// same time, and each sequence passes once.
#[test]
fn two_processors_let_a_sequence_pass_once() {
    let Some(lab) = busy_lab(SCARCE) else { return };
    const DATAGRAMS: u64 = 20_000;
    let frames: Vec<_> = (0..DATAGRAMS).map(|sequence| plain(&lab, sequence)).collect();
    let cores = wavry_runtime::cores::allowed().unwrap();
    let program = &lab.program;
    let arrived = AtomicU64::new(0);
    let both = cores.len().min(2) as u64;
    let mut passed: Vec<usize> = std::thread::scope(|scope| {
        let run = |core: usize| {
            let (frames, arrived) = (&frames, &arrived);
            scope.spawn(move || {
                wavry_runtime::cores::pin_to(core).unwrap();
                // They begin with each at the same moment.
                let meet = |round: u64| {
                    arrived.fetch_add(1, Ordering::AcqRel);
                    for spins in 1.. {
                        if arrived.load(Ordering::Acquire) >= both * (round + 1) {
                            return;
                        }
                        if spins % 1000 == 0 {
                            std::thread::yield_now();
                        }
                        std::hint::spin_loop();
                    }
                };
                let rounds = (0..).zip(frames).filter(|(round, frame)| {
                    meet(*round);
                    verdict(program, frame) == Verdict::Tx
                });
                rounds.map(|(round, _)| round as usize).collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = cores.iter().take(2).map(|&core| run(core)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let counters = program.counters().read().unwrap();
    let (replayed, old) = (counters.dropped(Dropped::Replay), counters.dropped(Dropped::Old));
    let up = counters.passed(Passed::Slow);
    println!("{} passed, {replayed} replayed, {old} old, {up} up", passed.len());
    assert_eq!(passed.len() as u64, counters.forwarded);
    // Whoever waited too long for the lock let its datagram go up, and the other may have taken it.
    assert!(passed.len() as u64 + up >= DATAGRAMS);
    passed.sort_unstable();
    assert!(passed.windows(2).all(|pair| pair[0] < pair[1]), "a sequence passed twice");
}

/// Proves RELAY-FAST-2 where sessions change, end, and leave their place to others while datagrams of theirs come in: what is sent on is sent
/// to a peer of that session, as it was before or after, and never to something between.
#[test]
fn a_session_that_changes_is_seen_whole() {
    const OTHER: [u8; 16] = [8; 16];
    /// What has to happen, and the datagrams that a machine with one busy core may need for it.
    const ENOUGH: u64 = 100;
    const DATAGRAMS: u64 = 1_000_000;
    let Some(lab) = busy_lab(SCARCE) else { return };
    let before = lab.model.sessions[&V4].session;
    let moved = |to: &str| {
        let mut session = before;
        session.peers[1].address = to.parse().unwrap();
        session
    };
    let receivers = ["10.78.0.2:40001", "10.78.255.253:65530"];
    let [near, far] = receivers.map(moved);
    // Whoever has the place of a session afterwards has its key too, so that only the id tells them apart.
    let stranger = moved("10.78.7.7:7777");
    let done = std::sync::atomic::AtomicBool::new(false);
    let changes = AtomicU64::new(0);
    let (program, map) = (&lab.program, &lab.map);
    let mut seen = [0u64; 2];
    std::thread::scope(|scope| {
        let (done, changes) = (&done, &changes);
        scope.spawn(move || {
            while !done.load(Ordering::Acquire) {
                for session in [&near, &far, &near, &far] {
                    map.put(&V4, session).unwrap();
                }
                map.remove(&V4).unwrap();
                map.put(&OTHER, &stranger).unwrap();
                map.remove(&OTHER).unwrap();
                changes.fetch_add(1, Ordering::AcqRel);
            }
        });
        for sequence in 0..DATAGRAMS {
            if changes.load(Ordering::Acquire) > ENOUGH && seen.iter().all(|&count| count > ENOUGH) {
                break;
            }
            let frame = plain(&lab, sequence);
            let mut out = [0; 2048];
            let run = program.program().test_run(&frame, &mut out, 1).unwrap();
            // What is answered is shorter.
            if run.verdict == Verdict::Tx && run.len == frame.len() {
                let address: [u8; 4] = out[30..34].try_into().unwrap();
                let to = SocketAddr::from((address, u16::from_be_bytes([out[36], out[37]])));
                let known = receivers.iter().position(|receiver| receiver.parse() == Ok(to));
                seen[known.unwrap_or_else(|| panic!("sent to {to}"))] += 1;
            }
        }
        done.store(true, Ordering::Release);
    });
    let changes = changes.into_inner();
    println!("{changes} rounds of changes, {seen:?} sent on");
    assert!(changes > ENOUGH && seen.iter().all(|&count| count > ENOUGH), "{changes} {seen:?}");
}

/// How many of `count` runs with the same frame end in each way.
fn verdicts(program: &RelayProgram, frame: &[u8], count: usize, wanted: Verdict) -> usize {
    (0..count).filter(|_| verdict(program, frame) == wanted).count()
}

/// Proves RELAY-FAST-3: what is for nobody is answered as far as the budget goes, and goes up, all of it, if sessions are
/// missing.
#[test]
fn a_flood_for_absent_sessions_stops_at_the_program() {
    let Some(lab) = busy_lab(SCARCE) else { return };
    let mut frame = plain(&lab, 0);
    // The session's id, in the payload.
    frame[14 + 20 + 8 + 4] ^= 1;
    let processors = std::thread::available_parallelism().unwrap().get();
    let begun = std::time::Instant::now();
    let answered = verdicts(&lab.program, &frame, 1000, Verdict::Tx);
    assert!(answered >= 1 && answered <= processors * (2 + begun.elapsed().as_secs() as usize), "{answered}");
    let counters = lab.program.counters().read().unwrap();
    assert_eq!(counters.answered, answered as u64);
    assert_eq!(counters.dropped(Dropped::AnswerLimit), 1000 - answered as u64);
    lab.map.set_incomplete(true).unwrap();
    assert_eq!(verdicts(&lab.program, &frame, 100, Verdict::Pass), 100);
    lab.map.set_incomplete(false).unwrap();
    assert_eq!(verdicts(&lab.program, &frame, 100, Verdict::Pass), 0);
    // For somebody else: a machine that routes does not judge it.
    frame[14 + 19] ^= 0x80;
    assert_eq!(verdict(&lab.program, &frame), Verdict::Pass);
}

/// A LEASE_PRESENT of the IPv4 session's client, from its address or another port.
fn present(lab: &Lab, id: [u8; 16], port: u16, challenge: Option<[u8; 24]>) -> Vec<u8> {
    let peer = lab.model.sessions[&V4].session.peers[0].address;
    let from = SocketAddr::new(peer.ip(), port);
    let proof = challenge.as_ref();
    let proof = proof.map(|challenge| Proof { challenge, public: &[1; 32], signature: &[2; 64] });
    let (session, role) = (SessionId(id), Role::Client);
    let mut payload = Vec::new();
    Present { renew: false, session, role, token: &[b'x'; 300], nonce: 5, proof }.encode(&mut payload);
    Frame::new(from, "10.77.0.1:4820".parse().unwrap(), payload).bytes()
}

/// Proves RELAY-LIMIT-6: a flood of those who proved nothing, whatever it consists of, takes nothing from those who answered a
/// challenge, nor from bound peers, nor the other way round.
#[test]
fn strangers_use_up_nobody_elses_budget() {
    let Some(lab) = busy_lab(SCARCE) else { return };
    const STRANGER: u16 = 999;
    let peer = lab.model.sessions[&V4].session.peers[0].address;
    let now_ms = Clock.now() / 1_000_000;
    let given = |id, port| {
        let from = SocketAddr::new(peer.ip(), port);
        lab.model.challenges.give(from, SessionId(id), Role::Client, now_ms)
    };
    let mut forged = given(ABSENT, STRANGER);
    forged[23] ^= 1;
    // Strangers, with everything that they can make up.
    let flood = || {
        verdicts(&lab.program, &present(&lab, ABSENT, STRANGER, None), 300, Verdict::Tx);
        verdicts(&lab.program, &present(&lab, V4, STRANGER, None), 300, Verdict::Tx);
        let asks = present(&lab, ABSENT, STRANGER, None);
        assert_ne!(verdict(&lab.program, &asks), Verdict::Pass, "never to userspace");
        assert_eq!(
            verdicts(&lab.program, &present(&lab, ABSENT, STRANGER, Some(forged)), 300, Verdict::Drop),
            300
        );
    };
    flood();
    assert_eq!(lab.program.counters().read().unwrap().dropped(Dropped::Challenge), 300);
    // Whoever answered a challenge comes through, and so does whoever is bound where it is bound.
    let proved = present(&lab, ABSENT, STRANGER, Some(given(ABSENT, STRANGER)));
    assert!(verdicts(&lab.program, &proved, 100, Verdict::Pass) >= 1);
    flood();
    let known = present(&lab, V4, peer.port(), None);
    assert!(verdicts(&lab.program, &known, 100, Verdict::Tx) >= 1);
    // And a session that waits for its other peer is not a stranger's to block.
    let program = &busy_lab(SCARCE).unwrap().program;
    assert!(verdicts(program, &present(&lab, SLOW, STRANGER, None), 100, Verdict::Pass) >= 1);
}

/// Proves RELAY-CHAL-2 for the fast path: what is too short for a challenge gets none.
#[test]
fn the_program_never_answers_with_more_than_came() {
    let Some(lab) = busy_lab(PLENTY) else { return };
    for payload in 1..40 {
        let step = Step { id: ABSENT, payload, ..plain_step() };
        let frame = step.frame(&lab.model);
        let verdict = verdict(&lab.program, &frame.bytes());
        let is_answered = frame.payload.len() >= CHALLENGE_DATAGRAM_LEN;
        assert_eq!(verdict, if is_answered { Verdict::Tx } else { Verdict::Drop }, "{payload}");
    }
}

#[test]
fn a_full_map_says_so_and_keeps_what_it_has() {
    let Some(lab) = busy_lab(SCARCE) else { return };
    // Slots of others are not taken over.
    assert!(lab.map.put_slow(&[99; 16], 1).is_err());
    let free = [0, 4, 5, 6, 7, 8];
    let entered =
        (100u8..).zip(free).take_while(|&(n, slot)| lab.map.put_slow(&[n; 16], slot).is_ok()).count();
    assert_eq!(entered, 8 - lab.model.sessions.len());
    assert_eq!(verdict(&lab.program, &plain(&lab, 0)), Verdict::Tx);
    // Replacing takes no room.
    lab.map.put(&V4, &lab.model.sessions[&V4].session).unwrap();
    assert!(lab.map.read_state(8, 0).is_err() && lab.map.write_state(8, 0, 1, &State::default()).is_err());
}

/// Proves RELAY-MEM-1 for the fast path.
#[test]
fn ten_thousand_sessions_of_the_fast_path_fit() {
    assert!(RelayProgram::bytes(10_000) <= 4_000_000);
}

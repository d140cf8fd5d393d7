//! What the kernel lets through to a relay's socket, with real sockets on the loopback device.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod program;

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::Duration;

use rift_relay::present::{Present, Proof};
use rift_relay::wire::{FORWARD_LEN, Forward, Role, SessionId};
use wavry_relay::challenge::{CHALLENGE_LIFE_MS, ChallengeKeys};
use wavry_runtime::clock::Clock;
use wavry_runtime::transport::Transport as _;
use wavry_runtime::uring::{Filter, UringUdp, UringUdpConfig};
use wavry_xdp::relay::{Budgets, Dropped, RelayConfig, RelayProgram};

const KNOWN: SessionId = SessionId([4; 16]);
const ABSENT: SessionId = SessionId([7; 16]);
const SCARCE: Budgets = Budgets { strangers: 1, answered: 1, proved: 1, known: 1 };
const PLENTY: Budgets =
    Budgets { strangers: 400_000_000, answered: 400_000_000, proved: 400_000_000, known: 400_000_000 };

struct Lab {
    program: RelayProgram,
    challenges: ChallengeKeys,
    transport: UringUdp,
    sender: UdpSocket,
}

impl Lab {
    /// `None`, with the reason printed, where eBPF programs may not be loaded.
    fn new(budgets: Budgets, loopback: &str) -> Option<Self> {
        let transport = UringUdp::open(UringUdpConfig::new(SocketAddr::new(loopback.parse().unwrap(), 0)));
        let transport = transport.unwrap();
        let challenges = ChallengeKeys::new([9; 32]);
        let config = RelayConfig {
            port: transport.local_addr().port(),
            sessions: 8,
            slots: 8,
            challenge_keys: challenges.0,
            budgets,
        };
        let program = program::load(&config)?;
        program.sessions().put_slow(&KNOWN.0, 0).unwrap();
        transport.set_filter(Filter::Program(program.guard().as_fd())).unwrap();
        let sender = UdpSocket::bind(SocketAddr::new(loopback.parse().unwrap(), 0)).unwrap();
        sender.connect(transport.local_addr()).unwrap();
        Some(Self { program, challenges, transport, sender })
    }

    /// Sends a datagram so often; how many come through.
    fn count(&mut self, datagram: &[u8], times: usize) -> usize {
        let mut came = 0;
        for _ in 0..times {
            self.sender.send(datagram).unwrap();
            came += self.take();
        }
        came
    }

    /// What has come by now: on the loopback device a datagram is queued, or not, when its send returns.
    fn take(&mut self) -> usize {
        self.transport.turn(Some(Clock.now())).unwrap();
        let mut came = 0;
        while let Some(batch) = self.transport.poll_receive() {
            came += batch.datagrams().count();
        }
        came
    }

    fn passes(&mut self, datagram: &[u8]) -> bool {
        self.count(datagram, 1) == 1
    }

    fn dropped(&self, reason: Dropped) -> u64 {
        self.program.counters().read_guard().unwrap().dropped(reason)
    }

    fn challenge(&self, session: SessionId, age_ms: u64) -> [u8; 24] {
        let now_ms = Clock.now() / 1_000_000;
        self.challenges.give(self.sender.local_addr().unwrap(), session, Role::Host, now_ms - age_ms)
    }
}

fn forward(session: SessionId, payload: usize) -> Vec<u8> {
    let mut head = [0; FORWARD_LEN];
    Forward { session, role: Role::Host, sequence: 1, mac: 2, payload_len: payload as u16 }.encode(&mut head);
    [&head[..], &vec![0; payload]].concat()
}

fn present(session: SessionId, challenge: Option<[u8; 24]>) -> Vec<u8> {
    let proof = challenge.as_ref();
    let proof = proof.map(|challenge| Proof { challenge, public: &[1; 32], signature: &[2; 64] });
    let mut out = Vec::new();
    Present { renew: false, session, role: Role::Host, token: &[b'x'; 300], nonce: 5, proof }
        .encode(&mut out);
    out
}

fn probe() -> Vec<u8> {
    let mut out = vec![0x57, 1, 0x20, 0];
    out.resize(36, 9);
    out
}

/// What userspace would drop is dropped before it is queued, and nothing else.
#[test]
fn only_what_userspace_would_take_is_queued() {
    for loopback in ["127.0.0.1", "::1"] {
        let Some(mut lab) = Lab::new(PLENTY, loopback) else { return };
        for whole in
            [forward(KNOWN, 100), forward(KNOWN, 1), forward(ABSENT, 100), present(ABSENT, None), probe()]
        {
            assert!(lab.passes(&whole), "{whole:02x?}");
            // Each byte of the header but the session's, wrong.
            for at in 0..4 {
                let mut broken = whole.clone();
                broken[at] ^= 0x42;
                assert!(!lab.passes(&broken), "{at}: {broken:02x?}");
            }
            assert!(!lab.passes(&whole[..19]), "shorter than a header");
        }
        for reason in [Dropped::Size, Dropped::Magic, Dropped::Version, Dropped::Kind, Dropped::Header] {
            assert!(lab.dropped(reason) > 0, "{reason:?}");
        }
        assert!(!lab.passes(&forward(ABSENT, 10)), "too short for an answer");
        assert!(!lab.passes(&[&probe()[..], &[0]].concat()));
        // Proofs, of this address and others, new and old.
        let (given, others) = (lab.challenge(ABSENT, 5), lab.challenge(KNOWN, 5));
        assert!(lab.passes(&present(ABSENT, Some(given))));
        assert!(!lab.passes(&present(ABSENT, Some(others))));
        let old = lab.challenge(ABSENT, CHALLENGE_LIFE_MS + 1000);
        assert!(!lab.passes(&present(ABSENT, Some(old))));
        assert_eq!(lab.dropped(Dropped::Challenge), 2);
        let mut cut = present(ABSENT, Some(given));
        cut.pop();
        assert!(!lab.passes(&cut));
    }
}

/// Proves RELAY-LIMIT-6 for the guard: what strangers send takes nothing from sessions, nor from who answered a challenge.
#[test]
fn strangers_take_no_room_from_sessions() {
    let Some(mut lab) = Lab::new(SCARCE, "127.0.0.1") else { return };
    let seconds = std::time::Instant::now();
    let mut came = 0;
    for flood in [forward(ABSENT, 100), present(ABSENT, None), probe()] {
        came += lab.count(&flood, 500);
    }
    let processors = std::thread::available_parallelism().unwrap().get();
    let budget = processors * (2 + seconds.elapsed().as_secs() as usize);
    assert!((1..=budget).contains(&came), "{came}");
    assert_eq!(lab.count(&forward(KNOWN, 100), 500), 500);
    let given = lab.challenge(ABSENT, 5);
    assert!(lab.count(&present(ABSENT, Some(given)), 50) >= 1);
    assert!(lab.count(&present(KNOWN, None), 50) >= 1, "a session that waits for its other peer");
    // Sessions may be missing from the map: then none is taken for absent.
    lab.program.sessions().set_incomplete(true).unwrap();
    assert_eq!(lab.count(&forward(ABSENT, 100), 500), 500);
}

/// Proves RELAY-LIMIT-7: strangers save nothing up, so that no crowd of them ever stands before a session's datagrams.
#[test]
fn a_crowd_comes_in_at_the_rate_of_its_budget() {
    const PER_SECOND: u32 = 10_000;
    const PAUSE: Duration = Duration::from_millis(200);
    let Some(mut lab) = Lab::new(Budgets { strangers: PER_SECOND, ..SCARCE }, "127.0.0.1") else { return };
    // Budgets are a processor's.
    let cores = wavry_runtime::cores::allowed().unwrap();
    wavry_runtime::cores::pin_to(cores[0]).unwrap();
    let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap();
    let last = possible.trim().rsplit(['-', ',']).next().unwrap().parse::<usize>().unwrap();
    let own = PER_SECOND as usize / (last + 1);
    let flood = forward(ABSENT, 100);
    assert_eq!(lab.count(&flood, own / 20), own / 20, "at the start all may come back at once");
    std::thread::sleep(Duration::from_millis(3100));
    let (mut limited, mut came_in) = (false, false);
    for _ in 0..20 {
        // After a pause in which a budget that saves would fill.
        std::thread::sleep(PAUSE);
        let begun = std::time::Instant::now();
        let (mut came, mut sent) = (0, 0);
        while begun.elapsed() < Duration::from_millis(30) {
            came += lab.count(&flood, 20);
            sent += 20;
            let most = own / 2000 + 2 + own * (begun.elapsed().as_micros() as usize + 100) / 1_000_000;
            assert!(came <= most, "{came} of at most {most}");
            limited |= sent > 2 * most;
        }
        came_in |= came > own * 30 / 1000 / 2;
        if limited && came_in {
            return;
        }
    }
    assert!(limited, "the machine is too slow to send more than may come");
    panic!("fewer come in than the budget has");
}

/// A train that the kernel merged is judged by its session, and comes through whole.
#[test]
fn trains_of_a_session_come_through_whole() {
    let Some(mut lab) = Lab::new(SCARCE, "127.0.0.1") else { return };
    let mut out = UringUdp::open(UringUdpConfig::new("127.0.0.1:0".parse().unwrap())).unwrap();
    let datagram = forward(KNOWN, 200);
    let mut slot = out.acquire().unwrap();
    let train = datagram.repeat(20);
    slot[..train.len()].copy_from_slice(&train);
    let to = lab.transport.local_addr();
    out.commit(slot, wavry_runtime::transport::Transmit::batch(to, train.len(), datagram.len()));
    out.flush().unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(5);
    let mut came = 0;
    while came < 20 && std::time::Instant::now() < end {
        came += lab.take();
    }
    assert_eq!(came, 20);
}

//! What a session takes in memory, as the kernel counts it: pages of this process, and those of the program's maps. Alone in its
//! program, so that nothing else takes or gives back pages meanwhile.

#![allow(clippy::unwrap_used)]

mod program;

use std::net::SocketAddr;
use std::sync::Arc;

use rift_crypto::Identity;
use rift_relay::agreement::RelayKeys;
use rift_relay::lease::{Claims, KeyRing};
use rift_relay::wire::{Role, SessionId};
use wavry_relay::core::{FastCommand, Now, Relay, RelayLimits};
use wavry_relay::verify::{Grant, Outcome, Policy, Verifier};
use wavry_xdp::relay::{Budgets, RelayConfig, RelayProgram};
use zeroize::Zeroizing;

const SESSIONS: u32 = 50_000;
/// Before those, in the program's maps.
const FEW: u32 = 1000;
/// RELAY-MEM-1.
const BYTES_MAX: u64 = 10_000_000 / 10_000;
/// What one more round of everything may add to it: pages, not sessions.
const GROWTH_MAX: u64 = 1 << 20;

/// Bytes of this process in memory.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Bytes of all maps of this process, by the kernel's account.
fn map_bytes() -> u64 {
    let entries = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    // A descriptor of the listing itself is gone by now.
    let texts = entries.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
    let maps = texts.filter(|text| text.contains("map_type:"));
    maps.filter_map(|text| {
        text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse::<u64>().ok())
    })
    .sum()
}

fn program(sessions: u32) -> Option<RelayProgram> {
    let budgets = Budgets { strangers: 1, answered: 1, proved: 1, known: 1 };
    program::load(&RelayConfig {
        port: 4820,
        sessions,
        slots: sessions,
        challenge_keys: [[1; 2]; 2],
        budgets,
    })
}

fn id(number: u32) -> SessionId {
    SessionId((u128::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes())
}

/// Both peers of every session prove themselves, or renew; then the fast path takes what there is.
fn present(relay: &mut Relay, identities: &[Identity; 3], now: Now, renew: bool) {
    let peers = [identities[0].wavry_id(), identities[1].wavry_id()];
    for number in 0..SESSIONS {
        for role in Role::ALL {
            let keys = RelayKeys { forward: [number.into(), role as u64], answer: [1, 2] };
            let [_, a, b, c] = number.to_be_bytes();
            let outcome = Outcome {
                from: SocketAddr::from(([10 + role as u8, a, b, c], 1000)),
                session: id(number),
                role,
                renew,
                nonce: 1,
                challenge_ms: now.ns / 1_000_000,
                result: Ok(Grant {
                    claims: Claims::from_now(
                        id(number),
                        identities[2].wavry_id(),
                        peers,
                        now.unix_ms,
                        300_000,
                        1000,
                    ),
                    keys: (!renew).then_some(keys),
                }),
            };
            assert_eq!(relay.handle_verified(now, &outcome), Some(outcome.from));
        }
        while let Some(command) = relay.poll_fast(now) {
            if let FastCommand::Find { slot, to } = command {
                relay.handle_ways(now, slot, to, [Some(1), Some(2)]);
            }
        }
    }
    assert_eq!((relay.len(), relay.handed_over()), (SESSIONS as usize, SESSIONS as usize));
}

/// Proves RELAY-MEM-1 by what is resident, not by what is computed: with every session bound, carried and renewed.
#[test]
fn a_session_takes_no_more_than_a_kilobyte() {
    // The kernel's account of the maps is what this crate computes, but for what a map takes without any session.
    let few = program(FEW);
    let with_few = map_bytes();
    drop(few);
    let many = program(FEW + SESSIONS);
    let computed =
        (RelayProgram::bytes((FEW + SESSIONS) as usize) - RelayProgram::bytes(FEW as usize)) as u64;
    if many.is_some() {
        let counted = map_bytes() - with_few;
        println!("maps: {} bytes for a session", counted / u64::from(SESSIONS));
        assert!(counted.abs_diff(computed) < computed / 50, "{counted} counted, {computed} computed");
    }
    drop(many);

    let identities = [1u8, 2, 3].map(|byte| Identity::from_seed([byte; 32]).unwrap());
    let policy = Policy { issuers: KeyRing::default(), ..Policy::default() };
    let (_, key) = Verifier::new(&identities[2], &Zeroizing::new([1; 32]), Arc::new(policy)).unwrap();
    let limits = RelayLimits { sessions: SESSIONS as usize, ..RelayLimits::default() };
    let before = resident();
    let mut relay = Relay::new(limits, key, [1; 64]);
    relay.enable_fast_path(0);
    let time = |seconds: u64| Now {
        ns: (1000 + seconds) * 1_000_000_000,
        unix_ms: 1_700_000_000_000 + seconds * 1000,
    };
    present(&mut relay, &identities, time(0), false);
    let bound = resident() - before;
    let each = (bound + computed) / u64::from(SESSIONS);
    println!("a session takes {each} bytes, {} of them in this process", bound / u64::from(SESSIONS));
    assert!(each <= BYTES_MAX, "{each}");

    for round in 1..4 {
        relay.handle_timeout(time(round * 20));
        present(&mut relay, &identities, time(round * 20), true);
    }
    let grown = (resident() - before).saturating_sub(bound);
    assert!(grown <= GROWTH_MAX, "{grown}");
}

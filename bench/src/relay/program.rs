//! The relay's program with maps that are filled by hand, and how long it takes over a datagram without any cable.
//!
//! Owns nothing. Invariant: its sessions are all carried, from the sender's sockets to the receiver's.

use std::net::SocketAddrV4;

use anyhow::ensure;
use rift_relay::mac::forward_mac;
use rift_relay::wire::{FORWARD_LEN, Forward, Role, SessionId};
use wavry_bench::estimate::Estimate;
use wavry_xdp::interface::Interface;
use wavry_xdp::program::Verdict;
use wavry_xdp::relay::{self, Budgets, RelayConfig, RelayProgram};

use super::contender::{CONTENT, RECEIVER_PORT, flow, source};
use super::lab::{Lab, RECEIVER, RELAY, RELAY_IN_DEVICE, RELAY_OUT, RELAY_OUT_DEVICE};
use super::sessions;

/// More than a flow of the generator uses up, bytes per second.
const NO_LIMIT: u32 = u32::MAX;
/// Runs that make a figure, and figures.
const REPEAT: u32 = 100_000;
const FIGURES: usize = 9;

/// What the program takes over a datagram that it refuses, by `BPF_PROG_TEST_RUN`: one that is seen again, over which
/// everything is decided before, and one that is not of the protocol. Nanoseconds, without receiving and sending.
pub(super) fn refusing(lab: &Lab) -> anyhow::Result<[(&'static str, Estimate); 2]> {
    let program = lab.relay.with(|| -> anyhow::Result<_> {
        let interfaces = [Interface::named(RELAY_IN_DEVICE)?, Interface::named(RELAY_OUT_DEVICE)?];
        load(lab, &interfaces, 1)
    })?;
    let (session, role, sequence) = (session(0), Role::Host, 1);
    let payload_len = CONTENT as u16;
    let mac = forward_mac(key(0), sequence, payload_len, role);
    let mut head = [0; FORWARD_LEN];
    Forward { session, role, sequence, mac, payload_len }.encode(&mut head);
    let to = SocketAddrV4::new(RELAY, sessions::PORT);
    let whole = flow(&lab.through, source(0), to, &head, key(0)).frame();
    let junk = flow(&lab.through, source(0), to, &[0; FORWARD_LEN], key(0)).frame();
    let mut output = vec![0; 2048];
    let first = program.program().test_run(&whole, &mut output, 1)?;
    ensure!(first.verdict == Verdict::Redirect, "a first datagram is sent on, not {}", first.verdict);
    let mut time = |frame: &[u8]| -> anyhow::Result<Estimate> {
        let mut times = Vec::new();
        for _ in 0..FIGURES {
            let run = program.program().test_run(frame, &mut output, REPEAT)?;
            ensure!(run.verdict == Verdict::Drop, "it is dropped, not {}", run.verdict);
            times.push(f64::from(run.duration_ns));
        }
        Ok(Estimate::of(times))
    };
    Ok([("a replay", time(&whole)?), ("junk", time(&junk)?)])
}

/// Spread, as random ones would be.
pub(super) fn session(number: u32) -> SessionId {
    SessionId((u128::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes())
}

pub(super) fn key(number: u32) -> [u64; 2] {
    [u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15), 7]
}

/// The relay's program with so many sessions from the sender's sockets to the receiver's, each of them carried.
pub(super) fn load(lab: &Lab, devices: &[Interface; 2], count: u32) -> anyhow::Result<RelayProgram> {
    let budgets = Budgets { strangers: 1, answered: 1, proved: 1, known: 1 };
    let (port, challenge_keys) = (sessions::PORT, [[1; 2]; 2]);
    let program =
        RelayProgram::load(&RelayConfig { port, sessions: count, slots: count, challenge_keys, budgets })?;
    let mut ways = program.ways();
    let macs = [[lab.through.ethernet[1], lab.through.ethernet[0]], lab.last_hop];
    for (number, ((device, [to_mac, from_mac]), source)) in
        (0..).zip(devices.iter().zip(macs).zip([RELAY, RELAY_OUT]))
    {
        let (device, source) = (device.index(), source.into());
        ways.set(number, &relay::Way { device, vlan: None, mtu: 1500, to_mac, from_mac, source })?;
    }
    ways.set_locals(&[RELAY.into(), RELAY_OUT.into()])?;
    let map = program.sessions();
    for number in 0..count {
        let flow =
            relay::Flow { key: key(number), expires_ns: u64::MAX, hard_rate: NO_LIMIT, soft_rate: NO_LIMIT };
        let client = SocketAddrV4::new(RECEIVER, RECEIVER_PORT).into();
        let peers =
            [relay::Peer { address: client, way: 1 }, relay::Peer { address: source(number).into(), way: 0 }];
        for role in 0..2 {
            map.write_state(number, role, 1, &relay::State::default())?;
        }
        let entry = relay::Session { slot: number, generation: 1, peers, flows: [flow; 2] };
        map.put(&session(number).0, &entry)?;
    }
    Ok(program)
}

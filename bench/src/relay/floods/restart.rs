//! A relay that is killed while sessions run, and started again.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::ensure;
use wavry_bench::estimate::Estimate;
use wavry_bench::report::{Goal, Report};
use wavry_netns::Namespace;

use super::super::lab::{Lab, RELAY};
use super::super::sessions::{self, Issuer, Sessions};
use super::{Arguments, PORT, start_relay};

/// Addresses at either end.
const ADDRESSES: u32 = 64;

/// Kills the relay while sessions run, starts it again, and notes when each goes on.
pub(super) fn measure(
    arguments: &Arguments,
    lab: &Lab,
    issuer: &Issuer,
    report: &mut Report,
) -> anyhow::Result<()> {
    let bind = |namespace: &Namespace, second: u8| -> std::io::Result<Vec<UdpSocket>> {
        let address = |n: u32| Ipv4Addr::new(10, second, n as u8, 1);
        namespace.with(|| (0..ADDRESSES).map(|n| UdpSocket::bind((address(n), PORT))).collect())
    };
    let mut times = Vec::new();
    let mut from_kill = Vec::new();
    for _ in 0..arguments.rounds {
        let relay = start_relay(lab, issuer, arguments)?;
        let (clients, hosts) = (bind(&lab.receiver, 64)?, bind(&lab.sender, 100)?);
        let address = SocketAddrV4::new(RELAY, sessions::PORT);
        let mut sessions = Sessions::new(issuer, address, arguments.sessions, clients, hosts)?;
        sessions.bind(Duration::from_secs(20))?;
        ensure!(
            sessions.stream_until_all_arrive(Duration::from_secs(10))?.len() == arguments.sessions as usize
        );
        // As SIGKILL does it.
        let killed = Instant::now();
        drop(relay);
        let relay = start_relay(lab, issuer, arguments)?;
        let ready = Instant::now();
        let arrived: HashMap<usize, Instant> = sessions.stream_until_all_arrive(Duration::from_secs(20))?;
        let last = arrived.values().max().copied().unwrap_or(ready);
        ensure!(arrived.len() == arguments.sessions as usize, "only {} sessions went on", arrived.len());
        times.push(last.duration_since(ready).as_secs_f64());
        from_kill.push(last.duration_since(killed).as_secs_f64());
        drop(relay);
    }
    let name = format!("kill -9 and restart, {} sessions", arguments.sessions);
    report.judge(format!("{name}: all go on after it is ready"), Estimate::of(times), "s", Goal::AtMost(1.0));
    report.note(format!("{name}: all go on after the kill"), Estimate::of(from_kill), "s");
    Ok(())
}

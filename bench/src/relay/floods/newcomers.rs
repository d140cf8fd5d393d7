//! Those who come while a flood of spoofed presentations goes on.

use std::net::{SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wavry_netns::Namespace;
use wavry_xdp::load::{Flow, Settings};

use super::super::lab::{Lab, RECEIVER, RELAY, SENDER};
use super::super::sessions::{self, Issuer, Sessions};
use super::{PORT, STEADY};

/// So many present their leases, one after another.
pub(super) const NEWCOMERS: u32 = 20;

/// How those fared who came while a flood of spoofed presentations went on.
pub(super) struct Newcomers {
    pub(super) bound: f64,
    pub(super) slowest_ms: f64,
}

/// Lets them come beside what `settings` say.
pub(super) fn come(
    lab: &Lab,
    issuer: &Issuer,
    flow: &Flow,
    settings: &Settings,
) -> anyhow::Result<Newcomers> {
    // As long as a peer goes on asking.
    const PATIENCE: Duration = Duration::from_secs(4);
    let relay = SocketAddrV4::new(RELAY, sessions::PORT);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            lab.sender.with(|| -> anyhow::Result<()> {
                wavry_runtime::cores::pin_to(lab.generator_core)?;
                let most = (PATIENCE * NEWCOMERS).min(Duration::from_secs(20));
                lab.load.run(settings, flow, most, || stop.load(Ordering::Relaxed))?;
                Ok(())
            })
        });
        let bind = |namespace: &Namespace, address, port: u16| {
            namespace.with(|| UdpSocket::bind((address, port)).map(|socket| vec![socket]))
        };
        let mut found = Newcomers { bound: 0.0, slowest_ms: 0.0 };
        for number in 0..NEWCOMERS {
            let port = PORT + 1 + number as u16;
            let clients = bind(&lab.receiver, RECEIVER, port)?;
            let hosts = bind(&lab.sender, SENDER, port)?;
            let mut sessions =
                Sessions::numbered(issuer, relay, STEADY + number..STEADY + number + 1, clients, hosts)?;
            let begun = Instant::now();
            if sessions.bind(PATIENCE).is_ok() {
                found.bound += 1.0;
            }
            found.slowest_ms = found.slowest_ms.max(begun.elapsed().as_secs_f64() * 1e3);
            if flooding.is_finished() {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        match flooding.join() {
            Ok(result) => result?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        Ok(found)
    })
}

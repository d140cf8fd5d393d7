//! `wavry netem`: a bad network for real programs, with the links of a simulated one.
//!
//! A thin shell around [`wavry_netem`]: it stands between a client and a host and says every second what it did.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rift_sim::link::LinkCounters;
use wavry_client::Target;
use wavry_netem::{Emulator, unsupported};
use wavry_runtime::clock::Clock;
use wavry_runtime::cores;
use wavry_runtime::shutdown::Shutdown;
use wavry_runtime::uring::{UringUdp, UringUdpConfig};

use crate::netsim;

/// Arguments of `wavry netem`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    scenario: netsim::Choice,
    /// The host that is behind the network.
    #[arg(long, value_name = "HOST:PORT")]
    host: Target,
    /// Address and UDP port that stand for the host: give it to the client instead of the host's.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Decides everything that is random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stop after this many seconds; else at a signal. The links go on as they are when the scenario's time is over.
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u64>,
}

/// Runs `wavry netem`.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Some(scenario) = arguments.scenario.load()? else {
        bail!("name a scenario (`wavry netsim` lists them), or give one with --file or --text");
    };
    if let Some(what) = unsupported(&scenario) {
        bail!("`{}` cannot be put before real programs: {what}", scenario.name);
    }
    let host = arguments.host.resolve()?;
    let shutdown = Shutdown::install().context("signals cannot be handled")?;
    cores::raise_priority(true);
    let config = UringUdpConfig { arrival_times: true, ..UringUdpConfig::new(arguments.listen) };
    let transport = UringUdp::open(config)?;
    say!("{} between {} and {host}", scenario.name, arguments.listen);
    let mut emulator = Emulator::new(transport, &scenario, arguments.seed, host, Clock.now());
    let end = arguments.duration.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let (mut next, mut last) = (Instant::now() + Duration::from_secs(1), emulator.seen());
    emulator.run(|emulator| {
        let now = Instant::now();
        if now >= next {
            next += Duration::from_secs(1);
            let seen = emulator.seen();
            say!(
                "to the client {}; to the host {}; late by {:.1} ms at most",
                Second(&last.down, &seen.down),
                Second(&last.up, &seen.up),
                emulator.lateness().most_us() as f64 / 1e3
            );
            last = seen;
        }
        shutdown.requested() || end.is_some_and(|end| now >= end)
    })?;
    Ok(())
}

/// What happened on a link in a second.
struct Second<'a>(&'a LinkCounters, &'a LinkCounters);

impl std::fmt::Display for Second<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(before, now) = self;
        let mbps = (now.bytes - before.bytes) as f64 * 8e-6;
        write!(
            f,
            "{mbps:.2} Mbit/s, {} lost, {} marked",
            now.gone() - before.gone(),
            now.marked - before.marked
        )
    }
}

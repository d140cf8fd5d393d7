//! One run over real links: host, emulator and client, each on a thread in a network namespace of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use rift_core::Timestamp;
use rift_core::send::SenderCounters;
use rift_sim::link::{Course, IP_UDP_HEADER_LEN, LinkCounters, STANDING_WINDOW_US};
use rift_sim::metrics::{StreamLog, StreamMetrics, Traffic};
use rift_sim::{Peers as _, RealPeers, Scenario, Seeds};
use wavry_netem::{Emulator, Lateness, Seen};
use wavry_netns::{Namespace, cable};
use wavry_runtime::clock::Clock;
use wavry_runtime::cores;
use wavry_runtime::uring::{UringUdp, UringUdpConfig};
use wavry_session_loop::SessionLoop;

use super::ends::{self, Host};
use super::stall::{self, Stall};

pub(super) const HOST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 84, 1, 2)), 4810);
/// The emulator, as the client knows it.
pub(super) const MIDDLE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 84, 2, 1)), 4810);
/// The threads have this long to open their sockets before the run begins.
const SETUP_NS: u64 = 400_000_000;

/// Three namespaces with a cable from each end to the middle.
pub(super) struct Lab {
    pub(super) host: Namespace,
    pub(super) middle: Namespace,
    pub(super) client: Namespace,
}

/// What a run over real links gave.
pub(super) struct Outcome {
    pub(super) metrics: StreamMetrics,
    pub(super) lateness: Lateness,
    pub(super) unsent: u64,
    /// Share of frames that are not in the delays because the machine stood still.
    pub(super) left_out: f64,
    /// How late the host's thread woke for what was due, and how often it did per frame.
    pub(super) host: Option<(Lateness, f64)>,
}

/// What the emulator saw.
pub(super) struct Middle {
    /// At the end of the warm-up and at the end.
    pub(super) seen: [Seen; 2],
    pub(super) course: Course,
    pub(super) standing: Vec<u32>,
    pub(super) lateness: Lateness,
    pub(super) unsent: u64,
}

impl Lab {
    pub(super) fn new() -> anyhow::Result<Self> {
        let lab = Self {
            host: Namespace::new("host")?,
            middle: Namespace::new("middle")?,
            client: Namespace::new("client")?,
        };
        cable((&lab.host, "h0"), (&lab.middle, "m0"), 1)?;
        cable((&lab.middle, "m1"), (&lab.client, "c0"), 1)?;
        lab.host.ip("address add 10.84.1.2/24 dev h0")?;
        lab.middle.ip("address add 10.84.1.1/24 dev m0")?;
        lab.middle.ip("address add 10.84.2.1/24 dev m1")?;
        lab.client.ip("address add 10.84.2.2/24 dev c0")?;
        Ok(lab)
    }

    /// Runs a scenario in real time.
    pub(super) fn run(&self, scenario: &Scenario, seed: u64) -> anyhow::Result<Outcome> {
        let epoch_ns = Clock.now() + SETUP_NS;
        let epoch = Timestamp::from_micros(epoch_ns / 1000);
        let seeds = Seeds::of(seed);
        let over = AtomicBool::new(false);
        let end_ns = epoch_ns + scenario.duration_us * 1000;
        let (host, middle, client, stalls) = thread::scope(|scope| {
            let watches = stall::watch(scope, epoch_ns, &over)?;
            let host = scope.spawn(|| {
                guarded(&over, "the host's end", || {
                    self.host.enter()?;
                    cores::raise_priority(true);
                    let udp = UringUdp::open(UringUdpConfig::new(HOST))?;
                    let endpoint = RealPeers::new().host(scenario, seeds.host, epoch);
                    await_epoch(epoch_ns)?;
                    Ok(Host::new(udp, endpoint, scenario, seeds.source, epoch).run(&over)?)
                })
            });
            let middle = scope
                .spawn(|| guarded(&over, "the emulator", || self.emulate(scenario, seed, epoch_ns, &over)));
            let client = scope.spawn(|| {
                guarded(&over, "the client's end", || {
                    self.client.enter()?;
                    cores::raise_priority(true);
                    let udp = UringUdp::open(UringUdpConfig::new((Ipv4Addr::UNSPECIFIED, 0).into()))?;
                    await_epoch(epoch_ns)?;
                    let endpoint = RealPeers::new().client(scenario, seed, MIDDLE, epoch);
                    Ok(ends::receive(SessionLoop::new(udp, endpoint), scenario, epoch, &over)?)
                })
            });
            while Clock.now() < end_ns && !over.load(Ordering::Acquire) {
                thread::sleep(Duration::from_millis(20));
            }
            over.store(true, Ordering::Release);
            let panicked = || anyhow!("a thread panicked; this is a fault of the program");
            Ok::<_, anyhow::Error>((
                host.join().map_err(|_| panicked())??,
                middle.join().map_err(|_| panicked())??,
                client.join().map_err(|_| panicked())??,
                stall::seen(watches),
            ))
        })?;
        let frames = host.stream.frames.len().max(1) as f64;
        let mut stream = host.stream;
        for (frame, at_us) in client {
            stream.on_complete(frame, at_us);
        }
        let traffic = traffic(&host.sender, &middle.seen);
        let (metrics, left_out) = metrics(&stream, &traffic, &middle, scenario, &stalls);
        let host = Some((host.woken, host.wakes as f64 / frames));
        Ok(Outcome { metrics, lateness: middle.lateness, unsent: middle.unsent, left_out, host })
    }

    /// The paths of a scenario, from the calling thread, until `over`.
    pub(super) fn emulate(
        &self,
        scenario: &Scenario,
        seed: u64,
        epoch_ns: u64,
        over: &AtomicBool,
    ) -> anyhow::Result<Middle> {
        self.middle.enter()?;
        cores::raise_priority(true);
        let bind = SocketAddr::from((Ipv4Addr::UNSPECIFIED, MIDDLE.port()));
        let config = UringUdpConfig { arrival_times: true, ..UringUdpConfig::new(bind) };
        emulate(UringUdp::open(config)?, scenario, seed, epoch_ns, over)
    }
}

/// Runs one end; if it fails, the others end too.
pub(super) fn guarded<T>(
    over: &AtomicBool,
    what: &'static str,
    run: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let result = run();
    if result.is_err() {
        over.store(true, Ordering::Release);
    }
    result.context(what)
}

/// Sleeps until the run begins.
fn await_epoch(epoch_ns: u64) -> anyhow::Result<()> {
    let left = epoch_ns.checked_sub(Clock.now()).context("the machine is too busy to begin in time")?;
    thread::sleep(Duration::from_nanos(left));
    Ok(())
}

fn emulate(
    udp: UringUdp,
    scenario: &Scenario,
    seed: u64,
    epoch_ns: u64,
    over: &AtomicBool,
) -> anyhow::Result<Middle> {
    let mut emulator = Emulator::new(udp, scenario, seed, HOST, epoch_ns);
    let warm_ns = epoch_ns + scenario.warmup_us * 1000;
    let mut at_warm_up = None;
    emulator.run(|emulator| {
        if Clock.now() >= warm_ns {
            at_warm_up.get_or_insert_with(|| emulator.seen());
        }
        over.load(Ordering::Acquire)
    })?;
    let from_window = scenario.warmup_us / STANDING_WINDOW_US;
    let windows = emulator.standing_us().iter().filter(|&&(window, _)| u64::from(window) >= from_window);
    Ok(Middle {
        seen: [at_warm_up.unwrap_or_default(), emulator.seen()],
        course: emulator.course().clone(),
        standing: windows.map(|&(_, us)| us).collect(),
        lateness: emulator.lateness().clone(),
        unsent: emulator.unsent(),
    })
}

/// What the stream was worth; delays without frames that a stall of the machine held up, and the share of those.
pub(super) fn metrics(
    log: &StreamLog,
    traffic: &Traffic,
    middle: &Middle,
    scenario: &Scenario,
    stalls: &[Stall],
) -> (StreamMetrics, f64) {
    let traffic = Traffic { way_us: scenario.down.delay_us, ..*traffic };
    let span = (scenario.warmup_us, scenario.duration_us);
    let of = |log: &StreamLog| StreamMetrics::of(log, &traffic, &middle.course, &middle.standing, span);
    let (all, undisturbed) = (of(log), of(&stall::without(log, stalls)));
    let left_out = 1.0 - undisturbed.frames as f64 / all.frames.max(1) as f64;
    (StreamMetrics { delay_us: undisturbed.delay_us, ..all }, left_out)
}

/// What went over the path since the warm-up.
pub(super) fn traffic(sender: &[SenderCounters; 2], seen: &[Seen; 2]) -> Traffic {
    let [before, after] = sender;
    let [seen_before, seen] = seen;
    let wire = |now: &LinkCounters, before: &LinkCounters| {
        now.bytes - before.bytes + (now.packets - before.packets) * IP_UDP_HEADER_LEN
    };
    Traffic {
        packets: seen.down.packets - seen_before.down.packets,
        gone: seen.down.gone() - seen_before.down.gone(),
        wire_bytes: wire(&seen.down, &seen_before.down),
        back_wire_bytes: wire(&seen.up, &seen_before.up),
        video_packets: [
            after.data_packets - before.data_packets,
            after.parity_packets - before.parity_packets,
            after.retransmitted_packets - before.retransmitted_packets,
        ],
        body_bytes: after.body_bytes - before.body_bytes,
        ..Traffic::default()
    }
}

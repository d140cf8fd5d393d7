//! `AF_XDP` beside `io_uring` on a virtual cable: round trip, and processor time per packet.
//!
//! Two machines (network namespaces) and two cables between them, one for each transport, because an XDP program on
//! a cable changes what it costs everyone on it. Both ends are the engine's transports; each sleeps or spins on a
//! core of its own. A block measures one transport after the other, so that a busy machine slows both alike.
//!
//! `AF_XDP`'s floor is a socket with nothing around it ([`floor`]), which sends and receives as many frames of the same
//! length in the same blocks: what is above it is the transport's, what is not is the kernel's.

mod floor;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::time::{ClockId, clock_gettime};
use wavry_netns::{Namespace, cable, unavailable};
use wavry_runtime::clock::Clock;
use wavry_runtime::cores;
use wavry_runtime::transport::{Transmit, Transport};
use wavry_runtime::uring::UringUdpConfig;
use wavry_xdp::choice::{AnyTransport, TransportChoice, TransportConfig, open};

use crate::estimate::{Estimate, median_ns};
use crate::machine::Machine;
use crate::report::Report;

const PORT: u16 = 4810;
/// Bytes of the echo, about what an input message comes to.
const ECHO_LEN: usize = 64;
/// Bytes of a datagram of the stream, and how many make a batch.
const STREAM_LEN: usize = 1200;
const BATCH: usize = 32;
/// Datagrams in flight at most: less than the rings hold.
const WINDOW: u64 = 512;
/// Ends the far side.
const STOP_LEN: usize = 1;
const PATIENCE: Duration = Duration::from_secs(5);
/// Busy polling is what bypassing is for: there it must not lose.
const GOAL: f64 = 1.0;

/// Where the floor's figures stand beside those of the transports.
const FLOOR: usize = 2;

/// What can be chosen on the command line.
#[derive(clap::Args)]
pub struct Arguments {
    /// Fewer blocks, for checking that it works.
    #[arg(long)]
    quick: bool,
    /// Also write the table to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures and prints.
///
/// # Errors
///
/// Without root, or when something cannot be measured.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(reason) = unavailable() {
        bail!("{reason}");
    }
    let (blocks, samples, batches) = if arguments.quick { (3, 300, 200) } else { (9, 1500, 1000) };
    let mut report = Report::new(Machine::detect());
    let lab = Lab::new()?;
    for busy in [false, true] {
        let mode = if busy { "busy" } else { "sleeping" };
        let (mut trips, mut costs) = ([vec![], vec![], vec![]], [vec![], vec![], vec![]]);
        for block in 0..=blocks {
            for (index, choice) in [TransportChoice::IoUring, TransportChoice::AfXdp].into_iter().enumerate()
            {
                let figure = lab
                    .block(choice, busy, samples, batches)
                    .with_context(|| format!("measuring {choice}, {mode}"))?;
                // The first block warms up.
                if block > 0 {
                    trips[index].push(figure.round_trip_ns * 1e-3);
                    costs[index].push(figure.cpu_per_packet_ns);
                }
            }
            let figure = floor::block(&lab, busy, samples, batches).context("measuring the floor")?;
            if block > 0 {
                trips[FLOOR].push(figure.round_trip_ns * 1e-3);
                costs[FLOOR].push(figure.cpu_per_packet_ns);
            }
        }
        for (what, unit, [uring, xdp, floor]) in
            [("round trip p50", "us", trips), ("processor time per packet, both ends", "ns", costs)]
        {
            report.note(format!("{what}, {mode}, io_uring"), Estimate::of(uring.clone()), unit);
            report.note(format!("{what}, {mode}, AF_XDP"), Estimate::of(xdp.clone()), unit);
            report.note(format!("{what}, {mode}, a bare AF_XDP socket"), Estimate::of(floor.clone()), unit);
            report.note(format!("{what}, {mode}, AF_XDP to its floor"), Estimate::ratio(&xdp, &floor), "x");
            let ratio = Estimate::ratio(&xdp, &uring);
            let line = format!("{what}, {mode}, AF_XDP to io_uring");
            if busy {
                // What the kernel copies frame by frame here, io_uring gets merged (GRO) and cuts apart (GSO).
                report.judge_beside(line, ratio, "x", GOAL, Estimate::ratio(&floor, &uring));
            } else {
                report.note(line, ratio, "x");
            }
        }
    }
    report.print();
    if let Some(path) = &arguments.json {
        report.write_json(path)?;
    }
    Ok(())
}

/// Two machines and two cables.
struct Lab {
    near: Namespace,
    far: Namespace,
}

struct Figure {
    round_trip_ns: f64,
    cpu_per_packet_ns: f64,
}

impl Lab {
    fn new() -> anyhow::Result<Self> {
        let lab = Self { near: Namespace::new("near")?, far: Namespace::new("far")? };
        for (number, device) in [(0, "uring0"), (1, "xdp0")] {
            cable((&lab.near, device), (&lab.far, device), 1)?;
            lab.near.ip(&format!("address add 10.79.{number}.1/24 dev {device}"))?;
            lab.far.ip(&format!("address add 10.79.{number}.2/24 dev {device}"))?;
        }
        Ok(lab)
    }

    /// Opens both ends, measures, closes both.
    fn block(
        &self,
        choice: TransportChoice,
        busy: bool,
        samples: usize,
        batches: usize,
    ) -> anyhow::Result<Figure> {
        let (number, device) = if choice == TransportChoice::AfXdp { (1, "xdp0") } else { (0, "uring0") };
        let config = |end: u8| TransportConfig {
            choice,
            interface: Some(device.to_owned()),
            toward: None,
            udp: UringUdpConfig {
                busy_poll: busy,
                ..UringUdpConfig::new(SocketAddr::from(([10, 79, number, end], PORT)))
            },
        };
        let allowed = cores::allowed()?;
        let (here, there) = (allowed[0], allowed[allowed.len() - 1]);
        thread::scope(|scope| {
            let (tell, told) = mpsc::channel();
            let (far_config, near_config) = (config(2), config(1));
            let far = scope.spawn(move || -> anyhow::Result<()> {
                self.far.enter()?;
                cores::pin_to(there)?;
                cores::raise_priority(false);
                let transport = open(&far_config)?;
                tell.send(transport.local_addr())?;
                answer(transport)
            });
            let near = scope.spawn(move || -> anyhow::Result<Figure> {
                let to = told.recv().context("the far end did not start")?;
                self.near.enter()?;
                cores::pin_to(here)?;
                cores::raise_priority(false);
                let mut end = Near { transport: open(&near_config)?, to };
                end.settle()?;
                let round_trip_ns = end.round_trips(samples)?;
                let cpu_per_packet_ns = end.stream(batches)?;
                end.send(STOP_LEN, 1)?;
                end.transport.turn(Some(Clock.now() + 5_000_000))?;
                Ok(Figure { round_trip_ns, cpu_per_packet_ns })
            });
            let figure = near.join().unwrap_or_else(|_| bail!("the near end panicked"));
            let ended = far.join().unwrap_or_else(|_| bail!("the far end panicked"));
            figure.and_then(|figure| ended.map(|()| figure))
        })
    }
}

/// The far end: sends small datagrams back, counts large ones and tells how many came.
fn answer(mut transport: AnyTransport) -> anyhow::Result<()> {
    let mut counted = 0u64;
    let end = Instant::now() + 12 * PATIENCE;
    loop {
        ensure!(Instant::now() < end, "the near end never said stop");
        transport.turn(Some(Clock.now() + 100_000_000))?;
        let (mut echo, mut acknowledge) = (None, None);
        while let Some(batch) = transport.poll_receive() {
            let from = batch.from;
            for datagram in batch.datagrams() {
                match datagram.len() {
                    STOP_LEN => return Ok(()),
                    ECHO_LEN => echo = Some(from),
                    _ => {
                        counted += 1;
                        acknowledge = Some(from);
                    }
                }
            }
        }
        if let Some(to) = echo
            && let Some(slot) = transport.acquire()
        {
            transport.commit(slot, Transmit::datagram(to, ECHO_LEN));
        }
        if let Some(to) = acknowledge
            && let Some(mut slot) = transport.acquire()
        {
            slot[..8].copy_from_slice(&counted.to_be_bytes());
            transport.commit(slot, Transmit::datagram(to, 8));
        }
    }
}

/// The near end, which measures.
struct Near {
    transport: AnyTransport,
    to: SocketAddr,
}

impl Near {
    fn send(&mut self, len: usize, count: usize) -> anyhow::Result<()> {
        let slot = self.transport.acquire().context("all send slots are in flight")?;
        self.transport.commit(slot, Transmit::batch(self.to, len * count, len));
        Ok(())
    }

    /// The last datagram that a turn brings: its length and first eight bytes.
    fn turn(&mut self) -> anyhow::Result<Option<(usize, u64)>> {
        self.transport.turn(Some(Clock.now() + 100_000_000))?;
        let mut last = None;
        while let Some(batch) = self.transport.poll_receive() {
            for datagram in batch.datagrams() {
                let number = datagram.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                last = Some((datagram.len(), number));
            }
        }
        Ok(last)
    }

    /// Goes on until both ends know each other's Ethernet address and nothing is under way.
    fn settle(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        let mut answered = 0;
        while answered < 50 {
            ensure!(Instant::now() < end, "no answer from the far end");
            self.send(ECHO_LEN, 1)?;
            answered += usize::from(self.turn()?.is_some());
        }
        Ok(())
    }

    /// The median of `samples` round trips, in nanoseconds.
    fn round_trips(&mut self, samples: usize) -> anyhow::Result<f64> {
        let mut times = Vec::with_capacity(samples);
        for _ in 0..samples {
            let start = Instant::now();
            self.send(ECHO_LEN, 1)?;
            while self.turn()?.is_none() {
                ensure!(start.elapsed() < PATIENCE, "an echo was lost");
            }
            times.push(start.elapsed());
        }
        Ok(median_ns(&mut times))
    }

    /// Streams batches and returns the processor time that this process spent per datagram, in nanoseconds.
    fn stream(&mut self, batches: usize) -> anyhow::Result<f64> {
        let total = (batches * BATCH) as u64;
        let (mut sent, mut acknowledged) = (0u64, 0u64);
        let mut progress = Instant::now();
        let before = process_time();
        while acknowledged < total {
            while sent < total && sent - acknowledged + BATCH as u64 <= WINDOW {
                if self.send(STREAM_LEN, BATCH).is_err() {
                    break;
                }
                sent += BATCH as u64;
            }
            match self.turn()? {
                Some((8, number)) if number > acknowledged => {
                    acknowledged = number;
                    progress = Instant::now();
                }
                _ => ensure!(
                    progress.elapsed() < PATIENCE,
                    "{} of {sent} datagrams were lost: {:?}",
                    sent - acknowledged,
                    self.transport.counters()
                ),
            }
        }
        Ok((process_time() - before).as_nanos() as f64 / total as f64)
    }
}

/// Processor time of all threads of this process, what the kernel did on their behalf included.
fn process_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

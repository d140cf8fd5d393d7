//! `AF_XDP` beside `io_uring` on a virtual cable: round trip, and processor time per packet.
//!
//! Two machines (network namespaces) and two cables between them, one for each transport, because an XDP program on
//! a cable changes what it costs everyone on it. Both ends are the engine's transports; each sleeps or spins on a
//! core of its own. A block measures one transport after the other, so that a busy machine slows both alike.
//!
//! `AF_XDP`'s floor is a socket with nothing around it ([`floor`]), which sends and receives as many frames of the same
//! length in the same blocks: what is above it is the transport's, what is not is the kernel's.

mod floor;
mod loops;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, bail};
use wavry_netns::{Namespace, cable, unavailable};
use wavry_runtime::clock::Clock;
use wavry_runtime::cores;
use wavry_runtime::transport::{Transmit, Transport};
use wavry_runtime::uring::UringUdpConfig;
use wavry_xdp::choice::{AnyTransport, TransportChoice, TransportConfig, open};

use crate::estimate::Estimate;
use crate::machine::Machine;
use crate::report::Report;
use loops::{ACKNOWLEDGE_LEN, End, Figure, number_of};

const PORT: u16 = 4810;
/// How long a turn may wait.
const TURN_NS: u64 = 100_000_000;
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
        let (far, near) = (config(2), config(1));
        self.run(
            || {
                let transport = open(&far)?;
                let address = transport.local_addr();
                Ok((Carried { transport, to: None }, address))
            },
            |to| Ok(Carried { transport: open(&near)?, to: Some(to) }),
            samples,
            batches,
        )
    }

    /// Opens the far end, then the near one with what the far one told, each on a core of its own; measures, and closes both.
    fn run<F: End, N: End, T: Send>(
        &self,
        open_far: impl FnOnce() -> anyhow::Result<(F, T)> + Send,
        open_near: impl FnOnce(T) -> anyhow::Result<N> + Send,
        samples: usize,
        batches: usize,
    ) -> anyhow::Result<Figure> {
        let allowed = cores::allowed()?;
        let (here, there) = (allowed[0], allowed[allowed.len() - 1]);
        let enter = |machine: &Namespace, core| -> anyhow::Result<()> {
            machine.enter()?;
            cores::pin_to(core)?;
            cores::raise_priority(false);
            Ok(())
        };
        thread::scope(|scope| {
            let (tell, told) = mpsc::channel();
            let far = scope.spawn(move || -> anyhow::Result<()> {
                enter(&self.far, there)?;
                let (end, word) = open_far()?;
                tell.send(word).ok().context("the near end is gone")?;
                loops::answer(end)
            });
            let near = scope.spawn(move || -> anyhow::Result<Figure> {
                let word = told.recv().context("the far end did not start")?;
                enter(&self.near, here)?;
                loops::measure(open_near(word)?, samples, batches)
            });
            let figure = near.join().unwrap_or_else(|_| bail!("the near end panicked"));
            let ended = far.join().unwrap_or_else(|_| bail!("the far end panicked"));
            figure.and_then(|figure| ended.map(|()| figure))
        })
    }
}

/// A transport of the engine. Who answers knows where to by who sent last.
struct Carried {
    transport: AnyTransport,
    to: Option<SocketAddr>,
}

impl End for Carried {
    fn send(&mut self, len: usize, count: usize, number: u64) -> anyhow::Result<bool> {
        let to = self.to.context("nobody has sent anything")?;
        let Some(mut slot) = self.transport.acquire() else { return Ok(false) };
        if len == ACKNOWLEDGE_LEN {
            slot[..ACKNOWLEDGE_LEN].copy_from_slice(&number.to_be_bytes());
        }
        self.transport.commit(slot, Transmit::batch(to, len * count, len));
        Ok(true)
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.transport.flush()?)
    }

    fn turn(&mut self, mut on_datagram: impl FnMut(usize, u64)) -> anyhow::Result<()> {
        self.transport.turn(Some(Clock.now() + TURN_NS))?;
        while let Some(batch) = self.transport.poll_receive() {
            self.to = Some(batch.from);
            for datagram in batch.datagrams() {
                on_datagram(datagram.len(), number_of(datagram));
            }
        }
        Ok(())
    }
}

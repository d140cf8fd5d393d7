//! The same round trips and the same stream through `AF_XDP` sockets with nothing around them.
//!
//! Frames are written once; sending one is a copy into packet memory, receiving one a look at its length.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use wavry_netns::Namespace;
use wavry_runtime::cores;
use wavry_xdp::bare::Bare;
use wavry_xdp::interface::Interface;
use wavry_xdp::load::Flow;

use super::{BATCH, ECHO_LEN, Figure, Lab, PATIENCE, PORT, STOP_LEN, STREAM_LEN, WINDOW, process_time};
use crate::estimate::median_ns;

const DEVICE: &str = "xdp0";
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 79, 1, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 79, 1, 2);
/// Ethernet, IPv4 and UDP.
const HEADERS_LEN: usize = 42;
const ACKNOWLEDGE_LEN: usize = 8;

/// Opens both ends, measures, closes both.
pub(super) fn block(lab: &Lab, busy: bool, samples: usize, batches: usize) -> anyhow::Result<Figure> {
    let allowed = cores::allowed()?;
    let (here, there) = (allowed[0], allowed[allowed.len() - 1]);
    let macs = [mac_of(&lab.near)?, mac_of(&lab.far)?];
    thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let far = scope.spawn(move || -> anyhow::Result<()> {
            let end = End::open(&lab.far, [FAR, NEAR], [macs[0], macs[1]], there, busy)?;
            tell.send(())?;
            end.answer()
        });
        let near = scope.spawn(move || -> anyhow::Result<Figure> {
            told.recv().context("the far end did not start")?;
            let mut end = End::open(&lab.near, [NEAR, FAR], [macs[1], macs[0]], here, busy)?;
            end.round_trips(50)?;
            let round_trip_ns = end.round_trips(samples)?;
            let cpu_per_packet_ns = end.stream(batches)?;
            end.send(STOP_LEN)?;
            Ok(Figure { round_trip_ns, cpu_per_packet_ns })
        });
        let figure = near.join().unwrap_or_else(|_| bail!("the near end panicked"));
        let ended = far.join().unwrap_or_else(|_| bail!("the far end panicked"));
        figure.and_then(|figure| ended.map(|()| figure))
    })
}

/// One end, on the calling thread.
struct End {
    socket: Bare,
    /// The largest frame; shorter ones have headers of their own.
    stream: Vec<u8>,
    echo: Vec<u8>,
    acknowledge: Vec<u8>,
    stop: Vec<u8>,
}

impl End {
    fn open(
        machine: &Namespace,
        [from, to]: [Ipv4Addr; 2],
        ethernet: [[u8; 6]; 2],
        core: usize,
        busy: bool,
    ) -> anyhow::Result<Self> {
        machine.enter()?;
        cores::pin_to(core)?;
        cores::raise_priority(false);
        let socket = Bare::open(&Interface::named(DEVICE)?, IpAddr::V4(from), PORT, busy)?;
        let [from, to] = [from, to].map(|address| SocketAddrV4::new(address, PORT));
        let frame = |len| Flow { ethernet, from, to, payload: vec![0; len], key: [0; 2] }.frame();
        Ok(Self {
            socket,
            stream: frame(STREAM_LEN),
            echo: frame(ECHO_LEN),
            acknowledge: frame(ACKNOWLEDGE_LEN),
            stop: frame(STOP_LEN),
        })
    }

    fn send(&mut self, len: usize) -> anyhow::Result<()> {
        let frame = match len {
            STREAM_LEN => &self.stream,
            ECHO_LEN => &self.echo,
            STOP_LEN => &self.stop,
            _ => &self.acknowledge,
        };
        ensure!(self.socket.send(frame), "all places are taken");
        self.socket.flush()?;
        Ok(())
    }

    /// Sends small frames back, counts large ones and tells how many came.
    fn answer(mut self) -> anyhow::Result<()> {
        let end = Instant::now() + 12 * PATIENCE;
        let (mut counted, mut stopped) = (0u64, false);
        while !stopped {
            ensure!(Instant::now() < end, "the near end never said stop");
            self.socket.wait()?;
            let (mut echo, before) = (false, counted);
            self.socket.receive(|frame| match frame.len() - HEADERS_LEN {
                STOP_LEN => stopped = true,
                ECHO_LEN => echo = true,
                _ => counted += 1,
            });
            if echo {
                self.send(ECHO_LEN)?;
            }
            if counted > before {
                self.acknowledge[HEADERS_LEN..].copy_from_slice(&counted.to_be_bytes());
                self.send(ACKNOWLEDGE_LEN)?;
            }
        }
        Ok(())
    }

    fn round_trips(&mut self, samples: usize) -> anyhow::Result<f64> {
        let mut times = Vec::with_capacity(samples);
        for _ in 0..samples {
            let start = Instant::now();
            self.send(ECHO_LEN)?;
            let mut came = false;
            while !came {
                ensure!(start.elapsed() < PATIENCE, "an echo was lost");
                self.socket.wait()?;
                self.socket.receive(|_| came = true);
            }
            times.push(start.elapsed());
        }
        Ok(median_ns(&mut times))
    }

    fn stream(&mut self, batches: usize) -> anyhow::Result<f64> {
        let total = (batches * BATCH) as u64;
        let (mut sent, mut acknowledged) = (0u64, 0u64);
        let mut progress = Instant::now();
        let before = process_time();
        while acknowledged < total {
            while sent < total && sent - acknowledged + BATCH as u64 <= WINDOW {
                for _ in 0..BATCH {
                    ensure!(self.socket.send(&self.stream), "all places are taken");
                }
                sent += BATCH as u64;
            }
            self.socket.flush()?;
            self.socket.wait()?;
            let known = acknowledged;
            self.socket.receive(|frame| {
                if let Some(number) = frame.get(HEADERS_LEN..).and_then(|payload| payload.first_chunk()) {
                    acknowledged = acknowledged.max(u64::from_be_bytes(*number));
                }
            });
            if acknowledged > known {
                progress = Instant::now();
            }
            ensure!(progress.elapsed() < PATIENCE, "{} of {sent} frames were lost", sent - acknowledged);
        }
        Ok((process_time() - before).as_nanos() as f64 / total as f64)
    }
}

fn mac_of(machine: &Namespace) -> anyhow::Result<[u8; 6]> {
    let text = machine.run("cat", &format!("/sys/class/net/{DEVICE}/address"))?;
    let bytes: Vec<u8> =
        text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("{DEVICE} has no Ethernet address"))
}

//! An input message's round trip: client, host, the host's acknowledgement, client; beside an echo of bare
//! blocking sockets.
//!
//! Host and echo run on one core, the client on another, as the engine is used; where there is only one, they
//! share it. All of them sleep while they wait, except in the figure for busy polling.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rift_core::Timestamp;
use rift_core::endpoint::{ClientEndpoint, HostEndpoint, HostEvent};
use rift_core::input::InputEvent;
use wavry_runtime::cores;
use wavry_runtime::transport::Transport;
use wavry_runtime::uring::{UringUdp, UringUdpConfig};
use wavry_session_loop::{SessionLoop, now};

use super::Effort;
use super::pair::{Settings, client_config, host_config};
use crate::estimate::{Estimate, median_ns};
use crate::report::{Goal, Report};

const SAMPLES: usize = 300;
/// Bytes of the echo, about what an input message comes to.
const ECHO_LEN: usize = 64;
const GOAL: Goal = Goal::AtMost(1.5);
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn measure(effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    // The placement ends with this thread.
    thread::scope(|scope| {
        let measuring = scope.spawn(|| measure_placed(effort, report));
        measuring.join().unwrap_or_else(|_| anyhow::bail!("measuring the round trip panicked"))
    })
}

fn measure_placed(effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    let allowed = cores::allowed()?;
    let (here, there) = (allowed[0], allowed[allowed.len() - 1]);
    cores::raise_priority(false);
    let samples = effort.samples(SAMPLES);
    let mut bare = Vec::new();
    for busy_poll in [false, true] {
        cores::pin_to(there)?;
        let echo = Echo::start()?;
        let mut input = Input::start(busy_poll, here)?;
        let (mut engine, mut floor) = (Vec::new(), Vec::new());
        for block in 0..=effort.blocks {
            let ours = input.round_trips(samples)?;
            let theirs = echo.round_trips(samples)?;
            if block > 0 {
                engine.push(ours * 1e-3);
                floor.push(theirs * 1e-3);
            }
        }
        if busy_poll {
            report.note("input round trip, engine, busy polling", Estimate::of(engine), "us p50");
        } else {
            report.note("round trip, bare blocking UDP", Estimate::of(floor.clone()), "us p50");
            report.note("input round trip, engine", Estimate::of(engine.clone()), "us p50");
            let ratio = Estimate::ratio(&engine, &floor);
            report.judge("input round trip, engine to bare UDP", ratio, "x", GOAL);
            bare = floor;
        }
    }
    ensure!(!bare.is_empty(), "nothing was measured");
    Ok(())
}

/// A client with its host on another thread.
struct Input {
    client: SessionLoop<UringUdp, ClientEndpoint>,
    submitted: u64,
    injected: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    waker: wavry_runtime::Waker,
    host: Option<thread::JoinHandle<anyhow::Result<()>>>,
}

impl Input {
    /// Starts the host where this thread is, moves this thread to `here`, and connects.
    fn start(busy_poll: bool, here: usize) -> anyhow::Result<Self> {
        let loopback =
            UringUdpConfig { busy_poll, ..UringUdpConfig::new(SocketAddr::from(([127, 0, 0, 1], 0))) };
        let (injected, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (tell, told) = std::sync::mpsc::channel();
        let (name, named) = std::sync::mpsc::channel();
        let host = {
            let (injected, stop) = (Arc::clone(&injected), Arc::clone(&stop));
            thread::Builder::new().name("bench-host".to_owned()).spawn(move || -> anyhow::Result<()> {
                cores::raise_priority(false);
                let udp = UringUdp::open(loopback)?;
                tell.send((udp.local_addr(), udp.waker()))?;
                let settings = Settings { parity: 0.0, paced: true, arrival_times: false };
                let config = host_config(named.recv()?, settings)?;
                let host = SessionLoop::new(udp, HostEndpoint::new(config, now()));
                host_loop(host, &injected, &stop)
            })?
        };
        let (at, waker) = told.recv().context("the host did not start")?;
        cores::pin_to(here)?;
        let udp = UringUdp::open(loopback)?;
        let (config, id) = client_config(at)?;
        name.send(id)?;
        let client = SessionLoop::new(udp, ClientEndpoint::new(config, now()));
        let mut input = Self { client, submitted: 0, injected, stop, waker, host: Some(host) };
        let end = Instant::now() + PATIENCE;
        // Half a second more for what the two tell each other at the start.
        let mut connected = None;
        while connected.is_none_or(|at: Instant| at.elapsed() < Duration::from_millis(500)) {
            ensure!(Instant::now() < end, "the client could not connect");
            input.turn(now().plus_micros(20_000))?;
            if connected.is_none() && input.client.endpoint().session().is_some() {
                connected = Some(Instant::now());
            }
        }
        Ok(input)
    }

    /// The median of `samples` round trips, in nanoseconds.
    fn round_trips(&mut self, samples: usize) -> anyhow::Result<f64> {
        self.turn(Timestamp::ZERO)?;
        let mut times = Vec::with_capacity(samples);
        for _ in 0..samples {
            let start = Instant::now();
            self.submitted += 1;
            let event = InputEvent::MouseMoveRelative { dx: 1.0, dy: 0.0 };
            let submitted = self.client.endpoint_mut().submit_input(now(), event);
            ensure!(submitted.is_ok(), "an input event was refused: {submitted:?}");
            // The acknowledgement is the only thing that comes, but for an answer to a ping ten times a second.
            while self.turn(Timestamp::NEVER)? == 0 {
                ensure!(start.elapsed() < PATIENCE, "an input event was not acknowledged");
            }
            times.push(start.elapsed());
        }
        thread::sleep(Duration::from_millis(5));
        self.turn(Timestamp::ZERO)?;
        let injected = self.injected.load(Ordering::Acquire);
        ensure!(injected == self.submitted, "{injected} of {} events arrived", self.submitted);
        Ok(median_ns(&mut times))
    }

    /// One turn of the client's loop: sends, waits, receives. Returns how many datagrams came.
    fn turn(&mut self, until: Timestamp) -> anyhow::Result<u64> {
        self.client.transmit(now());
        self.client.turn(until)?;
        self.client.receive(now());
        while self.client.endpoint_mut().poll_event().is_some() {}
        let traffic = self.client.take_traffic();
        Ok(traffic.received - traffic.refused)
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        if let Some(Ok(Err(error))) = self.host.take().map(thread::JoinHandle::join) {
            eprintln!("the host of the round trip ended early: {error:#}");
        }
    }
}

fn host_loop(
    mut host: SessionLoop<UringUdp, HostEndpoint>,
    injected: &AtomicU64,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    while !stop.load(Ordering::Acquire) {
        let now = now();
        host.receive(now);
        while let Some(event) = host.endpoint_mut().poll_event() {
            if matches!(event, HostEvent::Input(_)) {
                injected.fetch_add(1, Ordering::Release);
            }
        }
        host.transmit(now);
        host.turn(Timestamp::NEVER)?;
    }
    Ok(())
}

/// The floor: a thread that sends back what it receives, by blocking calls.
struct Echo {
    socket: UdpSocket,
    to: SocketAddr,
    thread: Option<thread::JoinHandle<()>>,
}

impl Echo {
    /// Starts the other end where this thread is.
    fn start() -> anyhow::Result<Self> {
        let other = UdpSocket::bind("127.0.0.1:0")?;
        let to = other.local_addr()?;
        let thread = thread::Builder::new().name("bench-echo".to_owned()).spawn(move || {
            cores::raise_priority(false);
            let mut buffer = [0; 2048];
            // An empty datagram ends it.
            while let Ok((len @ 1.., from)) = other.recv_from(&mut buffer) {
                let _ = other.send_to(&buffer[..len], from);
            }
        })?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, to, thread: Some(thread) })
    }

    /// The median of `samples` round trips, in nanoseconds.
    fn round_trips(&self, samples: usize) -> anyhow::Result<f64> {
        let mut buffer = [1; 2048];
        let mut times = Vec::with_capacity(samples);
        for _ in 0..samples {
            let start = Instant::now();
            self.socket.send_to(&buffer[..ECHO_LEN], self.to)?;
            self.socket.recv_from(&mut buffer)?;
            times.push(start.elapsed());
        }
        Ok(median_ns(&mut times))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.socket.send_to(&[], self.to);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

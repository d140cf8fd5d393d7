//! One sender and one receiver on one thread: first as fast as the forwarder keeps up, then paced, for latency.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use wavry_runtime::clock::Clock;
use wavry_runtime::transport::{Transmit, Transport};

/// Bytes of each datagram.
const PAYLOAD: usize = 1200;
/// Datagrams under way at most; far less than what sockets queue.
const WINDOW: u64 = 256;
/// Gap between datagrams for the latency: 20,000 a second.
const PACE_NS: u64 = 50_000;

/// What is sent.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) burst: usize,
    pub(super) span: Duration,
}

/// What was seen.
pub(super) struct Figures {
    /// Processor time of the forwarder per datagram, nanoseconds.
    pub(super) cpu_ns: f64,
    /// From before the send call to after the receive call, paced.
    pub(super) p50_us: f64,
    /// Share of datagrams.
    pub(super) lost: f64,
}

impl Load {
    pub(super) fn run<S: Transport, R: Transport>(
        self,
        mut sender: S,
        mut receiver: R,
        via: SocketAddr,
        pid: u32,
    ) -> anyhow::Result<Figures> {
        // A relay takes both peers before it forwards.
        let mut got = 0;
        let ready = Clock.now() + 3_000_000_000;
        while got == 0 {
            ensure!(Clock.now() < ready, "nothing is forwarded");
            send(&mut sender, via, 1);
            sender.turn(Some(Clock.now() + 1_000_000))?;
            while sender.poll_receive().is_some() {}
            receiver.turn(Some(Clock.now() + 1_000_000))?;
            got += take(&mut receiver, None);
        }
        let settle = Clock.now() + 50_000_000;
        while Clock.now() < settle {
            receiver.turn(Some(settle))?;
            take(&mut receiver, None);
        }

        let (mut sent, mut got) = (0, 0);
        let (begun, cpu_begun) = (Clock.now(), processor_ns(pid)?);
        let end = begun + self.span.as_nanos() as u64;
        let mut stalled_at = begun;
        while Clock.now() < end || (got < sent && Clock.now() < stalled_at + 20_000_000) {
            while sent - got + self.burst as u64 <= WINDOW && Clock.now() < end {
                sent += send(&mut sender, via, self.burst);
                sender.flush()?;
            }
            sender.turn(Some(0))?;
            while sender.poll_receive().is_some() {}
            receiver.turn(Some(Clock.now() + 200_000))?;
            let more = take(&mut receiver, None);
            got += more;
            let now = Clock.now();
            if more > 0 {
                stalled_at = now;
            } else if now > stalled_at + 20_000_000 {
                // Lost ones must not close the window for good.
                break;
            }
        }
        let cpu = processor_ns(pid)? - cpu_begun;
        ensure!(got > 1000, "only {got} datagrams came through");

        let mut times = Vec::with_capacity(100_000);
        let end = Clock.now() + self.span.as_nanos() as u64;
        let mut next = Clock.now();
        while Clock.now() < end {
            next += PACE_NS * self.burst as u64;
            send(&mut sender, via, self.burst);
            sender.flush()?;
            while Clock.now() < next {
                receiver.turn(Some(next))?;
                take(&mut receiver, Some(&mut times));
            }
            sender.turn(Some(0))?;
            while sender.poll_receive().is_some() {}
        }
        times.sort_unstable();
        let p50 = *times.get(times.len() / 2).context("nothing came through when paced")?;
        Ok(Figures {
            cpu_ns: cpu as f64 / got as f64,
            p50_us: p50 as f64 / 1000.0,
            lost: 1.0 - got as f64 / sent as f64,
        })
    }
}

/// One batch, each datagram with the time in it.
fn send<T: Transport>(transport: &mut T, to: SocketAddr, burst: usize) -> u64 {
    let Some(mut slot) = transport.acquire() else { return 0 };
    let now = Clock.now().to_le_bytes();
    for datagram in slot[..burst * PAYLOAD].chunks_mut(PAYLOAD) {
        datagram[..8].copy_from_slice(&now);
    }
    transport.commit(slot, Transmit::batch(to, burst * PAYLOAD, PAYLOAD));
    burst as u64
}

fn take<T: Transport>(transport: &mut T, mut times: Option<&mut Vec<u64>>) -> u64 {
    let mut count = 0;
    while let Some(batch) = transport.poll_receive() {
        let now = Clock.now();
        for datagram in batch.datagrams() {
            count += 1;
            if let (Some(times), Some(sent)) = (&mut times, datagram.first_chunk()) {
                times.push(now.saturating_sub(u64::from_le_bytes(*sent)));
            }
        }
    }
    count
}

/// Time on a processor of all threads of a process, nanoseconds.
fn processor_ns(pid: u32) -> anyhow::Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("the forwarder has ended")? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split_whitespace().next().context("no schedstat")?.parse::<u64>()?;
    }
    Ok(total)
}

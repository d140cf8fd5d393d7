//! What is timed, over whatever socket: round trips of small datagrams, and a stream of large ones.
//!
//! Owns nothing. Both ends of a cable run loops of this file, so that transports and their floor do the same.

use std::time::{Duration, Instant};

use anyhow::ensure;
use rustix::time::{ClockId, clock_gettime};

use crate::estimate::median_ns;

/// Bytes of the echo, about what an input message comes to.
pub(super) const ECHO_LEN: usize = 64;
/// Bytes of a datagram of the stream, and how many make a batch.
pub(super) const STREAM_LEN: usize = 1200;
pub(super) const BATCH: usize = 32;
/// Of what tells how many of the stream came.
pub(super) const ACKNOWLEDGE_LEN: usize = 8;
/// Ends the far side.
pub(super) const STOP_LEN: usize = 1;
/// Datagrams in flight at most: less than the rings hold.
const WINDOW: u64 = 512;
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Round trips that warm up.
const WARM: usize = 50;

/// One end of a cable, on the calling thread.
pub(super) trait End {
    /// Queues `count` datagrams of one of the lengths above to the other end. Those that acknowledge begin with `number`. False: there is
    /// no room now.
    fn send(&mut self, len: usize, count: usize, number: u64) -> anyhow::Result<bool>;

    /// Lets what is queued leave.
    fn flush(&mut self) -> anyhow::Result<()>;

    /// The same, then waits until something comes, for a tenth of a second at most. Shows the length and the first eight bytes of all that came.
    fn turn(&mut self, on_datagram: impl FnMut(usize, u64)) -> anyhow::Result<()>;
}

/// What was found at the near end.
pub(super) struct Figure {
    pub(super) round_trip_ns: f64,
    pub(super) cpu_per_packet_ns: f64,
}

/// The far end: sends small datagrams back, counts large ones and tells how many came.
pub(super) fn answer(mut end: impl End) -> anyhow::Result<()> {
    let until = Instant::now() + 12 * PATIENCE;
    let (mut counted, mut stopped) = (0u64, false);
    while !stopped {
        ensure!(Instant::now() < until, "the near end never said stop");
        let (mut echo, before) = (false, counted);
        end.turn(|len, _| match len {
            STOP_LEN => stopped = true,
            ECHO_LEN => echo = true,
            _ => counted += 1,
        })?;
        // What finds no room is asked for again.
        if echo {
            end.send(ECHO_LEN, 1, 0)?;
        }
        if counted > before {
            end.send(ACKNOWLEDGE_LEN, 1, counted)?;
        }
    }
    Ok(())
}

/// The near end, which measures.
pub(super) fn measure(mut end: impl End, samples: usize, batches: usize) -> anyhow::Result<Figure> {
    settle(&mut end)?;
    let round_trip_ns = round_trips(&mut end, samples)?;
    let cpu_per_packet_ns = stream(&mut end, batches)?;
    ensure!(end.send(STOP_LEN, 1, 0)?, "no room to say stop");
    end.flush()?;
    Ok(Figure { round_trip_ns, cpu_per_packet_ns })
}

/// Goes on until both ends know each other's Ethernet address and nothing is under way.
fn settle(end: &mut impl End) -> anyhow::Result<()> {
    let until = Instant::now() + PATIENCE;
    let mut answered = 0;
    while answered < WARM {
        ensure!(Instant::now() < until, "no answer from the far end");
        end.send(ECHO_LEN, 1, 0)?;
        end.turn(|_, _| answered += 1)?;
    }
    Ok(())
}

/// The median of `samples` round trips, in nanoseconds.
fn round_trips(end: &mut impl End, samples: usize) -> anyhow::Result<f64> {
    let mut times = Vec::with_capacity(samples);
    for _ in 0..samples {
        let start = Instant::now();
        ensure!(end.send(ECHO_LEN, 1, 0)?, "all places are taken");
        let mut came = false;
        while !came {
            ensure!(start.elapsed() < PATIENCE, "an echo was lost");
            end.turn(|_, _| came = true)?;
        }
        times.push(start.elapsed());
    }
    Ok(median_ns(&mut times))
}

/// Streams batches and returns the processor time that this process spent per datagram, in nanoseconds.
fn stream(end: &mut impl End, batches: usize) -> anyhow::Result<f64> {
    let total = (batches * BATCH) as u64;
    let (mut sent, mut acknowledged) = (0u64, 0u64);
    let mut progress = Instant::now();
    let before = process_time();
    while acknowledged < total {
        while sent < total
            && sent - acknowledged + BATCH as u64 <= WINDOW
            && end.send(STREAM_LEN, BATCH, 0)?
        {
            sent += BATCH as u64;
        }
        let known = acknowledged;
        end.turn(|len, number| {
            if len == ACKNOWLEDGE_LEN {
                acknowledged = acknowledged.max(number);
            }
        })?;
        if acknowledged > known {
            progress = Instant::now();
        }
        ensure!(progress.elapsed() < PATIENCE, "{} of {sent} datagrams were lost", sent - acknowledged);
    }
    Ok((process_time() - before).as_nanos() as f64 / total as f64)
}

/// The first eight bytes, as a number; 0 of a shorter one.
pub(super) fn number_of(datagram: &[u8]) -> u64 {
    datagram.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// Processor time of all threads of this process, what the kernel did on their behalf included.
fn process_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

//! The programs themselves over real links: `wavry-server` and `wavry-client`, paired, with a real encoder.
//!
//! Frames count from the moment at which the host has encoded them to the moment at which the client has them whole, as
//! their traces say. The picture is small and frames are filled up to what the rate asks for, so that two cores are enough
//! and no encoder's taste is in the figures. The simulator is told what it cannot know, from the same traces: how much
//! frame sizes scatter, and how long decoding takes.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use rift_core::FrameId;
use rift_core::send::SenderCounters;
use rift_sim::Scenario;
use rift_sim::metrics::StreamLog;
use wavry_runtime::clock::Clock;

use super::lab::{HOST, Lab, MIDDLE, Outcome, guarded, metrics, traffic};
use super::stall;
use crate::e2e::own::{Programs, Scratch, Table, pin_in};
use crate::e2e::process::{Lines, Program, Side};

/// How long the programs may take to say that they are ready.
const PATIENCE: Duration = Duration::from_secs(10);
/// Frames around one whose mean is what the encoder was asked for: a quarter of a second.
const AROUND: usize = 7;
/// As many slices as the host makes unless told otherwise.
const SLICES: u32 = 4;
/// Frames that are filled up to their share have all the same size.
const KEYFRAME: f64 = 1.0;

/// Streams over the scenario's links. Also gives the scenario with what the traces say of encoder and decoder.
pub(super) fn run(
    lab: &Lab,
    programs: &Programs,
    scenario: &Scenario,
    seed: u64,
) -> anyhow::Result<(Outcome, Scenario)> {
    let scratch = Scratch::new()?;
    let (host_trace, client_trace) = (scratch.0.join("host.csv"), scratch.0.join("client.csv"));
    let (least, most) = scenario.source.bounds();
    ensure!(least.as_bps() == 1_000_000, "the host never goes below 1 Mbit/s: `video min 1Mbit/s`");
    let mut host = programs.command_in(&lab.host, "wavry-server");
    host.args(["--listen", &HOST.to_string(), "--pair", "--fill", "--source", "test:320x192"])
        .args(["--fps", &scenario.source.fps.to_string(), "--slices", &SLICES.to_string()])
        .args(["--bitrate-mbps", &mbps(scenario.source.rate.as_bps())])
        .args(["--max-bitrate-mbps", &mbps(most.as_bps())])
        .arg("--config-dir")
        .arg(scratch.0.join("host"))
        .arg("--trace")
        .arg(&host_trace);
    let mut host = Program::start("wavry-server", &mut host, Side::Host)?;
    let lines = Lines::of(host.child().stdout.take().context("wavry-server has no output")?);
    let pin = lines.wait_for("Pairing PIN: ", PATIENCE).context("wavry-server gave no PIN")?;
    let pin = pin_in(&pin).context("wavry-server gave no PIN")?;
    lines.wait_for("listens on", PATIENCE).context("wavry-server does not listen")?;
    let client_home = scratch.0.join("client");
    pair(lab, programs, &client_home, &pin)?;

    let epoch_ns = Clock.now();
    let over = AtomicBool::new(false);
    let end_ns = epoch_ns + scenario.duration_us * 1000;
    let (middle, stalls) = thread::scope(|scope| {
        let watches = stall::watch(scope, epoch_ns, &over)?;
        let middle =
            scope.spawn(|| guarded(&over, "the emulator", || lab.emulate(scenario, seed, epoch_ns, &over)));
        let mut stream = || -> anyhow::Result<()> {
            let mut client = programs.command_in(&lab.client, "wavry-client");
            client.args([&MIDDLE.to_string(), "--headless", "--config-dir"]).arg(&client_home);
            client.arg("--trace").arg(&client_trace);
            let mut client = Program::start("wavry-client", &mut client, Side::Client)?;
            while Clock.now() < end_ns && !over.load(Ordering::Acquire) {
                thread::sleep(Duration::from_millis(20));
            }
            ensure!(client.stop()?, "wavry-client failed");
            ensure!(host.stop()?, "wavry-server failed");
            Ok(())
        };
        let streamed = stream();
        over.store(true, Ordering::Release);
        let middle =
            middle.join().map_err(|_| anyhow!("a thread panicked; this is a fault of the program"))?;
        Ok::<_, anyhow::Error>((streamed.and(middle)?, stall::seen(watches)))
    })?;

    let traces = Traces { host: Table::read(&host_trace)?, client: Table::read(&client_trace)? };
    let log = traces.log(epoch_ns / 1000)?;
    // What is sent for what reason is not in the traces: only what arrived is compared.
    let traffic = traffic(&[SenderCounters::default(); 2], &middle.seen);
    let (metrics, left_out) = metrics(&log, &traffic, &middle, scenario, &stalls);
    let mut told = scenario.clone();
    told.source.slices = SLICES;
    told.source.encode_us = 0;
    told.source.noise = traces.scatter()?;
    told.source.scene_us = 0;
    told.source.keyframe_factor = KEYFRAME;
    told.decode_us = traces.decoding_us()?;
    let outcome = Outcome { metrics, lateness: middle.lateness, unsent: middle.unsent, left_out, host: None };
    Ok((outcome, told))
}

fn mbps(bps: u64) -> String {
    (bps / 1_000_000).to_string()
}

/// Pairs over links without faults, which are gone afterwards.
fn pair(lab: &Lab, programs: &Programs, home: &Path, pin: &str) -> anyhow::Result<()> {
    let over = AtomicBool::new(false);
    let plain = Scenario::default();
    thread::scope(|scope| {
        let middle =
            scope.spawn(|| guarded(&over, "the emulator", || lab.emulate(&plain, 1, Clock.now(), &over)));
        let mut command = programs.command_in(&lab.client, "wavry");
        let paired = command
            .arg("--config-dir")
            .arg(home)
            .args(["pair", &MIDDLE.to_string(), "--pin", pin])
            .output()
            .context("wavry cannot be started");
        over.store(true, Ordering::Release);
        middle.join().map_err(|_| anyhow!("a thread panicked; this is a fault of the program"))??;
        ensure!(paired?.status.success(), "wavry pair failed; see why with WAVRY_BENCH_VERBOSE=1");
        Ok(())
    })
}

/// What both programs wrote down.
struct Traces {
    host: Table,
    client: Table,
}

impl Traces {
    fn log(&self, epoch_us: u64) -> anyhow::Result<StreamLog> {
        let (encoded, bytes) = (self.host.column("encoded_us")?, self.host.column("bytes")?);
        let complete = self.client.column("complete_us")?;
        let mut log = StreamLog::default();
        let mut next = None;
        for (&frame, row) in &self.host.rows {
            ensure!(next.is_none_or(|next| frame == next), "the host's trace lacks frames before {frame}");
            next = Some(frame + 1);
            log.on_captured(FrameId(frame), row[encoded].saturating_sub(epoch_us), row[bytes]);
        }
        for (&frame, row) in &self.client.rows {
            log.on_complete(FrameId(frame), row[complete].saturating_sub(epoch_us));
        }
        Ok(log)
    }

    /// Deviation of frame sizes from those around them, as a share; the target moves far more slowly.
    fn scatter(&self) -> anyhow::Result<f64> {
        let column = self.host.column("bytes")?;
        let bytes: Vec<f64> = self.host.rows.values().map(|row| row[column] as f64).collect();
        let shares = bytes.windows(2 * AROUND + 1).map(|around| {
            let mean = around.iter().sum::<f64>() / around.len() as f64;
            (around[AROUND] / mean - 1.0).powi(2)
        });
        let (sum, count) = shares.fold((0.0, 0.0), |(sum, count), share| (sum + share, count + 1.0));
        ensure!(count > 0.0, "the host made too few frames");
        // To what the text form of a scenario carries.
        Ok((f64::sqrt(sum / count) * 1000.0).round() / 1000.0)
    }

    /// Median of the time from a whole frame to a decoded one.
    fn decoding_us(&self) -> anyhow::Result<u64> {
        let (complete, decoded) = (self.client.column("complete_us")?, self.client.column("decoded_us")?);
        let mut times: Vec<u64> =
            self.client.rows.values().map(|row| row[decoded].saturating_sub(row[complete])).collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().context("the client decoded nothing")
    }
}

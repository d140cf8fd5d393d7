//! End-to-end latency: from a picture painted on the host to the same picture decoded on the client.
//!
//! Owns the measurement: who is measured, in which order, and what is done with the figures. Every frame
//! carries its number and the time of painting in itself, and both are read back from the decoded picture,
//! so nothing that is measured needs to be believed. The subjects take turns within each round, so that the
//! machine's drift meets all of them. Never touches the programs' inside: they run as their users run them,
//! as processes, encrypted, over UDP on loopback.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use wavry_codec::EncoderChoice;

use self::codec::CodecTimes;
use self::own::{OwnRun, Programs};
use self::peer::{Peer, PeerRun};
use self::report::Report;
use self::stream::Stream;

mod codec;
mod goal;
pub(crate) mod own;
mod peer;
mod plot;
pub(crate) mod process;
mod report;
mod stats;
mod stream;

/// Arguments of `wavry-bench e2e`.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Arguments {
    /// Picture size and rate, WIDTHxHEIGHT@FPS. May be given several times.
    #[arg(long, value_name = "STREAM", default_values = ["1280x720@60", "1920x1080@30"])]
    stream: Vec<Stream>,

    /// Seconds measured in each run.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=600))]
    seconds: u32,

    /// Runs of each subject. Figures are medians over the runs.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    runs: u32,

    /// What to compare with, by name and separated by commas; `auto` takes all that are installed, `none` none.
    #[arg(long, default_value = "auto")]
    peers: String,

    /// Encoder threads, the same for everybody.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    threads: u32,

    /// Slices per frame of the engine's encoder; 0 takes what wavry-server would: 13 at 720 lines.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=32))]
    slices: u32,

    /// Bitrate in Mbit/s, the same for everybody.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    bitrate_mbps: u32,

    /// Let the engine's network threads poll instead of sleep.
    #[arg(long)]
    busy_poll: bool,

    /// Directory of wavry-server, wavry-client and wavry; by default that of this program.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,

    /// Write every figure to this file (JSON).
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Draw the distributions of total latency into this directory (SVG, one file per stream).
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,

    /// Keep the traces of the engine's runs in this directory.
    #[arg(long, value_name = "DIR")]
    traces: Option<PathBuf>,

    /// End with an error when a goal is missed by more than 5 %.
    #[arg(long)]
    check: bool,
}

/// What all subjects have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    stream: Stream,
    threads: u32,
    slices: u32,
    bitrate_mbps: u32,
    measured: Duration,
}

/// Frames of the first moments, while caches warm and rates settle, are not counted.
const WARM_UP: Duration = Duration::from_secs(1);
/// What a measured figure may exceed its goal by before `--check` calls it missed.
const NOISE: f64 = 0.05;

/// Measures, prints the tables and writes what was asked for.
///
/// # Errors
/// When a program is missing or fails, and with `--check` when a goal is missed.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let peers = chosen_peers(&arguments.peers)?;
    let programs = Programs::find(arguments.programs.as_deref())?;
    let mut reports = Vec::with_capacity(arguments.stream.len());
    for &stream in &arguments.stream {
        let setting = Setting {
            stream,
            threads: arguments.threads,
            slices: match arguments.slices {
                0 => EncoderChoice::Auto.suitable_slices(stream.geometry.height, arguments.threads),
                asked_for => asked_for,
            },
            bitrate_mbps: arguments.bitrate_mbps,
            measured: Duration::from_secs(arguments.seconds.into()),
        };
        let report = measure(arguments, &setting, &programs, &peers)?;
        println!("{report}");
        if let Some(directory) = &arguments.plots {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot make the directory {}", directory.display()))?;
            plot::distributions(&report, &directory.join(format!("e2e-{stream}.svg")))?;
        }
        reports.push(report);
    }
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&reports)?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    let missed: Vec<String> = reports.iter().flat_map(|report| report.missed(NOISE)).collect();
    ensure!(!arguments.check || missed.is_empty(), "goals missed: {}", missed.join("; "));
    Ok(())
}

fn measure(
    arguments: &Arguments,
    setting: &Setting,
    programs: &Programs,
    peers: &[Peer],
) -> anyhow::Result<Report> {
    let mut codec: Vec<CodecTimes> = Vec::new();
    let mut own: Vec<OwnRun> = Vec::new();
    let mut others: Vec<(Peer, Vec<PeerRun>)> = peers.iter().map(|peer| (*peer, Vec::new())).collect();
    for round in 1..=arguments.runs {
        let say = |what: &str| eprintln!("{}: round {round} of {}: {what}", setting.stream, arguments.runs);
        say("codec alone");
        codec.push(codec::measure(setting)?);
        say("wavry");
        let keep = arguments.traces.as_ref().map(|dir| dir.join(format!("{}-{round}", setting.stream)));
        own.push(own::measure(setting, programs, arguments.busy_poll, keep.as_deref())?);
        // A peer that fails costs its comparison, not the measurement.
        others.retain_mut(|(peer, runs)| {
            say(peer.name());
            match peer::measure(*peer, setting) {
                Ok(run) => runs.push(run),
                Err(error) => eprintln!("{} is left out: {error:#}", peer.name()),
            }
            runs.len() == round as usize
        });
    }
    let others = others.into_iter().map(|(peer, runs)| (peer.name().to_owned(), runs)).collect();
    Report::new(setting, &codec, own, others)
}

fn chosen_peers(list: &str) -> anyhow::Result<Vec<Peer>> {
    match list {
        "none" => Ok(Vec::new()),
        "auto" => Ok(Peer::ALL.into_iter().filter(|peer| peer.is_installed()).collect()),
        names => names
            .split(',')
            .map(|name| {
                let Some(peer) = Peer::ALL.into_iter().find(|peer| peer.name() == name) else {
                    let known: Vec<_> = Peer::ALL.iter().map(|peer| peer.name()).collect();
                    bail!("there is no peer {name}; known are {}", known.join(", "));
                };
                ensure!(peer.is_installed(), "{name} needs {}, which is not installed", peer.program());
                Ok(peer)
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_chosen_by_name() {
        assert!(chosen_peers("none").unwrap().is_empty());
        assert!(chosen_peers("carrier-pigeon").is_err());
    }
}

//! The packet path: what sealing, sending, receiving and opening cost beside what they must cost.
//!
//! Everything runs on loopback and, but for the input round trip, on one thread, so that a figure is the
//! work of one core: kernel included, since loopback delivers within the send.

pub mod floor;
pub mod pair;

mod burst;
mod input;
mod per_packet;
mod profile;
mod quic;
mod throughput;

use std::path::PathBuf;

use anyhow::bail;

use crate::machine::Machine;
use crate::report::Report;

/// Arguments of `wavry-bench packet`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// A tenth of the rounds: a look, not a record
    #[arg(long)]
    pub quick: bool,
    /// Measure only what has this in its name (sender, throughput, input, burst)
    #[arg(long, value_name = "NAME")]
    pub only: Option<String>,
    /// Exit with 1 if a goal is missed by more than the noise
    #[arg(long)]
    pub check: bool,
    /// Also write everything to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Sample the run and write a flame graph
    #[arg(long, value_name = "FILE.svg")]
    pub flamegraph: Option<PathBuf>,
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Blocks of turn-about samples.
    pub(crate) blocks: usize,
    /// Part of the usual number of samples in a block.
    share: f64,
}

impl Effort {
    /// `full` samples per block, or fewer in a quick run.
    pub(crate) fn samples(self, full: usize) -> usize {
        ((full as f64 * self.share) as usize).max(3)
    }
}

type Measure = fn(Effort, &mut Report) -> anyhow::Result<()>;

const MEASUREMENTS: [(&str, Measure); 4] = [
    ("sender and receiver", per_packet::measure),
    ("throughput", throughput::measure),
    ("input round trip", input::measure),
    ("burst", burst::measure),
];

/// Measures the packet path and prints the table.
///
/// # Errors
/// What kept it from measuring; with `--check` also a missed goal.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let effort =
        if arguments.quick { Effort { blocks: 5, share: 0.2 } } else { Effort { blocks: 15, share: 1.0 } };
    let profile = arguments.flamegraph.as_deref().map(profile::Profile::start).transpose()?;
    let mut report = Report::new(Machine::detect());
    for (name, measure) in MEASUREMENTS {
        if arguments.only.as_ref().is_none_or(|only| name.contains(only.as_str())) {
            eprintln!("measuring {name} ...");
            measure(effort, &mut report)?;
        }
    }
    if let Some(profile) = profile {
        profile.finish()?;
    }
    report.print();
    if let Some(file) = &arguments.json {
        report.write_json(file)?;
    }
    match report.missed() {
        missed @ 1.. if arguments.check => bail!("{missed} goals are missed by more than the noise"),
        _ => Ok(()),
    }
}

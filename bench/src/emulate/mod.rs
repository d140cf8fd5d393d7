//! Is the simulator right? The same scenario, once simulated and once over real links in real time.
//!
//! Over real links: endpoints of rift-core behind `io_uring` sockets, on threads as the programs have them, in network
//! namespaces of their own; between them an [emulator](wavry_netem) with the simulator's link code. The same in both:
//! the code of endpoints and links, the scenario, the seed, and the video source, which is the simulator's model, so that
//! no encoder's taste is in the figures. Different: time, the kernel (sockets, GSO, GRO, virtual cables), the
//! scheduler, and everything that the simulated world does by itself: calling endpoints in time, waking, batching.
//!
//! Where the machine itself stood still (see [`stall`]) frames are not in the delays: no simulated run has that.
//!
//! With `--programs` it is `wavry-server` and `wavry-client` instead, with a real encoder: see [`programs`].

mod ends;
mod lab;
mod programs;
mod stall;

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use rift_sim::metrics::{NEVER_US, StreamMetrics};
use rift_sim::{Preset, Scenario};
use wavry_bench::machine::Machine;

use crate::e2e::own::Programs;
use lab::{Lab, Outcome};

/// What both must agree within.
const AGREEMENT: f64 = 0.1;
/// Differences of delay below this are within the measurement, in milliseconds: a thread's wake-up on either side.
const DELAY_FLOOR_MS: f64 = 0.5;
/// The same of shares, in points of percent: one frame more or less in a short run.
const SHARE_FLOOR: f64 = 0.3;
/// The same of what was sent again, in points of percent: where a machine stands still for some milliseconds, as shared
/// ones do, what is only late is asked for.
const REPAIR_FLOOR: f64 = 1.0;

/// Least parity of a host, which `protocol parity` of a scenario stands for.
const HOST_PARITY: f64 = 0.125;

/// Arguments of `wavry-bench emulate`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Scenarios of `wavry netsim`; a choice of them when left out.
    #[arg(conflicts_with = "file")]
    scenarios: Vec<String>,
    /// A file with a scenario.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Seconds per run, the first three of which are not measured.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(5..=600))]
    seconds: u64,
    /// Runs per scenario, each with its seed; figures are means over them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// Stream with wavry-server and wavry-client, those in this directory or, without a value, beside this program.
    #[arg(long, value_name = "DIRECTORY", num_args = 0..=1)]
    #[allow(clippy::option_option, reason = "given or not, with or without a value")]
    programs: Option<Option<PathBuf>>,
}

/// What runs when nothing is named: a steady link, one whose capacity changes, one that loses, one that marks, and
/// one with a short queue.
const CHOICE: [&str; 5] = [
    "tail20",
    "name steps; warmup 5s; input 0; decode 0us; protocol parity 0%;
     video rate 5Mbit/s min 1Mbit/s max 80Mbit/s slices 1 encode 0us noise 15% scene 2.5 4s;
     down delay 10ms queue 200ms steps 20Mbit/s 7s 5Mbit/s 7s; up delay 10ms",
    "loss1",
    "l4s",
    "shallow20",
];

/// Runs `wavry-bench emulate`.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(reason) = wavry_netns::unavailable() {
        println!("skipped: {reason}");
        return Ok(());
    }
    let scenarios = scenarios(arguments)?;
    let programs = arguments.programs.as_ref().map(|at| Programs::find(at.as_deref())).transpose()?;
    let lab = Lab::new()?;
    println!("{}", Machine::detect());
    println!("\n{:<10} {:<14} {:>10} {:>10} {:>8}", "scenario", "figure", "simulated", "emulated", "differs");
    let mut apart = 0;
    for scenario in &scenarios {
        let mut runs = Runs::default();
        runs.add(&lab, programs.as_ref(), scenario, arguments.seeds)?;
        if runs.apart() > 0 {
            // A machine that stood still may have been why: as many again, and the mean over all.
            runs.add(&lab, programs.as_ref(), scenario, arguments.seeds)?;
        }
        runs.print(&scenario.name);
        apart += runs.apart();
    }
    if apart > 0 {
        bail!("{apart} figures differ by more than {:.0} %", AGREEMENT * 100.0);
    }
    Ok(())
}

fn scenarios(arguments: &Arguments) -> anyhow::Result<Vec<Scenario>> {
    let mut texts: Vec<String> = arguments.scenarios.clone();
    if let Some(path) = &arguments.file {
        texts.push(std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    if texts.is_empty() {
        texts.extend(CHOICE.map(str::to_owned));
    }
    texts
        .iter()
        .map(|text| {
            let mut scenario = match Preset::find(text) {
                Some(preset) => preset.scenario(),
                None if text.contains(' ') => text.parse().context("this is not a scenario")?,
                None => bail!("there is no scenario called `{text}`; `wavry netsim` lists them"),
            };
            if let Some(what) = wavry_netem::unsupported(&scenario) {
                bail!("`{}` cannot be emulated: {what}", scenario.name);
            }
            scenario.duration_us = arguments.seconds * 1_000_000;
            scenario.warmup_us = 3_000_000;
            // Nobody types in an emulated run.
            scenario.input_per_s = 0;
            if arguments.programs.is_some() {
                scenario.protocol.parity = HOST_PARITY;
            }
            Ok(scenario)
        })
        .collect()
}

/// What is compared.
#[derive(Clone, Copy, Debug, Default)]
struct Figures([f64; 6]);

const FIGURES: [(&str, f64); 6] = [
    ("used %", SHARE_FLOOR),
    ("delay p50 ms", DELAY_FLOOR_MS),
    ("delay p95 ms", DELAY_FLOOR_MS),
    ("delay p99 ms", DELAY_FLOOR_MS),
    ("stale %", SHARE_FLOOR),
    ("repair %", REPAIR_FLOOR),
];

impl Figures {
    fn of(m: &StreamMetrics) -> Self {
        let ms = |us: u32| if us == NEVER_US { f64::INFINITY } else { f64::from(us) / 1e3 };
        let [p50, p95, p99] = m.delay_us.map(ms);
        let used = m.utilisation.unwrap_or(0.0) * 100.0;
        Self([used, p50, p95, p99, m.stale * 100.0, m.redundancy * 100.0])
    }

    /// Without what only endpoints know: what was sent for which reason. Used is video alone, without headers.
    fn of_arrived(m: &StreamMetrics) -> Self {
        let Self([_, p50, p95, p99, stale, _]) = Self::of(m);
        let used = m.capacity_mbps.map_or(0.0, |capacity| m.goodput_mbps / capacity * 100.0);
        Self([used, p50, p95, p99, stale, 0.0])
    }

    fn mean(runs: &[Self]) -> Self {
        let mut mean = [0.0; 6];
        for Self(run) in runs {
            mean.iter_mut().zip(run).for_each(|(mean, figure)| *mean += figure / runs.len() as f64);
        }
        Self(mean)
    }
}

/// Runs of a scenario, simulated and over real links, seed by seed.
#[derive(Debug, Default)]
struct Runs {
    simulated: Vec<Figures>,
    emulated: Vec<Figures>,
    /// How late datagrams left the emulator, in microseconds: the 99th percentile and the most.
    late_us: [u64; 2],
    /// The largest share of a run's frames that are not in the delays because the machine stood still.
    left_out: f64,
    /// How late the host's thread woke in the last run, in microseconds at p50 and p99, and how often per frame.
    woken_us: [u64; 2],
    wakes: f64,
    /// What the simulator was told of the programs.
    told: String,
}

impl Runs {
    fn add(
        &mut self,
        lab: &Lab,
        programs: Option<&Programs>,
        scenario: &Scenario,
        seeds: u64,
    ) -> anyhow::Result<()> {
        for seed in (self.simulated.len() as u64 + 1..).take(seeds as usize) {
            let (outcome, told) = match programs {
                Some(programs) => programs::run(lab, programs, scenario, seed)?,
                None => (lab.run(scenario, seed)?, scenario.clone()),
            };
            let Outcome { metrics, lateness, unsent, left_out, host } = outcome;
            self.left_out = self.left_out.max(left_out);
            ensure!(unsent == 0, "the emulator could not send {unsent} datagrams");
            ensure!(metrics.frames > 0, "nothing was streamed");
            let figures = if programs.is_some() { Figures::of_arrived } else { Figures::of };
            self.simulated.push(figures(&rift_sim::run(&told, seed).stream));
            self.emulated.push(figures(&metrics));
            let [p99, most] = &mut self.late_us;
            *p99 = (*p99).max(lateness.quantile_us(0.99));
            *most = (*most).max(lateness.most_us());
            if let Some((woken, wakes)) = host {
                self.woken_us = [0.5, 0.99].map(|p| woken.quantile_us(p));
                self.wakes = wakes;
            }
            if programs.is_some() {
                self.told = format!("; frame sizes scatter by {:.1} %", told.source.noise * 100.0);
            }
        }
        Ok(())
    }

    /// Each figure with its floor, simulated and emulated.
    fn pairs(&self) -> impl Iterator<Item = (&'static str, f64, f64, bool)> {
        let (simulated, emulated) = (Figures::mean(&self.simulated).0, Figures::mean(&self.emulated).0);
        FIGURES.iter().zip(simulated).zip(emulated).map(|((&(what, floor), simulated), emulated)| {
            (what, simulated, emulated, agree(simulated, emulated, floor))
        })
    }

    fn apart(&self) -> usize {
        self.pairs().filter(|pair| !pair.3).count()
    }

    fn print(&self, name: &str) {
        for (what, simulated, emulated, agrees) in self.pairs() {
            let differs = if simulated > 0.0 { (emulated / simulated - 1.0) * 100.0 } else { 0.0 };
            let verdict = if agrees { "" } else { "  APART" };
            println!("{name:<10} {what:<14} {simulated:>10.2} {emulated:>10.2} {differs:>7.1} %{verdict}");
        }
        println!(
            "{:<10} {} runs each; datagrams left the emulator late by {} us at p99, {} us at most; {:.1} % of frames left out \
             where the machine stood still{}",
            "",
            self.simulated.len(),
            self.late_us[0],
            self.late_us[1],
            self.left_out * 100.0,
            self.told
        );
        if self.wakes > 0.0 {
            println!(
                "{:<10} the host woke {:.1} times per frame for what was due, late by {} us at p50, {} us at p99",
                "", self.wakes, self.woken_us[0], self.woken_us[1]
            );
        }
    }
}

fn agree(simulated: f64, emulated: f64, floor: f64) -> bool {
    let differ = (emulated - simulated).abs();
    // Two infinities are the same.
    emulated == simulated || differ <= floor.max(AGREEMENT * simulated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_percent_or_the_floor() {
        assert!(agree(30.0, 32.9, 0.5) && !agree(30.0, 33.1, 0.5) && !agree(30.0, 26.9, 0.5));
        assert!(agree(0.0, 0.2, 0.3) && !agree(0.0, 0.4, 0.3));
        assert!(agree(f64::INFINITY, f64::INFINITY, 0.5) && !agree(30.0, f64::INFINITY, 0.5));
    }

    #[test]
    fn what_is_compared_by_itself_can_be_emulated() {
        let arguments = Arguments { scenarios: vec![], file: None, seconds: 20, seeds: 1, programs: None };
        assert_eq!(scenarios(&arguments).unwrap().len(), CHOICE.len());
        let cubic = Arguments { scenarios: vec!["cubic100".into()], ..arguments };
        assert!(scenarios(&cubic).unwrap_err().to_string().contains("cannot be emulated"));
    }
}

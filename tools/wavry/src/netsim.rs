//! `wavry netsim`: runs the protocol in a simulated network and says whether it held what it must.
//!
//! A thin shell around [`rift_sim`]: it chooses the scenario, prints reports, draws. The same scenario and
//! seed give the same run on every machine.

mod plot;
mod pool;
mod table;
mod traces;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rift_sim::scenario::Controller;
use rift_sim::scenario::suite::SUITE;
use rift_sim::{PRESETS, Preset, Scenario, run as simulate};

/// A scenario, by name, file or text.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Choice {
    /// A scenario that comes with Wavry; `wavry netsim` without any argument lists them.
    #[arg(conflicts_with_all = ["file", "text"])]
    preset: Option<String>,
    /// A file with a scenario.
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// A scenario, its statements separated by semicolons.
    #[arg(long, value_name = "SCENARIO")]
    text: Option<String>,
}

/// Arguments of `wavry netsim`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    choice: Choice,
    /// Decides everything that is random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds to run, from --seed on.
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    seeds: u64,
    /// Print the scenario in full and do not run it.
    #[arg(long)]
    show: bool,
    /// Who decides on the rate: default, delta-v1, fixed or oracle; else the scenario says.
    #[arg(long, value_name = "NAME", value_parser = controller)]
    controller: Option<Controller>,
    /// Run all scenarios that controllers are judged by (or those whose name contains the argument) with every
    /// controller, and write the table into this directory.
    #[arg(long, value_name = "DIRECTORY", conflicts_with_all = ["file", "text", "show", "plot"])]
    table: Option<PathBuf>,
    /// Draw the last run over time into this file (SVG): delay and stale times, rates, losses, and the reason of
    /// each decision.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// Runs `wavry netsim`.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let seeds = arguments.seed..arguments.seed.saturating_add(arguments.seeds.max(1));
    if let Some(directory) = &arguments.table {
        let controllers = arguments.controller.map_or(TABLE.to_vec(), |one| vec![one]);
        return table::run(directory, seeds, &controllers, arguments.choice.preset.as_deref());
    }
    let Some(mut scenario) = arguments.choice.parse()? else {
        list();
        return Ok(());
    };
    if let Some(controller) = arguments.controller {
        scenario.controller = controller;
    }
    if arguments.show {
        say!("{}", scenario.to_string().replace("; ", "\n"));
        return Ok(());
    }
    traces::load(&mut scenario)?;
    let (seeds, began) = (seeds.collect::<Vec<_>>(), Instant::now());
    let (mut failed, mut simulated_us) = (0, 0);
    let work = |&seed: &u64| {
        let began = Instant::now();
        (simulate(&scenario, seed), began.elapsed())
    };
    pool::run(&seeds, work, |seed, (report, took)| {
        say!("{}", report.to_string().trim_end());
        say!("  speed        {:.0} x real time", speed(report.simulated_us, took));
        simulated_us += report.simulated_us;
        failed += u64::from(!report.passed());
        match arguments.plot.as_deref() {
            Some(path) if seeds.last() == Some(seed) => plot::draw(&report, path),
            _ => Ok(()),
        }
    })?;
    if seeds.len() > 1 {
        let cores = pool::cores(seeds.len());
        say!(
            "{} runs on {cores} cores: {:.0} x real time",
            seeds.len(),
            speed(simulated_us, began.elapsed())
        );
    }
    if failed > 0 {
        bail!("{failed} of {} runs broke a rule", arguments.seeds.max(1));
    }
    Ok(())
}

/// Simulated time by the time that it took.
fn speed(simulated_us: u64, took: Duration) -> f64 {
    simulated_us as f64 / 1e6 / took.as_secs_f64().max(1e-6)
}

impl Choice {
    /// The scenario with its traces, if one was chosen.
    ///
    /// # Errors
    /// When it is not there or not one.
    pub(crate) fn load(&self) -> anyhow::Result<Option<Scenario>> {
        let mut scenario = self.parse()?;
        if let Some(scenario) = &mut scenario {
            traces::load(scenario)?;
        }
        Ok(scenario)
    }

    fn parse(&self) -> anyhow::Result<Option<Scenario>> {
        if let Some(name) = &self.preset {
            let preset = Preset::find(name).with_context(|| {
                format!("there is no scenario called `{name}`; `wavry netsim` lists them")
            })?;
            return Ok(Some(preset.scenario()));
        }
        let text = match (&self.file, &self.text) {
            (Some(path), _) => std::fs::read_to_string(path)
                .with_context(|| format!("the scenario {} was not read", path.display()))?,
            (None, Some(text)) => text.clone(),
            (None, None) => return Ok(None),
        };
        text.parse().map(Some).context("this is not a scenario")
    }
}

/// Controllers of the table.
const TABLE: [Controller; 4] =
    [Controller::Default, Controller::DeltaV1, Controller::Fixed, Controller::Oracle];

fn controller(name: &str) -> Result<Controller, String> {
    Controller::find(name).ok_or_else(|| {
        let names = Controller::ALL.map(Controller::name).join(", ");
        format!("there are {names}")
    })
}

fn list() {
    say!("Scenarios; run one with `wavry netsim NAME`, see what it says with --show:");
    for preset in PRESETS {
        say!("  {:<13} {}", preset.name, preset.about);
    }
    say!("Those that controllers are judged by, also with --table DIRECTORY:");
    for row in SUITE {
        say!("  {:<13} {}", row.preset.name, row.preset.about);
    }
    say!("Measured capacities are read from the directory in {}.", traces::VARIABLE);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Arguments {
        Arguments {
            choice: Choice { text: Some(text.into()), ..Choice::default() },
            seed: 1,
            seeds: 2,
            show: false,
            controller: None,
            table: None,
            plot: None,
        }
    }

    #[test]
    fn a_run_that_breaks_a_rule_fails_and_one_that_does_not_draws() {
        let path = std::env::temp_dir().join(format!("wavry-netsim-{}.svg", std::process::id()));
        let sound = "duration 3s; limit freeze 50ms";
        run(&Arguments { plot: Some(path.clone()), ..arguments(sound) }).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(
            svg.contains("capture to complete")
                && svg.contains("polyline")
                && svg.contains("why the rate is what it is"),
            "{svg}"
        );
        let error = run(&arguments("duration 3s; limit freeze 1ms")).unwrap_err();
        assert!(error.to_string().contains("2 of 2"), "{error}");
    }

    #[test]
    fn what_cannot_be_run_is_told() {
        let error = run(&arguments("speed 5")).unwrap_err();
        assert!(format!("{error:#}").contains("speed"), "{error:#}");
        let error = run(&Arguments {
            choice: Choice { preset: Some("moon".into()), ..Choice::default() },
            ..arguments("")
        })
        .unwrap_err();
        assert!(error.to_string().contains("moon"), "{error}");
    }
}

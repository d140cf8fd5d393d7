//! `wavry netsim`: runs the protocol in a simulated network and says whether it held what it must.
//!
//! A thin shell around [`rift_sim`]: it chooses the scenario, prints reports, draws. The same scenario and
//! seed give the same run on every machine.

mod table;
mod traces;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use plotters::prelude::*;
use rift_sim::scenario::Controller;
use rift_sim::scenario::suite::SUITE;
use rift_sim::{PRESETS, Preset, Report, Scenario, run as simulate};

/// Arguments of `wavry netsim`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A scenario that comes with Wavry; without any argument they are listed.
    #[arg(conflicts_with_all = ["file", "text"])]
    preset: Option<String>,
    /// A file with a scenario.
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// A scenario, its statements separated by semicolons.
    #[arg(long, value_name = "SCENARIO")]
    text: Option<String>,
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
    /// Draw the last run over time into this file (SVG).
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// Runs `wavry netsim`.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let seeds = arguments.seed..arguments.seed.saturating_add(arguments.seeds.max(1));
    if let Some(directory) = &arguments.table {
        let controllers = arguments.controller.map_or(TABLE.to_vec(), |one| vec![one]);
        return table::run(directory, seeds, &controllers, arguments.preset.as_deref());
    }
    let Some(mut scenario) = scenario(arguments)? else {
        list();
        return Ok(());
    };
    if let Some(controller) = arguments.controller {
        scenario.controller = controller;
    }
    if arguments.show {
        println!("{}", scenario.to_string().replace("; ", "\n"));
        return Ok(());
    }
    traces::load(&mut scenario)?;
    let mut failed = 0;
    for seed in seeds {
        let report = simulate(&scenario, seed);
        print!("{report}");
        failed += u64::from(!report.passed());
        if let Some(path) = arguments.plot.as_deref().filter(|_| seed + 1 >= arguments.seed + arguments.seeds)
        {
            plot(&report, path)?;
        }
    }
    if failed > 0 {
        bail!("{failed} of {} runs broke a rule", arguments.seeds.max(1));
    }
    Ok(())
}

fn scenario(arguments: &Arguments) -> anyhow::Result<Option<Scenario>> {
    if let Some(name) = &arguments.preset {
        let preset = Preset::find(name)
            .with_context(|| format!("there is no scenario called `{name}`; `wavry netsim` lists them"))?;
        return Ok(Some(preset.scenario()));
    }
    let text = match (&arguments.file, &arguments.text) {
        (Some(path), _) => std::fs::read_to_string(path)
            .with_context(|| format!("the scenario {} was not read", path.display()))?,
        (None, Some(text)) => text.clone(),
        (None, None) => return Ok(None),
    };
    text.parse().map(Some).context("this is not a scenario")
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
    println!("Scenarios; run one with `wavry netsim NAME`, see what it says with --show:");
    for preset in PRESETS {
        println!("  {:<11} {}", preset.name, preset.about);
    }
    println!("Those that controllers are judged by, also with --table DIRECTORY:");
    for row in SUITE {
        println!("  {:<11} {}", row.preset.name, row.preset.about);
    }
    println!("Measured capacities are read from the directory in {}.", traces::VARIABLE);
}

/// Draws latency and rate over time.
fn plot(report: &Report, path: &Path) -> anyhow::Result<()> {
    let failed =
        |e: &dyn std::fmt::Display| anyhow::anyhow!("the plot {} was not written: {e}", path.display());
    let seconds = |us: u64| us as f64 / 1e6;
    let end = seconds(report.simulated_us).max(0.1);
    let mut before = 0;
    let rates: Vec<(f64, f64)> = report
        .samples
        .iter()
        .map(|s| {
            let span_us = s.at_us.saturating_sub(before).max(1);
            before = s.at_us;
            (seconds(s.at_us), s.down_bytes as f64 * 8.0 / span_us as f64)
        })
        .collect();
    let mut before = 0;
    let mut offered: Vec<(f64, f64)> = Vec::new();
    for sample in &report.samples {
        let span_us = sample.at_us.saturating_sub(before).max(1);
        before = sample.at_us;
        if report.stream.capacity_mbps.is_some() {
            offered.push((seconds(sample.at_us), sample.offered_bytes as f64 * 8.0 / span_us as f64));
        }
    }
    let latency = || report.samples.iter().map(|s| (seconds(s.at_us), f64::from(s.latency_us) / 1e3));
    let queue = || report.samples.iter().map(|s| (seconds(s.at_us), s.queue_us as f64 / 1e3));
    let target = || report.samples.iter().map(|s| (seconds(s.at_us), f64::from(s.target_kbps) / 1e3));
    let top = |values: &mut dyn Iterator<Item = f64>| values.fold(1.0, f64::max) * 1.1;

    let root = SVGBackend::new(path, (1100, 700)).into_drawing_area();
    root.fill(&WHITE).map_err(|e| failed(&e))?;
    let (upper, lower) = root.split_vertically(370);
    let panels: [(_, _, _, Vec<Line>); 2] = [
        (
            upper,
            format!("{}, seed {}: longest time from capture to screen", report.name, report.seed),
            "milliseconds",
            vec![("latency", BLUE, latency().collect()), ("queue on the path", RED, queue().collect())],
        ),
        (
            lower,
            "Rate from host to client".to_owned(),
            "Mbit/s",
            vec![
                ("capacity", RGBColor(170, 170, 170), offered),
                ("sent", BLUE, rates),
                ("encoder's target", GREEN, target().collect()),
            ],
        ),
    ];
    for (area, caption, unit, lines) in panels {
        let height = top(&mut lines.iter().flat_map(|(_, _, points)| points.iter().map(|p| p.1)));
        let mut chart = ChartBuilder::on(&area)
            .caption(caption, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(34)
            .y_label_area_size(54)
            .build_cartesian_2d(0.0..end, 0.0..height)
            .map_err(|e| failed(&e))?;
        chart
            .configure_mesh()
            .x_desc("seconds")
            .y_desc(unit)
            .light_line_style(WHITE)
            .draw()
            .map_err(|e| failed(&e))?;
        for (name, colour, points) in lines {
            chart
                .draw_series(LineSeries::new(points, &colour))
                .map_err(|e| failed(&e))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .draw()
            .map_err(|e| failed(&e))?;
    }
    root.present().map_err(|e| failed(&e))
}

/// A curve: name, colour, points.
type Line = (&'static str, RGBColor, Vec<(f64, f64)>);

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Arguments {
        Arguments {
            preset: None,
            file: None,
            text: Some(text.into()),
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
        assert!(svg.contains("latency") && svg.contains("polyline"), "{svg}");
        let error = run(&arguments("duration 3s; limit freeze 1ms")).unwrap_err();
        assert!(error.to_string().contains("2 of 2"), "{error}");
    }

    #[test]
    fn what_cannot_be_run_is_told() {
        let error = run(&arguments("speed 5")).unwrap_err();
        assert!(format!("{error:#}").contains("speed"), "{error:#}");
        let error = run(&Arguments { preset: Some("moon".into()), ..arguments("") }).unwrap_err();
        assert!(error.to_string().contains("moon"), "{error}");
    }
}

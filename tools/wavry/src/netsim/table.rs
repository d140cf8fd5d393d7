//! `wavry netsim --table`: every scenario of the suite, with every controller, over several seeds.
//!
//! Owns the table and its two forms (Markdown and JSON). A figure is the mean over the seeds; a frame that never
//! came in one of them makes its percentile "lost".

use core::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use rift_sim::metrics::StreamMetrics;
use rift_sim::scenario::Controller;
use rift_sim::scenario::suite::{Figure, Row, SUITE};
use rift_sim::{Report, Scenario, run as simulate};
use serde_json::json;

use super::traces;

/// Figures of each line.
const FIGURES: [Figure; 9] = [
    Figure::Utilisation,
    Figure::DelayP99,
    Figure::Standing,
    Figure::Over50,
    Figure::Stale,
    Figure::AgeP99,
    Figure::Loss,
    Figure::Redundancy,
    Figure::Ramp,
];

/// A scenario with a controller, and what came out for each seed.
struct Line {
    row: &'static Row,
    controller: Controller,
    runs: Vec<StreamMetrics>,
    broken: u64,
    /// The first rule that was broken, with its seed.
    fault: Option<String>,
}

/// Runs everything and writes `controllers.md` and `controllers.json` into `directory`.
pub(super) fn run(
    directory: &Path,
    seeds: std::ops::Range<u64>,
    controllers: &[Controller],
    only: Option<&str>,
) -> anyhow::Result<()> {
    let mut work = Vec::new();
    let mut skipped = Vec::new();
    for row in SUITE.iter().filter(|row| only.is_none_or(|only| row.preset.name.contains(only))) {
        let mut scenario = row.preset.scenario();
        if let Err(reason) = traces::load(&mut scenario) {
            skipped.push(format!("{}: not run: {reason:#}", row.preset.name));
            eprintln!("{}", skipped[skipped.len() - 1]);
            continue;
        }
        for &controller in controllers {
            work.push((row, Scenario { controller, ..scenario.clone() }));
        }
    }
    let lines = simulate_all(&work, seeds.clone());
    std::fs::create_dir_all(directory)
        .with_context(|| format!("the directory {} was not made", directory.display()))?;
    for (name, text) in [
        ("controllers.md", markdown(&lines, &skipped, &seeds)),
        ("controllers.json", serde_json::to_string_pretty(&json_of(&lines))? + "\n"),
    ] {
        let path = directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("{} was not written", path.display()))?;
        say!("{}", path.display());
    }
    let broken: u64 = lines.iter().map(|line| line.broken).sum();
    anyhow::ensure!(broken == 0, "{broken} runs broke a rule; run the scenario alone to see which");
    Ok(())
}

/// Runs all of `work` on all cores, longest scenarios first come first served.
fn simulate_all(work: &[(&'static Row, Scenario)], seeds: std::ops::Range<u64>) -> Vec<Line> {
    let jobs: Vec<(usize, u64)> =
        (0..work.len()).flat_map(|at| seeds.clone().map(move |seed| (at, seed))).collect();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(jobs.len()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(jobs.len()) {
            scope.spawn(|| {
                while let Some(&(at, seed)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report: Report = simulate(&work[at].1, seed);
                    let Ok(mut done) = done.lock() else { return };
                    let fault = report.violations.kept().first().map(|fault| format!("seed {seed}, {fault}"));
                    done.push((at, seed, fault, report.stream));
                    eprint!("\r{} of {} runs", done.len(), jobs.len());
                }
            });
        }
    });
    eprintln!();
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|&(at, seed, ..)| (at, seed));
    let mut lines: Vec<Line> = work
        .iter()
        .map(|(row, scenario)| Line {
            row,
            controller: scenario.controller,
            runs: Vec::new(),
            broken: 0,
            fault: None,
        })
        .collect();
    for (at, _, fault, stream) in done {
        lines[at].broken += u64::from(fault.is_some());
        if let Some(fault) = fault {
            lines[at].fault.get_or_insert(fault);
        }
        lines[at].runs.push(stream);
    }
    lines
}

impl Line {
    fn mean(&self, figure: Figure) -> f64 {
        self.runs.iter().map(|run| figure.value(run)).sum::<f64>() / self.runs.len().max(1) as f64
    }

    /// The median of delay over seeds, in ms.
    fn p50(&self) -> f64 {
        let ms = |run: &StreamMetrics| match run.delay_us[0] {
            rift_sim::metrics::NEVER_US => f64::INFINITY,
            us => f64::from(us) / 1e3,
        };
        self.runs.iter().map(ms).sum::<f64>() / self.runs.len().max(1) as f64
    }

    fn goals(&self) -> String {
        let goals = self.row.goals.iter().map(|goal| {
            let value = self.mean(goal.figure);
            let (sign, verdict) =
                (if goal.at_least { ">=" } else { "<=" }, if goal.is_met(value) { "met" } else { "missed" });
            format!("{} {} {sign} {}: {verdict}", goal.figure.name(), number(value), goal.bound)
        });
        goals.collect::<Vec<_>>().join("; ")
    }
}

fn number(value: f64) -> String {
    match value {
        v if v.is_infinite() => "lost".to_owned(),
        v if v.is_nan() => "none".to_owned(),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

fn markdown(lines: &[Line], skipped: &[String], seeds: &std::ops::Range<u64>) -> String {
    let mut text = format!(
        "# Controllers in simulated networks\n\nWritten by `wavry netsim --table`, {} seeds; means. \
         `wavry netsim NAME --show` prints a scenario, `--controller` chooses who decides.\n\n",
        seeds.end - seeds.start
    );
    let names: Vec<_> = FIGURES.iter().map(|figure| figure.name()).collect();
    let _ = writeln!(text, "| scenario | controller | p50 ms | {} | goals |", names.join(" | "));
    let _ = writeln!(text, "|---|---|{}---|", "---|".repeat(FIGURES.len() + 1));
    for line in lines {
        let figures: Vec<_> = FIGURES.iter().map(|&figure| number(line.mean(figure))).collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            line.row.preset.name,
            line.controller,
            number(line.p50()),
            figures.join(" | "),
            line.goals()
        );
    }
    for line in lines {
        if let Some(fault) = &line.fault {
            let (name, controller, runs) = (line.row.preset.name, line.controller, line.runs.len());
            let _ = write!(
                text,
                "\n{name} with {controller}: {} of {runs} runs broke a rule, first: {fault}\n",
                line.broken
            );
        }
    }
    for reason in skipped {
        let _ = write!(text, "\n{reason}\n");
    }
    text
}

fn json_of(lines: &[Line]) -> serde_json::Value {
    let finite = |value: f64| if value.is_finite() { json!(value) } else { json!("lost") };
    let line = |line: &Line| {
        let mut figures: serde_json::Map<_, _> =
            FIGURES.iter().map(|&figure| (figure.name().to_owned(), finite(line.mean(figure)))).collect();
        figures.insert("p50 ms".into(), finite(line.p50()));
        let goals: Vec<_> = line
            .row
            .goals
            .iter()
            .map(|goal| {
                let value = line.mean(goal.figure);
                json!({ "figure": goal.figure.name(), "bound": goal.bound, "value": finite(value),
                        "met": goal.is_met(value) })
            })
            .collect();
        json!({ "scenario": line.row.preset.name, "controller": line.controller.name(),
                "seeds": line.runs.len(), "figures": figures, "goals": goals })
    };
    lines.iter().map(line).collect()
}

//! `wavry netsim --table`: every scenario of the suite, with every controller, over several seeds.
//!
//! Owns the table and its two forms (Markdown and JSON). A figure is the mean over the seeds; a frame that never
//! came in one of them makes its percentile "lost". A goal that even the oracle misses is "bound by the path" where
//! a controller is within 5 % of the oracle or better; one that he meets at the cost of another of the same row is to be
//! within 5 %. Only the default controller is what a user gets: only its faults
//! are failures of the run.

use core::fmt::Write as _;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use rift_sim::metrics::StreamMetrics;
use rift_sim::scenario::Controller;
use rift_sim::scenario::suite::{Figure, Goal, Row, SUITE};
use rift_sim::{Report, Scenario, run as simulate};
use serde_json::json;

use super::{pool, traces};

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

/// How a goal was done.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Met,
    Missed,
    /// Even the oracle misses it, who has this.
    Bound(f64),
    /// Missed by no more than 5 %, where the oracle meets it at the cost of another goal of the row.
    Near,
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
    let judged = lines.iter().filter(|line| line.controller == Controller::Default);
    let broken: u64 = judged.map(|line| line.broken).sum();
    anyhow::ensure!(
        broken == 0,
        "{broken} runs of the default controller broke a rule (others are not judged); the end of the table says which"
    );
    Ok(())
}

/// Runs all of `work` on all cores, longest scenarios first come first served.
fn simulate_all(work: &[(&'static Row, Scenario)], seeds: std::ops::Range<u64>) -> Vec<Line> {
    let jobs: Vec<(usize, u64)> =
        (0..work.len()).flat_map(|at| seeds.clone().map(move |seed| (at, seed))).collect();
    let mut done = Vec::with_capacity(jobs.len());
    let mut simulated_us = 0;
    let (began, is_watched) = (Instant::now(), std::io::stderr().is_terminal());
    let work_on = |&(at, seed): &(usize, u64)| {
        let report: Report = simulate(&work[at].1, seed);
        let fault = report.violations.kept().first().map(|fault| format!("seed {seed}, {fault}"));
        (report.simulated_us, fault, report.stream)
    };
    let Ok(()) = pool::run(&jobs, work_on, |&(at, seed), (took_us, fault, metrics)| {
        simulated_us += took_us;
        done.push((at, seed, fault, metrics));
        let percent = done.len() * 100 / jobs.len();
        if is_watched {
            eprint!("\r{} of {} runs", done.len(), jobs.len());
        } else if percent / 10 > (done.len() - 1) * 10 / jobs.len() {
            eprintln!("{percent} % of {} runs", jobs.len());
        }
        Ok::<(), std::convert::Infallible>(())
    });
    if is_watched {
        eprintln!();
    }
    let cores = pool::cores(jobs.len());
    let (simulated, took) = (simulated_us as f64 / 1e6, began.elapsed().as_secs_f64().max(1e-6));
    say!(
        "{} runs of {simulated:.0} simulated seconds took {took:.0} s: {:.0} per second on {cores} cores",
        jobs.len(),
        simulated / took
    );
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

    /// `oracle`: what the one who knows the path made of the same row.
    fn goals(&self, oracle: Option<&Self>) -> String {
        let goals = self.row.goals.iter().map(|goal| {
            let value = self.mean(goal.figure);
            let sign = if goal.at_least { ">=" } else { "<=" };
            let verdict = match self.verdict(goal, oracle) {
                Verdict::Met => "met".to_owned(),
                Verdict::Missed => "missed".to_owned(),
                Verdict::Bound(best) => format!("bound by the path, the oracle has {}", number(best)),
                Verdict::Near => "within 5 %, the oracle cannot have both".to_owned(),
            };
            format!("{} {} {sign} {}: {verdict}", goal.figure.name(), number(value), goal.bound)
        });
        goals.collect::<Vec<_>>().join("; ")
    }

    fn verdict(&self, goal: &Goal, oracle: Option<&Self>) -> Verdict {
        let value = self.mean(goal.figure);
        if goal.is_met(value) {
            return Verdict::Met;
        }
        // He has no parity: where packets are lost at random he bounds nothing.
        let is_judge = self.controller != Controller::Oracle
            && self.row.preset.scenario().down.loss == rift_sim::loss::Loss::None;
        let best = oracle.filter(|_| is_judge).map(|line| line.mean(goal.figure));
        if let Some(best) = best.filter(|&best| !goal.is_met(best) && is_near(value, best, goal.at_least)) {
            return Verdict::Bound(best);
        }
        let misses = |line: &Self| self.row.goals.iter().any(|goal| !goal.is_met(line.mean(goal.figure)));
        let cannot_have_both = oracle.filter(|_| is_judge).is_some_and(misses);
        if cannot_have_both && is_near(value, goal.bound, goal.at_least) {
            return Verdict::Near;
        }
        Verdict::Missed
    }
}

/// Whether `value` is within 5 % of `best` or better.
fn is_near(value: f64, best: f64, at_least: bool) -> bool {
    best.is_finite() && if at_least { value >= 0.95 * best } else { value <= 1.05 * best }
}

/// The oracle's line of the same row.
fn oracle_of<'a>(lines: &'a [Line], line: &Line) -> Option<&'a Line> {
    lines
        .iter()
        .find(|other| other.controller == Controller::Oracle && other.row.preset.name == line.row.preset.name)
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
         `wavry netsim NAME --show` prints a scenario, `--controller` chooses who decides. \"Bound by the path\": even \
         the oracle, who knows the capacity and the others on the path, misses the goal, and the controller is \
         within 5 % of him or better. \"Within 5 %\" of the goal: the oracle meets that one, but not another of the same \
         row, so that both at once are more than the path bears.\n\n",
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
            line.goals(oracle_of(lines, line))
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
                let verdict = match line.verdict(goal, oracle_of(lines, line)) {
                    Verdict::Met => "met",
                    Verdict::Missed => "missed",
                    Verdict::Bound(_) => "bound",
                    Verdict::Near => "near",
                };
                json!({ "figure": goal.figure.name(), "bound": goal.bound, "value": finite(value),
                        "verdict": verdict })
            })
            .collect();
        json!({ "scenario": line.row.preset.name, "controller": line.controller.name(),
                "seeds": line.runs.len(), "figures": figures, "goals": goals })
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of `steps` whose share of stale time is `stale`.
    fn line(controller: Controller, stale: f64) -> Line {
        let row = Row::find("steps").unwrap();
        let run = StreamMetrics { stale, ..StreamMetrics::default() };
        Line { row, controller, runs: vec![run], broken: 0, fault: None }
    }

    #[test]
    fn what_the_oracle_misses_too_is_the_path() {
        let goal =
            Row::find("steps").unwrap().goals.iter().find(|goal| goal.figure == Figure::Stale).unwrap();
        assert!((goal.bound - 0.4).abs() < 1e-9);
        let verdict = |own: f64, oracle: f64| {
            line(Controller::Default, own / 100.0)
                .verdict(goal, Some(&line(Controller::Oracle, oracle / 100.0)))
        };
        assert_eq!(verdict(0.4, 0.5), Verdict::Met);
        assert!(matches!(verdict(0.5, 0.6), Verdict::Bound(best) if (best - 0.6).abs() < 1e-9));
        assert!(matches!(verdict(0.62, 0.6), Verdict::Bound(_)), "within 5 %");
        assert_eq!(verdict(0.65, 0.6), Verdict::Missed);
        assert_eq!(verdict(0.41, 0.39), Verdict::Missed, "within 5 % of one who meets it");
        assert_eq!(line(Controller::Oracle, 0.01).verdict(goal, None), Verdict::Missed);
        let (own, oracle) = (line(Controller::Default, 0.005), line(Controller::Oracle, 0.006));
        let lines = [own, oracle];
        assert!(
            lines[0].goals(oracle_of(&lines, &lines[0])).contains("bound by the path, the oracle has 0.60")
        );
    }
    /// Who meets one goal at the cost of another shows that one cannot have both; who meets all shows that one can.
    #[test]
    fn where_one_cannot_have_both_each_is_to_be_near() {
        let row = Row::find("web").unwrap();
        let goal = row.goals.iter().find(|goal| goal.figure == Figure::Utilisation).unwrap();
        assert!((goal.bound - 60.0).abs() < 1e-9);
        let line = |controller, utilisation, stale| {
            let run = StreamMetrics { utilisation: Some(utilisation), stale, ..StreamMetrics::default() };
            Line { row, controller, runs: vec![run], broken: 0, fault: None }
        };
        let verdict = |own: f64, oracle_stale: f64| {
            line(Controller::Default, own, 0.03)
                .verdict(goal, Some(&line(Controller::Oracle, 0.74, oracle_stale)))
        };
        assert_eq!(verdict(0.601, 0.19), Verdict::Met);
        assert_eq!(verdict(0.571, 0.19), Verdict::Near);
        assert_eq!(verdict(0.569, 0.19), Verdict::Missed, "more than 5 % short");
        assert_eq!(verdict(0.571, 0.03), Verdict::Missed, "the oracle has both");
    }
}

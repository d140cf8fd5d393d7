//! The table: what was measured, the goal, and whether it is met.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::estimate::Estimate;
use crate::machine::Machine;

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// No larger than this.
    AtMost(f64),
    /// No smaller than this.
    AtLeast(f64),
}

/// How a figure stands to its goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As good as it should be.
    Met,
    /// Missed by no more than the noise of the figure.
    WithinNoise,
    /// Missed, but so does what does nothing but the unavoidable, in the same run.
    BoundByTheMachine,
    /// Missed.
    Missed,
}

/// What a figure may exceed its floor by and still count as bound by the machine.
const FLOOR_SLACK: f64 = 1.25;

impl Verdict {
    /// Of an estimate.
    #[must_use]
    pub fn of(goal: Goal, figure: Estimate) -> Self {
        let excess = match goal {
            Goal::AtMost(most) => figure.value - most,
            Goal::AtLeast(least) => least - figure.value,
        };
        if excess <= 0.0 {
            Self::Met
        } else if excess <= figure.noise {
            Self::WithinNoise
        } else {
            Self::Missed
        }
    }

    /// The same for a figure that should be small, beside its floor.
    fn beside(self, figure: Estimate, floor: Estimate) -> Self {
        let is_at_floor = figure.value <= floor.value * FLOOR_SLACK;
        if self == Self::Missed && is_at_floor { Self::BoundByTheMachine } else { self }
    }
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// The median.
    pub value: f64,
    /// Half the distance between the quartiles.
    pub noise: f64,
    /// Unit of value and noise; `x` for ratios.
    pub unit: &'static str,
    /// What it should be; `None` for figures that explain others.
    pub goal: Option<Goal>,
    /// How it stands to the goal.
    pub verdict: Option<Verdict>,
}

/// All that a run found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// What.
    pub rows: Vec<Row>,
}

impl Report {
    /// Without rows.
    #[must_use]
    pub fn new(machine: Machine) -> Self {
        Self { machine, rows: Vec::new() }
    }

    /// A figure that explains others.
    pub fn note(&mut self, what: impl Into<String>, figure: Estimate, unit: &'static str) {
        self.push(what.into(), figure, unit, None);
    }

    /// A figure with a goal.
    pub fn judge(&mut self, what: impl Into<String>, figure: Estimate, unit: &'static str, goal: Goal) {
        self.push(what.into(), figure, unit, Some(goal));
    }

    /// A figure with a goal that may be out of reach on this machine: `floor` is the same figure of what does only what
    /// nobody can do without, of the same run.
    pub fn judge_beside(
        &mut self,
        what: impl Into<String>,
        figure: Estimate,
        unit: &'static str,
        most: f64,
        floor: Estimate,
    ) {
        self.judge(what, figure, unit, Goal::AtMost(most));
        if let Some(row) = self.rows.last_mut() {
            row.verdict = row.verdict.map(|verdict| verdict.beside(figure, floor));
        }
    }

    /// How many goals are missed by more than noise.
    #[must_use]
    pub fn missed(&self) -> usize {
        self.rows.iter().filter(|row| row.verdict == Some(Verdict::Missed)).count()
    }

    /// Prints the table.
    pub fn print(&self) {
        println!("{}", self.machine);
        let width = self.rows.iter().map(|row| row.what.len()).max().unwrap_or(0);
        println!("\n{:width$}  {:>10} {:>9} {:8} {:>9}", "", "median", "noise", "", "goal");
        for row in &self.rows {
            let (value, noise) = (decimals(row.value, row.value), decimals(row.noise, row.value));
            print!("{:width$}  {value:>10} {noise:>9} {:8}", row.what, row.unit);
            if let (Some(goal), Some(verdict)) = (row.goal, row.verdict) {
                let goal = match goal {
                    Goal::AtMost(most) => format!("<= {most}"),
                    Goal::AtLeast(least) => format!(">= {least}"),
                };
                let verdict = match verdict {
                    Verdict::Met => "met",
                    Verdict::WithinNoise => "missed within noise",
                    Verdict::BoundByTheMachine => "bound by the machine",
                    Verdict::Missed => "MISSED",
                };
                print!(" {goal:>9}  {verdict}");
            }
            println!();
        }
    }

    /// Writes everything as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_json(&self, file: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
    }

    fn push(&mut self, what: String, figure: Estimate, unit: &'static str, goal: Option<Goal>) {
        let verdict = goal.map(|goal| Verdict::of(goal, figure));
        self.rows.push(Row { what, value: figure.value, noise: figure.noise, unit, goal, verdict });
    }
}

/// As many decimals as a figure of the size of `scale` needs.
fn decimals(figure: f64, scale: f64) -> String {
    let places = if scale >= 100.0 { 0 } else { 2 };
    format!("{figure:.places$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_miss_counts_only_beyond_the_noise() {
        let figure = Estimate { value: 1.4, noise: 0.05 };
        assert_eq!(Verdict::of(Goal::AtMost(1.4), figure), Verdict::Met);
        assert_eq!(Verdict::of(Goal::AtMost(1.36), figure), Verdict::WithinNoise);
        assert_eq!(Verdict::of(Goal::AtMost(1.3), figure), Verdict::Missed);
        assert_eq!(Verdict::of(Goal::AtLeast(1.4), figure), Verdict::Met);
        assert_eq!(Verdict::of(Goal::AtLeast(1.44), figure), Verdict::WithinNoise);
        assert_eq!(Verdict::of(Goal::AtLeast(1.5), figure), Verdict::Missed);
    }

    #[test]
    fn a_miss_is_the_machines_only_near_its_floor() {
        let of = |value, floor, most| {
            let exact = |value| Estimate { value, noise: 0.0 };
            let mut report = Report::new(Machine::detect());
            report.judge_beside("a gain", exact(value), "us", most, exact(floor));
            report.rows[0].verdict
        };
        assert_eq!(of(120.0, 110.0, 100.0), Some(Verdict::BoundByTheMachine));
        assert_eq!(of(120.0, 90.0, 100.0), Some(Verdict::Missed));
        assert_eq!(of(90.0, 20.0, 100.0), Some(Verdict::Met));
        assert_eq!(of(120.0, -50.0, 100.0), Some(Verdict::Missed));
    }
}

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
    /// Missed.
    Missed,
}

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
}

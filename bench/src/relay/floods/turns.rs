//! Taking turns: who forwards, alone and beside each flood, a short slice at a time, over and over.
//!
//! A machine that is shared stands still now and then, more at one moment than at another. What is compared is therefore
//! taken within the same tenths of a second, and the slices of each turn are counted together.

use std::time::Duration;

use anyhow::ensure;
use wavry_xdp::load::{Flood, Flow, Load, Results, Settings};

use super::super::lab::Lab;
use super::attack::BogusSenders;

/// Long enough for a few hundred of the sessions' datagrams.
const SLICE: Duration = Duration::from_millis(60);

/// Who forwards, and what is sent through.
pub(super) struct Target {
    flows: Vec<Flow>,
    /// Where each flow's sequence goes on.
    sequences: Vec<u64>,
    settings: Settings,
    /// The sender's device that leads there.
    cable: &'static str,
}

/// What a turn came to.
pub(super) struct Took {
    pub(super) results: Results,
    /// Datagrams, the flood's among them, that the cable had no room for.
    pub(super) refused: u64,
}

/// One thing that is measured: through which target, and beside what.
pub(super) struct Turn<'a> {
    pub(super) target: usize,
    pub(super) beside: Beside<'a>,
}

/// What comes beside the sessions.
pub(super) enum Beside<'a> {
    Nothing,
    Flood(Flow, (Flood, u32, u32)),
    BogusLeases(&'a BogusSenders),
}

impl Target {
    pub(super) fn new(flows: Vec<Flow>, settings: Settings, cable: &'static str) -> Self {
        Self { sequences: vec![0; flows.len()], flows, settings, cable }
    }

    /// One slice.
    pub(super) fn take(&mut self, lab: &Lab, beside: &Beside<'_>) -> anyhow::Result<Took> {
        let before = lab.refused(self.cable)?;
        for (number, (flow, &sequence)) in (0..).zip(self.flows.iter().zip(&self.sequences)) {
            lab.load.set_flow(number, flow, sequence)?;
        }
        let flow = &self.flows[0];
        let measure = |flood| Ok(lab.measure(&Settings { flood, ..self.settings }, flow, SLICE, None)?.0);
        let results = match beside {
            Beside::Nothing => measure(None),
            Beside::Flood(flood, kind) => {
                lab.load.set_flood(flood)?;
                measure(Some(*kind))
            }
            Beside::BogusLeases(senders) => senders.beside(lab, || measure(None)),
        }?;
        self.keep_sequences(&lab.load)?;
        Ok(Took { results, refused: lab.refused(self.cable)? - before })
    }

    fn keep_sequences(&mut self, load: &Load) -> anyhow::Result<()> {
        for (number, sequence) in (0..).zip(&mut self.sequences) {
            *sequence = load.sequence(number)?;
        }
        Ok(())
    }
}

/// Takes every turn in `span` of slices; what each came to. `between` is called after each round of slices.
pub(super) fn take(
    lab: &Lab,
    targets: &mut [Target],
    turns: &[Turn<'_>],
    span: Duration,
    mut between: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Took>> {
    let mut all: Vec<Took> = Vec::new();
    for _ in 0..span.div_duration_f64(SLICE).ceil() as u32 {
        for (number, turn) in turns.iter().enumerate() {
            let took = targets[turn.target].take(lab, &turn.beside)?;
            let Results { sent, received, .. } = took.results;
            ensure!(received > 0, "nothing of {sent} datagrams arrived in turn {number}");
            match all.get_mut(number) {
                Some(sum) => {
                    sum.results.add(&took.results);
                    sum.refused += took.refused;
                }
                None => all.push(took),
            }
        }
        between()?;
    }
    Ok(all)
}

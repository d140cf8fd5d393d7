//! What of a run's seed decides what.
//!
//! Invariant: the same seed gives a simulated run and one over real links the same losses, jitter and pictures.

use fastrand::Rng;

/// Seeds of a run's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds {
    /// The link from host to client.
    pub down: u64,
    /// The link from client to host.
    pub up: u64,
    /// Of the first stream, its host.
    pub host: u64,
    /// Of the first stream, its pictures.
    pub source: u64,
}

impl Seeds {
    /// Those of a run with this seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut run = Rng::with_seed(seed);
        let [down, up] = Self::paths(&mut run);
        let [host, source] = Self::stream(&mut Rng::with_seed(run.u64(..)));
        Self { down, up, host, source }
    }

    /// The paths', drawn before all others of a run.
    pub(crate) fn paths(run: &mut Rng) -> [u64; 2] {
        [run.u64(..), run.u64(..)]
    }

    /// A host's and its source's, drawn before all others of a stream.
    pub(crate) fn stream(stream: &mut Rng) -> [u64; 2] {
        [stream.u64(..), stream.u64(..)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;
    use crate::{Scenario, run};
    use rift_core::Timestamp;

    /// Who drives a source by itself sees the pictures of the simulated run.
    #[test]
    fn a_seed_gives_the_pictures_of_its_run() {
        let scenario: Scenario = "duration 3s; video fixed scene 2.5 1s".parse().unwrap();
        let mut source = Source::new(scenario.source, Seeds::of(7).source);
        let report = run(&scenario, 7);
        assert!(report.log.frames.len() > 170);
        for frame in &report.log.frames {
            let truth = source.capture(Timestamp::from_micros(frame.captured_us)).unwrap();
            let bytes: usize = truth.slices[..truth.slice_count as usize].iter().sum();
            assert_eq!((truth.id, bytes as u64), (frame.id, frame.bytes));
        }
    }
}

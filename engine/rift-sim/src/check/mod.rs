//! Checkers: what must hold in every run, judged from outside the endpoints.
//!
//! They share no code with what they check: headers are parsed again here, frames are compared with what
//! the source made, input with what was typed. A checker never changes the run.

pub mod input;
pub mod player;
pub mod stale;
pub mod wire;

use core::fmt;
use std::collections::BTreeMap;

use rift_core::Timestamp;

/// Violations of each rule that are kept with their text; more are only counted.
const KEPT_MAX: u64 = 5;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Headers are well formed, datagrams within their size limits.
    Framing,
    /// Packet ids strictly increase per direction and session, so that no nonce is used twice.
    NonceOnce,
    /// Nothing of a picture leaves unsealed.
    Sealed,
    /// An address gets no more bytes than came from it before it is validated.
    Amplification,
    /// Slices come whole, in order, each once, byte for byte.
    SliceIntegrity,
    /// Frames are handed out only if what they reference was decoded.
    Decodable,
    /// Frames are shown in order, each once.
    ShownInOrder,
    /// No frame is shown later after its capture than the scenario allows.
    ShownInTime,
    /// No gap between shown frames is longer than the scenario allows.
    Freeze,
    /// No more keyframes than the scenario allows beyond each session's first.
    Keyframes,
    /// At least the scenario's share of frames is shown.
    FramesShown,
    /// Events are applied in order, each once.
    InputOrder,
    /// No key or button stays down after it was let go.
    KeyStuck,
    /// After a quiet time both ends agree on what is down and where the pointer is.
    InputState,
    /// No picture is stale for longer than the path explains: see [`stale`].
    AvoidableFreeze,
    /// Polling an endpoint comes to an end. A run that breaks this ends there.
    Endless,
    /// The session stands when the scenario says so.
    Connected,
    /// Every trace that the scenario names is there. A run that breaks this does not begin.
    Trace,
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Virtual time.
    pub at: Timestamp,
    /// The rule.
    pub rule: Rule,
    /// What happened.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.at.as_micros();
        write!(f, "{}.{:06} s {:?}: {}", us / 1_000_000, us % 1_000_000, self.rule, self.detail)
    }
}

/// The violations of a run.
#[derive(Clone, Debug, Default)]
pub struct Violations {
    kept: Vec<Violation>,
    counts: BTreeMap<Rule, u64>,
}

impl Violations {
    /// Adds one.
    pub fn add(&mut self, at: Timestamp, rule: Rule, detail: impl fmt::Display) {
        let count = self.counts.entry(rule).or_default();
        *count += 1;
        if *count <= KEPT_MAX {
            self.kept.push(Violation { at, rule, detail: detail.to_string() });
        }
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The first of each rule.
    #[must_use]
    pub fn kept(&self) -> &[Violation] {
        &self.kept
    }

    /// Whether `rule` was broken.
    #[must_use]
    pub fn broke(&self, rule: Rule) -> bool {
        self.counts.contains_key(&rule)
    }
}

//! Measurements of the engine, each beside its floor and its goal, taken in the same run.
//!
//! Owns how a figure is made: what is timed, how often, turn about with what, and what counts as noise.
//! Never part of the engine: nothing here runs in `wavry-server` or `wavry-client`. Invariant: a ratio is
//! made only of figures that were taken turn about, so that a busy machine slows both sides alike.

pub mod estimate;
pub mod fec;
pub mod machine;
pub mod packet;
pub mod report;
pub mod xdp;

//! Fuzz targets for everything that reads bytes from outside, and a driver that needs no nightly compiler.
//!
//! A target is a plain function of bytes that panics when something that must hold does not. The
//! driver ([`driver`]) changes inputs at random and keeps those that reach new code, told by the compiler's
//! coverage counters ([`coverage`]); `tools/fuzz/run TARGET` builds it with them. The test command replays
//! `tools/fuzz/corpus/TARGET/*` through each target without any of that.

pub mod coverage;
pub mod driver;
mod mutate;
pub mod target;

pub use target::{TARGETS, Target};

//! x264: the encoder that hands out each slice the moment it is done.
//!
//! Owns: the encoder built on it. Never: uses its rate control or lookahead (a buffer model alone doubles the
//! time to the first slice). Invariant: all `unsafe` is in `ffi`.
//!
//! x264 is under the GPL; so is a program built with this feature.

mod encoder;
mod ffi;
mod output;

pub(crate) use encoder::open_encoder;

/// Name in errors, logs and capabilities.
const BACKEND: &str = "x264";

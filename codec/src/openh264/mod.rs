//! OpenH264: the embedded default, bundled as source under a BSD licence.
//!
//! Owns: the encoder and decoder built on it. Never: uses its rate control, frame skipping, scene detection or
//! error concealment for what is shown. Invariant: all `unsafe` is in `ffi`.

mod decoder;
mod encoder;
mod ffi;
mod long_term;

pub(crate) use decoder::open_decoder;
pub(crate) use encoder::open_encoder;

/// Name in errors, logs and capabilities.
const BACKEND: &str = "openh264";

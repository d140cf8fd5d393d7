//! libavcodec's H.264 decoder: faster than OpenH264's, as a shared library of the system.
//!
//! Owns: the decoder built on it. Never: lets it conceal; uses its threads (a slice at a time leaves nothing to
//! spread). Invariant: all `unsafe` is in `ffi`.

mod decoder;
mod ffi;

pub(crate) use decoder::open_decoder;

/// Name in errors, logs and capabilities.
const BACKEND: &str = "libavcodec";

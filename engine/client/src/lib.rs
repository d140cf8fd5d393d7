//! The Wavry client: receives a stream, decodes it, shows it, and sends input back.
//!
//! Owns the threads and what passes between them; the protocol is `rift-core`'s, the picture
//! `wavry-platform`'s, the bits `wavry-codec`'s, the packets `wavry-runtime`'s.
//!
//! ```text
//! network thread:  socket <-> ClientEndpoint -+- slices, one ring  -> decode thread -> presenter
//!                                             +- outcomes, one ring <-
//!                  input, one ring <------------------------------------ window (main thread)
//! ```
//! Invariant: a slice is decoded as soon as it is whole, and the newest decoded picture is the one shown.

mod client;
mod config;
mod decode;
mod handoff;
mod input;
mod load;
mod network;
mod notice;
mod session;
mod trace;
mod verify;
mod viewer;

pub mod contact;

pub use client::run;
pub use config::{Config, Target, default_directory};

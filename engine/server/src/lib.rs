//! The Wavry host: captures a display, encodes it, and streams it to one paired client.
//!
//! Owns the threads and what passes between them; the protocol is `rift-core`'s, the picture
//! `wavry-platform`'s, the bits `wavry-codec`'s, the packets `wavry-runtime`'s.
//!
//! ```text
//! video thread:    capture -> encode -> slice -+               (sleeps while nobody watches)
//!                                              | slices, one ring; back: empty buffers, commands
//! network thread:  socket <-> HostEndpoint <---+-> input injection
//!                                              | notices, one ring
//! main thread:     allow-list, statistics, trace, signals
//! ```
//! Invariant: the network thread never blocks on another thread, a file or the display; a full ring
//! drops and counts.

mod config;
mod handoff;
mod host;
mod load;
mod network;
mod notice;
mod size;
mod trace;
mod video;

pub use config::{Config, PairingMode, SourceChoice};
pub use host::run;

//! What host and client sessions have in common.
//!
//! Owns packet ids and keys and their renewal, reliable control messages, round-trip time and clock
//! offset, the handshake's datagrams, and the reasons for an end. Never knows what is streamed: video,
//! sound and input are the endpoints' business. Invariant: nothing leaves unsealed, no packet id is
//! sealed twice under one key, and nothing that did not open has any effect.

pub(crate) mod bodies;
mod close;
mod config;
pub(crate) mod entropy;
mod features;
pub(crate) mod keys;
pub(crate) mod link;
pub(crate) mod reliable;
pub(crate) mod rtt;

pub use close::{CloseCode, CloseReason, Violation};
pub use config::LinkConfig;
pub use features::Features;
pub use link::LinkCounters;

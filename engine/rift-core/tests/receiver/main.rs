//! The receiver against everything a path can do to packets.

#![allow(clippy::unwrap_used, reason = "code of tests")]

#[path = "../support/packetiser.rs"]
mod packetiser;

mod hostile;
mod model;
mod parity;
mod recovery;
mod stream;

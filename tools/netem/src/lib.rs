//! The simulator's links for real datagrams: one UDP port through which a client reaches a host, as slowly and as
//! badly as a scenario says.
//!
//! Owns the two [`Link`]s of a scenario, driven by the real clock, and the datagrams on them. Never looks into a
//! datagram; what becomes of it, and when, [`rift_sim`] decides, with the same code and seeds as in a simulated run.
//!
//! It forwards UDP instead of frames (TAP, packet sockets) because that is the truer clock: the kernel stamps each
//! datagram when it reaches the socket, so that how late this thread runs does not enter the link; what a host sends
//! as one batch (GSO) arrives as one batch, as on the simulator's links, and is cut by the kernel; marks (ECN) and
//! class (DSCP) come and go as socket options. A frame-level tool would get batches of 64 KiB or force the host to send
//! single datagrams. What it costs is that the host sees the emulator's address.
//!
//! Invariants: a datagram leaves at its time or later, never earlier, and [`Lateness`] says how much later;
//! datagrams of one direction leave in the order in which the link lets them arrive.
#![forbid(unsafe_code)]

mod emulator;
mod lateness;

pub use emulator::{Emulator, Seen, unsupported};
pub use lateness::Lateness;

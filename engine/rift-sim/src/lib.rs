//! A deterministic world for the protocol core: virtual time, faulty paths, models of what stands at both
//! ends, and checkers that judge from outside.
//!
//! [`run`] joins hosts and clients by two [`Link`](link::Link)s that they share with each other and with the
//! [traffic of others](cross), and lets virtual time pass; [`run_with`] does so with other endpoints. A
//! [`Scenario`] and a seed decide every bit of a run; [`Report::fingerprint`] proves that two runs were the
//! same. This crate never reads a clock, opens a socket or starts a thread.
#![forbid(unsafe_code)]

pub mod check;
mod clock;
pub mod cross;
pub mod endpoint;
mod fingerprint;
pub mod link;
pub mod loss;
pub mod metrics;
mod queue;
mod real;
pub mod report;
pub mod scenario;
mod seeds;
pub mod source;
pub mod world;

pub use clock::Clock;
pub use fingerprint::Fingerprint;
pub use queue::EventQueue;
pub use real::{RealPeers, run};
pub use report::Report;
pub use scenario::Scenario;
pub use scenario::preset::{PRESETS, Preset};
pub use seeds::Seeds;
pub use world::{Peers, Side, run_with};

//! The real programs, as processes: what they do with bad input, faults and real displays, and that nothing brings
//! the host down.
//!
//! All traffic stays on the loopback interface. Needs the programs built: `cargo build --workspace --bins`.

// A test fails by panicking, wherever in it that happens.
#![allow(missing_docs, clippy::unwrap_used)]

mod bad_input;
mod displays;
mod faults;
mod lossy_path;
mod overload;
mod relay;
mod slow_path;
mod support;

//! Thread-per-core runtime of the engine: UDP over `io_uring`, packet buffers, deadlines, rings between
//! threads, pinning, the clock and orderly shutdown.
//!
//! What it owns: sockets, packet buffers, the way a thread sleeps and is woken. What it never does: look
//! inside a datagram. It knows no protocol, holds no key, and decides nothing about pacing or loss.
//!
//! The invariant of every hot path here: after start nothing allocates, nothing takes a lock, nothing
//! logs, and the kernel is entered at most once per batch ([`transport::Transport::turn`]). Every pool is
//! sized once, at start; running out is a counted drop, never growth.
//!
//! A network thread looks like this:
//!
//! ```no_run
//! use wavry_runtime::{clock::Clock, transport::Transport, uring::{UringUdp, UringUdpConfig}};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut udp = UringUdp::open(UringUdpConfig::new("[::]:4810".parse()?))?;
//! let clock = Clock;
//! loop {
//!     let turn = udp.turn(Some(clock.now() + 1_000_000))?;
//!     let now = clock.now(); // once per batch
//!     if turn.received {
//!         while let Some(batch) = udp.poll_receive() {
//!             for datagram in batch.datagrams() {
//!                 // open it in place
//!                 # let _ = (&datagram, now);
//!             }
//!         }
//!     }
//!     // acquire a slot, fill it, commit it: it leaves with the next turn
//! }
//! # }
//! ```

pub mod clock;
pub mod cores;
pub mod counters;
pub mod kernel;
pub mod shutdown;
mod socket;
pub mod spsc;
mod sys;
pub mod terminal;
pub mod timer;
pub mod transport;
pub mod uring;
pub mod waker;

pub use waker::Waker;

//! Input from the client's devices to the host's: events, their encoding, and their delivery.
//!
//! Owns the numbering of events, their repetition until acknowledged, and the set of what is pressed
//! on each side. Never looks at a device and never knows about packets other than their bodies.
//!
//! Invariant: once packets get through again, the host's set of pressed keys and buttons equals the
//! client's, whatever was lost, repeated or reordered before; and each event is applied at most once,
//! in order. An event that is lost for good (more than [`UNACKED_MAX`] were waiting) is made good by
//! the state that travels with every batch.

mod batch;
mod event;
mod receiver;
mod sender;
mod state;

pub use event::{InputEvent, TimedEvent};
pub use receiver::InputReceiver;
pub use sender::InputSender;
pub use state::{InputState, PRESSED_MAX};

/// Most events that a sender keeps for repetition, and so the most in one batch it makes. With
/// [`PRESSED_MAX`] a batch of the longest events fits a default datagram (proved by a test).
pub const UNACKED_MAX: usize = 32;

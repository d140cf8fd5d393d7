//! The RIFT protocol, without input or output.
//!
//! This crate owns what both ends say to each other and when: framing, messages, sessions, recovery,
//! rate control, pacing. It has no socket, clock, thread or `unsafe`; whoever drives it passes in
//! datagrams and the time, and takes out datagrams, events and the time of the next call. The same
//! seed and inputs give the same outputs, bit for bit.
#![forbid(unsafe_code)]

mod bitrate;
pub mod delta2;
mod drop_reason;
pub mod endpoint;
pub mod fec;
pub mod feedback;
mod id;
pub mod input;
pub mod load;
pub mod message;
pub mod receive;
pub mod send;
pub mod session;
mod time;
pub mod wire;

pub use bitrate::Bitrate;
pub use drop_reason::{DropCounters, DropReason};
pub use id::{Alias, FrameId, GroupId, HandshakeId, PacketId};
pub use time::Timestamp;

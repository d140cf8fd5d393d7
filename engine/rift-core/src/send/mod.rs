//! The sending side of video: from encoded slices to the plaintext bodies of packets.
//!
//! Owns the encoded frames for as long as a packet of them may have to be sent again, the cut into
//! chunks and error correction groups, parity and how much of it, the order in which packets leave, pacing, and the answer
//! to packets that were lost; beside it the rate control profile `delta-v1`. Never seals, addresses or
//! sends anything, never reads a clock. Invariants: after construction nothing allocates; the data
//! packets of a group have consecutive ids; a newer frame never waits behind a stale one; what leaves
//! is bounded by the pacing rate, retransmissions included.

mod config;
mod counters;
pub mod delta_v1;
mod frame_store;
mod history;
mod losses;
mod pacer;
mod protection;
mod retransmit;
mod sliding;
mod span;
mod template;
mod video_sender;

pub use config::{PoolSizes, SenderConfig};
pub use counters::SenderCounters;
pub use delta_v1::{DeltaV1, DeltaV1Config};
pub use video_sender::VideoSender;

use crate::{FrameId, Timestamp};

/// What the encoder says about a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SliceMeta {
    /// The frame. Frames come in ascending order, the slices of a frame together.
    pub frame_id: FrameId,
    /// Position in the frame, from 0 without gaps.
    pub slice_index: u32,
    /// No slice follows in this frame.
    pub last_slice: bool,
    /// The frame is decodable without any other.
    pub keyframe: bool,
    /// The newest frame that this one predicts from. `None` for a keyframe, or where the encoder does
    /// not say: then the frame before is taken to be needed.
    pub reference: Option<FrameId>,
    /// When the frame was captured, host clock.
    pub timestamp: Timestamp,
    /// How long capture took, in microseconds.
    pub capture_us: u32,
    /// From the end of capture to the moment the encoder handed out this slice, in microseconds.
    pub encode_us: u32,
}

/// What the packets of a [`Batch`] carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    /// Chunks that leave for the first time: the data packets of one group, or the rest of them.
    Data,
    /// The parity packets of the group before.
    Parity,
    /// Chunks that were lost.
    Retransmission,
}

/// A run of packets that can leave as one segmented send: all bodies have one length but the last,
/// which may be shorter. They must be sealed with consecutive packet ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// How many bodies to take from [`VideoSender::seal_body`].
    pub count: usize,
    /// Length of every body but the last, in bytes.
    pub body_len: usize,
    /// Length of the last body, in bytes; at most `body_len`.
    pub last_body_len: usize,
    /// What the packets carry.
    pub kind: BatchKind,
    /// The frame that they belong to; of retransmissions, that of the first.
    pub frame_id: FrameId,
}

/// Frames that were given up before they had left whole, so that what predicts from them cannot be
/// decoded. The encoder should go on from `last_valid`, or with a keyframe where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramesDropped {
    /// The oldest frame given up; everything from it on counts as lost.
    pub first: FrameId,
    /// The newest frame that left whole.
    pub last_valid: Option<FrameId>,
}

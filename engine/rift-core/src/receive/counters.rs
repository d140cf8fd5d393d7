//! What a receiver counts.

use crate::{DropCounters, FrameId};

/// Counted since the receiver was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceiverCounters {
    /// Authenticated packets of any kind.
    pub packets: u64,
    /// Chunks that were placed, however they came.
    pub chunks: u64,
    /// Packets that came after a later one.
    pub reordered: u64,
    /// Parity packets.
    pub parity: u64,
    /// Parity packets among them that nothing was missing for.
    pub parity_spare: u64,
    /// Chunks computed from parity.
    pub chunks_from_parity: u64,
    /// Chunks that came because they were asked for again.
    pub chunks_resent: u64,
    /// Parity packets that gave way to newer ones before they could be used.
    pub parity_given_up: u64,
    /// Requests for single packets, repeats included.
    pub nacks: u64,
    /// Missing packets for which no resend could arrive in time.
    pub nacks_given_up: u64,
    /// Missing packets that there was no room to remember.
    pub missing_untracked: u64,
    /// Frames of which every slice was handed out.
    pub frames: u64,
    /// Frames among them that were not to be shown any more.
    pub frames_not_shown: u64,
    /// Frames that were given up, whole or not.
    pub frames_dropped: u64,
    /// Requests for a frame that predicts from an older one, repeats included.
    pub invalidations: u64,
    /// Requests for a keyframe, repeats included.
    pub keyframe_requests: u64,
    /// Requests to leave out frames.
    pub skip_requests: u64,
    /// Chunks and parity packets that were not used, by reason.
    pub drops: DropCounters,
}

/// What a receiver has seen since the last report, and where it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveReport {
    /// Time since the last report, in milliseconds.
    pub period_ms: u32,
    /// Packets of any kind that arrived.
    pub received_packets: u32,
    /// Packets that the path has lost, as far as one can tell from their ids.
    pub lost_packets: u32,
    /// Interarrival jitter of frames (RFC 3550 section 6.4.1), in microseconds.
    pub jitter_us: u32,
    /// The delay now added to even out jitter, in microseconds.
    pub playout_us: u32,
    /// The newest frame that was decoded without error.
    pub newest_decoded: Option<FrameId>,
}

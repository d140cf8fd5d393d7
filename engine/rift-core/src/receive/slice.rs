//! What a receiver hands out.

use crate::{FrameId, Timestamp};

/// What it took to get something besides its first transmission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecoveredBy {
    /// Nothing: all of it came at the first try.
    #[default]
    Nothing,
    /// Parity packets.
    Parity,
    /// Packets that were sent again.
    Retransmission,
}

/// A complete slice, to be given to the decoder now.
#[derive(Clone, Copy, Debug)]
pub struct ReadySlice<'a> {
    /// The frame.
    pub frame_id: FrameId,
    /// Position of the slice in the frame, from 0.
    pub index: u32,
    /// No slice follows in this frame.
    pub last: bool,
    /// The frame is decodable without any other.
    pub keyframe: bool,
    /// Capture time in microseconds of the host's clock.
    pub timestamp_us: u64,
    /// How long capture took, in microseconds.
    pub capture_us: u32,
    /// From the end of capture to the moment the encoder handed out this slice, in microseconds.
    pub encode_us: u32,
    /// When the first packet of the frame arrived.
    pub first_arrival: Timestamp,
    /// When the slice was whole.
    pub complete_at: Timestamp,
    /// What it took to get the slice.
    pub recovered: RecoveredBy,
    /// Whether the frame is to be shown: not if it is past its deadline, or if the next one is due
    /// already. Such a frame is handed out because later ones predict from it. The word of the last
    /// slice counts.
    pub show: bool,
    /// When to show the frame so that frames keep their distance; already past if there is no jitter to
    /// even out.
    pub show_at: Timestamp,
    /// After this the frame must not be shown any more.
    pub deadline: Timestamp,
    /// The encoded bytes.
    pub data: &'a [u8],
}

//! What threads tell each other, besides slices.

use rift_core::FrameId;
use rift_core::input::InputEvent;
use rift_core::message::proto;
use rift_core::session::CloseReason;
use rift_crypto::WavryId;

use crate::trace::FrameTrace;

/// From the decode thread to the network thread.
#[derive(Debug, Clone, Copy)]
pub(crate) enum DecodeOutcome {
    /// The frame was decoded and handed to the presenter.
    Shown(FrameId),
    /// The frame was decoded but was not to be shown.
    Decoded(FrameId),
    /// The decoder could not use the frame.
    Failed(FrameId),
    /// The last slice of a frame was worked on, and all of the frame took so long, in microseconds.
    Worked(u64),
}

/// From the main thread to the network thread.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ClientCommand {
    /// The user did something.
    Input(InputEvent),
    /// End the session.
    Close,
}

/// From the network and decode threads to the main thread, which may block.
#[derive(Debug)]
pub(crate) enum ClientNotice {
    /// The host let this client in.
    Connected { peer: WavryId, width: u32, height: u32, fps: u32, one_round_trip: bool },
    /// The session is over.
    Closed(CloseReason),
    /// The host does not let this client in.
    Refused(String),
    /// Counts, about once a second.
    Statistics(Statistics),
    /// The network thread is over.
    Stopped,
}

/// From the decode thread to the main thread.
#[derive(Debug)]
pub(crate) enum DecodeNotice {
    /// Times of one frame, only while tracing.
    Frame(FrameTrace),
    /// The decoder or the presenter failed for good.
    Failed(String),
}

/// Pointer news from the network thread to the decode thread, which paints.
#[derive(Debug)]
pub(crate) enum CursorNotice {
    /// It looks like this now.
    Shape(proto::CursorShape),
    /// It is here now.
    Position(proto::CursorPosition),
}

/// What the last second was like.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Statistics {
    pub(crate) slices: u64,
    pub(crate) bytes: u64,
    pub(crate) datagrams: u64,
    pub(crate) rtt_us: u64,
    pub(crate) asked_again: u64,
    pub(crate) repaired: u64,
    pub(crate) frames_dropped: u64,
    pub(crate) slices_lost: u64,
    /// Since the start: notices for which their ring had no room.
    pub(crate) notices_lost: u64,
}

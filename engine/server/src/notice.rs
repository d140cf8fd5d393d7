//! What threads tell each other, besides slices.

use rift_crypto::WavryId;
use wavry_platform::{CursorShape, Rect};

/// From the video thread to the network thread.
#[derive(Debug)]
pub(crate) enum VideoNotice {
    /// The captured picture is this part of the screen now: absolute positions refer to it.
    Area(Rect),
    /// The pointer is here now.
    CursorPosition { at_ns: u64, x: i32, y: i32, visible: bool, shape_serial: u32 },
    /// The pointer looks like this now.
    CursorShape(Box<CursorShapeNotice>),
    /// There is nothing to stream any more.
    Failed,
}

/// A pointer picture, owned.
#[derive(Debug)]
pub(crate) struct CursorShapeNotice {
    pub(crate) serial: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) hot_x: u32,
    pub(crate) hot_y: u32,
    pub(crate) bgra: Vec<u8>,
}

impl From<&CursorShape<'_>> for CursorShapeNotice {
    fn from(shape: &CursorShape<'_>) -> Self {
        Self {
            serial: shape.serial,
            width: shape.width,
            height: shape.height,
            hot_x: shape.hot_x,
            hot_y: shape.hot_y,
            bgra: shape.pixels.to_vec(),
        }
    }
}

/// From the network thread to the main thread, which may block.
#[derive(Debug)]
pub(crate) enum HostNotice {
    /// A client was let in.
    Started { peer: WavryId, name: String },
    /// It left.
    Ended { peer: WavryId, reason: String },
    /// A client knew the PIN: put it on the allow-list.
    Paired { peer: WavryId, name: String },
    /// A client did not know the PIN.
    PairingFailed { attempts_left: u32 },
    /// Injecting input failed; told once.
    InjectionFailed(String),
    /// Counts, about once a second while somebody watches.
    Statistics(Statistics),
    /// Times of one frame, only while tracing.
    Frame(crate::trace::FrameTrace),
    /// What the controller decided and why, only while that is traced.
    Decision(rift_core::delta2::DecisionTrace),
    /// The thread is over.
    Stopped,
}

/// What the last second was like.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Statistics {
    pub(crate) frames: u64,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) retransmitted: u64,
    pub(crate) rtt_us: u64,
    pub(crate) bitrate_bps: u64,
    pub(crate) system_calls: u64,
    pub(crate) slices_lost: u64,
    pub(crate) dropped_datagrams: u64,
    /// Since the start: commands and notices for which their ring had no room.
    pub(crate) notices_lost: u64,
}

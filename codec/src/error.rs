//! What goes wrong in codecs, and whether trying again helps.
//!
//! Owns: the two error types of this crate. Never: wraps a backend's numbers without saying which operation
//! returned them. Invariant: [`DecodeError::needs_keyframe`] is the only thing a receiver must look at.

/// Why an encoder could not be opened, or could not encode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The backend was not built in or its library refused to start.
    #[error("{backend} is not available: {reason}")]
    Unavailable {
        /// Name of the backend.
        backend: &'static str,
        /// What is missing, in words for an operator.
        reason: &'static str,
    },
    /// No backend of this build speaks the codec.
    #[error("no backend for {0:?} in this build")]
    UnsupportedCodec(crate::VideoCodec),
    /// A setting is outside what the backend can do. Retrying with the same setting fails again.
    #[error("{field} = {value} is out of range: {allowed}")]
    Config {
        /// The field of the configuration.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What would have been accepted.
        allowed: &'static str,
    },
    /// A picture does not have the size or planes that were announced. The encoder stays usable.
    #[error("bad input picture: {0}")]
    Input(&'static str),
    /// The library reported a failure. The encoder should be dropped and opened again.
    #[error("{backend}: {operation} failed with {code}")]
    Backend {
        /// Name of the backend.
        backend: &'static str,
        /// The call that failed.
        operation: &'static str,
        /// Its return value.
        code: i64,
    },
}

/// Why a slice or frame was not decoded. The decoder stays usable after every one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Slices of a frame must come in order; `index` came while `expected` was due. The frame is dropped.
    #[error("frame {frame_id}: slice {index} came, {expected} was due")]
    SliceMissing {
        /// The frame that is given up.
        frame_id: u64,
        /// The slice that came.
        index: u32,
        /// The slice that was due.
        expected: u32,
    },
    /// The frame predicts from one that this decoder does not hold intact. The frame is dropped.
    #[error("frame {frame_id} predicts from a picture that was lost")]
    ReferenceLost {
        /// The frame that is given up.
        frame_id: u64,
    },
    /// Nothing can be decoded until a keyframe comes.
    #[error("frame {frame_id} came before a keyframe")]
    KeyframeNeeded {
        /// The frame that is given up.
        frame_id: u64,
    },
    /// The bytes are not a valid slice. The frame is dropped.
    #[error("frame {frame_id}: corrupt bitstream")]
    Corrupt {
        /// The frame that is given up.
        frame_id: u64,
    },
    /// The slice is larger than the decoder was sized for ([`crate::DecoderConfig::slice_bytes_max`]).
    #[error("frame {frame_id}: slice of {bytes} bytes is over the limit")]
    TooLarge {
        /// The frame that is given up.
        frame_id: u64,
        /// Size of the slice.
        bytes: usize,
    },
    /// The library failed for a reason of its own; a new decoder and a keyframe are needed.
    #[error("{backend}: {operation} failed with {code}")]
    Backend {
        /// Name of the backend.
        backend: &'static str,
        /// The call that failed.
        operation: &'static str,
        /// Its return value.
        code: i64,
    },
}

impl DecodeError {
    /// Whether only a keyframe helps. Otherwise a frame that predicts from an intact one is enough.
    pub fn needs_keyframe(&self) -> bool {
        matches!(self, Self::KeyframeNeeded { .. } | Self::Backend { .. })
    }
}

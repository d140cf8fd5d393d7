//! The seam behind which every decoder lives.
//!
//! Owns: the [`Decoder`] trait and the choice of a backend. Never: reorders or waits (the network core does).
//! Invariant: [`Decoder::poll_frame`] yields intact frames only, in the order in which they were pushed.

use crate::{ColorSpace, DecodeError, I420View, VideoCodec};

/// Which decoder to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DecoderChoice {
    /// libavcodec when it was built in (it is faster), else OpenH264.
    #[default]
    Auto,
    /// OpenH264, always there.
    OpenH264,
    /// libavcodec, with the cargo feature `libavcodec`.
    Libavcodec,
}

/// What a decoder is opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecoderConfig {
    /// Coding standard.
    pub codec: VideoCodec,
    /// Largest slice in bytes. Sizes the one buffer a backend may need.
    pub slice_bytes_max: usize,
}

impl Default for DecoderConfig {
    /// H.264; 2 MiB covers a keyframe of 4096 x 2304 in one slice at a very low quantiser.
    fn default() -> Self {
        Self { codec: VideoCodec::H264, slice_bytes_max: 2 << 20 }
    }
}

/// A decoded picture, valid until the decoder is used again.
#[derive(Debug, Clone, Copy)]
pub struct DecodedFrame<'a> {
    /// The frame as the encoder numbered it.
    pub frame_id: u64,
    /// Whether it was a keyframe.
    pub keyframe: bool,
    /// Size and planes.
    pub picture: I420View<'a>,
    /// What the samples mean.
    pub color: ColorSpace,
}

/// What a backend can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecoderCapabilities {
    /// Name for logs and the operator.
    pub backend: &'static str,
    /// A slice is decoded when it is pushed, not when its frame is whole.
    pub early_slices: bool,
}

/// A decoder. One per stream; not shared.
pub trait Decoder: Send {
    /// Takes one slice and decodes it at once if the backend can. Slices of a frame come in order, frames in
    /// order of their ids; a frame may be left unfinished or skipped altogether.
    ///
    /// An error means that this frame will not be shown. Its remaining slices are swallowed without a second
    /// error, and later frames are decoded again as soon as they predict from an intact one.
    fn push_slice(&mut self, frame_id: u64, index: u32, last: bool, data: &[u8]) -> Result<(), DecodeError>;

    /// The frame that the last slice completed, once.
    fn poll_frame(&mut self) -> Result<Option<DecodedFrame<'_>>, DecodeError>;

    /// Forgets everything; the next frame must be a keyframe.
    fn reset(&mut self) -> Result<(), DecodeError>;

    /// What it can do.
    fn capabilities(&self) -> DecoderCapabilities;
}

/// Opens a decoder and says in the log which one and why.
pub fn open_decoder(
    choice: DecoderChoice,
    config: &DecoderConfig,
) -> Result<Box<dyn Decoder>, crate::CodecError> {
    if config.codec != VideoCodec::H264 {
        return Err(crate::CodecError::UnsupportedCodec(config.codec));
    }
    if !(4096..=64 << 20).contains(&config.slice_bytes_max) {
        let value = config.slice_bytes_max as u64;
        return Err(crate::CodecError::Config {
            field: "slice_bytes_max",
            value,
            allowed: "4 KiB to 64 MiB",
        });
    }
    let decoder = match choice {
        DecoderChoice::OpenH264 => crate::openh264::open_decoder(config)?,
        DecoderChoice::Libavcodec => open_libavcodec(config)?,
        DecoderChoice::Auto if cfg!(feature = "libavcodec") => open_libavcodec(config)?,
        DecoderChoice::Auto => crate::openh264::open_decoder(config)?,
    };
    let reason = match choice {
        DecoderChoice::Auto if cfg!(feature = "libavcodec") => "libavcodec is built in and is the faster one",
        DecoderChoice::Auto => "libavcodec is not built in (cargo feature libavcodec)",
        _ => "asked for",
    };
    tracing::info!(backend = decoder.capabilities().backend, reason, "decoder opened");
    Ok(decoder)
}

#[cfg(feature = "libavcodec")]
fn open_libavcodec(config: &DecoderConfig) -> Result<Box<dyn Decoder>, crate::CodecError> {
    crate::avcodec::open_decoder(config)
}

#[cfg(not(feature = "libavcodec"))]
fn open_libavcodec(_: &DecoderConfig) -> Result<Box<dyn Decoder>, crate::CodecError> {
    Err(crate::CodecError::Unavailable {
        backend: "libavcodec",
        reason: "this build lacks the cargo feature libavcodec",
    })
}

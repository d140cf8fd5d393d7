//! Video encoders and decoders whose unit is the slice.
//!
//! Owns: the seams behind which every codec lives ([`Encoder`], [`Decoder`]), the software backends, the
//! per-frame rate control that drives them, and the conversion between screen pixels and YUV.
//! Never: touches the network, a clock other than to time its own work, or a thread other than the
//! backend's own; decides *when* to recover (the caller asks for a keyframe or a reference).
//! Invariant: a slice carries what it takes to place it (frame, index, last) and what it predicts from, and
//! a frame whose chain of references is broken is never handed out by a decoder.
//!
//! | backend | feature | encoder | decoder |
//! |---|---|---|---|
//! | OpenH264 (bundled source, BSD) | always | slices once the frame is done | slice by slice |
//! | x264 (GPL) | `x264` | each slice the moment it is done | |
//! | libavcodec | `libavcodec` | | slice by slice |

#[cfg(feature = "libavcodec")]
mod avcodec;
pub mod convert;
mod decoder;
mod encoder;
mod error;
mod fill;
pub mod h264;
mod openh264;
mod picture;
pub mod rate;
mod scale;
#[cfg(feature = "x264")]
mod x264;

pub use decoder::{DecodedFrame, Decoder, DecoderCapabilities, DecoderChoice, DecoderConfig, open_decoder};
pub use encoder::{
    EncodeReport, EncodeRequest, EncodedSlice, Encoder, EncoderCapabilities, EncoderChoice, EncoderConfig,
    SliceSink, VideoCodec, open_encoder,
};
pub use error::{CodecError, DecodeError};
pub use fill::filled;
pub use picture::{ColorMatrix, ColorSpace, FrameInput, I420Buffer, I420View, Plane};
pub use scale::Downscaler;

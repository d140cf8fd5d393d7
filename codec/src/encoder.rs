//! The seam behind which every encoder lives.
//!
//! Owns: the [`Encoder`] trait, its configuration and the choice of a backend.
//! Never: knows a backend beyond its constructor.
//! Invariant: an encoder emits a keyframe only for the first frame, on request, at a configured interval, or
//! when nothing else can honour [`EncodeRequest::reference_at_most`]; and says so in every slice.

use std::time::Duration;

use crate::{CodecError, FrameInput};

/// Coding standards the engine negotiates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VideoCodec {
    /// ITU-T H.264.
    H264,
    /// ITU-T H.265.
    Hevc,
    /// AOMedia AV1.
    Av1,
}

/// Which encoder to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EncoderChoice {
    /// x264 when it was built in (it hands out slices early), else OpenH264.
    #[default]
    Auto,
    /// OpenH264, always there.
    OpenH264,
    /// x264, with the cargo feature `x264`.
    X264,
}

/// Most slices in a frame.
const SLICES_MAX: u32 = 32;
/// Slices per frame where nothing is gained by more: they serve loss alone.
const SLICES: u32 = 4;
/// Twice the rows of macroblocks in a slice of an encoder that hands it out while it codes the next: so short that the
/// first (x264 rounds it down to three rows) leaves soon after the picture was converted, and the last is decoded soon
/// after it came; long enough that it fills packets, and that what slices cost in bits (no prediction across their edge)
/// is not seen: 0.1 to 1.5 % beside slices of six rows.
const EARLY_SLICE_HALF_ROWS: u32 = 7;

impl EncoderChoice {
    /// Slices per frame that suit this encoder, on `threads` threads, and a picture of `height` lines: 13 at 720, 20 at
    /// 1080, 32 at 2160 lines where slices leave early, else 4.
    #[must_use]
    pub fn suitable_slices(self, height: u32, threads: u32) -> u32 {
        let leaves_early = match self {
            Self::Auto => cfg!(feature = "x264"),
            Self::OpenH264 => false,
            Self::X264 => true,
        };
        let rows = height.div_ceil(16);
        let slices_max = rows.clamp(1, SLICES_MAX);
        if !leaves_early {
            return SLICES.min(slices_max);
        }
        // Each thread codes as many.
        let threads = threads.clamp(1, slices_max);
        let slices = (2 * rows).div_ceil(EARLY_SLICE_HALF_ROWS).next_multiple_of(threads);
        slices.clamp(1, slices_max / threads * threads)
    }
}

/// What an encoder is opened with. Bitrate and frame rate can change later, the rest cannot.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// Coding standard.
    pub codec: VideoCodec,
    /// Picture width in pixels, 16..=4096. An odd width is coded one wider, its last column repeated.
    pub width: u32,
    /// Picture height in pixels, 16..=2304. An odd height is coded one taller.
    pub height: u32,
    /// Frames per second, 1..=240.
    pub fps: u32,
    /// Target bitrate in bit/s. Every frame is budgeted by itself, see [`crate::rate`].
    pub bitrate_bps: u64,
    /// Slices per frame, 1..=32, at most one per row of 16 lines.
    pub slices: u32,
    /// Encoder threads, 1..=16. More than one shortens a frame but delivers its second half at once.
    pub threads: u32,
    /// A keyframe every so many frames; `None` only on request.
    pub keyframe_interval: Option<u32>,
    /// Refresh the picture by a moving column of intra blocks instead of keyframes. Needs
    /// [`EncoderCapabilities::intra_refresh`] and excludes reference invalidation.
    pub intra_refresh: bool,
    /// Smooth block edges inside slices. Looks better at low bitrates, costs time on both sides.
    pub deblocking: bool,
}

impl EncoderConfig {
    /// H.264, four slices, one thread, keyframes on request only, no deblocking: the low-latency settings.
    pub fn new(width: u32, height: u32, fps: u32, bitrate_bps: u64) -> Self {
        Self {
            codec: VideoCodec::H264,
            width,
            height,
            fps,
            bitrate_bps,
            slices: SLICES,
            threads: 1,
            keyframe_interval: None,
            intra_refresh: false,
            deblocking: false,
        }
    }

    /// Rows of macroblocks (16 lines each) in a coded picture.
    pub(crate) fn macroblock_rows(&self) -> u32 {
        self.height.div_ceil(16)
    }

    /// Checks every range that no backend goes beyond.
    pub(crate) fn check(&self) -> Result<(), CodecError> {
        let rule = |field, value: u64, range: std::ops::RangeInclusive<u64>, allowed| {
            if range.contains(&value) { Ok(()) } else { Err(CodecError::Config { field, value, allowed }) }
        };
        rule("width", self.width.into(), 16..=4096, "16 to 4096 pixels")?;
        rule("height", self.height.into(), 16..=2304, "16 to 2304 pixels")?;
        rule("fps", self.fps.into(), 1..=240, "1 to 240 frames per second")?;
        rule("bitrate_bps", self.bitrate_bps, 10_000..=2_000_000_000, "10 kbit/s to 2 Gbit/s")?;
        rule("threads", self.threads.into(), 1..=16, "1 to 16")?;
        rule(
            "keyframe_interval",
            self.keyframe_interval.unwrap_or(1).into(),
            1..=u64::MAX,
            "1 frame or more, or none",
        )?;
        let slices_max = u64::from(self.macroblock_rows().min(SLICES_MAX));
        rule("slices", self.slices.into(), 1..=slices_max, "1 to 32, and at most one per 16 lines")
    }
}

/// What the caller wants of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeRequest {
    /// One more than that of the frame encoded before; the first may be any. Receivers tell by it whether a
    /// frame went missing.
    pub frame_id: u64,
    /// Make this very frame a keyframe (IDR).
    pub force_keyframe: bool,
    /// Predict only from this frame or an older one, from now on: every frame encoded after it is taken for
    /// lost. If the encoder holds no such frame it makes a keyframe.
    pub reference_at_most: Option<u64>,
}

impl EncodeRequest {
    /// A frame with no wishes.
    pub fn frame(frame_id: u64) -> Self {
        Self { frame_id, force_keyframe: false, reference_at_most: None }
    }
}

/// One slice, valid during the call that hands it out.
#[derive(Debug, Clone, Copy)]
pub struct EncodedSlice<'a> {
    /// The frame it belongs to.
    pub frame_id: u64,
    /// Place in the frame, from 0.
    pub index: u32,
    /// Whether it completes the frame.
    pub last: bool,
    /// Whether the frame needs no other.
    pub keyframe: bool,
    /// The frame it predicts from; `None` for a keyframe. Read from the slice header, not assumed.
    pub reference: Option<u64>,
    /// Annex B bytes. A keyframe's slice 0 starts with its parameter sets.
    pub data: &'a [u8],
}

/// Takes slices in order. Called once per slice, never by two threads at a time, but not always by the
/// thread that called [`Encoder::encode`].
pub type SliceSink<'s> = dyn FnMut(EncodedSlice<'_>) + Send + 's;

/// What became of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeReport {
    /// The frame.
    pub frame_id: u64,
    /// Whether it came out as a keyframe.
    pub keyframe: bool,
    /// The frame it predicts from.
    pub reference: Option<u64>,
    /// Slices handed out.
    pub slices: u32,
    /// Bytes of all slices.
    pub bytes: u32,
    /// Bytes the rate control had set aside.
    pub budget_bytes: u32,
    /// Quantiser, 1..=51.
    pub qp: u8,
    /// From the call to the planes being ready (conversion or copy).
    pub convert: Duration,
    /// From the call to the first slice being handed out.
    pub first_slice: Duration,
    /// From the call to the last slice being handed out.
    pub total: Duration,
}

/// What a backend can do, so that a caller need not guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderCapabilities {
    /// Name for logs and the operator.
    pub backend: &'static str,
    /// Slices are handed out while the rest of the frame is being encoded.
    pub early_slices: bool,
    /// [`EncodeRequest::reference_at_most`] is honoured without a keyframe when the frame asked for is recent.
    pub reference_invalidation: bool,
    /// How many frames back a reference may be asked for and usually be honoured.
    pub reference_depth: u32,
    /// An acknowledged frame stays a reference until a newer one is acknowledged: going back to it never takes a
    /// keyframe, however long ago and however often.
    pub keeps_acknowledged: bool,
    /// Intra refresh is on.
    pub intra_refresh: bool,
    /// Size of the coded picture: the configured size rounded up to even.
    pub coded_size: (u32, u32),
}

/// An encoder. One per stream; not shared.
pub trait Encoder: Send {
    /// Encodes one frame and hands its slices to `sink` in order, each as soon as it exists. Returns once all
    /// were handed out. On an error that is not [`CodecError::Input`] open a new encoder.
    fn encode(
        &mut self,
        frame: FrameInput<'_>,
        request: &EncodeRequest,
        sink: &mut SliceSink<'_>,
    ) -> Result<EncodeReport, CodecError>;

    /// New target from the next frame on, in bit/s. No restart, no keyframe.
    fn set_bitrate(&mut self, bitrate_bps: u64) -> Result<(), CodecError>;

    /// New frame rate from the next frame on. No restart, no keyframe.
    fn set_frame_rate(&mut self, fps: f32) -> Result<(), CodecError>;

    /// Notice that the receiver has shown this frame intact. Lets an encoder that needs confirmed references
    /// keep a recent one; others ignore it.
    fn on_acknowledged(&mut self, frame_id: u64) {
        let _ = frame_id;
    }

    /// What it can do.
    fn capabilities(&self) -> EncoderCapabilities;
}

/// Opens an encoder and says in the log which one and why.
pub fn open_encoder(choice: EncoderChoice, config: &EncoderConfig) -> Result<Box<dyn Encoder>, CodecError> {
    config.check()?;
    if config.codec != VideoCodec::H264 {
        return Err(CodecError::UnsupportedCodec(config.codec));
    }
    let encoder = match choice {
        EncoderChoice::OpenH264 => crate::openh264::open_encoder(config)?,
        EncoderChoice::X264 => open_x264(config)?,
        EncoderChoice::Auto if cfg!(feature = "x264") => open_x264(config)?,
        EncoderChoice::Auto => crate::openh264::open_encoder(config)?,
    };
    let reason = match choice {
        EncoderChoice::Auto if cfg!(feature = "x264") => "x264 is built in and hands out slices early",
        EncoderChoice::Auto => "x264 is not built in (cargo feature x264)",
        _ => "asked for",
    };
    tracing::info!(backend = encoder.capabilities().backend, reason, "encoder opened");
    Ok(encoder)
}

#[cfg(feature = "x264")]
fn open_x264(config: &EncoderConfig) -> Result<Box<dyn Encoder>, CodecError> {
    crate::x264::open_encoder(config)
}

#[cfg(not(feature = "x264"))]
fn open_x264(_: &EncoderConfig) -> Result<Box<dyn Encoder>, CodecError> {
    Err(CodecError::Unavailable { backend: "x264", reason: "this build lacks the cargo feature x264" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_suit_encoder_and_picture() {
        let x264 = |height| EncoderChoice::X264.suitable_slices(height, 1);
        assert_eq!([16, 96, 720, 1080, 1440, 2160, 2304].map(x264), [1, 2, 13, 20, 26, 32, 32]);
        let openh264 = |height| EncoderChoice::OpenH264.suitable_slices(height, 1);
        assert_eq!([0, 16, 48, 64, 2160].map(openh264), [1, 1, 3, 4, 4]);
    }

    #[test]
    fn every_thread_has_as_many_slices() {
        for (height, threads) in (0..2400).step_by(16).flat_map(|height| (0..=40).map(move |n| (height, n))) {
            let slices = EncoderChoice::X264.suitable_slices(height, threads);
            let rows = height.div_ceil(16).max(1);
            assert!(
                (1..=rows.min(SLICES_MAX)).contains(&slices),
                "{height} lines, {threads} threads: {slices}"
            );
            assert!(slices.is_multiple_of(threads.clamp(1, rows.min(SLICES_MAX))));
        }
    }
}

//! The x264 encoder.
//!
//! Owns: its settings, the quantiser of every frame, and recovery by forgetting lost frames.
//! Never: waits for a frame to be whole. Invariant: slices leave while later ones are being coded; the frame
//! that they predict from is read from the first one's header.

use std::time::Instant;

use super::BACKEND;
use super::ffi::{PictureKind, RawConfig, RawEncoder};
use super::output::{FrameOutput, SliceBuffers};
use crate::h264::{ParameterSets, PictureReferences};
use crate::rate::RateController;
use crate::{
    CodecError, EncodeReport, EncodeRequest, Encoder, EncoderCapabilities, EncoderConfig, FrameInput,
    I420Buffer, SliceSink, convert,
};

/// Reference frames kept, the most that H.264 allows. Only the newest is searched, so more cost memory alone.
const REFERENCE_FRAMES: u32 = 16;

/// Opens one for a checked configuration.
pub(crate) fn open_encoder(config: &EncoderConfig) -> Result<Box<dyn Encoder>, CodecError> {
    Ok(Box::new(X264Encoder::open(config)?))
}

struct X264Encoder {
    raw: RawEncoder,
    config: EncoderConfig,
    picture: I420Buffer,
    rate: RateController,
    sets: ParameterSets,
    references: PictureReferences,
    buffers: SliceBuffers,
    macroblocks: u32,
    last_frame_id: Option<u64>,
    last_keyframe_id: u64,
}

impl X264Encoder {
    fn open(config: &EncoderConfig) -> Result<Self, CodecError> {
        let picture = I420Buffer::new(config.width, config.height);
        let columns = config.width.div_ceil(16);
        let rows = config.macroblock_rows();
        // Each thread codes a part of the picture and cuts it into slices of its own.
        let threads = (1..=config.threads.min(config.slices))
            .rev()
            .find(|count| config.slices.is_multiple_of(*count))
            .unwrap_or(1);
        let rows_per_slice = rows.div_ceil(threads).div_ceil(config.slices / threads);
        let refresh =
            if config.intra_refresh { config.keyframe_interval.unwrap_or(config.fps).max(2) } else { 0 };
        let raw = RawEncoder::open(&RawConfig {
            width: picture.width() as i32,
            height: picture.height() as i32,
            fps: config.fps as i32,
            threads: threads as i32,
            slice_count: config.slices as i32,
            slice_macroblocks: (rows_per_slice * columns) as i32,
            dpb_frames: REFERENCE_FRAMES as i32,
            intra_refresh_frames: refresh as i32,
            deblocking: config.deblocking.into(),
            ..RawConfig::default()
        })?;
        // No macroblock takes more than 400 bytes (above that the standard's raw mode is used); escaping asks for
        // half as much again.
        let slice_bytes_max = ((rows.div_ceil(config.slices) + 1) * columns * 600 + 128) as usize;
        Ok(Self {
            raw,
            rate: RateController::new(config.width * config.height, config.bitrate_bps, config.fps as f32),
            config: config.clone(),
            picture,
            sets: ParameterSets::default(),
            references: PictureReferences::default(),
            buffers: SliceBuffers::new(config.slices, threads, slice_bytes_max),
            macroblocks: rows * columns,
            last_frame_id: None,
            last_keyframe_id: 0,
        })
    }

    fn prepare(&mut self, frame: FrameInput<'_>) -> Result<(), CodecError> {
        match frame {
            FrameInput::Bgrx { data, stride } => {
                convert::bgrx_to_i420(data, stride, self.config.width, self.config.height, &mut self.picture)
            }
            FrameInput::I420(view)
                if (view.width, view.height) != (self.config.width, self.config.height) =>
            {
                Err(CodecError::Input("the picture does not have the size that was configured"))
            }
            FrameInput::I420(view) => self.picture.copy_from(&view),
        }
    }

    /// Turns the request into what the library is told.
    fn apply_request(&mut self, request: &EncodeRequest) -> Result<PictureKind, CodecError> {
        let Some(last) = self.last_frame_id else { return Ok(PictureKind::Keyframe) };
        let due = !self.config.intra_refresh
            && self
                .config
                .keyframe_interval
                .is_some_and(|interval| request.frame_id - self.last_keyframe_id >= interval.into());
        if request.force_keyframe || due {
            return Ok(PictureKind::Keyframe);
        }
        if let Some(newest) = request.reference_at_most
            && newest < last
        {
            if newest < self.last_keyframe_id || self.config.intra_refresh {
                return Ok(PictureKind::Keyframe);
            }
            self.raw.invalidate(newest as i64 + 1)?;
        }
        Ok(if self.config.intra_refresh { PictureKind::Refreshing } else { PictureKind::Predicted })
    }
}

/// Whether anything at or before `newest` is still held when `frame_id` is coded.
fn holds_reference(newest: u64, frame_id: u64) -> bool {
    frame_id - newest < u64::from(REFERENCE_FRAMES)
}

impl Encoder for X264Encoder {
    fn encode(
        &mut self,
        frame: FrameInput<'_>,
        request: &EncodeRequest,
        sink: &mut SliceSink<'_>,
    ) -> Result<EncodeReport, CodecError> {
        let start = Instant::now();
        let frame_id = request.frame_id;
        if self.last_frame_id.is_some_and(|last| frame_id != last + 1) || frame_id > i64::MAX as u64 {
            return Err(CodecError::Input("frame ids must increase by one"));
        }
        self.prepare(frame)?;
        let convert = start.elapsed();
        let mut kind = self.apply_request(request)?;
        if request
            .reference_at_most
            .is_some_and(|newest| newest < frame_id && !holds_reference(newest, frame_id))
        {
            kind = PictureKind::Keyframe; // the library would make one too, but the budget must be a keyframe's
        }
        let plan = self.rate.plan(kind == PictureKind::Keyframe);
        let Self { raw, picture, sets, references, buffers, macroblocks, .. } = self;
        let mut forward = |slice: crate::EncodedSlice<'_>| sink(slice);
        let output = FrameOutput::new(frame_id, start, *macroblocks, sets, references, buffers, &mut forward);
        let coded = raw.encode(&picture.view(), frame_id as i64, kind, plan.qp, &output);
        let summary = output.finish();
        coded?;
        let fault = CodecError::Backend {
            backend: BACKEND,
            operation: "read back slices",
            code: summary.slices.into(),
        };
        let header = summary.header.filter(|_| summary.complete).ok_or(fault)?;

        self.references.record(frame_id, &header);
        self.rate.on_encoded(header.idr, plan.qp, summary.bytes);
        self.last_frame_id = Some(frame_id);
        if header.idr {
            self.last_keyframe_id = frame_id;
        }
        Ok(EncodeReport {
            frame_id,
            keyframe: header.idr,
            reference: summary.reference,
            slices: summary.slices,
            bytes: summary.bytes,
            budget_bytes: plan.budget_bits / 8,
            qp: plan.qp,
            convert,
            first_slice: summary.first_slice,
            total: start.elapsed(),
        })
    }

    fn set_bitrate(&mut self, bitrate_bps: u64) -> Result<(), CodecError> {
        EncoderConfig { bitrate_bps, ..self.config.clone() }.check()?;
        self.rate.set_bitrate(bitrate_bps);
        Ok(())
    }

    fn set_frame_rate(&mut self, fps: f32) -> Result<(), CodecError> {
        if !(1.0..=240.0).contains(&fps) {
            return Err(CodecError::Config {
                field: "fps",
                value: fps as u64,
                allowed: "1 to 240 frames per second",
            });
        }
        self.rate.set_frame_rate(fps);
        Ok(())
    }

    fn capabilities(&self) -> EncoderCapabilities {
        EncoderCapabilities {
            backend: BACKEND,
            early_slices: true,
            reference_invalidation: !self.config.intra_refresh,
            reference_depth: if self.config.intra_refresh { 0 } else { REFERENCE_FRAMES - 1 },
            keeps_acknowledged: false,
            intra_refresh: self.config.intra_refresh,
            coded_size: (self.picture.width() as u32, self.picture.height() as u32),
        }
    }
}

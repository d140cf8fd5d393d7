//! The OpenH264 encoder.
//!
//! Owns: its settings, the quantiser of every frame, and recovery by long-term reference.
//! Never: uses the library's rate control: in its bitrate mode sizes follow a new target over a group of eight
//! frames, while with a fixed quantiser per frame the next one obeys.
//! Invariant: what is handed out honours the request; if the library did not, the frame is coded again as a
//! keyframe before anything is handed out.
//!
//! The library hands out a frame only when all of it is coded, so slices here serve loss and decoding in
//! parallel with receiving, not an early first packet.

use std::time::Instant;

use openh264_sys2::{
    CAMERA_VIDEO_REAL_TIME, CM_BT709, CONSTANT_ID, CP_BT709, ENCODER_LTR_MARKING_FEEDBACK,
    ENCODER_LTR_RECOVERY_REQUEST, ENCODER_OPTION_SVC_ENCODE_PARAM_EXT, LOW_COMPLEXITY, LTR_MARKING_FAILED,
    LTR_MARKING_SUCCESS, LTR_RECOVERY_REQUEST, PRO_BASELINE, RC_OFF_MODE, SEncParamExt, SLTRMarkingFeedback,
    SLTRRecoverRequest, SM_FIXEDSLCNUM_SLICE, TRC_BT709, VF_UNDEF,
};

use super::BACKEND;
use super::ffi::RawEncoder;
use super::long_term::{FRAMES_BETWEEN_MARKS, FRAMES_UNTIL_TRUSTED, LongTermReferences, Marked, Recovery};
use crate::h264::{
    Nal, NalUnits, ParameterSets, PictureReferences, SPS_BYTES_MAX, SliceHeader, UNIT_PPS, UNIT_SPS,
    write_sps_with_frame_num_gaps,
};
use crate::rate::RateController;
use crate::{
    CodecError, EncodeReport, EncodeRequest, EncodedSlice, Encoder, EncoderCapabilities, EncoderConfig,
    FrameInput, I420Buffer, SliceSink, convert,
};

/// Opens one for a checked configuration.
pub(crate) fn open_encoder(config: &EncoderConfig) -> Result<Box<dyn Encoder>, CodecError> {
    Ok(Box::new(OpenH264Encoder::open(config)?))
}

struct OpenH264Encoder {
    raw: RawEncoder,
    params: SEncParamExt,
    config: EncoderConfig,
    picture: I420Buffer,
    rate: RateController,
    sets: ParameterSets,
    references: PictureReferences,
    long_term: LongTermReferences,
    idr_id: u32,
    frames_since_keyframe: u32,
    frames_encoded: u64,
    last_frame_id: Option<u64>,
    /// A keyframe's first slice with its parameter sets before it. Sized for the worst slice.
    assembled: Vec<u8>,
}

/// What one call of the library made.
#[derive(Debug, Clone, Copy)]
struct Coded {
    header: SliceHeader,
    reference: Option<u64>,
    slices: u32,
}

impl OpenH264Encoder {
    fn open(config: &EncoderConfig) -> Result<Self, CodecError> {
        if config.intra_refresh {
            let reason = "OpenH264 has no intra refresh; reference invalidation is there instead";
            return Err(CodecError::Unavailable { backend: BACKEND, reason });
        }
        let picture = I420Buffer::new(config.width, config.height);
        let rate = RateController::new(config.width * config.height, config.bitrate_bps, config.fps as f32);
        let (raw, params) = RawEncoder::open(|params| set_params(params, config, &picture, &rate))?;
        // No macroblock takes more than 400 bytes: above that size the standard's raw mode is used.
        let rows = config.macroblock_rows().div_ceil(config.slices) + 1;
        let slice_bytes_max = (rows * config.width.div_ceil(16) * 400) as usize + 2 * SPS_BYTES_MAX;
        Ok(Self {
            raw,
            params,
            config: config.clone(),
            picture,
            rate,
            sets: ParameterSets::default(),
            references: PictureReferences::default(),
            long_term: LongTermReferences::default(),
            idr_id: 0,
            frames_since_keyframe: 0,
            frames_encoded: 0,
            last_frame_id: None,
            assembled: Vec::with_capacity(slice_bytes_max),
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

    /// Turns the request into what the library is told; returns whether the frame must be a keyframe.
    fn apply_request(&mut self, request: &EncodeRequest) -> Result<bool, CodecError> {
        let due =
            self.config.keyframe_interval.is_some_and(|interval| self.frames_since_keyframe >= interval);
        if self.last_frame_id.is_none() || request.force_keyframe || due {
            return Ok(true);
        }
        let recovery =
            request.reference_at_most.map_or(Recovery::None, |newest| self.long_term.recover(newest));
        match recovery {
            Recovery::Keyframe => return Ok(true),
            Recovery::LongTerm { lost } => {
                if let Some(lost) = lost {
                    self.tell_mark(lost, LTR_MARKING_FAILED as u32)?;
                }
                // "Frame lost, current unknown": the library then predicts from its confirmed long-term reference.
                self.raw.set_option(
                    ENCODER_LTR_RECOVERY_REQUEST,
                    &mut SLTRRecoverRequest {
                        uiFeedbackType: LTR_RECOVERY_REQUEST as u32,
                        uiIDRPicId: self.idr_id,
                        iLastCorrectFrameNum: 0,
                        iCurrentFrameNum: -1,
                        iLayerId: 0,
                    },
                )?;
            }
            Recovery::None => {
                if let Some(marked) = self.long_term.poll_confirmation(request.frame_id) {
                    self.tell_mark(marked, LTR_MARKING_SUCCESS as u32)?;
                }
            }
        }
        Ok(false)
    }

    fn tell_mark(&mut self, marked: Marked, feedback: u32) -> Result<(), CodecError> {
        self.raw.set_option(
            ENCODER_LTR_MARKING_FEEDBACK,
            &mut SLTRMarkingFeedback {
                uiFeedbackType: feedback,
                uiIDRPicId: self.idr_id,
                iLTRFrameNum: marked.frame_num as i32,
                iLayerId: 0,
            },
        )
    }

    /// Encodes the prepared picture and reads back what it became.
    fn code(&mut self, frame_id: u64, keyframe: bool, qp: u8) -> Result<Coded, CodecError> {
        let layer = &mut self.params.sSpatialLayers[0];
        if layer.iDLayerQp != i32::from(qp) {
            layer.iDLayerQp = i32::from(qp);
            self.raw.set_option(ENCODER_OPTION_SVC_ENCODE_PARAM_EXT, &mut self.params)?;
        }
        if keyframe {
            self.raw.force_keyframe()?;
        }
        self.raw
            .encode(&self.picture.view(), self.frames_encoded as i64 * 1000 / i64::from(self.config.fps))?;
        self.frames_encoded += 1;
        let mut header = None;
        let mut slices = 0;
        for nal in self.raw.units().flat_map(NalUnits::new) {
            if nal.is_slice() {
                slices += 1;
                if header.is_none() {
                    header = SliceHeader::parse(&nal, &self.sets);
                }
            } else {
                self.sets.record(&nal);
            }
        }
        let code = CodecError::Backend {
            backend: BACKEND,
            operation: "read back the slice header",
            code: slices.into(),
        };
        let header = header.ok_or(code)?;
        let reference = self.references.resolve(frame_id, &header);
        Ok(Coded { header, reference, slices })
    }

    /// Hands out the slices of the last coded frame; returns their bytes.
    fn hand_out(&mut self, frame_id: u64, coded: Coded, sink: &mut SliceSink<'_>) -> u32 {
        let keyframe = coded.header.idr;
        let (mut index, mut bytes) = (0, 0);
        self.assembled.clear();
        for unit in self.raw.units() {
            let Some(nal) = NalUnits::new(unit).next() else { continue };
            if !nal.is_slice() {
                append_parameter_set(&mut self.assembled, unit, &nal);
                continue;
            }
            let data = if self.assembled.is_empty() {
                unit
            } else {
                self.assembled.extend_from_slice(unit);
                &self.assembled
            };
            bytes += data.len() as u32;
            let last = index + 1 == coded.slices;
            sink(EncodedSlice { frame_id, index, last, keyframe, reference: coded.reference, data });
            self.assembled.clear();
            index += 1;
        }
        bytes
    }
}

impl Encoder for OpenH264Encoder {
    fn encode(
        &mut self,
        frame: FrameInput<'_>,
        request: &EncodeRequest,
        sink: &mut SliceSink<'_>,
    ) -> Result<EncodeReport, CodecError> {
        let start = Instant::now();
        let frame_id = request.frame_id;
        if self.last_frame_id.is_some_and(|last| frame_id != last + 1) {
            return Err(CodecError::Input("frame ids must increase by one"));
        }
        self.prepare(frame)?;
        let convert = start.elapsed();
        let mut keyframe = self.apply_request(request)?;
        let mut plan = self.rate.plan(keyframe);
        let mut coded = self.code(frame_id, keyframe, plan.qp)?;
        let too_new =
            coded.reference.zip(request.reference_at_most).is_some_and(|(used, newest)| used > newest);
        if too_new || (keyframe && !coded.header.idr) {
            keyframe = true;
            plan = self.rate.plan(true);
            coded = self.code(frame_id, true, plan.qp)?;
        }
        keyframe |= coded.header.idr;

        let first_slice = start.elapsed();
        let bytes = self.hand_out(frame_id, coded, sink);
        self.references.record(frame_id, &coded.header);
        self.long_term.on_encoded(frame_id, &coded.header);
        self.rate.on_encoded(keyframe, plan.qp, bytes);
        self.last_frame_id = Some(frame_id);
        self.frames_since_keyframe = if keyframe { 1 } else { self.frames_since_keyframe.saturating_add(1) };
        if keyframe {
            self.idr_id = coded.header.idr_id;
        }
        Ok(EncodeReport {
            frame_id,
            keyframe,
            reference: coded.reference,
            slices: coded.slices,
            bytes,
            budget_bytes: plan.budget_bits / 8,
            qp: plan.qp,
            convert,
            first_slice,
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

    fn on_acknowledged(&mut self, frame_id: u64) {
        self.long_term.on_acknowledged(frame_id);
    }

    fn capabilities(&self) -> EncoderCapabilities {
        EncoderCapabilities {
            backend: BACKEND,
            early_slices: false,
            reference_invalidation: true,
            reference_depth: FRAMES_UNTIL_TRUSTED as u32,
            keeps_acknowledged: true,
            intra_refresh: false,
            coded_size: (self.picture.width() as u32, self.picture.height() as u32),
        }
    }
}

/// Copies a parameter set, a sequence parameter set with gaps in `frame_num` allowed. Other units are left out.
fn append_parameter_set(to: &mut Vec<u8>, unit: &[u8], nal: &Nal<'_>) {
    let mut rewritten = [0; SPS_BYTES_MAX];
    match nal.unit_type() {
        UNIT_SPS => match write_sps_with_frame_num_gaps(nal, &mut rewritten) {
            Some(length) => to.extend_from_slice(&rewritten[..length]),
            None => to.extend_from_slice(unit),
        },
        UNIT_PPS => to.extend_from_slice(unit),
        _ => {}
    }
}

fn set_params(
    params: &mut SEncParamExt,
    config: &EncoderConfig,
    picture: &I420Buffer,
    rate: &RateController,
) {
    let (width, height) = (picture.width() as i32, picture.height() as i32);
    params.iUsageType = CAMERA_VIDEO_REAL_TIME; // screen mode chooses its references itself
    params.iPicWidth = width;
    params.iPicHeight = height;
    params.iTargetBitrate = config.bitrate_bps.min(i32::MAX as u64) as i32;
    params.iMaxBitrate = params.iTargetBitrate;
    params.iRCMode = RC_OFF_MODE;
    params.fMaxFrameRate = config.fps as f32;
    params.iTemporalLayerNum = 1;
    params.iSpatialLayerNum = 1;
    params.iComplexityMode = LOW_COMPLEXITY;
    params.uiIntraPeriod = 0;
    params.eSpsPpsIdStrategy = CONSTANT_ID;
    params.bPrefixNalAddingCtrl = false;
    params.bEnableSSEI = false;
    params.iEntropyCodingModeFlag = 0; // CAVLC: 3.6 against 15 ms to decode at 720p
    params.bEnableFrameSkip = false;
    params.bEnableLongTermReference = true;
    params.iLTRRefNum = 2; // what the library supports for camera content
    params.iLtrMarkPeriod = FRAMES_BETWEEN_MARKS;
    params.iNumRefFrame = 3; // those two and the frame before
    params.iMultipleThreadIdc = config.threads.min(config.slices) as u16;
    params.bUseLoadBalancing = false; // it moves slice borders between frames
    params.iLoopFilterDisableIdc = if config.deblocking { 2 } else { 1 }; // 2: inside slices only
    params.bEnableDenoise = false;
    params.bEnableBackgroundDetection = false;
    params.bEnableAdaptiveQuant = false;
    params.bEnableFrameCroppingFlag = true;
    params.bEnableSceneChangeDetect = false; // it inserts keyframes
    params.bIsLosslessLink = false;
    let layer = &mut params.sSpatialLayers[0];
    layer.iVideoWidth = width;
    layer.iVideoHeight = height;
    layer.fFrameRate = config.fps as f32;
    layer.iSpatialBitrate = params.iTargetBitrate;
    layer.iMaxSpatialBitrate = params.iTargetBitrate;
    layer.uiProfileIdc = PRO_BASELINE;
    layer.iDLayerQp = i32::from(rate.plan(true).qp);
    layer.sSliceArgument.uiSliceMode = SM_FIXEDSLCNUM_SLICE;
    layer.sSliceArgument.uiSliceNum = config.slices;
    layer.bVideoSignalTypePresent = true;
    layer.uiVideoFormat = VF_UNDEF as u8;
    layer.bFullRange = false;
    layer.bColorDescriptionPresent = true;
    layer.uiColorPrimaries = CP_BT709 as u8;
    layer.uiTransferCharacteristics = TRC_BT709 as u8;
    layer.uiColorMatrix = CM_BT709 as u8;
}

//! Which slices a decoder is given.
//!
//! Owns: the order of slices inside a frame and the knowledge which frames came out intact.
//! Never: decodes. Invariant: a slice of a frame whose chain of references is broken, whose earlier slices are
//! missing, or whose header cannot be read, is not decoded; the frame is reported once and then swallowed.
//!
//! Backends differ in what they do after a loss (demand a keyframe, conceal, show garbage), so this is
//! decided here, from the slice headers, for all of them alike.

use super::nal::{NalUnits, UNIT_IDR_SLICE};
use super::parameter_sets::ParameterSets;
use super::references::PictureReferences;
use super::slice_header::SliceHeader;
use crate::{ColorSpace, DecodeError};

/// What to do with a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Give it to the backend.
    Decode,
    /// Drop it; its frame was reported already, or is older than one that was begun.
    Swallow,
}

#[derive(Debug, Clone, Copy)]
struct FrameInProgress {
    frame_id: u64,
    index_next: u32,
    failed: bool,
    last_macroblock: Option<u32>,
    header: Option<SliceHeader>,
    color: ColorSpace,
}

/// A frame that has all its slices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FinishedFrame {
    pub(crate) frame_id: u64,
    pub(crate) keyframe: bool,
    pub(crate) color: ColorSpace,
}

/// Decides for every slice, and learns which frames came out.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    sets: ParameterSets,
    references: PictureReferences,
    keyframe_seen: bool,
    frame: Option<FrameInProgress>,
}

impl Admission {
    /// A slice came.
    pub(crate) fn handle_slice(
        &mut self,
        frame_id: u64,
        index: u32,
        data: &[u8],
    ) -> Result<Verdict, DecodeError> {
        match self.frame {
            Some(frame) if frame_id < frame.frame_id => return Ok(Verdict::Swallow),
            Some(frame) if frame_id == frame.frame_id => {}
            _ => self.begin(frame_id),
        }
        let Some(mut frame) = self.frame else { return Ok(Verdict::Swallow) };
        if frame.failed {
            return Ok(Verdict::Swallow);
        }
        let admitted = if index == frame.index_next {
            frame.index_next += 1;
            self.admit(&mut frame, data)
        } else {
            Err(DecodeError::SliceMissing { frame_id, index, expected: frame.index_next })
        };
        frame.failed = admitted.is_err();
        self.frame = Some(frame);
        admitted.map(|()| Verdict::Decode)
    }

    /// The backend could not decode a slice that was admitted: the frame will not be shown.
    pub(crate) fn on_slice_failed(&mut self) {
        if let Some(frame) = &mut self.frame {
            frame.failed = true;
        }
    }

    /// The backend put out the frame in progress. `None` if that frame had failed.
    pub(crate) fn on_frame_decoded(&mut self) -> Option<FinishedFrame> {
        let frame = self.frame.as_mut().filter(|frame| !frame.failed)?;
        let header = frame.header?;
        frame.failed = true; // further slices of it are not expected
        self.references.record(frame.frame_id, &header);
        self.keyframe_seen |= header.idr;
        Some(FinishedFrame { frame_id: frame.frame_id, keyframe: header.idr, color: frame.color })
    }

    /// The backend lost all it held.
    pub(crate) fn on_backend_reset(&mut self) {
        self.references = PictureReferences::default();
        self.keyframe_seen = false;
        self.on_slice_failed();
    }

    fn begin(&mut self, frame_id: u64) {
        self.frame = Some(FrameInProgress {
            frame_id,
            index_next: 0,
            failed: false,
            last_macroblock: None,
            header: None,
            color: ColorSpace::default(),
        });
    }

    fn admit(&mut self, frame: &mut FrameInProgress, data: &[u8]) -> Result<(), DecodeError> {
        let frame_id = frame.frame_id;
        let corrupt = DecodeError::Corrupt { frame_id };
        let mut slices = 0;
        for nal in NalUnits::new(data) {
            if !nal.is_slice() {
                self.sets.record(&nal).ok_or(corrupt)?;
                continue;
            }
            if !self.keyframe_seen && nal.unit_type() != UNIT_IDR_SLICE {
                return Err(DecodeError::KeyframeNeeded { frame_id });
            }
            let header = SliceHeader::parse(&nal, &self.sets).ok_or(corrupt)?;
            let in_order = frame
                .last_macroblock
                .map_or(header.first_macroblock == 0, |last| header.first_macroblock > last);
            let same_picture = frame
                .header
                .is_none_or(|first| first.frame_num == header.frame_num && first.idr == header.idr);
            if !in_order || !same_picture {
                return Err(corrupt);
            }
            if header.reference.is_some() && self.references.resolve(frame_id, &header).is_none() {
                return Err(DecodeError::ReferenceLost { frame_id });
            }
            if frame.header.is_none() {
                let sps = self.sets.find(header.pps_id).ok_or(corrupt)?.0;
                frame.color = sps.color;
                frame.header = Some(header);
            }
            frame.last_macroblock = Some(header.first_macroblock);
            slices += 1;
        }
        if slices == 0 { Err(corrupt) } else { Ok(()) }
    }
}

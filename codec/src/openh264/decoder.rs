//! The OpenH264 decoder, fed slice by slice.
//!
//! Owns: the order of calls that makes the library decode a slice at once instead of waiting for its frame:
//! parse the slice, then an empty call, which decodes all that was parsed and keeps the picture open.
//! Never: shows what the library concealed. Invariant: a picture is handed out only if every slice of it
//! was admitted and decoded without an error.
//!
//! Concealment is switched on inside the library all the same: without it one damaged slice makes it refuse
//! everything up to the next keyframe, while recovery here goes by references.

use openh264_sys2::{
    ERROR_CON_SLICE_COPY, SDecodingParam, SVideoProperty, VIDEO_BITSTREAM_AVC, dsDataErrorConcealed,
    dsErrorFree, dsInitialOptExpected, dsOutOfMemory, dsRefListNullPtrs, dsRefLost,
};

use super::BACKEND;
use super::ffi::RawDecoder;
use crate::h264::{Admission, FinishedFrame, Verdict};
use crate::{CodecError, DecodeError, DecodedFrame, Decoder, DecoderCapabilities, DecoderConfig};

/// Opens one.
pub(crate) fn open_decoder(config: &DecoderConfig) -> Result<Box<dyn Decoder>, CodecError> {
    let slice_bytes_max = config.slice_bytes_max;
    Ok(Box::new(OpenH264Decoder {
        raw: open_raw()?,
        admission: Admission::default(),
        finished: None,
        slice_bytes_max,
    }))
}

struct OpenH264Decoder {
    raw: RawDecoder,
    admission: Admission,
    /// Set while the library's output is a picture to show.
    finished: Option<FinishedFrame>,
    slice_bytes_max: usize,
}

impl Decoder for OpenH264Decoder {
    fn push_slice(&mut self, frame_id: u64, index: u32, last: bool, data: &[u8]) -> Result<(), DecodeError> {
        if data.len() > self.slice_bytes_max {
            self.admission.on_slice_failed();
            return Err(DecodeError::TooLarge { frame_id, bytes: data.len() });
        }
        if self.admission.handle_slice(frame_id, index, data)? == Verdict::Swallow {
            return Ok(());
        }
        self.finished = None;
        // A picture that the first call puts out is an older one, concealed: not for showing.
        let parsed = self.raw.decode(data)?;
        let decoded = self.raw.decode(&[])?;
        self.check(frame_id, parsed & !(dsDataErrorConcealed | dsRefLost))?;
        self.check(frame_id, decoded)?;
        if last {
            self.finished = if self.raw.has_picture() { self.admission.on_frame_decoded() } else { None };
            if self.finished.is_none() {
                self.admission.on_slice_failed();
                return Err(DecodeError::Corrupt { frame_id });
            }
        }
        Ok(())
    }

    fn poll_frame(&mut self) -> Result<Option<DecodedFrame<'_>>, DecodeError> {
        let Some(frame) = self.finished.take() else { return Ok(None) };
        let picture = self.raw.picture();
        Ok(picture.map(|picture| DecodedFrame {
            frame_id: frame.frame_id,
            keyframe: frame.keyframe,
            picture,
            color: frame.color,
        }))
    }

    fn reset(&mut self) -> Result<(), DecodeError> {
        self.finished = None;
        self.admission = Admission::default();
        self.raw =
            open_raw().map_err(|_| DecodeError::Backend { backend: BACKEND, operation: "open", code: 0 })?;
        Ok(())
    }

    fn capabilities(&self) -> DecoderCapabilities {
        DecoderCapabilities { backend: BACKEND, early_slices: true }
    }
}

impl OpenH264Decoder {
    /// Turns the library's state into an error of this frame.
    fn check(&mut self, frame_id: u64, state: i32) -> Result<(), DecodeError> {
        if state == dsErrorFree {
            return Ok(());
        }
        if state & (dsOutOfMemory | dsRefListNullPtrs | dsInitialOptExpected) != 0 {
            self.admission.on_backend_reset();
            return Err(DecodeError::Backend { backend: BACKEND, operation: "decode", code: state.into() });
        }
        self.admission.on_slice_failed();
        if state & dsRefLost != 0 {
            Err(DecodeError::ReferenceLost { frame_id })
        } else {
            Err(DecodeError::Corrupt { frame_id })
        }
    }
}

fn open_raw() -> Result<RawDecoder, CodecError> {
    let property =
        SVideoProperty { size: size_of::<SVideoProperty>() as u32, eVideoBsType: VIDEO_BITSTREAM_AVC };
    RawDecoder::open(&SDecodingParam {
        uiTargetDqLayer: u8::MAX,
        eEcActiveIdc: ERROR_CON_SLICE_COPY,
        sVideoProperty: property,
        ..SDecodingParam::default()
    })
}

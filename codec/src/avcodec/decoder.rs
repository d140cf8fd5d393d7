//! The libavcodec decoder, fed slice by slice.
//!
//! Owns: the meaning of what the library says. Never: shows what the library marks as damaged.
//! Invariant: a picture is handed out only if every slice of it was admitted and decoded without an error.

use super::BACKEND;
use super::ffi::{Pushed, RawDecoder};
use crate::h264::{Admission, FinishedFrame, Verdict};
use crate::{CodecError, DecodeError, DecodedFrame, Decoder, DecoderCapabilities, DecoderConfig};

/// Opens one.
pub(crate) fn open_decoder(config: &DecoderConfig) -> Result<Box<dyn Decoder>, CodecError> {
    let slice_bytes_max = config.slice_bytes_max;
    let raw = RawDecoder::open(slice_bytes_max)?;
    Ok(Box::new(AvcodecDecoder {
        raw,
        admission: Admission::default(),
        finished: None,
        begun: None,
        slice_bytes_max,
    }))
}

struct AvcodecDecoder {
    raw: RawDecoder,
    admission: Admission,
    /// Set while the library's picture is one to show.
    finished: Option<FinishedFrame>,
    /// The frame of which the library has some slices.
    begun: Option<u64>,
    slice_bytes_max: usize,
}

impl Decoder for AvcodecDecoder {
    fn push_slice(&mut self, frame_id: u64, index: u32, last: bool, data: &[u8]) -> Result<(), DecodeError> {
        if data.len() > self.slice_bytes_max {
            self.admission.on_slice_failed();
            return Err(DecodeError::TooLarge { frame_id, bytes: data.len() });
        }
        if self.admission.handle_slice(frame_id, index, data)? == Verdict::Swallow {
            return Ok(());
        }
        self.finished = None;
        if self.begun.is_some_and(|begun| begun != frame_id) {
            self.raw.abandon();
        }
        self.begun = Some(frame_id);
        let pushed = self.raw.push(data).inspect_err(|_| self.admission.on_backend_reset())?;
        let as_announced = match pushed {
            Pushed::Incomplete => !last,
            Pushed::Picture => last,
            Pushed::Damaged | Pushed::Refused => false,
        };
        if matches!(pushed, Pushed::Picture | Pushed::Damaged) {
            self.begun = None;
        }
        if as_announced && last {
            self.finished = self.admission.on_frame_decoded();
        }
        if !as_announced {
            self.admission.on_slice_failed();
            return Err(DecodeError::Corrupt { frame_id });
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
        self.begun = None;
        self.admission = Admission::default();
        self.raw = RawDecoder::open(self.slice_bytes_max).map_err(|_| DecodeError::Backend {
            backend: BACKEND,
            operation: "open",
            code: 0,
        })?;
        Ok(())
    }

    fn capabilities(&self) -> DecoderCapabilities {
        DecoderCapabilities { backend: BACKEND, early_slices: true }
    }
}

//! Calls into the OpenH264 library.
//!
//! Owns: the library's objects and every pointer that crosses. Never: decides anything about coding.
//! Invariant: an object is initialised from construction to drop, and is used by one thread at a time (all
//! calls take `&mut self`; the library keeps no state that is tied to a thread).
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};

use openh264_sys2::source::APILoader;
use openh264_sys2::{
    API, DECODER_OPTION, DECODER_OPTION_TRACE_LEVEL, ENCODER_OPTION, ENCODER_OPTION_TRACE_LEVEL, ISVCDecoder,
    ISVCDecoderVtbl, ISVCEncoder, ISVCEncoderVtbl, SBufferInfo, SDecodingParam, SEncParamExt, SFrameBSInfo,
    SSourcePicture, WELS_LOG_QUIET, videoFormatI420,
};

use super::BACKEND;
use crate::{CodecError, DecodeError, I420View, Plane};

/// An encoder object.
pub(super) struct RawEncoder {
    object: NonNull<ISVCEncoder>,
    output: Box<SFrameBSInfo>,
}

// SAFETY: the object is owned, not shared, and the library ties none of its state to the creating thread.
unsafe impl Send for RawEncoder {}

impl RawEncoder {
    /// Creates and initialises one. `set` changes the library's default parameters.
    pub(super) fn open(set: impl FnOnce(&mut SEncParamExt)) -> Result<(Self, SEncParamExt), CodecError> {
        let mut object = ptr::null_mut();
        // SAFETY: `object` is a valid place for the pointer that the call writes.
        let code = unsafe { APILoader.WelsCreateSVCEncoder(&raw mut object) };
        let object = NonNull::new(object).ok_or_else(|| failed("create", code))?;
        let mut encoder = Self { object, output: Box::default() };
        encoder.set_option(ENCODER_OPTION_TRACE_LEVEL, &mut { WELS_LOG_QUIET })?;
        let mut params = SEncParamExt::default();
        let defaults = encoder.table().GetDefaultParams.ok_or_else(|| failed("method table", 0))?;
        // SAFETY: the object is alive and `params` is a valid place for what the call writes.
        unsafe { defaults(object.as_ptr(), &raw mut params) };
        set(&mut params);
        let initialize = encoder.table().InitializeExt.ok_or_else(|| failed("method table", 0))?;
        // SAFETY: the object is alive; the parameters are read during the call only.
        match unsafe { initialize(object.as_ptr(), &raw const params) } {
            0 => Ok((encoder, params)),
            code => Err(failed("initialise", code)),
        }
    }

    /// Sets an option whose value has the type that the library documents for it.
    pub(super) fn set_option<T>(&mut self, option: ENCODER_OPTION, value: &mut T) -> Result<(), CodecError> {
        let set = self.table().SetOption.ok_or_else(|| failed("method table", 0))?;
        // SAFETY: the object is alive; the value is copied during the call. Callers pass the documented type.
        match unsafe { set(self.object.as_ptr(), option, ptr::from_mut(value).cast::<c_void>()) } {
            0 => Ok(()),
            code => Err(failed("set option", code)),
        }
    }

    /// Makes the next frame an IDR frame.
    pub(super) fn force_keyframe(&mut self) -> Result<(), CodecError> {
        let force = self.table().ForceIntraFrame.ok_or_else(|| failed("method table", 0))?;
        // SAFETY: the object is alive.
        match unsafe { force(self.object.as_ptr(), true) } {
            0 => Ok(()),
            code => Err(failed("force keyframe", code)),
        }
    }

    /// Encodes a picture whose planes were checked and which has the configured size.
    pub(super) fn encode(&mut self, picture: &I420View<'_>, timestamp_ms: i64) -> Result<(), CodecError> {
        let plane = |plane: Plane<'_>| plane.data.as_ptr().cast_mut();
        let source = SSourcePicture {
            iColorFormat: videoFormatI420,
            iStride: [picture.y.stride as c_int, picture.u.stride as c_int, picture.v.stride as c_int, 0],
            pData: [plane(picture.y), plane(picture.u), plane(picture.v), ptr::null_mut()],
            iPicWidth: picture.width as c_int,
            iPicHeight: picture.height as c_int,
            uiTimeStamp: timestamp_ms,
            ..SSourcePicture::default()
        };
        let encode = self.table().EncodeFrame.ok_or_else(|| failed("method table", 0))?;
        // SAFETY: the object is alive; the planes cover the size given (checked by the caller through
        // `I420View::check`) and the library only reads them, during the call.
        match unsafe { encode(self.object.as_ptr(), &raw const source, &raw mut *self.output) } {
            0 => Ok(()),
            code => Err(failed("encode", code)),
        }
    }

    /// The NAL units of the last frame, each with its start code.
    pub(super) fn units(&self) -> impl Iterator<Item = &[u8]> {
        let layers = usize::try_from(self.output.iLayerNum).unwrap_or(0);
        self.output.sLayerInfo.iter().take(layers).flat_map(|layer| {
            let mut at = 0usize;
            (0..usize::try_from(layer.iNalCount).unwrap_or(0)).map(move |index| {
                // SAFETY: the library filled `iNalCount` lengths, and as many bytes follow `pBsBuf`; both stay
                // until the next call, which needs `&mut self`.
                unsafe {
                    let length = usize::try_from(*layer.pNalLengthInByte.add(index)).unwrap_or(0);
                    let unit = std::slice::from_raw_parts(layer.pBsBuf.add(at), length);
                    at += length;
                    unit
                }
            })
        })
    }

    fn table(&self) -> &ISVCEncoderVtbl {
        // SAFETY: an object starts with a pointer to its method table, which is static.
        unsafe { &**self.object.as_ptr() }
    }
}

impl Drop for RawEncoder {
    fn drop(&mut self) {
        if let Some(uninitialize) = self.table().Uninitialize {
            // SAFETY: the object is alive; the call is harmless if initialisation had failed.
            unsafe { uninitialize(self.object.as_ptr()) };
        }
        // SAFETY: nothing uses the object afterwards.
        unsafe { APILoader.WelsDestroySVCEncoder(self.object.as_ptr()) };
    }
}

/// A decoder object.
pub(super) struct RawDecoder {
    object: NonNull<ISVCDecoder>,
    output: SBufferInfo,
}

// SAFETY: as for the encoder; threads inside the library are off.
unsafe impl Send for RawDecoder {}

impl RawDecoder {
    /// Creates and initialises one.
    pub(super) fn open(params: &SDecodingParam) -> Result<Self, CodecError> {
        let mut object = ptr::null_mut();
        // SAFETY: `object` is a valid place for the pointer that the call writes.
        let code = unsafe { APILoader.WelsCreateDecoder(&raw mut object) };
        let object = NonNull::new(object).ok_or_else(|| failed("create", code as c_int))?;
        let decoder = Self { object, output: SBufferInfo::default() };
        decoder.set_option(DECODER_OPTION_TRACE_LEVEL, &mut { WELS_LOG_QUIET })?;
        let initialize = decoder.table().Initialize.ok_or_else(|| failed("method table", 0))?;
        // SAFETY: the object is alive; the parameters are copied during the call.
        match unsafe { initialize(object.as_ptr(), ptr::from_ref(params)) } {
            0 => Ok(decoder),
            code => Err(failed("initialise", code as c_int)),
        }
    }

    /// Parses NAL units in Annex B form; with no bytes, decodes what was parsed. Returns the library's
    /// `DECODING_STATE`.
    pub(super) fn decode(&mut self, data: &[u8]) -> Result<c_int, DecodeError> {
        let fault = DecodeError::Backend { backend: BACKEND, operation: "decode", code: -1 };
        let Some(decode) = self.table().DecodeFrame2 else { return Err(fault) };
        let length = c_int::try_from(data.len()).map_err(|_| fault)?;
        let bytes = if data.is_empty() { ptr::null() } else { data.as_ptr() };
        let mut planes = [ptr::null_mut(); 3];
        // SAFETY: the object is alive, the bytes are copied during the call, and the two outputs are valid
        // places. The planes are also written to `output`, from where they are read.
        Ok(unsafe { decode(self.object.as_ptr(), bytes, length, planes.as_mut_ptr(), &raw mut self.output) })
    }

    /// Whether the last call put out a picture.
    pub(super) fn has_picture(&self) -> bool {
        self.output.iBufferStatus == 1
    }

    /// The picture that the last call put out.
    pub(super) fn picture(&self) -> Option<I420View<'_>> {
        if !self.has_picture() {
            return None;
        }
        // SAFETY: the library only ever fills this variant of the union.
        let info = unsafe { self.output.UsrData.sSystemBuffer };
        let (width, height) = (u32::try_from(info.iWidth).ok()?, u32::try_from(info.iHeight).ok()?);
        let plane = |index: usize, stride: c_int, width: u32, height: u32| {
            let (stride, data) = (usize::try_from(stride).ok()?, self.output.pDst[index]);
            if data.is_null() || stride < width as usize || height == 0 {
                return None;
            }
            let length = (height as usize - 1) * stride + width as usize;
            // SAFETY: a picture put out has `height` rows of `stride` bytes at this address, until the next
            // call, which needs `&mut self`.
            Some(Plane { data: unsafe { std::slice::from_raw_parts(data, length) }, stride })
        };
        let (chroma_width, chroma_height) = (width.div_ceil(2), height.div_ceil(2));
        Some(I420View {
            width,
            height,
            y: plane(0, info.iStride[0], width, height)?,
            u: plane(1, info.iStride[1], chroma_width, chroma_height)?,
            v: plane(2, info.iStride[1], chroma_width, chroma_height)?,
        })
    }

    fn set_option<T>(&self, option: DECODER_OPTION, value: &mut T) -> Result<(), CodecError> {
        let set = self.table().SetOption.ok_or_else(|| failed("method table", 0))?;
        // SAFETY: the object is alive; the value is copied during the call. Callers pass the documented type.
        match unsafe { set(self.object.as_ptr(), option, ptr::from_mut(value).cast::<c_void>()) } {
            0 => Ok(()),
            code => Err(failed("set option", code as c_int)),
        }
    }

    fn table(&self) -> &ISVCDecoderVtbl {
        // SAFETY: an object starts with a pointer to its method table, which is static.
        unsafe { &**self.object.as_ptr() }
    }
}

impl Drop for RawDecoder {
    fn drop(&mut self) {
        if let Some(uninitialize) = self.table().Uninitialize {
            // SAFETY: the object is alive; the call is harmless if initialisation had failed.
            unsafe { uninitialize(self.object.as_ptr()) };
        }
        // SAFETY: nothing uses the object afterwards.
        unsafe { APILoader.WelsDestroyDecoder(self.object.as_ptr()) };
    }
}

fn failed(operation: &'static str, code: c_int) -> CodecError {
    CodecError::Backend { backend: BACKEND, operation, code: code.into() }
}

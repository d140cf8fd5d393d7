//! Calls into the C shim over libavcodec (`shim/avcodec_shim.c`).
//!
//! Owns: the decoder object. Never: looks into a library structure.
//! Invariant: planes handed out are those of the last picture, which the object keeps until the next push.
#![allow(unsafe_code)]

use std::ptr::{self, NonNull};

use super::BACKEND;
use crate::{CodecError, DecodeError, I420View, Plane};

/// Mirrors `struct wavry_avcodec_picture`.
#[repr(C)]
struct RawPicture {
    planes: [*const u8; 3],
    strides: [i32; 3],
    width: i32,
    height: i32,
    damaged: i32,
}

#[repr(C)]
struct Object {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn wavry_avcodec_open(slice_bytes_max: usize) -> *mut Object;
    fn wavry_avcodec_close(decoder: *mut Object);
    fn wavry_avcodec_abandon(decoder: *mut Object);
    fn wavry_avcodec_push(
        decoder: *mut Object,
        data: *const u8,
        length: usize,
        picture: *mut RawPicture,
    ) -> i32;
}

/// What a push led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// The picture needs more slices.
    Incomplete,
    /// The picture is whole.
    Picture,
    /// The picture is whole, but not as it was coded.
    Damaged,
    /// The library refused the slice.
    Refused,
}

/// A decoder object.
pub(super) struct RawDecoder {
    object: NonNull<Object>,
    picture: RawPicture,
}

// SAFETY: the object is owned, not shared, and the library ties none of its state to the creating thread.
unsafe impl Send for RawDecoder {}

impl RawDecoder {
    /// Opens one.
    pub(super) fn open(slice_bytes_max: usize) -> Result<Self, CodecError> {
        // SAFETY: no pointers are passed.
        let object = NonNull::new(unsafe { wavry_avcodec_open(slice_bytes_max) });
        let reason = "libavcodec was built without an H.264 decoder";
        let object = object.ok_or(CodecError::Unavailable { backend: BACKEND, reason })?;
        let picture =
            RawPicture { planes: [ptr::null(); 3], strides: [0; 3], width: 0, height: 0, damaged: 0 };
        Ok(Self { object, picture })
    }

    /// Decodes part of a picture.
    pub(super) fn push(&mut self, data: &[u8]) -> Result<Pushed, DecodeError> {
        self.picture.planes = [ptr::null(); 3];
        // SAFETY: the object is alive, the bytes are copied during the call, the picture is a valid place.
        let code = unsafe {
            wavry_avcodec_push(self.object.as_ptr(), data.as_ptr(), data.len(), &raw mut self.picture)
        };
        // AVERROR(ENOMEM); every other error concerns the bytes.
        const OUT_OF_MEMORY: i32 = -12;
        match code {
            0 => Ok(Pushed::Incomplete),
            1.. if self.picture.damaged == 0 => Ok(Pushed::Picture),
            1.. => Ok(Pushed::Damaged),
            OUT_OF_MEMORY => {
                Err(DecodeError::Backend { backend: BACKEND, operation: "decode", code: code.into() })
            }
            _ => Ok(Pushed::Refused),
        }
    }

    /// Gives up a picture that was begun; others stay.
    pub(super) fn abandon(&mut self) {
        self.picture.planes = [ptr::null(); 3];
        // SAFETY: the object is alive.
        unsafe { wavry_avcodec_abandon(self.object.as_ptr()) };
    }

    /// The picture of the last push, if it completed one.
    pub(super) fn picture(&self) -> Option<I420View<'_>> {
        let (width, height) =
            (u32::try_from(self.picture.width).ok()?, u32::try_from(self.picture.height).ok()?);
        let plane = |index: usize, width: u32, height: u32| {
            let data = self.picture.planes[index];
            let stride = usize::try_from(self.picture.strides[index]).ok()?;
            if data.is_null() || stride < width as usize || height == 0 {
                return None;
            }
            let length = (height as usize - 1) * stride + width as usize;
            // SAFETY: the library's picture has `height` rows of `stride` bytes here; the object holds a
            // reference to it until the next push, which needs `&mut self`.
            Some(Plane { data: unsafe { std::slice::from_raw_parts(data, length) }, stride })
        };
        let (chroma_width, chroma_height) = (width.div_ceil(2), height.div_ceil(2));
        Some(I420View {
            width,
            height,
            y: plane(0, width, height)?,
            u: plane(1, chroma_width, chroma_height)?,
            v: plane(2, chroma_width, chroma_height)?,
        })
    }
}

impl Drop for RawDecoder {
    fn drop(&mut self) {
        // SAFETY: the object is alive and nothing uses it afterwards.
        unsafe { wavry_avcodec_close(self.object.as_ptr()) };
    }
}

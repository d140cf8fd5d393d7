//! Calls into the C shim over libx264 (`shim/x264_shim.c`).
//!
//! Owns: the encoder object and the way back from the library's threads into Rust.
//! Never: looks into a library structure. Invariant: the callback runs only during [`RawEncoder::encode`],
//! whose borrow of the receiver it uses.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};

use super::BACKEND;
use crate::{CodecError, I420View};

pub(super) type OnUnit = unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_void, i32, i32, i32, i32);

/// Mirrors `struct wavry_x264_config`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct RawConfig {
    pub(super) width: i32,
    pub(super) height: i32,
    pub(super) fps: i32,
    pub(super) threads: i32,
    pub(super) slice_count: i32,
    pub(super) slice_macroblocks: i32,
    pub(super) dpb_frames: i32,
    pub(super) intra_refresh_frames: i32,
    pub(super) deblocking: i32,
    pub(super) on_unit: Option<OnUnit>,
}

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            width: 0,
            height: 0,
            fps: 0,
            threads: 1,
            slice_count: 1,
            slice_macroblocks: 0,
            dpb_frames: 1,
            intra_refresh_frames: 0,
            deblocking: 0,
            on_unit: Some(on_unit),
        }
    }
}

/// Mirrors `struct wavry_x264_frame`.
#[repr(C)]
struct RawFrame {
    planes: [*const u8; 3],
    strides: [i32; 3],
    number: i64,
    keyframe: i32,
    qp: i32,
    context: *mut c_void,
}

#[repr(C)]
struct Object {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn wavry_x264_open(config: *const RawConfig) -> *mut Object;
    fn wavry_x264_close(encoder: *mut Object);
    fn wavry_x264_encode(encoder: *mut Object, frame: *const RawFrame) -> i32;
    fn wavry_x264_invalidate(encoder: *mut Object, number: i64) -> i32;
    fn wavry_x264_write(handle: *mut c_void, nal: *mut c_void, to: *mut u8) -> i32;
}

/// What kind of picture to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PictureKind {
    /// An IDR picture.
    Keyframe,
    /// Predicted from the newest reference that was not forgotten; IDR if there is none.
    Predicted,
    /// As intra refresh has it.
    Refreshing,
}

/// A NAL unit that the library has finished but not escaped.
pub(super) struct Unit {
    handle: *mut c_void,
    nal: *mut c_void,
    /// `nal_unit_type`.
    pub(super) unit_type: i32,
    /// First macroblock, for a slice.
    pub(super) first_macroblock: u32,
    /// Last macroblock, for a slice.
    pub(super) last_macroblock: u32,
    payload_bytes: usize,
}

impl Unit {
    /// Writes the unit with its start code at the end of `to`; grows it only if it is larger than any before.
    pub(super) fn append_to(&self, to: &mut Vec<u8>) {
        to.reserve(self.payload_bytes * 3 / 2 + 69);
        // SAFETY: `handle` and `nal` are what the library passed to the callback that this unit lives in, and
        // there are as many spare bytes as its header demands; it returns how many it wrote.
        unsafe {
            let written = wavry_x264_write(self.handle, self.nal, to.as_mut_ptr().add(to.len()));
            to.set_len(to.len() + usize::try_from(written).unwrap_or(0));
        }
    }
}

/// Receives units, from several threads at once.
pub(super) trait UnitReceiver: Sync {
    /// A unit is ready. It must be written before this returns.
    fn on_unit(&self, unit: &Unit);
    /// [`UnitReceiver::on_unit`] panicked; no more units are wanted.
    fn on_panic(&self, payload: Box<dyn std::any::Any + Send>);
}

/// An encoder object.
pub(super) struct RawEncoder {
    object: NonNull<Object>,
}

// SAFETY: the object is owned, not shared, and the library ties none of its state to the creating thread.
unsafe impl Send for RawEncoder {}

impl RawEncoder {
    /// Opens one.
    pub(super) fn open(config: &RawConfig) -> Result<Self, CodecError> {
        // SAFETY: the configuration is read during the call.
        let object = NonNull::new(unsafe { wavry_x264_open(ptr::from_ref(config)) });
        let object = object.ok_or(CodecError::Backend { backend: BACKEND, operation: "open", code: 0 })?;
        Ok(Self { object })
    }

    /// Encodes a picture whose planes were checked and which has the configured size; its units go to
    /// `receiver`. Numbers increase by one.
    pub(super) fn encode(
        &mut self,
        picture: &I420View<'_>,
        number: i64,
        kind: PictureKind,
        qp: u8,
        receiver: &dyn UnitReceiver,
    ) -> Result<(), CodecError> {
        let frame = RawFrame {
            planes: [picture.y, picture.u, picture.v].map(|plane| plane.data.as_ptr()),
            strides: [picture.y, picture.u, picture.v].map(|plane| plane.stride as i32),
            number,
            keyframe: match kind {
                PictureKind::Keyframe => 1,
                PictureKind::Predicted => 0,
                PictureKind::Refreshing => -1,
            },
            qp: qp.into(),
            // A thin pointer to the fat one: C can only carry the former.
            context: ptr::from_ref(&receiver).cast_mut().cast(),
        };
        // SAFETY: the object is alive; the planes cover the configured size (the caller's buffer has it); the
        // context outlives the call, during which alone the library calls back, from threads that it joins or
        // parks before it returns.
        let code = unsafe { wavry_x264_encode(self.object.as_ptr(), &raw const frame) };
        if code > 0 {
            Ok(())
        } else {
            Err(CodecError::Backend { backend: BACKEND, operation: "encode", code: code.into() })
        }
    }

    /// Forgets picture `number` and all later ones as references.
    pub(super) fn invalidate(&mut self, number: i64) -> Result<(), CodecError> {
        // SAFETY: the object is alive.
        match unsafe { wavry_x264_invalidate(self.object.as_ptr(), number) } {
            0 => Ok(()),
            code => Err(CodecError::Backend { backend: BACKEND, operation: "invalidate", code: code.into() }),
        }
    }
}

impl Drop for RawEncoder {
    fn drop(&mut self) {
        // SAFETY: the object is alive and nothing uses it afterwards.
        unsafe { wavry_x264_close(self.object.as_ptr()) };
    }
}

/// The way back from the library.
unsafe extern "C" fn on_unit(
    context: *mut c_void,
    handle: *mut c_void,
    nal: *mut c_void,
    unit_type: i32,
    first_macroblock: i32,
    last_macroblock: i32,
    payload_bytes: i32,
) {
    // SAFETY: the context is the one that `encode` made, which is waiting for this call to return; the receiver
    // may be shared between threads.
    let receiver = unsafe { *context.cast::<&dyn UnitReceiver>() };
    let unit = Unit {
        handle,
        nal,
        unit_type,
        first_macroblock: u32::try_from(first_macroblock).unwrap_or(0),
        last_macroblock: u32::try_from(last_macroblock).unwrap_or(0),
        payload_bytes: usize::try_from(payload_bytes).unwrap_or(0),
    };
    // A panic must not unwind into C.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| receiver.on_unit(&unit))) {
        receiver.on_panic(payload);
    }
}

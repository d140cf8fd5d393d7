//! The contract of a capture source: the newest picture of a screen, when it changed, and nothing else.
//!
//! A source owns the memory of its picture and lends it out until the next call; it never queues pictures and never
//! copies one for a reader. Kinds of memory that are not bytes (DMA-BUF) join as variants of [`FramePixels`].
#![forbid(unsafe_code)]

use std::time::Instant;

use crate::cursor::CursorUpdate;
use crate::error::DeviceError;
use crate::picture::{Bgrx, Geometry, Rect};

/// Why a capture failed.
pub type CaptureError = DeviceError;

/// Names a monitor of one source. [`Monitor::WHOLE_SCREEN`] names all of them together.
pub type MonitorId = u32;

/// A monitor as the display server tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Monitor {
    /// Names it in [`CaptureSource::select_monitor`].
    pub id: MonitorId,
    /// Its connector or name, such as `DP-1`.
    pub name: String,
    /// Left edge on the screen, in pixels.
    pub x: i32,
    /// Top edge on the screen, in pixels.
    pub y: i32,
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Refresh rate in Hz; 0 if the server does not tell.
    pub refresh_hz: f32,
    /// Whether the user made it the main one.
    pub primary: bool,
}

impl Monitor {
    /// The id of the whole screen, all monitors together. No real monitor has it.
    pub const WHOLE_SCREEN: MonitorId = 0;

    /// Its place on the screen.
    pub fn rect(&self) -> Rect {
        Rect::new(self.x, self.y, self.width, self.height)
    }
}

/// Pixels of a captured picture, where they lie.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum FramePixels<'a> {
    /// Bytes in this process's memory: blue, green, red, unused.
    Bgrx {
        /// All rows.
        data: &'a [u8],
        /// Bytes from one row to the next.
        stride: usize,
    },
}

/// A captured picture, lent until the next call on its source.
#[derive(Debug, Clone, Copy)]
pub struct CapturedFrame<'a> {
    /// Size of the picture; differs from the last one's after a resize.
    pub geometry: Geometry,
    /// Its left and top edge on the screen, in pixels: (0, 0) unless one of several monitors is captured.
    pub origin: (i32, i32),
    /// The whole picture, whatever changed of it.
    pub pixels: FramePixels<'a>,
    /// What changed since the last frame, in pixels of this picture. Everything outside is as it was. Empty if only
    /// the pointer changed.
    pub damage: &'a [Rect],
    /// When the source began to fetch this picture.
    pub started_at_ns: u64,
    /// When the picture was whole in memory.
    pub captured_at_ns: u64,
    /// The pointer, if its picture or place changed since the last frame.
    pub cursor: Option<CursorUpdate<'a>>,
}

impl<'a> CapturedFrame<'a> {
    /// The part of the screen that the picture shows.
    pub fn area(&self) -> Rect {
        Rect::new(self.origin.0, self.origin.1, self.geometry.width, self.geometry.height)
    }

    /// The picture, if it lies in this process's memory.
    pub fn as_bgrx(&self) -> Option<Bgrx<'a>> {
        let FramePixels::Bgrx { data, stride } = self.pixels;
        Bgrx::new(data, stride, self.geometry)
    }
}

/// Where pictures come from.
pub trait CaptureSource: Send {
    /// Size of the picture that the next frame will have, as far as is known now.
    fn geometry(&self) -> Geometry;

    /// Waits until something changed, at most until `deadline` (without one: for ever), and hands out the newest
    /// picture; `None` if nothing changed until then. The first call, and the first after [`refresh`](Self::refresh)
    /// or a resize, returns at once with everything damaged. Never more often than the frame rate that was set.
    ///
    /// # Errors
    /// When the display went away; [`DeviceError::retry`] says whether opening it again helps.
    fn capture(&mut self, deadline: Option<Instant>) -> Result<Option<CapturedFrame<'_>>, CaptureError>;

    /// Makes the next [`capture`](Self::capture) return at once with the whole picture, changed or not: for a viewer
    /// that has just joined, or a keyframe on an idle screen.
    fn refresh(&mut self);

    /// The pointer as it was at the last capture, if the source knows of one.
    fn cursor(&self) -> Option<CursorUpdate<'_>> {
        None
    }

    /// Bounds the frame rate from now on.
    fn set_max_fps(&mut self, fps: f32);

    /// The monitors there are.
    fn monitors(&self) -> &[Monitor];

    /// Captures this monitor from now on; [`Monitor::WHOLE_SCREEN`] for all of them together.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::DeviceFault::InvalidArgument) if there is no such monitor.
    fn select_monitor(&mut self, id: MonitorId) -> Result<(), CaptureError>;
}

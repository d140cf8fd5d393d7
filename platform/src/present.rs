//! The contract of a presenter: decoded pictures go in, the newest one is shown.
//!
//! The decode thread paints straight into the presenter's memory ([`Presenter::back`]) and hands it over by
//! [`Presenter::present`]; no pixel is copied in between. Invariant: latest wins. A picture that was overtaken before
//! it could be shown is dropped and counted.
#![forbid(unsafe_code)]

use crate::cursor::CursorUpdate;
use crate::error::DeviceError;
use crate::picture::{Bgrx, BgrxMut, Geometry};

/// Why a picture could not be handed over.
pub type PresentError = DeviceError;

/// What is known of a picture besides its pixels; comes back when it was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameInfo {
    /// The frame's number in its stream.
    pub frame_id: u64,
    /// When the picture was ready to be shown (decoded), in the presenter's clock.
    pub ready_at_ns: u64,
}

/// A picture that was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownFrame {
    /// Which one.
    pub info: FrameInfo,
    /// When it was handed to the display.
    pub shown_at_ns: u64,
}

/// Counts of a presenter since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PresentStats {
    /// Pictures handed over.
    pub presented: u64,
    /// Pictures shown.
    pub shown: u64,
    /// Pictures overtaken by a newer one before they could be shown.
    pub dropped: u64,
}

/// Shows pictures. Lives on the decode thread.
pub trait Presenter: Send {
    /// The picture to paint next, `geometry` large. What it holds before is of no meaning; paint all of it.
    fn back(&mut self, geometry: Geometry) -> BgrxMut<'_>;

    /// Hands over what was painted into [`back`](Self::back). Does not wait for the display.
    ///
    /// # Errors
    /// [`Lost`](crate::DeviceFault::Lost) when the window was closed.
    fn present(&mut self, info: FrameInfo) -> Result<(), PresentError>;

    /// Where the remote pointer is and what it looks like.
    ///
    /// # Errors
    /// [`Lost`](crate::DeviceFault::Lost) when the window was closed.
    fn set_cursor(&mut self, cursor: &CursorUpdate<'_>) -> Result<(), PresentError>;

    /// Counts so far.
    fn stats(&self) -> PresentStats;

    /// Copies `picture` and hands it over, for a caller that has it elsewhere already.
    ///
    /// # Errors
    /// As [`present`](Self::present).
    fn present_copy(&mut self, picture: &Bgrx<'_>, info: FrameInfo) -> Result<(), PresentError> {
        let mut back = self.back(picture.geometry());
        for y in 0..picture.geometry().height {
            back.row_mut(y).copy_from_slice(picture.row(y));
        }
        self.present(info)
    }
}

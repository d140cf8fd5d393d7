//! A window along the top edge of a display with a numbered strip in it.
//!
//! Owns the connection and the window; both end with the value. A viewer of the display can read from the
//! strip which frame it sees and how old it is. The X server paints a strip in one request, so a capture
//! never sees half of one.
#![forbid(unsafe_code)]

use x11rb::connection::{Connection as _, RequestConnection as _};
use x11rb::protocol::xproto::{
    ConnectionExt as _, CreateGCAux, CreateWindowAux, Gcontext, ImageFormat, Window, WindowClass,
};

use super::display::Display;
use crate::clock::monotonic_ns;
use crate::error::DeviceError;
use crate::picture::{BYTES_PER_PIXEL, Geometry, Picture};
use crate::testsource::{Code, Position, paint_code, strip_height};

/// The window.
#[derive(Debug)]
pub struct CodeWindow {
    display: Display,
    window: Window,
    context: Gcontext,
    picture: Picture,
    height: u32,
}

impl CodeWindow {
    /// Opens the window on a display of this size (`None`: the display in `DISPLAY`).
    ///
    /// # Errors
    /// When the display cannot be reached or has a pixel format that is not handled.
    pub fn open(display: Option<&str>, size: Geometry) -> Result<Self, DeviceError> {
        let display = Display::connect(display)?;
        display.require_bgrx()?;
        let height = strip_height(size);
        let id = || display.conn().generate_id().map_err(|e| display.id_error("create window", e));
        let (window, context) = (id()?, id()?);
        let failed = |e| display.connection_error("create window", e);
        let width = u16::try_from(size.width).unwrap_or(u16::MAX);
        let rows = u16::try_from(height).unwrap_or(u16::MAX);
        let aux = CreateWindowAux::new().override_redirect(1).background_pixel(0);
        let conn = display.conn();
        conn.create_window(
            x11rb::COPY_DEPTH_FROM_PARENT,
            window,
            display.root(),
            0,
            0,
            width,
            rows,
            0,
            WindowClass::INPUT_OUTPUT,
            x11rb::COPY_FROM_PARENT,
            &aux,
        )
        .map_err(failed)?;
        conn.create_gc(context, window, &CreateGCAux::new()).map_err(failed)?;
        conn.map_window(window).map_err(failed)?;
        // Strips of wide displays do not fit the classic request size.
        conn.prefetch_maximum_request_bytes();
        conn.flush().map_err(failed)?;
        Ok(Self { display, window, context, picture: Picture::new(size), height })
    }

    /// Shows `frame` and the time.
    ///
    /// # Errors
    /// When the display went away.
    pub fn paint(&mut self, frame: u32) -> Result<(), DeviceError> {
        let code = Code { frame, timestamp_us: monotonic_ns() / 1000 };
        paint_code(&mut self.picture.as_bgrx_mut(), Position::Top, &code);
        let width = self.picture.geometry().width;
        let strip = &self.picture.data()[..width as usize * self.height as usize * BYTES_PER_PIXEL];
        let failed = |e| self.display.connection_error("paint", e);
        let conn = self.display.conn();
        conn.put_image(
            ImageFormat::Z_PIXMAP,
            self.window,
            self.context,
            u16::try_from(width).unwrap_or(u16::MAX),
            u16::try_from(self.height).unwrap_or(u16::MAX),
            0,
            0,
            0,
            self.display.screen().root_depth,
            strip,
        )
        .map_err(failed)?;
        conn.flush().map_err(failed)
    }
}

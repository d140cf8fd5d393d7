//! The pointer of an X display: its picture (XFixes) and its place, apart from the screen's picture.
//!
//! Owns the last picture and place. Its picture is fetched only after the server said that it changed. Movement wakes
//! the capture through XInput's raw motion where the server has it; the place itself always comes from the server.
#![forbid(unsafe_code)]

use x11rb::connection::RequestConnection as _;
use x11rb::cookie::Cookie;
use x11rb::errors::{ConnectionError, ReplyError};
use x11rb::protocol::Event;
use x11rb::protocol::xfixes::{self, ConnectionExt as _, CursorNotifyMask, GetCursorImageReply};
use x11rb::protocol::xinput::{self, ConnectionExt as _};
use x11rb::protocol::xproto::{ConnectionExt as _, QueryPointerReply};
use x11rb::rust_connection::RustConnection;

use super::display::Display;
use crate::cursor::{CursorImage, CursorUpdate};
use crate::picture::Rect;

/// The requests of one capture that concern the pointer, in flight.
pub(super) struct PointerQuery<'c> {
    place: Cookie<'c, RustConnection, QueryPointerReply>,
    image: Option<Cookie<'c, RustConnection, GetCursorImageReply>>,
}

/// What is known of the pointer.
#[derive(Debug, Default)]
pub(super) struct Pointer {
    image: CursorImage,
    opaque: bool,
    x: i32,
    y: i32,
    visible: bool,
    image_changed: bool,
    moved: bool,
}

impl Pointer {
    /// Asks for notices of changes and movement.
    pub(super) fn watch(display: &Display) -> Result<Self, ReplyError> {
        let (conn, root) = (display.conn(), display.root());
        conn.xfixes_select_cursor_input(root, CursorNotifyMask::DISPLAY_CURSOR)?.check()?;
        if conn.extension_information(xinput::X11_EXTENSION_NAME)?.is_some() {
            let version = conn.xinput_xi_query_version(2, 2)?.reply()?;
            if (version.major_version, version.minor_version) >= (2, 2) {
                let masters = u16::from(u8::from(xinput::Device::ALL_MASTER));
                let mask =
                    xinput::EventMask { deviceid: masters, mask: vec![xinput::XIEventMask::RAW_MOTION] };
                conn.xinput_xi_select_events(root, &[mask])?.check()?;
            }
        }
        Ok(Self { image_changed: true, moved: true, ..Self::default() })
    }

    /// Takes note of `event` if it concerns the pointer.
    pub(super) fn on_event(&mut self, event: &Event) {
        match event {
            Event::XfixesCursorNotify(_) => self.image_changed = true,
            Event::XinputRawMotion(_) => self.moved = true,
            _ => {}
        }
    }

    /// Whether a capture would find a pointer that is not as it was.
    pub(super) fn may_have_changed(&self) -> bool {
        self.image_changed || self.moved
    }

    /// Sends what has to be asked.
    pub(super) fn ask<'c>(&mut self, display: &'c Display) -> Result<PointerQuery<'c>, ConnectionError> {
        self.moved = false;
        let image = if std::mem::take(&mut self.image_changed) {
            Some(xfixes::get_cursor_image(display.conn())?)
        } else {
            None
        };
        Ok(PointerQuery { place: display.conn().query_pointer(display.root())?, image })
    }

    /// Takes the answers; whether anything is not as it was. Places are told relative to `area`.
    pub(super) fn on_answer(&mut self, query: PointerQuery<'_>, area: Rect) -> Result<bool, ReplyError> {
        let mut changed = false;
        if let Some(image) = query.image {
            let image = image.reply()?;
            // The notice comes with every change of the current cursor, the serial with every different picture.
            if image.cursor_serial != self.image.serial || self.image.pixels.is_empty() {
                self.take_image(&image);
                changed = true;
            }
        }
        let place = query.place.reply()?;
        let (screen_x, screen_y) = (i32::from(place.root_x), i32::from(place.root_y));
        let (x, y) = (screen_x - area.x, screen_y - area.y);
        let visible = self.opaque && place.same_screen && area.contains(screen_x, screen_y);
        changed |= (x, y, visible) != (self.x, self.y, self.visible);
        (self.x, self.y, self.visible) = (x, y, visible);
        Ok(changed)
    }

    /// As of the last answer.
    pub(super) fn update(&self) -> CursorUpdate<'_> {
        CursorUpdate { shape: self.image.as_shape(), x: self.x, y: self.y, visible: self.visible }
    }

    fn take_image(&mut self, reply: &GetCursorImageReply) {
        let image = &mut self.image;
        image.serial = reply.cursor_serial;
        (image.width, image.height) = (u32::from(reply.width), u32::from(reply.height));
        (image.hot_x, image.hot_y) = (u32::from(reply.xhot), u32::from(reply.yhot));
        image.pixels.clear();
        // XFixes: 32-bit ARGB, premultiplied; little-endian that is BGRA.
        image.pixels.extend(reply.cursor_image.iter().flat_map(|pixel| pixel.to_le_bytes()));
        self.opaque = image.is_opaque_anywhere();
    }
}

//! A small X client that draws and listens, to see capture and injection from the outside.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::time::{Duration, Instant};

use wavry_platform::picture::{Bgrx, Geometry, Picture, Rect};
use x11rb::COPY_DEPTH_FROM_PARENT;
use x11rb::connection::Connection as _;
use x11rb::protocol::Event;
use x11rb::protocol::xproto::{
    ChangeGCAux, ConnectionExt as _, CreateGCAux, CreateWindowAux, EventMask, Gcontext, ImageFormat,
    InputFocus, Rectangle, Window, WindowClass,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

/// How long anything that must happen may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A window that covers the screen, in which tests draw and which receives input.
pub struct Client {
    pub conn: RustConnection,
    pub root: Window,
    pub window: Window,
    gc: Gcontext,
    geometry: Geometry,
}

impl Client {
    /// A black window over the whole screen of `display`, with the keyboard.
    pub fn open(display: &str) -> Self {
        let (conn, screen) = x11rb::connect(Some(display)).unwrap();
        let screen = conn.setup().roots[screen].clone();
        let (window, gc) = (conn.generate_id().unwrap(), conn.generate_id().unwrap());
        let events = EventMask::KEY_PRESS
            | EventMask::KEY_RELEASE
            | EventMask::BUTTON_PRESS
            | EventMask::BUTTON_RELEASE
            | EventMask::POINTER_MOTION;
        conn.create_window(
            COPY_DEPTH_FROM_PARENT,
            window,
            screen.root,
            0,
            0,
            screen.width_in_pixels,
            screen.height_in_pixels,
            0,
            WindowClass::INPUT_OUTPUT,
            0,
            &CreateWindowAux::new().background_pixel(0).override_redirect(1).event_mask(events),
        )
        .unwrap();
        conn.map_window(window).unwrap();
        conn.set_input_focus(InputFocus::POINTER_ROOT, window, 0u32).unwrap();
        conn.create_gc(gc, window, &CreateGCAux::new()).unwrap();
        let geometry = Geometry::new(screen.width_in_pixels.into(), screen.height_in_pixels.into());
        let client = Self { conn, root: screen.root, window, gc, geometry };
        client.sync();
        client
    }

    /// Waits until the server has done everything asked so far.
    pub fn sync(&self) {
        self.conn.sync().unwrap();
    }

    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Fills a rectangle with one colour, 0x00RRGGBB.
    pub fn fill(&self, rect: Rect, colour: u32) {
        self.conn.change_gc(self.gc, &ChangeGCAux::new().foreground(colour)).unwrap();
        let rect = Rectangle {
            x: rect.x as i16,
            y: rect.y as i16,
            width: rect.width as u16,
            height: rect.height as u16,
        };
        self.conn.poly_fill_rectangle(self.window, self.gc, &[rect]).unwrap();
        self.sync();
    }

    /// Draws a picture at `x`, `y`.
    pub fn draw(&self, picture: &Bgrx<'_>, x: i16, y: i16) {
        let geometry = picture.geometry();
        for row in 0..geometry.height {
            self.conn
                .put_image(
                    ImageFormat::Z_PIXMAP,
                    self.window,
                    self.gc,
                    geometry.width as u16,
                    1,
                    x,
                    y + row as i16,
                    0,
                    24,
                    picture.row(row),
                )
                .unwrap();
        }
        self.sync();
    }

    /// The next event that `pick` takes, within [`PATIENCE`].
    pub fn expect<T>(&self, what: &str, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.conn.poll_for_event().unwrap() {
                Some(event) => {
                    if let Some(found) = pick(&event) {
                        return found;
                    }
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        panic!("no {what} within {PATIENCE:?}");
    }

    /// All events that are there once the server has caught up.
    pub fn events(&self) -> Vec<Event> {
        self.sync();
        std::iter::from_fn(|| self.conn.poll_for_event().unwrap()).collect()
    }
}

/// A picture in which no two neighbouring pixels are alike.
pub fn motley(geometry: Geometry, seed: u64) -> Picture {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut picture = Picture::new(geometry);
    for pixel in picture.as_bgrx_mut().data_mut().as_chunks_mut::<4>().0 {
        *pixel = [rng.u8(..), rng.u8(..), rng.u8(..), 0];
    }
    picture
}

//! Injection into an X display through XTest.
//!
//! Owns a connection and remembers which keys and buttons it holds down. Invariant: nothing on the way of an event
//! waits for the server. Events are kept in a queue of fixed size; a flush asks whether the socket takes them (one
//! system call) and if so writes them all (another one). While another program holds the server
//! (`XGrabServer`) the socket fills up; then events stay in the queue and the flush says so. Errors of requests come
//! back later as events and are read, and dropped, now and then: XTest has none for requests that are well-formed.
#![forbid(unsafe_code)]

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use x11rb::connection::Connection as _;
use x11rb::protocol::xproto::{
    BUTTON_PRESS_EVENT, BUTTON_RELEASE_EVENT, KEY_PRESS_EVENT, KEY_RELEASE_EVENT, MOTION_NOTIFY_EVENT,
};
use x11rb::protocol::xtest::{self, ConnectionExt as _};

use super::display::Display;
use crate::clock::timespec;
use crate::error::{DeviceError, DeviceFault, Retry};
use crate::inject::{InjectError, InputInjector};
use crate::input::{
    BTN_BACK, BTN_EXTRA, BTN_FORWARD, BTN_LEFT, BTN_MIDDLE, BTN_RIGHT, BTN_SIDE, BTN_TASK, InputEvent,
};
use crate::picture::Rect;

/// X key codes are evdev's plus this (`xf86-input-evdev`, `MIN_KEYCODE`).
const KEYCODE_OFFSET: u32 = 8;
/// Detail of a motion request: absolute or relative.
const MOTION_ABSOLUTE: u8 = 0;
const MOTION_RELATIVE: u8 = 1;
/// X buttons that stand for one notch of the wheel.
const WHEEL_UP: u8 = 4;
const WHEEL_DOWN: u8 = 5;
const WHEEL_LEFT: u8 = 6;
const WHEEL_RIGHT: u8 = 7;
/// Notches carried out per event; more are a broken or hostile sender.
const NOTCHES_MAX: i32 = 31;
/// Counts moved per event; more are a broken or hostile sender.
const MOTION_MAX: f32 = 30_000.0;
/// Flushes between two looks at what the server sent back.
const FLUSHES_PER_READ: u32 = 64;
/// Events kept while the server takes none: a quarter of a second of a 1000 Hz mouse. Written at once they are 9 KiB,
/// which fits any socket that poll(2) calls writable.
const QUEUE_MAX: usize = 256;
/// How long the last releases may take at the end.
const END_WAIT: Duration = Duration::from_secs(1);

/// Injects into an X display.
#[derive(Debug)]
pub struct X11Injector {
    display: Display,
    area: Rect,
    keys: Held,
    buttons: Held,
    motion_x: Fraction,
    motion_y: Fraction,
    scroll_x: Fraction,
    scroll_y: Fraction,
    flushes: u32,
    /// Never grows: there is room for the release of everything that can be held down.
    queue: Vec<Fake>,
}

/// One request to XTest.
#[derive(Debug, Clone, Copy)]
struct Fake {
    kind: u8,
    detail: u8,
    x: i16,
    y: i16,
}

impl X11Injector {
    /// Opens `display`, or the one in `DISPLAY`. Absolute positions refer to the whole screen until
    /// [`set_area`](InputInjector::set_area).
    ///
    /// # Errors
    /// When the display cannot be reached or lacks XTEST.
    pub fn open(display: Option<&str>) -> Result<Self, InjectError> {
        let display = Display::connect(display)?;
        display.require(xtest::X11_EXTENSION_NAME, "input injection")?;
        let conn = display.conn();
        // The first request of an extension asks for its number; done here, none of the later ones waits.
        conn.xtest_get_version(2, 2)
            .map_err(|e| display.connection_error("open XTEST", e))?
            .reply()
            .map_err(|e| display.reply_error("open XTEST", e))?;
        let screen = display.screen();
        let area = Rect::new(0, 0, u32::from(screen.width_in_pixels), u32::from(screen.height_in_pixels));
        Ok(Self {
            area,
            keys: Held::default(),
            buttons: Held::default(),
            motion_x: Fraction::default(),
            motion_y: Fraction::default(),
            scroll_x: Fraction::default(),
            scroll_y: Fraction::default(),
            flushes: 0,
            queue: Vec::with_capacity(QUEUE_MAX + Held::CODES * 2),
            display,
        })
    }

    /// Room for `count` more events, if need be after a flush.
    fn make_room(&mut self, count: usize) -> Result<(), InjectError> {
        if self.queue.len() + count <= QUEUE_MAX {
            return Ok(());
        }
        self.flush()
    }

    fn push(&mut self, kind: u8, detail: u8, x: i16, y: i16) {
        self.queue.push(Fake { kind, detail, x, y });
    }

    /// Writes the queue, if the socket takes it within `wait`.
    fn write(&mut self, wait: Duration) -> Result<(), InjectError> {
        const OPERATION: &str = "inject";
        if self.queue.is_empty() {
            return Ok(());
        }
        let conn = self.display.conn();
        let mut socket = [PollFd::new(conn.stream(), PollFlags::OUT)];
        // Interrupted counts as not writable: the next flush asks again.
        if poll(&mut socket, Some(&timespec(wait))).unwrap_or(0) == 0 {
            let advice = "The X server takes no input at the moment: another program holds it, or it hangs.";
            return Err(DeviceError::new(
                self.display.name(),
                OPERATION,
                DeviceFault::Busy,
                Retry::Later,
                advice,
            ));
        }
        let root = self.display.root();
        for fake in self.queue.drain(..) {
            // Time 0: now. Device 0: the core pointer or keyboard. The dropped cookie leaves errors to come as events.
            conn.xtest_fake_input(fake.kind, fake.detail, 0, root, fake.x, fake.y, 0)
                .map_err(|e| self.display.connection_error(OPERATION, e))?;
        }
        conn.flush().map_err(|e| self.display.connection_error(OPERATION, e))?;
        self.flushes = self.flushes.wrapping_add(1);
        if self.flushes.is_multiple_of(FLUSHES_PER_READ) {
            // The socket must not fill with what the server tells every client.
            while conn.poll_for_event().map_err(|e| self.display.connection_error(OPERATION, e))?.is_some() {}
        }
        Ok(())
    }

    fn queue_releases(&mut self) {
        while let Some(key) = self.keys.take_any() {
            self.push(KEY_RELEASE_EVENT, key, 0, 0);
        }
        while let Some(button) = self.buttons.take_any() {
            self.push(BUTTON_RELEASE_EVENT, button, 0, 0);
        }
    }

    fn move_to(&mut self, x: f32, y: f32) -> Result<(), InjectError> {
        self.make_room(1)?;
        let (x, y) = (place(x, self.area.x, self.area.width), place(y, self.area.y, self.area.height));
        self.push(MOTION_NOTIFY_EVENT, MOTION_ABSOLUTE, x, y);
        Ok(())
    }

    fn move_by(&mut self, dx: f32, dy: f32) -> Result<(), InjectError> {
        self.make_room(1)?;
        let x = self.motion_x.whole(dx.clamp(-MOTION_MAX, MOTION_MAX));
        let y = self.motion_y.whole(dy.clamp(-MOTION_MAX, MOTION_MAX));
        if (x, y) != (0, 0) {
            self.push(MOTION_NOTIFY_EVENT, MOTION_RELATIVE, x as i16, y as i16);
        }
        Ok(())
    }

    fn scroll(&mut self, dx: f32, dy: f32) -> Result<(), InjectError> {
        // Both directions, a press and a release each; what was left of earlier notches can add one.
        self.make_room((NOTCHES_MAX as usize + 1) * 4)?;
        let limit = NOTCHES_MAX as f32;
        let right = self.scroll_x.whole(dx.clamp(-limit, limit));
        let up = self.scroll_y.whole(dy.clamp(-limit, limit));
        self.turn(up, WHEEL_UP, WHEEL_DOWN);
        self.turn(right, WHEEL_RIGHT, WHEEL_LEFT);
        Ok(())
    }

    fn turn(&mut self, notches: i32, positive: u8, negative: u8) {
        let button = if notches > 0 { positive } else { negative };
        for _ in 0..notches.abs() {
            self.push(BUTTON_PRESS_EVENT, button, 0, 0);
            self.push(BUTTON_RELEASE_EVENT, button, 0, 0);
        }
    }

    fn button(&mut self, button: u32, pressed: bool) -> Result<(), InjectError> {
        let Some(detail) = x_button(button) else {
            return Err(self.unknown("button", button));
        };
        self.make_room(1)?;
        if self.buttons.change(detail, pressed) {
            self.push(if pressed { BUTTON_PRESS_EVENT } else { BUTTON_RELEASE_EVENT }, detail, 0, 0);
        }
        Ok(())
    }

    fn key(&mut self, keycode: u32, pressed: bool) -> Result<(), InjectError> {
        let setup = self.display.conn().setup();
        let detail = keycode
            .checked_add(KEYCODE_OFFSET)
            .and_then(|code| u8::try_from(code).ok())
            .filter(|code| keycode != 0 && (setup.min_keycode..=setup.max_keycode).contains(code));
        let Some(detail) = detail else {
            return Err(self.unknown("key", keycode));
        };
        self.make_room(1)?;
        if self.keys.change(detail, pressed) {
            self.push(if pressed { KEY_PRESS_EVENT } else { KEY_RELEASE_EVENT }, detail, 0, 0);
        }
        Ok(())
    }

    fn unknown(&self, what: &str, code: u32) -> InjectError {
        let advice = format!("X11 cannot express the {what} with evdev code {code}; it was left out.");
        DeviceError::new(self.display.name(), "inject", DeviceFault::InvalidArgument, Retry::Never, advice)
    }
}

impl InputInjector for X11Injector {
    fn inject(&mut self, event: &InputEvent) -> Result<(), InjectError> {
        if !event.is_finite() {
            let advice = "The event holds a number that is none; it was left out.";
            let fault = DeviceFault::InvalidArgument;
            return Err(DeviceError::new(self.display.name(), "inject", fault, Retry::Never, advice));
        }
        match *event {
            InputEvent::MouseMoveAbs { x, y } => self.move_to(x, y),
            InputEvent::MouseMoveRel { dx, dy } => self.move_by(dx, dy),
            InputEvent::MouseButton { button, pressed } => self.button(button, pressed),
            InputEvent::Key { keycode, pressed } => self.key(keycode, pressed),
            InputEvent::Scroll { dx, dy } => self.scroll(dx, dy),
        }
    }

    fn flush(&mut self) -> Result<(), InjectError> {
        self.write(Duration::ZERO)
    }

    fn release_all(&mut self) -> Result<(), InjectError> {
        self.queue_releases();
        self.flush()
    }

    fn set_area(&mut self, area: Rect) {
        self.area = area;
    }
}

impl Drop for X11Injector {
    fn drop(&mut self) {
        // XTest does not release what a client held down when it leaves. If the server is gone there is nothing to
        // release.
        self.queue_releases();
        let _ = self.write(END_WAIT);
    }
}

/// Which of 256 codes are down.
#[derive(Debug, Default)]
struct Held([u64; 4]);

impl Held {
    /// Codes there are.
    const CODES: usize = 256;

    /// Notes the new state; whether it is one.
    fn change(&mut self, code: u8, pressed: bool) -> bool {
        let (word, bit) = (&mut self.0[usize::from(code / 64)], 1 << (code % 64));
        let before = *word;
        *word = if pressed { before | bit } else { before & !bit };
        *word != before
    }

    /// One that is down, which is then up.
    fn take_any(&mut self) -> Option<u8> {
        let (index, word) = (0u8..).zip(&mut self.0).find(|(_, word)| **word != 0)?;
        let bit = word.trailing_zeros() as u8;
        *word &= *word - 1;
        Some(index * 64 + bit)
    }
}

/// What is left of movements too small to carry out.
#[derive(Debug, Default)]
struct Fraction(f32);

impl Fraction {
    /// The whole steps in `delta` and what was left before.
    fn whole(&mut self, delta: f32) -> i32 {
        let sum = self.0 + delta;
        let whole = sum.trunc();
        self.0 = sum - whole;
        whole as i32
    }
}

/// The pixel at `fraction` of an edge that starts at `from`.
fn place(fraction: f32, from: i32, len: u32) -> i16 {
    let last = f64::from(len.saturating_sub(1));
    let pixel = (f64::from(fraction) * f64::from(len)).floor().clamp(0.0, last);
    (from + pixel as i32).clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
}

/// X buttons as the evdev driver of the X server numbers them.
fn x_button(button: u32) -> Option<u8> {
    Some(match button {
        BTN_LEFT => 1,
        BTN_MIDDLE => 2,
        BTN_RIGHT => 3,
        BTN_SIDE => 8,
        BTN_EXTRA => 9,
        BTN_FORWARD => 10,
        BTN_BACK => 11,
        BTN_TASK => 12,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_codes_are_remembered_once() {
        let mut held = Held::default();
        assert!(held.change(255, true) && held.change(0, true) && held.change(64, true));
        assert!(!held.change(64, true), "down already");
        assert!(held.change(0, false) && !held.change(0, false));
        assert_eq!([held.take_any(), held.take_any(), held.take_any()], [Some(64), Some(255), None]);
    }

    #[test]
    fn small_movements_add_up() {
        let mut fraction = Fraction::default();
        let steps: i32 = (0..100).map(|_| fraction.whole(0.25)).sum();
        assert_eq!(steps, 25);
        assert_eq!([fraction.whole(-0.5), fraction.whole(-0.75), fraction.whole(0.25)], [0, -1, 0]);
    }

    #[test]
    fn fractions_of_the_picture_are_pixels_of_the_area() {
        for pixel in 0..1280u32 {
            let fraction = (pixel as f32 + 0.5) / 1280.0;
            assert_eq!(place(fraction, 100, 1280), 100 + pixel as i16);
        }
        assert_eq!(
            [place(-3.0, 5, 10), place(0.0, 5, 10), place(1.0, 5, 10), place(9e30, 5, 10)],
            [5, 5, 14, 14]
        );
        assert_eq!(place(0.5, 0, 0), 0);
    }
}

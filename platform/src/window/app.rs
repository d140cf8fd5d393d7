//! The window's loop: what happens when something is to be shown or the user does something.
//!
//! Owns the window and its surface, on one thread. A new picture is drawn at once, not at the next redraw of the
//! window system: that would cost up to a refresh.
#![forbid(unsafe_code)]

use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use softbuffer::{Context, SoftBufferError, Surface};
use winit::application::ApplicationHandler;
use winit::dpi::{PhysicalPosition, PhysicalSize};
use winit::event::{DeviceEvent, DeviceId, ElementState, MouseScrollDelta, WindowEvent as Happening};
use winit::event_loop::{ActiveEventLoop, OwnedDisplayHandle};
use winit::platform::x11::WindowAttributesExtX11 as _;
use winit::window::{CursorGrabMode, CustomCursor, Fullscreen, Window as NativeWindow, WindowId};

use super::events::{EventSender, WindowEvent};
use super::keyboard::{Chord, Keyboard};
use super::keymap::{evdev_of_button, evdev_of_key};
use super::scale::{Scaler, draw_cursor, letterbox};
use super::{Command, DEVICE, MouseMode, RemoteCursor, Shared, WindowConfig};
use crate::clock::monotonic_ns;
use crate::cursor::CursorImage;
use crate::error::{DeviceError, DeviceFault, Retry};
use crate::input::InputEvent;
use crate::mailbox::PictureReader;
use crate::picture::{Geometry, Rect};
use crate::present::{PresentError, ShownFrame};

/// Pixels of a touchpad that make one notch of a wheel; what libinput and the desktops use.
const PIXELS_PER_NOTCH: f64 = 15.0;

type NativeSurface = Surface<OwnedDisplayHandle, Rc<NativeWindow>>;

pub(super) struct App {
    config: WindowConfig,
    reader: PictureReader,
    shared: Arc<Shared>,
    events: EventSender,
    native: Option<Native>,
    scaler: Scaler,
    keyboard: Keyboard,
    mouse: MouseMode,
    focused: bool,
    pointer_inside: bool,
    /// A picture was taken that was not drawn yet.
    unshown: bool,
    cursor: RemoteCursor,
    error: Option<PresentError>,
}

struct Native {
    window: Rc<NativeWindow>,
    surface: NativeSurface,
}

impl App {
    pub(super) fn new(
        config: WindowConfig,
        reader: PictureReader,
        shared: Arc<Shared>,
        events: EventSender,
    ) -> Self {
        Self {
            mouse: config.mouse,
            config,
            reader,
            shared,
            events,
            native: None,
            scaler: Scaler::default(),
            keyboard: Keyboard::default(),
            focused: false,
            pointer_inside: false,
            unshown: false,
            cursor: RemoteCursor::default(),
            error: None,
        }
    }

    /// The loop has ended.
    pub(super) fn on_end(&mut self) {
        self.release_all();
        self.shared.closed.store(true, Ordering::Release);
        self.native = None;
        self.events.send(WindowEvent::Closed);
    }

    /// Why the loop was left, if not by the user's wish.
    pub(super) fn take_error(&mut self) -> Option<PresentError> {
        self.error.take()
    }

    fn open_native(&self, event_loop: &ActiveEventLoop) -> Result<Native, PresentError> {
        let Geometry { width, height } = self.config.geometry;
        let attributes = NativeWindow::default_attributes()
            .with_title(self.title())
            .with_inner_size(PhysicalSize::new(width, height))
            .with_fullscreen(self.config.fullscreen.then_some(Fullscreen::Borderless(None)))
            .with_name("wavry-client", "wavry-client");
        let window = event_loop.create_window(attributes).map_err(|error| {
            let advice = "The display does not let a window be made.";
            DeviceError::new(DEVICE, "open", DeviceFault::System, Retry::Never, advice).caused_by(error)
        })?;
        let window = Rc::new(window);
        let context = Context::new(event_loop.owned_display_handle()).map_err(|e| draw_error(&e))?;
        let surface = Surface::new(&context, Rc::clone(&window)).map_err(|e| draw_error(&e))?;
        Ok(Native { window, surface })
    }

    /// Draws the newest picture and the pointer, if there is anything to draw on.
    fn draw(&mut self) -> Result<(), PresentError> {
        let cursor_drawn = self.draws_cursor();
        let Some(native) = &mut self.native else { return Ok(()) };
        let size = native.window.inner_size();
        let (Some(width), Some(height)) = (NonZeroU32::new(size.width), NonZeroU32::new(size.height)) else {
            // Minimised.
            return Ok(());
        };
        native.surface.resize(width, height).map_err(|e| draw_error(&e))?;
        let mut pixels = native.surface.buffer_mut().map_err(|e| draw_error(&e))?;
        let picture = self.reader.front().as_bgrx();
        let place = letterbox(picture.geometry(), Geometry::new(size.width, size.height));
        if place.is_empty() {
            pixels.fill(0);
        } else {
            self.scaler.draw(&picture, place, &mut pixels, size.width);
        }
        if cursor_drawn {
            let at = (self.cursor.x, self.cursor.y);
            draw_cursor(&self.cursor.image, at, picture.geometry(), place, &mut pixels, size.width);
        }
        native.window.pre_present_notify();
        pixels.present().map_err(|e| draw_error(&e))?;
        if std::mem::take(&mut self.unshown) {
            self.reader.on_shown();
            let shown = ShownFrame { info: self.reader.info(), shown_at_ns: monotonic_ns() };
            self.events.send(WindowEvent::Shown(shown));
        }
        Ok(())
    }

    fn draw_or_end(&mut self, event_loop: &ActiveEventLoop) {
        if let Err(error) = self.draw() {
            self.error.get_or_insert(error);
            event_loop.exit();
        }
    }

    /// The system's pointer wears the far side's shape while it is over the picture: it moves without delay. Anywhere
    /// else the far side's pointer is drawn.
    fn draws_cursor(&self) -> bool {
        self.cursor.visible && (self.mouse == MouseMode::Relative || !self.pointer_inside)
    }

    /// The far side's pointer changed.
    fn take_cursor(&mut self, event_loop: &ActiveEventLoop) -> bool {
        let remote = self.shared.cursor();
        if remote.updates == self.cursor.updates {
            return false;
        }
        let new_shape = remote.image.serial != self.cursor.image.serial || self.cursor.updates == 0;
        let was_drawn = self.draws_cursor();
        if new_shape {
            self.cursor.image.clone_from(&remote.image);
        }
        (self.cursor.x, self.cursor.y) = (remote.x, remote.y);
        (self.cursor.visible, self.cursor.updates) = (remote.visible, remote.updates);
        drop(remote);
        if new_shape
            && let (Some(native), Some(shape)) = (&self.native, custom_cursor(event_loop, &self.cursor.image))
        {
            native.window.set_cursor(shape);
        }
        self.show_system_cursor();
        was_drawn || self.draws_cursor()
    }

    fn show_system_cursor(&self) {
        if let Some(native) = &self.native {
            let unknown = self.cursor.updates == 0;
            native
                .window
                .set_cursor_visible(self.mouse == MouseMode::Absolute && (unknown || self.cursor.visible));
        }
    }

    fn set_mouse(&mut self, mode: MouseMode) {
        let changed = self.mouse != mode;
        self.mouse = mode;
        self.hold_mouse();
        if changed {
            self.events.send(WindowEvent::MouseMode(mode));
        }
    }

    /// Locks or frees the system's pointer as mode and focus want it.
    fn hold_mouse(&mut self) {
        let Some(native) = &self.native else { return };
        let window = &native.window;
        if self.mouse == MouseMode::Relative && self.focused {
            // X11 cannot lock; confined and invisible, with raw movement, comes to the same.
            let held = window
                .set_cursor_grab(CursorGrabMode::Locked)
                .or_else(|_| window.set_cursor_grab(CursorGrabMode::Confined));
            if let Err(error) = held {
                tracing::warn!(%error, "the display does not let the mouse be locked to the window");
            }
        } else if let Err(error) = window.set_cursor_grab(CursorGrabMode::None) {
            tracing::debug!(%error, "the mouse was not locked");
        }
        self.show_system_cursor();
        window.set_title(&self.title());
    }

    fn title(&self) -> String {
        let hint = match self.mouse {
            MouseMode::Absolute => "Ctrl+Alt+Shift locks the mouse",
            MouseMode::Relative => "Ctrl+Alt+Shift releases the mouse",
        };
        format!("{} ({hint}, F11 fullscreen)", self.config.title)
    }

    fn set_fullscreen(&self, fullscreen: bool) {
        if let Some(native) = &self.native {
            native.window.set_fullscreen(fullscreen.then_some(Fullscreen::Borderless(None)));
        }
    }

    fn send_input(&mut self, event: InputEvent) {
        self.events.send(WindowEvent::Input { event, at_ns: monotonic_ns() });
    }

    fn release_all(&mut self) {
        while let Some(event) = self.keyboard.poll_release() {
            self.send_input(event);
        }
    }

    fn on_key(&mut self, keycode: u32, pressed: bool) {
        let reaction = self.keyboard.on_key(keycode, pressed);
        if let Some(event) = reaction.event {
            self.send_input(event);
        }
        match reaction.chord {
            Some(Chord::Fullscreen) => {
                let now = self.native.as_ref().is_some_and(|native| native.window.fullscreen().is_some());
                self.set_fullscreen(!now);
            }
            Some(Chord::Mouse) => self.set_mouse(match self.mouse {
                MouseMode::Absolute => MouseMode::Relative,
                MouseMode::Relative => MouseMode::Absolute,
            }),
            None => {}
        }
    }

    fn on_moved(&mut self, position: PhysicalPosition<f64>) {
        if self.mouse == MouseMode::Relative {
            return;
        }
        let Some(native) = &self.native else { return };
        let size = native.window.inner_size();
        let window = Geometry::new(size.width, size.height);
        // Before the first picture the whole window stands for it.
        let picture =
            Some(self.reader.front().geometry()).filter(|g| !g.as_rect().is_empty()).unwrap_or(window);
        if let Some((x, y)) = fraction_of(position, letterbox(picture, window)) {
            self.send_input(InputEvent::MouseMoveAbs { x, y });
        }
    }

    fn on_focus(&mut self, focused: bool) {
        self.focused = focused;
        if !focused {
            self.release_all();
        }
        self.hold_mouse();
        self.events.send(WindowEvent::Focused(focused));
    }

    fn set_pointer_inside(&mut self, inside: bool, event_loop: &ActiveEventLoop) {
        let was_drawn = self.draws_cursor();
        self.pointer_inside = inside;
        if was_drawn != self.draws_cursor() {
            self.draw_or_end(event_loop);
        }
    }
}

impl ApplicationHandler<Command> for App {
    fn resumed(&mut self, event_loop: &ActiveEventLoop) {
        if self.native.is_some() {
            return;
        }
        match self.open_native(event_loop) {
            Ok(native) => {
                self.native = Some(native);
                self.hold_mouse();
                self.draw_or_end(event_loop);
            }
            Err(error) => {
                self.error = Some(error);
                event_loop.exit();
            }
        }
    }

    fn user_event(&mut self, event_loop: &ActiveEventLoop, command: Command) {
        match command {
            Command::Look => {
                // Cleared before looking: what comes after the look wakes again.
                self.shared.woken.store(false, Ordering::Release);
                let new_picture = self.reader.take();
                self.unshown |= new_picture;
                let new_cursor = self.take_cursor(event_loop);
                if new_picture || new_cursor {
                    self.draw_or_end(event_loop);
                }
            }
            Command::Title(title) => {
                self.config.title = title;
                if let Some(native) = &self.native {
                    native.window.set_title(&self.title());
                }
            }
            Command::Mouse(mode) => self.set_mouse(mode),
            Command::Fullscreen(fullscreen) => self.set_fullscreen(fullscreen),
            Command::Close => event_loop.exit(),
        }
    }

    fn window_event(&mut self, event_loop: &ActiveEventLoop, _window: WindowId, happening: Happening) {
        match happening {
            Happening::CloseRequested => event_loop.exit(),
            Happening::Resized(size) => {
                self.events.send(WindowEvent::Resized(Geometry::new(size.width, size.height)));
                self.draw_or_end(event_loop);
            }
            Happening::RedrawRequested => self.draw_or_end(event_loop),
            Happening::Focused(focused) => self.on_focus(focused),
            Happening::KeyboardInput { event, is_synthetic, .. } => {
                let pressed = event.state == ElementState::Pressed;
                // A synthetic press is a key that was down before the window got the keyboard; it was for others.
                if let Some(keycode) = evdev_of_key(event.physical_key).filter(|_| !(is_synthetic && pressed))
                {
                    self.on_key(keycode, pressed);
                }
            }
            Happening::CursorMoved { position, .. } => self.on_moved(position),
            Happening::CursorEntered { .. } => self.set_pointer_inside(true, event_loop),
            Happening::CursorLeft { .. } => self.set_pointer_inside(false, event_loop),
            Happening::MouseInput { state, button, .. } => {
                let button = evdev_of_button(button);
                let pressed = state == ElementState::Pressed;
                if let Some(event) = button.and_then(|button| self.keyboard.on_button(button, pressed)) {
                    self.send_input(event);
                }
            }
            Happening::MouseWheel { delta, .. } => self.send_input(scroll(delta)),
            _ => {}
        }
    }

    fn device_event(&mut self, _event_loop: &ActiveEventLoop, _device: DeviceId, event: DeviceEvent) {
        if let DeviceEvent::MouseMotion { delta: (dx, dy) } = event
            && self.mouse == MouseMode::Relative
            && self.focused
        {
            self.send_input(InputEvent::MouseMoveRel { dx: dx as f32, dy: dy as f32 });
        }
    }
}

/// Where on the picture, as fractions, a place in the window is. The middle of a pixel, so that rounding on the way
/// does not reach its neighbour.
fn fraction_of(position: PhysicalPosition<f64>, place: Rect) -> Option<(f32, f32)> {
    if place.is_empty() {
        return None;
    }
    let of = |at: f64, from: i32, len: u32| {
        ((at.floor() + 0.5 - f64::from(from)) / f64::from(len)).clamp(0.0, 1.0) as f32
    };
    Some((of(position.x, place.x, place.width), of(position.y, place.y, place.height)))
}

/// The library's positive directions move the content right and down, that is, scroll left and up.
fn scroll(delta: MouseScrollDelta) -> InputEvent {
    match delta {
        MouseScrollDelta::LineDelta(x, y) => InputEvent::Scroll { dx: -x, dy: y },
        MouseScrollDelta::PixelDelta(pixels) => InputEvent::Scroll {
            dx: (-pixels.x / PIXELS_PER_NOTCH) as f32,
            dy: (pixels.y / PIXELS_PER_NOTCH) as f32,
        },
    }
}

/// The far side's pointer as one of the system's; `None` for a shape that the system does not take.
fn custom_cursor(event_loop: &ActiveEventLoop, image: &CursorImage) -> Option<CustomCursor> {
    let straight = |colour: u8, alpha: u8| {
        let alpha = u32::from(alpha.max(1));
        ((u32::from(colour) * 255 + alpha / 2) / alpha).min(255) as u8
    };
    let rgba: Vec<u8> = image
        .pixels
        .as_chunks()
        .0
        .iter()
        .flat_map(|&[b, g, r, a]: &[u8; 4]| [straight(r, a), straight(g, a), straight(b, a), a])
        .collect();
    let small = |value: u32| u16::try_from(value).ok();
    let (width, height) = (small(image.width)?, small(image.height)?);
    let source =
        CustomCursor::from_rgba(rgba, width, height, small(image.hot_x)?, small(image.hot_y)?).ok()?;
    Some(event_loop.create_custom_cursor(source))
}

fn draw_error(error: &SoftBufferError) -> PresentError {
    let advice = "The display does not let the picture be drawn, or went away.";
    DeviceError::new(DEVICE, "draw", DeviceFault::Lost, Retry::Reopen, advice).caused_by(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_fractions_of_the_picture_not_of_the_window() {
        let place = Rect::new(100, 50, 200, 100);
        let at = |x, y| fraction_of(PhysicalPosition::new(x, y), place);
        assert_eq!(at(100.0, 50.0), Some((0.0025, 0.005)));
        assert_eq!(at(299.0, 149.0), Some((0.9975, 0.995)));
        assert_eq!(at(0.0, 9999.0), Some((0.0, 1.0)), "beside the picture is its edge");
        assert_eq!(fraction_of(PhysicalPosition::new(1.0, 1.0), Rect::default()), None);
    }

    #[test]
    fn scrolling_has_evdev_directions() {
        let expect = |dx, dy| InputEvent::Scroll { dx, dy };
        assert_eq!(scroll(MouseScrollDelta::LineDelta(1.0, 2.0)), expect(-1.0, 2.0));
        let pixels = PhysicalPosition::new(-30.0, -15.0);
        assert_eq!(scroll(MouseScrollDelta::PixelDelta(pixels)), expect(2.0, -1.0));
    }
}

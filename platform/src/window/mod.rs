//! The client's window: shows the newest picture, and turns what the user does into input events.
//!
//! Owns the window, its drawing surface and the state of keys and buttons in it. The window's loop runs on one thread
//! (on the main one, by habit of most systems); the decode thread holds a [`WindowPresenter`], whoever sends input
//! reads [`WindowEvents`], and anyone may hold a [`WindowHandle`]. No thread waits for another.
//!
//! `F11` toggles fullscreen. `Ctrl+Alt+Shift` locks the mouse to the window and sends its raw movement, for games, and
//! pressed again releases it; the title says which. Losing the keyboard releases everything that is held down.
#![forbid(unsafe_code)]

mod app;
mod events;
mod keyboard;
pub mod keymap;
pub mod scale;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use winit::error::EventLoopError;
use winit::event_loop::{ControlFlow, EventLoop, EventLoopProxy};
use winit::platform::wayland::EventLoopBuilderExtWayland as _;

pub use events::{EVENTS_MAX, Notify, WindowEvent, WindowEvents};

use crate::cursor::{CursorImage, CursorUpdate};
use crate::error::{DeviceError, DeviceFault, Retry};
use crate::mailbox::{PictureWriter, mailbox};
use crate::picture::{BgrxMut, Geometry};
use crate::present::{FrameInfo, PresentError, PresentStats, Presenter};

/// The device's name in errors.
const DEVICE: &str = "window";

/// How the mouse is told to the far side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MouseMode {
    /// By its place over the picture: desktops.
    #[default]
    Absolute,
    /// By its movement, locked to the window: games.
    Relative,
}

/// How to open a window.
pub struct WindowConfig {
    /// Its title; a hint about the mouse is added.
    pub title: String,
    /// Size of the picture area to begin with, in pixels.
    pub geometry: Geometry,
    /// Whether to begin in fullscreen.
    pub fullscreen: bool,
    /// How the mouse begins.
    pub mouse: MouseMode,
    /// Called after each event was queued, on the window's thread; wakes whoever reads them. Must not block.
    pub notify: Option<Notify>,
}

impl Default for WindowConfig {
    fn default() -> Self {
        Self {
            title: "Wavry".into(),
            geometry: Geometry::new(1280, 720),
            fullscreen: false,
            mouse: MouseMode::default(),
            notify: None,
        }
    }
}

/// A window before its loop runs.
pub struct Window {
    event_loop: EventLoop<Command>,
    app: app::App,
}

impl Window {
    /// Connects to the display: X11 or Wayland, whichever the session has. The window appears with [`run`](Self::run).
    /// One window per process.
    ///
    /// # Errors
    /// [`NoDisplay`](DeviceFault::NoDisplay) with what to do.
    pub fn open(mut config: WindowConfig) -> Result<(Self, WindowPresenter, WindowEvents), PresentError> {
        let mut builder = EventLoop::with_user_event();
        // On Linux any thread can run the loop; the setting is shared by both kinds of display.
        builder.with_any_thread(true);
        let event_loop = builder.build().map_err(open_error)?;
        event_loop.set_control_flow(ControlFlow::Wait);
        let handle = WindowHandle { proxy: event_loop.create_proxy() };
        let shared = Arc::new(Shared::default());
        let (writer, reader) = mailbox();
        let (sender, events) = events::events(config.notify.take());
        let app = app::App::new(config, reader, Arc::clone(&shared), sender);
        Ok((Self { event_loop, app }, WindowPresenter { writer, handle, shared }, events))
    }

    /// A handle for any thread.
    pub fn handle(&self) -> WindowHandle {
        WindowHandle { proxy: self.event_loop.create_proxy() }
    }

    /// Shows the window and runs until the user or a [`WindowHandle`] closes it.
    ///
    /// # Errors
    /// When the display does not let the window be made or drawn, or goes away.
    pub fn run(mut self) -> Result<(), PresentError> {
        let ended = self.event_loop.run_app(&mut self.app);
        self.app.on_end();
        if let Some(error) = self.app.take_error() {
            return Err(error);
        }
        ended.map_err(|error| {
            let advice = "The connection to the display broke.";
            DeviceError::new(DEVICE, "run", DeviceFault::Lost, Retry::Reopen, advice).caused_by(error)
        })
    }
}

/// Asks things of a running window, from any thread.
#[derive(Debug, Clone)]
pub struct WindowHandle {
    proxy: EventLoopProxy<Command>,
}

impl WindowHandle {
    /// Closes the window; its loop returns.
    ///
    /// # Errors
    /// [`Lost`](DeviceFault::Lost) if it is closed already, here and below.
    pub fn close(&self) -> Result<(), PresentError> {
        self.send(Command::Close)
    }

    /// Changes the title.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn set_title(&self, title: &str) -> Result<(), PresentError> {
        self.send(Command::Title(title.to_owned()))
    }

    /// Takes or releases the mouse.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn set_mouse_mode(&self, mode: MouseMode) -> Result<(), PresentError> {
        self.send(Command::Mouse(mode))
    }

    /// Enters or leaves fullscreen.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn set_fullscreen(&self, fullscreen: bool) -> Result<(), PresentError> {
        self.send(Command::Fullscreen(fullscreen))
    }

    fn send(&self, command: Command) -> Result<(), PresentError> {
        self.proxy.send_event(command).map_err(|_| {
            let advice = "The window was closed.";
            DeviceError::new(DEVICE, "present", DeviceFault::Lost, Retry::Never, advice)
        })
    }
}

/// Brings pictures into the window, from the decode thread.
#[derive(Debug)]
pub struct WindowPresenter {
    writer: PictureWriter,
    handle: WindowHandle,
    shared: Arc<Shared>,
}

impl WindowPresenter {
    /// Wakes the window's loop, once for any number of pictures until it has looked.
    fn wake(&self) -> Result<(), PresentError> {
        let woken = self.shared.woken.swap(true, Ordering::AcqRel);
        // A loop that has ended looks no more; sending is how that is noticed.
        if woken && !self.shared.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.handle.send(Command::Look)
    }
}

impl Presenter for WindowPresenter {
    fn back(&mut self, geometry: Geometry) -> BgrxMut<'_> {
        self.writer.back(geometry)
    }

    fn present(&mut self, info: FrameInfo) -> Result<(), PresentError> {
        self.writer.publish(info);
        self.wake()
    }

    fn set_cursor(&mut self, cursor: &CursorUpdate<'_>) -> Result<(), PresentError> {
        let mut remote = self.shared.cursor();
        if remote.image.serial != cursor.shape.serial || remote.updates == 0 {
            remote.image.copy_from(&cursor.shape);
        }
        remote.updates += 1;
        (remote.x, remote.y, remote.visible) = (cursor.x, cursor.y, cursor.visible);
        drop(remote);
        self.wake()
    }

    fn stats(&self) -> PresentStats {
        self.writer.stats()
    }
}

/// What other threads ask of the window's loop.
#[derive(Debug)]
enum Command {
    /// There is a new picture or pointer.
    Look,
    Title(String),
    Mouse(MouseMode),
    Fullscreen(bool),
    Close,
}

/// What presenter and window share besides the pictures.
#[derive(Debug, Default)]
struct Shared {
    /// The loop was woken and has not looked yet.
    woken: AtomicBool,
    closed: AtomicBool,
    cursor: Mutex<RemoteCursor>,
}

impl Shared {
    fn cursor(&self) -> MutexGuard<'_, RemoteCursor> {
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The far side's pointer.
#[derive(Debug, Default, Clone)]
struct RemoteCursor {
    image: CursorImage,
    x: i32,
    y: i32,
    visible: bool,
    updates: u64,
}

fn open_error(error: EventLoopError) -> PresentError {
    let (fault, advice) = match &error {
        EventLoopError::RecreationAttempt => (
            DeviceFault::InvalidArgument,
            "There was a window in this process already; only one is possible.",
        ),
        _ => (
            DeviceFault::NoDisplay,
            "No display can be opened: neither WAYLAND_DISPLAY nor DISPLAY leads to one that accepts this program. \
             Run it inside a graphical session, or without a window (headless).",
        ),
    };
    DeviceError::new(DEVICE, "open", fault, Retry::Never, advice).caused_by(error)
}

//! X11: capture through shared memory, injection through XTest, and a virtual display to run without a screen.
//!
//! Each source and injector owns a connection of its own, so that they can live on different threads and none waits
//! for the other's replies.

pub mod capture;
mod code_window;
pub mod display;
pub mod inject;
mod layout;
mod pointer;
mod shm;
pub mod xvfb;

pub use capture::{X11Capture, X11CaptureConfig};
pub use code_window::CodeWindow;
pub use inject::X11Injector;
pub use xvfb::Xvfb;

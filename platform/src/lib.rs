//! Capture, input injection and presentation on Linux.
//!
//! Owns everything that touches a display: the newest picture of a screen ([`capture`]), a deterministic picture
//! for measurements ([`testsource`]), input that reaches other programs ([`inject`]), and the place where decoded
//! pictures are shown ([`window`], [`headless`]). It never touches the network, a codec or a key, and it knows
//! nothing of the protocol.
//!
//! Invariant: pictures are never queued. A capture source hands out the newest picture there is, a presenter shows
//! the newest picture it was given; whatever was overtaken is dropped and counted.
//!
//! Times are nanoseconds of `CLOCK_MONOTONIC` ([`clock::monotonic_ns`]) and end in `_ns`. Pixels are BGRX: four
//! bytes blue, green, red, unused, rows from the top.

pub mod capture;
pub mod clock;
pub mod cursor;
pub mod error;
pub mod headless;
pub mod inject;
pub mod input;
pub mod mailbox;
pub mod pacer;
pub mod picture;
pub mod present;
pub mod screenshot;
pub mod testsource;
pub mod window;
pub mod x11;

pub use capture::{CaptureError, CaptureSource, CapturedFrame, FramePixels, Monitor};
pub use cursor::{CursorImage, CursorShape, CursorUpdate};
pub use error::{DeviceError, DeviceFault, Retry};
pub use inject::{InjectError, InputInjector};
pub use input::InputEvent;
pub use picture::{Bgrx, BgrxMut, Geometry, Picture, Rect};
pub use present::{FrameInfo, PresentError, PresentStats, Presenter};

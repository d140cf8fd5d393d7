//! The contract of an input injector: what a viewer did reaches the programs on this machine.
//!
//! An injector remembers what it holds down, so that a viewer that vanishes leaves no key stuck. It never waits for
//! an answer on the way of an event: it runs on the network thread.
#![forbid(unsafe_code)]

use crate::error::DeviceError;
use crate::input::InputEvent;
use crate::picture::Rect;

/// Why an injection failed.
pub type InjectError = DeviceError;

/// Makes input happen.
pub trait InputInjector: Send {
    /// Queues one event; it happens at the next [`flush`](Self::flush) or earlier. Pressing what is down and releasing
    /// what is up does nothing.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::DeviceFault::InvalidArgument) for a key or a number that cannot be expressed,
    /// [`Busy`](crate::DeviceFault::Busy) when the device has taken nothing for so long that the queue is full: in
    /// both cases this event is left out and nothing else changes. [`Lost`](crate::DeviceFault::Lost) when the device
    /// went away.
    fn inject(&mut self, event: &InputEvent) -> Result<(), InjectError>;

    /// Makes everything queued happen, in order.
    ///
    /// # Errors
    /// [`Busy`](crate::DeviceFault::Busy) when the device takes nothing at the moment: everything stays queued, flush
    /// again in some milliseconds. [`Lost`](crate::DeviceFault::Lost) when the device went away.
    fn flush(&mut self) -> Result<(), InjectError>;

    /// Releases every key and button that is held down, and flushes.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    fn release_all(&mut self) -> Result<(), InjectError>;

    /// The part of the screen to which fractions of [`InputEvent::MouseMoveAbs`] refer: the captured monitor.
    fn set_area(&mut self, area: Rect);
}

//! What a window tells the rest of the client, through a queue of fixed size.
//!
//! Owns the queue. The window's thread never waits for the reader: when the queue is full an event is dropped and
//! counted, and before the next one that fits the reader finds [`WindowEvent::InputLost`], so that it can put the far
//! side's keys right.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use super::MouseMode;
use crate::input::InputEvent;
use crate::picture::Geometry;
use crate::present::ShownFrame;

/// Events kept for a reader that does not read: four seconds of a 1000 Hz mouse.
pub const EVENTS_MAX: usize = 4096;

/// Something that happened in the window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WindowEvent {
    /// The user did something.
    Input {
        /// What.
        event: InputEvent,
        /// When the window was told.
        at_ns: u64,
    },
    /// Events were dropped because nobody read them; keys may have been released among them.
    InputLost,
    /// A picture was handed to the display.
    Shown(ShownFrame),
    /// The window has another size.
    Resized(Geometry),
    /// The window got the keyboard or lost it. What was held down was released before.
    Focused(bool),
    /// The user took or released the mouse.
    MouseMode(MouseMode),
    /// The user closed the window; nothing follows.
    Closed,
}

/// Called after an event was queued, on the window's thread; must not block.
pub type Notify = Box<dyn Fn() + Send>;

/// The reading end.
#[derive(Debug)]
pub struct WindowEvents {
    receiver: Receiver<WindowEvent>,
    dropped: Arc<AtomicU64>,
}

impl WindowEvents {
    /// The next event, if there is one.
    pub fn poll_event(&self) -> Option<WindowEvent> {
        self.receiver.try_recv().ok()
    }

    /// The next event, waiting for at most `timeout`. [`WindowEvent::Closed`] once the window is gone.
    pub fn wait_event(&self, timeout: Duration) -> Option<WindowEvent> {
        match self.receiver.recv_timeout(timeout) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(WindowEvent::Closed),
        }
    }

    /// Events dropped because nobody read them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The window's end.
pub(super) struct EventSender {
    sender: SyncSender<WindowEvent>,
    dropped: Arc<AtomicU64>,
    notify: Option<Notify>,
    lost: bool,
}

impl EventSender {
    pub(super) fn send(&mut self, event: WindowEvent) {
        if self.lost {
            self.lost = self.try_send(WindowEvent::InputLost).is_err();
        }
        if self.lost || self.try_send(event).is_err() {
            self.lost = true;
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if let Some(notify) = &self.notify {
            notify();
        }
    }

    fn try_send(&self, event: WindowEvent) -> Result<(), ()> {
        match self.sender.try_send(event) {
            // Nobody will ever read it: nothing is lost by dropping it.
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
            Err(TrySendError::Full(_)) => Err(()),
        }
    }
}

/// A connected queue.
pub(super) fn events(notify: Option<Notify>) -> (EventSender, WindowEvents) {
    let (sender, receiver) = sync_channel(EVENTS_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let sender = EventSender { sender, dropped: Arc::clone(&dropped), notify, lost: false };
    (sender, WindowEvents { receiver, dropped })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn a_full_queue_drops_counts_and_says_so() {
        let notices = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&notices);
        let (mut sender, events) = events(Some(Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        })));
        for _ in 0..EVENTS_MAX + 10 {
            sender.send(WindowEvent::Focused(true));
        }
        assert_eq!(events.dropped(), 10);
        assert_eq!(notices.load(Ordering::Relaxed), EVENTS_MAX);
        for _ in 0..EVENTS_MAX {
            assert_eq!(events.poll_event(), Some(WindowEvent::Focused(true)));
        }
        sender.send(WindowEvent::Closed);
        assert_eq!(events.poll_event(), Some(WindowEvent::InputLost));
        assert_eq!(events.poll_event(), Some(WindowEvent::Closed));
        assert_eq!(events.poll_event(), None);
        drop(sender);
        assert_eq!(events.wait_event(Duration::from_secs(1)), Some(WindowEvent::Closed));
    }
}

//! Waking a network thread from another thread.
//!
//! Owns an event counter that the sleeping thread's ring polls, and one atomic that says whether a write
//! to it is needed. Never blocks the caller.
//!
//! Invariant: after `wake` returns, the woken thread's next turn reports `woken`, and everything the
//! caller wrote before is visible to it. A write (the only system call) happens just when the thread is
//! asleep, so waking a busy or already woken thread costs one atomic swap.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::sys;

/// The thread runs and will look at this state before it sleeps.
const AWAKE: u8 = 0;
/// A wake-up is due and not yet reported.
const NOTIFIED: u8 = 1;
/// The thread is in the kernel or about to enter it: only a write ends its sleep.
const ASLEEP: u8 = 2;

/// Wakes one transport. Cheap to clone, usable from any thread, outlives the transport harmlessly.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: AtomicU8,
    event: File,
}

impl Waker {
    /// A waker that nobody sleeps on yet.
    ///
    /// # Errors
    ///
    /// When the process or the machine is out of file descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self { shared: Arc::new(Shared { state: AtomicU8::new(AWAKE), event: sys::event_fd()? }) })
    }

    /// Makes the owner's current or next turn return with `woken` set.
    #[inline]
    pub fn wake(&self) {
        if self.shared.state.swap(NOTIFIED, Ordering::AcqRel) == ASLEEP {
            // Fails only if the counter is at its maximum, and then the sleeper has been woken already.
            let _ = (&self.shared.event).write(&1u64.to_ne_bytes());
        }
    }

    /// Owner: about to sleep. False: a wake-up is due, so do not.
    #[inline]
    pub(crate) fn prepare_sleep(&self) -> bool {
        self.shared.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Owner: awake again, or asking while awake. True: a wake-up was due; it is taken by this call.
    #[inline]
    pub(crate) fn take(&self) -> bool {
        self.shared.state.swap(AWAKE, Ordering::AcqRel) == NOTIFIED
    }

    /// Owner: whether a wake-up is due, without taking it.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.shared.state.load(Ordering::Acquire) == NOTIFIED
    }

    /// Sets the event counter back, for who polls it by level.
    pub(crate) fn clear(&self) {
        // Fails where it is zero, which is what is wanted.
        let _ = (&self.shared.event).read(&mut [0; 8]);
    }

    /// The event counter to poll for input. The ring never reads it: each write is an edge.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.shared.event.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn written(waker: &Waker) -> u64 {
        let mut count = [0; 8];
        // An event counter is read whole or not at all.
        match (&waker.shared.event).read_exact(&mut count) {
            Ok(()) => u64::from_ne_bytes(count),
            Err(_) => 0,
        }
    }

    #[test]
    fn an_awake_owner_costs_no_write() {
        let waker = Waker::new().unwrap();
        for _ in 0..100 {
            waker.wake();
        }
        assert_eq!(written(&waker), 0);
        assert!(waker.is_due());
        assert!(!waker.prepare_sleep(), "a due wake-up forbids sleeping");
        assert!(waker.take());
        assert!(!waker.take());
    }

    #[test]
    fn a_sleeping_owner_is_written_to_once() {
        let waker = Waker::new().unwrap();
        assert!(waker.prepare_sleep());
        for _ in 0..100 {
            waker.wake();
        }
        assert_eq!(written(&waker), 1);
        assert!(waker.take());
    }

    #[test]
    fn waking_up_alone_is_not_a_wake_up() {
        let waker = Waker::new().unwrap();
        assert!(waker.prepare_sleep());
        assert!(!waker.take());
        assert!(waker.prepare_sleep(), "awake again, may sleep again");
    }
}

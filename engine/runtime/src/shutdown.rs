//! Orderly end on SIGINT and SIGTERM: a flag, and wake-ups for the threads that must see it. For programs that have something
//! to read again, SIGHUP asks for that.
//!
//! Owns the process's reaction to these signals once installed. Never runs code inside a signal handler but the
//! setting of flags: a thread of its own does the rest. Invariant: the first signal asks every thread to end; the
//! second, of either kind, ends the process at once with [`FORCED_EXIT_CODE`].

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{io, thread};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::Waker;

/// Exit code after a second signal: 128 + SIGINT, as shells report it.
pub const FORCED_EXIT_CODE: i32 = 130;

/// Whether the process was asked to end. Clones share the answer.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    requested: AtomicBool,
    signal: AtomicI32,
    wakers: Mutex<Vec<Waker>>,
}

impl Shutdown {
    /// A shutdown that only [`request`](Self::request) starts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over SIGINT and SIGTERM for the whole process. Call it once, early in `main`.
    ///
    /// # Errors
    ///
    /// When handlers cannot be installed or the waiting thread cannot be started.
    pub fn install() -> io::Result<Self> {
        let shutdown = Self::new();
        let armed = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Order matters: with the flag still unset the first signal passes the first handler, and then sets it.
            signal_hook::flag::register_conditional_shutdown(signal, FORCED_EXIT_CODE, Arc::clone(&armed))?;
            signal_hook::flag::register(signal, Arc::clone(&armed))?;
        }
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let asked = shutdown.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                tracing::info!(signal, "ending on signal; a second one ends at once");
                asked.shared.signal.store(signal, Ordering::Relaxed);
                asked.request();
            }
        })?;
        Ok(shutdown)
    }

    /// Takes over SIGHUP, which would end the process: from now on each sets the flag that is returned.
    ///
    /// # Errors
    ///
    /// When the handler cannot be installed.
    pub fn install_reload() -> io::Result<Arc<AtomicBool>> {
        let asked = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGHUP, Arc::clone(&asked))?;
        Ok(asked)
    }

    /// Whether to end. One atomic load: ask once per turn.
    #[inline]
    #[must_use]
    pub fn requested(&self) -> bool {
        self.shared.requested.load(Ordering::Acquire)
    }

    /// The signal that asked, if it was one.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        Some(self.shared.signal.load(Ordering::Relaxed)).filter(|&signal| signal != 0)
    }

    /// Asks every thread to end, and wakes those that [`notify`](Self::notify) named.
    pub fn request(&self) {
        // Set before the wakers are read: one that is added meanwhile is woken by `notify` itself.
        self.shared.requested.store(true, Ordering::Release);
        for waker in self.wakers().iter() {
            waker.wake();
        }
    }

    /// Wakes `waker` when the end is asked for; at once if it has been already.
    pub fn notify(&self, waker: Waker) {
        let mut wakers = self.wakers();
        if self.requested() {
            waker.wake();
        }
        wakers.push(waker);
    }

    fn wakers(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.shared.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_wakes_those_before_and_after_it() {
        let shutdown = Shutdown::new();
        let (before, after) = (Waker::new().unwrap(), Waker::new().unwrap());
        shutdown.notify(before.clone());
        assert!(!shutdown.requested() && !before.take());
        shutdown.clone().request();
        assert!(shutdown.requested() && before.take());
        shutdown.notify(after.clone());
        assert!(after.take());
        assert_eq!(shutdown.signal(), None);
    }
}

//! Waiting for several descriptors at once.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;

/// Descriptors to wait for input on.
pub(crate) struct PollSet {
    fds: Vec<libc::pollfd>,
}

impl PollSet {
    pub(crate) fn new(fds: impl IntoIterator<Item = RawFd>) -> Self {
        let fds = fds.into_iter().map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
        Self { fds }
    }

    /// Waits until one of them is readable, a signal comes, or `timeout_ns` is over (`None`: no limit).
    pub(crate) fn wait(&mut self, timeout_ns: Option<u64>) -> io::Result<()> {
        let timeout = timeout_ns.map(|ns| libc::timespec {
            tv_sec: libc::time_t::try_from(ns / 1_000_000_000).unwrap_or(libc::time_t::MAX),
            tv_nsec: (ns % 1_000_000_000) as libc::c_long,
        });
        let limit = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the array is valid for reads and writes of its length, and `limit` is null or valid for reads.
        let found = unsafe {
            libc::ppoll(self.fds.as_mut_ptr(), self.fds.len() as libc::nfds_t, limit, std::ptr::null())
        };
        if found < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
            for fd in &mut self.fds {
                fd.revents = 0;
            }
        }
        Ok(())
    }

    /// Whether the descriptor at `index` was readable (or broken) at the last wait.
    pub(crate) fn is_ready(&self, index: usize) -> bool {
        self.fds.get(index).is_some_and(|fd| fd.revents != 0)
    }
}

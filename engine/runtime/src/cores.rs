//! One thread per core: which cores there are, and making a thread stay on one with a name and a priority.
//!
//! Owns nothing. Never fails hard for lack of privilege: a thread at normal priority works, only less evenly,
//! so that is one clear line in the log.

#![forbid(unsafe_code)]

use std::ffi::CString;
use std::{io, thread};

use crate::sys;

/// Real-time priority of a network thread: above every normal thread, below the kernel's own interrupt
/// threads (50), which deliver its packets.
const FIFO_PRIORITY: i32 = 40;

/// Nice value where real-time priority is not allowed.
const NICE: i32 = -10;

/// Time slice of a network thread that may not be real-time: the shortest that the kernel takes. A thread that
/// wakes with a shorter slice than the running one's preempts it (EEVDF, Linux 6.12); with the same slice it may
/// wait for 3 ms behind an encoder on its core.
const SLICE_NS: u64 = 100_000;

/// The cores this process may use, ascending. The container's or `taskset`'s limits are already applied.
///
/// # Errors
///
/// When the kernel has more cores than the C library's set can name (1024).
pub fn allowed() -> io::Result<Vec<usize>> {
    sys::allowed_cores()
}

/// Keeps the calling thread on one core.
///
/// # Errors
///
/// `EINVAL` for a core that does not exist, is offline, or is not [`allowed`].
pub fn pin_to(core: usize) -> io::Result<()> {
    sys::set_core(core)
}

/// Names the calling thread in `top`, `perf` and crash reports. The kernel keeps 15 bytes.
///
/// # Errors
///
/// `EINVAL` for a name with a NUL byte in it.
pub fn set_name(name: &str) -> io::Result<()> {
    let name = CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    sys::set_thread_name(&name)
}

/// What [`raise_priority`] reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Real-time (`SCHED_FIFO`) at this priority.
    Fifo(i32),
    /// Normal scheduling with this nice value.
    Nice(i32),
    /// Nothing was allowed.
    Normal,
}

/// Raises the calling thread's priority as far as the system allows, and makes its timers exact.
///
/// A thread that spins must not be real-time on a core that others need: pass `realtime: false` for busy
/// polling on a shared machine.
pub fn raise_priority(realtime: bool) -> Priority {
    // Timers may by default be 50 us late, to be merged with others. Always allowed; real-time threads have
    // no slack anyway.
    if let Err(error) = sys::set_timer_slack_ns(1) {
        tracing::debug!(%error, "timer slack not set");
    }
    if realtime && sys::set_fifo(FIFO_PRIORITY).is_ok() {
        return Priority::Fifo(FIFO_PRIORITY);
    }
    if realtime && let Err(error) = sys::set_time_slice_ns(SLICE_NS) {
        tracing::debug!(%error, "time slice not set");
    }
    if sys::set_nice(NICE).is_ok() {
        return Priority::Nice(NICE);
    }
    tracing::warn!(
        "thread priority could not be raised: expect latency peaks under load; grant CAP_SYS_NICE (systemd: \
         AmbientCapabilities=CAP_SYS_NICE, LimitRTPRIO={FIFO_PRIORITY}) to change that"
    );
    Priority::Normal
}

/// Starts a named thread that is pinned before `run` begins. Where pinning is refused it runs unpinned, with
/// a line in the log.
///
/// # Errors
///
/// When the system cannot start a thread.
pub fn spawn_pinned<T: Send + 'static>(
    name: &str,
    core: usize,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<thread::JoinHandle<T>> {
    let label = name.to_owned();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        if let Err(error) = pin_to(core) {
            tracing::warn!(%error, "thread {label} could not be pinned to core {core}: running unpinned");
        }
        run()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_has_one_core_left() {
        let core = *allowed().unwrap().last().unwrap();
        let seen = spawn_pinned("pinned", core, || allowed().unwrap()).unwrap().join().unwrap();
        assert_eq!(seen, [core]);
        assert!(!allowed().unwrap().is_empty(), "other threads are not affected");
    }

    #[test]
    fn a_core_that_is_not_there_is_refused() {
        thread::spawn(|| {
            let before = allowed().unwrap();
            assert!(pin_to(1023).is_err());
            assert!(pin_to(usize::MAX).is_err());
            assert_eq!(allowed().unwrap(), before);
        })
        .join()
        .unwrap();
        let ran = spawn_pinned("unpinnable", 1023, || 7).unwrap().join().unwrap();
        assert_eq!(ran, 7);
    }

    #[test]
    fn names_are_visible_to_the_system() {
        thread::spawn(|| {
            set_name("a-very-long-thread-name").unwrap();
            let name = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
            assert_eq!(name.trim(), "a-very-long-thr");
            assert!(set_name("a\0b").is_err());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_shorter_time_slice_keeps_policy_and_nice_value() {
        thread::spawn(|| {
            let _ = sys::set_nice(3);
            sys::set_time_slice_ns(SLICE_NS).unwrap();
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
            assert_eq!((fields[19 - 3], fields[41 - 3]), ("3", "0"), "nice value and policy (proc(5))");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn raising_priority_says_what_it_reached() {
        thread::spawn(|| {
            let stat = || std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // Fields after the parenthesised name: state is 3, nice 19, policy 41 (proc(5)).
            let field = |number: usize| -> i64 {
                let stat = stat();
                let rest = stat.rsplit_once(')').unwrap().1;
                rest.split_whitespace().nth(number - 3).unwrap().parse().unwrap()
            };
            match raise_priority(false) {
                Priority::Nice(nice) => assert_eq!(field(19), i64::from(nice)),
                Priority::Normal => assert_eq!(field(19), 0),
                Priority::Fifo(_) => panic!("real-time was not asked for"),
            }
            match raise_priority(true) {
                Priority::Fifo(_) => assert_eq!(field(41), i64::from(libc::SCHED_FIFO)),
                _ => assert_eq!(field(41), i64::from(libc::SCHED_OTHER)),
            }
        })
        .join()
        .unwrap();
    }
}

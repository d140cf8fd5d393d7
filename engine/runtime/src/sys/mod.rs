//! The raw system calls of this crate that are not about sockets or rings, each wrapped so that its
//! callers are safe code.
//!
//! Owns nothing but memory ([`Region`], [`TxPool`]). Never interprets an error: it hands on `errno` as [`io::Error`].

mod region;
mod tx_pool;

pub(crate) use region::Region;
pub use tx_pool::{TxPool, TxSlot};

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// `CLOCK_MONOTONIC` in nanoseconds.
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// `CLOCK_MONOTONIC` minus `CLOCK_REALTIME`, modulo 2^64: what turns a packet's time stamp into the engine's time.
///
/// The two clocks are read one after the other; the narrowest of three tries keeps out a preemption in between.
pub(crate) fn monotonic_minus_realtime_ns() -> u64 {
    let (mut narrowest, mut difference) = (u64::MAX, 0);
    for _ in 0..3 {
        let before = monotonic_ns();
        let realtime = clock_ns(libc::CLOCK_REALTIME);
        let width = monotonic_ns() - before;
        if width < narrowest {
            narrowest = width;
            difference = (before + width / 2).wrapping_sub(realtime);
        }
        if width < 1_000 {
            break;
        }
    }
    difference
}

#[inline]
#[allow(unsafe_code)]
fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place for the result. The call cannot fail for these two clocks, and if it
    // did the zero written above would be read.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    // Both parts of these two clocks are non-negative.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// A new event counter, non-blocking and closed on exec.
#[allow(unsafe_code)]
pub(crate) fn event_fd() -> io::Result<File> {
    // SAFETY: no pointers are passed; the result is checked before it is used.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just returned to us and has no other owner.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// The cores that the calling thread may run on, ascending.
#[allow(unsafe_code)]
pub(crate) fn allowed_cores() -> io::Result<Vec<usize>> {
    // SAFETY: `cpu_set_t` is a plain bit mask for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid for writes of the size that is passed.
    let failed = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0;
    if failed {
        return Err(io::Error::last_os_error());
    }
    let most = 8 * size_of::<libc::cpu_set_t>();
    // SAFETY: `core` is below the number of bits in the set.
    Ok((0..most).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect())
}

/// Restricts the calling thread to one core.
#[allow(unsafe_code)]
pub(crate) fn set_core(core: usize) -> io::Result<()> {
    if core >= 8 * size_of::<libc::cpu_set_t>() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: as in `allowed_cores`.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `core` was checked to be below the number of bits in the set.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` is valid for reads of the size that is passed.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) })
}

/// Names the calling thread; the kernel keeps 15 bytes.
#[allow(unsafe_code)]
pub(crate) fn set_thread_name(name: &CStr) -> io::Result<()> {
    // SAFETY: PR_SET_NAME reads a NUL-terminated string, of which it uses 15 bytes.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) })
}

/// Puts the calling thread under `SCHED_FIFO`. `RESET_ON_FORK` keeps children at normal priority.
#[allow(unsafe_code)]
pub(crate) fn set_fifo(priority: i32) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: `param` is valid for reads; 0 names the calling thread.
    check(unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const param)
    })
}

/// Sets the calling thread's nice value (Linux keeps it per thread).
#[allow(unsafe_code)]
pub(crate) fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: no pointers; `PRIO_PROCESS` with id 0 is the calling thread on Linux.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) })
}

/// Asks for this time slice under normal scheduling, keeping the nice value. Kernels that know none ignore it.
#[allow(unsafe_code)]
pub(crate) fn set_time_slice_ns(slice_ns: u64) -> io::Result<()> {
    /// `struct sched_attr` as of its first version (`linux/sched/types.h`).
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    // SAFETY: no pointers; `PRIO_PROCESS` with id 0 is the calling thread on Linux. -1 is a nice value too, and
    // these arguments cannot fail.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: libc::SCHED_OTHER as u32,
        flags: 0,
        nice,
        priority: 0,
        runtime: slice_ns,
        deadline: 0,
        period: 0,
    };
    // SAFETY: `attributes` is valid for reads of the size that it states; 0 names the calling thread.
    let failed = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets by how many nanoseconds the kernel may delay the calling thread's timers to merge wake-ups.
#[allow(unsafe_code)]
pub(crate) fn set_timer_slack_ns(slack_ns: u64) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, slack_ns, 0, 0, 0) })
}

/// The running kernel's release, as `uname -r` prints it.
#[allow(unsafe_code)]
pub(crate) fn kernel_release() -> io::Result<String> {
    // SAFETY: `utsname` is arrays of characters, for which all zeroes is valid.
    let mut names: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `names` is valid for writes.
    check(unsafe { libc::uname(&raw mut names) })?;
    let bytes: Vec<u8> =
        names.release.iter().map(|&c| c.to_ne_bytes()[0]).take_while(|&byte| byte != 0).collect();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

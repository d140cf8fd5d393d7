//! A loaded XDP program.
//!
//! Owns a descriptor of it. Never attaches it: [`attach`](crate::attach) does. Invariant: the program stays loaded
//! while a `Program`, or a link to a device, is alive, and no longer; it is never pinned.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Once;

use libbpf_rs::{ErrorKind, PrintLevel, ProgramMut};

use crate::sys;

/// Every compiled object by the name of its source, for checking that a kernel takes them all.
pub const OBJECTS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/objects.rs"));

/// What an XDP program decided about a frame (`enum xdp_action`, linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The program failed; the frame is dropped.
    Aborted,
    /// Dropped.
    Drop,
    /// Goes on to the kernel's stack.
    Pass,
    /// Sent back out of the device that it came from.
    Tx,
    /// Given to another device or to a socket.
    Redirect,
    /// A value that no kernel acts on.
    Unknown(u32),
}

impl From<u32> for Verdict {
    fn from(value: u32) -> Self {
        match value {
            0 => Self::Aborted,
            1 => Self::Drop,
            2 => Self::Pass,
            3 => Self::Tx,
            4 => Self::Redirect,
            other => Self::Unknown(other),
        }
    }
}

/// What a program made of one frame in a [test run](Program::test_run).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// Its decision.
    pub verdict: Verdict,
    /// Bytes of the frame as it left it.
    pub len: usize,
    /// Mean time of a run.
    pub duration_ns: u32,
}

/// A loaded XDP program.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
}

impl Program {
    /// Keeps a program of a loaded skeleton beyond the skeleton.
    ///
    /// # Errors
    ///
    /// When the process is out of file descriptors.
    pub fn keep(program: &ProgramMut<'_>) -> io::Result<Self> {
        Ok(Self { fd: program.as_fd().try_clone_to_owned()? })
    }

    /// Runs the program on one frame without a device (`BPF_PROG_TEST_RUN`), `repeat` times. The frame as it was
    /// left goes to `output`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a frame shorter than an Ethernet header or longer than a page less its headroom.
    pub fn test_run(&self, frame: &[u8], output: &mut [u8], repeat: u32) -> io::Result<TestRun> {
        let run = sys::bpf::test_run(self.fd.as_fd(), frame, output, repeat, None)?;
        Ok(TestRun { verdict: run.verdict.into(), len: run.len, duration_ns: run.duration_ns })
    }

    /// [`test_run`](Self::test_run), once, with a frame that comes from a receive queue of a device.
    ///
    /// # Errors
    ///
    /// As there, and `ENODEV` or `EINVAL` for a device or queue that does not exist.
    pub fn test_run_from(
        &self,
        device: u32,
        queue: u32,
        frame: &[u8],
        output: &mut [u8],
    ) -> io::Result<TestRun> {
        let run = sys::bpf::test_run(self.fd.as_fd(), frame, output, 1, Some((device, queue)))?;
        Ok(TestRun { verdict: run.verdict.into(), len: run.len, duration_ns: run.duration_ns })
    }

    /// Runs the program `repeat` times on copies of `frame` that really travel: redirected ones reach their device.
    /// `batch` of them (at most 256) leave together.
    ///
    /// # Errors
    ///
    /// `EINVAL` on kernels before 5.18, and for a frame that does not fit a page with its headroom; `EINTR` after a
    /// signal.
    pub fn run_live(&self, frame: &[u8], repeat: u32, batch: u32) -> io::Result<()> {
        sys::bpf::test_run_live(self.fd.as_fd(), frame, repeat, batch)
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A program or one of its maps could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// `EPERM`.
    #[error(
        "not allowed to load eBPF programs: CAP_BPF and CAP_NET_ADMIN are needed, and CAP_PERFMON for the relay's \
         (systemd: AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_NET_RAW CAP_PERFMON; or run as root)"
    )]
    NotPermitted,
    /// Anything else, the verifier included. Its log is in the debug log.
    #[error("the eBPF program was not loaded: {0} (WAVRY_LOG=debug shows what the verifier said)")]
    Refused(libbpf_rs::Error),
    /// Out of file descriptors.
    #[error("keeping the eBPF program: {0}")]
    System(#[from] io::Error),
}

impl From<libbpf_rs::Error> for LoadError {
    fn from(error: libbpf_rs::Error) -> Self {
        match error.kind() {
            ErrorKind::PermissionDenied => Self::NotPermitted,
            _ => Self::Refused(error),
        }
    }
}

/// Makes libbpf, which prints to standard error by itself, use the program's log. Call it before opening a
/// skeleton; more than once does no harm.
pub fn quieten() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        libbpf_rs::set_print(Some((PrintLevel::Debug, |level, text| {
            let text = text.trim_end();
            match level {
                // What fails is returned as an error too, and that one says what to do.
                PrintLevel::Warn | PrintLevel::Info => tracing::debug!(target: "libbpf", "{text}"),
                PrintLevel::Debug => tracing::trace!(target: "libbpf", "{text}"),
            }
        })));
    });
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aborted => f.write_str("XDP_ABORTED"),
            Self::Drop => f.write_str("XDP_DROP"),
            Self::Pass => f.write_str("XDP_PASS"),
            Self::Tx => f.write_str("XDP_TX"),
            Self::Redirect => f.write_str("XDP_REDIRECT"),
            Self::Unknown(value) => write!(f, "unknown verdict {value}"),
        }
    }
}

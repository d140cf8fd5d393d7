//! Attaching an XDP program to a device.
//!
//! Owns the attachment, which is a link (`BPF_LINK_TYPE_XDP`): a file descriptor, never pinned. Invariant: when
//! its last copy is closed, by `drop` or because the process ended in any way, the kernel detaches the program.
//! Nobody can put another program in its place meanwhile.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use libbpf_rs::libbpf_sys::{XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE};

use crate::interface::Interface;
use crate::program::Program;
use crate::sys;

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before the kernel makes a packet buffer of the frame.
    Native,
    /// In the kernel's stack, with any driver; slower.
    Generic,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// Which mode is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModeChoice {
    /// Native, and generic where the driver cannot.
    #[default]
    Auto,
    /// Only this one.
    Only(Mode),
}

/// A program on a device. Dropping it detaches the program.
#[derive(Debug)]
pub struct Attachment {
    link: OwnedFd,
    mode: Mode,
    fallback: Option<io::Error>,
}

impl Attachment {
    /// The mode that was reached.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Why it is generic although native would have been preferred.
    #[must_use]
    pub fn fallback(&self) -> Option<&io::Error> {
        self.fallback.as_ref()
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // Closing alone would do, but for a child of this process that has not executed its program yet and holds a
        // copy of the descriptor for that long.
        sys::bpf::detach(self.link.as_fd());
    }
}

/// Attaches `program` to `interface`.
///
/// # Errors
///
/// [`AttachError`] says what is in the way and what to do about it.
pub fn attach(
    program: &Program,
    interface: &Interface,
    choice: ModeChoice,
) -> Result<Attachment, AttachError> {
    let link = |flags| sys::bpf::link_xdp(program.as_fd(), interface.index(), flags);
    let failed = |mode, source| AttachError::new(interface, mode, source);
    let native = match choice {
        ModeChoice::Only(Mode::Generic) => None,
        _ => Some(link(XDP_FLAGS_DRV_MODE)),
    };
    match native {
        Some(Ok(link)) => Ok(Attachment { link, mode: Mode::Native, fallback: None }),
        Some(Err(error)) if choice != ModeChoice::Auto || !is_about_the_driver(&error) => {
            Err(failed(Mode::Native, error))
        }
        refused => {
            let link = link(XDP_FLAGS_SKB_MODE).map_err(|error| failed(Mode::Generic, error))?;
            Ok(Attachment { link, mode: Mode::Generic, fallback: refused.and_then(Result::err) })
        }
    }
}

/// Whether generic mode may succeed where native mode met this.
fn is_about_the_driver(error: &io::Error) -> bool {
    !matches!(error.raw_os_error(), Some(libc::EPERM | libc::EBUSY | libc::EEXIST | libc::ENODEV))
}

/// A program could not be attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// `EPERM`.
    #[error("not allowed to attach an XDP program to {interface}: CAP_NET_ADMIN is needed")]
    NotPermitted {
        /// The device.
        interface: String,
    },
    /// `EBUSY`, `EEXIST`.
    #[error(
        "{interface} already has an XDP program: `ip link show dev {interface}` names it; end the program that owns \
         it, or `ip link set dev {interface} xdp off` if nobody does"
    )]
    Occupied {
        /// The device.
        interface: String,
    },
    /// `ENODEV`.
    #[error("the network interface {interface} is gone")]
    Gone {
        /// The device.
        interface: String,
    },
    /// Anything else, such as a driver without XDP, an MTU that is too large for it, or LRO switched on.
    #[error("an XDP program cannot be attached to {interface} in {mode} mode: {source}{}", hint(.source))]
    Refused {
        /// The device.
        interface: String,
        /// What was tried.
        mode: Mode,
        /// What the kernel said.
        source: io::Error,
    },
}

impl AttachError {
    fn new(interface: &Interface, mode: Mode, source: io::Error) -> Self {
        let interface = interface.name().to_owned();
        match source.raw_os_error() {
            Some(libc::EPERM) => Self::NotPermitted { interface },
            Some(libc::EBUSY | libc::EEXIST) => Self::Occupied { interface },
            Some(libc::ENODEV) => Self::Gone { interface },
            _ => Self::Refused { interface, mode, source },
        }
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "; its driver does not have this mode",
        Some(libc::EINVAL | libc::ERANGE) => {
            "; drivers refuse an MTU above a page, LRO, and too few queues: the kernel log (`dmesg`) may say which"
        }
        _ => "",
    }
}

//! What the running kernel must offer, found out by doing it once at start.
//!
//! Owns nothing beyond the call. Never guesses from a version alone: a distribution may have switched
//! something off, and a container's policy may forbid it. Invariant: after [`require`] succeeded, opening a
//! transport fails only for reasons of addresses and memory.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use crate::clock::Clock;
use crate::counters::SendErrorKind;
use crate::sys;
use crate::transport::{Transmit, Transport};
use crate::uring::{OpenError, UringUdp, UringUdpConfig};

/// The oldest kernel that has everything: `IORING_SETUP_DEFER_TASKRUN` came last.
pub const MINIMUM: Version = Version { major: 6, minor: 1 };

/// Exit code of a program that ends because of [`Unsupported`] (`EX_UNAVAILABLE` of `sysexits.h`).
pub const EXIT_CODE: u8 = 69;

/// A kernel version, as far as features depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The 6 in 6.1.
    pub major: u32,
    /// The 1 in 6.1.
    pub minor: u32,
}

impl Version {
    /// Reads the beginning of what `uname -r` prints, such as `6.1.0-18-amd64`.
    #[must_use]
    pub fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        Some(Self { major: numbers.next()?.parse().ok()?, minor: numbers.next()?.parse().ok()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Something a transport cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feature {
    /// A ring with `SINGLE_ISSUER` and `DEFER_TASKRUN`.
    DeferTaskrun,
    /// A ring of provided receive buffers.
    BufferRing,
    /// Sends whose success posts no completion.
    SkipSuccess,
    /// Multishot receive of messages.
    RecvMsgMultishot,
    /// Waiting with a timeout in the same kernel entry.
    ExtArg,
    /// `UDP_SEGMENT` (GSO).
    UdpSegment,
    /// `UDP_GRO`.
    UdpGro,
}

impl Feature {
    /// The kernel's name for it, and the first version with it.
    const fn describe(self) -> (&'static str, Version) {
        const fn since(major: u32, minor: u32) -> Version {
            Version { major, minor }
        }
        match self {
            Self::DeferTaskrun => ("io_uring IORING_SETUP_DEFER_TASKRUN", since(6, 1)),
            Self::BufferRing => ("io_uring provided buffer rings (IORING_REGISTER_PBUF_RING)", since(5, 19)),
            Self::SkipSuccess => ("io_uring IOSQE_CQE_SKIP_SUCCESS", since(5, 17)),
            Self::RecvMsgMultishot => ("io_uring multishot recvmsg", since(6, 0)),
            Self::ExtArg => ("io_uring IORING_ENTER_EXT_ARG", since(5, 11)),
            Self::UdpSegment => ("UDP_SEGMENT (generic segmentation offload)", since(4, 18)),
            Self::UdpGro => ("UDP_GRO (generic receive offload)", since(5, 0)),
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, since) = self.describe();
        write!(f, "{name}, in Linux since {since}")
    }
}

/// The machine cannot run a transport. Trying again does not help; programs exit with [`EXIT_CODE`].
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsupported {
    /// An older kernel than [`MINIMUM`].
    #[error(
        "Linux {found} is too old: {MINIMUM} or newer is needed (Debian 12, Ubuntu 24.04 and later have it)"
    )]
    TooOld {
        /// What `uname -r` prints.
        found: String,
    },
    /// `ENOSYS`: no `io_uring` in this kernel.
    #[error(
        "Linux {found} was built without io_uring (CONFIG_IO_URING), which is needed: use a stock kernel of {MINIMUM} or newer"
    )]
    NoIoUring {
        /// What `uname -r` prints.
        found: String,
    },
    /// The administrator switched `io_uring` off.
    #[error(
        "io_uring is switched off here (kernel.io_uring_disabled = {level}): `sysctl -w kernel.io_uring_disabled=0` \
         allows it{}", if *.level == 1 { ", or run as root or as a member of kernel.io_uring_group" } else { "" }
    )]
    Disabled {
        /// 1: for unprivileged users; 2: for everyone.
        level: u32,
    },
    /// `EPERM` although the sysctl allows it: a policy of the container.
    #[error(
        "io_uring is forbidden by a security policy (seccomp or SELinux) although kernel.io_uring_disabled is 0: \
         containers often do this; allow io_uring_setup, io_uring_enter and io_uring_register in the profile"
    )]
    Forbidden,
    /// One feature is not there.
    #[error("Linux {found} lacks {feature}: {MINIMUM} or newer is needed")]
    Missing {
        /// What `uname -r` prints.
        found: String,
        /// What was looked for.
        feature: Feature,
    },
    /// Every network namespace has a loopback interface of its own, which begins down.
    #[error(
        "the loopback interface is down in this network namespace: bring it up with `ip link set lo up` (in a \
         container, its runtime does)"
    )]
    NoLoopback,
    /// Everything seems to be there, but a batch sent over the loopback interface did not arrive as sent.
    #[error("the UDP self-test over the loopback interface failed on Linux {found}: {reason}")]
    SelfTest {
        /// What `uname -r` prints.
        found: String,
        /// What went wrong.
        reason: String,
    },
}

impl Unsupported {
    /// What a program that ends because of this exits with: [`EXIT_CODE`].
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        EXIT_CODE
    }

    pub(crate) fn missing(feature: Feature) -> Self {
        Self::Missing { found: release(), feature }
    }

    /// Explains why a ring could not be made, if the reason lies with the kernel or a policy.
    pub(crate) fn from_setup(error: &io::Error) -> Option<Self> {
        match error.raw_os_error()? {
            libc::ENOSYS => Some(Self::NoIoUring { found: release() }),
            libc::EPERM | libc::EACCES => Some(match disabled_level() {
                0 => Self::Forbidden,
                level => Self::Disabled { level },
            }),
            libc::EINVAL => Some(Self::missing(Feature::DeferTaskrun)),
            _ => None,
        }
    }
}

/// What was found, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelReport {
    /// What `uname -r` prints.
    pub release: String,
    /// Its first two numbers.
    pub version: Version,
    /// Whether the self-test's batch arrived joined (GRO), as it should.
    pub gro_joined: bool,
}

impl fmt::Display for KernelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gro = if self.gro_joined { "GSO and GRO work" } else { "GSO works, GRO did not join" };
        write!(f, "Linux {}: io_uring UDP usable, {gro}", self.release)
    }
}

/// Checks version, features and permissions, and sends one GSO batch to itself over the loopback interface.
/// Takes about a millisecond; call it once, before anything else is started.
///
/// # Errors
///
/// [`Unsupported`] says what was found, what is needed and what to do. Programs print it and exit with
/// [`EXIT_CODE`].
pub fn require() -> Result<KernelReport, Unsupported> {
    let release = release();
    let version = check_version(&release)?;
    let gro_joined = self_test().map_err(|error| match error {
        SelfTestError::Open(OpenError::Unsupported(unsupported)) => unsupported,
        SelfTestError::Open(error) => {
            Unsupported::SelfTest { found: release.clone(), reason: error.to_string() }
        }
        SelfTestError::Io(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Unsupported::missing(Feature::RecvMsgMultishot)
        }
        SelfTestError::Io(error) => {
            Unsupported::SelfTest { found: release.clone(), reason: error.to_string() }
        }
        SelfTestError::NoLoopback => Unsupported::NoLoopback,
        SelfTestError::Lost(counters) => Unsupported::SelfTest {
            found: release.clone(),
            reason: format!("no datagram arrived within {SELF_TEST_NS} ns ({counters})"),
        },
    })?;
    Ok(KernelReport { release, version, gro_joined })
}

fn check_version(release: &str) -> Result<Version, Unsupported> {
    match Version::parse(release) {
        Some(version) if version >= MINIMUM => Ok(version),
        _ => Err(Unsupported::TooOld { found: release.to_owned() }),
    }
}

const SELF_TEST_NS: u64 = 500_000_000;

enum SelfTestError {
    Open(OpenError),
    Io(io::Error),
    NoLoopback,
    Lost(String),
}

/// Sends three datagrams of two lengths as one GSO batch and receives them. True: they arrived joined.
fn self_test() -> Result<bool, SelfTestError> {
    let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = UringUdpConfig { rx_buffers: 4, tx_slots: 1, ..UringUdpConfig::new(bind) };
    let mut udp = UringUdp::open(config).map_err(SelfTestError::Open)?;
    let mut datagrams = 0;
    let mut joined = false;
    if let Some(slot) = udp.acquire() {
        udp.commit(slot, Transmit::batch(udp.local_addr(), 250, 100));
    }
    let deadline = Clock.now() + SELF_TEST_NS;
    while datagrams < 3 && Clock.now() < deadline {
        udp.turn(Some(deadline)).map_err(SelfTestError::Io)?;
        if udp.poll_send_error().is_some_and(|error| error.kind == SendErrorKind::Unreachable) {
            return Err(SelfTestError::NoLoopback);
        }
        while let Some(batch) = udp.poll_receive() {
            joined |= batch.count() > 1;
            datagrams += batch.count();
        }
    }
    if datagrams == 3 {
        Ok(joined)
    } else if loopback_is_down() {
        // Linux 6.1 takes the datagrams, and nobody gets them.
        Err(SelfTestError::NoLoopback)
    } else {
        Err(SelfTestError::Lost(format!("{:?}", udp.counters())))
    }
}

/// Whether the loopback device of this network namespace is down; false where that cannot be read.
fn loopback_is_down() -> bool {
    let flags = std::fs::read_to_string("/sys/class/net/lo/flags").unwrap_or_default();
    let flags = flags.trim().strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
    flags.is_some_and(|flags| flags & libc::IFF_UP.cast_unsigned() == 0)
}

fn release() -> String {
    sys::kernel_release().unwrap_or_else(|_| "unknown".to_owned())
}

/// `kernel.io_uring_disabled`; kernels before 6.6 do not have it and allow everyone.
fn disabled_level() -> u32 {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .ok()
        .and_then(|level| level.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_passes_with_gro() {
        let report = require().unwrap();
        assert!(report.version >= MINIMUM);
        assert!(report.gro_joined, "{report}");
    }

    #[test]
    fn versions_of_distributions() {
        let version = |major, minor| Some(Version { major, minor });
        assert_eq!(Version::parse("6.1.0-18-amd64"), version(6, 1));
        assert_eq!(Version::parse("5.15.0-100-generic"), version(5, 15));
        assert_eq!(Version::parse("6.18-rc1"), version(6, 18));
        assert_eq!(Version::parse("unknown"), None);
    }

    #[test]
    fn old_kernels_are_told_what_is_needed() {
        assert!(check_version("6.1.0").is_ok());
        assert!(check_version("10.0").is_ok());
        let error = check_version("5.15.0-100-generic").unwrap_err();
        let message = error.to_string();
        assert!(message.contains("5.15.0-100-generic") && message.contains("6.1 or newer"), "{message}");
        assert_eq!(error.exit_code(), 69);
    }

    #[test]
    fn setup_errors_are_explained() {
        let explain = |errno| Unsupported::from_setup(&io::Error::from_raw_os_error(errno));
        assert!(explain(libc::ENOSYS).unwrap().to_string().contains("CONFIG_IO_URING"));
        assert!(explain(libc::EINVAL).unwrap().to_string().contains("DEFER_TASKRUN"));
        assert!(explain(libc::EPERM).is_some());
        assert_eq!(explain(libc::ENOMEM), None);
        assert!(
            Unsupported::Disabled { level: 2 }.to_string().contains("sysctl -w kernel.io_uring_disabled=0")
        );
        assert!(Unsupported::Disabled { level: 1 }.to_string().contains("io_uring_group"));
    }
}

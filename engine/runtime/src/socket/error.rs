//! Why a UDP transport could not be opened, in words that say what to do about it.

#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;

use crate::kernel::Unsupported;

/// Opening a transport failed. Retrying without a change helps only for [`OpenError::System`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// `EADDRINUSE`.
    #[error(
        "UDP port {} is already in use on {}: stop the program that holds it (`ss -ulpn 'sport = :{}'` shows it) \
         or choose another port", .address.port(), .address.ip(), .address.port()
    )]
    PortInUse {
        /// What was to be bound.
        address: SocketAddr,
    },
    /// `EADDRNOTAVAIL`.
    #[error(
        "{} is not an address of this machine: bind one that `ip address` lists, or [::] for all of them",
        .address.ip()
    )]
    AddressNotAvailable {
        /// What was to be bound.
        address: SocketAddr,
    },
    /// `EACCES`, `EPERM`.
    #[error(
        "not allowed to bind UDP {address}: ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher port"
    )]
    PermissionDenied {
        /// What was to be bound.
        address: SocketAddr,
    },
    /// `EAFNOSUPPORT` for one particular IPv6 address. (For `[::]` IPv4 is used alone instead.)
    #[error("this machine has no IPv6, so {address} cannot be bound: enable IPv6 or bind 0.0.0.0")]
    NoIpv6 {
        /// What was to be bound.
        address: SocketAddr,
    },
    /// The kernel, or a policy, lacks something that is needed.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// A pool size that cannot be.
    #[error("{what} must be {allowed}, not {found}")]
    Size {
        /// Which setting.
        what: &'static str,
        /// What was configured.
        found: usize,
        /// What may be configured.
        allowed: &'static str,
    },
    /// Anything else: out of memory, out of file descriptors.
    #[error("{operation} failed: {source}")]
    System {
        /// What was attempted.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn system(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { operation, source }
    }

    pub(crate) fn from_bind(address: SocketAddr, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EADDRINUSE) => Self::PortInUse { address },
            Some(libc::EADDRNOTAVAIL) => Self::AddressNotAvailable { address },
            Some(libc::EACCES | libc::EPERM) => Self::PermissionDenied { address },
            Some(libc::EAFNOSUPPORT) if address.is_ipv6() => Self::NoIpv6 { address },
            _ => Self::System { operation: "binding the UDP socket", source: error },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bind_error_says_what_to_do() {
        let address: SocketAddr = "[2001:db8::1]:4810".parse().unwrap();
        let message = |errno| OpenError::from_bind(address, io::Error::from_raw_os_error(errno)).to_string();
        assert!(message(libc::EADDRINUSE).contains("UDP port 4810 is already in use on 2001:db8::1"));
        assert!(message(libc::EADDRNOTAVAIL).contains("2001:db8::1 is not an address of this machine"));
        assert!(message(libc::EACCES).contains("choose a higher port"));
        assert!(message(libc::EAFNOSUPPORT).contains("bind 0.0.0.0"));
        assert!(message(libc::ENOMEM).contains("binding the UDP socket failed"));
    }
}

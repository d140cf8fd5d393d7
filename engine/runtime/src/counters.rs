//! What a transport has done and lost since it was opened.
//!
//! Owned by the transport, written by its one thread with plain additions. Never reset: readers take
//! differences.

#![forbid(unsafe_code)]

use std::io;

/// Monotonic counters of one transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Kernel entries (`io_uring_enter`).
    pub syscalls: u64,
    /// Send slots accepted by the kernel, whole GSO batches counted once.
    pub sends: u64,
    /// Datagrams in those slots.
    pub segments: u64,
    /// Payload bytes in those slots.
    pub sent_bytes: u64,
    /// Receive buffers filled by the kernel, whole GRO batches counted once.
    pub receives: u64,
    /// Datagrams in those buffers.
    pub datagrams: u64,
    /// Payload bytes in those buffers.
    pub received_bytes: u64,
    /// Times that the kernel found no free receive buffer; datagrams then wait in the socket.
    pub receive_enobufs: u64,
    /// Times that the kernel was told to merge what arrives, or to stop ([`Merge::ByLoad`](crate::uring::Merge)).
    pub merging_changes: u64,
    /// Receives that ended with another error; the receive was armed again.
    pub receive_errors: u64,
    /// Datagrams dropped because they did not fit a buffer or carried no usable address.
    pub receive_malformed: u64,
    /// Datagrams that the kernel dropped because the socket's receive queue was full.
    pub socket_drops: u64,
    /// Times that `acquire` found every send slot in flight.
    pub tx_exhausted: u64,
    /// Sends that waited because the socket's send queue was full.
    pub tx_deferred: u64,
    /// GSO batches that the kernel refused and that left as single datagrams instead.
    pub gso_fallbacks: u64,
    /// Wake-ups by a [`Waker`](crate::Waker).
    pub wakeups: u64,
    /// Sends that failed, by kind.
    pub send_errors: SendErrors,
}

/// Failed sends by kind. A failed GSO batch counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendErrors {
    /// See [`SendErrorKind::TooBig`].
    pub too_big: u64,
    /// See [`SendErrorKind::Unreachable`].
    pub unreachable: u64,
    /// See [`SendErrorKind::Refused`].
    pub refused: u64,
    /// See [`SendErrorKind::Denied`].
    pub denied: u64,
    /// See [`SendErrorKind::NoBuffers`].
    pub no_buffers: u64,
    /// See [`SendErrorKind::Invalid`].
    pub invalid: u64,
    /// See [`SendErrorKind::Other`].
    pub other: u64,
}

impl SendErrors {
    /// All kinds together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.too_big
            + self.unreachable
            + self.refused
            + self.denied
            + self.no_buffers
            + self.invalid
            + self.other
    }

    pub(crate) fn count(&mut self, kind: SendErrorKind) {
        let counter = match kind {
            SendErrorKind::TooBig => &mut self.too_big,
            SendErrorKind::Unreachable => &mut self.unreachable,
            SendErrorKind::Refused => &mut self.refused,
            SendErrorKind::Denied => &mut self.denied,
            SendErrorKind::NoBuffers => &mut self.no_buffers,
            SendErrorKind::Invalid => &mut self.invalid,
            SendErrorKind::Other(_) => &mut self.other,
        };
        *counter += 1;
    }
}

/// Why a send did not leave. None of these ends a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendErrorKind {
    /// `EMSGSIZE`: larger than the interface's MTU, and fragmenting is off. Send smaller datagrams.
    TooBig,
    /// `ENETUNREACH`, `EHOSTUNREACH`, `ENETDOWN`, `EADDRNOTAVAIL`: no route, or the source address is gone.
    Unreachable,
    /// `ECONNREFUSED`: the peer's machine said (ICMP) that nobody listens there.
    Refused,
    /// `EPERM`, `EACCES`: a local firewall rule or policy.
    Denied,
    /// `ENOBUFS`, `ENOMEM`: the device's queue dropped it.
    NoBuffers,
    /// The [`Transmit`](crate::transport::Transmit) itself cannot be sent: more bytes than its slot, too
    /// many segments, or addresses of different families.
    Invalid,
    /// Any other `errno`.
    Other(i32),
}

impl SendErrorKind {
    pub(crate) fn from_errno(errno: i32) -> Self {
        match errno {
            libc::EMSGSIZE => Self::TooBig,
            libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EADDRNOTAVAIL => {
                Self::Unreachable
            }
            libc::ECONNREFUSED => Self::Refused,
            libc::EPERM | libc::EACCES => Self::Denied,
            libc::ENOBUFS | libc::ENOMEM => Self::NoBuffers,
            other => Self::Other(other),
        }
    }
}

impl std::fmt::Display for SendErrorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooBig => f.write_str("datagram larger than the interface's MTU"),
            Self::Unreachable => f.write_str("no route to the peer"),
            Self::Refused => f.write_str("nobody listens on the peer's port"),
            Self::Denied => f.write_str("sending is denied by a local firewall or policy"),
            Self::NoBuffers => f.write_str("the device's send queue is full"),
            Self::Invalid => f.write_str("datagram and addresses do not fit together"),
            Self::Other(errno) => write!(f, "send failed: {}", io::Error::from_raw_os_error(*errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_counter() {
        let mut errors = SendErrors::default();
        let errnos = [
            libc::EMSGSIZE,
            libc::ENETUNREACH,
            libc::ECONNREFUSED,
            libc::EPERM,
            libc::ENOBUFS,
            libc::EIO, // other
        ];
        for errno in errnos {
            errors.count(SendErrorKind::from_errno(errno));
        }
        errors.count(SendErrorKind::Invalid);
        let one_each = SendErrors {
            too_big: 1,
            unreachable: 1,
            refused: 1,
            denied: 1,
            no_buffers: 1,
            invalid: 1,
            other: 1,
        };
        assert_eq!(errors, one_each);
        assert_eq!(errors.total(), 7);
    }
}

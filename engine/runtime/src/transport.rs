//! The seam between a network thread and the way its datagrams travel: `io_uring` UDP here, `AF_XDP`
//! in `wavry-xdp`.
//!
//! What it owns: the vocabulary ([`Received`], [`Transmit`], [`TrafficClass`], [`Ecn`]) and the send slots
//! ([`TxPool`], [`TxSlot`]). What it never does: parse a payload.
//!
//! Invariants: one thread owns a transport and everything it hands out; a batch is the unit everywhere
//! (a receive buffer filled by GRO, a send slot that leaves as GSO), so the cost of the kernel is paid
//! per batch and not per datagram.

#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::Waker;
use crate::counters::{Counters, SendErrorKind};

pub use crate::sys::{TxPool, TxSlot};

/// Bytes in a send slot: the most that one UDP datagram over IPv4, and so one GSO send, can carry
/// (65535 minus 20 for IP and 8 for UDP).
pub const TX_SLOT_LEN: usize = 65_507;

/// Most datagrams in one GSO send (`UDP_MAX_SEGMENTS` of every kernel since 5.0; later ones take 128).
pub const MAX_SEGMENTS: usize = 64;

/// Sends and receives batches of datagrams for the one thread that owns it.
pub trait Transport {
    /// The address that datagrams are received on, with the port that was really bound.
    fn local_addr(&self) -> SocketAddr;

    /// A handle by which another thread ends this transport's sleep.
    fn waker(&self) -> Waker;

    /// Lets every committed send leave, then waits until there is something to do: a datagram arrived, a
    /// [`Waker`] fired, or [`Clock`](crate::clock::Clock) reached `deadline_ns` (`None`: wait for ever).
    /// At most one kernel entry. A busy-polling transport spins instead of sleeping.
    ///
    /// It may return early with nothing to do (a signal, a stale wake-up): the caller loops anyway.
    /// While received batches are still waiting to be polled it does not wait.
    ///
    /// # Errors
    ///
    /// Only what leaves the transport unusable. Failures of single sends and receives are counted, and
    /// those of sends are reported by [`poll_send_error`](Self::poll_send_error).
    fn turn(&mut self, deadline_ns: Option<u64>) -> io::Result<Turn>;

    /// The next received batch, in place; `None` until the next turn. The buffer goes back to the kernel
    /// when the next batch is polled or the next turn begins.
    fn poll_receive(&mut self) -> Option<Received<'_>>;

    /// A free send slot of [`TX_SLOT_LEN`] bytes with unspecified content, or `None` (counted) while all
    /// are in flight. A slot that is dropped instead of committed is free again.
    fn acquire(&mut self) -> Option<TxSlot>;

    /// Queues the first `tx.len` bytes of a slot; they leave at the next turn or flush, in the order of
    /// commits. A `Transmit` that cannot be sent is counted and reported as
    /// [`SendErrorKind::Invalid`].
    fn commit(&mut self, slot: TxSlot, tx: Transmit);

    /// Lets every committed send leave now, without waiting or receiving: one kernel entry, none if
    /// nothing is committed.
    ///
    /// # Errors
    ///
    /// As [`turn`](Self::turn).
    fn flush(&mut self) -> io::Result<()>;

    /// The next failed send, oldest first. Only the newest few are kept; [`Counters`] has them all.
    fn poll_send_error(&mut self) -> Option<SendError>;

    /// What was done and lost so far.
    fn counters(&self) -> &Counters;
}

/// Why [`Transport::turn`] came back. Neither set: the deadline passed, or a signal or a stale wake-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// At least one batch waits in [`Transport::poll_receive`].
    pub received: bool,
    /// A [`Waker`] fired since the last turn: drain what other threads queued.
    pub woken: bool,
}

/// A received batch: one datagram, or several of equal size (the last may be shorter) that the kernel
/// joined by GRO because they share addresses and ECN.
#[derive(Debug)]
pub struct Received<'a> {
    /// The sender. Never an IPv4-mapped IPv6 address.
    pub from: SocketAddr,
    /// The local address it was sent to, for answering from the same one.
    pub to: Option<IpAddr>,
    /// Congestion mark of the batch.
    pub ecn: Ecn,
    /// What the sender, or a network on the path, asked for: to be kept by whoever sends it on.
    pub class: TrafficClass,
    /// The datagrams, one after another.
    pub data: &'a mut [u8],
    /// Bytes of each datagram but the last; `data.len()` when there is only one. At least 1.
    pub segment_len: usize,
    /// When the kernel got (the first of) it, on [`Clock`](crate::clock::Clock)'s scale; only if asked for.
    pub arrival_ns: Option<u64>,
}

impl<'a> Received<'a> {
    /// The datagrams, in order, each in place. An empty datagram yields nothing.
    pub fn datagrams(self) -> std::slice::ChunksMut<'a, u8> {
        self.data.chunks_mut(self.segment_len.max(1))
    }

    /// How many datagrams [`datagrams`](Self::datagrams) yields.
    #[must_use]
    pub fn count(&self) -> usize {
        self.data.len().div_ceil(self.segment_len.max(1))
    }
}

/// How a committed slot leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The receiver.
    pub to: SocketAddr,
    /// Source address; `None` lets the routing table choose. Its family must be that of `to`.
    pub from: Option<IpAddr>,
    /// Bytes used in the slot.
    pub len: usize,
    /// Bytes of each datagram but the last. Smaller than `len`: one GSO send of at most
    /// [`MAX_SEGMENTS`] datagrams. Equal or larger: a single datagram.
    pub segment_len: usize,
    /// Marks the IP header (DSCP).
    pub class: TrafficClass,
    /// Congestion mark to send with.
    pub ecn: Ecn,
}

impl Transmit {
    /// One datagram of `len` bytes, unmarked.
    #[must_use]
    pub fn datagram(to: SocketAddr, len: usize) -> Self {
        Self { to, from: None, len, segment_len: len, class: TrafficClass::BestEffort, ecn: Ecn::NotEct }
    }

    /// A batch of datagrams of `segment_len` bytes, the last one shorter if `len` is no multiple; unmarked.
    #[must_use]
    pub fn batch(to: SocketAddr, len: usize, segment_len: usize) -> Self {
        Self { segment_len, ..Self::datagram(to, len) }
    }

    /// Datagrams in it.
    #[inline]
    #[must_use]
    pub fn segments(&self) -> usize {
        if self.is_batch() { self.len.div_ceil(self.segment_len) } else { 1 }
    }

    /// Whether it is more than one datagram.
    #[inline]
    #[must_use]
    pub(crate) fn is_batch(&self) -> bool {
        self.segment_len > 0 && self.segment_len < self.len
    }
}

/// A send that did not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendError {
    /// What was to be sent, and where.
    pub transmit: Transmit,
    /// Why it was not.
    pub kind: SendErrorKind,
}

/// What a network along the path may do with a datagram: the DSCP field of the IP header (RFC 2474).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficClass {
    /// DF, 0: no special treatment.
    #[default]
    BestEffort,
    /// LE, 1 (RFC 8622): may be starved by everything else.
    LowerEffort,
    /// AF41, 34 (RFC 2597): interactive video.
    Af41,
    /// CS5, 40 (RFC 4594): signaling.
    Cs5,
    /// EF, 46 (RFC 3246): low delay, low loss, low rate.
    Ef,
    /// CS6, 48 (RFC 4594): network control.
    Cs6,
    /// Another code point of six bits, as it was received.
    Other(u8),
}

impl TrafficClass {
    /// The six-bit code point.
    #[inline]
    #[must_use]
    pub const fn dscp(self) -> u8 {
        match self {
            Self::BestEffort => 0,
            Self::LowerEffort => 1,
            Self::Af41 => 34,
            Self::Cs5 => 40,
            Self::Ef => 46,
            Self::Cs6 => 48,
            Self::Other(dscp) => dscp & 0x3f,
        }
    }

    /// The class in a TOS or traffic class byte.
    #[inline]
    #[must_use]
    pub const fn from_tos(tos: u8) -> Self {
        match tos >> 2 {
            0 => Self::BestEffort,
            1 => Self::LowerEffort,
            34 => Self::Af41,
            40 => Self::Cs5,
            46 => Self::Ef,
            48 => Self::Cs6,
            other => Self::Other(other),
        }
    }

    /// The IPv4 TOS or IPv6 traffic class byte: code point above, congestion mark below.
    #[inline]
    #[must_use]
    pub const fn tos(self, ecn: Ecn) -> u8 {
        self.dscp() << 2 | ecn as u8
    }
}

/// Explicit congestion notification (RFC 3168), the lower two bits of the TOS byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ecn {
    /// The sender does not take part.
    #[default]
    NotEct = 0b00,
    /// Takes part; the mark of L4S senders (RFC 9331).
    Ect1 = 0b01,
    /// Takes part.
    Ect0 = 0b10,
    /// A router on the path saw congestion.
    Ce = 0b11,
}

impl Ecn {
    /// The mark in a TOS or traffic class byte.
    #[inline]
    #[must_use]
    pub const fn from_tos(tos: u8) -> Self {
        match tos & 0b11 {
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            0b11 => Self::Ce,
            _ => Self::NotEct,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to() -> SocketAddr {
        "127.0.0.1:9".parse().unwrap()
    }

    #[test]
    fn segments_of_a_transmit() {
        assert_eq!(Transmit::datagram(to(), 0).segments(), 1);
        assert_eq!(Transmit::datagram(to(), 1200).segments(), 1);
        assert_eq!(Transmit::batch(to(), 1200, 1200).segments(), 1);
        assert_eq!(Transmit::batch(to(), 1201, 1200).segments(), 2);
        assert_eq!(Transmit::batch(to(), 64_800, 1200).segments(), 54);
        assert_eq!(Transmit::batch(to(), 10, 0).segments(), 1);
    }

    #[test]
    fn tos_byte_carries_both_fields() {
        for class in [
            TrafficClass::BestEffort,
            TrafficClass::LowerEffort,
            TrafficClass::Af41,
            TrafficClass::Cs5,
            TrafficClass::Ef,
            TrafficClass::Cs6,
            TrafficClass::Other(18),
        ] {
            for ecn in [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce] {
                let tos = class.tos(ecn);
                assert_eq!((Ecn::from_tos(tos), TrafficClass::from_tos(tos)), (ecn, class));
                assert_eq!(tos >> 2, class.dscp());
            }
        }
        assert_eq!(TrafficClass::Ef.tos(Ecn::NotEct), 0xb8);
    }

    #[test]
    fn a_batch_is_cut_at_the_segment_length() {
        let mut data = [0u8; 2500];
        let received = Received {
            from: to(),
            to: None,
            ecn: Ecn::NotEct,
            class: TrafficClass::BestEffort,
            data: &mut data,
            segment_len: 1200,
            arrival_ns: None,
        };
        assert_eq!(received.count(), 3);
        let lens: Vec<usize> = received.datagrams().map(|datagram| datagram.len()).collect();
        assert_eq!(lens, [1200, 1200, 100]);
    }
}

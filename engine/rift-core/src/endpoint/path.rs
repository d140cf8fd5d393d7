//! Where datagrams come from and go to.

use std::net::{IpAddr, SocketAddr};

/// The two ends of a network path, as seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// The peer's address.
    pub remote: SocketAddr,
    /// The own address that the peer uses, where the socket told; answers leave from it.
    pub local: Option<IpAddr>,
}

impl Path {
    /// A path to `remote` from whatever address the kernel picks.
    #[must_use]
    pub const fn to(remote: SocketAddr) -> Self {
        Self { remote, local: None }
    }
}

/// Explicit congestion notification field of the IP header (RFC 3168 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Ecn {
    /// Not ECN-capable transport.
    #[default]
    NotEct = 0,
    /// ECT(1).
    Ect1 = 1,
    /// ECT(0).
    Ect0 = 2,
    /// Congestion experienced.
    Ce = 3,
}

impl Ecn {
    /// From the two low bits of the traffic class or TOS byte.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }
}

/// What a datagram carries, for the marking that the network sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrafficClass {
    /// Input events.
    Input,
    /// Everything that keeps a session going.
    Control,
    /// Sound.
    Audio,
    /// Video and its parity.
    Video,
}

/// One or more datagrams of equal size (the last may be shorter), ready to leave as one send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub path: Path,
    /// Bytes in the buffer.
    pub len: usize,
    /// Bytes of each datagram but the last.
    pub segment_len: usize,
    /// What they carry.
    pub class: TrafficClass,
    /// How they are marked.
    pub ecn: Ecn,
}

impl Transmit {
    /// How many datagrams these are.
    #[must_use]
    pub const fn datagrams(&self) -> usize {
        if self.segment_len == 0 { 0 } else { self.len.div_ceil(self.segment_len) }
    }
}

//! Frames for the fast path, written as a sender would, with whole checksums or with those that are to be.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses a part of it, and all of it is for tests"
)]

pub(crate) mod model;

use std::net::{IpAddr, SocketAddr};

/// What the UDP checksum of a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Right.
    Whole,
    /// Zero: there is none.
    None,
    /// The sum of addresses and length only, as a sender on the same machine leaves it to its device.
    Partial,
    /// Wrong by this much.
    Wrong(u16),
}

/// All that a frame says.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) to_mac: [u8; 6],
    pub(crate) from_mac: [u8; 6],
    pub(crate) vlan: Option<u16>,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) tos: u8,
    pub(crate) flow_label: u32,
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) hops: u8,
    pub(crate) check: Check,
    /// Added to the IP header's checksum.
    pub(crate) ip_error: u16,
    pub(crate) payload: Vec<u8>,
    /// Bytes behind the datagram that the IP header counts.
    pub(crate) slack: usize,
    /// Bytes behind that.
    pub(crate) padding: usize,
}

impl Frame {
    pub(crate) fn new(from: SocketAddr, to: SocketAddr, payload: Vec<u8>) -> Self {
        Self {
            to_mac: [2, 0, 0, 0, 0, 1],
            from_mac: [2, 0, 0, 0, 0, 2],
            vlan: None,
            from,
            to,
            tos: 0x89,
            flow_label: 0x12345,
            id: 77,
            flags: 0,
            hops: 61,
            check: Check::Whole,
            ip_error: 0,
            payload,
            slack: 0,
            padding: 0,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut frame = [self.to_mac, self.from_mac].concat();
        if let Some(vlan) = self.vlan {
            frame.extend([0x81, 0x00]);
            frame.extend(vlan.to_be_bytes());
        }
        let udp_len = 8 + self.payload.len();
        let rest = (udp_len + self.slack) as u16;
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut ip = vec![0x45, self.tos];
                ip.extend((rest + 20).to_be_bytes());
                ip.extend(self.id.to_be_bytes());
                ip.extend(self.flags.to_be_bytes());
                ip.extend([self.hops, 17, 0, 0]);
                ip.extend(from.octets());
                ip.extend(to.octets());
                let check = add(!sum(&ip), self.ip_error);
                ip[10..12].copy_from_slice(&check.to_be_bytes());
                frame.extend([0x08, 0x00]);
                frame.extend(ip);
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let head = 6 << 28 | u32::from(self.tos) << 20 | self.flow_label;
                frame.extend([0x86, 0xdd]);
                frame.extend(head.to_be_bytes());
                frame.extend(rest.to_be_bytes());
                frame.extend([17, self.hops]);
                frame.extend(from.octets());
                frame.extend(to.octets());
            }
            _ => panic!("one family"),
        }
        let mut udp = Vec::new();
        udp.extend(self.from.port().to_be_bytes());
        udp.extend(self.to.port().to_be_bytes());
        udp.extend((udp_len as u16).to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(&self.payload);
        let check = match self.check {
            Check::Whole => not_zero(!sum(&[self.pseudo(), udp.clone()].concat())),
            Check::None => 0,
            Check::Partial => sum(&self.pseudo()),
            Check::Wrong(error) => not_zero(add(!sum(&[self.pseudo(), udp.clone()].concat()), error)),
        };
        udp[6..8].copy_from_slice(&check.to_be_bytes());
        frame.extend(udp);
        frame.extend(std::iter::repeat_n(0xee, self.slack + self.padding));
        frame
    }

    /// What a UDP checksum covers besides the datagram.
    fn pseudo(&self) -> Vec<u8> {
        let octets = |address: SocketAddr| match address.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let len = (8 + self.payload.len()) as u16;
        [octets(self.from), octets(self.to), vec![0, 17], len.to_be_bytes().to_vec()].concat()
    }

    /// Whether the checksum says that only addresses and length were summed, or happens to look like it.
    pub(crate) fn looks_partial(&self) -> bool {
        let bytes = Self { slack: 0, padding: 0, ..self.clone() }.bytes();
        let at = bytes.len() - self.payload.len() - 2;
        bytes[at..at + 2] == sum(&self.pseudo()).to_be_bytes()
    }
}

/// The folded sum of the 16-bit words.
fn sum(bytes: &[u8]) -> u16 {
    let mut total: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// The sum of two, as checksums are summed, below 0xffff.
fn add(a: u16, b: u16) -> u16 {
    ((u32::from(a) + u32::from(b)) % 0xffff) as u16
}

fn not_zero(check: u16) -> u16 {
    if check == 0 { 0xffff } else { check }
}

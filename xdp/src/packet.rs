//! The UDP datagram in a frame: the same decision as `src/bpf/parse.h`, in Rust.
//!
//! Owns nothing. Never changes a frame. Invariant: for every frame, [`parse`] says what the program's
//! `parse_udp` says, which the tests compare through the kernel; and what it names lies within the frame.

#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

/// Bytes of an Ethernet header without a tag.
pub const ETHERNET_LEN: usize = 14;
/// Bytes that an 802.1Q tag adds.
pub const VLAN_LEN: usize = 4;
/// Bytes of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// Bytes of an IPv6 header without extension headers.
pub const IPV6_LEN: usize = 40;
/// Bytes of a UDP header.
pub const UDP_LEN: usize = 8;

pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
pub(crate) const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
pub(crate) const PROTOCOL_UDP: u8 = 17;
/// IPv4: flag "more fragments" and the offset (RFC 791).
const IPV4_FRAGMENT_BITS: u16 = 0x3fff;
/// Hop-by-hop, routing, fragment, destination options (RFC 8200).
const IPV6_EXTENSIONS: [u8; 4] = [0, 43, 44, 60];

/// Why a frame is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// Another protocol.
    NotUdp,
    /// Legal, but more than is looked at: IP options, IPv6 extension headers, a fragment, two VLAN tags.
    Unusual,
    /// Headers that say more than the frame has, or contradict each other.
    Malformed,
}

/// Where a UDP datagram lies in a frame, and what its headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Sender's address and port.
    pub from: SocketAddr,
    /// Receiver's address and port.
    pub to: SocketAddr,
    /// TOS or traffic class: DSCP above, ECN below.
    pub tos: u8,
    /// Identifier of the 802.1Q tag, if there is one.
    pub vlan: Option<u16>,
    /// Where the IP header begins.
    pub ip_at: usize,
    /// The payload.
    pub payload: Range<usize>,
}

/// Finds the datagram in an Ethernet frame.
///
/// # Errors
///
/// [`NotTaken`]: leave the frame to the kernel.
#[inline]
pub fn parse(frame: &[u8]) -> Result<Datagram, NotTaken> {
    let u16_at = |at: usize| frame.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
    let mut protocol = u16_at(12).ok_or(NotTaken::Malformed)?;
    let mut at = ETHERNET_LEN;
    let mut vlan = None;
    if protocol == ETHERTYPE_VLAN {
        let tag = u16_at(at).ok_or(NotTaken::Malformed)?;
        protocol = u16_at(at + 2).ok_or(NotTaken::Malformed)?;
        vlan = Some(tag & 0x0fff);
        at += VLAN_LEN;
    }
    let ip_at = at;
    let (from, to, tos, rest) = match protocol {
        ETHERTYPE_VLAN | ETHERTYPE_QINQ => return Err(NotTaken::Unusual),
        ETHERTYPE_IPV4 => {
            let ip: &[u8; IPV4_LEN] = chunk(frame, at)?;
            if ip[0] >> 4 != 4 || ip[0] & 0x0f < 5 {
                return Err(NotTaken::Malformed);
            }
            if ip[9] != PROTOCOL_UDP {
                return Err(NotTaken::NotUdp);
            }
            if ip[0] & 0x0f != 5 || u16::from_be_bytes([ip[6], ip[7]]) & IPV4_FRAGMENT_BITS != 0 {
                return Err(NotTaken::Unusual);
            }
            let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
            let rest = total.checked_sub(IPV4_LEN).ok_or(NotTaken::Malformed)?;
            at += IPV4_LEN;
            (IpAddr::V4(ipv4(ip, 12)), IpAddr::V4(ipv4(ip, 16)), ip[1], rest)
        }
        ETHERTYPE_IPV6 => {
            let ip: &[u8; IPV6_LEN] = chunk(frame, at)?;
            if ip[0] >> 4 != 6 {
                return Err(NotTaken::Malformed);
            }
            match ip[6] {
                PROTOCOL_UDP => {}
                next if IPV6_EXTENSIONS.contains(&next) => return Err(NotTaken::Unusual),
                _ => return Err(NotTaken::NotUdp),
            }
            let rest = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
            at += IPV6_LEN;
            (IpAddr::V6(ipv6(ip, 8)), IpAddr::V6(ipv6(ip, 24)), ip[0] << 4 | ip[1] >> 4, rest)
        }
        _ => return Err(NotTaken::NotUdp),
    };
    let udp: &[u8; UDP_LEN] = chunk(frame, at)?;
    let len = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
    at += UDP_LEN;
    // Ethernet pads short frames: there may be more bytes than the datagram has, but not fewer.
    if len < UDP_LEN || len > rest || frame.len() - at < len - UDP_LEN {
        return Err(NotTaken::Malformed);
    }
    Ok(Datagram {
        from: SocketAddr::new(from, u16::from_be_bytes([udp[0], udp[1]])),
        to: SocketAddr::new(to, u16::from_be_bytes([udp[2], udp[3]])),
        tos,
        vlan,
        ip_at,
        payload: at..at + len - UDP_LEN,
    })
}

#[inline]
fn chunk<const N: usize>(frame: &[u8], at: usize) -> Result<&[u8; N], NotTaken> {
    frame.get(at..).and_then(|rest| rest.first_chunk()).ok_or(NotTaken::Malformed)
}

#[inline]
fn ipv4(header: &[u8; IPV4_LEN], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3])
}

#[inline]
fn ipv6(header: &[u8; IPV6_LEN], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[at..at + 16]);
    Ipv6Addr::from(octets)
}

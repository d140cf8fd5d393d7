//! Writing frames: Ethernet, 802.1Q, IP and UDP headers around a payload, with whole checksums.
//!
//! Owns nothing. Never leaves a checksum to the device: a frame that goes through `AF_XDP` has nothing that would
//! tell the device to finish it. Invariant: what is written parses as the datagram that was asked for.

#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use crate::netlink::Mac;
use crate::packet::{
    ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, IPV4_LEN, IPV6_LEN, PROTOCOL_UDP, UDP_LEN,
    VLAN_LEN,
};

/// Hops that a datagram may take (the kernel's default).
const TTL: u8 = 64;

/// What the headers of a flow say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Headers {
    pub(crate) to_mac: Mac,
    pub(crate) from_mac: Mac,
    pub(crate) vlan: Option<u16>,
    /// Of one family with `to`.
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// DSCP above, ECN below.
    pub(crate) tos: u8,
}

/// Bytes of the IP and UDP headers.
#[inline]
pub(crate) fn ip_overhead(to: SocketAddr) -> usize {
    UDP_LEN + if to.is_ipv4() { IPV4_LEN } else { IPV6_LEN }
}

/// Bytes of all headers.
#[inline]
pub(crate) fn overhead(to: SocketAddr, vlan: Option<u16>) -> usize {
    ETHERNET_LEN + if vlan.is_some() { VLAN_LEN } else { 0 } + ip_overhead(to)
}

/// Writes a frame; its length. The caller has made sure that it fits `frame` and 16 bits.
#[inline]
pub(crate) fn write(frame: &mut [u8], headers: &Headers, payload: &[u8]) -> usize {
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&headers.to_mac);
    put(&headers.from_mac);
    if let Some(vlan) = headers.vlan {
        put(&ETHERTYPE_VLAN.to_be_bytes());
        put(&vlan.to_be_bytes());
    }
    let udp_len = (UDP_LEN + payload.len()) as u16;
    let addresses = match (headers.from.ip(), headers.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut ip = [0; IPV4_LEN];
            ip[0] = 0x45;
            ip[1] = headers.tos;
            ip[2..4].copy_from_slice(&(udp_len + IPV4_LEN as u16).to_be_bytes());
            // Never to be fragmented, so the identification means nothing (RFC 6864).
            ip[6] = 0x40;
            ip[8] = TTL;
            ip[9] = PROTOCOL_UDP;
            ip[12..16].copy_from_slice(&from.octets());
            ip[16..20].copy_from_slice(&to.octets());
            let checksum = !fold(sum(&ip));
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            put(&ETHERTYPE_IPV4.to_be_bytes());
            put(&ip);
            sum(&ip[12..20])
        }
        (from, to) => {
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            let mut ip = [0; IPV6_LEN];
            ip[0] = 0x60 | headers.tos >> 4;
            ip[1] = headers.tos << 4;
            ip[4..6].copy_from_slice(&udp_len.to_be_bytes());
            ip[6] = PROTOCOL_UDP;
            ip[7] = TTL;
            ip[8..24].copy_from_slice(&octets(from));
            ip[24..40].copy_from_slice(&octets(to));
            put(&ETHERTYPE_IPV6.to_be_bytes());
            put(&ip);
            sum(&ip[8..40])
        }
    };
    let mut udp = [0; UDP_LEN];
    udp[0..2].copy_from_slice(&headers.from.port().to_be_bytes());
    udp[2..4].copy_from_slice(&headers.to.port().to_be_bytes());
    udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
    let total = addresses + u64::from(PROTOCOL_UDP) + u64::from(udp_len) + sum(&udp) + sum(payload);
    // Zero would say that there is no checksum (RFC 768, RFC 8200).
    let checksum = match !fold(total) {
        0 => 0xffff,
        checksum => checksum,
    };
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    put(&udp);
    put(payload);
    at
}

/// The sum of the big-endian 16-bit words (RFC 1071), not yet folded; an odd last byte counts as a high one.
#[inline]
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    // Sums of native 32-bit words, which the compiler does many at a time; they are the same sum with the bytes
    // swapped, as RFC 1071 section 2 shows, once folded.
    let words = bytes.chunks_exact(4);
    let rest = words.remainder();
    let mut native: u64 =
        words.map(|word| u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    native += u64::from(u32::from_ne_bytes(last));
    u64::from(fold(native).to_be())
}

/// Adds the carries back in.
#[inline]
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::parse;
    use proptest::prelude::*;

    /// RFC 1071 as it is written.
    fn naive(bytes: &[u8]) -> u16 {
        let mut total = 0u32;
        for pair in bytes.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
    }

    fn headers(v6: bool, vlan: Option<u16>, tos: u8) -> Headers {
        let (from, to) = if v6 { ("[fd77::1]:4810", "[fd77::2]:9") } else { ("10.0.0.1:4810", "10.0.0.2:9") };
        Headers {
            to_mac: [2, 0, 0, 0, 0, 2],
            from_mac: [2, 0, 0, 0, 0, 1],
            vlan,
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            tos,
        }
    }

    proptest! {
        #[test]
        fn sums_as_the_plain_algorithm(bytes: Vec<u8>) {
            // 0 and 0xffff are one number in this arithmetic.
            prop_assert_eq!(fold(sum(&bytes)) % 0xffff, naive(&bytes) % 0xffff);
        }

        #[test]
        fn written_frames_parse_and_sum_to_zero(
            v6: bool,
            vlan in proptest::option::of(0u16..4096),
            tos: u8,
            payload in proptest::collection::vec(any::<u8>(), 0..1400),
        ) {
            let headers = headers(v6, vlan, tos);
            let mut frame = [0xa5; 2048];
            let len = write(&mut frame, &headers, &payload);
            prop_assert_eq!(len, overhead(headers.to, vlan) + payload.len());
            let datagram = parse(&frame[..len]).unwrap();
            prop_assert_eq!((datagram.from, datagram.to), (headers.from, headers.to));
            prop_assert_eq!((datagram.tos, datagram.vlan), (tos, vlan));
            prop_assert_eq!(&frame[datagram.payload.clone()], &payload[..]);
            // A receiver sums everything, checksum included, to all ones.
            let udp = datagram.payload.start - UDP_LEN;
            let addresses = if v6 { datagram.ip_at + 8..udp } else { datagram.ip_at + 12..udp };
            let mut pseudo = frame[addresses].to_vec();
            pseudo.extend([0, PROTOCOL_UDP]);
            pseudo.extend(((UDP_LEN + payload.len()) as u16).to_be_bytes());
            pseudo.extend(&frame[udp..len]);
            prop_assert_eq!(naive(&pseudo), 0xffff);
            if !v6 {
                prop_assert_eq!(naive(&frame[datagram.ip_at..datagram.ip_at + IPV4_LEN]), 0xffff);
            }
            prop_assert!(frame[udp + 6..udp + 8] != [0, 0], "no checksum");
        }
    }
}

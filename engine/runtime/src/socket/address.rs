//! Socket addresses as the kernel writes them (`struct sockaddr_in`, `struct sockaddr_in6`).
//!
//! Owns no memory: it fills and reads byte arrays. Invariant: IPv4-mapped IPv6 addresses exist only on the
//! kernel's side of this module; its callers see plain IPv4.

#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Bytes of the larger of the two, `sockaddr_in6`.
pub(crate) const NAME_LEN: usize = size_of::<libc::sockaddr_in6>();

const V4_LEN: usize = size_of::<libc::sockaddr_in>();

/// The family of a socket, which every address given to it must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`; reaches IPv4 peers through mapped addresses unless bound to one IPv6 address.
    V6,
}

/// Writes `address` as a socket of `family` wants it. Returns the bytes used, or `None` if that socket
/// cannot reach it (IPv6 from an IPv4 socket).
#[inline]
pub(crate) fn encode(address: SocketAddr, family: Family, name: &mut [u8; NAME_LEN]) -> Option<usize> {
    match (family, address) {
        (Family::V4, SocketAddr::V4(v4)) => {
            name[0..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            name[2..4].copy_from_slice(&v4.port().to_be_bytes());
            name[4..8].copy_from_slice(&v4.ip().octets());
            name[8..16].fill(0);
            Some(V4_LEN)
        }
        (Family::V4, SocketAddr::V6(v6)) => {
            let ip = v6.ip().to_ipv4_mapped()?;
            encode(SocketAddrV4::new(ip, v6.port()).into(), family, name)
        }
        (Family::V6, SocketAddr::V4(v4)) => {
            encode_v6(&v4.ip().to_ipv6_mapped(), v4.port(), 0, 0, name);
            Some(NAME_LEN)
        }
        (Family::V6, SocketAddr::V6(v6)) => {
            encode_v6(v6.ip(), v6.port(), v6.flowinfo(), v6.scope_id(), name);
            Some(NAME_LEN)
        }
    }
}

#[inline]
fn encode_v6(ip: &Ipv6Addr, port: u16, flowinfo: u32, scope_id: u32, name: &mut [u8; NAME_LEN]) {
    name[0..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
    name[2..4].copy_from_slice(&port.to_be_bytes());
    name[4..8].copy_from_slice(&flowinfo.to_ne_bytes());
    name[8..24].copy_from_slice(&ip.octets());
    name[24..28].copy_from_slice(&scope_id.to_ne_bytes());
}

/// Reads an address that the kernel wrote. `None`: too short, or of another family.
#[inline]
pub(crate) fn decode(name: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(*name.first_chunk()?));
    let port = u16::from_be_bytes(*name.get(2..)?.first_chunk()?);
    match family {
        libc::AF_INET => {
            let ip: [u8; 4] = *name.get(4..)?.first_chunk()?;
            Some(SocketAddrV4::new(Ipv4Addr::from(ip), port).into())
        }
        libc::AF_INET6 => {
            let flowinfo = u32::from_ne_bytes(*name.get(4..)?.first_chunk()?);
            let ip: [u8; 16] = *name.get(8..)?.first_chunk()?;
            let scope_id = u32::from_ne_bytes(*name.get(24..)?.first_chunk()?);
            Some(match unmapped(Ipv6Addr::from(ip)) {
                IpAddr::V4(v4) => SocketAddrV4::new(v4, port).into(),
                IpAddr::V6(v6) => SocketAddrV6::new(v6, port, flowinfo, scope_id).into(),
            })
        }
        _ => None,
    }
}

/// An IPv4-mapped address as IPv4, every other as it is.
#[inline]
pub(crate) fn unmapped(ip: Ipv6Addr) -> IpAddr {
    ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(address: SocketAddr, family: Family) -> Option<SocketAddr> {
        let mut name = [0xa5; NAME_LEN];
        let len = encode(address, family, &mut name)?;
        decode(&name[..len])
    }

    proptest! {
        #[test]
        fn v4_passes_both_families(ip: [u8; 4], port: u16) {
            let address = SocketAddr::from((ip, port));
            prop_assert_eq!(round_trip(address, Family::V4), Some(address));
            prop_assert_eq!(round_trip(address, Family::V6), Some(address));
        }

        #[test]
        fn v6_keeps_flow_and_scope(ip: [u16; 8], port: u16, flow: u32, scope: u32) {
            let ip = Ipv6Addr::from(ip);
            prop_assume!(ip.to_ipv4_mapped().is_none());
            let address = SocketAddr::V6(SocketAddrV6::new(ip, port, flow, scope));
            prop_assert_eq!(round_trip(address, Family::V6), Some(address));
            prop_assert_eq!(round_trip(address, Family::V4), None);
        }

        #[test]
        fn any_bytes_decode_without_panic(name: Vec<u8>) {
            let _ = decode(&name);
        }
    }

    #[test]
    fn matches_the_c_layout() {
        let mut name = [0; NAME_LEN];
        assert_eq!(encode("1.2.3.4:4810".parse().unwrap(), Family::V4, &mut name), Some(16));
        assert_eq!(name[..8], [2, 0, 0x12, 0xca, 1, 2, 3, 4]);
        assert_eq!(encode("1.2.3.4:4810".parse().unwrap(), Family::V6, &mut name), Some(28));
        assert_eq!(name[8..24], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4]);
        assert_eq!(decode(&[1, 0, 0, 0]), None, "another family");
    }
}

//! Ancillary data (`struct cmsghdr`) of UDP sends and receives, as bytes.
//!
//! Owns no memory. Never trusts lengths: a malformed message ends the walk. Layout, per message
//! (`cmsg(3)`): length including this header as native `size_t`, level `int`, type `int`, data, padding to the
//! size of `size_t`.

use std::net::{IpAddr, Ipv6Addr};

use super::address::{Family, unmapped};
use crate::transport::{Ecn, TrafficClass, Transmit};

const WORD: usize = size_of::<usize>();
const HEADER: usize = WORD + 8;

/// Bytes that a message with `data` bytes takes, padding included.
const fn space(data: usize) -> usize {
    HEADER + data.next_multiple_of(WORD)
}

/// Most bytes that one send needs: segment length, TOS, IPv6 source address.
pub(crate) const SEND_LEN: usize = space(2) + space(4) + space(20);

/// Most bytes that one receive can bring: GRO length, IPv4 TOS and IPv6 traffic class, both kinds of packet
/// info, time stamp, drop count; and some to spare, so that payloads behind it begin at a multiple of 64.
pub(crate) const RECEIVE_LEN: usize = 208;

const _: () = assert!(
    RECEIVE_LEN >= space(4) + space(4) + space(4) + space(20) + space(12) + space(16) + space(4),
    "every option that is switched on must fit"
);

/// What a received batch's ancillary data says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ancillary {
    /// Datagram size of a GRO batch.
    pub(crate) segment_len: Option<u16>,
    /// Congestion mark.
    pub(crate) ecn: Ecn,
    /// Code point of the TOS byte.
    pub(crate) class: TrafficClass,
    /// Local address that it was sent to.
    pub(crate) to: Option<IpAddr>,
    /// `CLOCK_REALTIME` at which the kernel got it.
    pub(crate) realtime_ns: Option<u64>,
    /// Datagrams that this socket has dropped so far (wraps).
    pub(crate) socket_drops: Option<u32>,
}

/// Reads the ancillary data of a receive.
#[inline]
pub(crate) fn parse(mut control: &[u8]) -> Ancillary {
    let mut ancillary = Ancillary::default();
    while let Some((level, kind, data)) = next_message(&mut control) {
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                // The kernel passes an int; segments are never longer than a datagram.
                ancillary.segment_len = int(data).and_then(|len| u16::try_from(len).ok());
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => {
                if let Some(&tos) = data.first() {
                    (ancillary.ecn, ancillary.class) = (Ecn::from_tos(tos), TrafficClass::from_tos(tos));
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                if let Some(tclass) = int(data) {
                    let tos = tclass.to_le_bytes()[0];
                    (ancillary.ecn, ancillary.class) = (Ecn::from_tos(tos), TrafficClass::from_tos(tos));
                }
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // struct in_pktinfo: interface, local address for answers, destination in the header.
                ancillary.to = chunk::<4>(data, 4).map(|ip| IpAddr::from(*ip));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // struct in6_pktinfo: address, interface.
                ancillary.to = chunk::<16>(data, 0).map(|ip| unmapped(Ipv6Addr::from(*ip)));
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                ancillary.realtime_ns = timespec_ns(data);
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                ancillary.socket_drops = chunk::<4>(data, 0).map(|count| u32::from_ne_bytes(*count));
            }
            _ => {}
        }
    }
    ancillary
}

/// Writes the ancillary data of a send from a socket of `family`. Returns the bytes used, or `None` if the
/// source address is of another family than the destination.
#[inline]
pub(crate) fn write(tx: &Transmit, family: Family, control: &mut [u8; SEND_LEN]) -> Option<usize> {
    let mut writer = Writer { control, used: 0 };
    if tx.is_batch() {
        let segment_len = u16::try_from(tx.segment_len).ok()?;
        writer.message(libc::SOL_UDP, libc::UDP_SEGMENT, &segment_len.to_ne_bytes());
    }
    // A mapped destination is an IPv4 one to the kernel, whatever the socket's family.
    let to = tx.to.ip().to_canonical();
    let tos = i32::from(tx.class.tos(tx.ecn));
    if tos != 0 {
        let (level, kind) = if to.is_ipv4() {
            (libc::IPPROTO_IP, libc::IP_TOS)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
        };
        writer.message(level, kind, &tos.to_ne_bytes());
    }
    if let Some(from) = tx.from {
        match (to, from.to_canonical()) {
            (IpAddr::V4(_), IpAddr::V4(from)) => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&from.octets());
                writer.message(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            (IpAddr::V6(_), IpAddr::V6(from)) if family == Family::V6 => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&from.octets());
                writer.message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            _ => return None,
        }
    }
    Some(writer.used)
}

struct Writer<'a> {
    control: &'a mut [u8; SEND_LEN],
    used: usize,
}

impl Writer<'_> {
    #[inline]
    fn message(&mut self, level: i32, kind: i32, data: &[u8]) {
        let message = &mut self.control[self.used..self.used + space(data.len())];
        message[..WORD].copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
        message[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
        message[WORD + 4..HEADER].copy_from_slice(&kind.to_ne_bytes());
        message[HEADER..HEADER + data.len()].copy_from_slice(data);
        message[HEADER + data.len()..].fill(0);
        self.used += message.len();
    }
}

/// Takes one message off the front: level, type, data.
#[inline]
fn next_message<'a>(control: &mut &'a [u8]) -> Option<(i32, i32, &'a [u8])> {
    let len = usize::from_ne_bytes(*chunk::<WORD>(control, 0)?);
    let level = int(control.get(WORD..)?)?;
    let kind = int(control.get(WORD + 4..)?)?;
    let data = control.get(HEADER..len)?;
    // The last message may lack its padding.
    *control = control.get(len.next_multiple_of(WORD)..).unwrap_or(&[]);
    Some((level, kind, data))
}

#[inline]
fn chunk<const N: usize>(data: &[u8], at: usize) -> Option<&[u8; N]> {
    data.get(at..)?.first_chunk()
}

#[inline]
fn int(data: &[u8]) -> Option<i32> {
    chunk::<4>(data, 0).map(|bytes| i32::from_ne_bytes(*bytes))
}

/// `struct timespec` on 64-bit machines.
#[inline]
fn timespec_ns(data: &[u8]) -> Option<u64> {
    let seconds = u64::from_ne_bytes(*chunk::<8>(data, 0)?);
    let nanoseconds = u64::from_ne_bytes(*chunk::<8>(data, 8)?);
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut bytes = (HEADER + data.len()).to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(WORD), 0);
        bytes
    }

    #[test]
    fn space_is_what_libc_says() {
        for data in [1u32, 2, 4, 12, 16, 20] {
            // SAFETY: `CMSG_SPACE` is arithmetic.
            #[allow(unsafe_code)]
            let expected = unsafe { libc::CMSG_SPACE(data) };
            assert_eq!(space(data as usize), expected as usize);
        }
    }

    #[test]
    fn reads_everything_a_dual_stack_socket_brings() {
        let mut bytes = message(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &{
            let mut time = 1_700_000_000u64.to_ne_bytes().to_vec();
            time.extend(5u64.to_ne_bytes());
            time
        });
        bytes.extend(message(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &9u32.to_ne_bytes()));
        let mapped: Ipv6Addr = "::ffff:10.0.0.7".parse().unwrap();
        let mut info = mapped.octets().to_vec();
        info.extend(3i32.to_ne_bytes());
        bytes.extend(message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info));
        bytes.extend(message(libc::IPPROTO_IP, libc::IP_TOS, &[0xbb]));
        bytes.extend(message(libc::SOL_UDP, libc::UDP_GRO, &1200i32.to_ne_bytes()));
        assert_eq!(
            parse(&bytes),
            Ancillary {
                segment_len: Some(1200),
                ecn: Ecn::Ce,
                class: TrafficClass::Ef,
                to: Some("10.0.0.7".parse().unwrap()),
                realtime_ns: Some(1_700_000_000_000_000_005),
                socket_drops: Some(9),
            }
        );
    }

    #[test]
    fn writes_what_parse_reads() {
        let mut tx = Transmit::batch("[::1]:1".parse().unwrap(), 5000, 1200);
        tx.ecn = Ecn::Ect1;
        tx.class = TrafficClass::Ef;
        tx.from = Some("::1".parse().unwrap());
        let mut control = [0xff; SEND_LEN];
        let used = write(&tx, Family::V6, &mut control).unwrap();
        assert_eq!(used, SEND_LEN);
        let back = parse(&control[..used]);
        assert_eq!((back.ecn, back.class, back.to), (Ecn::Ect1, TrafficClass::Ef, tx.from));

        tx.from = Some("127.0.0.1".parse().unwrap());
        assert_eq!(write(&tx, Family::V6, &mut control), None, "families differ");
        let plain = Transmit::datagram("127.0.0.1:1".parse().unwrap(), 100);
        assert_eq!(write(&plain, Family::V4, &mut control), Some(0), "nothing to say, nothing written");
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(control: Vec<u8>) {
            let _ = parse(&control);
        }

        #[test]
        fn truncation_never_panics(cut in 0usize..120) {
            let mut bytes = message(libc::SOL_UDP, libc::UDP_GRO, &1200i32.to_ne_bytes());
            bytes.extend(message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &[1; 20]));
            bytes.extend(message(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &[1; 16]));
            let _ = parse(&bytes[..cut.min(bytes.len())]);
        }
    }
}

//! What the kernel knows about devices, addresses, routes and neighbours (rtnetlink(7)).
//!
//! Owns two sockets, one that asks and one that hears of changes. Never changes anything. Invariant: an answer is
//! the kernel's at the moment of asking; whoever keeps it asks again after [`Netlink::poll_changes`] saw one.

#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use crate::sys::netlink as sys;

/// An Ethernet address.
pub(crate) type Mac = [u8; 6];

const HEADER_LEN: usize = 16;
const GROUPS: u32 = (libc::RTMGRP_LINK
    | libc::RTMGRP_NEIGH
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV6_ROUTE) as u32;

const IFLA_ADDRESS: u16 = 1;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_VIA: u16 = 18;
const RTA_ENCAP: u16 = 22;
const RTAX_MTU: u16 = 2;
const RTN_UNICAST: u8 = 1;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// Neighbour states in which the address may be used.
const NUD_VALID: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;
/// Those in which the kernel is sure of it: reachable, no ARP, permanent.
const NUD_CONFIRMED: u16 = 0x02 | 0x40 | 0x80;
/// The part of an attribute's type that is not flags.
const TYPE_BITS: u16 = 0x3fff;

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) mac: Mac,
    pub(crate) mtu: usize,
    /// Administratively up, with a carrier.
    pub(crate) is_running: bool,
    pub(crate) is_loopback: bool,
    pub(crate) receive_queues: u32,
    /// For a VLAN device: the device below it and the identifier.
    pub(crate) vlan: Option<(u32, u16)>,
}

/// Where datagrams to an address go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) device: u32,
    pub(crate) next_hop: IpAddr,
    pub(crate) source: IpAddr,
    /// A lower limit than the device's.
    pub(crate) mtu: Option<usize>,
}

/// What changed since the last question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Routes.
    pub(crate) routes: bool,
    /// Neighbours.
    pub(crate) neighbours: bool,
    /// Devices or their addresses.
    pub(crate) devices: bool,
}

/// See the module.
pub(crate) struct Netlink {
    questions: OwnedFd,
    changes: OwnedFd,
    sequence: u32,
    message: Vec<u8>,
    answer: Box<[u8]>,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self {
            questions: sys::open(0)?,
            changes: sys::open(GROUPS)?,
            sequence: 0,
            message: Vec::with_capacity(256),
            // The kernel fills at most this much at a time.
            answer: vec![0; 32 << 10].into(),
        })
    }

    /// To be polled for input: readable when something changed.
    pub(crate) fn changes_fd(&self) -> RawFd {
        self.changes.as_raw_fd()
    }

    /// Drains the notices of changes.
    pub(crate) fn poll_changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        loop {
            let len = match sys::receive(self.changes.as_fd(), &mut self.answer) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return changes,
                // ENOBUFS: some were lost, so anything may have changed.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    changes = Changes { routes: true, neighbours: true, devices: true };
                    continue;
                }
                Err(_) => return Changes { routes: true, neighbours: true, devices: true },
            };
            for (kind, _) in messages(&self.answer[..len]) {
                match kind {
                    libc::RTM_NEWLINK | libc::RTM_DELLINK | libc::RTM_NEWADDR | libc::RTM_DELADDR => {
                        changes.devices = true;
                    }
                    libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => changes.neighbours = true,
                    _ => changes.routes = true,
                }
            }
        }
    }

    /// A device.
    pub(crate) fn link(&mut self, device: u32) -> io::Result<Link> {
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&device.to_ne_bytes());
        let mut link = None;
        self.ask(libc::RTM_GETLINK, false, &body, &[], |answer| link = parse_link(answer))?;
        link.ok_or_else(|| io::Error::other("the kernel's answer about the device has no Ethernet address"))
    }

    /// The addresses of a device, or of all.
    pub(crate) fn addresses(&mut self, device: Option<u32>) -> io::Result<Vec<IpAddr>> {
        let mut addresses = Vec::new();
        self.each_address(|of, address| {
            if device.is_none_or(|device| of == device) {
                addresses.push(address);
            }
        })?;
        Ok(addresses)
    }

    /// The device that has an address.
    pub(crate) fn owner(&mut self, wanted: IpAddr) -> io::Result<Option<u32>> {
        let mut owner = None;
        self.each_address(|of, address| {
            if address == wanted {
                owner = Some(of);
            }
        })?;
        Ok(owner)
    }

    /// Every address of the machine, with its device.
    fn each_address(&mut self, mut each: impl FnMut(u32, IpAddr)) -> io::Result<()> {
        self.ask(libc::RTM_GETADDR, true, &[0; 8], &[], |answer| {
            let Some(of) = answer.get(4..).and_then(|rest| rest.first_chunk()) else { return };
            let find = |wanted| attributes(answer, 8).find(|(kind, _)| *kind == wanted);
            // On a point-to-point link IFA_ADDRESS is the peer's.
            let address = find(IFA_LOCAL).or_else(|| find(IFA_ADDRESS)).and_then(|(_, value)| ip(value));
            if let Some(address) = address {
                each(u32::from_ne_bytes(*of), address);
            }
        })
    }

    /// The route to `to`, from `from` if given, through `device` if given. `None`: there is none by which plain
    /// frames to one neighbour can be sent.
    pub(crate) fn route(
        &mut self,
        to: IpAddr,
        from: Option<IpAddr>,
        device: Option<u32>,
    ) -> io::Result<Option<Route>> {
        let bits = if to.is_ipv4() { 32 } else { 128 };
        let mut body = [0; 12];
        body[0] = family(to);
        body[1] = bits;
        body[2] = if from.is_some() { bits } else { 0 };
        let (to_octets, to_len) = octets(to);
        let (from_octets, from_len) = from.map_or(([0; 16], 0), octets);
        let device = device.map(u32::to_ne_bytes);
        let attributes = [
            (RTA_DST, &to_octets[..to_len]),
            (RTA_SRC, &from_octets[..from_len]),
            (RTA_OIF, device.as_ref().map_or(&[][..], |device| &device[..])),
        ];
        let mut route = None;
        let asked = self.ask(libc::RTM_GETROUTE, false, &body, &attributes, |answer| {
            route = parse_route(answer, to, from);
        });
        match asked {
            Ok(()) => Ok(route),
            // ENETUNREACH, EHOSTUNREACH, EINVAL for a foreign source address: no route.
            Err(error) if error.raw_os_error().is_some() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The Ethernet address of a neighbour, and whether the kernel is sure of it now.
    pub(crate) fn neighbour(&mut self, device: u32, next_hop: IpAddr) -> io::Result<Option<(Mac, bool)>> {
        let mut body = [0; 12];
        body[0] = family(next_hop);
        body[4..8].copy_from_slice(&device.to_ne_bytes());
        let (octets, len) = octets(next_hop);
        let mut found = None;
        let asked = self.ask(libc::RTM_GETNEIGH, false, &body, &[(NDA_DST, &octets[..len])], |answer| {
            found = parse_neighbour(answer);
        });
        match asked {
            Ok(()) => Ok(found),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks one question and hands each message of the answer, less its header, to `each`.
    fn ask(
        &mut self,
        kind: u16,
        dump: bool,
        body: &[u8],
        attributes: &[(u16, &[u8])],
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let flags = libc::NLM_F_REQUEST | if dump { libc::NLM_F_DUMP } else { 0 };
        self.message.clear();
        self.message.extend(0u32.to_ne_bytes());
        self.message.extend(kind.to_ne_bytes());
        self.message.extend((flags as u16).to_ne_bytes());
        self.message.extend(self.sequence.to_ne_bytes());
        self.message.extend(0u32.to_ne_bytes());
        self.message.extend(body);
        for (kind, value) in attributes.iter().filter(|(_, value)| !value.is_empty()) {
            self.message.extend((value.len() as u16 + 4).to_ne_bytes());
            self.message.extend(kind.to_ne_bytes());
            self.message.extend(*value);
            self.message.resize(self.message.len().next_multiple_of(4), 0);
        }
        let len = (self.message.len() as u32).to_ne_bytes();
        self.message[..4].copy_from_slice(&len);
        sys::send(self.questions.as_fd(), &self.message)?;
        loop {
            let len = sys::receive(self.questions.as_fd(), &mut self.answer)?;
            for (kind, body) in messages(&self.answer[..len]) {
                match libc::c_int::from(kind) {
                    libc::NLMSG_ERROR => {
                        let errno = body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                        return if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-errno)) };
                    }
                    libc::NLMSG_DONE => return Ok(()),
                    _ => each(body),
                }
                if !dump {
                    return Ok(());
                }
            }
        }
    }
}

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

fn octets(ip: IpAddr) -> ([u8; 16], usize) {
    match ip {
        IpAddr::V4(v4) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&v4.octets());
            (octets, 4)
        }
        IpAddr::V6(v6) => (v6.octets(), 16),
    }
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(octets).ok().map(|v6| Ipv6Addr::from(v6).into())
}

/// The messages in a datagram: types and what follows their headers.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(*datagram.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*datagram.get(4..)?.first_chunk()?);
        let body = datagram.get(HEADER_LEN..len)?;
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, body))
    })
}

/// The attributes that begin `at` some byte: types and values.
fn attributes(body: &[u8], at: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(at..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?) & TYPE_BITS;
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

fn u32_of(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let flags = u32_of(body.get(8..)?)?;
    let running = (libc::IFF_UP | libc::IFF_RUNNING) as u32;
    let mut mac = None;
    let mut link = Link {
        mac: [0; 6],
        mtu: 0,
        is_running: flags & running == running,
        is_loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        receive_queues: 1,
        vlan: None,
    };
    let mut below = None;
    let mut vlan = None;
    for (kind, value) in attributes(body, 16) {
        match kind {
            IFLA_ADDRESS => mac = value.try_into().ok(),
            IFLA_MTU => link.mtu = u32_of(value)? as usize,
            IFLA_LINK => below = u32_of(value),
            IFLA_NUM_RX_QUEUES => link.receive_queues = u32_of(value)?.max(1),
            IFLA_LINKINFO => {
                let part = |wanted| attributes(value, 0).find(|(kind, _)| *kind == wanted).map(|(_, v)| v);
                if part(IFLA_INFO_KIND).is_some_and(|kind| kind.starts_with(b"vlan"))
                    && let Some(data) = part(IFLA_INFO_DATA)
                {
                    vlan = attributes(data, 0)
                        .find(|(kind, _)| *kind == IFLA_VLAN_ID)
                        .and_then(|(_, id)| id.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes)));
                }
            }
            _ => {}
        }
    }
    link.mac = mac?;
    link.vlan = below.zip(vlan);
    Some(link)
}

fn parse_route(body: &[u8], to: IpAddr, from: Option<IpAddr>) -> Option<Route> {
    // Only plain routes to one neighbour: not local, broadcast, multicast, unreachable.
    if *body.get(7)? != RTN_UNICAST {
        return None;
    }
    let mut device = None;
    let mut next_hop = to;
    let mut source = from;
    let mut mtu = None;
    for (kind, value) in attributes(body, 12) {
        match kind {
            RTA_OIF => device = u32_of(value),
            RTA_GATEWAY => next_hop = ip(value)?,
            // An IPv6 neighbour for an IPv4 route (RFC 5549): family, then the address.
            RTA_VIA => next_hop = ip(value.get(2..)?)?,
            RTA_PREFSRC => source = source.or(ip(value)),
            RTA_METRICS => {
                mtu = attributes(value, 0)
                    .find(|(kind, _)| *kind == RTAX_MTU)
                    .and_then(|(_, mtu)| u32_of(mtu))
                    .map(|mtu| mtu as usize);
            }
            // A tunnel of some kind, which the kernel has to make.
            RTA_ENCAP => return None,
            _ => {}
        }
    }
    Some(Route { device: device?, next_hop, source: source?, mtu })
}

fn parse_neighbour(body: &[u8]) -> Option<(Mac, bool)> {
    let state = u16::from_ne_bytes(*body.get(8..)?.first_chunk()?);
    let mac = attributes(body, 12).find(|(kind, _)| *kind == NDA_LLADDR)?.1.try_into().ok()?;
    (state & NUD_VALID != 0).then_some((mac, state & NUD_CONFIRMED != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn loopback_is_known() {
        let mut netlink = Netlink::open().unwrap();
        let link = netlink.link(1).unwrap();
        assert!(link.is_loopback && link.vlan.is_none());
        assert!(netlink.addresses(Some(1)).unwrap().contains(&"127.0.0.1".parse().unwrap()));
        // A local route is none by which frames leave.
        assert_eq!(netlink.route("127.0.0.1".parse().unwrap(), None, None).unwrap(), None);
        assert!(netlink.link(u32::MAX >> 1).is_err());
    }

    proptest! {
        #[test]
        fn any_answer_parses_without_panic(bytes: Vec<u8>) {
            for (_, body) in messages(&bytes) {
                let _ = body;
            }
            let _ = parse_link(&bytes);
            let _ = parse_route(&bytes, "10.0.0.1".parse().unwrap(), None);
            let _ = parse_neighbour(&bytes);
        }
    }
}

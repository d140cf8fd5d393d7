//! Which way to a peer: its neighbour's Ethernet address, the source address, the MTU; or through the kernel.
//!
//! Owns a small cache of the kernel's answers. Never resolves a neighbour itself: what is not known leaves through
//! the kernel's stack, which asks for it (ARP, neighbour discovery), and the answer is seen a moment later. An
//! address that the kernel is no longer sure of goes on being used, but a datagram is sent through the kernel now
//! and then, which makes it ask again: frames that bypass it would not.
//!
//! Invariant: an answer is used for at most [`RECHECK_NS`] and never past a change that the kernel announced.

#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

use crate::netlink::{Link, Mac, Netlink};

/// Peers remembered; a host streams to one and is asked by a few.
const CACHED: usize = 64;
/// How long an answer holds without being asked for again.
const RECHECK_NS: u64 = 5_000_000_000;
/// The same while the neighbour is being resolved.
const RETRY_NS: u64 = 5_000_000;

/// How frames to a peer are addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hop {
    pub(crate) to_mac: Mac,
    pub(crate) from_mac: Mac,
    pub(crate) source: IpAddr,
    /// Largest IP packet.
    pub(crate) mtu: usize,
}

/// What is known about a peer.
#[derive(Clone, Copy, Debug)]
struct Entry {
    to: IpAddr,
    from: Option<IpAddr>,
    /// `None`: through the kernel.
    hop: Option<Hop>,
    /// The kernel would like to hear from the neighbour: one datagram goes through it.
    confirm: bool,
    valid_until_ns: u64,
    used_ns: u64,
}

/// See the module.
pub(crate) struct Routes {
    netlink: Netlink,
    device: u32,
    link: Link,
    addresses: Vec<IpAddr>,
    entries: Vec<Entry>,
    /// Where the last answer was found.
    last: usize,
}

impl Routes {
    /// Routes through a device, which may be a VLAN's.
    pub(crate) fn open(device: u32) -> io::Result<Self> {
        let mut netlink = Netlink::open()?;
        let link = netlink.link(device)?;
        let addresses = netlink.addresses(Some(device))?;
        Ok(Self { netlink, device, link, addresses, entries: Vec::with_capacity(CACHED), last: 0 })
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// The link of another device.
    pub(crate) fn link_of(&mut self, device: u32) -> io::Result<Link> {
        self.netlink.link(device)
    }

    /// The device's addresses.
    pub(crate) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// To be polled for input: readable when [`handle_changes`](Self::handle_changes) has something to do.
    pub(crate) fn changes_fd(&self) -> RawFd {
        self.netlink.changes_fd()
    }

    /// Forgets what the kernel says has changed. True: the device's addresses did.
    pub(crate) fn handle_changes(&mut self) -> bool {
        let changes = self.netlink.poll_changes();
        if changes.routes || changes.neighbours || changes.devices {
            self.entries.clear();
        }
        if !changes.devices {
            return false;
        }
        match self.netlink.link(self.device) {
            Ok(link) => self.link = link,
            // The device is gone: everything leaves by other ways, if there are any.
            Err(_) => self.link.is_running = false,
        }
        let addresses = self.netlink.addresses(Some(self.device)).unwrap_or_default();
        let changed = addresses != self.addresses;
        self.addresses = addresses;
        changed
    }

    /// How to address frames to a peer. `None`: send through the kernel, this time at least.
    #[inline]
    pub(crate) fn hop(&mut self, now_ns: u64, to: SocketAddr, from: Option<IpAddr>) -> Option<Hop> {
        let matches = |entry: &Entry| entry.to == to.ip() && entry.from == from;
        let found = match self.entries.get(self.last) {
            Some(entry) if matches(entry) => Some(self.last),
            _ => self.entries.iter().position(matches),
        };
        let index = match found {
            Some(index) if now_ns < self.entries[index].valid_until_ns => index,
            found => self.renew(found, now_ns, to, from),
        };
        self.last = index;
        let entry = &mut self.entries[index];
        entry.used_ns = now_ns;
        if std::mem::take(&mut entry.confirm) { None } else { entry.hop }
    }

    /// Asks the kernel; where the answer is kept.
    #[cold]
    fn renew(&mut self, found: Option<usize>, now_ns: u64, to: SocketAddr, from: Option<IpAddr>) -> usize {
        let (hop, sure, valid_ns) = match self.resolve(to, from) {
            Resolved::Neighbour(hop, sure) => (Some(hop), sure, RECHECK_NS),
            Resolved::Unknown => (None, true, RETRY_NS),
            Resolved::Elsewhere => (None, true, RECHECK_NS),
        };
        let entry = Entry {
            to: to.ip(),
            from,
            hop,
            confirm: !sure,
            valid_until_ns: now_ns.saturating_add(valid_ns),
            used_ns: now_ns,
        };
        let index = match found {
            Some(index) => index,
            None if self.entries.len() < CACHED => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
            None => {
                (0..self.entries.len()).min_by_key(|&index| self.entries[index].used_ns).unwrap_or_default()
            }
        };
        self.entries[index] = entry;
        index
    }

    fn resolve(&mut self, to: SocketAddr, from: Option<IpAddr>) -> Resolved {
        if !self.link.is_running {
            return Resolved::Elsewhere;
        }
        // The scope of a link-local address is the device that it is local to.
        let scope = match to {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => Some(v6.scope_id()),
            _ => None,
        };
        let Ok(Some(route)) = self.netlink.route(to.ip(), from, scope) else { return Resolved::Elsewhere };
        if route.device != self.device || route.source.is_ipv4() != to.is_ipv4() {
            return Resolved::Elsewhere;
        }
        match self.netlink.neighbour(self.device, route.next_hop) {
            Ok(Some((to_mac, sure))) => Resolved::Neighbour(
                Hop {
                    to_mac,
                    from_mac: self.link.mac,
                    source: route.source,
                    mtu: route.mtu.unwrap_or(usize::MAX).min(self.link.mtu),
                },
                sure,
            ),
            _ => Resolved::Unknown,
        }
    }
}

enum Resolved {
    /// Known, and whether the kernel is sure of it.
    Neighbour(Hop, bool),
    /// Not yet known.
    Unknown,
    /// Not through this device, or not in plain frames.
    Elsewhere,
}

//! Which way to a relay's peers: routes and neighbours, as the kernel knows them, in the program's table of ways.
//!
//! Owns that table. Never resolves a neighbour itself: what is not known goes up and leaves through the kernel, which asks
//! for it, and the answer is seen a moment later. Many peers share a way, such as that to the default gateway, so a
//! neighbour that changes is one entry and no session has to be told.
//!
//! Invariant: a number means one way for as long as any session may use it: it is given to another way no sooner
//! than [`FORGET_NS`] after it was last asked for, and sessions ask much more often. When routes change, sessions ask
//! again and are told other numbers.

#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::{WAYS_MAX, Way, WayTable};
use crate::interface::Interface;
use crate::netlink::{Mac, Netlink};

/// How often neighbours are asked for again, whether or not the kernel announced something.
const REFRESH_NS: u64 = 5_000_000_000;
/// The same after it did: neighbours of a busy network change all the time.
const REFRESH_SOON_NS: u64 = 50_000_000;
/// Routes of a machine with many devices change often; sessions are told at most this often.
const ROUTES_NS: u64 = 1_000_000_000;
/// Sessions that use a way ask for it at least this often, with a margin.
const FORGET_NS: u64 = 300_000_000_000;

/// What makes a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hop {
    /// As routes name it: the device of a VLAN, if it is one.
    device: u32,
    next_hop: IpAddr,
    source: IpAddr,
    mtu: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hop: Hop,
    /// What is in the table; `None`: the way cannot be used for now.
    written: Option<Way>,
    asked_ns: u64,
}

/// A device that frames pass, and those of VLANs on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Device {
    number: u32,
    wire: u32,
    vlan: Option<u16>,
    mac: Mac,
    mtu: usize,
    is_running: bool,
}

/// See the module.
pub struct Paths {
    netlink: Netlink,
    table: WayTable,
    /// Devices that the program is attached to.
    attached: Vec<u32>,
    devices: Vec<Device>,
    /// What the relay listens on, if it is one address.
    listen: Option<IpAddr>,
    entries: Vec<Entry>,
    refresh_ns: u64,
    /// Routes changed, and sessions were not told yet.
    has_news: bool,
    told_ns: u64,
}

impl Paths {
    /// Paths through the devices that the program is attached to. `listen` is the relay's address, or unspecified.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be asked.
    pub fn open(table: WayTable, attached: &[Interface], listen: IpAddr) -> io::Result<Self> {
        let mut paths = Self {
            netlink: Netlink::open()?,
            table,
            attached: attached.iter().map(Interface::index).collect(),
            devices: Vec::new(),
            listen: (!listen.is_unspecified()).then_some(listen),
            entries: Vec::new(),
            refresh_ns: 0,
            has_news: false,
            told_ns: 0,
        };
        paths.learn_locals()?;
        Ok(paths)
    }

    /// The number of the way to a peer; `None` if there is none for now, or none through these devices.
    pub fn find(&mut self, now_ns: u64, to: SocketAddr) -> Option<u16> {
        // The scope of a link-local address is the device that it is local to.
        let scope = match to {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => Some(v6.scope_id()),
            _ => None,
        };
        let listen = self.listen.filter(|ip| ip.is_ipv4() == to.is_ipv4());
        let route = self.netlink.route(to.ip(), listen, scope).ok().flatten()?;
        if route.source.is_ipv4() != to.is_ipv4() {
            return None;
        }
        self.device(route.device)?;
        let hop =
            Hop { device: route.device, next_hop: route.next_hop, source: route.source, mtu: route.mtu };
        let number = match self.entries.iter().position(|entry| entry.hop == hop) {
            Some(number) => number,
            None => self.add(now_ns, hop)?,
        };
        self.entries[number].asked_ns = now_ns;
        self.refresh_entry(number);
        self.entries[number].written.map(|_| number as u16)
    }

    /// Looks what changed and asks again for what may have; call it ten times a second. True: routes changed, and
    /// every session had better ask again.
    pub fn refresh(&mut self, now_ns: u64) -> bool {
        let changes = self.netlink.poll_changes();
        if changes.devices {
            self.has_news |= self.relearn_devices();
            // What cannot be learnt now is learnt with the next change.
            let _ = self.learn_locals();
        }
        self.has_news |= changes.routes;
        if changes.neighbours || changes.devices {
            self.refresh_ns = self.refresh_ns.min(now_ns + REFRESH_SOON_NS);
        }
        if now_ns >= self.refresh_ns {
            self.refresh_ns = now_ns + REFRESH_NS;
            for number in 0..self.entries.len() {
                self.refresh_entry(number);
            }
        }
        let tell = self.has_news && now_ns.saturating_sub(self.told_ns) >= ROUTES_NS;
        if tell {
            (self.has_news, self.told_ns) = (false, now_ns);
        }
        tell
    }

    /// Gives a way a number that nobody uses.
    fn add(&mut self, now_ns: u64, hop: Hop) -> Option<usize> {
        let entry = Entry { hop, written: None, asked_ns: now_ns };
        if self.entries.len() < usize::from(WAYS_MAX) {
            self.entries.push(entry);
            return Some(self.entries.len() - 1);
        }
        let unused = |entry: &Entry| now_ns.saturating_sub(entry.asked_ns) > FORGET_NS;
        let number = self.entries.iter().position(unused)?;
        self.table.clear(number as u16).ok()?;
        self.entries[number] = entry;
        Some(number)
    }

    /// Asks for the neighbour, and writes the way if it is another one than before.
    fn refresh_entry(&mut self, number: usize) {
        let hop = self.entries[number].hop;
        let device = self.device(hop.device).filter(|device| device.is_running);
        let neighbour = self.netlink.neighbour(hop.device, hop.next_hop).ok().flatten();
        let way = device.zip(neighbour).map(|(device, (to_mac, _))| Way {
            device: device.wire,
            vlan: device.vlan,
            mtu: u16::try_from(hop.mtu.unwrap_or(usize::MAX).min(device.mtu)).unwrap_or(u16::MAX),
            to_mac,
            from_mac: device.mac,
            source: hop.source,
        });
        if way == self.entries[number].written {
            return;
        }
        let done = match &way {
            Some(way) => self.table.set(number as u16, way),
            None => self.table.clear(number as u16),
        };
        self.entries[number].written = way.filter(|_| done.is_ok());
    }

    /// Learns the devices in use anew; whether one of them is not what it was.
    fn relearn_devices(&mut self) -> bool {
        let before = std::mem::take(&mut self.devices);
        let changed = before.iter().filter(|old| self.device(old.number) != Some(**old)).count();
        changed > 0
    }

    /// A device that routes name, if frames of it pass one that the program is attached to.
    fn device(&mut self, number: u32) -> Option<Device> {
        if let Some(known) = self.devices.iter().find(|device| device.number == number) {
            return Some(*known);
        }
        let link = self.netlink.link(number).ok()?;
        let (wire, vlan) = link.vlan.map_or((number, None), |(below, id)| (below, Some(id)));
        if link.is_loopback || !self.attached.contains(&wire) {
            return None;
        }
        let device = Device { number, wire, vlan, mac: link.mac, mtu: link.mtu, is_running: link.is_running };
        self.devices.push(device);
        Some(device)
    }

    fn learn_locals(&mut self) -> io::Result<()> {
        let locals = match self.listen {
            Some(listen) => vec![listen],
            None => self.netlink.addresses(None)?,
        };
        self.table.set_locals(&locals)
    }
}

/// The device that has an address, or, for an unspecified one, the device of the default route.
///
/// # Errors
///
/// Says that there is none.
pub fn interface_of(listen: IpAddr) -> Result<Interface, String> {
    if listen.is_unspecified() {
        return crate::choice::interface_toward(None);
    }
    let owner = Netlink::open().and_then(|mut netlink| netlink.owner(listen));
    match owner {
        Ok(Some(device)) => Interface::with_index(device).map_err(|error| error.to_string()),
        Ok(None) => Err(format!("no device of this machine has the address {listen}")),
        Err(error) => Err(format!("the kernel's addresses cannot be asked for ({error})")),
    }
}

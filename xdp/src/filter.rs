//! The program that steers datagrams to `AF_XDP` sockets (`src/bpf/filter.bpf.c`), loaded, with its maps.
//!
//! Owns the program and the two maps. Never attaches it. Invariant: a datagram is steered only if it is for the
//! port, carries exactly the VLAN tag asked for, and is addressed to one of the [addresses](Filter::set_addresses);
//! everything else reaches the kernel's stack as if there were no filter.

#![forbid(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::program::{self, LoadError, Program};
use crate::skeleton::filter::FilterSkelBuilder;

/// Most receive queues of a device that can have a socket (`QUEUES_MAX` of the program).
pub const QUEUES_MAX: u32 = 64;
/// Most addresses that datagrams can be taken for (`ADDRESSES_MAX` of the program).
pub const ADDRESSES_MAX: usize = 1024;

/// `vlan` of the program for frames without a tag.
const VLAN_NONE: u16 = 0xffff;

/// A loaded filter.
#[derive(Debug)]
pub struct Filter {
    program: Program,
    sockets: MapHandle,
    addresses: MapHandle,
    known: Vec<[u8; 16]>,
}

impl Filter {
    /// Loads a filter for a UDP port, and for frames with the 802.1Q tag `vlan` or, without one, for frames that
    /// have none. It steers nothing before it has addresses and sockets.
    ///
    /// # Errors
    ///
    /// [`LoadError`] names the missing capability, if that is what it is.
    pub fn load(port: u16, vlan: Option<u16>) -> Result<Self, LoadError> {
        program::quieten();
        let mut storage = MaybeUninit::uninit();
        let mut open = FilterSkelBuilder::default().open(&mut storage)?;
        if let Some(constants) = open.maps.rodata_data.as_mut() {
            constants.port = port;
            constants.vlan = vlan.unwrap_or(VLAN_NONE);
        }
        let skeleton = open.load()?;
        Ok(Self {
            program: Program::keep(&skeleton.progs.filter)?,
            sockets: MapHandle::try_from(&skeleton.maps.sockets)?,
            addresses: MapHandle::try_from(&skeleton.maps.addresses)?,
            known: Vec::new(),
        })
    }

    /// The program, for attaching it.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Steers what arrives on a queue to a bound socket. The kernel takes the socket out again when it is closed.
    ///
    /// # Errors
    ///
    /// For a queue of [`QUEUES_MAX`] or more, or a descriptor that is no `AF_XDP` socket.
    pub fn set_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        let value = socket.as_raw_fd().to_ne_bytes();
        self.sockets.update(&queue.to_ne_bytes(), &value, MapFlags::ANY).map_err(io::Error::other)
    }

    /// The addresses that datagrams are taken for from now on; those past [`ADDRESSES_MAX`] are left to the kernel.
    ///
    /// # Errors
    ///
    /// When the kernel refuses an entry.
    pub fn set_addresses(&mut self, addresses: &[IpAddr]) -> io::Result<()> {
        let wanted: Vec<[u8; 16]> = addresses.iter().take(ADDRESSES_MAX).map(|ip| key(*ip)).collect();
        for gone in self.known.iter().filter(|known| !wanted.contains(known)) {
            self.addresses.delete(gone).map_err(io::Error::other)?;
        }
        for address in &wanted {
            self.addresses.update(address, &[1], MapFlags::ANY).map_err(io::Error::other)?;
        }
        self.known = wanted;
        Ok(())
    }
}

/// `struct address` of the program.
fn key(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

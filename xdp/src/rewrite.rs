//! The floor of a relay in XDP (`src/bpf/rewrite.bpf.c`): lookup, rewrite, redirect, and no checks. For benchmarks.
//!
//! Owns the program and its maps. Never attaches it.

#![forbid(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddrV4;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::interface::Interface;
use crate::program::{self, LoadError, Program};
use crate::skeleton::rewrite::RewriteSkelBuilder;

/// The loaded program.
#[derive(Debug)]
pub struct Rewrite {
    program: Program,
    sessions: MapHandle,
}

/// Where the datagrams of a session go.
#[derive(Clone, Copy, Debug)]
pub struct Receiver {
    /// Ethernet addresses of the receiver and of the device that it is behind.
    pub ethernet: [[u8; 6]; 2],
    /// Who seems to have sent them.
    pub from: SocketAddrV4,
    /// Who gets them.
    pub to: SocketAddrV4,
}

impl Rewrite {
    /// Loads the program; all receivers are behind `device`.
    ///
    /// # Errors
    ///
    /// [`LoadError`] names the missing capability, if that is what it is.
    pub fn load(device: &Interface) -> Result<Self, LoadError> {
        program::quieten();
        let mut storage = MaybeUninit::uninit();
        let skeleton = RewriteSkelBuilder::default().open(&mut storage)?.load()?;
        let out = &skeleton.maps.out;
        out.update(&0u32.to_ne_bytes(), &device.index().to_ne_bytes(), MapFlags::ANY)?;
        Ok(Self {
            program: Program::keep(&skeleton.progs.rewrite)?,
            sessions: MapHandle::try_from(&skeleton.maps.sessions)?,
        })
    }

    /// The program, for attaching it.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Adds a session.
    ///
    /// # Errors
    ///
    /// When the table is full.
    pub fn insert(&self, session: [u8; 16], receiver: &Receiver) -> io::Result<()> {
        let mut value = [0; 24];
        value[..6].copy_from_slice(&receiver.ethernet[0]);
        value[6..12].copy_from_slice(&receiver.ethernet[1]);
        value[12..16].copy_from_slice(&receiver.from.ip().octets());
        value[16..20].copy_from_slice(&receiver.to.ip().octets());
        value[20..22].copy_from_slice(&receiver.from.port().to_be_bytes());
        value[22..].copy_from_slice(&receiver.to.port().to_be_bytes());
        self.sessions.update(&session, &value, MapFlags::ANY).map_err(io::Error::other)
    }
}

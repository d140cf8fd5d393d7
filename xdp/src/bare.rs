//! An `AF_XDP` socket with nothing around it: frames that somebody wrote beforehand, no routes, no headers, no checksums.
//! A transport over the same rings cannot be cheaper; for benchmarks.
//!
//! Owns the socket and the program that steers to it. Never looks into a frame.

#![forbid(unsafe_code)]

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};

use crate::attach::{Attachment, Mode, ModeChoice, attach};
use crate::filter::Filter;
use crate::interface::Interface;
use crate::socket::{Socket, SocketConfig};
use crate::sys::poll::PollSet;

/// Bytes of a frame.
const FRAME_LEN: usize = 2048;
/// How long a wait may last.
const PATIENCE_NS: u64 = 100_000_000;

/// A bound socket on the first queue of a device, with its program attached in the driver.
pub struct Bare {
    _attached: Attachment,
    _filter: Filter,
    poll: PollSet,
    socket: Socket,
    busy_poll: bool,
}

impl Bare {
    /// Takes the datagrams of a UDP port at an address.
    ///
    /// # Errors
    ///
    /// Without the capabilities for it, or when the device has no program in the driver.
    pub fn open(interface: &Interface, local: IpAddr, port: u16, busy_poll: bool) -> io::Result<Self> {
        let mut filter = Filter::load(port, None).map_err(io::Error::other)?;
        filter.set_addresses(&[local])?;
        let attached =
            attach(filter.program(), interface, ModeChoice::Only(Mode::Native)).map_err(io::Error::other)?;
        let config = SocketConfig {
            device: interface.index(),
            queue: 0,
            frame_len: FRAME_LEN,
            copy: false,
            busy_poll,
        };
        let socket = Socket::open(config).map_err(io::Error::other)?;
        filter.set_socket(0, socket.as_fd())?;
        let poll = PollSet::new([socket.as_fd().as_raw_fd()]);
        Ok(Self { _attached: attached, _filter: filter, poll, socket, busy_poll })
    }

    /// Queues a copy of a frame. False: all places are taken by what has not left.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        self.socket.room_to_send(1) > 0
            && self.socket.send(|place| {
                place[..frame.len()].copy_from_slice(frame);
                frame.len()
            })
    }

    /// Lets what is queued leave.
    ///
    /// # Errors
    ///
    /// When the socket is of no use any more.
    pub fn flush(&mut self) -> io::Result<()> {
        self.socket.flush().map(drop)
    }

    /// Shows each frame that came, and gives it back to the kernel.
    pub fn receive(&mut self, mut on_frame: impl FnMut(&[u8])) {
        while let Some(mut filled) = self.socket.poll_received() {
            on_frame(self.socket.bytes_mut(&mut filled));
            self.socket.offer(filled.frame);
        }
        self.socket.publish_fill();
    }

    /// Until a frame is there, or for a tenth of a second; spins if it was opened so.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to wait.
    pub fn wait(&mut self) -> io::Result<()> {
        if self.busy_poll {
            let end = wavry_runtime::clock::Clock.now() + PATIENCE_NS;
            while !self.socket.has_received() && wavry_runtime::clock::Clock.now() < end {
                self.socket.busy_poll();
            }
            return Ok(());
        }
        if self.socket.has_received() { Ok(()) } else { self.poll.wait(Some(PATIENCE_NS)) }
    }
}

impl std::fmt::Debug for Bare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bare").field("busy_poll", &self.busy_poll).finish_non_exhaustive()
    }
}

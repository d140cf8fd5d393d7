//! UDP that bypasses the kernel's stack where it can, and goes through it where it must: the transport `af-xdp`.
//!
//! Owns `AF_XDP` sockets on the queues of one device, the filter in front of them, and an `io_uring` transport on
//! the same port beneath. Never touches a payload.
//!
//! What the filter steers arrives here directly; everything else for the port (fragments, other devices, the
//! loopback) arrives through the kernel. A datagram leaves directly if its route goes out of the device and the
//! neighbour's address is known, and through the kernel otherwise; so resolving neighbours, datagrams larger than
//! the MTU and errors of the network are the kernel's business, and no peer is out of reach.
//!
//! Invariants: what one way cannot take goes the other, it is never dropped here; a frame that is being read is
//! offered to the kernel again only with the next poll or turn. Packet filters of the kernel (nftables) see
//! nothing of what bypasses it.
//!
//! The UDP checksum of what arrives is not checked: frames from a sender on the same machine have not got one yet,
//! and every RIFT datagram is authenticated as a whole.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use wavry_runtime::Waker;
use wavry_runtime::clock::Clock;
use wavry_runtime::counters::Counters;
use wavry_runtime::transport::{
    Ecn, MAX_SEGMENTS, Received, SendError, TrafficClass, Transmit, Transport, Turn, TxSlot,
};
use wavry_runtime::uring::{OpenError, UringUdp, UringUdpConfig};

use crate::attach::{self, AttachError, Attachment, Mode, ModeChoice};
use crate::filter::{Filter, QUEUES_MAX};
use crate::frame::{self, Headers};
use crate::interface::{Interface, NoInterface};
use crate::packet::{self, Datagram, IPV4_LEN};
use crate::program::LoadError;
use crate::routes::{Hop, Routes};
use crate::socket::{Filled, Socket, SocketConfig, SocketError};
use crate::sys::poll::PollSet;

/// How often a thread that does not sleep looks for changes of routes.
const CHANGES_INTERVAL_NS: u64 = 1_000_000;
/// A sleep is this short while the device has not taken everything.
const UNSENT_SLEEP_NS: u64 = 50_000;
/// Spins between two busy polls of the device, which are system calls.
const SPINS_PER_POLL: u32 = 16;
/// Received frames after which those read are offered again, although more wait.
const OFFER_EVERY: u32 = 64;
/// Largest MTU whose frames fit 2048 bytes with the room that drivers leave before a packet.
const SMALL_MTU: usize = 1500;
/// Places of the poll set; the sockets follow.
const RING_AT: usize = 0;
const CHANGES_AT: usize = 1;
const WAKE_AT: usize = 2;

/// What [`XdpUdp::open`] needs to know.
#[derive(Clone, Debug)]
pub struct XdpUdpConfig {
    /// The transport beneath: address, port, busy polling. Sharing the port is not possible.
    pub udp: UringUdpConfig,
    /// The device. That of a VLAN stands for the device below it and its tag.
    pub interface: Interface,
    /// Tag of the frames, for a network where they must have one although the device is not a VLAN's.
    pub vlan: Option<u16>,
    /// Where the filter runs.
    pub mode: ModeChoice,
}

/// UDP on the queues of one device. Neither `Send` nor `Sync`: open it on the thread that turns it.
pub struct XdpUdp {
    // Detached first, so that nothing is steered to sockets that are gone.
    _attachment: Attachment,
    filter: Filter,
    sockets: Vec<Socket>,
    routes: Routes,
    udp: UringUdp,
    poll: PollSet,
    summary: Summary,
    local: SocketAddr,
    vlan: Option<u16>,
    /// Scope of link-local peers.
    device: u32,
    busy_poll: bool,
    /// The frame that the last poll handed out, and its socket.
    current: Option<(usize, Filled)>,
    /// Frames read since the last were offered.
    read: u32,
    udp_received: bool,
    udp_committed: bool,
    now_ns: u64,
    changes_due_ns: u64,
    own: Counters,
    counters: Counters,
}

/// What was reached, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The device that frames pass.
    pub interface: String,
    /// Its driver.
    pub driver: String,
    /// Where the filter runs.
    pub mode: Mode,
    /// Why it is generic although native would have been preferred.
    pub fallback: Option<String>,
    /// Whether the driver shares packet memory instead of copying.
    pub zero_copy: bool,
    /// Queues with a socket.
    pub queues: usize,
    /// Tag of the frames.
    pub vlan: Option<u16>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let copy = if self.zero_copy { "zero-copy" } else { "copy" };
        write!(
            f,
            "AF_XDP on {} (driver {}, {} mode, {copy}, {} queue{}",
            self.interface,
            self.driver,
            self.mode,
            self.queues,
            if self.queues == 1 { "" } else { "s" }
        )?;
        if let Some(vlan) = self.vlan {
            write!(f, ", VLAN {vlan}")?;
        }
        if let Some(fallback) = &self.fallback {
            write!(f, "; not native: {fallback}")?;
        }
        f.write_str(")")
    }
}

/// Opening the transport failed. Nothing is left attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XdpError {
    /// The device cannot be used.
    #[error(transparent)]
    NoInterface(#[from] NoInterface),
    /// Frames never leave the machine through it.
    #[error(
        "{0} is the loopback device, which AF_XDP makes slower: name the device that leads to the network"
    )]
    Loopback(String),
    /// The filter could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The filter could not be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A socket could not be opened.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The transport beneath could not be opened.
    #[error(transparent)]
    Udp(#[from] OpenError),
    /// Something else.
    #[error("{operation} failed: {source}")]
    System {
        /// What was attempted.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl XdpUdp {
    /// Opens the port, loads and attaches the filter, and binds a socket to every queue of the device.
    ///
    /// Needs `CAP_NET_ADMIN`, `CAP_BPF` and `CAP_NET_RAW`, all only while it opens.
    ///
    /// # Errors
    ///
    /// [`XdpError`] says what is in the way and what to do about it.
    pub fn open(config: &XdpUdpConfig) -> Result<Self, XdpError> {
        let failed = |operation| move |source| XdpError::System { operation, source };
        let mut routes =
            Routes::open(config.interface.index()).map_err(failed("asking the kernel about the device"))?;
        if routes.link().is_loopback {
            return Err(XdpError::Loopback(config.interface.name().to_owned()));
        }
        // Frames pass the device below a VLAN's.
        let vlan = routes.link().vlan;
        let (wire, wire_link, vlan) = match vlan {
            Some((below, id)) => {
                let link = routes.link_of(below).map_err(failed("asking the kernel about the device"))?;
                (Interface::with_index(below)?, link, Some(id))
            }
            None => (config.interface.clone(), routes.link().clone(), config.vlan),
        };

        let mut udp = UringUdp::open(config.udp)?;
        let local = udp.local_addr();
        let mut filter = Filter::load(local.port(), vlan)?;
        let attachment = attach::attach(filter.program(), &wire, config.mode)?;
        let sockets = open_sockets(&wire, &wire_link, attachment.mode(), config.udp.busy_poll)?;
        for (queue, socket) in (0..).zip(&sockets) {
            filter.set_socket(queue, socket.as_fd()).map_err(failed("giving the filter its sockets"))?;
        }
        filter
            .set_addresses(&accepted(local, routes.addresses()))
            .map_err(failed("giving the filter its addresses"))?;

        // Arms the receive and the wake-up of the ring beneath.
        udp.turn(Some(0)).map_err(failed("starting io_uring"))?;
        let fds = [udp.as_raw_fd(), routes.changes_fd(), udp.wake_fd()];
        let poll = PollSet::new(fds.into_iter().chain(sockets.iter().map(|s| s.as_fd().as_raw_fd())));
        let summary = Summary {
            driver: wire.driver(),
            interface: wire.name().to_owned(),
            mode: attachment.mode(),
            fallback: attachment.fallback().map(ToString::to_string),
            zero_copy: sockets.iter().all(Socket::is_zero_copy),
            queues: sockets.len(),
            vlan,
        };
        Ok(Self {
            _attachment: attachment,
            filter,
            sockets,
            routes,
            udp,
            poll,
            summary,
            local,
            vlan,
            device: config.interface.index(),
            busy_poll: config.udp.busy_poll,
            current: None,
            read: 0,
            udp_received: false,
            udp_committed: false,
            now_ns: Clock.now(),
            changes_due_ns: 0,
            own: Counters::default(),
            counters: Counters::default(),
        })
    }

    /// What was reached.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// What went directly so far, without what went through the kernel. [`counters`](Transport::counters) has both.
    #[must_use]
    pub fn bypassed(&self) -> &Counters {
        &self.own
    }

    fn has_received(&mut self) -> bool {
        self.udp_received || self.sockets.iter_mut().any(Socket::has_received)
    }

    /// Offers the frame of the last poll again.
    #[inline]
    fn release_current(&mut self) {
        if let Some((index, filled)) = self.current.take() {
            self.sockets[index].offer(filled.frame);
            self.read += 1;
            if self.read >= OFFER_EVERY {
                self.publish();
            }
        }
    }

    fn publish(&mut self) {
        if self.read > 0 {
            for socket in &mut self.sockets {
                socket.publish_fill();
            }
            self.read = 0;
        }
    }

    /// Lets everything committed leave, both ways.
    fn leave(&mut self) -> io::Result<()> {
        for socket in &mut self.sockets {
            self.own.syscalls += socket.flush()?;
        }
        if std::mem::take(&mut self.udp_committed) {
            self.udp.flush()?;
        }
        Ok(())
    }

    fn turn_udp(&mut self) -> io::Result<bool> {
        let turn = self.udp.turn(Some(0))?;
        self.udp_received |= turn.received;
        Ok(turn.woken)
    }

    /// Sleeps on everything at once. True: a waker fired.
    fn sleep(&mut self, deadline_ns: Option<u64>) -> io::Result<bool> {
        if !self.udp.prepare_wait()? {
            return self.turn_udp();
        }
        let mut timeout = deadline_ns.map(|deadline| deadline.saturating_sub(Clock.now()));
        if self.sockets.iter_mut().any(Socket::has_unsent) {
            timeout = Some(timeout.map_or(UNSENT_SLEEP_NS, |timeout| timeout.min(UNSENT_SLEEP_NS)));
        }
        self.own.syscalls += 1;
        self.poll.wait(timeout)?;
        if self.poll.is_ready(CHANGES_AT) {
            self.take_changes();
        }
        if self.poll.is_ready(WAKE_AT) {
            self.udp.clear_wake_fd();
        }
        if self.poll.is_ready(RING_AT) { self.turn_udp() } else { Ok(self.udp.end_wait()) }
    }

    /// Spins on everything at once. True: a waker fired.
    fn spin(&mut self, deadline_ns: Option<u64>) -> io::Result<bool> {
        let mut spins = 0;
        loop {
            if self.udp.has_work() {
                return self.turn_udp();
            }
            if self.sockets.iter_mut().any(Socket::has_received)
                || deadline_ns.is_some_and(|deadline| Clock.now() >= deadline)
            {
                return Ok(false);
            }
            spins += 1;
            if spins % SPINS_PER_POLL == 0 {
                for socket in &self.sockets {
                    self.own.syscalls += u64::from(socket.busy_poll());
                }
            }
            std::hint::spin_loop();
        }
    }

    fn take_changes(&mut self) {
        self.changes_due_ns = self.now_ns + CHANGES_INTERVAL_NS;
        if self.routes.handle_changes() {
            let addresses = accepted(self.local, self.routes.addresses());
            if let Err(error) = self.filter.set_addresses(&addresses) {
                tracing::warn!(%error, "the filter did not take the device's new addresses");
            }
        }
    }

    /// Where the next usable frame is. Those that are not are counted and offered again.
    #[inline]
    fn next_frame(&mut self) -> Option<(usize, Filled, Datagram)> {
        for index in 0..self.sockets.len() {
            let socket = &mut self.sockets[index];
            while let Some(mut filled) = socket.poll_received() {
                match read(socket.bytes_mut(&mut filled)) {
                    Some(datagram) => return Some((index, filled, datagram)),
                    None => {
                        self.own.receive_malformed += 1;
                        socket.offer(filled.frame);
                        self.read += 1;
                    }
                }
            }
        }
        None
    }

    /// How a transmit can leave directly; `None`: through the kernel.
    #[inline]
    fn direct(&mut self, slot_len: usize, tx: &Transmit) -> Option<Hop> {
        if tx.len > slot_len || tx.segments() > MAX_SEGMENTS {
            return None;
        }
        let bound = (!self.local.ip().is_unspecified()).then(|| self.local.ip());
        let from = tx.from.or(bound);
        if from.is_some_and(|from| from.is_ipv4() != tx.to.is_ipv4()) {
            return None;
        }
        let hop = self.routes.hop(self.now_ns, tx.to, from)?;
        let largest = if tx.segments() > 1 { tx.segment_len } else { tx.len };
        let fits = frame::ip_overhead(tx.to) + largest <= hop.mtu
            && frame::overhead(tx.to, self.vlan) + largest <= self.sockets.first()?.frame_len();
        fits.then_some(hop)
    }

    /// Queues all segments, or none if there is no room.
    #[inline]
    fn send(&mut self, slot: &TxSlot, tx: &Transmit, hop: &Hop) -> bool {
        let segments = tx.segments();
        // One queue sends everything: order is kept, and one thread cannot use more.
        let Some(socket) = self.sockets.first_mut() else { return false };
        if socket.room_to_send(segments as u32) < segments as u32 {
            return false;
        }
        let headers = Headers {
            to_mac: hop.to_mac,
            from_mac: hop.from_mac,
            vlan: self.vlan,
            from: SocketAddr::new(hop.source, self.local.port()),
            to: tx.to,
            tos: tx.class.tos(tx.ecn),
        };
        let data = &slot[..tx.len];
        let cut = if segments > 1 { tx.segment_len } else { tx.len.max(1) };
        if data.is_empty() {
            socket.send(|frame| frame::write(frame, &headers, data));
        }
        for datagram in data.chunks(cut) {
            // There is room: it was counted above, and nobody else takes it.
            socket.send(|frame| frame::write(frame, &headers, datagram));
        }
        self.own.sends += 1;
        self.own.segments += segments as u64;
        self.own.sent_bytes += tx.len as u64;
        true
    }

    /// Both ways together.
    fn count(&mut self) {
        let mut sum = *self.udp.counters();
        let own = &self.own;
        sum.syscalls += own.syscalls;
        sum.sends += own.sends;
        sum.segments += own.segments;
        sum.sent_bytes += own.sent_bytes;
        sum.receives += own.receives;
        sum.datagrams += own.datagrams;
        sum.received_bytes += own.received_bytes;
        sum.receive_malformed += own.receive_malformed;
        sum.socket_drops += own.socket_drops;
        sum.tx_deferred += own.tx_deferred;
        self.counters = sum;
    }
}

impl Transport for XdpUdp {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn waker(&self) -> Waker {
        self.udp.waker()
    }

    fn turn(&mut self, deadline_ns: Option<u64>) -> io::Result<Turn> {
        self.release_current();
        self.publish();
        self.now_ns = Clock.now();
        if self.now_ns >= self.changes_due_ns {
            self.take_changes();
        }
        self.leave()?;
        let woken = if self.has_received() {
            // Neither way starves the other, nor the wakers.
            if self.udp.has_work() { self.turn_udp()? } else { false }
        } else if self.busy_poll {
            self.spin(deadline_ns)?
        } else {
            self.sleep(deadline_ns)?
        };
        self.count();
        Ok(Turn { received: self.has_received(), woken })
    }

    #[inline]
    fn poll_receive(&mut self) -> Option<Received<'_>> {
        self.release_current();
        if let Some((index, filled, datagram)) = self.next_frame() {
            let (_, filled) = self.current.insert((index, filled));
            let data = &mut self.sockets[index].bytes_mut(filled)[datagram.payload];
            self.own.receives += 1;
            self.own.datagrams += 1;
            self.own.received_bytes += data.len() as u64;
            return Some(Received {
                from: scoped(datagram.from, self.device),
                to: Some(datagram.to.ip()),
                ecn: Ecn::from_tos(datagram.tos),
                class: TrafficClass::from_tos(datagram.tos),
                segment_len: data.len().max(1),
                data,
                arrival_ns: None,
            });
        }
        self.publish();
        if !self.udp_received {
            return None;
        }
        let received = self.udp.poll_receive();
        self.udp_received = received.is_some();
        received
    }

    #[inline]
    fn acquire(&mut self) -> Option<TxSlot> {
        self.udp.acquire()
    }

    #[inline]
    fn commit(&mut self, slot: TxSlot, tx: Transmit) {
        if let Some(hop) = self.direct(slot.len(), &tx) {
            if self.send(&slot, &tx, &hop) {
                return;
            }
            self.own.tx_deferred += 1;
        }
        self.udp_committed = true;
        self.udp.commit(slot, tx);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.leave()?;
        self.count();
        Ok(())
    }

    fn poll_send_error(&mut self) -> Option<SendError> {
        self.udp.poll_send_error()
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl fmt::Debug for XdpUdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XdpUdp")
            .field("local", &self.local)
            .field("summary", &self.summary)
            .field("bypassed", &self.own)
            .field("dropped", &self.sockets.iter().map(Socket::dropped).sum::<u64>())
            .field("udp", &self.udp)
            .finish_non_exhaustive()
    }
}

/// A socket for each queue that the device has in use.
fn open_sockets(
    wire: &Interface,
    link: &crate::netlink::Link,
    mode: Mode,
    busy_poll: bool,
) -> Result<Vec<Socket>, XdpError> {
    let frame_len = if link.mtu <= SMALL_MTU { 2048 } else { 4096 };
    let mut sockets = Vec::new();
    for queue in 0..link.receive_queues.min(QUEUES_MAX) {
        let config =
            SocketConfig { device: wire.index(), queue, frame_len, copy: mode == Mode::Generic, busy_poll };
        match Socket::open(config) {
            Ok(socket) => sockets.push(socket),
            // The device can have more queues than it was told to use.
            Err(error) if queue > 0 && error.source.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sockets)
}

/// The addresses that datagrams are taken for: the one that is bound, or all of the device.
fn accepted(local: SocketAddr, device: &[IpAddr]) -> Vec<IpAddr> {
    let bound = local.ip();
    let wanted = |ip: &&IpAddr| match bound {
        IpAddr::V4(any) if any.is_unspecified() => ip.is_ipv4(),
        IpAddr::V6(any) if any.is_unspecified() => true,
        bound => **ip == bound,
    };
    device.iter().filter(wanted).copied().collect()
}

/// The datagram in a steered frame, unless its IPv4 header is damaged.
#[inline]
fn read(bytes: &[u8]) -> Option<Datagram> {
    let datagram = packet::parse(bytes).ok()?;
    if datagram.from.is_ipv4() {
        let header = &bytes[datagram.ip_at..datagram.ip_at + IPV4_LEN];
        if frame::fold(frame::sum(header)) != 0xffff {
            return None;
        }
    }
    Some(datagram)
}

/// A link-local address is known only together with its device.
#[inline]
fn scoped(address: SocketAddr, device: u32) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
            SocketAddrV6::new(*v6.ip(), v6.port(), 0, device).into()
        }
        address => address,
    }
}

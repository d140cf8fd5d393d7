//! An `AF_XDP` socket on one queue of a device: packet memory and four rings.
//!
//! Owns the socket, its memory and the process's ends of the rings. Never looks into a frame. Invariant: the fill
//! ring holds as many frames as are set aside for receiving and not waiting to be read, so that a sender that uses
//! up its own frames never starves the receiver.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::ring::{Consumer, Producer};
use crate::sys::xsk::{self, Descriptor, Ring};
use crate::umem::{Frame, Lent, Umem};

/// Frames set aside for receiving: what arrives while the thread is not scheduled for 1 ms at 10 Gbit/s.
const RECEIVE_FRAMES: u32 = 1024;
/// Frames set aside for sending: a frame of 1 MB with 20 % parity.
const SEND_FRAMES: u32 = 1024;
/// The kernel takes 32 frames of the transmit ring in one call in copy mode; this many calls without progress end
/// a flush, and the rest goes with the next.
const KICKS_WITHOUT_PROGRESS: u32 = 3;
/// A queue that was just closed is busy for some 20 ms.
const BIND_PATIENCE: Duration = Duration::from_millis(300);

/// What a queue's socket is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketConfig {
    pub(crate) device: u32,
    pub(crate) queue: u32,
    /// Bytes of a frame: 2048 or 4096.
    pub(crate) frame_len: usize,
    /// Never zero-copy: a program in generic mode cannot.
    pub(crate) copy: bool,
    pub(crate) busy_poll: bool,
}

/// A received frame.
#[derive(Debug)]
pub(crate) struct Filled {
    pub(crate) frame: Frame,
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

/// A bound socket.
pub(crate) struct Socket {
    // Closed first: it ends the kernel's use of the memory below.
    fd: OwnedFd,
    fill: Producer<u64>,
    receive: Consumer<Descriptor>,
    transmit: Producer<Descriptor>,
    completion: Consumer<u64>,
    umem: Umem,
    /// Frames lent for sending.
    sending: u32,
    zero_copy: bool,
    busy_poll: bool,
}

impl Socket {
    /// Opens and binds a socket.
    pub(crate) fn open(config: SocketConfig) -> Result<Self, SocketError> {
        let failed = |operation| move |source| SocketError { operation, source };
        let fd = xsk::open().map_err(failed("opening an AF_XDP socket"))?;
        let umem = Umem::map(RECEIVE_FRAMES + SEND_FRAMES, config.frame_len)
            .map_err(failed("mapping packet memory"))?;
        xsk::register_umem(fd.as_fd(), umem.registration(), config.frame_len)
            .map_err(failed("registering packet memory"))?;
        let ring = failed("mapping a ring");
        let fill = Producer::new(xsk::map_ring(fd.as_fd(), Ring::Fill, RECEIVE_FRAMES).map_err(ring)?);
        let ring = failed("mapping a ring");
        let completion = xsk::map_ring(fd.as_fd(), Ring::Completion, SEND_FRAMES).map_err(ring)?;
        let ring = failed("mapping a ring");
        let receive = xsk::map_ring(fd.as_fd(), Ring::Receive, RECEIVE_FRAMES).map_err(ring)?;
        let ring = failed("mapping a ring");
        let transmit = xsk::map_ring(fd.as_fd(), Ring::Transmit, SEND_FRAMES).map_err(ring)?;
        bind(fd.as_fd(), &config).map_err(failed("binding to the queue"))?;
        let zero_copy = xsk::is_zero_copy(fd.as_fd()).map_err(failed("asking for the mode"))?;
        let busy_poll = config.busy_poll
            && xsk::prefer_busy_poll(fd.as_fd(), 64)
                .inspect_err(|error| {
                    tracing::debug!(%error, "SO_PREFER_BUSY_POLL is not available; spinning on the rings only");
                })
                .is_ok();
        let mut socket = Self {
            fd,
            fill,
            receive: Consumer::new(receive),
            transmit: Producer::new(transmit),
            completion: Consumer::new(completion),
            umem,
            sending: 0,
            zero_copy,
            busy_poll,
        };
        for _ in 0..RECEIVE_FRAMES {
            if let Some(frame) = socket.umem.acquire() {
                socket.offer(frame);
            }
        }
        socket.publish_fill();
        Ok(socket)
    }

    pub(crate) fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Bytes that a frame can carry.
    #[inline]
    pub(crate) fn frame_len(&self) -> usize {
        self.umem.frame_len()
    }

    /// Whether a received frame waits.
    #[inline]
    pub(crate) fn has_received(&mut self) -> bool {
        self.receive.has_some()
    }

    /// The next received frame. Give it back with [`offer`](Self::offer).
    #[inline]
    pub(crate) fn poll_received(&mut self) -> Option<Filled> {
        while let Some(descriptor) = self.receive.pop() {
            if let Some((frame, offset)) = self.umem.take_back(descriptor.address, Lent::ToFill) {
                let len = (descriptor.len as usize).min(self.umem.frame_len() - offset);
                return Some(Filled { frame, offset, len });
            }
            debug_assert!(false, "the kernel returned a frame that it does not have");
        }
        self.receive.release();
        None
    }

    /// The bytes of a received frame.
    #[inline]
    pub(crate) fn bytes_mut<'a>(&'a mut self, filled: &'a mut Filled) -> &'a mut [u8] {
        let range = filled.offset..filled.offset + filled.len;
        &mut self.umem.bytes_mut(&mut filled.frame)[range]
    }

    /// Offers a frame to be filled; it is seen after [`publish_fill`](Self::publish_fill).
    #[inline]
    pub(crate) fn offer(&mut self, frame: Frame) {
        // There is room: the ring has a place for each frame set aside for receiving.
        if self.fill.has_room() {
            let address = self.umem.lend(frame, Lent::ToFill);
            self.fill.push(address);
        } else {
            self.umem.release(frame);
        }
    }

    /// Shows what was offered to the kernel, and wakes it if it ran out before.
    #[inline]
    pub(crate) fn publish_fill(&mut self) {
        self.receive.release();
        if self.fill.publish() && self.fill.needs_wakeup() && !self.busy_poll {
            xsk::kick_receive(self.fd.as_fd());
        }
    }

    /// Frames that can be sent now, after reaping those that were sent. At least `wanted`, if so many can be had.
    #[inline]
    pub(crate) fn room_to_send(&mut self, wanted: u32) -> u32 {
        if SEND_FRAMES - self.sending < wanted {
            self.reap();
        }
        SEND_FRAMES - self.sending
    }

    /// Has `write` fill a frame, and queues as many bytes of it as that returns. False: all are in flight.
    #[inline]
    pub(crate) fn send(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> bool {
        if self.sending >= SEND_FRAMES || !self.transmit.has_room() {
            return false;
        }
        let Some(mut frame) = self.umem.acquire() else { return false };
        let len = write(self.umem.bytes_mut(&mut frame)) as u32;
        let address = self.umem.lend(frame, Lent::ToSend);
        self.transmit.push(Descriptor { address, len, options: 0 });
        self.sending += 1;
        true
    }

    /// Lets what is queued leave. Kernel entries that it took.
    ///
    /// # Errors
    ///
    /// Only what makes the socket unusable, such as the device having gone.
    pub(crate) fn flush(&mut self) -> io::Result<u64> {
        self.transmit.publish();
        let mut entries = 0;
        let mut left = self.transmit.pending();
        let mut idle = 0;
        while left > 0 && idle < KICKS_WITHOUT_PROGRESS {
            if self.zero_copy && !self.transmit.needs_wakeup() {
                break;
            }
            entries += 1;
            match xsk::kick_transmit(self.fd.as_fd()) {
                Ok(()) => {}
                Err(error) => match error.raw_os_error() {
                    // EAGAIN: its batch is over and more is left. The others: no memory or queue at the moment.
                    Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR) => {}
                    // The device is down, or gone; what was queued is lost or leaves later.
                    Some(libc::ENETDOWN | libc::ENXIO) => break,
                    _ => return Err(error),
                },
            }
            self.reap();
            let before = left;
            left = self.transmit.pending();
            idle = if left < before { 0 } else { idle + 1 };
        }
        Ok(entries)
    }

    /// Takes back what was sent.
    #[inline]
    pub(crate) fn reap(&mut self) {
        while let Some(address) = self.completion.pop() {
            if let Some((frame, _)) = self.umem.take_back(address, Lent::ToSend) {
                self.umem.release(frame);
                self.sending -= 1;
            }
        }
        self.completion.release();
    }

    /// Whether anything is queued that has not left.
    #[inline]
    pub(crate) fn has_unsent(&mut self) -> bool {
        self.sending > 0 && self.transmit.pending() > 0
    }

    /// Drives the device's queue from this thread, if busy polling was granted. True if it did.
    #[inline]
    pub(crate) fn busy_poll(&self) -> bool {
        if self.busy_poll {
            xsk::kick_receive(self.fd.as_fd());
        }
        self.busy_poll
    }

    /// Frames that the kernel dropped because the process was too slow.
    pub(crate) fn dropped(&self) -> u64 {
        xsk::statistics(self.fd.as_fd())
            .map_or(0, |s| s.rx_dropped + s.rx_ring_full + s.rx_fill_ring_empty_descs)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn bind(fd: BorrowedFd<'_>, config: &SocketConfig) -> io::Result<()> {
    // Without XDP_COPY or XDP_ZEROCOPY the kernel shares the frames where the driver can, and copies elsewhere.
    let flags = libc::XDP_USE_NEED_WAKEUP | if config.copy { libc::XDP_COPY } else { 0 };
    let deadline = Instant::now() + BIND_PATIENCE;
    loop {
        match xsk::bind(fd, config.device, config.queue, flags) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// Opening a socket failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed: {source}{}", hint(.source))]
pub struct SocketError {
    /// What was attempted.
    pub operation: &'static str,
    /// What the kernel said.
    pub source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => "; AF_XDP sockets need CAP_NET_RAW",
        Some(libc::ENOBUFS) => {
            "; packet memory counts against RLIMIT_MEMLOCK: grant CAP_IPC_LOCK or raise it (systemd: LimitMEMLOCK=64M)"
        }
        Some(libc::EAFNOSUPPORT) => "; this kernel was built without AF_XDP (CONFIG_XDP_SOCKETS)",
        Some(libc::EBUSY) => "; another AF_XDP socket holds the queue",
        _ => "",
    }
}

//! UDP through one `io_uring`: multishot receive into a ring of buffers, GSO sends, a poll on the waker.
//!
//! Owns the ring, the socket, and all packet memory of one network thread. Never touches a payload.
//!
//! Invariants:
//! * One kernel entry per turn: it submits everything that is staged and waits in the same call. More only when
//!   a route refuses GSO, and then one per slot.
//! * `SINGLE_ISSUER` and `DEFER_TASKRUN`: the kernel fills buffers and posts completions only inside an
//!   entry made by the owning thread, so nothing here is shared with another thread but the waker.
//! * The completion queue is emptied after every entry and sized for the worst case, so it never overflows.
//!
//! In busy mode a turn watches the ring's `TASKRUN` flag, which the kernel sets when a datagram arrived, and
//! enters the kernel only then: spinning costs no system calls.

mod config;
mod merging;
mod receive;
mod send;
#[cfg(test)]
mod tests;

pub use crate::socket::{Filter, OpenError};
pub use config::{Steer, UringUdpConfig};
pub use merging::Merge;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue, types};

use crate::Waker;
use crate::counters::Counters;
use crate::kernel::{Feature, Unsupported};
use crate::socket::{Options, Socket};
use crate::sys;
use crate::transport::{Received, SendError, Transmit, Transport, Turn, TxPool, TxSlot};
use receive::RxRing;
use send::TxQueue;

/// Buffer group of the receive ring.
const BUFFERS: u16 = 0;
/// Registered files.
const SOCKET: types::Fixed = types::Fixed(0);
const EVENT: types::Fixed = types::Fixed(1);

/// What a completion belongs to: the upper half of its user data.
const RECEIVE: u64 = 1 << 32;
const WAKE: u64 = 2 << 32;
const WRITABLE: u64 = 3 << 32;
const SEND: u64 = 4 << 32;
const KIND: u64 = !0 << 32;

/// Receives that may fail in a row before the transport counts as broken.
const RECEIVE_FAILURES_MAX: u32 = 64;

/// UDP on the calling thread's own `io_uring`. Neither `Send` nor `Sync`: open it on the thread that turns it.
///
/// ```compile_fail,E0277
/// fn send<T: Send>() {}
/// send::<wavry_runtime::uring::UringUdp>();
/// ```
pub struct UringUdp {
    // Dropped first: closing the ring ends the kernel's use of everything below.
    ring: IoUring,
    rx: RxRing,
    tx: TxQueue,
    pool: TxPool,
    waker: Waker,
    socket: Socket,
    counters: Counters,
    busy_poll: bool,
    arm: Arm,
    failures: ReceiveFailures,
}

/// Receives that failed since the last that did not.
#[derive(Clone, Copy, Debug, Default)]
struct ReceiveFailures {
    in_a_row: u32,
    last_errno: i32,
}

/// Requests that are to be submitted (again) with the next entry.
#[derive(Clone, Copy, Debug)]
struct Arm {
    receive: bool,
    wake: bool,
    writable: bool,
}

/// Whether, and how long, an entry waits for a completion.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Submit only; do not even look for completions.
    Submit,
    /// Collect what is there.
    Poll,
    /// Until something is there, or the clock reaches the deadline.
    Until(Option<u64>),
}

impl UringUdp {
    /// Opens the socket and the ring, maps all packet memory and starts receiving with the first turn.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says what is in the way and what to do about it.
    pub fn open(config: UringUdpConfig) -> Result<Self, OpenError> {
        config.check()?;
        let sizes = config.sizes();
        let socket = Socket::open(&Options {
            bind: config.bind,
            reuse_port: config.reuse_port,
            steer: config.steer,
            busy_poll: config.busy_poll,
            arrival_times: config.arrival_times,
            receive_bytes: config.receive_queue_bytes,
            send_bytes: config.send_queue_bytes,
        })?;
        let ring = setup(sizes)?;
        let waker = Waker::new().map_err(OpenError::system("creating an event counter"))?;
        let ip = socket.local_addr().ip();
        let local = (!ip.is_unspecified()).then_some(ip);
        let rx = RxRing::new(config.rx_buffers, config.arrival_times, local, config.merge)
            .map_err(OpenError::system("mapping receive buffers"))?;
        let pool = TxPool::new(config.tx_slots).map_err(OpenError::system("mapping send slots"))?;
        register(&ring, &socket, &waker, &rx)?;
        Ok(Self {
            ring,
            rx,
            tx: TxQueue::new(socket.family(), config.tx_slots, sizes.tx_headers),
            pool,
            waker,
            socket,
            counters: Counters::default(),
            busy_poll: config.busy_poll,
            arm: Arm { receive: true, wake: true, writable: false },
            failures: ReceiveFailures::default(),
        })
    }

    /// Has the kernel refuse datagrams before it queues them. The refused count as
    /// [`socket_drops`](Counters::socket_drops), like those that found no room.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the filter.
    pub fn set_filter(&self, filter: Filter<'_>) -> io::Result<()> {
        self.socket.set_filter(filter)
    }

    /// Whether a turn would find something to do at once: for a transport laid over this one, which spins on more
    /// than this ring. Makes no system call.
    #[inline]
    pub fn has_work(&mut self) -> bool {
        let armed = (self.arm.receive && self.rx.has_offered()) || self.arm.wake || self.arm.writable;
        if armed || self.rx.has_ready() || self.waker.is_due() {
            return true;
        }
        let queue = self.ring.submission();
        !queue.is_empty() || queue.taskrun()
    }

    /// Prepares for the thread to sleep on this ring's descriptor and others, for a transport laid over this one.
    /// False: there is something to do, so turn instead. True: the descriptor becomes readable when there is;
    /// afterwards either turn, or call [`end_wait`](Self::end_wait).
    ///
    /// # Errors
    ///
    /// As [`turn`](Transport::turn).
    pub fn prepare_wait(&mut self) -> io::Result<bool> {
        self.rx.release_current();
        self.stage();
        if !self.waker.prepare_sleep() {
            return Ok(false);
        }
        let queue = self.ring.submission();
        let due = !queue.is_empty() || queue.taskrun();
        drop(queue);
        if due {
            self.enter(Wait::Poll)?;
        }
        let armed = (self.arm.receive && self.rx.has_offered()) || self.arm.wake || self.arm.writable;
        // A wake-up that came while the kernel was entered has been taken off the ring: nothing else tells of it.
        Ok(!armed && !self.rx.has_ready() && !self.waker.is_due())
    }

    /// Becomes readable when a [`Waker`] fires, and stays so until [`clear_wake_fd`](Self::clear_wake_fd): to be waited
    /// for beside the ring, whose descriptor does not tell of every wake-up that the kernel has yet to complete.
    #[must_use]
    pub fn wake_fd(&self) -> RawFd {
        self.waker.raw_fd()
    }

    /// Makes [`wake_fd`](Self::wake_fd) unreadable again.
    pub fn clear_wake_fd(&self) {
        self.waker.clear();
    }

    /// Awake again without a turn. True: a [`Waker`] fired.
    #[inline]
    pub fn end_wait(&mut self) -> bool {
        let woken = self.waker.take();
        self.counters.wakeups += u64::from(woken);
        woken
    }

    /// Has the kernel merge what arrives, or stop, as what arrived suggests.
    #[inline]
    fn choose_merging(&mut self) {
        let Some(merging) = &mut self.rx.merging else { return };
        if let Some(on) = merging.decide()
            && self.socket.set_merging(on).is_ok()
        {
            merging.done(on);
            self.counters.merging_changes += 1;
        }
    }

    /// The turn of a thread that may sleep.
    fn sleep(&mut self, deadline_ns: Option<u64>) -> io::Result<()> {
        if self.ring.submission().taskrun() {
            // Something is there already: no clock to read, no deadline for the kernel to look at.
            return self.enter(Wait::Poll);
        }
        // Asking the waker first closes the race: a wake-up after this writes to the event counter, which the
        // ring polls.
        let wait = if self.waker.prepare_sleep() { Wait::Until(deadline_ns) } else { Wait::Poll };
        self.enter(wait)
    }

    /// The turn of a thread that never sleeps.
    fn spin(&mut self, deadline_ns: Option<u64>) -> io::Result<()> {
        loop {
            let queue = self.ring.submission();
            if !queue.is_empty() || queue.taskrun() {
                drop(queue);
                return self.enter(Wait::Poll);
            }
            drop(queue);
            if self.waker.is_due() || deadline_ns.is_some_and(|deadline| sys::monotonic_ns() >= deadline) {
                return Ok(());
            }
            std::hint::spin_loop();
        }
    }

    /// Sends what a refused GSO batch, or slots of other pools, left behind.
    #[cold]
    fn send_rest(&mut self) -> io::Result<()> {
        while self.tx.wants_stage() {
            self.stage();
            if !self.tx.is_staged() {
                break;
            }
            self.enter(Wait::Submit)?;
            if self.tx.is_staged() {
                break;
            }
        }
        Ok(())
    }

    /// Fills the submission queue: what must be armed, then what is committed.
    #[inline]
    #[allow(unsafe_code)]
    fn stage(&mut self) {
        let mut queue = self.ring.submission();
        if self.arm.receive && self.rx.has_offered() {
            let entry =
                opcode::RecvMsgMulti::new(SOCKET, self.rx.request(), BUFFERS).build().user_data(RECEIVE);
            // SAFETY: the layout is boxed in `rx`, and the registered buffers belong to it; both outlive the
            // ring, which is dropped first.
            self.arm.receive = unsafe { queue.push(&entry) }.is_err();
        }
        if self.arm.wake {
            let entry = poll_entry(EVENT, libc::POLLIN, true).user_data(WAKE);
            // SAFETY: the request names a registered file and no memory.
            self.arm.wake = unsafe { queue.push(&entry) }.is_err();
        }
        if self.arm.writable {
            let entry = poll_entry(SOCKET, libc::POLLOUT, false).user_data(WRITABLE);
            // SAFETY: as above.
            self.arm.writable = unsafe { queue.push(&entry) }.is_err();
        }
        self.tx.stage(&mut queue, SOCKET, SEND);
    }

    /// One kernel entry, and everything that it brought.
    #[inline]
    #[allow(unsafe_code)]
    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let submit = self.ring.submission().len() as u32;
        let (least, flags, timeout) = match wait {
            Wait::Submit => (0, EnterFlags::empty(), None),
            Wait::Poll => (0, EnterFlags::GETEVENTS, None),
            Wait::Until(deadline) => {
                let left = deadline.map(|deadline| deadline.saturating_sub(sys::monotonic_ns()));
                (u32::from(left != Some(0)), EnterFlags::GETEVENTS, left)
            }
        };
        self.counters.syscalls += 1;
        let submitter = self.ring.submitter();
        let result = if let Some(left) = timeout {
            let left = types::Timespec::new().sec(left / 1_000_000_000).nsec((left % 1_000_000_000) as u32);
            let args = types::SubmitArgs::new().timespec(&left);
            // SAFETY: the argument is the structure that EXT_ARG announces, and lives through the call.
            unsafe { submitter.enter(submit, least, (flags | EnterFlags::EXT_ARG).bits(), Some(&args)) }
        } else {
            // SAFETY: no argument is passed.
            unsafe { submitter.enter::<libc::sigset_t>(submit, least, flags.bits(), None) }
        };
        self.collect();
        match result {
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                // The deadline, a signal, or completions to be collected first: all done by now.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
                _ => return Err(error),
            },
        }
        if self.failures.in_a_row > RECEIVE_FAILURES_MAX {
            return Err(io::Error::from_raw_os_error(self.failures.last_errno));
        }
        Ok(())
    }

    /// Empties the completion queue and frees the sends that the kernel took.
    #[inline]
    fn collect(&mut self) {
        for completion in self.ring.completion() {
            let tag = completion.user_data();
            match tag & KIND {
                RECEIVE => on_receive(
                    &completion,
                    &mut self.rx,
                    &mut self.counters,
                    &mut self.failures,
                    &mut self.arm,
                ),
                WAKE => self.arm.wake |= !cqueue::more(completion.flags()),
                WRITABLE => self.tx.on_writable(),
                SEND if completion.result() < 0 => {
                    self.tx.on_refused((tag & !KIND) as usize, -completion.result());
                }
                _ => {}
            }
        }
        self.rx.on_entered(!self.arm.receive);
        if self.tx.is_staged() && self.ring.submission().is_empty() {
            let was_blocked = self.tx.is_blocked();
            self.tx.finish(&mut self.counters);
            self.arm.writable |= !was_blocked && self.tx.is_blocked();
        }
    }
}

impl Transport for UringUdp {
    fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn turn(&mut self, deadline_ns: Option<u64>) -> io::Result<Turn> {
        self.rx.release_current();
        self.choose_merging();
        self.stage();
        if self.rx.has_ready() {
            if !self.ring.submission().is_empty() {
                self.enter(Wait::Poll)?;
            }
        } else if self.busy_poll {
            self.spin(deadline_ns)?;
        } else {
            self.sleep(deadline_ns)?;
        }
        if self.tx.wants_stage() {
            self.send_rest()?;
        }
        let woken = self.waker.take();
        self.counters.wakeups += u64::from(woken);
        Ok(Turn { received: self.rx.has_ready(), woken })
    }

    #[inline]
    fn poll_receive(&mut self) -> Option<Received<'_>> {
        self.rx.poll(&mut self.counters)
    }

    #[inline]
    fn acquire(&mut self) -> Option<TxSlot> {
        let slot = self.pool.acquire();
        self.counters.tx_exhausted += u64::from(slot.is_none());
        slot
    }

    #[inline]
    fn commit(&mut self, slot: TxSlot, tx: Transmit) {
        self.tx.commit(slot, tx, &mut self.counters);
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.tx.wants_stage() || self.tx.is_staged() {
            self.stage();
            self.enter(Wait::Submit)?;
            if self.tx.wants_stage() {
                self.send_rest()?;
            }
        }
        Ok(())
    }

    fn poll_send_error(&mut self) -> Option<SendError> {
        self.tx.poll_error()
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl AsRawFd for UringUdp {
    /// The ring, for polling; see [`prepare_wait`](Self::prepare_wait).
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl Drop for UringUdp {
    /// Ends the armed requests, so that the port is free when this returns.
    fn drop(&mut self) {
        let all = types::CancelBuilder::any();
        let at_most = types::Timespec::new().sec(1);
        let submitter = self.ring.submitter();
        if submitter.register_sync_cancel(Some(at_most), all).is_ok() {
            // Deferred: their ends are processed by an entry of this thread.
            let _ = self.enter(Wait::Poll);
        }
        let _ = self.ring.submitter().unregister_files();
    }
}

impl std::fmt::Debug for UringUdp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UringUdp")
            .field("local", &self.socket.local_addr())
            .field("busy_poll", &self.busy_poll)
            .field("tx", &self.tx)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

fn setup(sizes: config::Sizes) -> Result<IoUring, OpenError> {
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(sizes.completions)
        .build(sizes.submissions)
        .map_err(|error| match Unsupported::from_setup(&error) {
            Some(unsupported) => OpenError::Unsupported(unsupported),
            None => OpenError::System { operation: "setting up io_uring", source: error },
        })?;
    let parameters = ring.params();
    if !parameters.is_feature_ext_arg() {
        return Err(Unsupported::missing(Feature::ExtArg).into());
    }
    if !parameters.is_feature_skip_cqe_on_success() {
        return Err(Unsupported::missing(Feature::SkipSuccess).into());
    }
    Ok(ring)
}

#[allow(unsafe_code)]
fn register(ring: &IoUring, socket: &Socket, waker: &Waker, rx: &RxRing) -> Result<(), OpenError> {
    let submitter = ring.submitter();
    submitter
        .register_files(&[socket.raw_fd(), waker.raw_fd()])
        .map_err(OpenError::system("registering files with io_uring"))?;
    let (entries, count) = rx.registration();
    // SAFETY: the entries are mapped, page-aligned and owned by `rx`, which outlives the ring.
    unsafe { submitter.register_buf_ring_with_flags(entries, count, BUFFERS, 0) }.map_err(|error| match error
        .raw_os_error()
    {
        Some(libc::EINVAL | libc::ENOSYS) => Unsupported::missing(Feature::BufferRing).into(),
        _ => OpenError::System { operation: "registering receive buffers", source: error },
    })
}

fn poll_entry(file: types::Fixed, events: libc::c_short, multi: bool) -> squeue::Entry {
    opcode::PollAdd::new(file, u32::from(events.cast_unsigned())).multi(multi).build()
}

#[inline]
fn on_receive(
    completion: &cqueue::Entry,
    rx: &mut RxRing,
    counters: &mut Counters,
    failures: &mut ReceiveFailures,
    arm: &mut Arm,
) {
    arm.receive |= !cqueue::more(completion.flags());
    let buffer = cqueue::buffer_select(completion.flags());
    if let Ok(len) = u32::try_from(completion.result()) {
        failures.in_a_row = 0;
        if let Some(buffer) = buffer {
            rx.on_filled(buffer, len);
        }
        return;
    }
    if let Some(buffer) = buffer {
        rx.on_unused(buffer);
    }
    match -completion.result() {
        libc::ENOBUFS => {
            counters.receive_enobufs += 1;
            rx.on_dry();
        }
        libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
        errno => {
            // An ICMP error of an earlier send, for instance. A socket that only fails is broken.
            counters.receive_errors += 1;
            failures.in_a_row += 1;
            failures.last_errno = errno;
        }
    }
}

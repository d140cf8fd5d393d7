//! Watches a program's own network thread in the steady state: what it allocates, and how often its transport
//! enters the kernel in a turn.
//!
//! To be included by a unit test of the program, whose allocator it replaces by one that counts. The thread runs
//! unchanged; it is given an [`Observed`] transport.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rift_core::endpoint::{ClientConfig, ControllerKind, HostConfig, Path, StreamOffer};
use rift_core::message::proto::{Codec, Resolution};
use rift_core::send::SenderConfig;
use rift_core::{Bitrate, Timestamp};
use rift_crypto::Identity;
use wavry_runtime::Waker;
use wavry_runtime::counters::Counters;
use wavry_runtime::transport::{Received, SendError, Transmit, Transport, Turn, TxSlot};
use wavry_runtime::uring::UringUdpConfig;

/// The handshake included, and the five seconds for which the host remembers it.
pub(crate) const WARM_UP: Duration = Duration::from_millis(6500);
/// Long enough for a few reports of statistics.
pub(crate) const STEADY: Duration = Duration::from_millis(3500);
pub(crate) const FRAME_INTERVAL: Duration = Duration::from_micros(16_667);
/// A mouse at 250 Hz.
pub(crate) const INPUT_INTERVAL: Duration = Duration::from_millis(4);
/// A frame of 42 kB in four slices.
pub(crate) const SLICES: u32 = 4;
pub(crate) static SLICE: [u8; 10_500] = [0x5a; 10_500];

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

impl Counting {
    fn count() {
        // A thread's last calls come after its thread-locals are gone.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
    }
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller keeps `GlobalAlloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        Self::count();
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, len) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        Self::count();
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What was seen since [`begin`](Self::begin).
#[derive(Debug, Default)]
pub(crate) struct Seen {
    watching: AtomicBool,
    pub(crate) allocations: AtomicU64,
    pub(crate) turns: AtomicU64,
    pub(crate) datagrams: AtomicU64,
    pub(crate) most_entries: AtomicU64,
}

impl Seen {
    /// The steady state has been reached.
    pub(crate) fn begin(&self) {
        self.watching.store(true, Ordering::Release);
    }

    /// What comes now is the end, which may allocate.
    pub(crate) fn end(&self) {
        self.watching.store(false, Ordering::Release);
    }

    pub(crate) fn check(&self) {
        println!("{self:?}");
        let of = |count: &AtomicU64| count.load(Ordering::Acquire);
        assert!(of(&self.turns) > 200, "the thread ran: {self:?}");
        assert!(of(&self.datagrams) > 200, "and had something to do: {self:?}");
        assert_eq!(of(&self.allocations), 0, "nothing is allocated or freed: {self:?}");
        assert_eq!(of(&self.most_entries), 1, "a turn is one kernel entry: {self:?}");
        // The counter does count.
        let before = ALLOCATIONS.get();
        drop(std::hint::black_box(Box::new(7u8)));
        assert_eq!(ALLOCATIONS.get() - before, 2);
    }
}

/// A transport that tells what happened between the ends of two turns.
pub(crate) struct Observed<T> {
    inner: T,
    seen: Arc<Seen>,
    last: Option<(u64, u64, u64)>,
}

impl<T: Transport> Observed<T> {
    pub(crate) fn new(inner: T, seen: Arc<Seen>) -> Self {
        Self { inner, seen, last: None }
    }

    fn on_turn(&mut self) {
        let counters = self.inner.counters();
        let present = (ALLOCATIONS.get(), counters.datagrams, counters.syscalls);
        let before = self.last.replace(present);
        if !self.seen.watching.load(Ordering::Acquire) {
            self.last = None;
        } else if let Some((allocations, datagrams, entries)) = before {
            self.seen.allocations.fetch_add(present.0 - allocations, Ordering::AcqRel);
            self.seen.datagrams.fetch_add(present.1 - datagrams, Ordering::AcqRel);
            self.seen.most_entries.fetch_max(present.2 - entries, Ordering::AcqRel);
            self.seen.turns.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl<T: Transport> Transport for Observed<T> {
    fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr()
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn turn(&mut self, deadline_ns: Option<u64>) -> io::Result<Turn> {
        let turn = self.inner.turn(deadline_ns);
        self.on_turn();
        turn
    }

    fn poll_receive(&mut self) -> Option<Received<'_>> {
        self.inner.poll_receive()
    }

    fn acquire(&mut self) -> Option<TxSlot> {
        self.inner.acquire()
    }

    fn commit(&mut self, slot: TxSlot, tx: Transmit) {
        self.inner.commit(slot, tx);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }

    fn poll_send_error(&mut self) -> Option<SendError> {
        self.inner.poll_send_error()
    }

    fn counters(&self) -> &Counters {
        self.inner.counters()
    }
}

/// Calls `work` at every multiple of `interval` until `span` has passed.
pub(crate) fn every(interval: Duration, span: Duration, mut work: impl FnMut()) {
    let end = Instant::now() + span;
    let mut due = Instant::now();
    while Instant::now() < end {
        work();
        due += interval;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

pub(crate) fn loopback() -> UringUdpConfig {
    UringUdpConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// A host that takes the client of the second configuration, and that client, which looks for the host at `at`.
pub(crate) fn configurations(at: impl FnOnce() -> SocketAddr) -> (HostConfig, ClientConfig) {
    let (host, client) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let offer = StreamOffer {
        codec: Codec::H264,
        resolution: Resolution { width: 1280, height: 720 },
        fps: 60,
        initial_bitrate: Bitrate::from_mbps(20),
        min_bitrate: Bitrate::from_mbps(1),
        max_bitrate: Bitrate::from_mbps(50),
        monitors: Vec::new(),
    };
    let seed = || rift_crypto::random_seed().unwrap();
    let host = HostConfig {
        sender: SenderConfig { parity: 0.125, ..SenderConfig::default() },
        controller: ControllerKind::Fixed,
        allowed: vec![client.wavry_id()],
        ..HostConfig::new(host, seed(), offer)
    };
    (host, ClientConfig::new(client, seed(), Path::to(at())))
}

/// For a `SliceMeta`: the time, as endpoints take it.
pub(crate) fn now() -> Timestamp {
    wavry_session_loop::now()
}

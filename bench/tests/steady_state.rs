//! Both network loops over real loopback: no heap allocation, and at most one system call per turn.
//!
//! Host and client run on threads of their own, in the shape of the network threads of `wavry-server` and
//! `wavry-client`; the test's thread plays encoder and mouse. Its own program, because it replaces the
//! allocator by one that counts.
#![allow(missing_docs, unsafe_code, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rift_core::FrameId;
use rift_core::endpoint::{ClientEndpoint, Ecn, HostEndpoint, HostEvent, Path};
use rift_core::input::InputEvent;
use rift_core::send::SliceMeta;
use wavry_bench::packet::pair::{Settings, client_config, host_config, now, to_ns, to_transport};
use wavry_runtime::Waker;
use wavry_runtime::spsc::{self, Consumer, Lease, Slab};
use wavry_runtime::transport::Transport;
use wavry_runtime::uring::{UringUdp, UringUdpConfig};

const FRAME_LEN: usize = 42_000;
const SLICES: usize = 4;
const FRAME_INTERVAL: Duration = Duration::from_micros(16_667);
/// A mouse at 250 Hz.
const INPUT_INTERVAL: Duration = Duration::from_millis(4);
/// The handshake included, and the five seconds for which the host remembers it.
const WARM_UP: Duration = Duration::from_millis(6500);
const STEADY: Duration = Duration::from_secs(5);

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

/// What the threads tell each other besides the rings.
struct Phase {
    at: AtomicU8,
    /// The host wants a frame that needs no other.
    keyframe: AtomicBool,
}

impl Phase {
    const WARM_UP: u8 = 0;
    const STEADY: u8 = 1;
    const OVER: u8 = 2;

    fn now(&self) -> u8 {
        self.at.load(Ordering::Acquire)
    }
}

/// What a loop counted.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    allocations: u64,
    turns: u64,
    syscalls: u64,
    datagrams: u64,
    /// Events injected, or frames decoded.
    work: u64,
}

/// The difference between the first turn of the steady phase and its end.
#[derive(Default)]
struct Span {
    begin: Option<Counts>,
    turns: u64,
    work: u64,
}

impl Span {
    fn counts(&self, transport: &UringUdp) -> Counts {
        let counters = transport.counters();
        Counts {
            allocations: ALLOCATIONS.get(),
            turns: self.turns,
            syscalls: counters.syscalls,
            datagrams: counters.datagrams,
            work: self.work,
        }
    }

    /// At the start of each turn. Returns the difference at the end.
    fn on_turn(&mut self, phase: &Phase, transport: &UringUdp) -> Option<Counts> {
        let phase = phase.now();
        if self.begin.is_none() && phase == Phase::STEADY {
            self.begin = Some(self.counts(transport));
        }
        self.turns += 1;
        let begin = self.begin.filter(|_| phase == Phase::OVER)?;
        let end = self.counts(transport);
        Some(Counts {
            allocations: end.allocations - begin.allocations,
            // This one has only begun.
            turns: end.turns - begin.turns - 1,
            syscalls: end.syscalls - begin.syscalls,
            datagrams: end.datagrams - begin.datagrams,
            work: end.work - begin.work,
        })
    }
}

struct Slice {
    meta: SliceMeta,
    data: Lease,
}

fn host_loop(
    mut udp: UringUdp,
    mut host: HostEndpoint,
    mut slices: Consumer<Slice>,
    phase: &Phase,
) -> Counts {
    let mut span = Span::default();
    loop {
        if let Some(counts) = span.on_turn(phase, &udp) {
            return counts;
        }
        let at = now();
        while let Some(batch) = udp.poll_receive() {
            let path = Path { remote: batch.from, local: batch.to };
            for datagram in batch.datagrams() {
                let _ = host.handle_datagram(at, path, Ecn::NotEct, datagram);
            }
        }
        host.handle_timeout(at);
        while let Some(event) = host.poll_event() {
            match event {
                HostEvent::Input(_) => span.work += 1,
                HostEvent::SessionStarted { .. }
                | HostEvent::KeyframeNeeded
                | HostEvent::ReferenceInvalidated { .. } => phase.keyframe.store(true, Ordering::Release),
                _ => {}
            }
        }
        while let Some(slice) = slices.pop() {
            // Before the client is there nobody wants them.
            let _ = host.submit_slice(at, &slice.meta, &slice.data);
        }
        while let Some(mut slot) = udp.acquire() {
            let Some(out) = host.poll_transmit(at, &mut slot) else { break };
            udp.commit(slot, to_transport(&out));
        }
        udp.turn(to_ns(host.poll_timeout())).unwrap();
    }
}

fn client_loop(
    mut udp: UringUdp,
    mut client: ClientEndpoint,
    mut inputs: Consumer<InputEvent>,
    phase: &Phase,
) -> Counts {
    let mut span = Span::default();
    loop {
        if let Some(counts) = span.on_turn(phase, &udp) {
            return counts;
        }
        let at = now();
        while let Some(batch) = udp.poll_receive() {
            let path = Path { remote: batch.from, local: batch.to };
            for datagram in batch.datagrams() {
                let _ = client.handle_datagram(at, path, Ecn::NotEct, datagram);
            }
        }
        client.handle_timeout(at);
        while let Some(event) = inputs.pop() {
            let _ = client.submit_input(at, event);
        }
        while client.poll_event().is_some() {}
        while let Some(slice) = client.poll_slice(at) {
            let (frame, last) = (slice.frame_id, slice.last);
            if last {
                span.work += 1;
                client.on_decoded(at, frame);
                client.on_shown(at, frame);
            }
        }
        while let Some(mut slot) = udp.acquire() {
            let Some(out) = client.poll_transmit(at, &mut slot) else { break };
            udp.commit(slot, to_transport(&out));
        }
        udp.turn(to_ns(client.poll_timeout())).unwrap();
    }
}

fn loopback() -> UringUdpConfig {
    UringUdpConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// Encoder and mouse, until `end`.
#[allow(clippy::too_many_arguments)]
fn produce(
    slices: &mut spsc::Producer<Slice>,
    inputs: &mut spsc::Producer<InputEvent>,
    slab: &Slab,
    wakers: &[Waker; 2],
    phase: &Phase,
    next_frame: &mut u64,
    end: Instant,
) {
    let picture = [0x5a; FRAME_LEN / SLICES];
    let (mut frame_due, mut input_due) = (Instant::now(), Instant::now());
    while Instant::now() < end {
        if Instant::now() >= frame_due {
            frame_due += FRAME_INTERVAL;
            let keyframe = phase.keyframe.swap(false, Ordering::AcqRel);
            for index in 0..SLICES as u32 {
                // What a thread that was not scheduled for a while has no room for is not made.
                let Some(mut data) = slab.lease() else { continue };
                data.extend_from_slice(&picture).unwrap();
                let meta = SliceMeta {
                    frame_id: FrameId(*next_frame),
                    slice_index: index,
                    last_slice: index + 1 == SLICES as u32,
                    keyframe,
                    reference: next_frame.checked_sub(1).map(FrameId).filter(|_| !keyframe),
                    timestamp: now(),
                    capture_us: 300,
                    encode_us: 2000 * (index + 1),
                };
                let _ = slices.push(Slice { meta, data });
                wakers[0].wake();
            }
            *next_frame += 1;
        }
        if Instant::now() >= input_due {
            input_due += INPUT_INTERVAL;
            let step = InputEvent::MouseMoveRelative { dx: 1.0, dy: 1.0 };
            let _ = inputs.push(step);
            wakers[1].wake();
        }
        thread::sleep(frame_due.min(input_due).saturating_duration_since(Instant::now()));
    }
}

/// R-ROB-3 beyond the core: with sockets, rings and wake-ups.
#[test]
fn running_network_loops_neither_allocate_nor_enter_the_kernel_twice_per_turn() {
    let phase = Arc::new(Phase { at: AtomicU8::new(Phase::WARM_UP), keyframe: AtomicBool::new(false) });
    let slab = Slab::new(64, FRAME_LEN).unwrap();
    let (mut slices, encoded) = spsc::ring(64);
    let (mut inputs, captured) = spsc::ring(64);
    let (tell, told) = mpsc::channel();
    let (name, named) = mpsc::channel();

    let host = thread::spawn({
        let (phase, tell) = (Arc::clone(&phase), tell.clone());
        move || {
            let udp = UringUdp::open(loopback()).unwrap();
            tell.send((udp.local_addr(), udp.waker())).unwrap();
            let settings = Settings { parity: 0.125, paced: true, arrival_times: false };
            let host = HostEndpoint::new(host_config(named.recv().unwrap(), settings).unwrap(), now());
            host_loop(udp, host, encoded, &phase)
        }
    });
    let (at, host_waker) = told.recv().unwrap();
    let client = thread::spawn({
        let phase = Arc::clone(&phase);
        move || {
            let udp = UringUdp::open(loopback()).unwrap();
            tell.send((udp.local_addr(), udp.waker())).unwrap();
            let (config, id) = client_config(at).unwrap();
            name.send(id).unwrap();
            client_loop(udp, ClientEndpoint::new(config, now()), captured, &phase)
        }
    });
    let (_, client_waker) = told.recv().unwrap();
    let wakers = [host_waker, client_waker];

    let mut next_frame = 0;
    produce(&mut slices, &mut inputs, &slab, &wakers, &phase, &mut next_frame, Instant::now() + WARM_UP);
    phase.at.store(Phase::STEADY, Ordering::Release);
    produce(&mut slices, &mut inputs, &slab, &wakers, &phase, &mut next_frame, Instant::now() + STEADY);
    phase.at.store(Phase::OVER, Ordering::Release);
    wakers.iter().for_each(Waker::wake);
    let (host, client) = (host.join().unwrap(), client.join().unwrap());

    println!("host {host:?}\nclient {client:?}");
    assert!(host.work > 1000, "of 1250 input events {} arrived", host.work);
    assert!(client.work > 270, "of 300 frames {} arrived", client.work);
    assert!(client.datagrams > 36 * client.work, "{client:?}");
    assert_eq!(host.allocations, 0, "{host:?}");
    assert_eq!(client.allocations, 0, "{client:?}");
    assert!(host.syscalls <= host.turns, "{host:?}");
    assert!(client.syscalls <= client.turns, "{client:?}");
    // The counter does count.
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(7u8)));
    assert_eq!(ALLOCATIONS.get() - before, 2);
}

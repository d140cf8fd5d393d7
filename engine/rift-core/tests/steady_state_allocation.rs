//! A running session allocates nothing, on either side: not per packet, not per frame, not per input event.
//!
//! Its own program, because it replaces the allocator by one that counts.

#![allow(clippy::unwrap_used, unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use rift_core::endpoint::{
    ClientConfig, ClientEndpoint, ClientEvent, Ecn, HostConfig, HostEndpoint, HostEvent, Path, StreamOffer,
};
use rift_core::input::InputEvent;
use rift_core::message::proto::{Codec, CursorPosition, Resolution};
use rift_core::send::SliceMeta;
use rift_core::{Bitrate, FrameId, Timestamp};
use rift_crypto::Identity;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // The thread's last allocations come after its thread-locals are gone.
    let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
}

// SAFETY: every call goes to the system allocator unchanged; counting touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SLOTS: usize = 4096;

/// Datagrams under way, in a ring that was there before.
struct Wire {
    delay_us: u64,
    slots: Vec<(Timestamp, usize, [u8; 1500])>,
    head: usize,
    tail: usize,
}

impl Wire {
    fn new(delay_us: u64) -> Self {
        Self { delay_us, slots: vec![(Timestamp::ZERO, 0, [0; 1500]); SLOTS], head: 0, tail: 0 }
    }

    fn push(&mut self, now: Timestamp, datagram: &[u8]) {
        assert!(self.tail - self.head < SLOTS);
        let slot = &mut self.slots[self.tail % SLOTS];
        (slot.0, slot.1) = (now.plus_micros(self.delay_us), datagram.len());
        slot.2[..datagram.len()].copy_from_slice(datagram);
        self.tail += 1;
    }

    fn pop(&mut self, now: Timestamp) -> Option<&mut [u8]> {
        if self.head == self.tail || self.slots[self.head % SLOTS].0 > now {
            return None;
        }
        let slot = &mut self.slots[self.head % SLOTS];
        self.head += 1;
        Some(&mut slot.2[..slot.1])
    }
}

struct Pair {
    now: Timestamp,
    host: HostEndpoint,
    client: ClientEndpoint,
    to_host: Wire,
    to_client: Wire,
    buf: Vec<u8>,
    frame: Vec<u8>,
    rng: fastrand::Rng,
    loss_percent: u8,
    next_frame: u64,
    slices: u64,
    inputs: u64,
}

impl Pair {
    /// With at least so much parity, on a path of this delay.
    fn new(parity: f32, delay_us: u64) -> Self {
        let now = Timestamp::from_micros(1_000_000);
        let identity = |seed| Identity::from_seed([seed; 32]).unwrap();
        let offer = StreamOffer {
            codec: Codec::H264,
            resolution: Resolution { width: 1280, height: 720 },
            fps: 60,
            initial_bitrate: Bitrate::from_mbps(20),
            min_bitrate: Bitrate::from_mbps(1),
            max_bitrate: Bitrate::from_mbps(50),
            monitors: vec![],
        };
        let mut host = HostConfig::new(identity(100), [1; 32], offer);
        host.allowed = vec![identity(2).wavry_id()];
        host.sender.parity = parity;
        let client = ClientConfig::new(identity(2), [2; 32], Path::to("10.0.0.1:4810".parse().unwrap()));
        Self {
            now,
            host: HostEndpoint::new(host, now),
            client: ClientEndpoint::new(client, now),
            to_host: Wire::new(delay_us),
            to_client: Wire::new(delay_us),
            buf: vec![0; 65_536],
            frame: (0..50_000u32).map(|i| (i * 7) as u8).collect(),
            rng: fastrand::Rng::with_seed(5),
            loss_percent: 0,
            next_frame: 0,
            slices: 0,
            inputs: 0,
        }
    }

    fn step(&mut self) {
        let now = self.now;
        let (host_path, client_path) =
            (Path::to("10.0.0.1:4810".parse().unwrap()), Path::to("10.0.0.2:5000".parse().unwrap()));
        while let Some(datagram) = self.to_host.pop(now) {
            let _ = self.host.handle_datagram(now, client_path, Ecn::NotEct, datagram);
        }
        while let Some(datagram) = self.to_client.pop(now) {
            let _ = self.client.handle_datagram(now, host_path, Ecn::NotEct, datagram);
        }
        self.host.handle_timeout(now);
        self.client.handle_timeout(now);
        while let Some(event) = self.host.poll_event() {
            self.inputs += u64::from(matches!(event, HostEvent::Input(_)));
        }
        while self.client.poll_event().is_some() {}
        while let Some(slice) = self.client.poll_slice(now) {
            let (frame, last) = (slice.frame_id, slice.last);
            self.slices += 1;
            if last {
                self.client.on_decoded(now, frame);
                self.client.on_shown(now, frame);
            }
        }
        while self.client.poll_audio().is_some() {}
        while let Some(t) = self.host.poll_transmit(now, &mut self.buf) {
            for datagram in self.buf[..t.len].chunks(t.segment_len) {
                if self.rng.u8(..100) >= self.loss_percent {
                    self.to_client.push(now, datagram);
                }
            }
        }
        while let Some(t) = self.client.poll_transmit(now, &mut self.buf) {
            if self.rng.u8(..100) >= self.loss_percent {
                self.to_host.push(now, &self.buf[..t.len]);
            }
        }
        self.now = now.plus_micros(500);
    }

    /// Streams `ms` milliseconds at 60 frames per second, in four slices, with sound, cursor and a fast mouse.
    fn stream(&mut self, ms: u64) {
        for half_ms in 0..ms * 2 {
            let now = self.now;
            if half_ms % 33 == 0 {
                let id = self.next_frame;
                self.next_frame += 1;
                for index in 0..4u32 {
                    let meta = SliceMeta {
                        frame_id: FrameId(id),
                        slice_index: index,
                        last_slice: index == 3,
                        keyframe: id == 0,
                        reference: id.checked_sub(1).map(FrameId),
                        timestamp: now,
                        capture_us: 300,
                        encode_us: 2000,
                    };
                    let _ = self.host.submit_slice(now, &meta, &self.frame[..10_000 + 500 * index as usize]);
                }
                let position =
                    CursorPosition { timestamp_us: 0, x: id as i32, y: 3, visible: true, shape_serial: 1 };
                self.host.submit_cursor_position(position);
            }
            if half_ms % 10 == 0 {
                let _ = self.host.submit_audio(now, now, &self.frame[..100]);
            }
            if half_ms % 2 == 0 {
                let step = InputEvent::MouseMoveRelative { dx: 1.0, dy: -1.0 };
                let _ = self.client.submit_input(now, step);
            }
            if half_ms % 50 == 0 {
                let pressed = half_ms % 100 == 0;
                let _ = self.client.submit_input(now, InputEvent::Key { keycode: 30, pressed });
            }
            self.step();
        }
    }
}

/// Proves R-ROB-3: ten seconds of 60 frames, 100 packets of sound per second and a mouse at 1000 Hz, with loss that
/// makes parity, retransmission and repeated input work, and not one allocation on either side.
#[test]
fn a_running_session_allocates_nothing() {
    // Parity for each frame, and parity that reaches back.
    for (parity, delay_us) in [(0.02, 5_000), (0.0, 40_000)] {
        let mut pair = Pair::new(parity, delay_us);
        pair.runs_without_allocations();
        let sender = pair.host.sender_counters().unwrap();
        assert_eq!(sender.parity_sliding > 0, delay_us == 40_000, "{sender:?}");
    }
}

impl Pair {
    fn runs_without_allocations(&mut self) {
        let pair = self;
        let mut connected = false;
        for _ in 0..1_000 {
            let now = pair.now;
            pair.step();
            connected |= pair.host.session().is_some() && pair.client.session().is_some();
            assert!(now < pair.now);
        }
        assert!(connected);
        pair.loss_percent = 1;
        pair.stream(2000);
        let (slices, inputs, before) = (pair.slices, pair.inputs, ALLOCATIONS.get());
        pair.stream(10_000);
        let allocations = ALLOCATIONS.get() - before;
        assert!(pair.slices - slices > 4 * 550, "{} slices", pair.slices - slices);
        assert!(pair.inputs - inputs > 2000, "{} events", pair.inputs - inputs);
        let counters = pair.client.receiver_counters().unwrap();
        assert!(counters.chunks_from_parity > 0 && counters.chunks_resent > 0, "{counters:?}");
        assert_eq!(allocations, 0);
        // The counter does count.
        drop(std::hint::black_box(Box::new(7u8)));
        assert!(ALLOCATIONS.get() > before);
        let _ = std::hint::black_box(ClientEvent::RttSample(0));
    }
}

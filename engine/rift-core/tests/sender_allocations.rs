//! In steady state the sender allocates nothing, whatever happens to it.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use rift_core::send::{DeltaV1, DeltaV1Config, SenderConfig, SliceMeta, VideoSender};
use rift_core::{Bitrate, FrameId, PacketId, Timestamp};

thread_local! {
    /// Of this thread alone: the test harness has others.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes unchanged to the system allocator; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

#[test]
fn nothing_is_allocated_after_construction() {
    let config = SenderConfig {
        frames: 6,
        frame_bytes_max: 1 << 20,
        history_packets: 2048,
        retransmissions_max: 64,
        retransmit_us_max: 20_000,
        parity: 0.2,
        pacing: Bitrate::from_mbps(200),
        ..SenderConfig::default()
    };
    let before_construction = allocations();
    let mut sender = VideoSender::new(&config);
    let mut delta = DeltaV1::new(&DeltaV1Config::default());
    assert!(allocations() > before_construction, "the counter counts");

    let mut rng = fastrand::Rng::with_seed(3);
    let data = vec![5; 900_000];
    let mut out = [0; 1500];
    let mut now = Timestamp::from_micros(1_000_000);
    let mut next_id = 0;
    sender.set_rtt(8000);

    let (mut buffer, mut by_encoder) = (Vec::with_capacity(config.pool_sizes().slice_bytes), 0);
    let before = allocations();
    let mut reference = None;
    for frame in 0..600u64 {
        // Small frames, a long one now and then, in one to eight slices, some that do not fit.
        let len = if frame % 40 == 0 { rng.usize(200_000..900_000) } else { rng.usize(1..60_000) };
        let slices = if frame % 97 == 0 { 40 } else { rng.u32(1..9) };
        for i in 0..slices {
            let part = (len / slices as usize).max(1);
            let meta = SliceMeta {
                frame_id: FrameId(frame),
                slice_index: i,
                last_slice: i + 1 == slices,
                keyframe: reference.is_none(),
                reference,
                timestamp: now,
                capture_us: 900,
                encode_us: 3000,
            };
            if part <= config.pool_sizes().slice_bytes && frame % 2 == 0 {
                let _ = sender.submit_slice(now, &meta, &data[..part]);
            } else {
                // What the encoder needs to write a slice longer than any in this buffer is its own.
                let before = allocations();
                buffer.extend_from_slice(&data[..part]);
                by_encoder += allocations() - before;
                let _ = sender.submit_buffer(now, &meta, &mut buffer);
                assert!(buffer.is_empty());
            }
            while let Some(batch) = sender.next_batch(now) {
                for _ in 0..batch.count {
                    assert!(sender.write_body(PacketId(next_id), &mut out) > 0);
                    next_id += 1;
                }
            }
            now = now.plus_micros(1500);
            sender.on_nack(now, (0..8).map(|_| PacketId(rng.u64(0..next_id + 5))));
        }
        reference = match sender.poll_dropped() {
            Some(dropped) => dropped.last_valid,
            None => Some(FrameId(frame)),
        };
        if frame % 3 != 0 {
            sender.on_frame_acked(FrameId(frame.saturating_sub(2)));
        }
        delta.on_rtt(now, rng.u64(4000..40_000));
        delta.on_loss(now, rng.u32(0..3));
        sender.set_parity(delta.parity_ratio());
    }
    assert_eq!(allocations() - before - by_encoder, 0);

    // It was worth counting: all of these paths were taken.
    let c = sender.counters();
    for count in [
        c.data_packets,
        c.parity_packets,
        c.retransmitted_packets,
        c.frames_dropped_stale,
        c.nacks_unknown,
        c.nacks_stale,
        c.nacks_duplicate,
        c.nacks_late,
    ] {
        assert!(count > 0, "{c:?}");
    }
}

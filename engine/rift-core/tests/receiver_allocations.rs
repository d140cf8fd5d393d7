//! In steady state the receiver allocates nothing: not per packet, not per frame, not when repairing.

#[path = "support/packetiser.rs"]
mod packetiser;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use packetiser::{FrameSpec, Packet, Packetiser, deliver, picture};
use rift_core::message::AudioPacket;
use rift_core::receive::{AudioQueue, ReceiverConfig, VideoReceiver};
use rift_core::{PacketId, Timestamp};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system allocator unchanged; counting touches no memory it hands out.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `alloc` with `layout`, which called the system allocator.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Ten seconds of a stream, packets and arrival times made beforehand: with losses, their resends,
/// reordering and parity.
fn script() -> Vec<(u64, Packet)> {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut sender = Packetiser::new(1000, 48, 5);
    let mut script = Vec::new();
    for id in 0..600u64 {
        let sent = id * 16_667;
        let spec = if id == 0 { FrameSpec::keyframe(0) } else { FrameSpec::after(id, 1) };
        let slices: Vec<_> = (0..4).map(|i| picture(id, i, 9_000)).collect();
        for packet in sender.frame(spec, &slices) {
            if rng.u32(0..50) == 0 {
                if let Some(resent) = sender.resend(packet.id) {
                    script.push((sent + 21_000, resent));
                }
            } else {
                script.push((sent + rng.u64(0..300), packet));
            }
        }
    }
    script.sort_by_key(|(at, packet)| (*at, packet.id));
    script
}

#[test]
fn ten_seconds_with_two_percent_loss_allocate_nothing() {
    let script = script();
    let mut receiver = VideoReceiver::new(&ReceiverConfig::default());
    let mut audio = AudioQueue::new(5_000, 20_000);
    receiver.set_rtt(20_000, 500);
    let (mut slices, mut nacks, mut reports) = (0u64, 0, 0);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for (n, (at, packet)) in script.iter().enumerate() {
        let now = Timestamp::from_micros(*at);
        let _ = deliver(&mut receiver, now, packet);
        while let Some(slice) = receiver.poll_slice(now) {
            slices += 1;
            if slice.last {
                let frame = slice.frame_id;
                receiver.on_decoded(now, frame);
            }
        }
        nacks += receiver.poll_nack(now, &mut [PacketId(0); 32]);
        while receiver.poll_request(now).is_some() {}
        if receiver.poll_timeout() <= now {
            receiver.handle_timeout(now);
        }
        if n % 40 == 0 {
            reports += usize::from(receiver.poll_arrivals(now).is_some());
            receiver.report(now);
            let sound = AudioPacket { timestamp_us: *at, payload: &[1; 80] };
            let _ = audio.handle(&sound);
            audio.poll();
        }
    }
    let allocated = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!(allocated, 0);
    // The numbers show that all of it was exercised.
    let counters = receiver.counters();
    assert!(
        slices > 2_300 && nacks > 50 && reports > 500,
        "{slices} slices, {nacks} requests, {reports} reports"
    );
    assert!(
        counters.chunks_from_parity > 100 && counters.chunks_resent > 10 && counters.reordered > 100,
        "{counters:?}"
    );
}

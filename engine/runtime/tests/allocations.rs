//! Nothing on a network thread's way allocates once it runs.
#![allow(missing_docs, unsafe_code, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use wavry_runtime::clock::Clock;
use wavry_runtime::spsc;
use wavry_runtime::timer::DeadlineQueue;
use wavry_runtime::transport::{Ecn, TrafficClass, Transmit, Transport};
use wavry_runtime::uring::{UringUdp, UringUdpConfig};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps `GlobalAlloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

#[test]
fn the_counter_counts() {
    let before = allocations();
    drop(Box::new(std::hint::black_box(1)));
    assert_eq!(allocations() - before, 2);
}

#[test]
fn steady_state_allocates_nothing() {
    for busy_poll in [false, true] {
        let config = UringUdpConfig {
            busy_poll,
            arrival_times: true,
            rx_buffers: 8,
            tx_slots: 8,
            ..UringUdpConfig::new("127.0.0.1:0".parse().unwrap())
        };
        let mut host = UringUdp::open(config).unwrap();
        let mut client = UringUdp::open(config).unwrap();
        let waker = client.waker();
        let slab = spsc::Slab::new(4, 100_000).unwrap();
        let (mut slices, mut encoded) = spsc::latest::<spsc::Lease>(2);
        let (mut inputs, mut injected) = spsc::ring::<u64>(8);
        let mut deadlines = DeadlineQueue::new(8);

        let mut steady = 0;
        for round in 0..1000u64 {
            // The first rounds warm up: lazily bound symbols, thread-locals.
            if round == 100 {
                steady = allocations();
            }
            // An encoder hands over slices, more than fit.
            for _ in 0..3 {
                if let Some(mut slice) = slab.lease() {
                    slice.set_len(100_000);
                    slices.push_latest(slice);
                }
            }
            while let Some(slice) = encoded.pop() {
                for part in slice.chunks(54 * 1200) {
                    let Some(mut slot) = host.acquire() else { continue };
                    slot[..part.len()].copy_from_slice(part);
                    let tx = Transmit {
                        class: TrafficClass::Af41,
                        ecn: Ecn::Ect1,
                        ..Transmit::batch(client.local_addr(), part.len(), 1200)
                    };
                    host.commit(slot, tx);
                }
            }
            // A send that fails must not allocate either.
            if let Some(slot) = host.acquire() {
                host.commit(slot, Transmit::datagram("[::1]:9".parse().unwrap(), 1));
            }
            host.flush().unwrap();
            waker.wake();
            inputs.push(round).unwrap();
            deadlines.set((round % 8) as usize, Some(Clock.now()));
            while deadlines.poll_expired(Clock.now()).is_some() {}

            let deadline = Clock.now() + 1_000_000;
            let turn = client.turn(Some(deadline)).unwrap();
            assert!(turn.woken);
            while let Some(batch) = client.poll_receive() {
                for datagram in batch.datagrams() {
                    datagram[0] ^= 1;
                }
            }
            injected.pop().unwrap();
        }
        assert_eq!(allocations() - steady, 0, "in 900 rounds (busy: {busy_poll})");
        let counters = client.counters();
        assert!(counters.datagrams > 100_000, "it did work: {counters:?}");
        assert_eq!(host.counters().send_errors.invalid, 1000);
    }
}

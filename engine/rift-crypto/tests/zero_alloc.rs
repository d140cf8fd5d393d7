//! The per-packet calls never touch the heap: a counting allocator is the process's allocator.

// The one place outside the crate's own sources that needs it: an allocator cannot be written
// without `unsafe`.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use rift_crypto::{HEADER_LEN, OpenKey, Replay, ReplayWindow, SealKey, Suite, TAG_LEN};

thread_local! {
    /// Per thread, since the test harness allocates on its own threads whenever it likes.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    ALLOCATIONS.with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is passed on unchanged to `System`, which keeps the contract; counting touches
// a constant-initialised thread-local without destructor, which itself never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's obligations are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: `ptr` came from `System` through this allocator.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System` through this allocator.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations_in(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn counter_sees_an_allocation() {
    assert_eq!(allocations_in(|| drop(std::hint::black_box(vec![0u8; 100]))), 1);
}

#[test]
fn sealing_opening_and_replay_checks_do_not_allocate() {
    for suite in [Suite::ChaCha20Poly1305, Suite::Aes256Gcm] {
        let (seal, open) = (SealKey::new(suite, [1; 32]), OpenKey::new(suite, [1; 32]));
        let mut window = ReplayWindow::new();
        let (header, mut packet) = ([0; HEADER_LEN], [0x5a; 1200 + TAG_LEN]);
        let mut elsewhere = [0; 1200];
        let count = allocations_in(|| {
            for packet_id in 0..10_000 {
                let tag = seal.seal_in_place(packet_id, &header, &mut packet[..1200]);
                packet[1200..].copy_from_slice(&tag);
                window.check(packet_id).unwrap();
                assert_eq!(open.open_into(packet_id, &header, &packet, &mut elsewhere), Ok(()));
                assert_eq!(open.open_in_place(packet_id, &header, &mut packet).unwrap().len(), 1200);
                window.mark(packet_id);
                assert_eq!(window.check(packet_id), Err(Replay::Duplicate));
                // What is refused must be as cheap as what is accepted.
                assert!(open.open_in_place(packet_id, &header, &mut packet).is_err());
                packet.fill(0x5a);
            }
        });
        assert_eq!(count, 0, "{suite:?}");
    }
}

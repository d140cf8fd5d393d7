//! The rings through which frames pass between this process and the kernel (linux/if_xdp.h).
//!
//! A ring is single-producer, single-consumer shared memory: two indices that only grow, modulo 2^32, and a power
//! of two of entries. Owns one end of one ring. Never knows what an entry means.
//!
//! Invariants: an end writes only its own index; an entry is written before the producer index that publishes it
//! (release), and read after the producer index that shows it (acquire); an entry is written again only after the
//! consumer index has passed it. They are proved on plain memory against a model, and by two threads, below.

#![allow(unsafe_code)]

use std::any::Any;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

/// `XDP_RING_NEED_WAKEUP`.
const NEED_WAKEUP: u32 = 1;

/// Where a ring lies: in memory shared with the kernel or, in tests, in plain memory.
pub(crate) struct RingMemory<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    len: u32,
    /// What keeps the memory in place.
    _owner: Rc<dyn Any>,
}

impl<T: Copy> RingMemory<T> {
    /// A ring of `len` entries, a power of two.
    ///
    /// # Safety
    ///
    /// The four pointers are aligned and valid while `owner` lives; `entries` for `len` entries, for which every
    /// bit pattern is valid. At most one [`Producer`] and one [`Consumer`] exist for it on this side, and the
    /// indices are otherwise touched only by the kernel or the ring's other end.
    pub(crate) unsafe fn new(
        producer: NonNull<AtomicU32>,
        consumer: NonNull<AtomicU32>,
        flags: NonNull<AtomicU32>,
        entries: NonNull<T>,
        len: u32,
        owner: Rc<dyn Any>,
    ) -> Self {
        debug_assert!(len.is_power_of_two());
        Self { producer, consumer, flags, entries, len, _owner: owner }
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: valid and aligned while `self` lives, by the contract of `new`; only touched atomically.
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.consumer.as_ref() }
    }

    #[inline]
    fn needs_wakeup(&self) -> bool {
        // SAFETY: as in `producer`.
        unsafe { self.flags.as_ref() }.load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }

    #[inline]
    fn entry(&self, index: u32) -> NonNull<T> {
        // SAFETY: the masked index is below `len`, for which `entries` is valid.
        unsafe { self.entries.add((index & (self.len - 1)) as usize) }
    }
}

/// The end that fills entries: of the fill ring and the transmit ring.
pub(crate) struct Producer<T> {
    memory: RingMemory<T>,
    /// The next entry to write; published up to `published`.
    head: u32,
    published: u32,
    /// The consumer index as last seen.
    seen: u32,
}

impl<T: Copy> Producer<T> {
    pub(crate) fn new(memory: RingMemory<T>) -> Self {
        let head = memory.producer().load(Ordering::Relaxed);
        let seen = memory.consumer().load(Ordering::Acquire);
        Self { memory, head, published: head, seen }
    }

    /// Whether another entry can be pushed.
    #[inline]
    pub(crate) fn has_room(&mut self) -> bool {
        if self.head.wrapping_sub(self.seen) < self.memory.len {
            return true;
        }
        // Acquire: the consumer's reads of the entries are over before we write them again.
        self.seen = self.memory.consumer().load(Ordering::Acquire);
        self.head.wrapping_sub(self.seen) < self.memory.len
    }

    /// Writes an entry, which the other end sees after [`publish`](Self::publish). False: the ring is full.
    #[inline]
    pub(crate) fn push(&mut self, value: T) -> bool {
        if !self.has_room() {
            return false;
        }
        // SAFETY: the entry is inside the ring, and it is ours: the consumer index has passed it, and it is not
        // published yet.
        unsafe { self.memory.entry(self.head).write(value) };
        self.head = self.head.wrapping_add(1);
        true
    }

    /// Shows all pushed entries to the other end. True if there were any.
    #[inline]
    pub(crate) fn publish(&mut self) -> bool {
        if self.published == self.head {
            return false;
        }
        self.memory.producer().store(self.head, Ordering::Release);
        self.published = self.head;
        true
    }

    /// Published entries that the other end has not taken.
    #[inline]
    pub(crate) fn pending(&mut self) -> u32 {
        self.seen = self.memory.consumer().load(Ordering::Acquire);
        self.published.wrapping_sub(self.seen)
    }

    /// Whether the kernel has to be entered for it to go on with this ring.
    #[inline]
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.memory.needs_wakeup()
    }
}

/// The end that takes entries: of the receive ring and the completion ring.
pub(crate) struct Consumer<T> {
    memory: RingMemory<T>,
    /// The next entry to take; given back up to `released`.
    tail: u32,
    released: u32,
    /// The producer index as last seen.
    seen: u32,
}

impl<T: Copy> Consumer<T> {
    pub(crate) fn new(memory: RingMemory<T>) -> Self {
        let tail = memory.consumer().load(Ordering::Relaxed);
        Self { memory, tail, released: tail, seen: tail }
    }

    /// Whether an entry waits.
    #[inline]
    pub(crate) fn has_some(&mut self) -> bool {
        if self.tail != self.seen {
            return true;
        }
        // Acquire: the entries are written before the index that shows them.
        self.seen = self.memory.producer().load(Ordering::Acquire);
        self.tail != self.seen
    }

    /// Takes the next entry.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<T> {
        if !self.has_some() {
            return None;
        }
        // SAFETY: the entry is inside the ring and published; the producer writes it again only after `release`.
        let value = unsafe { self.memory.entry(self.tail).read() };
        self.tail = self.tail.wrapping_add(1);
        Some(value)
    }

    /// Gives the taken entries' places back to the other end.
    #[inline]
    pub(crate) fn release(&mut self) {
        if self.released != self.tail {
            self.memory.consumer().store(self.tail, Ordering::Release);
            self.released = self.tail;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::UnsafeCell;
    use std::collections::VecDeque;
    use std::sync::Arc;

    /// A ring in plain memory. The indices begin just below their wrap-around.
    pub(crate) struct Plain<T> {
        producer: AtomicU32,
        consumer: AtomicU32,
        flags: AtomicU32,
        entries: UnsafeCell<Box<[T]>>,
    }

    // SAFETY: the entries are touched only through the two ends, whose protocol is what is being tested.
    unsafe impl<T: Send> Sync for Plain<T> {}

    impl<T: Copy + Default + 'static> Plain<T> {
        pub(crate) fn new(len: usize) -> Arc<Self> {
            const START: u32 = u32::MAX - 5;
            Arc::new(Self {
                producer: AtomicU32::new(START),
                consumer: AtomicU32::new(START),
                flags: AtomicU32::new(0),
                entries: UnsafeCell::new(vec![T::default(); len].into()),
            })
        }

        /// One end's view. Called once for each end.
        pub(crate) fn memory(self: &Arc<Self>) -> RingMemory<T> {
            // SAFETY: the allocation lives as long as the `Arc` that the view owns.
            let entries = unsafe { &mut *self.entries.get() };
            let len = entries.len() as u32;
            // SAFETY: the pointers are into the `Arc`'s allocation; each end is made once by these tests.
            unsafe {
                RingMemory::new(
                    NonNull::from(&self.producer),
                    NonNull::from(&self.consumer),
                    NonNull::from(&self.flags),
                    NonNull::new(entries.as_mut_ptr()).unwrap(),
                    len,
                    Rc::new(Arc::clone(self)),
                )
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        Publish,
        Pop,
        Release,
        Pending,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Push),
            2 => Just(Step::Publish),
            4 => Just(Step::Pop),
            2 => Just(Step::Release),
            1 => Just(Step::Pending),
        ]
    }

    proptest! {
        /// The model: entries are pushed but unseen, visible, taken but not released; at most `len` in all.
        #[test]
        fn behaves_as_a_bounded_queue(
            bits in 0u32..5,
            steps in proptest::collection::vec(step(), 0..400),
        ) {
            let len = 1usize << bits;
            let plain = Plain::<u64>::new(len);
            let mut producer = Producer::new(plain.memory());
            let mut consumer = Consumer::new(plain.memory());
            let (mut unseen, mut visible, mut taken) = (VecDeque::new(), VecDeque::new(), 0);
            let mut next = 0u64;
            for step in steps {
                match step {
                    Step::Push => {
                        let room = unseen.len() + visible.len() + taken < len;
                        prop_assert_eq!(producer.push(next), room);
                        if room {
                            unseen.push_back(next);
                            next += 1;
                        }
                    }
                    Step::Publish => {
                        prop_assert_eq!(producer.publish(), !unseen.is_empty());
                        visible.append(&mut unseen);
                    }
                    Step::Pop => {
                        let expected = visible.pop_front();
                        taken += usize::from(expected.is_some());
                        prop_assert_eq!(consumer.pop(), expected);
                    }
                    Step::Release => {
                        consumer.release();
                        taken = 0;
                    }
                    Step::Pending => {
                        prop_assert_eq!(producer.pending() as usize, visible.len() + taken);
                    }
                }
            }
        }
    }

    #[test]
    fn two_threads_pass_everything_in_order() {
        const COUNT: u64 = 300_000;
        let plain = Plain::<[u64; 2]>::new(64);
        let other = Arc::clone(&plain);
        let writer = std::thread::spawn(move || {
            let mut producer = Producer::new(other.memory());
            let mut value = 0;
            while value < COUNT {
                // Both halves must be seen as they were written together.
                if producer.push([value, !value]) {
                    value += 1;
                    if value % 7 != 0 {
                        continue;
                    }
                } else {
                    std::thread::yield_now();
                }
                producer.publish();
            }
            producer.publish();
        });
        let mut consumer = Consumer::new(plain.memory());
        let mut expected = 0;
        while expected < COUNT {
            match consumer.pop() {
                Some([value, inverse]) => {
                    assert_eq!((value, inverse), (expected, !expected));
                    expected += 1;
                    if expected % 3 == 0 {
                        consumer.release();
                    }
                }
                None => {
                    consumer.release();
                    std::thread::yield_now();
                }
            }
        }
        writer.join().unwrap();
        assert_eq!(consumer.pop(), None);
    }
}

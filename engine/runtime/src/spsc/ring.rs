//! A ring with one producer and one consumer that loses nothing: a full ring gives the item back.
//!
//! Owns the slots. Invariant: positions only grow; slots from `head` up to `tail` hold items, all others hold
//! none. Only the consumer moves `head`, only the producer moves `tail`, each with release after the slot was
//! used and acquire before the other side uses it.
//!
//! Each side keeps its own position and the last seen position of the other, and touches the other's cache
//! line only when its view says full (or empty).

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::padded::Padded;

/// A ring for at most `capacity` items (at least 1).
#[must_use]
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let capacity = capacity.max(1);
    let shared = Arc::new(Shared {
        head: Padded(AtomicUsize::new(0)),
        tail: Padded(AtomicUsize::new(0)),
        slots: (0..capacity.next_power_of_two()).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
        capacity,
    });
    (
        Producer { shared: Arc::clone(&shared), tail: 0, seen_head: 0 },
        Consumer { shared, head: 0, seen_tail: 0 },
    )
}

struct Shared<T> {
    head: Padded<AtomicUsize>,
    tail: Padded<AtomicUsize>,
    /// A power of two, so that positions may wrap around `usize`.
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    capacity: usize,
}

// SAFETY: slots are reached only through the one producer and the one consumer, which hand each slot over by
// release and acquire of `tail` and `head`; items cross threads, so they must be `Send`.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    #[inline]
    fn slot(&self, position: usize) -> *mut MaybeUninit<T> {
        self.slots[position & (self.slots.len() - 1)].get()
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let tail = self.tail.load(Ordering::Relaxed);
        let mut head = self.head.load(Ordering::Relaxed);
        while head != tail {
            // SAFETY: slots from head to tail hold items, and both ends are gone.
            unsafe { (*self.slot(head)).assume_init_drop() };
            head = head.wrapping_add(1);
        }
    }
}

/// The end that pushes.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    seen_head: usize,
}

impl<T: Send> Producer<T> {
    /// Appends an item.
    ///
    /// # Errors
    ///
    /// The item itself, when the ring is full.
    #[inline]
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.tail.wrapping_sub(self.seen_head) >= self.shared.capacity {
            self.seen_head = self.shared.head.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.seen_head) >= self.shared.capacity {
                return Err(item);
            }
        }
        // SAFETY: the slot at `tail` is empty (less than `capacity` items from `head`), and the consumer does
        // not touch it before it sees the new tail.
        unsafe { (*self.shared.slot(self.tail)).write(item) };
        self.tail = self.tail.wrapping_add(1);
        self.shared.tail.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// How many items it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.capacity
    }

    /// Items in it; the consumer may have taken some by the time the answer is used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tail.wrapping_sub(self.shared.head.load(Ordering::Acquire))
    }

    /// Whether [`len`](Self::len) is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the consumer is gone, so that nobody will take what is pushed.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.shared) < 2
    }
}

/// The end that pops.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    seen_tail: usize,
}

impl<T: Send> Consumer<T> {
    /// Takes the oldest item.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.is_drained() {
            return None;
        }
        // SAFETY: the slot at `head` lies before a tail that was loaded with acquire, so it holds an item; moving
        // `head` past it hands the slot back, so the item is read once.
        let item = unsafe { (*self.shared.slot(self.head)).assume_init_read() };
        self.head = self.head.wrapping_add(1);
        self.shared.head.store(self.head, Ordering::Release);
        Some(item)
    }

    /// Looks at the oldest item without taking it.
    #[inline]
    pub fn peek(&mut self) -> Option<&T> {
        if self.is_drained() {
            return None;
        }
        // SAFETY: as in `pop`; the slot is not handed back while `self` is borrowed.
        Some(unsafe { (*self.shared.slot(self.head)).assume_init_ref() })
    }

    /// Items in it; the producer may have added some by the time the answer is used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.tail.load(Ordering::Acquire).wrapping_sub(self.head)
    }

    /// Whether [`len`](Self::len) is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the producer is gone. What it pushed can still be popped.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.shared) < 2
    }

    #[inline]
    fn is_drained(&mut self) -> bool {
        if self.head == self.seen_tail {
            self.seen_tail = self.shared.tail.load(Ordering::Acquire);
        }
        self.head == self.seen_tail
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::thread;

    #[test]
    fn a_million_messages_arrive_in_order() {
        let (mut producer, mut consumer) = ring::<Box<u64>>(64);
        let sender = thread::spawn(move || {
            for value in 0..1_000_000u64 {
                let mut item = Box::new(value);
                while let Err(back) = producer.push(item) {
                    item = back;
                    thread::yield_now();
                }
            }
        });
        for expected in 0..1_000_000u64 {
            loop {
                match consumer.pop() {
                    Some(value) => break assert_eq!(*value, expected),
                    None => thread::yield_now(),
                }
            }
        }
        sender.join().unwrap();
        assert!(consumer.is_abandoned());
        assert!(consumer.pop().is_none());
    }

    proptest! {
        #[test]
        fn behaves_as_a_bounded_queue(
            capacity in 1usize..9,
            steps in proptest::collection::vec(proptest::option::of(any::<u16>()), 0..300),
        ) {
            let (mut producer, mut consumer) = ring(capacity);
            let mut model = VecDeque::new();
            for step in steps {
                match step {
                    Some(value) if model.len() < capacity => {
                        prop_assert_eq!(producer.push(value), Ok(()));
                        model.push_back(value);
                    }
                    Some(value) => prop_assert_eq!(producer.push(value), Err(value)),
                    None => {
                        prop_assert_eq!(consumer.peek().copied(), model.front().copied());
                        prop_assert_eq!(consumer.pop(), model.pop_front());
                    }
                }
                prop_assert_eq!(producer.len(), model.len());
                prop_assert_eq!(consumer.len(), model.len());
            }
        }
    }

    #[test]
    fn what_is_left_is_dropped_once() {
        let item = Arc::new(());
        let (mut producer, mut consumer) = ring(8);
        for _ in 0..5 {
            producer.push(Arc::clone(&item)).unwrap();
        }
        drop(consumer.pop());
        assert_eq!(Arc::strong_count(&item), 5);
        drop(producer);
        assert!(consumer.is_abandoned());
        drop(consumer);
        assert_eq!(Arc::strong_count(&item), 1);
    }

    #[test]
    fn positions_survive_wrapping() {
        let (mut producer, mut consumer) = ring::<u8>(3);
        let start = usize::MAX - 1;
        (producer.tail, producer.seen_head) = (start, start);
        (consumer.head, consumer.seen_tail) = (start, start);
        producer.shared.head.store(start, Ordering::Relaxed);
        producer.shared.tail.store(start, Ordering::Relaxed);
        for value in 0..3 {
            producer.push(value).unwrap();
        }
        assert_eq!(producer.push(9), Err(9));
        assert_eq!(std::iter::from_fn(|| consumer.pop()).collect::<Vec<_>>(), [0, 1, 2]);
    }
}

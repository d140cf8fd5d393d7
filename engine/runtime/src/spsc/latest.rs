//! A ring with one producer and one consumer that prefers new items: a full ring drops its oldest, counted.
//!
//! Owns the slots. The producer never waits and never fails for lack of room: when the ring is full it takes
//! the oldest item out itself, as a second consumer would. So `head` is claimed by compare-and-swap, and each
//! slot carries a sequence number that says whose turn it is (the bounded queue of D. Vyukov):
//!
//! | sequence of slot `p` | meaning |
//! |---|---|
//! | `p` | empty, the producer may write position `p` |
//! | `p + 1` | holds the item of position `p` |
//! | `p + slots` | taken; empty for the next lap |
//!
//! Invariant: an item is read or dropped by exactly the side whose compare-and-swap moved `head` past it.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::padded::Padded;

/// A ring for at most `capacity` items (at least 1) that drops the oldest when it is full.
#[must_use]
pub fn latest<T: Send>(capacity: usize) -> (LatestProducer<T>, LatestConsumer<T>) {
    let capacity = capacity.max(1);
    // More slots than items: the one that the consumer is just reading does not stop the producer.
    let slots = (capacity + 1).next_power_of_two();
    let shared = Arc::new(Shared {
        head: Padded(AtomicUsize::new(0)),
        dropped: Padded(AtomicU64::new(0)),
        slots: (0..slots)
            .map(|position| Slot {
                sequence: AtomicUsize::new(position),
                item: UnsafeCell::new(MaybeUninit::uninit()),
            })
            .collect(),
        capacity,
    });
    (LatestProducer { shared: Arc::clone(&shared), tail: 0 }, LatestConsumer { shared })
}

struct Slot<T> {
    sequence: AtomicUsize,
    item: UnsafeCell<MaybeUninit<T>>,
}

struct Shared<T> {
    head: Padded<AtomicUsize>,
    dropped: Padded<AtomicU64>,
    slots: Box<[Slot<T>]>,
    capacity: usize,
}

// SAFETY: a slot's item is touched only by the side that owns it by sequence number and claim (see the module's
// table), handed over by release and acquire of that number; items cross threads, so they must be `Send`.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    #[inline]
    fn slot(&self, position: usize) -> &Slot<T> {
        &self.slots[position & (self.slots.len() - 1)]
    }

    /// Takes the oldest item; either side may.
    #[inline]
    fn take_oldest(&self) -> Option<T> {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            let slot = self.slot(head);
            let ahead = slot.sequence.load(Ordering::Acquire).wrapping_sub(head.wrapping_add(1));
            if ahead == 0 {
                match self.head.compare_exchange_weak(
                    head,
                    head.wrapping_add(1),
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        // SAFETY: the sequence number said that the item of `head` is there, and the
                        // compare-and-swap made it ours alone. The producer reuses the slot only after the
                        // store below.
                        let item = unsafe { (*slot.item.get()).assume_init_read() };
                        slot.sequence.store(head.wrapping_add(self.slots.len()), Ordering::Release);
                        return Some(item);
                    }
                    Err(moved) => head = moved,
                }
            } else if ahead.cast_signed() < 0 {
                return None;
            } else {
                head = self.head.load(Ordering::Relaxed);
            }
        }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        while self.take_oldest().is_some() {}
    }
}

/// The end that pushes.
pub struct LatestProducer<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
}

impl<T: Send> LatestProducer<T> {
    /// Appends an item, and drops the oldest if the ring is full. Returns how many items were dropped; each is counted.
    ///
    /// There is one case in which `item` itself is the one dropped (and counted): the consumer was suspended in
    /// the middle of taking an item, for as long as it took to fill the ring again.
    #[inline]
    pub fn push_latest(&mut self, item: T) -> usize {
        let mut dropped = 0;
        let shared = &*self.shared;
        while self.tail.wrapping_sub(shared.head.load(Ordering::Acquire)) >= shared.capacity {
            match shared.take_oldest() {
                Some(stale) => {
                    drop(stale);
                    dropped += 1;
                }
                // The consumer emptied it in between.
                None => break,
            }
        }
        let slot = shared.slot(self.tail);
        if slot.sequence.load(Ordering::Acquire) == self.tail {
            // SAFETY: the sequence number says that the slot is empty and that it is the producer's turn, of
            // which there is one.
            unsafe { (*slot.item.get()).write(item) };
            slot.sequence.store(self.tail.wrapping_add(1), Ordering::Release);
            self.tail = self.tail.wrapping_add(1);
        } else {
            drop(item);
            dropped += 1;
        }
        if dropped > 0 {
            shared.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
        }
        dropped
    }

    /// Items dropped so far to make room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// How many items it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.capacity
    }

    /// Whether the consumer is gone.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.shared) < 2
    }
}

/// The end that pops.
pub struct LatestConsumer<T> {
    shared: Arc<Shared<T>>,
}

impl<T: Send> LatestConsumer<T> {
    /// Takes the oldest item that was not dropped.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.shared.take_oldest()
    }

    /// Takes the newest item and drops all before it, without counting them: they arrived, and were skipped.
    #[inline]
    pub fn pop_newest(&mut self) -> Option<T> {
        let mut newest = self.pop()?;
        // Bounded: a producer faster than this loop must not hold the consumer.
        for _ in 0..self.shared.capacity {
            match self.pop() {
                Some(newer) => newest = newer,
                None => break,
            }
        }
        Some(newest)
    }

    /// Items dropped so far to make room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Whether the producer is gone. What it pushed can still be popped.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.shared) < 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::thread;

    #[test]
    fn the_oldest_make_room() {
        let (mut producer, mut consumer) = latest(3);
        let dropped: usize = (0..10).map(|value| producer.push_latest(value)).sum();
        assert_eq!((dropped, producer.dropped(), consumer.dropped()), (7, 7, 7));
        assert_eq!(std::iter::from_fn(|| consumer.pop()).collect::<Vec<_>>(), [7, 8, 9]);
    }

    #[test]
    fn the_newest_can_be_asked_for() {
        let (mut producer, mut consumer) = latest(8);
        assert_eq!(consumer.pop_newest(), None);
        for value in 0..5 {
            producer.push_latest(value);
        }
        assert_eq!(consumer.pop_newest(), Some(4));
        assert_eq!(consumer.pop(), None);
        assert_eq!(consumer.dropped(), 0);
    }

    proptest! {
        #[test]
        fn behaves_as_a_queue_that_forgets(
            capacity in 1usize..9,
            steps in proptest::collection::vec(proptest::option::of(any::<u16>()), 0..300),
        ) {
            let (mut producer, mut consumer) = latest(capacity);
            let mut model = VecDeque::new();
            let mut dropped = 0u64;
            for step in steps {
                if let Some(value) = step {
                    if model.len() == capacity {
                        model.pop_front();
                        dropped += 1;
                    }
                    producer.push_latest(value);
                    model.push_back(value);
                } else {
                    prop_assert_eq!(consumer.pop(), model.pop_front());
                }
                prop_assert_eq!(consumer.dropped(), dropped);
            }
        }
    }

    /// Each of a million items is either popped, in order, or counted as dropped; none twice, none lost.
    #[test]
    fn a_million_messages_are_popped_or_counted() {
        const COUNT: u64 = 1_000_000;
        let (mut producer, mut consumer) = latest::<Box<u64>>(16);
        let sender = thread::spawn(move || {
            for value in 0..COUNT {
                producer.push_latest(Box::new(value));
                if value % 64 == 0 {
                    thread::yield_now();
                }
            }
            producer.dropped()
        });
        let (mut popped, mut last) = (0, None);
        loop {
            let gone = consumer.is_abandoned();
            while let Some(value) = consumer.pop() {
                assert!(last < Some(*value), "{value} after {last:?}");
                last = Some(*value);
                popped += 1;
            }
            if gone {
                break;
            }
            thread::yield_now();
        }
        let dropped = sender.join().unwrap();
        assert_eq!(popped + dropped, COUNT);
        assert_eq!(consumer.dropped(), dropped);
        assert!(popped > 0);
    }

    #[test]
    fn what_is_left_is_dropped_once() {
        let item = Arc::new(());
        let (mut producer, consumer) = latest(4);
        for _ in 0..7 {
            producer.push_latest(Arc::clone(&item));
        }
        assert_eq!(Arc::strong_count(&item), 5);
        drop((producer, consumer));
        assert_eq!(Arc::strong_count(&item), 1);
    }
}

//! The events to come, in order of time.
//!
//! Owns virtual time's order and nothing else. Invariant: events of one moment come out in the order in
//! which they went in, so that a run depends on nothing but its inputs.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rift_core::Timestamp;

/// A queue of events, each at a point in virtual time.
#[derive(Debug)]
pub struct EventQueue<T> {
    heap: BinaryHeap<Entry<T>>,
    pushed: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: Timestamp,
    sequence: u64,
    event: T,
}

impl<T> EventQueue<T> {
    /// Nothing to come.
    #[must_use]
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new(), pushed: 0 }
    }

    /// Adds `event` at `at`.
    pub fn push(&mut self, at: Timestamp, event: T) {
        self.heap.push(Entry { at, sequence: self.pushed, event });
        self.pushed += 1;
    }

    /// Takes out the next event and its time.
    pub fn pop(&mut self) -> Option<(Timestamp, T)> {
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }

    /// The time of the next event; [`Timestamp::NEVER`] if none is to come.
    #[must_use]
    pub fn next_at(&self) -> Timestamp {
        self.heap.peek().map_or(Timestamp::NEVER, |entry| entry.at)
    }

    /// How many events are to come.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing is to come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<T> Default for EventQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Ord for Entry<T> {
    // The heap's greatest is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_by_time_and_then_by_order_of_entry() {
        let mut queue = EventQueue::new();
        for (at, name) in [(5, 'c'), (1, 'a'), (5, 'd'), (1, 'b')] {
            queue.push(Timestamp::from_micros(at), name);
        }
        assert_eq!(queue.next_at(), Timestamp::from_micros(1));
        let order: String = std::iter::from_fn(|| queue.pop()).map(|(_, name)| name).collect();
        assert_eq!(order, "abcd");
        assert!(queue.is_empty() && queue.next_at() == Timestamp::NEVER);
    }
}

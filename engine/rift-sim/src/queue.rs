//! The events to come, in order of time.
//!
//! Owns virtual time's order and nothing else. Invariant: events of one moment come out in the order in
//! which they went in, so that a run depends on nothing but its inputs.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rift_core::Timestamp;

/// A queue of events, each at a point in virtual time.
///
/// The events lie still while their keys are put in order: a datagram's event is four times as long as its key.
#[derive(Debug)]
pub struct EventQueue<T> {
    keys: BinaryHeap<Key>,
    /// By place; places that are free hold nothing.
    events: Vec<Option<T>>,
    free: Vec<usize>,
    pushed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    at: Timestamp,
    sequence: u64,
    place: usize,
}

impl<T> EventQueue<T> {
    /// Nothing to come.
    #[must_use]
    pub fn new() -> Self {
        Self { keys: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), pushed: 0 }
    }

    /// Adds `event` at `at`.
    pub fn push(&mut self, at: Timestamp, event: T) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.keys.push(Key { at, sequence: self.pushed, place });
        self.pushed += 1;
    }

    /// Takes out the next event and its time.
    pub fn pop(&mut self) -> Option<(Timestamp, T)> {
        let key = self.keys.pop()?;
        let event = self.events[key.place].take()?;
        self.free.push(key.place);
        Some((key.at, event))
    }

    /// The time of the next event; [`Timestamp::NEVER`] if none is to come.
    #[must_use]
    pub fn next_at(&self) -> Timestamp {
        self.keys.peek().map_or(Timestamp::NEVER, |key| key.at)
    }

    /// How many events are to come.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nothing is to come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl<T> Default for EventQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl Ord for Key {
    // The heap's greatest is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

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

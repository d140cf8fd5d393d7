//! The events to come, in order of time.
//!
//! Owns virtual time's order and nothing else. Invariant: events of one moment come out in the order in
//! which they went in, so that a run depends on nothing but its inputs.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

use rift_core::Timestamp;

/// A queue of events, each at a point in virtual time.
///
/// Most events of a run are packets that leave a queue or arrive, in the order in which they were sent. These wait in
/// `LANES` lines beside the heap, as long as each comes after the one before it.
#[derive(Debug)]
pub struct EventQueue<T, const LANES: usize = 0> {
    keys: BinaryHeap<Key>,
    /// The heap's events lie still while their keys, which are shorter, are put in order. By place; places that are free
    /// hold nothing.
    events: Vec<Option<T>>,
    free: Vec<usize>,
    lanes: [VecDeque<(Moment, T)>; LANES],
    pushed: u64,
}

/// When an event comes, and its turn among those of the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Moment {
    at: Timestamp,
    sequence: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    moment: Moment,
    place: usize,
}

impl<T, const LANES: usize> EventQueue<T, LANES> {
    /// Nothing to come.
    #[must_use]
    pub fn new() -> Self {
        Self {
            keys: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            lanes: std::array::from_fn(|_| VecDeque::new()),
            pushed: 0,
        }
    }

    /// Adds `event` at `at`.
    pub fn push(&mut self, at: Timestamp, event: T) {
        let moment = self.moment(at);
        self.push_aside(moment, event);
    }

    /// Adds `event` at `at`, which is mostly later than what was added to the same `lane` before.
    pub fn push_in_line(&mut self, lane: usize, at: Timestamp, event: T) {
        let moment = self.moment(at);
        let lane = &mut self.lanes[lane];
        if lane.back().is_none_or(|&(last, _)| last < moment) {
            lane.push_back((moment, event));
        } else {
            self.push_aside(moment, event);
        }
    }

    /// Takes out the next event and its time.
    pub fn pop(&mut self) -> Option<(Timestamp, T)> {
        let (first, lane) = self.first()?;
        let event = if let Some(lane) = lane {
            self.lanes[lane].pop_front()?.1
        } else {
            let key = self.keys.pop()?;
            self.free.push(key.place);
            self.events[key.place].take()?
        };
        Some((first.at, event))
    }

    /// The time of the next event; [`Timestamp::NEVER`] if none is to come.
    #[must_use]
    pub fn next_at(&self) -> Timestamp {
        self.first().map_or(Timestamp::NEVER, |(first, _)| first.at)
    }

    /// How many events are to come.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len() + self.lanes.iter().map(VecDeque::len).sum::<usize>()
    }

    /// Whether nothing is to come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn moment(&mut self, at: Timestamp) -> Moment {
        self.pushed += 1;
        Moment { at, sequence: self.pushed }
    }

    fn push_aside(&mut self, moment: Moment, event: T) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.keys.push(Key { moment, place });
    }

    /// When the next event comes, and in which lane it waits if not in the heap.
    fn first(&self) -> Option<(Moment, Option<usize>)> {
        let aside = self.keys.peek().map(|key| (key.moment, None));
        let fronts = self.lanes.iter().enumerate();
        let fronts = fronts.filter_map(|(lane, line)| Some((line.front()?.0, Some(lane))));
        aside.into_iter().chain(fronts).min()
    }
}

impl<T, const LANES: usize> Default for EventQueue<T, LANES> {
    fn default() -> Self {
        Self::new()
    }
}

impl Ord for Key {
    // The heap's greatest is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.moment.cmp(&self.moment)
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
        let mut queue = EventQueue::<_, 2>::new();
        // The lane of each; at last one of the first lane that is not in its order.
        let pushes = [(5, 'c', 0), (1, 'a', 2), (5, 'd', 1), (1, 'b', 2), (7, 'f', 0), (6, 'e', 0)];
        for (at, name, lane) in pushes {
            let at = Timestamp::from_micros(at);
            if lane < 2 { queue.push_in_line(lane, at, name) } else { queue.push(at, name) }
        }
        assert_eq!((queue.next_at(), queue.len()), (Timestamp::from_micros(1), 6));
        let order: String = std::iter::from_fn(|| queue.pop()).map(|(_, name)| name).collect();
        assert_eq!(order, "abcdef");
        assert!(queue.is_empty() && queue.next_at() == Timestamp::NEVER);
    }
}

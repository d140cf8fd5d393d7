//! Deadlines of a fixed set of things (the sessions of a shard): which is due next.
//!
//! Owns three arrays, sized at start. Never reads a clock. Invariant: `heap` is a binary heap by deadline that
//! holds each armed key once, and `place` says where.

#![forbid(unsafe_code)]

/// Place of a key that is not armed.
const UNARMED: u32 = u32::MAX;

/// At most one deadline for each key in `0..capacity`. Arming, disarming and expiring take logarithmic time and
/// no memory; the next deadline is known at once.
#[derive(Clone, Debug)]
pub struct DeadlineQueue {
    /// Armed keys; the first has the earliest deadline.
    heap: Vec<u32>,
    /// By key: its index in `heap`.
    place: Vec<u32>,
    /// By key: its deadline, while armed.
    deadline_ns: Vec<u64>,
}

impl DeadlineQueue {
    /// Nothing armed, for keys below `capacity` (at most 2^32 - 1).
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.min(UNARMED as usize);
        Self {
            heap: Vec::with_capacity(capacity),
            place: vec![UNARMED; capacity],
            deadline_ns: vec![0; capacity],
        }
    }

    /// Arms `key`, or moves its deadline; `None` disarms it. A key of `capacity` or more is ignored.
    pub fn set(&mut self, key: usize, deadline_ns: Option<u64>) {
        let Some(&place) = self.place.get(key) else { return };
        match (deadline_ns, place) {
            (None, UNARMED) => {}
            (None, place) => self.remove_at(place as usize),
            (Some(deadline), UNARMED) => {
                self.deadline_ns[key] = deadline;
                self.place[key] = self.heap.len() as u32;
                self.heap.push(key as u32);
                self.rise(self.heap.len() - 1);
            }
            (Some(deadline), place) => {
                self.deadline_ns[key] = deadline;
                let place = self.rise(place as usize);
                self.sink(place);
            }
        }
    }

    /// The earliest deadline.
    #[inline]
    #[must_use]
    pub fn next_ns(&self) -> Option<u64> {
        self.heap.first().map(|&key| self.deadline_ns[key as usize])
    }

    /// Disarms and names a key that is due at `now_ns`, the earliest first.
    #[inline]
    pub fn poll_expired(&mut self, now_ns: u64) -> Option<usize> {
        let &key = self.heap.first()?;
        if self.deadline_ns[key as usize] > now_ns {
            return None;
        }
        self.remove_at(0);
        Some(key as usize)
    }

    fn remove_at(&mut self, place: usize) {
        let key = self.heap.swap_remove(place);
        self.place[key as usize] = UNARMED;
        if let Some(&moved) = self.heap.get(place) {
            self.place[moved as usize] = place as u32;
            let place = self.rise(place);
            self.sink(place);
        }
    }

    fn rise(&mut self, mut place: usize) -> usize {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.at(parent) <= self.at(place) {
                break;
            }
            self.swap(parent, place);
            place = parent;
        }
        place
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let mut earliest = place;
            for child in [left, right] {
                if child < self.heap.len() && self.at(child) < self.at(earliest) {
                    earliest = child;
                }
            }
            if earliest == place {
                return;
            }
            self.swap(earliest, place);
            place = earliest;
        }
    }

    fn at(&self, place: usize) -> u64 {
        self.deadline_ns[self.heap[place] as usize]
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.place[self.heap[a] as usize] = a as u32;
        self.place[self.heap[b] as usize] = b as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Set(usize, Option<u64>),
        Expire(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0usize..12, proptest::option::of(0u64..50)).prop_map(|(key, at)| Step::Set(key, at)),
            1 => (0u64..50).prop_map(Step::Expire),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_sorted_map(steps in proptest::collection::vec(step(), 0..200)) {
            let mut queue = DeadlineQueue::new(10);
            let mut model = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Set(key, at) => {
                        queue.set(key, at);
                        match at {
                            Some(at) if key < 10 => { model.insert(key, at); }
                            _ => { model.remove(&key); }
                        }
                    }
                    Step::Expire(now) => {
                        let mut last = 0;
                        while let Some(key) = queue.poll_expired(now) {
                            let at = model.remove(&key);
                            prop_assert!(at.is_some_and(|at| last <= at && at <= now));
                            last = at.unwrap_or(0);
                        }
                        prop_assert!(model.values().all(|&at| at > now));
                    }
                }
                prop_assert_eq!(queue.next_ns(), model.values().min().copied());
            }
        }
    }
}

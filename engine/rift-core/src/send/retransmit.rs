//! What is to be sent again, and how much of that there may be.

use super::frame_store::ChunkRef;
use std::collections::VecDeque;

/// Of the bytes that leave for the first time, this fraction is added to the budget: a quarter covers
/// any loss that a stream survives, and keeps a peer that reports everything as lost from doubling the
/// load.
const BUDGET_SHARE: u64 = 4;

/// Chunks waiting to leave again, and the budget they are taken from.
#[derive(Debug)]
pub(super) struct RetransmitQueue {
    waiting: VecDeque<ChunkRef>,
    waiting_max: usize,
    budget_bytes: u64,
    budget_bytes_max: u64,
}

/// Why a chunk was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    OverBudget,
    NoRoom,
}

impl RetransmitQueue {
    /// Room for `waiting_max` chunks. The budget starts full at `budget_bytes_max`.
    pub(super) fn new(waiting_max: usize, budget_bytes_max: u64) -> Self {
        Self {
            waiting: VecDeque::with_capacity(waiting_max),
            waiting_max,
            budget_bytes: budget_bytes_max,
            budget_bytes_max,
        }
    }

    /// Takes a chunk whose body has `body_len` bytes.
    pub(super) fn push(&mut self, chunk: ChunkRef, body_len: usize) -> Result<(), Refused> {
        if self.waiting.len() == self.waiting_max {
            return Err(Refused::NoRoom);
        }
        self.budget_bytes = self.budget_bytes.checked_sub(body_len as u64).ok_or(Refused::OverBudget)?;
        self.waiting.push_back(chunk);
        Ok(())
    }

    /// Accounts for bytes that left for the first time.
    pub(super) fn on_sent(&mut self, bytes: u64) {
        self.budget_bytes = (self.budget_bytes + bytes / BUDGET_SHARE).min(self.budget_bytes_max);
    }

    /// The chunks in the order in which they will leave.
    pub(super) fn iter(&self) -> impl Iterator<Item = ChunkRef> + '_ {
        self.waiting.iter().copied()
    }

    pub(super) fn front(&self) -> Option<ChunkRef> {
        self.waiting.front().copied()
    }

    pub(super) fn pop(&mut self) -> Option<ChunkRef> {
        self.waiting.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_and_room_are_bounds() {
        let chunk = ChunkRef { slot: 0, slice: 0, serial: 0, chunk: 0 };
        let mut queue = RetransmitQueue::new(2, 1000);
        assert_eq!(queue.push(chunk, 900), Ok(()));
        assert_eq!(queue.push(chunk, 200), Err(Refused::OverBudget));
        queue.on_sent(400);
        assert_eq!(queue.push(chunk, 200), Ok(()));
        assert_eq!(queue.push(chunk, 0), Err(Refused::NoRoom));
        queue.on_sent(u64::MAX / 8);
        assert_eq!(queue.budget_bytes, 1000);
        assert!(queue.pop().is_some() && queue.pop().is_some() && queue.pop().is_none());
    }
}

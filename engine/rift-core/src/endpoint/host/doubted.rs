//! Packets that the client misses although they may be under way.
//!
//! Owns the ids that were asked for and not sent again, until a report tells what became of them. Never allocates
//! after it was made.

use crate::PacketId;
use crate::feedback::{Fate, PacketOutcome};

/// Ids that are kept at most, of four requests as long as a client makes them. What is beyond, it asks for again.
const IDS_MAX: usize = 256;

/// Requests that wait for word of their packets.
#[derive(Debug)]
pub(super) struct Doubted {
    waiting: Vec<PacketId>,
    lost: Vec<PacketId>,
}

impl Default for Doubted {
    fn default() -> Self {
        Self { waiting: Vec::with_capacity(IDS_MAX), lost: Vec::with_capacity(IDS_MAX) }
    }
}

impl Doubted {
    /// The client misses `id`, which may only be late.
    pub(super) fn push(&mut self, id: PacketId) {
        if self.waiting.len() < IDS_MAX && !self.waiting.contains(&id) {
            self.waiting.push(id);
        }
    }

    /// A report tells what became of a packet.
    pub(super) fn on_outcome(&mut self, outcome: &PacketOutcome) {
        if self.waiting.is_empty() {
            return;
        }
        let Some(place) = self.waiting.iter().position(|&id| id == outcome.packet.id) else { return };
        let id = self.waiting.swap_remove(place);
        if outcome.fate == Fate::Lost {
            self.lost.push(id);
        }
    }

    /// What reports told to be lost since the last call. Of ids that `is_open` denies no report will tell anymore.
    pub(super) fn take_lost(
        &mut self,
        is_open: impl Fn(PacketId) -> bool,
    ) -> impl Iterator<Item = PacketId> + '_ {
        self.waiting.retain(|&id| is_open(id));
        self.lost.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feedback::SentPacket;

    fn outcome(id: u64, fate: Fate) -> PacketOutcome {
        PacketOutcome { packet: SentPacket { id: PacketId(id), ..SentPacket::default() }, fate }
    }

    const ARRIVED: Fate = Fate::Arrived { arrived_us: 1, delay_us: 1, marked: false };

    /// Proves R-REC-11: what turns out to be lost is sent again, once, and nothing else.
    #[test]
    fn what_reports_tell_lost_is_handed_out_once() {
        let mut doubted = Doubted::default();
        for id in [4, 5, 6, 7, 5] {
            doubted.push(PacketId(id));
        }
        for (id, fate) in [(3, Fate::Lost), (4, ARRIVED), (5, Fate::Lost), (6, Fate::Lost), (5, Fate::Lost)] {
            doubted.on_outcome(&outcome(id, fate));
        }
        let lost: Vec<_> = doubted.take_lost(|id| id == PacketId(7)).collect();
        assert_eq!(lost, [PacketId(5), PacketId(6)]);
        assert_eq!(doubted.waiting, [PacketId(7)]);
        assert_eq!(doubted.take_lost(|_| false).count(), 0);
        doubted.on_outcome(&outcome(7, Fate::Lost));
        assert_eq!(doubted.take_lost(|_| true).count(), 0, "it was given up");
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let mut doubted = Doubted::default();
        (0..10_000).for_each(|id| doubted.push(PacketId(id)));
        let room = doubted.waiting.capacity();
        assert_eq!(doubted.waiting.len(), IDS_MAX);
        (0..10_000).for_each(|id| doubted.on_outcome(&outcome(id, Fate::Lost)));
        assert_eq!((doubted.take_lost(|_| true).count(), doubted.waiting.capacity()), (IDS_MAX, room));
    }
}

//! Which chunk a packet carried.

use super::frame_store::ChunkRef;
use crate::PacketId;

/// The last id; a session ends long before it.
const NO_PACKET: PacketId = PacketId(u64::MAX);

#[derive(Clone, Copy, Debug)]
struct Entry {
    packet_id: PacketId,
    chunk: ChunkRef,
}

/// The content of the newest video packets by packet id: a ring in which a packet replaces the one as
/// many ids older as the ring is long. An id that is not found carried something else or is too old.
#[derive(Debug)]
pub(super) struct PacketHistory {
    entries: Box<[Entry]>,
    mask: u64,
}

impl PacketHistory {
    /// Remembers `packets`, a power of two.
    pub(super) fn new(packets: usize) -> Self {
        let chunk = ChunkRef { slot: 0, slice: 0, serial: 0, chunk: 0 };
        let nothing = Entry { packet_id: NO_PACKET, chunk };
        Self { entries: vec![nothing; packets].into_boxed_slice(), mask: packets as u64 - 1 }
    }

    #[inline]
    pub(super) fn record(&mut self, packet_id: PacketId, chunk: ChunkRef) {
        self.entries[(packet_id.0 & self.mask) as usize] = Entry { packet_id, chunk };
    }

    pub(super) fn chunk(&self, packet_id: PacketId) -> Option<ChunkRef> {
        let entry = self.entries[(packet_id.0 & self.mask) as usize];
        (entry.packet_id == packet_id && packet_id != NO_PACKET).then_some(entry.chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_found_until_a_newer_one_takes_its_place() {
        let mut history = PacketHistory::new(4);
        let chunk = |chunk| ChunkRef { slot: 1, slice: 2, serial: 3, chunk };
        let base = (1u64 << 32) - 2;
        for i in 0..6 {
            history.record(PacketId(base + i), chunk(i as u32));
        }
        assert_eq!(history.chunk(PacketId(base)), None);
        assert_eq!(history.chunk(PacketId(base + 1)), None);
        assert_eq!(history.chunk(PacketId(base + 2)), Some(chunk(2)));
        assert_eq!(history.chunk(PacketId(base + 5)), Some(chunk(5)));
        assert_eq!(history.chunk(PacketId(base + 6)), None);
        assert_eq!(history.chunk(PacketId(u64::MAX)), None);
    }
}

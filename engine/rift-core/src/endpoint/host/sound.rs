//! Sound that waits to be sent.

use crate::message::AudioPacket;
use crate::{DropReason, Timestamp};

/// 20 ms of the published frames: as much as a client keeps.
const PACKETS_MAX: usize = 4;
/// 5 ms at 512 kbit/s are 320 bytes; 20 ms of the highest rate still fit.
const BYTES_MAX: usize = 1024;

/// A ring of packets. When it is full, the oldest makes room.
#[derive(Debug)]
pub(super) struct SoundQueue {
    packets: Box<[Packet; PACKETS_MAX]>,
    first: usize,
    count: usize,
    dropped: u64,
}

#[derive(Debug)]
struct Packet {
    timestamp: Timestamp,
    len: usize,
    data: [u8; BYTES_MAX],
}

impl SoundQueue {
    pub(super) fn new() -> Self {
        let empty = |_| Packet { timestamp: Timestamp::ZERO, len: 0, data: [0; BYTES_MAX] };
        Self { packets: Box::new(core::array::from_fn(empty)), first: 0, count: 0, dropped: 0 }
    }

    /// Takes a packet.
    ///
    /// # Errors
    /// [`DropReason::NoRoom`] for one that is too long.
    pub(super) fn push(&mut self, timestamp: Timestamp, data: &[u8]) -> Result<(), DropReason> {
        if data.len() > BYTES_MAX {
            self.dropped += 1;
            return Err(DropReason::NoRoom);
        }
        if self.count == PACKETS_MAX {
            self.pop();
            self.dropped += 1;
        }
        let packet = &mut self.packets[(self.first + self.count) % PACKETS_MAX];
        (packet.timestamp, packet.len) = (timestamp, data.len());
        packet.data[..data.len()].copy_from_slice(data);
        self.count += 1;
        Ok(())
    }

    /// The oldest packet.
    pub(super) fn front(&self) -> Option<AudioPacket<'_>> {
        let packet = &self.packets[self.first];
        let timestamp_us = packet.timestamp.as_micros();
        (self.count > 0).then(|| AudioPacket { timestamp_us, payload: &packet.data[..packet.len] })
    }

    /// Removes the oldest packet.
    pub(super) fn pop(&mut self) {
        if self.count > 0 {
            self.first = (self.first + 1) % PACKETS_MAX;
            self.count -= 1;
        }
    }

    /// Packets that made room or were too long.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room() {
        let mut queue = SoundQueue::new();
        for n in 0..6u8 {
            queue.push(Timestamp::from_micros(n.into()), &[n; 3]).unwrap();
        }
        let mut left = vec![];
        while let Some(packet) = queue.front() {
            assert_eq!(packet.payload, [packet.timestamp_us as u8; 3]);
            left.push(packet.timestamp_us);
            queue.pop();
        }
        assert_eq!((left, queue.dropped()), (vec![2, 3, 4, 5], 2));
        assert_eq!(queue.push(Timestamp::ZERO, &[0; BYTES_MAX + 1]), Err(DropReason::NoRoom));
    }
}

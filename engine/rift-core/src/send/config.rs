//! What a sender is built with, and how large that makes its pools.

use crate::Bitrate;
use crate::fec::Code;
use crate::message::{FecPacket, VideoChunk};
use crate::wire::{DEFAULT_DATAGRAM_LEN, MAX_DATAGRAM_LEN, TRANSPORT_OVERHEAD};

/// The smallest datagram worth cutting video into, in bytes.
const DATAGRAM_LEN_MIN: usize = 512;
/// The largest payload of a UDP datagram over IPv4, which is also the most that one segmented send
/// carries.
const SEGMENTED_SEND_MAX: usize = 65_507;
/// The largest group: [`FecPacket::OVERHEAD_MAX`] counts on it, and the work to recover grows with it.
const GROUP_MAX: usize = 64;

/// What a [`VideoSender`](super::VideoSender) is built with. Values out of range are moved to the
/// nearest one that works.
#[derive(Clone, Debug, PartialEq)]
pub struct SenderConfig {
    /// Length of a full datagram, headers and tag of RIFT included, in bytes.
    pub datagram_len: usize,
    /// Most data packets in an error correction group, which is also the most that leaves as one batch.
    pub group_max: usize,
    /// Frames kept for retransmission, the newest included.
    pub frames: usize,
    /// Largest encoded frame, in bytes.
    pub frame_bytes_max: usize,
    /// Most slices in a frame.
    pub slices_max: usize,
    /// Packets whose content is remembered, so that the peer can name them as lost. Rounded up to a
    /// power of two.
    pub history_packets: usize,
    /// Most packets waiting to be sent again.
    pub retransmissions_max: usize,
    /// Encoded bytes of a frame that leave without a pause.
    pub burst_bytes_max: u32,
    /// Rate at which bursts follow each other, until [`set_rate`](super::VideoSender::set_rate).
    pub pacing: Bitrate,
    /// Parity packets per data packet, 0 to 1, until [`set_parity`](super::VideoSender::set_parity).
    pub parity: f32,
    /// How parity is computed; Reed-Solomon only where the peer understands it.
    pub code: Code,
    /// The peer understands parity over several frames, which is made where that costs less.
    pub sliding: bool,
    /// A frame that could not leave for this long, or a keyframe for twice as long, is given up when a newer one comes, in
    /// microseconds.
    pub queue_us_max: u64,
    /// A frame is not sent again where it would arrive later than this after it was submitted, in
    /// microseconds. The receiver's playout deadline.
    pub retransmit_us_max: u64,
    /// The peer takes slices. Otherwise a frame is collected and leaves as one slice.
    pub slices: bool,
}

impl Default for SenderConfig {
    fn default() -> Self {
        Self {
            datagram_len: DEFAULT_DATAGRAM_LEN,
            group_max: 48,
            // 133 ms at 120 frames per second: the playout deadline and a round trip.
            frames: 16,
            frame_bytes_max: 4 << 20,
            slices_max: 32,
            // 130 ms at 1 Gbit/s.
            history_packets: 16_384,
            retransmissions_max: 512,
            burst_bytes_max: 131_072,
            // A frame of 2^20 bytes, with headers and without its first burst, in less than 1.5 ms.
            pacing: Bitrate::from_mbps(6000),
            parity: 0.0,
            code: Code::ReedSolomon,
            sliding: true,
            queue_us_max: 50_000,
            retransmit_us_max: 100_000,
            slices: true,
        }
    }
}

/// Every pool of a sender. All memory it will ever hold follows from these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSizes {
    /// Frame slots.
    pub frames: usize,
    /// Bytes in a frame slot.
    pub frame_bytes: usize,
    /// Slices in a frame slot.
    pub slices: usize,
    /// Bytes that the buffer of a slice has at first.
    pub slice_bytes: usize,
    /// Chunks in a frame slot.
    pub chunks: usize,
    /// Slices waiting to leave.
    pub queued_slices: usize,
    /// Entries of the packet history.
    pub history_packets: usize,
    /// Chunks waiting to leave again.
    pub retransmissions: usize,
    /// Data packets in a group, and so also the most parity packets.
    pub group: usize,
    /// Bytes in a parity buffer.
    pub parity_bytes: usize,
}

impl SenderConfig {
    /// The one place where pools are sized.
    #[must_use]
    pub fn pool_sizes(&self) -> PoolSizes {
        // One frame being sent, one being filled.
        let frames = self.frames.clamp(2, 1024);
        let slices = self.slices_max.clamp(1, 256);
        let frame_bytes = self.frame_bytes_max.clamp(1, 64 << 20);
        // A chunk takes at least this much of a frame, unless it is the last of its slice.
        let chunk_bytes_min = self.protected_body_max() - VideoChunk::OVERHEAD_MAX;
        PoolSizes {
            frames,
            frame_bytes,
            slices,
            // Frames that are cut evenly fit; a longer slice makes its buffer grow.
            slice_bytes: frame_bytes / slices,
            chunks: frame_bytes.div_ceil(chunk_bytes_min) + slices,
            // A slice waits at most once.
            queued_slices: frames * slices,
            history_packets: self.history_packets.clamp(64, 1 << 22).next_power_of_two(),
            retransmissions: self.retransmissions_max.clamp(1, 1 << 16),
            // A group leaves as one segmented send.
            group: self.group_max.clamp(1, GROUP_MAX).min(SEGMENTED_SEND_MAX / self.datagram_len()),
            // Parity is as long as the longest data body.
            parity_bytes: self.protected_body_max(),
        }
    }

    /// The datagram length in use.
    pub(super) fn datagram_len(&self) -> usize {
        self.datagram_len.clamp(DATAGRAM_LEN_MIN, MAX_DATAGRAM_LEN)
    }

    /// The longest body without parity.
    pub(super) fn body_max(&self) -> usize {
        self.datagram_len() - TRANSPORT_OVERHEAD
    }

    /// The longest body whose parity still fits a datagram.
    pub(super) fn protected_body_max(&self) -> usize {
        self.body_max() - FecPacket::OVERHEAD_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_values_are_moved_into_range() {
        for size in [0, usize::MAX] {
            let config = SenderConfig {
                datagram_len: size,
                group_max: size,
                frames: size,
                frame_bytes_max: size,
                slices_max: size,
                history_packets: size,
                retransmissions_max: size,
                ..SenderConfig::default()
            };
            let pools = config.pool_sizes();
            assert!((1..=GROUP_MAX).contains(&pools.group));
            assert!(pools.group * config.datagram_len() <= SEGMENTED_SEND_MAX);
            assert!(pools.frames >= 2 && pools.slices >= 1 && pools.frame_bytes >= 1);
            assert!(pools.history_packets.is_power_of_two());
        }
    }

    #[test]
    fn the_largest_datagram_still_gives_groups_that_fit_one_send() {
        let config = SenderConfig { datagram_len: 1424, ..SenderConfig::default() };
        assert_eq!(config.pool_sizes().group, 46);
        assert_eq!(SenderConfig::default().pool_sizes().group, 48);
    }
}

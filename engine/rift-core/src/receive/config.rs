//! Sizes and limits of a receiver, all of them fixed when it is made.

use super::frame::PAYLOAD_MAX;
use super::sliding::Sliding;
use super::window::{WRAPPER_MAX, WRAPPERS};

/// When frames are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlayoutConfig {
    /// How long after its expected arrival a frame may still be shown, in microseconds.
    pub deadline_us: u64,
    /// The most that showing is put off to even out jitter, in microseconds.
    pub jitter_max_us: u64,
}

impl Default for PlayoutConfig {
    fn default() -> Self {
        Self { deadline_us: 100_000, jitter_max_us: 10_000 }
    }
}

/// Sizes of a [`VideoReceiver`](super::VideoReceiver).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiverConfig {
    /// Frames that can be under way at once; rounded up to a power of two, at least 4.
    pub frames: usize,
    /// The largest encoded frame, in bytes.
    pub frame_bytes_max: usize,
    /// The most slices in a frame.
    pub slices_max: usize,
    /// Packet ids that are remembered; rounded up to a power of two, at least 256. Bounds how far back
    /// parity and gap detection reach.
    pub window_packets: usize,
    /// Missing packets that are asked for at the same time; more than these are given up and counted.
    pub missing_max: usize,
    /// Parity packets that wait for a second chance at the same time.
    pub parities_max: usize,
    /// Whether the host marks the last slice of a frame (the SLICES feature). Without, a frame is one slice.
    pub slices: bool,
    /// When frames are due.
    pub playout: PlayoutConfig,
}

impl Default for ReceiverConfig {
    fn default() -> Self {
        Self {
            frames: 16,
            frame_bytes_max: 2 << 20,
            slices_max: 32,
            window_packets: 8192,
            missing_max: 1024,
            parities_max: 64,
            slices: true,
            playout: PlayoutConfig::default(),
        }
    }
}

/// What the pools of a receiver come to. The only place where their sizes are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Frame slots, and as many buffers: a frame owns exactly one while it is open. Buffers are taken
    /// last-in first-out, so in steady state one or two stay in the cache and the rest is never touched.
    pub(super) frames: usize,
    /// Half as much again as the largest frame: a slice whose last chunk comes first is laid out for
    /// the largest chunks there can be, which are 1.3 times those of a 1200-byte datagram.
    pub(super) buffer_bytes: usize,
    /// Words of chunk bitmap in a frame: one bit for each 256 bytes of the largest frame (an eighth of
    /// what full chunks need, so slices may have short ones) and one partly used word for each slice.
    pub(super) bitmap_words: usize,
    /// Slices in a frame.
    pub(super) slices: usize,
    /// Packet slots.
    pub(super) packets: usize,
    /// Missing packets.
    pub(super) missing: usize,
    /// Waiting parity packets.
    pub(super) parities: usize,
}

impl ReceiverConfig {
    pub(super) fn sizes(&self) -> Sizes {
        Sizes {
            frames: self.frames.max(4).next_power_of_two(),
            buffer_bytes: self.frame_bytes_max + self.frame_bytes_max / 2 + PAYLOAD_MAX,
            bitmap_words: self.frame_bytes_max.div_ceil(256 * 64) + self.slices_max,
            slices: self.slices_max.clamp(1, u16::MAX.into()),
            packets: self.window_packets.max(256).next_power_of_two(),
            missing: self.missing_max.max(64),
            parities: self.parities_max.max(1),
        }
    }

    /// Bytes of address space that a receiver of this configuration takes. Memory that no frame ever
    /// reaches is never touched, so what stays resident is mostly far less.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let sizes = self.sizes();
        sizes.frames * (sizes.buffer_bytes + sizes.bitmap_words * 8 + sizes.slices * 64)
            + sizes.packets * 48
            + sizes.packets.min(WRAPPERS) * WRAPPER_MAX
            + sizes.parities * (PAYLOAD_MAX + 192)
            + sizes.missing * 32
            + Sliding::MEMORY_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_never_fall_below_what_the_tables_need() {
        let tiny = ReceiverConfig {
            frames: 0,
            frame_bytes_max: 0,
            slices_max: 0,
            window_packets: 0,
            missing_max: 0,
            parities_max: 0,
            ..Default::default()
        };
        let sizes = tiny.sizes();
        assert!(sizes.frames.is_power_of_two() && sizes.packets.is_power_of_two());
        assert!(sizes.buffer_bytes >= PAYLOAD_MAX);
        assert!(sizes.slices >= 1 && sizes.parities >= 1 && sizes.missing >= 1);
    }

    #[test]
    fn the_default_receiver_fits_in_64_mebibytes() {
        assert!(ReceiverConfig::default().memory_bytes() < 64 << 20);
    }
}

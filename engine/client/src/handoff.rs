//! Whole slices on their way from the network thread to the decode thread.
//!
//! Owns a fixed number of buffers. Never allocates after start, never blocks: without a free buffer the
//! slice is lost and its frame reported as not decoded, so that the host makes up for it.

use rift_core::FrameId;
use rift_core::receive::{ReadySlice, RecoveredBy};
use wavry_runtime::spsc::{self, Consumer, Lease, Producer, Slab};

/// Buffers: four frames of the most slices.
const BUFFERS: usize = 128;
/// Bytes in a buffer: as large as the largest slice that a host sends.
pub(crate) const SLICE_BYTES_MAX: usize = 1 << 20;

/// A whole slice. Its buffer is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct SliceBuffer {
    pub(crate) meta: SliceMeta,
    pub(crate) data: Lease,
}

/// What the decode thread needs to know of a slice. Times in microseconds of the client's clock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SliceMeta {
    pub(crate) frame_id: FrameId,
    pub(crate) index: u32,
    pub(crate) last: bool,
    pub(crate) show: bool,
    pub(crate) show_at_us: u64,
    pub(crate) first_arrival_us: u64,
    pub(crate) complete_us: u64,
    pub(crate) repaired: bool,
}

impl From<&ReadySlice<'_>> for SliceMeta {
    fn from(slice: &ReadySlice<'_>) -> Self {
        Self {
            frame_id: slice.frame_id,
            index: slice.index,
            last: slice.last,
            show: slice.show,
            show_at_us: slice.show_at.as_micros(),
            first_arrival_us: slice.first_arrival.as_micros(),
            complete_us: slice.complete_at.as_micros(),
            repaired: slice.recovered != RecoveredBy::Nothing,
        }
    }
}

/// The network thread's end.
pub(crate) struct SliceSender {
    ring: Producer<SliceBuffer>,
    slab: Slab,
}

/// The decoder is behind, or the slice too large for a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SliceLost;

/// Both ends of a new handoff.
pub(crate) fn slices() -> std::io::Result<(SliceSender, Consumer<SliceBuffer>)> {
    let (ring, end) = spsc::ring(BUFFERS);
    Ok((SliceSender { ring, slab: Slab::new(BUFFERS, SLICE_BYTES_MAX)? }, end))
}

impl SliceSender {
    /// Copies a slice into a free buffer and hands it over.
    pub(crate) fn send(&mut self, meta: SliceMeta, slice: &[u8]) -> Result<(), SliceLost> {
        let mut data = self.slab.lease().ok_or(SliceLost)?;
        data.extend_from_slice(slice).map_err(|_| SliceLost)?;
        self.ring.push(SliceBuffer { meta, data }).map_err(|_| SliceLost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoder_that_is_behind_costs_slices_not_memory() {
        let (mut sender, mut receiver) = slices().unwrap();
        for turn in 0..BUFFERS {
            sender.send(SliceMeta::default(), &[turn as u8]).unwrap();
        }
        assert_eq!(sender.send(SliceMeta::default(), &[1]), Err(SliceLost));
        assert_eq!(*receiver.pop().unwrap().data, [0]);
        assert_eq!(sender.send(SliceMeta::default(), &[1]), Ok(()));
    }
}

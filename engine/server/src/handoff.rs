//! Encoded slices on their way from the video thread to the network thread.
//!
//! Owns a fixed number of buffers. Never allocates after start, never blocks: without a free buffer the
//! slice is lost and counted, and the frame that it belonged to is repaired like any other lost one.

use rift_core::send::SliceMeta;
use wavry_runtime::spsc::{self, Consumer, Lease, Producer, Slab};

/// Buffers: two frames of eight slices under way, and as many being sent.
const BUFFERS: usize = 32;
/// Bytes in a buffer: a quarter of a 4K keyframe at the finest quantiser. Pages that no slice has used
/// take no memory.
pub(crate) const SLICE_BYTES_MAX: usize = 1 << 20;

/// An encoded slice and when its frame went through which stage. Its buffer is free again when this is
/// dropped.
#[derive(Debug)]
pub(crate) struct EncodedBuffer {
    pub(crate) meta: SliceMeta,
    pub(crate) times: SliceTimes,
    pub(crate) data: Lease,
}

/// When its frame went through which stage, `CLOCK_MONOTONIC` in nanoseconds, and the size of the coded picture.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SliceTimes {
    pub(crate) capture_started: u64,
    pub(crate) captured: u64,
    pub(crate) encoded: u64,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// The video thread's end.
pub(crate) struct SliceSender {
    ring: Producer<EncodedBuffer>,
    slab: Slab,
}

/// A slice could not be handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SliceLost {
    /// All buffers are under way: the network thread is behind.
    NoBuffer,
    /// The slice is larger than [`SLICE_BYTES_MAX`].
    TooLarge,
}

/// Both ends of a new handoff.
pub(crate) fn slices() -> std::io::Result<(SliceSender, Consumer<EncodedBuffer>)> {
    let (ring, end) = spsc::ring(BUFFERS);
    Ok((SliceSender { ring, slab: Slab::new(BUFFERS, SLICE_BYTES_MAX)? }, end))
}

impl SliceSender {
    /// Copies a slice into a free buffer and hands it over.
    pub(crate) fn send(&mut self, meta: SliceMeta, times: SliceTimes, slice: &[u8]) -> Result<(), SliceLost> {
        let mut data = self.slab.lease().ok_or(SliceLost::NoBuffer)?;
        data.extend_from_slice(slice).map_err(|_| SliceLost::TooLarge)?;
        self.ring.push(EncodedBuffer { meta, times, data }).map_err(|_| SliceLost::NoBuffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_go_round() {
        let (mut sender, mut receiver) = slices().unwrap();
        for turn in 0..3 * BUFFERS {
            sender.send(SliceMeta::default(), SliceTimes::default(), &[turn as u8; 9]).unwrap();
            assert_eq!(*receiver.pop().unwrap().data, [turn as u8; 9]);
        }
    }

    #[test]
    fn a_network_thread_that_is_behind_costs_slices_not_memory() {
        let (mut sender, mut receiver) = slices().unwrap();
        let mut send = |bytes: &[u8]| sender.send(SliceMeta::default(), SliceTimes::default(), bytes);
        for _ in 0..BUFFERS {
            send(&[1]).unwrap();
        }
        assert_eq!(send(&[1]), Err(SliceLost::NoBuffer));
        drop(receiver.pop());
        assert_eq!(send(&[1]), Ok(()));
        drop(receiver.pop());
        assert_eq!(send(&vec![0; SLICE_BYTES_MAX + 1]), Err(SliceLost::TooLarge));
    }
}

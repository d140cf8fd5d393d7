//! Encoded slices on their way from the video thread to the network thread, and empty buffers on their way back.
//!
//! Owns a fixed number of buffers, which change hands and are never copied: the core keeps a full one and gives an
//! empty one for it. Never blocks: without a free buffer the slice is lost and counted, and the frame that it belonged
//! to is repaired like any other lost one. Allocates only for a slice that is longer than what its buffer held before.

use rift_core::send::SliceMeta;
use wavry_runtime::spsc::{self, Consumer, Producer};

/// Buffers: two frames of the most slices under way, and as many being sent.
const BUFFERS: usize = 128;
/// Bytes that a buffer has at first: a slice of a keyframe. Pages that no slice has used take no memory.
const BUFFER_BYTES: usize = 128 << 10;
/// Longest slice, in bytes: a quarter of a 4K keyframe at the finest quantiser.
pub(crate) const SLICE_BYTES_MAX: usize = 1 << 20;

/// An encoded slice and when its frame went through which stage.
#[derive(Debug)]
pub(crate) struct EncodedBuffer {
    pub(crate) meta: SliceMeta,
    pub(crate) times: SliceTimes,
    pub(crate) data: Vec<u8>,
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
    empty: Consumer<Vec<u8>>,
}

/// The network thread's end.
pub(crate) struct SliceReceiver {
    ring: Consumer<EncodedBuffer>,
    empty: Producer<Vec<u8>>,
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
pub(crate) fn slices() -> (SliceSender, SliceReceiver) {
    let (ring, ring_end) = spsc::ring(BUFFERS);
    let (mut empty, empty_end) = spsc::ring(BUFFERS);
    for _ in 0..BUFFERS {
        // The ring has room for all that there are.
        let _ = empty.push(Vec::with_capacity(BUFFER_BYTES));
    }
    (SliceSender { ring, empty: empty_end }, SliceReceiver { ring: ring_end, empty })
}

impl SliceSender {
    /// Copies a slice into a free buffer and hands it over.
    pub(crate) fn send(&mut self, meta: SliceMeta, times: SliceTimes, slice: &[u8]) -> Result<(), SliceLost> {
        if slice.len() > SLICE_BYTES_MAX {
            return Err(SliceLost::TooLarge);
        }
        let mut data = self.empty.pop().ok_or(SliceLost::NoBuffer)?;
        data.extend_from_slice(slice);
        self.ring.push(EncodedBuffer { meta, times, data }).map_err(|_| SliceLost::NoBuffer)
    }
}

impl SliceReceiver {
    /// The next slice. Its buffer, or the one that was given for it, is to be given back.
    pub(crate) fn pop(&mut self) -> Option<EncodedBuffer> {
        self.ring.pop()
    }

    /// Gives a buffer back.
    pub(crate) fn give_back(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        // As many buffers as the ring holds go round.
        let _ = self.empty.push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_go_round() {
        let (mut sender, mut receiver) = slices();
        for turn in 0..3 * BUFFERS {
            sender.send(SliceMeta::default(), SliceTimes::default(), &[turn as u8; 9]).unwrap();
            let slice = receiver.pop().unwrap();
            assert_eq!(slice.data, [turn as u8; 9]);
            receiver.give_back(slice.data);
        }
    }

    #[test]
    fn a_network_thread_that_is_behind_costs_slices_not_memory() {
        let (mut sender, mut receiver) = slices();
        let mut send = |bytes: &[u8]| sender.send(SliceMeta::default(), SliceTimes::default(), bytes);
        for _ in 0..BUFFERS {
            send(&[1]).unwrap();
        }
        assert_eq!(send(&[1]), Err(SliceLost::NoBuffer));
        let mut take = || {
            let slice = receiver.pop().unwrap();
            receiver.give_back(slice.data);
        };
        take();
        assert_eq!(send(&[1]), Ok(()));
        take();
        assert_eq!(send(&vec![0; SLICE_BYTES_MAX + 1]), Err(SliceLost::TooLarge));
        assert_eq!(send(&vec![0; SLICE_BYTES_MAX]), Ok(()));
    }
}

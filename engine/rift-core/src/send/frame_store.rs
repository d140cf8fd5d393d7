//! The encoded frames that may still have to leave, or leave again.
//!
//! Owns the bytes and where slices and chunks lie in them. Never decides what is sent. Invariant: a
//! [`ChunkRef`] finds the chunk it was made for or nothing, also after its slot was used for another
//! frame.

use super::template::{Template, chunk_body_len};
use super::{PoolSizes, SliceMeta};
use crate::message::VideoChunk;
use crate::{FrameId, Timestamp};

/// Names a chunk. Does not keep its frame in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkRef {
    pub(super) slot: u16,
    pub(super) slice: u16,
    /// Of the slot's use.
    pub(super) serial: u32,
    pub(super) chunk: u32,
}

/// A slice and its cut into chunks and groups.
#[derive(Clone, Copy, Debug)]
pub(super) struct SliceRecord {
    pub(super) slice_index: u32,
    pub(super) last_slice: bool,
    pub(super) capture_us: u32,
    pub(super) encode_us: u32,
    /// The slot's buffer that holds it.
    buffer: usize,
    pub(super) len: usize,
    /// Payload of every chunk but the last, in bytes.
    pub(super) chunk_len: usize,
    pub(super) chunk_count: u32,
    /// Of the frame's chunks, counting those of earlier slices.
    pub(super) first_chunk: usize,
    pub(super) group_count: u32,
    /// Length of every body but the last.
    pub(super) body_len: usize,
    pub(super) last_body_len: usize,
    /// Parity packets per million data packets, at least.
    pub(super) parity_ppm: u32,
    /// Its packets have room for parity.
    pub(super) is_protected: bool,
}

impl SliceRecord {
    /// The chunks of group `group`, sizes differing by at most one.
    pub(super) fn group(&self, group: u32) -> core::ops::Range<u32> {
        let bound =
            |g: u32| (u64::from(self.chunk_count) * u64::from(g) / u64::from(self.group_count)) as u32;
        bound(group)..bound(group + 1)
    }

    /// Where the payload of `chunk` lies in the slice.
    #[inline]
    pub(super) fn payload(&self, chunk: u32) -> core::ops::Range<usize> {
        let start = chunk as usize * self.chunk_len;
        start..self.len.min(start + self.chunk_len)
    }

    /// Length of the body of `chunk`.
    pub(super) fn body_len_of(&self, chunk: u32) -> usize {
        if chunk + 1 == self.chunk_count { self.last_body_len } else { self.body_len }
    }
}

/// A frame in the store.
#[derive(Debug)]
pub(super) struct Slot {
    serial: u32,
    in_use: bool,
    /// The frame that had to leave the slot last before anyone said that it was there, and its serial.
    evicted: Option<(u32, FrameId)>,
    pub(super) frame_id: FrameId,
    pub(super) submitted_at: Timestamp,
    pub(super) keyframe: bool,
    timestamp: Timestamp,
    reference_distance: u32,
    /// One for each slice there may be; those beyond the last slice are empty.
    buffers: Box<[Vec<u8>]>,
    /// Bytes in all buffers.
    len: usize,
    /// Length set by the pool sizes, never pushed beyond.
    slices: Vec<SliceRecord>,
    /// When a chunk was last asked for again; one per chunk.
    resent_at: Vec<Timestamp>,
}

impl Slot {
    /// The payload of `chunk` of a slice of this slot.
    #[inline]
    pub(super) fn payload(&self, slice: &SliceRecord, chunk: u32) -> &[u8] {
        &self.buffers[slice.buffer][slice.payload(chunk)]
    }

    /// The fields that the chunks of `slice` share.
    fn fields(&self, slice: &SliceRecord) -> VideoChunk<'static> {
        VideoChunk {
            frame_id: self.frame_id,
            chunk_index: 0,
            chunk_count: slice.chunk_count,
            timestamp_us: self.timestamp.as_micros(),
            keyframe: self.keyframe,
            payload: &[],
            capture_us: slice.capture_us,
            encode_us: slice.encode_us,
            slice_index: slice.slice_index,
            last_slice: slice.last_slice,
            reference_distance: self.reference_distance,
        }
    }

    /// The template for `chunk` and all of its length.
    pub(super) fn template(&self, slice: &SliceRecord, chunk: u32) -> Template {
        Template::chunk(&self.fields(slice), slice.payload(chunk).len())
    }
}

/// How a slice is to be cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// Longest body, in bytes.
    pub(super) body_max: usize,
    /// Most data packets in a group.
    pub(super) group_max: usize,
    /// Parity packets per million data packets, at least.
    pub(super) parity_ppm: u32,
    /// Bodies leave room for parity.
    pub(super) is_protected: bool,
}

/// Fixed slots for encoded frames.
#[derive(Debug)]
pub(super) struct FrameStore {
    slots: Box<[Slot]>,
    /// The slot freed last is used first: its memory is most likely still in a cache.
    free: Vec<u16>,
    /// Most bytes in a frame.
    bytes_max: usize,
    slices_max: usize,
    chunks_max: usize,
}

impl FrameStore {
    pub(super) fn new(pools: &PoolSizes) -> Self {
        let slot = || Slot {
            serial: 0,
            in_use: false,
            evicted: None,
            frame_id: FrameId(0),
            submitted_at: Timestamp::ZERO,
            keyframe: false,
            timestamp: Timestamp::ZERO,
            reference_distance: 0,
            // Not written before it is used, so that untouched memory is not there yet.
            buffers: (0..pools.slices).map(|_| Vec::with_capacity(pools.slice_bytes)).collect(),
            len: 0,
            slices: Vec::with_capacity(pools.slices),
            resent_at: Vec::with_capacity(pools.chunks),
        };
        Self {
            slots: (0..pools.frames).map(|_| slot()).collect(),
            free: (0..pools.frames as u16).rev().collect(),
            bytes_max: pools.frame_bytes,
            slices_max: pools.slices,
            chunks_max: pools.chunks,
        }
    }

    /// Takes a free slot for the frame of `meta`, if there is one.
    pub(super) fn lease(&mut self, now: Timestamp, meta: &SliceMeta) -> Option<u16> {
        let index = self.free.pop()?;
        let slot = &mut self.slots[usize::from(index)];
        slot.serial = slot.serial.wrapping_add(1);
        slot.in_use = true;
        slot.frame_id = meta.frame_id;
        slot.submitted_at = now;
        slot.keyframe = meta.keyframe;
        slot.timestamp = meta.timestamp;
        let distance = meta.reference.map_or(0, |r| meta.frame_id.0.saturating_sub(r.0));
        slot.reference_distance = u32::try_from(distance).unwrap_or(0);
        slot.len = 0;
        slot.buffers.iter_mut().for_each(Vec::clear);
        slot.slices.clear();
        slot.resent_at.clear();
        Some(index)
    }

    /// Frees a slot; `false` if it was free.
    pub(super) fn release(&mut self, index: u16) -> bool {
        let slot = &mut self.slots[usize::from(index)];
        let was_in_use = slot.in_use;
        if was_in_use {
            slot.in_use = false;
            self.free.push(index);
        }
        was_in_use
    }

    /// Frees a slot whose frame may still be asked for.
    pub(super) fn evict(&mut self, index: u16) {
        let slot = &mut self.slots[usize::from(index)];
        slot.evicted = Some((slot.serial, slot.frame_id));
        self.release(index);
    }

    /// Whether the frame of `chunk` is not here only because it had to make room.
    pub(super) fn is_evicted(&self, chunk: ChunkRef) -> bool {
        let slot = self.slots.get(usize::from(chunk.slot));
        slot.and_then(|slot| slot.evicted).is_some_and(|(serial, _)| serial == chunk.serial)
    }

    /// Frees every frame up to `frame_id`, and forgets of those that had to make room that they had.
    pub(super) fn release_until(&mut self, frame_id: FrameId) {
        for index in 0..self.slots.len() {
            self.slots[index].evicted.take_if(|(_, evicted)| *evicted <= frame_id);
            if self.slots[index].in_use && self.slots[index].frame_id <= frame_id {
                self.release(index as u16);
            }
        }
    }

    /// The slot of the oldest frame.
    pub(super) fn oldest(&self) -> Option<u16> {
        let used = self.slots.iter().enumerate().filter(|(_, s)| s.in_use);
        used.min_by_key(|(_, s)| s.frame_id).map(|(i, _)| i as u16)
    }

    /// The buffer for the next slice, if there is room for `len` more bytes in the frame.
    fn next_buffer(&mut self, index: u16, len: usize) -> Option<&mut Vec<u8>> {
        let slot = &mut self.slots[usize::from(index)];
        let total = slot.len.checked_add(len).filter(|total| *total <= self.bytes_max)?;
        let buffer = slot.buffers.get_mut(slot.slices.len())?;
        slot.len = total;
        Some(buffer)
    }

    /// Copies `data` behind what the slot holds of the next slice; `false` if it does not fit. Allocates for a slice that
    /// is longer than any in its place before.
    pub(super) fn append(&mut self, index: u16, data: &[u8]) -> bool {
        self.next_buffer(index, data.len()).map(|buffer| buffer.extend_from_slice(data)).is_some()
    }

    /// Takes `data` for the next slice, of which the slot must hold nothing yet, and leaves an empty buffer in its place;
    /// `false` if it does not fit.
    pub(super) fn exchange(&mut self, index: u16, data: &mut Vec<u8>) -> bool {
        let Some(buffer) = self.next_buffer(index, data.len()) else { return false };
        debug_assert!(buffer.is_empty());
        core::mem::swap(buffer, data);
        true
    }

    /// Makes a slice of the bytes appended since the last one. Returns its place in the slot, or `None`
    /// if the slot holds as many slices or chunks as it can.
    pub(super) fn push_slice(&mut self, index: u16, meta: &SliceMeta, cut: Cut) -> Option<u16> {
        let slot = &mut self.slots[usize::from(index)];
        let buffer = slot.slices.len();
        let len = slot.buffers.get(buffer)?.len();
        let mut slice = SliceRecord {
            slice_index: meta.slice_index,
            last_slice: meta.last_slice,
            capture_us: meta.capture_us,
            encode_us: meta.encode_us,
            buffer,
            len,
            chunk_len: len,
            chunk_count: 0,
            first_chunk: slot.resent_at.len(),
            group_count: 1,
            body_len: 0,
            last_body_len: 0,
            parity_ppm: cut.parity_ppm,
            is_protected: cut.is_protected,
        };
        // The fields get shorter, never longer, as the count of chunks goes down from this bound.
        let chunk_count_max = len.div_ceil(cut.body_max.saturating_sub(VideoChunk::OVERHEAD_MAX).max(1));
        slice.chunk_count = u32::try_from(chunk_count_max).ok()?;
        let overhead = chunk_body_len(&slot.fields(&slice), cut.body_max) - cut.body_max;
        let chunk_count = len.div_ceil(cut.body_max.saturating_sub(overhead).max(1)).max(1);
        slice.chunk_count = u32::try_from(chunk_count).ok()?;
        // Even chunks: the last is hardly shorter, and parity is no longer than it must be.
        slice.chunk_len = len.div_ceil(chunk_count);
        slice.chunk_count = len.div_ceil(slice.chunk_len.max(1)).max(1) as u32;
        slice.group_count = slice.chunk_count.div_ceil(cut.group_max.max(1) as u32);
        let fields = slot.fields(&slice);
        slice.body_len = chunk_body_len(&fields, slice.payload(0).len());
        slice.last_body_len = chunk_body_len(&fields, slice.payload(slice.chunk_count - 1).len());
        let chunks = slot.resent_at.len() + slice.chunk_count as usize;
        if slot.slices.len() == self.slices_max || chunks > self.chunks_max {
            return None;
        }
        slot.resent_at.resize(chunks, Timestamp::NEVER);
        slot.slices.push(slice);
        Some(slot.slices.len() as u16 - 1)
    }

    /// The serial of a slot's present use.
    pub(super) fn serial(&self, index: u16) -> u32 {
        self.slots[usize::from(index)].serial
    }

    /// The frame and slice of a chunk, if they are still here.
    #[inline]
    pub(super) fn find(&self, chunk: ChunkRef) -> Option<(&Slot, &SliceRecord)> {
        let slot = self.slots.get(usize::from(chunk.slot))?;
        if !slot.in_use || slot.serial != chunk.serial {
            return None;
        }
        let slice = slot.slices.get(usize::from(chunk.slice))?;
        (chunk.chunk < slice.chunk_count).then_some((slot, slice))
    }

    /// When a chunk was last asked for again; [`Timestamp::NEVER`] if it was not.
    pub(super) fn resent_at(&mut self, chunk: ChunkRef) -> Option<&mut Timestamp> {
        let first_chunk = self.find(chunk)?.1.first_chunk;
        self.slots[usize::from(chunk.slot)].resent_at.get_mut(first_chunk + chunk.chunk as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::super::SenderConfig;
    use super::*;

    fn meta(frame: u64, slice_index: u32) -> SliceMeta {
        SliceMeta {
            frame_id: FrameId(frame),
            slice_index,
            last_slice: false,
            keyframe: false,
            reference: Some(FrameId(frame - 1)),
            timestamp: Timestamp::from_micros(123_456_789),
            capture_us: 1000,
            encode_us: 4000,
        }
    }

    fn store() -> FrameStore {
        let config =
            SenderConfig { frames: 2, frame_bytes_max: 1 << 20, slices_max: 3, ..SenderConfig::default() };
        FrameStore::new(&config.pool_sizes())
    }

    const CUT: Cut = Cut { body_max: 1110, group_max: 48, parity_ppm: 200_000, is_protected: true };

    #[test]
    fn chunks_tile_the_slice_and_groups_tile_the_chunks() {
        for len in [1, 2, 100, 1063, 1064, 1065, 1066, 1067, 42_000, 128 * 1064, 128 * 1065 + 1, 1 << 20] {
            let mut store = store();
            let slot = store.lease(Timestamp::ZERO, &meta(900, 0)).unwrap();
            assert!(store.append(slot, &vec![7; len]));
            let slice = store.push_slice(slot, &meta(900, 0), CUT).unwrap();
            let (_, slice) =
                store.find(ChunkRef { slot, slice, serial: store.serial(slot), chunk: 0 }).unwrap();
            let mut end = 0;
            for chunk in 0..slice.chunk_count {
                let payload = slice.payload(chunk);
                assert_eq!(payload.start, end);
                assert!(chunk + 1 == slice.chunk_count || payload.len() == slice.chunk_len);
                assert!(!payload.is_empty());
                end = payload.end;
            }
            assert_eq!(end, len);
            assert!(slice.body_len <= CUT.body_max && slice.last_body_len <= slice.body_len, "{len}");
            // No packet more than the payload that just fits would need.
            assert!(slice.chunk_count as usize <= len.div_ceil(1110 - 46), "{len}: {}", slice.chunk_count);
            let mut next = 0;
            for group in 0..slice.group_count {
                let chunks = slice.group(group);
                assert_eq!(chunks.start, next);
                assert!((1..=48).contains(&chunks.len()));
                assert!(chunks.len() + 1 >= slice.chunk_count.div_ceil(slice.group_count) as usize);
                next = chunks.end;
            }
            assert_eq!(next, slice.chunk_count);
        }
    }

    #[test]
    fn a_reference_to_an_earlier_use_finds_nothing() {
        let mut store = store();
        let slot = store.lease(Timestamp::ZERO, &meta(1, 0)).unwrap();
        assert!(store.append(slot, &[1; 10]));
        let slice = store.push_slice(slot, &meta(1, 0), CUT).unwrap();
        let chunk = ChunkRef { slot, slice, serial: store.serial(slot), chunk: 0 };
        assert!(store.find(chunk).is_some());
        assert!(store.find(ChunkRef { chunk: 1, ..chunk }).is_none());
        assert!(store.release(slot));
        assert!(!store.release(slot));
        assert!(store.find(chunk).is_none());
        assert_eq!(store.lease(Timestamp::ZERO, &meta(2, 0)), Some(slot));
        assert!(store.append(slot, &[1; 10]));
        store.push_slice(slot, &meta(2, 0), CUT).unwrap();
        assert!(store.find(chunk).is_none());
        assert!(store.resent_at(chunk).is_none());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut store = store();
        let slot = store.lease(Timestamp::ZERO, &meta(1, 0)).unwrap();
        assert!(!store.append(slot, &vec![0; (1 << 20) + 1]));
        for i in 0..3 {
            assert!(store.append(slot, &[1]));
            assert_eq!(store.push_slice(slot, &meta(1, i), CUT), Some(i as u16));
        }
        assert!(!store.append(slot, &[1]));
        assert!(!store.exchange(slot, &mut vec![1]));
        assert_eq!(store.push_slice(slot, &meta(1, 3), CUT), None);
        assert!(store.lease(Timestamp::ZERO, &meta(2, 0)).is_some());
        assert_eq!(store.lease(Timestamp::ZERO, &meta(3, 0)), None);
        assert_eq!(store.oldest(), Some(slot));
        store.release_until(FrameId(1));
        assert_ne!(store.oldest(), Some(slot));
    }
}

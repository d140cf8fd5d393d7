//! Frames under way: where their chunks lie and which are still missing.
//!
//! Owns the frame buffers and the map from (frame, slice, chunk) to bytes. A payload is copied once,
//! from the packet to its place in the slice, or opened right there ([`expected`]). Never decides what is decoded or asked for again.
//! Invariant: every open frame has an id in `floor..floor + frames` and owns exactly one buffer, and
//! no field of a chunk is believed before it was compared with what is known of its slice.

mod expected;

use super::RecoveredBy;
use super::config::Sizes;
use crate::message::{EDGE, VideoChunk};
use crate::wire::{MAX_DATAGRAM_LEN, TRANSPORT_OVERHEAD};
use crate::{DropReason, Timestamp};

pub(super) use expected::Expected;

/// The largest payload of a chunk that is accepted.
pub(super) const PAYLOAD_MAX: usize = MAX_DATAGRAM_LEN - TRANSPORT_OVERHEAD;

/// Slices begin on a cache line.
const SLICE_ALIGN: usize = 64;

/// A place in the order in which chunks are first sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) frame: u64,
    pub(super) slice: u16,
    pub(super) chunk: u32,
}

/// What is known of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) id: u64,
    open: bool,
    pub(super) keyframe: bool,
    pub(super) timestamp_us: u64,
    /// `frame_id - reference` as the sender said it; 0 where not told.
    reference_distance: u32,
    pub(super) capture_us: u32,
    pub(super) first_arrival: Timestamp,
    pub(super) last_arrival: Timestamp,
    /// Slices handed out.
    pub(super) handed: u16,
    /// Slices in the frame, 0 until the last one was seen.
    total: u16,
    /// One more than the highest slice seen.
    begun: u16,
    /// Complete slices.
    whole: u16,
    /// Packet ids from this one on were sent after a resend was asked for; `u64::MAX` before that.
    pub(super) resent_from: u64,
    /// Whether anything but first transmission brought parts of it.
    pub(super) recovered: RecoveredBy,
    buffer: u32,
    bytes_used: usize,
    words_used: usize,
}

impl Frame {
    const CLOSED: Self = Self {
        id: 0,
        open: false,
        keyframe: false,
        timestamp_us: 0,
        reference_distance: 0,
        capture_us: 0,
        first_arrival: Timestamp::ZERO,
        last_arrival: Timestamp::ZERO,
        handed: 0,
        total: 0,
        begun: 0,
        whole: 0,
        resent_from: u64::MAX,
        recovered: RecoveredBy::Nothing,
        buffer: 0,
        bytes_used: 0,
        words_used: 0,
    };

    /// Every slice is there.
    pub(super) fn is_whole(&self) -> bool {
        self.total != 0 && self.whole == self.total
    }

    /// The newest frame that this one predicts from. A peer that does not tell predicts from the
    /// frame before.
    pub(super) fn reference(&self) -> u64 {
        self.id.saturating_sub(u64::from(self.reference_distance.max(1)))
    }

    /// `slice` is the frame's last.
    pub(super) fn is_last(&self, slice: u16) -> bool {
        self.total == slice + 1
    }

    fn agrees_with(&self, chunk: &VideoChunk<'_>) -> bool {
        self.keyframe == chunk.keyframe
            && self.timestamp_us == chunk.timestamp_us
            && self.reference_distance == chunk.reference_distance
    }
}

/// What is known of a slice.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slice {
    /// 0 while no chunk of it was seen.
    count: u32,
    received: u32,
    /// Payload length of every chunk but the last; 0 until one of those was seen.
    stride: u32,
    /// Payload length of the last chunk; 0 until it was seen.
    last_len: u32,
    /// Of the first byte, from the start of the frame's buffer.
    offset: usize,
    /// Of the first bitmap word, from the start of the frame's words.
    words: usize,
    pub(super) encode_us: u32,
    pub(super) complete_at: Timestamp,
    pub(super) recovered: RecoveredBy,
    /// A lost tail was already noticed.
    pub(super) tail_noticed: bool,
}

impl Slice {
    pub(super) fn is_whole(&self) -> bool {
        self.count != 0 && self.received == self.count
    }

    /// Where chunk `index` lies, from the start of the frame's buffer.
    fn chunk_offset(&self, index: u32) -> usize {
        // Before the stride is known only the last chunk can be there, laid out for the largest chunks.
        let stride = if self.stride == 0 { PAYLOAD_MAX } else { self.stride as usize };
        self.offset + index as usize * stride
    }

    fn len(&self) -> usize {
        (self.count as usize - 1) * self.stride as usize + self.last_len as usize
    }
}

/// What placing a chunk has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// It was the first of its frame.
    pub(super) opened: bool,
    /// Since the chunk before it in the same frame, in microseconds.
    pub(super) gap_us: u64,
    /// It completed its frame.
    pub(super) frame_whole: bool,
}

/// The frames under way.
#[derive(Debug)]
pub(super) struct FrameTable {
    frames: Vec<Frame>,
    slices: Vec<Slice>,
    words: Vec<u64>,
    bytes: Vec<u8>,
    /// What was written around the payload that was opened in its place last.
    around: [u8; 2 * EDGE],
    free: Vec<u32>,
    sizes: Sizes,
    /// Whether the peer marks last slices.
    marks_last: bool,
    floor: u64,
    newest: Option<u64>,
}

impl FrameTable {
    pub(super) fn new(sizes: &Sizes, marks_last: bool) -> Self {
        Self {
            frames: vec![Frame::CLOSED; sizes.frames],
            slices: vec![Slice::default(); sizes.frames * sizes.slices],
            words: vec![0; sizes.frames * sizes.bitmap_words],
            bytes: vec![0; sizes.frames * sizes.buffer_bytes],
            around: [0; 2 * EDGE],
            free: (0..sizes.frames as u32).rev().collect(),
            sizes: *sizes,
            marks_last,
            floor: 0,
            newest: None,
        }
    }

    pub(super) fn set_marks_last(&mut self, marks_last: bool) {
        self.marks_last = marks_last;
    }

    /// Frames below this id are finished.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// The highest frame id seen.
    pub(super) fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// Frames that fit side by side.
    pub(super) fn capacity(&self) -> u64 {
        self.frames.len() as u64
    }

    /// The lowest floor with which frame `id` fits.
    pub(super) fn floor_for(&self, id: u64) -> u64 {
        match self.newest {
            // At the start, frames before the first that is seen may still come.
            None if id >= self.capacity() => id - self.capacity() / 2,
            _ => self.floor.max((id + 1).saturating_sub(self.capacity())),
        }
    }

    /// The frame, if it is under way.
    pub(super) fn frame(&self, id: u64) -> Option<&Frame> {
        let frame = &self.frames[self.index(id)];
        (frame.open && frame.id == id).then_some(frame)
    }

    pub(super) fn frame_mut(&mut self, id: u64) -> Option<&mut Frame> {
        let at = self.index(id);
        let frame = &mut self.frames[at];
        (frame.open && frame.id == id).then_some(frame)
    }

    /// The frames under way with an id of at least `from`, in order.
    pub(super) fn open_from(&self, from: u64) -> impl DoubleEndedIterator<Item = &Frame> {
        let end = self.newest.map_or(0, |newest| newest + 1);
        (from.max(self.floor)..end).filter_map(|id| self.frame(id))
    }

    /// Slice `slice` of an open frame, if a chunk of it was seen.
    pub(super) fn slice(&self, frame: u64, slice: u16) -> Option<&Slice> {
        self.frame(frame)?;
        let slice = self.slices.get(self.slice_index(frame, slice)?)?;
        (slice.count != 0).then_some(slice)
    }

    pub(super) fn slice_mut(&mut self, frame: u64, slice: u16) -> Option<&mut Slice> {
        self.frame(frame)?;
        let at = self.slice_index(frame, slice)?;
        let slice = self.slices.get_mut(at)?;
        (slice.count != 0).then_some(slice)
    }

    /// Where the bytes of a complete slice lie.
    fn slice_range(&self, frame: u64, slice: u16) -> Option<core::ops::Range<usize>> {
        let buffer = self.frame(frame)?.buffer;
        let slice = self.slice(frame, slice).filter(|s| s.is_whole())?;
        let start = buffer as usize * self.sizes.buffer_bytes + slice.offset;
        Some(start..start + slice.len())
    }

    /// The bytes of a complete slice; with `finish`, its frame and all before it are closed. The bytes
    /// stay until the next chunk is placed.
    pub(super) fn take_slice(&mut self, frame: u64, slice: u16, finish: bool) -> &[u8] {
        let range = self.slice_range(frame, slice).unwrap_or(0..0);
        if finish {
            self.finish(frame);
        }
        &self.bytes[range]
    }

    /// The bytes of a chunk that is there.
    pub(super) fn chunk_bytes(&self, at: Position, len: usize) -> Option<&[u8]> {
        let buffer = self.frame(at.frame)?.buffer;
        let slice = self.slice(at.frame, at.slice)?;
        if !self.has_chunk(at) {
            return None;
        }
        let start = buffer as usize * self.sizes.buffer_bytes + slice.chunk_offset(at.chunk);
        self.bytes.get(start..start + len)
    }

    /// The chunk is there.
    pub(super) fn has_chunk(&self, at: Position) -> bool {
        let Some(slice) = self.slice(at.frame, at.slice) else { return false };
        at.chunk < slice.count && self.bit(at.frame, slice, at.chunk)
    }

    /// The chunks of a slice that lie behind `chunk`, 0 if nothing is known of the slice.
    pub(super) fn chunks_behind(&self, at: Position) -> u32 {
        self.slice(at.frame, at.slice).map_or(0, |s| (s.count - 1).saturating_sub(at.chunk))
    }

    /// Whether an open frame lacks anything strictly after `from` and strictly before `to`, where each
    /// is a (slice, chunk) and `None` stands for the frame's edge.
    pub(super) fn has_hole(&self, frame: &Frame, from: Option<(u16, u32)>, to: Option<(u16, u32)>) -> bool {
        if frame.is_whole() {
            return false;
        }
        let first = from.map_or(0, |(slice, _)| slice);
        let last = match to {
            Some((slice, _)) => slice,
            // Slices that nothing is known of may still come.
            None if frame.total == 0 => return true,
            None => frame.total - 1,
        };
        (first..=last).any(|index| {
            let lower = from.filter(|&(s, _)| s == index).map_or(0, |(_, chunk)| chunk + 1);
            let Some(slice) = self.slice(frame.id, index) else {
                // At `to` with chunk 0 nothing of that slice lies before it.
                return to.is_none_or(|(s, chunk)| s != index || chunk > lower);
            };
            let upper = to.filter(|&(s, _)| s == index).map_or(slice.count, |(_, chunk)| chunk);
            !slice.is_whole() && (lower..upper.min(slice.count)).any(|c| !self.bit(frame.id, slice, c))
        })
    }

    /// Makes `floor` the lowest frame id that can be under way. Calls `on_drop` for every frame
    /// that is closed by it.
    pub(super) fn raise_floor(&mut self, floor: u64, mut on_drop: impl FnMut(&Frame)) {
        if floor <= self.floor {
            return;
        }
        for at in 0..self.frames.len() {
            if self.frames[at].open && self.frames[at].id < floor {
                on_drop(&self.frames[at]);
                self.close_slot(at);
            }
        }
        self.floor = floor;
    }

    /// Closes a frame whose slices were all handed out, and all before it.
    fn finish(&mut self, id: u64) {
        let at = self.index(id);
        if self.frames[at].open && self.frames[at].id == id {
            self.close_slot(at);
        }
        self.floor = self.floor.max(id + 1);
    }

    /// Copies the payload of a chunk to its place. The frame must fit above the floor.
    ///
    /// # Errors
    /// The reason to drop the chunk; nothing has changed then but that its frame may be open.
    #[inline]
    pub(super) fn place(
        &mut self,
        now: Timestamp,
        chunk: &VideoChunk<'_>,
        by: RecoveredBy,
    ) -> Result<Placed, DropReason> {
        let id = chunk.frame_id.0;
        let slice_number = self.check(chunk)?;
        let at = self.index(id);
        let opened = !(self.frames[at].open && self.frames[at].id == id);
        if opened {
            self.open(now, chunk)?;
        } else if !self.frames[at].agrees_with(chunk) {
            return Err(DropReason::Malformed);
        }
        self.note_last(at, slice_number, chunk)?;
        let slice_at = at * self.sizes.slices + usize::from(slice_number);
        if self.slices[slice_at].count == 0 {
            self.begin_slice(at, slice_at, chunk)?;
        }
        self.copy_chunk(at, slice_at, chunk)?;
        Ok(self.count(now, at, slice_at, by, opened))
    }

    /// One more chunk of a slice is in its place.
    #[inline]
    fn count(&mut self, now: Timestamp, at: usize, slice_at: usize, by: RecoveredBy, opened: bool) -> Placed {
        let slice_number = (slice_at - at * self.sizes.slices) as u16;
        let slice = &mut self.slices[slice_at];
        slice.received += 1;
        slice.recovered = slice.recovered.max(by);
        let slice_whole = slice.is_whole();
        if slice_whole {
            slice.complete_at = now;
        }
        let frame = &mut self.frames[at];
        frame.recovered = frame.recovered.max(by);
        frame.begun = frame.begun.max(slice_number + 1);
        frame.whole += u16::from(slice_whole);
        let gap_us = now.micros_since(frame.last_arrival);
        frame.last_arrival = now;
        Placed { opened, gap_us, frame_whole: slice_whole && frame.is_whole() }
    }

    fn index(&self, id: u64) -> usize {
        (id & (self.frames.len() as u64 - 1)) as usize
    }

    fn slice_index(&self, frame: u64, slice: u16) -> Option<usize> {
        (usize::from(slice) < self.sizes.slices)
            .then(|| self.index(frame) * self.sizes.slices + usize::from(slice))
    }

    fn bit(&self, frame: u64, slice: &Slice, chunk: u32) -> bool {
        let word = self.index(frame) * self.sizes.bitmap_words + slice.words + chunk as usize / 64;
        self.words[word] >> (chunk % 64) & 1 == 1
    }

    /// What can be checked without knowing the frame. Returns the slice number.
    fn check(&self, chunk: &VideoChunk<'_>) -> Result<u16, DropReason> {
        let fits = chunk.chunk_index < chunk.chunk_count
            && !chunk.payload.is_empty()
            && chunk.payload.len() <= PAYLOAD_MAX
            && u64::from(chunk.reference_distance) <= chunk.frame_id.0
            && chunk.frame_id.0 < u64::MAX;
        if !fits {
            return Err(DropReason::Malformed);
        }
        match u16::try_from(chunk.slice_index) {
            Ok(slice) if usize::from(slice) < self.sizes.slices => Ok(slice),
            _ => Err(DropReason::NoRoom),
        }
    }

    fn open(&mut self, now: Timestamp, chunk: &VideoChunk<'_>) -> Result<(), DropReason> {
        let id = chunk.frame_id.0;
        if id < self.floor || id - self.floor >= self.capacity() {
            return Err(DropReason::Stale);
        }
        let at = self.index(id);
        let buffer = self.free.pop().ok_or(DropReason::NoRoom)?;
        self.frames[at] = Frame {
            id,
            open: true,
            keyframe: chunk.keyframe,
            timestamp_us: chunk.timestamp_us,
            reference_distance: chunk.reference_distance,
            capture_us: chunk.capture_us,
            first_arrival: now,
            last_arrival: now,
            buffer,
            ..Frame::CLOSED
        };
        self.slices[at * self.sizes.slices..(at + 1) * self.sizes.slices].fill(Slice::default());
        self.newest = Some(self.newest.map_or(id, |newest| newest.max(id)));
        Ok(())
    }

    /// Keeps how many slices the frame has.
    fn note_last(&mut self, at: usize, slice: u16, chunk: &VideoChunk<'_>) -> Result<(), DropReason> {
        let last = chunk.last_slice || !self.marks_last;
        let frame = &mut self.frames[at];
        let contradicts = if last {
            frame.begun > slice + 1 || (frame.total != 0 && frame.total != slice + 1)
        } else {
            frame.total != 0 && slice + 1 >= frame.total
        };
        // A slice that began without the mark cannot gain it.
        let gains =
            last && frame.total == 0 && self.slices[at * self.sizes.slices + usize::from(slice)].count != 0;
        if contradicts || gains {
            return Err(DropReason::Malformed);
        }
        if last {
            frame.total = slice + 1;
        }
        Ok(())
    }

    /// Lays out a slice behind those that were begun before it.
    fn begin_slice(&mut self, at: usize, slice_at: usize, chunk: &VideoChunk<'_>) -> Result<(), DropReason> {
        let count = chunk.chunk_count;
        let stride_known = count == 1 || chunk.chunk_index + 1 < count;
        let stride = if stride_known { chunk.payload.len() } else { PAYLOAD_MAX };
        let frame = &mut self.frames[at];
        let offset = frame.bytes_used.next_multiple_of(SLICE_ALIGN);
        let words = (count as usize).div_ceil(64);
        let end = (count as usize).checked_mul(stride).and_then(|len| offset.checked_add(len));
        let Some(end) = end.filter(|&end| end <= self.sizes.buffer_bytes) else {
            return Err(DropReason::NoRoom);
        };
        if words > self.sizes.bitmap_words - frame.words_used {
            return Err(DropReason::NoRoom);
        }
        self.slices[slice_at] = Slice {
            count,
            stride: if stride_known { stride as u32 } else { 0 },
            offset,
            words: frame.words_used,
            encode_us: chunk.encode_us,
            ..Slice::default()
        };
        let first_word = at * self.sizes.bitmap_words + frame.words_used;
        self.words[first_word..first_word + words].fill(0);
        frame.bytes_used = end;
        frame.words_used += words;
        Ok(())
    }

    fn copy_chunk(&mut self, at: usize, slice_at: usize, chunk: &VideoChunk<'_>) -> Result<(), DropReason> {
        let slice = &mut self.slices[slice_at];
        let len = chunk.payload.len() as u32;
        let index = chunk.chunk_index;
        if chunk.chunk_count != slice.count {
            return Err(DropReason::Malformed);
        }
        let word = &mut self.words[at * self.sizes.bitmap_words + slice.words + index as usize / 64];
        let bit = 1u64 << (index % 64);
        if *word & bit != 0 {
            return Err(DropReason::Duplicate);
        }
        let base = self.frames[at].buffer as usize * self.sizes.buffer_bytes;
        if index + 1 == slice.count {
            if slice.stride != 0 && len > slice.stride {
                return Err(DropReason::Malformed);
            }
            slice.last_len = len;
        } else if slice.stride == 0 {
            if slice.last_len > len {
                return Err(DropReason::Malformed);
            }
            // The last chunk came first and was laid out for the largest chunks: now its place is known.
            let from = base + slice.chunk_offset(slice.count - 1);
            slice.stride = len;
            let to = base + slice.chunk_offset(slice.count - 1);
            self.bytes.copy_within(from..from + slice.last_len as usize, to);
        } else if len != slice.stride {
            return Err(DropReason::Malformed);
        }
        let start = base + slice.chunk_offset(index);
        self.bytes[start..start + chunk.payload.len()].copy_from_slice(chunk.payload);
        *word |= bit;
        Ok(())
    }

    fn close_slot(&mut self, at: usize) {
        self.free.push(self.frames[at].buffer);
        self.frames[at].open = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FrameId;
    use crate::receive::ReceiverConfig;

    const T: Timestamp = Timestamp::from_micros(1000);

    fn table() -> FrameTable {
        let config =
            ReceiverConfig { frames: 4, frame_bytes_max: 64 << 10, slices_max: 4, ..Default::default() };
        FrameTable::new(&config.sizes(), true)
    }

    fn chunk(frame: u64, index: u32, count: u32, payload: &[u8]) -> VideoChunk<'_> {
        VideoChunk {
            frame_id: FrameId(frame),
            chunk_index: index,
            chunk_count: count,
            payload,
            last_slice: true,
            ..Default::default()
        }
    }

    fn place(table: &mut FrameTable, chunk: &VideoChunk<'_>) -> Result<Placed, DropReason> {
        table.place(T, chunk, RecoveredBy::Nothing)
    }

    #[test]
    fn every_order_of_arrival_gives_the_same_bytes() {
        let data: Vec<u8> = (0..250u32).map(|i| i as u8).collect();
        let parts = [&data[..100], &data[100..200], &data[200..]];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut table = table();
            for (n, index) in order.into_iter().enumerate() {
                assert!(table.slice_range(0, 0).is_none());
                let placed = place(&mut table, &chunk(0, index as u32, 3, parts[index])).unwrap();
                assert_eq!(placed.opened, n == 0);
                assert_eq!(placed.frame_whole, n == 2);
            }
            assert_eq!(table.take_slice(0, 0, false), &data[..], "{order:?}");
        }
    }

    #[test]
    fn impossible_fields_are_refused_and_change_nothing() {
        let mut table = table();
        let long = [0; PAYLOAD_MAX + 1];
        for bad in [
            chunk(0, 3, 3, &[1]),
            chunk(0, 0, 0, &[1]),
            chunk(0, 0, 1, &[]),
            chunk(0, 0, 1, &long),
            VideoChunk { reference_distance: 2, ..chunk(1, 0, 1, &[1]) },
            chunk(u64::MAX, 0, 1, &[1]),
        ] {
            assert_eq!(place(&mut table, &bad), Err(DropReason::Malformed), "{bad:?}");
        }
        assert_eq!(place(&mut table, &chunk(0, 0, u32::MAX, &[1; 1000])), Err(DropReason::NoRoom));
        let far = VideoChunk { slice_index: 4, ..chunk(0, 0, 1, &[1]) };
        assert_eq!(place(&mut table, &far), Err(DropReason::NoRoom));
        assert_eq!(place(&mut table, &chunk(4, 0, 1, &[1])), Err(DropReason::Stale));
    }

    #[test]
    fn contradictions_are_refused() {
        let mut table = table();
        place(&mut table, &chunk(0, 0, 3, &[1; 100])).unwrap();
        for bad in [
            chunk(0, 1, 4, &[1; 100]),
            chunk(0, 1, 3, &[1; 99]),
            chunk(0, 2, 3, &[1; 101]),
            VideoChunk { keyframe: true, ..chunk(0, 1, 3, &[1; 100]) },
            VideoChunk { timestamp_us: 5, ..chunk(0, 1, 3, &[1; 100]) },
            VideoChunk { slice_index: 1, last_slice: false, ..chunk(0, 0, 1, &[1]) },
            VideoChunk { slice_index: 1, ..chunk(0, 0, 1, &[1]) },
            VideoChunk { last_slice: false, ..chunk(0, 1, 3, &[1; 100]) },
        ] {
            assert_eq!(place(&mut table, &bad), Err(DropReason::Malformed), "{bad:?}");
        }
        assert_eq!(place(&mut table, &chunk(0, 0, 3, &[1; 100])), Err(DropReason::Duplicate));
        // A last chunk that came first must not be longer than the others.
        place(&mut table, &chunk(1, 2, 3, &[1; 100])).unwrap();
        assert_eq!(place(&mut table, &chunk(1, 0, 3, &[1; 50])), Err(DropReason::Malformed));
    }

    #[test]
    fn buffers_return_when_frames_finish_or_are_dropped() {
        let mut table = table();
        for round in 0..100u64 {
            place(&mut table, &chunk(round, 0, 1, &[round as u8])).unwrap();
            if round % 3 == 0 {
                table.raise_floor(round + 1, |frame| assert_eq!(frame.id, round));
            } else {
                table.finish(round);
            }
            assert_eq!(table.free.len(), 4);
        }
    }

    #[test]
    fn holes_are_found_where_they_are() {
        let mut table = table();
        for index in [0, 1, 3, 5] {
            place(&mut table, &chunk(0, index, 6, &[1; 10])).unwrap();
        }
        let frame = *table.frame(0).unwrap();
        let hole = |from, to| table.has_hole(&frame, from, to);
        assert!(!hole(Some((0, 0)), Some((0, 1))));
        assert!(hole(Some((0, 1)), Some((0, 3))));
        assert!(hole(Some((0, 3)), None));
        assert!(!hole(Some((0, 4)), None));
        assert!(!hole(None, Some((0, 2))));
        assert!(hole(None, None));
    }

    #[test]
    fn an_unseen_slice_is_a_hole() {
        let mut table = table();
        let slice = |index, last_slice| VideoChunk { slice_index: index, last_slice, ..chunk(0, 0, 1, &[1]) };
        place(&mut table, &slice(0, false)).unwrap();
        let frame = *table.frame(0).unwrap();
        assert!(table.has_hole(&frame, Some((0, 0)), None), "the last slice was not seen");
        place(&mut table, &slice(2, true)).unwrap();
        let frame = *table.frame(0).unwrap();
        assert!(table.has_hole(&frame, Some((0, 0)), Some((2, 0))));
        assert!(!table.has_hole(&frame, Some((2, 0)), None));
        place(&mut table, &slice(1, false)).unwrap();
        assert!(table.frame(0).unwrap().is_whole());
    }
}

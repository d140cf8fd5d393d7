//! Chunks that are opened right where they belong.
//!
//! Knows which chunk comes next if nothing is lost or overtakes, and where its payload goes; lends that place, and
//! what lies around it for the bytes around the payload, to whoever opens the packet. Invariants: a place is lent only
//! if no chunk is there, and counts as filled only by [`FrameTable::count_expected`]; the chunks around it are the same
//! afterwards, whatever was written.

use super::{FrameTable, Placed, Position};
use crate::Timestamp;
use crate::message::{EDGE, VideoChunk};
use crate::receive::RecoveredBy;

/// The next chunk in line, and its place.
#[derive(Clone, Copy, Debug)]
pub(in crate::receive) struct Expected {
    pub(in crate::receive) at: Position,
    /// Of the frame and the slice in their tables.
    frame_at: usize,
    slice_at: usize,
    /// Of the payload, in the bytes of all frames.
    start: usize,
    pub(in crate::receive) payload_len: usize,
    /// Chunks of the slice.
    count: u32,
    /// Of the slice's bits, in the words of all frames.
    words: usize,
    /// The chunk behind it is there already.
    has_next: bool,
}

impl FrameTable {
    /// The chunk behind `front`, if it can be taken as it is: like `fields`, with a payload of `payload_len` bytes, at
    /// least twice [`EDGE`], in packet `id`. The last of a slice is none.
    #[inline]
    pub(in crate::receive) fn expect(
        &self,
        front: Position,
        fields: &VideoChunk<'_>,
        payload_len: usize,
        id: u64,
    ) -> Option<Expected> {
        let chunk = front.chunk + 1;
        let frame_at = self.index(front.frame);
        let frame = &self.frames[frame_at];
        let slice_at = frame_at * self.sizes.slices + usize::from(front.slice);
        let slice = &self.slices[slice_at];
        let is_next = frame.open
            && frame.id == front.frame
            && fields.frame_id.0 == front.frame
            && fields.slice_index == u32::from(front.slice)
            && slice.count == fields.chunk_count
            && chunk + 1 < slice.count
            && slice.stride as usize == payload_len;
        if !is_next {
            return None;
        }
        // All that `place` would find out, and nothing that it would do besides.
        let is_last = fields.last_slice || !self.marks_last;
        let total = front.slice + 1;
        let fits = if is_last {
            frame.total == total && frame.begun <= total
        } else {
            frame.total == 0 || total < frame.total
        };
        let is_plain = fits
            && frame.agrees_with(fields)
            && id < frame.resent_from
            && !slice.tail_noticed
            && payload_len >= 2 * EDGE
            && !self.bit(front.frame, slice, chunk);
        let start = frame.buffer as usize * self.sizes.buffer_bytes + slice.chunk_offset(chunk);
        is_plain.then(|| Expected {
            at: Position { chunk, ..front },
            frame_at,
            slice_at,
            start,
            payload_len,
            count: slice.count,
            words: frame_at * self.sizes.bitmap_words + slice.words,
            has_next: self.bit(front.frame, slice, chunk + 1),
        })
    }

    /// Makes `expected`, which was counted just now, the chunk behind it, in packet `id`. `false`: that cannot be taken
    /// as it is.
    #[inline]
    pub(in crate::receive) fn advance(&self, expected: &mut Expected, id: u64) -> bool {
        let chunk = expected.at.chunk + 1;
        if expected.has_next
            || chunk + 1 >= expected.count
            || id >= self.frames[expected.frame_at].resent_from
        {
            return false;
        }
        expected.at.chunk = chunk;
        expected.start += expected.payload_len;
        expected.has_next =
            self.words[expected.words + (chunk as usize + 1) / 64] >> ((chunk + 1) % 64) & 1 == 1;
        true
    }

    /// Lends the place of `expected` to `write`: room for a body of `body_len` bytes whose payload is at `head_len`. The
    /// bytes around the payload, if there are at most [`EDGE`] at each side, are [`around`](Self::around) afterwards.
    /// `None` if there is no such room.
    #[inline]
    pub(in crate::receive) fn lend<T>(
        &mut self,
        expected: &Expected,
        head_len: usize,
        body_len: usize,
        write: impl FnOnce(&mut [u8]) -> T,
    ) -> Option<T> {
        let tail_len = body_len.checked_sub(head_len + expected.payload_len)?;
        if head_len > EDGE || tail_len > EDGE {
            return None;
        }
        let (start, end) = (expected.start.checked_sub(EDGE)?, EDGE + expected.payload_len);
        let room = self.bytes.get_mut(start..start + end + EDGE)?;
        let (before, after) = self.around.split_at_mut(EDGE);
        // The end of the chunk before.
        before.copy_from_slice(&room[..EDGE]);
        // The beginning of the one behind; where that is not there yet, to read its place would be to wait for memory.
        if expected.has_next {
            after.copy_from_slice(&room[end..]);
        }
        let written = write(&mut room[EDGE - head_len..end + tail_len]);
        before.swap_with_slice(&mut room[..EDGE]);
        if expected.has_next {
            after.swap_with_slice(&mut room[end..]);
        } else {
            after.copy_from_slice(&room[end..]);
        }
        Some(written)
    }

    /// What was written around the payload that [`lend`](Self::lend) lent a place to: its last [`EDGE`] bytes before
    /// the payload, and behind them its first behind it.
    #[inline]
    pub(in crate::receive) fn around(&self) -> &[u8; 2 * EDGE] {
        &self.around
    }

    /// The chunk was written to its place.
    #[inline]
    pub(in crate::receive) fn count_expected(&mut self, now: Timestamp, expected: &Expected) -> Placed {
        let Expected { at, frame_at, slice_at, .. } = *expected;
        self.words[expected.words + at.chunk as usize / 64] |= 1 << (at.chunk % 64);
        let slice = &mut self.slices[slice_at];
        if slice.received + 1 == slice.count {
            // Its last chunk has overtaken this one.
            return self.count(now, frame_at, slice_at, RecoveredBy::Nothing, false);
        }
        slice.received += 1;
        let frame = &mut self.frames[frame_at];
        let gap_us = now.micros_since(frame.last_arrival);
        frame.last_arrival = now;
        Placed { opened: false, gap_us, frame_whole: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FrameId;
    use crate::receive::ReceiverConfig;

    const NOW: Timestamp = Timestamp::from_micros(1000);
    const LEN: usize = 3 * EDGE;

    #[test]
    fn whatever_is_written_the_chunks_around_it_stay() {
        let payloads: [Vec<u8>; 4] = [1, 2, 3, 4].map(|fill| vec![fill; LEN]);
        let chunk = |index: u32| VideoChunk {
            frame_id: FrameId(0),
            chunk_index: index,
            chunk_count: 4,
            payload: &payloads[index as usize],
            last_slice: true,
            ..Default::default()
        };
        for (first, is_next_there) in [([0, 3], false), ([0, 2], true)] {
            let config = ReceiverConfig { frame_bytes_max: 64 << 10, ..Default::default() };
            let mut table = FrameTable::new(&config.sizes(), true);
            for index in first {
                table.place(NOW, &chunk(index), RecoveredBy::Nothing).unwrap();
            }
            let front = Position { frame: 0, slice: 0, chunk: 0 };
            let expected = table.expect(front, &chunk(1), LEN, 0).unwrap();
            let body = [vec![7; EDGE], payloads[1].clone(), vec![8; EDGE]].concat();
            table.lend(&expected, EDGE, body.len(), |place| place.copy_from_slice(&body)).unwrap();
            assert_eq!(table.around()[..EDGE], [7; EDGE]);
            assert_eq!(table.around()[EDGE..], [8; EDGE]);
            table.count_expected(NOW, &expected);
            let missing = if is_next_there { 3 } else { 2 };
            table.place(NOW, &chunk(missing), RecoveredBy::Nothing).unwrap();
            assert_eq!(table.take_slice(0, 0, true), payloads.concat());
        }
    }
}

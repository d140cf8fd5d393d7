//! Reading chunks that arrive one after the other.
//!
//! Owns the look of the chunk that was read last. The chunks of a slice differ in index and payload only, so
//! all the other bytes of the next one are compared, not decoded again. Never guesses: a body that differs
//! anywhere else is decoded, and one that is not written in the usual way is left to
//! [`decode`](super::decode). Invariant: what is read here is what `decode` reads.

use super::MESSAGE_MEDIA;
use super::field::Reader;
use super::media::{CHUNK_INDEX, MEDIA_VIDEO, VideoChunk};
use crate::FrameId;

/// What stands before the payload must fit this, and so must what stands behind it:
/// [`VideoChunk::OVERHEAD_MAX`] together.
pub(crate) const EDGE: usize = 64;
/// A varint of a `u32`, which no encoder makes longer.
const INDEX_LEN_MAX: usize = 5;

/// Reads chunks, fast where one is like the one before.
#[derive(Debug, Default)]
pub struct ChunkReader {
    seen: Option<Look>,
}

/// The look of a body.
#[derive(Debug)]
pub(crate) struct Look {
    head: Edge,
    tail: Edge,
    body_len: usize,
    index_at: usize,
    index: IndexShape,
    payload_at: usize,
    payload_end: usize,
    /// The fields that stay: all but index and payload.
    fields: VideoChunk<'static>,
}

impl ChunkReader {
    /// Nothing was read yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The chunk that `body` is. `None` says nothing: ask [`decode`](super::decode).
    #[inline]
    pub fn read<'a>(&mut self, body: &'a [u8]) -> Option<VideoChunk<'a>> {
        if let Some(look) = &self.seen
            && let Some(chunk) = look.repeated(body)
        {
            return Some(chunk);
        }
        self.read_new(body)
    }

    /// How a body looks that is like the one before.
    #[inline]
    pub(crate) fn look(&self) -> Option<&Look> {
        self.seen.as_ref()
    }

    #[cold]
    fn read_new<'a>(&mut self, body: &'a [u8]) -> Option<VideoChunk<'a>> {
        let (chunk, index) = plain(body)?;
        // The last of a slice is seldom like the others, which may still come.
        if chunk.chunk_index.saturating_add(1) < chunk.chunk_count {
            self.seen = Look::of(body, &chunk, index);
        }
        Some(chunk)
    }
}

impl Look {
    /// Of a chunk that [`plain`] has read. `None` where edges and payload are too short or too long.
    fn of(body: &[u8], chunk: &VideoChunk<'_>, index: core::ops::Range<usize>) -> Option<Self> {
        let payload_at = chunk.payload.as_ptr().addr() - body.as_ptr().addr();
        let payload_end = payload_at + chunk.payload.len();
        let tail_len = body.len() - payload_end;
        let fits = payload_at <= EDGE && tail_len <= EDGE && chunk.payload.len() >= 2 * EDGE;
        if !fits || !(1..=INDEX_LEN_MAX).contains(&index.len()) {
            return None;
        }
        let (mut head, mut tail) = ([0; EDGE], [0; EDGE]);
        head[..payload_at].fill(0xff);
        head[index.clone()].fill(0);
        tail[EDGE - tail_len..].fill(0xff);
        Some(Self {
            head: Edge { bytes: *body.first_chunk()?, mask: head },
            tail: Edge { bytes: *body.last_chunk()?, mask: tail },
            body_len: body.len(),
            index_at: index.start,
            index: IndexShape::of(index.len()),
            payload_at,
            payload_end,
            fields: VideoChunk { payload: &[], ..*chunk },
        })
    }

    /// Bytes of the body.
    #[inline]
    pub(crate) fn body_len(&self) -> usize {
        self.body_len
    }

    /// Where the payload is, with at most [`EDGE`] bytes before and behind it.
    #[inline]
    pub(crate) fn payload(&self) -> core::ops::Range<usize> {
        self.payload_at..self.payload_end
    }

    /// All but index and payload.
    #[inline]
    pub(crate) fn fields(&self) -> &VideoChunk<'static> {
        &self.fields
    }

    /// Whether the body differs from this look in index and payload only, and `index` is that index: whether
    /// [`repeated`](Self::repeated) gives a chunk with it.
    #[inline]
    pub(crate) fn is_repeated_with(&self, index: u32, body: &[u8]) -> bool {
        let (Some(head), Some(tail)) = (body.first_chunk(), body.last_chunk()) else { return false };
        let written = body.get(self.index_at..).and_then(|rest| rest.first_chunk());
        body.len() == self.body_len
            && self.head.difference(head) | self.tail.difference(tail) == 0
            && written.and_then(|bytes| self.index.read(*bytes)) == Some(index)
    }

    /// The chunk, if the body differs from this look in index and payload only.
    #[inline]
    pub(crate) fn repeated<'a>(&self, body: &'a [u8]) -> Option<VideoChunk<'a>> {
        if body.len() != self.body_len {
            return None;
        }
        let same = self.head.difference(body.first_chunk()?) | self.tail.difference(body.last_chunk()?) == 0;
        let index = self.index.read(*body.get(self.index_at..)?.first_chunk()?);
        if !same {
            return None;
        }
        let payload = body.get(self.payload_at..self.payload_end)?;
        Some(VideoChunk { chunk_index: index?, payload, ..self.fields })
    }
}

/// The bytes at one end of a body.
#[derive(Debug)]
struct Edge {
    bytes: [u8; EDGE],
    /// All bits of those that count.
    mask: [u8; EDGE],
}

impl Edge {
    /// The bits that differ among those that count, all words of them joined. Without a branch, so that it becomes a
    /// few wide instructions.
    #[inline]
    fn difference(&self, other: &[u8; EDGE]) -> u64 {
        let words = |bytes: &[u8; EDGE]| -> [u64; EDGE / 8] {
            core::array::from_fn(|at| u64::from_ne_bytes(core::array::from_fn(|byte| bytes[8 * at + byte])))
        };
        let (mine, mask, other) = (words(&self.bytes), words(&self.mask), words(other));
        (0..EDGE / 8).fold(0, |joined, at| joined | (mine[at] ^ other[at]) & mask[at])
    }
}

/// Where the bits of a varint of known length are.
#[derive(Debug)]
struct IndexShape {
    /// The bits that say whether a byte follows.
    marks: u64,
    /// Those that are set.
    set: u64,
    /// The bits of the value.
    value: u64,
}

impl IndexShape {
    fn of(len: usize) -> Self {
        let bytes = u64::MAX >> (64 - 8 * len);
        let marks = 0x8080_8080_8080_8080 & bytes;
        Self { marks, set: marks & (bytes >> 8), value: 0x7f7f_7f7f_7f7f_7f7f & bytes }
    }

    /// The number, if the varint has this length.
    #[inline]
    fn read(&self, bytes: [u8; 8]) -> Option<u32> {
        let word = u64::from_le_bytes(bytes);
        // Cut to 32 bits, as everywhere.
        (word & self.marks == self.set).then_some(super::field::gather(word & self.value) as u32)
    }
}

/// A chunk as encoders write it, each field at most once and in the order of the numbers, with an index and a
/// payload; and where its index stands.
#[inline]
fn plain(body: &[u8]) -> Option<(VideoChunk<'_>, core::ops::Range<usize>)> {
    let mut fields = Reader::new(body);
    fields.envelope::<MESSAGE_MEDIA>()?;
    fields.envelope::<MEDIA_VIDEO>()?;
    let frame_id = FrameId(fields.varint_if::<1>().ok()?);
    let tag_at = body.len() - fields.left();
    let chunk_index = fields.varint_if::<CHUNK_INDEX>().ok()? as u32;
    let index = tag_at + 1..body.len() - fields.left();
    let chunk = VideoChunk {
        frame_id,
        chunk_index,
        chunk_count: fields.varint_if::<3>().ok()? as u32,
        timestamp_us: fields.varint_if::<4>().ok()?,
        keyframe: fields.varint_if::<5>().ok()? != 0,
        payload: fields.bytes_if::<6>().ok()?,
        capture_us: fields.varint_if::<7>().ok()? as u32,
        encode_us: fields.varint_if::<8>().ok()? as u32,
        slice_index: fields.varint_if::<100>().ok()? as u32,
        last_slice: fields.varint_if::<101>().ok()? != 0,
        reference_distance: fields.varint_if::<102>().ok()? as u32,
    };
    // The tag alone would be no index: then the field is not there.
    (fields.is_empty() && !chunk.payload.is_empty() && index.start < index.end).then_some((chunk, index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Incoming, MediaBody, decode};
    use proptest::prelude::*;

    /// What the full decoder says.
    fn decoded(body: &[u8]) -> Option<VideoChunk<'_>> {
        match decode(body) {
            Ok(Incoming::Media(MediaBody::Video(chunk))) => Some(chunk),
            _ => None,
        }
    }

    fn encoded(chunk: &VideoChunk<'_>) -> Vec<u8> {
        let mut body = vec![0; chunk.encoded_len()];
        chunk.encode(&mut body).unwrap();
        body
    }

    prop_compose! {
        fn slice()(
            frame_id: u64, chunk_count in 1u32..400, timestamp_us: u64, keyframe: bool, capture_us: u32,
            encode_us: u32, slice_index in 0u32..300, last_slice: bool, reference_distance: u32,
        ) -> VideoChunk<'static> {
            VideoChunk {
                frame_id: FrameId(frame_id), chunk_count, timestamp_us, keyframe, capture_us, encode_us,
                slice_index, last_slice, reference_distance, ..Default::default()
            }
        }
    }

    proptest! {
        /// Bodies of a few slices in any order, some of them damaged anywhere.
        #[test]
        fn what_is_read_is_what_the_decoder_reads(
            slices in prop::collection::vec(slice(), 1..4),
            steps in prop::collection::vec(
                (any::<prop::sample::Index>(), any::<u32>(), 1usize..600,
                 prop::option::weighted(0.3, (any::<prop::sample::Index>(), 1u8..))),
                1..40
            ),
        ) {
            let mut reader = ChunkReader::new();
            for (which, index, len, damage) in steps {
                let slice = which.get(&slices);
                // Most chunks of a slice have one length.
                let payload = vec![index as u8; if len < 400 { 400 } else { len }];
                let chunk = VideoChunk { chunk_index: index % 500, payload: &payload, ..*slice };
                let mut body = encoded(&chunk);
                if let Some((at, bits)) = damage {
                    let at = at.index(body.len());
                    body[at] ^= bits;
                }
                let expected = decoded(&body);
                if let Some(read) = reader.read(&body) {
                    prop_assert_eq!(Some(read), expected);
                } else if damage.is_none() {
                    prop_assert_eq!(chunk.chunk_index, 0, "only an index of 0 is left out");
                }
            }
        }

        #[test]
        fn any_bytes_read_as_the_decoder_reads_them(body: Vec<u8>) {
            let mut reader = ChunkReader::new();
            for _ in 0..2 {
                if let Some(read) = reader.read(&body) {
                    prop_assert_eq!(Some(read), decoded(&body));
                }
            }
        }
    }

    #[test]
    fn every_byte_but_index_and_payload_counts() {
        let slice = VideoChunk {
            frame_id: FrameId(1 << 20),
            chunk_count: 300,
            timestamp_us: 1 << 40,
            keyframe: true,
            capture_us: 400,
            encode_us: 5000,
            slice_index: 3,
            last_slice: true,
            reference_distance: 200,
            payload: &[7; 500],
            chunk_index: 130,
        };
        let body = encoded(&slice);
        let mut reader = ChunkReader::new();
        assert_eq!(reader.read(&body), Some(slice));
        let look = reader.seen.as_ref().unwrap();
        let next = encoded(&VideoChunk { chunk_index: 131, ..slice });
        assert!(look.repeated(&next).is_some(), "the next chunk is like it");
        let (index, payload) = (look.index_at..look.index_at + 2, look.payload_at..look.payload_end);
        for at in 0..body.len() {
            for bit in 0..8 {
                let mut other = body.clone();
                other[at] ^= 1 << bit;
                let free = payload.contains(&at) || (index.contains(&at) && bit < 7);
                assert_eq!(look.repeated(&other).is_some(), free, "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn a_varint_of_known_length_reads_as_any() {
        for len in 1..=INDEX_LEN_MAX {
            let shape = IndexShape::of(len);
            for seed in 0..1000u64 {
                let word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let word = if seed % 2 == 0 { word } else { word & !shape.marks | shape.set };
                let bytes = word.to_le_bytes();
                let mut reader = Reader::new(&bytes);
                let expected = reader.varint().ok().filter(|_| 8 - reader.left() == len);
                assert_eq!(shape.read(bytes), expected.map(|v| v as u32), "{word:#x}");
            }
        }
    }
}

//! The fields around the payload of a media message, encoded once per batch.
//!
//! The packets of a batch must all have one length so that they can leave as one segmented send, and
//! the Protocol Buffers encoding of a counter gets longer as it grows and vanishes at 0. So the counter
//! is always written, in as many bytes as its largest value takes. Parsers take a varint with leading
//! zeros and a field that holds its default; everything else is as the generic encoder writes it. What
//! is left to do for a packet is three copies and the counter.

use crate::fec::Code;
use crate::message::field::{Writer, bytes_field_len, varint_field_len, varint_len};
use crate::message::{FecPacket, ShardLengths, VideoChunk};

/// `Message.media`.
const MESSAGE_MEDIA: u32 = 3;
/// `MediaMessage.video`.
const MEDIA_VIDEO: u32 = 1;
/// `MediaMessage.fec`.
const MEDIA_FEC: u32 = 2;
/// Fields 1 to 15 have a tag of one byte.
const SHORT_TAG_LEN: usize = 1;

/// Both envelopes, four numbers of up to ten bytes, a flag, the payload's prefix.
const HEAD_MAX: usize = 64;
/// Five numbers of up to five bytes with tags of up to two; of parity, those of runs.
const TAIL_MAX: usize = 64;

/// The bodies of packets that differ in one counter and the payload.
#[derive(Clone, Debug)]
pub(super) struct Template {
    head: [u8; HEAD_MAX],
    head_len: usize,
    counter_at: usize,
    counter_len: usize,
    payload_len: usize,
    /// At the end, not the start: see [`write`](Self::write).
    tail: [u8; TAIL_MAX],
    tail_len: usize,
}

impl Template {
    /// Fits no payload.
    pub(super) const EMPTY: Self = Self {
        head: [0; HEAD_MAX],
        head_len: 0,
        counter_at: 0,
        counter_len: 0,
        payload_len: 0,
        tail: [0; TAIL_MAX],
        tail_len: 0,
    };

    /// For the chunks of a slice with payloads of `payload_len` bytes. The index and payload of
    /// `fields` do not matter.
    pub(super) fn chunk(fields: &VideoChunk<'_>, payload_len: usize) -> Self {
        let counter_len = index_len(fields.chunk_count);
        let content = chunk_content_len(fields, payload_len, counter_len);
        let mut t = Self { counter_len, payload_len, ..Self::EMPTY };
        let mut w = Writer::new(&mut t.head);
        w.length_prefix(MESSAGE_MEDIA, bytes_field_len(MEDIA_VIDEO, content));
        w.length_prefix(MEDIA_VIDEO, content);
        w.varint_field(1, fields.frame_id.0);
        t.counter_at = write_counter_field(&mut w, 2, counter_len);
        w.varint_field(3, fields.chunk_count.into());
        w.varint_field(4, fields.timestamp_us);
        w.varint_field(5, fields.keyframe.into());
        w.length_prefix(6, payload_len);
        t.head_len = w.len();
        let mut w = Writer::new(&mut t.tail);
        w.varint_field(7, fields.capture_us.into());
        w.varint_field(8, fields.encode_us.into());
        w.varint_field(100, fields.slice_index.into());
        w.varint_field(101, fields.last_slice.into());
        w.varint_field(102, fields.reference_distance.into());
        t.tail_len = w.len();
        t.tail.rotate_right(TAIL_MAX - t.tail_len);
        t
    }

    /// For the parity packets of a group; `each` and `last` are the lengths of its shards by exclusive or. The index and payload of
    /// `fields` do not matter.
    pub(super) fn parity(fields: &FecPacket<'_>, each: u32, last: u32, payload_len: usize) -> Self {
        // Rows of the sliding code are one byte each.
        let counter_len =
            if fields.code == Code::Sliding.to_wire() { 1 } else { index_len(fields.parity_count) };
        // By Reed-Solomon, shards have their lengths in them.
        let is_xor = fields.code == Code::Xor.to_wire();
        let lengths = varint_len(each.into()) + varint_len(last.into());
        let runs: usize = fields.runs.clone().map(varint_len).sum();
        let content = varint_field_len(1, fields.group_id.0)
            + varint_field_len(2, fields.first_packet_id.0)
            + varint_field_len(3, fields.shard_count.into())
            + SHORT_TAG_LEN
            + counter_len
            + bytes_field_len(5, payload_len)
            + if is_xor { bytes_field_len(6, lengths) } else { 0 }
            + varint_field_len(100, fields.parity_count.into())
            + varint_field_len(101, fields.frame_id.0)
            + varint_field_len(102, fields.code.into())
            + if runs == 0 { 0 } else { bytes_field_len(103, runs) };
        let mut t = Self { counter_len, payload_len, ..Self::EMPTY };
        let mut w = Writer::new(&mut t.head);
        w.length_prefix(MESSAGE_MEDIA, bytes_field_len(MEDIA_FEC, content));
        w.length_prefix(MEDIA_FEC, content);
        w.varint_field(1, fields.group_id.0);
        w.varint_field(2, fields.first_packet_id.0);
        w.varint_field(3, fields.shard_count.into());
        t.counter_at = write_counter_field(&mut w, 4, counter_len);
        w.length_prefix(5, payload_len);
        t.head_len = w.len();
        let mut w = Writer::new(&mut t.tail);
        if is_xor {
            w.length_prefix(6, lengths);
            w.varint(each.into());
            w.varint(last.into());
        }
        w.varint_field(100, fields.parity_count.into());
        w.varint_field(101, fields.frame_id.0);
        w.varint_field(102, fields.code.into());
        if runs > 0 {
            w.length_prefix(103, runs);
            fields.runs.clone().for_each(|n| w.varint(n));
        }
        t.tail_len = w.len();
        t.tail.rotate_right(TAIL_MAX - t.tail_len);
        t
    }

    /// Length of the body, in bytes.
    pub(super) const fn body_len(&self) -> usize {
        self.head_len + self.payload_len + self.tail_len
    }

    /// Writes the body with `counter` and `payload` to the start of `out` and returns its length, or
    /// `None` if `out` is too short or the payload has another length.
    #[inline]
    pub(super) fn write(&self, counter: u32, payload: &[u8], out: &mut [u8]) -> Option<usize> {
        let len = self.body_len();
        let out = out.get_mut(..len)?;
        if payload.len() != self.payload_len {
            return None;
        }
        let payload_end = len - self.tail_len;
        if let Some((head, rest)) = out.split_first_chunk_mut::<HEAD_MAX>()
            && let Some((_, tail)) = rest.split_last_chunk_mut::<TAIL_MAX>()
        {
            // Copies of constant length are a few instructions, others a call. What they write too much
            // lies where the payload comes.
            *head = self.head;
            *tail = self.tail;
        } else {
            out[..self.head_len].copy_from_slice(&self.head[..self.head_len]);
            out[payload_end..].copy_from_slice(&self.tail[TAIL_MAX - self.tail_len..]);
        }
        write_counter(&mut out[self.counter_at..self.counter_at + self.counter_len], counter);
        out[self.head_len..payload_end].copy_from_slice(payload);
        Some(len)
    }
}

/// Length of the body of a chunk with a payload of `payload_len` bytes, as [`Template::chunk`] makes
/// it.
pub(super) fn chunk_body_len(fields: &VideoChunk<'_>, payload_len: usize) -> usize {
    let content = chunk_content_len(fields, payload_len, index_len(fields.chunk_count));
    bytes_field_len(MESSAGE_MEDIA, bytes_field_len(MEDIA_VIDEO, content))
}

/// Fields of parity packets whose lengths are written by [`Template::parity`].
pub(super) const NO_LENGTHS: ShardLengths<'static> = ShardLengths::Regular { each: 0, last: 0 };

fn chunk_content_len(fields: &VideoChunk<'_>, payload_len: usize, counter_len: usize) -> usize {
    varint_field_len(1, fields.frame_id.0)
        + SHORT_TAG_LEN
        + counter_len
        + varint_field_len(3, fields.chunk_count.into())
        + varint_field_len(4, fields.timestamp_us)
        + varint_field_len(5, fields.keyframe.into())
        + bytes_field_len(6, payload_len)
        + varint_field_len(7, fields.capture_us.into())
        + varint_field_len(8, fields.encode_us.into())
        + varint_field_len(100, fields.slice_index.into())
        + varint_field_len(101, fields.last_slice.into())
        + varint_field_len(102, fields.reference_distance.into())
}

/// Bytes that hold any index below `count`.
const fn index_len(count: u32) -> usize {
    varint_len(count.saturating_sub(1) as u64)
}

/// Writes a number field with room for `len` bytes and returns where they are.
fn write_counter_field(w: &mut Writer<'_>, number: u32, len: usize) -> usize {
    w.varint(u64::from(number << 3));
    let at = w.len();
    for _ in 0..len {
        w.varint(0);
    }
    at
}

/// Writes a varint that fills `out`.
#[inline]
fn write_counter(out: &mut [u8], mut value: u32) {
    let last = out.len() - 1;
    for byte in &mut out[..last] {
        *byte = value as u8 | 0x80;
        value >>= 7;
    }
    out[last] = value as u8 & 0x7f;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fec::LENGTH_LEN;
    use crate::message::field::PackedVarints;
    use crate::message::{Incoming, MediaBody, decode, proto};
    use crate::{FrameId, GroupId, PacketId};
    use proptest::prelude::*;
    use prost::Message as _;

    proptest! {
        #[test]
        fn every_chunk_has_one_length_and_reads_back(
            frame_id: u64, chunk_count in 1u32..70_000, index_seed: u32, timestamp_us: u64, keyframe: bool,
            payload in prop::collection::vec(any::<u8>(), 1..1200), capture_us: u32, encode_us: u32,
            slice_index: u32, last_slice: bool, reference_distance: u32,
        ) {
            let index = index_seed % chunk_count;
            let expected = VideoChunk {
                frame_id: FrameId(frame_id), chunk_index: index, chunk_count, timestamp_us, keyframe,
                payload: &payload, capture_us, encode_us, slice_index, last_slice, reference_distance,
            };
            let template = Template::chunk(&expected, payload.len());
            let mut out = vec![0xaa; template.body_len() + 3];
            prop_assert_eq!(template.body_len(), chunk_body_len(&expected, payload.len()));
            prop_assert_eq!(template.write(index, &payload, &mut out), Some(template.body_len()));
            let body = &out[..template.body_len()];
            let Ok(Incoming::Media(MediaBody::Video(chunk))) = decode(body) else {
                return Err(TestCaseError::fail("not a chunk"));
            };
            prop_assert_eq!(chunk, expected);
            // A generic parser reads the same.
            let generic = proto::Message::decode(body).unwrap();
            let Some(proto::message::Body::Media(media)) = generic.body else {
                return Err(TestCaseError::fail("not media"));
            };
            let Some(proto::media_message::Media::Video(chunk)) = media.media else {
                return Err(TestCaseError::fail("not video"));
            };
            prop_assert_eq!(chunk.chunk_index, index);
            prop_assert_eq!(chunk.reference_distance, reference_distance);
            prop_assert_eq!(&chunk.payload, &payload);
            prop_assert_eq!(template.write(index, &payload, &mut out[..template.body_len() - 1]), None);
            prop_assert_eq!(template.write(index, &payload[1..], &mut out), None);
        }

        #[test]
        fn every_parity_has_one_length_and_reads_back(
            group_id: u64, first_packet_id: u64, shard_count in 2u32..=64, parity_seed: u32, index_seed: u32,
            each in 1u32..1400, frame_id: u64, payload in prop::collection::vec(any::<u8>(), 1..1200),
        ) {
            let parity_count = 1 + parity_seed % shard_count;
            let parity_index = index_seed % parity_count;
            let last = 1 + index_seed % each;
            let fields = FecPacket {
                group_id: GroupId(group_id), first_packet_id: PacketId(first_packet_id), shard_count,
                parity_index: 0, payload: &[], shard_lengths: NO_LENGTHS, parity_count, frame_id: FrameId(frame_id),
                code: 0, runs: PackedVarints::empty(),
            };
            let template = Template::parity(&fields, each, last, payload.len());
            let mut out = vec![0; template.body_len()];
            prop_assert!(template.body_len() <= payload.len() + FecPacket::OVERHEAD_MAX);
            prop_assert_eq!(template.write(parity_index, &payload, &mut out), Some(out.len()));
            let Ok(Incoming::Media(MediaBody::Fec(fec))) = decode(&out) else {
                return Err(TestCaseError::fail("not parity"));
            };
            prop_assert_eq!(fec.group_id, GroupId(group_id));
            prop_assert_eq!(fec.first_packet_id, PacketId(first_packet_id));
            prop_assert_eq!(fec.shard_count, shard_count);
            prop_assert_eq!(fec.parity_index, parity_index);
            prop_assert_eq!(fec.parity_count, parity_count);
            prop_assert_eq!(fec.frame_id, FrameId(frame_id));
            prop_assert_eq!(fec.payload, &payload[..]);
            prop_assert_eq!(fec.shard_len(0), Some(each));
            prop_assert_eq!(fec.shard_len(shard_count - 1), Some(last));
            let numbers = [1, 127, 2, 3, 1, 1];
            let fields = FecPacket { code: 1, runs: PackedVarints::checked(&numbers).unwrap(), ..fields };
            let template = Template::parity(&fields, each, last, payload.len());
            let mut out = vec![0; template.body_len()];
            prop_assert!(group_id >= 1 << 56 || first_packet_id >= 1 << 56 || frame_id >= 1 << 56
                || template.body_len() + LENGTH_LEN <= payload.len() + FecPacket::OVERHEAD_MAX);
            prop_assert_eq!(template.write(parity_index, &payload, &mut out), Some(out.len()));
            let Ok(Incoming::Media(MediaBody::Fec(fec))) = decode(&out) else {
                return Err(TestCaseError::fail("not parity"));
            };
            prop_assert_eq!((fec.code, fec.parity_index, fec.payload), (1, parity_index, &payload[..]));
            prop_assert_eq!(fec.runs.map(|n| n as u8).collect::<Vec<_>>(), numbers);
        }
    }
}

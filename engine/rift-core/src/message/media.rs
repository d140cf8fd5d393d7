//! The media messages, written straight into and read straight out of a packet.
//!
//! The bytes are those of the generic Protocol Buffers encoder (proved by property test against
//! [`proto`](super::proto)); the payload is borrowed, never owned. Where a peer sends a field twice,
//! the last one counts.

use super::field::{Malformed, PackedVarints, Reader, Writer, bytes_field_len, varint_field_len, varint_len};
use super::{MESSAGE_MEDIA, MediaBody};
use crate::fec::LENGTH_LEN;
use crate::{FrameId, GroupId, PacketId};

/// `MediaMessage.video`.
pub(super) const MEDIA_VIDEO: u32 = 1;
const MEDIA_FEC: u32 = 2;
const MEDIA_AUDIO: u32 = 3;
const MEDIA_FILE: u32 = 4;
/// `VideoChunk.chunk_index`.
pub(super) const CHUNK_INDEX: u32 = 2;

/// A part of a slice of an encoded frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VideoChunk<'a> {
    /// The frame.
    pub frame_id: FrameId,
    /// Position in the slice, from 0.
    pub chunk_index: u32,
    /// Chunks in the slice.
    pub chunk_count: u32,
    /// Capture time in microseconds of the host's clock.
    pub timestamp_us: u64,
    /// Decodable without any other frame.
    pub keyframe: bool,
    /// The encoded bytes.
    pub payload: &'a [u8],
    /// How long capture took, in microseconds.
    pub capture_us: u32,
    /// From the end of capture to the moment the encoder handed out this slice, in microseconds.
    pub encode_us: u32,
    /// Position of the slice in the frame, from 0.
    pub slice_index: u32,
    /// No slice follows in this frame.
    pub last_slice: bool,
    /// `frame_id` less the newest frame that this one predicts from; 0 where not told.
    pub reference_distance: u32,
}

impl VideoChunk<'_> {
    /// Upper bound of [`encoded_len`](Self::encoded_len) less the payload, for ids and times below
    /// 2^56 and at most 2^16 chunks and slices.
    pub const OVERHEAD_MAX: usize = 64;

    fn content_len(&self) -> usize {
        varint_field_len(1, self.frame_id.0)
            + varint_field_len(2, self.chunk_index.into())
            + varint_field_len(3, self.chunk_count.into())
            + varint_field_len(4, self.timestamp_us)
            + varint_field_len(5, self.keyframe.into())
            + if self.payload.is_empty() { 0 } else { bytes_field_len(6, self.payload.len()) }
            + varint_field_len(7, self.capture_us.into())
            + varint_field_len(8, self.encode_us.into())
            + varint_field_len(100, self.slice_index.into())
            + varint_field_len(101, self.last_slice.into())
            + varint_field_len(102, self.reference_distance.into())
    }

    /// Bytes of the whole `Message` around this chunk.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        media_len(MEDIA_VIDEO, self.content_len())
    }

    /// Writes the whole `Message` to the start of `out` and returns its length, or `None` if `out` is
    /// too short.
    #[must_use]
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let content = self.content_len();
        let mut w = media_writer(out, MEDIA_VIDEO, content)?;
        w.varint_field(1, self.frame_id.0);
        w.varint_field(2, self.chunk_index.into());
        w.varint_field(3, self.chunk_count.into());
        w.varint_field(4, self.timestamp_us);
        w.varint_field(5, self.keyframe.into());
        w.bytes_field(6, self.payload);
        w.varint_field(7, self.capture_us.into());
        w.varint_field(8, self.encode_us.into());
        w.varint_field(100, self.slice_index.into());
        w.varint_field(101, self.last_slice.into());
        w.varint_field(102, self.reference_distance.into());
        Some(w.len())
    }
}

impl<'a> VideoChunk<'a> {
    fn decode(content: &'a [u8]) -> Result<Self, Malformed> {
        let mut chunk = Self::default();
        let mut fields = Reader::new(content);
        // Encoders write fields in the order of their numbers. Straight-line code for that order is predicted
        // well; whatever does not follow it is left to the loop.
        chunk.frame_id = FrameId(fields.varint_if::<1>()?);
        chunk.chunk_index = fields.varint_if::<2>()? as u32;
        chunk.chunk_count = fields.varint_if::<3>()? as u32;
        chunk.timestamp_us = fields.varint_if::<4>()?;
        chunk.keyframe = fields.varint_if::<5>()? != 0;
        chunk.payload = fields.bytes_if::<6>()?;
        chunk.capture_us = fields.varint_if::<7>()? as u32;
        chunk.encode_us = fields.varint_if::<8>()? as u32;
        chunk.slice_index = fields.varint_if::<100>()? as u32;
        chunk.last_slice = fields.varint_if::<101>()? != 0;
        chunk.reference_distance = fields.varint_if::<102>()? as u32;
        while let Some((number, value)) = fields.field()? {
            match number {
                1 => chunk.frame_id = FrameId(value.number()?),
                2 => chunk.chunk_index = value.number32()?,
                3 => chunk.chunk_count = value.number32()?,
                4 => chunk.timestamp_us = value.number()?,
                5 => chunk.keyframe = value.number()? != 0,
                6 => chunk.payload = value.bytes()?,
                7 => chunk.capture_us = value.number32()?,
                8 => chunk.encode_us = value.number32()?,
                100 => chunk.slice_index = value.number32()?,
                101 => chunk.last_slice = value.number()? != 0,
                102 => chunk.reference_distance = value.number32()?,
                _ => {}
            }
        }
        Ok(chunk)
    }
}

/// Parity over the plaintext bodies of a group of data packets.
#[derive(Clone, Debug)]
pub struct FecPacket<'a> {
    /// The group.
    pub group_id: GroupId,
    /// The group's data packets have consecutive ids from this one on.
    pub first_packet_id: PacketId,
    /// Data packets in the group.
    pub shard_count: u32,
    /// Position among the group's parity packets, from 0.
    pub parity_index: u32,
    /// The parity bytes: as long as the longest shard.
    pub payload: &'a [u8],
    /// Lengths of the data bodies; see [`shard_len`](Self::shard_len).
    pub shard_lengths: ShardLengths<'a>,
    /// Parity packets in the group. By exclusive or, parity p covers the shards whose index is p modulo
    /// this.
    pub parity_count: u32,
    /// The frame that the group belongs to.
    pub frame_id: FrameId,
    /// How the parity was computed: 0 exclusive or, 1 Reed-Solomon.
    pub code: u32,
    /// Which ids the group has, where they are not consecutive: see [`Runs`](crate::fec::Runs).
    pub runs: PackedVarints<'a>,
}

/// Lengths of the shards of a group.
#[derive(Clone, Debug)]
pub enum ShardLengths<'a> {
    /// All but the last shard have the first length.
    Regular {
        /// Of every shard but the last.
        each: u32,
        /// Of the last shard.
        last: u32,
    },
    /// One length for each shard, as published.
    Listed(PackedVarints<'a>),
}

impl FecPacket<'_> {
    /// Upper bound of [`encoded_len`](Self::encoded_len) less the longest body of the group, with regular
    /// lengths or by Reed-Solomon, for ids below 2^56 and groups of at most 64 packets in at most 4 runs.
    pub const OVERHEAD_MAX: usize = 58;

    /// Upper bound of what a parity of the sliding code has besides its payload and the numbers of its runs, where
    /// the newest packet and the frame are these; with the length before the longest body.
    #[must_use]
    pub(crate) fn sliding_overhead(newest: PacketId, frame: FrameId) -> usize {
        // Both envelopes with lengths of two bytes; count, row, prefix of the payload, parity count, code, prefix of
        // the runs.
        let fixed = 2 * 3 + 3 + 2 + 3 + 3 + 3 + 3 + LENGTH_LEN;
        fixed + varint_field_len(2, newest.0) + varint_field_len(101, frame.0)
    }

    /// The length of shard `index`, or `None` if the packet does not say.
    #[must_use]
    pub fn shard_len(&self, index: u32) -> Option<u32> {
        match &self.shard_lengths {
            _ if index >= self.shard_count => None,
            ShardLengths::Regular { each, last } => {
                Some(if index + 1 == self.shard_count { *last } else { *each })
            }
            ShardLengths::Listed(lengths) => {
                lengths.clone().nth(index as usize).and_then(|l| u32::try_from(l).ok())
            }
        }
    }

    fn runs_len(&self) -> usize {
        self.runs.clone().map(varint_len).sum()
    }

    fn lengths_len(&self) -> usize {
        match &self.shard_lengths {
            ShardLengths::Regular { each, last } => varint_len((*each).into()) + varint_len((*last).into()),
            ShardLengths::Listed(lengths) => lengths.clone().map(varint_len).sum(),
        }
    }

    fn content_len(&self) -> usize {
        let lengths = self.lengths_len();
        let runs = self.runs_len();
        varint_field_len(1, self.group_id.0)
            + varint_field_len(2, self.first_packet_id.0)
            + varint_field_len(3, self.shard_count.into())
            + varint_field_len(4, self.parity_index.into())
            + if self.payload.is_empty() { 0 } else { bytes_field_len(5, self.payload.len()) }
            + if lengths == 0 { 0 } else { bytes_field_len(6, lengths) }
            + varint_field_len(100, self.parity_count.into())
            + varint_field_len(101, self.frame_id.0)
            + varint_field_len(102, self.code.into())
            + if runs == 0 { 0 } else { bytes_field_len(103, runs) }
    }

    /// Bytes of the whole `Message` around this packet.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        media_len(MEDIA_FEC, self.content_len())
    }

    /// Writes the whole `Message` to the start of `out` and returns its length, or `None` if `out` is
    /// too short.
    #[must_use]
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let content = self.content_len();
        let lengths = self.lengths_len();
        let mut w = media_writer(out, MEDIA_FEC, content)?;
        w.varint_field(1, self.group_id.0);
        w.varint_field(2, self.first_packet_id.0);
        w.varint_field(3, self.shard_count.into());
        w.varint_field(4, self.parity_index.into());
        w.bytes_field(5, self.payload);
        if lengths > 0 {
            w.length_prefix(6, lengths);
            match &self.shard_lengths {
                ShardLengths::Regular { each, last } => {
                    w.varint((*each).into());
                    w.varint((*last).into());
                }
                ShardLengths::Listed(list) => list.clone().for_each(|l| w.varint(l)),
            }
        }
        w.varint_field(100, self.parity_count.into());
        w.varint_field(101, self.frame_id.0);
        w.varint_field(102, self.code.into());
        let runs = self.runs_len();
        if runs > 0 {
            w.length_prefix(103, runs);
            self.runs.clone().for_each(|n| w.varint(n));
        }
        Some(w.len())
    }
}

impl<'a> FecPacket<'a> {
    fn decode(content: &'a [u8]) -> Result<Self, Malformed> {
        let mut packet = Self {
            group_id: GroupId(0),
            first_packet_id: PacketId(0),
            shard_count: 0,
            parity_index: 0,
            payload: &[],
            shard_lengths: ShardLengths::Listed(PackedVarints::empty()),
            parity_count: 0,
            frame_id: FrameId(0),
            code: 0,
            runs: PackedVarints::empty(),
        };
        let mut lengths = PackedVarints::empty();
        let mut fields = Reader::new(content);
        while let Some((number, value)) = fields.field()? {
            match number {
                1 => packet.group_id = GroupId(value.number()?),
                2 => packet.first_packet_id = PacketId(value.number()?),
                3 => packet.shard_count = value.number32()?,
                4 => packet.parity_index = value.number32()?,
                5 => packet.payload = value.bytes()?,
                6 => lengths = PackedVarints::checked(value.bytes()?)?,
                100 => packet.parity_count = value.number32()?,
                101 => packet.frame_id = FrameId(value.number()?),
                102 => packet.code = value.number32()?,
                103 => packet.runs = PackedVarints::checked(value.bytes()?)?,
                _ => {}
            }
        }
        packet.shard_lengths = regular_or_listed(lengths, packet.shard_count);
        Ok(packet)
    }
}

/// Fewer lengths than shards mean that the first stands for all but the last.
fn regular_or_listed(lengths: PackedVarints<'_>, shard_count: u32) -> ShardLengths<'_> {
    let count = lengths.clone().take(shard_count as usize).count();
    if count == shard_count as usize || count == 0 {
        return ShardLengths::Listed(lengths);
    }
    let as_u32 = |l: Option<u64>| u32::try_from(l.unwrap_or(0)).unwrap_or(u32::MAX);
    ShardLengths::Regular {
        each: as_u32(lengths.clone().next()),
        last: as_u32(lengths.clone().take(count).last()),
    }
}

/// One frame of encoded sound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AudioPacket<'a> {
    /// Of the first sample, in microseconds of the host's clock.
    pub timestamp_us: u64,
    /// Raw Opus.
    pub payload: &'a [u8],
}

impl AudioPacket<'_> {
    fn content_len(&self) -> usize {
        varint_field_len(1, self.timestamp_us)
            + if self.payload.is_empty() { 0 } else { bytes_field_len(2, self.payload.len()) }
    }

    /// Bytes of the whole `Message` around this packet.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        media_len(MEDIA_AUDIO, self.content_len())
    }

    /// Writes the whole `Message` to the start of `out` and returns its length, or `None` if `out` is
    /// too short.
    #[must_use]
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let mut w = media_writer(out, MEDIA_AUDIO, self.content_len())?;
        w.varint_field(1, self.timestamp_us);
        w.bytes_field(2, self.payload);
        Some(w.len())
    }
}

impl<'a> AudioPacket<'a> {
    fn decode(content: &'a [u8]) -> Result<Self, Malformed> {
        let mut packet = Self::default();
        let mut fields = Reader::new(content);
        while let Some((number, value)) = fields.field()? {
            match number {
                1 => packet.timestamp_us = value.number()?,
                2 => packet.payload = value.bytes()?,
                _ => {}
            }
        }
        Ok(packet)
    }
}

fn media_len(number: u32, content: usize) -> usize {
    bytes_field_len(MESSAGE_MEDIA, bytes_field_len(number, content))
}

/// A writer behind both envelopes of a media message with `content` bytes.
fn media_writer(out: &mut [u8], number: u32, content: usize) -> Option<Writer<'_>> {
    let out = out.get_mut(..media_len(number, content))?;
    let mut w = Writer::new(out);
    w.length_prefix(MESSAGE_MEDIA, bytes_field_len(number, content));
    w.length_prefix(number, content);
    Some(w)
}

/// Reads the content of a `MediaMessage`.
pub(super) fn decode_media(content: &[u8]) -> Result<MediaBody<'_>, Malformed> {
    let mut body = MediaBody::Other;
    let mut fields = Reader::new(content);
    while let Some((number, value)) = fields.field()? {
        match number {
            MEDIA_VIDEO => body = MediaBody::Video(VideoChunk::decode(value.bytes()?)?),
            MEDIA_FEC => body = MediaBody::Fec(FecPacket::decode(value.bytes()?)?),
            MEDIA_AUDIO => body = MediaBody::Audio(AudioPacket::decode(value.bytes()?)?),
            MEDIA_FILE => body = MediaBody::Other,
            _ => {}
        }
    }
    Ok(body)
}

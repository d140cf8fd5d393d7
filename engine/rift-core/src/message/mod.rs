//! Messages: the plaintext bodies of transport datagrams (RIFT section 4).
//!
//! Owns their encoding. Two ways in and out: the media path and what is sent per frame is written and
//! read without allocation ([`VideoChunk`], [`FecPacket`], ...); everything rare goes through the types
//! that are generated from `spec/rift.proto` ([`proto`]). Both give the same bytes. Invariant: no
//! input panics, and nothing is believed about lengths that was not checked.

mod chunk_reader;
pub(crate) mod field;
mod media;

/// The types generated from `spec/rift.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/rift.rs"));
}

pub use chunk_reader::ChunkReader;
pub(crate) use chunk_reader::{EDGE, Look};
pub use field::{Malformed, PackedVarints};
pub use media::{AudioPacket, FecPacket, ShardLengths, VideoChunk};

use field::Reader;
use prost::Message as _;

const MESSAGE_CONTROL: u32 = 1;
const MESSAGE_INPUT: u32 = 2;
const MESSAGE_MEDIA: u32 = 3;
const MESSAGE_INPUT_BATCH: u32 = 100;
const MESSAGE_RELIABLE: u32 = 101;
const MESSAGE_RELIABLE_ACK: u32 = 102;
const CONTROL_NACK: u32 = 10;
const CONTROL_ARRIVAL_FEEDBACK: u32 = 105;

/// A received message. Borrows from the packet where that saves an allocation.
#[derive(Clone, Debug)]
pub enum Incoming<'a> {
    /// Media.
    Media(MediaBody<'a>),
    /// A single input event, as published.
    Input(proto::InputMessage),
    /// The content of an `InputBatch`, not yet decoded.
    InputBatch(&'a [u8]),
    /// Packets that the peer misses.
    Nack(PackedVarints<'a>),
    /// When the peer's packets arrived.
    ArrivalFeedback(ArrivalFeedback<'a>),
    /// A piece of a reliable control message.
    Reliable(ReliableSegment<'a>),
    /// All reliable segments below this sequence number have arrived.
    ReliableAck(u64),
    /// Any other control message.
    Control(proto::control_message::Control),
    /// Nothing that this version knows.
    Unknown,
}

/// What a `MediaMessage` holds.
#[derive(Clone, Debug)]
pub enum MediaBody<'a> {
    /// A part of a video slice.
    Video(VideoChunk<'a>),
    /// Parity.
    Fec(FecPacket<'a>),
    /// Sound.
    Audio(AudioPacket<'a>),
    /// A file chunk or something newer.
    Other,
}

/// When packets arrived; see `ArrivalFeedback` in `spec/rift.proto`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArrivalFeedback<'a> {
    /// What the first entry is about.
    pub first_packet_id: u64,
    /// When the report was made, in microseconds of the sender's clock.
    pub report_us: u64,
    /// One big-endian u16 per packet.
    pub arrivals: &'a [u8],
    /// Packets that have arrived marked "congestion experienced" in this session, modulo 2^32.
    pub marked_packets: u32,
}

/// A piece of an encoded `ControlMessage` that must arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReliableSegment<'a> {
    /// Position in the stream of segments, from 0.
    pub sequence: u64,
    /// The message goes on in the next segment.
    pub more: bool,
    /// The piece.
    pub data: &'a [u8],
}

/// Reads a message.
///
/// # Errors
/// [`Malformed`] if `body` is not a well-formed message.
#[inline]
pub fn decode(body: &[u8]) -> Result<Incoming<'_>, Malformed> {
    let mut incoming = Incoming::Unknown;
    let mut fields = Reader::new(body);
    while let Some((number, value)) = fields.field()? {
        match number {
            MESSAGE_MEDIA => incoming = Incoming::Media(media::decode_media(value.bytes()?)?),
            MESSAGE_CONTROL => incoming = decode_control(value.bytes()?)?,
            MESSAGE_INPUT => {
                let event = proto::InputMessage::decode(value.bytes()?).map_err(|_| Malformed)?;
                incoming = Incoming::Input(event);
            }
            MESSAGE_INPUT_BATCH => incoming = Incoming::InputBatch(value.bytes()?),
            MESSAGE_RELIABLE => incoming = Incoming::Reliable(decode_segment(value.bytes()?)?),
            MESSAGE_RELIABLE_ACK => incoming = Incoming::ReliableAck(decode_ack(value.bytes()?)?),
            _ => {}
        }
    }
    Ok(incoming)
}

/// Bytes of `Message { control }`.
#[must_use]
pub fn control_len(control: &proto::control_message::Control) -> usize {
    let content = control.encoded_len();
    field::bytes_field_len(MESSAGE_CONTROL, content)
}

/// Writes `Message { control }` to the start of `out` and returns its length, or `None` if `out` is too
/// short. Allocates nothing.
#[must_use]
pub fn encode_control(control: &proto::control_message::Control, out: &mut [u8]) -> Option<usize> {
    let content = control.encoded_len();
    let total = field::bytes_field_len(MESSAGE_CONTROL, content);
    let out = out.get_mut(..total)?;
    let mut w = field::Writer::new(out);
    w.length_prefix(MESSAGE_CONTROL, content);
    let mut rest = &mut out[total - content..];
    control.encode(&mut rest);
    Some(total)
}

/// Writes a `Nack` for `ids` to the start of `out` and returns its length, or `None` if `out` is too short.
#[must_use]
pub fn encode_nack(ids: &[crate::PacketId], out: &mut [u8]) -> Option<usize> {
    let packed: usize = ids.iter().map(|id| field::varint_len(id.0)).sum();
    let nack = if packed == 0 { 0 } else { field::bytes_field_len(1, packed) };
    let control = field::bytes_field_len(CONTROL_NACK, nack);
    let total = field::bytes_field_len(MESSAGE_CONTROL, control);
    let mut w = field::Writer::new(out.get_mut(..total)?);
    w.length_prefix(MESSAGE_CONTROL, control);
    w.length_prefix(CONTROL_NACK, nack);
    if packed > 0 {
        w.length_prefix(1, packed);
        ids.iter().for_each(|id| w.varint(id.0));
    }
    Some(w.len())
}

impl ArrivalFeedback<'_> {
    /// Writes the whole `Message` to the start of `out` and returns its length, or `None` if `out` is
    /// too short.
    #[must_use]
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let content = field::varint_field_len(1, self.first_packet_id)
            + field::varint_field_len(2, self.report_us)
            + if self.arrivals.is_empty() { 0 } else { field::bytes_field_len(3, self.arrivals.len()) }
            + field::varint_field_len(4, self.marked_packets.into());
        let control = field::bytes_field_len(CONTROL_ARRIVAL_FEEDBACK, content);
        let total = field::bytes_field_len(MESSAGE_CONTROL, control);
        let mut w = field::Writer::new(out.get_mut(..total)?);
        w.length_prefix(MESSAGE_CONTROL, control);
        w.length_prefix(CONTROL_ARRIVAL_FEEDBACK, content);
        w.varint_field(1, self.first_packet_id);
        w.varint_field(2, self.report_us);
        w.bytes_field(3, self.arrivals);
        w.varint_field(4, self.marked_packets.into());
        Some(w.len())
    }
}

impl ReliableSegment<'_> {
    /// Upper bound of the encoded length less the data.
    pub const OVERHEAD_MAX: usize = 24;

    /// Writes the whole `Message` to the start of `out` and returns its length, or `None` if `out` is
    /// too short.
    #[must_use]
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let content = field::varint_field_len(1, self.sequence)
            + field::varint_field_len(2, self.more.into())
            + if self.data.is_empty() { 0 } else { field::bytes_field_len(3, self.data.len()) };
        let total = field::bytes_field_len(MESSAGE_RELIABLE, content);
        let mut w = field::Writer::new(out.get_mut(..total)?);
        w.length_prefix(MESSAGE_RELIABLE, content);
        w.varint_field(1, self.sequence);
        w.varint_field(2, self.more.into());
        w.bytes_field(3, self.data);
        Some(w.len())
    }
}

/// Writes a `ReliableAck` to the start of `out` and returns its length, or `None` if `out` is too short.
#[must_use]
pub fn encode_reliable_ack(next_sequence: u64, out: &mut [u8]) -> Option<usize> {
    let content = field::varint_field_len(1, next_sequence);
    let total = field::bytes_field_len(MESSAGE_RELIABLE_ACK, content);
    let mut w = field::Writer::new(out.get_mut(..total)?);
    w.length_prefix(MESSAGE_RELIABLE_ACK, content);
    w.varint_field(1, next_sequence);
    Some(w.len())
}

fn decode_control(content: &[u8]) -> Result<Incoming<'_>, Malformed> {
    // A look at the first field keeps what is sent per frame off the generic decoder and its vectors.
    if let Some((number, value)) = Reader::new(content).field()? {
        match number {
            CONTROL_NACK => return decode_nack(value.bytes()?),
            CONTROL_ARRIVAL_FEEDBACK => return decode_feedback(value.bytes()?),
            _ => {}
        }
    }
    let message = proto::ControlMessage::decode(content).map_err(|_| Malformed)?;
    Ok(message.control.map_or(Incoming::Unknown, Incoming::Control))
}

fn decode_nack(content: &[u8]) -> Result<Incoming<'_>, Malformed> {
    let mut ids = PackedVarints::empty();
    let mut fields = Reader::new(content);
    while let Some((number, value)) = fields.field()? {
        if number == 1 {
            ids = PackedVarints::checked(value.bytes()?)?;
        }
    }
    Ok(Incoming::Nack(ids))
}

fn decode_feedback(content: &[u8]) -> Result<Incoming<'_>, Malformed> {
    let mut feedback = ArrivalFeedback::default();
    let mut fields = Reader::new(content);
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => feedback.first_packet_id = value.number()?,
            2 => feedback.report_us = value.number()?,
            3 => feedback.arrivals = value.bytes()?,
            4 => feedback.marked_packets = value.number32()?,
            _ => {}
        }
    }
    Ok(Incoming::ArrivalFeedback(feedback))
}

fn decode_segment(content: &[u8]) -> Result<ReliableSegment<'_>, Malformed> {
    let mut segment = ReliableSegment::default();
    let mut fields = Reader::new(content);
    while let Some((number, value)) = fields.field()? {
        match number {
            1 => segment.sequence = value.number()?,
            2 => segment.more = value.number()? != 0,
            3 => segment.data = value.bytes()?,
            _ => {}
        }
    }
    Ok(segment)
}

fn decode_ack(content: &[u8]) -> Result<u64, Malformed> {
    let mut next_sequence = 0;
    let mut fields = Reader::new(content);
    while let Some((number, value)) = fields.field()? {
        if number == 1 {
            next_sequence = value.number()?;
        }
    }
    Ok(next_sequence)
}

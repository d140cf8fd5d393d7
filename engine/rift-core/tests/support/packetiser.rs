//! The media rules of the protocol from the sending side, as plainly as possible: an independent check of
//! the receiver, not the sender that ships.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "code of tests")]

use std::collections::BTreeMap;

use rift_core::message::{self, FecPacket, Incoming, MediaBody, PackedVarints, ShardLengths, VideoChunk};
use rift_core::receive::VideoReceiver;
use rift_core::{DropReason, FrameId, GroupId, PacketId, Timestamp};

/// A message and the id it is sealed with.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) id: PacketId,
    pub(crate) body: Vec<u8>,
    pub(crate) is_parity: bool,
}

/// What a frame is besides its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameSpec {
    pub(crate) id: u64,
    /// 0 for a keyframe.
    pub(crate) reference_distance: u32,
    pub(crate) timestamp_us: u64,
}

impl FrameSpec {
    pub(crate) fn keyframe(id: u64) -> Self {
        Self { id, reference_distance: 0, timestamp_us: id * 16_667 }
    }

    pub(crate) fn after(id: u64, distance: u32) -> Self {
        Self { id, reference_distance: distance, timestamp_us: id * 16_667 }
    }
}

/// Cuts slices into packets.
#[derive(Clone, Debug)]
pub(crate) struct Packetiser {
    pub(crate) next_id: u64,
    pub(crate) next_group: u64,
    pub(crate) chunk_len: usize,
    pub(crate) group_max: usize,
    /// Parity packets in percent of data packets, rounded up.
    pub(crate) parity_percent: usize,
    /// What each packet id held, for resends.
    pub(crate) history: BTreeMap<u64, Vec<u8>>,
}

impl Packetiser {
    pub(crate) fn new(chunk_len: usize, group_max: usize, parity_percent: usize) -> Self {
        Self { next_id: 0, next_group: 0, chunk_len, group_max, parity_percent, history: BTreeMap::new() }
    }

    /// All packets of a frame, in order.
    pub(crate) fn frame(&mut self, spec: FrameSpec, slices: &[Vec<u8>]) -> Vec<Packet> {
        let last = slices.len() - 1;
        (0..slices.len()).flat_map(|i| self.slice(spec, i as u32, i == last, &slices[i])).collect()
    }

    /// All packets of a slice, in order: data of a group, then its parity.
    pub(crate) fn slice(&mut self, spec: FrameSpec, index: u32, last: bool, data: &[u8]) -> Vec<Packet> {
        let chunks: Vec<&[u8]> = data.chunks(self.chunk_len).collect();
        let groups = chunks.len().div_ceil(self.group_max);
        let mut packets = Vec::new();
        for group in 0..groups {
            let range = group * chunks.len() / groups..(group + 1) * chunks.len() / groups;
            let bodies: Vec<Vec<u8>> = range
                .map(|chunk_index| {
                    encode(&VideoChunk {
                        frame_id: FrameId(spec.id),
                        chunk_index: chunk_index as u32,
                        chunk_count: chunks.len() as u32,
                        timestamp_us: spec.timestamp_us,
                        keyframe: spec.reference_distance == 0,
                        payload: chunks[chunk_index],
                        capture_us: 900,
                        encode_us: 4000 + index,
                        slice_index: index,
                        last_slice: last,
                        reference_distance: spec.reference_distance,
                    })
                })
                .collect();
            packets.extend(self.group(spec.id, bodies));
        }
        packets
    }

    fn group(&mut self, frame: u64, bodies: Vec<Vec<u8>>) -> Vec<Packet> {
        let first = self.next_id;
        let count = bodies.len();
        let parities = (count * self.parity_percent).div_ceil(100);
        let lengths: Vec<u32> = bodies.iter().map(|b| b.len() as u32).collect();
        let longest = bodies.iter().map(Vec::len).max().unwrap();
        let mut sums = vec![vec![0u8; longest]; parities];
        let mut packets = Vec::new();
        for (i, body) in bodies.into_iter().enumerate() {
            if parities > 0 {
                for (sum, byte) in sums[i % parities].iter_mut().zip(&body) {
                    *sum ^= byte;
                }
            }
            self.history.insert(self.next_id, body.clone());
            packets.push(self.packet(body, false));
        }
        for (parity_index, sum) in sums.iter().enumerate() {
            let mut packed = Vec::new();
            let shard_lengths = listed(&lengths, &mut packed);
            let fec = FecPacket {
                group_id: GroupId(self.next_group),
                first_packet_id: PacketId(first),
                shard_count: count as u32,
                parity_index: parity_index as u32,
                payload: sum,
                shard_lengths,
                parity_count: parities as u32,
                frame_id: FrameId(frame),
                code: 0,
                runs: PackedVarints::empty(),
            };
            let mut body = vec![0; fec.encoded_len()];
            fec.encode(&mut body).unwrap();
            packets.push(self.packet(body, true));
        }
        self.next_group += 1;
        packets
    }

    /// The same chunk in a new packet, if `id` held one.
    pub(crate) fn resend(&mut self, id: PacketId) -> Option<Packet> {
        let body = self.history.get(&id.0)?.clone();
        self.history.insert(self.next_id, body.clone());
        Some(self.packet(body, false))
    }

    /// Takes a packet id for something that is not video.
    pub(crate) fn skip_id(&mut self) -> PacketId {
        self.next_id += 1;
        PacketId(self.next_id - 1)
    }

    fn packet(&mut self, body: Vec<u8>, is_parity: bool) -> Packet {
        self.next_id += 1;
        Packet { id: PacketId(self.next_id - 1), body, is_parity }
    }
}

/// Lengths differ by a byte where a chunk index grows a digit, so they are listed unless they are regular.
fn listed<'a>(lengths: &[u32], packed: &'a mut Vec<u8>) -> ShardLengths<'a> {
    let (last, others) = lengths.split_last().unwrap();
    if lengths.len() >= 3 && others.iter().all(|l| l == &others[0]) {
        return ShardLengths::Regular { each: others[0], last: *last };
    }
    // A message with nothing but the lengths, decoded again, gives the packed form.
    let proto = message::proto::FecPacket {
        shard_count: lengths.len() as u32,
        shard_lengths: lengths.to_vec(),
        ..Default::default()
    };
    let media =
        message::proto::MediaMessage { media: Some(message::proto::media_message::Media::Fec(proto)) };
    let whole = message::proto::Message { body: Some(message::proto::message::Body::Media(media)) };
    *packed = prost::Message::encode_to_vec(&whole);
    match message::decode(packed) {
        Ok(Incoming::Media(MediaBody::Fec(fec))) => fec.shard_lengths,
        other => panic!("not a parity packet: {other:?}"),
    }
}

pub(crate) fn encode(chunk: &VideoChunk<'_>) -> Vec<u8> {
    let mut body = vec![0; chunk.encoded_len()];
    chunk.encode(&mut body).unwrap();
    body
}

/// What an endpoint does with an opened datagram.
pub(crate) fn deliver(
    receiver: &mut VideoReceiver,
    now: Timestamp,
    packet: &Packet,
) -> Result<(), DropReason> {
    receiver.on_packet(now, packet.id);
    match message::decode(&packet.body) {
        Ok(Incoming::Media(MediaBody::Video(chunk))) => {
            receiver.handle_chunk(now, packet.id, &packet.body, &chunk)
        }
        Ok(Incoming::Media(MediaBody::Fec(fec))) => receiver.handle_fec(now, packet.id, &fec),
        other => panic!("not media: {other:?}"),
    }
}

/// Bytes that tell where they belong.
pub(crate) fn picture(frame: u64, slice: usize, len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(frame * 1000 + slice as u64);
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    bytes
}

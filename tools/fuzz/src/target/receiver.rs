//! The video receiver, fed with chunks and parity.

use prost::Message as _;
use rift_core::message::proto::media_message::Media;
use rift_core::message::proto::{self, message::Body};
use rift_core::message::{self, Incoming, MediaBody};
use rift_core::receive::{ReceiverConfig, VideoReceiver};
use rift_core::{DropReason, FrameId, PacketId, Timestamp};

use super::script::{script, steps};

/// More of anything at one moment is a loop.
const POLLS_MAX: u32 = 5_000;

/// Each step is one packet: how far its id lies ahead, milliseconds that pass before it, and its body.
pub(super) fn run(data: &[u8]) {
    let config = ReceiverConfig {
        frames: 4,
        frame_bytes_max: 16_384,
        slices_max: 4,
        window_packets: 256,
        missing_max: 64,
        parities_max: 8,
        ..ReceiverConfig::default()
    };
    let mut receiver = VideoReceiver::new(&config);
    let mut now = Timestamp::from_micros(1_000_000);
    let mut id = 0u64;
    let mut newest = None;
    for step in steps(data).take(128) {
        let [ahead, ms, body @ ..] = step else { continue };
        id = id.saturating_add_signed(i64::from(*ahead as i8));
        now = now.plus_micros(u64::from(*ms) * 1_000);
        if receiver.poll_timeout() <= now {
            receiver.handle_timeout(now);
        }
        receiver.on_packet(now, PacketId(id));
        if let Ok(Incoming::Media(media)) = message::decode(body) {
            let result = match &media {
                MediaBody::Video(chunk) => receiver.handle_chunk(now, PacketId(id), body, chunk),
                MediaBody::Fec(fec) => receiver.handle_fec(now, PacketId(id), fec),
                _ => Ok(()),
            };
            if let Err(reason) = result {
                assert_ne!(reason, DropReason::BadSeal, "not a reason of the receiver");
            }
        }
        poll(&mut receiver, now, &mut newest);
    }
}

fn poll(receiver: &mut VideoReceiver, now: Timestamp, newest: &mut Option<(FrameId, u32)>) {
    let mut polls = 0;
    let mut count = || {
        polls += 1;
        assert!(polls < POLLS_MAX, "never runs out");
    };
    while let Some(slice) = receiver.poll_slice(now) {
        count();
        let place = (slice.frame_id, slice.index);
        assert!(newest.is_none_or(|newest| newest < place), "{place:?} after {newest:?}");
        *newest = Some(place);
        let (frame, last, failed) = (slice.frame_id, slice.last, slice.data.first() == Some(&0xff));
        match (last, failed) {
            (true, true) => receiver.on_decode_failed(now, frame),
            (true, false) => receiver.on_decoded(now, frame),
            _ => {}
        }
    }
    let mut ids = [PacketId(0); 16];
    while receiver.poll_nack(now, &mut ids) == ids.len() {
        count();
    }
    while receiver.poll_request(now).is_some() {
        count();
    }
    receiver.report(now);
    let _ = receiver.poll_arrivals(now);
}

/// Two frames of two slices, with parity.
pub(super) fn messages() -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for frame_id in 0..2 {
        for slice_index in 0..2 {
            let first = messages.len() as u64;
            let chunks: Vec<_> = (0..3u32)
                .map(|chunk_index| {
                    encode(Media::Video(proto::VideoChunk {
                        frame_id,
                        chunk_index,
                        chunk_count: 3,
                        timestamp_us: 5_000_000 + frame_id * 16_667,
                        keyframe: frame_id == 0,
                        payload: vec![chunk_index as u8 + 1; if chunk_index < 2 { 40 } else { 30 }],
                        capture_us: 10,
                        encode_us: 500,
                        slice_index,
                        last_slice: slice_index == 1,
                        reference_distance: u32::from(frame_id > 0),
                    }))
                })
                .collect();
            let longest = chunks.iter().map(Vec::len).max().unwrap_or(0);
            let mut parity = vec![0; longest];
            for chunk in &chunks {
                parity.iter_mut().zip(chunk).for_each(|(p, b)| *p ^= b);
            }
            let shard_lengths = chunks.iter().map(|c| c.len() as u32).collect();
            messages.extend(chunks);
            messages.push(encode(Media::Fec(proto::FecPacket {
                group_id: first / 4,
                first_packet_id: first,
                shard_count: 3,
                parity_index: 0,
                payload: parity,
                shard_lengths,
                parity_count: 1,
                frame_id,
                ..Default::default()
            })));
        }
    }
    messages
}

/// Frames of four chunks, each with a parity that reaches back over the frame before; of the fourth two chunks are lost,
/// so that the fifth's parity is needed.
fn sliding_packets() -> Vec<Vec<u8>> {
    let mut bodies: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut packets = Vec::new();
    let (mut id, mut ahead) = (0, 1);
    for frame_id in 0..8u64 {
        for chunk_index in 0..4u32 {
            let chunk = Media::Video(proto::VideoChunk {
                frame_id,
                chunk_index,
                chunk_count: 4,
                timestamp_us: 5_000_000 + frame_id * 16_667,
                keyframe: frame_id == 0,
                payload: vec![chunk_index as u8 + 1; 30],
                last_slice: true,
                reference_distance: u32::from(frame_id > 0),
                ..Default::default()
            });
            id += 1;
            bodies.push((id, encode(chunk)));
            if frame_id == 3 && chunk_index < 2 {
                ahead += 1;
                continue;
            }
            packets.push([&[core::mem::replace(&mut ahead, 1), 1], &bodies[bodies.len() - 1].1[..]].concat());
        }
        let covered = &bodies[bodies.len().saturating_sub(8)..];
        let shards: Vec<(u8, Vec<u8>)> = covered
            .iter()
            .map(|(id, body)| (*id as u8, [&(body.len() as u16).to_be_bytes()[..], body].concat()))
            .collect();
        let longest = shards.iter().map(|(_, shard)| shard.len()).max().unwrap_or(0);
        let mut encoder = rift_fec::SlidingEncoder::new(1, longest);
        encoder.begin(frame_id as u8, 1, longest);
        shards.iter().for_each(|(column, shard)| encoder.add(*column, shard));
        let first_packet_id = covered[0].0;
        // The id between two frames is that of a parity.
        let runs = if covered.len() > 4 { vec![4, 1] } else { vec![] };
        id += 1;
        let fec = Media::Fec(proto::FecPacket {
            first_packet_id,
            shard_count: covered.len() as u32,
            parity_index: frame_id as u32,
            payload: encoder.parity(0).to_vec(),
            parity_count: 1,
            frame_id,
            code: 2,
            runs,
            ..Default::default()
        });
        packets.push([&[1, 1], &encode(fec)[..]].concat());
    }
    packets
}

fn encode(media: Media) -> Vec<u8> {
    proto::Message { body: Some(Body::Media(proto::MediaMessage { media: Some(media) })) }.encode_to_vec()
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let packets: Vec<Vec<u8>> = messages().iter().map(|m| [&[1, 1], &m[..]].concat()).collect();
    let all = script(packets.iter().map(|p| &p[..]));
    // The same with every fourth packet lost, its id skipped.
    let mut lossy = Vec::new();
    for (i, packet) in packets.iter().enumerate() {
        if i % 4 == 1 {
            continue;
        }
        let mut packet = packet.clone();
        packet[0] = if i % 4 == 2 { 2 } else { 1 };
        lossy.push(packet);
    }
    let sliding: Vec<Vec<u8>> = sliding_packets();
    vec![all, script(lossy.iter().map(|p| &p[..])), script(sliding.iter().map(|p| &p[..]))]
}

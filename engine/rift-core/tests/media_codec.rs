//! The hand-written media path gives and takes the same bytes as the generic Protocol Buffers codec.

use proptest::prelude::*;
use prost::Message as _;
use rift_core::message::{
    self, ArrivalFeedback, AudioPacket, FecPacket, Incoming, MediaBody, ReliableSegment, ShardLengths,
    VideoChunk, proto,
};
use rift_core::{FrameId, GroupId, PacketId};

fn generic(media: proto::media_message::Media) -> Vec<u8> {
    let media = proto::MediaMessage { media: Some(media) };
    proto::Message { body: Some(proto::message::Body::Media(media)) }.encode_to_vec()
}

fn control(control: proto::control_message::Control) -> Vec<u8> {
    let control = proto::ControlMessage { control: Some(control) };
    proto::Message { body: Some(proto::message::Body::Control(control)) }.encode_to_vec()
}

prop_compose! {
    fn chunk()(
        frame_id: u64, chunk_index: u32, chunk_count: u32, timestamp_us: u64, keyframe: bool,
        payload in prop::collection::vec(any::<u8>(), 0..1300), capture_us: u32, encode_us: u32,
        slice_index in 0u32..70_000, last_slice: bool, reference_distance: u32,
    ) -> proto::VideoChunk {
        proto::VideoChunk {
            frame_id, chunk_index, chunk_count, timestamp_us, keyframe, payload, capture_us, encode_us,
            slice_index, last_slice, reference_distance,
        }
    }
}

fn borrowed(c: &proto::VideoChunk) -> VideoChunk<'_> {
    VideoChunk {
        frame_id: FrameId(c.frame_id),
        chunk_index: c.chunk_index,
        chunk_count: c.chunk_count,
        timestamp_us: c.timestamp_us,
        keyframe: c.keyframe,
        payload: &c.payload,
        capture_us: c.capture_us,
        encode_us: c.encode_us,
        slice_index: c.slice_index,
        last_slice: c.last_slice,
        reference_distance: c.reference_distance,
    }
}

proptest! {
    #[test]
    fn video_chunk_equals_generic_encoder(c in chunk()) {
        let expected = generic(proto::media_message::Media::Video(c.clone()));
        let chunk = borrowed(&c);
        let mut out = vec![0xaa; expected.len() + 7];
        prop_assert_eq!(chunk.encoded_len(), expected.len());
        prop_assert_eq!(chunk.encode(&mut out), Some(expected.len()));
        prop_assert_eq!(&out[..expected.len()], &expected[..]);
        prop_assert_eq!(chunk.encode(&mut out[..expected.len() - 1]), None);
        match message::decode(&expected) {
            Ok(Incoming::Media(MediaBody::Video(back))) => prop_assert_eq!(back, chunk),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn video_chunk_overhead_stays_under_its_bound(
        frame_id in 0u64..1 << 56, timestamp_us in 0u64..1 << 56, index in 0u32..1 << 16,
        capture_us in 0u32..1 << 24, encode_us in 0u32..1 << 24, distance in 0u32..1 << 14,
    ) {
        let payload = [7; 1100];
        let chunk = VideoChunk {
            frame_id: FrameId(frame_id), chunk_index: index, chunk_count: index, timestamp_us,
            keyframe: true, payload: &payload, capture_us, encode_us, slice_index: index,
            last_slice: true, reference_distance: distance,
        };
        prop_assert!(chunk.encoded_len() - payload.len() <= VideoChunk::OVERHEAD_MAX);
    }

    #[test]
    fn fec_packet_equals_generic_encoder(
        group_id: u64, first_packet_id: u64, count in 1u32..65, parity_index: u32,
        payload in prop::collection::vec(any::<u8>(), 0..1300), parity_count: u32, frame_id: u64,
        each in 1u32..1300, last in 1u32..1300, listed: bool,
    ) {
        let shard_lengths = if listed || count < 3 {
            let mut all = vec![each; count as usize];
            all[count as usize - 1] = last;
            all
        } else {
            vec![each, last]
        };
        let expected = generic(proto::media_message::Media::Fec(proto::FecPacket {
            group_id, first_packet_id, shard_count: count, parity_index, payload: payload.clone(),
            shard_lengths: shard_lengths.clone(), parity_count, frame_id,
        }));
        let Ok(Incoming::Media(MediaBody::Fec(back))) = message::decode(&expected) else {
            panic!("not decoded");
        };
        prop_assert_eq!(back.group_id, GroupId(group_id));
        prop_assert_eq!(back.first_packet_id, PacketId(first_packet_id));
        prop_assert_eq!(back.payload, &payload[..]);
        for i in 0..count {
            prop_assert_eq!(back.shard_len(i), Some(if i + 1 == count { last } else { each }));
        }
        prop_assert_eq!(back.shard_len(count), None);
        let mut out = vec![0; expected.len()];
        prop_assert_eq!(back.encode(&mut out), Some(expected.len()));
        prop_assert_eq!(&out, &expected);
        if count >= 3 {
            let regular = FecPacket { shard_lengths: ShardLengths::Regular { each, last }, ..back };
            let mut out = vec![0; 2000];
            let len = regular.encode(&mut out).unwrap();
            let Ok(Incoming::Media(MediaBody::Fec(again))) = message::decode(&out[..len]) else {
                panic!("not decoded");
            };
            prop_assert_eq!(again.shard_len(0), Some(each));
            prop_assert_eq!(again.shard_len(count - 1), Some(last));
        }
    }

    #[test]
    fn audio_nack_feedback_and_reliable_equal_generic_encoder(
        timestamp_us: u64, payload in prop::collection::vec(any::<u8>(), 0..400),
        ids in prop::collection::vec(any::<u64>(), 0..40), first: u64, sequence: u64, more: bool,
    ) {
        let mut out = vec![0; 2000];

        let expected = generic(proto::media_message::Media::Audio(proto::AudioPacket {
            timestamp_us, payload: payload.clone(),
        }));
        let len = AudioPacket { timestamp_us, payload: &payload }.encode(&mut out).unwrap();
        prop_assert_eq!(&out[..len], &expected[..]);

        let expected = control(proto::control_message::Control::Nack(proto::Nack {
            packet_ids: ids.clone(),
        }));
        let wrapped: Vec<_> = ids.iter().copied().map(PacketId).collect();
        let len = message::encode_nack(&wrapped, &mut out).unwrap();
        prop_assert_eq!(&out[..len], &expected[..]);
        match message::decode(&expected) {
            Ok(Incoming::Nack(back)) => prop_assert_eq!(back.collect::<Vec<_>>(), ids),
            other => prop_assert!(false, "{:?}", other),
        }

        let expected = control(proto::control_message::Control::ArrivalFeedback(proto::ArrivalFeedback {
            first_packet_id: first, report_us: timestamp_us, arrivals: payload.clone(), marked_packets: sequence as u32,
        }));
        let feedback = ArrivalFeedback {
            first_packet_id: first, report_us: timestamp_us, arrivals: &payload, marked_packets: sequence as u32,
        };
        let len = feedback.encode(&mut out).unwrap();
        prop_assert_eq!(&out[..len], &expected[..]);
        match message::decode(&expected) {
            Ok(Incoming::ArrivalFeedback(back)) => prop_assert_eq!(back, feedback),
            other => prop_assert!(false, "{:?}", other),
        }

        let body = proto::message::Body::Reliable(proto::ReliableSegment { sequence, more, data: payload.clone() });
        let expected = proto::Message { body: Some(body) }.encode_to_vec();
        let segment = ReliableSegment { sequence, more, data: &payload };
        let len = segment.encode(&mut out).unwrap();
        prop_assert_eq!(&out[..len], &expected[..]);
        prop_assert!(len - payload.len() <= ReliableSegment::OVERHEAD_MAX);

        let body = proto::message::Body::ReliableAck(proto::ReliableAck { next_sequence: sequence });
        let expected = proto::Message { body: Some(body) }.encode_to_vec();
        let len = message::encode_reliable_ack(sequence, &mut out).unwrap();
        prop_assert_eq!(&out[..len], &expected[..]);
        match message::decode(&expected) {
            Ok(Incoming::ReliableAck(back)) => prop_assert_eq!(back, sequence),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn control_equals_generic_encoder(timestamp_us: u64, name in ".{0,40}") {
        for message in [
            proto::control_message::Control::Ping(proto::Ping { timestamp_us }),
            proto::control_message::Control::Hello(proto::Hello { client_name: name.clone(), ..Default::default() }),
        ] {
            let mut out = vec![0; 300];
            let len = message::encode_control(&message, &mut out).unwrap();
            prop_assert_eq!(len, message::control_len(&message));
            prop_assert_eq!(&out[..len], &control(message.clone())[..]);
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = message::decode(&bytes);
    }

    #[test]
    fn truncation_and_damage_never_panic(c in chunk(), cut: usize, at: usize, bit in 0u8..8) {
        let mut bytes = generic(proto::media_message::Media::Video(c));
        let _ = message::decode(&bytes[..cut % bytes.len()]);
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let _ = message::decode(&bytes);
    }
}

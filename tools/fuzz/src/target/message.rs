//! The message decoder, against the generic one.
//!
//! Two independent decoders may differ on bytes that no encoder makes (a field twice, an unknown wire
//! type). So the bytes are first taken through the generic codec; what that gives is canonical, and on it
//! both must agree.

use prost::Message as _;
use rift_core::PacketId;
use rift_core::message::proto::media_message::Media;
use rift_core::message::proto::message::Body;
use rift_core::message::proto::{self, control_message::Control};
use rift_core::message::{self, Incoming, MediaBody};

pub(super) fn run(data: &[u8]) {
    // Any bytes: no panic. What decodes and is not lazily read must be readable.
    if let Ok(incoming) = message::decode(data) {
        touch(&incoming);
    }
    let Ok(generic) = proto::Message::decode(data) else { return };
    let canonical = generic.encode_to_vec();
    match message::decode(&canonical) {
        Ok(ours) => agree(&generic, &ours, &canonical),
        Err(error) => panic!("{error} on what the generic encoder wrote: {generic:?}"),
    }
}

/// Reads all of what is read lazily.
fn touch(incoming: &Incoming<'_>) {
    match incoming {
        Incoming::Nack(ids) => {
            ids.clone().count();
        }
        Incoming::Media(MediaBody::Fec(fec)) => {
            for index in [0, 1, fec.shard_count.wrapping_sub(1), fec.shard_count, u32::MAX] {
                let _ = fec.shard_len(index);
            }
        }
        _ => {}
    }
}

fn agree(generic: &proto::Message, ours: &Incoming<'_>, canonical: &[u8]) {
    match (&generic.body, ours) {
        (None, Incoming::Unknown) => {}
        (Some(Body::Media(media)), Incoming::Media(ours)) => agree_on_media(media, ours, canonical),
        (Some(Body::Input(input)), Incoming::Input(ours)) => {
            assert_eq!(input.encode_to_vec(), ours.encode_to_vec());
        }
        (Some(Body::InputBatch(batch)), Incoming::InputBatch(ours)) => {
            assert_eq!(batch.encode_to_vec(), *ours);
        }
        (Some(Body::Reliable(segment)), Incoming::Reliable(ours)) => {
            assert_eq!(
                (segment.sequence, segment.more, &segment.data[..]),
                (ours.sequence, ours.more, ours.data)
            );
            same_bytes(|out| ours.encode(out), canonical);
        }
        (Some(Body::ReliableAck(ack)), Incoming::ReliableAck(ours)) => {
            assert_eq!(ack.next_sequence, *ours);
            same_bytes(|out| message::encode_reliable_ack(*ours, out), canonical);
        }
        (Some(Body::Control(control)), ours) => match (&control.control, ours) {
            (None, Incoming::Unknown) => {}
            (Some(Control::Nack(nack)), Incoming::Nack(ids)) => {
                assert_eq!(nack.packet_ids, ids.clone().collect::<Vec<_>>());
                let ids: Vec<_> = ids.clone().map(PacketId).collect();
                same_bytes(|out| message::encode_nack(&ids, out), canonical);
            }
            (Some(Control::ArrivalFeedback(feedback)), Incoming::ArrivalFeedback(ours)) => {
                assert_eq!(
                    (feedback.first_packet_id, feedback.report_us, &feedback.arrivals[..]),
                    (ours.first_packet_id, ours.report_us, ours.arrivals)
                );
                same_bytes(|out| ours.encode(out), canonical);
            }
            (Some(control), Incoming::Control(ours)) => {
                let wrapped = |control: &Control| {
                    proto::ControlMessage { control: Some(control.clone()) }.encode_to_vec()
                };
                assert_eq!(wrapped(control), wrapped(ours));
                same_bytes(|out| message::encode_control(ours, out), canonical);
            }
            (control, ours) => panic!("{control:?} became {ours:?}"),
        },
        (generic, ours) => panic!("{generic:?} became {ours:?}"),
    }
}

fn agree_on_media(media: &proto::MediaMessage, ours: &MediaBody<'_>, canonical: &[u8]) {
    match (&media.media, ours) {
        (None | Some(Media::File(_)), MediaBody::Other) => {}
        (Some(Media::Video(chunk)), MediaBody::Video(ours)) => {
            assert_eq!(
                (chunk.frame_id, chunk.chunk_index, chunk.chunk_count, chunk.timestamp_us, chunk.keyframe),
                (ours.frame_id.0, ours.chunk_index, ours.chunk_count, ours.timestamp_us, ours.keyframe)
            );
            assert_eq!(
                (chunk.capture_us, chunk.encode_us, chunk.slice_index, chunk.last_slice),
                (ours.capture_us, ours.encode_us, ours.slice_index, ours.last_slice)
            );
            assert_eq!(
                (chunk.reference_distance, &chunk.payload[..]),
                (ours.reference_distance, ours.payload)
            );
            assert_eq!(ours.encoded_len(), canonical.len());
            same_bytes(|out| ours.encode(out), canonical);
        }
        (Some(Media::Fec(fec)), MediaBody::Fec(ours)) => {
            assert_eq!(
                (fec.group_id, fec.first_packet_id, fec.shard_count, fec.parity_index, fec.parity_count),
                (
                    ours.group_id.0,
                    ours.first_packet_id.0,
                    ours.shard_count,
                    ours.parity_index,
                    ours.parity_count
                )
            );
            assert_eq!((fec.frame_id, &fec.payload[..]), (ours.frame_id.0, ours.payload));
            let count = u32::try_from(fec.shard_lengths.len()).unwrap_or(u32::MAX);
            if count == fec.shard_count {
                for (index, &len) in (0..).zip(&fec.shard_lengths) {
                    assert_eq!(ours.shard_len(index), Some(len));
                }
                same_bytes(|out| ours.encode(out), canonical);
            }
            assert_eq!(ours.shard_len(fec.shard_count), None);
        }
        (Some(Media::Audio(audio)), MediaBody::Audio(ours)) => {
            assert_eq!((audio.timestamp_us, &audio.payload[..]), (ours.timestamp_us, ours.payload));
            same_bytes(|out| ours.encode(out), canonical);
        }
        (media, ours) => panic!("{media:?} became {ours:?}"),
    }
}

/// Our encoder writes what the generic one does, and refuses a buffer that is one byte too short.
fn same_bytes(encode: impl Fn(&mut [u8]) -> Option<usize>, canonical: &[u8]) {
    let mut out = vec![0xaa; canonical.len() + 3];
    assert_eq!(encode(&mut out), Some(canonical.len()));
    assert_eq!(&out[..canonical.len()], canonical);
    assert_eq!(encode(&mut out[..canonical.len() - 1]), None);
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let media =
        |media| proto::Message { body: Some(Body::Media(proto::MediaMessage { media: Some(media) })) };
    let control = |control| proto::Message {
        body: Some(Body::Control(proto::ControlMessage { control: Some(control) })),
    };
    let messages = [
        media(Media::Video(proto::VideoChunk {
            frame_id: 300,
            chunk_index: 1,
            chunk_count: 3,
            timestamp_us: 1 << 40,
            keyframe: true,
            payload: vec![5; 20],
            capture_us: 9,
            encode_us: 3000,
            slice_index: 2,
            last_slice: true,
            reference_distance: 1,
        })),
        media(Media::Fec(proto::FecPacket {
            group_id: 1,
            first_packet_id: 2,
            shard_count: 3,
            parity_index: 0,
            payload: vec![6; 10],
            shard_lengths: vec![10, 10, 7],
            parity_count: 1,
            frame_id: 4,
            ..Default::default()
        })),
        media(Media::Fec(proto::FecPacket {
            group_id: 1,
            first_packet_id: 2,
            shard_count: 6,
            parity_index: 1,
            payload: vec![6; 10],
            parity_count: 2,
            frame_id: 4,
            code: 1,
            runs: vec![2, 1, 3, 9],
            ..Default::default()
        })),
        media(Media::Fec(proto::FecPacket {
            first_packet_id: 2,
            shard_count: 70,
            parity_index: 101,
            payload: vec![6; 10],
            parity_count: 2,
            frame_id: 4,
            code: 2,
            runs: vec![20, 3, 9, 1],
            ..Default::default()
        })),
        media(Media::Audio(proto::AudioPacket { timestamp_us: 5, payload: vec![1; 9] })),
        media(Media::File(proto::FileChunk { file_id: 1, chunk_index: 2, payload: vec![1] })),
        control(Control::Hello(proto::Hello {
            client_name: "name".into(),
            supported_codecs: vec![0, 1],
            max_resolution: Some(proto::Resolution { width: 1920, height: 1080 }),
            features: 2047,
            ..Default::default()
        })),
        control(Control::HelloAck(proto::HelloAck {
            accepted: true,
            session_id: vec![0; 16],
            ..Default::default()
        })),
        control(Control::Nack(proto::Nack { packet_ids: vec![1, 2, 300] })),
        control(Control::ArrivalFeedback(proto::ArrivalFeedback {
            first_packet_id: 8,
            report_us: 9,
            arrivals: vec![0, 1, 0xff, 0xff],
            marked_packets: 3,
        })),
        control(Control::Close(proto::Close { code: 2, message: "bye".into() })),
        control(Control::VrTiming(proto::VrTiming { refresh_hz: 90.0, vsync_offset_us: -5 })),
        control(Control::CursorPosition(proto::CursorPosition {
            x: -3,
            y: 4,
            visible: true,
            ..Default::default()
        })),
        proto::Message {
            body: Some(Body::Reliable(proto::ReliableSegment { sequence: 3, more: true, data: vec![1, 2] })),
        },
        proto::Message { body: Some(Body::ReliableAck(proto::ReliableAck { next_sequence: 7 })) },
    ];
    messages.iter().map(prost::Message::encode_to_vec).chain(super::input_batch::messages()).collect()
}

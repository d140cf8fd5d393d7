//! Fields that no honest host sends: refused with a reason, without a panic, within fixed memory.

use proptest::prelude::*;
use rift_core::message::{self, FecPacket, Incoming, MediaBody, PackedVarints, ShardLengths, VideoChunk};
use rift_core::receive::{ReceiverConfig, VideoReceiver};
use rift_core::{DropReason, FrameId, GroupId, PacketId, Timestamp};

use crate::packetiser::{FrameSpec, Packetiser, deliver, encode, picture};

fn small() -> VideoReceiver {
    let config = ReceiverConfig {
        frames: 4,
        frame_bytes_max: 8 << 10,
        slices_max: 4,
        window_packets: 256,
        missing_max: 64,
        parities_max: 2,
        ..Default::default()
    };
    VideoReceiver::new(&config)
}

/// Numbers that meet each other often, and the edges.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..12, 1 => 0u64..3000, 1 => any::<u64>(), 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1)]
}

fn number32() -> impl Strategy<Value = u32> {
    prop_oneof![6 => 0u32..6, 1 => 0u32..100, 1 => any::<u32>(), 1 => Just(u32::MAX)]
}

#[derive(Clone, Debug)]
enum Step {
    Chunk { id: u64, chunk: [u64; 3], counts: [u32; 4], flags: (bool, bool), len: usize },
    Fec { id: u64, first: u64, frame: u64, numbers: [u32; 3], each: u32, last: u32, len: usize },
    Poll,
    Rtt(u64, u64),
    Failed(u64),
    Clock(u64),
    Body(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let numbers = [number32(), number32(), number32(), number32()];
    prop_oneof![
        8 => (number(), [number(), number(), number()], numbers, any::<(bool, bool)>(), 0usize..1500).prop_map(
            |(id, chunk, counts, flags, len)| Step::Chunk { id, chunk, counts, flags, len }
        ),
        4 => (number(), number(), number(), [number32(), number32(), number32()], number32(), number32(), 0usize..1500)
            .prop_map(|(id, first, frame, numbers, each, last, len)| Step::Fec {
                id, first, frame, numbers, each, last, len
            }),
        4 => Just(Step::Poll),
        1 => (number(), number()).prop_map(|(a, b)| Step::Rtt(a, b)),
        1 => number().prop_map(Step::Failed),
        1 => number().prop_map(Step::Clock),
        1 => prop::collection::vec(any::<u8>(), 0..60).prop_map(Step::Body),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..Default::default() })]

    /// Proves R-VID-6.
    #[test]
    fn no_fields_and_no_clock_make_it_panic(steps in prop::collection::vec(step(), 1..120)) {
        let mut receiver = small();
        let mut now = 1_000_000u64;
        let bytes = vec![7u8; 1500];
        for step in &steps {
            let time = Timestamp::from_micros(now);
            match step {
                Step::Chunk { id, chunk, counts, flags, len } => {
                    let chunk = VideoChunk {
                        frame_id: FrameId(chunk[0]),
                        timestamp_us: chunk[1],
                        chunk_index: counts[0],
                        chunk_count: counts[1],
                        slice_index: counts[2],
                        reference_distance: counts[3],
                        keyframe: flags.0,
                        last_slice: flags.1,
                        payload: &bytes[..*len],
                        ..Default::default()
                    };
                    let body = encode(&chunk);
                    receiver.on_packet(time, PacketId(*id));
                    let Ok(Incoming::Media(MediaBody::Video(chunk))) = message::decode(&body) else {
                        panic!("not a chunk");
                    };
                    let _ = receiver.handle_chunk(time, PacketId(*id), &body, &chunk);
                }
                Step::Fec { id, first, frame, numbers, each, last, len } => {
                    let fec = FecPacket {
                        group_id: GroupId(0),
                        first_packet_id: PacketId(*first),
                        shard_count: numbers[0],
                        parity_index: numbers[1],
                        parity_count: numbers[2],
                        payload: &bytes[..*len],
                        shard_lengths: ShardLengths::Regular { each: *each, last: *last },
                        frame_id: FrameId(*frame),
                        code: 0,
                        runs: PackedVarints::empty(),
                    };
                    receiver.on_packet(time, PacketId(*id));
                    let _ = receiver.handle_fec(time, PacketId(*id), &fec);
                }
                Step::Poll => {
                    while let Some(slice) = receiver.poll_slice(time) {
                        prop_assert!(!slice.show || time <= slice.deadline);
                    }
                    let mut out = [PacketId(0); 5];
                    prop_assert!(receiver.poll_nack(time, &mut out) <= 5);
                    for _ in 0..4 {
                        let _ = receiver.poll_request(time);
                    }
                    while receiver.poll_arrivals(time).is_some() {}
                    let _ = receiver.report(time);
                    let _ = receiver.poll_timeout();
                    receiver.handle_timeout(time);
                }
                Step::Rtt(a, b) => receiver.set_rtt(*a, *b),
                Step::Failed(frame) => receiver.on_decode_failed(time, FrameId(*frame)),
                Step::Clock(to) => now = *to,
                Step::Body(body) => {
                    if let Ok(Incoming::Media(MediaBody::Video(chunk))) = message::decode(body) {
                        let _ = receiver.handle_chunk(time, PacketId(3), body, &chunk);
                    }
                }
            }
            now = now.saturating_add(500);
        }
    }
}

#[test]
fn a_payload_that_is_not_part_of_the_body_is_taken_but_not_used_for_parity() {
    let mut receiver = small();
    let payload = vec![1; 100];
    let chunk = VideoChunk {
        chunk_count: 1,
        payload: &payload,
        keyframe: true,
        last_slice: true,
        ..Default::default()
    };
    receiver.on_packet(Timestamp::ZERO, PacketId(0));
    assert_eq!(receiver.handle_chunk(Timestamp::ZERO, PacketId(0), &[], &chunk), Ok(()));
    assert_eq!(receiver.poll_slice(Timestamp::ZERO).unwrap().data, payload);
}

/// Proves R-VID-2, R-FEC-6.
#[test]
fn each_fault_has_its_reason() {
    let now = Timestamp::from_micros(1_000);
    let mut receiver = small();
    let good = VideoChunk {
        frame_id: FrameId(5),
        chunk_count: 2,
        payload: &[1; 50],
        keyframe: true,
        last_slice: true,
        ..Default::default()
    };
    let mut id = 0;
    let mut give = |receiver: &mut VideoReceiver, chunk: &VideoChunk<'_>| {
        let body = encode(chunk);
        id += 1;
        receiver.on_packet(now, PacketId(id));
        match message::decode(&body) {
            Ok(Incoming::Media(MediaBody::Video(chunk))) => {
                receiver.handle_chunk(now, PacketId(id), &body, &chunk)
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(give(&mut receiver, &good), Ok(()));
    assert_eq!(give(&mut receiver, &good), Err(DropReason::Duplicate));
    let cases = [
        (VideoChunk { chunk_index: 2, ..good }, DropReason::Malformed),
        (VideoChunk { chunk_count: 3, ..good }, DropReason::Malformed),
        (VideoChunk { frame_id: FrameId(5 + 2000), ..good }, DropReason::Malformed),
        (VideoChunk { frame_id: FrameId(6), chunk_count: 1 << 30, ..good }, DropReason::NoRoom),
        (VideoChunk { frame_id: FrameId(6), slice_index: 9, ..good }, DropReason::NoRoom),
        (VideoChunk { frame_id: FrameId(0), ..good }, DropReason::Stale),
    ];
    for (chunk, reason) in cases {
        assert_eq!(give(&mut receiver, &chunk), Err(reason), "{chunk:?}");
    }
    let fec = FecPacket {
        group_id: GroupId(0),
        first_packet_id: PacketId(1),
        shard_count: 2,
        parity_index: 0,
        payload: &[0; 90],
        shard_lengths: ShardLengths::Regular { each: 80, last: 80 },
        parity_count: 1,
        frame_id: FrameId(5),
        code: 0,
        runs: PackedVarints::empty(),
    };
    let cases = [
        (FecPacket { parity_count: 0, ..fec.clone() }, DropReason::Unexpected),
        (FecPacket { parity_index: 1, ..fec.clone() }, DropReason::Malformed),
        (FecPacket { shard_count: 65, ..fec.clone() }, DropReason::Malformed),
        (FecPacket { parity_count: 3, ..fec.clone() }, DropReason::Malformed),
        (FecPacket { first_packet_id: PacketId(u64::MAX), ..fec.clone() }, DropReason::Malformed),
        (FecPacket { payload: &[], ..fec.clone() }, DropReason::Malformed),
        (
            FecPacket { shard_lengths: ShardLengths::Regular { each: 91, last: 1 }, ..fec.clone() },
            DropReason::Malformed,
        ),
        (
            FecPacket { shard_lengths: ShardLengths::Listed(PackedVarints::empty()), ..fec },
            DropReason::Malformed,
        ),
    ];
    for (fec, reason) in cases {
        assert_eq!(receiver.handle_fec(now, PacketId(99), &fec), Err(reason), "{fec:?}");
    }
    assert_eq!(receiver.counters().drops.count(DropReason::NoRoom), 2);
}

#[test]
fn a_gap_wider_than_the_window_is_survived() {
    let mut receiver = small();
    let mut sender = Packetiser::new(1000, 48, 0);
    let now = Timestamp::from_micros(1_000);
    let first = picture(0, 0, 1500);
    for packet in sender.frame(FrameSpec::keyframe(0), std::slice::from_ref(&first)) {
        deliver(&mut receiver, now, &packet).unwrap();
    }
    assert!(receiver.poll_slice(now).is_some());
    sender.next_id = 1 << 33;
    let second = picture(1, 0, 1500);
    for packet in sender.frame(FrameSpec::after(1, 1), std::slice::from_ref(&second)) {
        deliver(&mut receiver, now, &packet).unwrap();
    }
    assert_eq!(receiver.poll_slice(now).unwrap().data, second);
    assert!(receiver.counters().missing_untracked > 1 << 32);
}

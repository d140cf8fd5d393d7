//! Reed-Solomon groups from the sender that ships to the receiver that ships.

#![allow(clippy::unwrap_used, reason = "code of tests")]

use rift_core::fec::Runs;
use rift_core::message::{self, FecPacket, Incoming, MediaBody, PackedVarints, ShardLengths};
use rift_core::receive::{ReceiverConfig, RecoveredBy, VideoReceiver};
use rift_core::send::{BatchKind, SenderConfig, SliceMeta, VideoSender};
use rift_core::{DropReason, FrameId, GroupId, PacketId, Timestamp};

const NOW: Timestamp = Timestamp::from_micros(50_000);
const LATER: Timestamp = Timestamp::from_micros(80_000);

struct Packet {
    id: u64,
    kind: BatchKind,
    body: Vec<u8>,
}

/// Sends `frame` in slices of the given lengths; `between` ids are used for something else before each slice.
fn send(
    sender: &mut VideoSender,
    next_id: &mut u64,
    frame: u64,
    slices: &[usize],
    between: u64,
) -> Vec<Packet> {
    let mut packets = Vec::new();
    for (index, &len) in slices.iter().enumerate() {
        let meta = SliceMeta {
            frame_id: FrameId(frame),
            slice_index: index as u32,
            last_slice: index + 1 == slices.len(),
            keyframe: frame == 0,
            reference: frame.checked_sub(1).map(FrameId),
            timestamp: NOW,
            capture_us: 1000,
            encode_us: 1000 * index as u32,
        };
        sender.submit_slice(NOW, &meta, &slice(frame, index, len)).unwrap();
        *next_id += between;
        while let Some(batch) = sender.next_batch(NOW) {
            for n in 0..batch.count {
                let mut body = vec![0; 1500];
                let len = sender.write_body(PacketId(*next_id), &mut body);
                let expected = if n + 1 == batch.count { batch.last_body_len } else { batch.body_len };
                assert_eq!(len, expected);
                body.truncate(len);
                packets.push(Packet { id: *next_id, kind: batch.kind, body });
                *next_id += 1;
            }
        }
    }
    packets
}

fn slice(frame: u64, index: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(frame << 8 | index as u64).fill(&mut bytes);
    bytes
}

fn sender(parity: f32) -> VideoSender {
    VideoSender::new(&SenderConfig {
        parity,
        frame_bytes_max: 1 << 20,
        burst_bytes_max: 1 << 24,
        ..SenderConfig::default()
    })
}

fn receiver() -> VideoReceiver {
    VideoReceiver::new(&ReceiverConfig { frame_bytes_max: 256 << 10, ..Default::default() })
}

fn deliver(receiver: &mut VideoReceiver, packet: &Packet) -> Result<(), DropReason> {
    receiver.on_packet(NOW, PacketId(packet.id));
    match message::decode(&packet.body) {
        Ok(Incoming::Media(MediaBody::Video(chunk))) => {
            receiver.handle_chunk(NOW, PacketId(packet.id), &packet.body, &chunk)
        }
        Ok(Incoming::Media(MediaBody::Fec(fec))) => receiver.handle_fec(NOW, PacketId(packet.id), &fec),
        other => panic!("not media: {other:?}"),
    }
}

fn fec(packet: &Packet) -> FecPacket<'_> {
    let Ok(Incoming::Media(MediaBody::Fec(fec))) = message::decode(&packet.body) else {
        panic!("not parity")
    };
    fec
}

/// What the receiver hands out: the slices' bytes.
fn slices_of(receiver: &mut VideoReceiver) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| receiver.poll_slice(NOW).map(|s| s.data.to_vec())).collect()
}

/// Proves R-FEC-8, R-FEC-10.
#[test]
fn one_group_covers_the_small_slices_of_a_frame_and_delays_none() {
    let (mut sender, mut next_id) = (sender(0.2), 0);
    for frame in 0..3 {
        let packets = send(&mut sender, &mut next_id, frame, &[2500, 2100, 1900, 2700], 3);
        let kinds: Vec<_> = packets.iter().map(|p| p.kind).collect();
        // 3 + 2 + 2 + 3 data packets, each slice as soon as it was there, then one fifth of parity.
        assert_eq!(kinds[..10], [BatchKind::Data; 10]);
        assert_eq!(kinds[10..], [BatchKind::Parity; 2]);
        for packet in &packets[10..] {
            let fec = fec(packet);
            assert_eq!((fec.code, fec.shard_count, fec.parity_count), (1, 10, 2));
            assert_eq!(fec.frame_id, FrameId(frame));
            let runs = Runs::decode(fec.first_packet_id.0, fec.shard_count, fec.runs).unwrap();
            let ids: Vec<u64> = (0..10).map(|shard| runs.id(shard).unwrap()).collect();
            assert_eq!(ids, packets[..10].iter().map(|p| p.id).collect::<Vec<_>>());
        }
    }
    assert_eq!(sender.counters().parity_abandoned, 0);
}

/// Proves R-FEC-1, R-FEC-8.
#[test]
fn groups_are_closed_where_more_does_not_fit() {
    for (slices, between, parity) in [
        (&[40_000; 4][..], 1, 0.05),
        (&[1000; 8], 1, 0.2),
        (&[1000; 3], 200, 0.2),
        (&[300_000], 0, 0.2),
        (&[9000; 4], 0, 0.5),
    ] {
        let (mut sender, mut next_id) = (sender(parity), 0);
        let mut covered = 0;
        for frame in 0..2 {
            let packets = send(&mut sender, &mut next_id, frame, slices, between);
            let data: Vec<u64> = packets.iter().filter(|p| p.kind == BatchKind::Data).map(|p| p.id).collect();
            for packet in packets.iter().filter(|p| p.kind == BatchKind::Parity) {
                let fec = fec(packet);
                let runs = Runs::decode(fec.first_packet_id.0, fec.shard_count, fec.runs).unwrap();
                for shard in 0..runs.shards() {
                    assert!(data.contains(&runs.id(shard).unwrap()), "straddles frames");
                }
                if fec.parity_index == 0 {
                    covered += u64::from(fec.shard_count);
                }
                assert!(packet.body.len() <= 1200 - 34);
            }
        }
        let counters = sender.counters();
        let lost_cover = if between > 127 { 4 } else { 0 };
        assert_eq!(counters.parity_abandoned, lost_cover, "{slices:?}");
        assert_eq!(covered, counters.data_packets - lost_cover, "{slices:?}");
    }
}

/// Proves R-FEC-9, R-FEC-5.
#[test]
fn as_many_losses_as_parities_are_recovered_wherever_they_are() {
    let lengths = [3500, 1, 2100, 5000];
    let (mut sender, mut next_id) = (sender(0.25), 0);
    let packets = send(&mut sender, &mut next_id, 0, &lengths, 1);
    let data = packets.iter().filter(|p| p.kind == BatchKind::Data).count();
    let parities = packets.len() - data;
    assert_eq!((data, parities), (12, 3));
    let expected: Vec<_> = lengths.iter().enumerate().map(|(i, &len)| slice(0, i, len)).collect();
    for lost in 1u32..1 << packets.len() {
        if lost.count_ones() as usize > parities {
            continue;
        }
        // Every fourth pattern in reverse order, so that parity comes before data.
        let mut order: Vec<usize> = (0..packets.len()).filter(|i| lost >> i & 1 == 0).collect();
        let reversed = lost % 4 == 0;
        if reversed {
            order.reverse();
        }
        let mut receiver = receiver();
        for i in order {
            // In reverse order, parity solves what is only late.
            let result = deliver(&mut receiver, &packets[i]);
            assert!(result.is_ok() || (reversed && result == Err(DropReason::Duplicate)), "{result:?}");
        }
        assert_eq!(slices_of(&mut receiver), expected, "lost {lost:b}");
        assert_eq!(receiver.poll_nack(LATER, &mut [PacketId(0); 8]), 0, "recovered ids count as received");
        let lost_data = u64::from((lost & ((1 << data) - 1)).count_ones());
        let recovered = receiver.counters().chunks_from_parity;
        assert!(recovered == lost_data || (reversed && recovered > lost_data), "lost {lost:b}");
    }
}

/// Proves R-FEC-9.
#[test]
fn one_loss_too_many_waits_for_a_resend_and_then_solves_the_rest() {
    let (mut sender, mut next_id) = (sender(0.2), 0);
    let packets = send(&mut sender, &mut next_id, 0, &[3000, 3000, 3000], 2);
    assert_eq!(packets.iter().filter(|p| p.kind == BatchKind::Parity).count(), 2);
    let mut receiver = receiver();
    for packet in packets.iter().enumerate().filter(|(i, _)| ![0, 4, 7].contains(i)).map(|(_, p)| p) {
        deliver(&mut receiver, packet).unwrap();
    }
    assert!(slices_of(&mut receiver).is_empty());
    sender.on_nack(NOW, [PacketId(packets[4].id)].into_iter());
    let batch = sender.next_batch(NOW).unwrap();
    assert_eq!((batch.kind, batch.count), (BatchKind::Retransmission, 1));
    let mut body = vec![0; 1500];
    let len = sender.write_body(PacketId(next_id), &mut body);
    body.truncate(len);
    deliver(&mut receiver, &Packet { id: next_id, kind: batch.kind, body }).unwrap();
    let slice_whole = |i| slice(0, i, 3000);
    assert_eq!(slices_of(&mut receiver), [slice_whole(0), slice_whole(1), slice_whole(2)]);
    assert_eq!((receiver.counters().chunks_from_parity, receiver.counters().chunks_resent), (2, 1));
}

/// Proves R-FEC-6.
#[test]
fn parity_that_contradicts_itself_is_dropped_and_wrong_parity_changes_nothing() {
    let (mut sender, mut next_id) = (sender(0.2), 0);
    let packets = send(&mut sender, &mut next_id, 0, &[4000], 0);
    let (parity, data) = packets.split_last().unwrap();
    let mut receiver = receiver();
    for packet in &data[1..] {
        deliver(&mut receiver, packet).unwrap();
    }
    let good = fec(parity);
    let runs = |bytes: &'static [u8]| {
        let proto = message::proto::FecPacket {
            runs: bytes.iter().map(|&b| b.into()).collect(),
            ..Default::default()
        };
        let media = message::proto::media_message::Media::Fec(proto);
        let media = message::proto::MediaMessage { media: Some(media) };
        let whole = message::proto::Message { body: Some(message::proto::message::Body::Media(media)) };
        prost::Message::encode_to_vec(&whole)
    };
    let bad_runs = runs(&[9, 9, 9]);
    let Ok(Incoming::Media(MediaBody::Fec(with_bad_runs))) = message::decode(&bad_runs) else { panic!() };
    let wrong = vec![0x55; good.payload.len()];
    for (fec, reason) in [
        (FecPacket { code: 3, ..good.clone() }, DropReason::Unexpected),
        (FecPacket { parity_count: 0, ..good.clone() }, DropReason::Unexpected),
        (FecPacket { parity_count: 65, ..good.clone() }, DropReason::Malformed),
        (FecPacket { parity_index: 1, ..good.clone() }, DropReason::Malformed),
        (FecPacket { shard_count: 65, ..good.clone() }, DropReason::Malformed),
        (FecPacket { payload: &[1, 2], ..good.clone() }, DropReason::Malformed),
        (FecPacket { runs: with_bad_runs.runs, ..good.clone() }, DropReason::Malformed),
        (FecPacket { payload: &wrong, ..good.clone() }, DropReason::Malformed),
        (FecPacket { first_packet_id: PacketId(u64::MAX - 9), ..good.clone() }, DropReason::Malformed),
    ] {
        assert_eq!(receiver.handle_fec(NOW, PacketId(99), &fec), Err(reason), "{fec:?}");
    }
    assert!(slices_of(&mut receiver).is_empty());
    let irrelevant = FecPacket {
        group_id: GroupId(7),
        shard_lengths: ShardLengths::Listed(PackedVarints::empty()),
        ..good
    };
    receiver.handle_fec(NOW, PacketId(99), &irrelevant).unwrap();
    let got = receiver.poll_slice(NOW).map(|s| (s.data.to_vec(), s.recovered));
    assert_eq!(got, Some((slice(0, 0, 4000), RecoveredBy::Parity)));
}

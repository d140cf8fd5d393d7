//! Parity over several frames, from the sender that ships to the receiver that ships, beside plain elimination from
//! the text of the specification.

#![allow(clippy::unwrap_used, reason = "code of tests")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rift_core::fec::Covered;
use rift_core::feedback::{Fate, PacketKind, PacketOutcome, SentPacket};
use rift_core::message::{self, FecPacket, Incoming, MediaBody};
use rift_core::receive::{ReceiverConfig, VideoReceiver};
use rift_core::send::{BatchKind, SenderConfig, SliceMeta, VideoSender};
use rift_core::{DropReason, FrameId, GroupId, PacketId, Timestamp};

const RTT_US: u64 = 80_000;
const PERIOD_US: u64 = 16_667;

struct Packet {
    id: u64,
    frame: u64,
    kind: BatchKind,
    body: Vec<u8>,
}

fn at(frame: u64) -> Timestamp {
    Timestamp::from_micros(1_000_000 + frame * PERIOD_US)
}

fn outcome(is_lost: bool) -> PacketOutcome {
    let packet = SentPacket {
        id: PacketId(0),
        frame: FrameId(0),
        position: 0,
        kind: PacketKind::Data,
        bytes: 1228,
        sent_at: at(0),
    };
    let arrived = Fate::Arrived { arrived_us: 0, delay_us: 0, marked: false };
    PacketOutcome { packet, fate: if is_lost { Fate::Lost } else { arrived } }
}

/// A sender that knows a path which loses one in `one_in` packets.
fn sender(config: SenderConfig, one_in: u32) -> VideoSender {
    let mut sender =
        VideoSender::new(&SenderConfig { frame_bytes_max: 1 << 20, burst_bytes_max: 1 << 24, ..config });
    sender.set_protecting(true);
    sender.set_rtt(RTT_US);
    sender.set_period(PERIOD_US);
    (0..20_000).for_each(|n| sender.on_outcome(&outcome(n % one_in == 0), false));
    sender
}

fn content(frame: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(frame).fill(&mut bytes);
    bytes
}

/// Sends a frame; before every fifth packet an id goes to something else.
fn send(sender: &mut VideoSender, next_id: &mut u64, frame: u64, len: usize) -> Vec<Packet> {
    let meta = SliceMeta {
        frame_id: FrameId(frame),
        last_slice: true,
        keyframe: frame == 0,
        reference: frame.checked_sub(1).map(FrameId),
        timestamp: at(frame),
        ..SliceMeta::default()
    };
    sender.submit_slice(at(frame), &meta, &content(frame, len)).unwrap();
    let mut packets = Vec::new();
    while let Some(batch) = sender.next_batch(at(frame)) {
        *next_id += u64::from(frame % 3 == 1);
        for n in 0..batch.count {
            let mut body = vec![0; 1500];
            let len = sender.write_body(PacketId(*next_id), &mut body);
            assert_eq!(len, if n + 1 == batch.count { batch.last_body_len } else { batch.body_len });
            assert!(len <= 1200 - 34, "{len}");
            body.truncate(len);
            packets.push(Packet { id: *next_id, frame, kind: batch.kind, body });
            *next_id += 1;
        }
    }
    packets
}

fn fec(packet: &Packet) -> FecPacket<'_> {
    let Ok(Incoming::Media(MediaBody::Fec(fec))) = message::decode(&packet.body) else {
        panic!("not parity")
    };
    fec
}

fn covered(fec: &FecPacket<'_>) -> Covered {
    Covered::decode(fec.first_packet_id.0, fec.shard_count, fec.runs.clone()).unwrap()
}

fn deliver(receiver: &mut VideoReceiver, packet: &Packet) -> Result<(), DropReason> {
    let (now, id) = (at(packet.frame), PacketId(packet.id));
    receiver.on_packet(now, id);
    match message::decode(&packet.body) {
        Ok(Incoming::Media(MediaBody::Video(chunk))) => receiver.handle_chunk(now, id, &packet.body, &chunk),
        Ok(Incoming::Media(MediaBody::Fec(fec))) => receiver.handle_fec(now, id, &fec),
        other => panic!("not media: {other:?}"),
    }
}

fn receiver() -> VideoReceiver {
    VideoReceiver::new(&ReceiverConfig { frame_bytes_max: 256 << 10, ..Default::default() })
}

fn encode(fec: message::proto::FecPacket) -> Vec<u8> {
    let media = message::proto::media_message::Media::Fec(fec);
    let media = message::proto::MediaMessage { media: Some(media) };
    let whole = message::proto::Message { body: Some(message::proto::message::Body::Media(media)) };
    prost::Message::encode_to_vec(&whole)
}

/// The frames that are handed out now; their bytes are those that were sent.
fn take(receiver: &mut VideoReceiver, now: u64, lens: &[usize]) -> Vec<u64> {
    let mut frames = Vec::new();
    while let Some(slice) = receiver.poll_slice(at(now)) {
        let frame = slice.frame_id.0;
        assert_eq!(slice.data, content(frame, lens[frame as usize]), "frame {frame}");
        frames.push(frame);
    }
    frames
}

/// Proves R-FEC-14.
#[test]
fn a_parity_covers_its_frame_and_those_before_and_no_row_repeats_where_they_overlap() {
    let mut sender = sender(SenderConfig::default(), 50);
    let mut next_id = 1_000;
    let mut data: BTreeMap<u64, u64> = BTreeMap::new();
    let mut rows: Vec<(u32, Covered)> = Vec::new();
    let (mut sliding, mut back) = (0, 0);
    for frame in 0..200 {
        let packets = send(&mut sender, &mut next_id, frame, 20_000 + (frame as usize * 7919) % 20_000);
        data.extend(packets.iter().filter(|p| p.kind == BatchKind::Data).map(|p| (p.id, p.frame)));
        for packet in packets.iter().filter(|p| p.kind == BatchKind::Parity) {
            let fec = fec(packet);
            if fec.code != 2 {
                assert!(frame < 2, "only before the length of frames is known");
                continue;
            }
            sliding += 1;
            let covered = covered(&fec);
            assert_eq!(
                (fec.frame_id, fec.group_id, fec.parity_index < 128),
                (FrameId(frame), GroupId(0), true)
            );
            assert!(covered.ids().all(|id| data.contains_key(&id)), "only data");
            let own: Vec<u64> = data.iter().filter(|(_, f)| **f == frame).map(|(id, _)| *id).collect();
            assert!(own.iter().all(|&id| covered.contains(id)), "all of its own frame");
            let oldest = data[&covered.first()];
            back = back.max(frame - oldest);
            // Frames between are covered whole.
            let between = data.iter().filter(|(id, f)| **f > oldest && **id < own[0]);
            assert!(between.clone().all(|(id, _)| covered.contains(*id)));
            for (row, other) in rows.iter().rev().take(127) {
                let overlaps = covered.ids().any(|id| other.contains(id));
                assert!(!overlaps || *row != fec.parity_index, "row {row} twice");
            }
            rows.push((fec.parity_index, covered));
        }
    }
    assert!(sliding > 200 && (1..=2).contains(&back), "{sliding} parities, {back} frames back");
}

/// Proves R-FEC-13.
#[test]
fn a_peer_that_does_not_know_it_gets_parity_for_each_frame() {
    let mut sender = sender(SenderConfig { sliding: false, ..SenderConfig::default() }, 50);
    let mut next_id = 0;
    for frame in 0..50 {
        let packets = send(&mut sender, &mut next_id, frame, 30_000);
        let parity: Vec<_> = packets.iter().filter(|p| p.kind == BatchKind::Parity).collect();
        assert!(!parity.is_empty());
        assert!(parity.iter().all(|p| fec(p).code == 1 && fec(p).frame_id == FrameId(frame)));
    }
}

/// 1 / a in GF(2^8) with 0x11d, by trying.
fn inverse(a: u8) -> u8 {
    (1..=255).find(|&b| product(a, b) == 1).unwrap_or(0)
}

fn product(a: u8, b: u8) -> u8 {
    let mut wide = (0..8).filter(|bit| b >> bit & 1 != 0).fold(0u16, |sum, bit| sum ^ u16::from(a) << bit);
    (8..16).rev().for_each(|bit| wide ^= if wide >> bit & 1 != 0 { 0x11d << (bit - 8) } else { 0 });
    wide as u8
}

/// Which of the lost ids the parities determine.
fn determined(parities: &[(u8, Covered)], lost: &BTreeSet<u64>) -> BTreeSet<u64> {
    let lost: Vec<u64> = lost.iter().copied().collect();
    let coefficient = |row: u8, covered: &Covered, id: u64| {
        if covered.contains(id) { inverse((128 + row) ^ (id % 128) as u8) } else { 0 }
    };
    let mut matrix: Vec<Vec<u8>> =
        parities.iter().map(|(row, c)| lost.iter().map(|&id| coefficient(*row, c, id)).collect()).collect();
    let mut rank = 0;
    for column in 0..lost.len() {
        let Some(found) = (rank..matrix.len()).find(|&row| matrix[row][column] != 0) else { continue };
        matrix.swap(rank, found);
        let factor = inverse(matrix[rank][column]);
        matrix[rank].iter_mut().for_each(|c| *c = product(*c, factor));
        let pivot = matrix[rank].clone();
        for (_, row) in matrix.iter_mut().enumerate().filter(|(at, _)| *at != rank) {
            let factor = row[column];
            row.iter_mut().zip(&pivot).for_each(|(c, &p)| *c ^= product(factor, p));
        }
        rank += 1;
    }
    let ones = |row: &&Vec<u8>| row.iter().filter(|&&c| c != 0).count() == 1;
    matrix.iter().filter(ones).filter_map(|row| Some(lost[row.iter().position(|&c| c != 0)?])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Proves R-FEC-15, R-FEC-5.
    #[test]
    fn what_the_parities_determine_is_recovered(seed: u64, one_in in 12u32..60) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut sender = sender(SenderConfig::default(), one_in);
        let (mut receiver, mut next_id) = (receiver(), rng.u64(..1000));
        let lens: Vec<usize> = (0..40).map(|_| 8_000 + rng.usize(..28_000)).collect();
        let (mut lost, mut parities, mut handed) = (BTreeSet::new(), Vec::new(), 0);
        for frame in 0..40 {
            for packet in send(&mut sender, &mut next_id, frame, lens[frame as usize]) {
                // The first frames are whole, so that the receiver has seen such parity.
                let is_lost = frame >= 6 && rng.u32(..one_in) == 0;
                let is_data = packet.kind == BatchKind::Data;
                if is_lost {
                    lost.extend(is_data.then_some(packet.id));
                    continue;
                }
                deliver(&mut receiver, &packet).unwrap();
                if !is_data && fec(&packet).code == 2 && frame >= 6 {
                    parities.push((fec(&packet).parity_index as u8, covered(&fec(&packet))));
                }
            }
            handed += take(&mut receiver, frame, &lens).len();
            let found = determined(&parities, &lost);
            prop_assert_eq!(receiver.counters().chunks_from_parity as usize, found.len(), "frame {}", frame);
            // What nobody could solve ends the picture; the code goes on for what is behind it.
            if lost.len() == found.len() {
                prop_assert_eq!(handed, frame as usize + 1);
            }
        }
        prop_assert!(receiver.counters().parity > 40);
    }

    /// Proves R-FEC-16: whatever comes, nothing grows, and what contradicts itself is dropped.
    #[test]
    fn hostile_parity_changes_nothing(seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut sender = sender(SenderConfig::default(), 50);
        let (mut receiver, mut next_id) = (receiver(), 0);
        let lens = [12_000; 60];
        let mut handed = 0;
        for frame in 0..60 {
            for packet in send(&mut sender, &mut next_id, frame, lens[frame as usize]) {
                deliver(&mut receiver, &packet).unwrap();
                if rng.u8(..4) != 0 {
                    continue;
                }
                let near = packet.id.wrapping_add(rng.u64(..300)).wrapping_sub(150);
                let numbers = if rng.bool() { 0 } else { rng.usize(..12) };
                let body = encode(message::proto::FecPacket {
                    group_id: rng.u64(..),
                    first_packet_id: if rng.u8(..8) == 0 { rng.u64(..) } else { near },
                    shard_count: rng.u32(..140),
                    parity_index: rng.u32(..140),
                    payload: vec![rng.u8(..); rng.usize(..1400)],
                    parity_count: rng.u32(..140),
                    frame_id: if rng.u8(..8) == 0 { rng.u64(..) } else { frame },
                    code: 2,
                    runs: (0..numbers).map(|_| rng.u32(..128)).collect(),
                    ..Default::default()
                });
                let Ok(Incoming::Media(MediaBody::Fec(fec))) = message::decode(&body) else { panic!() };
                let _ = receiver.handle_fec(at(frame), PacketId(packet.id), &fec);
            }
            handed += take(&mut receiver, frame, &lens).len();
        }
        prop_assert_eq!(handed, 60, "everything came");
    }
}

/// Proves R-FEC-15.
#[test]
fn a_packet_that_was_sent_again_stands_for_the_one_that_it_repeats() {
    // Its resend may come before the parity or after it.
    for is_early in [false, true] {
        let mut sender = sender(SenderConfig::default(), 50);
        let (mut receiver, mut next_id) = (receiver(), 0);
        let lens = [30_000; 12];
        for frame in 0..10 {
            for packet in send(&mut sender, &mut next_id, frame, 30_000) {
                deliver(&mut receiver, &packet).unwrap();
            }
            assert_eq!(take(&mut receiver, frame, &lens), [frame]);
        }
        let packets = send(&mut sender, &mut next_id, 10, 30_000);
        let parities = packets.iter().filter(|p| p.kind == BatchKind::Parity).count();
        let lost = parities + 1;
        let deliver_parity = |receiver: &mut VideoReceiver| {
            for packet in packets.iter().filter(|p| p.kind == BatchKind::Parity) {
                deliver(receiver, packet).unwrap();
            }
        };
        for packet in packets.iter().filter(|p| p.kind == BatchKind::Data).skip(lost) {
            deliver(&mut receiver, packet).unwrap();
        }
        if !is_early {
            deliver_parity(&mut receiver);
        }
        assert!(take(&mut receiver, 10, &lens).is_empty(), "one more is lost than there are parities");
        sender.on_nack(at(10), [PacketId(packets[1].id)].into_iter());
        let batch = sender.next_batch(at(10)).unwrap();
        assert_eq!((batch.kind, batch.count), (BatchKind::Retransmission, 1));
        let mut body = vec![0; 1500];
        let len = sender.write_body(PacketId(next_id), &mut body);
        body.truncate(len);
        deliver(&mut receiver, &Packet { id: next_id, frame: 10, kind: batch.kind, body }).unwrap();
        if is_early {
            deliver_parity(&mut receiver);
        }
        assert_eq!(take(&mut receiver, 10, &lens), [10]);
        assert_eq!(receiver.counters().chunks_from_parity as usize, parities);
    }
}

/// Proves R-FEC-15: what one frame lacks the next one brings.
#[test]
fn the_parity_of_the_next_frame_mends_what_its_own_could_not() {
    let mut sender = sender(SenderConfig::default(), 50);
    let (mut receiver, mut next_id) = (receiver(), 0);
    let lens = [30_000; 12];
    for frame in 0..12 {
        let packets = send(&mut sender, &mut next_id, frame, 30_000);
        let parities = packets.iter().filter(|p| p.kind == BatchKind::Parity).count();
        let lost = if frame == 10 { parities + 1 } else { 0 };
        for packet in &packets[lost..] {
            deliver(&mut receiver, packet).unwrap();
        }
        let expected = [vec![frame], vec![], vec![10, 11]];
        let which = frame.saturating_sub(9) as usize;
        assert_eq!(take(&mut receiver, frame, &lens), expected[which], "frame {frame}");
    }
}

//! The video sender from outside: what leaves, in which order, and what is done about loss.

mod recovery;

use proptest::prelude::*;
use rift_core::fec::{Code, Piece, recover};
use rift_core::message::{Incoming, MediaBody, decode};
use rift_core::send::{Batch, BatchKind, FramesDropped, SenderConfig, SliceMeta, VideoSender};
use rift_core::wire::TRANSPORT_OVERHEAD;
use rift_core::{Bitrate, DropReason, FrameId, PacketId, Timestamp};

const START: Timestamp = Timestamp::from_micros(7_000_000);

fn config() -> SenderConfig {
    SenderConfig {
        frames: 4,
        frame_bytes_max: 2 << 20,
        history_packets: 4096,
        code: Code::Xor,
        ..SenderConfig::default()
    }
}

fn slice(frame: u64, slice_index: u32, last_slice: bool) -> SliceMeta {
    SliceMeta {
        frame_id: FrameId(frame),
        slice_index,
        last_slice,
        keyframe: frame == 0,
        reference: frame.checked_sub(1).map(FrameId),
        timestamp: Timestamp::from_micros(6_990_000 + frame),
        capture_us: 1200,
        encode_us: 4100,
    }
}

fn whole(frame: u64) -> SliceMeta {
    slice(frame, 0, true)
}

fn bytes(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 7) as u8).collect()
}

/// A packet as it left.
#[derive(Clone, Debug)]
struct Sent {
    id: PacketId,
    kind: BatchKind,
    body: Vec<u8>,
}

/// A sender, its clock and its packet ids.
struct Host {
    sender: VideoSender,
    now: Timestamp,
    next_id: PacketId,
}

impl Host {
    fn new(config: &SenderConfig) -> Self {
        Self { sender: VideoSender::new(config), now: START, next_id: PacketId(0) }
    }

    fn submit(&mut self, meta: &SliceMeta, data: &[u8]) -> Result<(), DropReason> {
        self.sender.submit_slice(self.now, meta, data)
    }

    /// Takes one batch, checking that it is what it says.
    fn batch(&mut self) -> Option<(Batch, Vec<Sent>)> {
        let batch = self.sender.next_batch(self.now)?;
        let mut sent = Vec::new();
        for i in 0..batch.count {
            let mut out = [0; 1500];
            let len = self.sender.write_body(self.next_id, &mut out);
            assert_eq!(len, if i + 1 == batch.count { batch.last_body_len } else { batch.body_len });
            assert!(batch.last_body_len <= batch.body_len);
            sent.push(Sent { id: self.next_id, kind: batch.kind, body: out[..len].to_vec() });
            self.next_id = self.next_id.next();
        }
        assert_eq!(
            self.sender.write_body(self.next_id, &mut [0; 1500]),
            0,
            "a batch has no more than it says"
        );
        Some((batch, sent))
    }

    /// Takes all that may leave now.
    fn drain(&mut self) -> Vec<Sent> {
        std::iter::from_fn(|| self.batch()).flat_map(|(_, sent)| sent).collect()
    }

    /// Takes all there is, moving the clock to where pacing opens.
    fn drain_paced(&mut self) -> Vec<Sent> {
        let mut sent = self.drain();
        while self.sender.poll_timeout() != Timestamp::NEVER {
            let opens = self.sender.poll_timeout();
            assert!(opens > self.now, "nothing left though the sender said it could");
            self.now = opens;
            let more = self.drain();
            assert!(!more.is_empty(), "nothing left when pacing opened");
            sent.extend(more);
        }
        sent
    }

    fn nack(&mut self, ids: &[u64]) {
        self.sender.on_nack(self.now, ids.iter().copied().map(PacketId));
    }
}

/// Puts the chunks of one frame together, in whatever order they come; `None` if some are missing.
fn assemble(frame: u64, sent: &[Sent]) -> Option<Vec<u8>> {
    let mut chunks: Vec<(u32, u32, Vec<u8>)> = Vec::new();
    let mut slices = None;
    for packet in sent {
        if let Ok(Incoming::Media(MediaBody::Video(c))) = decode(&packet.body)
            && c.frame_id == FrameId(frame)
        {
            chunks.push((c.slice_index, c.chunk_index, c.payload.to_vec()));
            assert!(c.chunk_index < c.chunk_count);
            if c.last_slice {
                slices = Some(c.slice_index + 1);
            }
        }
    }
    chunks.sort();
    chunks.dedup();
    let count_of = |slice: u32| {
        sent.iter().find_map(|p| match decode(&p.body) {
            Ok(Incoming::Media(MediaBody::Video(c)))
                if c.frame_id == FrameId(frame) && c.slice_index == slice =>
            {
                Some(c.chunk_count)
            }
            _ => None,
        })
    };
    let expected: Option<u32> = (0..slices?).map(count_of).sum();
    (chunks.len() == expected? as usize).then(|| chunks.into_iter().flat_map(|(_, _, p)| p).collect())
}

/// Proves R-VID-1.
#[test]
fn a_slice_leaves_whole_in_equal_packets_that_fit_a_datagram() {
    for len in [1, 500, 1000, 1121, 42_000, 131_072] {
        let mut host = Host::new(&config());
        let data = bytes(len, 1);
        host.submit(&whole(0), &data).unwrap();
        assert_eq!(host.sender.poll_timeout().min(host.now), host.sender.poll_timeout());
        let sent = host.drain();
        assert_eq!(assemble(0, &sent).as_deref(), Some(&data[..]), "{len} bytes");
        assert!(sent.iter().all(|p| p.body.len() + TRANSPORT_OVERHEAD <= 1200));
        // The fields of a chunk take less than 64 bytes.
        assert!(sent.len() <= len.div_ceil(1200 - 34 - 64), "{} packets", sent.len());
        assert_eq!(host.sender.poll_timeout(), Timestamp::NEVER);
        assert_eq!(host.sender.counters().data_packets, sent.len() as u64);
    }
}

#[test]
fn chunks_carry_what_the_encoder_said() {
    let mut host = Host::new(&config());
    host.submit(&whole(0), &bytes(10, 0)).unwrap();
    host.drain();
    let meta = SliceMeta { reference: Some(FrameId(0)), ..slice(5, 0, false) };
    host.submit(&meta, &bytes(3000, 0)).unwrap();
    for (i, packet) in host.drain().iter().enumerate() {
        let Ok(Incoming::Media(MediaBody::Video(chunk))) = decode(&packet.body) else { panic!() };
        assert_eq!((chunk.frame_id, chunk.chunk_index, chunk.chunk_count), (FrameId(5), i as u32, 3));
        assert_eq!((chunk.timestamp_us, chunk.capture_us, chunk.encode_us), (6_990_005, 1200, 4100));
        assert_eq!((chunk.slice_index, chunk.last_slice, chunk.keyframe), (0, false, false));
        assert_eq!(chunk.reference_distance, 5);
    }
}

#[test]
fn a_slice_leaves_before_the_frame_is_whole() {
    let mut host = Host::new(&config());
    let parts: Vec<Vec<u8>> = (0..4).map(|i| bytes(3000 + i, i)).collect();
    let mut sent = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        host.submit(&slice(0, i as u32, i == 3), part).unwrap();
        let now = host.drain();
        assert_eq!(now.len(), 3, "slice {i}");
        sent.extend(now);
        host.now = host.now.plus_micros(1000);
    }
    assert_eq!(assemble(0, &sent), Some(parts.concat()));
}

#[test]
fn without_slices_a_frame_is_collected_and_leaves_as_one() {
    let mut host = Host::new(&SenderConfig { slices: false, ..config() });
    let parts: Vec<Vec<u8>> = (0..3).map(|i| bytes(3000, i)).collect();
    for (i, part) in parts.iter().enumerate() {
        assert!(host.drain().is_empty());
        host.submit(&slice(0, i as u32, i == 2), part).unwrap();
    }
    let sent = host.drain();
    for packet in &sent {
        let Ok(Incoming::Media(MediaBody::Video(chunk))) = decode(&packet.body) else { panic!() };
        assert_eq!((chunk.slice_index, chunk.last_slice), (0, true));
    }
    assert_eq!(assemble(0, &sent), Some(parts.concat()));
}

#[test]
fn slices_out_of_order_and_bad_metadata_are_refused() {
    let mut host = Host::new(&config());
    assert_eq!(host.submit(&whole(0), &[]), Err(DropReason::Malformed));
    let own_reference = SliceMeta { reference: Some(FrameId(0)), ..whole(0) };
    assert_eq!(host.submit(&own_reference, &[1]), Err(DropReason::Malformed));
    host.submit(&slice(0, 0, false), &[1]).unwrap();
    assert_eq!(host.submit(&slice(0, 0, false), &[1]), Err(DropReason::Duplicate));
    host.submit(&slice(0, 1, true), &[1]).unwrap();
    assert_eq!(host.submit(&slice(0, 2, true), &[1]), Err(DropReason::Unexpected));
    host.submit(&slice(1, 0, false), &[1]).unwrap();
    assert_eq!(host.submit(&whole(0), &[1]), Err(DropReason::Stale));
    // A gap costs the frame, and what predicts from it.
    assert_eq!(host.submit(&slice(1, 2, false), &[1]), Err(DropReason::Unexpected));
    assert_eq!(host.submit(&slice(1, 1, false), &[1]), Err(DropReason::Stale));
    assert_eq!(host.submit(&whole(2), &[1]), Err(DropReason::Stale));
    assert!(host.sender.poll_dropped().is_some());
}

#[test]
fn a_frame_that_does_not_fit_is_given_up_and_the_encoder_told() {
    let mut host = Host::new(&SenderConfig { frame_bytes_max: 10_000, slices_max: 2, ..config() });
    host.submit(&whole(0), &bytes(100, 0)).unwrap();
    host.drain();
    assert_eq!(host.submit(&whole(1), &bytes(10_001, 0)), Err(DropReason::NoRoom));
    assert!(host.drain().is_empty());
    assert_eq!(
        host.sender.poll_dropped(),
        Some(FramesDropped { first: FrameId(1), last_valid: Some(FrameId(0)) })
    );
    assert_eq!(host.sender.poll_dropped(), None);
    // Too many slices: the same.
    let past = |i| SliceMeta { reference: Some(FrameId(0)), ..slice(2, i, false) };
    host.submit(&past(0), &[1]).unwrap();
    host.submit(&past(1), &[1]).unwrap();
    assert_eq!(host.submit(&past(2), &[1]), Err(DropReason::NoRoom));
    assert_eq!(host.sender.counters().frames_dropped_stale, 2);
}

// ---- parity ------------------------------------------------------------------------------------

/// Proves R-FEC-1, R-FEC-2, R-FEC-3.
#[test]
fn parity_follows_its_group_at_once_under_consecutive_ids() {
    let mut host = Host::new(&SenderConfig { parity: 0.2, ..config() });
    host.submit(&whole(0), &bytes(100_000, 3)).unwrap();
    let mut data: Option<(Batch, Vec<Sent>)> = None;
    let mut groups = 0;
    while let Some((batch, sent)) = host.batch() {
        match data.take() {
            None => {
                assert_eq!(batch.kind, BatchKind::Data);
                data = Some((batch, sent));
            }
            Some((group, shards)) => {
                assert_eq!(batch.kind, BatchKind::Parity);
                assert_eq!(batch.count, (2 * group.count + 5) / 10, "a fifth, to the nearest number");
                assert_eq!(sent[0].id.0, shards[0].id.0 + group.count as u64);
                for (p, packet) in sent.iter().enumerate() {
                    assert!(packet.body.len() + TRANSPORT_OVERHEAD <= 1200);
                    let Ok(Incoming::Media(MediaBody::Fec(fec))) = decode(&packet.body) else { panic!() };
                    assert_eq!(fec.group_id.0, groups);
                    assert_eq!(fec.first_packet_id, shards[0].id);
                    assert_eq!((fec.shard_count, fec.parity_count), (group.count as u32, batch.count as u32));
                    assert_eq!((fec.parity_index, fec.frame_id), (p as u32, FrameId(0)));
                    for (i, shard) in shards.iter().enumerate() {
                        assert_eq!(fec.shard_len(i as u32), Some(shard.body.len() as u32));
                    }
                }
                groups += 1;
            }
        }
    }
    assert!(data.is_none() && groups == 2);
}

#[test]
fn a_ratio_times_a_whole_number_is_not_rounded_up() {
    for (ratio, count) in
        [(0.2, 8), (0.1, 4), (0.0, 0), (1.0, 40), (0.001, 1), (7.5, 40), (-1.0, 0), (f32::NAN, 0)]
    {
        let mut host = Host::new(&SenderConfig { parity: ratio, ..config() });
        // 40 chunks.
        host.submit(&whole(0), &bytes(42_500, 0)).unwrap();
        let sent = host.drain();
        let parity = sent.iter().filter(|p| p.kind == BatchKind::Parity).count();
        assert_eq!(parity, count, "{ratio}: {} data packets", sent.len() - parity);
    }
}

#[test]
fn a_group_with_a_gap_in_its_ids_leaves_without_parity() {
    let mut host = Host::new(&SenderConfig { parity: 0.2, ..config() });
    host.submit(&whole(0), &bytes(5000, 0)).unwrap();
    let batch = host.sender.next_batch(START).unwrap();
    for i in 0..batch.count as u64 {
        assert!(host.sender.write_body(PacketId(i * 2), &mut [0; 1500]) > 0);
    }
    assert_eq!(host.sender.next_batch(START), None);
    assert_eq!(host.sender.counters().parity_abandoned, 1);
}

#[test]
fn a_batch_that_was_not_written_out_goes_on() {
    let mut host = Host::new(&SenderConfig { parity: 0.2, ..config() });
    let data = bytes(5000, 0);
    host.submit(&whole(0), &data).unwrap();
    let first = host.sender.next_batch(START).unwrap();
    assert_eq!(host.sender.write_body(PacketId(0), &mut [0; 100]), 0, "too short a buffer takes nothing");
    let mut out = [0; 1500];
    let len = host.sender.write_body(PacketId(0), &mut out);
    let mut sent = vec![Sent { id: PacketId(0), kind: first.kind, body: out[..len].to_vec() }];
    host.next_id = PacketId(1);
    assert_eq!(host.sender.poll_timeout(), Timestamp::ZERO);
    let (rest, bodies) = host.batch().unwrap();
    assert_eq!((rest.kind, rest.count), (BatchKind::Data, first.count - 1));
    sent.extend(bodies);
    assert_eq!(assemble(0, &sent).as_deref(), Some(&data[..]));
    assert_eq!(host.batch().unwrap().0.kind, BatchKind::Parity);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever single packet of each parity's shards is lost, the receiver gets every body back.
    #[test]
    fn every_single_loss_in_every_group_is_recovered(
        lens in prop::collection::vec(1usize..120_000, 1..4), ratio in 0.02f32..0.6, loss: u64,
        first_id in 0u64..1 << 40,
    ) {
        let mut host = Host::new(&SenderConfig { parity: ratio, ..config() });
        host.next_id = PacketId(first_id);
        for (i, len) in lens.iter().enumerate() {
            host.submit(&slice(0, i as u32, i + 1 == lens.len()), &bytes(*len, i)).unwrap();
        }
        let sent = host.drain_paced();
        let body_of = |id: u64| sent.iter().find(|p| p.id.0 == id).map(|p| &p.body);
        let mut recovered = 0;
        for packet in &sent {
            let Ok(Incoming::Media(MediaBody::Fec(fec))) = decode(&packet.body) else { continue };
            let class: Vec<u32> = (0..fec.shard_count)
                .filter(|&i| Code::Xor.covers(fec.parity_index, fec.parity_count, i))
                .collect();
            let lost = class[(loss % class.len() as u64) as usize];
            let id_of = |i: u32| fec.first_packet_id.0 + u64::from(i);
            let mut shard = fec.payload.to_vec();
            recover(&mut shard, class.iter().filter(|&&i| i != lost).map(|&i| {
                Piece { at: 0, bytes: body_of(id_of(i)).unwrap() }
            }));
            shard.truncate(fec.shard_len(lost).unwrap() as usize);
            prop_assert_eq!(&shard, body_of(id_of(lost)).unwrap());
            recovered += 1;
        }
        prop_assert!(recovered > 0);
        let expected: Vec<u8> = lens.iter().enumerate().flat_map(|(i, len)| bytes(*len, i)).collect();
        prop_assert_eq!(assemble(0, &sent), Some(expected));
    }
}

// ---- pacing ------------------------------------------------------------------------------------

#[test]
fn a_frame_of_128_kib_leaves_at_once_with_its_parity_whatever_the_rate() {
    let mut host = Host::new(&SenderConfig { parity: 0.2, pacing: Bitrate::from_mbps(10), ..config() });
    let data = bytes(131_072, 0);
    host.submit(&whole(0), &data).unwrap();
    let sent = host.drain();
    assert_eq!(assemble(0, &sent).as_deref(), Some(&data[..]));
    assert!(sent.iter().any(|p| p.kind == BatchKind::Parity));
    assert_eq!(host.sender.poll_timeout(), Timestamp::NEVER);
}

/// Proves R-PRIO-2.
#[test]
fn a_long_frame_leaves_in_bursts_at_the_pacing_rate() {
    let rate = Bitrate::from_mbps(100);
    let mut host = Host::new(&SenderConfig { pacing: rate, ..config() });
    host.submit(&whole(0), &bytes(1 << 20, 0)).unwrap();
    let mut sent_bytes = 0u64;
    let mut bursts = 0;
    while host.sender.poll_timeout() != Timestamp::NEVER {
        host.now = host.now.max(host.sender.poll_timeout());
        let burst: u64 = host.drain().iter().map(|p| (p.body.len() + TRANSPORT_OVERHEAD) as u64).sum();
        assert!(burst > 0 && burst <= 131_072 * 12 / 10);
        sent_bytes += burst;
        bursts += 1;
        let allowed = rate.bytes_in(host.now.micros_since(START)) + 131_072 * 12 / 10;
        assert!(sent_bytes <= allowed, "{sent_bytes} bytes left where {allowed} were allowed");
        assert!(host.sender.next_batch(host.now).is_none());
    }
    assert!(bursts >= 8);
    let took_us = host.now.micros_since(START);
    assert!(took_us >= rate.micros_for(sent_bytes - 140_000) && took_us <= rate.micros_for(sent_bytes));
}

#[test]
fn a_megabyte_leaves_within_one_and_a_half_milliseconds_by_default() {
    let mut host = Host::new(&config());
    host.submit(&whole(0), &bytes(1 << 20, 0)).unwrap();
    let sent = host.drain_paced();
    assert!(assemble(0, &sent).is_some());
    assert!(host.now.micros_since(START) <= 1500, "{} us", host.now.micros_since(START));
}

#[test]
fn a_higher_rate_opens_pacing_earlier() {
    let mut host = Host::new(&SenderConfig { pacing: Bitrate::from_mbps(10), ..config() });
    host.submit(&whole(0), &bytes(1 << 20, 0)).unwrap();
    host.drain();
    let slow = host.sender.poll_timeout();
    host.sender.set_rate(Bitrate::from_mbps(1000));
    host.now = host.now.plus_micros(10_000);
    assert!(slow > host.now);
    assert!(!host.drain().is_empty());
}

#[test]
fn clock_jumps_neither_panic_nor_stop_the_stream() {
    let mut host = Host::new(&SenderConfig { pacing: Bitrate::from_mbps(50), parity: 0.2, ..config() });
    for (frame, us) in [7_000_000, 0, u64::MAX, 3, u64::MAX - 1, 1_000_000].into_iter().enumerate() {
        host.now = Timestamp::from_micros(us);
        let meta = SliceMeta { keyframe: true, reference: None, ..whole(frame as u64) };
        host.submit(&meta, &bytes(300_000, 0)).unwrap();
        host.drain();
        host.nack(&[0, 1, u64::MAX]);
        host.now = host.now.plus_micros(400_000);
        assert!(us > u64::MAX / 2 || !host.drain().is_empty(), "stopped at {us}");
    }
}

// ---- stale frames ------------------------------------------------------------------------------

fn slow() -> SenderConfig {
    SenderConfig { pacing: Bitrate::from_mbps(10), queue_us_max: 50_000, ..config() }
}

/// Proves R-VID-7.
#[test]
fn a_frame_that_waited_too_long_is_dropped_and_so_is_what_needs_it() {
    let mut host = Host::new(&slow());
    host.submit(&whole(0), &bytes(1000, 0)).unwrap();
    host.drain();
    host.submit(&whole(1), &bytes(400_000, 0)).unwrap();
    host.drain();
    host.now = host.now.plus_micros(60_000);
    assert_eq!(host.submit(&whole(2), &bytes(1000, 0)), Err(DropReason::Stale));
    assert_eq!(
        host.sender.poll_dropped(),
        Some(FramesDropped { first: FrameId(1), last_valid: Some(FrameId(0)) })
    );
    assert_eq!(host.submit(&whole(3), &bytes(1000, 0)), Err(DropReason::Stale));
    // The encoder goes on from the last frame that left whole.
    let past = SliceMeta { reference: Some(FrameId(0)), ..whole(4) };
    host.submit(&past, &bytes(1000, 4)).unwrap();
    host.now = host.now.plus_micros(100_000);
    let sent = host.drain();
    assert_eq!(assemble(4, &sent), Some(bytes(1000, 4)));
    assert!(sent.iter().all(|p| matches!(decode(&p.body),
        Ok(Incoming::Media(MediaBody::Video(c))) if c.frame_id == FrameId(4))));
    host.submit(&whole(5), &bytes(10, 0)).unwrap();
    let counters = host.sender.counters();
    assert_eq!((counters.frames_dropped_stale, counters.frames_refused), (1, 2));
}

#[test]
fn a_frame_waits_for_an_older_one_that_it_needs_and_that_is_fresh() {
    let mut host = Host::new(&slow());
    host.submit(&whole(0), &bytes(200_000, 0)).unwrap();
    host.drain();
    host.now = host.now.plus_micros(16_000);
    host.submit(&whole(1), &bytes(1000, 1)).unwrap();
    let sent = host.drain_paced();
    assert_eq!(assemble(1, &sent), Some(bytes(1000, 1)));
    assert_eq!(host.sender.poll_dropped(), None);
}

#[test]
fn a_keyframe_never_waits_behind_what_nobody_needs_any_more() {
    for reference in [None, Some(FrameId(0))] {
        let mut host = Host::new(&slow());
        host.submit(&whole(0), &bytes(1000, 0)).unwrap();
        host.drain();
        host.submit(&whole(1), &bytes(400_000, 0)).unwrap();
        host.drain();
        let meta = SliceMeta { keyframe: reference.is_none(), reference, ..whole(2) };
        host.submit(&meta, &bytes(1000, 2)).unwrap();
        host.now = host.sender.poll_timeout();
        let sent = host.drain();
        assert_eq!(assemble(2, &sent), Some(bytes(1000, 2)));
        assert_eq!(assemble(1, &sent), None);
        assert_eq!(host.sender.poll_timeout(), Timestamp::NEVER);
        assert_eq!(host.sender.poll_dropped(), None, "the encoder already went past it");
        assert_eq!(host.sender.counters().frames_dropped_unneeded, 1);
    }
}

#[test]
fn a_frame_that_the_encoder_never_finished_is_given_up() {
    let mut host = Host::new(&config());
    host.submit(&slice(0, 0, false), &bytes(1000, 0)).unwrap();
    assert_eq!(host.submit(&whole(1), &bytes(1000, 0)), Err(DropReason::Stale));
    assert_eq!(host.sender.poll_dropped(), Some(FramesDropped { first: FrameId(0), last_valid: None }));
    assert!(host.drain().is_empty());
}

#[test]
fn more_waiting_frames_than_slots_give_up_the_oldest() {
    let mut host = Host::new(&SenderConfig { queue_us_max: u64::MAX, ..slow() });
    host.submit(&whole(0), &bytes(400_000, 0)).unwrap();
    host.drain();
    for frame in 1..4 {
        host.submit(&whole(frame), &bytes(10, 0)).unwrap();
    }
    assert_eq!(host.submit(&whole(4), &bytes(10, 0)), Err(DropReason::NoRoom));
    assert!(host.sender.poll_dropped().is_some());
    let key = SliceMeta { keyframe: true, reference: None, ..whole(5) };
    host.submit(&key, &bytes(10, 5)).unwrap();
    assert_eq!(assemble(5, &host.drain_paced()), Some(bytes(10, 5)));
}

// ---- loss --------------------------------------------------------------------------------------

#[test]
fn packet_ids_across_two_to_the_32_are_remembered() {
    let mut host = Host::new(&SenderConfig { parity: 0.2, ..config() });
    host.next_id = PacketId((1 << 32) - 3);
    host.submit(&whole(0), &bytes(7000, 0)).unwrap();
    let first = host.drain();
    host.nack(&[(1 << 32) - 1, 1 << 32]);
    let again = host.drain();
    assert_eq!(again.iter().map(|p| &p.body).collect::<Vec<_>>(), [&first[2].body, &first[3].body]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Random loss, reported a round trip later: every frame is whole in the end, from chunks alone.
    #[test]
    fn every_frame_is_whole_after_reports(
        lens in prop::collection::vec(1usize..60_000, 1..12), slices in 1usize..5,
        loss_percent in 0u64..15, seed: u64,
    ) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut host = Host::new(&SenderConfig { burst_bytes_max: 1 << 20, ..config() });
        host.sender.set_rtt(4000);
        for (frame, len) in lens.iter().enumerate() {
            let data = bytes(*len, frame);
            let parts: Vec<&[u8]> = data.chunks(len.div_ceil(slices)).collect();
            let mut arrived = Vec::new();
            for (i, part) in parts.iter().enumerate() {
                host.submit(&slice(frame as u64, i as u32, i + 1 == parts.len()), part).unwrap();
                let mut sent = host.drain();
                for _ in 0..8 {
                    let (lost, ok): (Vec<_>, Vec<_>) =
                        sent.into_iter().partition(|_| rng.u64(..100) < loss_percent);
                    arrived.extend(ok);
                    host.now = host.now.plus_micros(4000);
                    host.sender.on_nack(host.now, lost.iter().map(|p| p.id));
                    sent = host.drain();
                }
            }
            if let Some(whole) = assemble(frame as u64, &arrived) {
                prop_assert_eq!(whole, data);
            } else {
                prop_assert!(host.sender.counters().nacks_late > 0);
            }
        }
    }
}

/// Slices that change hands leave as those that are copied do, and empty buffers come back: of a peer that takes no
/// slices too, and of slices that are refused.
#[test]
fn exchanged_buffers_leave_as_copied_slices_do() {
    for slices in [true, false] {
        let config = SenderConfig { slices, ..config() };
        let (mut copied, mut exchanged) = (Host::new(&config), Host::new(&config));
        for frame in 0..20 {
            for index in 0..3 {
                let (meta, data) =
                    (slice(frame, index, index == 2), bytes(7000 + 100 * frame as usize, frame as usize));
                let mut buffer = data.clone();
                exchanged.sender.submit_buffer(START, &meta, &mut buffer).unwrap();
                assert!(buffer.is_empty());
                copied.submit(&meta, &data).unwrap();
            }
            let bodies =
                |host: &mut Host| host.drain_paced().into_iter().map(|sent| sent.body).collect::<Vec<_>>();
            let left = bodies(&mut exchanged);
            assert!(left.len() > 15);
            assert_eq!(left, bodies(&mut copied), "frame {frame}");
            exchanged.now = copied.now;
        }
        let mut stale = bytes(100, 1);
        assert_eq!(exchanged.sender.submit_buffer(START, &whole(3), &mut stale), Err(DropReason::Stale));
        let mut large = vec![0; config.frame_bytes_max + 1];
        assert_eq!(exchanged.sender.submit_buffer(START, &whole(30), &mut large), Err(DropReason::NoRoom));
        assert!(stale.is_empty() && large.is_empty());
    }
}

//! The sender that ships against the receiver that ships, over a path that loses packets.

#![allow(clippy::unwrap_used, reason = "code of tests")]

use std::collections::BTreeMap;

use rift_core::message::{self, Incoming, MediaBody};
use rift_core::receive::{ReceiverConfig, VideoReceiver};
use rift_core::send::{SenderConfig, SliceMeta, VideoSender};
use rift_core::{FrameId, PacketId, Timestamp};

const ONE_WAY_US: u64 = 10_000;
const FRAMES: u64 = 300;

struct Outcome {
    frames: u64,
    from_parity: u64,
    resent: u64,
    requests: u64,
}

fn stream(loss_percent: u32, parity: f32, seed: u64) -> Outcome {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut sender = VideoSender::new(&SenderConfig { parity, ..SenderConfig::default() });
    let mut receiver = VideoReceiver::new(&ReceiverConfig::default());
    sender.set_rtt(2 * ONE_WAY_US);
    receiver.set_rtt(2 * ONE_WAY_US, 500);
    let mut flight: BTreeMap<(u64, u64), Vec<u8>> = BTreeMap::new();
    let mut nacks: BTreeMap<(u64, u64), PacketId> = BTreeMap::new();
    let mut pictures: BTreeMap<(u64, u32), Vec<u8>> = BTreeMap::new();
    let mut next_id = 0u64;
    let (mut frame, mut frames, mut requests) = (0, 0, 0);
    for now in (0..FRAMES * 16_667 + 100_000).step_by(200) {
        let time = Timestamp::from_micros(now);
        if frame < FRAMES && now >= frame * 16_667 {
            for slice_index in 0..4u32 {
                let mut data = vec![0; rng.usize(500..20_000)];
                rng.fill(&mut data);
                let meta = SliceMeta {
                    frame_id: FrameId(frame),
                    slice_index,
                    last_slice: slice_index == 3,
                    keyframe: frame == 0,
                    reference: frame.checked_sub(1).map(FrameId),
                    timestamp: time,
                    capture_us: 1000,
                    encode_us: 4000,
                };
                sender.submit_slice(time, &meta, &data).unwrap();
                pictures.insert((frame, slice_index), data);
            }
            frame += 1;
        }
        while nacks.first_key_value().is_some_and(|((at, _), _)| *at <= now) {
            let (_, id) = nacks.pop_first().unwrap();
            sender.on_nack(time, std::iter::once(id));
        }
        while let Some(batch) = sender.next_batch(time) {
            for _ in 0..batch.count {
                let mut body = vec![0; 1500];
                let len = sender.write_body(PacketId(next_id), &mut body);
                body.truncate(len);
                if rng.u32(0..100) >= loss_percent {
                    flight.insert((now + ONE_WAY_US, next_id), body);
                }
                next_id += 1;
            }
        }
        while flight.first_key_value().is_some_and(|((at, _), _)| *at <= now) {
            let ((_, id), body) = flight.pop_first().unwrap();
            receiver.on_packet(time, PacketId(id));
            let _ = match message::decode(&body).unwrap() {
                Incoming::Media(MediaBody::Video(chunk)) => {
                    receiver.handle_chunk(time, PacketId(id), &body, &chunk)
                }
                Incoming::Media(MediaBody::Fec(fec)) => receiver.handle_fec(time, PacketId(id), &fec),
                other => panic!("not media: {other:?}"),
            };
        }
        if receiver.poll_timeout() <= time {
            receiver.handle_timeout(time);
        }
        while let Some(slice) = receiver.poll_slice(time) {
            let at = (slice.frame_id.0, slice.index);
            assert_eq!(Some(slice.data), pictures.remove(&at).as_deref(), "{at:?}");
            if slice.last {
                frames += 1;
                sender.on_frame_acked(slice.frame_id);
            }
        }
        let mut ids = [PacketId(0); 32];
        let asked = receiver.poll_nack(time, &mut ids);
        for id in &ids[..asked] {
            if rng.u32(0..100) >= loss_percent {
                nacks.insert((now + ONE_WAY_US, id.0), *id);
            }
        }
        while receiver.poll_request(time).is_some() {
            requests += 1;
        }
    }
    let counters = receiver.counters();
    let (from_parity, resent) = (counters.chunks_from_parity, counters.chunks_resent);
    Outcome { frames, from_parity, resent, requests }
}

#[test]
fn a_clean_path_repairs_nothing() {
    let outcome = stream(0, 0.2, 1);
    assert_eq!(outcome.frames, FRAMES);
    assert_eq!((outcome.from_parity, outcome.resent, outcome.requests), (0, 0, 0));
}

#[test]
fn resends_alone_repair_two_percent_loss() {
    let outcome = stream(2, 0.0, 2);
    assert_eq!(outcome.frames, FRAMES);
    assert!(outcome.resent > 100 && outcome.from_parity == 0);
    assert_eq!(outcome.requests, 0);
}

#[test]
fn parity_spares_most_resends() {
    let outcome = stream(2, 0.2, 3);
    assert_eq!((outcome.frames, outcome.requests), (FRAMES, 0));
    assert!(outcome.from_parity > 100 && outcome.resent < outcome.from_parity / 4);
}

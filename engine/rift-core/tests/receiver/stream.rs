//! A stream over a lossy path with a host that answers: no freezes, no needless keyframes.

use std::collections::BTreeMap;

use rift_core::receive::{ReceiverConfig, RecoveryRequest, VideoReceiver};
use rift_core::{PacketId, Timestamp};

use crate::packetiser::{FrameSpec, Packet, Packetiser, deliver, picture};

const FRAME_US: u64 = 16_667;
const ONE_WAY_US: u64 = 10_000;

#[derive(Debug, Default)]
struct Result {
    shown: u64,
    frames: u64,
    longest_freeze_us: u64,
    late: u64,
    invalidations: u64,
    keyframes: u64,
    nacks: u64,
}

#[derive(Clone, Copy)]
struct Path {
    loss_percent: f64,
    /// After a loss, the next packet is lost with this chance as well.
    burst_percent: f64,
    jitter_us: u64,
    parity_percent: usize,
    slices: usize,
}

enum ToHost {
    Nack(PacketId),
    Invalidate(u64),
    Keyframe,
}

fn run(path: Path, seconds: u64, seed: u64) -> Result {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut sender = Packetiser::new(1000, 48, path.parity_percent);
    let mut receiver =
        VideoReceiver::new(&ReceiverConfig { frame_bytes_max: 256 << 10, ..Default::default() });
    receiver.set_rtt(2 * ONE_WAY_US, 500);
    let mut to_client: BTreeMap<(u64, u64), Packet> = BTreeMap::new();
    let mut to_host: BTreeMap<(u64, u64), ToHost> = BTreeMap::new();
    let mut order = 0u64;
    let mut in_burst = false;
    let mut lost = |rng: &mut fastrand::Rng| {
        let chance = if in_burst { path.burst_percent } else { path.loss_percent };
        in_burst = rng.f64() * 100.0 < chance;
        in_burst
    };
    let mut result = Result::default();
    let mut sent: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
    let (mut next_frame, mut last_shown) = (0u64, None);
    let (mut want_keyframe, mut reference) = (true, None);
    let end = seconds * 1_000_000;
    let mut now = 0u64;
    while now < end {
        now += 250;
        let time = Timestamp::from_micros(now);
        while to_host.first_key_value().is_some_and(|((at, _), _)| *at <= now) {
            match to_host.pop_first().unwrap().1 {
                ToHost::Nack(id) => {
                    if let Some(packet) = sender.resend(id) {
                        order += 1;
                        if !lost(&mut rng) {
                            to_client.insert((now + ONE_WAY_US, order), packet);
                        }
                    }
                }
                ToHost::Invalidate(frame) => reference = Some(frame),
                ToHost::Keyframe => want_keyframe = true,
            }
        }
        if now > next_frame * FRAME_US {
            let id = next_frame;
            next_frame += 1;
            let distance = match reference.take() {
                _ if want_keyframe => 0,
                Some(good) => (id - good) as u32,
                None => 1,
            };
            result.keyframes += u64::from(want_keyframe);
            let size = if want_keyframe { 120_000 } else { rng.usize(8_000..40_000) };
            want_keyframe = false;
            let spec = FrameSpec { id, reference_distance: distance, timestamp_us: now };
            let slices: Vec<_> = (0..path.slices).map(|i| picture(id, i, size / path.slices)).collect();
            for packet in sender.frame(spec, &slices) {
                order += 1;
                if !lost(&mut rng) {
                    to_client.insert((now + ONE_WAY_US + rng.u64(0..=path.jitter_us), order), packet);
                }
            }
            sent.insert(id, slices);
            sent.retain(|&old, _| old + 100 > id);
            let newest = sender.next_id;
            sender.history.retain(|&old, _| old + 20_000 > newest);
        }
        while to_client.first_key_value().is_some_and(|((at, _), _)| *at <= now) {
            let packet = to_client.pop_first().unwrap().1;
            let _ = deliver(&mut receiver, time, &packet);
        }
        if receiver.poll_timeout() <= time {
            receiver.handle_timeout(time);
        }
        let mut decoded = Vec::new();
        while let Some(slice) = receiver.poll_slice(time) {
            assert_eq!(slice.data, sent[&slice.frame_id.0][slice.index as usize]);
            if slice.last {
                result.frames += 1;
                decoded.push(slice.frame_id);
                if slice.show {
                    assert!(time <= slice.deadline);
                    let freeze = now - last_shown.unwrap_or(now);
                    result.longest_freeze_us = result.longest_freeze_us.max(freeze);
                    last_shown = Some(now);
                    result.shown += 1;
                } else {
                    result.late += 1;
                }
            }
        }
        for frame in decoded {
            receiver.on_decoded(time, frame);
        }
        let mut ids = [PacketId(0); 64];
        let asked = receiver.poll_nack(time, &mut ids);
        result.nacks += asked as u64;
        let mut feedback: Vec<ToHost> = ids[..asked].iter().map(|&id| ToHost::Nack(id)).collect();
        while let Some(request) = receiver.poll_request(time) {
            match request {
                RecoveryRequest::InvalidateReference { last_valid } => {
                    result.invalidations += 1;
                    feedback.push(ToHost::Invalidate(last_valid.0));
                }
                RecoveryRequest::Keyframe { .. } => feedback.push(ToHost::Keyframe),
                RecoveryRequest::SkipFrames(_) => {}
            }
        }
        for message in feedback {
            order += 1;
            if !lost(&mut rng) {
                to_host.insert((now + ONE_WAY_US, order), message);
            }
        }
    }
    result
}

const CLEAN: Path =
    Path { loss_percent: 0.0, burst_percent: 0.0, jitter_us: 0, parity_percent: 0, slices: 1 };

#[test]
fn a_clean_path_shows_every_frame_and_asks_for_nothing() {
    for slices in [1, 4] {
        for jitter_us in [0, 200] {
            let result = run(Path { slices, jitter_us, ..CLEAN }, 20, 1);
            assert_eq!((result.nacks, result.invalidations, result.keyframes, result.late), (0, 0, 1, 0));
            assert!(result.shown >= 20 * 60 - 2, "{}", result.shown);
            assert!(result.longest_freeze_us <= 18_000, "{}", result.longest_freeze_us);
        }
    }
}

#[test]
fn two_percent_loss_at_twenty_milliseconds_never_freezes_and_needs_no_keyframe() {
    for (parity_percent, slices) in [(0, 1), (0, 4), (20, 1), (10, 4)] {
        for seed in 0..2 {
            let path = Path { loss_percent: 2.0, burst_percent: 2.0, jitter_us: 100, parity_percent, slices };
            let result = run(path, 60, seed);
            let what = format!("parity {parity_percent} %, {slices} slices, seed {seed}");
            assert_eq!(result.keyframes, 1, "{what}");
            assert!(result.longest_freeze_us <= 100_000, "{what}: {} us", result.longest_freeze_us);
            assert!(result.frames >= 60 * 60 - 8, "{what}: {} frames", result.frames);
            if parity_percent >= 10 {
                assert!(result.nacks < 60 * 60 * 2, "{what}: {} requests", result.nacks);
            }
        }
    }
}

#[test]
fn bursts_of_loss_are_survived_without_a_keyframe() {
    for seed in 0..4 {
        // Runs of ten packets on average, 3 % in all.
        let path =
            Path { loss_percent: 0.3, burst_percent: 90.0, jitter_us: 100, parity_percent: 10, slices: 2 };
        let result = run(path, 60, seed);
        assert!(result.keyframes <= 2, "seed {seed}: {} keyframes", result.keyframes);
        assert!(result.longest_freeze_us <= 200_000, "seed {seed}: {} us", result.longest_freeze_us);
    }
}

#[test]
fn a_path_that_loses_a_tenth_still_delivers() {
    let path = Path { loss_percent: 10.0, burst_percent: 10.0, jitter_us: 0, parity_percent: 30, slices: 1 };
    let result = run(path, 20, 9);
    assert_eq!(result.keyframes, 1, "{result:?}");
    assert!(result.frames >= 20 * 60 - 8 && result.shown > 20 * 60 * 6 / 10, "{result:?}");
    assert!(result.longest_freeze_us <= 120_000, "{result:?}");
}

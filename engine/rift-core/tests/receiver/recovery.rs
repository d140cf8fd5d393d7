//! What is asked for again, when, and what is asked of the encoder when that is not enough.

use rift_core::receive::{ReceiverConfig, RecoveredBy, RecoveryRequest, VideoReceiver};
use rift_core::{FrameId, PacketId, Timestamp};

use crate::packetiser::{FrameSpec, Packet, Packetiser, deliver, picture};

const RTT: u64 = 20_000;
/// Longer than any patience with reordering at the start.
const PATIENCE: u64 = 600;

fn at(us: u64) -> Timestamp {
    Timestamp::from_micros(us)
}

struct Rig {
    receiver: VideoReceiver,
    sender: Packetiser,
}

impl Rig {
    fn new() -> Self {
        let mut receiver =
            VideoReceiver::new(&ReceiverConfig { frame_bytes_max: 64 << 10, ..Default::default() });
        receiver.set_rtt(RTT, 0);
        Self { receiver, sender: Packetiser::new(1000, 48, 0) }
    }

    fn packets(&mut self, spec: FrameSpec, len: usize) -> Vec<Packet> {
        self.sender.frame(spec, &[picture(spec.id, 0, len)])
    }

    /// Gives a frame's packets but those at the positions in `lost`.
    fn frame(&mut self, us: u64, spec: FrameSpec, len: usize, lost: &[usize]) -> Vec<PacketId> {
        let packets = self.packets(spec, len);
        for (_, packet) in packets.iter().enumerate().filter(|(i, _)| !lost.contains(i)) {
            deliver(&mut self.receiver, at(us), packet).unwrap();
        }
        packets.iter().map(|p| p.id).collect()
    }

    fn nacks(&mut self, us: u64) -> Vec<u64> {
        let mut out = [PacketId(0); 64];
        let count = self.receiver.poll_nack(at(us), &mut out);
        out[..count].iter().map(|id| id.0).collect()
    }

    fn resend(&mut self, us: u64, id: PacketId) {
        let packet = self.sender.resend(id).unwrap();
        let _ = deliver(&mut self.receiver, at(us), &packet);
    }

    /// Frames handed out, and whether they are to be shown.
    fn drain(&mut self, us: u64) -> Vec<(u64, bool)> {
        let mut frames = Vec::new();
        while let Some(slice) = self.receiver.poll_slice(at(us)) {
            frames.extend(slice.last.then_some((slice.frame_id.0, slice.show)));
        }
        frames
    }
}

fn invalidate(last_valid: u64) -> Option<RecoveryRequest> {
    Some(RecoveryRequest::InvalidateReference { last_valid: FrameId(last_valid) })
}

/// Proves R-REC-2.
#[test]
fn a_gap_is_asked_for_once_patience_ends_and_again_after_a_little_more_than_a_round_trip() {
    let mut rig = Rig::new();
    let ids = rig.frame(0, FrameSpec::keyframe(0), 10_000, &[3, 4]);
    let lost = vec![ids[3].0, ids[4].0];
    assert_eq!(rig.nacks(0), []);
    let first = rig.receiver.poll_timeout();
    assert_eq!(first, at(500));
    assert_eq!(rig.nacks(499), []);
    assert_eq!(rig.nacks(500), lost);
    assert_eq!(rig.receiver.poll_timeout(), at(500 + 22_500));
    assert_eq!(rig.nacks(500 + 22_499), []);
    rig.resend(20_600, ids[3]);
    assert_eq!(rig.nacks(500 + 22_500), [ids[4].0], "only what is still missing");
    rig.resend(46_000, ids[4]);
    let slice = rig.receiver.poll_slice(at(46_000)).unwrap();
    assert_eq!(slice.recovered, RecoveredBy::Retransmission);
    assert_eq!(slice.data, picture(0, 0, 10_000));
    assert_eq!(rig.nacks(80_000), []);
    assert_eq!(rig.receiver.counters().chunks_resent, 2);
    assert_eq!(rig.receiver.counters().nacks, 3);
}

/// Proves R-REC-2: what is asked for together comes one behind the other, and is not asked for again before.
#[test]
fn the_last_of_many_answers_is_waited_for_longer() {
    let mut rig = Rig::new();
    let packets = rig.packets(FrameSpec::keyframe(0), 60_000);
    // 1 ms apart, 10 of them lost.
    for (i, packet) in packets.iter().enumerate().filter(|(i, _)| !(30..40).contains(i)) {
        deliver(&mut rig.receiver, at(i as u64 * 1_000), packet).unwrap();
    }
    let end = packets.len() as u64 * 1_000;
    let lost: Vec<u64> = packets[30..40].iter().map(|packet| packet.id.0).collect();
    assert_eq!(rig.nacks(end), lost);
    let again: Vec<u64> =
        (end..end + 40_000).step_by(100).flat_map(|us| vec![us; rig.nacks(us).len()]).collect();
    assert_eq!(again.len(), 10);
    assert_eq!(again[0], end + 22_500);
    let waited_us = again[9] - again[0];
    // The distance is a mean over more packets than there were.
    assert!((4_000..=9_000).contains(&waited_us), "nine packets behind: {waited_us}");
}

/// Proves R-REC-10.
#[test]
fn nothing_is_asked_for_that_is_of_no_use_when_it_arrives() {
    let mut rig = Rig::new();
    rig.frame(0, FrameSpec::keyframe(0), 10_000, &[3]);
    let asked: Vec<u64> = (0..300_000).step_by(100).filter(|&us| !rig.nacks(us).is_empty()).collect();
    // After 80 ms a resend would be late.
    assert_eq!(asked, [500, 23_000, 45_500, 68_000]);
    // The table has room for frames of 233 ms that would wait for it.
    let mut rig = Rig::new();
    rig.receiver.set_rtt(250_000, 0);
    rig.frame(0, FrameSpec::keyframe(0), 10_000, &[3]);
    assert_eq!(rig.nacks(PATIENCE), []);
    assert_eq!(rig.receiver.counters().nacks_given_up, 1);
}

/// Proves R-REC-10: while a queue fills the mean of the round trip tells of what was, the last one of what is.
#[test]
fn a_round_trip_that_has_jumped_counts() {
    for (latest_us, is_asked) in [(149_000, true), (250_000, false)] {
        let mut rig = Rig::new();
        rig.receiver.set_rtt(100_000, 5_000);
        rig.receiver.set_latest_rtt(latest_us);
        rig.frame(0, FrameSpec::keyframe(0), 10_000, &[3]);
        assert_eq!(!rig.nacks(PATIENCE).is_empty(), is_asked, "{latest_us}");
        // And an answer is waited for as long as it takes.
        let again = (1_000..200_000).step_by(100).find(|&us| !rig.nacks(us).is_empty());
        assert_eq!(again.is_some(), is_asked && latest_us < 150_000);
    }
    let mut rig = Rig::new();
    rig.receiver.set_latest_rtt(70_000);
    rig.frame(0, FrameSpec::keyframe(0), 10_000, &[3]);
    let asked: Vec<u64> = (0..100_000).step_by(100).filter(|&us| !rig.nacks(us).is_empty()).collect();
    assert_eq!(asked, [500, 70_500], "sooner another request would only cross the answer");
}

/// Proves R-REC-10: over a long path the frame cannot be shown in time, but what predicts from it can.
#[test]
fn a_frame_that_will_be_late_is_asked_for_as_long_as_others_wait_for_it() {
    let mut rig = Rig::new();
    rig.receiver.set_rtt(90_000, 0);
    assert_eq!(rig.receiver.poll_request(at(0)), Some(RecoveryRequest::SkipFrames(2)));
    rig.frame(0, FrameSpec::keyframe(0), 3_000, &[]);
    assert_eq!(rig.drain(0), [(0, true)]);
    let spec = |id| FrameSpec { timestamp_us: id * 16_667, ..FrameSpec::after(id, 1) };
    let ids = rig.frame(16_667, spec(1), 10_000, &[3]);
    let mut asked = Vec::new();
    for us in (17_000..118_000).step_by(100) {
        if us % 16_667 < 100 {
            rig.frame(us, spec(us / 16_667), 3_000, &[]);
        }
        if rig.nacks(us) == [ids[3].0] {
            asked.push(us);
        }
        assert_eq!(rig.drain(us), []);
        assert_eq!(rig.receiver.poll_request(at(us)), None, "nothing would be here sooner");
    }
    assert_eq!(asked.len(), 1);
    rig.resend(118_000, ids[3]);
    let shown = rig.drain(118_000);
    assert_eq!(shown.iter().map(|f| f.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
    assert!(!shown[0].1 && shown[6].1);
}

/// Proves R-REC-12.
#[test]
fn what_parity_is_about_to_bring_is_not_asked_for_but_what_is_beyond_it_is() {
    let mut rig = Rig::new();
    rig.sender.parity_percent = 20;
    // Ten packets and two parities.
    rig.frame(0, FrameSpec::keyframe(0), 10_000, &[]);
    assert_eq!(rig.drain(0), [(0, true)]);
    let give = |rig: &mut Rig, us: u64, packets: &[Packet], lost: &[usize]| {
        for (_, packet) in packets.iter().enumerate().filter(|(i, _)| !lost.contains(i)) {
            deliver(&mut rig.receiver, at(us), packet).unwrap();
        }
    };
    let packets = rig.packets(FrameSpec::after(1, 1), 10_000);
    give(&mut rig, 17_000, &packets[..10], &[3]);
    assert_eq!(rig.nacks(17_000 + PATIENCE), []);
    give(&mut rig, 17_700, &packets[10..], &[]);
    assert_eq!(rig.nacks(40_000), []);
    assert_eq!(rig.drain(40_000), [(1, true)]);
    // One of the parities may be lost as well, so one packet is left to them until more are missing.
    let packets = rig.packets(FrameSpec::after(2, 1), 10_000);
    give(&mut rig, 42_000, &packets[..10], &[3, 5, 7]);
    let mut asked = rig.nacks(42_000 + PATIENCE);
    asked.sort_unstable();
    assert_eq!(asked, [packets[3].id.0, packets[5].id.0, packets[7].id.0]);
    for i in [3, 5, 7] {
        rig.resend(63_000, packets[i].id);
    }
    assert_eq!(rig.drain(63_000), [(2, true)]);
    // Parity that does not come is not waited for.
    let packets = rig.packets(FrameSpec::after(3, 1), 10_000);
    give(&mut rig, 64_000, &packets[..10], &[3]);
    assert_eq!(rig.nacks(64_000 + PATIENCE), []);
    let due = rig.receiver.poll_timeout();
    assert!(due > at(64_000 + PATIENCE) && due <= at(69_000), "{due:?}");
    assert_eq!(rig.nacks(due.as_micros()), [packets[3].id.0]);
}

/// Proves R-REC-9.
#[test]
fn the_lost_tail_of_a_slice_is_noticed_without_a_later_packet() {
    let mut rig = Rig::new();
    let ids = rig.frame(1_000, FrameSpec::keyframe(0), 10_000, &[8, 9]);
    assert_eq!(rig.nacks(1_000), []);
    let due = rig.receiver.poll_timeout();
    assert!(due > at(1_000) && due <= at(4_000), "{due:?}");
    rig.receiver.handle_timeout(due);
    assert_eq!(rig.nacks(due.as_micros()), [ids[8].0, ids[9].0]);
    rig.resend(22_000, ids[9]);
    rig.resend(22_000, ids[8]);
    assert_eq!(rig.drain(22_000), [(0, true)]);
    // The ids that were only expected are used by what is sent next, and that is no loss.
    rig.frame(23_000, FrameSpec::after(1, 1), 5_000, &[]);
    assert_eq!(rig.drain(23_000), [(1, true)]);
    assert_eq!(rig.nacks(60_000), []);
}

/// Proves R-REC-13.
#[test]
fn a_path_that_stands_still_at_times_is_learned() {
    let mut rig = Rig::new();
    let mut asked = Vec::new();
    for id in 0..20 {
        let us = 20_000 * (id + 1);
        let spec = FrameSpec {
            timestamp_us: us,
            ..if id == 0 { FrameSpec::keyframe(0) } else { FrameSpec::after(id, 1) }
        };
        let packets = rig.packets(spec, 10_000);
        for (at_us, part) in [(us, &packets[..6]), (us + 12_000, &packets[6..])] {
            for packet in part {
                deliver(&mut rig.receiver, at(at_us), packet).unwrap();
            }
            if at_us == us {
                (us..us + 12_000).step_by(100).for_each(|now| asked.extend(rig.nacks(now)));
            }
        }
        assert_eq!(rig.drain(us + 12_000).len(), 1);
    }
    assert_eq!(asked.len(), 4, "the rest of the first frame: {asked:?}");
    // It still is noticed when the tail is lost.
    rig.frame(500_000, FrameSpec { timestamp_us: 500_000, ..FrameSpec::after(20, 1) }, 10_000, &[8, 9]);
    let noticed = (500_000..530_000).step_by(100).find(|&us| !rig.nacks(us).is_empty());
    assert!(noticed.is_some_and(|us| (510_000..521_000).contains(&us)), "{noticed:?}");
}

#[test]
fn a_frame_of_which_nothing_came_is_asked_for() {
    let mut rig = Rig::new();
    rig.frame(0, FrameSpec::keyframe(0), 3_000, &[]);
    assert_eq!(rig.drain(0), [(0, true)]);
    let lost = rig.packets(FrameSpec::after(1, 1), 3_000);
    rig.frame(16_000, FrameSpec::after(2, 1), 3_000, &[]);
    assert_eq!(rig.drain(16_000), []);
    let ids: Vec<u64> = lost.iter().map(|p| p.id.0).collect();
    assert_eq!(rig.nacks(16_000 + PATIENCE), ids);
    assert_eq!(rig.receiver.poll_request(at(16_000 + PATIENCE)), None, "it may still come");
    for packet in &lost {
        rig.resend(37_000, packet.id);
    }
    assert_eq!(rig.drain(37_000), [(1, false), (2, true)], "the next frame is due already");
}

#[test]
fn lost_packets_that_held_no_video_are_not_asked_for() {
    let mut rig = Rig::new();
    rig.sender.parity_percent = 20;
    let packets = rig.packets(FrameSpec::keyframe(0), 10_000);
    let sound = rig.sender.skip_id();
    let next = rig.packets(FrameSpec::after(1, 1), 3_000);
    for packet in packets.iter().filter(|p| !p.is_parity).chain(&next) {
        deliver(&mut rig.receiver, at(0), packet).unwrap();
    }
    assert!(packets.iter().any(|p| p.is_parity) && sound.0 > 0);
    assert_eq!(rig.nacks(PATIENCE), []);
    assert_eq!(rig.drain(PATIENCE), [(0, false), (1, true)]);
}

#[test]
fn reordering_within_the_learned_patience_asks_for_nothing() {
    let mut rig = Rig::new();
    let packets = rig.packets(FrameSpec::keyframe(0), 10_000);
    let order = [0, 1, 3, 2, 6, 5, 4, 9, 8, 7];
    for (n, &i) in order.iter().enumerate() {
        deliver(&mut rig.receiver, at(n as u64 * 50), &packets[i]).unwrap();
        assert_eq!(rig.nacks(n as u64 * 50), []);
    }
    assert_eq!(rig.drain(500), [(0, true)]);
    assert_eq!(rig.receiver.counters().reordered, 5);
    assert_eq!(rig.receiver.report(at(500)).lost_packets, 0);
}

/// Proves R-REC-5.
#[test]
fn a_frame_that_was_never_sent_is_met_by_reference_invalidation_then_by_a_keyframe() {
    let mut rig = Rig::new();
    rig.frame(0, FrameSpec::keyframe(0), 3_000, &[]);
    rig.frame(16_000, FrameSpec::after(1, 1), 3_000, &[]);
    assert_eq!(rig.drain(16_000), [(0, false), (1, true)]);
    // Frame 2 was dropped by the host, so its ids do not exist.
    rig.frame(48_000, FrameSpec::after(3, 1), 3_000, &[]);
    assert_eq!(rig.drain(48_000), []);
    assert_eq!(rig.receiver.poll_request(at(48_000)), None, "frame 2 may only be overtaken");
    assert_eq!(rig.receiver.poll_timeout(), at(48_500));
    assert_eq!(rig.receiver.poll_request(at(48_500)), invalidate(1));
    assert_eq!(rig.receiver.poll_request(at(48_500)), None);
    let mut keyframe_at = None;
    for us in (48_500..200_000).step_by(100) {
        let keyframe = Some(RecoveryRequest::Keyframe { newest: FrameId(3) });
        if rig.receiver.poll_request(at(us)) == keyframe {
            keyframe_at = keyframe_at.or(Some(us));
        }
    }
    let waited = keyframe_at.unwrap() - 48_500;
    assert!((30_000..=80_000).contains(&waited), "1.5 round trips and two frames: {waited}");
    rig.frame(200_000, FrameSpec { timestamp_us: 190_000, ..FrameSpec::keyframe(5) }, 3_000, &[]);
    assert_eq!(rig.drain(200_000), [(5, true)]);
    assert_eq!(rig.receiver.poll_request(at(200_000)), None);
    assert_eq!(rig.receiver.counters().frames_dropped, 1);
}

/// Proves R-PLAY-3.
#[test]
fn a_frame_that_predicts_from_the_last_good_one_ends_the_repair() {
    let mut rig = Rig::new();
    rig.frame(0, FrameSpec::keyframe(0), 3_000, &[]);
    assert_eq!(rig.drain(0).len(), 1);
    rig.frame(48_000, FrameSpec::after(2, 1), 3_000, &[]);
    assert_eq!(rig.receiver.poll_request(at(48_600)), invalidate(0));
    rig.frame(64_000, FrameSpec::after(3, 1), 3_000, &[]);
    rig.frame(80_000, FrameSpec::after(4, 4), 3_000, &[]);
    assert_eq!(rig.drain(80_000), [(4, true)]);
    for us in (80_000..300_000).step_by(1_000) {
        assert_eq!(rig.receiver.poll_request(at(us)), None);
    }
}

/// Proves R-VID-4.
#[test]
fn a_rejected_frame_takes_what_predicts_from_it_along() {
    let mut rig = Rig::new();
    for id in 0..4 {
        let spec = if id == 0 { FrameSpec::keyframe(0) } else { FrameSpec::after(id, 1) };
        rig.frame(id * 16_000, spec, 3_000, &[]);
        assert_eq!(rig.drain(id * 16_000), [(id, true)]);
        rig.receiver.on_decoded(at(id * 16_000), FrameId(id));
    }
    assert_eq!(rig.receiver.report(at(50_000)).newest_decoded, Some(FrameId(3)));
    rig.receiver.on_decode_failed(at(50_000), FrameId(2));
    assert_eq!(rig.receiver.report(at(50_000)).newest_decoded, Some(FrameId(1)));
    assert_eq!(rig.receiver.poll_request(at(50_000)), invalidate(1), "at once: no packet can help");
    rig.frame(64_000, FrameSpec::after(4, 1), 3_000, &[]);
    assert_eq!(rig.drain(64_000), []);
    rig.frame(80_000, FrameSpec::after(5, 4), 3_000, &[]);
    assert_eq!(rig.drain(80_000), [(5, true)]);
    assert_eq!(rig.receiver.poll_request(at(80_000)), None);
}

#[test]
fn a_rejected_keyframe_leaves_nothing_but_a_keyframe() {
    let mut rig = Rig::new();
    rig.frame(100_000, FrameSpec::keyframe(0), 3_000, &[]);
    assert_eq!(rig.drain(100_000), [(0, true)]);
    rig.receiver.on_decode_failed(at(101_000), FrameId(0));
    let keyframe = Some(RecoveryRequest::Keyframe { newest: FrameId(0) });
    assert_eq!(rig.receiver.poll_request(at(101_000)), keyframe);
}

#[test]
fn a_stream_that_does_not_begin_with_a_keyframe_asks_for_one() {
    let mut rig = Rig::new();
    rig.sender.next_id = 5_000;
    rig.frame(100_000, FrameSpec::after(300, 1), 3_000, &[]);
    assert_eq!(rig.drain(100_000), []);
    let keyframe = Some(RecoveryRequest::Keyframe { newest: FrameId(300) });
    assert_eq!(rig.receiver.poll_request(at(101_000)), keyframe);
    rig.frame(120_000, FrameSpec::keyframe(301), 3_000, &[]);
    assert_eq!(rig.drain(120_000), [(301, true)]);
}

/// Proves R-PLAY-1.
#[test]
fn a_late_frame_is_decoded_but_not_shown() {
    let mut rig = Rig::new();
    rig.frame(0, FrameSpec::keyframe(0), 3_000, &[]);
    assert_eq!(rig.drain(0), [(0, true)]);
    let packets = rig.packets(FrameSpec { timestamp_us: 16_000, ..FrameSpec::after(1, 1) }, 3_000);
    deliver(&mut rig.receiver, at(16_000), &packets[0]).unwrap();
    deliver(&mut rig.receiver, at(16_000), &packets[1]).unwrap();
    rig.resend(116_001, packets[2].id);
    let slice = rig.receiver.poll_slice(at(116_001)).unwrap();
    assert_eq!((slice.show, slice.deadline), (false, at(116_000)));
    let next = rig.packets(FrameSpec { timestamp_us: 116_000, ..FrameSpec::after(2, 1) }, 3_000);
    for packet in &next {
        deliver(&mut rig.receiver, at(117_000), packet).unwrap();
    }
    assert_eq!(rig.drain(117_000), [(2, true)], "later frames can be predicted from it");
    assert_eq!(rig.receiver.counters().frames_not_shown, 1);
}

#[test]
fn whole_frames_before_a_whole_keyframe_are_dropped() {
    let mut rig = Rig::new();
    rig.frame(0, FrameSpec::keyframe(0), 3_000, &[]);
    assert_eq!(rig.drain(0), [(0, true)]);
    for id in 1..4 {
        rig.frame(50_000, FrameSpec::after(id, 1), 3_000, &[]);
    }
    rig.frame(60_000, FrameSpec::keyframe(4), 3_000, &[]);
    assert_eq!(rig.drain(200_000).iter().map(|f| f.0).collect::<Vec<_>>(), [4]);
    assert_eq!(rig.receiver.counters().frames_dropped, 3);
}

#[test]
fn slices_leave_before_their_frame_is_whole_and_a_begun_frame_is_finished_first() {
    let mut rig = Rig::new();
    let slices: Vec<_> = (0..3).map(|i| picture(0, i, 2_500)).collect();
    let packets = rig.sender.frame(FrameSpec::keyframe(0), &slices);
    for (n, packet) in packets.iter().enumerate() {
        deliver(&mut rig.receiver, at(n as u64 * 100), packet).unwrap();
        let whole = n % 3 == 2;
        let slice = rig.receiver.poll_slice(at(n as u64 * 100));
        assert_eq!(slice.is_some(), whole);
        if let Some(slice) = slice {
            assert_eq!((slice.index, slice.last), (n as u32 / 3, n == 8));
            assert_eq!(slice.data, slices[n / 3]);
            assert_eq!((slice.first_arrival, slice.complete_at), (at(0), at(n as u64 * 100)));
            assert_eq!((slice.capture_us, slice.encode_us), (900, 4000 + slice.index));
        }
    }
}

#[test]
fn a_peer_that_does_not_mark_slices_sends_frames_of_one() {
    let mut rig = Rig::new();
    rig.receiver.set_slices(false);
    let data = picture(0, 0, 4_000);
    for packet in rig.sender.slice(FrameSpec::keyframe(0), 0, false, &data) {
        deliver(&mut rig.receiver, at(0), &packet).unwrap();
    }
    let slice = rig.receiver.poll_slice(at(0)).unwrap();
    assert!(slice.last);
    assert_eq!(slice.data, data);
}

#[test]
fn an_outage_of_seconds_ends_with_the_first_keyframe() {
    let mut rig = Rig::new();
    rig.frame(0, FrameSpec::keyframe(0), 3_000, &[]);
    assert_eq!(rig.drain(0).len(), 1);
    for id in 1..200 {
        rig.packets(FrameSpec::after(id, 1), 3_000);
    }
    let back = 3_300_000;
    rig.frame(back, FrameSpec::after(200, 1), 3_000, &[]);
    assert_eq!(rig.drain(back), []);
    rig.nacks(back + PATIENCE);
    let mut requests = Vec::new();
    for us in (back + PATIENCE..back + 400_000).step_by(1_000) {
        rig.nacks(us);
        requests.extend(rig.receiver.poll_request(at(us)));
    }
    assert_eq!(requests[0], invalidate(0).unwrap());
    assert!(requests.contains(&RecoveryRequest::Keyframe { newest: FrameId(200) }));
    rig.frame(back + 400_000, FrameSpec::keyframe(224), 3_000, &[]);
    assert_eq!(rig.drain(back + 400_000), [(224, true)]);
    assert_eq!(rig.receiver.poll_request(at(back + 400_000)), None);
}

#[test]
fn the_report_counts_what_the_path_lost_since_the_last_one() {
    let mut rig = Rig::new();
    rig.frame(0, FrameSpec::keyframe(0), 10_000, &[2, 5]);
    let report = rig.receiver.report(at(100_000));
    assert_eq!((report.received_packets, report.lost_packets, report.period_ms), (8, 2, 0));
    rig.frame(116_000, FrameSpec::after(1, 1), 4_000, &[]);
    let report = rig.receiver.report(at(200_000));
    assert_eq!((report.received_packets, report.lost_packets, report.period_ms), (4, 0, 100));
}

//! What is sent again, and what is not.

use super::*;

/// Proves R-PRIO-4.
#[test]
fn a_lost_chunk_leaves_again_as_it_was_before_anything_new() {
    let mut host = Host::new(&SenderConfig { parity: 0.2, ..config() });
    host.submit(&whole(0), &bytes(300_000, 0)).unwrap();
    let first = host.drain();
    host.now = host.now.plus_micros(1000);
    host.nack(&[2, 0]);
    let (batch, again) = host.batch().unwrap();
    assert_eq!(batch.kind, BatchKind::Retransmission);
    assert_eq!(again.iter().map(|p| &p.body).collect::<Vec<_>>(), [&first[2].body, &first[0].body]);
    assert_eq!(again[0].id.0, first.len() as u64);
    host.now = host.sender.poll_timeout();
    assert!(host.now < START.plus_micros(1010), "pacing had been open for new video as well");
    assert_eq!(host.batch().unwrap().0.kind, BatchKind::Data);
    assert_eq!(host.sender.counters().retransmitted_packets, 2);
}

#[test]
fn a_report_about_the_retransmission_finds_the_same_chunk() {
    let mut host = Host::new(&config());
    host.sender.set_rtt(8000);
    host.submit(&whole(0), &bytes(5000, 0)).unwrap();
    let first = host.drain();
    host.nack(&[1]);
    let again = host.drain();
    host.now = host.now.plus_micros(6_999);
    host.nack(&[1, again[0].id.0]);
    assert_eq!(host.sender.counters().nacks_duplicate, 2, "the first retransmission may still arrive");
    host.now = host.now.plus_micros(1);
    host.nack(&[again[0].id.0, 1]);
    assert_eq!(host.sender.counters().nacks_duplicate, 3, "both ids mean one chunk");
    let third = host.drain();
    assert_eq!((third.len(), &third[0].body), (1, &first[1].body));
}

#[test]
fn chunks_of_different_length_leave_in_batches_that_segment() {
    let mut host = Host::new(&config());
    host.submit(&slice(0, 0, false), &bytes(3001, 0)).unwrap();
    host.submit(&slice(0, 1, true), &bytes(3500, 0)).unwrap();
    let first = host.drain();
    host.nack(&(0..first.len() as u64).rev().collect::<Vec<_>>());
    let mut again = Vec::new();
    while let Some((batch, sent)) = host.batch() {
        assert_eq!(batch.kind, BatchKind::Retransmission);
        again.extend(sent);
    }
    assert_eq!(again.len(), first.len());
    assert!(again.iter().rev().zip(&first).all(|(a, f)| a.body == f.body));
}

/// Proves R-REC-11.
#[test]
fn what_cannot_help_is_not_sent_again_and_is_counted() {
    let mut host = Host::new(&SenderConfig { parity: 0.5, retransmit_us_max: 100_000, ..config() });
    host.sender.set_rtt(20_000);
    for frame in 0..2 {
        host.submit(&whole(frame), &bytes(2000, 0)).unwrap();
        host.drain();
    }
    // Per frame two chunks and one parity packet.
    host.nack(&[2, 77, u64::MAX]);
    assert_eq!(host.sender.counters().nacks_unknown, 3);
    host.sender.on_frame_acked(FrameId(0));
    host.nack(&[0]);
    assert_eq!(host.sender.counters().nacks_stale, 1);
    host.now = host.now.plus_micros(90_001);
    host.nack(&[3]);
    assert_eq!(host.sender.counters().nacks_late, 1);
    host.now = host.now.minus_micros(1);
    host.nack(&[3]);
    assert_eq!(host.sender.counters().nacked, 6);
    assert_eq!(host.drain().len(), 1);
}

/// Proves R-REC-11: what comes too late to be shown is of use to the frames behind it, unless they do without.
#[test]
fn a_late_frame_is_sent_again_while_others_predict_from_it() {
    let mut host = Host::new(&SenderConfig { retransmit_us_max: 100_000, ..config() });
    host.sender.set_rtt(80_000);
    for frame in 0..2 {
        host.submit(&whole(frame), &bytes(2000, 0)).unwrap();
        host.drain();
    }
    host.now = host.now.plus_micros(200_000);
    host.nack(&[2]);
    assert_eq!(host.drain().len(), 1);
    host.now = host.now.plus_micros(1);
    host.nack(&[3]);
    assert_eq!(
        host.sender.counters().nacks_late,
        1,
        "a third request would be behind a frame that does without"
    );
    host.now = host.now.minus_micros(100_000);
    let past = SliceMeta { reference: Some(FrameId(0)), ..whole(2) };
    host.submit(&past, &bytes(2000, 0)).unwrap();
    host.drain();
    host.nack(&[1, 3]);
    assert_eq!((host.sender.counters().nacks_stale, host.drain().len()), (1, 1));
}

/// Proves R-REC-16: what had to make room before anyone said that it was there is as good as too old; what was there is
/// not needed.
#[test]
fn a_frame_that_had_to_make_room_counts_as_late() {
    let mut host = Host::new(&config());
    host.sender.set_rtt(80_000);
    // Two packets each; there is room for four.
    for frame in 0..6 {
        host.submit(&whole(frame), &bytes(2000, 0)).unwrap();
        host.drain();
    }
    host.nack(&[0, 3]);
    assert_eq!((host.sender.counters().nacks_late, host.sender.poll_past_repair()), (2, true));
    host.nack(&[4]);
    assert_eq!(host.drain().len(), 1, "the oldest that is here");
    host.sender.on_frame_acked(FrameId(0));
    host.nack(&[0, 3]);
    assert_eq!((host.sender.counters().nacks_late, host.sender.counters().nacks_stale), (3, 1));
    host.sender.on_frame_acked(FrameId(4));
    host.nack(&[3, 4]);
    assert_eq!((host.sender.counters().nacks_late, host.sender.counters().nacks_stale), (3, 3));
}

/// Proves R-REC-16: where a round trip is long, what is asked for again is sent again, but frames that do without it are
/// as near.
#[test]
fn what_was_sent_again_in_vain_on_a_long_path_is_past_repair() {
    for (rtt_us, is_long) in [(99_999, false), (100_000, true)] {
        let mut host = Host::new(&config());
        host.sender.set_rtt(30_000);
        host.sender.set_latest_rtt(rtt_us);
        host.submit(&whole(0), &bytes(2000, 0)).unwrap();
        host.drain();
        for again in [false, true] {
            host.now = host.now.plus_micros(90_000);
            host.nack(&[0]);
            // A report that crossed the packet on its way tells nothing new.
            host.nack(&[0]);
            assert_eq!(host.drain().len(), 1);
            assert_eq!(host.sender.poll_past_repair(), again && is_long, "{rtt_us} {again}");
            assert!(!host.sender.poll_past_repair(), "told once");
        }
    }
}

/// Proves R-REC-11: three round trips are those of the queue that there is now.
#[test]
fn a_frame_is_late_by_the_round_trip_that_was_measured_last() {
    for (latest_us, is_late) in [(20_000, true), (100_000, false)] {
        let mut host = Host::new(&SenderConfig { retransmit_us_max: 100_000, ..config() });
        host.sender.set_rtt(20_000);
        host.sender.set_latest_rtt(latest_us);
        host.submit(&whole(0), &bytes(2000, 0)).unwrap();
        host.drain();
        host.now = host.now.plus_micros(200_000);
        host.nack(&[0]);
        assert_eq!(host.sender.counters().nacks_late, u64::from(is_late));
        assert_eq!(host.drain().is_empty(), is_late);
    }
}

/// Frames that each predict from one known to be there do not need each other, and none is given up for the next.
#[test]
fn queued_frames_that_go_past_the_same_loss_stay() {
    let mut host = Host::new(&slow());
    host.submit(&whole(0), &bytes(2000, 0)).unwrap();
    let mut sent = host.drain_paced();
    host.submit(&whole(1), &bytes(400_000, 0)).unwrap();
    sent.extend(host.drain());
    for frame in 2..4 {
        let past = SliceMeta { reference: Some(FrameId(0)), ..whole(frame) };
        host.submit(&past, &bytes(2000, frame as usize)).unwrap();
    }
    assert_eq!(host.sender.counters().frames_dropped_unneeded, 1, "the first, which both go past");
    sent.extend(host.drain_paced());
    for frame in 2..4 {
        assert_eq!(assemble(frame, &sent), Some(bytes(2000, frame as usize)));
    }
}

#[test]
fn an_acknowledged_frame_is_not_sent_again_even_if_it_was_queued() {
    let mut host = Host::new(&config());
    for frame in 0..2 {
        host.submit(&whole(frame), &bytes(2000, 0)).unwrap();
        host.drain();
    }
    host.nack(&[0, 1, 2]);
    host.sender.on_frame_acked(FrameId(0));
    let sent = host.drain();
    assert_eq!(sent.len(), 1);
    assert_eq!(host.sender.poll_timeout(), Timestamp::NEVER);
}

#[test]
fn an_acknowledgement_of_what_has_not_left_is_not_believed() {
    let mut host = Host::new(&slow());
    let data = bytes(300_000, 0);
    host.submit(&whole(0), &data).unwrap();
    let mut sent = host.drain();
    host.sender.on_frame_acked(FrameId(0));
    host.sender.on_frame_acked(FrameId(u64::MAX));
    sent.extend(host.drain_paced());
    assert_eq!(assemble(0, &sent), Some(data));
}

/// Proves R-REC-4.
#[test]
fn a_peer_that_loses_everything_cannot_double_the_traffic() {
    let mut host = Host::new(&config());
    host.sender.set_rtt(0);
    let mut first = 0u64;
    let mut again = 0u64;
    for frame in 0..100 {
        host.submit(&whole(frame), &bytes(60_000, 0)).unwrap();
        let sent = host.drain_paced();
        first += sent.iter().map(|p| p.body.len() as u64).sum::<u64>();
        for _ in 0..3 {
            host.now = host.now.plus_micros(2000);
            host.sender.on_nack(host.now, sent.iter().map(|p| p.id));
            again += host.drain_paced().iter().map(|p| p.body.len() as u64).sum::<u64>();
        }
        host.now = host.now.plus_micros(10_000);
    }
    assert!(again > 0 && again <= first / 4 + 131_072, "{again} of {first}");
    assert!(host.sender.counters().nacks_over_budget > 0);
}

//! What parity can recover, it recovers: without asking for anything again.

use rift_core::receive::{ReceiverConfig, RecoveredBy, VideoReceiver};
use rift_core::{DropReason, PacketId, Timestamp};

use crate::packetiser::{FrameSpec, Packet, Packetiser, deliver, picture};

const NOW: Timestamp = Timestamp::from_micros(50_000);
const LATER: Timestamp = Timestamp::from_micros(80_000);

fn receiver() -> VideoReceiver {
    VideoReceiver::new(&ReceiverConfig { frame_bytes_max: 256 << 10, ..Default::default() })
}

/// Gives all packets but the lost ones; returns what the only slice held and how it was recovered.
fn receive(packets: &[Packet], lost: &[usize]) -> Option<(Vec<u8>, RecoveredBy)> {
    let mut receiver = receiver();
    for (_, packet) in packets.iter().enumerate().filter(|(i, _)| !lost.contains(i)) {
        deliver(&mut receiver, NOW, packet).unwrap();
    }
    let slice = receiver.poll_slice(NOW).map(|s| (s.data.to_vec(), s.recovered));
    if slice.is_some() && !lost.is_empty() {
        assert_eq!(receiver.poll_nack(LATER, &mut [PacketId(0); 8]), 0, "recovered ids count as received");
    }
    slice
}

/// Proves R-FEC-4, R-FEC-5.
#[test]
fn every_single_loss_in_a_group_is_recovered() {
    for (chunks, parity_percent) in [(1, 100), (2, 50), (5, 20), (16, 13), (48, 20), (48, 3)] {
        for last_len in [1, 500, 1000] {
            let data = picture(0, 0, (chunks - 1) * 1000 + last_len);
            let mut sender = Packetiser::new(1000, 48, parity_percent);
            let packets = sender.frame(FrameSpec::keyframe(0), std::slice::from_ref(&data));
            assert!(packets.len() > chunks);
            for lost in 0..packets.len() {
                let (bytes, by) = receive(&packets, &[lost]).expect("recovered");
                assert_eq!(bytes, data, "{chunks} chunks, packet {lost} lost");
                let is_data = lost < chunks;
                assert_eq!(by == RecoveredBy::Parity, is_data);
            }
        }
    }
}

#[test]
fn as_many_losses_as_parities_are_recovered_one_in_each_stripe() {
    let data = picture(0, 0, 47_500);
    let mut sender = Packetiser::new(1000, 48, 20);
    let packets = sender.frame(FrameSpec::keyframe(0), std::slice::from_ref(&data));
    assert_eq!(packets.len(), 48 + 10);
    for first in 0..48 - 9 {
        // A burst of ten hits each of the ten stripes once.
        let lost: Vec<usize> = (first..first + 10).collect();
        assert_eq!(receive(&packets, &lost).expect("recovered").0, data);
        let more: Vec<usize> = (first..first + 11).filter(|&i| i < 48).collect();
        assert_eq!(receive(&packets, &more).is_some(), more.len() == 10);
    }
}

#[test]
fn many_groups_and_slices_recover_apart_from_each_other() {
    let mut sender = Packetiser::new(700, 16, 13);
    let slices: Vec<_> = (0..4).map(|i| picture(3, i, 30_000 + i * 777)).collect();
    let packets = sender.frame(FrameSpec::keyframe(3), &slices);
    let mut receiver = receiver();
    let mut seen = 0;
    for (n, packet) in packets.iter().enumerate() {
        // One loss in each run of 16: at most one in a group's stripe.
        if n % 19 != 7 {
            // The last parity comes when its frame is finished.
            let _ = deliver(&mut receiver, NOW, packet);
        }
        while let Some(slice) = receiver.poll_slice(NOW) {
            assert_eq!(slice.data, slices[slice.index as usize]);
            seen += 1;
        }
    }
    assert_eq!(seen, 4);
    assert!(receiver.counters().chunks_from_parity > 4);
}

#[test]
fn parity_waits_for_a_second_loss_to_be_resent() {
    let data = picture(0, 0, 9_500);
    let mut sender = Packetiser::new(1000, 48, 10);
    let packets = sender.frame(FrameSpec::keyframe(0), std::slice::from_ref(&data));
    assert_eq!(packets.len(), 11);
    let mut receiver = receiver();
    for (n, packet) in packets.iter().enumerate() {
        if ![3, 6].contains(&n) {
            deliver(&mut receiver, NOW, packet).unwrap();
        }
    }
    assert!(receiver.poll_slice(NOW).is_none());
    let resent = sender.resend(PacketId(6)).unwrap();
    deliver(&mut receiver, LATER, &resent).unwrap();
    // One resend brings both: the other follows from the parity that waited.
    let slice = receiver.poll_slice(LATER).expect("whole");
    assert_eq!(slice.data, data);
    assert_eq!(receiver.counters().chunks_from_parity, 1);
}

/// Proves R-FEC-4.
#[test]
fn parity_that_overtakes_its_data_is_used_all_the_same() {
    let data = picture(0, 0, 3_500);
    let mut sender = Packetiser::new(1000, 48, 25);
    let packets = sender.frame(FrameSpec::keyframe(0), std::slice::from_ref(&data));
    let mut receiver = receiver();
    for n in [4, 0, 3, 1] {
        deliver(&mut receiver, NOW, &packets[n]).unwrap();
    }
    assert_eq!(receiver.poll_slice(NOW).expect("whole").data, data);
    assert_eq!(deliver(&mut receiver, NOW, &packets[2]), Err(DropReason::Stale));
}

#[test]
fn damaged_parity_recovers_nothing() {
    let data = picture(0, 0, 3_500);
    let mut sender = Packetiser::new(1000, 48, 25);
    let mut packets = sender.frame(FrameSpec::keyframe(0), std::slice::from_ref(&data));
    // The last byte of the parity's payload stands before its lengths; byte 40 is in its head: the
    // message that would come out is of another frame or no message at all.
    packets[4].body[40] ^= 0x55;
    let mut receiver = receiver();
    for n in [0, 2, 3] {
        deliver(&mut receiver, NOW, &packets[n]).unwrap();
    }
    let _ = deliver(&mut receiver, NOW, &packets[4]);
    assert_ne!(receiver.poll_slice(NOW).map(|s| s.data.to_vec()), Some(data.clone()));
}

#[test]
fn parity_that_is_not_needed_is_counted_and_no_fault() {
    let data = picture(0, 0, 2_000);
    let mut sender = Packetiser::new(1000, 48, 50);
    let packets = sender.frame(FrameSpec::keyframe(0), std::slice::from_ref(&data));
    let mut receiver = receiver();
    deliver(&mut receiver, NOW, &packets[0]).unwrap();
    deliver(&mut receiver, NOW, &packets[1]).unwrap();
    deliver(&mut receiver, NOW, &packets[2]).unwrap();
    assert!(receiver.poll_slice(NOW).is_some());
    deliver(&mut receiver, NOW, &Packet { id: PacketId(3), ..packets[2].clone() }).unwrap();
    assert_eq!((receiver.counters().parity, receiver.counters().parity_spare), (2, 2));
    assert_eq!(receiver.counters().drops.iter().count(), 0);
}

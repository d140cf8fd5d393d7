//! A running session: video, sound, input, cursor, clipboard, rates, and what older peers understand of it.

use rift_core::endpoint::{ClientEvent, ControllerKind, HostEvent, Purpose, TrafficClass};
use rift_core::input::InputEvent;
use rift_core::message::proto::{AudioFormat, CursorPosition, CursorShape};
use rift_core::session::Features;
use rift_core::{DropReason, FrameId, Timestamp};

use crate::world::{Fate, World, client_config, host_config};

/// Frames in slices arrive whole, in order and unchanged.
#[test]
fn video_arrives() {
    let mut world = World::streaming();
    let mut sent = vec![];
    for id in 0..60 {
        for (index, data) in world.submit_frame(id, 42_000, 4).into_iter().enumerate() {
            sent.push((FrameId(id), index as u32, data));
        }
        world.run_ms(16);
    }
    world.run_ms(50);
    assert!(world.clients[0].slices == sent);
    assert!(world.ended().is_empty());
}

/// A megabyte leaves at once, in batches of one size that a segmented send can take, and arrives.
#[test]
fn a_megabyte_leaves_in_batches() {
    let mut world = World::streaming_with(ControllerKind::Fixed);
    let now = world.now;
    let meta = rift_core::send::SliceMeta {
        frame_id: FrameId(0),
        slice_index: 0,
        last_slice: true,
        keyframe: true,
        reference: None,
        timestamp: now,
        capture_us: 0,
        encode_us: 0,
    };
    world.host.submit_slice(now, &meta, &vec![7; 120_000]).unwrap();
    let mut buf = vec![0; 65_536];
    let mut batches = vec![];
    while let Some(t) = world.host.poll_transmit(now, &mut buf) {
        let from = rift_core::endpoint::Path::to(world.host_address);
        for datagram in buf[..t.len].chunks_mut(t.segment_len) {
            let client = &mut world.clients[0].endpoint;
            client.handle_datagram(now, from, rift_core::endpoint::Ecn::NotEct, datagram).unwrap();
        }
        batches.push(t);
    }
    let packets: usize = batches.iter().map(rift_core::endpoint::Transmit::datagrams).sum();
    assert!(packets >= 105 && batches.len() <= 8, "{packets} packets in {} sends", batches.len());
    assert!(batches.iter().all(|t| t.segment_len <= 1200));
    assert_eq!(world.clients[0].endpoint.poll_slice(now).unwrap().data, [7; 120_000]);

    world.submit_frame(1, 1_000_000, 1);
    world.run_ms(40);
    assert_eq!(world.clients[0].slices[0].2.len(), 1_000_000);
}

/// Lost packets come again or are computed; every frame is decoded, without a keyframe.
#[test]
fn two_percent_loss_is_repaired() {
    let mut world = World::streaming();
    let mut rng = fastrand::Rng::with_seed(3);
    world.fault = Box::new(move |_| if rng.u8(..50) == 0 { Fate::Lose } else { Fate::Deliver });
    for id in 0..300 {
        world.submit_frame(id, 40_000, 1);
        world.run_ms(16);
    }
    world.run_ms(100);
    assert_eq!(world.clients[0].slices.len(), 300);
    let counters = world.clients[0].endpoint.receiver_counters().unwrap();
    assert!(counters.chunks_from_parity + counters.chunks_resent > 100, "{counters:?}");
    assert!(!world.host_events.iter().any(|e| matches!(e, HostEvent::KeyframeNeeded)));
    // The encoder hears of what arrived. Each message can be lost, and says all that those before it said.
    let acknowledged: Vec<u64> = world
        .host_events
        .iter()
        .filter_map(|e| if let HostEvent::FrameAcknowledged(frame) = e { Some(frame.0) } else { None })
        .collect();
    assert!(acknowledged.len() > 250 && acknowledged.is_sorted(), "{acknowledged:?}");
    assert_eq!(acknowledged.last(), Some(&299));
}

/// Proves R-FB-1: reports come about every 100 ms, and loss reaches the host's controller by them.
#[test]
fn reception_is_reported() {
    let mut world = World::streaming();
    let before = world.clients[0].endpoint.session().unwrap().link.sent_packets;
    world.run_ms(10_000);
    let sent = world.clients[0].endpoint.session().unwrap().link.sent_packets - before;
    // Ten pings, ten pongs, ten reports and the arrivals in between each second.
    assert!((300..600).contains(&sent), "{sent} packets in 10 s");
}

/// What cannot be repaired is asked for: first a frame that refers to an older one, then a keyframe.
#[test]
fn what_cannot_be_repaired_is_asked_for() {
    let mut world = World::streaming();
    for id in 0..10 {
        world.submit_frame(id, 10_000, 1);
        world.run_ms(16);
    }
    world.fault = Box::new(|d| if d.bytes.len() > 500 { Fate::Lose } else { Fate::Deliver });
    for id in 10..14 {
        world.submit_frame_quietly(id, 10_000, 1);
        world.run_ms(60);
    }
    // The encoder does not listen, so what follows cannot be decoded either.
    world.fault = Box::new(|_| Fate::Deliver);
    for id in 14..40 {
        world.submit_frame_quietly(id, 10_000, 1);
        world.run_ms(16);
    }
    let invalidated =
        |e: &HostEvent| matches!(e, HostEvent::ReferenceInvalidated { last_valid } if last_valid.0 == 9);
    let first = world.host_events.iter().position(invalidated).unwrap();
    let keyframe = world.host_events.iter().position(|e| *e == HostEvent::KeyframeNeeded).unwrap();
    assert!(first < keyframe);
    // Told once per round trip, not once per repetition.
    assert!(world.host_events.iter().filter(|e| **e == HostEvent::KeyframeNeeded).count() < 20);
}

/// Sound arrives, in order, and no more than 20 ms of it waits.
#[test]
fn sound_arrives() {
    let mut world = World::streaming();
    let mut heard = vec![];
    for n in 0..100u64 {
        let timestamp = Timestamp::from_micros(n * 5000);
        let now = world.now;
        world.host.submit_audio(now, timestamp, &[n as u8; 80]).unwrap();
        world.run_ms(5);
        while let Some(frame) = world.clients[0].endpoint.poll_audio() {
            assert_eq!(frame.payload, [(frame.timestamp_us / 5000) as u8; 80]);
            heard.push(frame.timestamp_us);
        }
    }
    assert!(heard.len() >= 98 && heard.is_sorted());
    let now = world.now;
    assert_eq!(world.host.submit_audio(now, now, &[0; 5000]), Err(DropReason::NoRoom));
    let format = AudioFormat { channels: 6, frame_us: 10_000, sample_rate_hz: 48_000 };
    world.host.set_audio_format(format);
    world.run_ms(50);
    assert!(world.clients[0].events.contains(&ClientEvent::AudioFormat(format)));
}

/// Cursor, clipboard, monitors and display mode go where they should.
#[test]
fn small_things_arrive() {
    let mut world = World::streaming();
    let shape =
        CursorShape { serial: 4, width: 64, height: 64, bgra: vec![9; 64 * 64 * 4], ..Default::default() };
    world.host.submit_cursor_shape(shape.clone()).unwrap();
    let position = CursorPosition { x: -3, y: 700, visible: true, shape_serial: 4, timestamp_us: 1 };
    world.host.submit_cursor_position(CursorPosition { x: 0, ..position });
    world.host.submit_cursor_position(position);
    let text = "ä".repeat(500_000);
    world.host.submit_clipboard(&text).unwrap();
    let client = &mut world.clients[0].endpoint;
    client.submit_clipboard("from the client").unwrap();
    client.select_monitor(3).unwrap();
    client.request_display_mode(1920, 1080, 120).unwrap();
    assert_eq!(client.submit_clipboard(&"x".repeat(2 << 20)), Err(DropReason::NoRoom));
    world.run_ms(2000);
    let events = &world.clients[0].events;
    assert!(events.contains(&ClientEvent::CursorShape(shape)));
    let positions: Vec<_> = events.iter().filter(|e| matches!(e, ClientEvent::CursorPosition(_))).collect();
    assert_eq!(positions, [&ClientEvent::CursorPosition(position)], "only the newest is worth sending");
    assert!(events.contains(&ClientEvent::Clipboard(text)));
    assert!(world.host_events.contains(&HostEvent::Clipboard("from the client".into())));
    assert!(world.host_events.contains(&HostEvent::MonitorSelected(3)));
    assert!(world.host_events.contains(&HostEvent::DisplayModeRequested {
        width: 1920,
        height: 1080,
        fps: 120
    }));
}

/// Proves R-REC-14: the host makes no more frames than the client can decode, until that can do more again.
#[test]
fn a_slow_decoder_limits_the_frame_rate() {
    let mut world = World::streaming();
    let mut limit = |max_fps, skip_frames| {
        world.clients[0].endpoint.limit_frame_rate(max_fps, skip_frames).unwrap();
        world.run_ms(200);
        let mut rates = world.host_events.iter().filter_map(|event| match event {
            HostEvent::RateChanged { fps, .. } => Some(*fps),
            _ => None,
        });
        let skipped = world.host_events.iter().filter(|event| **event == HostEvent::SkipFrames(3)).count();
        (rates.next_back(), skipped)
    };
    assert_eq!(limit(41, 3), (Some(41), 1));
    assert_eq!(limit(20, 0), (Some(20), 1));
    assert_eq!(limit(0, 0), (Some(60), 1));
}

/// Proves R-INP-1, R-INP-2, R-INP-4 and R-INP-5 at the endpoints: typing through heavy loss arrives whole and in
/// order, and nothing stays down.
#[test]
fn typing_through_loss_arrives_once_and_in_order() {
    let mut world = World::streaming();
    let mut rng = fastrand::Rng::with_seed(11);
    world.fault = Box::new(move |_| match rng.u8(..10) {
        0..3 => Fate::Lose,
        3 => Fate::Twice,
        4 => Fate::Late(15_000),
        _ => Fate::Deliver,
    });
    let mut typed = vec![];
    for n in 0..200u16 {
        for pressed in [true, false] {
            let event = InputEvent::Key { keycode: n % 100 + 1, pressed };
            typed.push(HostEvent::Input(event));
            let now = world.now;
            world.clients[0].endpoint.submit_input(now, event).unwrap();
            world.run_ms(7);
        }
    }
    world.run_ms(500);
    let arrived: Vec<_> =
        world.host_events.iter().filter(|e| matches!(e, HostEvent::Input(_))).cloned().collect();
    assert_eq!(arrived.len(), typed.len());
    assert!(arrived == typed);
}

/// Proves R-INP-3 and R-PRIO-1: with a megabyte of video in the queue, everything else leaves first, and input
/// leaves in the very call after it was submitted.
#[test]
fn nothing_waits_behind_video() {
    let mut world = World::streaming();
    let mut buf = vec![0; 65_536];
    let now = world.now;
    world.clients[0].endpoint.submit_input(now, InputEvent::Key { keycode: 30, pressed: true }).unwrap();
    let input = world.clients[0].endpoint.poll_transmit(now, &mut buf).unwrap();
    assert_eq!(input.class, TrafficClass::Input);
    let mut datagram = buf[..input.len].to_vec();
    let from = rift_core::endpoint::Path::to(world.clients[0].address);

    let meta = rift_core::send::SliceMeta {
        frame_id: FrameId(0),
        slice_index: 0,
        last_slice: true,
        keyframe: true,
        reference: None,
        timestamp: now,
        capture_us: 0,
        encode_us: 0,
    };
    world.host.submit_slice(now, &meta, &vec![7; 1_000_000]).unwrap();
    world.host.submit_audio(now, now, &[1; 100]).unwrap();
    world.host.submit_clipboard("urgent").unwrap();
    world.host.handle_datagram(now, from, rift_core::endpoint::Ecn::NotEct, &mut datagram).unwrap();
    assert!(matches!(world.host.poll_event(), Some(HostEvent::Input(_))));
    let classes: Vec<_> =
        core::iter::from_fn(|| world.host.poll_transmit(now, &mut buf)).map(|t| t.class).take(6).collect();
    let first_video = classes.iter().position(|c| *c == TrafficClass::Video).unwrap();
    let sound = classes.iter().position(|c| *c == TrafficClass::Audio).unwrap();
    assert!(classes[..sound].iter().all(|c| *c == TrafficClass::Control) && sound >= 2, "{classes:?}");
    assert_eq!(first_video, sound + 1);
}

/// A client without any extension gets frames in one piece and can type and point.
#[test]
fn an_older_peer_is_served() {
    let mut world = World::new(host_config(&[1]));
    let mut config = client_config(1, Purpose::Stream);
    config.features = Features::NONE;
    world.connect(config);
    world.run_ms(100);
    assert!(world.is_connected(0));
    for id in 0..30 {
        world.submit_frame(id, 30_000, 4);
        world.run_ms(16);
    }
    world.run_ms(50);
    assert_eq!(world.clients[0].slices.len(), 30);
    assert!(world.clients[0].slices.iter().all(|(_, index, data)| *index == 0 && data.len() == 30_000));
    let key = InputEvent::Key { keycode: 30, pressed: true };
    let now = world.now;
    world.clients[0].endpoint.submit_input(now, key).unwrap();
    let relative = InputEvent::MouseMoveRelative { dx: 1.0, dy: 1.0 };
    assert_eq!(world.clients[0].endpoint.submit_input(now, relative), Err(DropReason::Unexpected));
    world.run_ms(20);
    assert!(world.host_events.contains(&HostEvent::Input(key)));
    let shape = CursorShape::default();
    assert_eq!(world.host.submit_cursor_shape(shape), Err(DropReason::Unexpected));
}

/// Proves R-FB-3: a path that fills up makes the host tell the encoder to send less, and tell the client so.
#[test]
fn a_growing_queue_lowers_the_rate() {
    let mut world = World::streaming_with(ControllerKind::DeltaV1);
    let before = world.host.target().unwrap().0;
    world.run_ms(2000);
    world.delay_us = 60_000;
    world.run_ms(4000);
    let after = world.host.target().unwrap().0;
    assert!(after.as_bps() < before.as_bps() / 2, "{before:?} -> {after:?}");
    assert!(
        world
            .host_events
            .iter()
            .any(|e| matches!(e, HostEvent::RateChanged { bitrate, .. } if *bitrate == after))
    );
    let told = |e: &ClientEvent| matches!(e, ClientEvent::StreamChanged { bitrate, .. } if *bitrate == after);
    assert!(world.clients[0].events.iter().any(told));
}

/// A minute at 2 % random loss both ways and 20 ms of round trip: every frame reaches the decoder, in time,
/// without a keyframe.
#[test]
fn a_minute_of_loss_needs_no_keyframe() {
    let mut world = World::with_client();
    world.delay_us = 10_000;
    world.run_ms(100);
    assert!(world.is_connected(0));
    let mut rng = fastrand::Rng::with_seed(99);
    world.fault = Box::new(move |_| if rng.u8(..50) == 0 { Fate::Lose } else { Fate::Deliver });
    let (mut late, mut last_at) = (0, world.now);
    let mut seen = 0;
    for id in 0..3600 {
        world.submit_frame(id, 21_000, 1);
        for _ in 0..16 {
            world.run_ms(1);
            let slices = world.clients[0].slices.len();
            if slices > seen {
                late = late.max(world.now.micros_since(last_at));
                (seen, last_at) = (slices, world.now);
            }
        }
    }
    world.run_ms(100);
    assert_eq!(world.clients[0].slices.len(), 3600);
    assert!(late <= 100_000, "{late} us without a frame");
    let asked =
        |e: &HostEvent| matches!(e, HostEvent::KeyframeNeeded | HostEvent::ReferenceInvalidated { .. });
    assert_eq!(world.host_events.iter().filter(|e| asked(e)).count(), 0);
}

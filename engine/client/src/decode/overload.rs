//! Decoders that are too slow: the client's own network and decode threads behind a real host's endpoint, with a
//! decoder that takes its time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use std::{io, thread};

use rift_core::endpoint::{ClientEndpoint, HostEndpoint, HostEvent};
use rift_core::send::SliceMeta as SentSlice;
use wavry_codec::{ColorSpace, DecoderCapabilities, I420Buffer};
use wavry_platform::headless::headless;
use wavry_runtime::spsc;
use wavry_runtime::transport::Transport as _;
use wavry_runtime::uring::UringUdp;
use wavry_session_loop::SessionLoop;

use super::*;
use crate::handoff;
use crate::network::steady_state::steady;
use crate::network::{NetworkLinks, NetworkThread};

const SLICES: u32 = 4;

/// Takes as long for each frame as it is told at the moment.
struct Slow {
    takes_us: Arc<AtomicU64>,
    picture: I420Buffer,
    done: Option<u64>,
}

impl Decoder for Slow {
    fn push_slice(&mut self, frame: u64, index: u32, last: bool, _: &[u8]) -> Result<(), DecodeError> {
        thread::sleep(Duration::from_micros(self.takes_us.load(Ordering::Acquire)) / SLICES);
        assert_eq!(last, index + 1 == SLICES);
        self.done = last.then_some(frame);
        Ok(())
    }
    fn poll_frame(&mut self) -> Result<Option<DecodedFrame<'_>>, DecodeError> {
        let Some(frame_id) = self.done.take() else { return Ok(None) };
        let picture = self.picture.view();
        Ok(Some(DecodedFrame { frame_id, keyframe: false, picture, color: ColorSpace::default() }))
    }
    fn reset(&mut self) -> Result<(), DecodeError> {
        Ok(())
    }
    fn capabilities(&self) -> DecoderCapabilities {
        DecoderCapabilities { backend: "slow", early_slices: true }
    }
}

/// Makes 60 frames per second, or as many as the session asks for; when each was made, in microseconds.
fn stream(
    mut host: SessionLoop<UringUdp, HostEndpoint>,
    over: &AtomicBool,
) -> io::Result<BTreeMap<u64, u64>> {
    let mut made = BTreeMap::new();
    let (mut frame, mut keyframe, mut due) = (0, true, steady::now());
    let (mut fps, mut skip, mut reference, mut watched) = (60, 0, None, false);
    while !over.load(Ordering::Acquire) {
        let now = steady::now();
        host.receive(now);
        while let Some(event) = host.endpoint_mut().poll_event() {
            match event {
                HostEvent::SessionStarted { .. } => (watched, keyframe) = (true, true),
                HostEvent::KeyframeNeeded => keyframe = true,
                HostEvent::ReferenceInvalidated { last_valid } => {
                    reference = reference.min(Some(last_valid));
                }
                HostEvent::RateChanged { fps: told, .. } => fps = told,
                HostEvent::SkipFrames(frames) => skip = frames,
                _ => {}
            }
        }
        if now >= due {
            due = due.plus_micros(1_000_000 / u64::from(fps)).max(now);
            if skip > 0 {
                skip -= 1;
            } else if watched {
                let whole = std::mem::take(&mut keyframe);
                for slice_index in 0..SLICES {
                    let meta = SentSlice {
                        frame_id: FrameId(frame),
                        slice_index,
                        last_slice: slice_index + 1 == SLICES,
                        keyframe: whole,
                        reference: reference.filter(|_| !whole),
                        timestamp: now,
                        capture_us: 0,
                        encode_us: 0,
                    };
                    let _ = host.endpoint_mut().submit_slice(now, &meta, &[5; 3000]);
                }
                made.insert(frame, now.as_micros());
                reference = Some(FrameId(frame));
                frame += 1;
            }
        }
        host.transmit(now);
        host.turn(due)?;
    }
    Ok(made)
}

/// Streams to a decoder that takes so long for each frame, for so long, one after the other. Frames shown: when, since
/// the beginning, and how long after they were made, in microseconds.
fn shown(phases: &[(Duration, Duration)]) -> Vec<(u64, u64)> {
    let over = Arc::new(AtomicBool::new(false));
    let (tell_host, host_at) = std::sync::mpsc::channel();
    let (give_config, config) = std::sync::mpsc::channel();
    let host = thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let transport = UringUdp::open(steady::loopback()).unwrap();
            tell_host.send(transport.local_addr()).unwrap();
            let endpoint = HostEndpoint::new(config.recv().unwrap(), steady::now());
            stream(SessionLoop::new(transport, endpoint), &over)
        }
    });
    let at = host_at.recv().unwrap();
    let (host_config, client_config) = steady::configurations(|| at);
    give_config.send(host_config).unwrap();

    let (slices, slice_end) = handoff::slices().unwrap();
    let (cursors, cursor_end) = spsc::ring(16);
    let (outcomes, outcome_end) = spsc::ring(1024);
    let (_commands, command_end) = spsc::ring(16);
    let (notices, _told) = spsc::ring(256);
    let (decode_notices, _decode_told) = spsc::ring(16);
    let shutdown = Shutdown::new();
    let (tell_waker, waker) = std::sync::mpsc::channel();
    let (give_decode, take_decode) = std::sync::mpsc::channel();
    let main_thread = thread::current();
    let client = thread::spawn({
        let (shutdown, main_thread) = (shutdown.clone(), main_thread.clone());
        move || {
            let transport = UringUdp::open(steady::loopback()).unwrap();
            tell_waker.send(transport.waker()).unwrap();
            let endpoint = ClientEndpoint::new(client_config, steady::now());
            let links = NetworkLinks {
                slices,
                cursors,
                outcomes: outcome_end,
                decode_thread: take_decode.recv().unwrap(),
                commands: command_end,
                notices,
                main_thread,
                shutdown,
            };
            NetworkThread::new(transport, endpoint, links).run()
        }
    });
    let waker = waker.recv().unwrap();
    shutdown.notify(waker.clone());
    let (presenter, screen) = headless();
    let takes_us = Arc::new(AtomicU64::new(0));
    let decoder = Slow { takes_us: Arc::clone(&takes_us), picture: I420Buffer::new(64, 64), done: None };
    let decode = thread::spawn({
        let links = DecodeLinks {
            slices: slice_end,
            cursors: cursor_end,
            outcomes,
            network: waker,
            notices: decode_notices,
            main_thread,
            shutdown: shutdown.clone(),
        };
        move || DecodeThread::new(Box::new(decoder), Box::new(presenter), links, None, false).run()
    });
    give_decode.send(decode.thread().clone()).unwrap();
    let begun = Clock.now() / 1000;
    let mut end = Instant::now();
    for &(takes, span) in phases {
        takes_us.store(takes.as_micros() as u64, Ordering::Release);
        end += span;
        thread::sleep(end.saturating_duration_since(Instant::now()));
    }
    shutdown.request();
    decode.thread().unpark();
    client.join().unwrap().unwrap();
    decode.join().unwrap();
    over.store(true, Ordering::Release);
    let made = host.join().unwrap().unwrap();
    let since = |record: &wavry_platform::headless::ShownRecord| {
        let at = record.shown.shown_at_ns / 1000;
        (at - begun, at - made[&record.shown.info.frame_id])
    };
    screen.take_records().iter().map(since).collect()
}

/// The latencies of frames shown in this part of the run, sorted, and how many there were per second.
fn part(shown: &[(u64, u64)], from_ms: u64, to_ms: u64) -> (Vec<u64>, u64) {
    let those = shown.iter().filter(|(at, _)| (from_ms * 1000..to_ms * 1000).contains(at));
    let mut latencies: Vec<u64> = those.map(|&(_, latency)| latency).collect();
    latencies.sort_unstable();
    let rate = latencies.len() as u64 * 1000 / (to_ms - from_ms);
    (latencies, rate)
}

fn quantile(sorted: &[u64], percent: usize) -> u64 {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or(u64::MAX)
}

const MS: fn(u64) -> Duration = Duration::from_millis;

/// A decoder that becomes 30 % too slow: within a second frames wait for it no longer than before, as the host makes
/// fewer. Once it is fast again it gets all of them.
#[test]
fn nothing_piles_up_before_a_decoder_that_is_a_third_too_slow() {
    let slow = Duration::from_micros(21_667);
    let shown = shown(&[(MS(4), MS(1200)), (slow, MS(2500)), (MS(4), MS(4000))]);
    let (before, rate) = part(&shown, 500, 1200);
    assert!(rate > 45, "{rate} frames per second before");
    let normal = quantile(&before, 50);
    let (after, rate) = part(&shown, 2200, 3700);
    // What decoding takes longer is no queue; another half of a frame is for a machine that has other things to do.
    let (median, most) = (quantile(&after, 50), quantile(&after, 95));
    assert!(median < normal + 17_667 + 8_000, "{normal} us before, {median} us later");
    assert!(most < normal + 2 * 21_667, "{normal} us before, {most} us at p95 later");
    assert!((25..44).contains(&rate), "{rate} frames per second");
    let (again, rate) = part(&shown, 6800, 7700);
    assert!(rate > 50 && quantile(&again, 50) < normal + 8_000, "{rate} frames per second at the end");
}

/// One that takes 80 ms per frame gets what it can take, and what waits does not grow.
#[test]
fn nothing_piles_up_before_a_decoder_that_is_far_too_slow() {
    let shown = shown(&[(MS(4), MS(700)), (MS(80), MS(3000))]);
    let (after, rate) = part(&shown, 1700, 3700);
    let (median, most) = (quantile(&after, 50), quantile(&after, 95));
    assert!((4..13).contains(&rate), "{rate} frames per second, {after:?}");
    assert!(median < 130_000 && most < 240_000, "{median} us, at p95 {most} us");
}

/// A decode thread that stands still for 300 ms, once: nothing is asked of the host, and a second later all is as before.
#[test]
fn a_decoder_that_stood_still_catches_up() {
    let shown = shown(&[(MS(4), MS(1000)), (MS(300), MS(50)), (MS(4), MS(2500))]);
    let normal = quantile(&part(&shown, 500, 1000).0, 50);
    let (after, rate) = part(&shown, 2300, 3500);
    assert!(rate > 45, "{rate} frames per second");
    assert!(quantile(&after, 95) < normal + 17_000, "{normal} us before, {after:?} after");
}

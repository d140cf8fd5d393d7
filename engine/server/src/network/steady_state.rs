//! The host's network thread over real loopback: no heap allocation, one kernel entry per turn.

#[path = "../../../session-loop/tests/support/steady.rs"]
mod steady;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{io, thread};

use rift_core::FrameId;
use rift_core::endpoint::{ClientEndpoint, HostEndpoint};
use rift_core::input::InputEvent;
use rift_core::send::SliceMeta;
use wavry_platform::{InjectError, InputInjector, Rect};
use wavry_runtime::shutdown::Shutdown;
use wavry_runtime::spsc;
use wavry_runtime::transport::Transport;
use wavry_runtime::uring::UringUdp;
use wavry_session_loop::SessionLoop;

use super::{NetworkLinks, NetworkThread, Tracing};
use crate::handoff::{self, SliceTimes};
use crate::notice::HostNotice;
use crate::video::VideoCommand;
use steady::{FRAME_INTERVAL, INPUT_INTERVAL, Observed, SLICE, SLICES, STEADY, Seen, WARM_UP};

struct Counter(Arc<AtomicU64>);

impl InputInjector for Counter {
    fn inject(&mut self, _: &wavry_platform::InputEvent) -> Result<(), InjectError> {
        self.0.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), InjectError> {
        Ok(())
    }

    fn release_all(&mut self) -> Result<(), InjectError> {
        Ok(())
    }

    fn set_area(&mut self, _: Rect) {}
}

/// A client that moves its mouse and takes every frame for decoded, until `over`. Returns how many there were.
fn watch(mut client: SessionLoop<UringUdp, ClientEndpoint>, over: &AtomicBool) -> io::Result<u64> {
    let (mut frames, mut input_due) = (0, steady::now());
    while !over.load(Ordering::Acquire) {
        let now = steady::now();
        client.receive(now);
        let endpoint = client.endpoint_mut();
        while endpoint.poll_event().is_some() {}
        while let Some(slice) = endpoint.poll_slice(now) {
            let (frame, last) = (slice.frame_id, slice.last);
            if last {
                frames += 1;
                endpoint.on_decoded(now, frame);
                endpoint.on_shown(now, frame);
            }
        }
        if now >= input_due {
            input_due = now + INPUT_INTERVAL;
            let _ = endpoint.submit_input(now, InputEvent::MouseMoveRelative { dx: 1.0, dy: 1.0 });
        }
        client.transmit(now);
        client.turn(input_due)?;
    }
    Ok(frames)
}

/// R-ROB-3 beyond the core: with sockets, rings, wake-ups and the program's own work.
#[test]
fn the_network_thread_neither_allocates_nor_enters_the_kernel_twice_per_turn() {
    let (mut slices, slice_end) = handoff::slices();
    let (_video_notices, video_notices) = spsc::ring(16);
    let (video_commands, mut commands) = spsc::ring(256);
    let (notices, mut told) = spsc::ring(256);
    let (shutdown, injected, seen) =
        (Shutdown::new(), Arc::new(AtomicU64::new(0)), Arc::new(Seen::default()));
    let (tell_host, host_at) = std::sync::mpsc::channel();
    let (give_config, config) = std::sync::mpsc::channel();
    let main_thread = thread::current();
    let host = thread::spawn({
        let (shutdown, injected, seen) = (shutdown.clone(), Arc::clone(&injected), Arc::clone(&seen));
        move || {
            let transport = UringUdp::open(steady::loopback()).unwrap();
            tell_host.send((transport.local_addr(), transport.waker())).unwrap();
            let endpoint = HostEndpoint::new(config.recv().unwrap(), steady::now());
            let links = NetworkLinks {
                slices: slice_end,
                video_notices,
                video_commands,
                video_thread: main_thread.clone(),
                notices,
                main_thread,
                shutdown,
            };
            let transport = Observed::new(transport, seen);
            NetworkThread::new(
                transport,
                endpoint,
                Some(Box::new(Counter(injected))),
                links,
                Tracing::default(),
            )
            .run()
        }
    });
    let (at, waker) = host_at.recv().unwrap();
    shutdown.notify(waker.clone());
    let (host_config, client_config) = steady::configurations(|| at);
    give_config.send(host_config).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let client = thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let transport = UringUdp::open(steady::loopback()).unwrap();
            watch(SessionLoop::new(transport, ClientEndpoint::new(client_config, steady::now())), &over)
        }
    });

    // This thread is the encoder, and the main thread.
    let (mut frame, mut keyframe, mut reports) = (0, true, 0);
    let mut encode = || {
        while let Some(command) = commands.pop() {
            keyframe |= matches!(
                command,
                VideoCommand::Start | VideoCommand::Keyframe | VideoCommand::ReferenceAtMost(_)
            );
        }
        while let Some(notice) = told.pop() {
            if let HostNotice::Statistics(s) = notice {
                reports += 1;
                assert_eq!(s.notices_lost, 0);
            }
        }
        let whole = std::mem::replace(&mut keyframe, false);
        for slice_index in 0..SLICES {
            let meta = SliceMeta {
                frame_id: FrameId(frame),
                slice_index,
                last_slice: slice_index + 1 == SLICES,
                keyframe: whole,
                reference: frame.checked_sub(1).map(FrameId).filter(|_| !whole),
                timestamp: steady::now(),
                capture_us: 300,
                encode_us: 2000 * (slice_index + 1),
            };
            // What a thread that was not scheduled for a while has no room for is not sent.
            let _ = slices.send(meta, SliceTimes::default(), &SLICE);
            waker.wake();
        }
        frame += 1;
    };
    steady::every(FRAME_INTERVAL, WARM_UP, &mut encode);
    seen.begin();
    let events = injected.load(Ordering::Acquire);
    steady::every(FRAME_INTERVAL, STEADY, &mut encode);
    seen.end();
    let events = injected.load(Ordering::Acquire) - events;
    over.store(true, Ordering::Release);
    let frames = client.join().unwrap().unwrap();
    shutdown.request();
    host.join().unwrap().unwrap();
    assert!(events > 400, "of 875 input events {events} arrived");
    assert!(frames > 300, "of 600 frames {frames} arrived");
    assert!(reports > 5, "statistics are told every second: {reports}");
    seen.check();
}

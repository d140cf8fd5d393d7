//! The client's network thread over real loopback: no heap allocation, one kernel entry per turn.

#[path = "../../../session-loop/tests/support/steady.rs"]
pub(crate) mod steady;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{io, thread};

use rift_core::FrameId;
use rift_core::endpoint::{ClientEndpoint, HostEndpoint, HostEvent};
use rift_core::input::InputEvent;
use rift_core::send::SliceMeta;
use wavry_runtime::shutdown::Shutdown;
use wavry_runtime::spsc;
use wavry_runtime::transport::Transport;
use wavry_runtime::uring::UringUdp;
use wavry_session_loop::SessionLoop;

use super::{NetworkLinks, NetworkThread};
use crate::handoff;
use crate::notice::{ClientCommand, ClientNotice, DecodeOutcome};
use steady::{FRAME_INTERVAL, INPUT_INTERVAL, Observed, SLICE, SLICES, STEADY, Seen, WARM_UP};

/// A host that sends frames and counts input, until `over`.
fn stream(
    mut host: SessionLoop<UringUdp, HostEndpoint>,
    inputs: &AtomicU64,
    over: &AtomicBool,
) -> io::Result<()> {
    let (mut frame, mut keyframe, mut frame_due) = (0, true, steady::now());
    while !over.load(Ordering::Acquire) {
        let now = steady::now();
        host.receive(now);
        let endpoint = host.endpoint_mut();
        while let Some(event) = endpoint.poll_event() {
            match event {
                HostEvent::Input(_) => _ = inputs.fetch_add(1, Ordering::AcqRel),
                HostEvent::SessionStarted { .. }
                | HostEvent::KeyframeNeeded
                | HostEvent::ReferenceInvalidated { .. } => keyframe = true,
                _ => {}
            }
        }
        if now >= frame_due {
            frame_due = now + FRAME_INTERVAL;
            let whole = std::mem::replace(&mut keyframe, false);
            for slice_index in 0..SLICES {
                let meta = SliceMeta {
                    frame_id: FrameId(frame),
                    slice_index,
                    last_slice: slice_index + 1 == SLICES,
                    keyframe: whole,
                    reference: frame.checked_sub(1).map(FrameId).filter(|_| !whole),
                    timestamp: now,
                    capture_us: 300,
                    encode_us: 2000 * (slice_index + 1),
                };
                // Before the client is there nobody wants them.
                let _ = endpoint.submit_slice(now, &meta, &SLICE);
            }
            frame += 1;
        }
        host.transmit(now);
        host.turn(frame_due)?;
    }
    Ok(())
}

/// R-ROB-3 beyond the core: with sockets, rings, wake-ups and the program's own work.
#[test]
fn the_network_thread_neither_allocates_nor_enters_the_kernel_twice_per_turn() {
    let (over, inputs, seen) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(Seen::default()));
    let (tell_host, host_at) = std::sync::mpsc::channel();
    let (give_config, config) = std::sync::mpsc::channel();
    let host = thread::spawn({
        let (inputs, over) = (Arc::clone(&inputs), Arc::clone(&over));
        move || {
            let transport = UringUdp::open(steady::loopback()).unwrap();
            tell_host.send(transport.local_addr()).unwrap();
            let endpoint = HostEndpoint::new(config.recv().unwrap(), steady::now());
            stream(SessionLoop::new(transport, endpoint), &inputs, &over)
        }
    });
    let at = host_at.recv().unwrap();
    let (host_config, client_config) = steady::configurations(|| at);
    give_config.send(host_config).unwrap();

    let (slices, mut whole) = handoff::slices().unwrap();
    let (cursors, _cursors) = spsc::ring(16);
    let (mut outcomes, outcome_end) = spsc::ring(256);
    let (mut commands, command_end) = spsc::ring(256);
    let (notices, mut told) = spsc::ring(256);
    let shutdown = Shutdown::new();
    let (tell_waker, waker) = std::sync::mpsc::channel();
    let main_thread = thread::current();
    let client = thread::spawn({
        let (shutdown, seen) = (shutdown.clone(), Arc::clone(&seen));
        move || {
            let transport = UringUdp::open(steady::loopback()).unwrap();
            tell_waker.send(transport.waker()).unwrap();
            let endpoint = ClientEndpoint::new(client_config, steady::now());
            let links = NetworkLinks {
                slices,
                cursors,
                outcomes: outcome_end,
                decode_thread: main_thread.clone(),
                commands: command_end,
                notices,
                main_thread,
                shutdown,
            };
            NetworkThread::new(Observed::new(transport, seen), endpoint, links).run()
        }
    });
    let waker = waker.recv().unwrap();
    shutdown.notify(waker.clone());

    // This thread is the decoder, the mouse, and the main thread.
    let (mut frames, mut reports) = (0, 0);
    let mut decode = || {
        while let Some(slice) = whole.pop() {
            assert_eq!(*slice.data, SLICE);
            if slice.meta.last {
                frames += 1;
                let _ = outcomes.push(DecodeOutcome::Shown(slice.meta.frame_id));
            }
        }
        while let Some(notice) = told.pop() {
            if let ClientNotice::Statistics(s) = notice {
                reports += 1;
                assert_eq!(s.notices_lost, 0);
            }
        }
        let _ = commands.push(ClientCommand::Input(InputEvent::MouseMoveRelative { dx: 1.0, dy: 1.0 }));
        waker.wake();
    };
    steady::every(INPUT_INTERVAL, WARM_UP, &mut decode);
    seen.begin();
    let events = inputs.load(Ordering::Acquire);
    steady::every(INPUT_INTERVAL, STEADY, &mut decode);
    seen.end();
    let events = inputs.load(Ordering::Acquire) - events;
    shutdown.request();
    client.join().unwrap().unwrap();
    over.store(true, Ordering::Release);
    host.join().unwrap().unwrap();
    assert!(events > 400, "of 875 input events {events} arrived");
    assert!(frames > 300, "of 600 frames {frames} arrived");
    assert!(reports > 5, "statistics are told every second: {reports}");
    seen.check();
}

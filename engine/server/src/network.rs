//! The network thread: owns the socket, the session, and input injection.
//!
//! Never blocks but in [`Transport::turn`], never allocates in the steady state, never takes a lock. Order
//! within a turn: datagrams first (input is injected before any media work), then slices from the
//! encoder, then everything there is to send, all of which leaves with the next kernel entry.

use std::thread::Thread;

use rift_core::Timestamp;
use rift_core::endpoint::{HostEndpoint, HostEvent};
use rift_core::input::InputEvent;
use rift_core::message::proto;
use rift_core::send::SliceMeta;
use rift_core::session::{CloseCode, CloseReason};
use wavry_platform::InputInjector;
use wavry_platform::input::BTN_LEFT;
use wavry_runtime::clock::Clock;
use wavry_runtime::shutdown::Shutdown;
use wavry_runtime::spsc::{Consumer, Producer};
use wavry_runtime::transport::Transport;
use wavry_session_loop::{SessionLoop, now};

use crate::handoff::{SliceReceiver, SliceTimes};
use crate::notice::{HostNotice, Statistics, VideoNotice};
use crate::trace::FrameTrace;
use crate::video::VideoCommand;

/// How often counts go to the main thread while somebody watches.
const STATISTICS_INTERVAL_US: u64 = 1_000_000;

/// The ends of the rings that the thread holds.
pub(crate) struct NetworkLinks {
    pub(crate) slices: SliceReceiver,
    pub(crate) video_notices: Consumer<VideoNotice>,
    pub(crate) video_commands: Producer<VideoCommand>,
    pub(crate) video_thread: Thread,
    pub(crate) notices: Producer<HostNotice>,
    pub(crate) main_thread: Thread,
    pub(crate) shutdown: Shutdown,
}

/// What is written down.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tracing {
    /// The times of each frame.
    pub(crate) frames: bool,
    /// What the controller decides.
    pub(crate) decisions: bool,
}

/// The thread's state.
pub(crate) struct NetworkThread<T> {
    session: SessionLoop<T, HostEndpoint>,
    injector: Option<Box<dyn InputInjector>>,
    links: NetworkLinks,
    tracing: Tracing,
    frame: FrameTrace,
    statistics: Statistics,
    statistics_due: Timestamp,
    injection_failed: bool,
    notices_lost: u64,
}

impl<T: Transport> NetworkThread<T> {
    /// A thread state around a transport and an endpoint.
    pub(crate) fn new(
        transport: T,
        endpoint: HostEndpoint,
        injector: Option<Box<dyn InputInjector>>,
        links: NetworkLinks,
        tracing: Tracing,
    ) -> Self {
        Self {
            session: SessionLoop::new(transport, endpoint),
            injector,
            links,
            tracing,
            frame: FrameTrace::default(),
            statistics: Statistics::default(),
            statistics_due: Timestamp::NEVER,
            injection_failed: false,
            notices_lost: 0,
        }
    }

    /// Runs until told to stop, then takes leave of the client.
    pub(crate) fn run(mut self) -> std::io::Result<()> {
        let result = self.serve();
        if result.is_ok() {
            self.take_leave()?;
        }
        self.notify(HostNotice::Stopped);
        result
    }

    fn serve(&mut self) -> std::io::Result<()> {
        while !self.links.shutdown.requested() {
            let now = now();
            self.session.receive(now);
            self.take_events(now);
            self.take_slices(now);
            self.take_video_notices(now);
            self.session.transmit(now);
            self.report(now);
            self.tell_decisions();
            self.session.turn(self.statistics_due)?;
        }
        Ok(())
    }

    /// Tells the client that the host is going, for as long as that may take.
    fn take_leave(&mut self) -> std::io::Result<()> {
        self.session.take_leave(CloseReason::Local(CloseCode::ShuttingDown))?;
        self.release_all();
        Ok(())
    }

    fn take_events(&mut self, now: Timestamp) {
        let mut injected = false;
        while let Some(event) = self.session.endpoint_mut().poll_event() {
            match event {
                HostEvent::Input(event) => {
                    self.inject(&event);
                    injected = true;
                }
                HostEvent::ReleaseAllInput => self.release_all(),
                HostEvent::SessionStarted { peer, name, fps, bitrate, .. } => {
                    self.command(VideoCommand::Rate { bitrate_bps: bitrate.as_bps(), fps });
                    self.statistics.bitrate_bps = bitrate.as_bps();
                    self.statistics_due = now.plus_micros(STATISTICS_INTERVAL_US);
                    self.command(VideoCommand::Start);
                    self.notify(HostNotice::Started { peer, name });
                }
                HostEvent::SessionEnded { peer, reason } => {
                    self.statistics_due = Timestamp::NEVER;
                    self.command(VideoCommand::Stop);
                    self.notify(HostNotice::Ended { peer, reason: reason.to_string() });
                }
                // It changes nothing before the next frame is encoded.
                HostEvent::FrameAcknowledged(frame) => {
                    self.command_when_awake(VideoCommand::Acknowledged(frame));
                }
                HostEvent::KeyframeNeeded => self.command(VideoCommand::Keyframe),
                HostEvent::ReferenceInvalidated { last_valid } => {
                    self.command(VideoCommand::ReferenceAtMost(last_valid));
                }
                HostEvent::ReferencePreferred { known } => {
                    self.command_when_awake(VideoCommand::PreferReference(known));
                }
                HostEvent::RateChanged { bitrate, fps, .. } => {
                    self.statistics.bitrate_bps = bitrate.as_bps();
                    self.command(VideoCommand::Rate { bitrate_bps: bitrate.as_bps(), fps });
                }
                HostEvent::ScaleChanged(scale) => self.command(VideoCommand::Scale(scale)),
                HostEvent::SkipFrames(frames) => self.command(VideoCommand::Skip(frames)),
                HostEvent::EncoderHeld(held) => self.command(VideoCommand::Hold(held)),
                HostEvent::MonitorSelected(id) => self.command(VideoCommand::SelectMonitor(id)),
                HostEvent::Paired { id, name } => self.notify(HostNotice::Paired { peer: id, name }),
                HostEvent::PairingFailed { attempts_left } => {
                    self.notify(HostNotice::PairingFailed { attempts_left });
                }
                _ => {}
            }
        }
        if injected {
            let flushed = self.injector.as_mut().map_or(Ok(()), |injector| injector.flush());
            self.on_injected(flushed);
        }
    }

    fn take_slices(&mut self, now: Timestamp) {
        while let Some(mut slice) = self.links.slices.pop() {
            let len = slice.data.len();
            let submitted = self.session.endpoint_mut().submit_buffer(now, &slice.meta, &mut slice.data);
            if submitted.is_err() {
                self.statistics.slices_lost += 1;
            }
            if self.tracing.frames {
                self.trace_slice(&slice.meta, slice.times, len);
            }
            if slice.meta.last_slice {
                self.statistics.frames += 1;
            }
            let last = slice.meta.last_slice;
            self.links.slices.give_back(slice.data);
            if self.tracing.frames {
                // Sealed here and not with the rest, so that the time is this slice's own.
                self.session.transmit(now);
                self.trace_sealed(last);
            }
        }
    }

    fn take_video_notices(&mut self, now: Timestamp) {
        while let Some(notice) = self.links.video_notices.pop() {
            match notice {
                VideoNotice::Area(area) => {
                    if let Some(injector) = &mut self.injector {
                        injector.set_area(area);
                    }
                }
                VideoNotice::CursorPosition { at_ns, x, y, visible, shape_serial } => {
                    self.session.endpoint_mut().submit_cursor_position(proto::CursorPosition {
                        timestamp_us: at_ns / 1000,
                        x,
                        y,
                        visible,
                        shape_serial: shape_serial.into(),
                    });
                }
                VideoNotice::CursorShape(shape) => {
                    // Without room for it the pointer keeps its last picture.
                    let _ = self.session.endpoint_mut().submit_cursor_shape(proto::CursorShape {
                        serial: shape.serial.into(),
                        width: shape.width,
                        height: shape.height,
                        hotspot_x: shape.hot_x,
                        hotspot_y: shape.hot_y,
                        bgra: shape.bgra,
                    });
                }
                VideoNotice::Failed => {
                    self.session.endpoint_mut().close(now, CloseReason::Local(CloseCode::DeviceFailed));
                }
            }
        }
    }

    fn report(&mut self, now: Timestamp) {
        if now < self.statistics_due {
            return;
        }
        self.statistics_due = now.plus_micros(STATISTICS_INTERVAL_US);
        let traffic = self.session.take_traffic();
        self.statistics.packets = traffic.sent;
        self.statistics.bytes = traffic.sent_bytes;
        self.statistics.dropped_datagrams = traffic.refused;
        if let Some(session) = self.session.endpoint().session() {
            self.statistics.rtt_us = session.rtt_us;
        }
        if let Some(counters) = self.session.endpoint().sender_counters() {
            self.statistics.retransmitted = counters.retransmitted_packets;
        }
        self.statistics.system_calls = self.session.transport().counters().syscalls;
        self.statistics.notices_lost = self.notices_lost;
        let seen = self.statistics;
        self.notify(HostNotice::Statistics(seen));
        self.statistics = Statistics { bitrate_bps: seen.bitrate_bps, ..Statistics::default() };
    }

    fn tell_decisions(&mut self) {
        if !self.tracing.decisions {
            return;
        }
        while let Some(decision) = self.session.endpoint_mut().poll_decision() {
            self.notify(HostNotice::Decision(decision));
        }
    }

    fn inject(&mut self, event: &InputEvent) {
        let Some(injector) = &mut self.injector else { return };
        let injected = match to_platform_input(event) {
            Some(event) if event.is_finite() => injector.inject(&event),
            _ => Ok(()),
        };
        self.on_injected(injected);
    }

    fn release_all(&mut self) {
        if let Some(injector) = &mut self.injector {
            let released = injector.release_all();
            self.on_injected(released);
        }
    }

    /// Tells of the first failure; one bad event must not fill the log.
    fn on_injected(&mut self, result: Result<(), wavry_platform::InjectError>) {
        if let Err(error) = result
            && !std::mem::replace(&mut self.injection_failed, true)
        {
            self.notify(HostNotice::InjectionFailed(error.to_string()));
        }
    }

    fn command(&mut self, command: VideoCommand) {
        self.command_when_awake(command);
        self.links.video_thread.unpark();
    }

    /// For what can wait until the video thread looks by itself.
    fn command_when_awake(&mut self, command: VideoCommand) {
        if self.links.video_commands.push(command).is_err() {
            self.notices_lost += 1;
        }
    }

    fn notify(&mut self, notice: HostNotice) {
        if self.links.notices.push(notice).is_err() {
            self.notices_lost += 1;
        }
        self.links.main_thread.unpark();
    }

    fn trace_slice(&mut self, meta: &SliceMeta, times: SliceTimes, bytes: usize) {
        if meta.slice_index == 0 {
            self.frame = FrameTrace {
                frame: meta.frame_id.0,
                keyframe: meta.keyframe,
                capture_started_us: times.capture_started / 1000,
                captured_us: times.captured / 1000,
                first_slice_us: times.encoded / 1000,
                width: times.width,
                height: times.height,
                ..FrameTrace::default()
            };
        }
        self.frame.slices = meta.slice_index + 1;
        self.frame.bytes += bytes as u64;
        self.frame.encoded_us = times.encoded / 1000;
    }

    fn trace_sealed(&mut self, last: bool) {
        let sealed = Clock.now() / 1000;
        if self.frame.slices == 1 {
            self.frame.first_sealed_us = sealed;
        }
        self.frame.last_sealed_us = sealed;
        if last {
            self.notify(HostNotice::Frame(self.frame));
        }
    }
}

fn to_platform_input(event: &InputEvent) -> Option<wavry_platform::InputEvent> {
    use wavry_platform::InputEvent as Platform;
    Some(match *event {
        InputEvent::MouseMove { x, y } => Platform::MouseMoveAbs { x, y },
        InputEvent::MouseMoveRelative { dx, dy } => Platform::MouseMoveRel { dx, dy },
        InputEvent::MouseButton { button, pressed } => {
            Platform::MouseButton { button: BTN_LEFT + u32::from(button), pressed }
        }
        InputEvent::Key { keycode, pressed } => Platform::Key { keycode: u32::from(keycode), pressed },
        InputEvent::Scroll { dx, dy } => Platform::Scroll { dx, dy },
        _ => return None,
    })
}

#[cfg(test)]
mod steady_state;

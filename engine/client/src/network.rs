//! The network thread: owns the socket and the session.
//!
//! Never blocks but in [`Transport::turn`], never allocates in the steady state, never takes a lock. Order
//! within a turn: datagrams, then what became of frames, then input, then everything there is to send.

use std::thread::Thread;

use rift_core::Timestamp;
use rift_core::endpoint::{ClientEndpoint, ClientEvent, Refusal, Via};
use rift_core::message::proto::RefusalReason;
use rift_core::session::{CloseCode, CloseReason};
use wavry_runtime::shutdown::Shutdown;
use wavry_runtime::spsc::{Consumer, Producer};
use wavry_runtime::transport::Transport;
use wavry_session_loop::{SessionLoop, now};

use crate::handoff::{SliceMeta, SliceSender};
use crate::load::DecoderLoad;
use crate::notice::{ClientCommand, ClientNotice, CursorNotice, DecodeOutcome, Statistics};

/// How often counts go to the main thread.
const STATISTICS_INTERVAL_US: u64 = 1_000_000;

/// The ends of the rings that the thread holds.
pub(crate) struct NetworkLinks {
    pub(crate) slices: SliceSender,
    pub(crate) cursors: Producer<CursorNotice>,
    pub(crate) outcomes: Consumer<DecodeOutcome>,
    pub(crate) decode_thread: Thread,
    pub(crate) commands: Consumer<ClientCommand>,
    pub(crate) notices: Producer<ClientNotice>,
    pub(crate) main_thread: Thread,
    pub(crate) shutdown: Shutdown,
}

/// The thread's state.
pub(crate) struct NetworkThread<T> {
    session: SessionLoop<T, ClientEndpoint>,
    links: NetworkLinks,
    load: DecoderLoad,
    statistics: Statistics,
    statistics_due: Timestamp,
    notices_lost: u64,
    over: bool,
}

impl<T: Transport> NetworkThread<T> {
    /// A thread state around a transport and an endpoint.
    pub(crate) fn new(transport: T, endpoint: ClientEndpoint, links: NetworkLinks) -> Self {
        Self {
            session: SessionLoop::new(transport, endpoint),
            links,
            load: DecoderLoad::default(),
            statistics: Statistics::default(),
            statistics_due: Timestamp::NEVER,
            notices_lost: 0,
            over: false,
        }
    }

    /// Runs until told to stop or until the host ends the session.
    pub(crate) fn run(mut self) -> std::io::Result<()> {
        let result =
            self.serve().and_then(|()| self.session.take_leave(CloseReason::Local(CloseCode::Normal)));
        self.notify(ClientNotice::Stopped);
        result
    }

    fn serve(&mut self) -> std::io::Result<()> {
        while !self.over && !self.links.shutdown.requested() {
            let now = now();
            self.session.receive(now);
            self.take_outcomes(now);
            self.take_commands(now);
            self.take_events(now);
            self.hand_over_slices(now);
            self.session.transmit(now);
            self.report(now);
            self.session.turn(self.statistics_due)?;
        }
        Ok(())
    }

    fn take_outcomes(&mut self, now: Timestamp) {
        while let Some(outcome) = self.links.outcomes.pop() {
            match outcome {
                DecodeOutcome::Shown(frame) => {
                    self.session.endpoint_mut().on_decoded(now, frame);
                    self.session.endpoint_mut().on_shown(now, frame);
                }
                DecodeOutcome::Decoded(frame) => self.session.endpoint_mut().on_decoded(now, frame),
                DecodeOutcome::Failed(frame) => self.session.endpoint_mut().on_decode_failed(now, frame),
                DecodeOutcome::Worked(busy_us) => {
                    let Some(limit) = self.load.on_done(now, busy_us) else { continue };
                    // Where too much waits to be told, the next change tells it.
                    let _ = self.session.endpoint_mut().limit_frame_rate(limit.max_fps, limit.skip_frames);
                }
            }
        }
    }

    fn take_commands(&mut self, now: Timestamp) {
        while let Some(command) = self.links.commands.pop() {
            match command {
                ClientCommand::Input(event) => {
                    // An event with impossible numbers is not sent.
                    let _ = self.session.endpoint_mut().submit_input(now, event);
                }
                ClientCommand::Close => self.over = true,
            }
        }
    }

    fn take_events(&mut self, now: Timestamp) {
        while let Some(event) = self.session.endpoint_mut().poll_event() {
            match event {
                ClientEvent::Connected { peer, stream, via } => {
                    self.statistics_due = now.plus_micros(STATISTICS_INTERVAL_US);
                    self.load.on_session(stream.fps);
                    let size = stream.resolution.unwrap_or_default();
                    self.notify(ClientNotice::Connected {
                        peer: peer.id,
                        width: size.width,
                        height: size.height,
                        fps: stream.fps,
                        one_round_trip: via == Via::Ik,
                    });
                }
                ClientEvent::PairingRequired => {
                    self.notify(ClientNotice::Refused("it is not paired with this client".to_owned()));
                    self.over = true;
                }
                ClientEvent::Refused(reason) => {
                    self.notify(ClientNotice::Refused(refusal(reason).to_owned()));
                    self.over = true;
                }
                ClientEvent::Closed(reason) => {
                    self.notify(ClientNotice::Closed(reason));
                    self.over = true;
                }
                ClientEvent::CursorShape(shape) => {
                    self.tell_cursor(CursorNotice::Shape(shape));
                }
                ClientEvent::CursorPosition(position) => {
                    self.tell_cursor(CursorNotice::Position(position));
                }
                _ => {}
            }
        }
    }

    fn hand_over_slices(&mut self, now: Timestamp) {
        let mut any = false;
        while let Some(slice) = self.session.endpoint_mut().poll_slice(now) {
            self.statistics.slices += 1;
            let (frame, index, last) = (slice.frame_id, slice.index, slice.last);
            let handed = self.load.takes(frame, index)
                && self.links.slices.send(SliceMeta::from(&slice), slice.data).is_ok();
            any |= handed;
            if !handed {
                // The decoder is behind. It gets the next frame that does not need this one.
                self.statistics.slices_lost += 1;
                self.session.endpoint_mut().on_decode_failed(now, frame);
            } else if last {
                self.load.on_handed_over();
            }
        }
        if any {
            self.links.decode_thread.unpark();
        }
    }

    fn report(&mut self, now: Timestamp) {
        if now < self.statistics_due {
            return;
        }
        self.statistics_due = now.plus_micros(STATISTICS_INTERVAL_US);
        let traffic = self.session.take_traffic();
        self.statistics.datagrams = traffic.received;
        self.statistics.bytes = traffic.received_bytes;
        self.statistics.notices_lost = self.notices_lost;
        if let Some(session) = self.session.endpoint().session() {
            self.statistics.rtt_us = session.rtt_us;
        }
        if let Some(counters) = self.session.endpoint().receiver_counters() {
            self.statistics.asked_again = counters.nacks;
            self.statistics.repaired = counters.chunks_from_parity + counters.chunks_resent;
            self.statistics.frames_dropped = counters.frames_dropped;
        }
        let seen = std::mem::take(&mut self.statistics);
        self.notify(ClientNotice::Statistics(seen));
    }

    fn tell_cursor(&mut self, cursor: CursorNotice) {
        self.notices_lost += u64::from(self.links.cursors.push(cursor).is_err());
        self.links.decode_thread.unpark();
    }

    fn notify(&mut self, notice: ClientNotice) {
        self.notices_lost += u64::from(self.links.notices.push(notice).is_err());
        self.links.main_thread.unpark();
    }
}

/// Why the host refused, in words.
pub(crate) fn refusal(reason: Refusal) -> &'static str {
    let Refusal::Host(reason) = reason else { return "it takes no new connections now" };
    match reason {
        RefusalReason::RefusalNone => "no reason was given",
        RefusalReason::NotPaired => "it is not paired with this client",
        RefusalReason::Busy => "another client is using it",
        RefusalReason::NoCommonCodec => "it has no video format that this client can decode",
        RefusalReason::VersionMismatch => "it speaks another version of the protocol; update the older side",
        RefusalReason::PairingClosed => "it is not in pairing mode; start it with --pair",
        RefusalReason::NoDisplay => "it has no display to stream",
    }
}

#[cfg(test)]
pub(crate) mod steady_state;

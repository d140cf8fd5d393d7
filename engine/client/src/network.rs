//! The network thread: owns the socket and the session.
//!
//! Never blocks but in [`Transport::turn`], never allocates in the steady state, never takes a lock. Order
//! within a turn: datagrams, then what became of frames, then input, then everything there is to send.

use std::thread::Thread;

use rift_core::Timestamp;
use rift_core::endpoint::{self, ClientEndpoint, ClientEvent, Path, Refusal, Via};
use rift_core::message::proto::RefusalReason;
use rift_core::session::{CloseCode, CloseReason};
use wavry_runtime::clock::Clock;
use wavry_runtime::shutdown::Shutdown;
use wavry_runtime::spsc::{Consumer, Producer};
use wavry_runtime::transport::{self, Transport};

use crate::handoff::{SliceMeta, SliceSender};
use crate::notice::{ClientCommand, ClientNotice, CursorNotice, DecodeOutcome, Statistics};

/// How often counts go to the main thread.
const STATISTICS_INTERVAL_US: u64 = 1_000_000;
/// How long taking leave may last.
const CLOSE_US: u64 = 300_000;

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
    transport: T,
    endpoint: ClientEndpoint,
    links: NetworkLinks,
    statistics: Statistics,
    statistics_due: Timestamp,
    over: bool,
}

impl<T: Transport> NetworkThread<T> {
    /// A thread state around a transport and an endpoint.
    pub(crate) fn new(transport: T, endpoint: ClientEndpoint, links: NetworkLinks) -> Self {
        Self {
            transport,
            endpoint,
            links,
            statistics: Statistics::default(),
            statistics_due: Timestamp::NEVER,
            over: false,
        }
    }

    /// Runs until told to stop or until the host ends the session.
    pub(crate) fn run(mut self) -> std::io::Result<()> {
        let result = self.serve().and_then(|()| self.take_leave());
        self.notify(ClientNotice::Stopped);
        result
    }

    fn serve(&mut self) -> std::io::Result<()> {
        while !self.over && !self.links.shutdown.requested() {
            let now = now();
            self.receive(now);
            self.endpoint.handle_timeout(now);
            self.take_outcomes(now);
            self.take_commands(now);
            self.take_events(now);
            self.hand_over_slices(now);
            self.transmit(now);
            self.report(now);
            let deadline = self.endpoint.poll_timeout().min(self.statistics_due);
            self.transport.turn(to_ns(deadline))?;
        }
        Ok(())
    }

    fn take_leave(&mut self) -> std::io::Result<()> {
        let end = now().plus_micros(CLOSE_US);
        self.endpoint.close(now(), CloseReason::Local(CloseCode::Normal));
        loop {
            let now = now();
            self.receive(now);
            self.endpoint.handle_timeout(now);
            self.transmit(now);
            let due = self.endpoint.poll_timeout();
            if now >= end || self.endpoint.is_drained() {
                return self.transport.flush();
            }
            self.transport.turn(to_ns(due.min(end)))?;
        }
    }

    fn receive(&mut self, now: Timestamp) {
        while let Some(batch) = self.transport.poll_receive() {
            let path = Path { remote: batch.from, local: batch.to };
            let ecn = endpoint::Ecn::from_bits(batch.ecn as u8);
            for datagram in batch.datagrams() {
                self.statistics.datagrams += 1;
                self.statistics.bytes += datagram.len() as u64;
                // Garbage is counted by the endpoint.
                let _ = self.endpoint.handle_datagram(now, path, ecn, datagram);
            }
        }
    }

    fn take_outcomes(&mut self, now: Timestamp) {
        while let Some(outcome) = self.links.outcomes.pop() {
            match outcome {
                DecodeOutcome::Shown(frame) => {
                    self.endpoint.on_decoded(now, frame);
                    self.endpoint.on_shown(now, frame);
                }
                DecodeOutcome::Decoded(frame) => self.endpoint.on_decoded(now, frame),
                DecodeOutcome::Failed(frame) => self.endpoint.on_decode_failed(now, frame),
            }
        }
    }

    fn take_commands(&mut self, now: Timestamp) {
        while let Some(command) = self.links.commands.pop() {
            match command {
                ClientCommand::Input(event) => {
                    // An event with impossible numbers is not sent.
                    let _ = self.endpoint.submit_input(now, event);
                }
                ClientCommand::Close => self.over = true,
            }
        }
    }

    fn take_events(&mut self, now: Timestamp) {
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                ClientEvent::Connected { peer, stream, via } => {
                    self.statistics_due = now.plus_micros(STATISTICS_INTERVAL_US);
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
                    let _ = self.links.cursors.push(CursorNotice::Shape(shape));
                    self.links.decode_thread.unpark();
                }
                ClientEvent::CursorPosition(position) => {
                    let _ = self.links.cursors.push(CursorNotice::Position(position));
                    self.links.decode_thread.unpark();
                }
                _ => {}
            }
        }
    }

    fn hand_over_slices(&mut self, now: Timestamp) {
        let mut any = false;
        while let Some(slice) = self.endpoint.poll_slice(now) {
            any = true;
            self.statistics.slices += 1;
            let frame = slice.frame_id;
            if self.links.slices.send(SliceMeta::from(&slice), slice.data).is_err() {
                // The decoder is behind. It gets the next frame that does not need this one.
                self.statistics.slices_lost += 1;
                self.endpoint.on_decode_failed(now, frame);
            }
        }
        if any {
            self.links.decode_thread.unpark();
        }
    }

    fn transmit(&mut self, now: Timestamp) {
        while let Some(mut slot) = self.transport.acquire() {
            let Some(out) = self.endpoint.poll_transmit(now, &mut slot) else { break };
            let transmit = transport::Transmit {
                to: out.path.remote,
                from: out.path.local,
                len: out.len,
                segment_len: out.segment_len,
                class: transport::TrafficClass::Ef,
                ecn: transport::Ecn::NotEct,
            };
            self.transport.commit(slot, transmit);
        }
    }

    fn report(&mut self, now: Timestamp) {
        if now < self.statistics_due {
            return;
        }
        self.statistics_due = now.plus_micros(STATISTICS_INTERVAL_US);
        if let Some(session) = self.endpoint.session() {
            self.statistics.rtt_us = session.rtt_us;
        }
        if let Some(counters) = self.endpoint.receiver_counters() {
            self.statistics.asked_again = counters.nacks;
            self.statistics.repaired = counters.chunks_from_parity + counters.chunks_resent;
            self.statistics.frames_dropped = counters.frames_dropped;
        }
        let seen = std::mem::take(&mut self.statistics);
        self.notify(ClientNotice::Statistics(seen));
    }

    fn notify(&mut self, notice: ClientNotice) {
        let _ = self.links.notices.push(notice);
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

fn now() -> Timestamp {
    Timestamp::from_micros(Clock.now() / 1000)
}

fn to_ns(deadline: Timestamp) -> Option<u64> {
    (deadline != Timestamp::NEVER).then(|| deadline.as_micros().saturating_mul(1000))
}

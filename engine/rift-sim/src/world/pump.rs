//! Takes everything out of an endpoint that it has to give.

use rift_core::Timestamp;

use super::pair::Pair;
use super::stage::Stage;
use super::{Event, Peers, Side};
use crate::check::Rule;
use crate::endpoint::{Client, ClientNotice, Departure, Endpoint, Host, HostNotice};
use crate::report::Decision;

/// More departures than this at one moment are no burst but a loop.
const DEPARTURES_MAX: u32 = 4_000;
/// Decisions that are kept of a run: an hour's worth.
const DECISIONS_MAX: usize = 250_000;

impl<P: Peers> Pair<P> {
    /// Sends what `side` has to send, passes on what it has to tell, and notes when it wants to be called.
    pub(super) fn pump(&mut self, stage: &mut Stage, side: Side) {
        for round in 0.. {
            self.transmit(stage, side);
            let progress = match side {
                Side::Host => self.hear_host(stage),
                Side::Client => self.hear_client(stage),
            };
            if !progress {
                break;
            }
            if round > DEPARTURES_MAX {
                stage.violations.add(
                    stage.now,
                    Rule::Endless,
                    format_args!("{side:?} never runs out of notices"),
                );
                stage.halted = true;
                break;
            }
        }
        self.rearm(stage, side);
    }

    /// Queues the call that `side` asks for.
    pub(super) fn rearm(&mut self, stage: &mut Stage, side: Side) {
        let (clock, wake, timeout) = match side {
            Side::Host => (&self.host_clock, &mut self.host_wake, self.host.poll_timeout()),
            Side::Client => {
                let Some(client) = &self.client else { return };
                (&self.client_clock, &mut self.client_wake, client.poll_timeout())
            }
        };
        if let Some(at) = wake.arm(stage.now, clock.world(timeout, stage.now)) {
            stage.queue.push(at, Event::Wake(self.index, side));
        }
    }

    /// Calls `side` if its timer is due.
    pub(super) fn wake(&mut self, stage: &mut Stage, side: Side) {
        let now = self.local(side, stage.now);
        let (wake, endpoint): (_, &mut dyn Endpoint) = match (side, &mut self.client) {
            (Side::Host, _) => (&mut self.host_wake, &mut self.host),
            (Side::Client, Some(client)) => (&mut self.client_wake, client),
            (Side::Client, None) => return,
        };
        if !wake.fires(stage.now) {
            return;
        }
        if endpoint.poll_timeout() > now {
            self.rearm(stage, side);
            return;
        }
        if wake.on_call(stage.now) {
            stage.violations.add(
                stage.now,
                Rule::Endless,
                format_args!("{side:?} has a timer that does not advance"),
            );
        }
        endpoint.handle_timeout(now);
        self.pump(stage, side);
    }

    fn transmit(&mut self, stage: &mut Stage, side: Side) {
        let now = self.local(side, stage.now);
        let mut buffer = std::mem::take(&mut stage.buffer);
        let mut departures = 0;
        while let Some(departure) = self.poll_transmit(side, now, &mut buffer) {
            let Departure { to, len, segment_len, ecn } = departure;
            for datagram in buffer[..len].chunks(segment_len.max(1)) {
                self.send(stage, side, to, ecn, datagram);
            }
            departures += 1;
            if departures > DEPARTURES_MAX || len == 0 {
                stage.violations.add(stage.now, Rule::Endless, format_args!("{side:?} never stops sending"));
                stage.halted = true;
                break;
            }
        }
        stage.buffer = buffer;
    }

    fn poll_transmit(&mut self, side: Side, now: Timestamp, buffer: &mut [u8]) -> Option<Departure> {
        match side {
            Side::Host => self.host.poll_transmit(now, buffer),
            Side::Client => self.client.as_mut()?.poll_transmit(now, buffer),
        }
    }

    fn hear_host(&mut self, stage: &mut Stage) -> bool {
        let mut heard = false;
        while let Some(decision) = self.host.poll_decision() {
            if self.decisions.len() < DECISIONS_MAX {
                self.decisions.push(Decision { at_us: stage.now.as_micros(), ..decision });
            }
        }
        while let Some(notice) = self.host.poll_notice() {
            heard = true;
            match notice {
                HostNotice::SessionStarted => {
                    self.sessions += 1;
                    self.streaming = true;
                    self.source.restart();
                    self.schedule_capture(stage, 0);
                    self.input.on_session();
                    self.on_session_stands(stage);
                    stage.note(10, 0);
                }
                HostNotice::SessionEnded => {
                    self.streaming = false;
                    self.input.restart(stage.now);
                    stage.note(11, 0);
                }
                HostNotice::Input(input) => {
                    self.input.on_applied(stage.now, input, &mut stage.violations);
                    stage.note(12, 0);
                }
                HostNotice::ReleaseAllInput => self.input.on_release_all(),
                HostNotice::KeyframeNeeded => {
                    self.source.on_keyframe_needed();
                    stage.note(13, 0);
                }
                HostNotice::ReferenceInvalidated(last_valid) => {
                    self.source.on_reference_invalidated(last_valid);
                    self.invalidations += 1;
                    stage.note(14, last_valid.0);
                }
                HostNotice::ReferencePreferred(known) => self.source.on_reference_preferred(known),
                HostNotice::FrameAcknowledged(frame) => self.source.on_acknowledged(frame),
                HostNotice::RateChanged { bitrate, fps } => {
                    self.source.on_rate_changed(bitrate, fps);
                    self.stream.on_target(stage.now.as_micros(), self.source.rate());
                    stage.note(15, bitrate.as_bps());
                }
                HostNotice::SkipFrames(frames) => {
                    self.source.on_skip_frames(frames);
                    stage.note(16, frames.into());
                }
                HostNotice::EncoderHeld(held) => {
                    self.source.on_held(held);
                    stage.note(17, held.into());
                }
            }
        }
        heard
    }

    fn hear_client(&mut self, stage: &mut Stage) -> bool {
        let now = self.local(Side::Client, stage.now);
        let mut heard = false;
        let Some(client) = &mut self.client else { return false };
        while let Some(slice) = client.poll_slice(now) {
            heard = true;
            stage.log.add(stage.now.as_micros() ^ slice.frame_id.0 << 20 ^ u64::from(slice.index));
            let picture = self.player.on_slice(stage.now, &slice, &self.source, &mut stage.violations);
            if let Some(picture) = picture {
                if picture.sound {
                    self.stream.on_complete(picture.frame, stage.now.as_micros());
                    self.player.on_decoded(picture.frame);
                }
                let event = Event::Decoded { pair: self.index, client: self.client_number, picture };
                stage.push(self.scenario.decode_us, event);
            }
        }
        while let Some(notice) = self.client.as_mut().and_then(Client::poll_notice) {
            heard = true;
            match notice {
                ClientNotice::Connected => {
                    self.client_connected = true;
                    self.on_session_stands(stage);
                    stage.note(20, 0);
                }
                ClientNotice::Closed => {
                    self.client_connected = false;
                    self.player.restart();
                    self.stream.on_absent(stage.now.as_micros());
                    stage.note(21, 0);
                }
            }
        }
        heard
    }

    /// Once both ends are there, the person at the client begins to type.
    fn on_session_stands(&mut self, stage: &mut Stage) {
        if self.client_connected && self.streaming && self.scenario.input_per_s > 0 && !self.typing_pending {
            self.typing_pending = true;
            stage.push(self.typing_interval_us(), Event::Type(self.index));
        }
    }
}

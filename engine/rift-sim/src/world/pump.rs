//! Takes everything out of an endpoint that it has to give.

use rift_core::Timestamp;

use super::{Event, Peers, Side, World};
use crate::check::Rule;
use crate::endpoint::{Client, ClientNotice, Departure, Endpoint, Host, HostNotice};

/// More departures than this at one moment are no burst but a loop.
const DEPARTURES_MAX: u32 = 4_000;

impl<P: Peers> World<P> {
    /// Sends what `side` has to send, passes on what it has to tell, and notes when it wants to be called.
    pub(super) fn pump(&mut self, side: Side) {
        for round in 0.. {
            self.transmit(side);
            let progress = match side {
                Side::Host => self.hear_host(),
                Side::Client => self.hear_client(),
            };
            if !progress {
                break;
            }
            if round > DEPARTURES_MAX {
                self.violations.add(
                    self.now,
                    Rule::Endless,
                    format_args!("{side:?} never runs out of notices"),
                );
                self.halted = true;
                break;
            }
        }
        self.rearm(side);
    }

    /// Queues the call that `side` asks for.
    pub(super) fn rearm(&mut self, side: Side) {
        let (clock, wake, timeout) = match side {
            Side::Host => (&self.host_clock, &mut self.host_wake, self.host.poll_timeout()),
            Side::Client => {
                let Some(client) = &self.client else { return };
                (&self.client_clock, &mut self.client_wake, client.poll_timeout())
            }
        };
        if let Some(at) = wake.arm(self.now, clock.world(timeout, self.now)) {
            self.queue.push(at, Event::Wake(side));
        }
    }

    /// Calls `side` if its timer is due.
    pub(super) fn wake(&mut self, side: Side) {
        let now = self.local(side);
        let (wake, endpoint): (_, &mut dyn Endpoint) = match (side, &mut self.client) {
            (Side::Host, _) => (&mut self.host_wake, &mut self.host),
            (Side::Client, Some(client)) => (&mut self.client_wake, client),
            (Side::Client, None) => return,
        };
        if !wake.fires(self.now) {
            return;
        }
        if endpoint.poll_timeout() > now {
            self.rearm(side);
            return;
        }
        if wake.on_call(self.now) {
            self.violations.add(
                self.now,
                Rule::Endless,
                format_args!("{side:?} has a timer that does not advance"),
            );
        }
        endpoint.handle_timeout(now);
        self.pump(side);
    }

    fn transmit(&mut self, side: Side) {
        let now = self.local(side);
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut departures = 0;
        while let Some(departure) = self.poll_transmit(side, now, &mut buffer) {
            let Departure { to, len, segment_len, ecn } = departure;
            for datagram in buffer[..len].chunks(segment_len.max(1)) {
                self.send(side, to, ecn, datagram);
            }
            departures += 1;
            if departures > DEPARTURES_MAX || len == 0 {
                self.violations.add(self.now, Rule::Endless, format_args!("{side:?} never stops sending"));
                self.halted = true;
                break;
            }
        }
        self.buffer = buffer;
    }

    fn poll_transmit(&mut self, side: Side, now: Timestamp, buffer: &mut [u8]) -> Option<Departure> {
        match side {
            Side::Host => self.host.poll_transmit(now, buffer),
            Side::Client => self.client.as_mut()?.poll_transmit(now, buffer),
        }
    }

    fn hear_host(&mut self) -> bool {
        let mut heard = false;
        while let Some(notice) = self.host.poll_notice() {
            heard = true;
            match notice {
                HostNotice::SessionStarted => {
                    self.sessions += 1;
                    self.streaming = true;
                    self.source.restart();
                    self.schedule_capture(0);
                    self.input.on_session();
                    self.on_session_stands();
                    self.note(10, 0);
                }
                HostNotice::SessionEnded => {
                    self.streaming = false;
                    self.input.restart(self.now);
                    self.note(11, 0);
                }
                HostNotice::Input(input) => {
                    self.input.on_applied(self.now, input, &mut self.violations);
                    self.note(12, 0);
                }
                HostNotice::ReleaseAllInput => self.input.on_release_all(),
                HostNotice::KeyframeNeeded => {
                    self.source.on_keyframe_needed();
                    self.note(13, 0);
                }
                HostNotice::ReferenceInvalidated(last_valid) => {
                    self.source.on_reference_invalidated(last_valid);
                    self.invalidations += 1;
                    self.note(14, last_valid.0);
                }
                HostNotice::RateChanged { bitrate, fps } => {
                    self.source.on_rate_changed(bitrate, fps);
                    self.stream.on_target(self.now.as_micros(), self.source.rate());
                    self.note(15, bitrate.as_bps());
                }
                HostNotice::SkipFrames(frames) => {
                    self.source.on_skip_frames(frames);
                    self.note(16, frames.into());
                }
                HostNotice::EncoderHeld(held) => {
                    self.source.on_held(held);
                    self.note(17, held.into());
                }
            }
        }
        heard
    }

    fn hear_client(&mut self) -> bool {
        let now = self.local(Side::Client);
        let mut heard = false;
        let Some(client) = &mut self.client else { return false };
        while let Some(slice) = client.poll_slice(now) {
            heard = true;
            self.log.add(self.now.as_micros() ^ slice.frame_id.0 << 20 ^ u64::from(slice.index));
            let picture = self.player.on_slice(self.now, &slice, &self.source, &mut self.violations);
            if let Some(picture) = picture {
                if picture.sound {
                    self.stream.on_complete(picture.frame, self.now.as_micros());
                    self.player.on_decoded(picture.frame);
                }
                let at = self.now.plus_micros(self.scenario.decode_us);
                self.queue.push(at, Event::Decoded { client: self.client_number, picture });
            }
        }
        while let Some(notice) = self.client.as_mut().and_then(Client::poll_notice) {
            heard = true;
            match notice {
                ClientNotice::Connected => {
                    self.client_connected = true;
                    self.on_session_stands();
                    self.note(20, 0);
                }
                ClientNotice::Closed => {
                    self.client_connected = false;
                    self.player.restart();
                    self.note(21, 0);
                }
            }
        }
        heard
    }

    /// Once both ends are there, the person at the client begins to type.
    fn on_session_stands(&mut self) {
        if self.client_connected && self.streaming && self.scenario.input_per_s > 0 && !self.typing_pending {
            self.typing_pending = true;
            self.queue.push(self.now.plus_micros(self.typing_interval_us()), Event::Type);
        }
    }
}

//! From datagrams to what they mean for a session.

use super::handshakes::Context;
use super::session::{Outcome, Role, Session};
use super::stream::EVENTS_MAX;
use super::{HostEndpoint, HostEvent, SESSIONS_MAX};
use crate::endpoint::{Ecn, Path};
use crate::message::proto::control_message::Control;
use crate::session::CloseReason;
use crate::wire::{HandshakeHeader, TRANSPORT_HEADER_LEN, TransportHeader};
use crate::{Alias, DropReason, Timestamp};

impl HostEndpoint {
    pub(super) fn handle_transport(
        &mut self,
        now: Timestamp,
        path: Path,
        ecn: Ecn,
        header: TransportHeader,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let known = self.sessions.iter().position(|s| s.link.local_alias() == header.alias);
        let (index, outcome) = if let Some(index) = known {
            let session = &mut self.sessions[index];
            if session.link.on_call(now) {
                session.on_clock_jump(now);
            }
            let outcome = session.handle_datagram(now, path, header.packet_id, datagram, &mut self.events)?;
            (index, outcome)
        } else {
            let has_room = self.has_room();
            let (mut arrival, len) =
                self.handshakes.handle_first_packet(header.alias, header.packet_id, datagram, has_room)?;
            arrival.path = path;
            self.admit(now, arrival);
            let index = self.sessions.len() - 1;
            let Session { link, role, .. } = &mut self.sessions[index];
            let body = &datagram[TRANSPORT_HEADER_LEN..][..len];
            (index, Session::handle_body(link, role, now, body, &mut self.events)?)
        };
        if ecn == Ecn::Ce {
            self.sessions[index].link.on_congestion_mark();
        }
        self.handle_outcome(index, now, outcome);
        Ok(())
    }

    pub(super) fn handle_handshake(
        &mut self,
        now: Timestamp,
        path: Path,
        header: &HandshakeHeader,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let has_room = self.has_room();
        let taken: [Alias; SESSIONS_MAX] =
            core::array::from_fn(|i| self.sessions.get(i).map_or(Alias(0), |s| s.link.local_alias()));
        let mut context = Context {
            identity: &self.config.identity,
            entropy: &mut self.entropy,
            link: &self.config.link,
            taken: &taken,
            has_room,
        };
        if let Some(arrival) = self.handshakes.handle(now, path, header, datagram, &mut context)? {
            self.admit(now, arrival);
        }
        Ok(())
    }

    /// Does what a datagram of session `index` led to.
    fn handle_outcome(&mut self, index: usize, now: Timestamp, mut outcome: Outcome) {
        loop {
            match outcome {
                Outcome::Ended(reason) => return self.end(index, now, reason),
                Outcome::Message(control) => {
                    if let Err(reason) = self.handle_message(index, now, control) {
                        return self.end(index, now, reason);
                    }
                }
                Outcome::Done => {
                    if matches!(self.sessions[index].role, Role::Refused { .. })
                        && let Some(reason) = self.sessions[index].handle_timeout(now, &mut self.events)
                    {
                        self.end(index, now, reason);
                    }
                    return;
                }
            }
            outcome = self.sessions[index].poll_message();
        }
    }

    /// Takes a reliable message.
    fn handle_message(&mut self, index: usize, now: Timestamp, control: Control) -> Result<(), CloseReason> {
        if let (Control::EncoderControl(control), Role::Streaming(streaming)) =
            (&control, &mut self.sessions[index].role)
        {
            streaming.on_decoder_limit(now, control, &mut self.events);
            return Ok(());
        }
        let is_streaming = matches!(self.sessions[index].role, Role::Streaming(_));
        let event = match control {
            Control::Pairing(message) => return self.handle_pairing(index, now, &message.data),
            Control::Clipboard(message) if is_streaming => HostEvent::Clipboard(message.text),
            Control::SelectMonitor(message) if is_streaming => HostEvent::MonitorSelected(message.monitor_id),
            Control::DisplayModeRequest(mode) if is_streaming => {
                HostEvent::DisplayModeRequested { width: mode.width, height: mode.height, fps: mode.fps }
            }
            // Known messages that this side has no use for, and those of newer versions.
            _ => return Ok(()),
        };
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
        Ok(())
    }
}

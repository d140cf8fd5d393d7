//! From datagrams to what they mean for the client.

use super::connect::{Connected, Step};
use super::pairing::{PairingAttempt, Verdict};
use super::session::Session;
use super::{ClientEndpoint, ClientEvent, Phase, Purpose, Refusal, StreamInfo, begin};
use crate::endpoint::{Ecn, Path};
use crate::message::proto::control_message::Control;
use crate::message::proto::{self, Codec, HelloAck, RefusalReason};
use crate::message::{self, Incoming};
use crate::session::link::{Channel, Link, Taken};
use crate::session::{CloseCode, CloseReason, Features, Violation};
use crate::wire::{HandshakeHeader, TAG_LEN, TRANSPORT_HEADER_LEN, TransportHeader};
use crate::{Bitrate, DropReason, PacketId, Timestamp};

impl ClientEndpoint {
    pub(super) fn handle_handshake(
        &mut self,
        now: Timestamp,
        header: &HandshakeHeader,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let connecting = match core::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Connecting(connecting) => connecting,
            other => {
                self.phase = other;
                return Err(DropReason::Unexpected);
            }
        };
        let (result, rest) = connecting.handle(now, header, datagram);
        if let Some(rest) = rest {
            self.phase = Phase::Connecting(rest);
        }
        match result? {
            Step::Wait => {}
            Step::UseXx => {
                self.phase = begin(now, &self.config, &mut self.entropy, false, &mut self.events);
            }
            Step::Rejected(reason) => {
                self.events.push_back(ClientEvent::Refused(Refusal::Unauthenticated(reason)));
                self.close(now, CloseReason::Remote(CloseCode::Refused));
            }
            Step::Failed(reason) => {
                self.phase = Phase::Closed;
                self.events.push_back(ClientEvent::Closed(reason));
            }
            Step::Connected(connected) => self.start(now, *connected),
        }
        Ok(())
    }

    fn start(&mut self, now: Timestamp, connected: Connected) {
        let Connected { established, local_alias, remote_alias, via, id, msg3 } = connected;
        let (peer, handshake_hash) = (established.peer, established.handshake_hash);
        let config = &self.config.link;
        let channel = Channel::new(now, established.keys, local_alias, remote_alias, config);
        self.phase = Phase::Session(Box::new(Session {
            link: Link::new(now, self.config.host, channel, config),
            peer,
            via,
            handshake_hash,
            handshake_id: id,
            msg3,
            features: Features::NONE,
            is_accepted: false,
            pairing: None,
        }));
    }

    #[inline]
    pub(super) fn handle_transport(
        &mut self,
        now: Timestamp,
        path: &Path,
        ecn: Ecn,
        header: TransportHeader,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let Phase::Session(session) = &mut self.phase else { return Err(DropReason::UnknownAlias) };
        if session.link.local_alias() != header.alias {
            return Err(DropReason::UnknownAlias);
        }
        let id = header.packet_id;
        // Nearly every packet ends in here, so nothing of what follows is in its way.
        if let Some(streaming) = &mut self.streaming
            && streaming.expect(id, datagram.len())
        {
            let link = &mut session.link;
            let open = |datagram: &[u8], body: &mut [u8]| link.open_into(now, path, id, datagram, body);
            if streaming.open_next(datagram, open)? {
                session.on_opened(ecn)?;
                streaming.handle_next(now, id, ecn, datagram.len());
                return Ok(());
            }
            let end = datagram.len() - TAG_LEN;
            return self.handle_body(now, ecn, id, &datagram[TRANSPORT_HEADER_LEN..end]);
        }
        self.handle_sealed(now, path, ecn, id, datagram)
    }

    /// Takes a packet of which nothing is expected.
    #[inline(never)]
    fn handle_sealed(
        &mut self,
        now: Timestamp,
        path: &Path,
        ecn: Ecn,
        id: PacketId,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let Phase::Session(session) = &mut self.phase else { return Err(DropReason::UnknownAlias) };
        let body = session.link.open(now, path, id, datagram)?;
        self.handle_body(now, ecn, id, body)
    }

    /// Takes what was sealed in a packet.
    fn handle_body(&mut self, now: Timestamp, ecn: Ecn, id: PacketId, body: &[u8]) -> Result<(), DropReason> {
        let Phase::Session(session) = &mut self.phase else { return Err(DropReason::UnknownAlias) };
        session.on_opened(ecn)?;
        if let Some(streaming) = &mut self.streaming {
            streaming.on_packet(now, id, ecn);
            if let Some(taken) = streaming.handle_chunk(now, id, body) {
                return taken;
            }
        }
        let incoming = message::decode(body).map_err(|_| DropReason::Malformed)?;
        if let Incoming::Media(media) = &incoming {
            let streaming = self.streaming.as_mut().ok_or(DropReason::Unexpected)?;
            return streaming.handle_media(now, id, body, media);
        }
        match session.link.handle(now, incoming)? {
            Taken::Done => self.handle_messages(now),
            Taken::Rtt(sample_us) => {
                if let Some(streaming) = &mut self.streaming {
                    streaming.on_rtt(&session.link);
                }
                self.report(ClientEvent::RttSample(sample_us));
            }
            Taken::Ended(reason) => self.close(now, reason),
            // Published peers send these as they are.
            Taken::Other(Incoming::Control(control @ (Control::MonitorList(_) | Control::Clipboard(_)))) => {
                if let Err(reason) = self.handle_message(now, control) {
                    self.close(now, reason);
                }
            }
            Taken::Other(Incoming::Control(control)) => return self.handle_control(control),
            Taken::Other(Incoming::Unknown) => {}
            Taken::Other(_) => return Err(DropReason::Unexpected),
        }
        Ok(())
    }

    /// Takes an unreliable control message.
    fn handle_control(&mut self, control: Control) -> Result<(), DropReason> {
        match control {
            Control::InputAck(ack) => {
                let streaming = self.streaming.as_mut().ok_or(DropReason::Unexpected)?;
                streaming.on_input_ack(ack.sequence);
            }
            Control::CursorPosition(position) => self.report(ClientEvent::CursorPosition(position)),
            Control::CongestionControl(rate) => self.report(ClientEvent::StreamChanged {
                bitrate: Bitrate::from_kbps(rate.target_bitrate_kbps),
                fps: rate.target_fps,
            }),
            _ => return Err(DropReason::Unexpected),
        }
        Ok(())
    }

    /// Takes all reliable messages that are whole.
    fn handle_messages(&mut self, now: Timestamp) {
        loop {
            let Phase::Session(session) = &mut self.phase else { return };
            if session.link.is_ending() {
                return;
            }
            let result = match session.link.poll_message() {
                Ok(None) => return,
                Ok(Some(control)) => self.handle_message(now, control),
                Err(reason) => Err(reason),
            };
            if let Err(reason) = result {
                return self.close(now, reason);
            }
        }
    }

    fn handle_message(&mut self, now: Timestamp, control: Control) -> Result<(), CloseReason> {
        match control {
            Control::HelloAck(ack) => return self.handle_hello_ack(now, &ack),
            Control::Pairing(message) => return self.handle_pairing(now, &message.data),
            Control::MonitorList(list) => self.report(ClientEvent::Monitors(list.monitors)),
            Control::Clipboard(message) => self.report(ClientEvent::Clipboard(message.text)),
            Control::CursorShape(shape) => self.report(ClientEvent::CursorShape(shape)),
            Control::AudioFormat(format) => {
                if let Some(streaming) = &mut self.streaming {
                    streaming.set_audio_frame(u64::from(format.frame_us.clamp(2_500, 60_000)));
                }
                self.report(ClientEvent::AudioFormat(format));
            }
            // Known messages that this side has no use for, and those of newer versions.
            _ => {}
        }
        Ok(())
    }

    fn handle_hello_ack(&mut self, now: Timestamp, ack: &HelloAck) -> Result<(), CloseReason> {
        let Phase::Session(session) = &mut self.phase else { return Ok(()) };
        if session.is_accepted {
            return Err(CloseReason::Protocol(Violation::OutOfPhase));
        }
        if !ack.accepted {
            self.events.push_back(match ack.refusal() {
                RefusalReason::NotPaired => ClientEvent::PairingRequired,
                reason => ClientEvent::Refused(Refusal::Host(reason)),
            });
            return Err(CloseReason::Remote(CloseCode::Refused));
        }
        session.is_accepted = true;
        // The host takes away from what was offered, and adds nothing.
        session.features = Features::from_bits(ack.features).common(self.config.features);
        session.link.set_features(session.features);
        if let Some(streaming) = &mut self.streaming {
            streaming.start(now, session.features);
            streaming.on_rtt(&session.link);
        }
        if let Purpose::Pair(pin) = &self.config.purpose {
            let secret = self.entropy.ephemeral();
            let (attempt, start) = PairingAttempt::start(pin, &session.handshake_hash, secret)
                .map_err(|_| CloseReason::CryptoFailed)?;
            session.pairing = Some(attempt);
            let _ = session.link.push(pairing_control(&start));
            return Ok(());
        }
        let mut session_id = [0; 16];
        if ack.session_id.len() == session_id.len() {
            session_id.copy_from_slice(&ack.session_id);
        }
        let stream = StreamInfo {
            codec: Codec::try_from(ack.selected_codec).unwrap_or(Codec::H264),
            resolution: ack.stream_resolution,
            fps: ack.fps,
            initial_bitrate: Bitrate::from_kbps(ack.initial_bitrate_kbps),
            features: session.features,
            session_id,
        };
        self.events.push_back(ClientEvent::Connected { peer: session.peer, stream, via: session.via });
        Ok(())
    }

    fn handle_pairing(&mut self, now: Timestamp, data: &[u8]) -> Result<(), CloseReason> {
        let Phase::Session(session) = &mut self.phase else { return Ok(()) };
        let out_of_phase = CloseReason::Protocol(Violation::OutOfPhase);
        let Some(attempt) = &mut session.pairing else { return Err(out_of_phase) };
        match attempt.handle(data) {
            Verdict::Reply(message) => {
                let _ = session.link.push(pairing_control(&message));
                Ok(())
            }
            Verdict::Paired => {
                let host = session.peer;
                self.events.push_back(ClientEvent::Paired { host });
                self.close(now, CloseReason::Local(CloseCode::Normal));
                Ok(())
            }
            Verdict::WrongPin(attempts_left) => {
                self.events.push_back(ClientEvent::WrongPin { attempts_left: attempts_left.into() });
                Err(CloseReason::Remote(CloseCode::Refused))
            }
            Verdict::Closed => {
                let reason = Refusal::Host(RefusalReason::PairingClosed);
                self.events.push_back(ClientEvent::Refused(reason));
                Err(CloseReason::Remote(CloseCode::Refused))
            }
            Verdict::Violation => Err(out_of_phase),
        }
    }
}

fn pairing_control(message: &rift_crypto::PairingMessage) -> Control {
    let data = message.encode();
    let step = data.first().copied().unwrap_or(0).into();
    Control::Pairing(proto::Pairing { step, data })
}

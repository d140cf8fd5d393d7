//! What a streaming session has besides its upkeep: video, sound, cursor, input, rate control.
//!
//! Owns the media of one session and their order. Never knows about handshakes or other sessions.
//! Invariant: what is sealed between the packets of one group is nothing.

use std::collections::VecDeque;

use super::doubted::Doubted;
use super::fallback::Fallback;
use super::rate::{RateControl, Target};
use super::sound::SoundQueue;
use super::{ControllerKind, HostConfig, HostEvent, StreamOffer};
use crate::delta2::{DecisionTrace, Scale};
use crate::endpoint::TrafficClass;
use crate::fec::Code;
use crate::feedback::{DATAGRAM_OVERHEAD, PacketKind, SentHistory, SentPacket};
use crate::input::InputReceiver;
use crate::message::Incoming;
use crate::message::proto::control_message::Control;
use crate::message::proto::{CongestionControl, CursorPosition, EncoderControl, Hello, InputAck};
use crate::send::{Batch, BatchKind, SenderConfig, SliceMeta, VideoSender};
use crate::session::Features;
use crate::session::keys::Use;
use crate::session::link::Link;
use crate::{Bitrate, DropReason, FrameId, PacketId, Timestamp};

/// Events that may wait for the program. 1024 are many seconds of a fast mouse; beyond, input is not
/// acknowledged and so comes again.
pub(super) const EVENTS_MAX: usize = 1024;
/// No batch has more packets than the largest group.
pub(super) const BATCH_MAX: u64 = 64;

/// The client is told of new rates this often at most, in microseconds; the encoder may hear of one per frame.
const TELL_CLIENT_US: u64 = 100_000;
/// From the end of a hold until a frame has left, in microseconds: a capture at 60 frames and its encoding, and as
/// much again.
const ANSWER_US: u64 = 40_000;
/// How much leaves at once on a path that is known to be slow, in microseconds of the pacing rate: timers
/// finer than this cost more than a queue of 2 ms does.
const BURST_US: u64 = 2_000;
/// Frames that a client may have left out at once because they would wait before its decoder.
const DECODER_SKIP_MAX: u32 = 8;

/// The media of a session.
#[derive(Debug)]
pub(super) struct Streaming {
    pub(super) features: Features,
    /// Parity per packet, whatever is lost.
    parity_least: f32,
    sender: VideoSender,
    /// What left, until its fate is known.
    sent: SentHistory,
    /// What is asked for and may be under way.
    doubted: Doubted,
    /// Frame and number of the packet that left last for the first time.
    newest_sent: (FrameId, u16),
    /// A batch was begun and its rest must leave next.
    is_mid_batch: bool,
    input: InputReceiver,
    sound: SoundQueue,
    cursor: Option<CursorPosition>,
    rate: RateControl,
    rate_due: Option<CongestionControl>,
    /// When the client was last told.
    rate_told_at: Timestamp,
    /// Pacing and burst that the sender was built with.
    built: (Bitrate, u32),
    pacing: Option<Bitrate>,
    is_held: bool,
    /// When the encoder was last held or let go.
    released_at: Timestamp,
    scale: Scale,
    keyframe: Served,
    invalidation: Served,
    /// Of the last report: a mean follows a queue that fills only when that is full.
    latest_rtt_us: u64,
    fallback: Fallback,
}

/// A request that repeats until it is served, told to the program once per round trip.
#[derive(Debug, Default)]
struct Served {
    /// The newest frame served, and when: for a round trip requests about older ones are late repetitions. Later
    /// ones were made by somebody to whom that frame was lost too.
    up_to: Option<(FrameId, Timestamp)>,
    told_at: Option<Timestamp>,
}

impl Served {
    fn is_news(&mut self, now: Timestamp, frame: FrameId, pause_us: u64) -> bool {
        let is_old = self.up_to.is_some_and(|(served, at)| {
            served > frame && (now < at || now.micros_since(at) < pause_us.saturating_add(ANSWER_US))
        });
        let is_told = self.told_at.is_some_and(|at| now >= at && now.micros_since(at) < pause_us);
        if is_old || is_told {
            return false;
        }
        self.told_at = Some(now);
        true
    }

    fn on_served(&mut self, now: Timestamp, frame: FrameId) {
        self.up_to = Some((frame, now));
        self.told_at = None;
    }
}

impl Streaming {
    pub(super) fn new(config: &HostConfig, hello: &Hello, features: Features, link: &Link) -> Self {
        let sender = sender_config(&config.sender, features, link.datagram_len());
        let parity = sender.parity;
        let fps = fps_of(&config.stream, hello);
        let reports = features.contains(Features::ARRIVAL_FEEDBACK);
        let controller = match config.controller {
            // There is nothing that it could work from.
            ControllerKind::Delta2 if !reports => ControllerKind::DeltaV1,
            kind => kind,
        };
        let built = (sender.pacing, sender.burst_bytes_max);
        let rate = RateControl::new(controller, &config.stream, fps, parity);
        let mut video = VideoSender::new(&sender);
        video.set_protecting(rate.leaves_parity() && features.contains(Features::FEC_REGULAR));
        video.set_period(1_000_000 / u64::from(fps.max(1)));
        Self {
            features,
            parity_least: parity,
            sender: video,
            sent: SentHistory::new(sender.pool_sizes().history_packets),
            doubted: Doubted::default(),
            newest_sent: (FrameId(0), 0),
            is_mid_batch: false,
            input: InputReceiver::new(),
            sound: SoundQueue::new(),
            cursor: None,
            rate,
            rate_due: None,
            rate_told_at: Timestamp::ZERO,
            built,
            pacing: None,
            is_held: false,
            released_at: Timestamp::ZERO,
            scale: Scale::Full,
            keyframe: Served::default(),
            invalidation: Served::default(),
            latest_rtt_us: 0,
            fallback: Fallback::default(),
        }
    }

    pub(super) fn sender(&self) -> &VideoSender {
        &self.sender
    }

    pub(super) fn audio_dropped(&self) -> u64 {
        self.sound.dropped()
    }

    pub(super) fn rate(&self) -> &RateControl {
        &self.rate
    }

    pub(super) fn submit_slice(
        &mut self,
        now: Timestamp,
        meta: &SliceMeta,
        data: &[u8],
    ) -> Result<(), DropReason> {
        self.sender.submit_slice(now, meta, data)?;
        self.on_slice(now, meta, data.len());
        Ok(())
    }

    pub(super) fn submit_buffer(
        &mut self,
        now: Timestamp,
        meta: &SliceMeta,
        data: &mut Vec<u8>,
    ) -> Result<(), DropReason> {
        let len = data.len();
        self.sender.submit_buffer(now, meta, data)?;
        self.on_slice(now, meta, len);
        Ok(())
    }

    fn on_slice(&mut self, now: Timestamp, meta: &SliceMeta, len: usize) {
        self.rate.on_slice(now, len, meta.last_slice);
        self.fallback.on_slice(meta);
        if meta.keyframe {
            self.keyframe.on_served(now, meta.frame_id);
            self.invalidation.on_served(now, meta.frame_id);
        }
    }

    pub(super) fn submit_audio(&mut self, timestamp: Timestamp, data: &[u8]) -> Result<(), DropReason> {
        self.sound.push(timestamp, data)
    }

    pub(super) fn set_cursor(&mut self, position: CursorPosition) {
        if self.features.contains(Features::CURSOR) {
            self.cursor = Some(position);
        }
    }

    pub(super) fn on_rtt(&mut self, now: Timestamp, link: &Link, sample_us: u64) {
        self.sender.set_rtt(link.rtt().smoothed_us());
        self.rate.on_rtt(now, sample_us);
    }

    /// Takes a message that the link did not. Tells the program through `events`.
    pub(super) fn handle(
        &mut self,
        now: Timestamp,
        incoming: &Incoming<'_>,
        rtt_us: u64,
        events: &mut VecDeque<HostEvent>,
    ) -> Result<(), DropReason> {
        match incoming {
            Incoming::InputBatch(_) | Incoming::Input(_)
                if events.len() + InputReceiver::APPLIED_MAX > EVENTS_MAX =>
            {
                Err(DropReason::NoRoom)
            }
            Incoming::InputBatch(content) => {
                self.input.handle_batch(content, |event| events.push_back(HostEvent::Input(event)))
            }
            Incoming::Input(message) => {
                self.input.handle_single(message, |event| events.push_back(HostEvent::Input(event)));
                Ok(())
            }
            Incoming::Nack(ids) => {
                // On a path that stands still what is missing is under way, and copies would only be carried after it.
                // One that loses packets does not: what is overdue there is rather lost.
                let stands = self.rate.is_overdue() && !self.sender.expects_losses();
                let (sent, doubted) = (&self.sent, &mut self.doubted);
                let lost = ids.clone().map(PacketId).filter(|&id| {
                    let is_doubted = stands && sent.may_be_late(id);
                    if is_doubted {
                        doubted.push(id);
                    }
                    !is_doubted
                });
                self.sender.on_nack(now, lost);
                self.go_past(now, rtt_us, events);
                Ok(())
            }
            Incoming::Control(control) => self.handle_control(now, control, rtt_us, events),
            Incoming::ArrivalFeedback(report) => {
                let (rate, sender, fallback) = (&mut self.rate, &mut self.sender, &mut self.fallback);
                let doubted = &mut self.doubted;
                let summary = self.sent.on_report(now, report, |outcome| {
                    rate.on_outcome(outcome);
                    sender.on_outcome(outcome, rate.is_queued());
                    fallback.on_outcome(outcome);
                    doubted.on_outcome(outcome);
                });
                let lost = self.doubted.take_lost(|id| self.sent.is_in_flight(id));
                self.sender.on_nack(now, lost);
                self.go_past(now, rtt_us, events);
                if let Some(rtt_us) = summary.rtt_us {
                    self.latest_rtt_us = rtt_us;
                    self.sender.set_latest_rtt(rtt_us);
                }
                self.rate.on_report(now, &summary, self.sent.in_flight());
                Ok(())
            }
            Incoming::Unknown => Ok(()),
            _ => Err(DropReason::Unexpected),
        }
    }

    /// What cannot be sent again in time is gone past at once: the client asks for that only when it has waited for
    /// what it will not get.
    fn go_past(&mut self, now: Timestamp, rtt_us: u64, events: &mut VecDeque<HostEvent>) {
        if !self.sender.poll_past_repair() {
            return;
        }
        let Some(last_valid) = self.fallback.acknowledged() else { return };
        if events.len() < EVENTS_MAX && self.invalidation.is_news(now, last_valid, rtt_us) {
            // Where repair came too late once it will be again, however short the way is without its queue.
            self.fallback.begin(last_valid);
            events.push_back(HostEvent::ReferenceInvalidated { last_valid });
        }
    }

    /// Notices frames that the sender gave up and targets that changed.
    pub(super) fn poll_changes(&mut self, now: Timestamp, events: &mut VecDeque<HostEvent>) {
        if let Some(dropped) = self.sender.poll_dropped() {
            events.push_back(match dropped.last_valid {
                Some(last_valid) => HostEvent::ReferenceInvalidated { last_valid },
                None => HostEvent::KeyframeNeeded,
            });
        }
        if self.rate.leaves_parity() {
            self.rate.set_parity(self.sender.parity_share().max(self.parity_least));
        }
        if let Some(target) = self.rate.poll_change() {
            let parity = if self.features.contains(Features::FEC_REGULAR) { target.parity } else { 0.0 };
            if !self.rate.leaves_parity() {
                self.sender.set_parity(parity);
            }
            self.sender.set_period(1_000_000 / u64::from(target.fps.max(1)));
            if self.rate_told_at == Timestamp::ZERO || now.micros_since(self.rate_told_at) >= TELL_CLIENT_US {
                self.rate_told_at = now;
                self.rate_due = Some(CongestionControl {
                    target_bitrate_kbps: target.bitrate.as_kbps(),
                    target_fps: target.fps,
                });
            }
            events.push_back(HostEvent::RateChanged { bitrate: target.bitrate, fps: target.fps, parity });
        }
        if self.rate.scale() != self.scale {
            self.scale = self.rate.scale();
            events.push_back(HostEvent::ScaleChanged(self.scale));
        }
        if let Some(known) = self.fallback.poll() {
            events.push_back(HostEvent::ReferencePreferred { known });
        }
        if self.rate.is_held() != self.is_held {
            self.is_held = !self.is_held;
            self.released_at = now;
            events.push_back(HostEvent::EncoderHeld(self.is_held));
        }
        self.set_pace();
    }

    /// Bursts are as long as a shallow buffer bears where the path is known to be slow.
    fn set_pace(&mut self) {
        let pacing = self.rate.pacing();
        if pacing == self.pacing {
            return;
        }
        self.pacing = pacing;
        let (rate, burst) = match pacing {
            Some(rate) => (rate, u32::try_from(rate.bytes_in(BURST_US)).unwrap_or(u32::MAX)),
            None => self.built,
        };
        self.sender.set_rate(rate);
        self.sender.set_burst(burst);
    }

    pub(super) fn handle_timeout(&mut self, now: Timestamp, events: &mut VecDeque<HostEvent>) {
        if now >= self.rate.poll_timeout() {
            self.rate.handle_timeout(now, self.sent.in_flight());
            self.poll_changes(now, events);
        }
    }

    pub(super) fn on_clock_jump(&mut self, now: Timestamp) {
        self.sent.forget();
        self.rate.on_clock_jump(now);
    }

    pub(super) fn set_target(
        &mut self,
        now: Timestamp,
        bitrate: Bitrate,
        fps: u32,
        parity: f32,
        events: &mut VecDeque<HostEvent>,
    ) {
        self.rate.set_external(Target { bitrate, fps: fps.max(1), parity });
        self.poll_changes(now, events);
    }

    /// The client's decoder is too slow for what comes, or no longer.
    pub(super) fn on_decoder_limit(
        &mut self,
        now: Timestamp,
        control: &EncoderControl,
        events: &mut VecDeque<HostEvent>,
    ) {
        self.rate.set_fps_limit(control.max_fps);
        self.poll_changes(now, events);
        if control.skip_frames > 0 && events.len() < EVENTS_MAX {
            events.push_back(HostEvent::SkipFrames(control.skip_frames.min(DECODER_SKIP_MAX)));
        }
    }

    pub(super) fn set_external_pace(&mut self, pace: Bitrate) {
        self.rate.set_external_pace(pace);
        self.set_pace();
    }

    pub(super) fn poll_decision(&mut self) -> Option<DecisionTrace> {
        self.rate.poll_decision()
    }

    /// Whether a batch was begun whose rest must leave before anything else.
    pub(super) fn is_mid_batch(&self) -> bool {
        self.is_mid_batch
    }

    /// Seals the next message that is not media.
    pub(super) fn poll_control(&mut self, link: &mut Link, out: &mut [u8]) -> Option<usize> {
        if let Some(sequence) = self.input.poll_ack() {
            return link.seal_control(&Control::InputAck(InputAck { sequence }), out);
        }
        if let Some(rate) = self.rate_due.take() {
            return link.seal_control(&Control::CongestionControl(rate), out);
        }
        let position = self.cursor.take()?;
        link.seal_control(&Control::CursorPosition(position), out)
    }

    /// Seals media: length in `out`, length of each datagram but the last, and the class.
    pub(super) fn poll_media(
        &mut self,
        now: Timestamp,
        link: &mut Link,
        out: &mut [u8],
    ) -> Option<(usize, usize, TrafficClass)> {
        if !self.is_mid_batch
            && let Some(len) = self.poll_audio(link, out)
        {
            return Some((len, len, TrafficClass::Audio));
        }
        let (len, segment_len) = self.poll_video(now, link, out)?;
        Some((len, segment_len, TrafficClass::Video))
    }

    pub(super) fn poll_timeout(&self) -> Timestamp {
        let is_due = self.is_mid_batch
            || self.input.is_ack_due()
            || self.rate_due.is_some()
            || self.cursor.is_some()
            || self.sound.front().is_some();
        if is_due { Timestamp::ZERO } else { self.sender.poll_timeout().min(self.rate.poll_timeout()) }
    }

    fn handle_control(
        &mut self,
        now: Timestamp,
        control: &Control,
        rtt_us: u64,
        events: &mut VecDeque<HostEvent>,
    ) -> Result<(), DropReason> {
        let event = match control {
            Control::StatsReport(report) => {
                if report.lost_packets > 0 {
                    self.rate.on_loss(now, report.lost_packets);
                }
                return Ok(());
            }
            Control::FrameAck(ack) => {
                let frame = FrameId(ack.frame_id);
                if !self.sender.on_frame_acked(frame) {
                    return Err(DropReason::Unexpected);
                }
                self.sent.on_frame_acked(frame);
                self.fallback.on_frame_acked(frame);
                self.rate.on_frame_acked(now, self.sent.in_flight());
                HostEvent::FrameAcknowledged(frame)
            }
            Control::KeyframeRequest(request) => {
                let newest = FrameId(request.newest_frame_id);
                let answered_at = self.released_at.plus_micros(rtt_us + ANSWER_US);
                if self.is_held || (self.released_at != Timestamp::ZERO && now < answered_at) {
                    // No frame could answer what the client asked for before. It asks again if the next one
                    // does not help; a keyframe is the last thing that a path needs that stood still.
                    return Err(DropReason::Duplicate);
                }
                if !self.keyframe.is_news(now, newest, rtt_us) {
                    return Err(DropReason::Duplicate);
                }
                HostEvent::KeyframeNeeded
            }
            Control::ReferenceInvalidation(invalidation) => {
                let last_valid = FrameId(invalidation.last_valid_frame_id);
                if !self.invalidation.is_news(now, last_valid, rtt_us) {
                    return Err(DropReason::Duplicate);
                }
                self.fallback.begin_if_long(last_valid, rtt_us.max(self.latest_rtt_us));
                HostEvent::ReferenceInvalidated { last_valid }
            }
            Control::EncoderControl(control) => HostEvent::SkipFrames(control.skip_frames.min(2)),
            Control::LatencyStats(_) => return Ok(()),
            _ => return Err(DropReason::Unexpected),
        };
        if events.len() >= EVENTS_MAX {
            return Err(DropReason::NoRoom);
        }
        events.push_back(event);
        Ok(())
    }

    fn poll_audio(&mut self, link: &mut Link, out: &mut [u8]) -> Option<usize> {
        let packet = self.sound.front()?;
        let len = link.seal_body(out, Use::Payload, |_, body| packet.encode(body))?;
        self.sound.pop();
        Some(len)
    }

    /// What the packets of `batch` have in common, and the position of the first.
    fn describe(&self, now: Timestamp, batch: &Batch) -> SentPacket {
        let (frame, sent) = self.newest_sent;
        SentPacket {
            frame: batch.frame_id,
            position: if frame == batch.frame_id { sent } else { 0 },
            kind: match batch.kind {
                BatchKind::Data => PacketKind::Data,
                BatchKind::Parity => PacketKind::Parity,
                BatchKind::Retransmission => PacketKind::Retransmission,
            },
            sent_at: now,
            ..SentPacket::default()
        }
    }

    /// Seals as much of the next batch as fits `out`, back to back.
    fn poll_video(&mut self, now: Timestamp, link: &mut Link, out: &mut [u8]) -> Option<(usize, usize)> {
        if link.payload_room().0 < BATCH_MAX {
            if self.sender.poll_timeout() <= now {
                link.on_key_wait();
            }
            return None;
        }
        let batch = self.sender.next_batch(now)?;
        let mut packet = self.describe(now, &batch);
        let (mut len, mut segment_len) = (0, 0);
        let mut written = 0;
        while written < batch.count {
            let (_, packet_id) = link.payload_room();
            let room = out.get_mut(len..)?;
            let Some(sealed) = self.sender.seal_body(packet_id, |body| link.seal_from(body, room)) else {
                break;
            };
            packet.id = packet_id;
            packet.bytes = (sealed as u64 + DATAGRAM_OVERHEAD) as u16;
            self.sent.on_sent(packet);
            self.rate.on_sent(&packet);
            if batch.kind != BatchKind::Retransmission {
                packet.position = packet.position.saturating_add(1);
                self.newest_sent = (packet.frame, packet.position);
            }
            segment_len = segment_len.max(sealed);
            len += sealed;
            written += 1;
        }
        self.is_mid_batch = written > 0 && written < batch.count;
        (written > 0).then_some((len, segment_len))
    }
}

/// What the sender may use of `config` with a peer that agreed on `features`.
fn sender_config(config: &SenderConfig, features: Features, datagram_len: usize) -> SenderConfig {
    SenderConfig {
        datagram_len,
        slices: features.contains(Features::SLICES),
        parity: if features.contains(Features::FEC_REGULAR) { config.parity } else { 0.0 },
        code: if features.contains(Features::FEC_RS) { config.code } else { Code::Xor },
        sliding: config.sliding && features.contains(Features::FEC_SLIDING),
        ..config.clone()
    }
}

/// The lower one of what is offered and what is wanted.
pub(super) fn fps_of(offer: &StreamOffer, hello: &Hello) -> u32 {
    if hello.max_fps == 0 { offer.fps } else { offer.fps.min(hello.max_fps) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves R-FEC-7, R-FEC-13.
    #[test]
    fn parity_is_of_the_kind_that_the_peer_understands() {
        let config = SenderConfig { parity: 0.2, ..SenderConfig::default() };
        let of = |features| sender_config(&config, features, 1200);
        let all = of(Features::ALL);
        assert_eq!((all.code, all.parity, all.slices), (Code::ReedSolomon, 0.2, true));
        let without_rs = of(Features::ALL.without(Features::FEC_RS));
        assert_eq!((without_rs.code, without_rs.parity), (Code::Xor, 0.2));
        assert_eq!(of(Features::ALL.without(Features::FEC_REGULAR)).parity, 0.0);
        assert!(all.sliding && !of(Features::ALL.without(Features::FEC_SLIDING)).sliding);
        let published = of(Features::NONE);
        assert_eq!((published.code, published.parity, published.slices), (Code::Xor, 0.0, false));
    }

    /// Proves R-REC-7: a request that was made before what it asks for could be seen is passed over; one that was made
    /// after it was lost is not.
    #[test]
    fn a_request_is_old_for_a_round_trip() {
        let at = |ms: u64| Timestamp::from_micros(ms * 1_000);
        let mut served = Served::default();
        assert!(served.is_news(at(0), FrameId(5), 300_000));
        assert!(!served.is_news(at(200), FrameId(5), 300_000), "told");
        served.on_served(at(210), FrameId(9));
        assert!(!served.is_news(at(500), FrameId(5), 300_000), "made while the keyframe was under way");
        assert!(served.is_news(at(560), FrameId(5), 300_000), "the keyframe was lost");
        served.on_served(at(600), FrameId(40));
        assert!(served.is_news(at(610), FrameId(41), 300_000));
    }
}

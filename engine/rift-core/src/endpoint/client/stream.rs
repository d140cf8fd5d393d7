//! What a client's session has besides its upkeep: video, sound, input, feedback.
//!
//! Owns the receiving of media and what is told to the host about it. Never decodes. Invariant: input
//! leaves before any feedback.

use crate::endpoint::{Ecn, TrafficClass};
use crate::feedback::ReportSchedule;
use crate::input::{InputEvent, InputSender};
use crate::message::proto::control_message::Control;
use crate::message::proto::{EncoderControl, FrameAck, KeyframeRequest, ReferenceInvalidation, StatsReport};
use crate::message::{ChunkReader, MediaBody, VideoChunk, encode_nack};
use crate::receive::{
    AudioFrame, AudioQueue, ReadySlice, ReceiverConfig, ReceiverCounters, RecoveryRequest, VideoReceiver,
};
use crate::session::Features;
use crate::session::keys::Use;
use crate::session::link::Link;
use crate::wire::{TRANSPORT_HEADER_LEN, TRANSPORT_OVERHEAD};
use crate::{DropReason, FrameId, PacketId, Timestamp};

/// How often reception is reported (RIFT R-FB-1), in microseconds.
const REPORT_INTERVAL_US: u64 = 100_000;
/// Packet ids in one Nack: 64 of at most 10 bytes fit any datagram.
const NACK_MAX: usize = 64;
/// The published duration of a packet of sound, in microseconds.
pub(super) const AUDIO_FRAME_US: u64 = 5_000;
/// Sound that may wait (RIFT R-AUD-2), in microseconds.
const AUDIO_QUEUE_US: u64 = 20_000;

/// Media of a session.
#[derive(Debug)]
pub(super) struct Streaming {
    features: Features,
    receiver: VideoReceiver,
    chunks: ChunkReader,
    audio: AudioQueue,
    input: InputSender,
    report_at: Timestamp,
    /// When arrivals are told.
    arrivals: ReportSchedule,
    ack_due: Option<FrameId>,
    newest_shown: Option<FrameId>,
    /// Where the ids of a request are gathered: there is none after most packets, and to clear room for one
    /// each time would cost more than to find that out.
    nack: Box<[PacketId; NACK_MAX]>,
}

impl Streaming {
    /// Memory is taken here; what the session agreed on is set later.
    pub(super) fn new(now: Timestamp, config: &ReceiverConfig) -> Self {
        Self {
            features: Features::NONE,
            receiver: VideoReceiver::new(config),
            chunks: ChunkReader::new(),
            audio: AudioQueue::new(AUDIO_FRAME_US, AUDIO_QUEUE_US),
            input: InputSender::new(true),
            report_at: now,
            arrivals: ReportSchedule::default(),
            ack_due: None,
            newest_shown: None,
            nack: Box::new([PacketId(0); NACK_MAX]),
        }
    }

    /// The session's extensions are known.
    pub(super) fn start(&mut self, now: Timestamp, features: Features) {
        self.features = features;
        self.receiver.set_slices(features.contains(Features::SLICES));
        self.input = InputSender::new(features.contains(Features::INPUT_BATCH));
        self.report_at = now.plus_micros(REPORT_INTERVAL_US);
    }

    pub(super) fn set_audio_frame(&mut self, frame_us: u64) {
        self.audio = AudioQueue::new(frame_us, AUDIO_QUEUE_US);
    }

    /// Every authenticated packet, before its message.
    #[inline]
    pub(super) fn on_packet(&mut self, now: Timestamp, id: PacketId, ecn: Ecn) {
        self.receiver.on_packet(now, id);
        if ecn != Ecn::NotEct {
            self.receiver.on_ecn(id, ecn as u8);
        }
    }

    /// Whether packet `id`, in a datagram of `len` bytes, may be the next in line.
    #[inline]
    pub(super) fn expect(&mut self, id: PacketId, len: usize) -> bool {
        len > TRANSPORT_OVERHEAD && self.receiver.expect(id, len - TRANSPORT_OVERHEAD, self.chunks.look())
    }

    /// Has `open` open `datagram` into the place of its chunk. `true`: it is that chunk, to be given to
    /// [`handle_next`](Self::handle_next). `false`: it is something else, and its body stands in `datagram`, as if it had
    /// been opened there.
    ///
    /// # Errors
    /// Those of `open`.
    #[inline]
    pub(super) fn open_next(
        &mut self,
        datagram: &mut [u8],
        open: impl FnOnce(&[u8], &mut [u8]) -> Result<(), DropReason>,
    ) -> Result<bool, DropReason> {
        let look = self.chunks.look();
        let opened = self.receiver.lend(|index, place| {
            open(datagram, place)?;
            let is_next = look.is_some_and(|look| look.is_repeated_with(index, place));
            if !is_next
                && let Some(body) =
                    datagram.get_mut(TRANSPORT_HEADER_LEN..).and_then(|b| b.get_mut(..place.len()))
            {
                body.copy_from_slice(place);
            }
            Ok(is_next)
        });
        opened.unwrap_or(Err(DropReason::NoRoom))
    }

    /// Takes packet `id` that was opened into its place, `len` bytes with header and tag.
    #[inline]
    pub(super) fn handle_next(&mut self, now: Timestamp, id: PacketId, ecn: Ecn, len: usize) {
        self.receiver.handle_next(now);
        if ecn != Ecn::NotEct {
            self.receiver.on_ecn(id, ecn as u8);
        }
        if self.features.contains(Features::ARRIVAL_FEEDBACK) {
            self.arrivals.on_packet(now, len);
        }
    }

    /// Takes a body if it is a chunk as encoders write them, which is what nearly all bodies are. `None`:
    /// it was not taken.
    #[inline]
    pub(super) fn handle_chunk(
        &mut self,
        now: Timestamp,
        id: PacketId,
        body: &[u8],
    ) -> Option<Result<(), DropReason>> {
        let chunk = self.chunks.read(body)?;
        if self.features.contains(Features::ARRIVAL_FEEDBACK) {
            self.schedule_chunk(now, body, &chunk);
        }
        Some(self.receiver.handle_chunk(now, id, body, &chunk))
    }

    #[inline]
    pub(super) fn handle_media(
        &mut self,
        now: Timestamp,
        id: PacketId,
        body: &[u8],
        media: &MediaBody<'_>,
    ) -> Result<(), DropReason> {
        if self.features.contains(Features::ARRIVAL_FEEDBACK) {
            self.schedule_report(now, body, media);
        }
        match media {
            MediaBody::Video(chunk) => self.receiver.handle_chunk(now, id, body, chunk),
            MediaBody::Fec(fec) => self.receiver.handle_fec(now, id, fec),
            MediaBody::Audio(packet) => self.audio.handle(packet),
            MediaBody::Other => Ok(()),
        }
    }

    pub(super) fn on_input_ack(&mut self, sequence: u64) {
        self.input.on_ack(sequence);
    }

    pub(super) fn on_rtt(&mut self, link: &Link) {
        let rtt = link.rtt();
        self.receiver.set_rtt(rtt.smoothed_us(), rtt.variance_us());
        self.receiver.set_latest_rtt(rtt.latest_us().unwrap_or(0));
        self.input.set_rtt(rtt.smoothed_us());
    }

    pub(super) fn on_clock_jump(&mut self, now: Timestamp) {
        self.input.on_clock_jump(now);
        self.report_at = now;
        self.arrivals.on_clock_jump(now);
    }

    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        self.receiver.handle_timeout(now);
    }

    pub(super) fn submit_input(&mut self, now: Timestamp, event: InputEvent) -> Result<(), DropReason> {
        let is_relative = matches!(event, InputEvent::MouseMoveRelative { .. });
        if is_relative && !self.features.contains(Features::RELATIVE_MOUSE) {
            return Err(DropReason::Unexpected);
        }
        self.input.submit(now, event)
    }

    pub(super) fn poll_slice(&mut self, now: Timestamp) -> Option<ReadySlice<'_>> {
        self.receiver.poll_slice(now)
    }

    pub(super) fn poll_audio(&mut self) -> Option<AudioFrame<'_>> {
        self.audio.poll()
    }

    pub(super) fn on_decoded(&mut self, now: Timestamp, frame: FrameId) {
        self.receiver.on_decoded(now, frame);
        if self.features.contains(Features::FRAME_ACK) && self.ack_due.is_none_or(|due| frame > due) {
            self.ack_due = Some(frame);
        }
    }

    pub(super) fn on_decode_failed(&mut self, now: Timestamp, frame: FrameId) {
        self.receiver.on_decode_failed(now, frame);
    }

    pub(super) fn on_shown(&mut self, frame: FrameId) {
        self.newest_shown = self.newest_shown.max(Some(frame));
    }

    pub(super) fn newest_shown(&self) -> Option<FrameId> {
        self.newest_shown
    }

    pub(super) fn receiver_counters(&self) -> &ReceiverCounters {
        self.receiver.counters()
    }

    pub(super) fn audio_dropped(&self) -> u64 {
        self.audio.dropped()
    }

    pub(super) fn input(&self) -> &InputSender {
        &self.input
    }

    /// Seals the input message that is due.
    pub(super) fn poll_input(
        &mut self,
        now: Timestamp,
        link: &mut Link,
        out: &mut [u8],
    ) -> Option<(usize, TrafficClass)> {
        if !self.input.is_due(now) {
            return None;
        }
        let len = link.seal_body(out, Use::Payload, |_, body| self.input.poll_message(now, body))?;
        Some((len, TrafficClass::Input))
    }

    /// Seals the next request or report.
    pub(super) fn poll_feedback(
        &mut self,
        now: Timestamp,
        link: &mut Link,
        out: &mut [u8],
    ) -> Option<(usize, TrafficClass)> {
        // A request is taken out of the receiver only when it can leave.
        if link.payload_room().0 == 0 {
            return None;
        }
        let len = self
            .poll_nack(now, link, out)
            .or_else(|| self.poll_request(now, link, out))
            .or_else(|| self.poll_frame_ack(link, out))
            .or_else(|| self.poll_report(now, link, out))
            .or_else(|| self.poll_arrivals(now, link, out))?;
        Some((len, TrafficClass::Control))
    }

    pub(super) fn poll_timeout(&self) -> Timestamp {
        if self.ack_due.is_some() {
            return Timestamp::ZERO;
        }
        self.input
            .poll_timeout()
            .min(self.receiver.poll_timeout())
            .min(self.report_at)
            .min(self.arrivals.due())
    }

    fn poll_nack(&mut self, now: Timestamp, link: &mut Link, out: &mut [u8]) -> Option<usize> {
        let count = self.receiver.poll_nack(now, &mut self.nack[..]);
        if count == 0 {
            return None;
        }
        link.seal_body(out, Use::Payload, |_, body| encode_nack(&self.nack[..count], body))
    }

    fn poll_request(&mut self, now: Timestamp, link: &mut Link, out: &mut [u8]) -> Option<usize> {
        let has_requests = self.features.contains(Features::FRAME_ACK);
        let control = match self.receiver.poll_request(now)? {
            RecoveryRequest::InvalidateReference { last_valid } => {
                Control::ReferenceInvalidation(ReferenceInvalidation { last_valid_frame_id: last_valid.0 })
            }
            RecoveryRequest::Keyframe { newest } if has_requests => {
                Control::KeyframeRequest(KeyframeRequest { newest_frame_id: newest.0 })
            }
            // Published peers know no such request; that nothing is valid says the same.
            RecoveryRequest::Keyframe { .. } => {
                Control::ReferenceInvalidation(ReferenceInvalidation { last_valid_frame_id: 0 })
            }
            RecoveryRequest::SkipFrames(skip_frames) => {
                Control::EncoderControl(EncoderControl { skip_frames, max_fps: 0 })
            }
        };
        link.seal_control(&control, out)
    }

    fn poll_frame_ack(&mut self, link: &mut Link, out: &mut [u8]) -> Option<usize> {
        let frame = self.ack_due.take()?;
        link.seal_control(&Control::FrameAck(FrameAck { frame_id: frame.0 }), out)
    }

    fn poll_report(&mut self, now: Timestamp, link: &mut Link, out: &mut [u8]) -> Option<usize> {
        if now < self.report_at {
            return None;
        }
        self.report_at = now.plus_micros(REPORT_INTERVAL_US);
        let report = self.receiver.report(now);
        let stats = StatsReport {
            period_ms: report.period_ms,
            received_packets: report.received_packets,
            lost_packets: report.lost_packets,
            rtt_us: link.rtt().smoothed_us(),
            jitter_us: report.jitter_us,
        };
        link.seal_control(&Control::StatsReport(stats), out)
    }

    fn poll_arrivals(&mut self, now: Timestamp, link: &mut Link, out: &mut [u8]) -> Option<usize> {
        if now < self.arrivals.due() {
            return None;
        }
        let Some(feedback) = self.receiver.poll_arrivals(now) else {
            self.arrivals.clear();
            return None;
        };
        let len = link.seal_body(out, Use::Payload, |_, body| feedback.encode(body))?;
        self.arrivals.on_report(len);
        Some(len)
    }

    /// Only what the host keeps a record of is worth a report.
    #[inline]
    fn schedule_report(&mut self, now: Timestamp, body: &[u8], media: &MediaBody<'_>) {
        match media {
            MediaBody::Video(chunk) => self.schedule_chunk(now, body, chunk),
            MediaBody::Fec(_) => self.arrivals.on_packet(now, body.len() + TRANSPORT_OVERHEAD),
            MediaBody::Audio(_) | MediaBody::Other => {}
        }
    }

    #[inline]
    fn schedule_chunk(&mut self, now: Timestamp, body: &[u8], chunk: &VideoChunk<'_>) {
        self.arrivals.on_packet(now, body.len() + TRANSPORT_OVERHEAD);
        if chunk.last_slice && chunk.chunk_index + 1 == chunk.chunk_count {
            self.arrivals.on_frame_end(now);
        }
    }
}

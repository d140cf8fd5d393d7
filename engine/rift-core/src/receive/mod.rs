//! Receiving media: from authenticated packets to slices in decode order.
//!
//! Owns everything between an opened datagram and the decoder: the packet id window, the frames under
//! way, parity, requests for lost packets, and the decision which frame is decoded next. Never opens a
//! datagram, reads a clock, or decodes video. Invariants: slices leave in order of (frame, slice), each
//! once, and only of frames whose reference was handed out whole; memory is what the constructor took.
//!
//! ```text
//! on_packet ──> PacketWindow ──> Repair ──────────────> poll_nack
//! handle_chunk ──> FrameTable ──┬─> select ───────────> poll_slice
//! handle_fec ──> ParityStore ───┘     └──> Requests ──> poll_request
//! ```
//!
//! How to drive it: give every authenticated packet to [`on_packet`](VideoReceiver::on_packet) and its
//! chunk or parity to the `handle_` function; after a batch, drain
//! [`poll_slice`](VideoReceiver::poll_slice), then [`poll_nack`](VideoReceiver::poll_nack) and
//! [`poll_request`](VideoReceiver::poll_request). Call
//! [`handle_timeout`](VideoReceiver::handle_timeout) at [`poll_timeout`](VideoReceiver::poll_timeout)
//! and drain again.

mod audio;
mod config;
mod counters;
mod expected;
mod frame;
mod history;
mod parity;
mod playout;
mod repair;
mod request;
mod select;
mod slice;
mod sliding;
mod window;

pub use audio::{AudioFrame, AudioQueue};
pub use config::{PlayoutConfig, ReceiverConfig};
pub use counters::{ReceiveReport, ReceiverCounters};
pub use request::RecoveryRequest;
pub use slice::{ReadySlice, RecoveredBy};

use rift_fec::Solver;

use crate::fec::{self, Code};
use crate::message::{self, ArrivalFeedback, FecPacket, Incoming, MediaBody, VideoChunk};
use crate::{DropReason, FrameId, PacketId, Timestamp};
use expected::Next;
use frame::{FrameTable, Placed, Position};
use history::History;
use parity::{Outcome, ParityStore, Stripe};
use playout::Playout;
use repair::{Hope, Repair};
use request::Requests;
use sliding::{Sliding, Told};
use window::{Arrival, PacketWindow};

/// A frame id this far above the newest one is taken for a fault: 17 s at 60 Hz, longer than a session
/// lives without packets.
const FRAMES_AHEAD_MAX: u64 = 1024;
/// A slice whose packets stop coming has lost its tail after at least this long, in microseconds.
const TAIL_MIN_US: u64 = 2_000;
/// No more patience than this with a path that stands still at times, in microseconds.
const STALL_MAX_US: u64 = 50_000;
/// It is forgotten over so many frames.
const STALL_MEMORY_FRAMES: u64 = 256;
/// The most packets of one group that Reed-Solomon gives back: more parity than that at once is never sent.
const LOST_MAX: usize = 32;
/// Round trip time before one was measured, in microseconds.
const RTT_INITIAL_US: u64 = 30_000;
/// Packets over which their distance is averaged.
const SPACING_PACKETS: f32 = 64.0;
/// Packets that are further apart than this do not follow each other, in microseconds.
const SPACING_MAX_US: u64 = 5_000;

/// Whether `span_us` have passed since `since`. A clock that has jumped backwards counts as passed, so
/// that nothing waits for the clock to catch up.
fn passed(now: Timestamp, since: Timestamp, span_us: u64) -> bool {
    now < since || now.micros_since(since) >= span_us
}

/// The path's round trip time.
#[derive(Clone, Copy, Debug)]
struct RoundTrip {
    rtt_us: u64,
    var_us: u64,
    /// As measured last: a mean follows a queue that fills only when that is full.
    latest_us: u64,
}

impl RoundTrip {
    /// How long a request takes to be answered, in microseconds.
    fn arrival_us(&self) -> u64 {
        self.rtt_us.saturating_add(self.var_us).max(self.jumped_us())
    }

    /// The round trip measured last, where it is that of another queue than the mean.
    fn jumped_us(&self) -> u64 {
        if self.latest_us > self.rtt_us + self.rtt_us / 2 { self.latest_us } else { 0 }
    }

    /// After how long a request counts as lost, in microseconds: the round trip time and an eighth, or
    /// twice its variation. More would cost a frame at 20 ms its third chance, less would be ignored by
    /// the host as a repetition.
    fn retry_us(&self) -> u64 {
        let slack = (self.rtt_us / 8).max(self.var_us.saturating_mul(2)).max(1_000);
        self.rtt_us.saturating_add(slack).max(self.jumped_us())
    }
}

/// Puts a session's video back together.
#[derive(Debug)]
pub struct VideoReceiver {
    window: PacketWindow,
    frames: FrameTable,
    parities: ParityStore,
    sliding: Sliding,
    repair: Repair,
    requests: Requests,
    history: History,
    playout: Playout,
    round_trip: RoundTrip,
    /// The packet that comes next, while nothing but the packet before it has been taken.
    line: Option<Next>,
    /// For messages computed from parity.
    scratch: Vec<u8>,
    /// Away only while what it solved is taken in.
    solver: Option<Box<Solver>>,
    /// Parity packets for each data packet of the last group, as a fraction.
    parity_overhead: (u32, u32),
    /// The frame of that group.
    parity_frame: u64,
    /// How long the path stands still at times without losing anything, in microseconds.
    stall_us: u64,
    /// How far packets that follow each other are apart, in microseconds.
    spacing_us: f32,
    /// When the frame that was handed out last is to be shown.
    last_show_at: Timestamp,
    /// When the wait for the newest frame ends.
    patience_ends: Timestamp,
    reported_at: Option<Timestamp>,
    reported: (u64, u64),
    counters: ReceiverCounters,
}

impl VideoReceiver {
    /// A receiver that has seen nothing. All memory it will ever use is taken here.
    #[must_use]
    pub fn new(config: &ReceiverConfig) -> Self {
        let sizes = config.sizes();
        Self {
            window: PacketWindow::new(sizes.packets),
            frames: FrameTable::new(&sizes, config.slices),
            parities: ParityStore::new(sizes.parities),
            sliding: Sliding::new(),
            repair: Repair::new(sizes.missing),
            requests: Requests::new(),
            history: History::new(),
            playout: Playout::new(config.playout),
            round_trip: RoundTrip { rtt_us: RTT_INITIAL_US, var_us: 0, latest_us: 0 },
            line: None,
            scratch: vec![0; fec::LENGTH_LEN + frame::PAYLOAD_MAX],
            solver: Some(Box::new(Solver::new(LOST_MAX, frame::PAYLOAD_MAX))),
            parity_overhead: (0, 1),
            parity_frame: 0,
            stall_us: 0,
            spacing_us: 0.0,
            last_show_at: Timestamp::ZERO,
            patience_ends: Timestamp::NEVER,
            reported_at: None,
            reported: (0, 0),
            counters: ReceiverCounters::default(),
        }
    }

    /// Whether the host marks the last slice of each frame; known once features are agreed on.
    pub fn set_slices(&mut self, slices: bool) {
        self.line = None;
        self.frames.set_marks_last(slices);
    }

    /// Takes note of an authenticated packet, of any kind, before its message is handled.
    #[inline]
    pub fn on_packet(&mut self, now: Timestamp, id: PacketId) {
        self.line = None;
        match self.window.arrive(now, id.0) {
            Arrival::InOrder => {}
            Arrival::Gap { first } => {
                let remembered = first.max(id.0.saturating_sub(self.window.capacity()));
                self.counters.missing_untracked += remembered - first;
                self.repair.on_gap(now, remembered, id.0);
            }
            Arrival::Late => self.counters.reordered += 1,
            Arrival::Ignored => return,
        }
        self.counters.packets += 1;
    }

    /// Takes note of the ECN code point (RFC 3168 section 5, two bits) that packet `id` came with, for the
    /// arrival report.
    pub fn on_ecn(&mut self, id: PacketId, code_point: u8) {
        self.window.mark_ecn(id.0, code_point);
    }

    /// Takes a chunk. `body` is the whole message that `chunk` was decoded from and borrows from.
    ///
    /// # Errors
    /// Why the chunk was not used; it is counted already.
    #[inline]
    pub fn handle_chunk(
        &mut self,
        now: Timestamp,
        id: PacketId,
        body: &[u8],
        chunk: &VideoChunk<'_>,
    ) -> Result<(), DropReason> {
        self.line = None;
        let is_news = self.sliding.is_active() && self.sliding.keep(id.0, chunk, body);
        let result = self.accept(now, id.0, body, chunk, RecoveredBy::Nothing);
        if is_news {
            self.take_slid(now);
        }
        self.count_drop(result)
    }

    /// Takes a parity packet. What it recovers goes the way of a received chunk.
    ///
    /// # Errors
    /// Why the parity was not used; it is counted already.
    pub fn handle_fec(
        &mut self,
        now: Timestamp,
        id: PacketId,
        fec: &FecPacket<'_>,
    ) -> Result<(), DropReason> {
        self.line = None;
        // The packet's own id is accounted for by `on_packet`; parity is never asked for again.
        let result = match Code::from_wire(fec.code) {
            Some(Code::Sliding) => self.accept_sliding(now, id.0, fec),
            _ => self.accept_parity(now, fec),
        };
        self.count_drop(result)
    }

    /// The next slice for the decoder: in order of frame and slice, as soon as it is whole, of frames that
    /// can be decoded. Frames that newer ones have made useless are dropped on the way.
    pub fn poll_slice(&mut self, now: Timestamp) -> Option<ReadySlice<'_>> {
        self.line = None;
        let frame = self.select(now)?;
        Some(self.hand_out(now, &frame))
    }

    /// Writes the ids of packets to ask for now to `out` and returns how many. Call until it returns less
    /// than `out` holds.
    pub fn poll_nack(&mut self, now: Timestamp, out: &mut [PacketId]) -> usize {
        self.line = None;
        self.notice_lost_tail(now);
        self.scan(now, out)
    }

    /// What to ask the encoder for now. Call until it returns `None`.
    pub fn poll_request(&mut self, now: Timestamp) -> Option<RecoveryRequest> {
        self.line = None;
        if self.repair.has_unseen() {
            self.scan(now, &mut []);
        }
        let stuck = self.is_stuck(now);
        let request = self.requests.poll(
            now,
            stuck,
            self.history.newest_good(),
            FrameId(self.frames.newest().unwrap_or(0)),
            &self.round_trip,
            self.playout.frame_interval_us(),
        );
        match request {
            Some(RecoveryRequest::InvalidateReference { .. }) => self.counters.invalidations += 1,
            Some(RecoveryRequest::Keyframe { .. }) => self.counters.keyframe_requests += 1,
            Some(RecoveryRequest::SkipFrames(_)) => self.counters.skip_requests += 1,
            None => {}
        }
        request
    }

    /// The decoder has decoded `frame` without error.
    pub fn on_decoded(&mut self, now: Timestamp, frame: FrameId) {
        let _ = now;
        self.history.on_decoded(frame.0);
    }

    /// The decoder has rejected `frame`: nothing predicted from it will be handed out.
    pub fn on_decode_failed(&mut self, now: Timestamp, frame: FrameId) {
        let _ = now;
        self.history.on_decode_failed(frame.0);
    }

    /// A round trip was measured: its time and mean deviation in microseconds.
    pub fn set_rtt(&mut self, rtt_us: u64, var_us: u64) {
        // Beyond ten seconds the arithmetic is pointless, and the session is over.
        let bounded = |us: u64| us.min(10_000_000);
        self.round_trip = RoundTrip { rtt_us: bounded(rtt_us), var_us: bounded(var_us), ..self.round_trip };
        self.requests.on_rtt(bounded(rtt_us));
    }

    /// The round trip as measured last, in microseconds. Where it is longer than the mean, nothing that is asked for
    /// now is here sooner.
    pub fn set_latest_rtt(&mut self, rtt_us: u64) {
        self.round_trip.latest_us = rtt_us.min(10_000_000);
    }

    /// To be called when [`poll_timeout`](Self::poll_timeout) has come; then drain the `poll_` functions.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.line = None;
        self.notice_lost_tail(now);
    }

    /// When there is something to do even if nothing arrives.
    #[must_use]
    pub fn poll_timeout(&self) -> Timestamp {
        let request = self.requests.due(&self.round_trip, self.playout.frame_interval_us());
        self.repair.due().min(request).min(self.patience_ends).min(self.tail_due())
    }

    /// What was seen since the last report.
    pub fn report(&mut self, now: Timestamp) -> ReceiveReport {
        let (received, sent) = self.window.received_of_sent();
        let (received_before, sent_before) = self.reported;
        self.reported = (received, sent);
        let period_us = self.reported_at.replace(now).map_or(0, |before| now.micros_since(before));
        let arrived = received - received_before;
        let lost = (sent - sent_before).saturating_sub(arrived);
        let cut = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        ReceiveReport {
            period_ms: cut(period_us / 1000),
            received_packets: cut(arrived),
            lost_packets: cut(lost),
            jitter_us: cut(self.playout.transit_jitter_us()),
            playout_us: cut(self.playout.jitter_delay_us()),
            newest_decoded: self.history.newest_decoded(),
        }
    }

    /// When packets have arrived since the last such report; `None` if there is nothing to tell. A report
    /// covers at most 480 packets: call until it returns `None`.
    pub fn poll_arrivals(&mut self, now: Timestamp) -> Option<ArrivalFeedback<'_>> {
        self.window.poll_arrivals(now)
    }

    /// Everything counted since the start.
    #[must_use]
    pub fn counters(&self) -> &ReceiverCounters {
        &self.counters
    }

    fn count_drop(&mut self, result: Result<(), DropReason>) -> Result<(), DropReason> {
        if let Err(reason) = result {
            self.counters.drops.add(reason);
        }
        result
    }

    #[inline]
    fn accept(
        &mut self,
        now: Timestamp,
        id: u64,
        body: &[u8],
        chunk: &VideoChunk<'_>,
        by: RecoveredBy,
    ) -> Result<(), DropReason> {
        let frame = chunk.frame_id.0;
        self.admit(frame)?;
        let asked_for = self.frames.frame(frame).is_some_and(|f| id >= f.resent_from);
        let at = Position { frame, slice: chunk.slice_index as u16, chunk: chunk.chunk_index };
        // A pause in which packets were lost says nothing about how the host paces.
        let follows = self.window.front().is_some_and(|(newest, front)| {
            id == newest.wrapping_add(1) && (front.frame, front.slice) == (frame, at.slice)
        });
        let resent = self.window.would_be_resent(id, at) || asked_for;
        let by = if by == RecoveredBy::Nothing && resent { RecoveredBy::Retransmission } else { by };
        if follows && by == RecoveredBy::Nothing {
            self.learn_stall(now, at);
            if let Some(frame) = self.frames.frame(frame) {
                self.learn_spacing(now.micros_since(frame.last_arrival));
            }
        }
        let placed = self.frames.place(now, chunk, by)?;
        self.window.note_video(id, at, body, chunk.payload, by == RecoveredBy::Parity);
        self.on_placed(now, frame, chunk.timestamp_us, by, placed, follows);
        if !self.parities.is_empty() && by != RecoveredBy::Parity {
            if by == RecoveredBy::Retransmission {
                self.stand_in(at, body, chunk.payload);
            }
            self.retry_parities(now);
        }
        Ok(())
    }

    /// A chunk of `frame` is in its place. `follows`: it is the next in line.
    #[inline]
    fn on_placed(
        &mut self,
        now: Timestamp,
        frame: u64,
        timestamp_us: u64,
        by: RecoveredBy,
        placed: Placed,
        follows: bool,
    ) {
        self.counters.chunks += 1;
        if by == RecoveredBy::Nothing {
            if placed.opened {
                // No more parity of the frame before will come.
                self.repair.look_again();
                self.stall_us -= self.stall_us / STALL_MEMORY_FRAMES;
                self.playout.on_frame_begun(now, timestamp_us);
            } else if follows {
                self.playout.on_gap(placed.gap_us);
            }
        } else if by == RecoveredBy::Retransmission {
            self.counters.chunks_resent += 1;
        }
        if placed.frame_whole {
            self.on_frame_whole(now, frame);
        }
    }

    fn on_frame_whole(&mut self, now: Timestamp, frame: u64) {
        if let Some(frame) = self.frames.frame(frame).filter(|f| f.recovered == RecoveredBy::Nothing) {
            self.playout.on_frame_whole(now, frame.timestamp_us);
        }
    }

    /// Makes room for a frame, at the cost of the oldest ones.
    fn admit(&mut self, frame: u64) -> Result<(), DropReason> {
        if frame < self.frames.floor() {
            return Err(DropReason::Stale);
        }
        if self.frames.newest().is_some_and(|newest| frame > newest.saturating_add(FRAMES_AHEAD_MAX))
            || frame == u64::MAX
        {
            return Err(DropReason::Malformed);
        }
        if frame - self.frames.floor() >= self.frames.capacity() {
            self.give_up_before(self.frames.floor_for(frame));
        }
        Ok(())
    }

    /// Drops all frames before `id`.
    fn give_up_before(&mut self, id: u64) {
        let counters = &mut self.counters;
        self.frames.raise_floor(id, |_| counters.frames_dropped += 1);
    }

    fn accept_parity(&mut self, now: Timestamp, fec: &FecPacket<'_>) -> Result<(), DropReason> {
        self.counters.parity += 1;
        let stripe = Stripe::of(fec)?;
        self.parity_overhead = stripe.overhead();
        self.parity_frame = stripe.frame;
        if stripe.frame < self.frames.floor() {
            // Parity follows its data: the frame is mostly whole and gone when the last parity comes.
            self.counters.parity_spare += 1;
            return Ok(());
        }
        let outcome = match stripe.code {
            Code::Xor => self.try_stripe(now, &stripe, fec.payload),
            Code::ReedSolomon => self.try_group(now, &stripe, Some(fec.payload)),
            Code::Sliding => Outcome::Useless,
        };
        match outcome {
            Outcome::Waiting => {
                if !self.parities.keep(&stripe, fec.payload) {
                    self.counters.parity_given_up += 1;
                }
                self.repair.look_again();
                Ok(())
            }
            Outcome::Useless => Err(DropReason::Malformed),
            Outcome::Spare => {
                self.counters.parity_spare += 1;
                Ok(())
            }
            Outcome::Solved { .. } | Outcome::SolvedGroup(_) => Ok(()),
        }
    }

    /// Takes parity that reaches back.
    fn accept_sliding(&mut self, now: Timestamp, id: u64, fec: &FecPacket<'_>) -> Result<(), DropReason> {
        self.counters.parity += 1;
        let (covered, told) = self.sliding.handle(id, fec)?;
        let frames = self.sliding.reach().unwrap_or(0) as u32 + 1;
        self.parity_overhead = (fec.parity_count, covered.count().div_ceil(frames));
        self.parity_frame = fec.frame_id.0;
        match told {
            Told::Nothing => self.counters.parity_spare += 1,
            Told::Unusable => self.counters.parity_given_up += 1,
            Told::Something => {
                if !self.take_slid(now) {
                    return Err(DropReason::Malformed);
                }
                self.repair.look_again();
            }
        }
        Ok(())
    }

    /// Takes the chunks that parity which reaches back has brought. `false` if it contradicts what is known.
    fn take_slid(&mut self, now: Timestamp) -> bool {
        let mut scratch = core::mem::take(&mut self.scratch);
        let mut adds_up = true;
        while let Some((id, len)) = self.sliding.poll(&mut scratch) {
            adds_up =
                fec::body_of(&scratch[..len]).is_some_and(|body| self.accept_solved(now, None, id, body));
            if !adds_up {
                self.sliding.clear();
                break;
            }
        }
        self.scratch = scratch;
        adds_up
    }

    /// Solves a Reed-Solomon group if it can be solved, and takes the chunks that come out. The group's
    /// waiting parities are given up unless the group lacks more than they can tell.
    fn try_group(&mut self, now: Timestamp, stripe: &Stripe, fresh: Option<&[u8]>) -> Outcome {
        let Some(mut solver) = self.solver.take() else { return Outcome::Useless };
        let mut scratch = core::mem::take(&mut self.scratch);
        let (window, frames) = (&self.window, &self.frames);
        let mut outcome =
            stripe.solve_group(fresh, &self.parities, window, frames, &mut solver, &mut scratch);
        self.scratch = scratch;
        if let Outcome::SolvedGroup(count) = outcome {
            let mut ids = [0; fec::SHARDS_MAX];
            for (to, id) in ids.iter_mut().zip(stripe.lost_ids(&self.window)) {
                *to = id;
            }
            for (at, &id) in ids.iter().enumerate().take(count) {
                let body = fec::body_of(solver.shard(at));
                if !body.is_some_and(|body| self.accept_solved(now, Some(stripe.frame), id, body)) {
                    outcome = Outcome::Useless;
                }
            }
        }
        self.solver = Some(solver);
        if outcome != Outcome::Waiting && !self.parities.is_empty() {
            self.parities.release_group(stripe);
        }
        outcome
    }

    /// Solves a stripe if it can be solved, and takes the chunk that comes out.
    fn try_stripe(&mut self, now: Timestamp, stripe: &Stripe, parity: &[u8]) -> Outcome {
        let mut scratch = core::mem::take(&mut self.scratch);
        let outcome = stripe.solve(parity, &self.window, &self.frames, &mut scratch);
        let outcome = match outcome {
            Outcome::Solved { id, len } => {
                if self.accept_solved(now, Some(stripe.frame), id, &scratch[..len]) {
                    outcome
                } else {
                    Outcome::Useless
                }
            }
            _ => outcome,
        };
        self.scratch = scratch;
        outcome
    }

    /// Takes a packet that was computed, of `frame` if that is known. `false` if it cannot be what was sent.
    fn accept_solved(&mut self, now: Timestamp, frame: Option<u64>, id: u64, body: &[u8]) -> bool {
        let Ok(Incoming::Media(MediaBody::Video(chunk))) = message::decode(body) else { return false };
        if frame.is_some_and(|frame| chunk.frame_id.0 != frame) {
            return false;
        }
        if self.sliding.is_active() {
            self.sliding.keep(id, &chunk, body);
        }
        if id >= self.window.next_id() {
            let first = self.window.expect_until(now, id + 1);
            self.repair.on_gap(now, first, id + 1);
        }
        match self.accept(now, id, body, &chunk, RecoveredBy::Parity) {
            Ok(()) => {
                self.counters.chunks_from_parity += 1;
                true
            }
            // A resend has brought it already.
            Err(reason) => matches!(reason, DropReason::Duplicate | DropReason::Stale),
        }
    }

    /// Lets a chunk that was sent again take the place of its first transmission in waiting stripes.
    fn stand_in(&mut self, at: Position, body: &[u8], payload: &[u8]) {
        for index in 0..self.parities.capacity() {
            let Some((stripe, _)) = self.parities.waiting(index) else { continue };
            if stripe.frame != at.frame {
                continue;
            }
            let original = stripe.ids().find_map(|id| {
                let member = self.window.slot(id)?.anchor()?;
                let same = member.frame == at.frame && member.slice == at.slice;
                // Consecutive ids are consecutive chunks within a slice.
                let original =
                    same.then(|| id.checked_add(at.chunk.into())?.checked_sub(member.chunk.into()))??;
                let (first, last) = stripe.run_of(id)?;
                (first..=last).contains(&original).then_some(original)
            });
            let Some(original) = original else { continue };
            if self.window.slot(original).is_some_and(window::Slot::is_missing) {
                self.window.note_video(original, at, body, payload, true);
                return;
            }
        }
    }

    /// Tries the waiting parities again after something has arrived.
    fn retry_parities(&mut self, now: Timestamp) {
        let mut last_tried = None;
        for index in 0..self.parities.capacity() {
            let Some((stripe, payload)) = self.parities.waiting(index) else { continue };
            let stripe = *stripe;
            if stripe.frame < self.frames.floor() {
                self.parities.release(index);
                continue;
            }
            if stripe.code == Code::ReedSolomon {
                // One parity stands for all of its group.
                if !last_tried.is_some_and(|tried: Stripe| tried.is_of_group(&stripe)) {
                    self.try_group(now, &stripe, None);
                    last_tried = Some(stripe);
                }
                continue;
            }
            let mut scratch = core::mem::take(&mut self.scratch);
            let outcome = stripe.solve(payload, &self.window, &self.frames, &mut scratch);
            if let Outcome::Solved { id, len } = outcome {
                self.accept_solved(now, Some(stripe.frame), id, &scratch[..len]);
            }
            self.scratch = scratch;
            if outcome != Outcome::Waiting {
                self.parities.release(index);
            }
        }
    }

    fn scan(&mut self, now: Timestamp, out: &mut [PacketId]) -> usize {
        let hope = Hope {
            playout: &self.playout,
            round_trip: &self.round_trip,
            store: &self.parities,
            sliding: &self.sliding,
            last: (self.parity_frame, self.parity_overhead.0),
            tail_us: self.tail_us(),
            spacing_us: self.spacing_us,
        };
        let (window, frames) = (&mut self.window, &mut self.frames);
        let asked = self.repair.scan(now, window, frames, &hope, out);
        let counted = core::mem::take(&mut self.repair.counters);
        self.counters.nacks += counted.asked;
        self.counters.nacks_given_up += counted.given_up;
        self.counters.missing_untracked += counted.untracked;
        asked
    }

    /// The next packet in line has come.
    #[inline]
    fn learn_spacing(&mut self, gap_us: u64) {
        let gap_us = gap_us.min(SPACING_MAX_US) as f32;
        self.spacing_us += (gap_us - self.spacing_us) / SPACING_PACKETS;
    }

    /// The slice that was being received last, if its end has not come and was not missed yet: its newest
    /// chunk and packet id.
    fn open_tail(&self) -> Option<(u64, Position)> {
        let (id, at) = self.window.front()?;
        let slice = self.frames.slice(at.frame, at.slice)?;
        (!slice.is_whole() && !slice.tail_noticed && self.frames.chunks_behind(at) > 0).then_some((id, at))
    }

    fn tail_due(&self) -> Timestamp {
        let frame = self.open_tail().and_then(|(_, at)| self.frames.frame(at.frame));
        frame.map_or(Timestamp::NEVER, |frame| frame.last_arrival.plus_micros(self.tail_us()))
    }

    /// After how long without a packet the rest of a slice counts as lost.
    fn tail_us(&self) -> u64 {
        TAIL_MIN_US.max(self.window.reorder_us()).max(2 * self.playout.burst_gap_us()).max(self.stall_us)
    }

    /// The next packet in line has come. If its slice's tail was taken for lost, the path had only stood still, and
    /// what was asked for is sent for nothing: more patience with this path.
    fn learn_stall(&mut self, now: Timestamp, at: Position) {
        let noticed = self.frames.slice(at.frame, at.slice).is_some_and(|slice| slice.tail_noticed);
        if let Some(frame) = self.frames.frame(at.frame).filter(|_| noticed) {
            let stalled_us = now.micros_since(frame.last_arrival);
            self.stall_us = self.stall_us.max(stalled_us + stalled_us / 4).min(STALL_MAX_US);
        }
    }

    /// The last chunks of a slice leave no gap behind when they are lost: the slice's chunk count tells.
    fn notice_lost_tail(&mut self, now: Timestamp) {
        let Some((id, at)) = self.open_tail() else { return };
        let quiet = self.frames.frame(at.frame).is_some_and(|f| passed(now, f.last_arrival, self.tail_us()));
        if !quiet {
            return;
        }
        let chunks = u64::from(self.frames.chunks_behind(at));
        let (parity, data) = self.parity_overhead;
        let parity = (chunks * u64::from(parity)).div_ceil(u64::from(data.max(1)));
        // Parity between groups pushes the ids of later chunks back. What was not sent costs nothing.
        let reach = (chunks + parity).min(self.window.capacity() / 2);
        let end = id.saturating_add(1).saturating_add(reach);
        let noticed = now.minus_micros(self.window.reorder_us());
        let first = self.window.expect_until(noticed, end);
        self.repair.on_gap(noticed, first, end);
        if let Some(slice) = self.frames.slice_mut(at.frame, at.slice) {
            slice.tail_noticed = true;
        }
    }
}

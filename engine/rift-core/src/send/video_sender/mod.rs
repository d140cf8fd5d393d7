//! The sender itself: takes slices in, hands bodies out.

mod batches;
mod intake;
mod recovery;

use std::collections::VecDeque;

use super::frame_store::{ChunkRef, FrameStore};
use super::history::PacketHistory;
use super::pacer::Pacer;
use super::protection::{PARITIES_MAX, Protection};
use super::retransmit::{Refused, RetransmitQueue};
use super::sliding::Sliding;
use super::span::Span;
use super::template::Template;
use super::{Batch, BatchKind, FramesDropped, SenderConfig, SenderCounters, SliceMeta};
use crate::fec::{Code, Covered, Parity, Runs};
use crate::feedback::PacketOutcome;
use crate::wire::{MAX_DATAGRAM_LEN, TRANSPORT_OVERHEAD};
use crate::{Bitrate, DropReason, FrameId, GroupId, PacketId, Timestamp};
use recovery::NackRefusal;

/// Parity ratios are kept as whole millionths: 0.2 of 5 is 1, which floating point does not promise.
const PPM: u32 = 1_000_000;
/// The least length of a group where bursts are short, in packets.
const GROUP_MIN: usize = 4;

/// Cuts slices into packets, protects, paces and repeats them.
///
/// A caller submits slices as the encoder makes them, and then takes batches until there is none: each
/// [`next_batch`](Self::next_batch) is followed by as many [`seal_body`](Self::seal_body), every body
/// sealed under the next packet id, before anything else is sealed and before any other input. When
/// there is no batch, [`poll_timeout`](Self::poll_timeout) says when to ask again.
#[derive(Debug)]
pub struct VideoSender {
    body_max: usize,
    protected_body_max: usize,
    group_max: usize,
    /// As built: the most that [`set_burst`](Self::set_burst) may set.
    group_built: usize,
    burst_bytes_built: u32,
    queue_us_max: u64,
    retransmit_us_max: u64,
    slices: bool,

    store: FrameStore,
    history: PacketHistory,
    pacer: Pacer,
    retransmissions: RetransmitQueue,
    code: Code,
    /// By exclusive or: of the batch that is leaving.
    parity: Parity,
    /// By Reed-Solomon: of the frame that is leaving.
    span: Span,
    /// By the sliding code: of the last frames.
    sliding: Sliding,
    /// Whether the frame that is leaving is protected by the sliding code.
    is_sliding: bool,
    may_slide: bool,
    /// The least parity, whatever is lost.
    parity_ppm: u32,
    protection: Protection,
    rtt_us: u64,
    /// As measured last: a mean follows a queue that fills only when that is full.
    latest_rtt_us: u64,

    /// Slices that have not left whole, oldest first.
    queue: VecDeque<QueuedSlice>,
    queue_max: usize,
    /// The next group of the slice at the front of the queue.
    next_group: u32,
    next_group_id: GroupId,
    /// The newest frame submitted, and whether it takes more slices.
    newest: Option<(FrameId, Intake)>,
    /// The newest frame that left whole.
    last_whole: Option<FrameId>,
    /// The oldest frame given up since the last one that does not need it.
    broken_since: Option<FrameId>,
    dropped: Option<FramesDropped>,
    /// Frames that the newest one that went past any does without: from the first of them to before the second.
    bypassed: (FrameId, FrameId),
    /// What was asked for is not sent again, or would not be in time.
    is_past_repair: bool,

    active: Option<Active>,
    /// For the bodies of the active batch: all but a shorter last, and that one.
    template: Template,
    last_template: Template,
    /// Where a body is put together that no group keeps.
    scratch: Box<[u8]>,
    /// Parity of the group that left last, to leave next.
    pending_parity: Option<PendingParity>,
    counters: SenderCounters,
}

#[derive(Clone, Copy, Debug)]
struct QueuedSlice {
    frame_id: FrameId,
    reference: Option<FrameId>,
    slot: u16,
    slice: u16,
}

/// The bytes of a slice on their way in.
enum SliceData<'a> {
    /// To be copied.
    Borrowed(&'a [u8]),
    /// To be exchanged for an empty buffer.
    Owned(&'a mut Vec<u8>),
}

impl SliceData<'_> {
    fn is_empty(&self) -> bool {
        match self {
            Self::Borrowed(bytes) => bytes.is_empty(),
            Self::Owned(buffer) => buffer.is_empty(),
        }
    }
}

/// What becomes of further slices of the newest frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intake {
    /// They go into this slot; the next has this index.
    Open { slot: u16, next_slice: u32 },
    /// There are none.
    Whole,
    /// The frame was refused or given up.
    Refused,
}

/// The batch that is being written.
#[derive(Clone, Copy, Debug)]
struct Active {
    batch: Batch,
    written: usize,
    /// The first chunk of a data batch.
    first: ChunkRef,
    first_packet_id: PacketId,
    /// How its parity is computed.
    code: Code,
    /// By exclusive or: of the batch.
    parity_count: usize,
    /// Parity packets per million data packets, at least.
    parity_ppm: u32,
    /// The packets have room for parity.
    is_protected: bool,
    /// No data packet of the frame follows.
    ends_frame: bool,
    /// Packet ids were consecutive so far.
    consecutive: bool,
}

#[derive(Clone, Copy, Debug)]
struct PendingParity {
    frame_id: FrameId,
    group_id: GroupId,
    covers: Covers,
    parity_count: usize,
    /// By exclusive or: bytes of every body but the last, and of that.
    each: usize,
    last: usize,
}

/// What parity is of.
#[derive(Clone, Copy, Debug)]
enum Covers {
    Group(Runs),
    Window(Covered),
}

impl VideoSender {
    /// Makes a sender; allocates everything that it will ever use, but for slices that are longer than an even share of
    /// the largest frame.
    #[must_use]
    pub fn new(config: &SenderConfig) -> Self {
        let pools = config.pool_sizes();
        let may_slide = config.sliding && config.code == Code::ReedSolomon;
        let mut sender = Self {
            body_max: config.body_max(),
            protected_body_max: config.protected_body_max(),
            group_max: pools.group,
            group_built: pools.group,
            burst_bytes_built: config.burst_bytes_max.max(1),
            queue_us_max: config.queue_us_max,
            retransmit_us_max: config.retransmit_us_max,
            slices: config.slices,
            store: FrameStore::new(&pools),
            history: PacketHistory::new(pools.history_packets),
            pacer: Pacer::new(config.pacing, config.burst_bytes_max),
            retransmissions: RetransmitQueue::new(pools.retransmissions, config.burst_bytes_max.into()),
            code: config.code,
            parity: Parity::new(if config.code == Code::Xor { pools.group } else { 0 }, pools.parity_bytes),
            span: Span::new(
                if config.code == Code::ReedSolomon { pools.group } else { 0 },
                pools.parity_bytes,
            ),
            sliding: Sliding::new(PARITIES_MAX, if may_slide { pools.parity_bytes } else { 0 }),
            is_sliding: false,
            may_slide,
            parity_ppm: 0,
            protection: Protection::new(config.retransmit_us_max),
            rtt_us: 0,
            latest_rtt_us: 0,
            queue: VecDeque::with_capacity(pools.queued_slices),
            queue_max: pools.queued_slices,
            next_group: 0,
            next_group_id: GroupId(0),
            newest: None,
            last_whole: None,
            broken_since: None,
            dropped: None,
            bypassed: (FrameId(0), FrameId(0)),
            is_past_repair: false,
            active: None,
            template: Template::EMPTY,
            last_template: Template::EMPTY,
            scratch: vec![0; MAX_DATAGRAM_LEN].into_boxed_slice(),
            pending_parity: None,
            counters: SenderCounters::default(),
        };
        sender.set_parity(config.parity);
        sender
    }

    /// Takes in a slice, with one copy. With the first slice of a frame, queued frames that this one
    /// does not need, or that have waited too long, are given up first.
    ///
    /// # Errors
    /// Nothing of the slice is kept. `Stale`: the frame is older than the newest, was given up, or
    /// predicts from one that was. `Unexpected`: slices out of order. `Duplicate`: the slice was
    /// submitted before. `NoRoom`: the frame is larger than the sender was built for and is given up.
    /// `Malformed`: an empty slice, or a reference that is not older than its frame.
    pub fn submit_slice(&mut self, now: Timestamp, meta: &SliceMeta, data: &[u8]) -> Result<(), DropReason> {
        self.submit(now, meta, SliceData::Borrowed(data))
    }

    /// As [`submit_slice`](Self::submit_slice) without the copy: takes the buffer's bytes, and leaves an empty buffer in
    /// their place whose memory held a slice of an earlier frame. Where the peer does not take slices they are copied.
    ///
    /// # Errors
    /// As [`submit_slice`](Self::submit_slice); the buffer is emptied all the same.
    pub fn submit_buffer(
        &mut self,
        now: Timestamp,
        meta: &SliceMeta,
        data: &mut Vec<u8>,
    ) -> Result<(), DropReason> {
        let result = self.submit(now, meta, SliceData::Owned(data));
        data.clear();
        result
    }

    fn submit(&mut self, now: Timestamp, meta: &SliceMeta, data: SliceData<'_>) -> Result<(), DropReason> {
        if data.is_empty() || meta.reference.is_some_and(|r| r >= meta.frame_id) {
            return Err(DropReason::Malformed);
        }
        if self.newest.is_none_or(|(newest, _)| newest < meta.frame_id) {
            self.begin_frame(now, meta)?;
        }
        let (slot, next_slice) = match self.newest {
            Some((newest, Intake::Open { slot, next_slice })) if newest == meta.frame_id => {
                (slot, next_slice)
            }
            Some((newest, Intake::Whole)) if newest == meta.frame_id => return Err(DropReason::Unexpected),
            _ => return Err(DropReason::Stale),
        };
        if meta.slice_index < next_slice {
            return Err(DropReason::Duplicate);
        }
        if meta.slice_index > next_slice {
            self.give_up_newest();
            return Err(DropReason::Unexpected);
        }
        if !self.append(slot, meta, data) {
            self.give_up_newest();
            return Err(DropReason::NoRoom);
        }
        self.counters.slices += 1;
        let next = Intake::Open { slot, next_slice: next_slice + 1 };
        self.newest = Some((meta.frame_id, if meta.last_slice { Intake::Whole } else { next }));
        Ok(())
    }

    /// The next packets to leave, or `None` if there are none or pacing holds them back. The rest of a
    /// batch whose bodies were not all written comes again.
    pub fn next_batch(&mut self, now: Timestamp) -> Option<Batch> {
        if let Some(active) = &self.active {
            if active.written < active.batch.count {
                return Some(active.rest());
            }
            self.active = None;
        }
        self.pacer.limit(now);
        let active =
            self.begin_parity().or_else(|| self.begin_retransmission()).or_else(|| self.begin_data(now))?;
        let batch = active.batch;
        let datagrams =
            batch.count * TRANSPORT_OVERHEAD + (batch.count - 1) * batch.body_len + batch.last_body_len;
        self.pacer.on_sent(now, datagrams as u64);
        self.active = Some(active);
        Some(batch)
    }

    /// Writes the next body of the current batch to the start of `out` and returns its length. 0 if
    /// there is none left or `out` is too short for it.
    pub fn write_body(&mut self, packet_id: PacketId, out: &mut [u8]) -> usize {
        let written = self.seal_body(packet_id, |body| {
            out.get_mut(..body.len())?.copy_from_slice(body);
            Some(body.len())
        });
        written.unwrap_or(0)
    }

    /// Gives the next body of the current batch to `seal` and returns what that returns. `None` of it leaves the body to be
    /// the next one again, as if nothing had happened; `None` also if there is none left.
    #[inline]
    pub fn seal_body(
        &mut self,
        packet_id: PacketId,
        seal: impl FnOnce(&[u8]) -> Option<usize>,
    ) -> Option<usize> {
        let active = self.active?;
        if active.written == active.batch.count {
            return None;
        }
        let last = active.written + 1 == active.batch.count;
        let sealed = match active.batch.kind {
            BatchKind::Data => self.seal_data(packet_id, &active, seal),
            BatchKind::Parity => {
                let at = active.written;
                let (index, payload) = match active.code {
                    Code::Xor => (at as u32, self.parity.payload(at)),
                    Code::ReedSolomon => (at as u32, self.span.parity(at)),
                    Code::Sliding => (self.sliding.row(at).into(), self.sliding.parity(at)),
                };
                let len = self.template.write(index, payload, &mut self.scratch)?;
                seal(&self.scratch[..len])
            }
            BatchKind::Retransmission => self.seal_retransmission(packet_id, seal),
        }?;
        match active.batch.kind {
            BatchKind::Data => self.counters.data_packets += 1,
            BatchKind::Parity => {
                self.counters.parity_packets += 1;
                self.counters.parity_sliding += u64::from(active.code == Code::Sliding);
            }
            BatchKind::Retransmission => self.counters.retransmitted_packets += 1,
        }
        let body_len = if last { active.batch.last_body_len } else { active.batch.body_len };
        self.counters.body_bytes += body_len as u64;
        if let Some(active) = &mut self.active {
            active.written += 1;
            if active.written == active.batch.count && active.batch.kind == BatchKind::Data {
                self.finish_data();
            }
        }
        Some(sealed)
    }

    /// The peer misses these packets. Their chunks are queued to leave again before anything new,
    /// unless that would not help or be too much; [`counters`](Self::counters) say which.
    pub fn on_nack(&mut self, now: Timestamp, ids: impl Iterator<Item = PacketId>) {
        for id in ids {
            self.counters.nacked += 1;
            match self.queue_retransmission(now, id) {
                Ok(()) => {}
                Err(NackRefusal::Unknown) => self.counters.nacks_unknown += 1,
                Err(NackRefusal::Stale) => self.counters.nacks_stale += 1,
                Err(NackRefusal::Duplicate) => self.counters.nacks_duplicate += 1,
                Err(NackRefusal::Late) => {
                    self.counters.nacks_late += 1;
                    self.is_past_repair = true;
                }
                Err(NackRefusal::Queue(Refused::OverBudget)) => self.counters.nacks_over_budget += 1,
                Err(NackRefusal::Queue(Refused::NoRoom)) => self.counters.nacks_no_room += 1,
            }
        }
    }

    /// Whether since the last call a chunk was asked for that is too old to be sent again, or was sent again in vain on
    /// a long path: a frame that does without its frame will help, and nothing sooner.
    pub fn poll_past_repair(&mut self) -> bool {
        core::mem::take(&mut self.is_past_repair)
    }

    /// The peer has decoded or shown `frame`, so that nothing of it or any older frame is needed again.
    /// A frame that has not left whole is not believed; whether it was is returned.
    pub fn on_frame_acked(&mut self, frame: FrameId) -> bool {
        let believed = self.last_whole.is_some_and(|whole| frame <= whole);
        if believed {
            self.store.release_until(frame);
            self.forget_released();
        }
        believed
    }

    /// When [`next_batch`](Self::next_batch) has something to give: [`Timestamp::ZERO`] for at once,
    /// [`Timestamp::NEVER`] if nothing is queued.
    #[must_use]
    pub fn poll_timeout(&self) -> Timestamp {
        let unwritten = self.active.is_some_and(|a| a.written < a.batch.count);
        if unwritten || self.pending_parity.is_some() || !self.retransmissions.is_empty() {
            return Timestamp::ZERO;
        }
        self.next_data().map_or(Timestamp::NEVER, |(at, chunks)| self.data_opens_at(at, &chunks))
    }

    /// Frames given up since the last call, for which the encoder must change its references.
    pub fn poll_dropped(&mut self) -> Option<FramesDropped> {
        self.dropped.take()
    }

    /// Sets the rate at which bursts follow each other. Not the target rate of the encoder, but what
    /// the path is trusted to take in a short time; at least 1 Mbit/s.
    pub fn set_rate(&mut self, pacing: Bitrate) {
        self.pacer.set_rate(pacing);
    }

    /// Sets how many encoded bytes of a frame leave without a pause, up to what the sender was built for. A
    /// group leaves as one burst, so that groups of slices submitted from now on are no longer than that.
    pub fn set_burst(&mut self, bytes: u32) {
        let bytes = bytes.min(self.burst_bytes_built);
        self.pacer.set_burst(bytes);
        // Below this many, parity would cost more than it mends.
        let least = GROUP_MIN.min(self.group_built);
        self.group_max = (bytes as usize / self.body_max).clamp(least, self.group_built);
    }

    /// Sets the least parity packets per data packet, 0 to 1, for slices submitted from now on.
    pub fn set_parity(&mut self, ratio: f32) {
        // The cast saturates, and makes 0 of what is not a number.
        self.parity_ppm = ((ratio * PPM as f32).round() as u32).min(PPM);
    }

    /// Sets the round trip time in microseconds.
    pub fn set_rtt(&mut self, us: u64) {
        self.rtt_us = us;
        self.protection.set_rtt(us);
    }

    /// Sets the round trip time that was measured last, in microseconds.
    pub fn set_latest_rtt(&mut self, us: u64) {
        self.latest_rtt_us = us;
    }

    /// Sets the time between two frames in microseconds.
    pub fn set_period(&mut self, us: u64) {
        self.protection.set_period(us);
    }

    /// Whether groups get as much parity as the losses on the path make worth while, and not just the least.
    pub fn set_protecting(&mut self, is_on: bool) {
        self.protection.set_on(is_on);
    }

    /// The fate of a packet is known. `is_queued` says that packets waited in a queue then, so that a loss is
    /// the queue's and no parity would help against it.
    #[inline]
    pub fn on_outcome(&mut self, outcome: &PacketOutcome, is_queued: bool) {
        self.protection.on_outcome(outcome, is_queued);
    }

    /// Whether the path has lost packets lately that did not wait in a queue.
    #[must_use]
    pub fn expects_losses(&self) -> bool {
        self.protection.expects_losses()
    }

    /// Parity packets per data packet that groups got lately because of losses.
    #[must_use]
    pub fn parity_share(&self) -> f32 {
        self.protection.share()
    }

    /// Totals since the sender was made.
    #[must_use]
    pub fn counters(&self) -> &SenderCounters {
        &self.counters
    }
}

impl Active {
    fn new(batch: Batch) -> Self {
        Self {
            batch,
            written: 0,
            first: ChunkRef { slot: 0, slice: 0, serial: 0, chunk: 0 },
            first_packet_id: PacketId(0),
            code: Code::Xor,
            parity_count: 0,
            parity_ppm: 0,
            is_protected: false,
            ends_frame: false,
            consecutive: true,
        }
    }

    /// What of the batch is not yet written.
    fn rest(&self) -> Batch {
        let count = self.batch.count - self.written;
        let body_len = if count == 1 { self.batch.last_body_len } else { self.batch.body_len };
        Batch { count, body_len, ..self.batch }
    }
}

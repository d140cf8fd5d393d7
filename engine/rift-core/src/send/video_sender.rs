//! The sender itself: takes slices in, hands bodies out.

use std::collections::VecDeque;

use super::frame_store::{ChunkRef, Cut, FrameStore};
use super::history::PacketHistory;
use super::pacer::Pacer;
use super::retransmit::{Refused, RetransmitQueue};
use super::template::{NO_LENGTHS, Template};
use super::{Batch, BatchKind, FramesDropped, SenderConfig, SenderCounters, SliceMeta};
use crate::fec::{Code, Parity};
use crate::message::FecPacket;
use crate::wire::TRANSPORT_OVERHEAD;
use crate::{Bitrate, DropReason, FrameId, GroupId, PacketId, Timestamp};

/// Parity ratios are kept as whole millionths: 0.2 of 5 is 1, which floating point does not promise.
const PPM: u32 = 1_000_000;
/// Two reports of one loss that are closer than this are the same report, whatever the round trip.
const RTT_US_MIN: u64 = 1000;

/// Cuts slices into packets, protects, paces and repeats them.
///
/// A caller submits slices as the encoder makes them, and then takes batches until there is none:
/// each [`next_batch`](Self::next_batch) is followed by as many [`write_body`](Self::write_body), every body sealed under the
/// next packet id, before anything else is sealed and before any other input. When there is no batch,
/// [`poll_timeout`](Self::poll_timeout) says when to ask again.
#[derive(Debug)]
pub struct VideoSender {
    body_max: usize,
    protected_body_max: usize,
    group_max: usize,
    queue_us_max: u64,
    retransmit_us_max: u64,
    slices: bool,

    store: FrameStore,
    history: PacketHistory,
    pacer: Pacer,
    retransmissions: RetransmitQueue,
    parity: Parity,
    parity_ppm: u32,
    rtt_us: u64,

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

    active: Option<Active>,
    /// For the bodies of the active batch: all but a shorter last, and that one.
    template: Template,
    last_template: Template,
    /// Parity of the group that left last, to leave next.
    pending_parity: Option<PendingParity>,
    counters: SenderCounters,
}

#[derive(Clone, Copy, Debug)]
struct QueuedSlice {
    frame_id: FrameId,
    slot: u16,
    slice: u16,
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
    parity_count: usize,
    /// Packet ids were consecutive so far.
    consecutive: bool,
}

#[derive(Clone, Copy, Debug)]
struct PendingParity {
    frame_id: FrameId,
    group_id: GroupId,
    first_packet_id: PacketId,
    shard_count: usize,
    parity_count: usize,
    each: usize,
    last: usize,
}

impl VideoSender {
    /// Makes a sender; allocates everything that it will ever use.
    #[must_use]
    pub fn new(config: &SenderConfig) -> Self {
        let pools = config.pool_sizes();
        let mut sender = Self {
            body_max: config.body_max(),
            protected_body_max: config.protected_body_max(),
            group_max: pools.group,
            queue_us_max: config.queue_us_max,
            retransmit_us_max: config.retransmit_us_max,
            slices: config.slices,
            store: FrameStore::new(&pools),
            history: PacketHistory::new(pools.history_packets),
            pacer: Pacer::new(config.pacing, config.burst_bytes_max),
            retransmissions: RetransmitQueue::new(pools.retransmissions, config.burst_bytes_max.into()),
            parity: Parity::new(Code::Xor, pools.group, pools.parity_bytes),
            parity_ppm: 0,
            rtt_us: 0,
            queue: VecDeque::with_capacity(pools.queued_slices),
            queue_max: pools.queued_slices,
            next_group: 0,
            next_group_id: GroupId(0),
            newest: None,
            last_whole: None,
            broken_since: None,
            dropped: None,
            active: None,
            template: Template::EMPTY,
            last_template: Template::EMPTY,
            pending_parity: None,
            counters: SenderCounters::default(),
        };
        sender.set_parity(config.parity);
        sender
    }

    /// Takes in a slice, with one copy. With the first slice of a frame, queued frames that this one does
    /// not need, or that have waited too long, are given up first.
    ///
    /// # Errors
    /// Nothing of the slice is kept. `Stale`: the frame is older than the newest, was given up, or predicts
    /// from one that was. `Unexpected`: slices out of order. `Duplicate`: the slice was submitted before.
    /// `NoRoom`: the frame is larger than the sender was built for and is given up. `Malformed`: an empty
    /// slice, or a reference that is not older than its frame.
    pub fn submit_slice(&mut self, now: Timestamp, meta: &SliceMeta, data: &[u8]) -> Result<(), DropReason> {
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

    /// The next packets to leave, or `None` if there are none or pacing holds them back. The rest of a batch
    /// whose bodies were not all written comes again.
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

    /// Writes the next body of the current batch to the start of `out` and returns its length. 0 if there
    /// is none left or `out` is too short for it.
    #[inline]
    pub fn write_body(&mut self, packet_id: PacketId, out: &mut [u8]) -> usize {
        let Some(active) = self.active else { return 0 };
        if active.written == active.batch.count {
            return 0;
        }
        let len = match active.batch.kind {
            BatchKind::Data => self.write_data(packet_id, &active, out),
            BatchKind::Parity => {
                let payload = self.parity.payload(active.written);
                self.template.write(active.written as u32, payload, out)
            }
            BatchKind::Retransmission => self.write_retransmission(packet_id, out),
        };
        let Some(len) = len else { return 0 };
        match active.batch.kind {
            BatchKind::Data => self.counters.data_packets += 1,
            BatchKind::Parity => self.counters.parity_packets += 1,
            BatchKind::Retransmission => self.counters.retransmitted_packets += 1,
        }
        self.counters.body_bytes += len as u64;
        if let Some(active) = &mut self.active {
            active.written += 1;
            if active.written == active.batch.count && active.batch.kind == BatchKind::Data {
                self.finish_data();
            }
        }
        len
    }

    /// The peer misses these packets. Their chunks are queued to leave again before anything new, unless
    /// that would not help or be too much; [`counters`](Self::counters) say which.
    pub fn on_nack(&mut self, now: Timestamp, ids: impl Iterator<Item = PacketId>) {
        for id in ids {
            self.counters.nacked += 1;
            match self.queue_retransmission(now, id) {
                Ok(()) => {}
                Err(NackRefusal::Unknown) => self.counters.nacks_unknown += 1,
                Err(NackRefusal::Stale) => self.counters.nacks_stale += 1,
                Err(NackRefusal::Duplicate) => self.counters.nacks_duplicate += 1,
                Err(NackRefusal::Late) => self.counters.nacks_late += 1,
                Err(NackRefusal::Queue(Refused::OverBudget)) => self.counters.nacks_over_budget += 1,
                Err(NackRefusal::Queue(Refused::NoRoom)) => self.counters.nacks_no_room += 1,
            }
        }
    }

    /// The peer has decoded or shown `frame`, so that nothing of it or any older frame is needed again. A frame
    /// that has not left whole is not believed.
    pub fn on_frame_acked(&mut self, frame: FrameId) {
        if self.last_whole.is_some_and(|whole| frame <= whole) {
            self.store.release_until(frame);
            self.forget_released();
        }
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

    /// Sets the rate at which bursts follow each other. Not the target rate of the encoder, but what the path is
    /// trusted to take in a short time; at least 1 Mbit/s.
    pub fn set_rate(&mut self, pacing: Bitrate) {
        self.pacer.set_rate(pacing);
    }

    /// Sets the parity packets per data packet, 0 to 1, for slices submitted from now on.
    pub fn set_parity(&mut self, ratio: f32) {
        // The cast saturates, and makes 0 of what is not a number.
        self.parity_ppm = ((ratio * PPM as f32).round() as u32).min(PPM);
    }

    /// Sets the round trip time in microseconds.
    pub fn set_rtt(&mut self, us: u64) {
        self.rtt_us = us;
    }

    /// Totals since the sender was made.
    #[must_use]
    pub fn counters(&self) -> &SenderCounters {
        &self.counters
    }
}

/// Why a lost packet is not sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NackRefusal {
    Unknown,
    Stale,
    Duplicate,
    Late,
    Queue(Refused),
}

/// Taking frames in.
impl VideoSender {
    fn begin_frame(&mut self, now: Timestamp, meta: &SliceMeta) -> Result<(), DropReason> {
        if matches!(self.newest, Some((_, Intake::Open { .. }))) {
            self.give_up_newest();
        }
        self.newest = Some((meta.frame_id, Intake::Refused));
        self.counters.frames += 1;
        if meta.keyframe {
            self.drop_unneeded(None);
        } else if meta.reference.is_some() {
            self.drop_unneeded(meta.reference);
        }
        self.drop_waiting(now);
        let needs_dropped = |first| !meta.keyframe && meta.reference.is_none_or(|r| r >= first);
        if self.broken_since.is_some_and(needs_dropped) {
            self.counters.frames_refused += 1;
            return Err(DropReason::Stale);
        }
        let slot = match self.store.lease(now, meta) {
            Some(slot) => slot,
            None => self.evict_and_lease(now, meta).ok_or(DropReason::NoRoom)?,
        };
        self.broken_since = None;
        self.newest = Some((meta.frame_id, Intake::Open { slot, next_slice: 0 }));
        Ok(())
    }

    /// Frees the slot of the oldest frame. If that has not left, it has waited for as many frames as there are
    /// slots: it is given up, and this frame goes on without it only if it can.
    fn evict_and_lease(&mut self, now: Timestamp, meta: &SliceMeta) -> Option<u16> {
        let oldest = self.store.oldest()?;
        if self.queue.iter().any(|q| q.slot == oldest) {
            let (first, count) = self.drop_queued(None)?;
            self.counters.frames_dropped_stale += count;
            self.mark_broken(first);
            if !meta.keyframe && meta.reference.is_none_or(|r| r >= first) {
                self.counters.frames_refused += 1;
                return None;
            }
        } else {
            self.store.release(oldest);
            self.forget_released();
        }
        self.store.lease(now, meta)
    }

    /// Stores the bytes, and queues the slice if it is to leave by itself or is the frame's last.
    fn append(&mut self, slot: u16, meta: &SliceMeta, data: &[u8]) -> bool {
        if self.queue.len() == self.queue_max || !self.store.append(slot, data) {
            return false;
        }
        if !self.slices && !meta.last_slice {
            return true;
        }
        let meta = if self.slices { *meta } else { SliceMeta { slice_index: 0, ..*meta } };
        let body_max = if self.parity_ppm > 0 { self.protected_body_max } else { self.body_max };
        let cut = Cut { body_max, group_max: self.group_max, parity_ppm: self.parity_ppm };
        let Some(slice) = self.store.push_slice(slot, &meta, cut) else { return false };
        self.queue.push_back(QueuedSlice { frame_id: meta.frame_id, slot, slice });
        true
    }

    /// Gives up the newest frame, which is not whole.
    fn give_up_newest(&mut self) {
        let Some((frame_id, Intake::Open { slot, .. })) = self.newest else { return };
        self.newest = Some((frame_id, Intake::Refused));
        self.queue_retain(|q| q.frame_id != frame_id);
        self.store.release(slot);
        self.forget_released();
        self.counters.frames_dropped_stale += 1;
        self.mark_broken(frame_id);
    }

    /// Gives up the queued frames newer than `reference`: a frame that predicts from it goes past them.
    fn drop_unneeded(&mut self, reference: Option<FrameId>) {
        if let Some((_, count)) = self.drop_queued(reference) {
            self.counters.frames_dropped_unneeded += count;
        }
    }

    /// Gives up everything queued if the oldest of it has waited too long.
    fn drop_waiting(&mut self, now: Timestamp) {
        let Some(front) = self.queue.front() else { return };
        let at = ChunkRef {
            slot: front.slot,
            slice: front.slice,
            serial: self.store.serial(front.slot),
            chunk: 0,
        };
        let waited_us = self.store.find(at).map_or(0, |(slot, _)| now.micros_since(slot.submitted_at));
        if waited_us > self.queue_us_max
            && let Some((first, count)) = self.drop_queued(None)
        {
            self.counters.frames_dropped_stale += count;
            self.mark_broken(first);
        }
    }

    /// Gives up the queued frames newer than `keep`, or all; returns the oldest of them and their number.
    fn drop_queued(&mut self, keep: Option<FrameId>) -> Option<(FrameId, u64)> {
        let dropped = |q: &QueuedSlice| keep.is_none_or(|k| q.frame_id > k);
        let first = self.queue.iter().find(|q| dropped(q))?.frame_id;
        let mut count = 0;
        for q in self.queue.iter().filter(|q| dropped(q)) {
            count += u64::from(self.store.release(q.slot));
        }
        self.queue_retain(|q| !dropped(q));
        self.forget_released();
        Some((first, count))
    }

    fn queue_retain(&mut self, keep: impl Fn(&QueuedSlice) -> bool) {
        if self.queue.front().is_some_and(|q| !keep(q)) {
            self.next_group = 0;
        }
        self.queue.retain(keep);
    }

    /// Stops writing a batch whose frame is gone.
    fn forget_released(&mut self) {
        let gone = |active: &Active| match active.batch.kind {
            BatchKind::Data => self.store.find(active.first).is_none(),
            // Their chunks may be anyone's; the parity is in its own buffers.
            BatchKind::Retransmission => true,
            BatchKind::Parity => false,
        };
        if self.active.as_ref().is_some_and(gone) {
            self.active = None;
        }
    }

    fn mark_broken(&mut self, first: FrameId) {
        let first = self.broken_since.map_or(first, |f| f.min(first));
        self.broken_since = Some(first);
        self.dropped = Some(FramesDropped { first, last_valid: self.last_whole });
    }
}

/// Handing batches out.
impl VideoSender {
    fn begin_parity(&mut self) -> Option<Active> {
        let pending = self.pending_parity.take()?;
        let fields = FecPacket {
            group_id: pending.group_id,
            first_packet_id: pending.first_packet_id,
            shard_count: pending.shard_count as u32,
            parity_index: 0,
            payload: &[],
            shard_lengths: NO_LENGTHS,
            parity_count: pending.parity_count as u32,
            frame_id: pending.frame_id,
        };
        self.template = Template::parity(&fields, pending.each as u32, pending.last as u32, pending.each);
        let body_len = self.template.body_len();
        let kind = BatchKind::Parity;
        Some(Active::new(Batch { count: pending.parity_count, body_len, last_body_len: body_len, kind }))
    }

    fn begin_retransmission(&mut self) -> Option<Active> {
        let mut batch = Batch { count: 0, body_len: 0, last_body_len: 0, kind: BatchKind::Retransmission };
        // Chunks of frames that are gone are passed over at the front and end a batch elsewhere.
        while let Some(chunk) = self.retransmissions.front() {
            if self.store.find(chunk).is_some() {
                break;
            }
            self.retransmissions.pop();
        }
        for chunk in self.retransmissions.iter().take(self.group_max) {
            let Some((_, slice)) = self.store.find(chunk) else { break };
            let len = slice.body_len_of(chunk.chunk);
            if batch.count == 0 {
                batch.body_len = len;
            } else if len > batch.body_len || batch.last_body_len < batch.body_len {
                break;
            }
            batch.last_body_len = len;
            batch.count += 1;
        }
        (batch.count > 0).then(|| Active::new(batch))
    }

    fn begin_data(&mut self, now: Timestamp) -> Option<Active> {
        let (at, chunks) = self.next_data()?;
        if self.data_opens_at(at, &chunks) > now {
            return None;
        }
        let (slot, slice) = self.store.find(at)?;
        let count = chunks.len();
        let last = chunks.end - 1;
        self.template = slot.template(slice, chunks.start);
        self.last_template = slot.template(slice, last);
        let batch = Batch {
            count,
            body_len: self.template.body_len(),
            last_body_len: self.last_template.body_len(),
            kind: BatchKind::Data,
        };
        let frame_id = slot.frame_id;
        let encoded_bytes = (slice.payload(last).end - slice.payload(chunks.start).start) as u64;
        let parity_count = (u64::from(slice.parity_ppm) * count as u64).div_ceil(PPM.into()) as usize;
        let (group_count, last_slice) = (slice.group_count, slice.last_slice);
        self.pacer.admit(frame_id, encoded_bytes);
        self.retransmissions.on_sent(encoded_bytes);
        let parity_count = self.parity.begin(parity_count, batch.body_len);
        self.next_group += 1;
        if self.next_group == group_count {
            self.next_group = 0;
            self.queue.pop_front();
            if last_slice {
                self.last_whole = Some(frame_id);
            }
        }
        Some(Active { first: at, parity_count, ..Active::new(batch) })
    }

    /// The first chunk and the chunks of the group that leaves next.
    fn next_data(&self) -> Option<(ChunkRef, core::ops::Range<u32>)> {
        let front = self.queue.front()?;
        let serial = self.store.serial(front.slot);
        let at = ChunkRef { slot: front.slot, slice: front.slice, serial, chunk: 0 };
        let chunks = self.store.find(at)?.1.group(self.next_group);
        Some((ChunkRef { chunk: chunks.start, ..at }, chunks))
    }

    fn data_opens_at(&self, at: ChunkRef, chunks: &core::ops::Range<u32>) -> Timestamp {
        self.store.find(at).map_or(Timestamp::NEVER, |(slot, slice)| {
            let encoded = slice.payload(chunks.end - 1).end - slice.payload(chunks.start).start;
            self.pacer.opens_at(slot.frame_id, encoded as u64)
        })
    }

    #[inline]
    fn write_data(&mut self, packet_id: PacketId, active: &Active, out: &mut [u8]) -> Option<usize> {
        let chunk = ChunkRef { chunk: active.first.chunk + active.written as u32, ..active.first };
        let (slot, slice) = self.store.find(chunk)?;
        let last = active.written + 1 == active.batch.count;
        let template = if last { &self.last_template } else { &self.template };
        let len = template.write(chunk.chunk, slot.bytes(slice.payload(chunk.chunk)), out)?;
        self.parity.accumulate(active.written, &out[..len]);
        self.history.record(packet_id, chunk);
        if let Some(active) = &mut self.active {
            if active.written == 0 {
                active.first_packet_id = packet_id;
            }
            active.consecutive &= packet_id.0.wrapping_sub(active.first_packet_id.0) == active.written as u64;
        }
        Some(len)
    }

    fn finish_data(&mut self) {
        let Some(active) = self.active else { return };
        if active.parity_count == 0 {
            return;
        }
        if !active.consecutive {
            self.counters.parity_abandoned += 1;
            return;
        }
        let Some((slot, _)) = self.store.find(active.first) else { return };
        self.pending_parity = Some(PendingParity {
            frame_id: slot.frame_id,
            group_id: self.next_group_id,
            first_packet_id: active.first_packet_id,
            shard_count: active.batch.count,
            parity_count: active.parity_count,
            each: active.batch.body_len,
            last: active.batch.last_body_len,
        });
        self.next_group_id = self.next_group_id.next();
    }

    fn write_retransmission(&mut self, packet_id: PacketId, out: &mut [u8]) -> Option<usize> {
        let chunk = self.retransmissions.front()?;
        let (slot, slice) = self.store.find(chunk)?;
        let template = slot.template(slice, chunk.chunk);
        let len = template.write(chunk.chunk, slot.bytes(slice.payload(chunk.chunk)), out)?;
        self.history.record(packet_id, chunk);
        self.retransmissions.pop();
        Some(len)
    }

    fn queue_retransmission(&mut self, now: Timestamp, id: PacketId) -> Result<(), NackRefusal> {
        let chunk = self.history.chunk(id).ok_or(NackRefusal::Unknown)?;
        let (slot, slice) = self.store.find(chunk).ok_or(NackRefusal::Stale)?;
        let body_len = slice.body_len_of(chunk.chunk);
        let arrives_us = now.micros_since(slot.submitted_at).saturating_add(self.rtt_us / 2);
        if arrives_us > self.retransmit_us_max {
            return Err(NackRefusal::Late);
        }
        // A report that crossed the retransmission on its way. One eighth less, because a round trip may
        // be shorter than the smoothed one.
        let repeat_us = (self.rtt_us - self.rtt_us / 8).max(RTT_US_MIN);
        let resent_at = self.store.resent_at(chunk).ok_or(NackRefusal::Stale)?;
        if *resent_at != Timestamp::NEVER && now < resent_at.plus_micros(repeat_us) {
            return Err(NackRefusal::Duplicate);
        }
        self.retransmissions.push(chunk, body_len).map_err(NackRefusal::Queue)?;
        *resent_at = now;
        Ok(())
    }
}

impl Active {
    fn new(batch: Batch) -> Self {
        Self {
            batch,
            written: 0,
            first: ChunkRef { slot: 0, slice: 0, serial: 0, chunk: 0 },
            first_packet_id: PacketId(0),
            parity_count: 0,
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

//! Taking frames in, and giving up those that should not leave any more.

use super::super::frame_store::{ChunkRef, Cut};
use super::super::{BatchKind, FramesDropped, SliceMeta};
use super::{Active, Intake, QueuedSlice, SliceData, VideoSender};
use crate::{DropReason, FrameId, Timestamp};

impl VideoSender {
    pub(super) fn begin_frame(&mut self, now: Timestamp, meta: &SliceMeta) -> Result<(), DropReason> {
        if matches!(self.newest, Some((_, Intake::Open { .. }))) {
            self.give_up_newest();
        }
        let before = self.newest.replace((meta.frame_id, Intake::Refused));
        self.counters.frames += 1;
        let first_unneeded = meta.reference.map_or(FrameId(0), FrameId::next);
        if meta.keyframe
            || before.is_some_and(|(before, _)| first_unneeded <= before && meta.reference.is_some())
        {
            self.bypassed = (first_unneeded, meta.frame_id);
        }
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

    /// Frees the slot of the oldest frame. If that has not left, it has waited for as many frames as
    /// there are slots: it is given up, and this frame goes on without it only if it can.
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
            self.store.evict(oldest);
            self.forget_released();
        }
        self.store.lease(now, meta)
    }

    /// Stores the bytes, and queues the slice if it is to leave by itself or is the frame's last.
    pub(super) fn append(&mut self, slot: u16, meta: &SliceMeta, data: SliceData<'_>) -> bool {
        if self.queue.len() == self.queue_max {
            return false;
        }
        let fits = match data {
            // Slices that are to leave as one are joined.
            SliceData::Owned(buffer) if self.slices => self.store.exchange(slot, buffer),
            SliceData::Owned(buffer) => self.store.append(slot, buffer),
            SliceData::Borrowed(bytes) => self.store.append(slot, bytes),
        };
        if !fits {
            return false;
        }
        if !self.slices && !meta.last_slice {
            return true;
        }
        let meta = if self.slices { *meta } else { SliceMeta { slice_index: 0, ..*meta } };
        let is_protected = self.parity_ppm > 0 || self.protection.is_needed();
        let body_max = if is_protected { self.protected_body_max } else { self.body_max };
        let cut = Cut { body_max, group_max: self.group_max, parity_ppm: self.parity_ppm, is_protected };
        let Some(slice) = self.store.push_slice(slot, &meta, cut) else { return false };
        self.queue.push_back(QueuedSlice { frame_id: meta.frame_id, reference: meta.reference, slot, slice });
        true
    }

    /// Gives up the newest frame, which is not whole.
    pub(super) fn give_up_newest(&mut self) {
        let Some((frame_id, Intake::Open { slot, .. })) = self.newest else { return };
        self.newest = Some((frame_id, Intake::Refused));
        self.queue_retain(|q| q.frame_id != frame_id);
        self.store.release(slot);
        self.forget_released();
        self.counters.frames_dropped_stale += 1;
        self.mark_broken(frame_id);
    }

    /// Gives up the queued frames newer than `reference`: a frame that predicts from it goes past them. Those that went
    /// past others to it or an older one themselves do not need what this one does without.
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
        let Some((slot, _)) = self.store.find(at) else { return };
        // Without a keyframe there would have to be another one, which takes as long again.
        let us_max = self.queue_us_max.saturating_mul(if slot.keyframe { 2 } else { 1 });
        if now.micros_since(slot.submitted_at) > us_max
            && let Some((first, count)) = self.drop_queued(None)
        {
            self.counters.frames_dropped_stale += count;
            self.mark_broken(first);
        }
    }

    /// Gives up the queued frames newer than `keep`, or all; returns the oldest of them and their
    /// number.
    fn drop_queued(&mut self, keep: Option<FrameId>) -> Option<(FrameId, u64)> {
        let dropped = |q: &QueuedSlice| {
            let stays = |k| q.reference.is_some_and(|r| r <= k && r.next() < q.frame_id);
            keep.is_none_or(|k| q.frame_id > k && !stays(k))
        };
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
    pub(super) fn forget_released(&mut self) {
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

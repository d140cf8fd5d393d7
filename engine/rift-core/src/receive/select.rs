//! Which frame is decoded next, and when none can be.
//!
//! Owns no state: the rules over what the receiver holds. The oldest frame goes first; one that cannot
//! be decoded gives way to a newer one that can.

use super::frame::{Frame, Slice};
use super::slice::ReadySlice;
use super::{VideoReceiver, passed};
use crate::{FrameId, Timestamp};

impl VideoReceiver {
    /// The frame whose next slice is to be handed out. Drops those before it.
    pub(super) fn select(&mut self, now: Timestamp) -> Option<Frame> {
        let head = self.frames.open_from(0).next()?;
        let more = self.frames.newest() > Some(head.id);
        let ready = self.has_slice(head) && self.is_decodable(head);
        if !more || (ready && head.handed > 0) {
            return ready.then_some(*head);
        }
        let head = *head;
        let successor = if ready {
            // Nothing behind a whole keyframe needs what lies before it.
            self.newest_from(head.id + 1, |r, f| f.keyframe && f.is_whole() && now >= r.show_at(f))
        } else {
            self.newest_from(head.id + 1, |r, f| f.is_whole() && r.is_decodable(f))
                .or_else(|| self.rescue(now, &head))
        };
        match successor {
            Some(frame) => {
                self.give_up_before(frame.id);
                Some(frame)
            }
            None => ready.then_some(head),
        }
    }

    /// Hands out the next slice of `frame`, which [`select`](Self::select) has chosen.
    pub(super) fn hand_out(&mut self, now: Timestamp, frame: &Frame) -> ReadySlice<'_> {
        let id = frame.id;
        let show = self.is_worth_showing(now, frame);
        let number = frame.handed;
        if number == 0 {
            // Whatever of an older frame still comes, comes too late.
            self.give_up_before(id);
        }
        let slice = self.frames.slice(id, number).copied().unwrap_or_default();
        let last = frame.is_last(number);
        let deadline = self.deadline(frame);
        let mut show_at = self.show_at(frame);
        // What evens out jitter may shrink from one frame to the next; their order on the screen stays. A time
        // beyond what any frame waits for is from before the clock was set back.
        if self.last_show_at <= deadline.max(self.playout.latest(now)) {
            show_at = show_at.max(self.last_show_at);
        }
        if last {
            // Only now: before a frame is whole, what is expected of it may be that of a queue that is gone.
            self.last_show_at = show_at;
            self.history.on_handed_out(frame);
            self.counters.frames += 1;
            self.counters.frames_not_shown += u64::from(!show);
            let counters = &mut self.counters;
            self.frames.raise_floor(id, |_| counters.frames_dropped += 1);
        } else if let Some(open) = self.frames.frame_mut(id) {
            open.handed += 1;
        }
        let data = self.frames.take_slice(id, number, last);
        ReadySlice {
            frame_id: FrameId(id),
            index: number.into(),
            last,
            keyframe: frame.keyframe,
            timestamp_us: frame.timestamp_us,
            capture_us: frame.capture_us,
            encode_us: slice.encode_us,
            first_arrival: frame.first_arrival,
            complete_at: slice.complete_at,
            recovered: slice.recovered,
            show,
            show_at,
            deadline,
            data,
        }
    }

    /// Nothing that is there or still coming can be decoded, and there is something to be decoded.
    pub(super) fn is_stuck(&mut self, now: Timestamp) -> bool {
        self.patience_ends = Timestamp::NEVER;
        let coming = self.frames.open_from(0).find(|f| self.is_decodable(f) && self.may_become_whole(now, f));
        if let Some(frame) = coming {
            let deadline = self.deadline(frame);
            if !frame.is_whole() && deadline > now {
                self.patience_ends = deadline;
            }
            return false;
        }
        let Some(head) = self.frames.open_from(0).next() else { return self.history.is_broken() };
        // What the head needs, if nothing of that has come: it may have been overtaken, or be sent again.
        let reference = head.reference();
        let missing = !self.is_decodable(head) && reference >= self.frames.floor();
        if missing && self.repair.may_bring(reference) {
            return false;
        }
        if missing && !passed(now, head.first_arrival, self.window.reorder_us()) {
            self.patience_ends = head.first_arrival.plus_micros(self.window.reorder_us());
            return false;
        }
        true
    }

    /// What the frame predicts from was handed out whole.
    fn is_decodable(&self, frame: &Frame) -> bool {
        frame.keyframe || self.history.is_good(frame.reference())
    }

    /// The next slice of the frame is whole.
    fn has_slice(&self, frame: &Frame) -> bool {
        self.frames.slice(frame.id, frame.handed).is_some_and(Slice::is_whole)
    }

    /// The newest frame from `id` on of which `wanted` is true.
    fn newest_from(&self, id: u64, wanted: impl Fn(&Self, &Frame) -> bool) -> Option<Frame> {
        self.frames.open_from(id).rev().find(|f| wanted(self, f)).copied()
    }

    /// A frame to go on with although it is not whole yet, as the head will never be.
    fn rescue(&self, now: Timestamp, head: &Frame) -> Option<Frame> {
        let head_may_come = if self.is_decodable(head) {
            self.may_become_whole(now, head)
        } else {
            let reference = head.reference();
            reference >= self.frames.floor() && self.repair.may_bring(reference)
        };
        if head_may_come {
            return None;
        }
        self.frames.open_from(head.id + 1).find(|f| self.is_decodable(f) && self.has_slice(f)).copied()
    }

    /// The frame is whole, still arriving, or a resend can complete it in time.
    fn may_become_whole(&self, now: Timestamp, frame: &Frame) -> bool {
        if frame.is_whole() || self.repair.may_bring(frame.id) {
            return true;
        }
        if self.parity_may_come(now, frame) {
            return true;
        }
        let newest = self.frames.newest() == Some(frame.id);
        let pause = if newest { self.playout.frame_interval_us() } else { self.tail_us() };
        let arriving = !passed(now, frame.last_arrival, pause);
        let is_front = self.window.front().is_none_or(|(_, at)| at.frame <= frame.id);
        (newest && now < self.deadline(frame)) || ((newest || is_front) && arriving)
    }

    /// Parity of frames behind it is still to come for the frame.
    fn parity_may_come(&self, now: Timestamp, frame: &Frame) -> bool {
        let Some(reach) = self.sliding.reach() else { return false };
        let is_reached = self.frames.newest().is_some_and(|newest| newest.saturating_sub(frame.id) <= reach);
        let wait_us = (reach + 1) * self.playout.frame_interval_us() + self.tail_us();
        reach > 0 && is_reached && !passed(now, frame.last_arrival, wait_us)
    }

    /// Not past its deadline, and the next frame is not due already.
    fn is_worth_showing(&self, now: Timestamp, frame: &Frame) -> bool {
        let id = frame.id;
        if now > self.deadline(frame) {
            return false;
        }
        if self.frames.newest() == Some(id) {
            return true;
        }
        let next = self.frames.open_from(id + 1).next();
        !next.is_some_and(|next| next.is_whole() && next.reference() == id && now >= self.show_at(next))
    }

    fn show_at(&self, frame: &Frame) -> Timestamp {
        self.playout.show_at(frame.first_arrival, frame.timestamp_us)
    }

    fn deadline(&self, frame: &Frame) -> Timestamp {
        self.playout.deadline(frame.first_arrival, frame.timestamp_us)
    }
}

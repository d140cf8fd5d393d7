//! The client's half: numbers events and repeats them until the host has them.

use std::collections::VecDeque;

use super::batch::{encode_batch, encode_single};
use super::{InputEvent, InputState, PRESSED_MAX, TimedEvent, UNACKED_MAX};
use crate::{DropReason, Timestamp};

/// First pause before a batch is repeated, in microseconds; it doubles with each repetition.
const REPEAT_FIRST_US: u64 = 5_000;
/// No pause grows past this, however long the round trip is, in microseconds.
const REPEAT_MAX_US: u64 = 200_000;
/// Motion that has not left yet is merged from this many waiting events on.
const MERGE_FROM: usize = 8;

/// Keeps unacknowledged events and says when which of them must be sent.
#[derive(Debug)]
pub struct InputSender {
    /// Capacity [`UNACKED_MAX`]; the front one has number `first_sequence`.
    queue: VecDeque<TimedEvent>,
    first_sequence: u64,
    /// How many from the front were sent at least once.
    sent: usize,
    state: InputState,
    /// Set while a send is due for a reason other than the repeat timer.
    is_dirty: bool,
    repeat_at: Timestamp,
    repeat_us: u64,
    repeat_max_us: u64,
    is_batched: bool,
    dropped: u64,
}

impl InputSender {
    /// `is_batched`: the peer understands `InputBatch`. Without it each event is sent once, as published.
    #[must_use]
    pub fn new(is_batched: bool) -> Self {
        Self {
            queue: VecDeque::with_capacity(UNACKED_MAX),
            first_sequence: 1,
            sent: 0,
            state: InputState::default(),
            is_dirty: false,
            repeat_at: Timestamp::NEVER,
            repeat_us: REPEAT_FIRST_US,
            repeat_max_us: REPEAT_MAX_US,
            is_batched,
            dropped: 0,
        }
    }

    /// Takes an event; it is due at once.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] for numbers out of range, [`DropReason::NoRoom`] for a press while
    /// more is held than a batch can tell. Where too many wait, the oldest is given up and counted: the
    /// state in the next batch makes up for a press or release among them.
    pub fn submit(&mut self, now: Timestamp, event: InputEvent) -> Result<(), DropReason> {
        if !event.is_valid() {
            return Err(DropReason::Malformed);
        }
        let mut after = self.state.clone();
        after.apply(&event);
        if after.listed() > PRESSED_MAX {
            self.dropped += 1;
            return Err(DropReason::NoRoom);
        }
        self.state = after;
        self.is_dirty = true;
        self.repeat_us = REPEAT_FIRST_US;
        if self.merge_into_last(now, &event) {
            return Ok(());
        }
        if self.queue.len() == UNACKED_MAX {
            self.queue.pop_front();
            self.first_sequence += 1;
            self.sent = self.sent.saturating_sub(1);
            self.dropped += 1;
        }
        self.queue.push_back(TimedEvent { at: now, event });
        Ok(())
    }

    /// Whether something must be sent at `now`.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.is_dirty || (!self.queue.is_empty() && now >= self.repeat_at)
    }

    /// Writes the message that is due to the start of `out` and returns its length; `None` if none is
    /// due or `out` is too short.
    pub fn poll_message(&mut self, now: Timestamp, out: &mut [u8]) -> Option<usize> {
        if !self.is_due(now) {
            return None;
        }
        if !self.is_batched {
            return self.poll_single(out);
        }
        let len = encode_batch(self.first_sequence, self.queue.iter(), &self.state, out)?;
        self.is_dirty = false;
        self.sent = self.queue.len();
        self.repeat_at = now.plus_micros(self.repeat_us);
        self.repeat_us = (self.repeat_us * 2).min(self.repeat_max_us);
        Some(len)
    }

    /// The host has applied all events up to `sequence`. Numbers of events never made are ignored.
    pub fn on_ack(&mut self, sequence: u64) {
        while self.first_sequence <= sequence && self.queue.pop_front().is_some() {
            self.first_sequence += 1;
            self.sent = self.sent.saturating_sub(1);
        }
    }

    /// Fits the repetition to the round trip: pauses do not grow past one and a half of it.
    pub fn set_rtt(&mut self, rtt_us: u64) {
        self.repeat_max_us = (rtt_us + rtt_us / 2).clamp(4 * REPEAT_FIRST_US, REPEAT_MAX_US);
        self.repeat_us = self.repeat_us.min(self.repeat_max_us);
    }

    /// The clock went back: what waits is due now.
    pub fn on_clock_jump(&mut self, now: Timestamp) {
        self.repeat_at = now;
    }

    /// When [`is_due`](Self::is_due) turns true by itself.
    #[must_use]
    pub fn poll_timeout(&self) -> Timestamp {
        if self.is_dirty {
            Timestamp::ZERO
        } else if self.queue.is_empty() {
            Timestamp::NEVER
        } else {
            self.repeat_at
        }
    }

    /// What is down on this side.
    #[must_use]
    pub fn state(&self) -> &InputState {
        &self.state
    }

    /// Events given up because too many waited or were held.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn merge_into_last(&mut self, now: Timestamp, event: &InputEvent) -> bool {
        if self.queue.len() < MERGE_FROM || self.sent == self.queue.len() {
            return false;
        }
        let Some(last) = self.queue.back_mut() else { return false };
        let Some(merged) = last.event.merged(event) else { return false };
        *last = TimedEvent { at: now, event: merged };
        true
    }

    fn poll_single(&mut self, out: &mut [u8]) -> Option<usize> {
        let len = encode_single(self.queue.front()?, out)?;
        self.queue.pop_front();
        self.first_sequence += 1;
        self.is_dirty = !self.queue.is_empty();
        Some(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: InputEvent = InputEvent::Key { keycode: 30, pressed: true };

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1000)
    }

    /// Proves R-INP-3 and R-INP-4.
    #[test]
    fn an_event_leaves_at_once_and_again_after_5_10_20_ms() {
        let mut sender = InputSender::new(true);
        sender.set_rtt(100_000);
        let mut out = [0; 1166];
        sender.submit(at(0), KEY).unwrap();
        let mut left = vec![];
        for ms in 0..80 {
            if sender.poll_message(at(ms), &mut out).is_some() {
                left.push(ms);
            }
        }
        assert_eq!(left, [0, 5, 15, 35, 75]);
        sender.on_ack(1);
        assert_eq!(sender.poll_message(at(10_000), &mut out), None);
        assert_eq!(sender.poll_timeout(), Timestamp::NEVER);
    }

    #[test]
    fn repetition_is_bounded_by_the_round_trip() {
        let mut sender = InputSender::new(true);
        sender.set_rtt(20_000);
        let mut out = [0; 1166];
        sender.submit(at(0), KEY).unwrap();
        let left = (0..1000).filter(|&ms| sender.poll_message(at(ms), &mut out).is_some()).count();
        assert!((30..40).contains(&left), "every 30 ms, not {left} times in a second");
    }

    #[test]
    fn motion_merges_only_before_it_left() {
        let mut sender = InputSender::new(true);
        let mut out = [0; 1166];
        let step = InputEvent::MouseMoveRelative { dx: 1.0, dy: 0.0 };
        for _ in 0..20 {
            sender.submit(at(0), step).unwrap();
        }
        assert_eq!(sender.queue.len(), MERGE_FROM);
        let total: f32 = sender
            .queue
            .iter()
            .map(|e| if let InputEvent::MouseMoveRelative { dx, .. } = e.event { dx } else { 0.0 })
            .sum();
        assert!((total - 20.0).abs() < 1e-6);
        sender.poll_message(at(0), &mut out).unwrap();
        sender.submit(at(1), step).unwrap();
        assert_eq!(sender.queue.len(), MERGE_FROM + 1, "what has left keeps its meaning");
    }

    /// Proves R-INP-4: no more than 32 events ever wait, and so travel in one batch.
    #[test]
    fn a_full_queue_gives_up_the_oldest_and_counts_it() {
        let mut sender = InputSender::new(true);
        for keycode in 0..UNACKED_MAX as u16 + 3 {
            sender.submit(at(0), InputEvent::Key { keycode, pressed: true }).unwrap();
        }
        assert_eq!((sender.queue.len(), sender.first_sequence, sender.dropped()), (UNACKED_MAX, 4, 3));
    }

    #[test]
    fn more_than_a_batch_can_tell_is_not_pressed() {
        let mut sender = InputSender::new(true);
        for keycode in 0..PRESSED_MAX as u16 {
            sender.submit(at(0), InputEvent::Key { keycode, pressed: true }).unwrap();
        }
        let one_more = InputEvent::Key { keycode: 700, pressed: true };
        assert_eq!(sender.submit(at(0), one_more), Err(DropReason::NoRoom));
        assert_eq!(sender.state().listed(), PRESSED_MAX);
    }

    /// Proves R-SESS-2 for input: without the feature there are no batches.
    #[test]
    fn an_older_peer_gets_single_messages_once() {
        let mut sender = InputSender::new(false);
        let mut out = [0; 1166];
        sender.submit(at(0), KEY).unwrap();
        sender.submit(at(0), KEY).unwrap();
        let left = (0..1000).filter(|&ms| sender.poll_message(at(ms), &mut out).is_some()).count();
        assert_eq!(left, 2);
    }

    #[test]
    fn an_ack_of_events_never_made_is_harmless() {
        let mut sender = InputSender::new(true);
        sender.submit(at(0), KEY).unwrap();
        sender.on_ack(u64::MAX);
        assert_eq!(sender.first_sequence, 2);
        sender.submit(at(0), KEY).unwrap();
        assert_eq!(sender.queue.len(), 1);
    }
}

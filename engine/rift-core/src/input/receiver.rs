//! The host's half: applies each event once, in order, and keeps no key stuck.

use super::batch::ReceivedBatch;
use super::{InputEvent, InputState};
use crate::DropReason;
use crate::message::proto;

/// Applies what the client's [`InputSender`](super::InputSender) sends.
#[derive(Debug)]
pub struct InputReceiver {
    /// Number of the event that is applied next.
    next_sequence: u64,
    state: InputState,
    ack_due: bool,
}

impl Default for InputReceiver {
    fn default() -> Self {
        Self::new()
    }
}

impl InputReceiver {
    /// Most events that one call hands to `apply`: those of a batch, and the difference between two
    /// states, which is bounded by what can be pressed.
    pub const APPLIED_MAX: usize = super::batch::EVENTS_MAX + DIFFERENCE_MAX;

    /// Nothing received, nothing pressed.
    #[must_use]
    pub fn new() -> Self {
        Self { next_sequence: 1, state: InputState::default(), ack_due: false }
    }

    /// Takes the content of an `InputBatch`; hands the events that are new to `apply`, oldest first,
    /// and after them whatever is needed for the state to be the client's.
    ///
    /// # Errors
    /// [`DropReason::Malformed`]; [`DropReason::Duplicate`] for a batch that holds nothing new (its
    /// acknowledgement was lost, so it is repeated).
    pub fn handle_batch(
        &mut self,
        content: &[u8],
        mut apply: impl FnMut(InputEvent),
    ) -> Result<(), DropReason> {
        let batch = ReceivedBatch::decode(content)?;
        let end = batch.first_sequence.checked_add(batch.count as u64).ok_or(DropReason::Malformed)?;
        if batch.first_sequence == 0 || batch.state.listed() > DIFFERENCE_MAX / 2 {
            return Err(DropReason::Malformed);
        }
        self.ack_due = true;
        if end < self.next_sequence {
            return Err(DropReason::Duplicate);
        }
        let is_new = end > self.next_sequence || batch.first_sequence > self.next_sequence;
        let known = self.next_sequence.saturating_sub(batch.first_sequence) as usize;
        for event in batch.events().iter().skip(known).flatten() {
            self.state.apply(event);
            apply(*event);
        }
        self.next_sequence = end.max(self.next_sequence);
        if self.state != batch.state {
            self.state.each_difference(&batch.state, &mut apply);
            self.state = batch.state;
            return Ok(());
        }
        if is_new { Ok(()) } else { Err(DropReason::Duplicate) }
    }

    /// Takes a published single event.
    pub fn handle_single(&mut self, message: &proto::InputMessage, mut apply: impl FnMut(InputEvent)) {
        InputEvent::each_of(message, |event| {
            self.state.apply(&event);
            apply(event);
        });
    }

    /// The number to acknowledge, if an acknowledgement is due: all events up to it are applied.
    pub fn poll_ack(&mut self) -> Option<u64> {
        core::mem::take(&mut self.ack_due).then(|| self.next_sequence - 1)
    }

    /// Whether [`poll_ack`](Self::poll_ack) has something.
    #[must_use]
    pub fn is_ack_due(&self) -> bool {
        self.ack_due
    }

    /// What is down on this side.
    #[must_use]
    pub fn state(&self) -> &InputState {
        &self.state
    }
}

/// A batch of this version lists at most 48; a peer that lists far more is not believed. Twice that,
/// for all released and as many pressed, with the mouse buttons on top.
const DIFFERENCE_MAX: usize = 2 * (2 * super::PRESSED_MAX + 32);

#[cfg(test)]
mod tests {
    use super::super::batch::tests::any_event;
    use super::super::{InputSender, TimedEvent};
    use super::*;
    use crate::Timestamp;
    use crate::message::{Incoming, decode};
    use proptest::prelude::*;
    use prost::Message as _;

    fn content(message: &[u8]) -> &[u8] {
        match decode(message) {
            Ok(Incoming::InputBatch(content)) => content,
            other => panic!("not a batch: {other:?}"),
        }
    }

    fn key(keycode: u16, pressed: bool) -> InputEvent {
        InputEvent::Key { keycode, pressed }
    }

    fn batch(first: u64, events: &[InputEvent], state: &InputState) -> Vec<u8> {
        let timed: Vec<_> = events.iter().map(|&event| TimedEvent { at: Timestamp::ZERO, event }).collect();
        let mut out = [0; 1166];
        let len = super::super::batch::encode_batch(first, timed.iter(), state, &mut out).unwrap();
        content(&out[..len]).to_vec()
    }

    /// Proves R-INP-1 and R-INP-5.
    #[test]
    fn each_event_is_applied_once_and_in_order() {
        let mut receiver = InputReceiver::new();
        let mut state = InputState::default();
        state.apply(&key(30, true));
        let mut applied = vec![];
        let first = batch(1, &[key(30, true)], &state);
        receiver.handle_batch(&first, |e| applied.push(e)).unwrap();
        assert_eq!(receiver.poll_ack(), Some(1));
        assert_eq!(receiver.handle_batch(&first, |e| applied.push(e)), Err(DropReason::Duplicate));
        assert_eq!(receiver.poll_ack(), Some(1), "a repetition means that the first ack was lost");
        state.apply(&key(30, false));
        let both = batch(1, &[key(30, true), key(30, false)], &state);
        receiver.handle_batch(&both, |e| applied.push(e)).unwrap();
        assert_eq!(applied, [key(30, true), key(30, false)]);
        assert_eq!(receiver.poll_ack(), Some(2));
        assert_eq!(receiver.poll_ack(), None);
    }

    /// Proves R-INP-2.
    #[test]
    fn a_lost_release_is_made_good_by_the_state() {
        let mut receiver = InputReceiver::new();
        let mut down = InputState::default();
        down.apply(&key(30, true));
        receiver.handle_batch(&batch(1, &[key(30, true)], &down), |_| {}).unwrap();
        // Event 2, the release, is gone for good; event 3 is something else.
        let mut applied = vec![];
        let step = InputEvent::MouseMoveRelative { dx: 1.0, dy: 1.0 };
        receiver.handle_batch(&batch(3, &[step], &InputState::default()), |e| applied.push(e)).unwrap();
        assert_eq!(applied, [step, key(30, false)]);
        assert!(receiver.state().is_empty());
    }

    #[test]
    fn an_overtaken_batch_changes_nothing() {
        let mut receiver = InputReceiver::new();
        let mut down = InputState::default();
        down.apply(&key(30, true));
        let late = batch(1, &[key(30, true)], &down);
        let newer = batch(1, &[key(30, true), key(30, false)], &InputState::default());
        receiver.handle_batch(&newer, |_| {}).unwrap();
        assert_eq!(receiver.handle_batch(&late, |_| panic!("applied twice")), Err(DropReason::Duplicate));
        assert!(receiver.state().is_empty());
    }

    #[test]
    fn impossible_numbers_are_malformed() {
        let mut receiver = InputReceiver::new();
        let zero = batch(0, &[key(1, true)], &InputState::default());
        assert_eq!(receiver.handle_batch(&zero, |_| {}), Err(DropReason::Malformed));
        let wraps = batch(u64::MAX, &[key(1, true)], &InputState::default());
        assert_eq!(receiver.handle_batch(&wraps, |_| {}), Err(DropReason::Malformed));
        let everything =
            proto::InputBatch { first_sequence: 1, pressed_keys: (0..700).collect(), ..Default::default() };
        assert_eq!(receiver.handle_batch(&everything.encode_to_vec(), |_| {}), Err(DropReason::Malformed));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Submit(InputEvent),
        /// Packets of the client in flight: deliver number n (modulo), keep or remove it.
        Deliver {
            pick: usize,
            keep: bool,
        },
        Lose {
            pick: usize,
        },
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => any_event().prop_map(Step::Submit),
            4 => (any::<usize>(), any::<bool>()).prop_map(|(pick, keep)| Step::Deliver { pick, keep }),
            2 => any::<usize>().prop_map(|pick| Step::Lose { pick }),
            3 => (0u64..50_000).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// Proves R-INP-1 and R-INP-2: whatever is lost, repeated or overtaken, in both directions: each event at most once and in
        /// order, and in the end nothing is stuck.
        #[test]
        fn any_loss_order_and_repetition_ends_in_the_same_state(
            steps in prop::collection::vec(step(), 1..300),
        ) {
            let mut now = Timestamp::ZERO;
            let (mut sender, mut receiver) = (InputSender::new(true), InputReceiver::new());
            let mut applied_state = InputState::default();
            let (mut to_host, mut to_client) = (Vec::<Vec<u8>>::new(), Vec::<u64>::new());
            let mut out = [0; 1166];
            for step in steps {
                match step {
                    Step::Submit(event) => { let _ = sender.submit(now, event); }
                    Step::Wait(us) => now = now.plus_micros(us),
                    Step::Lose { pick } if !to_host.is_empty() => {
                        let at = pick % to_host.len();
                        to_host.remove(at);
                    }
                    Step::Deliver { pick, keep } => {
                        if !to_host.is_empty() {
                            let at = pick % to_host.len();
                            let message = if keep { to_host[at].clone() } else { to_host.remove(at) };
                            let before = receiver.next_sequence;
                            let _ = receiver.handle_batch(content(&message), |e| applied_state.apply(&e));
                            prop_assert!(receiver.next_sequence >= before);
                            to_client.extend(receiver.poll_ack());
                        }
                        if !to_client.is_empty() && pick % 3 != 0 {
                            let at = pick % to_client.len();
                            let ack = if keep { to_client[at] } else { to_client.remove(at) };
                            sender.on_ack(ack);
                        }
                    }
                    Step::Lose { .. } => {}
                }
                if let Some(len) = sender.poll_message(now, &mut out) {
                    to_host.push(out[..len].to_vec());
                }
            }
            // From now on packets get through; old ones may still arrive first.
            for message in to_host {
                let _ = receiver.handle_batch(content(&message), |e| applied_state.apply(&e));
            }
            for _ in 0..3 {
                now = now.plus_micros(1_000_000);
                if let Some(len) = sender.poll_message(now, &mut out) {
                    let _ = receiver.handle_batch(content(&out[..len]), |e| applied_state.apply(&e));
                    sender.on_ack(receiver.next_sequence - 1);
                }
            }
            prop_assert_eq!(receiver.state(), sender.state());
            prop_assert_eq!(&applied_state, sender.state());
            prop_assert_eq!(sender.poll_timeout(), Timestamp::NEVER);
        }
    }
}

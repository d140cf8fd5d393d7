//! Control messages that must arrive, in order (RIFT section 7).
//!
//! Owns the cutting of messages into numbered segments, their repetition until acknowledged, and
//! their assembly. Never seals or decides when there is room to send. Invariant: the receiver hands
//! out exactly the messages that were pushed, each once, in order, whatever is lost, repeated or
//! overtaken; neither side holds more than [`WINDOW`] segments.

use std::collections::VecDeque;

use prost::Message as _;

use super::Violation;
use crate::message::proto::ControlMessage;
use crate::message::proto::control_message::Control;
use crate::message::{ReliableSegment, encode_reliable_ack};
use crate::wire::{MAX_DATAGRAM_LEN, TRANSPORT_OVERHEAD};
use crate::{DropReason, Timestamp};

/// Segments that may be unacknowledged (RIFT R-REL-2).
pub(crate) const WINDOW: usize = 32;
/// The longest message that is accepted: a clipboard of 1 MiB and its framing.
pub(crate) const MESSAGE_MAX: usize = (1 << 20) + 64;
/// Bytes that may wait to be cut into segments.
const QUEUE_BYTES_MAX: usize = 4 * MESSAGE_MAX;
/// The longest data of a segment: what fits the largest datagram.
const SEGMENT_MAX: usize = MAX_DATAGRAM_LEN - TRANSPORT_OVERHEAD;
/// The retransmission timer doubles at most so often.
const BACKOFF_MAX: u32 = 5;

/// One segment's memory.
#[derive(Debug)]
struct Slot {
    data: Box<[u8; SEGMENT_MAX]>,
    len: usize,
    more: bool,
    is_used: bool,
    due_at: Timestamp,
    tries: u32,
}

fn slots() -> Box<[Slot]> {
    let empty = || Slot {
        data: Box::new([0; SEGMENT_MAX]),
        len: 0,
        more: false,
        is_used: false,
        due_at: Timestamp::NEVER,
        tries: 0,
    };
    core::iter::repeat_with(empty).take(WINDOW).collect()
}

fn place(sequence: u64) -> usize {
    (sequence % WINDOW as u64) as usize
}

/// The sending side.
#[derive(Debug)]
pub(crate) struct ReliableSender {
    slots: Box<[Slot]>,
    /// First that is not acknowledged.
    acknowledged: u64,
    /// First that was not cut yet.
    next: u64,
    /// Encoded messages, the first of them cut up to `cut`.
    queue: VecDeque<Vec<u8>>,
    cut: usize,
    queued_bytes: usize,
    segment_len: usize,
}

impl ReliableSender {
    /// Segments fit bodies of `body_len` bytes.
    pub(crate) fn new(body_len: usize) -> Self {
        Self {
            slots: slots(),
            acknowledged: 0,
            next: 0,
            queue: VecDeque::new(),
            cut: 0,
            queued_bytes: 0,
            segment_len: (body_len - ReliableSegment::OVERHEAD_MAX).min(SEGMENT_MAX),
        }
    }

    /// Queues a message.
    ///
    /// # Errors
    /// [`DropReason::NoRoom`] if it is too long or too much waits.
    pub(crate) fn push(&mut self, control: Control) -> Result<(), DropReason> {
        let bytes = self.encode(control)?;
        self.queue.push_back(bytes);
        Ok(())
    }

    /// Queues a message before all others that have not begun to leave.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub(crate) fn push_first(&mut self, control: Control) -> Result<(), DropReason> {
        let bytes = self.encode(control)?;
        let at = usize::from(self.cut > 0);
        self.queue.insert(at, bytes);
        Ok(())
    }

    /// Whether everything was acknowledged.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.acknowledged == self.next
    }

    /// Writes the segment that is due to the start of `out` and returns its length. `retransmit_us`
    /// is how long to wait for its acknowledgement.
    pub(crate) fn poll_segment(
        &mut self,
        now: Timestamp,
        retransmit_us: u64,
        out: &mut [u8],
    ) -> Option<usize> {
        let sequence = self.due(now).or_else(|| self.cut_next())?;
        let slot = &mut self.slots[place(sequence)];
        slot.due_at = now.plus_micros(retransmit_us << slot.tries.min(BACKOFF_MAX));
        slot.tries += 1;
        let segment = ReliableSegment { sequence, more: slot.more, data: &slot.data[..slot.len] };
        segment.encode(out)
    }

    /// The peer has everything below `next_sequence`.
    ///
    /// # Errors
    /// [`Violation::Acknowledgement`] for what was never sent.
    pub(crate) fn on_ack(&mut self, next_sequence: u64) -> Result<(), Violation> {
        if next_sequence > self.next {
            return Err(Violation::Acknowledgement);
        }
        while self.acknowledged < next_sequence {
            self.slots[place(self.acknowledged)].is_used = false;
            self.acknowledged += 1;
        }
        Ok(())
    }

    /// When a segment is due.
    pub(crate) fn poll_timeout(&self) -> Timestamp {
        if self.has_room() && !self.queue.is_empty() {
            return Timestamp::ZERO;
        }
        self.unacknowledged().map(|s| self.slots[place(s)].due_at).min().unwrap_or(Timestamp::NEVER)
    }

    /// The clock jumped: what waits is due now.
    pub(crate) fn on_clock_jump(&mut self, now: Timestamp) {
        for sequence in self.unacknowledged() {
            self.slots[place(sequence)].due_at = now;
        }
    }

    fn encode(&mut self, control: Control) -> Result<Vec<u8>, DropReason> {
        let bytes = ControlMessage { control: Some(control) }.encode_to_vec();
        if bytes.len() > MESSAGE_MAX || self.queued_bytes + bytes.len() > QUEUE_BYTES_MAX {
            return Err(DropReason::NoRoom);
        }
        self.queued_bytes += bytes.len();
        Ok(bytes)
    }

    fn unacknowledged(&self) -> core::ops::Range<u64> {
        self.acknowledged..self.next
    }

    fn has_room(&self) -> bool {
        self.next - self.acknowledged < WINDOW as u64
    }

    fn due(&self, now: Timestamp) -> Option<u64> {
        self.unacknowledged().find(|&s| self.slots[place(s)].due_at <= now)
    }

    /// Cuts the next segment off the first message.
    fn cut_next(&mut self) -> Option<u64> {
        if !self.has_room() {
            return None;
        }
        let message = self.queue.front()?;
        let rest = &message[self.cut..];
        let len = rest.len().min(self.segment_len);
        let sequence = self.next;
        let slot = &mut self.slots[place(sequence)];
        slot.data[..len].copy_from_slice(&rest[..len]);
        (slot.len, slot.more, slot.is_used, slot.tries) = (len, len < rest.len(), true, 0);
        self.next += 1;
        if slot.more {
            self.cut += len;
        } else {
            self.queued_bytes -= message.len();
            self.queue.pop_front();
            self.cut = 0;
        }
        Some(sequence)
    }
}

/// The receiving side.
#[derive(Debug)]
pub(crate) struct ReliableReceiver {
    slots: Box<[Slot]>,
    next: u64,
    /// The message under assembly.
    assembly: Vec<u8>,
    ack_due: bool,
}

impl ReliableReceiver {
    pub(crate) fn new() -> Self {
        Self { slots: slots(), next: 0, assembly: Vec::new(), ack_due: false }
    }

    /// Takes a segment. Drain [`poll_message`](Self::poll_message) afterwards.
    ///
    /// # Errors
    /// [`DropReason::Duplicate`], [`DropReason::NoRoom`] beyond the window,
    /// [`DropReason::Malformed`] for data longer than a datagram can carry.
    pub(crate) fn handle_segment(&mut self, segment: &ReliableSegment<'_>) -> Result<(), DropReason> {
        // Repeated ones too: they mean that the acknowledgement was lost.
        self.ack_due = true;
        if segment.sequence < self.next {
            return Err(DropReason::Duplicate);
        }
        if segment.sequence - self.next >= WINDOW as u64 {
            return Err(DropReason::NoRoom);
        }
        let slot = &mut self.slots[place(segment.sequence)];
        if slot.is_used {
            return Err(DropReason::Duplicate);
        }
        let data = slot.data.get_mut(..segment.data.len()).ok_or(DropReason::Malformed)?;
        data.copy_from_slice(segment.data);
        (slot.len, slot.more, slot.is_used) = (segment.data.len(), segment.more, true);
        Ok(())
    }

    /// The next whole message.
    ///
    /// # Errors
    /// [`Violation`]: the session cannot go on, since the order of what follows is lost.
    pub(crate) fn poll_message(&mut self) -> Result<Option<Control>, Violation> {
        loop {
            let slot = &mut self.slots[place(self.next)];
            if !slot.is_used {
                return Ok(None);
            }
            slot.is_used = false;
            self.next += 1;
            if self.assembly.len() + slot.len > MESSAGE_MAX {
                return Err(Violation::MessageTooLong);
            }
            self.assembly.extend_from_slice(&slot.data[..slot.len]);
            if slot.more {
                continue;
            }
            let message = ControlMessage::decode(&self.assembly[..]);
            self.assembly.clear();
            self.assembly.shrink_to(SEGMENT_MAX);
            // A message newer than this version is skipped.
            if let Some(control) = message.map_err(|_| Violation::MalformedMessage)?.control {
                return Ok(Some(control));
            }
        }
    }

    /// Writes the acknowledgement that is due to the start of `out` and returns its length.
    pub(crate) fn poll_ack(&mut self, out: &mut [u8]) -> Option<usize> {
        if !self.ack_due {
            return None;
        }
        let len = encode_reliable_ack(self.next, out)?;
        self.ack_due = false;
        Some(len)
    }

    pub(crate) fn is_ack_due(&self) -> bool {
        self.ack_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::proto::{ClipboardMessage, SelectMonitor};
    use crate::message::{Incoming, decode};
    use proptest::prelude::*;

    const RTO_US: u64 = 50_000;

    fn clipboard(len: usize, letter: char) -> Control {
        Control::Clipboard(ClipboardMessage { text: letter.to_string().repeat(len) })
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1000)
    }

    fn deliver(receiver: &mut ReliableReceiver, body: &[u8]) -> Result<(), DropReason> {
        match decode(body) {
            Ok(Incoming::Reliable(segment)) => receiver.handle_segment(&segment),
            other => panic!("not a segment: {other:?}"),
        }
    }

    fn drain(receiver: &mut ReliableReceiver, into: &mut Vec<Control>) {
        while let Some(message) = receiver.poll_message().unwrap() {
            into.push(message);
        }
    }

    fn ack(receiver: &mut ReliableReceiver) -> Option<u64> {
        let mut out = [0; 20];
        let len = receiver.poll_ack(&mut out)?;
        match decode(&out[..len]) {
            Ok(Incoming::ReliableAck(next)) => Some(next),
            other => panic!("not an ack: {other:?}"),
        }
    }

    /// Proves R-REL-2 and R-REL-3.
    #[test]
    fn at_most_the_window_is_under_way_and_repeated_with_backoff() {
        let mut sender = ReliableSender::new(1166);
        sender.push(clipboard(100_000, 'a')).unwrap();
        let mut out = [0; 1200];
        let first: Vec<_> = core::iter::from_fn(|| sender.poll_segment(at(0), RTO_US, &mut out)).collect();
        assert_eq!(first.len(), WINDOW);
        let mut left = vec![];
        for ms in 1..2000 {
            let n = core::iter::from_fn(|| sender.poll_segment(at(ms), RTO_US, &mut out)).count();
            if n > 0 {
                assert_eq!(n, WINDOW);
                left.push(ms);
            }
        }
        assert_eq!(left, [50, 150, 350, 750, 1550]);
    }

    /// Proves R-REL-4.
    #[test]
    fn repeated_segments_are_acknowledged_and_ones_beyond_the_window_dropped() {
        let mut receiver = ReliableReceiver::new();
        let segment = ReliableSegment { sequence: 0, more: false, data: &[] };
        receiver.handle_segment(&segment).unwrap();
        assert_eq!(receiver.poll_message(), Ok(None));
        assert_eq!(ack(&mut receiver), Some(1));
        assert_eq!(ack(&mut receiver), None);
        assert_eq!(receiver.handle_segment(&segment), Err(DropReason::Duplicate));
        assert_eq!(ack(&mut receiver), Some(1));
        let beyond = ReliableSegment { sequence: 1 + WINDOW as u64, ..segment };
        assert_eq!(receiver.handle_segment(&beyond), Err(DropReason::NoRoom));
        let farthest = ReliableSegment { sequence: u64::MAX, ..segment };
        assert_eq!(receiver.handle_segment(&farthest), Err(DropReason::NoRoom));
    }

    /// Proves R-REL-5 and R-MSG-5.
    #[test]
    fn a_message_longer_than_is_accepted_is_a_violation() {
        let mut receiver = ReliableReceiver::new();
        let data = [0; 1100];
        let mut result = Ok(None);
        for sequence in 0.. {
            receiver.handle_segment(&ReliableSegment { sequence, more: true, data: &data }).unwrap();
            result = receiver.poll_message();
            if result.is_err() {
                break;
            }
        }
        assert_eq!(result, Err(Violation::MessageTooLong));
        assert!(receiver.assembly.len() <= MESSAGE_MAX);
        let mut sender = ReliableSender::new(1166);
        assert_eq!(sender.push(clipboard(MESSAGE_MAX, 'a')), Err(DropReason::NoRoom));
    }

    #[test]
    fn garbage_is_a_violation_and_an_unknown_message_is_skipped() {
        let mut receiver = ReliableReceiver::new();
        // Field 500, empty.
        receiver
            .handle_segment(&ReliableSegment { sequence: 0, more: false, data: &[0xa2, 0x1f, 0] })
            .unwrap();
        assert_eq!(receiver.poll_message(), Ok(None));
        receiver.handle_segment(&ReliableSegment { sequence: 1, more: false, data: &[0xff] }).unwrap();
        assert_eq!(receiver.poll_message(), Err(Violation::MalformedMessage));
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_is_a_violation() {
        let mut sender = ReliableSender::new(1166);
        assert_eq!(sender.on_ack(1), Err(Violation::Acknowledgement));
        assert_eq!(sender.on_ack(0), Ok(()));
    }

    #[test]
    fn an_urgent_message_overtakes_whole_ones_only() {
        let (mut sender, mut receiver) = (ReliableSender::new(1166), ReliableReceiver::new());
        sender.push(clipboard(3000, 'a')).unwrap();
        sender.push(clipboard(10, 'b')).unwrap();
        let mut out = [0; 1200];
        let len = sender.poll_segment(at(0), RTO_US, &mut out).unwrap();
        deliver(&mut receiver, &out[..len]).unwrap();
        let urgent = Control::SelectMonitor(SelectMonitor { monitor_id: 7 });
        sender.push_first(urgent.clone()).unwrap();
        while let Some(len) = sender.poll_segment(at(0), RTO_US, &mut out) {
            deliver(&mut receiver, &out[..len]).unwrap();
        }
        let mut received = vec![];
        drain(&mut receiver, &mut received);
        assert_eq!(received, [clipboard(3000, 'a'), urgent, clipboard(10, 'b')]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Proves R-REL-1: any loss, repetition and order.
        #[test]
        fn messages_arrive_once_and_in_order(
            lens in prop::collection::vec(prop_oneof![0usize..50, 1000usize..1200, 2000usize..60_000], 1..12),
            seed: u64,
            loss in 0u8..50,
        ) {
            let (mut sender, mut receiver) = (ReliableSender::new(1166), ReliableReceiver::new());
            let sent: Vec<_> = lens
                .iter()
                .enumerate()
                .map(|(i, &len)| clipboard(len, char::from(b'a' + i as u8)))
                .collect();
            for message in &sent {
                sender.push(message.clone()).unwrap();
            }
            let (mut received, mut network) = (vec![], Vec::<Vec<u8>>::new());
            let mut out = [0; 1200];
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut turn = 0;
            let mut now = Timestamp::ZERO;
            while !sender.is_idle() {
                prop_assert!(turn < 20_000, "no progress");
                while let Some(len) = sender.poll_segment(now, RTO_US, &mut out) {
                    turn += 1;
                    match rng.u8(..100) {
                        dice if dice < loss => {}
                        50..60 => network.extend([out[..len].to_vec(), out[..len].to_vec()]),
                        60..70 => network.insert(0, out[..len].to_vec()),
                        _ => network.push(out[..len].to_vec()),
                    }
                }
                for body in network.drain(..) {
                    let _ = deliver(&mut receiver, &body);
                    drain(&mut receiver, &mut received);
                }
                turn += 1;
                // Acknowledgements get lost too.
                if let Some(next) = ack(&mut receiver).filter(|_| rng.u8(..100) >= loss) {
                    prop_assert_eq!(sender.on_ack(next), Ok(()));
                }
                now = now.plus_micros(RTO_US / 2);
            }
            prop_assert_eq!(received, sent);
        }
    }
}

//! Which packet ids have arrived, when, and what they held.
//!
//! Owns a ring with one slot for each of the last packet ids, the learned tolerance to reordering and
//! the arrival report made from it. Never decides what is asked for again. Invariant: the slot of an
//! id in `next - capacity..next` is that id's; ids outside are unknown, whatever stands in the ring.

use super::frame::Position;
use super::passed;
use crate::Timestamp;
use crate::message::ArrivalFeedback;

/// The bytes around a payload that are kept so that parity can be solved:
/// [`VideoChunk::OVERHEAD_MAX`](crate::message::VideoChunk::OVERHEAD_MAX).
pub(super) const WRAPPER_MAX: usize = crate::message::VideoChunk::OVERHEAD_MAX;

/// The bytes around payloads are kept for this many ids. Parity comes right behind its group and waits for at most
/// a resend of it, so that is far more than is used; and all of it stays in a near cache, which the bytes around
/// every remembered payload would not.
pub(super) const WRAPPERS: usize = 2048;

/// A stream whose first packet has a lower id than this is taken to start at 0, so that a loss right at
/// the start is noticed.
const START_GAP_MAX: u64 = 256;

/// The most entries of one arrival report: with its envelope it fits the smallest datagram.
const FEEDBACK_ENTRIES_MAX: usize = 480;
/// Unit of the delays in an arrival report, in microseconds.
const FEEDBACK_UNIT_US: u64 = 64;
/// The longest delay in an arrival report; one less than 14 bits hold, so that no entry reads as lost or
/// pending.
const FEEDBACK_DELAY_MAX: u64 = 0x3ffe;
const FEEDBACK_LOST: u16 = 0xffff;
/// Not here, but it may only be late.
const FEEDBACK_PENDING: u16 = 0x3fff;
/// Congestion experienced.
const ECN_CE: u8 = 3;

/// What is known of a packet id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It did not arrive.
    Missing,
    /// It arrived and is not known to be video.
    Other,
    /// A chunk, sent in its place in the order.
    Video,
    /// A chunk that was sent again: its id says nothing about its neighbours.
    Resent,
}

/// One packet id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) id: u64,
    arrival: Timestamp,
    frame: u64,
    chunk: u32,
    slice: u16,
    payload_len: u16,
    head_len: u8,
    tail_len: u8,
    ecn: u8,
    kind: Kind,
    /// Its message is known although the packet never came.
    solved: bool,
}

impl Slot {
    const EMPTY: Self = Self {
        id: u64::MAX,
        arrival: Timestamp::ZERO,
        frame: 0,
        chunk: 0,
        slice: 0,
        payload_len: 0,
        head_len: 0,
        tail_len: 0,
        ecn: 0,
        kind: Kind::Missing,
        solved: false,
    };

    /// Nothing of it is there.
    pub(super) fn is_missing(&self) -> bool {
        self.kind == Kind::Missing
    }

    /// The chunk, if it held one.
    pub(super) fn position(&self) -> Option<Position> {
        matches!(self.kind, Kind::Video | Kind::Resent).then_some(Position {
            frame: self.frame,
            slice: self.slice,
            chunk: self.chunk,
        })
    }

    /// The chunk, if the packet stands in the order of first sending.
    pub(super) fn anchor(&self) -> Option<Position> {
        if self.kind == Kind::Video { self.position() } else { None }
    }

    /// Bytes of the payload.
    pub(super) fn payload_len(&self) -> usize {
        self.payload_len.into()
    }
}

/// What an arrival says about its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The next in line.
    InOrder,
    /// The ids from `first` to just before it have not arrived.
    Gap {
        /// The first of them.
        first: u64,
    },
    /// It was taken to be missing.
    Late,
    /// Too old, or known.
    Ignored,
}

/// The last packet ids.
#[derive(Debug)]
pub(super) struct PacketWindow {
    slots: Vec<Slot>,
    /// Head and tail of the messages of the last ids, a power of two of them.
    wrappers: Vec<[u8; WRAPPER_MAX]>,
    /// Ids from here on were neither seen nor expected.
    next: u64,
    /// The highest id that has arrived.
    newest: Option<u64>,
    /// The newest chunk in the order of first sending.
    front: Option<(u64, Position)>,
    received: u64,
    first: u64,
    reorder_us: u64,
    feedback: Vec<u8>,
    /// Where the next report's news begins.
    feedback_from: u64,
    /// Where the next report begins: with what the one before told first.
    repeat_from: u64,
    /// Something arrived since the last report.
    arrivals_new: bool,
    /// Packets that arrived marked, modulo 2^32.
    marked: u32,
}

impl PacketWindow {
    pub(super) fn new(packets: usize) -> Self {
        Self {
            slots: vec![Slot::EMPTY; packets],
            wrappers: vec![[0; WRAPPER_MAX]; packets.min(WRAPPERS)],
            next: 0,
            newest: None,
            front: None,
            received: 0,
            first: 0,
            reorder_us: REORDER_INITIAL_US,
            feedback: Vec::with_capacity(2 * FEEDBACK_ENTRIES_MAX),
            feedback_from: 0,
            repeat_from: 0,
            arrivals_new: false,
            marked: 0,
        }
    }

    /// The slot of `id`, if it lies in the window.
    #[inline]
    pub(super) fn slot(&self, id: u64) -> Option<&Slot> {
        let slot = &self.slots[self.index(id)];
        (slot.id == id && id < self.next).then_some(slot)
    }

    /// The newest chunk in the order of first sending, and its packet id.
    pub(super) fn front(&self) -> Option<(u64, Position)> {
        self.front
    }

    /// Ids from here on were neither seen nor expected.
    pub(super) fn next_id(&self) -> u64 {
        self.next
    }

    /// Packets that have arrived, and packets that were sent as far as one can tell.
    pub(super) fn received_of_sent(&self) -> (u64, u64) {
        (self.received, self.newest.map_or(0, |newest| newest - self.first + 1))
    }

    /// How long a packet may be behind its successors before it counts as lost, in microseconds.
    pub(super) fn reorder_us(&self) -> u64 {
        self.reorder_us
    }

    /// Takes note of an authenticated packet.
    #[inline]
    pub(super) fn arrive(&mut self, now: Timestamp, id: u64) -> Arrival {
        if id == u64::MAX || id.saturating_add(self.slots.len() as u64) < self.next {
            return Arrival::Ignored;
        }
        let arrival = if id >= self.next {
            let first = if self.newest.is_none() && id >= START_GAP_MAX { id } else { self.next };
            if self.newest.is_none() {
                self.first = first;
                self.feedback_from = first;
                self.repeat_from = first;
            }
            self.expect(first, id);
            self.next = id + 1;
            if first == id { Arrival::InOrder } else { Arrival::Gap { first } }
        } else {
            let slot = self.slots[self.index(id)];
            if slot.id != id || (!slot.is_missing() && !slot.solved) {
                return Arrival::Ignored;
            }
            // An id that was only expected is not late.
            if self.newest.is_some_and(|newest| id < newest) { Arrival::Late } else { Arrival::InOrder }
        };
        self.received += 1;
        self.arrivals_new = true;
        let at = self.index(id);
        let before = self.slots[at];
        if arrival == Arrival::Late && before.is_missing() {
            self.learn_reordering(now.micros_since(before.arrival));
        }
        if before.id == id && before.solved {
            // The message is known already, and stays.
            self.slots[at].solved = false;
            self.slots[at].arrival = now;
        } else {
            self.slots[at] = Slot { id, arrival: now, kind: Kind::Other, ..Slot::EMPTY };
        }
        if self.newest.is_none_or(|newest| id > newest) {
            self.newest = Some(id);
            // Holes found by this packet are as old as this packet.
            if let Arrival::Gap { first } = arrival {
                self.stamp(now, first, id);
            }
        }
        arrival
    }

    /// Keeps the ECN code point that a packet arrived with, for the arrival report.
    pub(super) fn mark_ecn(&mut self, id: u64, code_point: u8) {
        let at = self.index(id);
        if self.slots[at].id == id {
            self.slots[at].ecn = code_point & 3;
            self.marked = self.marked.wrapping_add(u32::from(code_point & 3 == ECN_CE));
        }
    }

    /// Takes the ids up to just before `end` to have been sent. Returns the first that was not expected
    /// before.
    pub(super) fn expect_until(&mut self, now: Timestamp, end: u64) -> u64 {
        let first = self.next;
        self.expect(first, end);
        self.stamp(now, first, end);
        self.next = self.next.max(end);
        first
    }

    /// Keeps what a chunk's packet holds: its place and the bytes around the payload. `solved` where
    /// the message was computed and not received. Returns whether the chunk was sent again.
    #[inline]
    pub(super) fn note_video(
        &mut self,
        id: u64,
        at: Position,
        body: &[u8],
        payload: &[u8],
        solved: bool,
    ) -> bool {
        let index = self.index(id);
        if self.slots[index].id != id || id >= self.next {
            return false;
        }
        let resent = self.would_be_resent(id, at);
        let slot = &mut self.slots[index];
        slot.kind = if resent { Kind::Resent } else { Kind::Video };
        slot.frame = at.frame;
        slot.slice = at.slice;
        slot.chunk = at.chunk;
        slot.solved = solved;
        slot.payload_len = payload.len() as u16;
        slot.head_len = 0;
        // Where in the body the payload lies follows from the addresses of the two borrows.
        let head = payload.as_ptr().addr().wrapping_sub(body.as_ptr().addr());
        if let Some(tail) = head.checked_add(payload.len()).and_then(|end| body.get(end..))
            && head > 0
            && head + tail.len() <= WRAPPER_MAX
            && id.saturating_add(self.wrappers.len() as u64) >= self.next
        {
            let place = id as usize & (self.wrappers.len() - 1);
            let wrapper = &mut self.wrappers[place];
            // A copy of constant length is a few instructions; what it copies too much is never read.
            if let Some(start) = body.first_chunk() {
                *wrapper = *start;
            } else {
                wrapper[..head].copy_from_slice(&body[..head]);
            }
            wrapper[head..head + tail.len()].copy_from_slice(tail);
            slot.head_len = head as u8;
            slot.tail_len = tail.len() as u8;
        }
        if !resent && self.front.is_none_or(|(newest, _)| id > newest) {
            self.front = Some((id, at));
        }
        resent
    }

    /// Whether `id` is the first that was neither seen nor expected, and not the first of all.
    #[inline]
    pub(super) fn is_in_line(&self, id: u64) -> bool {
        id == self.next && id != u64::MAX && self.newest.is_some()
    }

    /// As [`arrive`](Self::arrive) and [`note_video`](Self::note_video) together, of a packet that
    /// [is in line](Self::is_in_line) with the next chunk. `wrapper` begins with the bytes around the payload: `head_len`
    /// before and `tail_len` behind it.
    #[inline]
    pub(super) fn arrive_in_line(
        &mut self,
        now: Timestamp,
        id: u64,
        at: Position,
        payload_len: usize,
        (head_len, tail_len): (usize, usize),
        wrapper: &[u8; WRAPPER_MAX],
    ) {
        let index = self.index(id);
        self.slots[index] = Slot {
            id,
            arrival: now,
            frame: at.frame,
            chunk: at.chunk,
            slice: at.slice,
            payload_len: payload_len as u16,
            head_len: head_len as u8,
            tail_len: tail_len as u8,
            ecn: 0,
            kind: Kind::Video,
            solved: false,
        };
        let place = id as usize & (self.wrappers.len() - 1);
        self.wrappers[place] = *wrapper;
        self.received += 1;
        self.arrivals_new = true;
        self.next = id + 1;
        self.newest = Some(id);
        self.front = Some((id, at));
    }

    /// A chunk with this id and place was sent again: a later one came with a lower id.
    pub(super) fn would_be_resent(&self, id: u64, at: Position) -> bool {
        self.front.is_some_and(|(newest, front)| id > newest && at < front)
    }

    /// Ids that are remembered.
    pub(super) fn capacity(&self) -> u64 {
        self.slots.len() as u64
    }

    /// Bytes of the whole message of a slot, 0 where it was not kept or not long enough.
    pub(super) fn body_len(&self, slot: &Slot) -> usize {
        if slot.head_len == 0 || slot.id.saturating_add(self.wrappers.len() as u64) < self.next {
            return 0;
        }
        usize::from(slot.head_len) + usize::from(slot.payload_len) + usize::from(slot.tail_len)
    }

    /// The bytes before and behind the payload of a slot whose message is kept.
    pub(super) fn wrapper(&self, slot: &Slot) -> (&[u8], &[u8]) {
        let wrapper = &self.wrappers[slot.id as usize & (self.wrappers.len() - 1)];
        let (head, rest) = wrapper.split_at(slot.head_len.into());
        (head, &rest[..slot.tail_len.into()])
    }

    /// The nearest chunk below `id` that stands in the order of first sending.
    pub(super) fn anchor_below(&self, id: u64) -> Option<(u64, Position)> {
        let reach = id.saturating_sub(NEIGHBOUR_REACH);
        (reach..id).rev().map_while(|below| self.slot(below)).find_map(|s| s.anchor().map(|p| (s.id, p)))
    }

    /// The nearest chunk above `id` that stands in the order of first sending.
    pub(super) fn anchor_above(&self, id: u64) -> Option<(u64, Position)> {
        let reach = id.saturating_add(NEIGHBOUR_REACH).min(self.next);
        (id.saturating_add(1)..reach)
            .map_while(|above| self.slot(above))
            .find_map(|s| s.anchor().map(|p| (s.id, p)))
    }

    /// When and whether packets have arrived, from the beginning of the report before on, so that a report
    /// that is lost costs nothing; `None` where there is nothing new.
    pub(super) fn poll_arrivals(&mut self, now: Timestamp) -> Option<ArrivalFeedback<'_>> {
        let newest = self.newest?;
        if !self.arrivals_new {
            return None;
        }
        let oldest = self.next.saturating_sub(self.slots.len() as u64);
        // What could not be told of in one report is worth more than a repetition.
        let has_room = newest.saturating_sub(self.repeat_from) < FEEDBACK_ENTRIES_MAX as u64;
        let first = (if has_room { self.repeat_from } else { self.feedback_from }).max(oldest);
        self.feedback.clear();
        let mut pending = None;
        let mut id = first;
        while id <= newest && self.feedback.len() < 2 * FEEDBACK_ENTRIES_MAX {
            let slot = &self.slots[self.index(id)];
            let missing = slot.is_missing() || slot.solved;
            let entry = if !missing {
                let delay = now.micros_since(slot.arrival) / FEEDBACK_UNIT_US;
                u16::from(slot.ecn) << 14 | delay.min(FEEDBACK_DELAY_MAX) as u16
            } else if passed(now, slot.arrival, self.reorder_us) {
                FEEDBACK_LOST
            } else {
                pending.get_or_insert(id);
                FEEDBACK_PENDING
            };
            self.feedback.extend_from_slice(&entry.to_be_bytes());
            id += 1;
        }
        self.repeat_from = self.feedback_from.max(first).min(pending.unwrap_or(u64::MAX));
        self.feedback_from = id.min(pending.unwrap_or(u64::MAX)).max(self.feedback_from);
        self.arrivals_new = id <= newest;
        Some(ArrivalFeedback {
            first_packet_id: first,
            report_us: now.as_micros(),
            arrivals: &self.feedback,
            marked_packets: self.marked,
        })
    }

    fn index(&self, id: u64) -> usize {
        (id & (self.slots.len() as u64 - 1)) as usize
    }

    /// Makes the slots of `first..end` those of missing packets.
    fn expect(&mut self, first: u64, end: u64) {
        let first = first.max(end.saturating_sub(self.slots.len() as u64));
        for id in first..end {
            let at = self.index(id);
            self.slots[at] = Slot { id, ..Slot::EMPTY };
        }
    }

    /// Notes when the packets of `first..end` were found missing.
    fn stamp(&mut self, now: Timestamp, first: u64, end: u64) {
        let first = first.max(end.saturating_sub(self.slots.len() as u64));
        for id in first..end {
            let at = self.index(id);
            self.slots[at].arrival = now;
        }
    }

    /// Reordering is bursty: grows at once, shrinks slowly.
    fn learn_reordering(&mut self, late_us: u64) {
        let late_us = late_us.min(REORDER_MAX_US);
        let wanted = (late_us + late_us / 4).clamp(REORDER_MIN_US, REORDER_MAX_US);
        if wanted > self.reorder_us {
            self.reorder_us = wanted;
        } else {
            self.reorder_us -= (self.reorder_us - wanted) / 16;
        }
    }

    /// A packet that was taken to be late has turned out to be lost: a little less patience.
    pub(super) fn unlearn_reordering(&mut self) {
        self.reorder_us = (self.reorder_us - self.reorder_us / 64).max(REORDER_MIN_US);
    }
}

/// Patience with packets that are overtaken, before any was seen: a receive queue's worth.
const REORDER_INITIAL_US: u64 = 500;
const REORDER_MIN_US: u64 = 250;
const REORDER_MAX_US: u64 = 10_000;

/// How many ids away a neighbour is looked for: a parity group with its parity, and something between.
const NEIGHBOUR_REACH: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Timestamp {
        Timestamp::from_micros(us)
    }

    fn position(chunk: u32) -> Position {
        Position { frame: 0, slice: 0, chunk }
    }

    #[test]
    fn gaps_and_late_arrivals_are_told_apart() {
        let mut window = PacketWindow::new(256);
        assert_eq!(window.arrive(at(0), 0), Arrival::InOrder);
        assert_eq!(window.arrive(at(0), 3), Arrival::Gap { first: 1 });
        assert_eq!(window.arrive(at(0), 2), Arrival::Late);
        assert_eq!(window.arrive(at(0), 2), Arrival::Ignored);
        assert!(window.slot(1).unwrap().is_missing());
        assert!(window.slot(4).is_none());
        assert_eq!(window.received_of_sent(), (3, 4));
    }

    #[test]
    fn a_loss_at_the_very_start_is_noticed_but_not_a_late_join() {
        let mut window = PacketWindow::new(256);
        assert_eq!(window.arrive(at(0), 2), Arrival::Gap { first: 0 });
        let mut window = PacketWindow::new(256);
        assert_eq!(window.arrive(at(0), 1 << 33), Arrival::InOrder);
        assert_eq!(window.received_of_sent(), (1, 1));
    }

    #[test]
    fn ids_far_apart_never_alias() {
        let mut window = PacketWindow::new(256);
        window.arrive(at(0), 10);
        window.arrive(at(0), 10 + 256 * 5);
        assert!(window.slot(10).is_none());
        assert!(window.slot(10 + 256 * 4).is_none());
        assert!(window.slot(10 + 256 * 4 + 1).unwrap().is_missing());
        assert_eq!(window.arrive(at(0), 10), Arrival::Ignored);
        window.arrive(at(0), u64::MAX - 1);
        assert_eq!(window.arrive(at(0), u64::MAX), Arrival::Ignored);
    }

    #[test]
    fn patience_follows_reordering() {
        let mut window = PacketWindow::new(256);
        window.arrive(at(0), 0);
        window.arrive(at(1000), 2);
        window.arrive(at(5000), 1);
        assert_eq!(window.reorder_us(), 5000);
        for _ in 0..1000 {
            window.unlearn_reordering();
        }
        assert_eq!(window.reorder_us(), REORDER_MIN_US);
    }

    #[test]
    fn resends_do_not_count_as_neighbours() {
        let mut window = PacketWindow::new(256);
        let body = [9; 30];
        for (id, chunk) in [(0, 0), (1, 1), (3, 3), (4, 2)] {
            window.arrive(at(0), id);
            let resent = window.note_video(id, position(chunk), &body, &body[10..20], false);
            assert_eq!(resent, id == 4);
        }
        assert_eq!(window.anchor_below(2), Some((1, position(1))));
        assert_eq!(window.anchor_above(2), Some((3, position(3))));
        assert_eq!(window.anchor_above(3), None);
        assert_eq!(window.front(), Some((3, position(3))));
        assert_eq!(window.wrapper(window.slot(1).unwrap()), (&body[..10], &body[20..]));
    }

    #[test]
    fn what_surrounds_old_payloads_is_forgotten_and_never_mistaken() {
        let mut window = PacketWindow::new(2 * WRAPPERS);
        let newest = WRAPPERS as u64 + 100;
        for id in (0..=newest).filter(|&id| id != 50) {
            window.arrive(at(id), id);
            let body = [id as u8; 30];
            window.note_video(id, position(id as u32), &body, &body[10..20], false);
        }
        // It shares its place with one that is newer.
        window.arrive(at(newest), 50);
        window.note_video(50, position(50), &[50; 30], &[50; 30][10..20], false);
        for id in 0..=newest {
            let slot = window.slot(id).unwrap();
            let is_kept = id + WRAPPERS as u64 > newest;
            assert_eq!(window.body_len(slot), if is_kept { 30 } else { 0 }, "{id}");
            if is_kept {
                assert_eq!(window.wrapper(slot), (&[id as u8; 10][..], &[id as u8; 10][..]), "{id}");
            }
        }
    }

    /// Proves R-FB-2.
    #[test]
    fn the_arrival_report_tells_losses_and_what_may_only_be_late() {
        let mut window = PacketWindow::new(256);
        window.arrive(at(0), 0);
        window.arrive(at(6400), 2);
        window.mark_ecn(2, 3);
        let report = window.poll_arrivals(at(6400)).unwrap();
        assert_eq!((report.first_packet_id, report.arrivals), (0, &[0, 100, 0x3f, 0xff, 0xc0, 0][..]));
        assert_eq!(report.marked_packets, 1);
        assert!(window.poll_arrivals(at(6400)).is_none(), "nothing new");
        window.arrive(at(12800), 3);
        let report = window.poll_arrivals(at(12800)).unwrap();
        assert_eq!(report.first_packet_id, 0, "all of the report before is told again");
        assert_eq!(report.arrivals, [0, 200, 0xff, 0xff, 0xc0, 100, 0, 0]);
        assert_eq!(report.report_us, 12800);
        window.arrive(at(20_000), 4);
        window.mark_ecn(4, 3);
        let report = window.poll_arrivals(at(u64::MAX / 2)).unwrap();
        assert_eq!(report.first_packet_id, 1, "from what was pending on");
        assert_eq!(report.arrivals[6..], [0xff, 0xfe], "the longest delay does not read as a loss");
    }

    /// Proves R-FB-6.
    #[test]
    fn every_arrival_is_in_two_reports_and_a_flood_in_one() {
        let mut window = PacketWindow::new(2048);
        let mut told = vec![0; 200];
        for id in 0..200u64 {
            window.arrive(at(id * 1000), id);
            if id % 10 == 9 {
                let report = window.poll_arrivals(at(id * 1000)).unwrap();
                let first = report.first_packet_id as usize;
                (first..first + report.arrivals.len() / 2).for_each(|i| told[i] += 1);
            }
        }
        assert!(told[..190].iter().all(|&n| n == 2), "{told:?}");
        for id in 200..1500u64 {
            window.arrive(at(300_000), id);
        }
        let mut next = 200;
        while let Some(report) = window.poll_arrivals(at(300_000)) {
            assert!(report.first_packet_id <= next, "no gap");
            next = report.first_packet_id + report.arrivals.len() as u64 / 2;
        }
        assert_eq!(next, 1500);
    }
}

//! Which packets are asked for again, and when.
//!
//! Owns the list of missing packets. A missing id is tied to media by its nearest neighbours that are
//! chunks: it is asked for as long as something between them is not there and a resend can be of use:
//! before the frame must be shown, or later for the frames that predict from it. Never asks for what parity has solved or another resend has brought.
//! What the parity of a frame is about to mend is not asked for either: only what is beyond it, and one more.
//! Invariant: the list is in order of ids and never longer than its capacity.

use super::RoundTrip;
use super::frame::{Frame, FrameTable, Position};
use super::parity::ParityStore;
use super::passed;
use super::playout::Playout;
use super::sliding::Sliding;
use super::window::{PacketWindow, Slot};
use crate::{PacketId, Timestamp};

/// How often one packet is asked for at most.
const TRIES_MAX: u8 = 8;
/// How often where it is too late to show the frame.
const LATE_TRIES: u8 = 2;
/// Parity is waited for no longer than this, in microseconds: a frame at 40 frames per second.
const PARITY_WAIT_US: u64 = 25_000;
/// When nothing tells yet what a missing packet held, it is looked at again after this long.
const UNDECIDED_US: u64 = 5_000;

#[derive(Clone, Copy, Debug)]
struct Missing {
    id: u64,
    noticed: Timestamp,
    asked_at: Timestamp,
    tries: u8,
    /// By how much later than the first answer this one comes, of those that were asked for together; in microseconds.
    behind_us: u32,
}

/// What was counted while repairing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RepairCounters {
    /// Requests for a packet, repeats included.
    pub(super) asked: u64,
    /// Packets given up because no resend could arrive in time, or after too many tries.
    pub(super) given_up: u64,
    /// Missing packets that the list had no room for.
    pub(super) untracked: u64,
}

/// What the neighbours say about a run of missing packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing lacks where they were.
    Unneeded,
    /// The packets that would tell have not come yet.
    Undecided,
    /// They may hold parts of the frames `low..=high`.
    Wanted { low: u64, high: u64, due: Due },
}

/// Until when packets are of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    /// The last of the frames must be shown.
    shown: Timestamp,
    /// The table is full of frames that predict from the last one.
    kept: Timestamp,
}

impl Due {
    fn of(frame: &Frame, frames: &FrameTable, playout: &Playout) -> Self {
        // Two frames of room are left for those that come meanwhile.
        let kept_us = (frames.capacity() - 2) * playout.frame_interval_us();
        Self {
            shown: playout.deadline(frame.first_arrival, frame.timestamp_us),
            kept: frame.first_arrival.plus_micros(kept_us),
        }
    }

    fn max(self, other: Self) -> Self {
        Self { shown: self.shown.max(other.shown), kept: self.kept.max(other.kept) }
    }
}

/// When frames are due, and what may come for them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hope<'a> {
    /// When frames must be shown.
    pub(super) playout: &'a Playout,
    /// How long a request takes.
    pub(super) round_trip: &'a RoundTrip,
    /// Parity that has come.
    pub(super) store: &'a ParityStore,
    /// And that reaches back.
    pub(super) sliding: &'a Sliding,
    /// The frame that parity came for last, and how many parities its group had.
    pub(super) last: (u64, u32),
    /// The rest of a frame and its parity come within this of the packet before, in microseconds.
    pub(super) tail_us: u64,
    /// How far packets that follow each other are apart, in microseconds.
    pub(super) spacing_us: f32,
}

impl Hope<'_> {
    /// How much later than the first one the answer to the request after `asked` others comes, in microseconds: packets
    /// that are asked for together come one behind the other, and to send them twice would hold up all.
    fn behind_us(&self, asked: usize) -> u32 {
        // The cast saturates.
        (asked as f32 * self.spacing_us).min(self.round_trip.rtt_us as f32) as u32
    }

    /// How many packets of `frame` parity is expected to bring, and until when more of it may come.
    fn of(&self, now: Timestamp, frame: &Frame, frames: &FrameTable) -> (u32, Timestamp) {
        let (last, count) = self.last;
        let (here, of_all) = if self.sliding.is_active() {
            (self.sliding.equations_of(frame.id), (last == frame.id).then_some(count))
        } else {
            self.store.of_frame(frame.id)
        };
        let expected = match of_all {
            Some(all) => all,
            None if (last..=last.saturating_add(2)).contains(&frame.id) => count,
            None => 0,
        };
        let ends = frame.last_arrival.plus_micros(self.tail_us);
        let may_come = here < expected && frames.newest() == Some(frame.id) && now < ends;
        // One of those that are still to come may be lost as well.
        if may_come { (expected - 1, ends) } else { (here, Timestamp::NEVER) }
    }
}

/// The packets of one frame that are left to its parity.
#[derive(Clone, Copy, Debug)]
struct Left {
    frame: u64,
    /// How many more may be.
    room: u32,
    until: Timestamp,
    /// The last one that was, on the list.
    newest: Option<usize>,
}

/// The packets that are missing.
#[derive(Debug)]
pub(super) struct Repair {
    missing: Vec<Missing>,
    capacity: usize,
    /// When the list must be looked at.
    due: Timestamp,
    /// The list has entries that were never looked at.
    unseen: bool,
    /// From the first to the last frame that a packet on the list may still repair.
    reach: Option<(u64, u64)>,
    pub(super) counters: RepairCounters,
}

impl Repair {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            missing: Vec::with_capacity(capacity),
            capacity,
            due: Timestamp::NEVER,
            unseen: false,
            reach: None,
            counters: RepairCounters::default(),
        }
    }

    /// When the list must be looked at again.
    pub(super) fn due(&self) -> Timestamp {
        self.due
    }

    /// The list has entries that were never looked at.
    pub(super) fn has_unseen(&self) -> bool {
        self.unseen
    }

    /// A packet on the list may still repair frame `id`.
    pub(super) fn may_bring(&self, id: u64) -> bool {
        self.unseen || self.reach.is_some_and(|(low, high)| (low..=high).contains(&id))
    }

    /// The ids `first..end`, all above those on the list, have not arrived.
    pub(super) fn on_gap(&mut self, noticed: Timestamp, first: u64, end: u64) {
        if first >= end {
            return;
        }
        let room = (self.capacity - self.missing.len()) as u64;
        let tracked = end.min(first.saturating_add(room));
        self.counters.untracked += end - tracked;
        for id in first..tracked {
            self.missing.push(Missing { id, noticed, asked_at: Timestamp::ZERO, tries: 0, behind_us: 0 });
        }
        self.unseen = true;
        self.due = Timestamp::ZERO;
    }

    /// Something changed that decides on what is asked for.
    pub(super) fn look_again(&mut self) {
        self.unseen |= !self.missing.is_empty();
    }

    /// Looks at the list if that is due, and writes the ids to ask for now to `out`. Returns how many.
    pub(super) fn scan(
        &mut self,
        now: Timestamp,
        window: &mut PacketWindow,
        frames: &mut FrameTable,
        hope: &Hope<'_>,
        out: &mut [PacketId],
    ) -> usize {
        let round_trip = hope.round_trip;
        if self.missing.is_empty() || (now < self.due && !self.unseen) {
            return 0;
        }
        self.due = Timestamp::NEVER;
        self.unseen = false;
        self.reach = None;
        let mut asked = 0;
        let mut kept = 0;
        let mut at = 0;
        let mut left: Option<Left> = None;
        while at < self.missing.len() {
            let end = self.run_end(at, window);
            if end == at {
                at += 1;
                continue;
            }
            let below = window.anchor_below(self.missing[at].id);
            let above = window.anchor_above(self.missing[end - 1].id);
            let verdict = judge(below, above, frames, hope.playout);
            for entry in at..end {
                let missing = self.missing[entry];
                let missing = match verdict {
                    Verdict::Unneeded => None,
                    Verdict::Undecided => {
                        self.due = self.due.min(now.plus_micros(UNDECIDED_US));
                        Some(missing)
                    }
                    Verdict::Wanted { .. } if is_there(missing.id, below, above, frames) => None,
                    Verdict::Wanted { low, high, .. }
                        if low == high && self.leave(now, &missing, low, kept, frames, hope, &mut left) =>
                    {
                        self.extend_reach(low, high);
                        Some(missing)
                    }
                    Verdict::Wanted { low, high, due } => {
                        let before = missing.tries;
                        let patience = window.reorder_us();
                        let free = out.get_mut(asked);
                        let mut kept = self.pursue(now, missing, patience, due, round_trip, free);
                        if let Some(kept) = &mut kept {
                            self.extend_reach(low, high);
                            if kept.tries > before {
                                kept.behind_us = hope.behind_us(asked);
                                asked += 1;
                                note_asked(window.next_id(), low, high, frames);
                            }
                            if kept.tries > before && before == 0 {
                                window.unlearn_reordering();
                                let spare = left.as_mut().filter(|left| low == high && left.frame == low);
                                if let Some(place) = spare.and_then(|left| left.newest.take()) {
                                    let other = self.missing[place];
                                    let free = out.get_mut(asked);
                                    let again = self.pursue(now, other, patience, due, round_trip, free);
                                    let mut again = again.unwrap_or(other);
                                    if again.tries > other.tries {
                                        again.behind_us = hope.behind_us(asked);
                                        asked += 1;
                                    }
                                    self.missing[place] = again;
                                }
                            }
                        }
                        kept
                    }
                };
                if let Some(missing) = missing {
                    self.missing[kept] = missing;
                    kept += 1;
                }
            }
            at = end;
        }
        self.missing.truncate(kept);
        self.counters.asked += asked as u64;
        asked
    }

    /// Whether a packet of `frame`, to be at `place` on the list, is left to parity for now. Beyond what parity
    /// brings, packets are asked for, and one more than are needed: what is sent again can be lost too.
    #[allow(clippy::too_many_arguments, reason = "the state of one pass over the list")]
    fn leave(
        &mut self,
        now: Timestamp,
        missing: &Missing,
        frame: u64,
        place: usize,
        frames: &FrameTable,
        hope: &Hope<'_>,
        left: &mut Option<Left>,
    ) -> bool {
        if left.is_none_or(|left| left.frame != frame) {
            let Some(frame) = frames.frame(frame) else { return false };
            let (room, until) = hope.of(now, frame, frames);
            *left = Some(Left { frame: frame.id, room, until, newest: None });
        }
        let Some(left) = left else { return false };
        if left.room == 0 {
            return false;
        }
        left.room -= 1;
        if missing.tries > 0 || passed(now, missing.noticed, PARITY_WAIT_US) {
            return false;
        }
        left.newest = Some(place);
        let given_up = missing.noticed.plus_micros(PARITY_WAIT_US);
        self.due = self.due.min(left.until).min(given_up);
        true
    }

    /// Asks for a wanted packet through `out` if it is time, or gives it up: then it is not returned.
    fn pursue(
        &mut self,
        now: Timestamp,
        missing: Missing,
        patience_us: u64,
        due: Due,
        round_trip: &RoundTrip,
        out: Option<&mut PacketId>,
    ) -> Option<Missing> {
        let (since, wait_us) = match missing.tries {
            0 => (missing.noticed, patience_us),
            _ => (missing.asked_at, round_trip.retry_us().saturating_add(missing.behind_us.into())),
        };
        if !passed(now, since, wait_us) {
            self.due = self.due.min(since.plus_micros(wait_us));
            return Some(missing);
        }
        let in_time = now.plus_micros(round_trip.arrival_us()) <= due.shown;
        // A frame that comes too late to be shown still is what the ones behind it predict from, and a resend
        // is here sooner than a frame that does without would be. Not for ever: two in a row are rarely lost.
        let of_use = missing.tries < LATE_TRIES && now.plus_micros(round_trip.arrival_us()) <= due.kept;
        if !(in_time || of_use) || missing.tries >= TRIES_MAX {
            self.counters.given_up += 1;
            return None;
        }
        let Some(out) = out else {
            self.due = now;
            return Some(missing);
        };
        *out = PacketId(missing.id);
        self.due = self.due.min(now.plus_micros(round_trip.retry_us()));
        Some(Missing { asked_at: now, tries: missing.tries + 1, ..missing })
    }

    /// The end of the run of consecutive ids from entry `at` on that are still missing.
    fn run_end(&self, at: usize, window: &PacketWindow) -> usize {
        let first = self.missing[at].id;
        self.missing[at..]
            .iter()
            .zip(first..)
            .take_while(|(m, id)| m.id == *id && window.slot(*id).is_some_and(Slot::is_missing))
            .count()
            + at
    }

    fn extend_reach(&mut self, low: u64, high: u64) {
        let (l, h) = self.reach.unwrap_or((low, high));
        self.reach = Some((l.min(low), h.max(high)));
    }
}

type Anchor = Option<(u64, Position)>;

/// What lacks between two chunks.
fn judge(below: Anchor, above: Anchor, frames: &FrameTable, playout: &Playout) -> Verdict {
    let below = below.map(|(_, at)| at);
    let Some((_, above)) = above else {
        // Only the slice that was being received says how much it lacks.
        let Some(at) = below else { return Verdict::Undecided };
        let Some(frame) = frames.frame(at.frame) else { return Verdict::Undecided };
        let end = at.chunk + frames.chunks_behind(at) + 1;
        if !frames.has_hole(frame, Some((at.slice, at.chunk)), Some((at.slice, end))) {
            return Verdict::Undecided;
        }
        let due = Due::of(frame, frames, playout);
        return Verdict::Wanted { low: at.frame, high: at.frame, due };
    };
    let lowest = below.map_or(0, |at| at.frame).max(frames.floor());
    let mut verdict = Verdict::Unneeded;
    for id in lowest..=above.frame {
        let due = if let Some(frame) = frames.frame(id) {
            let from = below.filter(|at| at.frame == id).map(|at| (at.slice, at.chunk));
            let to = (above.frame == id).then_some((above.slice, above.chunk));
            if !frames.has_hole(frame, from, to) {
                continue;
            }
            Due::of(frame, frames, playout)
        } else {
            // A frame of which nothing has come. The frame behind it needs it, unless it is a keyframe.
            match frames.open_from(id + 1).next() {
                Some(next) if !next.keyframe => Due::of(next, frames, playout),
                _ => continue,
            }
        };
        verdict = match verdict {
            Verdict::Wanted { low, due: other, .. } => Verdict::Wanted { low, high: id, due: other.max(due) },
            _ => Verdict::Wanted { low: id, high: id, due },
        };
    }
    verdict
}

/// Whether the chunk that packet `id` held has come some other way. Known where the neighbours are as
/// many ids apart as chunks, so that nothing else was sent between them.
fn is_there(id: u64, below: Anchor, above: Anchor, frames: &FrameTable) -> bool {
    let Some((below_id, at)) = below else { return false };
    if let Some((above_id, to)) = above {
        let gapless = (to.frame, to.slice) == (at.frame, at.slice)
            && to.chunk > at.chunk
            && u64::from(to.chunk - at.chunk) == above_id - below_id;
        if !gapless {
            return false;
        }
    }
    let chunk = u64::from(at.chunk) + (id - below_id);
    u32::try_from(chunk).is_ok_and(|chunk| frames.has_chunk(Position { chunk, ..at }))
}

/// Packets from `next_id` on may answer a request.
fn note_asked(next_id: u64, low: u64, high: u64, frames: &mut FrameTable) {
    for id in low..=high {
        if let Some(frame) = frames.frame_mut(id) {
            frame.resent_from = frame.resent_from.min(next_id);
        }
    }
}

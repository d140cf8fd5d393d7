//! The packets that left, and the reading of arrival reports against them.

use super::{Fate, PacketKind, PacketOutcome, SentPacket};
use crate::message::ArrivalFeedback;
use crate::{FrameId, PacketId, Timestamp};

/// Unit of the delays in a report, in microseconds.
const UNIT_US: u64 = 64;
/// An entry that says: lost.
const LOST: u16 = 0xffff;
/// An entry that says: not here, but it may only be late.
const PENDING: u16 = 0x3fff;
/// The bits of an entry that hold the delay.
const DELAY_MASK: u16 = 0x3fff;
/// The ECN bits of an entry that say: congestion experienced.
const CE: u16 = 3;

/// What is known of a packet's fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The place was never used, or its packet was given up.
    Unknown,
    /// It left, and nothing was heard.
    InFlight,
    /// Its outcome was told.
    Told,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    packet: SentPacket,
    state: State,
}

/// What a report said, besides the outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportSummary {
    /// Packets that arrived and were not known to.
    pub arrived: u32,
    /// Packets now known to be lost.
    pub lost: u32,
    /// Those of `arrived` that were marked.
    pub marked: u32,
    /// Packets of which no report ever told, because reports were lost: they no longer count as in flight.
    pub untold: u32,
    /// Round trip of the newest packet that arrived, without the time that the report waited for it, in
    /// microseconds.
    pub rtt_us: Option<u64>,
    /// Departure of the newest packet that the report is about.
    pub newest_sent_at: Option<Timestamp>,
}

/// What left and was not told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// Bytes of datagrams.
    pub bytes: u64,
    /// When the oldest packet left that no report has spoken of yet, and whose frame was not acknowledged.
    pub oldest_unreported: Option<Timestamp>,
}

/// A ring of the packets that left last. Ids that were not recorded carried no video; they are passed
/// over.
#[derive(Debug)]
pub struct SentHistory {
    entries: Box<[Entry]>,
    mask: u64,
    /// Ids below have an outcome or never will.
    oldest: u64,
    /// Ids from here on were not sent.
    next: u64,
    /// Ids below were spoken of in a report.
    reported: u64,
    /// Of this frame and those before it nothing is waited for.
    acknowledged: Option<FrameId>,
    /// Nothing is waited for of ids below either: what was looked at once is not looked at again.
    waited_from: u64,
    /// The newest that is known to have arrived.
    newest_arrived: Option<PacketId>,
    in_flight_bytes: u64,
    in_flight_packets: u64,
}

impl SentHistory {
    /// Remembers `packets`, rounded up to a power of two.
    #[must_use]
    pub fn new(packets: usize) -> Self {
        let packets = packets.clamp(64, 1 << 22).next_power_of_two();
        let entry = Entry { packet: SentPacket::default(), state: State::Unknown };
        Self {
            entries: vec![entry; packets].into_boxed_slice(),
            mask: packets as u64 - 1,
            oldest: 0,
            next: 0,
            reported: 0,
            acknowledged: None,
            waited_from: 0,
            newest_arrived: None,
            in_flight_bytes: 0,
            in_flight_packets: 0,
        }
    }

    /// A packet leaves. Ids ascend.
    #[inline]
    pub fn on_sent(&mut self, packet: SentPacket) {
        let id = packet.id.0;
        if id < self.next || id == u64::MAX {
            return;
        }
        if self.in_flight_packets == 0 {
            self.oldest = id;
        }
        // The place of an old one whose fate will not be known.
        self.forget_below((id + 1).saturating_sub(self.entries.len() as u64));
        self.next = id + 1;
        self.entries[(id & self.mask) as usize] = Entry { packet, state: State::InFlight };
        self.in_flight_bytes += u64::from(packet.bytes);
        self.in_flight_packets += 1;
    }

    /// Reads a report; each packet whose fate it settles is told to `sink`, in the order of ids.
    pub fn on_report(
        &mut self,
        now: Timestamp,
        report: &ArrivalFeedback<'_>,
        mut sink: impl FnMut(&PacketOutcome),
    ) -> ReportSummary {
        let mut summary = ReportSummary::default();
        let mut id = report.first_packet_id;
        let (entries, _) = report.arrivals.as_chunks::<2>();
        let mut settled_until = None;
        for entry in entries {
            if id >= self.next {
                // Nobody can have seen what was not sent.
                break;
            }
            let entry = u16::from_be_bytes(*entry);
            if entry == PENDING {
                settled_until.get_or_insert(id);
            } else {
                self.settle(now, id, entry, report.report_us, &mut summary, &mut sink);
            }
            id += 1;
        }
        if id > self.reported {
            self.reported = id;
            // The span begins with the oldest that the client has not told of; what lies before it and is
            // still open was told in a report that did not come.
            let floor = report.first_packet_id.min(settled_until.unwrap_or(id));
            summary.untold += self.forget_below(floor);
        }
        summary
    }

    /// The client has decoded `frame`: its packets have arrived, or parity has replaced them. A report that tells
    /// when may come later, and nobody need wait for it to know that the path carries.
    pub fn on_frame_acked(&mut self, frame: FrameId) {
        self.acknowledged = self.acknowledged.max(Some(frame));
        self.waited_from = self.first_waited().unwrap_or(self.next);
    }

    fn settle(
        &mut self,
        now: Timestamp,
        id: u64,
        entry: u16,
        report_us: u64,
        summary: &mut ReportSummary,
        sink: &mut impl FnMut(&PacketOutcome),
    ) {
        let Some(slot) = self.slot_mut(id) else { return };
        if slot.state != State::InFlight {
            return;
        }
        slot.state = State::Told;
        let packet = slot.packet;
        self.in_flight_bytes -= u64::from(packet.bytes);
        self.in_flight_packets -= 1;
        summary.newest_sent_at = summary.newest_sent_at.max(Some(packet.sent_at));
        if entry == LOST {
            summary.lost += 1;
            sink(&PacketOutcome { packet, fate: Fate::Lost });
            return;
        }
        let held_us = u64::from(entry & DELAY_MASK) * UNIT_US;
        let arrived_us = report_us.saturating_sub(held_us);
        let delay_us = i128::from(arrived_us) - i128::from(packet.sent_at.as_micros());
        let delay_us = i64::try_from(delay_us).unwrap_or(if delay_us < 0 { i64::MIN } else { i64::MAX });
        let marked = entry >> 14 == CE;
        summary.arrived += 1;
        self.newest_arrived = self.newest_arrived.max(Some(packet.id));
        summary.marked += u32::from(marked);
        if packet.kind != PacketKind::Retransmission || summary.rtt_us.is_none() {
            summary.rtt_us = Some(now.micros_since(packet.sent_at).saturating_sub(held_us));
        }
        sink(&PacketOutcome { packet, fate: Fate::Arrived { arrived_us, delay_us, marked } });
    }

    /// Gives up what is in flight below `id`; how many those are.
    fn forget_below(&mut self, id: u64) -> u32 {
        let mut forgotten = 0;
        let first = self.oldest.max(self.next.saturating_sub(self.entries.len() as u64));
        for old in first..id.min(self.next) {
            let Some(slot) = self.slot_mut(old) else { continue };
            if slot.state == State::InFlight {
                slot.state = State::Unknown;
                let bytes = u64::from(slot.packet.bytes);
                self.in_flight_bytes -= bytes;
                self.in_flight_packets -= 1;
                forgotten += 1;
            }
        }
        self.oldest = self.oldest.max(id.min(self.next));
        forgotten
    }

    fn slot_mut(&mut self, id: u64) -> Option<&mut Entry> {
        let slot = &mut self.entries[(id & self.mask) as usize];
        (slot.packet.id == PacketId(id) && slot.state != State::Unknown).then_some(slot)
    }

    /// Whether `id` left behind everything that is known to have arrived, so that it may only be late.
    #[must_use]
    pub fn may_be_late(&self, id: PacketId) -> bool {
        self.newest_arrived.is_none_or(|newest| id > newest)
    }

    /// Whether a report may still tell what became of `id`.
    #[must_use]
    pub fn is_in_flight(&self, id: PacketId) -> bool {
        let entry = &self.entries[(id.0 & self.mask) as usize];
        entry.packet.id == id && entry.state == State::InFlight
    }

    /// Bytes that left and were not told of.
    #[must_use]
    pub fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// What is under way now.
    #[must_use]
    pub fn in_flight(&self) -> InFlight {
        InFlight { bytes: self.in_flight_bytes, oldest_unreported: self.oldest_unreported() }
    }

    /// When the oldest packet left that no report has spoken of yet, and whose frame was not acknowledged.
    #[must_use]
    pub fn oldest_unreported(&self) -> Option<Timestamp> {
        self.first_waited().map(|id| self.entries[(id & self.mask) as usize].packet.sent_at)
    }

    /// The first packet that a report is waited for.
    fn first_waited(&self) -> Option<u64> {
        let from = self.reported.max(self.oldest).max(self.waited_from);
        (from..self.next).find(|&id| self.is_waited(id))
    }

    fn is_waited(&self, id: u64) -> bool {
        let entry = &self.entries[(id & self.mask) as usize];
        self.is_in_flight(PacketId(id)) && self.acknowledged.is_none_or(|acked| entry.packet.frame > acked)
    }

    /// Nothing that is in flight will be told of in a way that means anything: a clock jumped.
    pub fn forget(&mut self) {
        self.forget_below(self.next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Timestamp {
        Timestamp::from_micros(us)
    }

    fn history(count: u64) -> SentHistory {
        let mut history = SentHistory::new(64);
        for id in 0..count {
            history.on_sent(SentPacket {
                id: PacketId(id),
                frame: FrameId(id / 10),
                position: (id % 10) as u16,
                bytes: 1000,
                sent_at: at(1_000 + id * 100),
                ..SentPacket::default()
            });
        }
        history
    }

    /// Tells the report of `entries` from `first` on: the outcomes as (id, fate).
    fn report(
        history: &mut SentHistory,
        now: u64,
        first: u64,
        entries: &[u16],
    ) -> (ReportSummary, Vec<(u64, Fate)>) {
        let arrivals: Vec<u8> = entries.iter().flat_map(|e| e.to_be_bytes()).collect();
        let report = ArrivalFeedback {
            first_packet_id: first,
            report_us: 500_000,
            arrivals: &arrivals,
            marked_packets: 0,
        };
        let mut seen = vec![];
        let summary = history.on_report(at(now), &report, |o| seen.push((o.packet.id.0, o.fate)));
        (summary, seen)
    }

    fn arrived(arrived_us: u64, sent_us: u64, marked: bool) -> Fate {
        Fate::Arrived { arrived_us, delay_us: arrived_us as i64 - sent_us as i64, marked }
    }

    /// Proves R-CTRL-7: what is known to have come need not be told of to be known not to be late.
    #[test]
    fn packets_of_acknowledged_frames_are_not_waited_for() {
        let mut history = history(25);
        report(&mut history, 30_000, 0, &[100; 5]);
        assert_eq!(history.oldest_unreported(), Some(at(1_500)));
        history.on_frame_acked(FrameId(0));
        assert_eq!(history.oldest_unreported(), Some(at(2_000)));
        history.on_frame_acked(FrameId(1));
        history.on_frame_acked(FrameId(0));
        assert_eq!(history.in_flight().oldest_unreported, Some(at(3_000)));
        history.on_frame_acked(FrameId(2));
        assert_eq!(history.oldest_unreported(), None);
        assert_eq!(history.in_flight_bytes(), 20_000, "a report tells what became of them");
    }

    /// Proves R-REC-11.
    #[test]
    fn what_left_behind_all_that_arrived_may_be_late() {
        let mut history = history(10);
        assert!(history.may_be_late(PacketId(0)));
        report(&mut history, 30_000, 0, &[100, LOST, 100, LOST, PENDING]);
        let late: Vec<u64> = (0..10).filter(|&id| history.may_be_late(PacketId(id))).collect();
        assert_eq!(late, [3, 4, 5, 6, 7, 8, 9]);
    }

    /// Proves R-FB-2: what the client tells becomes the fate of each packet, once.
    #[test]
    fn every_packet_has_one_outcome() {
        let mut history = history(5);
        let (summary, seen) = report(&mut history, 30_000, 0, &[100, 0xc000 | 50, LOST, PENDING]);
        assert_eq!(
            seen,
            [(0, arrived(493_600, 1_000, false)), (1, arrived(496_800, 1_100, true)), (2, Fate::Lost)]
        );
        assert_eq!((summary.arrived, summary.lost, summary.marked), (2, 1, 1));
        assert_eq!(summary.rtt_us, Some(30_000 - 1_100 - 50 * 64));
        assert_eq!(history.in_flight_bytes(), 2_000);
        let (summary, seen) = report(&mut history, 31_000, 0, &[100, 50, 7, 3, 1]);
        assert_eq!(seen, [(3, arrived(499_808, 1_300, false)), (4, arrived(499_936, 1_400, false))]);
        assert_eq!((summary.arrived, history.in_flight_bytes()), (2, 0));
        assert_eq!(report(&mut history, 32_000, 0, &[100, 50, 7, 3, 1]).1, []);
    }

    /// Proves R-FB-6: a lost report costs what it told and nothing else.
    #[test]
    fn what_no_report_told_of_is_given_up() {
        let mut history = history(20);
        report(&mut history, 9_000, 0, &[1; 5]);
        assert_eq!(history.oldest_unreported(), Some(at(1_500)));
        let (summary, seen) = report(&mut history, 9_500, 10, &[1; 5]);
        assert_eq!((summary.untold, seen.len()), (5, 5));
        assert_eq!(history.in_flight_bytes(), 5_000);
        assert_eq!(history.oldest_unreported(), Some(at(2_500)));
        let (_, seen) = report(&mut history, 9_600, 5, &[1; 5]);
        assert_eq!(seen, [], "a report that comes late tells nothing of what was given up");
    }

    #[test]
    fn ids_that_carried_no_video_or_were_never_sent_are_passed_over() {
        let mut history = SentHistory::new(64);
        for id in [3, 5, 9] {
            history.on_sent(SentPacket { id: PacketId(id), bytes: 10, ..SentPacket::default() });
        }
        let (_, seen) = report(&mut history, 1, 0, &[1; 480]);
        assert_eq!(seen.iter().map(|s| s.0).collect::<Vec<_>>(), [3, 5, 9]);
        assert_eq!(report(&mut history, 1, u64::MAX - 1, &[1; 480]).1, []);
        history.on_sent(SentPacket { id: PacketId(7), bytes: 10, ..SentPacket::default() });
        assert_eq!(history.in_flight_bytes(), 0, "ids ascend");
    }

    #[test]
    fn a_full_ring_gives_up_the_oldest() {
        let mut history = history(1_000);
        assert_eq!(history.in_flight_bytes(), 64_000);
        let (summary, seen) = report(&mut history, 1, 900, &[LOST; 100]);
        assert_eq!((seen.len(), seen[0].0, summary.lost), (64, 936, 64));
        history.forget();
        assert_eq!((history.in_flight_bytes(), history.oldest_unreported()), (0, None));
    }

    #[test]
    fn what_was_looked_at_once_is_never_waited_for_again() {
        let mut rng = fastrand::Rng::with_seed(4);
        for _ in 0..100 {
            let mut history = history(0);
            let (mut next, mut frame) = (0u64, 0u64);
            for now in 1_000..1_300 {
                match rng.u8(0..10) {
                    0 => history.on_frame_acked(FrameId(frame - rng.u64(0..=frame.min(3)))),
                    1 if next > 0 => {
                        let first = rng.u64(next.saturating_sub(40)..next);
                        let entries: Vec<u16> = (0..rng.usize(1..30))
                            .map(|_| *rng.choice(&[LOST, PENDING, 0, 5]).unwrap())
                            .collect();
                        report(&mut history, now, first, &entries);
                    }
                    2 => frame += 1,
                    3 => next += 1,
                    _ => {
                        history.on_sent(SentPacket {
                            id: PacketId(next),
                            frame: FrameId(frame),
                            bytes: 1,
                            sent_at: at(now),
                            ..SentPacket::default()
                        });
                        next += 1;
                    }
                }
                let from = history.reported.max(history.oldest);
                let first = (from..history.next).find(|&id| history.is_waited(id));
                assert_eq!(history.first_waited(), first);
            }
        }
    }
}

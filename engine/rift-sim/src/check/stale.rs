//! Why a picture was stale, found from the log of a run.
//!
//! Knows frames, packets and what became of them; knows nothing of how the protocol repairs. It asks what the best
//! possible recovery could have done with the same packets on the same path: every loss noticed at the next
//! arrival, asked for at once, sent again at once, and lost again wherever a packet was lost that left near then.
//! Where even that comes too late, the path is the cause and is named; where it does not, recovery is at fault.
//! Invariant: a fault is claimed only where the log shows a way that was there.

use core::fmt;

use crate::metrics::{Idle, STALE_US, StreamLog};
use crate::report::{PacketRecord, Sample};

/// What real recovery may take beyond the best possible, in microseconds: feedback leaves once per frame, and
/// reordering is not yet loss.
const SLACK_US: u64 = 40_000;
/// After an outage the sender finds out with a frame this often (and then needs a round trip), in microseconds.
const PROBE_US: u64 = 150_000;
/// No arrival for so long while packets are under way is a path that stands still, in microseconds.
const STALL_US: u64 = 50_000;
/// Packets that leave within this of each other share their fate, in microseconds.
const NEAR_US: u64 = 3_000;
/// A wait longer than this is a queue, in microseconds.
const QUEUE_US: u64 = 40_000;
/// More rounds than this no deadline allows.
const ROUNDS: u32 = 12;
/// A frame's packets are looked for within so long of its submission, in microseconds.
const FRAME_US_MAX: u64 = 120_000;

/// Why no newer picture was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// There were no pictures, or so few that each is stale before the next.
    Source,
    /// The path alone takes about as long.
    Distance,
    /// Nothing got through for a while.
    Outage,
    /// The capacity fell below what was on its way.
    CapacityDrop,
    /// Packets waited in the queue.
    Queue,
    /// Packets were lost, and so were, or would have been, those that replace them, until it was too late.
    Loss,
    /// The sender let packets wait, or encoded nothing, because of what the path did before.
    KeptBack,
    /// What the client had to say was lost or late.
    Feedback,
    /// A fault: everything was there, or could have been, and no picture came.
    Avoidable,
    /// A fault: nothing was encoded, although the path carried.
    HeldForNothing,
}

impl Cause {
    /// Whether the protocol is to blame.
    #[must_use]
    pub const fn is_fault(self) -> bool {
        matches!(self, Self::Avoidable | Self::HeldForNothing)
    }

    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "no pictures",
            Self::Distance => "distance",
            Self::Outage => "outage",
            Self::CapacityDrop => "capacity drop",
            Self::Queue => "queue",
            Self::Loss => "loss",
            Self::KeptBack => "kept back",
            Self::Feedback => "feedback lost",
            Self::Avoidable => "AVOIDABLE",
            Self::HeldForNothing => "HELD FOR NOTHING",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A time in which the newest complete picture was stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// From when, in microseconds.
    pub from_us: u64,
    /// Until when, in microseconds.
    pub to_us: u64,
    /// Why.
    pub cause: Cause,
}

/// What happened in a run.
#[derive(Clone, Copy, Debug)]
pub struct RunLog<'a> {
    /// Frames, targets, and captures that were not encoded.
    pub stream: &'a StreamLog,
    /// From host to client, in the order of sending.
    pub down: &'a [PacketRecord],
    /// From client to host.
    pub up: &'a [PacketRecord],
    /// What the path offered over time.
    pub samples: &'a [Sample],
    /// One way, without queues, in microseconds: down and up.
    pub delay_us: (u64, u64),
    /// From capture to the last slice, in microseconds.
    pub encode_us: u64,
    /// Between captures at the full rate, in microseconds.
    pub period_us: u64,
    /// The part of the run that is looked at, in microseconds.
    pub span_us: (u64, u64),
}

impl RunLog<'_> {
    /// Whether nobody was there to look at any picture in a part of this time.
    fn is_absent(&self, from_us: u64, to_us: u64) -> bool {
        self.stream.absent.iter().any(|&(begin, end)| begin < to_us && from_us < end)
    }
}

/// Every stale interval with its cause, in order.
#[must_use]
pub fn explain(log: &RunLog<'_>) -> Vec<Stale> {
    let (from_us, to_us) = log.span_us;
    let mut found = Vec::new();
    for (begin, end, captured) in log.stream.ages(from_us, to_us) {
        let stale_from = begin.max(captured + STALE_US);
        if stale_from < end && log.is_absent(captured, end) {
            found.push(Stale { from_us: stale_from, to_us: end, cause: Cause::Source });
        } else if stale_from < end {
            log.explain_one(captured, stale_from, end, &mut found);
        }
    }
    found
}

/// How the best possible recovery would have got a frame through.
#[derive(Clone, Copy, Debug)]
struct Ideal {
    /// When the frame would have been whole; [`u64::MAX`] for never.
    whole_us: u64,
    /// When the packets of it that were not lost were all there.
    arrived_us: u64,
    /// When its first loss could be noticed, if there was one.
    noticed_us: Option<u64>,
    /// The longest wait in the queue.
    wait_us: u64,
    /// When its last packet left.
    sent_us: u64,
}

impl RunLog<'_> {
    /// The picture captured at `captured` was the newest until `to_us`, and stale from `from_us` on.
    fn explain_one(&self, captured: u64, from_us: u64, to_us: u64, found: &mut Vec<Stale>) {
        let frames = &self.stream.frames;
        let first = frames.partition_point(|frame| frame.captured_us <= captured);
        let end = frames.partition_point(|frame| frame.captured_us < to_us);
        let mut add = |from_us: u64, to_us: u64, cause| {
            if from_us < to_us {
                found.push(Stale { from_us, to_us, cause });
            }
        };
        if first >= end {
            return add(from_us, to_us, self.idle_cause(captured, to_us));
        }
        let best_us = self.best(first, end);
        let split = if best_us.saturating_add(SLACK_US) <= from_us {
            from_us
        } else {
            // Where the best needs one round, two are granted; what leaves in the second stands in the queue of then.
            let round_us = self.delay_us.0 + self.delay_us.1 + self.period_us;
            let wait_us = self.wait_us(best_us, best_us.saturating_add(round_us));
            best_us.saturating_add(SLACK_US + 2 * round_us + wait_us).clamp(from_us, to_us)
        };
        if split > from_us {
            let first_us = frames[first].captured_us;
            let cause = if first_us - captured > STALE_US {
                // The sender was silent first.
                self.idle_cause(captured, first_us)
            } else {
                self.path_cause(first, split)
            };
            // Long after the last frame that was encoded it is no longer the path that keeps the picture away.
            let patience_us = PROBE_US + SLACK_US + self.delay_us.0 + self.delay_us.1;
            let last_us = frames[end - 1].captured_us;
            let silent_us = last_us.saturating_add(patience_us).clamp(from_us, split);
            add(from_us, silent_us, cause);
            if silent_us < split {
                add(silent_us, split, self.idle_cause(last_us, split));
            }
        }
        add(split, to_us, Cause::Avoidable);
    }

    /// The longest that a packet waited in the queue which left between two moments and arrived.
    fn wait_us(&self, from_us: u64, to_us: u64) -> u64 {
        let arrived =
            between(self.down, from_us, to_us).iter().filter_map(|p| Some(p.arrived()? - p.sent_us));
        arrived.max().map_or(0, |us| us.saturating_sub(self.delay_us.0))
    }

    /// When the best recovery would have had one of the frames `first..end` whole and decodable.
    fn best(&self, first: usize, end: usize) -> u64 {
        let ideal = self.ideal(first);
        let mut best = ideal.whole_us;
        // A later frame may do without the first, once the host knows.
        let known_us =
            ideal.noticed_us.map_or(u64::MAX, |at| at.saturating_add(self.delay_us.1 + self.period_us));
        for i in first + 1..end {
            let captured_us = self.stream.frames[i].captured_us;
            if captured_us >= best {
                break;
            }
            if captured_us >= known_us {
                best = best.min(self.ideal(i).whole_us);
            }
        }
        best
    }

    fn ideal(&self, index: usize) -> Ideal {
        let frame = &self.stream.frames[index];
        let begin = frame.captured_us;
        let next_us = self.stream.frames.get(index + 1).map_or(u64::MAX, |next| next.captured_us);
        let end = next_us.saturating_add(self.period_us / 2).max(begin + self.period_us);
        let end = end.min(begin + FRAME_US_MAX) + self.encode_us;
        let packets = between(self.down, begin, end);
        let mut ideal = Ideal { whole_us: 0, arrived_us: 0, noticed_us: None, wait_us: 0, sent_us: begin };
        // As many bytes as the frame has, or it did not leave whole.
        let left: u64 = packets.iter().map(|p| u64::from(p.wire_bytes)).sum();
        if left < frame.bytes {
            ideal.whole_us = u64::MAX;
        }
        for packet in packets {
            ideal.sent_us = ideal.sent_us.max(packet.sent_us);
            let at = match packet.arrived() {
                Some(at) => {
                    ideal.arrived_us = ideal.arrived_us.max(at);
                    ideal.wait_us = ideal.wait_us.max((at - packet.sent_us).saturating_sub(self.delay_us.0));
                    at
                }
                None => {
                    let noticed = self.notices(packet.sent_us);
                    ideal.noticed_us = Some(ideal.noticed_us.map_or(noticed, |first| first.min(noticed)));
                    // What comes after the deadline is not sent again: it would not be shown.
                    Some(self.repaired(packet.sent_us))
                        .filter(|&at| at <= begin + STALE_US)
                        .unwrap_or(u64::MAX)
                }
            };
            ideal.whole_us = ideal.whole_us.max(at);
        }
        ideal
    }

    /// When the client can know that a packet sent at `sent_us` is lost.
    fn notices(&self, sent_us: u64) -> u64 {
        let later = &self.down[self.down.partition_point(|p| p.sent_us <= sent_us)..];
        later.iter().find_map(PacketRecord::arrived).unwrap_or(u64::MAX)
    }

    /// When what was lost at `sent_us` could have been there.
    fn repaired(&self, sent_us: u64) -> u64 {
        let mut lost_us = sent_us;
        for _ in 0..ROUNDS {
            let noticed = self.notices(lost_us);
            if noticed == u64::MAX {
                return u64::MAX;
            }
            let asked = between(self.up, noticed, noticed + self.period_us);
            let is_asked = asked.is_empty() || asked.iter().any(|p| p.arrived().is_some());
            let again_us = noticed + self.delay_us.1 + if is_asked { 0 } else { 2 * self.period_us };
            let near = between(self.down, again_us.saturating_sub(NEAR_US), again_us + NEAR_US);
            if near.iter().all(|p| p.arrived().is_some()) {
                let wait = |p: &PacketRecord| p.arrived_us - p.sent_us;
                return again_us + near.iter().map(wait).max().unwrap_or(self.delay_us.0);
            }
            lost_us = again_us;
        }
        u64::MAX
    }

    /// Why frame `first` and those after it were not there before `until_us`.
    fn path_cause(&self, first: usize, until_us: u64) -> Cause {
        let begin = self.stream.frames[first].captured_us;
        if self.delay_us.0 + self.encode_us + 2 * self.period_us >= STALE_US {
            return Cause::Distance;
        }
        if self.stalls(begin.saturating_sub(STALE_US), until_us) {
            return Cause::Outage;
        }
        let ideal = self.ideal(first);
        let is_late = |us: u64| us.saturating_add(SLACK_US) >= begin + STALE_US;
        if ideal.noticed_us.is_some() && !is_late(ideal.arrived_us) {
            return Cause::Loss;
        }
        if self.has_dropped(begin) {
            return Cause::CapacityDrop;
        }
        if ideal.wait_us > QUEUE_US {
            return Cause::Queue;
        }
        if ideal.noticed_us.is_some() {
            return Cause::Loss;
        }
        if ideal.whole_us == u64::MAX || is_late(ideal.sent_us + self.delay_us.0) {
            return Cause::KeptBack;
        }
        // The packets were there, and what it takes to decode them was not: the frame before was lost.
        let before_us = begin.saturating_sub(STALE_US + self.delay_us.0);
        if between(self.down, before_us, begin).iter().any(|p| p.arrived().is_none()) {
            return Cause::Loss;
        }
        if between(self.up, begin, until_us).iter().any(|p| p.arrived_us == PacketRecord::LOST) {
            return Cause::Feedback;
        }
        Cause::Queue
    }

    /// Why nothing was encoded from `from_us` to `to_us`.
    fn idle_cause(&self, from_us: u64, to_us: u64) -> Cause {
        let idle = &self.stream.idle;
        let begin = idle.partition_point(|&(at, _)| at <= from_us);
        let within = idle[begin..].iter().take_while(|&&(at, _)| at < to_us);
        let mut left_out = 0;
        for &(_, why) in within {
            match why {
                Idle::Paused => return Cause::Source,
                Idle::Held | Idle::Skipped => left_out += 1,
            }
        }
        if left_out == 0 {
            return Cause::Source;
        }
        // What was wrong with the path may lie a round trip and a probe back.
        let back_us = PROBE_US + self.delay_us.0 + self.delay_us.1;
        let look_us = from_us.saturating_sub(back_us);
        if self.stalls(look_us, to_us) {
            return Cause::Outage;
        }
        let packets = between(self.down, look_us, to_us);
        if packets.iter().any(|p| p.arrived().is_none()) {
            return Cause::Loss;
        }
        let wait = |p: &PacketRecord| (p.arrived_us - p.sent_us).saturating_sub(self.delay_us.0);
        if self.has_dropped(from_us) {
            return Cause::CapacityDrop;
        }
        if packets.iter().any(|p| wait(p) > QUEUE_US) {
            return Cause::Queue;
        }
        let late =
            |p: &PacketRecord| p.arrived().is_none_or(|at| at > p.sent_us + self.delay_us.1 + QUEUE_US);
        if between(self.up, look_us, to_us).iter().any(late) {
            return Cause::Feedback;
        }
        Cause::HeldForNothing
    }

    /// Whether nothing arrived for a while between two moments although something was under way.
    fn stalls(&self, from_us: u64, to_us: u64) -> bool {
        let packets = between(self.down, from_us.saturating_sub(STALE_US), to_us);
        let mut newest = 0;
        let mut previous: Option<&PacketRecord> = None;
        for packet in packets {
            let Some(at) = packet.arrived() else {
                // Nothing of what was sent for so long ever arrived.
                continue;
            };
            if let Some(before) = previous
                && at > newest + STALL_US
                && packet.sent_us + self.delay_us.0 + STALL_US < at
                && before.sent_us < at
            {
                return true;
            }
            newest = newest.max(at);
            previous = Some(packet);
        }
        let lost_in_a_row = packets.iter().rev().take_while(|p| p.arrived().is_none());
        let last_us = packets.last().map_or(0, |p| p.sent_us);
        lost_in_a_row.last().is_some_and(|first| last_us - first.sent_us > STALL_US)
    }

    /// Whether the path offered much less after `at_us` than before.
    fn has_dropped(&self, at_us: u64) -> bool {
        let at = self.samples.partition_point(|s| s.at_us <= at_us);
        let before = self.samples[at.saturating_sub(5)..at].iter().map(|s| s.offered_bytes).max();
        let after = self.samples.get(at..(at + 2).min(self.samples.len())).unwrap_or_default();
        let least = after.iter().map(|s| s.offered_bytes).min();
        match (before, least) {
            (Some(before), Some(least)) => before > 0 && least * 10 < before * 7,
            _ => false,
        }
    }
}

/// Packets sent from `from_us` to before `to_us`.
fn between(packets: &[PacketRecord], from_us: u64, to_us: u64) -> &[PacketRecord] {
    let begin = packets.partition_point(|p| p.sent_us < from_us);
    let end = packets.partition_point(|p| p.sent_us < to_us);
    &packets[begin..end.max(begin)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rift_core::FrameId;

    const DELAY_US: u64 = 10_000;
    const PERIOD_US: u64 = 20_000;

    /// A run of 50 frames per second and 4 packets each, to be made to go wrong.
    struct Run {
        stream: StreamLog,
        down: Vec<PacketRecord>,
        up: Vec<PacketRecord>,
        samples: Vec<Sample>,
    }

    impl Run {
        fn new() -> Self {
            let mut run =
                Self { stream: StreamLog::default(), down: Vec::new(), up: Vec::new(), samples: Vec::new() };
            for i in 0..150u64 {
                let at = i * PERIOD_US;
                run.stream.on_captured(FrameId(i), at, 4_000);
                run.stream.on_complete(FrameId(i), at + 3_000 + DELAY_US);
                for n in 0..4 {
                    let sent_us = at + n * 1_000;
                    run.down.push(PacketRecord {
                        sent_us,
                        arrived_us: sent_us + DELAY_US,
                        wire_bytes: 1_100,
                    });
                }
                let sent_us = at + DELAY_US;
                run.up.push(PacketRecord { sent_us, arrived_us: sent_us + DELAY_US, wire_bytes: 80 });
            }
            for i in 1..=30 {
                run.samples.push(Sample { at_us: i * 100_000, offered_bytes: 100_000, ..Sample::default() });
            }
            run
        }

        /// Frames of these numbers never become complete.
        fn incomplete(&mut self, frames: std::ops::Range<usize>) {
            self.stream.frames[frames].iter_mut().for_each(|f| f.complete_us = u64::MAX);
        }

        fn packets(&mut self, frames: std::ops::Range<usize>) -> impl Iterator<Item = &mut PacketRecord> {
            self.down[frames.start * 4..frames.end * 4].iter_mut()
        }

        fn causes(&self) -> Vec<Cause> {
            let log = RunLog {
                stream: &self.stream,
                down: &self.down,
                up: &self.up,
                samples: &self.samples,
                delay_us: (DELAY_US, DELAY_US),
                encode_us: 0,
                period_us: PERIOD_US,
                span_us: (0, 2_900_000),
            };
            explain(&log).into_iter().map(|stale| stale.cause).collect()
        }
    }

    #[test]
    fn a_sound_run_has_nothing_to_explain() {
        assert_eq!(Run::new().causes(), []);
    }

    /// One lost packet, and the client sits there for 300 ms: there was time for many round trips.
    #[test]
    fn a_loss_that_nobody_repaired_is_a_fault() {
        let mut run = Run::new();
        run.incomplete(50..65);
        run.down[50 * 4 + 2].arrived_us = PacketRecord::LOST;
        assert_eq!(run.causes(), [Cause::Avoidable]);
    }

    /// Everything arrived, and nothing was handed out.
    #[test]
    fn a_freeze_without_any_reason_is_a_fault() {
        let mut run = Run::new();
        run.incomplete(50..65);
        assert_eq!(run.causes(), [Cause::Avoidable]);
    }

    #[test]
    fn an_outage_is_none_but_sitting_there_after_it_is() {
        let mut run = Run::new();
        run.incomplete(50..80);
        // 300 ms in which nothing leaves the queue.
        let until = 65 * PERIOD_US;
        run.packets(50..65).for_each(|p| p.arrived_us = until + DELAY_US);
        assert_eq!(run.causes()[0], Cause::Outage);
        let after = run.causes();
        assert_eq!(after.get(1), Some(&Cause::Avoidable), "it lasts for 300 ms more: {after:?}");
        for i in 66..80 {
            run.stream.frames[i].complete_us = i as u64 * PERIOD_US + 14_000;
        }
        assert_eq!(run.causes(), [Cause::Outage]);
    }

    #[test]
    fn losses_without_end_cannot_be_repaired() {
        let mut run = Run::new();
        run.incomplete(50..60);
        // Every other packet, those that would replace them included.
        run.packets(50..60).step_by(2).for_each(|p| p.arrived_us = PacketRecord::LOST);
        assert_eq!(run.causes(), [Cause::Loss]);
    }

    /// The frame was lost with everything for 90 ms after it; what would repair it comes after its deadline, and
    /// a frame that does without it could be encoded only then.
    #[test]
    fn what_cannot_come_before_its_deadline_is_not_asked_for() {
        let mut run = Run::new();
        run.incomplete(50..57);
        run.packets(50..54).for_each(|p| p.arrived_us = PacketRecord::LOST);
        assert_eq!(run.causes(), [Cause::Loss]);
        run.incomplete(57..70);
        assert_eq!(run.causes(), [Cause::Loss, Cause::Avoidable]);
    }

    #[test]
    fn nobody_misses_a_picture_who_is_not_there() {
        let mut run = Run::new();
        run.incomplete(50..65);
        run.stream.absent.push((51 * PERIOD_US, 64 * PERIOD_US));
        assert_eq!(run.causes(), [Cause::Source]);
    }

    #[test]
    fn a_queue_and_a_smaller_capacity_are_told_apart() {
        let mut run = Run::new();
        run.incomplete(50..56);
        run.packets(50..56).for_each(|p| p.arrived_us += 130_000);
        // No gap: what came before is late too.
        for (i, packet) in run.down[44 * 4..50 * 4].iter_mut().enumerate() {
            packet.arrived_us += 5_000 * i as u64;
        }
        for i in 44..50 {
            run.stream.frames[i].complete_us = run.down[i * 4 + 3].arrived_us;
        }
        assert!(run.causes().iter().all(|&c| c == Cause::Queue), "{:?}", run.causes());
        for sample in &mut run.samples[9..] {
            sample.offered_bytes = 30_000;
        }
        assert!(run.causes().contains(&Cause::CapacityDrop), "{:?}", run.causes());
    }

    #[test]
    fn holding_back_needs_a_reason() {
        let mut run = Run::new();
        let held: Vec<_> = (50..70).map(|i| (i * PERIOD_US, Idle::Held)).collect();
        run.stream.frames.drain(50..70);
        run.down.drain(50 * 4..70 * 4);
        run.stream.idle = held;
        assert_eq!(run.causes(), [Cause::HeldForNothing]);
        run.down[49 * 4].arrived_us = PacketRecord::LOST;
        assert_eq!(run.causes(), [Cause::Loss]);
        run.stream.idle.iter_mut().for_each(|idle| idle.1 = Idle::Paused);
        assert_eq!(run.causes(), [Cause::Source]);
    }

    /// A loss behind a queue of 200 ms: what replaces it stands there too, and what replaces that. A client that still
    /// has nothing then was not served.
    #[test]
    fn repair_waits_in_the_queue_and_not_for_ever() {
        let mut run = Run::new();
        run.packets(40..150).for_each(|p| p.arrived_us += 200_000);
        for (i, frame) in run.stream.frames.iter_mut().enumerate().skip(40) {
            frame.complete_us = i as u64 * PERIOD_US + 213_000;
        }
        run.incomplete(50..68);
        run.down[50 * 4 + 2].arrived_us = PacketRecord::LOST;
        assert!(!run.causes().contains(&Cause::Avoidable), "{:?}", run.causes());
        run.incomplete(68..120);
        assert!(run.causes().contains(&Cause::Avoidable), "{:?}", run.causes());
    }

    #[test]
    fn a_long_way_is_nobodys_fault() {
        let mut run = Run::new();
        run.stream.frames.iter_mut().for_each(|f| f.complete_us += 90_000);
        run.down.iter_mut().for_each(|p| p.arrived_us += 90_000);
        let log = RunLog {
            stream: &run.stream,
            down: &run.down,
            up: &run.up,
            samples: &run.samples,
            delay_us: (DELAY_US + 90_000, DELAY_US),
            encode_us: 0,
            period_us: PERIOD_US,
            span_us: (0, 2_900_000),
        };
        let causes: Vec<_> = explain(&log).into_iter().map(|stale| stale.cause).collect();
        assert!(!causes.is_empty() && causes.iter().all(|&c| c == Cause::Distance), "{causes:?}");
    }
}

//! How much parity a group of packets gets.
//!
//! Owns the pattern in which the path loses packets at random (how many, and how many in a row), and the trade of
//! parity against frames that come late: parity costs bandwidth all the time, a resend costs a round trip once.
//! So there is parity only where a resend would come too late, or too often: in the manner of Hairpin (Meng and
//! others, NSDI 2024) and Tooth (An and others, 2025), which both weigh the deadline, the round trip and the
//! size of the frame. Never makes parity, sees no bytes. Invariant: what is lost to a queue never adds parity.

use crate::feedback::{Fate, PacketOutcome};

/// The share of packets lost is the mean over about this many, once there were so many.
const LOSS_PACKETS: f64 = 2_000.0;
/// And over no fewer than this: one loss among the first packets is no pattern.
const LOSS_PACKETS_MIN: f64 = 250.0;
/// Losses that end count this much for the mean of how many are lost in a row.
const RUN_GAIN: f64 = 0.08;
/// Below this share of packets lost there is no parity.
const LOSS_MIN: f64 = 3e-4;
/// What is lost in a row is not taken to be more than this, in packets.
const RUN_MAX: f64 = 64.0;
/// A frame that comes late is worth so many frames' bandwidth. Hairpin's trade-off, solved for the losses that
/// paths have: at 1 % and a short round trip one parity per frame, at 5 % one for each five or six packets.
const LATE_COST: f64 = 3.0;
/// The share of its period that a frame takes to arrive on a path that is used.
const ARRIVAL_SHARE: f64 = 0.9;
/// Until a loss is noticed and asked for, in microseconds.
const NOTICE_US: f64 = 2_000.0;
/// A resend waits behind what is being sent, and the round trip varies; in microseconds.
const RESEND_US: f64 = 4_000.0;
/// Resends that come late although nothing of them is lost: their request is, or their number is large.
const RESEND_MISS: f64 = 0.02;
/// Not more parity than one for so many packets, but for the first: a path that would need more is not mended by
/// parity.
const PACKETS_PER_PARITY: usize = 3;
/// The most parities of a group.
const PARITIES_MAX: usize = 21;
/// Groups over which the share of parity that is told is averaged.
const SHARE_GROUPS: f32 = 16.0;

/// The policy of one session.
#[derive(Debug)]
pub(super) struct Protection {
    /// Otherwise nothing is protected.
    is_on: bool,
    /// Share of packets that are lost without a queue.
    loss: f64,
    /// Packets that `loss` is the mean of.
    seen: f64,
    /// Mean length of a run of lost packets.
    run: f64,
    /// Lost in a row now.
    lost_in_row: u32,
    rtt_us: f64,
    period_us: f64,
    /// A frame that is whole this long after it was captured is in time, in microseconds.
    deadline_us: f64,
    /// Parities per packet lately.
    share: f32,
}

impl Protection {
    /// `deadline_us`: after this long a frame is not shown any more. Half of it is for what nobody plans.
    pub(super) fn new(deadline_us: u64) -> Self {
        Self {
            is_on: false,
            loss: 0.0,
            seen: LOSS_PACKETS_MIN,
            run: 1.0,
            lost_in_row: 0,
            rtt_us: 0.0,
            period_us: 16_667.0,
            deadline_us: deadline_us as f64 / 2.0,
            share: 0.0,
        }
    }

    pub(super) fn set_on(&mut self, is_on: bool) {
        self.is_on = is_on;
    }

    pub(super) fn set_rtt(&mut self, rtt_us: u64) {
        self.rtt_us = rtt_us as f64;
    }

    /// The time between two frames, in microseconds.
    pub(super) fn set_period(&mut self, period_us: u64) {
        self.period_us = (period_us as f64).max(1_000.0);
    }

    /// A packet's fate is known. `is_queued`: it, or what came before it, waited in a queue, which is what drops
    /// packets then.
    #[inline]
    pub(super) fn on_outcome(&mut self, outcome: &PacketOutcome, is_queued: bool) {
        let is_lost = outcome.fate == Fate::Lost;
        if is_queued {
            self.lost_in_row = 0;
            return;
        }
        self.seen = (self.seen + 1.0).min(LOSS_PACKETS);
        self.loss += (f64::from(u8::from(is_lost)) - self.loss) / self.seen;
        if is_lost {
            self.lost_in_row += 1;
        } else if self.lost_in_row > 0 {
            let run = f64::from(core::mem::take(&mut self.lost_in_row)).min(RUN_MAX);
            self.run += RUN_GAIN * (run - self.run);
        }
    }

    /// The path loses packets that did not wait in a queue.
    pub(super) fn expects_losses(&self) -> bool {
        self.loss >= LOSS_MIN
    }

    /// Packets need room for the parity of their group.
    pub(super) fn is_needed(&self) -> bool {
        self.is_on && self.expects_losses()
    }

    /// Parities for each packet lately.
    pub(super) fn share(&self) -> f32 {
        self.share
    }

    /// How many parities a group of `packets` gets.
    pub(super) fn parities(&mut self, packets: usize) -> usize {
        let parities = if self.is_needed() { self.cheapest(packets) } else { 0 };
        self.share += (parities as f32 / packets.max(1) as f32 - self.share) / SHARE_GROUPS;
        parities
    }

    /// The number of parities at which they and the frames that are late in spite of them cost least.
    fn cheapest(&self, packets: usize) -> usize {
        let most = (packets / PACKETS_PER_PARITY).clamp(usize::from(packets > 0), PARITIES_MAX);
        let late = LATE_COST * self.late_if_lost();
        let mut losses = Losses::new(self.loss, self.run);
        (0..packets).for_each(|_| losses.add_packet());
        let mut best = (f64::INFINITY, 0);
        for parities in 0..=most {
            let cost = parities as f64 / packets.max(1) as f64 + late * losses.more_than(parities);
            if cost < best.0 {
                best = (cost, parities);
            }
            losses.add_packet();
        }
        best.1
    }

    /// How many frames are late for each that parity did not mend.
    fn late_if_lost(&self) -> f64 {
        let frame_us = self.period_us * ARRIVAL_SHARE;
        let slack_us = self.deadline_us - self.rtt_us / 2.0 - frame_us - NOTICE_US;
        let round_us = self.rtt_us + RESEND_US;
        let missed = (self.loss + RESEND_MISS).min(1.0);
        if slack_us >= round_us {
            return missed.powf((slack_us / round_us).floor());
        }
        // The sooner a packet of the frame is lost, the sooner it is sent again; those of the last part are late.
        let late_us = round_us - slack_us;
        if late_us < frame_us {
            return late_us / frame_us + missed;
        }
        // A whole frame too late, it holds up those behind it.
        1.0 + (late_us - frame_us) / self.period_us
    }
}

/// The distribution of how many of some packets in a row are lost, by the model of Gilbert (1960): a path that loses
/// all or nothing, and changes from one to the other at random.
#[derive(Clone, Debug)]
struct Losses {
    /// From losing nothing to losing, per packet, and back.
    begins: f64,
    ends: f64,
    /// Probability of each count of losses, with the path losing nothing, and losing. The last is for all more.
    counts: [[f64; 2]; PARITIES_MAX + 2],
}

impl Losses {
    fn new(loss: f64, run: f64) -> Self {
        let loss = loss.clamp(0.0, 0.5);
        // Losses that know nothing of each other have runs of this mean, which is the least.
        let ends = (1.0 / run.max(1.0)).min(1.0 - loss);
        let begins = loss * ends / (1.0 - loss);
        let mut counts = [[0.0; 2]; PARITIES_MAX + 2];
        counts[0] = [1.0 - loss, loss];
        Self { begins, ends, counts }
    }

    /// One more packet is sent, in the state of the path; then that may change.
    fn add_packet(&mut self) {
        let last = self.counts.len() - 1;
        let mut lost_before = 0.0;
        for (count, [well, bad]) in self.counts.iter_mut().enumerate() {
            let lost = if count == last { lost_before + *bad } else { lost_before };
            lost_before = *bad;
            let kept = *well;
            *well = kept * (1.0 - self.begins) + lost * self.ends;
            *bad = kept * self.begins + lost * (1.0 - self.ends);
        }
    }

    /// The probability of more losses than `count`.
    fn more_than(&self, count: usize) -> f64 {
        self.counts.iter().skip(count + 1).map(|[well, bad]| well + bad).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feedback::SentPacket;

    const LOST: PacketOutcome = PacketOutcome { packet: PACKET, fate: Fate::Lost };
    const HERE: PacketOutcome =
        PacketOutcome { packet: PACKET, fate: Fate::Arrived { arrived_us: 0, delay_us: 0, marked: false } };
    const PACKET: SentPacket = SentPacket {
        id: crate::PacketId(0),
        frame: crate::FrameId(0),
        position: 0,
        kind: crate::feedback::PacketKind::Data,
        bytes: 1_228,
        sent_at: crate::Timestamp::ZERO,
    };

    /// A path that loses `loss` in runs of `run`, and a round trip of `rtt_us`.
    fn path(loss: f64, run: u64, rtt_us: u64) -> Protection {
        let mut protection = Protection::new(100_000);
        protection.set_on(true);
        protection.set_rtt(rtt_us);
        let mut rng = fastrand::Rng::with_seed(3);
        let mut left = 0;
        for _ in 0..20_000 {
            if left == 0 && rng.f64() < loss / run as f64 {
                left = run;
            }
            protection.on_outcome(if left > 0 { &LOST } else { &HERE }, false);
            left = left.saturating_sub(1);
        }
        protection
    }

    /// Proves R-FEC-11.
    #[test]
    fn parity_is_where_a_resend_would_be_late_or_be_needed_often() {
        assert_eq!(path(0.0, 1, 80_000).parities(28), 0);
        // On a LAN there is time for several resends.
        assert_eq!(path(0.01, 1, 1_000).parities(28), 0);
        assert_eq!(path(0.01, 1, 20_000).parities(28), 1);
        assert!((3..=4).contains(&path(0.05, 1, 20_000).parities(26)));
        assert!((2..=3).contains(&path(0.01, 1, 80_000).parities(28)));
        assert!(path(0.05, 1, 80_000).parities(26) > path(0.05, 1, 20_000).parities(26));
        // A run of eight would need eight, and there is time to send them again.
        assert_eq!(path(0.02, 8, 20_000).parities(26), 0);
        let mut long = path(0.02, 8, 80_000);
        assert!((6..=8).contains(&long.parities(26)), "but not at 80 ms");
        assert!(long.parities(2) <= 1);
    }

    /// Proves R-FEC-12.
    #[test]
    fn what_is_lost_in_a_queue_adds_no_parity() {
        let mut protection = path(0.01, 1, 80_000);
        let before: Vec<usize> = (1..64).map(|packets| protection.cheapest(packets)).collect();
        for i in 0..5_000 {
            protection.on_outcome(if i % 4 == 0 { &LOST } else { &HERE }, true);
        }
        assert!((1..64).map(|packets| protection.cheapest(packets)).eq(before));
        for i in 0..5_000 {
            protection.on_outcome(if i % 4 == 0 { &LOST } else { &HERE }, false);
        }
        assert!(protection.parities(28) >= 8);
        (0..20_000).for_each(|_| protection.on_outcome(&HERE, false));
        assert_eq!(protection.parities(28), 0);
    }

    #[test]
    fn the_distribution_of_losses_is_that_of_the_path() {
        // Independent losses: the binomial distribution.
        let mut losses = Losses::new(0.05, 1.0);
        (0..30).for_each(|_| losses.add_packet());
        let none = 0.95f64.powi(30);
        assert!((losses.more_than(0) - (1.0 - none)).abs() < 1e-9);
        let one = 30.0 * 0.05 * 0.95f64.powi(29);
        assert!((losses.more_than(1) - (1.0 - none - one)).abs() < 1e-9);
        // In runs of eight the same share hits far fewer groups, and those harder.
        let mut runs = Losses::new(0.05, 8.0);
        (0..30).for_each(|_| runs.add_packet());
        assert!(runs.more_than(0) < 0.3 && runs.more_than(4) > 0.1);
        (0..100).for_each(|_| runs.add_packet());
        let all: f64 = runs.counts.iter().flatten().sum();
        assert!((all - 1.0).abs() < 1e-9);
    }
}

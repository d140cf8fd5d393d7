//! How much parity a group of packets gets.
//!
//! Owns the pattern in which the path loses packets at random (how many, and how many in a row), and the trade of
//! parity against frames that come late: parity costs bandwidth all the time, a resend costs a round trip once.
//! So there is parity only where a resend would come too late, or too often: in the manner of Hairpin (Meng and
//! others, NSDI 2024) and Tooth (An and others, 2025), which both weigh the deadline, the round trip and the
//! size of the frame. Never makes parity, sees no bytes. Invariant: what is lost to a queue never adds parity.

use super::losses::{COUNTS, Losses};
use crate::fec::SHARDS_MAX;
use crate::feedback::{Fate, LossRuns, PacketOutcome};

/// The share of packets lost is the mean over about this many, once there were so many.
const LOSS_PACKETS: f64 = 2_000.0;
/// And over no fewer than this: one loss among the first packets is no pattern.
const LOSS_PACKETS_MIN: f64 = 250.0;
/// Below this share of packets lost there is no parity.
const LOSS_MIN: f64 = 3e-4;
/// A frame that comes late is worth so many frames' bandwidth. Hairpin's trade-off, solved for the losses that
/// paths have: at 1 % and a short round trip one parity per frame, at 5 % one for each five or six packets.
const LATE_COST: f64 = 3.4;
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
pub(super) const PARITIES_MAX: usize = 21;
/// What a frame costs that waits for the parity of the next one, of what one costs that comes late.
const WAIT_COST: f64 = 0.1;
/// The sliding code gets parity by so many parts of one per frame: over several frames they add up.
const PARTS: usize = 4;
/// Packets over which the sliding code reaches: what else is sent within its span takes some.
const REACH_PACKETS: f64 = 112.0;
/// What is lost in longer runs than this is too much for the parity of several frames as for that of one.
const RUN_SLIDING_MAX: f64 = 3.0;
/// Frames back that parity may reach.
const REACH_MAX: u64 = 7;
/// Frames over which their length is averaged.
const LENGTH_FRAMES: f64 = 16.0;
/// What was found to cost least stays so until the path has changed by this share.
const CHANGE_MIN: f64 = 0.1;
/// What is less probable is left out.
const CHANCE_MIN: f64 = 1e-7;
/// Not found yet.
const UNKNOWN: u8 = u8::MAX;
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
    runs: LossRuns,
    rtt_us: f64,
    period_us: f64,
    /// A frame that is whole this long after it was captured is in time, in microseconds.
    deadline_us: f64,
    /// Parities per packet lately.
    share: f32,
    /// Packets that got parity at once, lately.
    length: f64,
    /// Parts of a parity that are left over.
    credit: usize,
    found: Found,
}

/// What costs least on the path as it was when the first of it was found.
#[derive(Debug)]
struct Found {
    path: [f64; 4],
    reach: u64,
    /// Parities of a group by its packets.
    group: [u8; SHARDS_MAX + 1],
    /// Parts of a parity for a frame by its packets.
    frame: [u8; SHARDS_MAX + 1],
}

impl Protection {
    /// `deadline_us`: after this long a frame is not shown any more. Half of it is for what nobody plans.
    pub(super) fn new(deadline_us: u64) -> Self {
        Self {
            is_on: false,
            loss: 0.0,
            seen: LOSS_PACKETS_MIN,
            runs: LossRuns::default(),
            rtt_us: 0.0,
            period_us: 16_667.0,
            deadline_us: deadline_us as f64 / 2.0,
            share: 0.0,
            length: 0.0,
            credit: 0,
            found: Found {
                path: [0.0; 4],
                reach: 0,
                group: [UNKNOWN; SHARDS_MAX + 1],
                frame: [UNKNOWN; SHARDS_MAX + 1],
            },
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
            self.runs.forget_current();
            return;
        }
        self.seen = (self.seen + 1.0).min(LOSS_PACKETS);
        self.loss += (f64::from(u8::from(is_lost)) - self.loss) / self.seen;
        self.runs.on_packet(is_lost);
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
        let parities = if self.is_needed() { self.found(packets, false) } else { 0 };
        self.on_parities(packets, parities);
        parities
    }

    /// How many frames before its own parity may reach back over: as many as may wait for it. Not longer than for a
    /// resend, and half of the deadline is for what nobody plans.
    pub(super) fn reach(&self) -> u64 {
        if !self.is_needed() || self.length == 0.0 || self.runs.mean() > RUN_SLIDING_MAX {
            return 0;
        }
        let spare_us = self.deadline_us - self.period_us * ARRIVAL_SHARE;
        let frames = spare_us.min(self.rtt_us + RESEND_US) / self.period_us;
        // The casts saturate.
        (frames as u64).min(((REACH_PACKETS / self.length) as u64).saturating_sub(1)).min(REACH_MAX)
    }

    /// How many parities are made behind `packets`, where they reach back.
    pub(super) fn sliding_parities(&mut self, packets: usize) -> usize {
        let parts = if self.is_needed() { self.found(packets, true) } else { 0 };
        self.credit += parts;
        let parities = self.credit / PARTS;
        self.credit %= PARTS;
        self.on_parities(packets, parities);
        parities
    }

    fn on_parities(&mut self, packets: usize, parities: usize) {
        self.share += (parities as f32 / packets.max(1) as f32 - self.share) / SHARE_GROUPS;
        let gain = if self.length == 0.0 { 1.0 } else { 1.0 / LENGTH_FRAMES };
        self.length += gain * (packets as f64 - self.length);
    }

    /// What costs least for so many packets, which is looked for once until the path changes.
    fn found(&mut self, packets: usize, is_sliding: bool) -> usize {
        let path = [self.loss, self.runs.mean(), self.rtt_us, self.period_us];
        let reach = self.reach();
        let is_near = |(now, then): (&f64, &f64)| (now - then).abs() <= CHANGE_MIN * then;
        if !path.iter().zip(&self.found.path).all(is_near) || (is_sliding && reach != self.found.reach) {
            let unknown = [UNKNOWN; SHARDS_MAX + 1];
            self.found = Found { path, reach, group: unknown, frame: unknown };
        }
        let packets = packets.min(SHARDS_MAX);
        let table = if is_sliding { &self.found.frame } else { &self.found.group };
        if table[packets] != UNKNOWN {
            return table[packets].into();
        }
        let best = if is_sliding { self.cheapest_sliding(packets, reach) } else { self.cheapest(packets) };
        let table = if is_sliding { &mut self.found.frame } else { &mut self.found.group };
        table[packets] = best as u8;
        best
    }

    /// The number of parities at which they and the frames that are late in spite of them cost least.
    fn cheapest(&self, packets: usize) -> usize {
        let most = (packets / PACKETS_PER_PARITY).clamp(usize::from(packets > 0), PARITIES_MAX);
        let late = LATE_COST * self.late_if_lost();
        let mut losses = Losses::new(self.loss, self.runs.mean());
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

    /// As [`cheapest`](Self::cheapest), in parts of a parity for each frame of `packets`, where parity reaches over
    /// `reach` frames before its own.
    fn cheapest_sliding(&self, packets: usize, reach: u64) -> usize {
        let most = (packets / PACKETS_PER_PARITY).clamp(usize::from(packets > 0), PARITIES_MAX);
        let late = LATE_COST * self.late_if_lost();
        // By how many parities the frame has.
        let mut lost = [[0.0; COUNTS]; PARITIES_MAX + 1];
        let mut losses = Losses::new(self.loss, self.runs.mean());
        (0..packets).for_each(|_| losses.add_packet());
        for lost in &mut lost[..=most] {
            *lost = losses.counts();
            losses.add_packet();
        }
        let mut best = (f64::INFINITY, 0);
        for parts in 0..=most * PARTS {
            let share = parts as f64 / (PARTS * packets.max(1)) as f64;
            if share >= best.0 {
                break;
            }
            let (waits, fails) = lacking(&lost, parts, reach);
            let cost = share + late * (fails + WAIT_COST * waits);
            if cost < best.0 {
                best = (cost, parts);
            }
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

/// How many frames are not mended by their own parity, and how many by none of those that reach back to them. `lost`
/// tells by parities of a frame how many of its packets are lost; it has `parts` of a parity.
fn lacking(lost: &[[f64; COUNTS]], parts: usize, reach: u64) -> (f64, f64) {
    let (mut waits, mut fails) = (0.0, 0.0);
    // Where in the sequence of whole parities the first loss falls.
    for phase in 0..PARTS {
        let parities = |frame: usize| (phase + (frame + 1) * parts) / PARTS - (phase + frame * parts) / PARTS;
        // By how many packets more are lacking than parities came.
        let mut lacks = [0.0; COUNTS];
        for (count, chance) in lost[parities(0)].iter().enumerate().skip(parities(0) + 1) {
            lacks[count - parities(0)] = *chance;
        }
        waits += lacks.iter().sum::<f64>();
        for frame in 1..=reach as usize {
            let mut next = [0.0; COUNTS];
            for (lack, chance) in lacks.iter().enumerate().skip(1).filter(|(_, chance)| **chance > CHANCE_MIN)
            {
                for (count, more) in
                    lost[parities(frame)].iter().enumerate().filter(|(_, more)| **more > CHANCE_MIN)
                {
                    let left = (lack + count).saturating_sub(parities(frame)).min(COUNTS - 1);
                    next[left] += chance * more;
                }
            }
            next[0] = 0.0;
            lacks = next;
        }
        fails += lacks.iter().sum::<f64>();
    }
    (waits / PARTS as f64, fails / PARTS as f64)
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

    /// Proves R-FEC-17.
    #[test]
    fn parity_reaches_back_as_far_as_a_frame_may_wait() {
        let reach = |loss, rtt_us, period_us, packets| {
            let mut protection = path(loss, 1, rtt_us);
            protection.set_period(period_us);
            assert_eq!(protection.reach(), 0, "the length of frames is not known");
            protection.parities(packets);
            protection.reach()
        };
        assert_eq!(reach(0.01, 80_000, 16_667, 28), 2, "half of the deadline");
        assert_eq!(reach(0.01, 20_000, 16_667, 28), 1, "a resend's time");
        assert_eq!(reach(0.01, 1_000, 16_667, 28), 0);
        assert_eq!(reach(0.01, 80_000, 33_333, 28), 0);
        assert_eq!(reach(0.01, 80_000, 8_333, 14), 5);
        assert_eq!(reach(0.01, 80_000, 16_667, 60), 0, "the span of the code");
        assert_eq!(reach(0.0, 80_000, 16_667, 28), 0);
    }

    /// Proves R-FEC-11 for parity that reaches back: less of it mends more.
    #[test]
    fn parity_that_reaches_back_is_less_and_mends_more() {
        let mut protection = path(0.01, 1, 80_000);
        let alone = protection.parities(28) as f64;
        let sliding = (0..400).map(|_| protection.sliding_parities(28)).sum::<usize>() as f64 / 400.0;
        assert!((1.0..=0.8 * alone).contains(&sliding), "{sliding} for {alone}");
        // By the model of the path: how many frames are not mended.
        let mut lost = [[0.0; COUNTS]; PARITIES_MAX + 1];
        let mut losses = Losses::new(0.01, 1.0);
        (0..28).for_each(|_| losses.add_packet());
        for lost in &mut lost {
            *lost = losses.counts();
            losses.add_packet();
        }
        let parts = (sliding * PARTS as f64).round() as usize;
        let fails = |parts, reach| lacking(&lost, parts, reach).1;
        assert!(fails(parts, 2) < fails(alone as usize * PARTS, 0));
        // Against the binomial distribution: more than two lost of thirty.
        let (p, q) = (0.01f64, 0.99f64);
        let two = q.powi(30) + 30.0 * p * q.powi(29) + 435.0 * p * p * q.powi(28);
        assert!((fails(2 * PARTS, 0) - (1.0 - two)).abs() < 1e-9);
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
}

//! DELTA 2: from what became of each packet to what the encoder may make.
//!
//! Owns the target rate, the pace at which frames leave, and the decision to leave frames out. Never
//! touches packets or bytes. It keeps DELTA's states and its question (does the queue grow?), but asks it of
//! one-way delays, measures capacity, and counts in time, not in samples. Invariants: rate and frame rate
//! stay between their bounds whatever is put in; every change has a [`Reason`].

mod capacity;
mod compete;
mod hold;
mod ladder;
mod queue;
mod sending;
#[cfg(test)]
mod tests;
mod trace;

pub use ladder::Scale;
pub use trace::{DecisionTrace, PathState, Reason};

use crate::feedback::{Fate, InFlight, LossRuns, PacketKind, PacketOutcome, ReportSummary, SentPacket};
use crate::{Bitrate, FrameId, Timestamp};
use capacity::Capacity;
use compete::{Rivalry, Seen};
use hold::{Expected, Hold, Turn};
use ladder::Ladder;
use queue::QueueDelay;
use sending::Sending;
use trace::Due;

/// Share of the measured capacity that STABLE goes to. Frame sizes vary by some 15 %, and a path that is
/// filled to the brim drains a large frame's backlog never.
const SHARE: f64 = 0.885;
/// How much of the deviation of single measurements is kept clear of, at first and at most: a path that varies
/// is overrun by its mean.
const CAUTION_FIRST: f64 = 0.5;
const CAUTION_MAX: f64 = 3.0;
/// So much deviation is that of a steady path.
const SCATTER: f64 = 0.04;
/// Caution is learned from congestion, and forgotten with this half life, in microseconds.
const CAUTION_STEP: f64 = 0.8;
const CAUTION_HALF_LIFE_US: f64 = 4e6;
/// Below this part of its goal the rate is multiplied, above it added to.
const NEAR: f64 = 0.93;
/// As long as nothing speaks of others on the path, there is nobody to meet.
const NEAR_ALONE: f64 = 0.98;
/// Growth per round trip and frame, far from the goal. A train that kept up allows 1.5 times the rate, of which
/// `SHARE` is used.
const RAMP: f64 = 1.38;
/// Added near the goal, in bits per second per second: equal for flows that share a path, whatever each sees
/// of it, which is what makes them meet (Chiu and Jain 1989). About a packet per round trip of 4 ms.
const APPROACH_BPS_PER_S: f64 = 2.2e6;
/// On slow paths not more than this share of the capacity per second.
const APPROACH_SHARE_PER_S: f64 = 0.3;
/// Published: what is left of the rate after a congestion.
const BETA: f64 = 0.85;
/// What may be sent of the capacity while a queue drains, at first.
const DRAIN_SHARE: f64 = 0.97;
/// A queue drains within about this long, in microseconds.
const DRAIN_US: f64 = 120_000.0;
/// The most that draining takes of the capacity.
const DRAIN_MAX: f64 = 0.5;
/// `T_limit`: a queue of unknown origin above this is congestion, in microseconds. The published 15 ms are
/// those of a round trip with both its directions; this is one direction with its noise removed.
const LIMIT_US: f64 = 6_000.0;
/// Each microsecond of noise raises the limit by this much.
const LIMIT_PER_NOISE: f64 = 0.75;
/// A queue above this part of the limit that grows holds the rate.
const RISING_SHARE: f64 = 0.5;
/// Loss without delay below this is the air's, not the queue's.
const LOSS_MAX: f64 = 0.10;
/// Of the packets that are lost in a row behind the first, so much room more is left, as a share of what is lost.
const ROOM_PER_LOST: f64 = 0.4;
/// Beside a rival: the share of the whole that is taken, a little less than half, because the rival's own
/// control keeps the queue full and every packet beyond is lost.
const RIVAL_SHARE: f64 = 0.45;
/// Beside a rival: not more of what the own trains see. Behind a path that became slow this is what counts.
const RIVAL_OWN: f64 = 0.9;
/// Beside a rival: added per second, as a share of the whole.
const RIVAL_PER_S: f64 = 0.3;
/// Beside a rival that takes losses: more than it causes by itself.
const RIVAL_LOSS_MAX: f64 = 0.03;
/// A smaller share of marks is what a frame's own burst leaves behind.
const MARK_MIN: f64 = 0.02;
/// Growth over what was really sent.
const OVER_SENT: f64 = 1.5;
/// So many times the least rate are allowed in any case: at a packet or two per frame, what was sent is coarse.
const SENT_LEAST: f64 = 3.0;
/// What is above that is given up with this half life, in microseconds.
const UNUSED_HALF_LIFE_US: f64 = 5e6;
/// A frame leaves within its period divided by this.
const PACE: f64 = 1.5;
/// And not faster than the capacity by more than this: the rest would only fill a shallow buffer.
const PACE_OVER: f64 = 1.15;
/// First pace, over the first rate: the first keyframe measures so much of the path.
const PACE_FIRST: f64 = 4.0;
/// While trains keep up, the pace grows by this per frame: capacity is found without sending more.
const PACE_GROWTH: f64 = 1.5;
/// From this pace on a burst of 128 kB takes less than 3 ms, and frames leave at once.
const PACE_FREE: f64 = 400e6;
/// A congestion's rate limits the ramp until the path has been calm for this long, in microseconds.
const CALM_US: u64 = 2_000_000;
/// And the last frames count for what is sent, not only their mean, if there was none for this long.
const BOLD_US: u64 = 10_000_000;
/// A queue that takes several steps to drain is one congestion: the rate before its first step is forgotten with this
/// half life, in microseconds.
const BEFORE_HALF_LIFE_US: f64 = 500_000.0;
/// A capacity so much higher than at the last congestion is another path.
const OTHER_PATH: f64 = 1.25;
/// Every packet was told of within round trip, noise, report interval and this; in microseconds. The sooner a path
/// that stands still is noticed, the less is put behind it.
const GRACE_US: u64 = 4_000;
/// How much of the noise that takes, as a multiple.
const LATE_NOISE: f64 = 1.5;
/// Where more is lost than this, the end of a frame may be, for which the report waits so long, in microseconds.
const LATE_LOSS: f64 = 1e-3;
const LATE_LOSS_US: u64 = 8_000;
/// Packets overdue and no report for longer than this are an outage, not a hiccup; in microseconds.
const OUTAGE_US: u64 = 100_000;
/// What is told lost after packets were overdue and nothing came for this long was lost to a path that stood still; in
/// microseconds. It says nothing about one that moves.
const STOOD_STILL_US: u64 = 45_000;
/// What is left of the rate after an outage.
const AFTER_OUTAGE: f64 = 0.5;
/// And of that in an outage: a frame that only tries the path should not be what it has to carry when it is back.
const PROBE_SHARE: f64 = 0.1;
/// With jitter above this, in microseconds, the evidence of an empty queue counts.
const LIFT_NOISE_US: f64 = 1_000.0;
/// Once there was no queue for this long, in microseconds.
const LIFT_CALM_US: u64 = 1_000_000;
/// By so much per second, and not beyond.
const LIFT_PER_S: f64 = 0.10;
const LIFT_MAX: f64 = 1.5;
/// What a queue leaves of it.
const LIFT_LEFT: f64 = 0.93;
/// The share of what trains tell of that may be used then.
const LIFT_SHARE_MAX: f64 = 1.4;
/// Packets that waited for longer than this and noise are in a queue that drops some, in microseconds. A frame of
/// usual size waits for a fifth of its length behind itself.
const QUEUED_US: f64 = 8_000.0;
/// The least round trip counts for this long, in microseconds.
const RTT_WINDOW_US: u64 = 10_000_000;

/// Bounds and starting points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delta2Config {
    /// The least video rate.
    pub bitrate_min: Bitrate,
    /// The highest video rate.
    pub bitrate_max: Bitrate,
    /// The first video rate.
    pub bitrate_initial: Bitrate,
    /// The highest frame rate, in frames per second.
    pub fps_max: u32,
}

/// The controller.
#[derive(Debug)]
pub struct Delta2 {
    config: Delta2Config,
    state: PathState,
    reason: Reason,
    /// Everything that may leave, in bits per second.
    rate_bps: f64,
    queue: QueueDelay,
    capacity: Capacity,
    sending: Sending,
    ladder: Ladder,
    /// The frame whose first packet was seen, and how long the host's own backlog made it wait.
    front: Option<FrameId>,
    own_wait_us: f64,
    foreign_us: f64,
    /// Delay of the first packet of the newest frame, and how much more the last packet had, in microseconds.
    front_delay_us: i64,
    behind_front_us: f64,
    pace_bps: f64,
    rtt_min_us: RttMin,
    loss: f64,
    /// As of the report before.
    loss_before: f64,
    runs: LossRuns,
    mark: f64,
    updated_at: Timestamp,
    reduced_at: Timestamp,
    /// Rate, capacity and time of the last congestion.
    congestion: Option<(f64, f64, Timestamp)>,
    caution: f64,
    /// What the path carries over what its trains say, by the evidence of an empty queue.
    lift: f64,
    calm_since: Timestamp,
    rivalry: Rivalry,
    hold: Hold,
    /// Of the report that is being read.
    arrived_bytes: u64,
    report_interval_us: f64,
    last_report: Option<Timestamp>,
    /// From the report before to the newest.
    silence_us: u64,
    due: Due,
}

/// The least round trip of the last one to two windows.
#[derive(Clone, Copy, Debug)]
struct RttMin {
    began: Timestamp,
    current_us: u64,
    before_us: u64,
}

impl RttMin {
    fn insert(&mut self, now: Timestamp, rtt_us: u64) {
        if now.micros_since(self.began) >= RTT_WINDOW_US || now < self.began {
            *self = Self { began: now, before_us: self.current_us, current_us: rtt_us };
        }
        self.current_us = self.current_us.min(rtt_us);
    }

    fn us(&self) -> Option<u64> {
        let us = self.current_us.min(self.before_us);
        (us != u64::MAX).then_some(us.min(2_000_000))
    }
}

impl Delta2 {
    /// Starts at the initial rate.
    #[must_use]
    pub fn new(config: &Delta2Config) -> Self {
        let bitrate_min = config.bitrate_min.max(Bitrate::from_kbps(100));
        let bitrate_max = config.bitrate_max.max(bitrate_min);
        let config = Delta2Config { bitrate_min, bitrate_max, fps_max: config.fps_max.max(1), ..*config };
        let initial = config.bitrate_initial.clamp(bitrate_min, bitrate_max).as_bps() as f64;
        let sending = Sending::new();
        let rate_bps = initial * sending.overhead();
        Self {
            config,
            state: PathState::Stable,
            reason: Reason::Start,
            rate_bps,
            queue: QueueDelay::new(),
            capacity: Capacity::default(),
            sending,
            ladder: Ladder::new(config.fps_max),
            front: None,
            own_wait_us: 0.0,
            foreign_us: 0.0,
            front_delay_us: 0,
            behind_front_us: 0.0,
            pace_bps: rate_bps * PACE_FIRST,
            rtt_min_us: RttMin { began: Timestamp::ZERO, current_us: u64::MAX, before_us: u64::MAX },
            loss: 0.0,
            loss_before: 0.0,
            runs: LossRuns::default(),
            mark: 0.0,
            updated_at: Timestamp::ZERO,
            reduced_at: Timestamp::ZERO,
            congestion: None,
            caution: CAUTION_FIRST,
            lift: 1.0,
            calm_since: Timestamp::ZERO,
            rivalry: Rivalry::default(),
            hold: Hold::default(),
            arrived_bytes: 0,
            report_interval_us: 0.0,
            last_report: None,
            silence_us: 0,
            due: Due::default(),
        }
    }

    /// A slice of a frame was handed over for sending.
    pub fn on_slice(&mut self, now: Timestamp, bytes: usize, ends_frame: bool) {
        let capacity_bps = self.capacity.bps().unwrap_or(f64::INFINITY);
        self.sending.on_encoded(now, bytes as u64, ends_frame, capacity_bps);
        if ends_frame {
            self.hold.on_frame(now);
        }
    }

    /// A packet of video left.
    #[inline]
    pub fn on_sent(&mut self, packet: &SentPacket) {
        let capacity_bps = self.capacity.bps().unwrap_or(f64::INFINITY);
        self.sending.on_sent(packet, capacity_bps);
    }

    /// A packet's fate is known.
    #[inline]
    pub fn on_outcome(&mut self, outcome: &PacketOutcome) {
        let packet = &outcome.packet;
        // Over about 200 packets: with less, one lost frame of a random loss would look like a flood.
        self.loss += (f64::from(u8::from(outcome.is_lost())) - self.loss) / 200.0;
        self.runs.on_packet(outcome.is_lost());
        let Fate::Arrived { delay_us, marked, .. } = outcome.fate else {
            if self.loss < LOSS_MAX && !self.is_queued() {
                self.capacity.on_lost(packet);
            }
            return;
        };
        self.arrived_bytes = self.arrived_bytes.saturating_add(packet.bytes.into());
        self.mark += (f64::from(u8::from(marked)) - self.mark) / 64.0;
        if packet.kind == PacketKind::Data && self.front.is_none_or(|front| packet.frame > front) {
            self.front = Some(packet.frame);
            self.front_delay_us = delay_us;
            self.queue.on_first_packet(packet.sent_at, delay_us);
            let own_us = self.sending.own_wait_us(packet.frame);
            self.own_wait_us = own_us;
            self.foreign_us = (self.queue.steady_us() - self.queue.floor_us() - own_us).max(0.0);
        }
        self.behind_front_us = delay_us.saturating_sub(self.front_delay_us).max(0) as f64;
        let noise_us = self.noise_us();
        self.capacity.on_outcome(outcome, noise_us, self.queue.waited_us());
    }

    /// A report was read: time to decide.
    pub fn on_report(&mut self, now: Timestamp, summary: &ReportSummary, flight: InFlight) {
        self.hold.on_arrived(now, core::mem::take(&mut self.arrived_bytes));
        if let Some(rtt_us) = summary.rtt_us {
            self.rtt_min_us.insert(now, rtt_us);
        }
        if let Some(last) = self.last_report.replace(now) {
            self.silence_us = now.micros_since(last);
            let interval_us = (self.silence_us as f64).min(100_000.0);
            // The longest counts, and is forgotten within a second or so.
            self.report_interval_us = interval_us.max(self.report_interval_us * 0.97);
        }
        if self.hold.is_waiting() && self.silence_us > STOOD_STILL_US {
            self.loss = self.loss.min(self.loss_before);
        }
        self.loss_before = self.loss;
        self.check_overdue(now, flight);
        self.decide(now);
    }

    /// A frame is known to have come, of which no report need have told yet.
    pub fn on_frame_acked(&mut self, now: Timestamp, flight: InFlight) {
        self.check_overdue(now, flight);
    }

    /// Notices what time brings.
    pub fn handle_timeout(&mut self, now: Timestamp, flight: InFlight) {
        self.check_overdue(now, flight);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn poll_timeout(&self) -> Timestamp {
        self.hold.poll_timeout(&self.expected())
    }

    /// What the encoder should make, without parity and headers.
    #[must_use]
    pub fn target_bitrate(&self) -> Bitrate {
        let drained = self.rate_bps
            - self.sending.drain_bps(self.capacity.bps().unwrap_or(f64::INFINITY), self.period_us());
        let share = if self.hold.is_outage() { PROBE_SHARE } else { 1.0 };
        let bps = share * drained.max(self.rate_bps * 0.4) / self.sending.overhead();
        Bitrate::from_bps(bps as u64).clamp(self.config.bitrate_min, self.config.bitrate_max)
    }

    /// Frames per second that the encoder should make.
    #[must_use]
    pub fn target_fps(&self) -> u32 {
        self.ladder.fps()
    }

    /// The resolution that the rate suffices for.
    #[must_use]
    pub fn scale(&self) -> Scale {
        self.ladder.scale()
    }

    /// Frames should not be encoded now: what was sent has not arrived.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.hold.is_on()
    }

    /// What was sent is overdue, whether or not a frame is let through to try the path.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.hold.is_waiting()
    }

    /// The rate at which packets of a frame follow each other; `None` for at once.
    #[must_use]
    pub fn pacing(&self) -> Option<Bitrate> {
        (self.pace_bps < PACE_FREE).then(|| Bitrate::from_bps(self.pace_bps as u64))
    }

    /// What the path looks like.
    #[must_use]
    pub fn state(&self) -> PathState {
        self.state
    }

    /// The oldest decision that was not fetched.
    pub fn poll_trace(&mut self) -> Option<DecisionTrace> {
        self.due.pop()
    }

    /// The clock jumped: times from before mean nothing.
    pub fn on_clock_jump(&mut self, now: Timestamp) {
        self.queue = QueueDelay::new();
        self.hold = Hold::default();
        self.last_report = None;
        self.rtt_min_us = RttMin { began: now, current_us: u64::MAX, before_us: u64::MAX };
        (self.updated_at, self.reduced_at) = (now, now);
        self.sending.on_clock_jump(now);
    }

    /// The packets that arrived last had waited longer than noise explains: what is lost among them is lost to the
    /// queue.
    #[must_use]
    pub fn is_queued(&self) -> bool {
        let waited_us = self.queue.waited_us() - self.queue.floor_us() + self.behind_front_us;
        self.rivalry.is_on() || waited_us > QUEUED_US + 2.0 * self.noise_us()
    }

    fn noise_us(&self) -> f64 {
        self.queue.noise_us()
    }

    fn period_us(&self) -> f64 {
        1e6 / f64::from(self.ladder.fps())
    }

    fn rtt_us(&self) -> f64 {
        self.rtt_min_us.us().unwrap_or(50_000) as f64
    }

    /// What packets and reports take when nothing is wrong.
    fn expected(&self) -> Expected {
        let noise_us = LATE_NOISE * self.queue.noise_us();
        let queue_us = if self.rivalry.is_on() { self.queue.waited_us() } else { self.queue.floor_us() };
        let empty_us = self.rtt_us() + noise_us + queue_us;
        let loss_us = if self.loss > LATE_LOSS { LATE_LOSS_US } else { 0 };
        Expected {
            patience_us: (empty_us + self.report_interval_us) as u64 + GRACE_US + loss_us,
            silence_us: (noise_us + self.report_interval_us) as u64 + loss_us,
            empty_us,
            capacity_bps: self.capacity.bps().unwrap_or(f64::INFINITY),
        }
    }

    fn check_overdue(&mut self, now: Timestamp, flight: InFlight) {
        if self.rtt_min_us.us().is_none() {
            // Nothing ever arrived, so nothing is late.
            return;
        }
        match self.hold.update(now, flight, &self.expected()) {
            Some(Turn::Held) => {
                self.unlift(now);
                self.caution = (self.caution + CAUTION_STEP).min(CAUTION_MAX);
                self.note(now, Reason::Overdue);
            }
            Some(Turn::Probe) => self.note(now, Reason::Probe),
            Some(Turn::Released(us)) => {
                // What the path carried before it stood still is no promise.
                if self.silence_us.min(us) > OUTAGE_US {
                    self.rate_bps *= AFTER_OUTAGE;
                }
                self.note(now, Reason::Resumed);
            }
            None => {}
        }
    }

    fn decide(&mut self, now: Timestamp) {
        let dt_us = (now.micros_since(self.updated_at) as f64).min(100_000.0);
        self.updated_at = now;
        let before = self.rate_bps;
        self.caution *= 0.5f64.powf(dt_us / CAUTION_HALF_LIFE_US);
        let noise_us = self.noise_us();
        let limit_us = LIMIT_US + LIMIT_PER_NOISE * noise_us;
        let queue_us = (self.foreign_us - 2.0 * noise_us).max(0.0);
        let seen = Seen {
            queue_us,
            limit_us: LIMIT_US,
            rtt_us: self.rtt_us(),
            rate_bps: self.rate_bps,
            capacity_bps: self.capacity.bps(),
            apart: self.capacity.apart(),
        };
        let switched = self.rivalry.update(now, dt_us, &seen);
        if let Some(reason) = switched {
            if reason == Reason::Compete {
                self.rate_bps = self.rate_bps.max(self.rivalry.before_test_bps(now));
            } else {
                // Whoever else is there must not be met by a ramp. But whoever is gone took a share that is free again.
                let capacity_bps = self.capacity.bps().unwrap_or(self.rate_bps);
                let is_gone = seen.queue_us <= LIMIT_US;
                let free_bps = if is_gone { self.rivalry.whole_bps() } else { 0.0 };
                let rate = self.rate_bps.max(free_bps);
                self.congestion = Some((rate, capacity_bps, now));
            }
            self.note(now, reason);
        }
        let reason = if self.rivalry.is_on() {
            self.compete(now, dt_us)
        } else {
            self.slow_frame(now, noise_us).or_else(|| self.congested(now, limit_us))
        };
        let reason = match reason {
            Some(reason) => Some(reason),
            None if self.rivalry.is_on() => None,
            None if self.loss > LOSS_MAX || self.mark > MARK_MIN => {
                // Answered, and not over yet.
                self.state = PathState::Congested;
                None
            }
            None if self.foreign_us > limit_us * RISING_SHARE => {
                self.state = PathState::Rising;
                None
            }
            None => {
                self.state = PathState::Stable;
                self.grow(now, dt_us)
            }
        };
        let (min, max) = (self.config.bitrate_min.as_bps() as f64, self.config.bitrate_max.as_bps() as f64);
        let overhead = self.sending.overhead();
        self.rate_bps = self.rate_bps.clamp(min * overhead, max * overhead);
        self.set_pace();
        self.ladder.update(now, self.rate_bps / overhead, self.state);
        if let Some(reason) = reason
            && (self.rate_bps - before).abs() > before * 1e-4
        {
            self.note(now, reason);
        }
    }

    fn slow_frame(&mut self, now: Timestamp, noise_us: f64) -> Option<Reason> {
        let bps = self.capacity.slow_part_bps(noise_us)?;
        if bps >= 0.7 * self.rate_bps {
            return None;
        }
        self.capacity.believe(bps);
        self.unlift(now);
        self.state = PathState::Congested;
        self.rate_bps = self.rate_bps.min(SHARE * bps);
        Some(Reason::SlowFrame)
    }

    fn congested(&mut self, now: Timestamp, limit_us: f64) -> Option<Reason> {
        let round_us = (self.rtt_us() + self.period_us()) as u64;
        let is_due = now.micros_since(self.reduced_at) >= round_us;
        if self.loss > LOSS_MAX && is_due {
            self.rate_bps *= 1.0 - 0.5 * self.loss;
            self.reduced_at = now;
            return Some(Reason::Loss);
        }
        if self.mark > MARK_MIN && is_due {
            // Scalable: half of the share that was marked, each round (RFC 9332 section 2.1).
            self.rate_bps *= 1.0 - 0.5 * self.mark;
            self.reduced_at = now;
            return Some(Reason::Marked);
        }
        if self.foreign_us <= limit_us {
            return None;
        }
        self.state = PathState::Congested;
        if !is_due {
            return None;
        }
        self.reduced_at = now;
        self.unlift(now);
        self.caution = (self.caution + CAUTION_STEP).min(CAUTION_MAX);
        let drain = (self.foreign_us / DRAIN_US).min(DRAIN_MAX);
        // Of streams that share a path none sees more than its part of what is too much, and all give way at once.
        let left = BETA.min(1.0 - drain);
        let share = self.capacity.bps().map_or(f64::INFINITY, |c| c * (DRAIN_SHARE - drain));
        let capacity = self.capacity.bps().unwrap_or(self.rate_bps);
        let before = match self.congestion {
            Some((rate, _, at)) => rate * 0.5f64.powf(now.micros_since(at) as f64 / BEFORE_HALF_LIFE_US),
            None => 0.0,
        };
        self.congestion = Some((self.rate_bps.max(before), capacity, now));
        let least_bps = self.rivalry.test_least_bps(now).min(self.rate_bps);
        self.rate_bps = (left * self.rate_bps).min(share).max(least_bps);
        Some(Reason::Queue)
    }

    /// Beside a flow that fills the queue whatever one does: take a share instead of what it leaves.
    fn compete(&mut self, now: Timestamp, dt_us: f64) -> Option<Reason> {
        self.state = PathState::Congested;
        let own_bps = self.capacity.bps()?;
        let round_us = (self.rtt_us() + self.queue.waited_us()) as u64;
        if self.loss > RIVAL_LOSS_MAX && now.micros_since(self.reduced_at) >= round_us {
            self.reduced_at = now;
            self.rate_bps *= BETA;
            // These losses were answered.
            self.loss = 0.0;
            return Some(Reason::Loss);
        }
        let goal = (RIVAL_SHARE * self.rivalry.whole_bps()).min(own_bps * RIVAL_OWN);
        if self.rate_bps > goal {
            self.rate_bps += (dt_us / 200_000.0).min(1.0) * (goal - self.rate_bps);
        } else {
            self.rate_bps = (self.rate_bps + RIVAL_PER_S * self.rivalry.whole_bps() * dt_us / 1e6).min(goal);
        }
        Some(Reason::Compete)
    }

    fn grow(&mut self, now: Timestamp, dt_us: f64) -> Option<Reason> {
        let capacity_bps = self.capacity.bps()?;
        // What is lost in a row is sent again in a row, and frames wait behind it.
        let room = self.loss * (1.0 + ROOM_PER_LOST * (self.runs.mean() - 1.0));
        let share = SHARE * (1.0 - room.min(LOSS_MAX));
        let careful = (1.0 - self.caution * (self.capacity.deviation() - SCATTER).max(0.0)).max(0.3);
        self.lift(now, dt_us);
        let goal = (share * careful * self.lift).min(LIFT_SHARE_MAX.max(share * careful)) * capacity_bps;
        if self.rate_bps > goal {
            let gain = (dt_us / 50_000.0).min(1.0);
            self.rate_bps += gain * (goal - self.rate_bps);
            return Some(Reason::Capacity);
        }
        let sent_least = SENT_LEAST * self.config.bitrate_min.as_bps() as f64;
        let is_bold = self.congestion.is_none_or(|(.., at)| now.micros_since(at) >= BOLD_US);
        let sent_max = self
            .sending
            .rate_bps(now, is_bold)
            .map_or(f64::INFINITY, |sent| (OVER_SENT * sent).max(sent_least));
        if self.rate_bps >= sent_max {
            // What was once measured holds less and less the longer it is not used.
            let first = self.config.bitrate_initial.as_bps() as f64 * self.sending.overhead();
            let least = sent_max.max(first).min(self.rate_bps);
            self.rate_bps = least + (self.rate_bps - least) * 0.5f64.powf(dt_us / UNUSED_HALF_LIFE_US);
            return Some(Reason::AppLimited);
        }
        let ramp_goal = match self.congestion {
            Some((rate, capacity, at))
                if capacity_bps < OTHER_PATH * capacity && now.micros_since(at) < CALM_US =>
            {
                // Proportional growth keeps unequal shares unequal: after a congestion only additions.
                goal.min(BETA * rate)
            }
            _ => goal,
        };
        let near = if self.congestion.is_none() { NEAR_ALONE } else { NEAR };
        let (rate, reason) = if self.rate_bps < near * ramp_goal {
            let rounds = dt_us / (self.rtt_us() + self.period_us());
            ((self.rate_bps * RAMP.powf(rounds.min(1.5))).min(ramp_goal), Reason::Ramp)
        } else {
            let per_s = APPROACH_BPS_PER_S.min(APPROACH_SHARE_PER_S * capacity_bps);
            (self.rate_bps + per_s * dt_us / 1e6, Reason::Approach)
        };
        self.rate_bps = rate.min(goal).min(sent_max).max(self.rate_bps);
        Some(reason)
    }

    /// Jitter stretches trains, so that they tell of less than the path carries. Where there is some, and no queue
    /// although more is sent than they tell of, that is the better evidence.
    fn lift(&mut self, now: Timestamp, dt_us: f64) {
        let is_calm = now.micros_since(self.calm_since) >= LIFT_CALM_US;
        if self.noise_us() < LIFT_NOISE_US {
            self.lift = 1.0 + (self.lift - 1.0) * 0.5f64.powf(dt_us / 1e6);
        } else if is_calm {
            self.lift = (self.lift + LIFT_PER_S * dt_us / 1e6).min(LIFT_MAX);
        }
    }

    /// There was a queue after all.
    fn unlift(&mut self, now: Timestamp) {
        self.calm_since = now;
        self.lift = (self.lift * LIFT_LEFT).max(1.0);
    }

    fn set_pace(&mut self) {
        let least = PACE * self.rate_bps;
        // Until something was measured, the first pace stays: it is what measures.
        let Some(capacity_bps) = self.capacity.bps() else { return };
        self.pace_bps = if self.capacity.keeps_up() && self.foreign_us <= LIMIT_US {
            (PACE_GROWTH * capacity_bps).max(least)
        } else {
            // Above the capacity only as far as it takes to see the train stretched.
            least.min(PACE_OVER * capacity_bps).max(capacity_bps)
        };
    }

    fn note(&mut self, now: Timestamp, reason: Reason) {
        self.reason = reason;
        self.due.push(self.trace(now));
    }

    /// How things stand.
    #[must_use]
    pub fn trace(&self, now: Timestamp) -> DecisionTrace {
        DecisionTrace {
            at: now,
            state: self.state,
            reason: self.reason,
            rate: Bitrate::from_bps(self.rate_bps as u64),
            video: self.target_bitrate(),
            capacity: Bitrate::from_bps(self.capacity.bps().unwrap_or(0.0) as u64),
            queue_us: self.queue.waited_us() as u32,
            noise_us: self.queue.noise_us() as u32,
            rtt_us: self.rtt_us() as u32,
            loss_ppm: (self.loss * 1e6) as u32,
            parity: 0.0,
            fps: self.ladder.fps(),
            held: self.is_held(),
        }
    }
}

//! Whether somebody on the path fills its queue whatever this stream does.
//!
//! Owns that judgement and what it rests on. Two streams of this kind that take each other for such a somebody would
//! keep the queue full for ever; so a judgement takes longer than such a stream needs to give way, and is put to the
//! test: the stream gives way itself for a moment, and where the queue drains, nobody was there. Invariant: no term
//! of competing is longer than [`TERM_MAX_US`], and each test that fails doubles it.

use super::Reason;
use crate::Timestamp;

/// Beyond what should have drained, in microseconds of queue: measurement and delay of the loop.
const SLACK_US: f64 = 20_000.0;
/// A queue under the limit for this long: the rival is gone, and did not merely back off for a moment.
const ALONE_US: u64 = 150_000;
/// A queue in which the pauses between the own frames stay open by so much is not made of them.
const APART_MIN: f64 = 0.6;
/// Beside a queue longer than this no share is worth having, in microseconds; and links that stand still have
/// such queues without any rival.
const QUEUE_MAX_US: f64 = 400_000.0;
/// So many reports in a row that say that the queue is the own one end the mode: fewer are chance.
const MINE_MAX: u32 = 12;
/// What the whole path carried is remembered with this half life, in microseconds.
const WHOLE_HALF_LIFE_US: f64 = 120e6;
/// And once competing, so much of them tells that it is the own queue after all. Lower, because a queue of both has
/// some of each.
const APART_STAY: f64 = 0.45;
/// A queue that just began to stand may be that of a stream which still finds its rate, in microseconds. The longer
/// the queue, the less it can be that: none is left of this at the second one.
const WAIT_US: f64 = 1_000_000.0;
const WAIT_QUEUE_US: f64 = 60_000.0;
/// Nor has anybody had time to give way within so many round trips.
const WAIT_ROUNDS: f64 = 2.0;
/// After so long the judgement is put to the test, at first and at most, in microseconds.
const TERM_US: u64 = 3_000_000;
const TERM_MAX_US: u64 = 16_000_000;
/// A test lasts so long, in microseconds, and leaves so much of the rate.
const TEST_US: u64 = 500_000;
const TEST_LEFT: f64 = 0.7;
/// A rival that is found again within this was there all the time, in microseconds.
const AGAIN_US: u64 = 2_000_000;
/// While queued beside a rival, the own trains only see a part of the path.
const CALM_US: f64 = 1_500.0;

/// What is seen of the path at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// The queue beyond noise and own backlog, in microseconds.
    pub(super) queue_us: f64,
    /// The round trip without any queue, in microseconds.
    pub(super) rtt_us: f64,
    /// Below this there is none, in microseconds.
    pub(super) limit_us: f64,
    /// The stream's own rate, in bits per second.
    pub(super) rate_bps: f64,
    /// What its trains say that the path carries, in bits per second.
    pub(super) capacity_bps: Option<f64>,
    /// How far the pauses between frames stay open in the queue: 0 closed, 1 as sent.
    pub(super) apart: f64,
}

/// A queue that does not shrink although the stream stays below what its trains say the path carries is
/// somebody else's.
#[derive(Debug, Default)]
pub(super) struct Rivalry {
    on: bool,
    /// Since when the queue is over the limit, and how long it was then.
    since: Option<(Timestamp, f64)>,
    /// How much should have drained since, in microseconds.
    drained_us: f64,
    alone_since: Option<Timestamp>,
    /// Reports in a row that say that the queue is the own one.
    mine: u32,
    /// The capacity as seen without a queue of others.
    whole_bps: f64,
    /// When this term of competing ends, and how long it is, in microseconds.
    term_ends: Timestamp,
    term_us: u64,
    /// When the last test began, and at which rate, in bits per second.
    test: Option<(Timestamp, f64)>,
}

impl Rivalry {
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// What the path carries for everybody together, in bits per second.
    pub(super) fn whole_bps(&self) -> f64 {
        self.whole_bps
    }

    /// The rate before a test that failed, in bits per second; else 0.
    pub(super) fn before_test_bps(&self, now: Timestamp) -> f64 {
        self.test_within(now, AGAIN_US).unwrap_or(0.0)
    }

    /// No less is to be sent during a test, in bits per second: to see whether the queue drains takes no more.
    pub(super) fn test_least_bps(&self, now: Timestamp) -> f64 {
        self.test_within(now, TEST_US).map_or(0.0, |bps| TEST_LEFT * bps)
    }

    fn test_within(&self, now: Timestamp, us: u64) -> Option<f64> {
        self.test.filter(|&(began, _)| now.micros_since(began) <= us).map(|(_, bps)| bps)
    }

    /// Takes in the state of the queue; the reason where the judgement changed.
    pub(super) fn update(&mut self, now: Timestamp, dt_us: f64, seen: &Seen) -> Option<Reason> {
        let Seen { queue_us, rtt_us, limit_us, rate_bps, capacity_bps, apart } = *seen;
        let capacity_bps = capacity_bps?;
        if queue_us < CALM_US && !self.on {
            // Slowly downwards: one slow moment is no other path.
            let gain = if capacity_bps > self.whole_bps { 0.5 } else { (dt_us / 500_000.0).min(1.0) };
            self.whole_bps += gain * (capacity_bps - self.whole_bps);
        } else {
            self.whole_bps = (self.whole_bps * 0.5f64.powf(dt_us / WHOLE_HALF_LIFE_US)).max(capacity_bps);
        }
        if queue_us <= limit_us {
            self.since = None;
            self.drained_us = 0.0;
            if self.on {
                let since = *self.alone_since.get_or_insert(now);
                if now.micros_since(since) >= ALONE_US {
                    self.on = false;
                    self.alone_since = None;
                    return Some(Reason::Alone);
                }
            }
            return None;
        }
        self.alone_since = None;
        if queue_us > QUEUE_MAX_US {
            self.drained_us = 0.0;
            return core::mem::take(&mut self.on).then_some(Reason::Alone);
        }
        if self.on && now >= self.term_ends {
            self.on = false;
            self.test = Some((now, rate_bps));
            (self.since, self.drained_us) = (None, 0.0);
            return Some(Reason::Alone);
        }
        let (since, at_first_us) = *self.since.get_or_insert((now, queue_us));
        self.drained_us += dt_us * (1.0 - rate_bps / capacity_bps).clamp(0.0, 0.5);
        if apart >= if self.on { APART_STAY } else { APART_MIN } {
            self.mine = 0;
        } else {
            // It is the own queue after all.
            self.drained_us = 0.0;
            self.mine += 1;
            if self.on && self.mine > MINE_MAX {
                self.on = false;
                return Some(Reason::Alone);
            }
        }
        let is_again = self.test_within(now, AGAIN_US).is_some();
        let wait_us =
            if is_again { TEST_US as f64 } else { WAIT_US * (1.0 - queue_us / WAIT_QUEUE_US).max(0.0) };
        let wait_us = wait_us.max(WAIT_ROUNDS * (rtt_us + queue_us));
        let stands_us = now.micros_since(since) as f64;
        if !self.on && self.drained_us > at_first_us + SLACK_US && stands_us >= wait_us {
            self.on = true;
            self.term_us = if is_again { (2 * self.term_us).min(TERM_MAX_US) } else { TERM_US };
            self.term_ends = now.plus_micros(self.term_us);
            return Some(Reason::Compete);
        }
        None
    }
}

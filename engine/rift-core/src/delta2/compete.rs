//! Whether somebody on the path fills its queue whatever this stream does.

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
const WHOLE_HALF_LIFE_US: f64 = 60e6;
/// While queued beside a rival, the own trains only see a part of the path.
const CALM_US: f64 = 1_500.0;

/// What is seen of the path at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// The queue beyond noise and own backlog, in microseconds.
    pub(super) queue_us: f64,
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
    since: Option<f64>,
    /// How much should have drained since, in microseconds.
    drained_us: f64,
    alone_since: Option<Timestamp>,
    /// Reports in a row that say that the queue is the own one.
    mine: u32,
    /// The capacity as seen without a queue of others.
    whole_bps: f64,
}

impl Rivalry {
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// What the path carries for everybody together, in bits per second.
    pub(super) fn whole_bps(&self) -> f64 {
        self.whole_bps
    }

    /// Takes in the state of the queue; the reason where the judgement changed.
    pub(super) fn update(&mut self, now: Timestamp, dt_us: f64, seen: &Seen) -> Option<Reason> {
        let Seen { queue_us, limit_us, rate_bps, capacity_bps, apart } = *seen;
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
        let at_first_us = *self.since.get_or_insert(queue_us);
        self.drained_us += dt_us * (1.0 - rate_bps / capacity_bps).clamp(0.0, 0.5);
        if apart >= APART_MIN {
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
        if !self.on && self.drained_us > at_first_us + SLACK_US {
            self.on = true;
            return Some(Reason::Compete);
        }
        None
    }
}

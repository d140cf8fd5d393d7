//! Somebody who knows the path and is told 20 ms late.
//!
//! Owns what he knows and what follows from it. He is no protocol: he bounds what any controller could reach. He paces
//! to the capacity, keeps 5 % free for frames that turn out large, pays for those with smaller ones, takes an equal
//! share beside others, and encodes nothing while nothing gets through.

use std::collections::VecDeque;

use rift_core::{Bitrate, Timestamp};

use super::stage::{Stage, Way};
use crate::cross::{Cross, Demand};

/// How late he learns of things, and how often he looks, in microseconds.
const LATE_US: u64 = 20_000;
pub(super) const INTERVAL_US: u64 = 5_000;
/// Where packets leave at moments, the rate is that over so long, in microseconds.
const WINDOW_US: u64 = 40_000;
/// The share of the capacity that he takes.
const SHARE: f64 = 0.95;
/// Headers of a full packet of video, from chunk to IP, as a share of it.
const HEADER_SHARE: f64 = 0.07;
/// A backlog is gone after so many frames.
const DRAIN_FRAMES: f64 = 1.5;
/// With a longer queue ahead nothing is encoded, in microseconds. Longer ones beside others cannot be helped.
const QUEUE_US_MAX: u64 = 50_000;

/// What he knows of a stream's path, and of its backlog.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// What there was at the last looks.
    seen: VecDeque<Seen>,
    /// Bits that were encoded and have not left yet, and when that was so.
    backlog_bits: f64,
    at: Timestamp,
    rate_bps: f64,
}

/// The path at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// What is there for this stream, in bits per second.
    pub(super) rate_bps: f64,
    /// How long a packet would wait, in microseconds; 0 where others keep the queue.
    pub(super) queue_us: u64,
}

/// What he does about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Advice {
    /// The rate of the video.
    pub(super) video: Bitrate,
    /// The pace of its packets.
    pub(super) pace: Bitrate,
    /// Nothing is to be encoded.
    pub(super) held: bool,
}

/// What the path has for each of `streams` streams.
pub(super) fn look(stage: &Stage, way: Way, streams: usize, cross: &[Cross]) -> Seen {
    let link = stage.link(way);
    let at_us = stage.now.as_micros();
    let course = link.course();
    let bps = if course.is_granted() {
        let from_us = at_us.saturating_sub(WINDOW_US);
        course.offered(from_us, at_us + 1).map(|bytes| bytes as f64 * 8e6 / (at_us + 1 - from_us) as f64)
    } else {
        course.rate(at_us).map(|rate| rate.as_bps() as f64)
    };
    let mut sharers = streams.max(1);
    let mut fixed_bps = 0.0;
    for other in cross.iter().filter(|other| other.config().reverse == (way == Way::Up)) {
        match other.demand(stage.now) {
            Demand::None => {}
            Demand::Share => sharers += 1,
            Demand::Rate(rate) => fixed_bps += rate.as_bps() as f64,
        }
    }
    let rate_bps = bps.map_or(f64::INFINITY, |bps| (bps - fixed_bps).max(0.0) / sharers as f64);
    Seen { rate_bps, queue_us: if sharers > 1 { 0 } else { link.queue_us(stage.now) } }
}

impl Oracle {
    /// A frame was encoded.
    pub(super) fn on_frame(&mut self, now: Timestamp, bytes: u64) {
        self.pass(now);
        self.backlog_bits += bytes as f64 * 8.0 / (1.0 - HEADER_SHARE);
    }

    /// Takes in what there is now, and says what follows from what there was. `next_us` is the time to the next
    /// frame, `period_us` that between frames, `parity` the share of it.
    pub(super) fn advise(
        &mut self,
        now: Timestamp,
        seen: Seen,
        (next_us, period_us): (u64, u64),
        parity: f64,
    ) -> Option<Advice> {
        self.pass(now);
        self.seen.push_back(seen);
        if self.seen.len() as u64 > LATE_US / INTERVAL_US + 1 {
            self.seen.pop_front();
        }
        let known = *self.seen.front()?;
        if !known.rate_bps.is_finite() {
            return None;
        }
        self.rate_bps = known.rate_bps;
        let left_bits = (self.backlog_bits - known.rate_bps * next_us as f64 / 1e6).max(0.0);
        let drain_bps = left_bits * 1e6 / (DRAIN_FRAMES * period_us as f64);
        let video_bps = (SHARE * known.rate_bps - drain_bps) * (1.0 - HEADER_SHARE) / (1.0 + parity);
        Some(Advice {
            video: Bitrate::from_bps(video_bps.max(0.0) as u64),
            pace: Bitrate::from_bps(known.rate_bps as u64),
            held: known.rate_bps < 1.0 || known.queue_us > QUEUE_US_MAX,
        })
    }

    fn pass(&mut self, now: Timestamp) {
        let us = now.micros_since(self.at) as f64;
        self.at = now;
        self.backlog_bits = (self.backlog_bits - us * self.rate_bps / 1e6).max(0.0);
    }
}

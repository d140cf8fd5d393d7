//! What a stream was worth: how much of the path it used, and how late its frames were.
//!
//! Owns the log of frames and targets of one stream ([`StreamLog`]) and what follows from it
//! ([`StreamMetrics`]). Counts from the end of the warm-up on; a frame belongs to the moment of its capture.
//! Invariant: a frame that never became complete counts as later than every other.

pub mod share;

use rift_core::{Bitrate, FrameId};

use crate::link::Course;
use share::Shared;

/// A frame that never became complete is so late, in microseconds.
pub const NEVER_US: u32 = u32::MAX;
/// A picture older than this is stale, in microseconds.
pub const STALE_US: u64 = 100_000;
/// An increase of capacity is used once the target is at least this share of it.
const USED_SHARE: f64 = 0.8;
/// After a decrease of capacity, frames are settled once none is later than this beyond the way without queues, in
/// microseconds: 50 ms on a path of 20 ms there and back.
const SETTLED_US: u64 = 40_000;
/// How long after a change of capacity its consequences are looked for, in microseconds.
const CHANGE_US: u64 = 5_000_000;

/// A frame, from capture to completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRecord {
    /// Its id.
    pub id: FrameId,
    /// Virtual time of capture in microseconds.
    pub captured_us: u64,
    /// Encoded bytes.
    pub bytes: u64,
    /// When the last slice was handed out decodable, in microseconds; [`u64::MAX`] for never.
    pub complete_us: u64,
}

impl FrameRecord {
    /// From capture to completion in microseconds; [`NEVER_US`] for never.
    #[must_use]
    pub fn delay_us(&self) -> u32 {
        if self.complete_us == u64::MAX {
            return NEVER_US;
        }
        u32::try_from(self.complete_us.saturating_sub(self.captured_us)).unwrap_or(NEVER_US)
    }
}

/// What happened to a stream.
#[derive(Clone, Debug, Default)]
pub struct StreamLog {
    /// Frames in the order of their capture.
    pub frames: Vec<FrameRecord>,
    /// From when on, in microseconds, the encoder had which target.
    pub targets: Vec<(u64, Bitrate)>,
    /// Captures that were not encoded, in microseconds, and why.
    pub idle: Vec<(u64, Idle)>,
    /// From when until when, in microseconds, no client was there that had shown a picture.
    pub absent: Vec<(u64, u64)>,
}

/// Why a picture was not encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// The host holds the encoder back.
    Held,
    /// The host or the client wants frames left out.
    Skipped,
    /// There were no pictures.
    Paused,
}

impl StreamLog {
    /// A frame was captured, and will have so many bytes.
    pub fn on_captured(&mut self, id: FrameId, captured_us: u64, bytes: u64) {
        self.frames.push(FrameRecord { id, captured_us, bytes, complete_us: u64::MAX });
    }

    /// Its last slice was handed out decodable.
    pub fn on_complete(&mut self, id: FrameId, now_us: u64) {
        // Ids are consecutive in a run.
        let at = self.frames.first().and_then(|first| id.0.checked_sub(first.id.0));
        if let Some(frame) = at.and_then(|at| self.frames.get_mut(at as usize)) {
            frame.complete_us = frame.complete_us.min(now_us);
        }
        if let Some((_, end)) = self.absent.last_mut() {
            *end = (*end).min(now_us);
        }
    }

    /// No client is there from now on, until a frame is complete.
    pub fn on_absent(&mut self, now_us: u64) {
        if self.absent.last().is_none_or(|&(_, end)| end != u64::MAX) {
            self.absent.push((now_us, u64::MAX));
        }
    }

    /// A picture was not encoded.
    pub fn on_idle(&mut self, now_us: u64, why: Idle) {
        self.idle.push((now_us, why));
    }

    /// The encoder has this target from now on.
    pub fn on_target(&mut self, now_us: u64, target: Bitrate) {
        if self.targets.last().is_none_or(|&(_, last)| last != target) {
            self.targets.push((now_us, target));
        }
    }

    /// The target at a moment.
    fn target_at(&self, us: u64) -> Bitrate {
        let after = self.targets.partition_point(|&(at, _)| at <= us);
        self.targets.get(after.saturating_sub(1)).map_or(Bitrate::ZERO, |&(_, target)| target)
    }

    /// When the target first was at least `least` within `from_us..to_us`.
    fn reaches(&self, least: Bitrate, from_us: u64, to_us: u64) -> Option<u64> {
        if self.target_at(from_us) >= least {
            return Some(from_us);
        }
        let later = self.targets.iter().filter(|&&(at, _)| (from_us..to_us).contains(&at));
        later.clone().find(|&&(_, target)| target >= least).map(|&(at, _)| at)
    }

    /// Age of the newest complete frame: pieces of time, each with its begin, its end and the capture of the
    /// frame that was the newest then. Before the first complete frame there is no piece.
    #[must_use]
    pub fn ages(&self, from_us: u64, to_us: u64) -> Vec<(u64, u64, u64)> {
        let mut complete: Vec<_> = self
            .frames
            .iter()
            .filter(|frame| frame.complete_us != u64::MAX)
            .map(|f| (f.complete_us, f.captured_us))
            .collect();
        complete.sort_unstable();
        let mut pieces: Vec<(u64, u64, u64)> = Vec::new();
        let mut newest = None;
        let mut since = from_us;
        for (at, captured) in complete {
            if newest.is_some_and(|newest| captured <= newest) {
                continue;
            }
            let at = at.clamp(from_us, to_us);
            if let Some(newest) = newest.replace(captured)
                && at > since
            {
                pieces.push((since, at, newest));
            }
            since = at.max(since);
        }
        if let Some(newest) = newest
            && to_us > since
        {
            pieces.push((since, to_us, newest));
        }
        pieces
    }
}

/// What else is known of the measured part of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Packets from host to client.
    pub packets: u64,
    /// Of these, how many the path lost or dropped.
    pub gone: u64,
    /// Bytes of them on the wire.
    pub wire_bytes: u64,
    /// Bytes in the other direction on the wire.
    pub back_wire_bytes: u64,
    /// Packets with video for the first time, with parity, and with video again.
    pub video_packets: [u64; 3],
    /// Bytes of the bodies of all these.
    pub body_bytes: u64,
    /// From host to client without queues, in microseconds.
    pub way_us: u64,
}

/// What a stream was worth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamMetrics {
    /// Measured time in microseconds.
    pub span_us: u64,
    /// What the path offered in Mbit/s, headers included; `None` without a limit.
    pub capacity_mbps: Option<f64>,
    /// Encoded bytes of complete frames, in Mbit/s.
    pub goodput_mbps: f64,
    /// The same with the headers of their packets, as a share of what was offered. Neither parity nor what
    /// was sent again is in it.
    pub utilisation: Option<f64>,
    /// Frames captured and encoded.
    pub frames: u64,
    /// Of these, how many never became complete.
    pub incomplete: u64,
    /// From capture to complete frame, in microseconds, over all frames: median, 95th and 99th percentile.
    pub delay_us: [u32; 3],
    /// Share of frames later than 50 ms.
    pub over_50ms: f64,
    /// Share of frames later than 100 ms.
    pub over_100ms: f64,
    /// Share of time in which the newest complete frame was older than [`STALE_US`].
    pub stale: f64,
    /// 99th percentile, over time, of the age of the newest complete frame, in microseconds.
    pub age_p99_us: u64,
    /// 95th percentile of the queue between bursts, in microseconds; `None` without a limit.
    pub standing_p95_us: Option<u32>,
    /// Share of packets that the path lost or dropped.
    pub packet_loss: f64,
    /// Parity and packets sent again, as a share of video packets.
    pub redundancy: f64,
    /// Bytes from client to host, as a share of those from host to client.
    pub feedback: f64,
    /// From the first frame of the run to a target of 80 % of capacity, in microseconds.
    pub ramp_us: Option<u64>,
    /// What followed each change of capacity within the measured part.
    pub changes: Vec<ChangeRecord>,
    /// What it and those beside it were to each other; of a run's first stream only.
    pub shared: Shared,
}

/// What followed a change of capacity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChangeRecord {
    /// When, in microseconds.
    pub at_us: u64,
    /// Before.
    pub from: Bitrate,
    /// After.
    pub to: Bitrate,
    /// After an increase: until the target was 80 % of the new capacity; after a decrease: until the last frame
    /// that was late (40 ms beyond the way without queues) was there. In microseconds; `None` if that was not before the next change
    /// or within 5 s.
    pub took_us: Option<u64>,
}

impl StreamMetrics {
    /// Of what was logged from `from_us` to `to_us` over a path of this course. `standing` are the shortest
    /// waits of stretches in that time.
    #[must_use]
    pub fn of(
        log: &StreamLog,
        traffic: &Traffic,
        course: &Course,
        standing: &[u32],
        (from_us, to_us): (u64, u64),
    ) -> Self {
        let span_us = to_us.saturating_sub(from_us).max(1);
        let mbps = |bytes: f64| bytes * 8.0 / span_us as f64;
        let frames: Vec<_> = frames_between(log, from_us, to_us).collect();
        let mut delays: Vec<u32> = frames.iter().map(FrameRecord::delay_us).collect();
        delays.sort_unstable();
        let over = |us: u32| share(delays.iter().filter(|&&d| d > us).count() as f64, delays.len() as f64);
        // What arrived in the time counts, whenever it was captured.
        let complete: u64 =
            log.frames.iter().filter(|f| (from_us..to_us).contains(&f.complete_us)).map(|f| f.bytes).sum();
        let offered = course.offered(from_us, to_us);
        let [data, parity, again] = traffic.video_packets;
        let encoded: u64 = frames.iter().map(|frame| frame.bytes).sum();
        let ages = log.ages(from_us, to_us);
        let mut standing = standing.to_vec();
        standing.sort_unstable();
        Self {
            span_us,
            capacity_mbps: offered.map(|bytes| mbps(bytes as f64)),
            goodput_mbps: mbps(complete as f64),
            utilisation: offered
                .map(|offered| share(complete as f64 * traffic.wire_per_byte(encoded), offered as f64)),
            frames: frames.len() as u64,
            incomplete: delays.iter().filter(|&&d| d == NEVER_US).count() as u64,
            delay_us: [0.5, 0.95, 0.99].map(|p| quantile(&delays, p).unwrap_or(0)),
            over_50ms: over(50_000),
            over_100ms: over(100_000),
            stale: stale_share(&ages, span_us),
            age_p99_us: age_quantile(&ages, 0.99),
            standing_p95_us: offered.and(quantile(&standing, 0.95)),
            packet_loss: share(traffic.gone as f64, traffic.packets as f64),
            redundancy: share((parity + again) as f64, data as f64),
            feedback: share(traffic.back_wire_bytes as f64, traffic.wire_bytes as f64),
            ramp_us: ramp_us(log, course),
            changes: changes(log, course, (from_us, to_us), traffic.way_us + SETTLED_US),
            shared: Shared::default(),
        }
    }
}

impl Traffic {
    /// Bytes on the wire for each encoded byte that was sent once.
    fn wire_per_byte(&self, encoded: u64) -> f64 {
        // Transport header and tag of RIFT, IP and UDP headers.
        const AROUND_BODY: f64 = 18.0 + 16.0 + 28.0;
        let [data, parity, again] = self.video_packets.map(|packets| packets as f64);
        if data < 1.0 || encoded == 0 {
            return 1.0;
        }
        let body = self.body_bytes as f64 / (data + parity + again);
        data * (body + AROUND_BODY) / encoded as f64
    }
}

fn frames_between(log: &StreamLog, from_us: u64, to_us: u64) -> impl Iterator<Item = FrameRecord> {
    // What was captured in the last moments had no time to arrive.
    let to_us = to_us.saturating_sub(300_000).max(from_us);
    log.frames.iter().copied().filter(move |frame| (from_us..to_us).contains(&frame.captured_us))
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// The value of the nearest rank in `sorted`.
fn quantile<T: Copy>(sorted: &[T], p: f64) -> Option<T> {
    let rank = (p * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Time that the pieces are older than [`STALE_US`]; time before the first complete frame is stale too.
fn stale_share(ages: &[(u64, u64, u64)], span_us: u64) -> f64 {
    let covered: u64 = ages.iter().map(|&(begin, end, _)| end - begin).sum();
    let stale: u64 =
        ages.iter().map(|&(begin, end, captured)| end.saturating_sub(begin.max(captured + STALE_US))).sum();
    share((stale + span_us.saturating_sub(covered)) as f64, span_us as f64).min(1.0)
}

/// The age that is exceeded for a share `1 - p` of the time.
fn age_quantile(ages: &[(u64, u64, u64)], p: f64) -> u64 {
    let total: u64 = ages.iter().map(|&(begin, end, _)| end - begin).sum();
    let allowed = total as f64 * (1.0 - p);
    let over = |age: u64| -> u64 {
        ages.iter().map(|&(begin, end, captured)| end.saturating_sub(begin.max(captured + age))).sum()
    };
    let (mut low, mut high) =
        (0, ages.iter().map(|&(_, end, captured)| end.saturating_sub(captured)).max().unwrap_or(0));
    while low < high {
        let middle = low + (high - low) / 2;
        if over(middle) as f64 > allowed { low = middle + 1 } else { high = middle }
    }
    low
}

fn ramp_us(log: &StreamLog, course: &Course) -> Option<u64> {
    let first_us = log.frames.first()?.captured_us;
    let wanted = scaled(course.rate(first_us + 500_000)?, USED_SHARE);
    log.reaches(wanted, first_us, u64::MAX).map(|at| at - first_us)
}

/// `late_us`: after a decrease, frames that take longer are not settled.
fn changes(
    log: &StreamLog,
    course: &Course,
    (from_us, to_us): (u64, u64),
    late_us: u64,
) -> Vec<ChangeRecord> {
    let changes = course.changes(to_us);
    // More than one change in a second is a trace, and steps are not what it is about.
    if changes.len() as u64 > to_us / 1_000_000 {
        return Vec::new();
    }
    let ends = changes.iter().skip(1).map(|&(at, ..)| at).chain([to_us]);
    let measured = changes.iter().zip(ends).filter(|((at, ..), _)| *at >= from_us);
    let record = |(&(at_us, from, to), end): (&(u64, Bitrate, Bitrate), u64)| {
        let end = end.min(at_us + CHANGE_US);
        let took_us = if to > from {
            log.reaches(scaled(to, USED_SHARE), at_us, end).map(|at| at - at_us)
        } else {
            settled_us(log, at_us, end, late_us)
        };
        ChangeRecord { at_us, from, to, took_us }
    };
    measured.map(record).collect()
}

/// From `at_us` until the last of the late frames that belong together was there.
fn settled_us(log: &StreamLog, at_us: u64, end_us: u64, late_us: u64) -> Option<u64> {
    // Frames on their way at the change count; half a second without a late frame ends the search.
    let first = log.frames.partition_point(|frame| frame.captured_us + 100_000 < at_us);
    let mut settled = at_us;
    for frame in &log.frames[first..] {
        if frame.captured_us > settled + 500_000 || frame.captured_us >= end_us {
            break;
        }
        let delay_us = frame.delay_us();
        if u64::from(delay_us) > late_us {
            let there = if delay_us == NEVER_US { frame.captured_us + STALE_US } else { frame.complete_us };
            settled = settled.max(there);
        }
    }
    (settled < end_us).then(|| settled - at_us)
}

fn scaled(rate: Bitrate, share: f64) -> Bitrate {
    Bitrate::from_bps((rate.as_bps() as f64 * share) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Capacity;

    /// A frame of 2000 bytes every 20 ms that takes `delay` of its number.
    fn log(frames: u64, delay: impl Fn(u64) -> Option<u64>) -> StreamLog {
        let mut log = StreamLog::default();
        for i in 0..frames {
            log.on_captured(FrameId(i), i * 20_000, 2_000);
            if let Some(delay) = delay(i) {
                log.on_complete(FrameId(i), i * 20_000 + delay);
            }
        }
        log
    }

    fn metrics(log: &StreamLog, capacity: &Capacity) -> StreamMetrics {
        let traffic = Traffic {
            packets: 200,
            gone: 2,
            wire_bytes: 1_000,
            back_wire_bytes: 10,
            video_packets: [100, 5, 7],
            body_bytes: 112 * 1_000,
            way_us: 10_000,
        };
        StreamMetrics::of(log, &traffic, &capacity.course(1), &[1, 2, 3, 4], (1_000_000, 11_000_000))
    }

    #[test]
    fn delays_and_shares_are_those_of_the_measured_frames() {
        // The first second, every 200 ms late, is not counted.
        let log = log(550, |i| {
            Some(if i < 50 {
                200_000
            } else if i % 10 == 0 {
                60_000
            } else {
                20_000
            })
        });
        let m = metrics(&log, &Capacity::Constant(Bitrate::from_mbps(1)));
        assert_eq!((m.frames, m.incomplete, m.delay_us), (485, 0, [20_000, 60_000, 60_000]));
        assert!((m.over_50ms - 0.1).abs() < 0.002 && m.over_100ms == 0.0, "{m:?}");
        assert!(m.stale < 0.01, "{}", m.stale);
        assert!((m.goodput_mbps - 0.8).abs() < 0.02, "{}", m.goodput_mbps);
        assert_eq!(m.capacity_mbps, Some(1.0));
        assert!((m.packet_loss - 0.01).abs() < 1e-9 && (m.redundancy - 0.12).abs() < 1e-9);
        assert_eq!(m.standing_p95_us, Some(4));
    }

    #[test]
    fn frames_that_never_come_are_the_latest_of_all_and_make_time_stale() {
        // Nothing for a second of ten.
        let log = log(600, |i| (!(200..250).contains(&i)).then_some(30_000));
        let m = metrics(&log, &Capacity::Unlimited);
        assert_eq!((m.incomplete, m.delay_us[2], m.utilisation), (50, NEVER_US, None));
        // From 100 ms after frame 199 was captured until frame 250 is there.
        assert!((m.stale - 0.095).abs() < 0.001, "{}", m.stale);
        // A tenth of the time that matters is one of 100 ms: the age is more than 950 ms in it.
        assert!((940_000..960_000).contains(&m.age_p99_us), "{}", m.age_p99_us);
    }

    #[test]
    fn nothing_at_all_is_stale_all_the_time() {
        let m = metrics(&log(600, |_| None), &Capacity::Unlimited);
        assert!((m.stale - 1.0).abs() < 1e-9 && m.delay_us == [NEVER_US; 3], "{m:?}");
    }

    #[test]
    fn a_ramp_and_steps_are_timed() {
        let mbps = Bitrate::from_mbps;
        let capacity = Capacity::Steps([(mbps(20), 4_000_000), (mbps(5), 4_000_000)].into());
        // Late for 400 ms after the decrease at 4 s.
        let mut log = log(550, |i| Some(if (200..218).contains(&i) { 90_000 } else { 20_000 }));
        for (at, target) in [(0, 5), (700_000, 17), (4_300_000, 4), (9_200_000, 16)] {
            log.on_target(at, mbps(target));
        }
        let m = metrics(&log, &capacity);
        assert_eq!(m.ramp_us, Some(700_000));
        let took: Vec<_> = m.changes.iter().map(|c| (c.at_us, c.took_us)).collect();
        assert_eq!(took, [(4_000_000, Some(430_000)), (8_000_000, Some(1_200_000))]);
    }
}

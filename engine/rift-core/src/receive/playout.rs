//! When frames are expected, shown and too late.
//!
//! Owns the estimate of the path's delay between the host's clock and ours, and the playout delay that
//! evens out jitter. Never holds a frame back: it only says when. Invariant: the expected arrival of a
//! frame is never later than the frame's real arrival, whatever the host writes into its timestamps.

use super::config::PlayoutConfig;
use crate::Timestamp;

/// The smallest delay is looked for over this long, so that drifting clocks and a new path are followed.
const BASELINE_SPAN_US: u64 = 2_000_000;
/// So many frames in a row that come later than half the deadline mean that the path has changed.
const REBASE_FRAMES: u32 = 3;
/// A frame's expected arrival is at most this long before its real one.
const EARLY_MAX_US: u64 = 1_000_000;

/// Width of a bin of the lateness histogram, in microseconds.
const BIN_US: u64 = 250;
const BINS: usize = 64;
/// The histogram forgets with a time constant of this many frames.
const MEMORY_FRAMES: u32 = 128;
/// Weight of a new frame in the histogram.
const WEIGHT: u32 = 1 << 16;
/// This share of frames should be there when they are due, in percent.
const PUNCTUAL_PERCENT: u64 = 95;

/// Estimates when frames are due.
#[derive(Debug)]
pub(super) struct Playout {
    config: PlayoutConfig,
    /// Of first packets: when a frame is expected.
    arrival: Baseline,
    /// Of whole frames: when it could be shown if nothing got in between.
    whole: Baseline,
    late_in_a_row: u32,
    lateness: Histogram,
    jitter_us: u64,
    /// Smoothed difference of first arrival and host time (RFC 3550 section 6.4.1), times 16.
    transit_jitter_x16: u64,
    last_transit: Option<i64>,
    last_timestamp_us: u64,
    frame_interval_us: u64,
    /// The longest recent pause inside a frame, in microseconds.
    burst_gap_us: u64,
}

impl Playout {
    pub(super) fn new(config: PlayoutConfig) -> Self {
        Self {
            config,
            arrival: Baseline::default(),
            whole: Baseline::default(),
            late_in_a_row: 0,
            lateness: Histogram::default(),
            jitter_us: 0,
            transit_jitter_x16: 0,
            last_transit: None,
            last_timestamp_us: 0,
            frame_interval_us: 16_667,
            burst_gap_us: 0,
        }
    }

    /// The first packet of a frame has arrived.
    pub(super) fn on_frame_begun(&mut self, now: Timestamp, timestamp_us: u64) {
        let transit = transit(now, timestamp_us);
        let late = self.arrival.lateness(transit);
        if late > self.config.deadline_us / 2 {
            self.late_in_a_row += 1;
            if self.late_in_a_row >= REBASE_FRAMES {
                self.arrival = Baseline::default();
                self.whole = Baseline::default();
                self.late_in_a_row = 0;
            }
        } else {
            self.late_in_a_row = 0;
        }
        self.arrival.observe(now, transit);

        if let Some(last) = self.last_transit {
            let moved = transit.abs_diff(last).min(EARLY_MAX_US);
            self.transit_jitter_x16 = self.transit_jitter_x16 + moved - self.transit_jitter_x16 / 16;
        }
        self.last_transit = Some(transit);
        let interval = timestamp_us.saturating_sub(self.last_timestamp_us);
        if (1_000..=100_000).contains(&interval) {
            self.frame_interval_us = (self.frame_interval_us * 7 + interval) / 8;
        }
        self.last_timestamp_us = timestamp_us;
        self.burst_gap_us -= self.burst_gap_us / 16;
    }

    /// A chunk came this long after the one before it in the same frame.
    #[inline]
    pub(super) fn on_gap(&mut self, gap_us: u64) {
        // What was sent again does not tell how the host paces.
        self.burst_gap_us = self.burst_gap_us.max(gap_us.min(BURST_GAP_MAX_US));
    }

    /// A frame is whole that nothing had to be repaired in.
    pub(super) fn on_frame_whole(&mut self, now: Timestamp, timestamp_us: u64) {
        let transit = transit(now, timestamp_us);
        self.lateness.add(self.whole.lateness(transit));
        self.whole.observe(now, transit);
        let needed = self.lateness.quantile();
        self.jitter_us = needed.min(self.config.jitter_max_us);
    }

    /// The delay now added to even out jitter, in microseconds.
    pub(super) fn jitter_delay_us(&self) -> u64 {
        self.jitter_us
    }

    /// Interarrival jitter as in RFC 3550, in microseconds.
    pub(super) fn transit_jitter_us(&self) -> u64 {
        self.transit_jitter_x16 / 16
    }

    /// Usual time between frames, in microseconds.
    pub(super) fn frame_interval_us(&self) -> u64 {
        self.frame_interval_us
    }

    /// The longest recent pause between two packets of a frame, in microseconds.
    pub(super) fn burst_gap_us(&self) -> u64 {
        self.burst_gap_us
    }

    /// When a frame that began to arrive at `first_arrival` can be shown at the earliest so that frames
    /// keep their distance.
    pub(super) fn show_at(&self, first_arrival: Timestamp, timestamp_us: u64) -> Timestamp {
        let smooth = clamp(self.whole.expected(timestamp_us), first_arrival, EARLY_MAX_US);
        // The baseline of whole frames may lie behind the first arrival by the time a frame takes.
        let smooth = smooth.unwrap_or(first_arrival).max(first_arrival);
        smooth.plus_micros(self.jitter_us)
    }

    /// No frame that comes now is shown after this.
    pub(super) fn latest(&self, now: Timestamp) -> Timestamp {
        now.plus_micros(self.config.deadline_us)
    }

    /// After this the frame must not be shown any more.
    pub(super) fn deadline(&self, first_arrival: Timestamp, timestamp_us: u64) -> Timestamp {
        let expected = clamp(self.arrival.expected(timestamp_us), first_arrival, EARLY_MAX_US)
            .unwrap_or(first_arrival)
            .min(first_arrival);
        expected.plus_micros(self.config.deadline_us)
    }
}

/// A longer pause than this is a fault, not pacing.
const BURST_GAP_MAX_US: u64 = 10_000;

/// Our clock less the host's at an arrival; wraps, as both epochs are arbitrary.
fn transit(now: Timestamp, timestamp_us: u64) -> i64 {
    now.as_micros().wrapping_sub(timestamp_us) as i64
}

/// `expected`, if it is within `reach` of `arrival`: else the host's clock has jumped.
fn clamp(expected: Option<u64>, arrival: Timestamp, reach: u64) -> Option<Timestamp> {
    let expected = Timestamp::from_micros(expected?);
    let early = arrival.micros_since(expected);
    let late = expected.micros_since(arrival);
    (early <= reach && late <= reach).then_some(expected)
}

/// The smallest transit over the last one to two spans.
#[derive(Clone, Copy, Debug, Default)]
struct Baseline {
    current: Option<i64>,
    previous: Option<i64>,
    since: Timestamp,
}

impl Baseline {
    fn observe(&mut self, now: Timestamp, transit: i64) {
        if self.current.is_none() || super::passed(now, self.since, BASELINE_SPAN_US) {
            self.previous = self.current;
            self.current = Some(transit);
            self.since = now;
        }
        self.current = Some(self.current.map_or(transit, |c| c.min(transit)));
    }

    fn smallest(&self) -> Option<i64> {
        match (self.current, self.previous) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn lateness(&self, transit: i64) -> u64 {
        self.smallest().map_or(0, |smallest| if transit > smallest { transit.abs_diff(smallest) } else { 0 })
    }

    fn expected(&self, timestamp_us: u64) -> Option<u64> {
        self.smallest().map(|smallest| timestamp_us.wrapping_add(smallest as u64))
    }
}

/// Lateness of recent frames, newer ones counting more.
#[derive(Debug)]
struct Histogram {
    bins: [u32; BINS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { bins: [0; BINS] }
    }
}

impl Histogram {
    fn add(&mut self, us: u64) {
        for bin in &mut self.bins {
            *bin -= *bin / MEMORY_FRAMES;
        }
        // Rounds down, so that a steady path has a quantile of 0.
        let at = (us / BIN_US).min(BINS as u64 - 1) as usize;
        self.bins[at] += WEIGHT;
    }

    /// Lateness that most frames stay below, in microseconds; 0 where they are all in the lowest bin.
    fn quantile(&self) -> u64 {
        let total: u64 = self.bins.iter().map(|&b| u64::from(b)).sum();
        let mut below = 0;
        for (at, &bin) in self.bins.iter().enumerate() {
            below += u64::from(bin);
            if below * 100 >= total * PUNCTUAL_PERCENT {
                return if at == 0 { 0 } else { (at as u64 + 1) * BIN_US };
            }
        }
        BINS as u64 * BIN_US
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: u64 = 16_667;
    /// The host's clock is this far ahead of ours: transits are negative.
    const SKEW: u64 = 1 << 40;

    struct Stream {
        playout: Playout,
        time: u64,
        rng: fastrand::Rng,
    }

    impl Stream {
        fn new() -> Self {
            Self {
                playout: Playout::new(PlayoutConfig::default()),
                time: 5_000,
                rng: fastrand::Rng::with_seed(7),
            }
        }

        /// Returns show time and deadline of the last frame, both less its undelayed arrival.
        fn frames(&mut self, count: u32, path_us: u64, jitter: u64) -> (u64, u64) {
            let mut last = (0, 0);
            for _ in 0..count {
                self.time += INTERVAL;
                let captured = self.time + SKEW;
                let undelayed = self.time + path_us;
                let arrival = Timestamp::from_micros(undelayed + self.rng.u64(0..=jitter));
                self.playout.on_frame_begun(arrival, captured);
                self.playout.on_frame_whole(arrival, captured);
                let show = self.playout.show_at(arrival, captured).as_micros().saturating_sub(undelayed);
                let deadline = self.playout.deadline(arrival, captured).as_micros().saturating_sub(undelayed);
                last = (show, deadline);
            }
            last
        }
    }

    #[test]
    fn a_steady_path_needs_no_delay() {
        let mut stream = Stream::new();
        assert_eq!(stream.frames(200, 3_000, 0), (0, 100_000));
        assert_eq!(stream.playout.jitter_delay_us(), 0);
        assert_eq!(stream.playout.frame_interval_us(), INTERVAL);
    }

    /// Proves R-PLAY-2.
    #[test]
    fn delay_grows_with_jitter_up_to_its_bound_and_shrinks_again() {
        let mut stream = Stream::new();
        stream.frames(300, 3_000, 6_000);
        let delay = stream.playout.jitter_delay_us();
        assert!((5_000..=7_000).contains(&delay), "{delay}");
        stream.frames(300, 3_000, 40_000);
        assert_eq!(stream.playout.jitter_delay_us(), 10_000);
        stream.frames(900, 3_000, 0);
        assert_eq!(stream.playout.jitter_delay_us(), 0);
    }

    #[test]
    fn a_late_frame_keeps_the_deadline_of_a_punctual_one() {
        let mut stream = Stream::new();
        stream.frames(50, 3_000, 0);
        stream.time += INTERVAL;
        let captured = stream.time + SKEW;
        let arrival = Timestamp::from_micros(stream.time + 3_000 + 40_000);
        stream.playout.on_frame_begun(arrival, captured);
        let deadline = stream.playout.deadline(arrival, captured);
        assert_eq!(deadline.as_micros(), stream.time + 3_000 + 100_000);
    }

    #[test]
    fn a_longer_path_is_accepted_after_a_few_frames() {
        let mut stream = Stream::new();
        stream.frames(100, 3_000, 0);
        stream.frames(4, 203_000, 0);
        let (_, deadline) = stream.frames(1, 203_000, 0);
        assert_eq!(deadline, 100_000);
    }

    #[test]
    fn clock_jumps_and_wild_timestamps_keep_times_near_the_arrival() {
        let mut playout = Playout::new(PlayoutConfig::default());
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let now = Timestamp::from_micros(rng.u64(..) >> rng.u32(0..64));
            let stamp = rng.u64(..) >> rng.u32(0..64);
            playout.on_frame_begun(now, stamp);
            playout.on_frame_whole(now, stamp);
            let deadline = playout.deadline(now, stamp);
            assert!(deadline <= now.plus_micros(100_000));
            assert!(deadline >= now.minus_micros(EARLY_MAX_US));
            assert!(playout.show_at(now, stamp) <= now.plus_micros(EARLY_MAX_US + 10_000));
        }
    }

    #[test]
    fn the_baseline_follows_a_drifting_clock() {
        let mut stream = Stream::new();
        stream.frames(100, 3_000, 0);
        // 200 ppm for a minute: without forgetting, frames would seem 12 ms late.
        for step in 0..3600 {
            stream.frames(1, 3_000 + step * 12_000 / 3600, 0);
        }
        let (show, _) = stream.frames(1, 15_000, 0);
        assert!(show < 1_500, "{show}");
    }
}

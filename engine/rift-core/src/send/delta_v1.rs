//! `delta-v1`: DELTA 1.1 as published (RIFT section 6), rule for rule.
//!
//! Owns the target bitrate, frame rate and parity ratio that follow from round trip times and loss.
//! Never touches packets. Invariant: bitrate, frame rate and parity stay between their bounds whatever
//! is put in.
//!
//! The published text counts in samples: each call of [`DeltaV1::on_rtt`] is one. It leaves open, and
//! this is chosen here: the bounds of the bitrate, the steps of the frame rate, the least parity and
//! how fast parity decays to it. An action belongs to the state that a sample leads to, so the first
//! sample over the limit already lowers the bitrate.

use crate::{Bitrate, Timestamp};

/// `RTT_min` is the least round trip time of this long, in microseconds.
pub const RTT_MIN_WINDOW_US: u64 = 10_000_000;
/// Weight of a new sample in `RTT_smooth`.
pub const RTT_SMOOTH_ALPHA: f64 = 0.125;
/// `T_limit`: more queueing delay than this is congestion, in microseconds.
pub const QUEUE_DELAY_LIMIT_US: f64 = 15_000.0;
/// `eps`: a slope above this share of `RTT_smooth` counts as rising.
pub const SLOPE_SHARE: f64 = 0.05;
/// Samples in a row from `Stable` to `Rising`.
pub const RISING_SAMPLES: u32 = 3;
/// Samples in a row from `Rising` to `Stable`.
pub const SETTLED_SAMPLES: u32 = 3;
/// Samples in a row from `Congested` to `Stable`.
pub const RECOVERED_SAMPLES: u32 = 5;
/// `step`: added per sample in `Stable` where there is no queueing delay.
pub const BITRATE_STEP: Bitrate = Bitrate::from_kbps(50);
/// The bitrate is multiplied by this per sample in `Congested`.
pub const BITRATE_BACKOFF: f64 = 0.85;
/// In `Congested` for this long: the frame rate goes one step down, in microseconds.
pub const FPS_DOWN_US: u64 = 1_000_000;
/// In `Stable` for this long: the frame rate goes one step up, in microseconds.
pub const FPS_UP_US: u64 = 5_000_000;
/// Loss in `Congested` multiplies parity by this.
pub const PARITY_GROWTH: f32 = 1.5;
/// The most parity.
pub const PARITY_MAX: f32 = 0.5;
/// Ours: steps of the frame rate, in percent of the highest.
pub const FPS_STEPS_PERCENT: [u32; 4] = [100, 75, 50, 25];
/// Ours: what is left per sample in `Stable` of the parity above the least.
pub const PARITY_DECAY: f32 = 0.95;

/// Bounds and starting points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeltaV1Config {
    /// The least target bitrate.
    pub bitrate_min: Bitrate,
    /// The highest target bitrate.
    pub bitrate_max: Bitrate,
    /// The first target bitrate.
    pub bitrate_initial: Bitrate,
    /// The highest frame rate, in frames per second.
    pub fps_max: u32,
    /// The least and first parity, in packets per data packet.
    pub parity_min: f32,
}

impl Default for DeltaV1Config {
    fn default() -> Self {
        Self {
            bitrate_min: Bitrate::from_kbps(500),
            bitrate_max: Bitrate::from_mbps(100),
            bitrate_initial: Bitrate::from_mbps(20),
            fps_max: 60,
            // The published 16 data and 2 parity packets.
            parity_min: 0.125,
        }
    }
}

/// What the path looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeltaState {
    /// No queue grows: the bitrate goes up.
    Stable,
    /// A queue grows: the bitrate stays.
    Rising,
    /// The queue is too long: the bitrate goes down.
    Congested,
}

/// The controller.
#[derive(Clone, Debug)]
pub struct DeltaV1 {
    config: DeltaV1Config,
    state: DeltaState,
    rtt_min: WindowedMin,
    rtt_smooth_us: Option<f64>,
    queue_delay_us: f64,
    /// Samples in a row that speak for leaving the state.
    streak: u32,
    /// When the state was entered, or the frame rate last changed in it.
    since: Timestamp,
    bitrate_bps: f64,
    fps_step: usize,
    parity: f32,
}

impl DeltaV1 {
    /// Starts in `Stable`.
    #[must_use]
    pub fn new(config: &DeltaV1Config) -> Self {
        let bitrate_max = config.bitrate_max.max(config.bitrate_min);
        let parity_min =
            if config.parity_min.is_nan() { 0.0 } else { config.parity_min.clamp(0.0, PARITY_MAX) };
        let config = DeltaV1Config { bitrate_max, parity_min, ..*config };
        let initial = config.bitrate_initial.clamp(config.bitrate_min, bitrate_max);
        Self {
            config,
            state: DeltaState::Stable,
            rtt_min: WindowedMin::new(),
            rtt_smooth_us: None,
            queue_delay_us: 0.0,
            streak: 0,
            since: Timestamp::ZERO,
            bitrate_bps: initial.as_bps() as f64,
            fps_step: 0,
            parity: parity_min,
        }
    }

    /// Takes in a round trip time: one sample.
    pub fn on_rtt(&mut self, now: Timestamp, rtt_us: u64) {
        if self.rtt_smooth_us.is_none() {
            self.since = now;
        }
        let rtt = rtt_us as f64;
        let smooth = self.rtt_smooth_us.map_or(rtt, |s| s + RTT_SMOOTH_ALPHA * (rtt - s));
        self.rtt_smooth_us = Some(smooth);
        let min = self.rtt_min.insert(now, rtt_us) as f64;
        let queue_delay = (smooth - min).max(0.0);
        let slope = queue_delay - self.queue_delay_us;
        self.queue_delay_us = queue_delay;
        self.change_state(now, slope, SLOPE_SHARE * smooth);
        self.act(now);
    }

    /// Takes in that `lost_packets` were lost since the last report.
    pub fn on_loss(&mut self, _now: Timestamp, lost_packets: u32) {
        if self.state == DeltaState::Congested && lost_packets > 0 {
            self.parity = (self.parity * PARITY_GROWTH).min(PARITY_MAX);
        }
    }

    /// What the path looks like.
    #[must_use]
    pub fn state(&self) -> DeltaState {
        self.state
    }

    /// What the encoder should make.
    #[must_use]
    pub fn target_bitrate(&self) -> Bitrate {
        Bitrate::from_bps(self.bitrate_bps as u64)
    }

    /// Frames per second that the encoder should make, at least 1.
    #[must_use]
    pub fn target_fps(&self) -> u32 {
        let fps = u64::from(self.config.fps_max) * u64::from(FPS_STEPS_PERCENT[self.fps_step]) / 100;
        u32::try_from(fps).unwrap_or(u32::MAX).max(1)
    }

    /// Parity packets per data packet.
    #[must_use]
    pub fn parity_ratio(&self) -> f32 {
        self.parity
    }

    /// `D_q`: how much longer than the least the round trip takes, in microseconds.
    #[must_use]
    pub fn queue_delay_us(&self) -> u64 {
        self.queue_delay_us as u64
    }

    /// `RTT_smooth`, in microseconds; 0 before the first sample.
    #[must_use]
    pub fn rtt_smooth_us(&self) -> u64 {
        self.rtt_smooth_us.unwrap_or(0.0) as u64
    }

    fn change_state(&mut self, now: Timestamp, slope: f64, slope_limit: f64) {
        if self.queue_delay_us > QUEUE_DELAY_LIMIT_US {
            return self.enter(now, DeltaState::Congested);
        }
        let under_limit = self.queue_delay_us < QUEUE_DELAY_LIMIT_US;
        let (speaks_for_change, samples, next) = match self.state {
            DeltaState::Stable => (slope > slope_limit, RISING_SAMPLES, DeltaState::Rising),
            DeltaState::Rising => (slope <= 0.0, SETTLED_SAMPLES, DeltaState::Stable),
            DeltaState::Congested => (slope <= 0.0 && under_limit, RECOVERED_SAMPLES, DeltaState::Stable),
        };
        self.streak = if speaks_for_change { self.streak + 1 } else { 0 };
        if self.streak == samples {
            self.enter(now, next);
        }
    }

    fn enter(&mut self, now: Timestamp, state: DeltaState) {
        self.streak = 0;
        if self.state != state {
            self.state = state;
            self.since = now;
        }
    }

    fn act(&mut self, now: Timestamp) {
        match self.state {
            DeltaState::Stable => {
                let room = 1.0 - self.queue_delay_us / QUEUE_DELAY_LIMIT_US;
                self.bitrate_bps += BITRATE_STEP.as_bps() as f64 * room;
                self.parity = self.config.parity_min + (self.parity - self.config.parity_min) * PARITY_DECAY;
                if self.fps_step > 0 && now.micros_since(self.since) >= FPS_UP_US {
                    self.fps_step -= 1;
                    self.since = now;
                }
            }
            DeltaState::Rising => {}
            DeltaState::Congested => {
                self.bitrate_bps *= BITRATE_BACKOFF;
                let lowest = FPS_STEPS_PERCENT.len() - 1;
                if self.fps_step < lowest && now.micros_since(self.since) >= FPS_DOWN_US {
                    self.fps_step += 1;
                    self.since = now;
                }
            }
        }
        let (min, max) = (self.config.bitrate_min.as_bps() as f64, self.config.bitrate_max.as_bps() as f64);
        self.bitrate_bps = self.bitrate_bps.clamp(min, max);
    }
}

/// Parts of the window of [`WindowedMin`].
const BUCKETS: u64 = 100;
const BUCKET_US: u64 = RTT_MIN_WINDOW_US / BUCKETS;

/// The least value of the last 10 s, and of up to a tenth of a second more.
#[derive(Clone, Debug)]
struct WindowedMin {
    /// Of each tenth of a second its number and least value. One more than the window has, because it
    /// begins and ends within one.
    buckets: [(u64, u64); BUCKETS as usize + 1],
}

impl WindowedMin {
    fn new() -> Self {
        Self { buckets: [(u64::MAX, u64::MAX); BUCKETS as usize + 1] }
    }

    /// Takes in a value and returns the least. Values from a future that a clock set back has taken
    /// away do not count.
    fn insert(&mut self, now: Timestamp, value: u64) -> u64 {
        let number = now.as_micros() / BUCKET_US;
        let bucket = &mut self.buckets[(number % (BUCKETS + 1)) as usize];
        *bucket = if bucket.0 == number { (number, bucket.1.min(value)) } else { (number, value) };
        let recent = |n: u64| n <= number && number - n <= BUCKETS;
        self.buckets.iter().filter(|(n, _)| recent(*n)).map(|(_, v)| *v).min().unwrap_or(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A controller and its clock, a sample each 10 ms.
    struct Rig {
        delta: DeltaV1,
        now: Timestamp,
    }

    impl Rig {
        fn new() -> Self {
            Self { delta: DeltaV1::new(&DeltaV1Config::default()), now: Timestamp::from_micros(1_000_000) }
        }

        fn rtt(&mut self, us: u64) -> DeltaState {
            self.now = self.now.plus_micros(10_000);
            self.delta.on_rtt(self.now, us);
            self.delta.state()
        }

        fn rtts(&mut self, us: u64, count: usize) {
            (0..count).for_each(|_| {
                self.rtt(us);
            });
        }

        fn congest(&mut self) {
            self.rtts(10_000, 10);
            while self.rtt(100_000) != DeltaState::Congested {}
        }

        /// Leads back to `Stable`, which a falling queue does once it is short enough.
        fn calm(&mut self) {
            while self.rtt(10_000) != DeltaState::Stable {}
        }
    }

    /// Proves R-DELTA-1.
    #[test]
    fn smooth_rtt_is_an_ewma_of_one_eighth() {
        let mut rig = Rig::new();
        rig.rtt(8000);
        assert_eq!(rig.delta.rtt_smooth_us(), 8000);
        rig.rtt(16_000);
        assert_eq!(rig.delta.rtt_smooth_us(), 9000);
        assert_eq!(rig.delta.queue_delay_us(), 1000);
    }

    /// Proves R-DELTA-1.
    #[test]
    fn the_least_rtt_is_forgotten_after_ten_seconds() {
        let mut min = WindowedMin::new();
        let at = |ms: u64| Timestamp::from_micros(ms * 1000);
        assert_eq!(min.insert(at(5_000), 10), 10);
        assert_eq!(min.insert(at(5_010), 30), 10);
        assert_eq!(min.insert(at(14_990), 20), 10);
        assert_eq!(min.insert(at(15_000), 25), 10);
        assert_eq!(min.insert(at(15_100), 25), 20);
        assert_eq!(min.insert(at(24_990), 25), 20);
        assert_eq!(min.insert(at(25_000), 25), 25);
        assert_eq!(min.insert(at(1_000), 90), 90);
    }

    /// Proves R-DELTA-2.
    #[test]
    fn three_steep_samples_in_a_row_are_rising() {
        let mut rig = Rig::new();
        rig.rtts(10_000, 5);
        // Each adds more than 5 % of the smoothed round trip time.
        assert_eq!(rig.rtt(15_000), DeltaState::Stable);
        assert_eq!(rig.rtt(16_000), DeltaState::Stable);
        assert_eq!(rig.rtt(17_000), DeltaState::Rising);
    }

    /// Proves R-DELTA-2.
    #[test]
    fn a_shallow_sample_breaks_the_row() {
        let mut rig = Rig::new();
        rig.rtts(10_000, 5);
        rig.rtt(15_000);
        rig.rtt(16_000);
        // Smoothed is about 11.3 ms: this adds less than 5 % of it.
        assert_eq!(rig.rtt(12_000), DeltaState::Stable);
        assert_eq!(rig.rtt(17_000), DeltaState::Stable);
        assert_eq!(rig.rtt(18_000), DeltaState::Stable);
        assert_eq!(rig.rtt(19_000), DeltaState::Rising);
    }

    /// Proves R-DELTA-3.
    #[test]
    fn three_samples_that_do_not_grow_settle_rising() {
        let mut rig = Rig::new();
        rig.rtts(10_000, 5);
        for us in [15_000, 16_000, 17_000] {
            rig.rtt(us);
        }
        let bitrate = rig.delta.target_bitrate();
        assert_eq!(rig.rtt(10_000), DeltaState::Rising);
        assert_eq!(rig.rtt(10_000), DeltaState::Rising);
        assert_eq!(rig.delta.target_bitrate(), bitrate, "rising holds");
        assert_eq!(rig.rtt(10_000), DeltaState::Stable);
    }

    /// Proves R-DELTA-4.
    #[test]
    fn over_the_limit_is_congested_at_once_from_any_state() {
        let mut stable = Rig::new();
        stable.rtts(10_000, 5);
        // One eighth of 130 ms is over 15 ms.
        assert_eq!(stable.rtt(140_000), DeltaState::Congested);

        let mut rising = Rig::new();
        rising.rtts(10_000, 5);
        for us in [15_000, 16_000, 17_000] {
            rising.rtt(us);
        }
        assert_eq!(rising.delta.state(), DeltaState::Rising);
        assert_eq!(rising.rtt(140_000), DeltaState::Congested);
    }

    #[test]
    fn exactly_the_limit_is_not_congested() {
        let mut rig = Rig::new();
        rig.rtts(10_000, 5);
        assert_eq!(rig.rtt(10_000 + 8 * 15_000), DeltaState::Stable);
        assert_eq!(rig.delta.queue_delay_us(), 15_000);
    }

    /// Proves R-DELTA-5.
    #[test]
    fn five_calm_samples_under_the_limit_end_congestion() {
        let mut rig = Rig::new();
        rig.congest();
        while rig.delta.queue_delay_us() > 15_000 {
            assert_eq!(rig.rtt(10_000), DeltaState::Congested);
        }
        // The sample that went under the limit was the first of the five.
        for _ in 0..3 {
            assert_eq!(rig.rtt(10_000), DeltaState::Congested);
        }
        assert_eq!(rig.rtt(10_000), DeltaState::Stable);
    }

    #[test]
    fn growth_under_the_limit_starts_the_five_again() {
        let mut rig = Rig::new();
        rig.congest();
        while rig.delta.queue_delay_us() > 5_000 {
            let rtt = if rig.delta.queue_delay_us() > 15_000 { 10_000 } else { 40_000 };
            // Never five in a row: alternate growing and falling under the limit.
            rig.rtt(rtt);
            if rtt == 40_000 {
                break;
            }
        }
        for _ in 0..3 {
            for _ in 0..4 {
                assert_eq!(rig.rtt(10_000), DeltaState::Congested);
            }
            rig.rtt(30_000);
            assert_eq!(rig.delta.state(), DeltaState::Congested);
        }
    }

    /// Proves R-DELTA-6.
    #[test]
    fn stable_adds_a_step_scaled_by_the_room_left() {
        let mut rig = Rig::new();
        rig.rtt(10_000);
        let before = rig.delta.target_bitrate().as_bps();
        rig.rtt(10_000);
        assert_eq!(rig.delta.target_bitrate().as_bps(), before + 50_000);
        // One eighth of 60 ms is a queueing delay of 7.5 ms, half the limit.
        rig.rtt(70_000);
        assert_eq!(rig.delta.target_bitrate().as_bps(), before + 75_000);
    }

    /// Proves R-DELTA-6.
    #[test]
    fn congested_multiplies_the_bitrate_by_085_per_sample() {
        let mut rig = Rig::new();
        rig.rtts(10_000, 5);
        let before = rig.delta.target_bitrate().as_bps() as f64;
        rig.rtt(140_000);
        assert_eq!(rig.delta.target_bitrate().as_bps(), (before * 0.85) as u64);
        rig.rtt(140_000);
        assert_eq!(rig.delta.target_bitrate().as_bps(), (before * 0.85 * 0.85) as u64);
    }

    #[test]
    fn bitrate_stays_between_its_bounds() {
        let mut rig = Rig::new();
        rig.rtts(10_000, 5);
        rig.rtts(200_000, 200);
        assert_eq!(rig.delta.target_bitrate(), Bitrate::from_kbps(500));
        rig.calm();
        rig.rtts(10_000, 3000);
        assert_eq!(rig.delta.target_bitrate(), Bitrate::from_mbps(100));
    }

    /// Proves R-DELTA-7.
    #[test]
    fn frame_rate_goes_a_step_down_per_second_congested_and_up_after_five_stable() {
        let mut rig = Rig::new();
        rig.congest();
        rig.rtts(100_000, 99);
        assert_eq!(rig.delta.target_fps(), 60);
        rig.rtt(100_000);
        assert_eq!(rig.delta.target_fps(), 45);
        rig.rtts(100_000, 100);
        assert_eq!(rig.delta.target_fps(), 30);
        rig.calm();
        rig.rtts(10_000, 499);
        assert_eq!(rig.delta.target_fps(), 30);
        rig.rtt(10_000);
        assert_eq!(rig.delta.target_fps(), 45);
        rig.rtts(10_000, 500);
        assert_eq!(rig.delta.target_fps(), 60);
    }

    /// Proves R-DELTA-8.
    #[test]
    fn loss_raises_parity_only_while_congested_and_stable_lets_it_decay() {
        let mut rig = Rig::new();
        rig.rtts(10_000, 5);
        rig.delta.on_loss(rig.now, 7);
        assert_eq!(rig.delta.parity_ratio(), 0.125);
        rig.congest();
        rig.delta.on_loss(rig.now, 0);
        assert_eq!(rig.delta.parity_ratio(), 0.125);
        rig.delta.on_loss(rig.now, 1);
        assert_eq!(rig.delta.parity_ratio(), 0.1875);
        (0..9).for_each(|_| rig.delta.on_loss(rig.now, 1));
        assert_eq!(rig.delta.parity_ratio(), 0.5);
        rig.rtt(100_000);
        assert_eq!(rig.delta.parity_ratio(), 0.5, "only stable decays");
        rig.calm();
        let first = rig.delta.parity_ratio();
        assert!(first < 0.5 && first > 0.45);
        rig.rtts(10_000, 400);
        assert!((rig.delta.parity_ratio() - 0.125).abs() < 1e-4);
    }

    #[test]
    fn extreme_inputs_stay_in_bounds() {
        let mut delta = DeltaV1::new(&DeltaV1Config {
            bitrate_min: Bitrate::from_mbps(9),
            bitrate_max: Bitrate::from_mbps(1),
            bitrate_initial: Bitrate::ZERO,
            fps_max: 0,
            parity_min: f32::NAN,
        });
        for (now, rtt) in [(0, u64::MAX), (u64::MAX, 0), (5, u64::MAX), (u64::MAX - 1, u64::MAX), (0, 0)] {
            delta.on_rtt(Timestamp::from_micros(now), rtt);
            delta.on_loss(Timestamp::from_micros(now), u32::MAX);
            assert_eq!(delta.target_bitrate(), Bitrate::from_mbps(9));
            assert_eq!(delta.target_fps(), 1);
            assert_eq!(delta.parity_ratio(), 0.0);
        }
    }
}

//! The scenarios that controllers are judged by, and what is expected of them.
//!
//! Owns texts and goals. One picture of 60 frames per second, frame sizes that vary by 15 %, a change of scene every
//! 4 s; frames are whole at their capture, so that their delay is that of sending alone. A minute, of which the
//! first 5 s are not counted.

use super::preset::Preset;
use crate::metrics::{ChangeRecord, NEVER_US, StreamMetrics};

macro_rules! row {
    ($name:literal, $about:literal, $text:literal, [$($goal:expr),* $(,)?]) => {
        Row {
            preset: Preset {
                name: $name,
                about: $about,
                text: concat!(
                    "name ", $name, "; duration 60s; warmup 5s; input 0; decode 0us; protocol parity 0%;
                     video rate 5Mbit/s min 1Mbit/s max 80Mbit/s slices 1 encode 0us noise 15% scene 2.5 4s;
                     down delay 10ms queue 200ms; up delay 10ms; ", $text
                ),
            },
            goals: &[$($goal),*],
        }
    };
}

/// A scenario with its goals.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The scenario.
    pub preset: Preset,
    /// What is expected, of the mean over seeds.
    pub goals: &'static [Goal],
}

/// A figure and its bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goal {
    /// The figure.
    pub figure: Figure,
    /// The bound, in the figure's unit.
    pub bound: f64,
    /// Whether the figure must not be below it; else it must not be above.
    pub at_least: bool,
}

/// What is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Share of capacity used by complete frames, in percent. At least.
    Utilisation,
    /// 99th percentile of frame delay, in ms.
    DelayP99,
    /// 95th percentile of the standing queue, in ms.
    Standing,
    /// Frames over 50 ms, in percent.
    Over50,
    /// Frames over 100 ms, in percent.
    Over100,
    /// Stale time, in percent.
    Stale,
    /// 99th percentile of age, in ms.
    AgeP99,
    /// Packets lost, in percent.
    Loss,
    /// Parity and packets sent again, in percent.
    Redundancy,
    /// To 80 % of capacity at the start, in seconds.
    Ramp,
    /// To 80 % of an increased capacity, the longest of the run, in seconds.
    Regained,
    /// Until frames are in time after a decrease, the longest of the run, in seconds.
    Settled,
    /// Jain's index of streams that share the path.
    Jain,
    /// The smallest rate of those streams, as a share of an equal one.
    LeastShare,
    /// What they use of the path together, in percent.
    Together,
    /// Deviation of a stream's rate in constant conditions, as a share of it.
    Unsteady,
    /// The rate beside other traffic, in Mbit/s.
    Beside,
    /// The standing queue from a second after other traffic has ended, in ms.
    LeftBehind,
}

impl Figure {
    /// With its unit.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Utilisation => "util %",
            Self::DelayP99 => "p99 ms",
            Self::Standing => "standing ms",
            Self::Over50 => ">50 ms %",
            Self::Over100 => ">100 ms %",
            Self::Stale => "stale %",
            Self::AgeP99 => "age p99 ms",
            Self::Loss => "loss %",
            Self::Redundancy => "redundant %",
            Self::Ramp => "ramp s",
            Self::Regained => "regained s",
            Self::Settled => "settled s",
            Self::Jain => "Jain",
            Self::LeastShare => "least share",
            Self::Together => "together %",
            Self::Unsteady => "unsteady",
            Self::Beside => "beside Mbit/s",
            Self::LeftBehind => "left behind ms",
        }
    }

    /// Its value; infinite where what is waited for never came, not a number where there was nothing to judge.
    #[must_use]
    pub fn value(self, m: &StreamMetrics) -> f64 {
        let ms = |us: u32| if us == NEVER_US { f64::INFINITY } else { f64::from(us) / 1e3 };
        let seconds = |us: Option<u64>| us.map_or(f64::INFINITY, |us| us as f64 / 1e6);
        let slowest = |up: bool| {
            let those = m.changes.iter().filter(|change: &&ChangeRecord| (change.to > change.from) == up);
            those.map(|change| seconds(change.took_us)).fold(0.0, f64::max)
        };
        match self {
            Self::Utilisation => m.utilisation.unwrap_or(0.0) * 100.0,
            Self::DelayP99 => ms(m.delay_us[2]),
            Self::Standing => m.standing_p95_us.map_or(0.0, ms),
            Self::Over50 => m.over_50ms * 100.0,
            Self::Over100 => m.over_100ms * 100.0,
            Self::Stale => m.stale * 100.0,
            Self::AgeP99 => m.age_p99_us as f64 / 1e3,
            Self::Loss => m.packet_loss * 100.0,
            Self::Redundancy => m.redundancy * 100.0,
            Self::Ramp => seconds(m.ramp_us),
            Self::Regained => slowest(true),
            Self::Settled => slowest(false),
            Self::Jain => m.shared.jain.unwrap_or(f64::NAN),
            Self::LeastShare => m.shared.least_share.unwrap_or(f64::NAN),
            Self::Together => m.shared.together.map_or(f64::NAN, |share| share * 100.0),
            Self::Unsteady => m.shared.unsteady.unwrap_or(f64::NAN),
            Self::Beside => m.shared.beside_mbps.unwrap_or(f64::NAN),
            Self::LeftBehind => m.shared.left_behind_us.map_or(f64::NAN, ms),
        }
    }
}

impl Goal {
    /// Whether `value` is good enough.
    #[must_use]
    pub fn is_met(&self, value: f64) -> bool {
        if self.at_least { value >= self.bound } else { value <= self.bound }
    }
}

const fn goal(figure: Figure, bound: f64) -> Goal {
    Goal { figure, bound, at_least: false }
}

const fn least(figure: Figure, bound: f64) -> Goal {
    Goal { figure, bound, at_least: true }
}

const fn used(percent: f64) -> Goal {
    least(Figure::Utilisation, percent)
}

const fn p99(ms: f64) -> Goal {
    goal(Figure::DelayP99, ms)
}

const fn stale(percent: f64) -> Goal {
    goal(Figure::Stale, percent)
}

const fn age(ms: f64) -> Goal {
    goal(Figure::AgeP99, ms)
}

const fn over50(percent: f64) -> Goal {
    goal(Figure::Over50, percent)
}

const fn redundancy(percent: f64) -> Goal {
    goal(Figure::Redundancy, percent)
}

const fn standing(ms: f64) -> Goal {
    goal(Figure::Standing, ms)
}

const fn ramp(seconds: f64) -> Goal {
    goal(Figure::Ramp, seconds)
}

const fn together(percent: f64) -> Goal {
    least(Figure::Together, percent)
}

const fn fair(index: f64) -> Goal {
    least(Figure::Jain, index)
}

/// Nobody gets less than this part of an equal share.
const fn no_starvation(share: f64) -> Goal {
    least(Figure::LeastShare, share)
}

const fn steady(share: f64) -> Goal {
    goal(Figure::Unsteady, share)
}

/// Nothing stands in the queue from a second after the others' end.
const fn lets_go() -> Goal {
    goal(Figure::LeftBehind, 15.0)
}

/// All rows.
pub const SUITE: &[Row] = &[
    row!(
        "tail10",
        "10 Mbit/s, 200 ms of buffer",
        "down rate 10Mbit/s",
        [used(87.0), p99(42.0), standing(6.0), over50(0.25)]
    ),
    row!(
        "tail20",
        "20 Mbit/s, 200 ms of buffer",
        "down rate 20Mbit/s",
        [used(87.0), p99(42.0), standing(6.0), over50(0.25)]
    ),
    row!(
        "tail50",
        "50 Mbit/s, 200 ms of buffer",
        "down rate 50Mbit/s",
        [used(87.0), p99(42.0), standing(6.0), over50(0.25)]
    ),
    row!(
        "ramp20",
        "the first 5 s on 20 Mbit/s",
        "duration 5s; warmup 0s; down rate 20Mbit/s",
        [ramp(0.8), p99(60.0)]
    ),
    row!(
        "ramp50",
        "the first 5 s on 50 Mbit/s",
        "duration 5s; warmup 0s; down rate 50Mbit/s",
        [ramp(1.2), p99(60.0)]
    ),
    row!(
        "ramp100",
        "the first 5 s on 100 Mbit/s",
        "duration 5s; warmup 0s; down rate 100Mbit/s; video max 200Mbit/s",
        [ramp(1.5), p99(60.0)]
    ),
    row!(
        "ramp150",
        "the first 5 s on a LAN of 150 Mbit/s",
        "duration 5s; warmup 0s; down rate 150Mbit/s delay 500us; up delay 500us; video max 200Mbit/s",
        [ramp(1.0), p99(60.0)]
    ),
    row!(
        "shallow20",
        "20 Mbit/s, 20 ms of buffer",
        "down rate 20Mbit/s queue 20ms",
        [used(86.0), p99(42.0), goal(Figure::Loss, 0.2)]
    ),
    row!(
        "codel20",
        "20 Mbit/s, CoDel",
        "down rate 20Mbit/s codel",
        [used(86.0), p99(44.0), goal(Figure::Loss, 0.2)]
    ),
    row!(
        "steps",
        "20, 5, 20 Mbit/s, 10 s each",
        "down steps 20Mbit/s 20s 5Mbit/s 20s 20Mbit/s 20s",
        [goal(Figure::Settled, 0.3), p99(45.0), stale(0.4), goal(Figure::Regained, 1.0)]
    ),
    row!(
        "swings",
        "50 and 15 Mbit/s, 5 s each",
        "down steps 50Mbit/s 5s 15Mbit/s 5s",
        [used(82.0), p99(90.0), stale(2.0)]
    ),
    row!(
        "verizon",
        "Verizon LTE, measured",
        "down trace Verizon-LTE-short.down queue 3MB",
        [used(60.0), stale(13.0), age(500.0)]
    ),
    row!(
        "tmobile",
        "T-Mobile LTE, measured",
        "down trace TMobile-LTE-short.down queue 3MB",
        [used(45.0), stale(11.0), age(500.0)]
    ),
    row!(
        "nyc-bus",
        "LTE in a bus in New York, measured",
        "down trace nyc-lte-2019-bus.down queue 3MB",
        [used(62.0), stale(20.0), age(800.0)]
    ),
    row!(
        "5g-driving",
        "a quarter of 5G on the road, measured",
        "down trace irish-5g-driving.txt x0.25 queue 3MB",
        [used(72.0), stale(14.0)]
    ),
    row!("lte", "a mobile link of 10 Mbit/s, made from the seed", "down lte 10Mbit/s queue 3MB", []),
    row!(
        "wifi-walk",
        "Wi-Fi: aggregation, airtime walk, droughts",
        "down wifi 60Mbit/s delay 3ms queue 1MB; up delay 3ms",
        [used(68.0), stale(2.0), age(110.0)]
    ),
    row!(
        "jitter5",
        "20 Mbit/s, jitter of 5 ms deviation",
        "down rate 20Mbit/s jitter sd 5ms",
        [used(84.0), p99(55.0)]
    ),
    row!(
        "loss1",
        "20 Mbit/s, 1 % random loss",
        "down rate 20Mbit/s loss 1%",
        [used(82.0), over50(0.2), redundancy(6.0)]
    ),
    row!(
        "loss5",
        "20 Mbit/s, 5 % random loss",
        "down rate 20Mbit/s loss 5%",
        [used(74.0), over50(0.5), redundancy(15.0)]
    ),
    row!(
        "bursts8",
        "20 Mbit/s, bursts of 8, 2 % in all",
        "down rate 20Mbit/s loss burst 2% 8",
        [used(76.0), over50(1.5), redundancy(12.0)]
    ),
    row!(
        "gilbert",
        "20 Mbit/s, a bad state that loses a third",
        "down rate 20Mbit/s loss gilbert 1% 20% 0.1% 30%",
        []
    ),
    row!(
        "loss1-rtt80",
        "20 Mbit/s, 80 ms round trip, 1 % random loss",
        "down rate 20Mbit/s delay 40ms loss 1%; up delay 40ms",
        [goal(Figure::Over100, 0.1), redundancy(8.0)]
    ),
    row!(
        "feedback10",
        "20 Mbit/s, 10 % of feedback lost",
        "down rate 20Mbit/s; up loss 10%",
        [used(86.0), p99(42.0)]
    ),
    row!(
        "drift",
        "20 Mbit/s, clocks 200 ppm apart",
        "down rate 20Mbit/s; clock host 5000s 100; clock client 70s -100",
        [used(87.0), p99(42.0)]
    ),
    row!(
        "demand",
        "capped at 4 Mbit/s by content, then demand",
        "down rate 20Mbit/s; video content 4Mbit/s; at 30s content unlimited",
        [p99(36.0)]
    ),
    row!(
        "l4s",
        "20 Mbit/s, L4S marks from 2 to 10 ms",
        "down rate 20Mbit/s mark 2ms 10ms",
        [used(78.0), p99(28.0)]
    ),
    row!(
        "fair2",
        "two streams on 20 Mbit/s, the second 10 s later",
        "down rate 20Mbit/s; flow start 10s",
        [fair(0.98), together(80.0), steady(0.3)]
    ),
    row!(
        "fair-rtt",
        "three streams on 30 Mbit/s, round trips of 10, 40 and 100 ms",
        "duration 90s; down rate 30Mbit/s delay 5ms; up delay 5ms; flow start 5s delay 15ms; flow start 10s delay 45ms",
        [fair(0.95), no_starvation(0.5), together(80.0)]
    ),
    row!(
        "cubic100",
        "beside CUBIC for 30 s on 20 Mbit/s, 100 ms of buffer",
        "down rate 20Mbit/s queue 100ms; cross cubic start 15s stop 45s",
        [least(Figure::Beside, 7.0), goal(Figure::Beside, 10.0), lets_go()]
    ),
    row!(
        "cubic300",
        "beside CUBIC for 30 s on 20 Mbit/s, 300 ms of buffer",
        "down rate 20Mbit/s queue 300ms; cross cubic start 15s stop 45s",
        [least(Figure::Beside, 5.0), lets_go()]
    ),
    row!(
        "web",
        "20 Mbit/s, downloads of 500 kB on average, one a second",
        "down rate 20Mbit/s; cross web every 1s size 500kB",
        [used(60.0), stale(4.0)]
    ),
    row!(
        "cbr",
        "20 Mbit/s, of which somebody takes 8 every other 5 s",
        "down rate 20Mbit/s; cross cbr 8Mbit/s on 5s off 5s",
        [over50(2.0)]
    ),
    row!(
        "rfc8867-5.1",
        "RFC 8867 5.1: variable capacity, one stream",
        "duration 100s; down steps 10Mbit/s 40s 25Mbit/s 20s 6Mbit/s 20s 10Mbit/s 20s delay 50ms queue 300ms; up delay 50ms",
        [used(80.0), goal(Figure::Settled, 1.0), goal(Figure::Regained, 3.0), steady(0.25)]
    ),
    row!(
        "rfc8867-5.2",
        "RFC 8867 5.2: variable capacity, two streams",
        "duration 125s; down steps 40Mbit/s 25s 20Mbit/s 25s 35Mbit/s 25s 10Mbit/s 25s 20Mbit/s 25s delay 50ms queue 300ms;
         up delay 50ms; flow start 0s",
        [together(80.0), fair(0.9), no_starvation(0.5), steady(0.3)]
    ),
    row!(
        "rfc8867-5.3",
        "RFC 8867 5.3: congested both ways",
        "duration 100s; down steps 20Mbit/s 20s 10Mbit/s 20s 5Mbit/s 20s 20Mbit/s 40s delay 50ms queue 300ms;
         up steps 20Mbit/s 35s 8Mbit/s 35s 20Mbit/s 30s delay 50ms queue 300ms; flow reverse",
        [used(70.0), goal(Figure::Settled, 1.0), goal(Figure::Regained, 3.0), steady(0.3)]
    ),
    row!(
        "rfc8867-5.4",
        "RFC 8867 5.4: three streams that come one after another",
        "duration 120s; down rate 35Mbit/s delay 50ms queue 300ms; up delay 50ms; flow start 20s; flow start 40s",
        [fair(0.95), no_starvation(0.5), together(80.0), steady(0.3)]
    ),
    row!(
        "rfc8867-5.5",
        "RFC 8867 5.5: five streams, one way 10, 25, 50, 100 and 150 ms",
        "duration 300s; down rate 40Mbit/s delay 10ms queue 300ms; up delay 10ms; flow start 10s delay 15ms;
         flow start 20s delay 40ms; flow start 30s delay 90ms; flow start 40s delay 140ms",
        [fair(0.8), no_starvation(0.4), together(80.0)]
    ),
    row!(
        "rfc8867-5.6",
        "RFC 8867 5.6: beside a long TCP flow that was there first",
        "duration 120s; down rate 20Mbit/s delay 50ms queue 300ms; up delay 50ms; main start 5s stop 119s; cross cubic",
        [least(Figure::Beside, 5.0), goal(Figure::Beside, 14.0)]
    ),
    row!(
        "rfc8867-5.7",
        "RFC 8867 5.7: two streams beside short TCP flows",
        "duration 300s; down rate 20Mbit/s delay 50ms queue 300ms; up delay 50ms; main start 5s stop 299s;
         flow start 5s stop 299s; cross web every 1s size 400kB",
        [together(55.0), no_starvation(0.5)]
    ),
    row!(
        "rfc8867-5.8",
        "RFC 8867 5.8: three streams, one pauses from 40 to 60 s",
        "duration 120s; down rate 35Mbit/s delay 50ms queue 300ms; up delay 50ms; flow; flow; at 40s pause 2; at 60s resume 2",
        [fair(0.95), no_starvation(0.5), together(80.0), steady(0.3)]
    ),
    row!(
        "rfc8869-4.1a",
        "RFC 8869 4.1, wired bottleneck: one stream",
        "duration 120s; down rate 10Mbit/s delay 50ms jitter 2ms queue 300ms; up delay 50ms jitter 2ms",
        [used(80.0), steady(0.25)]
    ),
    row!(
        "rfc8869-4.1c",
        "RFC 8869 4.1, wired bottleneck: a stream each way",
        "duration 120s; down rate 10Mbit/s delay 50ms jitter 2ms queue 300ms;
         up rate 10Mbit/s delay 50ms jitter 2ms queue 300ms; flow reverse",
        [used(80.0), steady(0.25)]
    ),
    row!(
        "rfc8869-4.1d",
        "RFC 8869 4.1: a stream each way, 3 Mbit/s of others from 40 to 80 s",
        "duration 120s; down rate 10Mbit/s delay 50ms jitter 2ms queue 300ms;
         up rate 10Mbit/s delay 50ms jitter 2ms queue 300ms; flow reverse; cross cbr 3Mbit/s start 40s stop 80s",
        [least(Figure::Beside, 5.0), lets_go()]
    ),
    row!(
        "rfc8869-4.1f",
        "RFC 8869 4.1: a stream each way, a TCP flow from 40 to 80 s",
        "duration 120s; down rate 10Mbit/s delay 50ms jitter 2ms queue 300ms;
         up rate 10Mbit/s delay 50ms jitter 2ms queue 300ms; flow reverse; cross cubic start 40s stop 80s",
        [least(Figure::Beside, 2.5), lets_go()]
    ),
    row!(
        "rfc8869-4.2a",
        "RFC 8869 4.2, Wi-Fi bottleneck: four streams down",
        "down wifi 60Mbit/s delay 10ms queue 1MB; up delay 10ms; flow; flow; flow",
        [fair(0.9), no_starvation(0.5), together(60.0)]
    ),
    row!(
        "rfc8869-4.2c",
        "RFC 8869 4.2, Wi-Fi bottleneck: two streams each way",
        "down wifi 60Mbit/s delay 10ms queue 1MB; up wifi 60Mbit/s delay 10ms queue 1MB; flow; flow reverse; flow reverse",
        [fair(0.9), no_starvation(0.5), together(60.0)]
    ),
    row!(
        "rfc8869-4.2d",
        "RFC 8869 4.2: two streams each way, 6 Mbit/s of others up",
        "down wifi 60Mbit/s delay 10ms queue 1MB; up wifi 60Mbit/s delay 10ms queue 1MB; flow; flow reverse; flow reverse;
         cross cbr 6Mbit/s reverse start 20s stop 40s",
        [fair(0.9), no_starvation(0.5), together(60.0)]
    ),
    row!(
        "rfc8869-4.2e",
        "RFC 8869 4.2: two streams each way, a TCP flow up",
        "down wifi 60Mbit/s delay 10ms queue 1MB; up wifi 60Mbit/s delay 10ms queue 1MB; flow; flow reverse; flow reverse;
         cross cubic reverse start 20s stop 40s",
        [fair(0.9), no_starvation(0.5), together(60.0)]
    ),
];

impl Row {
    /// The row of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        SUITE.iter().find(|row| row.preset.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn every_row_is_a_scenario_of_its_name_and_survives_its_text_form() {
        for row in SUITE {
            let scenario = row.preset.scenario();
            assert_eq!(scenario.name, row.preset.name);
            assert_eq!(scenario.to_string().parse::<Scenario>(), Ok(scenario), "{}", row.preset.name);
            assert_eq!(SUITE.iter().filter(|other| other.preset.name == row.preset.name).count(), 1);
        }
        assert!(Preset::find("tail20").is_some());
    }

    #[test]
    fn some_figures_are_wanted_high_and_the_others_low() {
        assert!(used(87.0).is_met(87.0) && !used(87.0).is_met(86.9));
        assert!(fair(0.98).is_met(0.99) && !fair(0.98).is_met(f64::NAN), "nothing to judge is no success");
        assert!(p99(42.0).is_met(42.0) && !p99(42.0).is_met(f64::INFINITY));
    }
}

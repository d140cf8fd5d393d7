//! What streams and other traffic on one queue were to each other: fairness, steadiness, what a guest leaves behind.
//!
//! Rates are those that arrived, headers, parity and repetitions included, in windows of a second. Invariant: only
//! times of constant conditions are judged; after each change everybody has some time to find a new place.

use crate::link::STANDING_WINDOW_US;
use crate::report::Sample;

/// After a change of conditions so much is not judged, in microseconds.
const SETTLE_US: u64 = 5_000_000;
/// Shorter stretches are not judged.
const STRETCH_US_MIN: u64 = 5_000_000;
const WINDOW_US: u64 = 1_000_000;
/// A guest's queue is to be gone so long after it left, and looked for that long; in microseconds.
const AFTER_US: (u64, u64) = (1_000_000, 4_000_000);

/// What they were to each other. Each is `None` where there was nothing to be judged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shared {
    /// Jain's index of the mean rates of all streams while all ran: 1 if equal, `1 / n` if one has everything
    /// (Jain, Chiu and Hawe 1984). The mean over stretches.
    pub jain: Option<f64>,
    /// The smallest mean rate, as a share of an equal one.
    pub least_share: Option<f64>,
    /// Deviation of a stream's rate from its mean within a stretch of constant conditions, as a share of the mean,
    /// of the least steady stream in the least steady stretch.
    pub unsteady: Option<f64>,
    /// What all streams used of the path while all ran, as a share of what it offered.
    pub together: Option<f64>,
    /// The first stream's rate while guests were there, in Mbit/s.
    pub beside_mbps: Option<f64>,
    /// The longest standing queue in the seconds from one second after a guest's end, in microseconds.
    pub left_behind_us: Option<u32>,
}

/// A stream, while it was to run.
#[derive(Debug)]
pub(crate) struct Stream<'a> {
    pub(crate) from_us: u64,
    pub(crate) to_us: u64,
    pub(crate) pauses: Vec<(u64, u64)>,
    pub(crate) samples: &'a [Sample],
}

/// Somebody else, while he was there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest {
    pub(crate) from_us: u64,
    pub(crate) to_us: u64,
}

impl Stream<'_> {
    /// The rate between two moments, in bits per second.
    fn bps(&self, from_us: u64, to_us: u64) -> f64 {
        let within = self.samples.iter().filter(|s| s.at_us > from_us && s.at_us <= to_us);
        let us = to_us.saturating_sub(from_us).max(1);
        within.map(|s| s.arrived_bytes).sum::<u64>() as f64 * 8e6 / us as f64
    }

    fn runs(&self, (from_us, to_us): (u64, u64)) -> bool {
        let paused = self.pauses.iter().any(|&(begin, end)| begin < to_us && from_us < end);
        self.from_us <= from_us && to_us <= self.to_us && !paused
    }

    /// Deviation of the rate over mean within a stretch.
    fn deviation(&self, (from_us, to_us): (u64, u64)) -> f64 {
        let windows = (to_us - from_us) / WINDOW_US;
        let rates: Vec<f64> =
            (0..windows).map(|i| self.bps(from_us + i * WINDOW_US, from_us + (i + 1) * WINDOW_US)).collect();
        let mean = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
        let variance = rates.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / rates.len().max(1) as f64;
        if mean > 0.0 { variance.sqrt() / mean } else { 0.0 }
    }
}

impl Shared {
    /// Of `streams`, of which the first is the one that is looked at; `changes` are the times at which conditions
    /// changed for all, `standing` the queue's shortest waits.
    pub(crate) fn of(
        streams: &[Stream<'_>],
        guests: &[Guest],
        changes: &[u64],
        standing: &[(u32, u32)],
        warmup_us: u64,
    ) -> Self {
        let Some(first) = streams.first() else { return Self::default() };
        let stretches = stretches(streams, guests, changes);
        let mut jains = Vec::new();
        let mut least: Option<f64> = None;
        let mut unsteady: Option<f64> = None;
        for &stretch in &stretches {
            let running: Vec<_> = streams.iter().filter(|s| s.runs(stretch)).collect();
            for stream in &running {
                // Beside guests it is they who make rates vary.
                if !guests.iter().any(|g| g.from_us < stretch.1 && stretch.0 < g.to_us) {
                    let deviation = stream.deviation(stretch);
                    unsteady = Some(unsteady.map_or(deviation, |worst| worst.max(deviation)));
                }
            }
            if running.len() < 2 {
                continue;
            }
            let rates: Vec<f64> = running.iter().map(|s| s.bps(stretch.0, stretch.1)).collect();
            jains.push(jain(&rates));
            let equal = rates.iter().sum::<f64>() / rates.len() as f64;
            let smallest = rates.iter().copied().fold(f64::INFINITY, f64::min) / equal.max(1.0);
            least = Some(least.map_or(smallest, |l| l.min(smallest)));
        }
        let joint_us = (
            streams.iter().map(|s| s.from_us).max().unwrap_or(0) + SETTLE_US,
            streams.iter().map(|s| s.to_us).min().unwrap_or(0),
        );
        let offered = first.samples.iter().filter(|s| s.at_us > joint_us.0 && s.at_us <= joint_us.1);
        let offered: u64 = offered.map(|s| s.offered_bytes).sum();
        let used: f64 = streams.iter().map(|s| s.bps(joint_us.0, joint_us.1)).sum();
        let together = (offered > 0 && joint_us.1 > joint_us.0)
            .then(|| used * (joint_us.1 - joint_us.0) as f64 / 8e6 / offered as f64);
        let beside = guests.iter().filter_map(|guest| {
            let from_us = (guest.from_us + SETTLE_US).max(first.from_us + warmup_us);
            (guest.to_us > from_us + WINDOW_US).then(|| first.bps(from_us, guest.to_us) / 1e6)
        });
        let beside: Vec<f64> = beside.collect();
        let left_behind = guests.iter().filter_map(|guest| {
            let from_us = guest.to_us + AFTER_US.0;
            // Nothing is left behind by one who stays, nor beside another.
            let others = guests.iter().filter(|o| o.to_us > from_us && o.from_us < guest.to_us + AFTER_US.1);
            let is_over = guest.to_us + AFTER_US.1 <= first.to_us && others.count() == 0;
            is_over.then(|| longest_wait_us(standing, from_us, guest.to_us + AFTER_US.1))
        });
        Self {
            jain: mean(&jains),
            least_share: least,
            unsteady,
            together,
            beside_mbps: mean(&beside),
            left_behind_us: left_behind.max(),
        }
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn jain(rates: &[f64]) -> f64 {
    let sum: f64 = rates.iter().sum();
    let squares: f64 = rates.iter().map(|r| r * r).sum();
    if squares > 0.0 { sum * sum / (rates.len() as f64 * squares) } else { 1.0 }
}

fn longest_wait_us(standing: &[(u32, u32)], from_us: u64, to_us: u64) -> u32 {
    let within = |window: u32| {
        let at_us = u64::from(window) * STANDING_WINDOW_US;
        (from_us..to_us).contains(&at_us)
    };
    standing.iter().filter(|&&(window, _)| within(window)).map(|&(_, us)| us).max().unwrap_or(0)
}

/// Stretches of constant conditions, without the time that everybody needs to settle.
fn stretches(streams: &[Stream<'_>], guests: &[Guest], changes: &[u64]) -> Vec<(u64, u64)> {
    // A change of capacity more often than every two seconds is a trace; there the rates are those of the path.
    let is_trace = changes.windows(2).filter(|w| w[1].saturating_sub(w[0]) < 2_000_000).count() > 2;
    let mut edges: Vec<u64> = if is_trace { Vec::new() } else { changes.to_vec() };
    for stream in streams {
        edges.extend([stream.from_us, stream.to_us]);
        edges.extend(stream.pauses.iter().flat_map(|&(begin, end)| [begin, end]));
    }
    edges.extend(guests.iter().flat_map(|guest| [guest.from_us, guest.to_us]));
    let end_us = streams.iter().map(|s| s.to_us).max().unwrap_or(0);
    edges.retain(|&edge| edge <= end_us);
    edges.sort_unstable();
    edges.dedup();
    let settled = edges.windows(2).map(|w| {
        // Those who share must find each other, which takes longer than to find the capacity.
        let third_us = (w[1] - w[0]) / 3;
        (w[0] + SETTLE_US.max(third_us), w[1])
    });
    settled.filter(|&(from, to)| to >= from + STRETCH_US_MIN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100 ms samples of `mbps` of their second.
    fn samples(seconds: u64, mbps: impl Fn(u64) -> f64) -> Vec<Sample> {
        (1..=seconds * 10)
            .map(|i| Sample {
                at_us: i * 100_000,
                arrived_bytes: (mbps((i - 1) / 10) * 12_500.0) as u64,
                ..Sample::default()
            })
            .collect()
    }

    fn stream(samples: &[Sample], from_s: u64, to_s: u64) -> Stream<'_> {
        Stream { from_us: from_s * 1_000_000, to_us: to_s * 1_000_000, pauses: Vec::new(), samples }
    }

    #[test]
    fn equal_rates_are_fair_and_unequal_ones_are_not() {
        assert!((jain(&[5.0, 5.0]) - 1.0).abs() < 1e-9);
        assert!((jain(&[9.0, 1.0]) - 100.0 / 164.0).abs() < 1e-9);
        assert!((jain(&[7.0, 0.0, 0.0, 0.0]) - 0.25).abs() < 1e-9);
    }

    /// Only the time counts in which both run and had time to settle.
    #[test]
    fn streams_are_compared_while_all_of_them_run() {
        let a = samples(60, |s| {
            if s < 20 {
                18.0
            } else if s < 35 {
                14.0
            } else {
                9.0
            }
        });
        let b = samples(60, |s| {
            if s < 20 {
                0.0
            } else if s < 35 {
                4.0
            } else {
                6.0
            }
        });
        let shared = Shared::of(&[stream(&a, 0, 60), stream(&b, 20, 60)], &[], &[], &[], 0);
        // From 20 s and a third of 40 s on; two seconds of that are before 35 s.
        assert!((0.93..0.97).contains(&shared.jain.unwrap()), "{shared:?}");
        assert!((0.70..0.80).contains(&shared.least_share.unwrap()), "{shared:?}");
    }

    #[test]
    fn oscillation_is_seen_and_a_step_of_the_capacity_is_none() {
        let steady = samples(60, |s| if s < 30 { 10.0 } else { 20.0 });
        let of = |samples: &[Sample], changes: &[u64]| {
            Shared::of(&[stream(samples, 0, 60)], &[], changes, &[], 0).unsteady.unwrap()
        };
        assert!(of(&steady, &[30_000_000]) < 0.01);
        assert!(of(&steady, &[]) > 0.2);
        let swinging = samples(60, |s| if s % 4 < 2 { 6.0 } else { 14.0 });
        assert!((0.35..0.45).contains(&of(&swinging, &[])));
    }

    #[test]
    fn a_guest_takes_its_part_and_leaves_a_queue() {
        let a = samples(60, |s| if (10..40).contains(&s) { 8.0 } else { 18.0 });
        let window = |s: u64| (s * 1_000_000 / STANDING_WINDOW_US) as u32;
        let standing: Vec<_> =
            (0..60).map(|s| (window(s) + 1, if s < 43 { 90_000 } else { 1_000 })).collect();
        let guest = |to_s: u64| Guest { from_us: 10_000_000, to_us: to_s * 1_000_000 };
        let of = |guest: Guest| Shared::of(&[stream(&a, 0, 60)], &[guest], &[], &standing, 0);
        let shared = of(guest(40));
        assert!((shared.beside_mbps.unwrap() - 8.0).abs() < 0.1, "{shared:?}");
        assert_eq!(shared.left_behind_us, Some(90_000));
        assert_eq!(of(guest(60)).left_behind_us, None, "it is still there");
        assert_eq!(of(guest(42)).left_behind_us, Some(1_000));
    }
}

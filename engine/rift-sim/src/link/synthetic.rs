//! Capacities that behave like those of radio links, made from a seed.
//!
//! Models, not measurements: they have the features that hurt (fading over two time scales, outages,
//! aggregation, a share of the airtime that wanders, droughts) and parameters within what the literature
//! reports (Winstein et al., NSDI 2013; Goyal et al., NSDI 2020; Lv et al., `WiFi` traces of 2023).

use fastrand::Rng;
use rift_core::Bitrate;

/// After so long a synthetic capacity repeats.
const PERIOD_US: u64 = 120_000_000;

/// Grants of a mobile link: what may leave at each millisecond, a transmission interval of LTE.
///
/// The logarithm of the rate is the sum of two first-order processes, of 300 ms and 6 s; outages of
/// 150 ms to 1 s come every 20 s on average.
pub(super) fn cellular(mean: Bitrate, rng: &mut Rng) -> (Vec<(u64, u32)>, u64) {
    let (fast, slow) = (0.35, 0.55);
    // The mean of exp(N(0, s)) is exp(s^2 / 2).
    let bytes_mean = mean.bytes_in(1_000) as f64 / ((fast * fast + slow * slow) / 2.0f64).exp();
    let step = |value: &mut f64, tau_ms: f64, sd: f64, rng: &mut Rng| {
        let keep = (-1.0 / tau_ms).exp();
        *value = *value * keep + normal(rng) * sd * (1.0 - keep * keep).sqrt();
    };
    let (mut a, mut b) = (normal(rng) * fast, normal(rng) * slow);
    let mut outage_us = next_after(rng, 20_000_000.0);
    let mut until_us = 0;
    let mut grants = Vec::new();
    for at_us in (0..PERIOD_US).step_by(1_000) {
        step(&mut a, 300.0, fast, rng);
        step(&mut b, 6_000.0, slow, rng);
        if at_us >= outage_us {
            until_us = at_us + rng.u64(150_000..1_000_000);
            outage_us = until_us + next_after(rng, 20_000_000.0);
        }
        let bytes = (bytes_mean * (a + b).exp()) as u32;
        if at_us >= until_us && bytes > 0 {
            grants.push((at_us, bytes));
        }
    }
    (grants, PERIOD_US)
}

/// Grants of a Wi-Fi link: aggregates that arrive at their end.
///
/// An aggregate takes 1 to 3 ms at the full rate; the pause to the next follows from a share of the airtime
/// that wanders between 0.3 and 1 in steps of 100 ms; droughts of 20 to 100 ms come every 8 s on average.
pub(super) fn wifi(rate: Bitrate, rng: &mut Rng) -> (Vec<(u64, u32)>, u64) {
    const SHARE: std::ops::RangeInclusive<f64> = 0.3..=1.0;
    let mut share = 0.7;
    let mut walk_us = 100_000;
    let mut drought_us = next_after(rng, 8_000_000.0);
    let mut at_us = 0;
    let mut grants = Vec::new();
    while at_us < PERIOD_US {
        while at_us >= walk_us {
            walk_us += 100_000;
            share += normal(rng) * 0.06;
            if share > *SHARE.end() {
                share = 2.0 * SHARE.end() - share;
            }
            share = share.clamp(*SHARE.start(), *SHARE.end());
        }
        let txop_us = rng.u64(1_000..3_000);
        let pause_us = txop_us as f64 * (1.0 / share - 1.0) * -(1.0 - rng.f64()).ln();
        at_us += txop_us + pause_us as u64;
        if at_us >= drought_us {
            at_us += rng.u64(20_000..100_000);
            drought_us = at_us + next_after(rng, 8_000_000.0);
        }
        grants.push((at_us, u32::try_from(rate.bytes_in(txop_us)).unwrap_or(u32::MAX)));
    }
    (grants, at_us + 1)
}

/// A normally distributed number of mean 0 and deviation 1 (Box and Muller 1958).
pub(crate) fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (core::f64::consts::TAU * rng.f64()).cos()
}

/// Time to the next of events that come by chance, `mean_us` apart on average.
pub(crate) fn next_after(rng: &mut Rng, mean_us: f64) -> u64 {
    (-(1.0 - rng.f64()).ln() * mean_us) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mbps(grants: &[(u64, u32)], period_us: u64) -> f64 {
        grants.iter().map(|&(_, bytes)| f64::from(bytes)).sum::<f64>() * 8.0 / period_us as f64
    }

    #[test]
    fn a_mobile_link_has_its_rate_on_average_and_outages() {
        let runs: Vec<_> =
            (0..20).map(|s| cellular(Bitrate::from_mbps(10), &mut Rng::with_seed(s))).collect();
        let mean = runs.iter().map(|(g, p)| mbps(g, *p)).sum::<f64>() / 20.0;
        assert!((8.0..11.0).contains(&mean), "{mean}");
        let gap = runs[0].0.windows(2).map(|w| w[1].0 - w[0].0).max().unwrap();
        assert!((150_000..1_100_000).contains(&gap), "{gap}");
    }

    #[test]
    fn a_wifi_link_sends_aggregates_and_has_droughts() {
        let (grants, period_us) = wifi(Bitrate::from_mbps(80), &mut Rng::with_seed(3));
        let rate = mbps(&grants, period_us);
        assert!((25.0..78.0).contains(&rate), "{rate}");
        assert!(grants.windows(2).all(|w| w[1].0 > w[0].0));
        let gap = grants.windows(2).map(|w| w[1].0 - w[0].0).max().unwrap();
        assert!((40_000..200_000).contains(&gap), "{gap}");
    }
}

//! Slow start that ends when delay grows (`HyStart++`, RFC 9406).

/// Section 4.3.
const RTT_THRESHOLD_US: (u64, u64) = (4_000, 16_000);
const RTT_DIVISOR: u64 = 8;
const SAMPLES: u32 = 8;
const GROWTH_DIVISOR: f64 = 4.0;
const CAREFUL_ROUNDS: u32 = 5;

/// Where slow start stands.
#[derive(Clone, Debug, Default)]
pub(super) struct HyStart {
    /// The round ends when this transmission is acknowledged.
    round_end: u64,
    last_min_us: Option<u64>,
    current_min_us: Option<u64>,
    samples: u32,
    /// In conservative slow start: its baseline and how many rounds it has lasted.
    careful: Option<(u64, u32)>,
}

impl HyStart {
    /// How much the window grows, in segments; `None` when slow start is over.
    pub(super) fn on_acknowledged(&mut self, rtt_us: u64, number: u64, next: u64) -> Option<f64> {
        if number >= self.round_end {
            self.round_end = next;
            self.last_min_us = self.current_min_us.take();
            self.samples = 0;
            if let Some((_, rounds)) = &mut self.careful {
                *rounds += 1;
                if *rounds > CAREFUL_ROUNDS {
                    return None;
                }
            }
        }
        let current_us = self.current_min_us.map_or(rtt_us, |least| least.min(rtt_us));
        self.current_min_us = Some(current_us);
        self.samples += 1;
        match (self.careful, self.last_min_us) {
            (None, Some(last_us)) if self.samples >= SAMPLES => {
                let threshold = (last_us / RTT_DIVISOR).clamp(RTT_THRESHOLD_US.0, RTT_THRESHOLD_US.1);
                if current_us >= last_us + threshold {
                    self.careful = Some((current_us, 0));
                }
            }
            (Some((baseline_us, _)), _) if self.samples >= SAMPLES && current_us < baseline_us => {
                // It was jitter.
                self.careful = None;
            }
            _ => {}
        }
        Some(if self.careful.is_some() { 1.0 / GROWTH_DIVISOR } else { 1.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of 20 acknowledgements; the round trip of each round.
    fn rounds(rtts_us: &[u64]) -> Vec<Option<f64>> {
        let mut hystart = HyStart::default();
        let mut growth = Vec::new();
        for (round, &rtt_us) in (0u64..).zip(rtts_us) {
            for i in 0..20 {
                growth.push(hystart.on_acknowledged(rtt_us, round * 20 + i, round * 20 + i + 20));
            }
        }
        growth
    }

    #[test]
    fn constant_delay_never_ends_it() {
        assert!(rounds(&[50_000; 20]).iter().all(|&g| g == Some(1.0)));
    }

    #[test]
    fn grown_delay_slows_it_down_and_ends_it_after_five_rounds() {
        let growth = rounds(&[50_000, 50_000, 60_000, 61_000, 62_000, 63_000, 64_000, 65_000, 66_000]);
        assert_eq!(growth[2 * 20 + 6], Some(1.0), "eight samples are needed");
        assert_eq!(growth[2 * 20 + 7], Some(0.25));
        let end = growth.iter().position(Option::is_none).unwrap();
        assert_eq!(end, 8 * 20);
    }

    #[test]
    fn delay_that_falls_again_was_jitter() {
        let growth = rounds(&[50_000, 50_000, 60_000, 50_000, 50_000]);
        assert_eq!(growth[3 * 20], Some(0.25));
        assert_eq!(growth[3 * 20 + 7], Some(1.0));
    }
}

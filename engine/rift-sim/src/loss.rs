//! Which packets a link loses.

use fastrand::Rng;

/// How a link loses packets. Probabilities are from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Loss {
    /// None.
    #[default]
    None,
    /// Each packet by itself.
    Random {
        /// Share of packets that is lost.
        rate: f64,
    },
    /// In bursts: a two-state Markov chain (Gilbert 1960, Elliott 1963) that moves before each packet.
    GilbertElliott {
        /// Probability of the step from good to bad.
        enter: f64,
        /// Probability of the step from bad to good.
        leave: f64,
        /// Share of packets lost while good.
        loss_good: f64,
        /// Share of packets lost while bad.
        loss_bad: f64,
    },
}

impl Loss {
    /// Bursts of `burst_packets` lost packets on average, `rate` of all packets in the long run.
    #[must_use]
    pub fn bursts(rate: f64, burst_packets: f64) -> Self {
        let leave = 1.0 / burst_packets.max(1.0);
        let enter = if rate < 1.0 { (rate * leave / (1.0 - rate)).min(1.0) } else { 1.0 };
        // Rounded to what the text form of a scenario carries.
        let round = |p: f64| (p * 1e11).round() / 1e11;
        Self::GilbertElliott { enter: round(enter), leave: round(leave), loss_good: 0.0, loss_bad: 1.0 }
    }
}

/// Loss and where its chain stands.
#[derive(Clone, Debug)]
pub(crate) struct LossProcess {
    loss: Loss,
    bad: bool,
}

impl LossProcess {
    pub(crate) fn new(loss: Loss) -> Self {
        Self { loss, bad: false }
    }

    /// Whether the next packet is lost.
    pub(crate) fn next(&mut self, rng: &mut Rng) -> bool {
        match self.loss {
            Loss::None => false,
            Loss::Random { rate } => rng.f64() < rate,
            Loss::GilbertElliott { enter, leave, loss_good, loss_bad } => {
                if rng.f64() < if self.bad { leave } else { enter } {
                    self.bad = !self.bad;
                }
                rng.f64() < if self.bad { loss_bad } else { loss_good }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Share of packets lost and mean length of a run of losses.
    fn measure(loss: Loss) -> (f64, f64) {
        let mut process = LossProcess::new(loss);
        let mut rng = Rng::with_seed(1);
        let lost: Vec<bool> = (0..400_000).map(|_| process.next(&mut rng)).collect();
        let count = lost.iter().filter(|&&l| l).count() as f64;
        let runs = lost.windows(2).filter(|w| !w[0] && w[1]).count().max(1) as f64;
        (count / lost.len() as f64, count / runs)
    }

    #[test]
    fn random_loss_has_its_rate_and_no_memory() {
        let (rate, run) = measure(Loss::Random { rate: 0.02 });
        assert!((rate - 0.02).abs() < 0.001, "{rate}");
        assert!((run - 1.02).abs() < 0.02, "{run}");
    }

    #[test]
    fn bursts_have_their_rate_and_length() {
        let (rate, run) = measure(Loss::bursts(0.03, 8.0));
        assert!((rate - 0.03).abs() < 0.004, "{rate}");
        assert!((run - 8.0).abs() < 0.6, "{run}");
    }

    #[test]
    fn no_loss_loses_nothing() {
        assert!((measure(Loss::None).0).abs() < f64::EPSILON);
    }
}

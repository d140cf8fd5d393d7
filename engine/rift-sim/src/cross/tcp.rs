//! A sender of TCP: what is under way, what is lost, when to send.
//!
//! Every packet that arrives is acknowledged by itself, as with selective acknowledgements (RFC 2018) and none
//! delayed. A transmission is lost once three that left after it are acknowledged (RFC 6675's threshold, counted in
//! order of sending as in RFC 8985, so that lost retransmissions are seen too). Invariant: no more is under way
//! than the window allows, and every segment is acknowledged in the end.

use std::collections::VecDeque;

use rift_core::Timestamp;

use super::cubic::Cubic;

/// So many later transmissions must be acknowledged.
const REORDERING: u64 = 3;
/// RFC 6298, with the least that common systems use.
const RTO_MIN_US: f64 = 200_000.0;
const RTO_FIRST_US: f64 = 1_000_000.0;
const RTO_MAX_US: f64 = 60_000_000.0;

/// What a transfer is.
#[derive(Clone, Copy, Debug)]
pub(super) struct TcpConfig {
    pub(super) hystart: bool,
    /// How much there is to send; without end where `None`.
    pub(super) segments: Option<u64>,
}

/// What a transfer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpCounters {
    /// Segments sent again.
    pub retransmitted: u64,
    /// Reductions of the window.
    pub reductions: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
}

/// The sender.
#[derive(Debug)]
pub(super) struct Tcp {
    config: TcpConfig,
    start: Timestamp,
    stop: Timestamp,
    cubic: Cubic,
    /// Transmissions that are neither acknowledged nor given up, and those behind them, in order of sending.
    sent: VecDeque<Sent>,
    /// The number of the first in `sent`.
    first: u64,
    under_way: u64,
    /// Segments to be sent again, and new ones sent so far.
    lost: u64,
    fresh: u64,
    done: u64,
    newest_acknowledged: Option<u64>,
    /// Losses of transmissions before this one were answered.
    answered: u64,
    srtt_us: Option<f64>,
    rttvar_us: f64,
    backoff: f64,
    /// From when on the retransmission timer runs.
    timer_from: Timestamp,
    counters: TcpCounters,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Timestamp,
    under_way: bool,
}

impl Tcp {
    pub(super) fn new(config: TcpConfig, start: Timestamp, stop: Timestamp) -> Self {
        Self {
            config,
            start,
            stop,
            cubic: Cubic::new(config.hystart),
            sent: VecDeque::new(),
            first: 0,
            under_way: 0,
            lost: 0,
            fresh: 0,
            done: 0,
            newest_acknowledged: None,
            answered: 0,
            srtt_us: None,
            rttvar_us: 0.0,
            backoff: 1.0,
            timer_from: start,
            counters: TcpCounters::default(),
        }
    }

    /// Everything that was to be sent has arrived.
    pub(super) fn is_done(&self) -> bool {
        self.config.segments.is_some_and(|all| self.done >= all)
    }

    #[cfg(test)]
    pub(super) fn counters(&self) -> &TcpCounters {
        &self.counters
    }

    pub(super) fn poll_at(&self) -> Timestamp {
        if self.under_way > 0 {
            // What was lost just before the end is not sent again, and nobody waits for it.
            let at = self.timer_at();
            return if at < self.stop { at } else { Timestamp::NEVER };
        }
        // Before the beginning; afterwards it is acknowledgements that make it go on.
        if self.next_number() == 0 && self.start < self.stop { self.start } else { Timestamp::NEVER }
    }

    /// The number of the transmission that leaves at `now`.
    pub(super) fn poll_packet(&mut self, now: Timestamp) -> Option<u64> {
        if now < self.start || now >= self.stop {
            return None;
        }
        if self.under_way > 0 && now >= self.timer_at() {
            self.on_timeout(now);
        }
        if self.under_way as f64 + 1.0 > self.cubic.window().max(1.0) {
            return None;
        }
        if self.lost > 0 {
            self.lost -= 1;
            self.counters.retransmitted += 1;
        } else if self.config.segments.is_none_or(|all| self.fresh < all) {
            self.fresh += 1;
        } else {
            return None;
        }
        let number = self.next_number();
        if self.under_way == 0 {
            self.timer_from = now;
        }
        self.sent.push_back(Sent { at: now, under_way: true });
        self.under_way += 1;
        Some(number)
    }

    pub(super) fn on_acknowledged(&mut self, now: Timestamp, number: u64) {
        let next = self.next_number();
        let at = number.checked_sub(self.first).and_then(|i| usize::try_from(i).ok());
        let Some(sent) = at.and_then(|i| self.sent.get_mut(i)).filter(|sent| sent.under_way) else {
            // It was given up before: what it carried is sent twice.
            return;
        };
        sent.under_way = false;
        let rtt_us = now.micros_since(sent.at);
        self.under_way -= 1;
        self.done += 1;
        self.timer_from = now;
        self.backoff = 1.0;
        self.measure(rtt_us as f64);
        self.newest_acknowledged = self.newest_acknowledged.max(Some(number));
        self.notice_losses();
        while self.sent.front().is_some_and(|sent| !sent.under_way) {
            self.sent.pop_front();
            self.first += 1;
        }
        if number >= self.answered {
            let srtt_us = self.srtt_us.unwrap_or(rtt_us as f64);
            self.cubic.on_acknowledged(now, rtt_us, srtt_us, number, next);
        }
    }

    fn next_number(&self) -> u64 {
        self.first + self.sent.len() as u64
    }

    fn timer_at(&self) -> Timestamp {
        let rto_us = self.srtt_us.map_or(RTO_FIRST_US, |srtt| srtt + (4.0 * self.rttvar_us).max(1_000.0));
        let rto_us = (rto_us.max(RTO_MIN_US) * self.backoff).min(RTO_MAX_US);
        self.timer_from.plus_micros(rto_us as u64)
    }

    /// RFC 6298.
    fn measure(&mut self, rtt_us: f64) {
        match &mut self.srtt_us {
            None => {
                self.srtt_us = Some(rtt_us);
                self.rttvar_us = rtt_us / 2.0;
            }
            Some(srtt) => {
                self.rttvar_us += 0.25 * ((*srtt - rtt_us).abs() - self.rttvar_us);
                *srtt += 0.125 * (rtt_us - *srtt);
            }
        }
    }

    fn notice_losses(&mut self) {
        let Some(newest) = self.newest_acknowledged else { return };
        let next = self.next_number();
        let mut is_answer_due = false;
        for (number, sent) in (self.first..).zip(&mut self.sent) {
            if number + REORDERING > newest {
                break;
            }
            if std::mem::take(&mut sent.under_way) {
                self.under_way -= 1;
                self.lost += 1;
                is_answer_due |= number >= self.answered;
            }
        }
        if is_answer_due {
            self.answered = next;
            self.counters.reductions += 1;
            self.cubic.on_loss();
        }
    }

    fn on_timeout(&mut self, now: Timestamp) {
        self.lost += self.under_way;
        self.under_way = 0;
        self.first = self.next_number();
        self.sent.clear();
        self.answered = self.first;
        self.timer_from = now;
        self.backoff = (self.backoff * 2.0).min(64.0);
        self.counters.timeouts += 1;
        self.cubic.on_timeout();
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::{cubic, run};
    use super::*;
    use crate::loss::Loss;

    fn mbps(bytes: &[u64]) -> f64 {
        bytes.iter().sum::<u64>() as f64 * 8.0 / bytes.len() as f64 / 1e6
    }

    #[test]
    fn a_bulk_transfer_fills_link_and_queue() {
        let out = run(&[cubic(0, None)], 20, 10_000, 100_000, Loss::None, 60);
        let rate = mbps(&out.per_second[0][10..60]);
        assert!((19.0..20.1).contains(&rate), "{rate}");
        let longest = out.wait_us[10..60].iter().max().unwrap();
        assert!((95_000..101_000).contains(longest), "{longest}");
        assert!(out.dropped > 0 && out.dropped < out.counters[0].packets / 100, "{}", out.dropped);
    }

    /// CUBIC in a deep queue keeps at least 70 % of it: the sawtooth of RFC 9438.
    #[test]
    fn the_queue_swings_between_the_reduction_and_full() {
        let out = run(&[cubic(0, None)], 20, 10_000, 300_000, Loss::None, 60);
        let waits = &out.wait_us[30..60];
        assert!(waits.iter().min().unwrap() > &150_000, "{waits:?}");
    }

    #[test]
    fn two_transfers_share_and_a_stopped_one_leaves() {
        let out = run(&[cubic(0, None), cubic(5, Some(60))], 20, 10_000, 100_000, Loss::None, 70);
        let (a, b) = (mbps(&out.per_second[0][20..60]), mbps(&out.per_second[1][20..60]));
        assert!(a > 6.0 && b > 6.0 && a + b > 19.0, "{a} {b}");
        assert_eq!(mbps(&out.per_second[1][62..70]), 0.0);
        assert!(mbps(&out.per_second[0][62..70]) > 19.0);
    }

    /// The response to random loss (RFC 9438 section 5, Reno-friendly region): about 1.06 / sqrt(p) segments.
    #[test]
    fn random_loss_gives_the_rate_that_the_response_function_says() {
        let out = run(&[cubic(0, None)], 100, 20_000, 100_000, Loss::Random { rate: 0.01 }, 120);
        let rate = mbps(&out.per_second[0][10..120]);
        // 40 ms, 1500 bytes: 10.6 segments are 3.2 Mbit/s; the cubic part adds to that.
        assert!((2.4..5.0).contains(&rate), "{rate}");
    }

    #[test]
    fn everything_arrives_even_if_half_is_lost() {
        let mut tcp =
            Tcp::new(TcpConfig { hystart: false, segments: Some(300) }, Timestamp::ZERO, Timestamp::NEVER);
        let mut rng = fastrand::Rng::with_seed(4);
        let mut flying: VecDeque<(Timestamp, u64)> = VecDeque::new();
        let mut now = Timestamp::ZERO;
        for _ in 0..100_000 {
            while let Some(number) = tcp.poll_packet(now) {
                if rng.bool() {
                    flying.push_back((now.plus_micros(20_000), number));
                }
            }
            let next = flying.front().map_or(Timestamp::NEVER, |&(at, _)| at).min(tcp.poll_at());
            if next == Timestamp::NEVER {
                break;
            }
            now = next.max(now);
            while flying.front().is_some_and(|&(at, _)| at <= now) {
                let (_, number) = flying.pop_front().unwrap();
                tcp.on_acknowledged(now, number);
            }
        }
        assert!(tcp.is_done() && tcp.counters().timeouts > 0, "{:?}", tcp.counters());
        assert!(tcp.cubic.window() >= 1.0);
    }

    #[test]
    fn a_tail_that_is_lost_at_the_end_is_waited_for_by_nobody() {
        let stop = Timestamp::from_micros(100_000);
        let mut tcp = Tcp::new(TcpConfig { hystart: false, segments: None }, Timestamp::ZERO, stop);
        assert!(tcp.poll_packet(Timestamp::ZERO).is_some());
        assert_eq!(tcp.poll_at(), Timestamp::NEVER, "its timer would run out after the end");
        assert_eq!(tcp.poll_packet(stop), None);
    }

    #[test]
    fn one_lost_window_is_one_reduction() {
        let out = run(&[cubic(0, None)], 20, 10_000, 20_000, Loss::None, 10);
        // A queue of half the product: slow start overshoots once and loses many, which is one event.
        assert!(out.dropped > 10, "{}", out.dropped);
        let rate = mbps(&out.per_second[0][2..10]);
        assert!(rate > 15.0, "{rate}");
    }
}

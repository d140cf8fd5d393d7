//! When the client tells of arrivals.

use super::DATAGRAM_OVERHEAD;
use crate::Timestamp;

/// What reports may cost, as one part in so many of what arrives: 1.43 %, so that with everything it stays
/// under 1.5 %.
const SHARE: u64 = 70;
/// Arrivals are told this long after the last chunk of a frame, so that its parity is in the same report;
/// in microseconds.
const AFTER_FRAME_US: u64 = 700;
/// A frame that takes long to arrive is told of while it does, in microseconds: a path that has become slow
/// must be noticed before the frame is through.
const DURING_FRAME_US: u64 = 8_000;
/// However little arrives, it is told of after this long, in microseconds. At 1 Mbit/s such reports cost
/// just the share.
const INTERVAL_US_MAX: u64 = 60_000;
/// The most that is saved up, in bytes: a few reports, so that a pause is not followed by a flood of them.
const CREDIT_MAX: i64 = 600;

/// Decides when a report leaves: per frame where the stream is large enough to bear it, else as often as it
/// bears.
#[derive(Clone, Copy, Debug)]
pub struct ReportSchedule {
    /// The oldest arrival that was not told of.
    first_untold: Option<Timestamp>,
    frame_ended: Option<Timestamp>,
    /// In bytes times [`SHARE`].
    credit: i64,
}

impl Default for ReportSchedule {
    fn default() -> Self {
        Self { first_untold: None, frame_ended: None, credit: CREDIT_MAX * SHARE as i64 }
    }
}

impl ReportSchedule {
    /// A datagram of `len` bytes arrived.
    #[inline]
    pub fn on_packet(&mut self, now: Timestamp, len: usize) {
        self.first_untold.get_or_insert(now);
        let bytes = (len as u64).saturating_add(DATAGRAM_OVERHEAD);
        let gained = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.credit = self.credit.saturating_add(gained).min(CREDIT_MAX * SHARE as i64);
    }

    /// The last chunk of a frame arrived.
    #[inline]
    pub fn on_frame_end(&mut self, now: Timestamp) {
        self.frame_ended.get_or_insert(now);
    }

    /// A report of `len` bytes left, and told of everything.
    pub fn on_report(&mut self, len: usize) {
        let spent = (len as u64).saturating_add(DATAGRAM_OVERHEAD).saturating_mul(SHARE);
        let spent = i64::try_from(spent).unwrap_or(i64::MAX);
        self.credit = self.credit.saturating_sub(spent).max(-CREDIT_MAX * SHARE as i64);
        self.first_untold = None;
        self.frame_ended = None;
    }

    /// There was nothing to tell.
    pub fn clear(&mut self) {
        self.first_untold = None;
        self.frame_ended = None;
    }

    /// When the next report is due; [`Timestamp::NEVER`] while there is nothing to tell.
    #[must_use]
    pub fn due(&self) -> Timestamp {
        let Some(first) = self.first_untold else { return Timestamp::NEVER };
        if self.credit < 0 {
            return first.plus_micros(INTERVAL_US_MAX);
        }
        let after_frame = self.frame_ended.map_or(Timestamp::NEVER, |at| at.plus_micros(AFTER_FRAME_US));
        first.plus_micros(DURING_FRAME_US).min(after_frame)
    }

    /// The clock jumped.
    pub fn on_clock_jump(&mut self, now: Timestamp) {
        self.first_untold = self.first_untold.map(|_| now);
        self.frame_ended = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Timestamp {
        Timestamp::from_micros(us)
    }

    /// Runs a stream of `frame_bytes` 60 times a second for 10 s: reports sent, and their share.
    fn run(frame_bytes: usize) -> (u32, f64) {
        let mut schedule = ReportSchedule::default();
        let (mut reports, mut cost, mut total) = (0, 0, 0);
        let mut untold = 0;
        for tick in 0..100_000u64 {
            let now = at(tick * 100);
            let in_frame = tick % 167;
            let packets = frame_bytes.div_ceil(1200) as u64;
            if in_frame < packets {
                schedule.on_packet(now, frame_bytes.min(1200));
                total += frame_bytes.min(1200) + 28;
                untold += 1;
                if in_frame + 1 == packets {
                    schedule.on_frame_end(now);
                }
            }
            if schedule.due() <= now {
                // As the report is made: entries of this span and the one before.
                let len = 56 + 4 * untold;
                schedule.on_report(len);
                (reports, cost, untold) = (reports + 1, cost + len + 28, 0);
            }
        }
        (reports, f64::from(cost as u32) / total as f64)
    }

    /// Proves R-FB-4.
    #[test]
    fn reports_leave_per_frame_and_cost_less_than_their_share() {
        let (reports, share) = run(40_000);
        assert!(reports >= 590, "{reports} reports for 598 frames");
        assert!(share < 0.015, "{share}");
        let (reports, share) = run(10_000);
        assert!(reports >= 590 && share < 0.015, "{reports} {share}");
        let (reports, share) = run(2_000);
        assert!((150..400).contains(&reports) && share < 0.0155, "{reports} {share}");
    }

    /// Proves R-FB-4: what arrives is told of within 60 ms however little it is.
    #[test]
    fn a_trickle_is_told_of_too() {
        let mut schedule = ReportSchedule::default();
        (0..20).for_each(|_| schedule.on_report(200));
        assert_eq!(schedule.due(), Timestamp::NEVER);
        schedule.on_packet(at(1_000), 100);
        assert_eq!(schedule.due(), at(61_000));
        schedule.on_report(80);
        assert_eq!(schedule.due(), Timestamp::NEVER);
    }

    #[test]
    fn a_frame_that_takes_long_is_told_of_in_parts() {
        let mut schedule = ReportSchedule::default();
        schedule.on_packet(at(1_000), 1200);
        assert_eq!(schedule.due(), at(9_000));
        schedule.on_frame_end(at(2_000));
        assert_eq!(schedule.due(), at(2_700));
    }
}

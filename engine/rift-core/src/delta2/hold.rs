//! Whether frames are left out, because what was sent has not arrived.
//!
//! Owns the judgement of lateness. An outage that is answered with more frames is an outage with a queue behind it; a
//! hold that lasts until every late packet was told of costs a whole round trip after the queue is gone. So a hold
//! begins as soon as a packet is overdue, and ends when none is, or when reports show that the path carries and what
//! is under way fits on it. Invariant: while nothing is heard, one frame per probe interval leaves and no more.

use crate::Timestamp;
use crate::feedback::InFlight;

/// While nothing is heard, a frame is tried this often, in microseconds.
const PROBE_US: u64 = 100_000;
/// What arrives is averaged over one to two of these, in microseconds.
const DELIVERED_US: u64 = 50_000;
/// Lateness that comes and goes between two reports may not keep frames back for longer than this, in microseconds:
/// it is a path a little slower than thought, for which there are the rate and smaller frames.
const BETWEEN_FRAMES_US: u64 = 45_000;

/// What to expect of the path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    /// Every packet was told of within this, in microseconds.
    pub(super) patience_us: u64,
    /// Reports that bring news follow each other within this, in microseconds.
    pub(super) silence_us: u64,
    /// What is under way on a path without a queue arrives within this, in microseconds.
    pub(super) empty_us: f64,
    /// What the path carries, in bits per second; infinite where that is not known.
    pub(super) capacity_bps: f64,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Frames are left out from now on.
    Held,
    /// One frame is let through.
    Probe,
    /// Frames leave again, after so long, in microseconds.
    Released(u64),
}

/// The state of holding back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hold {
    since: Option<Timestamp>,
    /// A frame is let through.
    probing: bool,
    /// So long that frames are tried.
    is_outage: bool,
    next_probe: Timestamp,
    flight: InFlight,
    /// When a report last told of an arrival.
    news_at: Timestamp,
    delivered: Delivered,
    /// What is late now was waited for until it fitted on the path.
    is_drained: bool,
    /// When the last frame was encoded, and whether a hold has ended since.
    frame_at: Timestamp,
    is_owed: bool,
    /// When things were judged last.
    judged_at: Timestamp,
}

impl Hold {
    pub(super) fn is_on(&self) -> bool {
        self.since.is_some() && !self.probing
    }

    /// Something is overdue, whether or not a frame is let through.
    pub(super) fn is_waiting(&self) -> bool {
        self.since.is_some()
    }

    /// What leaves now only tries the path.
    pub(super) fn is_outage(&self) -> bool {
        self.is_outage
    }

    /// A frame was encoded.
    pub(super) fn on_frame(&mut self, now: Timestamp) {
        self.frame_at = now;
        self.is_owed = false;
        if self.probing {
            self.probing = false;
            self.next_probe = now.plus_micros(PROBE_US);
        }
    }

    /// A report told of so many bytes that arrived.
    pub(super) fn on_arrived(&mut self, now: Timestamp, bytes: u64) {
        if bytes > 0 {
            self.news_at = now;
            self.delivered.insert(now, bytes);
        }
    }

    /// Judges what is under way.
    pub(super) fn update(&mut self, now: Timestamp, flight: InFlight, expected: &Expected) -> Option<Turn> {
        self.flight = flight;
        self.judged_at = now;
        let is_late =
            flight.oldest_unreported.is_some_and(|sent_at| now.micros_since(sent_at) >= expected.patience_us);
        let is_silent = now.micros_since(self.news_at) >= expected.silence_us;
        // A path that has become slow delivers less than its trains said it would.
        let bps = expected.capacity_bps.min(self.delivered.bps(now).max(1.0));
        let under_way_us = flight.bytes as f64 * 8e6 / bps;
        if !is_late {
            self.is_drained = false;
        } else if self.since.is_some() && !is_silent && under_way_us <= expected.empty_us {
            self.is_drained = true;
        }
        let is_owed = self.since.is_none() && self.owes_at().is_some_and(|at| now >= at);
        let is_full = under_way_us > expected.patience_us as f64;
        let is_overdue = is_late && (is_silent || is_full || !(self.is_drained || is_owed));
        match self.since {
            None if is_overdue => {
                self.since = Some(now);
                self.next_probe = now.plus_micros(PROBE_US);
                Some(Turn::Held)
            }
            Some(since) if !is_overdue => {
                self.since = None;
                self.probing = false;
                self.is_outage = false;
                self.is_owed = true;
                Some(Turn::Released(now.micros_since(since)))
            }
            Some(_) if !self.probing && now >= self.next_probe => {
                self.probing = true;
                self.is_outage = true;
                Some(Turn::Probe)
            }
            _ => None,
        }
    }

    /// When to judge again if no report comes.
    pub(super) fn poll_timeout(&self, expected: &Expected) -> Timestamp {
        match (self.since, self.flight.oldest_unreported) {
            (None, Some(sent_at)) => {
                let late_at = sent_at.plus_micros(expected.patience_us);
                // What was late at the last judgement, and let pass for the frame that is owed, is so still.
                let asked_at = late_at.max(self.judged_at);
                let is_excused = self.is_drained || self.owes_at().is_some_and(|at| asked_at >= at);
                if is_excused { late_at.max(self.news_at.plus_micros(expected.silence_us)) } else { late_at }
            }
            (Some(_), _) if !self.probing => self.next_probe,
            _ => Timestamp::NEVER,
        }
    }

    /// From when on a frame must leave before the next hold.
    fn owes_at(&self) -> Option<Timestamp> {
        self.is_owed.then(|| self.frame_at.plus_micros(BETWEEN_FRAMES_US))
    }
}

/// What arrives, over one to two windows.
#[derive(Clone, Copy, Debug, Default)]
struct Delivered {
    began: Timestamp,
    /// Of this window and the one before.
    bytes: [u64; 2],
    before_us: u64,
}

impl Delivered {
    fn insert(&mut self, now: Timestamp, bytes: u64) {
        let us = now.micros_since(self.began);
        if us >= DELIVERED_US || now < self.began {
            self.before_us = us.clamp(1, 2 * DELIVERED_US);
            self.bytes = [0, self.bytes[0]];
            self.began = now;
        }
        self.bytes[0] = self.bytes[0].saturating_add(bytes);
    }

    /// In bits per second.
    fn bps(&self, now: Timestamp) -> f64 {
        let us = self.before_us.saturating_add(now.micros_since(self.began)).max(1);
        (self.bytes[0] as f64 + self.bytes[1] as f64) * 8e6 / us as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Expected =
        Expected { patience_us: 120_000, silence_us: 20_000, empty_us: 105_000.0, capacity_bps: 10e6 };

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1_000)
    }

    /// Packets under way, of which the oldest left at `ms`.
    fn flight(bytes: u64, ms: u64) -> InFlight {
        InFlight { bytes, oldest_unreported: Some(at(ms)) }
    }

    /// A path that delivers 10 Mbit/s up to `ms`.
    fn delivering(ms: u64) -> Hold {
        let mut hold = Hold::default();
        (0..=ms / 10).for_each(|i| hold.on_arrived(at(i * 10), 12_500));
        hold
    }

    /// Proves R-CTRL-7: as long as reports tell of arrivals, a hold lasts only until what is under way fits on the path.
    #[test]
    fn a_hold_ends_when_the_path_carries_and_is_not_full() {
        let mut hold = delivering(1_000);
        hold.on_frame(at(990));
        assert_eq!(hold.update(at(1_000), flight(150_000, 875), &EXPECTED), Some(Turn::Held));
        hold.on_arrived(at(1_010), 12_500);
        assert_eq!(hold.update(at(1_010), flight(140_000, 885), &EXPECTED), None, "112 ms are under way");
        hold.on_arrived(at(1_020), 12_500);
        // Late as before, and nobody's fault any more.
        assert_eq!(hold.update(at(1_020), flight(127_000, 895), &EXPECTED), Some(Turn::Released(20_000)));
        assert_eq!(hold.update(at(1_021), flight(127_000, 895), &EXPECTED), None);
        // And then nothing is heard.
        assert_eq!(hold.poll_timeout(&EXPECTED), at(1_040));
        assert_eq!(hold.update(at(1_040), flight(127_000, 895), &EXPECTED), Some(Turn::Held));
    }

    /// Proves R-CTRL-7: lateness between reports does not keep back one frame after the other.
    #[test]
    fn holds_in_a_row_let_frames_through() {
        let mut hold = delivering(1_000);
        hold.on_frame(at(980));
        let mut held = 0;
        for ms in (1_000..1_100).step_by(10) {
            hold.on_arrived(at(ms), 12_500);
            assert_ne!(hold.update(at(ms), flight(110_000, ms - 110), &EXPECTED), Some(Turn::Held));
            // 3 ms late.
            held += u64::from(hold.update(at(ms + 9), flight(110_000, ms - 114), &EXPECTED).is_some());
        }
        assert!((2..=4).contains(&held), "until 45 ms after the last frame: {held}");
    }

    /// What is late but let pass for the frame that is owed must not call for a judgement again and again.
    #[test]
    fn the_next_judgement_is_never_due_at_once() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..2_000 {
            let mut hold = delivering(1_000);
            hold.on_frame(at(rng.u64(900..1_000)));
            let mut now = at(1_000);
            for _ in 0..60 {
                let patience_us = rng.u64(60_000..200_000);
                let expected = Expected { patience_us, ..EXPECTED };
                let sent = now.as_micros() / 1_000 - rng.u64(0..250);
                while hold.update(now, flight(rng.u64(0..300_000), sent), &expected).is_some() {}
                assert!(hold.poll_timeout(&expected) > now, "{hold:?}");
                now = now.plus_micros(rng.u64(1..20_000));
                if rng.bool() {
                    hold.on_arrived(now, 12_500);
                }
                if rng.bool() && !hold.is_on() {
                    hold.on_frame(now);
                }
            }
        }
    }

    #[test]
    fn silence_is_probed() {
        let mut hold = delivering(1_000);
        hold.on_frame(at(1_000));
        assert_eq!(hold.poll_timeout(&EXPECTED), Timestamp::NEVER);
        assert_eq!(hold.update(at(1_001), flight(20_000, 1_000), &EXPECTED), None);
        assert_eq!(hold.poll_timeout(&EXPECTED), at(1_120));
        assert_eq!(hold.update(at(1_120), flight(20_000, 1_000), &EXPECTED), Some(Turn::Held));
        assert!(hold.is_on());
        assert_eq!(hold.poll_timeout(&EXPECTED), at(1_220));
        assert_eq!(hold.update(at(1_220), flight(20_000, 1_000), &EXPECTED), Some(Turn::Probe));
        assert!(!hold.is_on());
        hold.on_frame(at(1_230));
        assert!(hold.is_on());
        assert_eq!(hold.poll_timeout(&EXPECTED), at(1_330));
    }
}

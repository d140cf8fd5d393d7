//! What is asked of the encoder when packets alone cannot repair the picture.
//!
//! Owns the order of the remedies: first a frame that does not predict from what was lost, then a
//! keyframe, each repeated until it is served. Never decides that the picture is stuck. Invariant: no
//! two requests of one kind leave within half a round trip.

use super::{RoundTrip, passed};
use crate::{FrameId, Timestamp};

/// A request to the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryRequest {
    /// Predict the next frame from none newer than this one (published as `ReferenceInvalidation`).
    InvalidateReference {
        /// The newest frame that is known to be good.
        last_valid: FrameId,
    },
    /// Nothing that is there can be predicted from: send a keyframe.
    Keyframe {
        /// The newest frame of which anything has arrived.
        newest: FrameId,
    },
    /// The path's queue has jumped: leave out this many frames (published as `EncoderControl`).
    SkipFrames(u32),
}

/// A keyframe is not asked for more often than this, in microseconds.
const KEYFRAME_SPACING_US: u64 = 50_000;
/// A request is repeated no sooner than this, in microseconds.
const REPEAT_MIN_US: u64 = 2_000;
/// Rise of the round trip time above which one frame is to be left out, in microseconds (published).
const JUMP_US: u64 = 30_000;
/// Rise above which two frames are to be left out, in microseconds (published).
const BIG_JUMP_US: u64 = 50_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Well,
    Invalidating { since: Timestamp, last_valid: FrameId, repeated: bool },
    AwaitingKeyframe { since: Timestamp },
}

/// Makes requests.
#[derive(Debug)]
pub(super) struct Requests {
    state: State,
    last_sent: Timestamp,
    /// When a request that was held back may leave.
    held_until: Timestamp,
    skip: u32,
    usual_rtt_us: Option<u64>,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self {
            state: State::Well,
            last_sent: Timestamp::ZERO,
            held_until: Timestamp::NEVER,
            skip: 0,
            usual_rtt_us: None,
        }
    }

    /// A round trip was measured.
    pub(super) fn on_rtt(&mut self, rtt_us: u64) {
        let usual = self.usual_rtt_us.unwrap_or(rtt_us);
        let rise = rtt_us.saturating_sub(usual);
        if rise >= JUMP_US {
            self.skip = if rise >= BIG_JUMP_US { 2 } else { 1 };
            // One request for each jump: the new level is the usual one from here on.
            self.usual_rtt_us = Some(rtt_us);
        } else {
            self.usual_rtt_us = Some(usual - usual / 8 + rtt_us / 8);
        }
    }

    /// The request to send now. `stuck` says that no frame that is there or still coming can be
    /// decoded.
    pub(super) fn poll(
        &mut self,
        now: Timestamp,
        stuck: bool,
        last_valid: Option<FrameId>,
        newest: FrameId,
        round_trip: &RoundTrip,
        frame_interval_us: u64,
    ) -> Option<RecoveryRequest> {
        if self.skip > 0 {
            return Some(RecoveryRequest::SkipFrames(core::mem::take(&mut self.skip)));
        }
        self.held_until = Timestamp::NEVER;
        if !stuck {
            self.state = State::Well;
            return None;
        }
        let patience = served_after(round_trip, frame_interval_us);
        let keyframe = RecoveryRequest::Keyframe { newest };
        match (self.state, last_valid) {
            (State::Well, _) if !passed(now, self.last_sent, repeat_us(round_trip)) => {
                self.held_until = self.last_sent.plus_micros(repeat_us(round_trip));
                None
            }
            (State::Well, Some(last_valid)) => {
                self.state = State::Invalidating { since: now, last_valid, repeated: false };
                self.last_sent = now;
                Some(RecoveryRequest::InvalidateReference { last_valid })
            }
            (State::Invalidating { since, last_valid: asked, repeated }, Some(last_valid))
                if !passed(now, since, patience) =>
            {
                // The request is small and its loss is dear: it is sent twice.
                let again = asked != last_valid || !repeated;
                if !again || !passed(now, self.last_sent, repeat_us(round_trip)) {
                    return None;
                }
                self.state = State::Invalidating { since, last_valid, repeated: true };
                self.last_sent = now;
                Some(RecoveryRequest::InvalidateReference { last_valid })
            }
            (State::AwaitingKeyframe { since }, _)
                if !passed(now, since, patience.max(KEYFRAME_SPACING_US)) =>
            {
                None
            }
            _ => {
                self.state = State::AwaitingKeyframe { since: now };
                self.last_sent = now;
                Some(keyframe)
            }
        }
    }

    /// When [`poll`](Self::poll) has something to say at the earliest if nothing arrives.
    pub(super) fn due(&self, round_trip: &RoundTrip, frame_interval_us: u64) -> Timestamp {
        let patience = served_after(round_trip, frame_interval_us);
        match self.state {
            _ if self.skip > 0 => Timestamp::ZERO,
            State::Well => self.held_until,
            State::Invalidating { since, repeated: true, .. } => since.plus_micros(patience),
            State::Invalidating { since, .. } => {
                since.plus_micros(patience).min(self.last_sent.plus_micros(repeat_us(round_trip)))
            }
            State::AwaitingKeyframe { since } => since.plus_micros(patience.max(KEYFRAME_SPACING_US)),
        }
    }
}

/// How long a request takes to be served: one and a half round trips and the frames that the encoder
/// has under way.
fn served_after(round_trip: &RoundTrip, frame_interval_us: u64) -> u64 {
    round_trip.rtt_us + round_trip.rtt_us / 2 + 2 * frame_interval_us
}

fn repeat_us(round_trip: &RoundTrip) -> u64 {
    (round_trip.rtt_us / 2).max(REPEAT_MIN_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: RoundTrip = RoundTrip { rtt_us: 20_000, var_us: 1_000, latest_us: 20_000 };
    const INTERVAL: u64 = 16_000;

    fn poll(r: &mut Requests, us: u64, stuck: bool, valid: Option<u64>) -> Option<RecoveryRequest> {
        let valid = valid.map(FrameId);
        r.poll(Timestamp::from_micros(us), stuck, valid, FrameId(9), &RTT, INTERVAL)
    }

    /// Proves R-REC-5, R-REC-7.
    #[test]
    fn invalidation_is_asked_first_then_a_keyframe_until_it_comes() {
        let mut r = Requests::new();
        let rfi = Some(RecoveryRequest::InvalidateReference { last_valid: FrameId(4) });
        let keyframe = Some(RecoveryRequest::Keyframe { newest: FrameId(9) });
        assert_eq!(poll(&mut r, 1_000_000, false, Some(4)), None);
        assert_eq!(poll(&mut r, 1_000_000, true, Some(4)), rfi);
        assert_eq!(poll(&mut r, 1_009_999, true, Some(4)), None);
        assert_eq!(poll(&mut r, 1_010_000, true, Some(4)), rfi);
        assert_eq!(poll(&mut r, 1_061_999, true, Some(4)), None);
        assert_eq!(poll(&mut r, 1_062_000, true, Some(4)), keyframe);
        assert_eq!(poll(&mut r, 1_123_999, true, Some(4)), None);
        assert_eq!(poll(&mut r, 1_124_000, true, Some(4)), keyframe);
        assert_eq!(poll(&mut r, 1_200_000, false, Some(4)), None);
        assert_eq!(poll(&mut r, 1_300_000, true, Some(4)), rfi);
    }

    #[test]
    fn without_a_good_frame_only_a_keyframe_helps() {
        let mut r = Requests::new();
        assert_eq!(
            poll(&mut r, 1_000_000, true, None),
            Some(RecoveryRequest::Keyframe { newest: FrameId(9) })
        );
    }

    #[test]
    fn the_due_time_is_when_the_next_request_leaves() {
        let mut r = Requests::new();
        let mut now = 1_000_000;
        poll(&mut r, now, true, Some(4));
        for _ in 0..5 {
            let due = r.due(&RTT, INTERVAL).as_micros();
            assert_eq!(poll(&mut r, due - 1, true, Some(4)), None);
            assert!(poll(&mut r, due, true, Some(4)).is_some());
            assert!(due > now);
            now = due;
        }
    }

    #[test]
    fn a_jump_of_the_round_trip_skips_one_or_two_frames_once() {
        for (jump, frames) in [(29_000, None), (35_000, Some(1)), (55_000, Some(2))] {
            let mut r = Requests::new();
            r.on_rtt(10_000);
            assert_eq!(poll(&mut r, 0, false, None), None);
            r.on_rtt(10_000 + jump);
            r.on_rtt(10_000 + jump);
            assert_eq!(poll(&mut r, 0, false, None), frames.map(RecoveryRequest::SkipFrames));
            assert_eq!(poll(&mut r, 0, false, None), None);
        }
    }
}

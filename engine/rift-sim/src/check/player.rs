//! A model of decoder and screen, which checks what it is given against what the source made.

use std::collections::VecDeque;

use rift_core::{FrameId, Timestamp};

use super::{Rule, Violations};
use crate::endpoint::WholeSlice;
use crate::source::Source;

/// Decoded frames that are remembered as references.
const DECODED_MAX: usize = 256;

/// A frame that is being decoded or waits to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    /// The frame.
    pub frame: FrameId,
    /// Whether it decodes: all slices right and the reference there.
    pub sound: bool,
    /// Whether the client wants it on the screen.
    pub show: bool,
    /// Not before, by the client's clock.
    pub show_at: Timestamp,
    /// Not after, by the client's clock.
    pub deadline: Timestamp,
}

/// What may happen on the screen, from the scenario. All in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScreenLimits {
    /// From capture to screen.
    pub latency_us: Option<u64>,
    /// Between shown frames.
    pub freeze_us: Option<u64>,
}

/// Decoder, screen and what they saw.
#[derive(Debug)]
pub struct Player {
    limits: ScreenLimits,
    partial: Option<(Picture, u32)>,
    newest_handed_out: Option<FrameId>,
    decoded: VecDeque<FrameId>,
    newest_shown: Option<(FrameId, Timestamp)>,
    latencies_us: Vec<u32>,
    counters: PlayerCounters,
}

/// What happened on the screen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlayerCounters {
    /// Slices handed out.
    pub slices: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Frames shown.
    pub shown: u64,
    /// Frames decoded only for the sake of others.
    pub not_for_show: u64,
    /// Frames that were decoded too late to be shown, and so were not.
    pub late: u64,
    /// The longest time between shown frames, in microseconds.
    pub gap_us_max: u64,
    /// Gaps over the scenario's limit.
    pub freezes: u64,
}

impl Player {
    /// A screen with nothing on it.
    #[must_use]
    pub fn new(limits: ScreenLimits) -> Self {
        Self {
            limits,
            partial: None,
            newest_handed_out: None,
            decoded: VecDeque::with_capacity(DECODED_MAX),
            newest_shown: None,
            latencies_us: Vec::new(),
            counters: PlayerCounters::default(),
        }
    }

    /// A new session: nothing is decoded, and the time without picture does not count as a freeze.
    pub fn restart(&mut self) {
        self.partial = None;
        self.newest_handed_out = None;
        self.decoded.clear();
        self.newest_shown = None;
    }

    /// Takes a slice; gives the picture back when it was the frame's last.
    pub fn on_slice(
        &mut self,
        now: Timestamp,
        slice: &WholeSlice<'_>,
        source: &Source,
        violations: &mut Violations,
    ) -> Option<Picture> {
        self.counters.slices += 1;
        self.counters.bytes += slice.data.len() as u64;
        let id = slice.frame_id;
        let mut wrong = |rule, detail: &str| {
            violations.add(now, rule, format_args!("frame {id} slice {}: {detail}", slice.index));
        };
        let Some(truth) = source.truth(id) else {
            wrong(Rule::SliceIntegrity, "never encoded, or long ago");
            return None;
        };
        let (mut picture, next) = match self.partial.take() {
            Some((picture, next)) if picture.frame == id => (picture, next),
            _ => {
                if self.newest_handed_out.is_some_and(|newest| id <= newest) {
                    wrong(Rule::SliceIntegrity, "after a newer frame, or again");
                }
                self.newest_handed_out = Some(id);
                let there = truth.reference.is_none_or(|reference| self.decoded.contains(&reference));
                if !there {
                    wrong(Rule::Decodable, "what it references was not decoded");
                }
                let picture = Picture {
                    frame: id,
                    sound: there,
                    show: slice.show,
                    show_at: slice.show_at,
                    deadline: slice.deadline,
                };
                (picture, 0)
            }
        };
        if slice.index != next {
            wrong(Rule::SliceIntegrity, "out of order");
            picture.sound = false;
        }
        let is_last = slice.index + 1 == truth.slice_count;
        if slice.last != is_last {
            wrong(Rule::SliceIntegrity, "wrongly marked as the last or not");
            picture.sound = false;
        }
        if !source.is_slice(id, slice.index, slice.data) {
            wrong(Rule::SliceIntegrity, "other bytes than were encoded");
            picture.sound = false;
        }
        // The last word counts: a frame may turn out late while it comes in.
        picture.show &= slice.show;
        picture.show_at = slice.show_at;
        picture.deadline = slice.deadline;
        if slice.last {
            return Some(picture);
        }
        self.partial = Some((picture, next + 1));
        None
    }

    /// A frame is decoded.
    pub fn on_decoded(&mut self, frame: FrameId) {
        if self.decoded.len() == DECODED_MAX {
            self.decoded.pop_front();
        }
        self.decoded.push_back(frame);
    }

    /// Whether `picture`, decoded by now, goes to the screen at `local` time or later. Pictures that are
    /// too late, or behind a newer one, are not shown.
    pub fn wants(&mut self, local: Timestamp, picture: &Picture) -> bool {
        if !picture.show {
            self.counters.not_for_show += 1;
            return false;
        }
        if local.max(picture.show_at) > picture.deadline {
            self.counters.late += 1;
            return false;
        }
        true
    }

    /// `picture` is on the screen at virtual time `now`.
    pub fn on_shown(
        &mut self,
        now: Timestamp,
        picture: &Picture,
        source: &Source,
        violations: &mut Violations,
    ) {
        let id = picture.frame;
        if let Some((newest, at)) = self.newest_shown {
            if id <= newest {
                violations.add(now, Rule::ShownInOrder, format_args!("frame {id} after {newest}"));
            }
            self.on_gap(now, at, violations);
        }
        self.newest_shown = Some((id, now));
        self.counters.shown += 1;
        let Some(truth) = source.truth(id) else { return };
        let latency_us = now.micros_since(truth.captured_at);
        self.latencies_us.push(u32::try_from(latency_us).unwrap_or(u32::MAX));
        if self.limits.latency_us.is_some_and(|limit| latency_us > limit) {
            violations.add(
                now,
                Rule::ShownInTime,
                format_args!("frame {id} {latency_us} us after its capture"),
            );
        }
    }

    /// The run is over while pictures should have been coming.
    pub fn finish(&mut self, now: Timestamp, violations: &mut Violations) {
        if let Some((_, at)) = self.newest_shown {
            self.on_gap(now, at, violations);
        }
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> &PlayerCounters {
        &self.counters
    }

    /// From capture to screen for each shown frame, in microseconds.
    #[must_use]
    pub fn latencies_us(&self) -> &[u32] {
        &self.latencies_us
    }

    fn on_gap(&mut self, now: Timestamp, since: Timestamp, violations: &mut Violations) {
        let gap_us = now.micros_since(since);
        self.counters.gap_us_max = self.counters.gap_us_max.max(gap_us);
        if self.limits.freeze_us.is_some_and(|limit| gap_us > limit) {
            self.counters.freezes += 1;
            violations.add(now, Rule::Freeze, format_args!("no picture for {gap_us} us"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceConfig;

    struct Rig {
        source: Source,
        player: Player,
        violations: Violations,
        data: Vec<u8>,
    }

    impl Rig {
        fn new() -> Self {
            let config = SourceConfig { slices: 2, ..SourceConfig::default() };
            let mut source = Source::new(config, 1);
            for frame in 0..5 {
                source.capture(Timestamp::from_micros(frame * 10_000));
            }
            let limits = ScreenLimits { latency_us: Some(50_000), freeze_us: Some(100_000) };
            Self { source, player: Player::new(limits), violations: Violations::default(), data: Vec::new() }
        }

        fn slice(&mut self, frame: u64, index: u32, damage: bool) -> Option<Picture> {
            assert!(self.source.emit_slice(FrameId(frame), index, &mut self.data));
            self.data[3] ^= u8::from(damage);
            let slice = WholeSlice {
                frame_id: FrameId(frame),
                index,
                last: index == 1,
                show: true,
                show_at: Timestamp::ZERO,
                deadline: Timestamp::from_micros(200_000),
                data: &self.data,
            };
            self.player.on_slice(Timestamp::ZERO, &slice, &self.source, &mut self.violations)
        }

        fn frame(&mut self, frame: u64) -> Picture {
            self.slice(frame, 0, false);
            let picture = self.slice(frame, 1, false).unwrap();
            self.player.on_decoded(picture.frame);
            picture
        }

        fn shown(&mut self, at: u64, picture: &Picture) {
            let at = Timestamp::from_micros(at);
            self.player.on_shown(at, picture, &self.source, &mut self.violations);
        }

        fn rules(&self) -> Vec<Rule> {
            self.violations.kept().iter().map(|v| v.rule).collect()
        }
    }

    #[test]
    fn a_sound_stream_breaks_no_rule() {
        let mut rig = Rig::new();
        for frame in 0..5 {
            let picture = rig.frame(frame);
            assert!(picture.sound && rig.player.wants(Timestamp::ZERO, &picture));
            rig.shown(frame * 10_000 + 30_000, &picture);
        }
        assert_eq!(rig.rules(), []);
        assert_eq!(rig.player.latencies_us(), [30_000; 5]);
    }

    #[test]
    fn wrong_bytes_order_and_repetition_are_seen() {
        let mut rig = Rig::new();
        rig.slice(0, 0, false);
        rig.slice(0, 1, true);
        assert_eq!(rig.rules(), [Rule::SliceIntegrity]);
        let mut rig = Rig::new();
        rig.slice(0, 1, false);
        assert_eq!(rig.rules(), [Rule::SliceIntegrity]);
        let mut rig = Rig::new();
        rig.frame(0);
        rig.frame(0);
        assert_eq!(rig.rules(), [Rule::SliceIntegrity]);
    }

    #[test]
    fn a_frame_without_its_reference_is_seen() {
        let mut rig = Rig::new();
        rig.frame(0);
        assert!(!rig.frame(2).sound);
        assert_eq!(rig.rules(), [Rule::Decodable]);
    }

    #[test]
    fn late_frames_freezes_and_disorder_are_seen() {
        let mut rig = Rig::new();
        let pictures: Vec<_> = (0..3).map(|f| rig.frame(f)).collect();
        rig.shown(20_000, &pictures[0]);
        rig.shown(65_000, &pictures[1]);
        assert_eq!(rig.rules(), [Rule::ShownInTime]);
        rig.player.finish(Timestamp::from_micros(166_000), &mut rig.violations);
        assert_eq!(rig.rules(), [Rule::ShownInTime, Rule::Freeze]);
        rig.shown(66_000, &pictures[0]);
        assert_eq!(rig.rules()[2..], [Rule::ShownInOrder, Rule::ShownInTime]);
        assert!(!rig.player.wants(Timestamp::from_micros(200_001), &pictures[2]));
    }
}

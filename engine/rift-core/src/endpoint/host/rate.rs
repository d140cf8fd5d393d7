//! What the encoder is told, and when it is worth telling.

use super::{ControllerKind, StreamOffer};
use crate::delta2::{DecisionTrace, Delta2, Delta2Config, PathState, Reason, Scale};
use crate::feedback::{InFlight, PacketOutcome, ReportSummary, SentPacket};
use crate::send::delta_v1::DeltaState;
use crate::send::{DeltaV1, DeltaV1Config};
use crate::{Bitrate, Timestamp};

/// Changes of the bitrate below this share are not worth a change of the encoder, in percent.
const BITRATE_STEP_PERCENT: u64 = 2;
/// Changes of parity below this are not told.
const PARITY_STEP: f32 = 0.01;
/// Decisions that wait to be fetched: a second's worth at one per frame.
const DECISIONS: usize = 64;

/// A target for encoder and sender.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Target {
    pub(super) bitrate: Bitrate,
    pub(super) fps: u32,
    pub(super) parity: f32,
}

#[derive(Debug)]
enum Controller {
    Delta2(Box<Delta2>),
    DeltaV1(Box<DeltaV1>),
    /// Fixed, or set from outside.
    Set(Target),
}

/// The controller of one session.
#[derive(Debug)]
pub(super) struct RateControl {
    controller: Controller,
    told: Target,
    /// Of DELTA 2, which leaves parity to the sender: what that says.
    parity: f32,
    decisions: Box<[DecisionTrace; DECISIONS]>,
    first_decision: usize,
    decision_count: usize,
    is_external: bool,
    /// Set from outside.
    pace: Option<Bitrate>,
    /// Frames per second that the client can decode.
    fps_limit: u32,
}

impl RateControl {
    pub(super) fn new(kind: ControllerKind, offer: &StreamOffer, fps: u32, parity: f32) -> Self {
        let set = Target { bitrate: offer.initial_bitrate, fps, parity };
        let controller = match kind {
            ControllerKind::Delta2 => Controller::Delta2(Box::new(Delta2::new(&Delta2Config {
                bitrate_min: offer.min_bitrate,
                bitrate_max: offer.max_bitrate,
                bitrate_initial: offer.initial_bitrate,
                fps_max: fps,
            }))),
            ControllerKind::DeltaV1 => Controller::DeltaV1(Box::new(DeltaV1::new(&DeltaV1Config {
                bitrate_min: offer.min_bitrate,
                bitrate_max: offer.max_bitrate,
                bitrate_initial: offer.initial_bitrate,
                fps_max: fps,
                parity_min: parity,
            }))),
            ControllerKind::Fixed | ControllerKind::External => Controller::Set(set),
        };
        let mut control = Self {
            controller,
            told: set,
            parity,
            decisions: Box::new([DecisionTrace::default(); DECISIONS]),
            first_decision: 0,
            decision_count: 0,
            is_external: kind == ControllerKind::External,
            pace: None,
            fps_limit: u32::MAX,
        };
        control.told = control.wanted();
        control
    }

    /// What was told last.
    pub(super) fn target(&self) -> Target {
        self.told
    }

    pub(super) fn on_rtt(&mut self, now: Timestamp, rtt_us: u64) {
        if let Controller::DeltaV1(controller) = &mut self.controller {
            controller.on_rtt(now, rtt_us);
        }
    }

    pub(super) fn on_loss(&mut self, now: Timestamp, lost_packets: u32) {
        if let Controller::DeltaV1(controller) = &mut self.controller {
            controller.on_loss(now, lost_packets);
        }
    }

    pub(super) fn on_slice(&mut self, now: Timestamp, bytes: usize, ends_frame: bool) {
        if let Controller::Delta2(controller) = &mut self.controller {
            controller.on_slice(now, bytes, ends_frame);
        }
    }

    #[inline]
    pub(super) fn on_sent(&mut self, packet: &SentPacket) {
        if let Controller::Delta2(controller) = &mut self.controller {
            controller.on_sent(packet);
        }
    }

    #[inline]
    pub(super) fn on_outcome(&mut self, outcome: &PacketOutcome) {
        if let Controller::Delta2(controller) = &mut self.controller {
            controller.on_outcome(outcome);
        }
    }

    pub(super) fn on_report(&mut self, now: Timestamp, summary: &ReportSummary, flight: InFlight) {
        if let Controller::Delta2(controller) = &mut self.controller {
            controller.on_report(now, summary, flight);
            self.keep_decision();
        }
    }

    pub(super) fn on_frame_acked(&mut self, now: Timestamp, flight: InFlight) {
        if let Controller::Delta2(controller) = &mut self.controller {
            controller.on_frame_acked(now, flight);
            self.keep_decision();
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Timestamp, flight: InFlight) {
        if let Controller::Delta2(controller) = &mut self.controller {
            controller.handle_timeout(now, flight);
            self.keep_decision();
        }
    }

    pub(super) fn poll_timeout(&self) -> Timestamp {
        match &self.controller {
            Controller::Delta2(controller) => controller.poll_timeout(),
            Controller::DeltaV1(_) | Controller::Set(_) => Timestamp::NEVER,
        }
    }

    pub(super) fn on_clock_jump(&mut self, now: Timestamp) {
        if let Controller::Delta2(controller) = &mut self.controller {
            controller.on_clock_jump(now);
        }
    }

    pub(super) fn set_external(&mut self, target: Target) {
        if self.is_external {
            self.controller = Controller::Set(target);
        }
    }

    /// The client can decode so many frames per second; 0 for any number.
    pub(super) fn set_fps_limit(&mut self, fps: u32) {
        self.fps_limit = if fps == 0 { u32::MAX } else { fps };
    }

    pub(super) fn set_external_pace(&mut self, pace: Bitrate) {
        if self.is_external {
            self.pace = Some(pace);
        }
    }

    /// Parity follows the losses that the sender sees, and the controller has no say in it.
    pub(super) fn leaves_parity(&self) -> bool {
        matches!(self.controller, Controller::Delta2(_))
    }

    /// What the sender makes of parity by itself, which the program is told.
    pub(super) fn set_parity(&mut self, parity: f32) {
        self.parity = parity;
    }

    /// Packets wait in a queue: what is lost now is lost there.
    #[inline]
    pub(super) fn is_queued(&self) -> bool {
        matches!(&self.controller, Controller::Delta2(controller) if controller.is_queued())
    }

    /// What was sent is overdue.
    pub(super) fn is_overdue(&self) -> bool {
        matches!(&self.controller, Controller::Delta2(controller) if controller.is_overdue())
    }

    /// How fast the packets of a frame may follow each other; `None` for as fast as the sender was built for.
    pub(super) fn pacing(&self) -> Option<Bitrate> {
        match &self.controller {
            Controller::Delta2(controller) => controller.pacing(),
            Controller::DeltaV1(_) => None,
            Controller::Set(_) => self.pace,
        }
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(&self.controller, Controller::Delta2(controller) if controller.is_held())
    }

    pub(super) fn scale(&self) -> Scale {
        if let Controller::Delta2(controller) = &self.controller { controller.scale() } else { Scale::Full }
    }

    /// Whether congestion marks are answered as L4S asks (RFC 9331).
    pub(super) fn answers_marks(&self) -> bool {
        matches!(self.controller, Controller::Delta2(_))
    }

    /// How things stand.
    pub(super) fn trace(&self, now: Timestamp) -> DecisionTrace {
        let Target { bitrate, fps, parity } = self.wanted();
        match &self.controller {
            Controller::Delta2(controller) => DecisionTrace { parity, ..controller.trace(now) },
            Controller::DeltaV1(controller) => DecisionTrace {
                at: now,
                state: match controller.state() {
                    DeltaState::Stable => PathState::Stable,
                    DeltaState::Rising => PathState::Rising,
                    DeltaState::Congested => PathState::Congested,
                },
                rate: bitrate,
                video: bitrate,
                queue_us: u32::try_from(controller.queue_delay_us()).unwrap_or(u32::MAX),
                rtt_us: u32::try_from(controller.rtt_smooth_us()).unwrap_or(u32::MAX),
                fps,
                parity,
                ..DecisionTrace::default()
            },
            Controller::Set(_) => DecisionTrace {
                at: now,
                reason: Reason::External,
                rate: bitrate,
                video: bitrate,
                fps,
                parity,
                ..DecisionTrace::default()
            },
        }
    }

    /// The oldest decision that was not fetched.
    pub(super) fn poll_decision(&mut self) -> Option<DecisionTrace> {
        if self.decision_count == 0 {
            return None;
        }
        let decision = self.decisions[self.first_decision];
        self.first_decision = (self.first_decision + 1) % DECISIONS;
        self.decision_count -= 1;
        Some(decision)
    }

    /// The new target, if it differs enough from what was told.
    pub(super) fn poll_change(&mut self) -> Option<Target> {
        let target = self.wanted();
        let (new_bps, old_bps) = (target.bitrate.as_bps(), self.told.bitrate.as_bps());
        let is_worth = new_bps.abs_diff(old_bps) * 100 >= old_bps * BITRATE_STEP_PERCENT
            && new_bps != old_bps
            || target.fps != self.told.fps
            || (target.parity - self.told.parity).abs() >= PARITY_STEP;
        is_worth.then(|| {
            self.told = target;
            target
        })
    }

    fn wanted(&self) -> Target {
        let target = match &self.controller {
            Controller::Delta2(controller) => Target {
                bitrate: controller.target_bitrate(),
                fps: controller.target_fps(),
                parity: self.parity,
            },
            Controller::DeltaV1(controller) => Target {
                bitrate: controller.target_bitrate(),
                fps: controller.target_fps(),
                parity: controller.parity_ratio(),
            },
            Controller::Set(target) => *target,
        };
        Target { fps: target.fps.min(self.fps_limit), ..target }
    }

    fn keep_decision(&mut self) {
        let Controller::Delta2(controller) = &mut self.controller else { return };
        while let Some(decision) = controller.poll_trace() {
            let decision = DecisionTrace { parity: self.parity, ..decision };
            if self.decision_count == DECISIONS {
                self.first_decision = (self.first_decision + 1) % DECISIONS;
                self.decision_count -= 1;
            }
            self.decisions[(self.first_decision + self.decision_count) % DECISIONS] = decision;
            self.decision_count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::proto::{Codec, Resolution};

    fn offer() -> StreamOffer {
        StreamOffer {
            codec: Codec::H264,
            resolution: Resolution { width: 1280, height: 720 },
            fps: 60,
            initial_bitrate: Bitrate::from_mbps(10),
            min_bitrate: Bitrate::from_mbps(1),
            max_bitrate: Bitrate::from_mbps(20),
            monitors: vec![],
        }
    }

    /// Proves R-FB-3: congestion reaches the encoder, small steps do not pester it.
    #[test]
    fn the_encoder_is_told_of_changes_that_matter() {
        let mut rate = RateControl::new(ControllerKind::DeltaV1, &offer(), 60, 0.125);
        let mut now = Timestamp::ZERO;
        let mut told = 0;
        for _ in 0..40 {
            now = now.plus_micros(100_000);
            rate.on_rtt(now, 20_000);
            told += u32::from(rate.poll_change().is_some());
        }
        assert!((5..=12).contains(&told), "2 Mbit/s in steps of 0.2, told {told} times");
        for _ in 0..30 {
            now = now.plus_micros(100_000);
            rate.on_rtt(now, 90_000);
            rate.poll_change();
        }
        assert_eq!(rate.target().bitrate, Bitrate::from_mbps(1));
        assert!(rate.target().fps < 60);
    }

    #[test]
    fn a_fixed_rate_is_never_changed() {
        let mut rate = RateControl::new(ControllerKind::Fixed, &offer(), 60, 0.0);
        (0..100).for_each(|i| rate.on_rtt(Timestamp::from_micros(i * 100_000), 1000 * i));
        assert_eq!(rate.poll_change(), None);
        assert_eq!(rate.target().bitrate, Bitrate::from_mbps(10));
    }
}

//! What the encoder is told, and when it is worth telling.

use super::{ControllerKind, StreamOffer};
use crate::send::{DeltaV1, DeltaV1Config};
use crate::{Bitrate, Timestamp};

/// Changes of the bitrate below this share are not worth a change of the encoder, in percent.
const BITRATE_STEP_PERCENT: u64 = 2;
/// Changes of parity below this are not told.
const PARITY_STEP: f32 = 0.01;

/// A target for encoder and sender.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Target {
    pub(super) bitrate: Bitrate,
    pub(super) fps: u32,
    pub(super) parity: f32,
}

/// The controller of one session.
#[derive(Debug)]
pub(super) struct RateControl {
    controller: Option<DeltaV1>,
    told: Target,
}

impl RateControl {
    pub(super) fn new(kind: ControllerKind, offer: &StreamOffer, fps: u32, parity: f32) -> Self {
        let config = DeltaV1Config {
            bitrate_min: offer.min_bitrate,
            bitrate_max: offer.max_bitrate,
            bitrate_initial: offer.initial_bitrate,
            fps_max: fps,
            parity_min: parity,
        };
        let controller = match kind {
            ControllerKind::DeltaV1 => Some(DeltaV1::new(&config)),
            ControllerKind::Fixed => None,
        };
        let bitrate = controller.as_ref().map_or(offer.initial_bitrate, DeltaV1::target_bitrate);
        Self { controller, told: Target { bitrate, fps, parity } }
    }

    /// What was told last.
    pub(super) fn target(&self) -> Target {
        self.told
    }

    pub(super) fn on_rtt(&mut self, now: Timestamp, rtt_us: u64) {
        if let Some(controller) = &mut self.controller {
            controller.on_rtt(now, rtt_us);
        }
    }

    pub(super) fn on_loss(&mut self, now: Timestamp, lost_packets: u32) {
        if let Some(controller) = &mut self.controller {
            controller.on_loss(now, lost_packets);
        }
    }

    /// The new target, if it differs enough from what was told.
    pub(super) fn poll_change(&mut self) -> Option<Target> {
        let controller = self.controller.as_ref()?;
        let target = Target {
            bitrate: controller.target_bitrate(),
            fps: controller.target_fps(),
            parity: controller.parity_ratio(),
        };
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

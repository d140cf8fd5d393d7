//! What the path carries, from the spacing at which the packets of a frame arrive.

use crate::feedback::{Fate, PacketKind, PacketOutcome, SentPacket};
use crate::{FrameId, Timestamp};

/// A train says nothing below this many packets.
const PACKETS_MIN: u32 = 4;
/// Spacing is told in units of 64 us; shorter trains are all rounding.
const SPAN_US_MIN: f64 = 300.0;
/// A train that took this much longer to arrive than to leave was stretched by the path, not by rounding.
const STRETCH: f64 = 1.06;
/// See [`STRETCH`]; in microseconds.
const STRETCH_US: f64 = 200.0;
/// A train this long decides by itself, in microseconds; a shorter one in proportion. Also the time in which
/// the estimate follows a path that changes.
const MEMORY_US: f64 = 70_000.0;
/// The least that a train counts: a shorter one still is a measurement.
const GAIN_MIN: f64 = 0.2;

/// A part of a train says something once it took this long to arrive, in microseconds, and so many times the noise.
const PART_US: f64 = 8_000.0;
const PART_NOISE: f64 = 4.0;
/// How much jitter may hold back the first packet of a train, and holds back the last one, as multiples of the noise.
const FIRST_NOISE: f64 = 3.0;
const LAST_NOISE: f64 = 2.4;
/// A train that kept up counts by this where there is no noise, which is less than the second, in microseconds.
const KEEPS_UP_GAIN: f64 = 0.7;
const NOISY_US: f64 = 500.0;

/// The packets of one frame on their way.
#[derive(Clone, Copy, Debug, Default)]
struct Train {
    frame: FrameId,
    packets: u32,
    /// Behind the first packet.
    bytes: f64,
    /// Of packets that were lost since the last arrival.
    lost_bytes: f64,
    first_sent: Timestamp,
    last_sent: Timestamp,
    first_arrived_us: u64,
    last_arrived_us: u64,
    /// How long the first packet waited, queue or jitter, in microseconds.
    first_waited_us: f64,
    /// The longest gap, and the bytes that came with its end.
    gap_us: u64,
    gap_bytes: f64,
}

/// What a train said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sample {
    /// The path was slower than the sender: this is its capacity, in bits per second.
    Capacity(f64),
    /// The path kept up: it carries at least this.
    AtLeast(f64),
}

/// The estimate.
#[derive(Debug, Default)]
pub(super) struct Capacity {
    train: Train,
    estimate_bps: Option<f64>,
    /// The last train kept up with the sender.
    keeps_up: bool,
    /// Mean of how far single trains fall short, as a share.
    deviation: f64,
    /// How much of the pause between two frames was left when they arrived, averaged.
    apart: f64,
}

impl Capacity {
    /// In bits per second, once there is one.
    pub(super) fn bps(&self) -> Option<f64> {
        self.estimate_bps
    }

    /// The last train arrived as fast as it was sent, so that nothing is known of what lies above.
    pub(super) fn keeps_up(&self) -> bool {
        self.keeps_up
    }

    /// How far single trains fall short of the estimate on average, as a share.
    pub(super) fn deviation(&self) -> f64 {
        self.deviation
    }

    /// How much of the pauses between frames is left when they arrive: 0 behind a queue of the own packets,
    /// which closes them; 1 on an empty path, or among packets of others.
    pub(super) fn apart(&self) -> f64 {
        self.apart
    }

    /// Takes a packet; the sample of the frame before, where this begins a new one.
    pub(super) fn on_outcome(
        &mut self,
        outcome: &PacketOutcome,
        noise_us: f64,
        waited_us: f64,
    ) -> Option<Sample> {
        let Fate::Arrived { arrived_us, .. } = outcome.fate else { return None };
        let packet = &outcome.packet;
        let train = &mut self.train;
        let is_other = packet.kind == PacketKind::Retransmission;
        if train.packets > 0 && (is_other || packet.frame == train.frame) {
            if is_other && arrived_us > train.last_arrived_us.saturating_add(2_000) {
                // Sent behind the frame, into an empty path.
                return None;
            }
            let bytes = f64::from(packet.bytes) + core::mem::take(&mut train.lost_bytes);
            let gap_us = arrived_us.saturating_sub(train.last_arrived_us);
            if gap_us > train.gap_us {
                (train.gap_us, train.gap_bytes) = (gap_us, bytes);
            }
            train.packets += 1;
            train.bytes += bytes;
            train.last_arrived_us = train.last_arrived_us.max(arrived_us);
            train.last_sent = train.last_sent.max(packet.sent_at);
            return None;
        }
        if is_other || (train.packets > 0 && packet.frame < train.frame) {
            return None;
        }
        self.note_pause(packet.sent_at, arrived_us, waited_us);
        let sample = self.measure(noise_us);
        if let Some(sample) = sample {
            self.take(sample, noise_us);
        }
        self.train = Train {
            frame: packet.frame,
            packets: 1,
            first_sent: packet.sent_at,
            last_sent: packet.sent_at,
            first_arrived_us: arrived_us,
            first_waited_us: waited_us,
            last_arrived_us: arrived_us,
            ..Train::default()
        };
        sample
    }

    /// A packet was lost where no queue drops any: on the air, behind the bottleneck, whose time it took.
    pub(super) fn on_lost(&mut self, packet: &SentPacket) {
        let is_first = packet.kind != PacketKind::Retransmission;
        if is_first && self.train.packets > 0 && packet.frame == self.train.frame {
            self.train.lost_bytes += f64::from(packet.bytes);
        }
    }

    /// What the part of the current frame says that has arrived so far, where it is slow: bits per second.
    pub(super) fn slow_part_bps(&self, noise_us: f64) -> Option<f64> {
        let span_us = self.train.last_arrived_us.saturating_sub(self.train.first_arrived_us);
        match self.measure(noise_us)? {
            // Shorter than two reports' spacing is not yet a verdict.
            Sample::Capacity(bps) if span_us as f64 >= PART_US + PART_NOISE * noise_us => Some(bps),
            _ => None,
        }
    }

    /// The frame under way turned out slow: believe it before it ends.
    pub(super) fn believe(&mut self, bps: f64) {
        self.estimate_bps = Some(self.estimate_bps.map_or(bps, |old| old.min(bps)));
        self.keeps_up = false;
    }

    fn note_pause(&mut self, sent_at: Timestamp, arrived_us: u64, waited_us: f64) {
        let sent_us = sent_at.micros_since(self.train.last_sent);
        // A queue that is shorter than the pause would leave some of it in any case.
        if self.train.packets > 0 && sent_us >= 2_000 && waited_us > sent_us as f64 {
            let left = arrived_us.saturating_sub(self.train.last_arrived_us) as f64 / sent_us as f64;
            self.apart += 0.15 * (left.min(1.2) - self.apart);
        }
    }

    fn measure(&self, noise_us: f64) -> Option<Sample> {
        let t = &self.train;
        if t.packets < 2 {
            return None;
        }
        let mut span_us = t.last_arrived_us.saturating_sub(t.first_arrived_us) as f64;
        let mut bytes = t.bytes;
        let sent_us = t.last_sent.micros_since(t.first_sent) as f64;
        let gap_us = t.gap_us as f64;
        if gap_us > span_us / 2.0 && gap_us > sent_us / 2.0 && bytes > 2.0 * t.gap_bytes {
            // The path stood still; its speed is that of the rest.
            span_us -= gap_us;
            bytes -= t.gap_bytes;
        }
        // Jitter that keeps the order holds back the first packet, which makes the train look short, and, among the
        // many that come before it, the last one more than that.
        span_us += t.first_waited_us.min(FIRST_NOISE * noise_us);
        let fair_us = (span_us - LAST_NOISE * noise_us).max(span_us / 2.0).max(SPAN_US_MIN);
        let bits = bytes * 8e6;
        if t.packets < PACKETS_MIN {
            // Two or three packets are soon held up, which says nothing, but hardly come too early.
            return Some(Sample::AtLeast(bits / (fair_us.max(sent_us) + noise_us)));
        }
        if fair_us > sent_us * STRETCH + STRETCH_US {
            Some(Sample::Capacity(bits / fair_us))
        } else {
            Some(Sample::AtLeast(bits / (fair_us.max(sent_us) + noise_us)))
        }
    }

    fn take(&mut self, sample: Sample, noise_us: f64) {
        let span_us = self.train.last_arrived_us.saturating_sub(self.train.first_arrived_us) as f64;
        let gain = (span_us / MEMORY_US).clamp(GAIN_MIN, 0.8);
        match (sample, self.estimate_bps) {
            (Sample::Capacity(bps), Some(old)) => {
                self.deviation += 0.1 * ((old - bps).max(0.0) / old - self.deviation);
                // Times are averaged, not rates: one train that jitter made short would count for many.
                self.estimate_bps = Some(1.0 / ((1.0 - gain) / old + gain / bps));
                self.keeps_up = false;
            }
            (Sample::Capacity(bps), None) => self.estimate_bps = Some(bps),
            (Sample::AtLeast(bps), old) => {
                self.deviation -= 0.1 * self.deviation;
                let gain = if noise_us > NOISY_US { gain } else { KEEPS_UP_GAIN };
                self.estimate_bps = Some(old.map_or(bps, |old| old.max(old + gain * (bps - old))));
                self.keeps_up = true;
            }
        }
    }
}

//! What the host itself puts on the path: how much, and the backlog that follows.

use crate::feedback::SentPacket;
use crate::{FrameId, Timestamp};

/// What was sent is averaged over one to two of these, in microseconds: a ramp must see what it has just sent.
const RATE_WINDOW_US: u64 = 100_000;
/// Share of each window's overhead that is taken over.
const OVERHEAD_GAIN: f64 = 0.3;
/// Below so many encoded bytes in a window, its overhead says nothing.
const OVERHEAD_BYTES_MIN: u64 = 3_000;
/// Frames whose own backlog is remembered: those of a round trip and more.
const FRAMES: usize = 64;
/// What leaves over what was encoded, before it was measured: headers and a little parity.
const OVERHEAD_FIRST: f64 = 1.15;
/// An oversized frame's backlog is gone after about this long, in microseconds: one or two frames.
const DRAIN_US: f64 = 25_000.0;

/// The sending side's account.
#[derive(Debug)]
pub(super) struct Sending {
    /// Bits on the bottleneck's queue if nobody else used it.
    backlog_bits: f64,
    at: Timestamp,
    /// Bits of the newest frame that have not left yet.
    queued_bits: f64,
    frames: [(FrameId, f64); FRAMES],
    newest: Option<FrameId>,
    /// When the newest frame was handed over.
    is_frame_open: bool,
    frame_at: Timestamp,
    /// Of this window and the one before: datagram bytes and encoded bytes.
    sent: [u64; 2],
    encoded: [u64; 2],
    began: Timestamp,
    before_us: u64,
    /// When the newest frame began to leave, and what has left since, in bytes.
    frame_began: Timestamp,
    frame_bytes: u64,
    /// Rates of the last two frames that left whole, in bits per second, over the time until the next one began.
    frame_bps: [f64; 2],
    overhead: f64,
}

impl Sending {
    pub(super) fn new() -> Self {
        Self {
            backlog_bits: 0.0,
            at: Timestamp::ZERO,
            queued_bits: 0.0,
            frames: [(FrameId(u64::MAX), 0.0); FRAMES],
            newest: None,
            is_frame_open: false,
            frame_at: Timestamp::ZERO,
            sent: [0; 2],
            encoded: [0; 2],
            began: Timestamp::ZERO,
            before_us: 0,
            frame_began: Timestamp::ZERO,
            frame_bytes: 0,
            frame_bps: [0.0; 2],
            overhead: OVERHEAD_FIRST,
        }
    }

    pub(super) fn on_encoded(&mut self, now: Timestamp, bytes: u64, ends_frame: bool, capacity_bps: f64) {
        self.turn(now);
        self.advance(now, capacity_bps);
        self.encoded[0] += bytes;
        if !self.is_frame_open {
            self.queued_bits = 0.0;
            self.frame_at = now;
        }
        self.queued_bits += bytes as f64 * 8.0 * self.overhead;
        self.is_frame_open = !ends_frame;
    }

    pub(super) fn on_sent(&mut self, packet: &SentPacket, capacity_bps: f64) {
        let now = packet.sent_at;
        self.turn(now);
        self.sent[0] += u64::from(packet.bytes);
        self.advance(now, capacity_bps);
        if packet.position == 0 && self.newest.is_none_or(|newest| packet.frame > newest) {
            if self.newest.replace(packet.frame).is_some() {
                let us = now.micros_since(self.frame_began).max(1);
                self.frame_bps = [self.frame_bytes as f64 * 8e6 / us as f64, self.frame_bps[0]];
            }
            (self.frame_began, self.frame_bytes) = (now, 0);
            let wait_us = self.backlog_bits * 1e6 / capacity_bps;
            self.frames[(packet.frame.0 % FRAMES as u64) as usize] = (packet.frame, wait_us);
        }
        let bits = f64::from(packet.bytes) * 8.0;
        self.frame_bytes += u64::from(packet.bytes);
        self.backlog_bits += bits;
        self.queued_bits = (self.queued_bits - bits).max(0.0);
    }

    /// How long the first packet of `frame` waits behind the host's own packets, in microseconds.
    pub(super) fn own_wait_us(&self, frame: FrameId) -> f64 {
        let (id, wait_us) = self.frames[(frame.0 % FRAMES as u64) as usize];
        if id == frame && wait_us.is_finite() { wait_us } else { 0.0 }
    }

    /// By how much the encoder must stay below the rate so that the backlog of a large frame goes away.
    pub(super) fn drain_bps(&self, capacity_bps: f64, period_us: f64) -> f64 {
        if !capacity_bps.is_finite() {
            return 0.0;
        }
        // What is left when the next frame comes.
        let until_next_us = period_us - self.at.micros_since(self.frame_at) as f64;
        let left = self.backlog_bits + self.queued_bits - capacity_bps * until_next_us.max(0.0) / 1e6;
        left.max(0.0) / DRAIN_US * 1e6
    }

    /// What was sent lately, in bits per second, once that can be said. If `is_bold`, the lesser one of the last two
    /// frames counts where that is more, so that growth is seen at once; a single large one is no rate.
    pub(super) fn rate_bps(&self, now: Timestamp, is_bold: bool) -> Option<f64> {
        let frames_bps = self.frame_bps[0].min(self.frame_bps[1]);
        if self.before_us == 0 {
            return (frames_bps > 0.0).then_some(frames_bps);
        }
        let us = self.before_us + now.micros_since(self.began);
        let mean_bps = (self.sent[0] + self.sent[1]) as f64 * 8e6 / us.max(1) as f64;
        Some(if is_bold { mean_bps.max(frames_bps) } else { mean_bps })
    }

    /// What leaves over what is encoded.
    pub(super) fn overhead(&self) -> f64 {
        self.overhead
    }

    pub(super) fn on_clock_jump(&mut self, now: Timestamp) {
        (self.at, self.began) = (now, now);
        (self.sent, self.encoded, self.before_us) = ([0; 2], [0; 2], 0);
        (self.frame_began, self.frame_bytes, self.frame_bps) = (now, 0, [0.0; 2]);
    }

    /// What passed the bottleneck since the last call.
    fn advance(&mut self, now: Timestamp, capacity_bps: f64) {
        let passed_us = now.micros_since(self.at) as f64;
        self.at = self.at.max(now);
        // Where nothing is known of the capacity, nothing is known of a backlog.
        let passed = passed_us * capacity_bps / 1e6;
        self.backlog_bits = if passed.is_finite() { (self.backlog_bits - passed).max(0.0) } else { 0.0 };
    }

    fn turn(&mut self, now: Timestamp) {
        if self.began == Timestamp::ZERO {
            self.began = now;
        }
        let us = now.micros_since(self.began);
        if us < RATE_WINDOW_US {
            return;
        }
        if self.encoded[0] > OVERHEAD_BYTES_MIN && self.sent[0] > 0 {
            let found = (self.sent[0] as f64 / self.encoded[0] as f64).clamp(1.0, 2.0);
            self.overhead += OVERHEAD_GAIN * (found - self.overhead);
        }
        self.before_us = us.min(4 * RATE_WINDOW_US);
        (self.sent, self.encoded) = ([0, self.sent[0]], [0, self.encoded[0]]);
        self.began = now;
    }
}

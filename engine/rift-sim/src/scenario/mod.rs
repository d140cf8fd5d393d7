//! What a run consists of: links, source, input, clocks, what happens when, and what must hold.
//!
//! A plain value with a text form (see [`text`]); scenario and seed together decide every bit of a run.

pub mod preset;
pub mod suite;
pub mod text;

use core::fmt;
use std::sync::Arc;

use rift_core::Bitrate;

use crate::cross::CrossConfig;
use crate::link::{Capacity, LinkConfig, Trace};
use crate::source::SourceConfig;
use crate::world::Side;

/// A run, but for the seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// For reports; one word.
    pub name: String,
    /// Length of the run in microseconds.
    pub duration_us: u64,
    /// How much of it is not measured, in microseconds.
    pub warmup_us: u64,
    /// What decides on the rate.
    pub controller: Controller,
    /// From host to client.
    pub down: LinkConfig,
    /// From client to host.
    pub up: LinkConfig,
    /// The encoder.
    pub source: SourceConfig,
    /// Time to decode a frame after its last slice, in microseconds.
    pub decode_us: u64,
    /// Input events per second; 0 for none.
    pub input_per_s: u32,
    /// What an attacker on the path does to each delivered packet with this probability: copy it, reflect it,
    /// damage a copy, or send garbage from an address of his own.
    pub attack: f64,
    /// The host's clock at the beginning, and how fast it is.
    pub host_clock: ClockConfig,
    /// The client's clock.
    pub client_clock: ClockConfig,
    /// How the endpoints are set up.
    pub protocol: ProtocolConfig,
    /// When the stream runs and how far it goes.
    pub main: FlowConfig,
    /// Streams like it on the same paths.
    pub flows: Vec<FlowConfig>,
    /// Other traffic on the same paths.
    pub cross: Vec<CrossConfig>,
    /// What happens in the course of the run, by time in microseconds.
    pub timeline: Vec<(u64, Action)>,
    /// What must hold.
    pub limits: Limits,
}

/// A stream on the scenario's paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowConfig {
    /// When its client comes, in microseconds. Its own warm-up begins then.
    pub start_us: u64,
    /// When its client leaves, in microseconds; never where `None`.
    pub stop_us: Option<u64>,
    /// Propagation delay beyond that of the paths, each way, in microseconds.
    pub delay_us: u64,
    /// The host is where the client of other streams is.
    pub reverse: bool,
    /// What decides on its rate, if not what the scenario says.
    pub controller: Option<Controller>,
}

/// How the endpoints are set up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProtocolConfig {
    /// Whether the client knows the host's static key, so that it can begin with Noise IK.
    pub ik: bool,
    /// The first packet id, for runs across 2^32.
    pub first_packet_id: u64,
    /// How long a key is used before it is renewed, in microseconds.
    pub rekey_us: u64,
    /// For how many packets a key is used before it is renewed.
    pub rekey_packets: u64,
    /// How often each side pings, in microseconds.
    pub ping_us: u64,
    /// Parity packets per data packet, to begin with and at least.
    pub parity: f64,
}

/// A clock at the beginning of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockConfig {
    /// What it shows, in microseconds.
    pub start_us: u64,
    /// Microseconds that it gains per second.
    pub drift_ppm: i32,
}

/// What decides on the rate of the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Controller {
    /// Whatever a host has that nobody told otherwise.
    #[default]
    Default,
    /// The published DELTA 1.1.
    DeltaV1,
    /// Nothing: the rate at the start is that for ever.
    Fixed,
    /// Somebody who is told the capacity of the path 20 ms late, paces to it and takes 95 % of it, or of an equal
    /// share beside others.
    Oracle,
}

impl Controller {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Default, Self::DeltaV1, Self::Fixed, Self::Oracle];

    /// As in the text form of scenarios.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::DeltaV1 => "delta-v1",
            Self::Fixed => "fixed",
            Self::Oracle => "oracle",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|controller| controller.name() == name)
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The path from host to client changes.
    Down(LinkConfig),
    /// The path from client to host changes.
    Up(LinkConfig),
    /// A clock jumps by so many microseconds.
    ClockJump(Side, i64),
    /// The client's address changes, as behind a NAT that forgot.
    Rebind,
    /// The client is gone without a word.
    Vanish,
    /// A new client comes, in place of the old one if that is there.
    Restart,
    /// One side ends the session.
    Close(Side),
    /// The pictures need no more than this from now on, or anything.
    Content(Option<Bitrate>),
    /// The stream of this number, from 1, has no pictures until it is resumed.
    Pause(usize),
    /// It has pictures again.
    Resume(usize),
}

/// What must hold. `None` where the scenario does not care.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Longest time from capture to screen, in microseconds.
    pub latency_us: Option<u64>,
    /// Longest gap between shown frames, in microseconds.
    pub freeze_us: Option<u64>,
    /// Longest gap beyond two frame intervals, in round-trip times of the paths as they are at the beginning.
    pub recovery_rtts: Option<f64>,
    /// Most keyframes beyond the first of each session.
    pub keyframes: Option<u64>,
    /// Least share of encoded frames that are shown.
    pub shown: Option<f64>,
    /// Longest time that a key stays down after it was let go, in microseconds.
    pub stuck_us: Option<u64>,
}

impl Default for Scenario {
    /// A minute at 60 frames per second and 20 Mbit/s over a path without faults and 2 ms round-trip time.
    fn default() -> Self {
        let path = LinkConfig { delay_us: 1_000, ..LinkConfig::default() };
        Self {
            name: "plain".into(),
            duration_us: 60_000_000,
            warmup_us: 0,
            controller: Controller::Default,
            down: path.clone(),
            up: path,
            source: SourceConfig::default(),
            decode_us: 2_000,
            input_per_s: 50,
            attack: 0.0,
            // Far apart, so that nothing can work by taking one clock for the other.
            host_clock: ClockConfig { start_us: 5_000_000_000, drift_ppm: 0 },
            client_clock: ClockConfig { start_us: 70_000_000, drift_ppm: 0 },
            protocol: ProtocolConfig {
                ik: true,
                first_packet_id: 0,
                rekey_us: 3_600_000_000,
                rekey_packets: 1 << 28,
                ping_us: 100_000,
                parity: 0.125,
            },
            main: FlowConfig::default(),
            flows: Vec::new(),
            cross: Vec::new(),
            timeline: Vec::new(),
            limits: Limits::default(),
        }
    }
}

impl Scenario {
    /// Loads every trace that is named, from what `find` gives for its name.
    ///
    /// # Errors
    /// What `find` says.
    pub fn load_traces<E>(&mut self, mut find: impl FnMut(&str) -> Result<Arc<Trace>, E>) -> Result<(), E> {
        let later = self.timeline.iter_mut().filter_map(|(_, action)| match action {
            Action::Down(link) | Action::Up(link) => Some(link),
            _ => None,
        });
        for link in [&mut self.down, &mut self.up].into_iter().chain(later) {
            if let Some(trace) = link.capacity.trace_mut() {
                trace.data = Some(find(&trace.name)?);
            }
        }
        Ok(())
    }

    /// The traces that are named and not loaded.
    pub fn missing_traces(&self) -> impl Iterator<Item = &str> {
        let later = self.timeline.iter().filter_map(|(_, action)| match action {
            Action::Down(link) | Action::Up(link) => Some(link),
            _ => None,
        });
        let links = [&self.down, &self.up].into_iter().chain(later);
        links.filter_map(|link| match &link.capacity {
            Capacity::Trace(trace) if trace.data.is_none() => Some(trace.name.as_str()),
            _ => None,
        })
    }

    /// Round-trip time of the empty paths in microseconds.
    #[must_use]
    pub fn rtt_us(&self) -> u64 {
        self.up.delay_us + self.down.delay_us
    }

    /// The longest gap between shown frames that the limits allow, in microseconds.
    #[must_use]
    pub fn gap_us_max(&self) -> Option<u64> {
        let recovery = self.limits.recovery_rtts.map(|rtts| {
            let sd_us = self.up.jitter_sd_us + self.down.jitter_sd_us;
            let jitter_us = self.up.jitter_us + self.down.jitter_us + 4 * sd_us;
            2_000_000 / u64::from(self.source.fps.max(1)) + (rtts * self.rtt_us() as f64) as u64 + jitter_us
        });
        match (self.limits.freeze_us, recovery) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

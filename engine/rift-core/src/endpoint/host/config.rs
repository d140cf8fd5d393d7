//! What a host is told at start.

use crate::Bitrate;
use crate::message::proto::{Codec, Monitor, Resolution};
use crate::send::SenderConfig;
use crate::session::{Features, LinkConfig};
use rift_crypto::{Identity, WavryId};

/// The published share of parity: 2 packets for 16.
const PARITY: f32 = 0.125;

/// What a [`HostEndpoint`](super::HostEndpoint) is made from.
pub struct HostConfig {
    /// The host's long-term keys.
    pub identity: Identity,
    /// 32 bytes from the operating system's randomness: the source of everything that must be
    /// unpredictable. A repeated seed repeats keys, so only simulations may repeat one.
    pub seed: [u8; 32],
    /// What is streamed.
    pub stream: StreamOffer,
    /// The video sender's limits; datagram length and slices are set for each session. Its parity is the least
    /// that the controller goes down to.
    pub sender: SenderConfig,
    /// What decides on the bitrate.
    pub controller: ControllerKind,
    /// Who may stream.
    pub allowed: Vec<WavryId>,
    /// Handshakes that may be under way at one time.
    pub max_handshakes: usize,
    /// Handshakes begun within a second from which on initiators must first show by a cookie that
    /// they receive at their address.
    pub handshakes_per_s: u32,
    /// Extensions that the host offers.
    pub features: Features,
    /// Timing and limits of sessions.
    pub link: LinkConfig,
}

impl HostConfig {
    /// A configuration with the default limits.
    #[must_use]
    pub fn new(identity: Identity, seed: [u8; 32], stream: StreamOffer) -> Self {
        Self {
            identity,
            seed,
            stream,
            sender: SenderConfig { parity: PARITY, ..SenderConfig::default() },
            controller: ControllerKind::default(),
            allowed: Vec::new(),
            max_handshakes: 64,
            handshakes_per_s: 20,
            features: Features::ALL,
            link: LinkConfig::default(),
        }
    }
}

impl core::fmt::Debug for HostConfig {
    /// Without the seed.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("HostConfig")
            .field("identity", &self.identity)
            .field("stream", &self.stream)
            .field("allowed", &self.allowed)
            .finish_non_exhaustive()
    }
}

/// What a host streams.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamOffer {
    /// The encoder's output.
    pub codec: Codec,
    /// Of the picture, in pixels.
    pub resolution: Resolution,
    /// Frames per second.
    pub fps: u32,
    /// At the start of each session.
    pub initial_bitrate: Bitrate,
    /// Never below.
    pub min_bitrate: Bitrate,
    /// Never above.
    pub max_bitrate: Bitrate,
    /// What can be chosen from.
    pub monitors: Vec<Monitor>,
}

/// What decides on bitrate, frame rate and parity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ControllerKind {
    /// DELTA 2; DELTA 1.1 where the client does not report arrivals.
    #[default]
    Delta2,
    /// DELTA 1.1 as published.
    DeltaV1,
    /// The initial bitrate for ever, for measurements.
    Fixed,
    /// Whatever [`HostEndpoint::set_target`](super::HostEndpoint::set_target) was told last.
    External,
}

//! What a client is told at start.

use rift_crypto::{Identity, Pin};

use crate::endpoint::Path;
use crate::message::proto::{Codec, Platform, Resolution};
use crate::receive::ReceiverConfig;
use crate::session::{Features, LinkConfig};

/// What a [`ClientEndpoint`](super::ClientEndpoint) is made from.
pub struct ClientConfig {
    /// The client's long-term keys.
    pub identity: Identity,
    /// 32 bytes from the operating system's randomness: the source of everything that must be
    /// unpredictable. A repeated seed repeats keys, so only simulations may repeat one.
    pub seed: [u8; 32],
    /// Where the host is.
    pub host: Path,
    /// Who it must be. With its static key known, the shorter handshake is tried first.
    pub expect: Option<ExpectedHost>,
    /// What to be called; at most 100 bytes are sent.
    pub name: String,
    /// What for.
    pub purpose: Purpose,
    /// What can be decoded.
    pub codecs: Vec<Codec>,
    /// The largest picture that is of use.
    pub max_resolution: Resolution,
    /// The highest frame rate that is of use.
    pub max_fps: u32,
    /// What the client runs on.
    pub platform: Platform,
    /// The video receiver's limits; slices are set for each session.
    pub receiver: ReceiverConfig,
    /// Extensions that the client offers.
    pub features: Features,
    /// Timing and limits of the session.
    pub link: LinkConfig,
}

impl ClientConfig {
    /// A configuration for streaming with default limits.
    #[must_use]
    pub fn new(identity: Identity, seed: [u8; 32], host: Path) -> Self {
        Self {
            identity,
            seed,
            host,
            expect: None,
            name: String::new(),
            purpose: Purpose::Stream,
            codecs: vec![Codec::H264],
            max_resolution: Resolution { width: 3840, height: 2160 },
            max_fps: 60,
            platform: Platform::Linux,
            receiver: ReceiverConfig::default(),
            features: Features::ALL,
            link: LinkConfig::default(),
        }
    }
}

impl core::fmt::Debug for ClientConfig {
    /// Without the seed.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ClientConfig")
            .field("identity", &self.identity)
            .field("host", &self.host)
            .field("expect", &self.expect)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}

/// The host that a client wants to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedHost {
    /// Its identity; any other ends the attempt.
    pub id: rift_crypto::WavryId,
    /// Its X25519 static key, where a pairing left it.
    pub static_public: Option<[u8; 32]>,
}

/// What a connection is for.
#[derive(Debug)]
pub enum Purpose {
    /// To show the host's display.
    Stream,
    /// To be put on the host's allow-list.
    Pair(Pin),
    /// To measure the round trip; no stream is asked for.
    Ping,
}

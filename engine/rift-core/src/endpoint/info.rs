//! How a session is doing.

use rift_crypto::WavryId;

use super::Path;
use crate::session::link::Link;
use crate::session::{Features, LinkCounters};

/// A look at a running session.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionInfo {
    /// Who is at the other end.
    pub peer: WavryId,
    /// Where that is now.
    pub path: Path,
    /// The extensions in use.
    pub features: Features,
    /// Smoothed round-trip time in microseconds.
    pub rtt_us: u64,
    /// Its mean deviation in microseconds.
    pub rtt_variance_us: u64,
    /// The last sample in microseconds; `None` before the first.
    pub rtt_latest_us: Option<u64>,
    /// The peer's clock less the own one, in microseconds.
    pub clock_offset_us: Option<i64>,
    /// How often the keys were renewed: for sending, for receiving.
    pub key_generations: (u32, u32),
    /// Totals.
    pub link: LinkCounters,
}

impl SessionInfo {
    pub(super) fn of(link: &Link, peer: WavryId, features: Features) -> Self {
        Self {
            peer,
            path: link.path(),
            features,
            rtt_us: link.rtt().smoothed_us(),
            rtt_variance_us: link.rtt().variance_us(),
            rtt_latest_us: link.rtt().latest_us(),
            clock_offset_us: link.clock_offset_us(),
            key_generations: link.generations(),
            link: *link.counters(),
        }
    }
}

//! What became of every packet of video that left: arrived when, marked, or lost.
//!
//! Owns the host's memory of what it sent, the reading of the client's arrival reports, the one-way delay
//! with the drift of the clocks removed, and, on the client's side, when a report is due. Never decides
//! what follows from it: the controller and the choice of parity consume the same stream of
//! [`PacketOutcome`]s. Invariant: each packet has at most one outcome, whatever is reported how often.
//!
//! ```text
//! client  arrivals ──> ReportSchedule ──> ArrivalFeedback
//! host    SentHistory::on_sent        ArrivalFeedback ──> SentHistory::on_report ──┬─> controller
//!                                                                                 └─> loss statistics
//! ```

mod delay;
mod runs;
mod schedule;
mod sent;

pub use delay::DelayBase;
pub use runs::LossRuns;
pub use schedule::ReportSchedule;
pub use sent::{InFlight, ReportSummary, SentHistory};

use crate::{FrameId, PacketId, Timestamp};

/// IPv4 and UDP headers of a datagram, in bytes: they take room on the path too.
pub const DATAGRAM_OVERHEAD: u64 = 28;

/// What a packet of video carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PacketKind {
    /// A chunk, for the first time.
    #[default]
    Data,
    /// Parity.
    Parity,
    /// A chunk, again.
    Retransmission,
}

/// A packet that left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SentPacket {
    /// Its id.
    pub id: PacketId,
    /// The frame that it belongs to.
    pub frame: FrameId,
    /// How many packets of the frame left before it, retransmissions not counted; saturating.
    pub position: u16,
    /// What it carried.
    pub kind: PacketKind,
    /// On the path, IP and UDP headers included, in bytes.
    pub bytes: u16,
    /// When it left, host clock.
    pub sent_at: Timestamp,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrived.
    Arrived {
        /// When, in microseconds of the client's clock.
        arrived_us: u64,
        /// Client's clock at arrival less host's clock at departure, in microseconds: the one-way delay
        /// and the unknown offset of the clocks. [`DelayBase`] removes the latter.
        delay_us: i64,
        /// It was marked "congestion experienced" on its way (RFC 3168).
        marked: bool,
    },
    /// It is missing for longer than reordering on this path explains.
    Lost,
}

/// A packet and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketOutcome {
    /// The packet.
    pub packet: SentPacket,
    /// Its fate.
    pub fate: Fate,
}

impl PacketOutcome {
    /// Whether it was lost.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.fate == Fate::Lost
    }
}

//! What a sender counts.

/// Totals since the sender was made. Every drop is in here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderCounters {
    /// Frames submitted, refused ones included.
    pub frames: u64,
    /// Slices taken in.
    pub slices: u64,
    /// Packets with chunks that left for the first time.
    pub data_packets: u64,
    /// Packets with parity.
    pub parity_packets: u64,
    /// Of those: parity that reaches back over frames before its own.
    pub parity_sliding: u64,
    /// Packets with chunks that left again.
    pub retransmitted_packets: u64,
    /// Bytes of all bodies.
    pub body_bytes: u64,
    /// Frames given up before they had left whole because they waited too long, did not fit or were not
    /// finished by the encoder.
    pub frames_dropped_stale: u64,
    /// Frames given up before they had left whole because a newer one does not need them.
    pub frames_dropped_unneeded: u64,
    /// Frames refused because they predict from one that was given up.
    pub frames_refused: u64,
    /// Packet ids that the peer reported as lost.
    pub nacked: u64,
    /// Of those: not a video packet, or too long ago.
    pub nacks_unknown: u64,
    /// Of those: the frame was acknowledged, given up or replaced by newer ones.
    pub nacks_stale: u64,
    /// Of those: the retransmission is still under way.
    pub nacks_duplicate: u64,
    /// Of those: the retransmission would come too late.
    pub nacks_late: u64,
    /// Of those: over the share of the traffic that retransmissions may take.
    pub nacks_over_budget: u64,
    /// Of those: too many were waiting already.
    pub nacks_no_room: u64,
    /// Groups that left without parity because their packet ids were not consecutive.
    pub parity_abandoned: u64,
}

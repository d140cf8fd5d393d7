//! Why the controller did what it did.

use crate::{Bitrate, Timestamp};

/// What the path looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PathState {
    /// No queue of others or of unknown origin: the rate goes to its share of the capacity.
    #[default]
    Stable,
    /// A queue grows: the rate stays.
    Rising,
    /// The queue is too long: the rate goes below the capacity until it has drained.
    Congested,
}

/// Why the rate or the encoder's work was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Reason {
    /// Where every session begins.
    #[default]
    Start,
    /// Far below its share of the measured capacity: multiplied.
    Ramp,
    /// Near its share: a little is added.
    Approach,
    /// The measured capacity fell: down to its share.
    Capacity,
    /// The queue is longer than the path's noise explains.
    Queue,
    /// The frame under way arrives far more slowly than it was sent.
    SlowFrame,
    /// More is lost than a healthy path loses.
    Loss,
    /// The network marked packets (L4S, or RFC 3168).
    Marked,
    /// The stream does not use what it has, so nothing is known about more.
    AppLimited,
    /// Packets are overdue: frames are left out.
    Overdue,
    /// One frame is sent to see whether the path carries again.
    Probe,
    /// Packets arrive again.
    Resumed,
    /// A flow that fills the queue is on the path: the queue is shared instead of avoided.
    Compete,
    /// That flow is gone.
    Alone,
    /// An oversized frame left a backlog: the next ones are smaller.
    Drain,
    /// The program said so.
    External,
}

/// One decision.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct DecisionTrace {
    /// When.
    pub at: Timestamp,
    /// What the path looks like.
    pub state: PathState,
    /// Why.
    pub reason: Reason,
    /// Everything that may leave: video, headers, parity and retransmissions.
    pub rate: Bitrate,
    /// What the encoder is told.
    pub video: Bitrate,
    /// The measured capacity; zero where nothing was measured yet.
    pub capacity: Bitrate,
    /// How long the first packet of the last frame waited, in microseconds.
    pub queue_us: u32,
    /// How much of that is the path's noise, in microseconds.
    pub noise_us: u32,
    /// Least round-trip time, in microseconds.
    pub rtt_us: u32,
    /// Packets lost, in millionths.
    pub loss_ppm: u32,
    /// Parity packets per data packet.
    pub parity: f32,
    /// Frames per second.
    pub fps: u32,
    /// The encoder is held back.
    pub held: bool,
}

/// Decisions of one moment that wait to be fetched, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Due {
    decisions: [Option<DecisionTrace>; 4],
}

impl Due {
    /// There never are more at one moment: a hold, a rival, a rate. Whoever does not fetch loses the newest.
    pub(super) fn push(&mut self, decision: DecisionTrace) {
        if let Some(free) = self.decisions.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(decision);
        }
    }

    pub(super) fn pop(&mut self) -> Option<DecisionTrace> {
        self.decisions.rotate_left(1);
        self.decisions.last_mut()?.take()
    }
}

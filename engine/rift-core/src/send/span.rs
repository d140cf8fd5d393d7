//! The Reed-Solomon group that packets are being added to.

use super::frame_store::ChunkRef;
use crate::fec::{Group, RUNS_MAX, Runs, SHARDS_MAX};
use crate::{FrameId, PacketId};

/// Making parity takes a pass over the group for every few parities: a group that would need more than this
/// many is closed early, so that a packet's share of the work does not grow with the size of the frame.
const PARITIES_TARGET: u64 = 6;

/// A group of one frame that is still open, and its bodies.
///
/// A frame of a few packets per slice would need a parity packet for each slice: a third more packets. So the
/// group stays open from slice to slice, over whatever else is sealed in between, and parity follows the
/// frame's last packet. No data packet waits for it.
#[derive(Debug)]
pub(super) struct Span {
    group: Group,
    runs: Runs,
    /// The chunk that came first, and its frame.
    first: Option<(FrameId, ChunkRef)>,
    /// Parities of the group that was closed last.
    made: usize,
}

impl Span {
    pub(super) fn new(parities_max: usize, body_len_max: usize) -> Self {
        let group = Group::new(parities_max, body_len_max);
        Self { group, runs: Runs::EMPTY, first: None, made: 0 }
    }

    /// The frame of the open group and its first chunk.
    pub(super) fn open(&self) -> Option<(FrameId, ChunkRef)> {
        self.first
    }

    /// Whether `count` more packets of `frame` can join the open group, where each million of packets gets
    /// `parity_ppm` parities.
    pub(super) fn has_room(&self, frame: FrameId, count: usize, parity_ppm: u32) -> bool {
        let Some((open, _)) = self.first else { return true };
        let joined = usize::from(self.runs.shards()) + count;
        let parities = joined as u64 * u64::from(parity_ppm) / 1_000_000;
        open == frame && joined <= SHARDS_MAX && self.runs.has_run_left() && parities <= PARITIES_TARGET
    }

    /// Where the body of the packet that is [pushed](Self::push) next is to be written. A group that is full is given up
    /// for it. `None` for a body that is longer than any may be.
    #[inline]
    pub(super) fn next_place(&mut self, body_len: usize) -> Option<&mut [u8]> {
        if usize::from(self.runs.shards()) == SHARDS_MAX {
            self.clear();
        }
        self.group.next_place(body_len)
    }

    /// Adds the packet whose body of `body_len` bytes stands at [`next_place`](Self::next_place). `false` if it does not fit
    /// the group, which begins anew with this packet then.
    #[inline]
    pub(super) fn push(&mut self, id: PacketId, frame: FrameId, chunk: ChunkRef, body_len: usize) -> bool {
        let fits = self.runs.push(id.0);
        if fits {
            self.group.push(body_len);
        } else {
            self.runs = Runs::EMPTY;
            self.runs.push(id.0);
            self.first = None;
            self.group.restart(body_len);
        }
        self.first.get_or_insert((frame, chunk));
        fits
    }

    /// Packets in the open group.
    pub(super) fn len(&self) -> usize {
        self.runs.shards().into()
    }

    /// Closes the group and makes its parities. Returns which packets it has and how many parities there
    /// are.
    pub(super) fn close(&mut self, parities: usize) -> (Runs, usize) {
        self.made = self.group.finish(parities);
        self.first = None;
        (core::mem::replace(&mut self.runs, Runs::EMPTY), self.made)
    }

    /// Gives the open group up.
    pub(super) fn clear(&mut self) {
        self.group.clear();
        self.first = None;
        self.runs = Runs::EMPTY;
    }

    /// Parity `parity` of the group that was closed last.
    pub(super) fn parity(&self, parity: usize) -> &[u8] {
        self.group.parity(parity)
    }
}

/// Room in a parity packet for the numbers of its group's runs.
pub(super) type RunNumbers = [u8; 2 * RUNS_MAX];

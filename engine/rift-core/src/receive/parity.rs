//! Recovering lost packets from parity.
//!
//! Owns the parity packets that cannot be used yet: by exclusive or, those with more than one packet of
//! their stripe missing; by Reed-Solomon, those of groups that lack more packets than parity has come. A stripe's known messages are put together from the bytes kept by the packet window and the
//! payloads in the frame table, so no payload is kept twice. Invariant: a message counts as recovered
//! only if its padding comes out as zero and it is well-formed.

use super::frame::{FrameTable, PAYLOAD_MAX};
use super::window::PacketWindow;
use crate::DropReason;
use rift_fec::Solver;

use crate::fec::{self, Code, LENGTH_LEN, Piece, Runs, SHARDS_MAX};
use crate::message::FecPacket;

/// The longest parity: a full body.
const PARITY_MAX: usize = PAYLOAD_MAX;

/// One parity packet's stripe: the packets of its group that the parity covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stripe {
    pub(super) code: Code,
    runs: Runs,
    index: u8,
    stride: u8,
    /// The frame that the group belongs to.
    pub(super) frame: u64,
    lengths: [u16; SHARDS_MAX],
}

/// What a stripe can do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Every packet of the stripe is there.
    Spare,
    /// This packet's message is in the scratch buffer.
    Solved {
        /// The packet.
        id: u64,
        /// Bytes of its message.
        len: usize,
    },
    /// More than one packet is missing.
    Waiting,
    /// A packet's message was not kept, or it does not add up.
    Useless,
    /// Every lost packet of the group is in the solver; as many as this.
    SolvedGroup(usize),
}

impl Stripe {
    /// Takes the description of a stripe from a parity packet.
    ///
    /// # Errors
    /// [`DropReason::Unexpected`] where it does not tell how packets are interleaved,
    /// [`DropReason::Malformed`] where it contradicts itself.
    pub(super) fn of(fec: &FecPacket<'_>) -> Result<Self, DropReason> {
        if fec.parity_count == 0 {
            return Err(DropReason::Unexpected);
        }
        let code = Code::from_wire(fec.code).ok_or(DropReason::Unexpected)?;
        let runs = Runs::decode(fec.first_packet_id.0, fec.shard_count, fec.runs.clone());
        let runs = runs.ok_or(DropReason::Malformed)?;
        let (parities_max, len_min) = match code {
            Code::Xor => (fec.shard_count, 1),
            Code::ReedSolomon => (rift_fec::PARITIES_MAX as u32, LENGTH_LEN + 1),
            // It has no groups.
            Code::Sliding => return Err(DropReason::Unexpected),
        };
        let fits = fec.parity_index < fec.parity_count
            && fec.parity_count <= parities_max
            && (len_min..=PARITY_MAX).contains(&fec.payload.len());
        if !fits {
            return Err(DropReason::Malformed);
        }
        let mut stripe = Self {
            code,
            runs,
            index: fec.parity_index as u8,
            stride: fec.parity_count as u8,
            frame: fec.frame_id.0,
            lengths: [0; SHARDS_MAX],
        };
        if code == Code::ReedSolomon {
            return Ok(stripe);
        }
        for shard in stripe.members() {
            let len = fec.shard_len(u32::from(shard)).ok_or(DropReason::Malformed)?;
            if len == 0 || len as usize > fec.payload.len() {
                return Err(DropReason::Malformed);
            }
            stripe.lengths[usize::from(shard)] = len as u16;
        }
        Ok(stripe)
    }

    fn members(&self) -> impl Iterator<Item = u8> + use<> {
        let (index, stride) = (u32::from(self.index), u32::from(self.stride));
        let code = self.code;
        (0..self.runs.shards()).filter(move |&shard| code.covers(index, stride, shard.into()))
    }

    /// The ids of the whole group.
    pub(super) fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.runs.shards()).filter_map(|shard| self.runs.id(shard))
    }

    /// The first and last id of the run of the group that `id` is in.
    pub(super) fn run_of(&self, id: u64) -> Option<(u64, u64)> {
        self.runs.run_of(id)
    }

    /// Both are parity of one group.
    pub(super) fn is_of_group(&self, other: &Self) -> bool {
        self.code == other.code && self.runs == other.runs && self.frame == other.frame
    }

    /// Parity packets for each data packet of the group, as a fraction.
    pub(super) fn overhead(&self) -> (u32, u32) {
        (self.stride.into(), self.runs.shards().into())
    }

    fn id(&self, shard: u8) -> u64 {
        self.runs.id(shard).unwrap_or(u64::MAX)
    }

    /// Solves all that the group lacks, if as many parities are here: `fresh`, this stripe's own, and those
    /// that wait. The lost packets are in `solver` then, in the order of [`lost_ids`](Self::lost_ids).
    pub(super) fn solve_group(
        &self,
        fresh: Option<&[u8]>,
        waiting: &ParityStore,
        window: &PacketWindow,
        frames: &FrameTable,
        solver: &mut Solver,
        scratch: &mut [u8],
    ) -> Outcome {
        let mut lost = [0; SHARDS_MAX];
        let mut count = 0;
        for shard in self.members().filter(|&s| self.is_lost(s, window)) {
            lost[count] = shard;
            count += 1;
        }
        if count == 0 {
            return Outcome::Spare;
        }
        let others = waiting.of_group(self).filter(|(index, _)| fresh.is_none() || *index != self.index);
        let parities = fresh.map(|bytes| (self.index, bytes)).into_iter().chain(others);
        if !solver.begin(&lost[..count], parities) {
            return Outcome::Waiting;
        }
        for shard in self.members().filter(|s| !lost[..count].contains(s)) {
            let Some(len) = shard_of_message(self.id(shard), window, frames, scratch) else {
                return Outcome::Useless;
            };
            solver.subtract(shard, &scratch[..len]);
        }
        solver.solve();
        Outcome::SolvedGroup(count)
    }

    /// The ids of the group that are missing.
    pub(super) fn lost_ids(&self, window: &PacketWindow) -> impl Iterator<Item = u64> {
        self.members().filter(|&s| self.is_lost(s, window)).map(|s| self.id(s))
    }

    fn is_lost(&self, shard: u8, window: &PacketWindow) -> bool {
        window.slot(self.id(shard)).is_none_or(super::window::Slot::is_missing)
    }

    /// Computes the one missing message of the stripe into `scratch`, if exactly one is missing.
    pub(super) fn solve(
        &self,
        parity: &[u8],
        window: &PacketWindow,
        frames: &FrameTable,
        scratch: &mut [u8],
    ) -> Outcome {
        let mut unknown = self.members().filter(|&s| self.is_lost(s, window));
        let Some(lost) = unknown.next() else { return Outcome::Spare };
        if unknown.next().is_some() {
            return Outcome::Waiting;
        }
        let Some(sum) = scratch.get_mut(..parity.len()) else { return Outcome::Useless };
        sum.copy_from_slice(parity);
        for shard in self.members().filter(|&s| s != lost) {
            if !subtract_message(sum, self.id(shard), self.lengths[usize::from(shard)], window, frames) {
                return Outcome::Useless;
            }
        }
        let len = usize::from(self.lengths[usize::from(lost)]);
        if sum[len..].iter().any(|&b| b != 0) {
            return Outcome::Useless;
        }
        Outcome::Solved { id: self.id(lost), len }
    }
}

/// Takes the message of packet `id` out of `sum`. Returns `false` if it is not there to be taken.
fn subtract_message(
    sum: &mut [u8],
    id: u64,
    body_len: u16,
    window: &PacketWindow,
    frames: &FrameTable,
) -> bool {
    let Some(slot) = window.slot(id) else { return false };
    if window.body_len(slot) != usize::from(body_len) {
        return false;
    }
    let Some(payload) = slot.position().and_then(|at| frames.chunk_bytes(at, slot.payload_len())) else {
        return false;
    };
    let (head, tail) = window.wrapper(slot);
    let payload_at = head.len();
    let tail_at = payload_at + payload.len();
    let pieces = [
        Piece { at: 0, bytes: head },
        Piece { at: payload_at, bytes: payload },
        Piece { at: tail_at, bytes: tail },
    ];
    fec::recover(sum, pieces);
    true
}

/// Puts the message of packet `id` with its length before it at the start of `scratch` and returns how long
/// that is. `None` if it is not there to be taken.
fn shard_of_message(
    id: u64,
    window: &PacketWindow,
    frames: &FrameTable,
    scratch: &mut [u8],
) -> Option<usize> {
    let slot = window.slot(id).filter(|slot| window.body_len(slot) > 0)?;
    let payload = frames.chunk_bytes(slot.position()?, slot.payload_len())?;
    let (head, tail) = window.wrapper(slot);
    let length = u16::try_from(window.body_len(slot)).ok()?.to_be_bytes();
    let mut end = 0;
    for part in [&length[..], head, payload, tail] {
        scratch.get_mut(end..end + part.len())?.copy_from_slice(part);
        end += part.len();
    }
    Some(end)
}

/// The parity packets that wait for more of their stripe.
#[derive(Debug)]
pub(super) struct ParityStore {
    stripes: Vec<Option<(Stripe, u16)>>,
    payloads: Vec<u8>,
    waiting: usize,
    next: usize,
}

impl ParityStore {
    pub(super) fn new(capacity: usize) -> Self {
        Self { stripes: vec![None; capacity], payloads: vec![0; capacity * PARITY_MAX], waiting: 0, next: 0 }
    }

    /// No parity waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// How many can wait.
    pub(super) fn capacity(&self) -> usize {
        self.stripes.len()
    }

    /// Keeps a parity packet, in the place of the oldest if there is no room. Returns `false` then.
    pub(super) fn keep(&mut self, stripe: &Stripe, payload: &[u8]) -> bool {
        let at = self.next;
        self.next = (at + 1) % self.stripes.len();
        let had_room = self.stripes[at].is_none();
        self.waiting += usize::from(had_room);
        self.stripes[at] = Some((*stripe, payload.len() as u16));
        self.payloads[at * PARITY_MAX..][..payload.len()].copy_from_slice(payload);
        had_room
    }

    /// The waiting parity at `at`.
    pub(super) fn waiting(&self, at: usize) -> Option<(&Stripe, &[u8])> {
        let (stripe, len) = self.stripes[at].as_ref()?;
        Some((stripe, &self.payloads[at * PARITY_MAX..][..usize::from(*len)]))
    }

    /// How many parities of `frame` wait, and how many its groups have, as far as is known.
    pub(super) fn of_frame(&self, frame: u64) -> (u32, Option<u32>) {
        let all = if self.is_empty() { 0 } else { self.stripes.len() };
        let those = (0..all).filter_map(|at| self.waiting(at)).filter(|(stripe, _)| stripe.frame == frame);
        those.fold((0, None), |(count, most), (stripe, _)| (count + 1, most.max(Some(stripe.stride.into()))))
    }

    /// Index and bytes of the parities of the same group as `stripe`.
    fn of_group<'a>(&'a self, stripe: &'a Stripe) -> impl Iterator<Item = (u8, &'a [u8])> {
        let all = if self.is_empty() { 0 } else { self.stripes.len() };
        (0..all)
            .filter_map(|at| self.waiting(at))
            .filter_map(|(other, bytes)| stripe.is_of_group(other).then_some((other.index, bytes)))
    }

    /// Gives up all parities of the same group as `stripe`.
    pub(super) fn release_group(&mut self, stripe: &Stripe) {
        for at in 0..self.stripes.len() {
            if self.waiting(at).is_some_and(|(other, _)| stripe.is_of_group(other)) {
                self.release(at);
            }
        }
    }

    /// Gives up the parity at `at`.
    pub(super) fn release(&mut self, at: usize) {
        self.waiting -= usize::from(self.stripes[at].take().is_some());
    }
}

//! Recovering lost packets from parity.
//!
//! Owns the parity packets that cannot be used yet: those with more than one packet of their stripe
//! missing. A stripe's known messages are put together from the bytes kept by the packet window and the
//! payloads in the frame table, so no payload is kept twice. Invariant: a message counts as recovered
//! only if its padding comes out as zero and it is well-formed.

use super::frame::{FrameTable, PAYLOAD_MAX};
use super::window::PacketWindow;
use crate::DropReason;
use crate::fec::{self, Code, Piece};
use crate::message::FecPacket;

/// The most data packets in a group.
const SHARDS_MAX: usize = 64;
/// The longest parity: a full body.
const PARITY_MAX: usize = PAYLOAD_MAX;

/// One parity packet's stripe: the packets of its group that the parity covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stripe {
    first_id: u64,
    shards: u8,
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
        let shards = fec.shard_count as usize;
        let fits = (1..=SHARDS_MAX).contains(&shards)
            && fec.parity_index < fec.parity_count
            && fec.parity_count <= fec.shard_count
            && (1..=PARITY_MAX).contains(&fec.payload.len())
            && fec.first_packet_id.0.checked_add(SHARDS_MAX as u64).is_some();
        if !fits {
            return Err(DropReason::Malformed);
        }
        let mut stripe = Self {
            first_id: fec.first_packet_id.0,
            shards: shards as u8,
            index: fec.parity_index as u8,
            stride: fec.parity_count as u8,
            frame: fec.frame_id.0,
            lengths: [0; SHARDS_MAX],
        };
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
        (0..self.shards).filter(move |&shard| Code::Xor.covers(index, stride, shard.into()))
    }

    /// The ids of the whole group.
    pub(super) fn group(&self) -> core::ops::Range<u64> {
        self.first_id..self.first_id + u64::from(self.shards)
    }

    /// Parity packets for each data packet of the group, as a fraction.
    pub(super) fn overhead(&self) -> (u32, u32) {
        (self.stride.into(), self.shards.into())
    }

    fn id(&self, shard: u8) -> u64 {
        self.first_id + u64::from(shard)
    }

    /// Computes the one missing message of the stripe into `scratch`, if exactly one is missing.
    pub(super) fn solve(
        &self,
        parity: &[u8],
        window: &PacketWindow,
        frames: &FrameTable,
        scratch: &mut [u8],
    ) -> Outcome {
        let known = |shard: &u8| window.slot(self.id(*shard)).is_some_and(|s| !s.is_missing());
        let mut unknown = self.members().filter(|s| !known(s));
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
    if slot.body_len() != usize::from(body_len) {
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

    /// Gives up the parity at `at`.
    pub(super) fn release(&mut self, at: usize) {
        self.waiting -= usize::from(self.stripes[at].take().is_some());
    }
}

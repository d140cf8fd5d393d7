//! Recovering lost packets from parity that reaches back over several frames.
//!
//! Owns copies of the last bodies while such parity comes, because frames are handed out and gone before parity of
//! later ones covers them, and the equations in what is missing. Never decides what is asked for or shown. Invariant:
//! without such parity nothing is copied; what was solved is kept as what has arrived.

use rift_fec::SlidingSolver;

use super::frame::{PAYLOAD_MAX, Position};
use crate::DropReason;
use crate::fec::{COVERED_SPAN, Covered, LENGTH_LEN};
use crate::message::{FecPacket, VideoChunk};

/// Bodies that are kept: what a parity can cover, and as much again for resends and what comes late. A power of two.
const PLACES: usize = 256;
/// Lost packets that are looked for at the same time.
const UNKNOWNS: usize = 48;
/// Parities that wait.
const EQUATIONS: usize = 32;
/// After so many packets without such parity bodies are kept no longer.
const IDLE_PACKETS: u64 = 2_048;
/// What is lost so many packets ago is given up.
const MEMORY_PACKETS: u64 = 512;

/// Further back than this parity is not waited for, whatever it says.
const REACH_MAX: u64 = 16;

/// One packet's body.
#[derive(Clone, Copy, Debug)]
struct Place {
    id: u64,
    at: Position,
    /// Chunks behind it in its slice.
    behind: u32,
    /// Of the body behind its length.
    len: u16,
}

const NOWHERE: Position = Position { frame: u64::MAX, slice: 0, chunk: 0 };

/// No packet.
const NOTHING: Place = Place { id: u64::MAX, at: NOWHERE, behind: 0, len: 0 };

/// A lost packet, and where its chunk belongs if that is known.
#[derive(Clone, Copy, Debug)]
struct Lacking {
    id: u64,
    at: Option<Position>,
}

/// What a parity packet told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing that is not known.
    Nothing,
    /// There may be something to [`poll`](Sliding::poll), or it waits for more.
    Something,
    /// It reaches back to where nothing was kept, or lacks too much.
    Unusable,
}

/// The state of the sliding code.
#[derive(Debug)]
pub(super) struct Sliding {
    solver: SlidingSolver,
    places: Box<[Place; PLACES]>,
    /// A body behind its length for each place.
    bytes: Box<[u8]>,
    lacking: Vec<Lacking>,
    /// Bodies are kept from this id on.
    kept_from: Option<u64>,
    /// The id of the last such parity.
    last_parity: u64,
    /// How many frames it reached back.
    reach: u64,
}

const SHARD_MAX: usize = LENGTH_LEN + PAYLOAD_MAX;

impl Sliding {
    pub(super) fn new() -> Self {
        Self {
            solver: SlidingSolver::new(EQUATIONS, UNKNOWNS, SHARD_MAX),
            places: Box::new([NOTHING; PLACES]),
            bytes: vec![0; PLACES * SHARD_MAX].into_boxed_slice(),
            lacking: Vec::with_capacity(UNKNOWNS),
            kept_from: None,
            last_parity: 0,
            reach: 0,
        }
    }

    /// Bytes that it takes.
    pub(super) const MEMORY_BYTES: usize = (PLACES + EQUATIONS + 1) * SHARD_MAX + PLACES * 48;

    /// Such parity comes.
    #[inline]
    pub(super) fn is_active(&self) -> bool {
        self.kept_from.is_some()
    }

    /// Keeps the body of a packet that has arrived or was solved, and takes it out of what is unknown. Returns whether
    /// there may be something to [`poll`](Self::poll).
    pub(super) fn keep(&mut self, id: u64, chunk: &VideoChunk<'_>, body: &[u8]) -> bool {
        if self.kept_from.is_none() || body.len() > PAYLOAD_MAX {
            return false;
        }
        if id > self.last_parity.saturating_add(IDLE_PACKETS) {
            self.stop();
            return false;
        }
        let at =
            Position { frame: chunk.frame_id.0, slice: chunk.slice_index as u16, chunk: chunk.chunk_index };
        let place = id as usize % PLACES;
        let newer = self.places[place].id;
        if newer != u64::MAX && newer >= id {
            return false;
        }
        let behind = chunk.chunk_count.saturating_sub(1).saturating_sub(chunk.chunk_index);
        self.places[place] = Place { id, at, behind, len: (LENGTH_LEN + body.len()) as u16 };
        let shard = &mut self.bytes[place * SHARD_MAX..][..LENGTH_LEN + body.len()];
        let (length, rest) = shard.split_at_mut(LENGTH_LEN);
        length.copy_from_slice(&(body.len() as u16).to_be_bytes());
        rest.copy_from_slice(body);
        // What was sent again has another id, but is the same.
        let mut is_news = false;
        while let Some(index) = self.lacking.iter().position(|l| l.id == id || l.at == Some(at)) {
            let lost = self.lacking.swap_remove(index).id;
            self.solver.learn(lost, shard_in(&self.bytes, &self.places, place));
            is_news = true;
        }
        is_news
    }

    /// Takes a parity packet of which the frame is `frame`, and whose own id is `id`.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] where it contradicts itself.
    pub(super) fn handle(&mut self, id: u64, fec: &FecPacket<'_>) -> Result<(Covered, Told), DropReason> {
        let covered = Covered::decode(fec.first_packet_id.0, fec.shard_count, fec.runs.clone());
        let fits = u64::from(fec.parity_index) < COVERED_SPAN
            && u64::from(fec.parity_count) <= COVERED_SPAN
            && (LENGTH_LEN + 1..=PAYLOAD_MAX).contains(&fec.payload.len());
        let covered = covered.filter(|_| fits).ok_or(DropReason::Malformed)?;
        self.last_parity = self.last_parity.max(id);
        let Some(kept_from) = self.kept_from else {
            self.kept_from = Some(id.saturating_add(1));
            return Ok((covered, Told::Unusable));
        };
        if covered.first() < kept_from || covered.first().saturating_add(PLACES as u64) < id {
            return Ok((covered, Told::Unusable));
        }
        let oldest = covered.ids().find_map(|id| self.place(id));
        let back = oldest.map_or(0, |at| fec.frame_id.0.saturating_sub(self.places[at].at.frame));
        self.reach = back.min(REACH_MAX);
        if covered.ids().all(|id| self.place(id).is_some()) {
            return Ok((covered, Told::Nothing));
        }
        self.solver.forget_before(id.saturating_sub(MEMORY_PACKETS));
        self.forget_solved();
        if !self.solver.begin(fec.parity_index as u8, fec.payload) {
            return Err(DropReason::Malformed);
        }
        for id in covered.ids() {
            let lost_at = if self.place(id).is_some() { None } else { self.position(id, &covered) };
            // It may have been sent again before its parity came.
            let place = self.place(id).or_else(|| self.places.iter().position(|p| Some(p.at) == lost_at));
            if let Some(place) = place {
                self.solver.subtract(id, shard_in(&self.bytes, &self.places, place));
            } else {
                if !self.solver.lack(id) {
                    self.forget_solved();
                    return Ok((covered, Told::Unusable));
                }
                if let Some(lacking) = self.lacking.iter_mut().find(|l| l.id == id) {
                    lacking.at = lacking.at.or(lost_at);
                } else if self.lacking.len() < UNKNOWNS {
                    self.lacking.push(Lacking { id, at: lost_at });
                }
            }
        }
        let is_news = self.solver.finish();
        self.forget_solved();
        Ok((covered, if is_news { Told::Something } else { Told::Nothing }))
    }

    /// A packet that was solved: its shard is put to the start of `out`.
    pub(super) fn poll(&mut self, out: &mut [u8]) -> Option<(u64, usize)> {
        let (id, shard) = self.solver.poll()?;
        let len = shard.len();
        out.get_mut(..len)?.copy_from_slice(shard);
        self.lacking.retain(|l| l.id != id);
        Some((id, len))
    }

    /// Equations in what is missing of `frame`, as far as is known.
    pub(super) fn equations_of(&self, frame: u64) -> u32 {
        if self.lacking.is_empty() {
            return 0;
        }
        let is_of = |id| self.lacking.iter().any(|l| l.id == id && l.at.is_none_or(|at| at.frame == frame));
        self.solver.equations_with(is_of) as u32
    }

    /// How many frames back parity reaches, if such comes.
    pub(super) fn reach(&self) -> Option<u64> {
        self.kept_from.map(|_| self.reach)
    }

    /// What came contradicts itself.
    pub(super) fn clear(&mut self) {
        self.solver.clear();
        self.lacking.clear();
    }

    fn stop(&mut self) {
        self.clear();
        self.kept_from = None;
        self.reach = 0;
        self.places.fill(NOTHING);
    }

    fn forget_solved(&mut self) {
        let solver = &self.solver;
        self.lacking.retain(|l| solver.unknowns().any(|id| id == l.id));
    }

    fn place(&self, id: u64) -> Option<usize> {
        let place = id as usize % PLACES;
        (self.places[place].id == id).then_some(place)
    }

    /// Which chunk the packet `id` held, from the nearest one that is known: consecutive ids are consecutive chunks
    /// within a slice.
    fn position(&self, id: u64, covered: &Covered) -> Option<Position> {
        let mut above = (id + 1..id.saturating_add(COVERED_SPAN)).take_while(|&id| covered.contains(id));
        let above = above.find_map(|id| self.place(id)).map(|place| self.places[place]);
        if let Some(place) = above
            && let Some(chunk) = u64::from(place.at.chunk).checked_sub(place.id - id)
        {
            return Some(Position { chunk: chunk as u32, ..place.at });
        }
        let mut below = (id.saturating_sub(COVERED_SPAN)..id).rev().take_while(|&id| covered.contains(id));
        let below = self.places[below.find_map(|id| self.place(id))?];
        let by = id - below.id;
        (by <= below.behind.into()).then(|| Position { chunk: below.at.chunk + by as u32, ..below.at })
    }
}

fn shard_in<'a>(bytes: &'a [u8], places: &[Place; PLACES], place: usize) -> &'a [u8] {
    &bytes[place * SHARD_MAX..][..places[place].len.into()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{PackedVarints, ShardLengths};
    use crate::{FrameId, GroupId, PacketId};

    fn chunk(id: u64) -> VideoChunk<'static> {
        VideoChunk {
            frame_id: FrameId(id / 10),
            chunk_index: (id % 10) as u32,
            chunk_count: 10,
            ..Default::default()
        }
    }

    fn parity(first: u64, payload: &[u8]) -> FecPacket<'_> {
        FecPacket {
            group_id: GroupId(0),
            first_packet_id: PacketId(first),
            shard_count: 20,
            parity_index: 3,
            payload,
            shard_lengths: ShardLengths::Listed(PackedVarints::empty()),
            parity_count: 1,
            frame_id: FrameId((first + 19) / 10),
            code: 2,
            runs: PackedVarints::empty(),
        }
    }

    fn keep_all(sliding: &mut Sliding, ids: std::ops::Range<u64>) {
        for id in ids {
            sliding.keep(id, &chunk(id), &[1; 50]);
        }
    }

    /// Proves R-FEC-16.
    #[test]
    fn bodies_are_kept_only_while_such_parity_comes() {
        let mut sliding = Sliding::new();
        let kept = |sliding: &Sliding| sliding.places.iter().filter(|p| p.id != u64::MAX).count();
        keep_all(&mut sliding, 0..100);
        assert_eq!((sliding.is_active(), kept(&sliding)), (false, 0));
        assert_eq!(sliding.handle(100, &parity(80, &[0; 52])).map(|(_, told)| told), Ok(Told::Unusable));
        keep_all(&mut sliding, 101..130);
        assert_eq!((sliding.is_active(), kept(&sliding)), (true, 29));
        assert_eq!(sliding.handle(130, &parity(90, &[0; 52])).map(|(_, told)| told), Ok(Told::Unusable));
        assert_eq!(sliding.handle(131, &parity(110, &[0; 52])).map(|(_, told)| told), Ok(Told::Nothing));
        assert_eq!(sliding.reach(), Some(1));
        keep_all(&mut sliding, 132..3_000);
        assert_eq!((sliding.is_active(), kept(&sliding)), (false, 0));
    }

    /// Proves R-FEC-16: more is lost than is looked for.
    #[test]
    fn losses_without_end_take_no_more_room() {
        let mut sliding = Sliding::new();
        let payload = [7; 52];
        assert!(sliding.handle(0, &parity(0, &payload)).is_ok());
        for id in (30..5_000).step_by(7) {
            sliding.keep(id, &chunk(id), &[2; 50]);
            let fec = FecPacket { parity_index: id as u32 % 128, ..parity(id - 20, &payload) };
            let told = sliding.handle(id, &fec).map(|(_, told)| told);
            assert!(told.is_ok());
            assert!(sliding.lacking.len() <= UNKNOWNS && sliding.lacking.capacity() == UNKNOWNS);
            assert!(sliding.solver.unknowns().count() <= UNKNOWNS);
        }
    }
}

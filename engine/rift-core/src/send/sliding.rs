//! Parity over the last packets, whatever frame they are of.
//!
//! Owns copies of the bodies that parity may still cover. Where a frame has few packets, or a resend comes late, parity
//! of its own for each frame is dear: it must be enough for the worst frame. Parity that also covers the frames before
//! need only be enough on the average over them, and what one frame lacks the next one brings. Never decides how much.
//! Invariant: a parity covers packets of consecutive ids only as far back as it may, none of them twice.

use rift_fec::{Aligned, SlidingEncoder};

use crate::fec::{COVERED_SPAN, Covered, LENGTH_LEN, SHARDS_MAX};
use crate::{FrameId, PacketId};

/// Places for bodies: one for each column of the code.
const PLACES: usize = COVERED_SPAN as usize;
/// Parity does not wait for more packets than this: those of a large frame are covered before all of it has left.
const FRESH_MAX: usize = SHARDS_MAX;

/// The packets that parity may cover.
#[derive(Debug)]
pub(super) struct Sliding {
    encoder: SlidingEncoder,
    /// A body behind its length in each place, `stride` apart: that of the id which is the place modulo [`PLACES`].
    shards: Aligned,
    stride: usize,
    places: [Place; PLACES],
    shard_len_max: usize,
    newest: Option<u64>,
    /// Packets since parity was made last.
    fresh: usize,
    /// The row of the next parity.
    next_row: u8,
    /// The row of the first parity that was made last.
    made_row: u8,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    id: u64,
    frame: FrameId,
    len: u16,
}

impl Place {
    const EMPTY: Self = Self { id: u64::MAX, frame: FrameId(0), len: 0 };
}

/// What was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    pub(super) covered: Covered,
    pub(super) parities: usize,
}

impl Sliding {
    /// Room for bodies of up to `body_len_max` bytes; 0 if nothing will be covered. The only allocation.
    pub(super) fn new(parities_max: usize, body_len_max: usize) -> Self {
        let is_used = body_len_max > 0;
        let shard_len_max = LENGTH_LEN + body_len_max.min(u16::MAX.into());
        let stride = Aligned::stride(shard_len_max);
        Self {
            encoder: SlidingEncoder::new(if is_used { parities_max } else { 0 }, shard_len_max),
            shards: Aligned::zeroed(if is_used { PLACES * stride } else { 0 }),
            stride,
            places: [Place::EMPTY; PLACES],
            shard_len_max: if is_used { shard_len_max } else { 0 },
            newest: None,
            fresh: 0,
            next_row: 0,
            made_row: 0,
        }
    }

    /// The newest packet, and its frame.
    pub(super) fn newest(&self) -> Option<(FrameId, PacketId)> {
        let id = self.newest?;
        Some((self.places[id as usize % PLACES].frame, PacketId(id)))
    }

    /// Packets since parity was made last.
    pub(super) fn fresh(&self) -> usize {
        self.fresh
    }

    /// Whether `count` more packets may leave before parity is made.
    pub(super) fn has_room(&self, count: usize) -> bool {
        self.fresh == 0 || self.fresh + count <= FRESH_MAX
    }

    /// Where the body of packet `id`, of `len` bytes, is to be written before it is [pushed](Self::push). `None` for one
    /// that is longer than any may be.
    #[inline]
    pub(super) fn next_place(&mut self, id: PacketId, len: usize) -> Option<&mut [u8]> {
        let end = LENGTH_LEN + len;
        if end > self.shard_len_max {
            return None;
        }
        let place = id.0 as usize % PLACES;
        // What stood there is no more, even if this packet does not leave.
        self.places[place] = Place::EMPTY;
        Some(&mut self.shards.bytes_mut()[place * self.stride..][LENGTH_LEN..end])
    }

    /// Adds the packet that has just left, whose body of `len` bytes stands at [`next_place`](Self::next_place).
    #[inline]
    pub(super) fn push(&mut self, id: PacketId, frame: FrameId, len: usize) {
        let place = id.0 as usize % PLACES;
        let length = &mut self.shards.bytes_mut()[place * self.stride..][..LENGTH_LEN];
        length.copy_from_slice(&(len as u16).to_be_bytes());
        self.places[place] = Place { id: id.0, frame, len: (LENGTH_LEN + len) as u16 };
        self.newest = Some(id.0);
        self.fresh += 1;
    }

    /// Makes up to `parities` parities over the packets of the newest frame and of the `before` ids before it, as far
    /// as their numbers fit `numbers_max` bytes.
    pub(super) fn make(&mut self, parities: usize, before: u64, numbers_max: usize) -> Option<Made> {
        self.fresh = 0;
        let newest = self.newest.filter(|_| parities > 0)?;
        let frame = self.places[newest as usize % PLACES].frame;
        let oldest = FrameId(frame.0.saturating_sub(before));
        let mut covered = Covered::EMPTY;
        let mut len = 0;
        for id in (newest.saturating_sub(COVERED_SPAN - 1)..=newest).rev() {
            let place = self.places[id as usize % PLACES];
            if place.id == id && place.frame >= oldest && covered.push_below(id) {
                len = len.max(place.len);
            }
        }
        let mut numbers = [0; PLACES];
        while covered.encode(&mut numbers[..numbers_max.min(PLACES)]).is_none() {
            if !covered.drop_first_run() {
                return None;
            }
        }
        let parities = self.encoder.begin(self.next_row, parities, len.into());
        if parities == 0 {
            return None;
        }
        for id in covered.ids() {
            let place = id as usize % PLACES;
            let shard = &self.shards.bytes()[place * self.stride..][..self.places[place].len.into()];
            self.encoder.add(place as u8, shard);
        }
        self.made_row = self.next_row;
        self.next_row = row_after(self.next_row, parities);
        Some(Made { covered, parities })
    }

    /// The row of parity `parity` of those that were made last.
    pub(super) fn row(&self, parity: usize) -> u8 {
        row_after(self.made_row, parity)
    }

    /// The bytes of parity `parity` of those that were made last.
    pub(super) fn parity(&self, parity: usize) -> &[u8] {
        self.encoder.parity(parity)
    }

    /// Forgets the packets.
    pub(super) fn clear(&mut self) {
        if self.newest.take().is_some() {
            self.places = [Place::EMPTY; PLACES];
        }
        self.fresh = 0;
    }
}

fn row_after(row: u8, parities: usize) -> u8 {
    ((usize::from(row) + parities) % rift_fec::SLIDING_SPAN) as u8
}

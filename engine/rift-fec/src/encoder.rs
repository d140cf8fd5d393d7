//! Parity from shards.

use crate::aligned::Aligned;
use crate::multiply::{self, Pieces, Rows};
use crate::{PARITIES_MAX, SHARDS_MAX, coefficient};

/// Where products are looked up, more shards than this are not multiplied all at once: one after the other takes
/// less time, although every parity is read and written for each.
const LOOKED_UP_AT_ONCE_MAX: usize = 16;

/// Makes the parity of one group at a time, in buffers made once.
///
/// Either all at once, where the shards lie ready: [`encode`](Self::encode). Or shard by shard, where each
/// is at hand only for a moment: [`begin`](Self::begin), then [`add`](Self::add).
#[derive(Debug)]
pub struct Encoder {
    pieces: Pieces,
    /// For [`add`](Self::add): for each shard, the pieces of all parities.
    by_shard: Box<[u8]>,
    /// For [`encode`](Self::encode): for each parity, the pieces of the shards in `encoded`.
    by_parity: Box<[u8]>,
    /// What `by_parity` is for: which shards, one bit each, and how many parities.
    encoded: (u64, usize),
    /// `parities_max` buffers of `len_max` bytes, `stride` apart.
    sums: Aligned,
    len_max: usize,
    stride: usize,
    parities_max: usize,
    parities: usize,
    len: usize,
}

impl Encoder {
    /// Room for up to `parities_max` parities, at most [`PARITIES_MAX`], of up to `len_max` bytes.
    #[must_use]
    pub fn new(parities_max: usize, len_max: usize) -> Self {
        let parities_max = parities_max.min(PARITIES_MAX);
        let pieces = Pieces::new();
        let stride = Aligned::stride(len_max);
        let mut by_shard = Vec::with_capacity(SHARDS_MAX * parities_max * pieces.piece_len());
        for shard in 0..SHARDS_MAX as u8 {
            for parity in 0..parities_max as u8 {
                by_shard.extend_from_slice(pieces.of(coefficient(parity, shard)));
            }
        }
        Self {
            by_parity: vec![0; by_shard.len()].into_boxed_slice(),
            by_shard: by_shard.into_boxed_slice(),
            pieces,
            encoded: (0, 0),
            sums: Aligned::zeroed(parities_max * stride),
            len_max,
            stride,
            parities_max,
            parities: 0,
            len: 0,
        }
    }

    /// Starts a group with `parities` parities of `len` bytes to which no shard was added. Both are cut to
    /// what there is room for; returns how many parities there will be.
    pub fn begin(&mut self, parities: usize, len: usize) -> usize {
        self.resize(parities, len);
        for parity in 0..self.parities {
            self.sums.bytes_mut()[parity * self.stride..][..self.len].fill(0);
        }
        self.parities
    }

    /// Adds shard `shard`, once, in any order. What is longer than the group's parity is cut; a shard index
    /// of [`SHARDS_MAX`] or more is ignored.
    #[inline]
    pub fn add(&mut self, shard: usize, bytes: &[u8]) {
        if shard >= SHARDS_MAX {
            return;
        }
        let bytes = &bytes[..bytes.len().min(self.len)];
        let tables = &self.by_shard[shard * self.parities_max * self.pieces.piece_len()..];
        let rows = Rows { bytes: self.sums.bytes_mut(), stride: self.stride, count: self.parities };
        multiply::add(&self.pieces, tables, bytes, rows);
    }

    /// Makes up to `parities` parities of `shards` and returns how many. They are as long as the longest
    /// shard. Shards beyond [`SHARDS_MAX`] and bytes beyond the length given to [`new`](Self::new) are
    /// ignored.
    pub fn encode(&mut self, shards: &[&[u8]], parities: usize) -> usize {
        let shards = &shards[..shards.len().min(SHARDS_MAX)];
        let longest = shards.iter().map(|s| s.len()).max().unwrap_or(0);
        self.resize(parities, longest);
        if shards.len() > LOOKED_UP_AT_ONCE_MAX && self.pieces.are_lookups() {
            self.encode_stepwise(shards);
        } else {
            self.encode_at_once(shards);
        }
        self.parities
    }

    fn encode_stepwise(&mut self, shards: &[&[u8]]) {
        // The first sets the parities, which saves clearing them.
        let first = shards.iter().position(|shard| shard.len() >= self.len).unwrap_or(0);
        let tables = &self.by_shard[first * self.parities_max * self.pieces.piece_len()..];
        let rows = Rows { bytes: self.sums.bytes_mut(), stride: self.stride, count: self.parities };
        multiply::combine(self.len, &self.pieces, tables, [shards[first]].into_iter(), rows);
        for (at, shard) in shards.iter().enumerate().filter(|(at, _)| *at != first) {
            self.add(at, shard);
        }
    }

    fn encode_at_once(&mut self, shards: &[&[u8]]) {
        // The full ones together; the few that are shorter are added, as if padded with zeros.
        let is_full = |shard: &&[u8]| shard.len() >= self.len;
        let full = (0..).zip(shards).filter(|(_, s)| is_full(s)).fold(0u64, |full, (at, _)| full | 1 << at);
        if self.encoded != (full, self.parities) {
            self.encoded = (full, self.parities);
            let piece_len = self.pieces.piece_len();
            let mut to = self.by_parity.chunks_exact_mut(piece_len);
            for parity in 0..self.parities as u8 {
                let columns = (0..shards.len() as u8).filter(|shard| full >> shard & 1 != 0);
                for (shard, to) in columns.zip(&mut to) {
                    to.copy_from_slice(self.pieces.of(coefficient(parity, shard)));
                }
            }
        }
        let sources = shards.iter().copied().filter(is_full);
        let rows = Rows { bytes: self.sums.bytes_mut(), stride: self.stride, count: self.parities };
        multiply::combine(self.len, &self.pieces, &self.by_parity, sources, rows);
        for (at, shard) in shards.iter().enumerate() {
            if shard.len() < self.len {
                self.add(at, shard);
            }
        }
    }

    /// The bytes of parity `parity`; empty if the group has no such parity.
    #[must_use]
    #[inline]
    pub fn parity(&self, parity: usize) -> &[u8] {
        if parity >= self.parities {
            return &[];
        }
        &self.sums.bytes()[parity * self.stride..][..self.len]
    }

    /// Room for parities.
    #[must_use]
    pub fn parities_max(&self) -> usize {
        self.parities_max
    }

    fn resize(&mut self, parities: usize, len: usize) {
        self.parities = parities.min(self.parities_max);
        self.len = len.min(self.len_max);
    }
}

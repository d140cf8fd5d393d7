//! Parity over a window of shards.

use super::sliding_coefficient;
use crate::aligned::Aligned;
use crate::multiply::{self, Pieces, Rows};

/// Makes the parities of one window at a time, in buffers made once: [`begin`](Self::begin), then
/// [`add`](Self::add) each shard.
#[derive(Debug)]
pub struct SlidingEncoder {
    pieces: Pieces,
    /// For one shard: the pieces of all parities.
    tables: Box<[u8]>,
    /// `parities_max` buffers of `len_max` bytes, `stride` apart.
    sums: Aligned,
    stride: usize,
    len_max: usize,
    parities_max: usize,
    parities: usize,
    first_row: u8,
    len: usize,
}

impl SlidingEncoder {
    /// Room for up to `parities_max` parities at a time, at most 64, of up to `len_max` bytes.
    #[must_use]
    pub fn new(parities_max: usize, len_max: usize) -> Self {
        let parities_max = parities_max.min(crate::PARITIES_MAX);
        let pieces = Pieces::new();
        let stride = Aligned::stride(len_max);
        Self {
            tables: vec![0; parities_max * pieces.piece_len()].into_boxed_slice(),
            pieces,
            sums: Aligned::zeroed(parities_max * stride),
            stride,
            len_max,
            parities_max,
            parities: 0,
            first_row: 0,
            len: 0,
        }
    }

    /// Starts `parities` parities of `len` bytes in the rows from `first_row` on. Both are cut to what there is room
    /// for; returns how many parities there will be.
    pub fn begin(&mut self, first_row: u8, parities: usize, len: usize) -> usize {
        self.first_row = first_row;
        self.parities = parities.min(self.parities_max);
        self.len = len.min(self.len_max);
        for parity in 0..self.parities {
            self.sums.bytes_mut()[parity * self.stride..][..self.len].fill(0);
        }
        self.parities
    }

    /// Adds the shard in `column`, once, in any order. What is longer than the parities is cut.
    #[inline]
    pub fn add(&mut self, column: u8, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(self.len)];
        let to = self.tables.chunks_exact_mut(self.pieces.piece_len()).take(self.parities);
        for (parity, to) in (0..).zip(to) {
            to.copy_from_slice(
                self.pieces.of(sliding_coefficient(self.first_row.wrapping_add(parity), column)),
            );
        }
        let rows = Rows { bytes: self.sums.bytes_mut(), stride: self.stride, count: self.parities };
        multiply::add(&self.pieces, &self.tables, bytes, rows);
    }

    /// The bytes of parity `parity`; empty if there is no such parity.
    #[must_use]
    #[inline]
    pub fn parity(&self, parity: usize) -> &[u8] {
        if parity >= self.parities {
            return &[];
        }
        &self.sums.bytes()[parity * self.stride..][..self.len]
    }
}

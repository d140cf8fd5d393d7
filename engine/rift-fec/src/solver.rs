//! Lost shards from parity.

use crate::multiply::{self, Pieces, Rows};
use crate::{PARITIES_MAX, SHARDS_MAX, coefficient, field};

/// Gives back what was lost of one group at a time, in buffers made once.
///
/// [`begin`](Self::begin) with as many parities as shards were lost; [`subtract`](Self::subtract) each
/// shard that is there; [`solve`](Self::solve). The work is one multiplication of a shard for each pair of
/// a shard and a lost one.
#[derive(Debug)]
pub struct Solver {
    pieces: Pieces,
    tables: Box<[u8]>,
    /// The parities without the shards that are there: `lost_max` buffers of `len_max` bytes.
    rests: Box<[u8]>,
    /// The shards that were lost: as many.
    solved: Box<[u8]>,
    lost_max: usize,
    len_max: usize,
    len: usize,
    lost: usize,
    /// The first `lost` of each.
    parity_indices: [u8; PARITIES_MAX],
    lost_indices: [u8; PARITIES_MAX],
}

impl Solver {
    /// Room for up to `lost_max` lost shards, at most 64, of up to `len_max` bytes.
    #[must_use]
    pub fn new(lost_max: usize, len_max: usize) -> Self {
        let lost_max = lost_max.min(PARITIES_MAX);
        let pieces = Pieces::new();
        Self {
            tables: vec![0; lost_max * lost_max * pieces.piece_len()].into_boxed_slice(),
            pieces,
            rests: vec![0; lost_max * len_max].into_boxed_slice(),
            solved: vec![0; lost_max * len_max].into_boxed_slice(),
            lost_max,
            len_max,
            len: 0,
            lost: 0,
            parity_indices: [0; PARITIES_MAX],
            lost_indices: [0; PARITIES_MAX],
        }
    }

    /// The most shards that can be given back.
    #[must_use]
    pub fn lost_max(&self) -> usize {
        self.lost_max
    }

    /// Starts on a group of which the shards `lost` are lost, with as many of `parities`, each an index and
    /// its bytes. Returns `false`, and then nothing can be solved, if there are fewer, if the parities that
    /// are used differ in length, or if an index is out of range, comes twice, or there is no room.
    pub fn begin<'a>(&mut self, lost: &[u8], parities: impl IntoIterator<Item = (u8, &'a [u8])>) -> bool {
        self.lost = 0;
        if lost.len() > self.lost_max || !are_distinct(lost, SHARDS_MAX) {
            return false;
        }
        let mut used = 0;
        self.len = 0;
        for (index, bytes) in parities.into_iter().take(lost.len()) {
            if bytes.len() > self.len_max || (used > 0 && bytes.len() != self.len) {
                return false;
            }
            self.len = bytes.len();
            self.rests[used * self.len_max..][..self.len].copy_from_slice(bytes);
            self.parity_indices[used] = index;
            used += 1;
        }
        if used < lost.len() || !are_distinct(&self.parity_indices[..used], PARITIES_MAX) {
            return false;
        }
        self.lost_indices[..used].copy_from_slice(lost);
        self.lost = used;
        true
    }

    /// Takes shard `shard`, which is not lost, out of the parities, once. What is longer than the parities
    /// is cut, and a shard index out of range ignored.
    #[inline]
    pub fn subtract(&mut self, shard: u8, bytes: &[u8]) {
        if usize::from(shard) >= SHARDS_MAX {
            return;
        }
        let piece_len = self.pieces.piece_len();
        for (row, to) in self.tables.chunks_exact_mut(piece_len).enumerate().take(self.lost) {
            to.copy_from_slice(self.pieces.of(coefficient(self.parity_indices[row], shard)));
        }
        let bytes = &bytes[..bytes.len().min(self.len)];
        let rows = Rows { bytes: &mut self.rests, stride: self.len_max, count: self.lost };
        multiply::add(&self.pieces, &self.tables, bytes, rows);
    }

    /// Computes the lost shards from what is left of the parities.
    pub fn solve(&mut self) {
        let piece_len = self.pieces.piece_len();
        let mut to = self.tables.chunks_exact_mut(piece_len);
        let (parities, lost) = (&self.parity_indices[..self.lost], &self.lost_indices[..self.lost]);
        for row in 0..self.lost {
            for (column, to) in (0..self.lost).zip(&mut to) {
                to.copy_from_slice(self.pieces.of(inverse_entry(parities, lost, row, column)));
            }
        }
        let rests = self.rests.chunks_exact(self.len_max.max(1)).take(self.lost);
        let rows = Rows { bytes: &mut self.solved, stride: self.len_max, count: self.lost };
        multiply::combine(self.len, &self.pieces, &self.tables, rests, rows);
    }

    /// The shard that was named at position `at` of the lost ones, padded with zeros to the length of the
    /// parity. Empty if there was none.
    #[must_use]
    pub fn shard(&self, at: usize) -> &[u8] {
        if at >= self.lost {
            return &[];
        }
        &self.solved[at * self.len_max..][..self.len]
    }
}

/// Whether all of `indices` are below `bound`, at most 64, and none comes twice.
fn are_distinct(indices: &[u8], bound: usize) -> bool {
    let mut seen = 0u64;
    indices.iter().all(|&index| {
        let is_new = usize::from(index) < bound && seen >> index & 1 == 0;
        if is_new {
            seen |= 1 << index;
        }
        is_new
    })
}

/// Entry (`row`, `column`) of the inverse of the Cauchy matrix with the rows `parities` and the columns
/// `lost`: what the rest of parity number `column` is multiplied with in lost shard number `row`.
///
/// With x for the rows and y for the columns, where the matrix is 1 / (x + y), it is
/// prod_k (x_c + y_k) (x_k + y_r) / ((x_c + y_r) prod_{k != c} (x_c + x_k) prod_{k != r} (y_r + y_k))
/// (Knuth, The Art of Computer Programming, volume 1, section 1.2.3, exercise 41).
fn inverse_entry(parities: &[u8], lost: &[u8], row: usize, column: usize) -> u8 {
    let x = |k: usize| SHARDS_MAX as u8 + parities[k];
    let (x_c, y_r) = (x(column), lost[row]);
    let (mut above, mut below) = (1, x_c ^ y_r);
    for (k, &y_k) in lost.iter().enumerate() {
        above = field::product(above, field::product(x_c ^ y_k, x(k) ^ y_r));
        if k != column {
            below = field::product(below, x_c ^ x(k));
        }
        if k != row {
            below = field::product(below, y_r ^ y_k);
        }
    }
    field::product(above, field::inverse(below))
}

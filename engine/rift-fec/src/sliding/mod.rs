//! A sliding code: parity over a window of shards that moves on, so that the parities of one moment also help
//! against what was lost before.
//!
//! **The code.** Shards have columns, parities have rows, both counted on for ever and used modulo 128. The parity in
//! row `r` over some shards is the sum of `c(r, j) * d[j]` with `c(r, j) = 1 / ((128 + r) xor j)`. Where all lost
//! shards are covered by all parities that came, that is a Cauchy matrix, and any `e` of them give back any `e`
//! shards; where windows only overlap some coefficients are zero, and nearly every square part that could have an
//! inverse has one. So solving is elimination, with one equation for each parity.

mod encoder;
mod solver;

pub use encoder::SlidingEncoder;
pub use solver::SlidingSolver;

use crate::field;

/// Columns, and rows. No two shards of a window may have the same column.
pub const SLIDING_SPAN: usize = 128;

/// What the shard in `column` is multiplied with in the parity in `row`, each modulo 128; see the [code](self).
#[must_use]
#[inline]
pub const fn sliding_coefficient(row: u8, column: u8) -> u8 {
    const SPAN: u8 = SLIDING_SPAN as u8;
    field::inverse((SPAN + row % SPAN) ^ (column % SPAN))
}

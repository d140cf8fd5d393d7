//! Systematic Reed-Solomon over GF(2^8) for small groups of packets, by the processor's own instruction for that field
//! where it has one, else by Intel's ISA-L.
//!
//! Owns the arithmetic: the code, parity from shards, lost shards from parity. Never knows packets,
//! frames or time. Invariant: any `e` parities give back any `e` lost shards of a group, byte for byte.
//!
//! **The code.** Parity `p` of shards `d[0], d[1], ...` is the sum of `c(p, j) * d[j]` with
//! `c(p, j) = 1 / ((64 + p) xor j)`: the Cauchy matrix that ISA-L's `gf_gen_cauchy1_matrix` makes for
//! [`SHARDS_MAX`] shards. A group of fewer shards is one whose other shards are zero, and a shard
//! shorter than the longest counts as padded with zeros. So the parity of a group depends neither on how
//! many shards it will have nor on how many parities are made: a group may be added to until it leaves.
//! Every square part of a Cauchy matrix has an inverse (Bloemer et al., "An XOR-based erasure-resilient
//! coding scheme", 1995), which is the invariant, and it has a closed form, so that solving costs what was
//! lost: no matrix of the size of the group is ever inverted.
//!
//! Beside it is a code whose window slides over the packets of several frames: [`sliding`].
//!
//! Nothing allocates after construction.

mod aligned;
mod encoder;
pub mod field;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod gfni;
#[allow(unsafe_code)]
mod isal;
#[allow(unsafe_code)]
mod multiply;
#[cfg(feature = "reference")]
#[allow(unsafe_code)]
pub mod reference;
pub mod sliding;
mod solver;

pub use aligned::Aligned;
pub use encoder::Encoder;
pub use sliding::{SLIDING_SPAN, SlidingEncoder, SlidingSolver, sliding_coefficient};
pub use solver::Solver;

/// The most shards in a group.
pub const SHARDS_MAX: usize = 64;
/// The most parities of a group.
pub const PARITIES_MAX: usize = 64;

/// What shard `shard` is multiplied with in parity `parity`; see the [code](crate). Both must be below
/// their bounds, beyond them the matrix is no Cauchy matrix.
#[must_use]
#[inline]
pub const fn coefficient(parity: u8, shard: u8) -> u8 {
    debug_assert!((parity as usize) < PARITIES_MAX && (shard as usize) < SHARDS_MAX);
    field::inverse((SHARDS_MAX as u8 + parity) ^ shard)
}

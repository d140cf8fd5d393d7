//! Forward error correction over the plaintext bodies of a group of packets (RIFT section 5).
//!
//! Owns the arithmetic: which parity covers which shard, building parity, getting a lost shard back.
//! Never knows packets, frames or time. Invariant: parity computed from a set of shards gives back,
//! byte for byte, what the code promises to give back, whatever the shards hold and in whatever order
//! they were added.
//!
//! A shard shorter than the group's longest counts as padded with zeros, so its true length must travel
//! beside the parity.

mod covered;
mod group;
mod parity;
mod runs;
mod xor;

pub use covered::{COVERED_SPAN, Covered};
pub use group::{Group, LENGTH_LEN, body_of};
pub use parity::Parity;
pub use runs::{RUNS_MAX, Runs};
pub use xor::{Piece, recover, xor_into};

/// The most data packets in a group.
pub const SHARDS_MAX: usize = 64;

/// How parity is computed. A group's parity says which shards it covers through this, on both sides, so
/// that a stronger code joins here and nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Interleaved exclusive or, as published: parity `p` of `n` is the exclusive or of the shards
    /// whose index is `p` modulo `n`. Gives back one lost shard for each parity that arrived.
    Xor,
    /// Systematic Reed-Solomon of [`rift_fec`] over bodies that each have their length before them: every
    /// parity covers every shard, and each that arrived gives back one lost shard.
    ReedSolomon,
    /// The sliding code of [`rift_fec`] over such bodies: a parity covers a window of packets that reaches back over
    /// several frames, and each that arrived tells about what is lost of any of them.
    Sliding,
}

impl Code {
    /// Whether parity `parity_index` of `parity_count` depends on shard `shard_index`.
    #[must_use]
    #[inline]
    pub const fn covers(self, parity_index: u32, parity_count: u32, shard_index: u32) -> bool {
        match self {
            Self::Xor => parity_count > 0 && shard_index % parity_count == parity_index,
            Self::ReedSolomon | Self::Sliding => parity_index < parity_count,
        }
    }

    /// From its number on the wire, if there is such a code.
    #[must_use]
    pub const fn from_wire(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Xor),
            1 => Some(Self::ReedSolomon),
            2 => Some(Self::Sliding),
            _ => None,
        }
    }

    /// Its number on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u32 {
        match self {
            Self::Xor => 0,
            Self::ReedSolomon => 1,
            Self::Sliding => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_is_covered_by_exactly_one_xor_parity() {
        for parity_count in 1..=12 {
            for shard in 0..64 {
                let covering: Vec<u32> =
                    (0..parity_count).filter(|&p| Code::Xor.covers(p, parity_count, shard)).collect();
                assert_eq!(covering.len(), 1);
            }
        }
    }

    #[test]
    fn without_parity_nothing_is_covered() {
        assert!(!Code::Xor.covers(0, 0, 0));
        assert!(!Code::ReedSolomon.covers(0, 0, 0));
    }
}

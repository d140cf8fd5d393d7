//! The exclusive-or parity of one group under construction.

use super::xor_into;

/// Accumulates the parity of one group at a time, in buffers made once.
///
/// Each shard is added right after it was written, while it is still in the nearest cache: there is no
/// second pass over the group.
#[derive(Debug)]
pub struct Parity {
    /// `parity_max` buffers of `shard_len_max` bytes, one after the other.
    sums: Box<[u8]>,
    shard_len_max: usize,
    parity_count: usize,
    len: usize,
    /// Which sums have a shard in them, one bit each; the others hold what an earlier group left.
    begun: u64,
}

/// As many as there are bits in [`Parity::begun`].
const PARITY_MAX: usize = 64;

impl Parity {
    /// Room for groups of up to `parity_max` parities over shards of up to `shard_len_max` bytes. This
    /// is the only allocation. At most 64 parities, the largest group there is.
    #[must_use]
    pub fn new(parity_max: usize, shard_len_max: usize) -> Self {
        let sums = vec![0; parity_max.min(PARITY_MAX) * shard_len_max].into_boxed_slice();
        Self { sums, shard_len_max, parity_count: 0, len: 0, begun: 0 }
    }

    /// Starts a group with `parity_count` parities over shards of up to `len` bytes and forgets the
    /// last one. Both are cut to what [`new`](Self::new) made room for; returns the parities there will
    /// be.
    pub fn begin(&mut self, parity_count: usize, len: usize) -> usize {
        self.len = len.min(self.shard_len_max);
        self.parity_count = parity_count.min(self.sums.len().checked_div(self.shard_len_max).unwrap_or(0));
        self.begun = 0;
        self.parity_count
    }

    /// Adds shard `shard_index`, once. Bytes beyond the length given to [`begin`](Self::begin) are
    /// ignored.
    #[inline]
    pub fn accumulate(&mut self, shard_index: usize, shard: &[u8]) {
        let Some(index) = shard_index.checked_rem(self.parity_count) else { return };
        let start = index * self.shard_len_max;
        let sum = &mut self.sums[start..start + self.len];
        if self.begun & 1 << index != 0 {
            xor_into(sum, shard);
        } else {
            self.begun |= 1 << index;
            let (head, rest) = sum.split_at_mut(shard.len().min(self.len));
            head.copy_from_slice(&shard[..head.len()]);
            rest.fill(0);
        }
    }

    /// The bytes of parity `parity_index`; empty if the group has no such parity, or none of the shards it
    /// covers was added.
    #[must_use]
    #[inline]
    pub fn payload(&self, parity_index: usize) -> &[u8] {
        if parity_index >= self.parity_count || self.begun & 1 << parity_index == 0 {
            return &[];
        }
        let start = parity_index * self.shard_len_max;
        &self.sums[start..start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Piece, recover};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_single_loss_per_parity_is_recovered(
            shards in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..48),
            parity_count in 1usize..10,
            lost_seed: u64,
        ) {
            let parity_count = parity_count.min(shards.len());
            let longest = shards.iter().map(Vec::len).max().unwrap_or(0);
            let mut parity = Parity::new(10, 300);
            // What an earlier, longer group left behind must not show.
            parity.begin(10, 300);
            (0..10).for_each(|i| parity.accumulate(i, &[0xaa; 300]));
            prop_assert_eq!(parity.begin(parity_count, longest), parity_count);
            for (i, shard) in shards.iter().enumerate() {
                parity.accumulate(i, shard);
            }
            for p in 0..parity_count {
                let class: Vec<usize> = (p..shards.len()).step_by(parity_count).collect();
                let lost = class[lost_seed as usize % class.len()];
                let mut sum = parity.payload(p).to_vec();
                prop_assert_eq!(sum.len(), longest);
                let present = class.iter().filter(|&&i| i != lost).flat_map(|&i| {
                    let (head, tail) = shards[i].split_at(shards[i].len() / 3);
                    [Piece { at: 0, bytes: head }, Piece { at: head.len(), bytes: tail }]
                });
                recover(&mut sum, present);
                prop_assert_eq!(&sum[..shards[lost].len()], &shards[lost][..]);
                prop_assert!(sum[shards[lost].len()..].iter().all(|&b| b == 0));
            }
        }
    }

    #[test]
    fn more_than_there_is_room_for_is_cut() {
        let mut parity = Parity::new(2, 4);
        assert_eq!(parity.begin(9, 9), 2);
        parity.accumulate(0, &[1; 9]);
        assert_eq!(parity.payload(0), [1; 4]);
        assert_eq!(parity.payload(1), [0u8; 0]);
        parity.accumulate(1, &[2; 3]);
        assert_eq!(parity.payload(1), [2, 2, 2, 0]);
        assert_eq!(parity.payload(2), [0u8; 0]);
        let mut none = Parity::new(0, 0);
        assert_eq!(none.begin(3, 3), 0);
        none.accumulate(0, &[1]);
        assert!(none.payload(0).is_empty());
    }
}

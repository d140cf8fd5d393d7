//! The Reed-Solomon parity of one group under construction.

use rift_fec::{Aligned, Encoder};

use super::SHARDS_MAX;

/// Bytes before each body in its shard: its length, big-endian.
pub const LENGTH_LEN: usize = 2;

/// Keeps the bodies of a group until it is known how many parities it gets, then makes them.
///
/// A shard is the length of a body and the body, so that a parity packet need not list lengths. Bodies are written
/// where they are kept, and sealed from there.
#[derive(Debug)]
pub struct Group {
    encoder: Encoder,
    /// [`SHARDS_MAX`] places of `shard_len_max` bytes, `stride` apart.
    shards: Aligned,
    stride: usize,
    lengths: [u16; SHARDS_MAX],
    shard_len_max: usize,
    count: usize,
}

impl Group {
    /// Room for bodies of up to `body_len_max` bytes. The only allocation.
    #[must_use]
    pub fn new(parities_max: usize, body_len_max: usize) -> Self {
        let shard_len_max = LENGTH_LEN + body_len_max.min(u16::MAX.into());
        Self {
            encoder: Encoder::new(parities_max, shard_len_max),
            shards: Aligned::zeroed(SHARDS_MAX * Aligned::stride(shard_len_max)),
            stride: Aligned::stride(shard_len_max),
            lengths: [0; SHARDS_MAX],
            shard_len_max,
            count: 0,
        }
    }

    /// Forgets the bodies.
    pub fn clear(&mut self) {
        self.count = 0;
    }

    /// The place of the next body, of `len` bytes: it is not of the group before [`push`](Self::push). `None` if there is
    /// no room.
    #[inline]
    pub fn next_place(&mut self, len: usize) -> Option<&mut [u8]> {
        let shard_len = LENGTH_LEN + len;
        if self.count == SHARDS_MAX || shard_len > self.shard_len_max {
            return None;
        }
        Some(&mut self.shards.bytes_mut()[self.count * self.stride..][LENGTH_LEN..shard_len])
    }

    /// Adds the body of `len` bytes that was written to [`next_place`](Self::next_place). `false` if there is no room.
    #[inline]
    pub fn push(&mut self, len: usize) -> bool {
        let shard_len = LENGTH_LEN + len;
        if self.count == SHARDS_MAX || shard_len > self.shard_len_max {
            return false;
        }
        let length = &mut self.shards.bytes_mut()[self.count * self.stride..][..LENGTH_LEN];
        length.copy_from_slice(&(len as u16).to_be_bytes());
        self.lengths[self.count] = shard_len as u16;
        self.count += 1;
        true
    }

    /// Forgets all bodies but the one, of `len` bytes, that was written to [`next_place`](Self::next_place), which becomes
    /// the first.
    pub fn restart(&mut self, len: usize) {
        let from = self.count * self.stride;
        self.count = 0;
        if self.push(len) && from < SHARDS_MAX * self.stride {
            let body = from + LENGTH_LEN;
            self.shards.bytes_mut().copy_within(body..body + len, LENGTH_LEN);
        }
    }

    /// Makes up to `parities` parities of what was added, forgets the bodies, and returns how many parities
    /// there are.
    pub fn finish(&mut self, parities: usize) -> usize {
        let mut shards: [&[u8]; SHARDS_MAX] = [&[]; SHARDS_MAX];
        let places = self.shards.bytes().chunks_exact(self.stride).zip(&self.lengths);
        for (shard, (bytes, &len)) in shards.iter_mut().zip(places).take(self.count) {
            *shard = &bytes[..len.into()];
        }
        let made = self.encoder.encode(&shards[..self.count], parities);
        self.count = 0;
        made
    }

    /// The bytes of parity `parity`; empty if there is no such parity.
    #[must_use]
    #[inline]
    pub fn parity(&self, parity: usize) -> &[u8] {
        self.encoder.parity(parity)
    }
}

/// The body in a shard that was solved. `None` if the shard contradicts itself: a wrong length, or padding
/// that is not zero.
#[must_use]
pub fn body_of(shard: &[u8]) -> Option<&[u8]> {
    let (length, rest) = shard.split_first_chunk::<LENGTH_LEN>()?;
    let (body, padding) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    (!body.is_empty() && padding.iter().all(|&b| b == 0)).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rift_fec::Solver;

    #[test]
    fn bodies_of_any_length_come_back_with_their_length() {
        let bodies: Vec<Vec<u8>> = (0..20u8).map(|i| vec![i + 1; 50 + usize::from(i) * 7 % 60]).collect();
        let mut group = Group::new(3, 120);
        for _ in 0..2 {
            for body in &bodies {
                group.next_place(body.len()).unwrap().copy_from_slice(body);
                assert!(group.push(body.len()));
            }
            assert_eq!(group.finish(3), 3);
            let mut solver = Solver::new(3, 122);
            assert!(solver.begin(&[4, 19, 0], (0..3).map(|p| (p, group.parity(p.into())))));
            for (i, body) in (0u8..).zip(&bodies).filter(|(i, _)| ![4, 19, 0].contains(i)) {
                let shard = [&(body.len() as u16).to_be_bytes()[..], body].concat();
                solver.subtract(i, &shard);
            }
            solver.solve();
            for (at, i) in [4, 19, 0].into_iter().enumerate() {
                assert_eq!(body_of(solver.shard(at)), Some(&bodies[i][..]));
            }
        }
        assert!(group.next_place(121).is_none() && !group.push(121));
    }

    #[test]
    fn a_group_begins_anew_with_the_body_written_last() {
        let mut group = Group::new(1, 10);
        for body in [[1; 4], [2; 4], [3; 4]] {
            group.next_place(4).unwrap().copy_from_slice(&body);
            group.push(4);
        }
        group.next_place(5).unwrap().copy_from_slice(&[9; 5]);
        group.restart(5);
        assert_eq!(group.finish(1), 1);
        let mut solver = Solver::new(1, 12);
        assert!(solver.begin(&[0], [(0, group.parity(0))].into_iter()));
        solver.solve();
        assert_eq!(body_of(solver.shard(0)), Some(&[9; 5][..]));
    }

    #[test]
    fn shards_that_contradict_themselves_give_nothing() {
        assert_eq!(body_of(&[0, 2, 7, 8, 0]), Some(&[7, 8][..]));
        for bad in [&[][..], &[0], &[0, 0], &[0, 3, 1, 2], &[0, 1, 7, 1]] {
            assert_eq!(body_of(bad), None, "{bad:?}");
        }
    }
}

//! Which packet ids belong to a group.

use super::SHARDS_MAX;

/// The most runs of consecutive ids in a group: room in every parity packet is kept for them, and a frame of
/// four slices has at most as many.
pub const RUNS_MAX: usize = 4;
/// Fewer ids than this are skipped between two runs, so that each number is one byte on the wire.
const SKIP_MAX: u64 = 128;

/// The packet ids of a group: at most four runs of consecutive ids, in ascending order.
///
/// On the wire: packets of the first run, ids skipped, packets of the second, and so on; what is left of the
/// group's packets is the last run, so that a group with one run needs no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runs {
    first: u64,
    /// Where each run begins, in ids from the first.
    starts: [u16; RUNS_MAX],
    /// Packets in each run.
    counts: [u8; RUNS_MAX],
    used: u8,
    shards: u8,
}

impl Runs {
    /// A group without packets.
    pub const EMPTY: Self =
        Self { first: 0, starts: [0; RUNS_MAX], counts: [0; RUNS_MAX], used: 0, shards: 0 };

    /// Adds a packet, with a higher id than those before. `false` if it cannot belong to this group.
    #[inline]
    pub fn push(&mut self, id: u64) -> bool {
        if self.shards == 0 {
            *self = Self { first: id, counts: [1, 0, 0, 0], used: 1, shards: 1, ..Self::EMPTY };
            return true;
        }
        if usize::from(self.shards) == SHARDS_MAX || id < self.end() {
            return false;
        }
        let last = usize::from(self.used) - 1;
        let skipped = id - self.end();
        if skipped == 0 {
            self.counts[last] += 1;
        } else if skipped < SKIP_MAX && self.has_run_left() {
            self.starts[last + 1] = (id - self.first) as u16;
            self.counts[last + 1] = 1;
            self.used += 1;
        } else {
            return false;
        }
        self.shards += 1;
        true
    }

    /// `shards` consecutive ids from `first` on; at most [`SHARDS_MAX`].
    #[must_use]
    pub fn consecutive(first: u64, shards: usize) -> Self {
        let shards = shards.min(SHARDS_MAX) as u8;
        Self { first, counts: [shards, 0, 0, 0], used: 1, shards, ..Self::EMPTY }
    }

    /// From the wire: `shards` packets from id `first` on, in `runs`. `None` if they contradict each other.
    #[must_use]
    pub fn decode(first: u64, shards: u32, runs: impl Iterator<Item = u64>) -> Option<Self> {
        let mut left = u8::try_from(shards).ok().filter(|&s| (1..=SHARDS_MAX as u8).contains(&s))?;
        // No id of the group can then reach the last one.
        first.checked_add(SHARDS_MAX as u64 + RUNS_MAX as u64 * SKIP_MAX)?;
        let mut decoded = Self { first, shards: left, ..Self::EMPTY };
        let mut runs = runs.fuse();
        let mut start = 0;
        loop {
            let at = usize::from(decoded.used);
            let count = match runs.next() {
                Some(count) => u8::try_from(count).ok().filter(|&c| c > 0 && c < left)?,
                None => left,
            };
            *decoded.starts.get_mut(at)? = start;
            decoded.counts[at] = count;
            decoded.used += 1;
            left -= count;
            if left == 0 {
                return Some(decoded);
            }
            let skipped = runs.next().filter(|s| (1..SKIP_MAX).contains(s))?;
            start += u16::from(count) + skipped as u16;
        }
    }

    /// Writes the numbers for the wire to the start of `out`, one byte each, and returns how many.
    #[must_use]
    pub fn encode(&self, out: &mut [u8; 2 * RUNS_MAX]) -> usize {
        let last = usize::from(self.used).saturating_sub(1);
        for run in 0..last {
            let end = self.starts[run] + u16::from(self.counts[run]);
            out[2 * run] = self.counts[run];
            out[2 * run + 1] = (self.starts[run + 1] - end) as u8;
        }
        2 * last
    }

    /// The id of packet `shard` of the group.
    #[must_use]
    #[inline]
    pub fn id(&self, shard: u8) -> Option<u64> {
        let mut before = 0;
        for run in 0..usize::from(self.used) {
            if shard - before < self.counts[run] {
                return Some(self.first + u64::from(self.starts[run]) + u64::from(shard - before));
            }
            before += self.counts[run];
        }
        None
    }

    /// The first and last id of the run that `id` is in.
    #[must_use]
    pub fn run_of(&self, id: u64) -> Option<(u64, u64)> {
        (0..usize::from(self.used)).find_map(|run| {
            let first = self.first + u64::from(self.starts[run]);
            let last = first + u64::from(self.counts[run]) - 1;
            (first..=last).contains(&id).then_some((first, last))
        })
    }

    /// The first id.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Packets in the group.
    #[must_use]
    pub fn shards(&self) -> u8 {
        self.shards
    }

    /// There may be another run.
    #[must_use]
    pub fn has_run_left(&self) -> bool {
        usize::from(self.used) < RUNS_MAX
    }

    /// One more than the last id.
    fn end(&self) -> u64 {
        let last = usize::from(self.used) - 1;
        self.first + u64::from(self.starts[last]) + u64::from(self.counts[last])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_pushed_reads_back(first in 0u64..1 << 50, steps in prop::collection::vec(0u64..140, 0..70)) {
            let mut runs = Runs::EMPTY;
            let mut ids = Vec::new();
            let mut id = first;
            for skip in steps {
                // Mostly none.
                id += if skip < 120 { 0 } else { skip - 119 };
                if runs.push(id) {
                    ids.push(id);
                }
                id += 1;
            }
            let mut wire = [0; 2 * RUNS_MAX];
            let len = runs.encode(&mut wire);
            prop_assert!(len <= 2 * (RUNS_MAX - 1));
            prop_assert_eq!(usize::from(runs.shards()), ids.len());
            for (shard, &id) in (0..).zip(&ids) {
                prop_assert_eq!(runs.id(shard), Some(id));
                let (from, to) = runs.run_of(id).unwrap();
                prop_assert!((from..=to).all(|id| ids.contains(&id)));
            }
            if !ids.is_empty() {
                let back = Runs::decode(ids[0], ids.len() as u32, wire[..len].iter().map(|&n| n.into()));
                prop_assert_eq!(back, Some(runs));
            }
        }

        #[test]
        fn no_numbers_make_ids_that_overflow(first: u64, shards: u32, runs in prop::collection::vec(0u64..200, 0..10)) {
            if let Some(decoded) = Runs::decode(first, shards, runs.into_iter()) {
                prop_assert_eq!(u32::from(decoded.shards()), shards);
                let ids: Vec<u64> = (0..decoded.shards()).map(|s| decoded.id(s).unwrap()).collect();
                prop_assert!(ids.windows(2).all(|w| w[0] < w[1]));
            }
        }
    }

    #[test]
    fn what_does_not_belong_is_refused() {
        let mut runs = Runs::EMPTY;
        for id in [5, 6, 8, 10, 12] {
            assert!(runs.push(id));
        }
        assert!(!runs.push(14), "a fifth run");
        assert!(!runs.push(12), "again");
        assert!(runs.push(13));
        let mut runs = Runs::EMPTY;
        assert!(runs.push(5));
        assert!(!runs.push(5 + 129), "too far away");
        for bad in [&[0u64, 1][..], &[5, 1], &[2], &[2, 0], &[2, 128], &[1, 1, 1, 1, 1, 1, 1, 1]] {
            assert_eq!(Runs::decode(9, 5, bad.iter().copied()), None, "{bad:?}");
        }
        assert_eq!(Runs::decode(9, 65, [].into_iter()), None);
        assert_eq!(Runs::decode(u64::MAX - 10, 5, [].into_iter()), None);
    }
}

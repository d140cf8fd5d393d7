//! Which packet ids a sliding parity covers.

/// The ids that one parity covers lie within so many: no two of them have the same column.
pub const COVERED_SPAN: u64 = rift_fec::SLIDING_SPAN as u64;

/// A set of packet ids that are near each other.
///
/// On the wire as that of a group: packets of the first run of consecutive ids, ids skipped, packets of the second,
/// and so on; what is left of the set is the last run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    first: u64,
    /// One bit for each id from `first` on; the lowest is set, unless the set is empty.
    mask: u128,
}

impl Covered {
    /// No id.
    pub const EMPTY: Self = Self { first: 0, mask: 0 };

    /// Adds an id below all that are in the set. `false` if it is too far from the highest.
    pub fn push_below(&mut self, id: u64) -> bool {
        if self.mask == 0 {
            *self = Self { first: id, mask: 1 };
            return true;
        }
        let Some(by) = self.first.checked_sub(id).filter(|&by| by > 0) else { return false };
        if by > u64::from(self.mask.leading_zeros()) {
            return false;
        }
        *self = Self { first: id, mask: self.mask << by | 1 };
        true
    }

    /// From the wire: `count` packets from id `first` on, in `runs`. `None` if they contradict each other.
    #[must_use]
    pub fn decode(first: u64, count: u32, runs: impl Iterator<Item = u64>) -> Option<Self> {
        let mut left = u64::from(count);
        first.checked_add(COVERED_SPAN)?;
        let mut mask = 0;
        let mut at = 0;
        let mut runs = runs.fuse();
        while left > 0 {
            let (run, is_last) = match runs.next() {
                Some(run) => (run, false),
                None => (left, true),
            };
            if run == 0 || run > left || (run == left && !is_last) || at + run > COVERED_SPAN {
                return None;
            }
            mask |= ones(run) << at;
            left -= run;
            if is_last {
                return Some(Self { first, mask });
            }
            at += run + runs.next().filter(|&skipped| (1..COVERED_SPAN).contains(&skipped))?;
            if at >= COVERED_SPAN {
                return None;
            }
        }
        None
    }

    /// Writes the numbers for the wire to the start of `out`, one byte each, and returns how many. `None` if they
    /// are more than there is room for.
    #[must_use]
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let mut rest = self.mask;
        let mut len = 0;
        loop {
            let run = rest.trailing_ones();
            rest = rest.checked_shr(run).unwrap_or(0);
            if rest == 0 {
                return Some(len);
            }
            let skipped = rest.trailing_zeros();
            rest >>= skipped;
            *out.get_mut(len)? = run as u8;
            *out.get_mut(len + 1)? = skipped as u8;
            len += 2;
        }
    }

    /// Leaves out the ids of the first run. `false`, and then nothing is done, if there is no other.
    pub fn drop_first_run(&mut self) -> bool {
        let rest = self.mask.checked_shr(self.mask.trailing_ones()).unwrap_or(0);
        if rest == 0 {
            return false;
        }
        let by = self.mask.trailing_ones() + rest.trailing_zeros();
        *self = Self { first: self.first + u64::from(by), mask: self.mask >> by };
        true
    }

    /// The lowest id.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// How many ids there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.mask.count_ones()
    }

    /// Whether `id` is one of them.
    #[must_use]
    pub fn contains(&self, id: u64) -> bool {
        id.checked_sub(self.first).is_some_and(|at| at < COVERED_SPAN && self.mask >> at & 1 != 0)
    }

    /// The ids, in ascending order.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = u64> + use<> {
        let Self { first, mask } = *self;
        (0..COVERED_SPAN).filter(move |at| mask >> at & 1 != 0).map(move |at| first + at)
    }
}

/// So many bits, from the lowest on.
fn ones(count: u64) -> u128 {
    if count >= COVERED_SPAN { u128::MAX } else { (1 << count) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_pushed_reads_back(newest in 1u64 << 8..1 << 50, steps in prop::collection::vec(0u64..140, 1..140)) {
            let mut covered = Covered::EMPTY;
            let mut ids = Vec::new();
            let mut id = newest;
            for skip in steps {
                id = id.saturating_sub(if skip < 120 { 0 } else { skip - 119 });
                if covered.push_below(id) {
                    ids.insert(0, id);
                } else {
                    prop_assert!(newest - id >= COVERED_SPAN);
                }
                id = id.saturating_sub(1);
            }
            prop_assert!(covered.ids().eq(ids.iter().copied()));
            prop_assert!(ids.iter().all(|&id| covered.contains(id)));
            prop_assert_eq!(covered.count() as usize, ids.len());
            prop_assert_eq!((0..newest + 200).rev().take(400).filter(|&id| covered.contains(id)).count(), ids.len());
            let mut wire = [0; 128];
            let len = covered.encode(&mut wire).unwrap();
            let back = Covered::decode(ids[0], covered.count(), wire[..len].iter().map(|&n| n.into()));
            prop_assert_eq!(back, Some(covered));
            if len > 0 {
                prop_assert_eq!(covered.encode(&mut wire[..len - 1]), None);
                let mut shorter = covered;
                prop_assert!(shorter.drop_first_run());
                prop_assert!(shorter.ids().eq(ids.iter().copied().skip(wire[0].into())));
            } else {
                prop_assert!(!covered.drop_first_run());
            }
        }

        #[test]
        fn no_numbers_make_ids_that_are_too_far_apart(first: u64, count: u32, runs in prop::collection::vec(0u64..200, 0..10)) {
            if let Some(covered) = Covered::decode(first, count, runs.into_iter()) {
                prop_assert_eq!(covered.count(), count);
                prop_assert!(covered.ids().all(|id| id - first < COVERED_SPAN));
                prop_assert_eq!(covered.ids().next(), Some(first));
            }
        }
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        for bad in
            [&[0u64, 1][..], &[5, 1], &[6, 1], &[2], &[2, 0], &[2, 128], &[2, 124, 1, 1], &[1, u64::MAX]]
        {
            assert_eq!(Covered::decode(9, 5, bad.iter().copied()), None, "{bad:?}");
        }
        assert_eq!(Covered::decode(9, 129, [].into_iter()), None);
        assert_eq!(Covered::decode(9, 0, [].into_iter()), None);
        assert_eq!(Covered::decode(u64::MAX - 100, 5, [].into_iter()), None);
        assert!(Covered::decode(9, 128, [].into_iter()).is_some_and(|covered| covered.count() == 128));
    }
}

//! Which packet ids of one direction were already accepted (RIFT §3.10).
//!
//! Owns a bitmap over the newest ids. Never authenticates: a caller that marks before the tag
//! verified lets anybody push the window past the genuine packets. Invariant: an id that was
//! marked is refused for ever after, either as a duplicate or as too old.

/// Remembers the last [`ReplayWindow::SIZE`] packet ids of one direction.
///
/// The bitmap is a ring of words that the ids index directly, so going forward clears whole words
/// and shifts nothing (the layout of RFC 6479). Both calls are constant time except that `mark`
/// clears up to one word per 64 ids skipped, at most the whole ring.
#[derive(Debug, Clone)]
pub struct ReplayWindow {
    /// The largest id marked, 0 before any was. Id 0 itself is told apart by its bit.
    newest: u64,
    ring: [u64; WORDS],
}

/// At least one word more than the window spans, since the newest id seldom ends a word; and a power of two, so that a
/// word is found without a division.
const WORDS: usize = (ReplayWindow::SIZE as usize / 64 + 1).next_power_of_two();

impl ReplayWindow {
    /// How far below the newest id a packet may be and still be accepted, in packets.
    pub const SIZE: u64 = 2048;

    /// A window that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { newest: 0, ring: [0; WORDS] }
    }

    /// Whether a packet with this id may still be accepted. Asked before decrypting.
    ///
    /// # Errors
    /// [`Replay`].
    #[inline]
    pub fn check(&self, packet_id: u64) -> Result<(), Replay> {
        if packet_id > self.newest {
            return Ok(());
        }
        if self.newest - packet_id >= Self::SIZE {
            return Err(Replay::TooOld);
        }
        let (word, bit) = position(packet_id);
        if self.ring[word] & bit == 0 { Ok(()) } else { Err(Replay::Duplicate) }
    }

    /// Records that the packet with this id was authentic. Called only after its tag verified; an
    /// id that [`check`](Self::check) would call too old is ignored.
    #[inline]
    pub fn mark(&mut self, packet_id: u64) {
        if packet_id > self.newest {
            self.advance(packet_id);
        } else if self.newest - packet_id >= Self::SIZE {
            return;
        }
        let (word, bit) = position(packet_id);
        self.ring[word] |= bit;
    }

    /// Clears the words that `packet_id` brings into the window.
    #[inline]
    fn advance(&mut self, packet_id: u64) {
        let (from, to) = (self.newest / 64, packet_id / 64);
        if to - from >= WORDS as u64 {
            self.ring = [0; WORDS];
        } else {
            for word in from + 1..=to {
                self.ring[(word % WORDS as u64) as usize] = 0;
            }
        }
        self.newest = packet_id;
    }
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a packet id is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Replay {
    /// A packet with this id was accepted before.
    #[error("packet id was accepted before")]
    Duplicate,
    /// So far below the newest id that it cannot be told from a duplicate.
    #[error("packet id is older than the replay window")]
    TooOld,
}

#[inline]
fn position(packet_id: u64) -> (usize, u64) {
    ((packet_id / 64 % WORDS as u64) as usize, 1 << (packet_id % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The window as its definition reads, without any ring.
    #[derive(Default)]
    struct Model {
        marked: BTreeSet<u64>,
    }

    impl Model {
        fn check(&self, id: u64) -> Result<(), Replay> {
            let newest = self.marked.last().copied().unwrap_or(0);
            if id <= newest && newest - id >= ReplayWindow::SIZE {
                Err(Replay::TooOld)
            } else if self.marked.contains(&id) {
                Err(Replay::Duplicate)
            } else {
                Ok(())
            }
        }
    }

    /// Where a sequence starts: small, around 2^32, and as near to the end as ids go.
    fn base() -> impl Strategy<Value = u64> {
        prop_oneof![Just(0), Just((1 << 32) - 1500), Just(u64::MAX - 9000), any::<u64>()]
    }

    /// A step relative to the newest id: mostly near, at times a jump past the whole window.
    fn step() -> impl Strategy<Value = i64> {
        prop_oneof![8 => -80i64..80, 3 => -2200i64..-1900, 2 => 1900i64..2300, 1 => -6000i64..6000]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn window_agrees_with_its_definition(base in base(), steps in proptest::collection::vec(step(), 1..400)) {
            let (mut window, mut model) = (ReplayWindow::new(), Model::default());
            let mut newest = base;
            for step in steps {
                let id = newest.saturating_add_signed(step);
                prop_assert_eq!(window.check(id), model.check(id), "id {}", id);
                if model.check(id).is_ok() {
                    window.mark(id);
                    model.marked.insert(id);
                    newest = newest.max(id);
                    prop_assert_eq!(window.check(id), Err(Replay::Duplicate));
                }
            }
        }
    }

    #[test]
    fn packet_zero_is_accepted_once() {
        let mut window = ReplayWindow::new();
        assert_eq!(window.check(0), Ok(()));
        window.mark(0);
        assert_eq!(window.check(0), Err(Replay::Duplicate));
    }

    #[test]
    fn window_is_exactly_2048_packets_wide() {
        let mut window = ReplayWindow::new();
        window.mark(10_000);
        assert_eq!(window.check(10_000 - 2047), Ok(()));
        assert_eq!(window.check(10_000 - 2048), Err(Replay::TooOld));
    }

    #[test]
    fn ids_cross_2_to_the_32_and_reach_the_last_id() {
        for start in [(1u64 << 32) - 3000, u64::MAX - 6000] {
            let mut window = ReplayWindow::new();
            for id in start..=start + 6000 {
                assert_eq!(window.check(id), Ok(()));
                window.mark(id);
                assert_eq!(window.check(id), Err(Replay::Duplicate));
                assert_eq!(window.check(id - 2048), Err(Replay::TooOld));
            }
        }
        let mut window = ReplayWindow::new();
        window.mark(u64::MAX);
        assert_eq!(window.check(u64::MAX), Err(Replay::Duplicate));
        assert_eq!(window.check(u64::MAX - 1), Ok(()));
        assert_eq!(window.check(0), Err(Replay::TooOld));
    }

    #[test]
    fn marking_a_stale_id_does_not_disturb_the_window() {
        let mut window = ReplayWindow::new();
        window.mark(5000);
        window.mark(5000 - 64 * WORDS as u64); // the same ring position as 5000
        window.mark(1);
        assert_eq!(window.check(5000), Err(Replay::Duplicate));
        assert_eq!(window.check(4999), Ok(()));
    }
}

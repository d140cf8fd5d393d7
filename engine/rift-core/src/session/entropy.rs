//! Unpredictable bytes that follow from a seed alone.

use rift_crypto::{EphemeralSecret, HEADER_LEN, SealKey, Suite};

/// The ChaCha20 key stream under a key that moves on with each draw: as unpredictable as the seed, the
/// same for the same seed so that a simulation can be repeated, and of no help to whoever reads the
/// memory later and wants to know what was drawn before. Nothing here asks the operating system.
#[derive(Debug)]
pub(crate) struct Entropy {
    key: SealKey,
}

impl Entropy {
    /// Takes the seed and leaves zeros in its place.
    pub(crate) fn new(seed: &mut [u8; 32]) -> Self {
        Self { key: SealKey::new(Suite::ChaCha20Poly1305, core::mem::take(seed)) }
    }

    /// The next bytes. Sealing zeros gives the bare key stream; a key is used once.
    pub(crate) fn draw<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let _tag = self.key.seal_in_place(0, &[0; HEADER_LEN], &mut bytes);
        self.key = self.key.next_generation();
        bytes
    }

    pub(crate) fn number(&mut self) -> u64 {
        u64::from_be_bytes(self.draw())
    }

    pub(crate) fn ephemeral(&mut self) -> EphemeralSecret {
        EphemeralSecret::from_bytes(self.draw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ_and_follow_from_the_seed() {
        let mut seed = [7; 32];
        let (mut a, mut b) = (Entropy::new(&mut seed), Entropy::new(&mut [7; 32]));
        assert_eq!(seed, [0; 32], "nothing is left to read");
        let first: [u8; 32] = a.draw();
        assert_eq!(first, b.draw::<32>());
        assert_ne!(first, a.draw::<32>());
        assert_ne!(first, Entropy::new(&mut [8; 32]).draw::<32>());
    }
}

//! Unpredictable bytes that follow from a seed alone.

use rift_crypto::{EphemeralSecret, HEADER_LEN, SealKey, Suite};

/// The ChaCha20 key stream under the seed: as unpredictable as the seed, and the same for the same
/// seed, so that a simulation can be repeated. Nothing here asks the operating system.
#[derive(Debug)]
pub(crate) struct Entropy {
    key: SealKey,
    drawn: u64,
}

impl Entropy {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { key: SealKey::new(Suite::ChaCha20Poly1305, seed), drawn: 0 }
    }

    /// The next bytes. Sealing zeros gives the bare key stream; each draw has its own nonce.
    pub(crate) fn draw<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let _tag = self.key.seal_in_place(self.drawn, &[0; HEADER_LEN], &mut bytes);
        self.drawn += 1;
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
        let (mut a, mut b) = (Entropy::new([7; 32]), Entropy::new([7; 32]));
        let first: [u8; 32] = a.draw();
        assert_eq!(first, b.draw::<32>());
        assert_ne!(first, a.draw::<32>());
        assert_ne!(first, Entropy::new([8; 32]).draw::<32>());
    }
}

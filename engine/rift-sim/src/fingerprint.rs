//! A 64-bit fingerprint of bytes and numbers, the same on every machine.
//!
//! For telling runs and slices apart, not for security: a multiply-and-rotate mix over 8-byte words.

/// An unfinished fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(0x51_7c_c1_b7_27_22_0a_95)
    }

    /// Of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> u64 {
        let mut fingerprint = Self::new();
        fingerprint.add_bytes(bytes);
        fingerprint.value()
    }

    /// Adds a number.
    pub fn add(&mut self, word: u64) {
        // Odd constant: the golden ratio in 64 bits; the step is invertible, so no difference is lost.
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// Adds bytes and their number.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        // Four at a time where there are many: each step waits for the one before.
        let mut blocks = bytes.chunks_exact(32);
        if bytes.len() >= 32 {
            let mut lanes = [Self(self.0 ^ 1), Self(self.0 ^ 2), Self(self.0 ^ 3), Self(self.0 ^ 4)];
            for block in &mut blocks {
                for (lane, eight) in lanes.iter_mut().zip(block.chunks_exact(8)) {
                    lane.add(word(eight));
                }
            }
            lanes.iter().for_each(|lane| self.add(lane.0));
        }
        let mut words = blocks.remainder().chunks_exact(8);
        for eight in &mut words {
            self.add(word(eight));
        }
        let mut last = [0; 8];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        self.add(u64::from_le_bytes(last));
        self.add(bytes.len() as u64);
    }

    /// The fingerprint of all that was added.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }
}

impl Default for Fingerprint {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_length_and_order_counts() {
        let bytes = [7u8; 93];
        let whole = Fingerprint::of(&bytes);
        for bit in 0..bytes.len() * 8 {
            let mut other = bytes;
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Fingerprint::of(&other), whole, "bit {bit}");
        }
        assert_ne!(Fingerprint::of(&[0; 7]), Fingerprint::of(&[0; 8]));
        let of = |words: [u64; 2]| {
            let mut f = Fingerprint::new();
            words.into_iter().for_each(|w| f.add(w));
            f.value()
        };
        assert_ne!(of([1, 2]), of([2, 1]));
    }
}

//! SipHash-2-4 with 64 bits of output (Aumasson and Bernstein, 2012).
//!
//! Owns nothing. Chosen because it is a real MAC for short inputs that needs only additions, rotations and
//! exclusive or on 64-bit words, so that an eBPF program computes the same function without any helper.

/// A 128-bit key, as the two little-endian words that the algorithm uses.
pub type SipKey = [u64; 2];

/// The words of a 16-byte key.
#[must_use]
pub fn key(bytes: [u8; 16]) -> SipKey {
    let value = u128::from_le_bytes(bytes);
    [value as u64, (value >> 64) as u64]
}

struct State([u64; 4]);

impl State {
    #[inline]
    fn new(key: SipKey) -> Self {
        Self([
            key[0] ^ 0x736f_6d65_7073_6575,
            key[1] ^ 0x646f_7261_6e64_6f6d,
            key[0] ^ 0x6c79_6765_6e65_7261,
            key[1] ^ 0x7465_6462_7974_6573,
        ])
    }

    #[inline]
    fn round(&mut self) {
        let [a, b, c, d] = &mut self.0;
        *a = a.wrapping_add(*b);
        *c = c.wrapping_add(*d);
        *b = b.rotate_left(13) ^ *a;
        *d = d.rotate_left(16) ^ *c;
        *a = a.rotate_left(32).wrapping_add(*d);
        *c = c.wrapping_add(*b);
        *b = b.rotate_left(17) ^ *c;
        *d = d.rotate_left(21) ^ *a;
        *c = c.rotate_left(32);
    }

    #[inline]
    fn absorb(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.round();
        self.0[0] ^= word;
    }

    #[inline]
    fn finish(mut self) -> u64 {
        self.0[2] ^= 0xff;
        for _ in 0..4 {
            self.round();
        }
        self.0[0] ^ self.0[1] ^ self.0[2] ^ self.0[3]
    }
}

/// The hash of `message`.
#[must_use]
pub fn hash(key: SipKey, message: &[u8]) -> u64 {
    let mut state = State::new(key);
    let (words, rest) = message.as_chunks::<8>();
    for word in words {
        state.absorb(u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    last[7] = message.len() as u8;
    state.absorb(u64::from_le_bytes(last));
    state.finish()
}

/// The hash of 16 bytes, given as two little-endian words.
#[inline]
#[must_use]
pub fn hash_words(key: SipKey, words: [u64; 2]) -> u64 {
    let mut state = State::new(key);
    state.absorb(words[0]);
    state.absorb(words[1]);
    state.absorb(16 << 56);
    state.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the reference implementation: key 00..0f, message 00, 01, .. of 0, 1, 7, 8, 15 and 63 bytes.
    #[test]
    fn reference_vectors() {
        let key = key(std::array::from_fn(|i| i as u8));
        let message: Vec<u8> = (0..64).collect();
        assert_eq!(hash(key, &message[..0]), 0x726f_db47_dd0e_0e31);
        assert_eq!(hash(key, &message[..1]), 0x74f8_39c5_93dc_67fd);
        // The one of the paper's appendix A.
        assert_eq!(hash(key, &message[..15]), 0xa129_ca61_49be_45e5);
        assert_eq!(hash(key, &message[..8]), 0x93f5_f579_9a93_2462);
    }

    #[test]
    fn two_words_are_sixteen_bytes() {
        let key = key([7; 16]);
        let words = [0x0123_4567_89ab_cdef, 0xfeed_f00d_dead_beef_u64];
        let bytes: Vec<u8> = words.iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
        assert_eq!(hash_words(key, words), hash(key, &bytes));
    }
}

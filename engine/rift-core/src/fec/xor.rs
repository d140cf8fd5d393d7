//! Exclusive or over byte strings, and what it recovers.

/// A part of a shard: where it lies in the shard, and its bytes. A receiver that does not hold a body
/// in one piece (the payload lies in the frame buffer, the fields before and after it elsewhere) hands
/// in its pieces one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Offset in the shard, in bytes.
    pub at: usize,
    /// What stands there.
    pub bytes: &'a [u8],
}

/// Adds `bytes` to the start of `sum` by exclusive or. Whatever of `bytes` lies beyond `sum` is
/// ignored.
///
/// Works on machine words: the compiler turns the loop into vector instructions where they exist, and
/// it stays fast where it does not optimise that far.
#[inline]
pub fn xor_into(sum: &mut [u8], bytes: &[u8]) {
    let len = sum.len().min(bytes.len());
    let (sum_words, sum_rest) = sum[..len].as_chunks_mut::<8>();
    let (words, rest) = bytes[..len].as_chunks::<8>();
    for (s, w) in sum_words.iter_mut().zip(words) {
        *s = (u64::from_ne_bytes(*s) ^ u64::from_ne_bytes(*w)).to_ne_bytes();
    }
    for (s, b) in sum_rest.iter_mut().zip(rest) {
        *s ^= b;
    }
}

/// Turns `parity` into the one shard that it covers and that is not among `present`, the pieces of all
/// other shards it covers. The shard is padded with zeros to the length of the parity; cut it to its
/// own length. Pieces beyond the end of the parity are ignored: a peer that lies about lengths gets a
/// wrong shard back, nothing worse.
pub fn recover<'a>(parity: &mut [u8], present: impl IntoIterator<Item = Piece<'a>>) {
    for piece in present {
        if let Some(sum) = parity.get_mut(piece.at..) {
            xor_into(sum, piece.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn words_agree_with_bytes_at_every_length_and_alignment(
            sum in prop::collection::vec(any::<u8>(), 0..80),
            bytes in prop::collection::vec(any::<u8>(), 0..80),
            skip in 0usize..8,
        ) {
            let skip = skip.min(sum.len());
            let mut expected = sum.clone();
            expected[skip..].iter_mut().zip(&bytes).for_each(|(s, b)| *s ^= b);
            let mut got = sum;
            xor_into(&mut got[skip..], &bytes);
            prop_assert_eq!(got, expected);
        }
    }

    #[test]
    fn pieces_past_the_end_change_nothing() {
        let mut parity = [1, 2, 3];
        recover(&mut parity, [Piece { at: 4, bytes: &[9] }, Piece { at: 2, bytes: &[0, 7] }]);
        assert_eq!(parity, [1, 2, 3]);
    }
}

//! Bits and Exp-Golomb codes of a NAL unit (ITU-T H.264 section 7.2, 9.1).
//!
//! Owns: skipping emulation prevention bytes while reading. Never: reads past the end.
//! Invariant: after an error every read gives `None`.

/// Reads a NAL unit's payload bit by bit, emulation prevention bytes left out.
#[derive(Debug, Clone)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    next: usize,
    zeros: u8,
    current: u8,
    bits_left: u8,
    bits_read: usize,
}

impl<'a> BitReader<'a> {
    /// Starts at the first bit of `bytes` (the byte after the NAL header).
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, next: 0, zeros: 0, current: 0, bits_left: 0, bits_read: 0 }
    }

    /// Bits read so far, not counting emulation prevention bytes.
    pub(super) fn position(&self) -> usize {
        self.bits_read
    }

    pub(super) fn bit(&mut self) -> Option<bool> {
        if self.bits_left == 0 {
            let mut byte = *self.bytes.get(self.next)?;
            if self.zeros >= 2 && byte == 3 {
                self.next += 1;
                self.zeros = 0;
                byte = *self.bytes.get(self.next)?;
            }
            self.zeros = if byte == 0 { self.zeros.saturating_add(1) } else { 0 };
            self.next += 1;
            self.current = byte;
            self.bits_left = 8;
        }
        self.bits_left -= 1;
        self.bits_read += 1;
        Some(self.current >> self.bits_left & 1 == 1)
    }

    /// `u(n)`, n at most 32.
    pub(super) fn bits(&mut self, count: u32) -> Option<u32> {
        let mut value = 0u32;
        for _ in 0..count {
            value = value << 1 | u32::from(self.bit()?);
        }
        Some(value)
    }

    /// `ue(v)`, at most 2^32 - 2.
    pub(super) fn unsigned(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1u32 << zeros) - 1 + self.bits(zeros)?)
    }

    /// `se(v)`.
    pub(super) fn signed(&mut self) -> Option<i32> {
        let code = self.unsigned()?;
        let magnitude = i32::try_from(code.div_ceil(2)).ok()?;
        Some(if code % 2 == 1 { magnitude } else { -magnitude })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_codes_of_the_standard() {
        // Table 9-2: 1, 010, 011, 00100, 00101 are 0..=4.
        let mut reader = BitReader::new(&[0b1010_0110, 0b0100_0010, 0b1000_0000]);
        let values: Vec<_> = (0..5).map(|_| reader.unsigned().unwrap()).collect();
        assert_eq!(values, [0, 1, 2, 3, 4]);
        // Table 9-3: codes 1, 2, 3 are 1, -1, 2.
        let mut reader = BitReader::new(&[0b0100_1100, 0b1000_0000]);
        assert_eq!([reader.signed(), reader.signed(), reader.signed()], [Some(1), Some(-1), Some(2)]);
    }

    #[test]
    fn emulation_prevention_is_left_out() {
        let mut reader = BitReader::new(&[0, 0, 3, 1, 0, 0, 3, 0, 0xff]);
        assert_eq!(reader.bits(24), Some(1));
        assert_eq!(reader.bits(32), Some(0xff));
        assert_eq!(reader.position(), 56);
        assert_eq!(reader.bit(), None);
    }

    #[test]
    fn long_runs_of_zero_end() {
        assert_eq!(BitReader::new(&[0; 64]).unsigned(), None);
        let max = [0, 0, 0, 1, 0xff, 0xff, 0xff, 0xfe];
        assert_eq!(BitReader::new(&max).unsigned(), Some(u32::MAX - 1));
    }
}

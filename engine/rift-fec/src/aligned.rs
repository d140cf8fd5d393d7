//! Bytes at the start of a cache line.
//!
//! Shards are read and written 64 bytes at a time, and each access that touches two cache lines counts twice.

/// Bytes of a cache line.
const LINE: usize = 64;

/// A fixed number of bytes, the first of them at the start of a cache line.
#[derive(Debug)]
pub struct Aligned {
    bytes: Box<[u8]>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// `len` zeros. The only allocation.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let bytes = vec![0u8; len + LINE - 1].into_boxed_slice();
        // The boxed bytes stay where they are.
        let start = bytes.as_ptr().align_offset(LINE).min(LINE - 1);
        Self { bytes, start, len }
    }

    /// From one place for `len` bytes to the next, so that each begins at the start of a cache line.
    #[must_use]
    pub const fn stride(len: usize) -> usize {
        len.next_multiple_of(LINE)
    }

    /// The bytes.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    /// The bytes.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_begin_where_cache_lines_do() {
        for len in [1, 63, 64, 65, 1202] {
            let stride = Aligned::stride(len);
            assert!(stride >= len && stride < len + LINE);
            let mut aligned = Aligned::zeroed(3 * stride);
            assert_eq!(aligned.bytes().len(), 3 * stride);
            assert!(aligned.bytes().chunks(stride).all(|place| place.as_ptr().addr().is_multiple_of(LINE)));
            aligned.bytes_mut().fill(7);
            assert!(aligned.bytes().iter().all(|&b| b == 7));
        }
    }
}

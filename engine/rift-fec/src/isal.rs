//! The binding to ISA-L, and all that is unsafe.
//!
//! Owns the tables from which ISA-L multiplies. Their layout is ISA-L's own business and differs between
//! versions and processors (32 bytes for each coefficient, 8 where GFNI is used since 2.31), but is always
//! one piece per coefficient, row by row; so the pieces are made once, by ISA-L, and put together by
//! copying. Invariant: no pointer that is handed out reaches beyond the slice that it was made from.

use core::ffi::{c_int, c_uchar};
use core::mem::MaybeUninit;

use crate::{PARITIES_MAX, SHARDS_MAX};

/// Bytes for a coefficient in the longest layout.
const PIECE_MAX: usize = 32;

// erasure_code.h of ISA-L 2.30. The arrays of sources are not declared const there, but are only read.
unsafe extern "C" {
    pub(crate) fn ec_init_tables(k: c_int, rows: c_int, a: *const c_uchar, tables: *mut c_uchar);
    pub(crate) fn ec_encode_data(
        len: c_int,
        k: c_int,
        rows: c_int,
        tables: *const c_uchar,
        data: *const *const c_uchar,
        coding: *const *mut c_uchar,
    );
    pub(crate) fn ec_encode_data_update(
        len: c_int,
        k: c_int,
        rows: c_int,
        vec_i: c_int,
        tables: *const c_uchar,
        data: *const c_uchar,
        coding: *const *mut c_uchar,
    );
}

/// The piece of table for each of the 256 coefficients.
#[derive(Clone, Debug)]
pub(crate) struct Pieces {
    bytes: Box<[u8; 256 * PIECE_MAX]>,
    len: usize,
}

impl Pieces {
    pub(crate) fn new() -> Self {
        let mut pieces = Self { bytes: Box::new([0; 256 * PIECE_MAX]), len: piece_len() };
        for coefficient in 0..=255u8 {
            let piece = init_tables(&[coefficient]);
            let at = usize::from(coefficient) * pieces.len;
            pieces.bytes[at..at + pieces.len].copy_from_slice(&piece[..pieces.len]);
        }
        pieces
    }

    /// Bytes of a piece.
    pub(crate) fn piece_len(&self) -> usize {
        self.len
    }

    /// Whether ISA-L multiplies by looking up halves of bytes, and not by instructions of the field (GFNI).
    pub(crate) fn are_lookups(&self) -> bool {
        self.len == PIECE_MAX
    }

    /// The table of `coefficient`.
    #[inline]
    pub(crate) fn of(&self, coefficient: u8) -> &[u8] {
        &self.bytes[usize::from(coefficient) * self.len..][..self.len]
    }
}

/// The tables of a matrix of one row, in a buffer for two coefficients.
fn init_tables(row: &[u8]) -> [u8; 2 * PIECE_MAX] {
    let mut tables = [0; 2 * PIECE_MAX];
    assert!(row.len() <= 2);
    // SAFETY: `row` has as many coefficients as is said, and ISA-L writes at most 32 bytes for each, for
    // which there is room.
    unsafe { ec_init_tables(row.len() as c_int, 1, row.as_ptr(), tables.as_mut_ptr()) };
    tables
}

/// How long a piece is here: two equal coefficients give the same piece twice.
fn piece_len() -> usize {
    let [one, two] = [init_tables(&[0xff]), init_tables(&[0xff, 0xff])];
    let fits = |len: &usize| one[..*len] == two[*len..2 * len] && one[*len..].iter().all(|&b| b == 0);
    [8, PIECE_MAX].into_iter().find(fits).expect("ISA-L keeps 8 or 32 bytes for each coefficient")
}

/// Buffers of equal length, one after the other.
pub(crate) struct Rows<'a> {
    pub(crate) bytes: &'a mut [u8],
    /// From the start of a row to that of the next.
    pub(crate) stride: usize,
    pub(crate) count: usize,
}

impl Rows<'_> {
    /// Where each row begins.
    ///
    /// # Panics
    /// If there are more rows than bytes for them or than 64, or `len` is longer than a row.
    #[inline]
    fn pointers(&mut self, len: usize) -> [MaybeUninit<*mut u8>; PARITIES_MAX] {
        assert!(len <= self.stride && self.count <= PARITIES_MAX);
        assert!(self.count * self.stride <= self.bytes.len());
        // ISA-L reads no more of them than there are rows; clearing the rest takes as long as a short row.
        let mut pointers = [MaybeUninit::uninit(); PARITIES_MAX];
        let base = self.bytes.as_mut_ptr();
        for (row, pointer) in pointers.iter_mut().enumerate().take(self.count) {
            // SAFETY: `row < count`, and that many strides lie within `bytes`.
            pointer.write(unsafe { base.add(row * self.stride) });
        }
        pointers
    }
}

/// Sets the first `len` bytes of each row to the sum of all sources, each multiplied as `tables` says: the
/// piece for source `j` in row `r` is number `r * sources + j`.
///
/// # Panics
/// If a source is shorter than `len`, or there are fewer pieces than that, or more than 64 sources.
#[inline]
pub(crate) fn combine<'a>(
    len: usize,
    pieces: &Pieces,
    tables: &[u8],
    sources: impl Iterator<Item = &'a [u8]>,
    mut rows: Rows<'_>,
) {
    let mut pointers = [core::ptr::null(); SHARDS_MAX];
    let mut count = 0;
    for source in sources {
        assert!(source.len() >= len);
        pointers[count] = source.as_ptr();
        count += 1;
    }
    assert!(tables.len() >= count * rows.count * pieces.len);
    let coding = rows.pointers(len);
    if count == 0 || len == 0 || rows.count == 0 {
        for row in 0..rows.count {
            rows.bytes[row * rows.stride..][..len].fill(0);
        }
        return;
    }
    // SAFETY: `count` sources of at least `len` bytes and `rows.count` rows of at least `len` bytes stand
    // behind the pointers; rows are borrowed mutably, so nothing else is in them. `tables` has a piece for
    // each pair. Lengths fit a C int because PARITIES_MAX rows of them fit the address space.
    unsafe {
        ec_encode_data(
            len as c_int,
            count as c_int,
            rows.count as c_int,
            tables.as_ptr(),
            pointers.as_ptr(),
            coding.as_ptr().cast(),
        );
    }
    clean_registers();
}

/// Adds `source` to the start of each row, multiplied as `tables` says: one piece for each row.
///
/// # Panics
/// If the source is longer than a row, or there are fewer pieces than rows.
#[inline]
pub(crate) fn add(pieces: &Pieces, tables: &[u8], source: &[u8], mut rows: Rows<'_>) {
    assert!(tables.len() >= rows.count * pieces.len);
    let coding = rows.pointers(source.len());
    if source.is_empty() || rows.count == 0 {
        return;
    }
    // SAFETY: as in `combine`, with one source.
    unsafe {
        ec_encode_data_update(
            source.len() as c_int,
            1,
            rows.count as c_int,
            0,
            tables.as_ptr(),
            source.as_ptr(),
            coding.as_ptr().cast(),
        );
    }
    clean_registers();
}

/// Clears the upper halves of the vector registers, which ISA-L leaves in use. On Intel's processors every
/// instruction of the older kind (SSE) waits for them until then, also those of ISA-L's callers: an encoder whose
/// shards come one by one took 2.5 times as long.
#[inline]
fn clean_registers() {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx") {
        // SAFETY: the processor has AVX.
        unsafe { zero_upper() }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
fn zero_upper() {
    core::arch::x86_64::_mm256_zeroupper();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field;

    #[test]
    fn every_coefficient_multiplies_as_the_field_does_at_every_length() {
        let pieces = Pieces::new();
        for len in [1, 2, 31, 32, 33, 63, 64, 65, 95, 127, 200] {
            let source: Vec<u8> = (0..len).map(|i| (i * 37 + 11) as u8).collect();
            for coefficient in 0..=255u8 {
                let expected: Vec<u8> = source.iter().map(|&b| field::product(coefficient, b)).collect();
                let mut out = vec![0xaa; len + 1];
                let rows = Rows { bytes: &mut out, stride: len + 1, count: 1 };
                combine(len, &pieces, pieces.of(coefficient), [&source[..]].into_iter(), rows);
                assert_eq!(out[..len], expected, "{coefficient} at {len}");
                assert_eq!(out[len], 0xaa, "wrote beyond the end");
                let rows = Rows { bytes: &mut out, stride: len + 1, count: 1 };
                add(&pieces, pieces.of(coefficient), &source, rows);
                assert!(out[..len].iter().all(|&b| b == 0), "what is added twice is gone");
                assert_eq!(out[len], 0xaa);
            }
        }
    }
}

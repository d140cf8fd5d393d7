//! Multiplying with the processor's own instruction for it (GFNI).
//!
//! Owns the two loops of this crate, for vectors of 64 bytes (AVX-512) and of 32. A piece of table is the
//! coefficient as a matrix of 8 x 8 bits. ISA-L has such loops too, since 2.31, which most systems do not have yet;
//! with its older ones parity takes three times as long. Invariants: every byte that is read or written lies within
//! the lengths that the caller vouches for, and the functions that need instructions are only reached through a
//! [`Width`] that was found at run time.

use core::arch::x86_64::{
    __m256i, __m512i, _mm256_gf2p8affine_epi64_epi8, _mm256_loadu_si256, _mm256_set1_epi64x,
    _mm256_setzero_si256, _mm256_storeu_si256, _mm256_xor_si256, _mm512_gf2p8affine_epi64_epi8,
    _mm512_loadu_si512, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_storeu_si512, _mm512_xor_si512,
};

use crate::field;

/// Bytes of a piece.
pub(crate) const PIECE_LEN: usize = 8;
/// The widest vector.
const VECTOR_MAX: usize = 64;
/// Rows that are summed up at once: with two vectors of each, sums and what they are made of fit the registers.
const ROWS_MAX: usize = 8;

/// How much the processor multiplies at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Bytes64,
    Bytes32,
}

impl Width {
    /// What this processor can, the best first.
    pub(crate) fn found() -> impl Iterator<Item = Self> {
        let has_gfni = std::arch::is_x86_feature_detected!("gfni");
        let has_64 = has_gfni && std::arch::is_x86_feature_detected!("avx512f");
        let has_32 = has_gfni && std::arch::is_x86_feature_detected!("avx2");
        [(has_64, Self::Bytes64), (has_32, Self::Bytes32)]
            .into_iter()
            .filter_map(|(has, width)| has.then_some(width))
    }
}

/// The matrix of the multiplication with `coefficient`: row 7 - `i`, a byte, has the bits of the factor on which bit
/// `i` of the product depends (GF2P8AFFINEQB in Intel's Software Developer's Manual, volume 2).
pub(crate) fn piece(coefficient: u8) -> [u8; PIECE_LEN] {
    let mut rows = [0; PIECE_LEN];
    for (at, row) in rows.iter_mut().enumerate() {
        let depends = |bit: &u8| field::product(coefficient, 1 << bit) >> (7 - at) & 1 != 0;
        *row = (0..8).filter(depends).map(|bit| 1 << bit).sum();
    }
    rows
}

/// A vector register. Its functions need the instructions of its [`Width`].
trait Vector: Copy {
    const LEN: usize;

    unsafe fn zero() -> Self;
    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut u8);
    /// The piece that begins at `from`, again and again.
    unsafe fn repeat(from: *const u8) -> Self;
    /// Each byte multiplied by the piece that `matrix` repeats.
    unsafe fn product(self, matrix: Self) -> Self;
    unsafe fn sum(self, other: Self) -> Self;
}

// The bodies are single instructions: whoever calls them in a function with the right features pays for no call.
macro_rules! vector {
    ($vector:ty, $word:ident: $zero:ident, $load:ident, $store:ident, $repeat:ident, $product:ident, $sum:ident) => {
        impl Vector for $vector {
            const LEN: usize = size_of::<$vector>();

            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: the caller vouches for the instructions, here and below.
                unsafe { $zero() }
            }

            #[inline(always)]
            unsafe fn load(from: *const u8) -> Self {
                // SAFETY: the caller vouches for `LEN` bytes at `from`.
                unsafe { $load(from.cast()) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut u8) {
                // SAFETY: the caller vouches for `LEN` bytes at `to`.
                unsafe { $store(to.cast(), self) }
            }

            #[inline(always)]
            unsafe fn repeat(from: *const u8) -> Self {
                // SAFETY: the caller vouches for a piece at `from`.
                unsafe { $repeat(from.cast::<i64>().read_unaligned()) }
            }

            #[inline(always)]
            unsafe fn product(self, matrix: Self) -> Self {
                // SAFETY: it is only registers.
                unsafe { $product::<0>(self, matrix) }
            }

            #[inline(always)]
            unsafe fn sum(self, other: Self) -> Self {
                // SAFETY: it is only registers.
                unsafe { $sum(self, other) }
            }
        }
    };
}

vector!(__m512i, i64: _mm512_setzero_si512, _mm512_loadu_si512, _mm512_storeu_si512, _mm512_set1_epi64,
    _mm512_gf2p8affine_epi64_epi8, _mm512_xor_si512);
vector!(__m256i, i64: _mm256_setzero_si256, _mm256_loadu_si256, _mm256_storeu_si256, _mm256_set1_epi64x,
    _mm256_gf2p8affine_epi64_epi8, _mm256_xor_si256);

/// Sets `len` bytes at each of `rows` to the sum of as many of each of `sources`, multiplied as `tables` says: the
/// piece for source `j` in row `r` is number `r * sources + j`.
///
/// # Safety
/// The processor has `width`. There is a piece for each pair, and `len` bytes lie behind each pointer: those of rows
/// for this function alone.
#[inline]
pub(crate) unsafe fn combine(
    width: Width,
    len: usize,
    tables: *const u8,
    sources: &[*const u8],
    rows: &[*mut u8],
) {
    // SAFETY: as for this function.
    unsafe {
        match width {
            Width::Bytes64 => combine_64(len, tables, sources, rows),
            Width::Bytes32 => combine_32(len, tables, sources, rows),
        }
    }
}

#[target_feature(enable = "gfni,avx512f")]
unsafe fn combine_64(len: usize, tables: *const u8, sources: &[*const u8], rows: &[*mut u8]) {
    // SAFETY: as for `combine`.
    unsafe { combine_with::<__m512i>(len, tables, sources, rows) }
}

#[target_feature(enable = "gfni,avx2")]
unsafe fn combine_32(len: usize, tables: *const u8, sources: &[*const u8], rows: &[*mut u8]) {
    // SAFETY: as for `combine`.
    unsafe { combine_with::<__m256i>(len, tables, sources, rows) }
}

/// Adds `len` bytes of `source` to each of `rows`, multiplied as `tables` says: one piece for each row.
///
/// # Safety
/// As for [`combine`].
#[inline]
pub(crate) unsafe fn add(width: Width, len: usize, tables: *const u8, source: *const u8, rows: &[*mut u8]) {
    // SAFETY: as for this function.
    unsafe {
        match width {
            Width::Bytes64 => add_64(len, tables, source, rows),
            Width::Bytes32 => add_32(len, tables, source, rows),
        }
    }
}

#[target_feature(enable = "gfni,avx512f")]
unsafe fn add_64(len: usize, tables: *const u8, source: *const u8, rows: &[*mut u8]) {
    // SAFETY: as for `add`.
    unsafe { add_with::<__m512i>(len, tables, source, rows) }
}

#[target_feature(enable = "gfni,avx2")]
unsafe fn add_32(len: usize, tables: *const u8, source: *const u8, rows: &[*mut u8]) {
    // SAFETY: as for `add`.
    unsafe { add_with::<__m256i>(len, tables, source, rows) }
}

#[inline(always)]
unsafe fn combine_with<V: Vector>(len: usize, tables: *const u8, sources: &[*const u8], rows: &[*mut u8]) {
    if len < V::LEN {
        // SAFETY: as for `combine`.
        return unsafe { combine_short::<V>(len, tables, sources, rows) };
    }
    // Shares of about the same size: each reads all sources.
    let share = rows.len().div_ceil(rows.len().div_ceil(ROWS_MAX).max(1));
    for (at, rows) in rows.chunks(share.max(1)).enumerate() {
        // SAFETY: as for `combine`; these rows' pieces begin there.
        unsafe {
            let tables = tables.add(at * share * sources.len() * PIECE_LEN);
            match rows.len() {
                1 => combine_rows::<V, 1>(len, tables, sources, rows),
                2 => combine_rows::<V, 2>(len, tables, sources, rows),
                3 => combine_rows::<V, 3>(len, tables, sources, rows),
                4 => combine_rows::<V, 4>(len, tables, sources, rows),
                5 => combine_rows::<V, 5>(len, tables, sources, rows),
                6 => combine_rows::<V, 6>(len, tables, sources, rows),
                7 => combine_rows::<V, 7>(len, tables, sources, rows),
                _ => combine_rows::<V, ROWS_MAX>(len, tables, sources, rows),
            }
        }
    }
}

/// `rows` are `R`, and `len` is at least a vector.
#[inline(always)]
unsafe fn combine_rows<V: Vector, const R: usize>(
    len: usize,
    tables: *const u8,
    sources: &[*const u8],
    rows: &[*mut u8],
) {
    let mut at = 0;
    // SAFETY: each call is for bytes before `len`. The last vector ends there: what it shares with the one before
    // comes out the same, since sources are no rows.
    unsafe {
        while at + 2 * V::LEN <= len {
            combine_columns::<V, R, 2>(at, tables, sources, rows);
            at += 2 * V::LEN;
        }
        if at + V::LEN <= len {
            combine_columns::<V, R, 1>(at, tables, sources, rows);
            at += V::LEN;
        }
        if at < len {
            combine_columns::<V, R, 1>(len - V::LEN, tables, sources, rows);
        }
    }
}

/// `C` vectors of each row, from byte `at` on.
#[inline(always)]
unsafe fn combine_columns<V: Vector, const R: usize, const C: usize>(
    at: usize,
    tables: *const u8,
    sources: &[*const u8],
    rows: &[*mut u8],
) {
    // SAFETY: as for `combine`, for the bytes from `at` on.
    unsafe {
        let mut sums = [[V::zero(); C]; R];
        for (j, source) in sources.iter().enumerate() {
            let mut factors = [V::zero(); C];
            for (c, factor) in factors.iter_mut().enumerate() {
                *factor = V::load(source.add(at + c * V::LEN));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let matrix = V::repeat(tables.add((r * sources.len() + j) * PIECE_LEN));
                for (sum, factor) in sums.iter_mut().zip(factors) {
                    *sum = sum.sum(factor.product(matrix));
                }
            }
        }
        for (sums, row) in sums.iter().zip(rows) {
            for (c, sum) in sums.iter().enumerate() {
                sum.store(row.add(at + c * V::LEN));
            }
        }
    }
}

/// Less than a vector, by way of places that have room for one.
#[inline(always)]
unsafe fn combine_short<V: Vector>(len: usize, tables: *const u8, sources: &[*const u8], rows: &[*mut u8]) {
    // SAFETY: as for `combine`; `len` is less than a vector, and no vector is longer than the places.
    unsafe {
        for (r, row) in rows.iter().enumerate() {
            let mut sum = V::zero();
            for (j, source) in sources.iter().enumerate() {
                let matrix = V::repeat(tables.add((r * sources.len() + j) * PIECE_LEN));
                sum = sum.sum(load_short::<V>(*source, len).product(matrix));
            }
            store_short(sum, *row, len);
        }
    }
}

#[inline(always)]
unsafe fn add_with<V: Vector>(len: usize, tables: *const u8, source: *const u8, rows: &[*mut u8]) {
    // SAFETY: as for `add`: there are as many pieces as rows. Where the last vector shares bytes with the one before, it
    // was loaded before those were written, so nothing is added twice.
    unsafe {
        for (r, &row) in rows.iter().enumerate() {
            let matrix = V::repeat(tables.add(r * PIECE_LEN));
            if len < V::LEN {
                let sum = load_short::<V>(row, len).sum(load_short::<V>(source, len).product(matrix));
                store_short(sum, row, len);
                continue;
            }
            let last = len - V::LEN;
            let last_sum = V::load(row.add(last)).sum(V::load(source.add(last)).product(matrix));
            let mut at = 0;
            while at < last {
                let sum = V::load(row.add(at)).sum(V::load(source.add(at)).product(matrix));
                sum.store(row.add(at));
                at += V::LEN;
            }
            last_sum.store(row.add(last));
        }
    }
}

/// `len` bytes, less than a vector, and zeros.
#[inline(always)]
unsafe fn load_short<V: Vector>(from: *const u8, len: usize) -> V {
    let mut place = [0u8; VECTOR_MAX];
    // SAFETY: the caller vouches for `len` bytes at `from`; the place has room for a vector.
    unsafe {
        place.as_mut_ptr().copy_from_nonoverlapping(from, len);
        V::load(place.as_ptr())
    }
}

/// The first `len` bytes, less than a vector.
#[inline(always)]
unsafe fn store_short<V: Vector>(vector: V, to: *mut u8, len: usize) {
    let mut place = [0u8; VECTOR_MAX];
    // SAFETY: the place has room for a vector; the caller vouches for `len` bytes at `to`.
    unsafe {
        vector.store(place.as_mut_ptr());
        to.copy_from_nonoverlapping(place.as_ptr(), len);
    }
}

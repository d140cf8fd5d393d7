//! The binding to ISA-L: multiplying where the processor has no instruction for it.
//!
//! Owns nothing. Its tables are ISA-L's own business and differ between versions and processors (32 bytes for
//! each coefficient, 8 where it uses GFNI, since 2.31), but are always one piece per coefficient, row by row; so
//! they can be made once, by ISA-L, and put together by copying.

use core::ffi::{c_int, c_uchar};

/// Bytes for a coefficient in the longest layout.
pub(crate) const PIECE_MAX: usize = 32;

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

/// The piece of `coefficient`, and zeros behind it.
pub(crate) fn piece(coefficient: u8) -> [u8; PIECE_MAX] {
    let [mut piece, _] = init_tables(coefficient, coefficient);
    piece[piece_len()..].fill(0);
    piece
}

/// How long a piece is here: two equal coefficients give the same piece twice.
pub(crate) fn piece_len() -> usize {
    let tables = init_tables(0xff, 0xff);
    let tables = tables.as_flattened();
    let fits =
        |len: &usize| tables[..*len] == tables[*len..2 * len] && tables[2 * len..].iter().all(|&b| b == 0);
    [8, PIECE_MAX].into_iter().find(fits).expect("ISA-L keeps 8 or 32 bytes for each coefficient")
}

/// The tables of a matrix of one row and two coefficients.
fn init_tables(first: u8, second: u8) -> [[u8; PIECE_MAX]; 2] {
    let mut tables = [[0; PIECE_MAX]; 2];
    let row = [first, second];
    // SAFETY: `row` has as many coefficients as is said, and ISA-L writes at most 32 bytes for each, for
    // which there is room.
    unsafe { ec_init_tables(2, 1, row.as_ptr(), tables.as_flattened_mut().as_mut_ptr()) };
    tables
}

/// Clears the upper halves of the vector registers, which ISA-L leaves in use. On Intel's processors every
/// instruction of the older kind (SSE) waits for them until then, also those of ISA-L's callers: an encoder whose
/// shards come one by one took 2.5 times as long.
#[inline]
pub(crate) fn clean_registers() {
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

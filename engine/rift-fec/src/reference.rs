//! ISA-L used as its own examples use it: what this crate is measured against, and nothing else.
//!
//! Owns its matrices and tables, made for one shape of group. Panics instead of reporting errors.

use core::ffi::{c_int, c_uchar};

use crate::isal::{ec_encode_data, ec_encode_data_update, ec_init_tables};

unsafe extern "C" {
    fn gf_gen_cauchy1_matrix(a: *mut c_uchar, m: c_int, k: c_int);
    fn gf_invert_matrix(input: *mut c_uchar, output: *mut c_uchar, n: c_int) -> c_int;
}

/// A code of `k` shards and `m` parities, all of `len` bytes.
#[derive(Debug)]
pub struct Isal {
    k: usize,
    m: usize,
    len: usize,
    /// `k + m` rows of `k`: the identity above the parity.
    matrix: Vec<u8>,
    tables: Vec<u8>,
    rows: Vec<Vec<u8>>,
}

/// Bytes of table for each coefficient, in the longest layout.
const PIECE_MAX: usize = 32;

impl Isal {
    /// Makes matrix and tables.
    ///
    /// # Panics
    /// If the field has no such code.
    #[must_use]
    pub fn new(k: usize, m: usize, len: usize) -> Self {
        assert!(k >= 1 && m >= 1 && k + m <= 255 && len <= 1 << 20);
        let mut matrix = vec![0; (k + m) * k];
        let mut tables = vec![0; PIECE_MAX * k * m];
        // SAFETY: ISA-L fills (k + m) * k coefficients, and reads m * k of them to write at most 32 bytes of
        // table for each; there is room for both.
        unsafe {
            gf_gen_cauchy1_matrix(matrix.as_mut_ptr(), (k + m) as c_int, k as c_int);
            ec_init_tables(k as c_int, m as c_int, matrix[k * k..].as_ptr(), tables.as_mut_ptr());
        }
        Self { k, m, len, matrix, tables, rows: vec![vec![0; len]; k.max(m)] }
    }

    /// `ec_encode_data` over all shards; the parities are [`row`](Self::row)s afterwards.
    ///
    /// # Panics
    /// If there are other shards than the code is for.
    pub fn encode(&mut self, shards: &[&[u8]]) {
        assert!(shards.len() == self.k && shards.iter().all(|s| s.len() == self.len));
        let sources: [*const u8; 255] =
            core::array::from_fn(|i| shards.get(i).map_or(core::ptr::null(), |s| s.as_ptr()));
        let rows: [*mut u8; 255] =
            core::array::from_fn(|i| self.rows.get_mut(i).map_or(core::ptr::null_mut(), Vec::as_mut_ptr));
        // SAFETY: k sources and m rows of `len` bytes each, and tables for all pairs.
        unsafe {
            ec_encode_data(
                self.len as c_int,
                self.k as c_int,
                self.m as c_int,
                self.tables.as_ptr(),
                sources.as_ptr(),
                rows.as_ptr(),
            );
        }
    }

    /// `ec_encode_data_update` for each shard in turn.
    ///
    /// # Panics
    /// If there are other shards than the code is for.
    pub fn encode_stepwise(&mut self, shards: &[&[u8]]) {
        assert!(shards.len() == self.k && shards.iter().all(|s| s.len() == self.len));
        self.rows[..self.m].iter_mut().for_each(|row| row.fill(0));
        let rows: [*mut u8; 255] =
            core::array::from_fn(|i| self.rows.get_mut(i).map_or(core::ptr::null_mut(), Vec::as_mut_ptr));
        for (at, shard) in shards.iter().enumerate() {
            // SAFETY: as in `encode`, one source at a time.
            unsafe {
                ec_encode_data_update(
                    self.len as c_int,
                    self.k as c_int,
                    self.m as c_int,
                    at as c_int,
                    self.tables.as_ptr(),
                    shard.as_ptr(),
                    rows.as_ptr(),
                );
            }
        }
    }

    /// Gives back the shards `lost` as ISA-L's example does: the rows of k fragments that are there make a
    /// k x k matrix, which is inverted, and whose rows for the lost shards are multiplied with those
    /// fragments. `fragments` are all k + m, with anything in the place of the lost ones. The shards are
    /// [`row`](Self::row)s afterwards.
    ///
    /// # Panics
    /// If there are too few fragments.
    pub fn decode(&mut self, fragments: &[&[u8]], lost: &[usize]) {
        let k = self.k;
        assert!(fragments.len() == k + self.m && lost.len() <= self.m);
        assert!(fragments.iter().all(|f| f.len() == self.len));
        let there: Vec<usize> = (0..k + self.m).filter(|i| !lost.contains(i)).take(k).collect();
        let mut square: Vec<u8> = there.iter().flat_map(|&i| &self.matrix[i * k..][..k]).copied().collect();
        let mut inverse = vec![0; k * k];
        // SAFETY: both matrices have k * k coefficients.
        let singular = unsafe { gf_invert_matrix(square.as_mut_ptr(), inverse.as_mut_ptr(), k as c_int) };
        assert_eq!(singular, 0);
        let wanted: Vec<u8> = lost.iter().flat_map(|&i| &inverse[i * k..][..k]).copied().collect();
        let mut tables = vec![0; PIECE_MAX * wanted.len()];
        let sources: Vec<*const u8> = there.iter().map(|&i| fragments[i].as_ptr()).collect();
        let rows: Vec<*mut u8> = self.rows.iter_mut().map(Vec::as_mut_ptr).collect();
        // SAFETY: k sources and lost.len() <= m rows of `len` bytes each, and tables for all pairs.
        unsafe {
            ec_init_tables(k as c_int, lost.len() as c_int, wanted.as_ptr(), tables.as_mut_ptr());
            ec_encode_data(
                self.len as c_int,
                k as c_int,
                lost.len() as c_int,
                tables.as_ptr(),
                sources.as_ptr(),
                rows.as_ptr(),
            );
        }
    }

    /// Parity after encoding, lost shard after decoding.
    #[must_use]
    pub fn row(&self, at: usize) -> &[u8] {
        &self.rows[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Encoder;

    #[test]
    fn the_reference_gives_back_what_was_lost_and_agrees_where_groups_are_full() {
        let mut rng = fastrand::Rng::with_seed(1);
        let shards: Vec<Vec<u8>> =
            (0..64).map(|_| std::iter::repeat_with(|| rng.u8(..)).take(100).collect()).collect();
        let shards: Vec<&[u8]> = shards.iter().map(Vec::as_slice).collect();
        let mut isal = Isal::new(64, 5, 100);
        let mut encoder = Encoder::new(5, 100);
        isal.encode(&shards);
        encoder.encode(&shards, 5);
        let parities: Vec<Vec<u8>> = (0..5).map(|p| isal.row(p).to_vec()).collect();
        isal.encode_stepwise(&shards);
        for (p, parity) in parities.iter().enumerate() {
            assert_eq!(parity, encoder.parity(p));
            assert_eq!(parity, isal.row(p));
        }
        let fragments: Vec<&[u8]> =
            shards.iter().copied().chain(parities.iter().map(Vec::as_slice)).collect();
        isal.decode(&fragments, &[3, 60]);
        assert_eq!((isal.row(0), isal.row(1)), (shards[3], shards[60]));
    }
}

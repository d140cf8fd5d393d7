//! Multiplying shards: sums of sources, each times a coefficient.
//!
//! Owns the tables, and the choice between the processor's instruction for it ([`gfni`](crate::gfni)) and ISA-L
//! ([`isal`](crate::isal)). A table has a piece for each coefficient, row by row; the pieces are made once, and
//! put together by copying. Invariant: no pointer that is handed out reaches beyond the slice that it was
//! made from.

use core::ffi::c_int;
use core::mem::MaybeUninit;

#[cfg(target_arch = "x86_64")]
use crate::gfni::{self, Width};
use crate::isal::{self, PIECE_MAX};
use crate::{PARITIES_MAX, SHARDS_MAX};

/// What multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    #[cfg(target_arch = "x86_64")]
    Gfni(Width),
    Isal,
}

impl Means {
    /// All that there are here, the best first.
    fn found() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let own = Width::found().map(Self::Gfni);
        #[cfg(not(target_arch = "x86_64"))]
        let own = core::iter::empty();
        own.chain([Self::Isal])
    }
}

/// The piece of table for each of the 256 coefficients.
#[derive(Clone, Debug)]
pub(crate) struct Pieces {
    bytes: Box<[u8; 256 * PIECE_MAX]>,
    len: usize,
    means: Means,
}

impl Pieces {
    pub(crate) fn new() -> Self {
        Self::with(Means::found().next().unwrap_or(Means::Isal))
    }

    fn with(means: Means) -> Self {
        let len = match means {
            #[cfg(target_arch = "x86_64")]
            Means::Gfni(_) => gfni::PIECE_LEN,
            Means::Isal => isal::piece_len(),
        };
        let mut bytes = Box::new([0; 256 * PIECE_MAX]);
        for (coefficient, to) in (0..=255).zip(bytes.chunks_exact_mut(len)) {
            match means {
                #[cfg(target_arch = "x86_64")]
                Means::Gfni(_) => to.copy_from_slice(&gfni::piece(coefficient)),
                Means::Isal => to.copy_from_slice(&isal::piece(coefficient)[..len]),
            }
        }
        Self { bytes, len, means }
    }

    /// Bytes of a piece.
    pub(crate) fn piece_len(&self) -> usize {
        self.len
    }

    /// Whether halves of bytes are looked up, and not multiplied by an instruction.
    pub(crate) fn are_lookups(&self) -> bool {
        self.len == PIECE_MAX
    }

    /// The table of `coefficient`.
    #[inline]
    pub(crate) fn of(&self, coefficient: u8) -> &[u8] {
        &self.bytes[usize::from(coefficient) * self.len..][..self.len]
    }
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
        // No more of them are read than there are rows; clearing the rest takes as long as a short row.
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
    // each pair, made for these means, which were found here. Lengths fit a C int because PARITIES_MAX rows of
    // them fit the address space.
    unsafe {
        match pieces.means {
            #[cfg(target_arch = "x86_64")]
            Means::Gfni(width) => {
                gfni::combine(width, len, tables.as_ptr(), &pointers[..count], begun(&coding, rows.count));
            }
            Means::Isal => {
                isal::ec_encode_data(
                    len as c_int,
                    count as c_int,
                    rows.count as c_int,
                    tables.as_ptr(),
                    pointers.as_ptr(),
                    coding.as_ptr().cast(),
                );
                isal::clean_registers();
            }
        }
    }
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
        match pieces.means {
            #[cfg(target_arch = "x86_64")]
            Means::Gfni(width) => {
                let to = begun(&coding, rows.count);
                gfni::add(width, source.len(), tables.as_ptr(), source.as_ptr(), to);
            }
            Means::Isal => {
                isal::ec_encode_data_update(
                    source.len() as c_int,
                    1,
                    rows.count as c_int,
                    0,
                    tables.as_ptr(),
                    source.as_ptr(),
                    coding.as_ptr().cast(),
                );
                isal::clean_registers();
            }
        }
    }
}

/// Those of `pointers` that were written.
///
/// # Safety
/// The first `count`, at most all of them, were.
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn begun(pointers: &[MaybeUninit<*mut u8>; PARITIES_MAX], count: usize) -> &[*mut u8] {
    // SAFETY: the caller says that they are initialised, and a `MaybeUninit` has the layout of what it holds.
    unsafe { core::slice::from_raw_parts(pointers.as_ptr().cast(), count) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field;

    /// With what this machine has, and whatever else there is.
    fn all() -> impl Iterator<Item = Pieces> {
        Means::found().map(Pieces::with)
    }

    #[test]
    fn every_coefficient_multiplies_as_the_field_does_at_every_length() {
        for pieces in all() {
            for len in [1, 2, 31, 32, 33, 63, 64, 65, 95, 127, 128, 129, 200] {
                let source: Vec<u8> = (0..len).map(|i| (i * 37 + 11) as u8).collect();
                for coefficient in 0..=255u8 {
                    let expected: Vec<u8> = source.iter().map(|&b| field::product(coefficient, b)).collect();
                    let mut out = vec![0xaa; len + 1];
                    let rows = Rows { bytes: &mut out, stride: len + 1, count: 1 };
                    combine(len, &pieces, pieces.of(coefficient), [&source[..]].into_iter(), rows);
                    assert_eq!(out[..len], expected, "{coefficient} at {len} by {:?}", pieces.means);
                    assert_eq!(out[len], 0xaa, "wrote beyond the end");
                    let rows = Rows { bytes: &mut out, stride: len + 1, count: 1 };
                    add(&pieces, pieces.of(coefficient), &source, rows);
                    assert!(out[..len].iter().all(|&b| b == 0), "what is added twice is gone");
                    assert_eq!(out[len], 0xaa);
                }
            }
        }
    }

    #[test]
    fn any_number_of_sources_and_rows_at_any_length_gives_what_the_field_says() {
        let mut rng = fastrand::Rng::with_seed(8);
        for pieces in all() {
            for round in 0..200 {
                let (sources, rows) = (rng.usize(1..=SHARDS_MAX), rng.usize(1..=PARITIES_MAX));
                let len = if round % 4 == 0 { rng.usize(0..64) } else { rng.usize(64..400) };
                let random = |rng: &mut fastrand::Rng| (0..len).map(|_| rng.u8(..)).collect::<Vec<u8>>();
                let data: Vec<Vec<u8>> = (0..sources).map(|_| random(&mut rng)).collect();
                let matrix: Vec<u8> = (0..sources * rows).map(|_| rng.u8(..)).collect();
                let tables: Vec<u8> = matrix.iter().flat_map(|&c| pieces.of(c)).copied().collect();
                let stride = len + rng.usize(0..70);
                let mut at_once = vec![0x55; rows * stride];
                let to = Rows { bytes: &mut at_once, stride, count: rows };
                combine(len, &pieces, &tables, data.iter().map(Vec::as_slice), to);
                let mut stepwise = vec![0x55; rows * stride];
                (0..rows).for_each(|row| stepwise[row * stride..][..len].fill(0));
                for (j, source) in data.iter().enumerate() {
                    let column: Vec<u8> =
                        (0..rows).flat_map(|r| pieces.of(matrix[r * sources + j])).copied().collect();
                    add(&pieces, &column, source, Rows { bytes: &mut stepwise, stride, count: rows });
                }
                let mut expected = vec![0x55; rows * stride];
                for row in 0..rows {
                    for at in 0..len {
                        let products =
                            (0..sources).map(|j| field::product(matrix[row * sources + j], data[j][at]));
                        expected[row * stride + at] = products.fold(0, |sum, product| sum ^ product);
                    }
                }
                assert_eq!(at_once, expected, "{sources} to {rows} at {len} by {:?}", pieces.means);
                assert_eq!(stepwise, expected, "{sources} to {rows} at {len} by {:?}", pieces.means);
            }
        }
    }
}

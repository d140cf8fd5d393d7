//! Which code ran: the compiler's coverage counters.
//!
//! With `-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3
//! -Cllvm-args=-sanitizer-coverage-inline-8bit-counters` (see `tools/fuzz/run`) LLVM gives each edge of the
//! program a byte that counts its runs and calls [`__sanitizer_cov_8bit_counters_init`] with their place
//! (Clang documentation, SanitizerCoverage). Without these flags there are no counters and
//! [`is_available`] says so. Owns nothing but the view of that memory.
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

static START: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static LEN: AtomicUsize = AtomicUsize::new(0);

/// Called by the instrumentation at start, once for each object file, always with the bounds of the whole
/// section, as the linker joins the counters of all of them.
///
/// # Safety
/// `start..stop` must be memory that stays valid, is only used as bytes, and is not moved.
// SAFETY: the name is reserved for exactly this callback and nothing else in the program defines it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    LEN.store((stop as usize).saturating_sub(start as usize), Ordering::Relaxed);
    START.store(start, Ordering::Relaxed);
}

/// Whether the program counts.
#[must_use]
pub fn is_available() -> bool {
    LEN.load(Ordering::Relaxed) > 0
}

/// The counters, eight in a word, as most are zero most of the time. Up to seven at either end that do not
/// fill a word are left out. Code that runs on other threads counts too, so there must be no other worker.
fn counters() -> &'static [AtomicU64] {
    let (start, len) = (START.load(Ordering::Relaxed), LEN.load(Ordering::Relaxed));
    if start.is_null() {
        return &[];
    }
    // SAFETY: the instrumentation passed a section of the running program, which lives as long as it does and
    // is plain bytes; align_to gives the aligned words within it, every bit pattern is a u64, AtomicU64 has its
    // layout, and all accesses from here are atomic.
    unsafe { core::slice::from_raw_parts(start.cast::<u8>(), len).align_to::<AtomicU64>().1 }
}

/// Sets all counters to zero.
pub fn reset() {
    for word in counters() {
        if word.load(Ordering::Relaxed) != 0 {
            word.store(0, Ordering::Relaxed);
        }
    }
}

/// What has been reached so far: for each edge, the set of magnitudes of its counts.
#[derive(Clone, Debug, Default)]
pub struct Reached(Vec<u8>);

impl Reached {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self(vec![0; counters().len() * 8])
    }

    /// Adds the counters as they stand; gives how many (edge, magnitude) pairs were new.
    pub fn merge(&mut self) -> usize {
        let mut new = 0;
        for (word, seen) in counters().iter().zip(self.0.chunks_exact_mut(8)) {
            let word = word.load(Ordering::Relaxed);
            if word == 0 {
                continue;
            }
            for (count, seen) in word.to_ne_bytes().into_iter().zip(seen) {
                let bit = magnitude(count);
                if bit & !*seen != 0 {
                    *seen |= bit;
                    new += 1;
                }
            }
        }
        new
    }

    /// As [`merge`](Self::merge), but gives how many edges were reached for the first time.
    pub fn merge_edges(&mut self) -> usize {
        let before = self.edges();
        self.merge();
        self.edges() - before
    }

    /// How many edges were reached.
    #[must_use]
    pub fn edges(&self) -> usize {
        self.0.iter().filter(|&&seen| seen != 0).count()
    }
}

/// Counts that differ only a little are the same: 1, 2, 3, 4.., 8.., 16.., 32.., 128...
fn magnitude(count: u8) -> u8 {
    match count {
        0 => 0,
        1 => 1,
        2 => 2,
        3 => 4,
        4..=7 => 8,
        8..=15 => 16,
        16..=31 => 32,
        32..=127 => 64,
        128.. => 128,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magnitudes_are_single_bits_that_grow() {
        let mut last = 0;
        for count in 0..=u8::MAX {
            let bit = magnitude(count);
            assert!(bit >= last && (bit.is_power_of_two() || count == 0));
            last = bit;
        }
        assert_eq!(last, 128);
    }
}

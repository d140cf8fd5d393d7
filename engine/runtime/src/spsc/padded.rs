//! A value alone on its cache lines.

#![forbid(unsafe_code)]

use std::ops::Deref;

/// Keeps what two threads write apart. 128 bytes: the adjacent-line prefetcher of x86 works on pairs of lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Padded<T>(pub(super) T);

impl<T> Deref for Padded<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

//! A block of zeroed, page-aligned memory that is mapped and touched once, at start.
//!
//! Owns the mapping. Never hands out references by itself: users lease disjoint parts of it by pointer,
//! each under its own rule of exclusion. Invariant: the mapping outlives every pointer into it because
//! every user holds the `Region`, or a counted reference to what holds it.

#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;

/// An anonymous private mapping, readable and writable.
#[derive(Debug)]
pub(crate) struct Region {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; the type offers no access by itself.
unsafe impl Send for Region {}
// SAFETY: as above; `&Region` gives out only the base address.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `len` bytes (at least one) and touches every page, so that no page fault comes later.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when the machine or the cgroup has no room.
    pub(crate) fn map(len: usize) -> io::Result<Self> {
        let len = len.max(1);
        // SAFETY: a new anonymous mapping at an address of the kernel's choice aliases nothing.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // A child must not share packet memory that the kernel writes to; failing is harmless.
        // SAFETY: the range is exactly the mapping made above.
        unsafe { libc::madvise(base, len, libc::MADV_DONTFORK) };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let region = Self { base, len };
        // Large pages where there are any: lone datagrams lie 64 KiB apart, each on a page of its own that the processor would
        // have to look up. The kernel may refuse.
        // SAFETY: the range is exactly the mapping made above.
        unsafe { libc::madvise(region.base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        // SAFETY: as above; what is written are the zeroes that are there.
        let result = unsafe { libc::madvise(region.base.as_ptr().cast(), len, libc::MADV_POPULATE_WRITE) };
        if result == 0 { Ok(region) } else { Err(io::Error::last_os_error()) }
    }

    /// The first byte; page-aligned.
    #[inline]
    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the range is the mapping of `map`, unmapped once.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_zeroed_and_page_aligned() {
        let region = Region::map(10_000).unwrap();
        assert_eq!(region.base() as usize % 4096, 0);
        // SAFETY: the region is 10 000 bytes long and nobody else refers to it.
        let bytes = unsafe { std::slice::from_raw_parts(region.base(), 10_000) };
        assert!(bytes.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn too_large_is_an_error() {
        assert!(Region::map(usize::MAX / 2).is_err());
    }
}

//! A pool of equal byte buffers that threads fill, pass on and give back without a copy: an encoder fills one,
//! a network thread reads it, and dropping it makes it free again on whatever thread that happens.
//!
//! Owns the memory. Never grows: an empty pool answers `None`, counted. Invariant: an index is either on the free
//! list or in exactly one [`Lease`].
//!
//! The free list is a stack of indices. Its head carries a counter beside the index, raised by every change,
//! so that a compare-and-swap cannot mistake a list that changed and changed back for one that did not.

#![allow(unsafe_code)]

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::padded::Padded;
use crate::sys::Region;

/// End of the free list.
const NONE: u32 = u32::MAX;

/// A fixed number of buffers. Cloning shares the pool.
#[derive(Clone, Debug)]
pub struct Slab {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    region: Region,
    buffer_len: usize,
    stride: usize,
    /// The free buffer below each free buffer.
    next: Box<[AtomicU32]>,
    /// Change counter (upper half) and index of the first free buffer (lower half).
    head: Padded<AtomicU64>,
    exhausted: Padded<AtomicU64>,
}

/// The bytes do not fit the buffer that is leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{needed} bytes do not fit the {free} that are free in the buffer")]
pub struct Full {
    /// Bytes that were to be added.
    pub needed: usize,
    /// Bytes that were free.
    pub free: usize,
}

impl Slab {
    /// Maps `count` buffers of `buffer_len` bytes.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when the memory cannot be mapped; `EINVAL` for no buffer, an empty one, or 2^32 - 1 or more.
    pub fn new(count: usize, buffer_len: usize) -> io::Result<Self> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        if count == 0 || buffer_len == 0 || count >= NONE as usize {
            return Err(invalid());
        }
        // Each begins on cache lines of its own: two threads write neighbours.
        let stride = buffer_len.checked_next_multiple_of(128).ok_or_else(invalid)?;
        let region = Region::map(stride.checked_mul(count).ok_or_else(invalid)?)?;
        let below = |index: u32| if index + 1 < count as u32 { index + 1 } else { NONE };
        Ok(Self {
            shared: Arc::new(Shared {
                region,
                buffer_len,
                stride,
                next: (0..count as u32).map(|index| AtomicU32::new(below(index))).collect(),
                head: Padded(AtomicU64::new(0)),
                exhausted: Padded(AtomicU64::new(0)),
            }),
        })
    }

    /// Takes a free buffer, with no bytes in it yet. `None` (counted) when all are leased.
    #[inline]
    #[must_use]
    pub fn lease(&self) -> Option<Lease> {
        let shared = &self.shared;
        let mut head = shared.head.load(Ordering::Acquire);
        loop {
            let (changes, index) = unpack(head);
            let Some(next) = shared.next.get(index as usize) else {
                shared.exhausted.fetch_add(1, Ordering::Relaxed);
                return None;
            };
            // May be stale if another thread was faster; then the swap fails.
            let rest = pack(changes.wrapping_add(1), next.load(Ordering::Relaxed));
            match shared.head.compare_exchange_weak(head, rest, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(Lease { shared: Arc::clone(shared), index, len: 0 }),
                Err(changed) => head = changed,
            }
        }
    }

    /// Bytes that each buffer can hold.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        self.shared.buffer_len
    }

    /// Times that [`lease`](Self::lease) found nothing free.
    #[must_use]
    pub fn exhausted(&self) -> u64 {
        self.shared.exhausted.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn put_back(&self, index: u32) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            let (changes, first) = unpack(head);
            self.next[index as usize].store(first, Ordering::Relaxed);
            // Release: what was read from the buffer, and the link above, come before the next lease.
            let longer = pack(changes.wrapping_add(1), index);
            match self.head.compare_exchange_weak(head, longer, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(changed) => head = changed,
            }
        }
    }
}

/// A leased buffer. Dereferences to the bytes that were put into it; dropping it gives it back.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<Shared>,
    index: u32,
    len: usize,
}

impl Lease {
    /// Bytes that it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.buffer_len
    }

    /// Appends bytes.
    ///
    /// # Errors
    ///
    /// [`Full`], and nothing is appended, when they do not fit.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let len = self.len;
        let free = self.capacity() - len;
        if bytes.len() > free {
            return Err(Full { needed: bytes.len(), free });
        }
        self.whole_mut()[len..len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }

    /// The whole buffer, for writing in place; its content is unspecified (a former use, or zeroes). Say with
    /// [`set_len`](Self::set_len) how much was written.
    #[must_use]
    pub fn whole_mut(&mut self) -> &mut [u8] {
        // SAFETY: the buffer is mapped, initialised and alive while `shared` is; this index is leased to
        // nobody else, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base(), self.shared.buffer_len) }
    }

    /// Says that the first `len` bytes are in use; more than the capacity counts as the capacity.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.capacity());
    }

    #[inline]
    fn base(&self) -> *mut u8 {
        // SAFETY: `index` is below the number of buffers that the region was mapped for.
        unsafe { self.shared.region.base().add(self.index as usize * self.shared.stride) }
    }
}

impl Deref for Lease {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: as in `whole_mut`, with `&self` for shared access; `len` is at most the buffer's length.
        unsafe { std::slice::from_raw_parts(self.base(), self.len) }
    }
}

impl DerefMut for Lease {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `whole_mut`; `len` is at most the buffer's length.
        unsafe { std::slice::from_raw_parts_mut(self.base(), self.len) }
    }
}

impl Drop for Lease {
    #[inline]
    fn drop(&mut self) {
        self.shared.put_back(self.index);
    }
}

const fn pack(changes: u32, index: u32) -> u64 {
    (changes as u64) << 32 | index as u64
}

const fn unpack(head: u64) -> (u32, u32) {
    ((head >> 32) as u32, head as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn running_out_is_counted_and_giving_back_helps() {
        let slab = Slab::new(2, 100).unwrap();
        let (first, second) = (slab.lease().unwrap(), slab.lease().unwrap());
        assert!(slab.lease().is_none());
        assert_eq!(slab.exhausted(), 1);
        drop(first);
        assert!(slab.lease().is_some());
        drop(second);
        assert!(slab.lease().is_some());
    }

    #[test]
    fn bytes_are_appended_or_refused_whole() {
        let slab = Slab::new(1, 10).unwrap();
        let mut lease = slab.lease().unwrap();
        assert!(lease.is_empty());
        lease.extend_from_slice(b"hello").unwrap();
        assert_eq!(lease.extend_from_slice(b"world!"), Err(Full { needed: 6, free: 5 }));
        lease.extend_from_slice(b"world").unwrap();
        assert_eq!(&*lease, b"helloworld");
        lease.set_len(1000);
        assert_eq!(lease.len(), 10);
        lease[0] = b'j';
        lease.set_len(5);
        assert_eq!(&*lease, b"jello");
        drop(lease);
        assert!(slab.lease().unwrap().is_empty(), "a new lease begins empty");
    }

    #[test]
    fn impossible_pools_are_refused() {
        for (count, len) in [(0, 1), (1, 0), (usize::MAX, 1), (2, usize::MAX / 2)] {
            assert!(Slab::new(count, len).is_err(), "{count} x {len}");
        }
    }

    /// Four threads lease, stamp, check and return; a buffer in two hands would show a foreign stamp.
    #[test]
    fn no_buffer_is_in_two_hands() {
        let slab = Slab::new(3, 64).unwrap();
        let threads: Vec<_> = (1..=4u8)
            .map(|stamp| {
                let slab = slab.clone();
                thread::spawn(move || {
                    let mut leased = 0u32;
                    while leased < 20_000 {
                        let Some(mut lease) = slab.lease() else {
                            thread::yield_now();
                            continue;
                        };
                        lease.whole_mut().fill(stamp);
                        if leased.is_multiple_of(64) {
                            thread::yield_now();
                        }
                        lease.set_len(64);
                        assert!(lease.iter().all(|&byte| byte == stamp));
                        leased += 1;
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let all: Vec<Lease> = std::iter::from_fn(|| slab.lease()).collect();
        assert_eq!(all.len(), 3, "none lost, none doubled");
    }

    #[test]
    fn travels_to_another_thread_and_back() {
        let slab = Slab::new(4, 1000).unwrap();
        let (mut producer, mut consumer) = crate::spsc::ring::<Lease>(4);
        let reader = thread::spawn(move || {
            let mut sum = 0u64;
            for _ in 0..1000 {
                let lease = loop {
                    match consumer.pop() {
                        Some(lease) => break lease,
                        None => thread::yield_now(),
                    }
                };
                sum += u64::from(u32::from_ne_bytes(*lease.first_chunk().unwrap()));
            }
            sum
        });
        for value in 0..1000u32 {
            let mut lease = loop {
                match slab.lease() {
                    Some(lease) => break lease,
                    None => thread::yield_now(),
                }
            };
            lease.extend_from_slice(&value.to_ne_bytes()).unwrap();
            let mut item = lease;
            while let Err(back) = producer.push(item) {
                item = back;
                thread::yield_now();
            }
        }
        assert_eq!(reader.join().unwrap(), 499_500);
    }
}

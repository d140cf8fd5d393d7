//! Send slots: a fixed set of datagram-sized buffers that one thread leases and returns.
//!
//! Owns the memory. Never grows and never blocks: an empty pool answers `None`. Invariant: an index is
//! either in the free list or in exactly one [`TxSlot`], so two slots never overlap.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::io;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use super::Region;
use crate::transport::TX_SLOT_LEN;

/// Distance between slots: no power of two, or the beginnings of all of them would share a few lines of every cache. 21 lines further
/// each, a lone datagram's length.
const STRIDE: usize = 65_536 + 21 * 64;
const _: () = assert!(STRIDE >= TX_SLOT_LEN);

/// A fixed number of send slots for one thread. Cloning shares the pool.
#[derive(Clone, Debug)]
pub struct TxPool {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    region: Region,
    /// Free indices, used as a stack: the slot returned last is the one still in the cache.
    free: RefCell<Vec<u32>>,
}

impl TxPool {
    /// Maps memory for `slots` slots (64 KiB each).
    ///
    /// # Errors
    ///
    /// `ENOMEM` when it cannot be mapped; `EINVAL` for more than 65536 slots.
    pub fn new(slots: usize) -> io::Result<Self> {
        if slots > 65_536 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let region = Region::map(slots * STRIDE)?;
        let free = (0..slots as u32).rev().collect();
        Ok(Self { shared: Rc::new(Shared { region, free: RefCell::new(free) }) })
    }

    /// Takes a free slot, the most recently used first. Its content is unspecified.
    #[inline]
    #[must_use]
    pub fn acquire(&self) -> Option<TxSlot> {
        let index = self.shared.free.borrow_mut().pop()?;
        Some(TxSlot { shared: Rc::clone(&self.shared), index })
    }

    /// Slots that are free now.
    #[must_use]
    pub fn available(&self) -> usize {
        self.shared.free.borrow().len()
    }
}

/// A leased buffer of [`TX_SLOT_LEN`] bytes. Dropping it returns it to its pool.
#[derive(Debug)]
pub struct TxSlot {
    shared: Rc<Shared>,
    index: u32,
}

impl TxSlot {
    #[inline]
    fn base(&self) -> *mut u8 {
        // SAFETY: `index` is below the number of slots the region was mapped for.
        unsafe { self.shared.region.base().add(self.index as usize * STRIDE) }
    }
}

impl Deref for TxSlot {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the slot's bytes are mapped, initialised (zeroed by the kernel) and alive while `shared`
        // is; the pool gave this index to nobody else, so `&self` guards them.
        unsafe { std::slice::from_raw_parts(self.base(), TX_SLOT_LEN) }
    }
}

impl DerefMut for TxSlot {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base(), TX_SLOT_LEN) }
    }
}

impl Drop for TxSlot {
    #[inline]
    fn drop(&mut self) {
        // The list was made with room for every index, so this never allocates.
        self.shared.free.borrow_mut().push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_do_not_overlap_and_come_back() {
        let pool = TxPool::new(3).unwrap();
        let mut slots: Vec<TxSlot> = std::iter::from_fn(|| pool.acquire()).collect();
        assert_eq!(slots.len(), 3);
        assert_eq!(pool.available(), 0);
        for (value, slot) in slots.iter_mut().enumerate() {
            slot.fill(value as u8 + 1);
        }
        for (value, slot) in slots.iter().enumerate() {
            assert_eq!(slot.len(), TX_SLOT_LEN);
            assert!(slot.iter().all(|&byte| byte == value as u8 + 1));
        }
        drop(slots.pop());
        assert_eq!(pool.available(), 1);
        assert_eq!(pool.acquire().unwrap()[0], 3, "the last returned slot is handed out first");
    }

    #[test]
    fn a_slot_outlives_its_pool() {
        let mut slot = TxPool::new(1).unwrap().acquire().unwrap();
        slot[TX_SLOT_LEN - 1] = 7;
        assert_eq!(slot[TX_SLOT_LEN - 1], 7);
    }
}

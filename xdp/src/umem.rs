//! Packet memory that is shared with the kernel, cut into frames.
//!
//! Owns the memory (UMEM) and knows where each frame is. Never grows.
//!
//! Invariant: a frame is in exactly one place: in the pool, named by one [`Frame`], or lent to the kernel through
//! one ring. A `Frame` is neither `Copy` nor `Clone`; [`lend`](Umem::lend) consumes it and yields the address that
//! goes into a ring, and only [`take_back`](Umem::take_back) makes one again, if the frame was lent to that very
//! ring. So no frame is in two rings, and its bytes are touched only by who holds its token.

#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;

/// The right to use one frame. Lose it and the frame is lost until the UMEM is dropped.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that is not handed on is lost"]
pub(crate) struct Frame(u32);

/// Which way a frame was lent to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lent {
    /// To be filled, through the fill ring; comes back through the receive ring.
    ToFill,
    /// To be sent, through the transmit ring; comes back through the completion ring.
    ToSend,
}

/// Where a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Here,
    Kernel(Lent),
}

/// Frames of equal size.
pub(crate) struct Umem {
    memory: Memory,
    frame_len: usize,
    places: Vec<Place>,
    /// Frames that nobody uses; the one returned last, which is still in the cache, is taken first.
    pool: Vec<Frame>,
}

impl Umem {
    /// Maps `frames` frames of `frame_len` bytes, a power of two from 2048 to a page.
    pub(crate) fn map(frames: u32, frame_len: usize) -> io::Result<Self> {
        let memory = Memory::map(frames as usize * frame_len)?;
        Ok(Self {
            memory,
            frame_len,
            places: vec![Place::Here; frames as usize],
            pool: (0..frames).rev().map(Frame).collect(),
        })
    }

    /// First byte and length, for registering it.
    pub(crate) fn registration(&self) -> (u64, u64) {
        (self.memory.base.as_ptr() as u64, self.memory.len as u64)
    }

    /// Bytes in a frame.
    #[inline]
    pub(crate) fn frame_len(&self) -> usize {
        self.frame_len
    }

    /// Takes a frame from the pool.
    #[inline]
    pub(crate) fn acquire(&mut self) -> Option<Frame> {
        self.pool.pop()
    }

    /// Returns a frame to the pool.
    #[inline]
    pub(crate) fn release(&mut self, frame: Frame) {
        // Made with room for all frames: this never allocates.
        self.pool.push(frame);
    }

    /// Frames in the pool.
    #[cfg(test)]
    pub(crate) fn available(&self) -> usize {
        self.pool.len()
    }

    /// The frame's bytes.
    #[inline]
    pub(crate) fn bytes_mut<'a>(&'a mut self, frame: &'a mut Frame) -> &'a mut [u8] {
        // SAFETY: a frame's number is below the count that was mapped; the memory is initialised (zeroed by the
        // kernel) and mapped while `self` is. Its only token is borrowed exclusively, so neither the kernel, which
        // has been lent other frames, nor another slice refers to these bytes.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.memory.base.add(frame.0 as usize * self.frame_len).as_ptr(),
                self.frame_len,
            )
        }
    }

    /// Gives up a frame to the kernel: the address to push to that ring.
    #[inline]
    pub(crate) fn lend(&mut self, frame: Frame, how: Lent) -> u64 {
        self.places[frame.0 as usize] = Place::Kernel(how);
        u64::from(frame.0) * self.frame_len as u64
    }

    /// The frame that holds an address which the kernel gave back through the ring of `how`, and the offset in it.
    /// `None` for a frame that was not lent that way: a fault of the kernel, and no frame to be touched.
    #[inline]
    pub(crate) fn take_back(&mut self, address: u64, how: Lent) -> Option<(Frame, usize)> {
        let number = usize::try_from(address).ok()? / self.frame_len;
        let offset = (address % self.frame_len as u64) as usize;
        let place = self.places.get_mut(number)?;
        if *place != Place::Kernel(how) {
            return None;
        }
        *place = Place::Here;
        Some((Frame(number as u32), offset))
    }
}

/// Zeroed memory of its own mapping.
struct Memory {
    base: NonNull<u8>,
    len: usize,
}

impl Memory {
    fn map(len: usize) -> io::Result<Self> {
        // SAFETY: a new private mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // A child must not share memory that the kernel writes to; failing is harmless.
        // SAFETY: the range is exactly the mapping made above.
        unsafe { libc::madvise(base, len, libc::MADV_DONTFORK) };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        Ok(Self { base, len })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the range is the mapping of `map`, unmapped once. The kernel keeps pages of its own pinned for
        // as long as a socket uses them.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::tests::Plain;
    use crate::ring::{Consumer, Producer};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const FRAMES: u32 = 8;
    const LEN: usize = 2048;

    #[test]
    fn a_frame_comes_back_only_the_way_it_was_lent() {
        let mut umem = Umem::map(2, LEN).unwrap();
        let frame = umem.acquire().unwrap();
        let address = umem.lend(frame, Lent::ToSend);
        assert!(umem.take_back(address, Lent::ToFill).is_none(), "the other ring");
        assert!(umem.take_back(1 << 40, Lent::ToSend).is_none(), "no such frame");
        let (frame, offset) = umem.take_back(address + 77, Lent::ToSend).unwrap();
        assert_eq!(offset, 77);
        assert!(umem.take_back(address, Lent::ToSend).is_none(), "a second time");
        umem.release(frame);
        assert_eq!(umem.available(), 2);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Offer,
        KernelReceives(u8),
        TakeAndRelease,
        Send(u8),
        KernelSends,
        Reap,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Offer),
            any::<u8>().prop_map(Step::KernelReceives),
            Just(Step::TakeAndRelease),
            any::<u8>().prop_map(Step::Send),
            Just(Step::KernelSends),
            Just(Step::Reap),
        ]
    }

    proptest! {
        /// All four rings on plain memory, with a kernel that obeys: no frame is ever in two places, none is lost,
        /// and what was written to a frame is what the other side finds in it.
        #[test]
        fn frames_are_never_in_two_places(steps in proptest::collection::vec(step(), 0..300)) {
            let mut umem = Umem::map(FRAMES, LEN).unwrap();
            let (fill, rx) = (Plain::<u64>::new(4), Plain::<(u64, u8)>::new(4));
            let (tx, completion) = (Plain::<(u64, u8)>::new(4), Plain::<u64>::new(4));
            let (mut to_fill, mut kernel_fill) = (Producer::new(fill.memory()), Consumer::new(fill.memory()));
            let (mut kernel_rx, mut from_rx) = (Producer::new(rx.memory()), Consumer::new(rx.memory()));
            let (mut to_send, mut kernel_tx) = (Producer::new(tx.memory()), Consumer::new(tx.memory()));
            let (mut kernel_done, mut done) =
                (Producer::new(completion.memory()), Consumer::new(completion.memory()));
            let (base, _) = umem.registration();
            let mut with_kernel = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Offer => {
                        if to_fill.has_room() && let Some(frame) = umem.acquire() {
                            let address = umem.lend(frame, Lent::ToFill);
                            prop_assert!(with_kernel.insert(address), "lent twice");
                            prop_assert!(to_fill.push(address));
                            to_fill.publish();
                        }
                    }
                    Step::KernelReceives(value) => {
                        if kernel_rx.has_room() && let Some(address) = kernel_fill.pop() {
                            kernel_fill.release();
                            // SAFETY: the address lies in the mapping, and its frame is lent to this "kernel".
                            unsafe { *((base + address) as *mut u8) = value };
                            kernel_rx.push((address, value));
                            kernel_rx.publish();
                        }
                    }
                    Step::TakeAndRelease => {
                        if let Some((address, value)) = from_rx.pop() {
                            from_rx.release();
                            prop_assert!(with_kernel.remove(&address));
                            let (mut frame, _) = umem.take_back(address, Lent::ToFill).unwrap();
                            prop_assert_eq!(umem.bytes_mut(&mut frame)[0], value);
                            umem.release(frame);
                        }
                    }
                    Step::Send(value) => {
                        if to_send.has_room() && let Some(mut frame) = umem.acquire() {
                            umem.bytes_mut(&mut frame)[0] = value;
                            let address = umem.lend(frame, Lent::ToSend);
                            prop_assert!(with_kernel.insert(address), "lent twice");
                            to_send.push((address, value));
                            to_send.publish();
                        }
                    }
                    Step::KernelSends => {
                        if kernel_done.has_room() && let Some((address, value)) = kernel_tx.pop() {
                            kernel_tx.release();
                            // SAFETY: as above.
                            prop_assert_eq!(unsafe { *((base + address) as *const u8) }, value);
                            kernel_done.push(address);
                            kernel_done.publish();
                        }
                    }
                    Step::Reap => {
                        if let Some(address) = done.pop() {
                            done.release();
                            prop_assert!(with_kernel.remove(&address));
                            let (frame, _) = umem.take_back(address, Lent::ToSend).unwrap();
                            umem.release(frame);
                        }
                    }
                }
                prop_assert_eq!(umem.available() + with_kernel.len(), FRAMES as usize, "none lost or doubled");
            }
        }
    }
}

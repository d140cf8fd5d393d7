//! The system calls of `AF_XDP` sockets (linux/if_xdp.h).

#![allow(unsafe_code)]

use std::any::Any;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::AtomicU32;

use crate::ring::RingMemory;

/// `struct xdp_desc`: a frame to send or received.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) options: u32,
}

/// Which ring.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ring {
    Fill,
    Completion,
    Receive,
    Transmit,
}

/// Options of linux/socket.h that libc does not name.
const SO_PREFER_BUSY_POLL: libc::c_int = 69;
const SO_BUSY_POLL_BUDGET: libc::c_int = 70;

/// A new socket.
pub(crate) fn open() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed; the result is checked before it is used.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just returned to us and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Registers packet memory. It must stay mapped for as long as the socket is open.
pub(crate) fn register_umem(fd: BorrowedFd<'_>, (addr, len): (u64, u64), frame_len: usize) -> io::Result<()> {
    let registration = libc::xdp_umem_reg {
        addr,
        len,
        chunk_size: frame_len as u32,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    set(fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &registration)
}

/// Sizes a ring and maps it. `T` is the ring's entry type: `u64`, or [`Descriptor`] for the last two rings.
pub(crate) fn map_ring<T: Copy + 'static>(
    fd: BorrowedFd<'_>,
    ring: Ring,
    entries: u32,
) -> io::Result<RingMemory<T>> {
    let (option, page_offset) = match ring {
        Ring::Fill => (libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t),
        Ring::Completion => {
            (libc::XDP_UMEM_COMPLETION_RING, libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t)
        }
        Ring::Receive => (libc::XDP_RX_RING, libc::XDP_PGOFF_RX_RING),
        Ring::Transmit => (libc::XDP_TX_RING, libc::XDP_PGOFF_TX_RING),
    };
    set(fd, libc::SOL_XDP, option, &entries)?;
    // SAFETY: the structure is integers, for which all zeroes is valid.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
    get(fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
    let at = match ring {
        Ring::Fill => offsets.fr,
        Ring::Completion => offsets.cr,
        Ring::Receive => offsets.rx,
        Ring::Transmit => offsets.tx,
    };
    let len = at.desc as usize + entries as usize * size_of::<T>();
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_POPULATE,
            fd.as_raw_fd(),
            page_offset,
        )
    };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
    let owner: Rc<dyn Any> = Rc::new(Mapping { base, len });
    // SAFETY: the kernel's offsets lie within the mapping, aligned for their types; the entries are integers. The
    // mapping lives as long as `owner`. Each ring of a socket is mapped once, by its one `Socket`.
    unsafe {
        Ok(RingMemory::new(
            base.add(at.producer as usize).cast::<AtomicU32>(),
            base.add(at.consumer as usize).cast::<AtomicU32>(),
            base.add(at.flags as usize).cast::<AtomicU32>(),
            base.add(at.desc as usize).cast::<T>(),
            entries,
            owner,
        ))
    }
}

struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is the mapping of `map_ring`, unmapped once.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Binds to a queue of a device. `flags` are `XDP_*` of `sxdp_flags`.
pub(crate) fn bind(fd: BorrowedFd<'_>, device: u32, queue: u32, flags: u16) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: device,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: 0,
    };
    // SAFETY: `address` is valid for reads of the size that is passed.
    check(unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_xdp>() as libc::socklen_t,
        )
    })
}

/// Whether the driver shares the frames instead of copying them.
pub(crate) fn is_zero_copy(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut options = libc::xdp_options { flags: 0 };
    get(fd, libc::SOL_XDP, libc::XDP_OPTIONS, &mut options)?;
    Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// What the kernel dropped on the way to and from the socket.
pub(crate) fn statistics(fd: BorrowedFd<'_>) -> io::Result<libc::xdp_statistics> {
    // SAFETY: the structure is integers, for which all zeroes is valid.
    let mut statistics: libc::xdp_statistics = unsafe { std::mem::zeroed() };
    get(fd, libc::SOL_XDP, libc::XDP_STATISTICS, &mut statistics)?;
    Ok(statistics)
}

/// Has the caller's own system calls drive the device's queue, in place of interrupts.
pub(crate) fn prefer_busy_poll(fd: BorrowedFd<'_>, budget: i32) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, &1i32)?;
    set(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, &20i32)?;
    set(fd, libc::SOL_SOCKET, SO_BUSY_POLL_BUDGET, &budget)
}

/// Makes the kernel send what is in the transmit ring.
#[inline]
pub(crate) fn kick_transmit(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: an empty message without an address: no memory is read.
    let sent =
        unsafe { libc::sendto(fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets the kernel work on the receive side: refill from the fill ring, and poll the device's queue.
#[inline]
pub(crate) fn kick_receive(fd: BorrowedFd<'_>) {
    // SAFETY: an empty buffer without an address: no memory is written. The result tells nothing that the rings
    // do not.
    unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            std::ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
}

fn set<T>(fd: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is valid for reads of the size that is passed.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })
}

fn get<T>(fd: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: &mut T) -> io::Result<()> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is valid for writes of `len` bytes, and its callers' types are structures of integers.
    check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, option, std::ptr::from_mut(value).cast(), &raw mut len)
    })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

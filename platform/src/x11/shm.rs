//! Memory that this process and the X server both see.
//!
//! Owns one mapping and its id on the server. A segment is made from an anonymous file whose descriptor is passed to the
//! server (MIT-SHM 1.2), or, where the server is older, from System V shared memory that is marked for removal as
//! soon as both sides have it, so that nothing outlives the processes.
//!
//! Invariant: the server writes only while it works on a request of this connection that names the segment, and a
//! [`Segment`] is read only when no such request is in flight. Its user keeps to that; see [`Segment::bytes`].
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use x11rb::connection::Connection as _;
use x11rb::protocol::shm;

use super::display::Display;
use crate::error::{DeviceError, DeviceFault, Retry};

/// A block of memory shared with the X server.
#[derive(Debug)]
pub(super) struct Segment {
    mapping: Mapping,
    id: shm::Seg,
}

impl Segment {
    /// `len` bytes shared with the server of `display`, all zero.
    pub(super) fn new(display: &Display, len: usize) -> Result<Self, DeviceError> {
        let version = shm::query_version(display.conn())
            .map_err(|e| display.connection_error("query MIT-SHM", e))?
            .reply()
            .map_err(|e| display.reply_error("query MIT-SHM", e))?;
        let by_descriptor = if (version.major_version, version.minor_version) >= (1, 2) {
            Self::by_descriptor(display, len)
        } else {
            Err(io::Error::from(io::ErrorKind::Unsupported))
        };
        by_descriptor.or_else(|first| Self::by_key(display, len).map_err(|second| (first, second))).map_err(
            |(by_descriptor, by_key)| {
                let advice = format!(
                    "The X server cannot share {len} bytes of memory with this process: by descriptor: \
                     {by_descriptor}; by System V: {by_key}. It must run on this machine, in the same container."
                );
                DeviceError::new(display.name(), "share memory", DeviceFault::System, Retry::Never, advice)
            },
        )
    }

    /// Its id on the server.
    pub(super) fn id(&self) -> shm::Seg {
        self.id
    }

    /// Its size.
    pub(super) fn len(&self) -> usize {
        self.mapping.len
    }

    /// What the server wrote. Must not be held while a request that writes to this segment is in flight, which the
    /// exclusive borrow of the capture source that owns the segment sees to: requests are made and answered within
    /// one call, and what the call returns borrows the source.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is `len` bytes long and lives as long as `self`. No request that writes to it is in
        // flight (see above), so nobody writes while the slice is there; any bytes are valid u8.
        unsafe { std::slice::from_raw_parts(self.mapping.at.as_ptr().cast_const(), self.mapping.len) }
    }

    /// Ends the server's side.
    pub(super) fn release(self, display: &Display) -> Result<(), DeviceError> {
        let cookie = shm::detach(display.conn(), self.id)
            .map_err(|e| display.connection_error("release memory", e))?;
        cookie.ignore_error();
        Ok(())
    }

    fn by_descriptor(display: &Display, len: usize) -> io::Result<Self> {
        let file = memfd_create("wavry-capture", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, len as u64)?;
        let mapping = Mapping::of_file(&file, len)?;
        let id = display.conn().generate_id().map_err(io::Error::other)?;
        shm::attach_fd(display.conn(), id, file, false)
            .map_err(io::Error::other)?
            .check()
            .map_err(io::Error::other)?;
        Ok(Self { mapping, id })
    }

    fn by_key(display: &Display, len: usize) -> io::Result<Self> {
        let (mapping, key) = Mapping::of_system_v(len)?;
        let attached = display.conn().generate_id().map_err(io::Error::other).and_then(|id| {
            let cookie =
                shm::attach(display.conn(), id, key.cast_unsigned(), false).map_err(io::Error::other)?;
            cookie.check().map_err(io::Error::other)?;
            Ok(id)
        });
        // SAFETY: plain system call on an id that shmget returned; no memory is passed. Both sides are attached by
        // now (or the server has refused), so the memory lives on until the last of them lets go.
        unsafe { libc::shmctl(key, libc::IPC_RMID, std::ptr::null_mut()) };
        Ok(Self { mapping, id: attached? })
    }
}

/// Memory of this process that ends with the value.
#[derive(Debug)]
struct Mapping {
    at: NonNull<u8>,
    len: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    File,
    SystemV,
}

// SAFETY: the mapping is plain memory without ties to the thread that made it, and `Mapping` is its only owner in this
// process.
unsafe impl Send for Mapping {}
// SAFETY: through a shared reference it can only be read.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn of_file(file: &OwnedFd, len: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that Rust knows of.
        let at = unsafe {
            mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0)
        }?;
        let at = NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { at, len, kind: Kind::File })
    }

    fn of_system_v(len: usize) -> io::Result<(Self, libc::c_int)> {
        // SAFETY: plain system call; no memory is passed.
        let key = unsafe { libc::shmget(libc::IPC_PRIVATE, len, libc::IPC_CREAT | 0o600) };
        if key < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that Rust knows of.
        let at = unsafe { libc::shmat(key, std::ptr::null(), 0) };
        if at.addr() == usize::MAX {
            let error = io::Error::last_os_error();
            // SAFETY: plain system call on the id from above; no memory is passed.
            unsafe { libc::shmctl(key, libc::IPC_RMID, std::ptr::null_mut()) };
            return Err(error);
        }
        let at = NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok((Self { at, len, kind: Kind::SystemV }, key))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // A failure to unmap cannot be acted on; the memory stays until the process ends.
        match self.kind {
            Kind::File => {
                // SAFETY: exactly the range that mmap returned, unmapped once; slices of it borrow `self`.
                let _ = unsafe { munmap(self.at.as_ptr().cast(), self.len) };
            }
            Kind::SystemV => {
                // SAFETY: exactly the address that shmat returned, detached once; slices of it borrow `self`.
                unsafe { libc::shmdt(self.at.as_ptr().cast()) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x11::Xvfb;
    use x11rb::protocol::xproto::ImageFormat;

    /// A screen read through `segment` must be what is on it: black after the server's start.
    fn reads_black(display: &Display, segment: &Segment) {
        let image = shm::get_image(
            display.conn(),
            display.root(),
            0,
            0,
            64,
            48,
            u32::MAX,
            ImageFormat::Z_PIXMAP.into(),
            segment.id(),
            4,
        );
        let reply = image.unwrap().reply().unwrap();
        assert_eq!(reply.size, 64 * 48 * 4);
        assert!(segment.bytes()[4..].as_chunks::<4>().0.iter().all(|pixel| pixel[..3] == [0; 3]));
    }

    #[test]
    fn both_kinds_of_memory_work() {
        let server = Xvfb::start(64, 48).unwrap();
        let display = Display::connect(Some(server.display())).unwrap();
        let len = 64 * 48 * 4 + 4;
        for make in [Segment::by_descriptor, Segment::by_key] {
            let segment = make(&display, len).unwrap();
            assert_eq!(segment.len(), len);
            // SAFETY: no request is in flight and this thread holds no slice of the memory.
            unsafe { segment.mapping.at.as_ptr().write_bytes(0xaa, len) };
            reads_black(&display, &segment);
            assert_eq!(segment.bytes()[..4], [0xaa; 4], "written where it should be");
            segment.release(&display).unwrap();
        }
    }

    #[test]
    fn memory_that_is_too_small_is_refused_by_the_server() {
        let server = Xvfb::start(64, 48).unwrap();
        let display = Display::connect(Some(server.display())).unwrap();
        let segment = Segment::new(&display, 64).unwrap();
        let image = shm::get_image(
            display.conn(),
            display.root(),
            0,
            0,
            64,
            48,
            u32::MAX,
            ImageFormat::Z_PIXMAP.into(),
            segment.id(),
            0,
        );
        assert!(image.unwrap().reply().is_err());
    }
}

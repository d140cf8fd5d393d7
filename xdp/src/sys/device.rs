//! Names and indices of network devices.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The index of the device called `name` in the calling thread's network namespace.
pub(crate) fn index_of(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: `name` is a NUL-terminated string that lives through the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// The name of the device with this index.
pub(crate) fn name_of(index: u32) -> io::Result<String> {
    let mut name = [0 as libc::c_char; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the call fills at most.
    if unsafe { libc::if_indextoname(index, name.as_mut_ptr()) }.is_null() {
        return Err(io::Error::last_os_error());
    }
    let bytes: Vec<u8> = name.iter().map(|c| c.to_ne_bytes()[0]).take_while(|&byte| byte != 0).collect();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `ETHTOOL_GDRVINFO` and the size of its `struct ethtool_drvinfo` (linux/ethtool.h).
const ETHTOOL_GDRVINFO: u32 = 3;
const DRIVER_INFO_LEN: usize = 196;
/// Where the driver's name lies in it, and how long it may be.
const DRIVER_NAME: std::ops::Range<usize> = 4..36;

/// The name of a device's driver, such as `ixgbe` or `veth`.
pub(crate) fn driver_of(name: &str) -> io::Result<String> {
    // SAFETY: no pointers are passed; the result is checked before it is used.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just returned to us and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // Aligned as the structure's integers are.
    #[repr(C, align(8))]
    struct DriverInfo([u8; DRIVER_INFO_LEN]);
    let mut info = DriverInfo([0; DRIVER_INFO_LEN]);
    info.0[..4].copy_from_slice(&ETHTOOL_GDRVINFO.to_ne_bytes());
    // SAFETY: all zeroes is valid for this structure of characters and a union of integers and pointers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // SAFETY: `request` names the device and points to a structure of the size that the command fills; both live
    // through the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let name: Vec<u8> = info.0[DRIVER_NAME].iter().copied().take_while(|&byte| byte != 0).collect();
    Ok(String::from_utf8_lossy(&name).into_owned())
}

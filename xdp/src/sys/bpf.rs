//! `bpf(2)` beyond what libbpf-rs offers in safe code.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libbpf_rs::libbpf_sys;

/// Attaches an XDP program to a device by a link: closing the descriptor detaches it. `flags` are `XDP_FLAGS_*`.
pub(crate) fn link_xdp(program: BorrowedFd<'_>, device: u32, flags: u32) -> io::Result<OwnedFd> {
    let device = i32::try_from(device).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    // SAFETY: all zeroes is valid for this structure of integers, null pointers and a union of those.
    let mut options: libbpf_sys::bpf_link_create_opts = unsafe { std::mem::zeroed() };
    options.sz = size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t;
    options.flags = flags;
    // SAFETY: `options` is valid for reads of the size that it names and lives through the call.
    let fd = unsafe {
        libbpf_sys::bpf_link_create(program.as_raw_fd(), device, libbpf_sys::BPF_XDP, &raw const options)
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: `fd` was just returned to us and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Detaches a link at once, whoever else has a copy of its descriptor.
pub(crate) fn detach(link: BorrowedFd<'_>) {
    // SAFETY: no pointers are passed. It fails only if the device is gone, and then nothing is attached.
    unsafe { libbpf_sys::bpf_link_detach(link.as_raw_fd()) };
}

/// What a program made of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunResult {
    pub(crate) verdict: u32,
    /// Bytes written to the output.
    pub(crate) len: usize,
    /// Mean of all repetitions.
    pub(crate) duration_ns: u32,
}

/// Runs an XDP program on one frame without a device (`BPF_PROG_TEST_RUN`). The kernel wants at least the 14
/// bytes of an Ethernet header; the frame comes from the receive queue `queue` of the device `device`, if given.
pub(crate) fn test_run(
    program: BorrowedFd<'_>,
    frame: &[u8],
    output: &mut [u8],
    repeat: u32,
    origin: Option<(u32, u32)>,
) -> io::Result<RunResult> {
    let mut context = libbpf_sys::xdp_md {
        data_end: frame.len() as u32,
        ingress_ifindex: origin.map_or(0, |(device, _)| device),
        rx_queue_index: origin.map_or(0, |(_, queue)| queue),
        ..libbpf_sys::xdp_md::default()
    };
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        data_out: output.as_mut_ptr().cast(),
        data_size_out: output.len() as u32,
        repeat: i32::try_from(repeat).unwrap_or(i32::MAX),
        ..libbpf_sys::bpf_test_run_opts::default()
    };
    if origin.is_some() {
        options.ctx_in = (&raw mut context).cast();
        options.ctx_size_in = size_of_val(&context) as u32;
    }
    // SAFETY: the two buffers and the context are valid for the sizes that are named, the output for writes,
    // and all live through the call.
    let failed = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) };
    if failed < 0 {
        return Err(io::Error::from_raw_os_error(-failed));
    }
    Ok(RunResult {
        verdict: options.retval,
        len: (options.data_size_out as usize).min(output.len()),
        duration_ns: options.duration,
    })
}

/// Runs an XDP program `repeat` times on frames that really travel (`BPF_F_TEST_XDP_LIVE_FRAMES`, Linux 5.18): each
/// begins with the content of `frame` in memory that later runs use again, and goes where the verdict says. `batch`
/// frames leave together.
pub(crate) fn test_run_live(
    program: BorrowedFd<'_>,
    frame: &[u8],
    repeat: u32,
    batch: u32,
) -> io::Result<()> {
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        repeat: i32::try_from(repeat).unwrap_or(i32::MAX),
        batch_size: batch,
        flags: libbpf_sys::BPF_F_TEST_XDP_LIVE_FRAMES,
        ..libbpf_sys::bpf_test_run_opts::default()
    };
    // SAFETY: the frame is valid for reads of the size that is named and lives through the call, and nothing is written.
    let failed = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) };
    if failed < 0 { Err(io::Error::from_raw_os_error(-failed)) } else { Ok(()) }
}

//! What a program is told where a container's policy stands in the way of `io_uring`.
#![allow(missing_docs, unsafe_code, clippy::unwrap_used)]

use std::thread;

use wavry_runtime::kernel::{self, Unsupported};
use wavry_runtime::uring::{OpenError, UringUdp, UringUdpConfig};

/// Makes `io_uring_setup` fail with `errno` for the calling thread and its children, as container runtimes do.
fn forbid_io_uring(errno: u32) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut filter = [
        // The system call's number is the first word of `struct seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: libc::SYS_io_uring_setup as u32,
        },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: no pointers in the first call; the second reads `program` and the filter it points to, which outlive it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

#[test]
fn a_policy_that_forbids_io_uring_is_named() {
    thread::spawn(|| {
        forbid_io_uring(libc::EPERM as u32);
        let error = kernel::require().unwrap_err();
        assert_eq!(error, Unsupported::Forbidden);
        assert_eq!(error.exit_code(), 69);
        assert!(error.to_string().contains("allow io_uring_setup"), "{error}");

        let opened = UringUdp::open(UringUdpConfig::new("127.0.0.1:0".parse().unwrap()));
        assert!(matches!(opened.unwrap_err(), OpenError::Unsupported(Unsupported::Forbidden)));
    })
    .join()
    .unwrap();
}

#[test]
fn a_kernel_without_io_uring_is_named() {
    thread::spawn(|| {
        forbid_io_uring(libc::ENOSYS as u32);
        let error = kernel::require().unwrap_err();
        assert!(matches!(error, Unsupported::NoIoUring { .. }), "{error}");
    })
    .join()
    .unwrap();
}

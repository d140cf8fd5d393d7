//! The system calls of this crate, each wrapped so that its callers are safe code.
//!
//! Owns nothing. Never interprets an error: it hands on `errno` as [`std::io::Error`].

pub(crate) mod bpf;
pub(crate) mod device;
pub(crate) mod netlink;
pub(crate) mod poll;
pub(crate) mod xsk;

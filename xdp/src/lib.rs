//! Kernel bypass: `AF_XDP` sockets, eBPF programs in C, and what loads and attaches them.
//!
//! What it owns: the programs in `src/bpf`, their attachment to a device, packet memory shared with the kernel,
//! and the transport made of these. What it never does: look inside a datagram further than its UDP header.
//!
//! Invariant: nothing of it outlives the process. Programs are attached by links that are file descriptors, so
//! the kernel detaches them when the process ends, however it ends.

pub mod attach;
pub mod bare;
pub mod choice;
pub mod filter;
mod frame;
pub mod interface;
pub mod load;
mod netlink;
pub mod packet;
pub mod program;
pub mod relay;
pub mod rewrite;
mod ring;
mod routes;
pub mod skeleton;
mod socket;
mod sys;
pub mod udp;
mod umem;

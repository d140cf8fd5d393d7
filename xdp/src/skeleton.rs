//! The compiled eBPF programs with typed access to their maps and constants, as `build.rs` generated them from
//! `src/bpf/*.bpf.c`. To use one: open it, set its constants, [load it](crate::program::LoadError), keep the
//! descriptors that are needed, and let go of the rest.

#![allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::restriction)]

/// Steers the datagrams of a port to `AF_XDP` sockets.
pub mod filter {
    include!(concat!(env!("OUT_DIR"), "/filter.skel.rs"));
}

/// A source and a sink of datagrams, for benchmarks.
pub mod load {
    include!(concat!(env!("OUT_DIR"), "/load.skel.rs"));
}

/// The floor of a relay, for benchmarks.
pub mod rewrite {
    include!(concat!(env!("OUT_DIR"), "/rewrite.skel.rs"));
}

/// Forwards the datagrams of a relay's sessions.
pub mod relay {
    include!(concat!(env!("OUT_DIR"), "/relay.skel.rs"));
}

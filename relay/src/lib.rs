//! The relay: forwards sealed datagrams between two peers that hold a lease (RELAY-1).
//!
//! Owns the sessions ([`core`]), the checks of every forwarded datagram ([`direction`]), the verification of leases and
//! proofs on threads of its own ([`verify`]), and the program around them ([`service`]).
//!
//! Never does: hold a key by which a datagram could be opened, keep state for an address that did not prove itself,
//! allocate for a forwarded datagram, grow. Invariant: the session logic is sans-IO; the same seed and inputs give the
//! same outputs.

#![forbid(unsafe_code)]

pub mod bench;
pub mod challenge;
pub mod config;
pub mod core;
pub mod direction;
pub mod drop_reason;
pub mod limits;
pub mod service;
pub mod verify;

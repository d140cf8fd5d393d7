//! The relay protocol (RELAY-1): what travels between a peer and a relay, and the side that a host or client
//! runs.
//!
//! Owns the datagrams ([`wire`], [`present`]), the MAC of forwarded datagrams ([`mac`]), leases ([`lease`]), the
//! session keys between a peer and its relay ([`agreement`]), the state of a peer ([`peer`]) and the transport that
//! wraps everything for the relay ([`carrier`]).
//!
//! Never does: seal or open what is forwarded. That is between the two peers; no key of theirs passes through
//! here. Only [`carrier`] touches a socket, through the runtime's trait, and only [`link`] a file; the rest takes bytes
//! and times.
//!
//! Invariants: nothing here panics on bytes from outside; a lease alone, without the identity that it names,
//! moves nothing; a forwarded datagram allocates nothing.

#![forbid(unsafe_code)]

pub mod agreement;
pub mod carrier;
pub mod lease;
pub mod link;
pub mod mac;
pub mod peer;
pub mod present;
pub mod siphash;
pub mod wire;

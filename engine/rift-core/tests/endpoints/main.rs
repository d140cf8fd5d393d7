//! Host and client against each other, over a network that loses, tampers and lies.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod attack;
mod handshake;
mod hostile;
mod keys;
mod lifecycle;
mod pairing;
mod rogue;
mod streaming;
mod world;

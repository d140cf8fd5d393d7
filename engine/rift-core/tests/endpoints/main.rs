//! Host and client against each other, over a network that loses, tampers and lies.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod handshake;
mod streaming;
mod world;

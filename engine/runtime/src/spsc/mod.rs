//! What threads hand each other: fixed-size rings with one producer and one consumer, and pools of byte
//! buffers that travel through them.
//!
//! * [`ring`]: every item arrives, in order; a full ring gives the item back. For commands and requests.
//! * [`latest`]: a full ring drops its oldest item, counted; the producer never waits. For media.
//! * [`Slab`]: buffers that one thread fills and another reads without a copy; a [`Lease`] is what travels.
//!
//! All memory is allocated at start. Nothing here blocks, locks or enters the kernel: whoever sleeps on the
//! other side is woken by a [`Waker`](crate::Waker), after the push.

mod latest;
mod padded;
mod ring;
mod slab;

pub use latest::{LatestConsumer, LatestProducer, latest};
pub use ring::{Consumer, Producer, ring};
pub use slab::{Full, Lease, Slab};

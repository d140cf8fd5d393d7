//! What a loop needs to know of an endpoint of rift-core.

use std::slice::ChunksMut;

use rift_core::Timestamp;
use rift_core::endpoint::{ClientEndpoint, Ecn, HostEndpoint, Path, Transmit};
use rift_core::session::CloseReason;

/// A host's or a client's end, as far as a loop drives it.
pub trait Endpoint {
    /// Takes a batch of datagrams that came together, opens them in place, and tells how many of them were not used.
    fn handle_datagrams(
        &mut self,
        now: Timestamp,
        path: &Path,
        ecn: Ecn,
        datagrams: ChunksMut<'_, u8>,
    ) -> u64;

    /// Notices what time brings.
    fn handle_timeout(&mut self, now: Timestamp);

    /// When to call again if nothing else happens.
    fn poll_timeout(&self) -> Timestamp;

    /// Seals what is to leave next into `buf`.
    fn poll_transmit(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit>;

    /// Ends every session.
    fn close(&mut self, now: Timestamp, reason: CloseReason);

    /// Whether nothing is left to be told.
    fn is_drained(&self) -> bool;
}

macro_rules! endpoint {
    ($name:ty) => {
        impl Endpoint for $name {
            #[inline]
            fn handle_datagrams(
                &mut self,
                now: Timestamp,
                path: &Path,
                ecn: Ecn,
                datagrams: ChunksMut<'_, u8>,
            ) -> u64 {
                <$name>::handle_datagrams(self, now, path, ecn, datagrams)
            }

            #[inline]
            fn handle_timeout(&mut self, now: Timestamp) {
                <$name>::handle_timeout(self, now);
            }

            #[inline]
            fn poll_timeout(&self) -> Timestamp {
                <$name>::poll_timeout(self)
            }

            #[inline]
            fn poll_transmit(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
                <$name>::poll_transmit(self, now, buf)
            }

            #[inline]
            fn close(&mut self, now: Timestamp, reason: CloseReason) {
                <$name>::close(self, now, reason);
            }

            #[inline]
            fn is_drained(&self) -> bool {
                <$name>::is_drained(self)
            }
        }
    };
}

endpoint!(HostEndpoint);
endpoint!(ClientEndpoint);

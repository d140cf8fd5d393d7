//! What every network thread does: datagrams from the transport to the endpoint and back.
//!
//! Owns a transport and an endpoint, and the order of their calls. Never knows what a session is for: what a
//! program does in a turn besides (slices, input, notices) it does between [`receive`](SessionLoop::receive)
//! and [`transmit`](SessionLoop::transmit). Invariants: nothing here allocates, and a turn enters the kernel
//! once.
//!
//! ```text
//! loop {
//!     let now = now();
//!     receive(now);      // datagrams, then what time brings
//!     ...                // the program's own
//!     transmit(now);     // all that may leave, into send slots
//!     turn(deadline)?;   // one kernel entry: sends, waits, receives
//! }
//! ```

#![forbid(unsafe_code)]

mod end;

use std::io;

use rift_core::Timestamp;
use rift_core::endpoint::{self, Path};
use rift_core::session::CloseReason;
use wavry_runtime::clock::Clock;
use wavry_runtime::transport::{self, Received, Transport, Turn};

pub use end::Endpoint;

/// How long a closing session may take to tell the peer why, in microseconds.
const LEAVE_US: u64 = 300_000;
/// Bytes after which a turn seals no more: four full batches. The kernel then copies them out of the cache, from
/// the send slots that were used last, and what arrived meanwhile is looked at before the rest.
const SEALED_MAX: usize = 192 << 10;

/// A transport, an endpoint, and what passes between them.
#[derive(Debug)]
pub struct SessionLoop<T, E> {
    transport: T,
    endpoint: E,
    traffic: Traffic,
}

/// What went through a loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams received.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Those of them that the endpoint did not use.
    pub refused: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
}

impl<T: Transport, E: Endpoint> SessionLoop<T, E> {
    /// A loop that has done nothing yet.
    pub fn new(transport: T, endpoint: E) -> Self {
        Self { transport, endpoint, traffic: Traffic::default() }
    }

    /// The endpoint.
    #[inline]
    pub fn endpoint(&self) -> &E {
        &self.endpoint
    }

    /// The endpoint, for all calls but those that are made here.
    #[inline]
    pub fn endpoint_mut(&mut self) -> &mut E {
        &mut self.endpoint
    }

    /// The transport.
    #[inline]
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// What went through since the last call.
    pub fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    /// Gives what has arrived to the endpoint, and then the time.
    #[inline]
    pub fn receive(&mut self, now: Timestamp) {
        self.receive_and(now, |_| {});
    }

    /// As [`receive`](Self::receive), and shows each batch to `on_batch` before.
    #[inline]
    pub fn receive_and(&mut self, now: Timestamp, mut on_batch: impl FnMut(&Received<'_>)) {
        while let Some(batch) = self.transport.poll_receive() {
            on_batch(&batch);
            let path = Path { remote: batch.from, local: batch.to };
            let ecn = endpoint::Ecn::from_bits(batch.ecn as u8);
            self.traffic.received_bytes += batch.data.len() as u64;
            self.traffic.received += batch.count() as u64;
            // What is refused is counted by its reason in the endpoint.
            self.traffic.refused += self.endpoint.handle_datagrams(now, &path, ecn, batch.datagrams());
        }
        self.endpoint.handle_timeout(now);
    }

    /// Seals what may leave now, as far as there are send slots, and not much more than 192 KiB: the turn after
    /// that does not wait. It leaves with the next [`turn`](Self::turn) or [`flush`](Self::flush).
    #[inline]
    pub fn transmit(&mut self, now: Timestamp) {
        self.transmit_and(now, |_| {});
    }

    /// As [`transmit`](Self::transmit), and shows each batch to `on_batch`. Returns whether that was all.
    #[inline]
    pub fn transmit_and(&mut self, now: Timestamp, mut on_batch: impl FnMut(&endpoint::Transmit)) -> bool {
        let mut sealed = 0;
        while sealed < SEALED_MAX
            && let Some(mut slot) = self.transport.acquire()
        {
            let Some(out) = self.endpoint.poll_transmit(now, &mut slot) else { return true };
            on_batch(&out);
            sealed += out.len;
            self.traffic.sent += out.datagrams() as u64;
            self.traffic.sent_bytes += out.len as u64;
            self.transport.commit(slot, to_transport(&out));
        }
        false
    }

    /// One kernel entry: lets leave what was sealed, and waits until something arrives, another thread wakes
    /// this one, or the endpoint's time or `until` has come.
    ///
    /// # Errors
    /// As [`Transport::turn`].
    #[inline]
    pub fn turn(&mut self, until: Timestamp) -> io::Result<Turn> {
        self.transport.turn(to_ns(self.endpoint.poll_timeout().min(until)))
    }

    /// Lets leave what was sealed, without waiting.
    ///
    /// # Errors
    /// As [`Transport::flush`].
    #[inline]
    pub fn flush(&mut self) -> io::Result<()> {
        self.transport.flush()
    }

    /// Ends every session and tells the peers why, for 0.3 s at most.
    ///
    /// # Errors
    /// As [`Transport::turn`].
    pub fn take_leave(&mut self, reason: CloseReason) -> io::Result<()> {
        let end = now().plus_micros(LEAVE_US);
        self.endpoint.close(now(), reason);
        loop {
            let now = now();
            self.receive(now);
            self.transmit(now);
            if now >= end || self.endpoint.is_drained() {
                return self.flush();
            }
            self.turn(end)?;
        }
    }
}

/// The time as endpoints take it: [`Clock`] in microseconds. To be read once in a turn.
#[inline]
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::from_micros(Clock.now() / 1000)
}

/// A deadline as transports take it.
#[inline]
fn to_ns(deadline: Timestamp) -> Option<u64> {
    (deadline != Timestamp::NEVER).then(|| deadline.as_micros().saturating_mul(1000))
}

/// Input and control travel expedited, media as interactive video (RFC 4594 section 4).
#[inline]
fn to_transport(out: &endpoint::Transmit) -> transport::Transmit {
    transport::Transmit {
        to: out.path.remote,
        from: out.path.local,
        len: out.len,
        segment_len: out.segment_len,
        class: match out.class {
            endpoint::TrafficClass::Input | endpoint::TrafficClass::Control => transport::TrafficClass::Ef,
            endpoint::TrafficClass::Audio | endpoint::TrafficClass::Video => transport::TrafficClass::Af41,
        },
        ecn: match out.ecn {
            endpoint::Ecn::Ect0 => transport::Ecn::Ect0,
            endpoint::Ecn::Ect1 => transport::Ecn::Ect1,
            endpoint::Ecn::NotEct | endpoint::Ecn::Ce => transport::Ecn::NotEct,
        },
    }
}

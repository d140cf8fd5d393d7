//! A transport whose datagrams to and from the relay travel wrapped: programs use it as they use the one inside.
//!
//! Owns the relay's address and the peer's state. Never looks into a payload. What goes to or comes from another address
//! passes unchanged. Invariants: nothing is allocated per datagram; batches stay batches, so that GSO and GRO work
//! through a relay as they do without.

use std::io;
use std::net::SocketAddr;

use wavry_runtime::Waker;
use wavry_runtime::clock::Clock;
use wavry_runtime::counters::Counters;
use wavry_runtime::spsc::Consumer;
use wavry_runtime::transport::{
    MAX_SEGMENTS, Received, SendError, TX_SLOT_LEN, TrafficClass, Transmit, Transport, Turn, TxSlot,
};

use crate::peer::{Handled, PeerEvent, RelayPeer};
use crate::wire::FORWARD_LEN;

/// A transport through a relay.
pub struct Carrier<T> {
    inner: T,
    relay: SocketAddr,
    peer: RelayPeer,
    leases: Option<Consumer<String>>,
    now_us: u64,
    /// Datagrams that were given to the transport while the relay did not forward.
    unsent: u64,
}

impl<T: Transport> Carrier<T> {
    /// Wraps what `inner` carries to and from `relay`. Newer leases come through `leases`.
    pub fn new(inner: T, relay: SocketAddr, peer: RelayPeer, leases: Option<Consumer<String>>) -> Self {
        Self { inner, relay: canonical(relay), peer, leases, now_us: now_us(), unsent: 0 }
    }

    /// Does what is due on the peer's side and queues what it has to say.
    fn drive(&mut self) {
        self.now_us = now_us();
        while let Some(token) = self.leases.as_mut().and_then(Consumer::pop) {
            if let Err(error) = self.peer.set_lease(self.now_us, &token) {
                tracing::warn!(%error, "the new lease is not used; the old one goes on");
            }
        }
        self.peer.handle_timeout(self.now_us);
        while self.peer.poll_timeout() <= self.now_us {
            // Asked for before there is something to send, so that nothing is taken out that cannot leave.
            let Some(mut slot) = self.inner.acquire() else { break };
            let Some(datagram) = self.peer.poll_transmit(self.now_us) else { break };
            slot[..datagram.len()].copy_from_slice(datagram);
            let transmit =
                Transmit { class: TrafficClass::Ef, ..Transmit::datagram(self.relay, datagram.len()) };
            self.inner.commit(slot, transmit);
        }
        while let Some(event) = self.peer.poll_event() {
            self.tell(event);
        }
    }

    fn tell(&self, event: PeerEvent) {
        match event {
            PeerEvent::Bound { soft_kbps, hard_kbps } => {
                tracing::info!(soft_kbps, hard_kbps, session = %self.peer.claims().session, "the relay forwards");
            }
            PeerEvent::Renewed => tracing::debug!("renewed at the relay"),
            PeerEvent::Rejected(reason) => {
                tracing::warn!("the relay refuses: {}; trying again", reason.words());
            }
            PeerEvent::NoAnswer => {
                tracing::warn!("the relay at {} does not answer; trying again", self.relay);
            }
        }
    }

    /// Puts a header in front of each datagram of a slot, from the last to the first, and sends what no longer fits
    /// in a slot of its own.
    fn commit_wrapped(&mut self, mut slot: TxSlot, tx: Transmit) {
        let segment_len = if tx.segment_len == 0 { tx.len } else { tx.segment_len.min(tx.len) };
        if tx.len == 0 || tx.len > TX_SLOT_LEN {
            return;
        }
        let wrapped_len = segment_len + FORWARD_LEN;
        let segments = tx.len.div_ceil(segment_len);
        let fitting = (TX_SLOT_LEN / wrapped_len).min(MAX_SEGMENTS).min(segments);
        let mut rest = None;
        if fitting < segments {
            if let Some(mut second) = self.inner.acquire() {
                let from = fitting * segment_len;
                second[..tx.len - from].copy_from_slice(&slot[from..tx.len]);
                rest = Some((second, Transmit { len: tx.len - from, ..tx }));
            } else {
                self.unsent += (segments - fitting) as u64;
            }
        }
        let len = tx.len.min(fitting * segment_len);
        for index in (0..fitting).rev() {
            let (from, to) = (index * segment_len, index * wrapped_len + FORWARD_LEN);
            let end = (from + segment_len).min(len);
            slot.copy_within(from..end, to);
        }
        for index in 0..fitting {
            let payload_len = segment_len.min(len - index * segment_len);
            let at = index * wrapped_len;
            let Some(head) = slot[at..].first_chunk_mut::<FORWARD_LEN>() else { return };
            if !self.peer.wrap(self.now_us, payload_len, head) {
                self.unsent += segments as u64;
                return;
            }
        }
        let wrapped = Transmit { len: len + fitting * FORWARD_LEN, segment_len: wrapped_len, ..tx };
        self.inner.commit(slot, wrapped);
        if let Some((second, tx)) = rest {
            self.commit_wrapped(second, tx);
        }
    }
}

impl<T: Transport> Transport for Carrier<T> {
    fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr()
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn turn(&mut self, deadline_ns: Option<u64>) -> io::Result<Turn> {
        self.drive();
        let due_ns = self.peer.poll_timeout().saturating_mul(1000);
        let deadline_ns = deadline_ns.unwrap_or(u64::MAX).min(due_ns);
        let turn = self.inner.turn((deadline_ns != u64::MAX).then_some(deadline_ns))?;
        self.now_us = now_us();
        Ok(turn)
    }

    fn poll_receive(&mut self) -> Option<Received<'_>> {
        let (peer, now_us) = (&mut self.peer, self.now_us);
        let batch = self.inner.poll_receive()?;
        if canonical(batch.from) != self.relay {
            return Some(batch);
        }
        let segment_len = batch.segment_len.max(1);
        let (mut kept, mut at) = (0, 0);
        while at < batch.data.len() {
            let end = (at + segment_len).min(batch.data.len());
            if peer.handle_datagram(now_us, &batch.data[at..end]) == Handled::Payload {
                batch.data.copy_within(at + FORWARD_LEN..end, kept);
                kept += end - at - FORWARD_LEN;
            }
            at = end;
        }
        // Nothing for the caller may be left; an empty batch holds no datagram.
        let segment_len = segment_len.saturating_sub(FORWARD_LEN).max(1);
        Some(Received { data: &mut batch.data[..kept], segment_len, ..batch })
    }

    fn acquire(&mut self) -> Option<TxSlot> {
        self.inner.acquire()
    }

    fn commit(&mut self, slot: TxSlot, tx: Transmit) {
        if canonical(tx.to) == self.relay {
            self.commit_wrapped(slot, tx);
        } else {
            self.inner.commit(slot, tx);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }

    fn poll_send_error(&mut self) -> Option<SendError> {
        self.inner.poll_send_error()
    }

    fn counters(&self) -> &Counters {
        self.inner.counters()
    }
}

impl<T> std::fmt::Debug for Carrier<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Carrier")
            .field("relay", &self.relay)
            .field("unsent", &self.unsent)
            .finish_non_exhaustive()
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn now_us() -> u64 {
    Clock.now() / 1000
}

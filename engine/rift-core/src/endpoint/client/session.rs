//! A channel to a host, before and after the host took the client.

use rift_crypto::PeerProof;

use super::Via;
use super::connect::Repeated;
use super::pairing::PairingAttempt;
use super::stream::Streaming;
use crate::endpoint::{Ecn, TrafficClass};
use crate::session::Features;
use crate::session::link::Link;
use crate::{DropReason, HandshakeId, Timestamp};

/// A channel to a host.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) link: Link,
    pub(super) peer: PeerProof,
    pub(super) via: Via,
    pub(super) handshake_hash: [u8; 32],
    pub(super) handshake_id: HandshakeId,
    /// XX: sent until the first packet of the host opens.
    pub(super) msg3: Option<Repeated>,
    pub(super) features: Features,
    pub(super) is_accepted: bool,
    pub(super) pairing: Option<PairingAttempt>,
}

impl Session {
    /// Whether the session is on and may carry payload.
    pub(super) fn can_send(&self) -> bool {
        self.is_accepted && !self.link.is_ending()
    }

    /// A packet has opened, that came with this mark.
    ///
    /// # Errors
    /// [`DropReason::Unexpected`] if the session is over.
    #[inline]
    pub(super) fn on_opened(&mut self, ecn: Ecn) -> Result<(), DropReason> {
        if self.msg3.is_some() {
            self.msg3 = None;
        }
        if ecn == Ecn::Ce {
            self.link.on_congestion_mark();
        }
        if self.link.is_ending() { Err(DropReason::Unexpected) } else { Ok(()) }
    }

    /// Seals what is to leave next.
    pub(super) fn poll_transmit(
        &mut self,
        now: Timestamp,
        streaming: Option<&mut Streaming>,
        buf: &mut [u8],
    ) -> Option<(usize, TrafficClass)> {
        if let Some(msg3) = &mut self.msg3
            && let Some(len) = msg3.poll(now, self.handshake_id, buf)
        {
            return Some((len, TrafficClass::Control));
        }
        if let Some(len) = self.link.poll_upkeep(now, buf) {
            return Some((len, TrafficClass::Control));
        }
        let streaming = streaming.filter(|_| self.can_send())?;
        streaming
            .poll_input(now, &mut self.link, buf)
            .or_else(|| streaming.poll_feedback(now, &mut self.link, buf))
    }
}

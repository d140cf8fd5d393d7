//! Somebody on the path who sees every packet and sends his own.

use std::net::{Ipv4Addr, SocketAddrV4};

use fastrand::Rng;
use rift_core::wire::{HandshakeHeader, HandshakeKind};
use rift_core::{HandshakeId, PacketId};

use super::Side;

const LATER_US_MAX: u64 = 50_000;

/// A datagram that the attacker sends.
#[derive(Debug)]
pub(super) struct Forged {
    pub(super) to: Side,
    pub(super) from: SocketAddrV4,
    pub(super) after_us: u64,
    pub(super) datagram: Vec<u8>,
}

/// The attacker.
#[derive(Debug)]
pub(super) struct Attacker {
    probability: f64,
    rng: Rng,
    own_addr: SocketAddrV4,
}

impl Attacker {
    pub(super) fn new(probability: f64, seed: u64) -> Self {
        let own_addr = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 66), 6_666);
        Self { probability, rng: Rng::with_seed(seed), own_addr }
    }

    /// `datagram` from `peer` reaches `to`: what the attacker makes of it. `host` is where the host is.
    pub(super) fn on_delivered(
        &mut self,
        to: Side,
        datagram: &[u8],
        (peer, host): (SocketAddrV4, SocketAddrV4),
    ) -> Option<Forged> {
        if self.probability <= 0.0 || self.rng.f64() >= self.probability {
            return None;
        }
        let after_us = self.rng.u64(1..LATER_US_MAX);
        let mut bytes = datagram.to_vec();
        let (to, from) = match self.rng.u8(..6) {
            // A copy, as if from the peer or from elsewhere.
            0 => (to, peer),
            1 => (to, self.own_addr),
            // Back to whoever sent it.
            2 => {
                let sender = to.other();
                (sender, if sender == Side::Host { peer } else { host })
            }
            // Damaged or cut.
            3 => {
                if !bytes.is_empty() {
                    let at = self.rng.usize(..bytes.len());
                    bytes[at] ^= 1 << self.rng.u8(..8);
                }
                (to, peer)
            }
            4 => {
                bytes.truncate(self.rng.usize(..=bytes.len()));
                (to, peer)
            }
            // A first message that means nothing.
            _ => {
                let header = HandshakeHeader {
                    kind: HandshakeKind::Msg1,
                    handshake_id: HandshakeId(self.rng.u64(..)),
                    packet_id: PacketId(0),
                };
                bytes = header.encode().to_vec();
                bytes.extend((0..1_200).map(|_| self.rng.u8(..)));
                (Side::Host, self.own_addr)
            }
        };
        Some(Forged { to, from, after_us, datagram: bytes })
    }
}

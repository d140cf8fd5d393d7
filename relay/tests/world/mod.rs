//! A relay, two peers and an attacker in one thread and virtual time.

#![allow(dead_code, clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;

use rift_crypto::Identity;
use rift_relay::lease::{Claims, IssuerKey, KeyRing};
use rift_relay::peer::{Handled, PeerConfig, PeerEvent, RelayPeer};
use rift_relay::wire::{FORWARD_LEN, SessionId};
use wavry_relay::core::{Action, Now, Relay, RelayLimits};
use wavry_relay::drop_reason::DropReason;
use wavry_relay::verify::{Job, Policy, Verifier};
use zeroize::Zeroizing;

pub(crate) const UNIX_MS: u64 = 1_700_000_000_000;
pub(crate) const SESSION: SessionId = SessionId([0x11; 16]);

pub(crate) fn identity(byte: u8) -> Identity {
    Identity::from_seed([byte; 32]).unwrap()
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn client_address() -> SocketAddr {
    address("192.0.2.1:1000")
}

pub(crate) fn host_address() -> SocketAddr {
    address("198.51.100.2:2000")
}

pub(crate) fn attacker_address() -> SocketAddr {
    address("203.0.113.66:666")
}

pub(crate) struct World {
    pub(crate) us: u64,
    pub(crate) relay: Relay,
    pub(crate) verifier: Verifier,
    pub(crate) issuer: IssuerKey,
    pub(crate) relay_identity: Identity,
    pub(crate) limits: RelayLimits,
    pub(crate) verified: u64,
    starts: u8,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(RelayLimits { sessions: 100, ..RelayLimits::default() })
    }

    pub(crate) fn with(limits: RelayLimits) -> Self {
        let issuer = IssuerKey::from_seed([77; 32]).unwrap();
        let relay_identity = identity(99);
        let (relay, verifier) = start(limits, &issuer, &relay_identity, 1);
        Self { us: 1_000_000, relay, verifier, issuer, relay_identity, limits, verified: 0, starts: 1 }
    }

    /// The relay's process is gone and comes back: all state is new but its identity.
    pub(crate) fn restart_relay(&mut self) {
        self.starts += 1;
        (self.relay, self.verifier) = start(self.limits, &self.issuer, &self.relay_identity, self.starts);
    }

    pub(crate) fn policy(&self) -> Policy {
        Policy { issuers: KeyRing::new(vec![self.issuer.public()]), ..Policy::default() }
    }

    pub(crate) fn now(&self) -> Now {
        Now { ns: self.us * 1000, unix_ms: UNIX_MS + self.us / 1000 }
    }

    pub(crate) fn claims(&self) -> Claims {
        let (relay, peers) =
            (self.relay_identity.wavry_id(), [identity(1).wavry_id(), identity(2).wavry_id()]);
        Claims {
            id: SessionId([self.us as u8; 16]),
            soft_kbps: 50_000,
            ..Claims::from_now(SESSION, relay, peers, self.now().unix_ms, 300_000, 100_000)
        }
    }

    pub(crate) fn lease(&self) -> String {
        self.issuer.mint(&self.claims())
    }

    pub(crate) fn peer(&self, byte: u8, token: &str, from: SocketAddr) -> Peer {
        let config = PeerConfig {
            identity: identity(byte),
            token: token.to_owned(),
            seed: [byte ^ self.us as u8; 32],
        };
        Peer { peer: RelayPeer::new(config, self.us).unwrap(), address: from, got: Vec::new() }
    }

    /// Hands a datagram to the relay and returns what it sends, and where; verifies at once.
    pub(crate) fn deliver(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
    ) -> (Action, Vec<(SocketAddr, Vec<u8>)>) {
        let now = self.now();
        let action = self.relay.handle_datagram(now, from, datagram);
        let sent = match action {
            Action::Forward(to) => vec![(to, datagram.to_vec())],
            Action::Answer | Action::DropAndAnswer(_) => vec![(from, self.relay.answer().to_vec())],
            Action::Verify { .. } => {
                self.verified += 1;
                let outcome = self.verifier.verify(&Job::new(from, datagram).unwrap(), now.unix_ms).unwrap();
                self.relay
                    .handle_verified(now, &outcome)
                    .map(|to| (to, self.relay.answer().to_vec()))
                    .into_iter()
                    .collect()
            }
            Action::Drop(_) | Action::TakeBack => Vec::new(),
        };
        (action, sent)
    }

    /// Lets time pass, in steps of a millisecond, with everything the peers have to say delivered at once.
    pub(crate) fn run(&mut self, ms: u64, peers: &mut [&mut Peer]) {
        for _ in 0..ms {
            self.us += 1000;
            let now = self.now();
            self.relay.handle_timeout(now);
            for index in 0..peers.len() {
                peers[index].peer.handle_timeout(self.us);
                while let Some(datagram) = peers[index].peer.poll_transmit(self.us).map(<[u8]>::to_vec) {
                    let from = peers[index].address;
                    let (_, sent) = self.deliver(from, &datagram);
                    self.route(sent, peers);
                }
            }
        }
    }

    /// One peer sends to the other through the relay.
    pub(crate) fn send(&mut self, from: usize, payload: &[u8], peers: &mut [&mut Peer]) -> Action {
        let Some(datagram) = peers[from].wrap(self.us, payload) else {
            return Action::Drop(DropReason::Unbound);
        };
        let (action, sent) = self.deliver(peers[from].address, &datagram);
        self.route(sent, peers);
        action
    }

    pub(crate) fn route(&mut self, sent: Vec<(SocketAddr, Vec<u8>)>, peers: &mut [&mut Peer]) {
        for (to, datagram) in sent {
            for peer in peers.iter_mut().filter(|peer| peer.address == to) {
                peer.receive(self.us, &datagram);
            }
        }
    }

    /// Two peers with one lease, both bound.
    pub(crate) fn pair(&mut self) -> (Peer, Peer) {
        let token = self.lease();
        let mut client = self.peer(1, &token, client_address());
        let mut host = self.peer(2, &token, host_address());
        self.run(5, &mut [&mut client, &mut host]);
        assert!(client.peer.is_bound() && host.peer.is_bound());
        (client, host)
    }
}

fn start(limits: RelayLimits, issuer: &IssuerKey, identity: &Identity, run: u8) -> (Relay, Verifier) {
    let policy = Policy { issuers: KeyRing::new(vec![issuer.public()]), ..Policy::default() };
    let (verifier, key) = Verifier::new(identity, &Zeroizing::new([run; 32]), Arc::new(policy)).unwrap();
    (Relay::new(limits, key, [run; 64]), verifier)
}

pub(crate) struct Peer {
    pub(crate) peer: RelayPeer,
    pub(crate) address: SocketAddr,
    pub(crate) got: Vec<Vec<u8>>,
}

impl Peer {
    pub(crate) fn wrap(&mut self, us: u64, payload: &[u8]) -> Option<Vec<u8>> {
        let mut head = [0; FORWARD_LEN];
        self.peer.wrap(us, payload.len(), &mut head).then(|| [&head, payload].concat())
    }

    pub(crate) fn receive(&mut self, us: u64, datagram: &[u8]) {
        if self.peer.handle_datagram(us, datagram) == Handled::Payload {
            self.got.push(datagram[FORWARD_LEN..].to_vec());
        }
    }

    pub(crate) fn events(&mut self) -> Vec<PeerEvent> {
        std::iter::from_fn(|| self.peer.poll_event()).collect()
    }

    /// The first datagram of an attempt, without a proof.
    pub(crate) fn ask(&mut self, us: u64) -> Vec<u8> {
        self.peer.handle_timeout(us);
        self.peer.poll_transmit(us).unwrap().to_vec()
    }
}

//! What a relay, a peer of one, and the readers of leases are sent by strangers.

use std::net::SocketAddr;

use rift_crypto::Identity;
use rift_relay::lease::{self, Claims, IssuerKey, KeyRing};
use rift_relay::peer::{PeerConfig, RelayPeer};
use rift_relay::present::{Ack, Challenge, Present, Reject, RejectReason};
use rift_relay::wire::{FORWARD_LEN, Forward, Header, Kind, Role, SessionId};
use wavry_relay::core::{Action, Now, Relay, RelayLimits};
use wavry_relay::verify::RelayKey;

const SESSION: SessionId = SessionId([1; 16]);

fn identity(byte: u8) -> Identity {
    Identity::from_seed([byte; 32]).expect("every seed gives an identity")
}

fn issuer() -> IssuerKey {
    IssuerKey::from_seed([9; 32]).expect("every seed gives a key")
}

fn token() -> String {
    issuer().mint(&Claims {
        id: SESSION,
        session: SESSION,
        relay: identity(3).wavry_id(),
        client: identity(1).wavry_id(),
        host: identity(2).wavry_id(),
        issued_ms: 0,
        not_before_ms: 0,
        expires_ms: 300_000,
        soft_kbps: 1,
        hard_kbps: 2,
    })
}

/// Records of sender, length and datagram.
fn records(mut data: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[from, high, low], rest) = data.split_first_chunk::<3>()?;
        let len = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let (datagram, rest) = rest.split_at(len);
        data = rest;
        Some((from, datagram))
    })
}

/// Nobody who has no keys gets a session, a verification of nothing, or more bytes than it sent.
pub(super) fn run_relay(data: &[u8]) {
    let limits = RelayLimits { sessions: 4, ..RelayLimits::default() };
    let mut relay = Relay::new(limits, RelayKey { public: [0; 32], signature: [0; 64] }, [7; 64]);
    let mut now = Now { ns: 1_000_000_000, unix_ms: 1_000 };
    for (from, datagram) in records(data) {
        now.ns += 1_000_000;
        let address = SocketAddr::from(([192, 0, 2, from], 1));
        match relay.handle_datagram(now, address, datagram) {
            Action::Forward(to) => panic!("forwarded to {to} without a session"),
            Action::Answer | Action::DropAndAnswer(_) => assert!(relay.answer().len() <= datagram.len()),
            Action::Verify { known } => assert!(!known, "known without having proved anything"),
            Action::Drop(_) | Action::TakeBack => {}
        }
        relay.handle_timeout(now);
    }
    assert!(relay.is_empty());
}

/// A peer that hears nonsense goes on asking, within its means, and believes nothing.
pub(super) fn run_peer(data: &[u8]) {
    let config = PeerConfig { identity: identity(1), token: token(), seed: [5; 32] };
    let Ok(mut peer) = RelayPeer::new(config, 0) else { panic!("the lease is good") };
    let mut now = 0;
    for (wait, datagram) in records(data) {
        now += u64::from(wait) * 10_000;
        peer.handle_timeout(now);
        let mut sent = 0;
        while peer.poll_transmit(now).is_some() {
            sent += 1;
            assert!(sent <= 1, "one datagram at a time");
        }
        peer.handle_datagram(now, datagram);
        while peer.poll_event().is_some() {}
        assert!(!peer.is_bound(), "bound by somebody without the relay's key");
    }
}

/// A lease opens only if an issuer signed it, and reads the same after it was written.
pub(super) fn run_lease(data: &[u8]) {
    let ring = KeyRing::new(vec![issuer().public()]);
    if let Ok(claims) = ring.open(data) {
        assert_eq!(ring.open(issuer().mint(&claims).as_bytes()), Ok(claims));
    }
    if let Ok(claims) = lease::read_unverified(data) {
        let minted = issuer().mint(&claims);
        assert_eq!(ring.open(minted.as_bytes()), Ok(claims));
    }
    let _ = lease::key_id(data);
}

fn record(from: u8, datagram: &[u8]) -> Vec<u8> {
    [&[from], &(datagram.len() as u16).to_be_bytes()[..], datagram].concat()
}

pub(super) fn relay_seeds() -> Vec<Vec<u8>> {
    let token = token();
    let mut ask = Vec::new();
    let present = Present {
        renew: false,
        session: SESSION,
        role: Role::Client,
        token: token.as_bytes(),
        nonce: 1,
        proof: None,
    };
    present.encode(&mut ask);
    let mut renew = Vec::new();
    Present { renew: true, ..present }.encode(&mut renew);
    let mut forward = [0; FORWARD_LEN + 20];
    let header = Forward { session: SESSION, role: Role::Host, sequence: 1, mac: 2, payload_len: 20 };
    if let Some(head) = forward.first_chunk_mut() {
        header.encode(head);
    }
    let mut probe = [0; 36];
    if let Some(head) = probe.first_chunk_mut() {
        Header { kind: Kind::ProbeReq, flags: 0, session: SESSION }.encode(head);
    }
    vec![[record(1, &ask), record(2, &renew), record(1, &forward), record(3, &probe)].concat()]
}

pub(super) fn peer_seeds() -> Vec<Vec<u8>> {
    let session = SESSION;
    let challenge = Challenge { session, unknown: true, nonce: 0, challenge: [1; 24] }.encode();
    let reject = Reject { session, reason: RejectReason::Expired, nonce: 1 }.encode();
    let ack = Ack {
        session,
        expires_ms: 1,
        soft_kbps: 1,
        hard_kbps: 1,
        nonce: 1,
        public: [3; 32],
        signature: [4; 64],
    };
    vec![[record(1, &challenge), record(20, &reject), record(200, &ack.encode([1, 2]))].concat()]
}

pub(super) fn lease_seeds() -> Vec<Vec<u8>> {
    vec![token().into_bytes(), b"v4.public.AAAA".to_vec()]
}

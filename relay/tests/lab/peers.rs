//! Peers that talk through a relay over real sockets, and leases for them.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rift_crypto::Identity;
use rift_relay::lease::{Claims, IssuerKey};
use rift_relay::peer::{Handled, PeerConfig, RelayPeer};
use rift_relay::wire::{FORWARD_LEN, SessionId};
use wavry_netns::Namespace;

pub(crate) const PORT: u16 = 4820;
/// Long: a busy machine may stop a test for seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// The sum of the metrics whose names begin so, of the relay on this machine.
pub(crate) fn metric(name: &str) -> u64 {
    let mut stream = TcpStream::connect("127.0.0.1:9482").unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let values = text.lines().filter(|line| line.starts_with(name));
    values.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// Who signs leases, and the relay that they are for.
pub(crate) struct Issuing {
    pub(crate) issuer: IssuerKey,
    identity: Identity,
}

impl Issuing {
    pub(crate) fn new(relay: Identity) -> Self {
        Self { issuer: IssuerKey::from_seed([77; 32]).unwrap(), identity: relay }
    }

    /// A lease for a session of its own, and the identities of its client and host.
    pub(crate) fn lease(&self, number: u8) -> (String, [Identity; 2]) {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let identities =
            [Identity::from_seed([number; 32]).unwrap(), Identity::from_seed([number ^ 0x80; 32]).unwrap()];
        let peers = [identities[0].wavry_id(), identities[1].wavry_id()];
        let (session, relay) = (SessionId([number; 16]), self.identity.wavry_id());
        let claims = Claims::from_now(session, relay, peers, now_ms, 300_000, 1_000_000);
        let token = self.issuer.mint(&claims);
        (token, identities)
    }

    /// The same, each on a machine with a cable and an address of its own on it.
    pub(crate) fn pair_at(&self, number: u8, is_v6: bool, places: [(&Namespace, u8, u8); 2]) -> [Peer; 2] {
        let (token, [client, host]) = self.lease(number);
        let address = |net: u8, end: u8| -> SocketAddr {
            let text = if is_v6 { format!("[fd81:{net}::{end}]:0") } else { format!("10.81.{net}.{end}:0") };
            text.parse().unwrap()
        };
        let mut identities = [Some(client), Some(host)];
        let mut peers = [0, 1].map(|index: usize| {
            let (machine, net, end) = places[index];
            let identity = identities[index].take().unwrap();
            let socket = machine.with(|| UdpSocket::bind(address(net, end)).unwrap());
            socket.set_nonblocking(true).unwrap();
            let config = PeerConfig { identity, token: token.clone(), seed: [number ^ index as u8; 32] };
            let mut relay = address(net, 1);
            relay.set_port(PORT);
            Peer { peer: RelayPeer::new(config, now_us()).unwrap(), socket, relay, got: Vec::new() }
        });
        wait("both are bound", || {
            peers.iter_mut().for_each(Peer::pump);
            peers.iter().all(|peer| peer.peer.is_bound())
        });
        peers
    }
}

pub(crate) struct Peer {
    pub(crate) peer: RelayPeer,
    pub(crate) socket: UdpSocket,
    pub(crate) relay: SocketAddr,
    pub(crate) got: Vec<Vec<u8>>,
}

impl Peer {
    /// Reads what came and sends what the protocol wants sent.
    pub(crate) fn pump(&mut self) {
        let mut bytes = [0; 2048];
        while let Ok((len, from)) = self.socket.recv_from(&mut bytes) {
            assert_eq!(from, self.relay, "everything comes from the relay");
            if self.peer.handle_datagram(now_us(), &bytes[..len]) == Handled::Payload {
                self.got.push(bytes[FORWARD_LEN..len].to_vec());
            }
        }
        self.peer.handle_timeout(now_us());
        while let Some(datagram) = self.peer.poll_transmit(now_us()) {
            self.socket.send_to(datagram, self.relay).unwrap();
        }
    }

    pub(crate) fn send(&mut self, payload: &[u8]) {
        let mut head = [0; FORWARD_LEN];
        if self.peer.wrap(now_us(), payload.len(), &mut head) {
            self.socket.send_to(&[&head, payload].concat(), self.relay).unwrap();
        }
    }
}

/// Each peer sends so many datagrams of different lengths; all of them, whole, in order, are with the other one
/// afterwards.
pub(crate) fn talk(peers: &mut [Peer], count: u32) {
    let payload = |peer: usize, number: u32| {
        let len = 40 + (number as usize * 131) % 1300;
        let mut bytes = vec![peer as u8 ^ number as u8; len];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        bytes
    };
    peers.iter_mut().for_each(|peer| peer.got.clear());
    let end = Instant::now() + Duration::from_secs(3);
    for number in 0..count {
        for (index, peer) in peers.iter_mut().enumerate() {
            peer.send(&payload(index, number));
        }
        // Few are on their way at a time: queues of sockets are short, and of a busy machine all the more.
        pump_until(peers, (number as usize + 1).saturating_sub(8), end);
    }
    pump_until(peers, count as usize, end);
    for (index, peer) in peers.iter().enumerate() {
        let expected: Vec<_> = (0..count).map(|number| payload(index ^ 1, number)).collect();
        assert_eq!(peer.got.len(), count as usize, "peer {index}");
        assert!(peer.got == expected, "peer {index}: something came changed or in another order");
    }
}

/// Until each has so many datagrams, or it takes too long.
fn pump_until(peers: &mut [Peer], count: usize, end: Instant) {
    while peers.iter().any(|peer| peer.got.len() < count) && Instant::now() < end {
        peers.iter_mut().for_each(Peer::pump);
    }
}

pub(crate) fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn now_us() -> u64 {
    wavry_runtime::clock::Clock.now() / 1000
}

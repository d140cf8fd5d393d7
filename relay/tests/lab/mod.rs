//! The relay's program between two machines on two cables, and peers that talk through it over real sockets.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rift_crypto::Identity;
use rift_relay::lease::{Claims, IssuerKey};
use rift_relay::peer::{Handled, PeerConfig, RelayPeer};
use rift_relay::wire::{FORWARD_LEN, SessionId};
use wavry_netns::{Namespace, cable, unavailable};

pub(crate) const PORT: u16 = 4820;
/// The user of that name.
const NOBODY: u32 = 65_534;
/// Long: a busy machine may stop a test for seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// The relay's machine has `r0` towards the client's `c0` and `r1` towards the host's `h0`; 10.81.1.0/24 and
/// fd81:1::/64 are on the first cable, 10.81.2.0/24 and fd81:2::/64 on the second, the relay is .1.
pub(crate) struct Lab {
    pub(crate) relay: Namespace,
    pub(crate) client: Namespace,
    pub(crate) host: Namespace,
    pub(crate) process: Option<Child>,
    /// Lines of the log, so far.
    pub(crate) log: PathBuf,
    place: PathBuf,
    issuer: IssuerKey,
    identity: Identity,
    as_nobody: Option<&'static str>,
}

impl Lab {
    /// `None`, with the reason printed, where namespaces cannot be made.
    pub(crate) fn new(extra: &str) -> Option<Self> {
        Self::start(extra, None)
    }

    /// As [`new`](Self::new), but the relay is the user nobody, with these capabilities.
    pub(crate) fn as_nobody(extra: &str, capabilities: &'static str) -> Option<Self> {
        Self::start(extra, Some(capabilities))
    }

    fn start(extra: &str, as_nobody: Option<&'static str>) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if let Some(reason) = unavailable() {
            eprintln!("skipped: {reason}");
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let place = std::env::temp_dir().join(format!("wavry-relay-lab-{}-{number}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        let issuer = IssuerKey::from_seed([77; 32]).unwrap();
        let identity = Identity::load_or_create(&place.join("identity")).unwrap().0;
        let mut lab = Self {
            relay: Namespace::new("relay").unwrap(),
            client: Namespace::new("client").unwrap(),
            host: Namespace::new("host").unwrap(),
            process: None,
            log: place.join("log"),
            place,
            issuer,
            identity,
            as_nobody,
        };
        cable((&lab.client, "c0"), (&lab.relay, "r0"), 1).unwrap();
        cable((&lab.host, "h0"), (&lab.relay, "r1"), 1).unwrap();
        let ends = [(&lab.client, "c0", "r0", 1), (&lab.host, "h0", "r1", 2)];
        for (machine, device, relay_device, net) in ends {
            lab.relay.ip(&format!("address add 10.81.{net}.1/24 dev {relay_device}")).unwrap();
            lab.relay.ip(&format!("address add fd81:{net}::1/64 dev {relay_device} nodad")).unwrap();
            machine.ip(&format!("address add 10.81.{net}.2/24 dev {device}")).unwrap();
            machine.ip(&format!("address add fd81:{net}::2/64 dev {device} nodad")).unwrap();
            // A virtual cable takes frames from a program only if its other end has one as well, or GRO.
            machine.run("ethtool", &format!("-K {device} gro on")).unwrap();
        }
        fs::write(
            lab.place.join("relay.toml"),
            format!(
                "listen = \"[::]:{PORT}\"\nidentity = {:?}\nissuers = [\"{}\"]\nmetrics = \"127.0.0.1:9482\"\n\
                 drain_seconds = 1\nsoft_kbps_max = 1000000\nhard_kbps_max = 1000000\n{extra}\n",
                lab.place.join("identity"),
                lab.issuer.public(),
            ),
        )
        .unwrap();
        lab.start_relay();
        Some(lab)
    }

    pub(crate) fn start_relay(&mut self) {
        let log = fs::File::create(&self.log).unwrap();
        let program = env!("CARGO_BIN_EXE_wavry-relay");
        let mut command = match self.as_nobody {
            None => self.relay.command(program),
            Some(capabilities) => {
                // Where nobody can read it.
                let copy = self.place.join("wavry-relay");
                fs::copy(program, &copy).unwrap();
                for path in [&self.place, &self.place.join("identity")] {
                    std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
                }
                let mut command = self.relay.command("setpriv");
                command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]);
                command.args(["--clear-groups".to_owned(), format!("--inh-caps=-all{capabilities}")]);
                command.arg(format!("--ambient-caps=-all{capabilities}")).arg(copy);
                command
            }
        };
        command.arg("--config").arg(self.place.join("relay.toml")).env("WAVRY_LOG", "debug");
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.process = Some(child);
        assert!(line.contains("listens on"), "{line} {}", self.said());
    }

    /// What the relay logged.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The sum of the metrics whose names begin so.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let mut stream = self.relay.with(|| TcpStream::connect("127.0.0.1:9482").unwrap());
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let values = text.lines().filter(|line| line.starts_with(name));
        values.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
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

    /// Client and host of a session of their own, bound.
    pub(crate) fn pair(&self, number: u8, is_v6: bool) -> [Peer; 2] {
        self.pair_at(number, is_v6, [(&self.client, 1, 2), (&self.host, 2, 2)])
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

    /// Until the fast path has so many sessions.
    pub(crate) fn wait_for_sessions(&self, count: u64, peers: &mut [Peer]) {
        wait(&format!("{count} sessions on the fast path"), || {
            // A neighbour becomes known by what is sent to it.
            talk(peers, 1);
            std::thread::sleep(Duration::from_millis(20));
            self.metric("wavry_relay_fast_sessions ") == count
        });
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
        let _ = fs::remove_dir_all(&self.place);
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

//! `wavry-relay` as a process in the relay's namespace, and sessions that are bound at it.
//!
//! Owns the process, its configuration and the peers' sockets. Invariant: the process is gone when the value is dropped.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use rift_crypto::Identity;
use rift_relay::lease::{Claims, IssuerKey};
use rift_relay::peer::{Handled, PeerConfig, RelayPeer};
use rift_relay::wire::{FORWARD_LEN, Header, Role, SessionId};
use wavry_netns::Namespace;
use wavry_runtime::clock::Clock;

use crate::bound::bound_in;

/// Where the relay tells its counters, in its namespace.
pub(super) const METRICS: &str = "127.0.0.1:9482";
/// The relay's UDP port.
pub(super) const PORT: u16 = 4820;

/// Sessions that are bound at once at most: a relay lets 2048 proofs wait.
const WAVE: usize = 1000;

/// A directory, removed at the end.
pub(super) struct Place(pub(super) PathBuf);

impl Place {
    pub(super) fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("wavry-bench-relay-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A child, killed at the end.
pub(super) struct Process(pub(super) Child);

impl Process {
    /// Starts a program and waits for the line that says that it is ready.
    pub(super) fn start(mut command: Command, marker: &str) -> anyhow::Result<Self> {
        let mut process = Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?);
        let stdout = process.0.stdout.take().context("no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.contains(marker), "it did not start: {line}");
        Ok(process)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is needed to start relays and to sign leases for them.
pub(super) struct Issuer {
    key: IssuerKey,
    relay: Identity,
    directory: PathBuf,
    program: PathBuf,
}

impl Issuer {
    pub(super) fn new(place: &Place, program: Option<PathBuf>) -> anyhow::Result<Self> {
        let program = program.map_or_else(|| beside("wavry-relay"), Ok)?;
        let relay = Identity::load_or_create(&place.0.join("identity"))?.0;
        Ok(Self { key: IssuerKey::generate()?, relay, directory: place.0.clone(), program })
    }

    /// Starts a relay on one core. `extra` are further lines of its configuration.
    pub(super) fn start_relay(
        &self,
        namespace: &Namespace,
        address: Ipv4Addr,
        cores: &str,
        extra: &str,
    ) -> anyhow::Result<Process> {
        let file = self.directory.join("relay.toml");
        fs::write(
            &file,
            format!(
                "listen = \"{address}:{PORT}\"\nidentity = {:?}\nissuers = [\"{}\"]\nhard_kbps_max = 10000000\n\
                 soft_kbps_max = 10000000\ndrain_seconds = 0\nmetrics = \"{METRICS}\"\n{extra}\n",
                self.directory.join("identity"),
                self.key.public()
            ),
        )?;
        let mut command = bound_in(namespace, "taskset");
        command.args(["-c", cores]).arg(&self.program).arg("--config").arg(&file).env("WAVRY_LOG", "error");
        Process::start(command, "listens on").context("wavry-relay")
    }

    /// A lease whose signature is wrong, though all else is right.
    pub(super) fn bogus_token(&self, session: SessionId) -> anyhow::Result<String> {
        let peers = [Identity::from_seed([1; 32])?, Identity::from_seed([2; 32])?];
        let mut token = self.token(session, &peers)?.into_bytes();
        // The signature is the end of the second part; the footer is the third.
        let end = token.iter().rposition(|&byte| byte == b'.').context("a token without footer")?;
        let letter = &mut token[end - 20];
        *letter = if *letter == b'A' { b'B' } else { b'A' };
        Ok(String::from_utf8(token)?)
    }

    fn token(&self, session: SessionId, peers: &[Identity; 2]) -> anyhow::Result<String> {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
        let identities = [peers[0].wavry_id(), peers[1].wavry_id()];
        let relay = self.relay.wavry_id();
        Ok(self.key.mint(&Claims::from_now(session, relay, identities, now_ms, 3_600_000, 10_000_000)))
    }
}

/// A program that was built with this one.
fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.is_file(), "{name} is not built: cargo build --release -p {name}");
    Ok(path)
}

/// A peer and the socket that it sends from.
struct Bound {
    peer: RelayPeer,
    socket: usize,
}

/// Sessions between a host that sends and a client that receives. Every peer has its own keys; those of one side
/// share sockets.
pub(super) struct Sessions {
    sockets: Vec<UdpSocket>,
    peers: Vec<[Bound; 2]>,
    numbers: HashMap<SessionId, usize>,
    relay: SocketAddrV4,
}

impl Sessions {
    /// `count` sessions, none of them bound. Clients send from the sockets of `clients`, hosts from those of `hosts`,
    /// in turn.
    pub(super) fn new(
        issuer: &Issuer,
        relay: SocketAddrV4,
        count: u32,
        clients: Vec<UdpSocket>,
        hosts: Vec<UdpSocket>,
    ) -> anyhow::Result<Self> {
        Self::numbered(issuer, relay, 0..count, clients, hosts)
    }

    /// The sessions with these numbers; each number has its own keys and id.
    pub(super) fn numbered(
        issuer: &Issuer,
        relay: SocketAddrV4,
        range: Range<u32>,
        clients: Vec<UdpSocket>,
        hosts: Vec<UdpSocket>,
    ) -> anyhow::Result<Self> {
        let now_us = Clock.now() / 1000;
        let (client_sockets, host_sockets) = (clients.len(), hosts.len());
        let sockets: Vec<UdpSocket> = clients.into_iter().chain(hosts).collect();
        for socket in &sockets {
            socket.set_nonblocking(true)?;
        }
        let (mut peers, mut numbers) = (Vec::new(), HashMap::new());
        for number in range {
            let seed = |role: u8| -> [u8; 32] {
                let mut seed = [role; 32];
                seed[..4].copy_from_slice(&number.to_be_bytes());
                seed
            };
            let identities = [Identity::from_seed(seed(1))?, Identity::from_seed(seed(2))?];
            // Spread, as random ones would be.
            let session = SessionId(
                (u128::from(number) + 1)
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
                    .to_be_bytes(),
            );
            let token = issuer.token(session, &identities)?;
            let [client, host] = identities;
            let bind = |identity, role: u8, socket| -> anyhow::Result<Bound> {
                let config = PeerConfig { identity, token: token.clone(), seed: seed(2 + role) };
                Ok(Bound { peer: RelayPeer::new(config, now_us)?, socket })
            };
            let number = peers.len();
            peers.push([
                bind(client, 1, number % client_sockets)?,
                bind(host, 2, client_sockets + number % host_sockets)?,
            ]);
            numbers.insert(session, number);
        }
        Ok(Self { sockets, peers, numbers, relay })
    }

    /// Lets all peers talk to the relay until each is bound; of many, some after others, as many as may wait for verification.
    pub(super) fn bind(&mut self, patience: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + patience;
        for first in (0..self.peers.len()).step_by(WAVE) {
            let wave = first..(first + WAVE).min(self.peers.len());
            while let waiting = self.waiting(&wave)
                && waiting > 0
            {
                let all = self.peers.len();
                ensure!(Instant::now() < end, "{waiting} peers of sessions {wave:?} of {all} were not bound");
                if self.drive_some(wave.clone(), |_, _| {})? == 0 {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        }
        Ok(())
    }

    fn waiting(&self, wave: &Range<usize>) -> usize {
        self.peers[wave.clone()].iter().flatten().filter(|bound| !bound.peer.is_bound()).count()
    }

    /// Lets both sides of all sessions send ten times a second until something of each host arrived; when the first did,
    /// by session.
    pub(super) fn stream_until_all_arrive(
        &mut self,
        patience: Duration,
    ) -> anyhow::Result<HashMap<usize, Instant>> {
        const GAP: Duration = Duration::from_millis(100);
        let begun = Instant::now();
        let (mut next, mut arrived) = (begun, HashMap::new());
        let mut datagram = [0; FORWARD_LEN + 64];
        while arrived.len() < self.peers.len() && begun.elapsed() < patience {
            if Instant::now() >= next {
                next += GAP;
                let now_us = Clock.now() / 1000;
                for Bound { peer, socket } in self.peers.iter_mut().flatten() {
                    let Some(head) = datagram.first_chunk_mut() else { break };
                    if peer.wrap(now_us, 64, head) {
                        let _ = self.sockets[*socket].send_to(&datagram, self.relay);
                    }
                }
            }
            let moved = self.drive_with(|number, role| {
                if role == Role::Client {
                    arrived.entry(number).or_insert_with(Instant::now);
                }
            })?;
            if moved == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        Ok(arrived)
    }

    /// Sends what peers have to say and takes what came for them; how many datagrams that were.
    pub(super) fn drive(&mut self) -> anyhow::Result<usize> {
        self.drive_with(|_, _| {})
    }

    /// The same; tells of each payload that arrived, whose session and which peer's.
    fn drive_with(&mut self, on_payload: impl FnMut(usize, Role)) -> anyhow::Result<usize> {
        self.drive_some(0..self.peers.len(), on_payload)
    }

    /// The same, but only some sessions have their say.
    fn drive_some(
        &mut self,
        some: Range<usize>,
        mut on_payload: impl FnMut(usize, Role),
    ) -> anyhow::Result<usize> {
        let now_us = Clock.now() / 1000;
        let mut moved = 0;
        for Bound { peer, socket } in self.peers[some].iter_mut().flatten() {
            peer.handle_timeout(now_us);
            while let Some(datagram) = peer.poll_transmit(now_us) {
                // A lost one is sent again.
                let _ = self.sockets[*socket].send_to(datagram, self.relay);
                moved += 1;
            }
            while peer.poll_event().is_some() {}
        }
        let mut bytes = [0; 2048];
        for (index, socket) in self.sockets.iter().enumerate() {
            loop {
                match socket.recv(&mut bytes) {
                    Ok(len) => {
                        moved += 1;
                        let Ok(header) = Header::decode(&bytes[..len]) else { continue };
                        let Some(&number) = self.numbers.get(&header.session) else { continue };
                        for bound in self.peers[number].iter_mut().filter(|bound| bound.socket == index) {
                            if bound.peer.handle_datagram(now_us, &bytes[..len]) == Handled::Payload {
                                on_payload(number, bound.peer.role());
                            }
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(moved)
    }

    /// Session ids, and keys of what their hosts send.
    pub(super) fn host_keys(&self) -> impl Iterator<Item = (SessionId, [u64; 2])> {
        self.peers
            .iter()
            .map(|[_, host]| (host.peer.claims().session, host.peer.forward_key().unwrap_or_default()))
    }
}

/// The head of a FORWARD of a host, without sequence and MAC.
pub(super) fn forward_head(session: SessionId) -> [u8; FORWARD_LEN] {
    let mut head = [0; FORWARD_LEN];
    let forward =
        rift_relay::wire::Forward { session, role: Role::Host, sequence: 0, mac: 0, payload_len: 0 };
    forward.encode(&mut head);
    head
}

/// Compiles a C program of `bench/relay`.
pub(super) fn compile(place: &Place, name: &str) -> anyhow::Result<PathBuf> {
    let binary = place.0.join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("relay/{name}.c"));
    let built = Command::new("cc").args(["-O2", "-o"]).arg(&binary).arg(source).status();
    ensure!(built.context("cc is missing: install gcc")?.success(), "{name}.c does not build");
    Ok(binary)
}

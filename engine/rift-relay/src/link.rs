//! How a program is told to use a relay: its address, and a lease as text or as a file that somebody keeps current.
//!
//! Owns the reading of the lease and the thread that looks for newer ones. The only part of this crate that touches files.
//! Invariant: whatever is wrong is said before a session starts.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rift_crypto::Identity;
use wavry_runtime::clock::Clock;
use wavry_runtime::spsc::{self, Producer};
use wavry_runtime::transport::Transport;

use crate::carrier::Carrier;
use crate::peer::{LeaseUnusable, PeerConfig, RelayPeer};
use crate::wire::{PAYLOAD_MAX, Role};

/// How often a lease's file is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Largest file that is read as a lease, in bytes.
const FILE_MAX: u64 = 4096;

/// Longest datagram that fits through a relay, in bytes.
pub const DATAGRAM_MAX: usize = PAYLOAD_MAX;

/// Why a relay cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Its name is not known.
    #[error("the relay {0} is not known; give HOST:PORT, and check its spelling")]
    Address(String),
    /// The file cannot be read.
    #[error("the lease {path} is neither a token that begins with v4.public. nor a file that can be read: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// See [`LeaseUnusable`].
    #[error(transparent)]
    Lease(#[from] LeaseUnusable),
    /// The lease gives this machine the other role.
    #[error("the lease names this machine as the {found}, but it is to be the {wanted}")]
    Role {
        /// What the lease says.
        found: &'static str,
        /// What the program is.
        wanted: &'static str,
    },
    /// No randomness, or no thread.
    #[error("{0}")]
    System(String),
}

/// A relay that is ready to be used.
#[derive(Debug)]
pub struct Link {
    relay: SocketAddr,
    peer: RelayPeer,
    file: Option<(PathBuf, String)>,
}

impl Link {
    /// Looks up `relay` (HOST:PORT) and reads `lease`, a token or the file that holds one.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn prepare(identity: Identity, role: Role, relay: &str, lease: &str) -> Result<Self, LinkError> {
        let address = relay
            .to_socket_addrs()
            .ok()
            .and_then(|mut found| found.next())
            .ok_or_else(|| LinkError::Address(relay.to_owned()))?;
        let (token, file) = if lease.trim_start().starts_with("v4.") {
            (lease.to_owned(), None)
        } else {
            let path = PathBuf::from(lease);
            let token = read(&path).map_err(|source| LinkError::File { path: path.clone(), source })?;
            (token.clone(), Some((path, token)))
        };
        let seed = rift_crypto::random_seed().map_err(|error| LinkError::System(error.to_string()))?;
        let peer = RelayPeer::new(PeerConfig { identity, token, seed }, Clock.now() / 1000)?;
        if peer.role() != role {
            return Err(LinkError::Role { found: name(peer.role()), wanted: name(role) });
        }
        Ok(Self { relay: address, peer, file })
    }

    /// The relay's address.
    #[must_use]
    pub fn relay(&self) -> SocketAddr {
        self.relay
    }

    /// Carries everything that a transport sends to the relay's address through the relay. A lease that came from a file
    /// is renewed when the file changes.
    pub fn carry<T: Transport>(self, inner: T) -> Carrier<T> {
        let leases = self.file.and_then(|(path, token)| {
            let (found, newer) = spsc::ring(4);
            let waker = inner.waker();
            let thread = std::thread::Builder::new().name("wavry-lease".to_owned());
            let spawned = thread.spawn(move || watch(&path, token, found, &waker));
            if let Err(error) = &spawned {
                tracing::warn!(%error, "nobody looks for newer leases: no thread could be started");
            }
            spawned.ok().map(|_| newer)
        });
        Carrier::new(inner, self.relay, self.peer, leases)
    }
}

/// Reads the file now and then until the other end of the ring is gone.
fn watch(path: &Path, mut current: String, mut found: Producer<String>, waker: &wavry_runtime::Waker) {
    while !found.is_abandoned() {
        std::thread::sleep(LOOK);
        // Half-written or missing for a moment: the next look is soon.
        if let Ok(token) = read(path)
            && token != current
            && crate::lease::read_unverified(token.as_bytes()).is_ok()
            && found.push(token.clone()).is_ok()
        {
            current = token;
            waker.wake();
        }
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_MAX).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

const fn name(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Host => "host",
    }
}

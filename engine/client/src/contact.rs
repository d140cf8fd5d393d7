//! Short conversations with a host: pairing, and measuring the round trip.
//!
//! Runs on the caller's thread, for seconds at most. Streams nothing and opens no window.

use std::net::SocketAddr;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use rift_core::Timestamp;
use rift_core::endpoint::{ClientConfig, ClientEndpoint, ClientEvent, ExpectedHost, Path, Purpose};
use rift_core::session::{CloseCode, CloseReason};
use rift_crypto::{Identity, KnownHost, KnownHosts, PeerProof, Pin};
use wavry_runtime::kernel;
use wavry_runtime::uring::{UringUdp, UringUdpConfig};
use wavry_session_loop::{SessionLoop, now};

use crate::config::Target;
use crate::network::refusal;

/// Name of the identity file in the configuration directory.
pub const IDENTITY_FILE: &str = "identity";
/// Name of the list of paired hosts in the configuration directory.
pub const KNOWN_HOSTS_FILE: &str = "known-hosts";

/// How long a host may take to answer anything at all: a little longer than all retransmissions.
const PATIENCE: Duration = Duration::from_secs(4);

/// This client's lasting state.
#[derive(Debug)]
pub struct Home {
    directory: PathBuf,
}

impl Home {
    /// The state in this directory.
    #[must_use]
    pub fn new(directory: &FilePath) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The identity, made on first use.
    ///
    /// # Errors
    /// When its file cannot be read or made, or others can read it.
    pub fn identity(&self) -> anyhow::Result<Identity> {
        let (identity, _) = Identity::load_or_create(&self.directory.join(IDENTITY_FILE))?;
        Ok(identity)
    }

    /// The hosts that this client is paired with.
    ///
    /// # Errors
    /// When the file cannot be read or has a line that is not understood.
    pub fn known_hosts(&self) -> anyhow::Result<KnownHosts> {
        Ok(KnownHosts::load(&self.directory.join(KNOWN_HOSTS_FILE))?)
    }
}

/// Pairs with a host that shows a PIN, and remembers it under the name it was given by.
///
/// # Errors
/// When the host does not answer, does not pair, or the PIN is wrong.
pub fn pair(home: &Home, target: &Target, name: &str, pin: Pin) -> anyhow::Result<PeerProof> {
    let remote = target.resolve()?;
    let mut known = home.known_hosts()?;
    let mut contact = Contact::open(home, remote, None, name, Purpose::Pair(pin))?;
    loop {
        match contact.next_event(PATIENCE)? {
            Some(ClientEvent::Paired { host }) => {
                contact.close()?;
                let named = KnownHost {
                    name: target.to_string(),
                    id: host.id,
                    static_public: host.static_public,
                    label: String::new(),
                };
                known.remember(&named).context("the host could not be remembered")?;
                return Ok(host);
            }
            Some(ClientEvent::WrongPin { attempts_left: 0 }) => {
                bail!("wrong PIN; the host has ended pairing: start it with --pair again for a new PIN")
            }
            Some(ClientEvent::WrongPin { attempts_left }) => {
                bail!("wrong PIN; look at the host's terminal and try again ({attempts_left} attempts left)")
            }
            Some(ClientEvent::Refused(reason)) => {
                bail!("{target} refuses: {}", refusal(reason))
            }
            Some(ClientEvent::Closed(reason)) => bail!("{target} ended the conversation: {reason}"),
            Some(_) => {}
            None => bail!("{target} does not answer; is wavry-server running there, and UDP open to it?"),
        }
    }
}

/// Measures `count` round trips to a paired host, in microseconds, through the sealed channel.
///
/// # Errors
/// When the host is not paired or does not answer.
pub fn ping(
    home: &Home,
    target: &Target,
    name: &str,
    count: u32,
    mut each: impl FnMut(u32, u64),
) -> anyhow::Result<()> {
    let remote = target.resolve()?;
    let host = known_host(home, target)?;
    let mut contact = Contact::open(home, remote, Some(host), name, Purpose::Ping)?;
    let mut seen = 0;
    while seen < count {
        match contact.next_event(PATIENCE)? {
            Some(ClientEvent::RttSample(rtt_us)) => {
                seen += 1;
                each(seen, rtt_us);
            }
            Some(ClientEvent::Refused(reason)) => bail!("{target} refuses: {}", refusal(reason)),
            Some(ClientEvent::PairingRequired) => bail!("{}", not_paired(target)),
            Some(ClientEvent::Closed(reason)) => bail!("{target} ended the conversation: {reason}"),
            Some(_) => {}
            None => bail!("{target} does not answer; is wavry-server running there, and UDP open to it?"),
        }
    }
    contact.close()
}

/// The remembered host, or a text that says how to pair.
///
/// # Errors
/// When it is not remembered, or the list cannot be read.
pub fn known_host(home: &Home, target: &Target) -> anyhow::Result<ExpectedHost> {
    let known = home.known_hosts()?;
    let host = known.find(&target.to_string()).with_context(|| not_paired(target))?;
    Ok(ExpectedHost { id: host.id, static_public: Some(host.static_public) })
}

fn not_paired(target: &Target) -> String {
    format!(
        "not paired with {target}: start wavry-server there with --pair, then run `wavry pair {target}` here"
    )
}

struct Contact {
    session: SessionLoop<UringUdp, ClientEndpoint>,
}

impl Contact {
    fn open(
        home: &Home,
        remote: SocketAddr,
        expect: Option<ExpectedHost>,
        name: &str,
        purpose: Purpose,
    ) -> anyhow::Result<Self> {
        kernel::require()?;
        let path = Path { remote, local: None };
        let config = ClientConfig {
            expect,
            name: name.to_owned(),
            purpose,
            ..ClientConfig::new(home.identity()?, rift_crypto::random_seed()?, path)
        };
        let transport = UringUdp::open(UringUdpConfig::new(unspecified_like(remote)))?;
        Ok(Self { session: SessionLoop::new(transport, ClientEndpoint::new(config, now())) })
    }

    /// The next event, or `None` if there is none for as long as `patience`.
    fn next_event(&mut self, patience: Duration) -> anyhow::Result<Option<ClientEvent>> {
        let end = now() + patience;
        loop {
            if let Some(event) = self.session.endpoint_mut().poll_event() {
                return Ok(Some(event));
            }
            if now() >= end {
                return Ok(None);
            }
            self.turn(end)?;
        }
    }

    fn close(mut self) -> anyhow::Result<()> {
        self.session.take_leave(CloseReason::Local(CloseCode::Normal)).map_err(Into::into)
    }

    fn turn(&mut self, end: Timestamp) -> anyhow::Result<()> {
        let now = now();
        self.session.receive(now);
        self.session.transmit(now);
        self.session.turn(end)?;
        Ok(())
    }
}

/// The wildcard address of the same family, any port.
pub(crate) fn unspecified_like(remote: SocketAddr) -> SocketAddr {
    if remote.is_ipv4() { SocketAddr::from(([0; 4], 0)) } else { SocketAddr::from(([0u16; 8], 0)) }
}

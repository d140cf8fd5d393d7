//! The program around the session logic: threads, and what passes between them.
//!
//! Owns its threads: forwarding (each a socket and the sessions whose datagrams come to it), verifying, the endpoints for
//! metrics, and with a fast path one that looks after routes. Never logs an address of a user. Invariants: a forwarding
//! thread neither allocates nor waits for another thread, but where a session enters or leaves the fast path for the few
//! microseconds in which another's does; a full ring is a counted drop; all datagrams of a session come to one thread,
//! chosen by the session's id, whatever address they come from.

mod endpoints;
mod fast_path;
mod forward;
mod metrics;
mod privileges;
mod verifying;

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use rift_crypto::Identity;
use rift_relay::wire::{Kind, MAGIC, VERSION};
use wavry_runtime::kernel;
use wavry_runtime::shutdown::Shutdown;
use wavry_runtime::spsc;
use wavry_runtime::terminal::say;
use wavry_runtime::transport::Transport;
use wavry_runtime::uring::{Filter, Merge, OpenError, Steer, UringUdp, UringUdpConfig};
use wavry_runtime::{cores, spsc::Producer};
use zeroize::Zeroizing;

use crate::challenge::ChallengeKeys;
use crate::config::Config;
use crate::core::{Relay, RelayLimits};
use crate::verify::{Policy, RelayKey, Verifier};
use fast_path::FastPath;
use forward::{Forwarder, ForwarderLinks};
pub use metrics::Metrics;
use verifying::{ForwarderEnd, Verifying, VerifyingLinks};

/// Where datagrams have the last four bytes of the session's id, which chooses among forwarding threads. An issuer draws
/// ids at random, and whoever makes them up without one gets no session by it.
const STEER_AT: u32 = 16;
/// How everything begins that a relay takes (RELAY-1 §2), without the flags.
const FIRST_WORDS: [u32; 4] = {
    const fn word(kind: Kind) -> u32 {
        u32::from_be_bytes([MAGIC, VERSION, kind as u8, 0])
    }
    [word(Kind::Forward), word(Kind::LeasePresent), word(Kind::LeaseRenew), word(Kind::ProbeReq)]
};
/// Datagrams that may wait for verification: half a second at the default rate, so that a thousand sessions come
/// back at once when the relay was restarted.
const VERIFY_QUEUE: usize = 2048;
/// The same for peers that are bound: they come once a lease.
const RENEW_QUEUE: usize = 512;
/// How long a port that is in use may take to become free.
const PORT_PATIENCE: Duration = Duration::from_millis(500);
/// How often lists are looked at for changes.
const TICK: Duration = Duration::from_secs(1);

/// Runs a relay until a signal, then lets sessions go on for as long as the configuration says.
///
/// # Errors
/// What kept it from starting or going on, with what to do about it.
pub fn run(config: &Config, dry_run: bool) -> anyhow::Result<()> {
    kernel::require()?;
    let policy = Arc::new(config.policy()?);
    let (identity, _) = Identity::load_or_create(&config.identity)?;
    let id = identity.wavry_id();
    if dry_run {
        fast_path::check(config)?;
        // Opened and closed again: a port in use is found now and not at night.
        drop(UringUdp::open(transport_config(config))?);
        say(format_args!("wavry-relay {id}: the configuration is right, and {} can be bound", config.listen));
        return Ok(());
    }
    let shutdown = privileges::without(Shutdown::install).context("signals cannot be handled")?;
    let reload = Shutdown::install_reload().context("signals cannot be handled")?;
    let metrics: Vec<Arc<Metrics>> = (0..config.threads.max(1)).map(|_| Arc::default()).collect();
    let mut threads = start(config, &identity, Arc::clone(&policy), &metrics, &shutdown)?;
    if let Some(address) = config.metrics {
        endpoints::start(address, metrics.clone())?;
    }
    say(format_args!("wavry-relay {id} listens on {}", threads.local));
    supervise(config, &mut threads, &shutdown, &reload);
    let results: Vec<_> = threads.forwarding.drain(..).map(JoinHandle::join).collect();
    shutdown.request();
    threads.verifying.thread().unpark();
    let _ = threads.verifying.join();
    threads.ended.store(true, Ordering::Relaxed);
    if let Some(paths) = threads.paths.take() {
        paths.thread().unpark();
        let _ = paths.join();
    }
    for result in results {
        match result {
            Ok(result) => result.context("a forwarding thread ended early")?,
            Err(_) => anyhow::bail!("a forwarding thread panicked; this is a fault of the program"),
        }
    }
    Ok(())
}

struct Threads {
    forwarding: Vec<JoinHandle<std::io::Result<()>>>,
    verifying: JoinHandle<()>,
    policies: Vec<Producer<Arc<Policy>>>,
    local: SocketAddr,
    /// Detaches when the threads are done.
    _fast_path: Option<fast_path::Opened>,
    paths: Option<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
}

fn transport_config(config: &Config) -> UringUdpConfig {
    UringUdpConfig {
        busy_poll: config.busy_poll,
        // A turn may bring lone datagrams of many peers, and each may leave in a slot of its own.
        rx_buffers: 128,
        tx_slots: 128,
        merge: Merge::ByLoad { seam },
        ..UringUdpConfig::new(config.listen)
    }
}

/// Where the second datagram begins in what may be several that the kernel merged: they are of one sender and one length, and begin
/// alike. What looks like it and is not, one datagram in ten million, has no right MAC.
fn seam(datagrams: &[u8]) -> Option<usize> {
    let head = datagrams.get(..4)?;
    let at = datagrams.windows(4).skip(4).position(|word| word == head)? + 4;
    datagrams.chunks(at).all(|datagram| datagram.get(..4) == Some(head)).then_some(at)
}

/// What all forwarding threads have in common.
struct Common {
    limits: RelayLimits,
    key: RelayKey,
    /// Of challenges and tables.
    secret: [u8; 64],
    drain_ns: u64,
    shutdown: Shutdown,
}

/// What a forwarding thread waits for once its socket is open.
struct Go {
    verifying: Thread,
    fast: Option<FastPath>,
    guard: Option<OwnedFd>,
}

/// A forwarding thread that has opened its socket and waits for the rest of the program.
struct Started {
    thread: JoinHandle<std::io::Result<()>>,
    local: SocketAddr,
    policies: Producer<Arc<Policy>>,
    end: ForwarderEnd,
    go: Sender<Go>,
}

fn start(
    config: &Config,
    identity: &Identity,
    policy: Arc<Policy>,
    metrics: &[Arc<Metrics>],
    shutdown: &Shutdown,
) -> anyhow::Result<Threads> {
    let (verifier, key) = Verifier::new(identity, &Zeroizing::new(rift_crypto::random_seed()?), policy)?;
    let mut secret = [0; 64];
    secret[..32].copy_from_slice(&rift_crypto::random_seed()?);
    secret[32..].copy_from_slice(&rift_crypto::random_seed()?);
    let challenges = ChallengeKeys::new(std::array::from_fn(|i| secret[i]));
    let drain_ns = config.drain_seconds.saturating_mul(1_000_000_000);
    let common = Common { limits: config.limits(), key, secret, drain_ns, shutdown: shutdown.clone() };

    let mut uring = transport_config(config);
    if metrics.len() > 1 {
        // Sockets that share a port do not notice another program on it; one that does not share does.
        let alone = open_socket(uring)?;
        uring.bind = alone.local_addr();
        uring.steer = Some(Steer { offset: STEER_AT, sockets: metrics.len() as u32 });
    }
    let mut started = Vec::new();
    for (number, metrics) in metrics.iter().enumerate() {
        let core = config.core.map(|first| first + number);
        started.push(start_forwarding(&common, uring, core, metrics)?);
    }
    let local = started[0].local;
    let opened = fast_path::open(config, local, &challenges)?;
    // Threads that are started from here on need nothing that others may not do.
    privileges::give_up();
    let ended = Arc::new(AtomicBool::new(false));
    let (sides, paths) = match &opened {
        Some(opened) => {
            opened.counters().map(|counters| metrics[0].fast_path.set(counters));
            opened.guard_counters().map(|counters| metrics[0].guard.set(counters));
            let slots = vec![common.limits.sessions; metrics.len()];
            let (sides, paths) = fast_path::start(opened, local, &slots, &metrics[0], &ended)?;
            (sides, paths)
        }
        None => (Vec::new(), None),
    };
    let mut sides = sides.into_iter();
    let (verify_policies, verify_policy_end) = spsc::ring(4);
    let (mut threads, mut forwarders, mut gos) = (Vec::new(), Vec::new(), Vec::new());
    let mut policies = vec![verify_policies];
    for thread in started {
        threads.push(thread.thread);
        forwarders.push(thread.end);
        policies.push(thread.policies);
        gos.push(thread.go);
    }
    let verifying = {
        let links = VerifyingLinks { forwarders, policies: verify_policy_end };
        let per_second = config.verifications_per_second;
        std::thread::Builder::new()
            .name("relay-verify".to_owned())
            .spawn(move || Verifying::new(verifier, links, per_second).run())?
    };
    for go in gos {
        let guard = opened.as_ref().map_or(Ok(None), fast_path::Opened::guard)?;
        let _ = go.send(Go { verifying: verifying.thread().clone(), fast: sides.next(), guard });
    }
    Ok(Threads { forwarding: threads, verifying, policies, local, _fast_path: opened, paths, ended })
}

/// Opens the socket. A relay that was killed may still hold the port for a moment: the kernel ends a ring's requests
/// after the process is gone.
fn open_socket(config: UringUdpConfig) -> Result<UringUdp, OpenError> {
    let end = Instant::now() + PORT_PATIENCE;
    loop {
        match UringUdp::open(config) {
            Err(OpenError::PortInUse { .. }) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// Starts one forwarding thread and waits until its socket is open.
fn start_forwarding(
    common: &Common,
    uring: UringUdpConfig,
    core: Option<usize>,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Started> {
    let (new_jobs, new_job_end) = spsc::ring(VERIFY_QUEUE);
    let (known_jobs, known_job_end) = spsc::ring(RENEW_QUEUE);
    let (outcomes, outcome_end) = spsc::ring(VERIFY_QUEUE + RENEW_QUEUE);
    let (policies, policy_end) = spsc::ring(4);
    let relay = Relay::new(common.limits, common.key, common.secret);
    let (opened, opening) = channel();
    let (go, going) = channel();
    let drain_ns = common.drain_ns;
    let thread = {
        let (metrics, shutdown) = (Arc::clone(metrics), common.shutdown.clone());
        std::thread::Builder::new().name("relay-forward".to_owned()).spawn(move || {
            if let Some(core) = core
                && let Err(error) = cores::pin_to(core)
            {
                tracing::warn!(%error, core, "the forwarding thread could not be pinned");
            }
            // Verification must not hold it up where both have one core. One that spins would hold up everything else.
            cores::raise_priority(!uring.busy_poll);
            // The ring belongs to the thread that runs it.
            let transport = match open_socket(uring) {
                Ok(transport) => transport,
                Err(error) => {
                    let _ = opened.send(Err(error));
                    return Ok(());
                }
            };
            let _ = opened.send(Ok((transport.waker(), transport.local_addr())));
            let Ok(Go { verifying, fast, guard }) = going.recv() else { return Ok(()) };
            let filter = guard.as_ref().map_or(Filter::Words(&FIRST_WORDS), |guard| Filter::Program(guard.as_fd()));
            if let Err(error) = transport.set_filter(filter) {
                tracing::warn!(%error, "the socket takes everything: a flood of junk reaches the relay's thread");
            }
            let links = ForwarderLinks {
                new_jobs,
                known_jobs,
                outcomes: outcome_end,
                policies: policy_end,
                verifying,
                metrics,
                shutdown,
            };
            Forwarder::new(transport, relay, links, drain_ns).with_fast_path(fast).run()
        })?
    };
    let (waker, local) = opening.recv().context("the forwarding thread ended before it began")??;
    common.shutdown.notify(waker.clone());
    let end = ForwarderEnd {
        new_jobs: new_job_end,
        known_jobs: known_job_end,
        outcomes,
        waker,
        metrics: Arc::clone(metrics),
    };
    Ok(Started { thread, local, policies, end, go })
}

/// Reads the lists again when they change, or when `reload` asks for it, until the forwarding threads are done, or one of
/// them failed.
fn supervise(config: &Config, threads: &mut Threads, shutdown: &Shutdown, reload: &AtomicBool) {
    let mut seen = list_times(config);
    while !threads.forwarding.iter().all(JoinHandle::is_finished) {
        if threads.forwarding.iter().any(JoinHandle::is_finished) {
            // Its sessions are nobody's now; a new start serves all.
            shutdown.request();
        }
        std::thread::park_timeout(TICK / 4);
        let times = list_times(config);
        if times == seen && !reload.swap(false, Ordering::Relaxed) {
            continue;
        }
        seen = times;
        match config.policy() {
            Ok(policy) => {
                let policy = Arc::new(policy);
                tracing::info!(
                    banned = policy.banned.len(),
                    revoked = policy.revoked.len(),
                    "lists read again"
                );
                for ring in &mut threads.policies {
                    let _ = ring.push(Arc::clone(&policy));
                }
            }
            Err(error) => tracing::error!("the lists stay as they were: {error:#}"),
        }
    }
}

fn list_times(config: &Config) -> [Option<SystemTime>; 2] {
    let time = |path: &Option<std::path::PathBuf>| {
        path.as_deref().and_then(|path: &Path| std::fs::metadata(path).ok()?.modified().ok())
    };
    [time(&config.banned), time(&config.revoked)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rift_relay::wire::{FORWARD_LEN, Forward, Header, PAYLOAD_MAX, Role, SessionId};

    fn forward(session: u8, payload: usize) -> Vec<u8> {
        let forward = Forward {
            session: SessionId([session; 16]),
            role: Role::Host,
            sequence: 7,
            mac: 0,
            payload_len: payload as u16,
        };
        let mut head = [0; FORWARD_LEN];
        forward.encode(&mut head);
        let mut bytes = head.to_vec();
        bytes.resize(FORWARD_LEN + payload, 0x57);
        bytes
    }

    #[test]
    fn seams_are_where_datagrams_begin() {
        for payload in [1, 200, PAYLOAD_MAX] {
            let one = forward(1, payload);
            assert_eq!(seam(&one), None, "{:?}", Header::decode(&one));
            // Sessions of one sender may share its socket.
            let mut several: Vec<u8> = (1..=5).flat_map(|session| forward(session, payload)).collect();
            assert_eq!(seam(&several), Some(one.len()));
            several.extend(forward(6, 1));
            assert_eq!(seam(&several), Some(one.len()), "the last may be shorter");
        }
        assert_eq!(seam(b""), None);
        assert_eq!(seam(b"abcdabc"), None);
        let mut similar = forward(1, 200);
        similar.copy_within(..4, 100);
        assert_eq!(seam(&similar), None, "not all pieces begin so");
    }
}

//! The program around the session logic: threads, and what passes between them.
//!
//! Owns its threads: forwarding (the socket and all sessions), verifying, the endpoints for metrics, and with a fast path one
//! that looks after routes. Never logs an address of a user. Invariant: the forwarding thread neither allocates nor waits for another thread; a full ring is a
//! counted drop.

mod endpoints;
mod fast_path;
mod forward;
mod metrics;
mod privileges;
mod verifying;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use rift_crypto::Identity;
use wavry_runtime::kernel;
use wavry_runtime::shutdown::Shutdown;
use wavry_runtime::spsc;
use wavry_runtime::transport::Transport;
use wavry_runtime::uring::{UringUdp, UringUdpConfig};
use wavry_runtime::{cores, spsc::Producer};
use zeroize::Zeroizing;

use crate::config::Config;
use crate::core::Relay;
use crate::verify::{Policy, Verifier};
use forward::{Forwarder, ForwarderLinks};
pub use metrics::Metrics;
use verifying::{Verifying, VerifyingLinks};

/// Datagrams that may wait for verification: a quarter of a second at the default rate.
const VERIFY_QUEUE: usize = 512;
/// The same for peers that are bound: they come once a lease.
const RENEW_QUEUE: usize = 512;
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
        println!("wavry-relay {id}: the configuration is right, and {} can be bound", config.listen);
        return Ok(());
    }
    let shutdown = privileges::without(Shutdown::install).context("signals cannot be handled")?;
    let metrics = Arc::new(Metrics::default());
    let mut threads = start(config, &identity, Arc::clone(&policy), &metrics, &shutdown)?;
    if let Some(address) = config.metrics {
        endpoints::start(address, Arc::clone(&metrics)).with_context(|| {
            format!("the metrics endpoint {address} cannot be opened; choose another port")
        })?;
    }
    println!("wavry-relay {id} listens on {}", threads.local);
    supervise(config, &mut threads);
    let result = threads.forwarding.join();
    shutdown.request();
    threads.verifying.thread().unpark();
    let _ = threads.verifying.join();
    threads.ended.store(true, Ordering::Relaxed);
    if let Some(paths) = threads.paths.take() {
        paths.thread().unpark();
        let _ = paths.join();
    }
    match result {
        Ok(result) => result.context("the forwarding thread ended early"),
        Err(_) => anyhow::bail!("the forwarding thread panicked; this is a fault of the program"),
    }
}

struct Threads {
    forwarding: JoinHandle<std::io::Result<()>>,
    verifying: JoinHandle<()>,
    policies: [Producer<Arc<Policy>>; 2],
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
        ..UringUdpConfig::new(config.listen)
    }
}

fn start(
    config: &Config,
    identity: &Identity,
    policy: Arc<Policy>,
    metrics: &Arc<Metrics>,
    shutdown: &Shutdown,
) -> anyhow::Result<Threads> {
    let (verifier, key) = Verifier::new(identity, &Zeroizing::new(rift_crypto::random_seed()?), policy)?;
    let mut secret = [0; 64];
    secret[..32].copy_from_slice(&rift_crypto::random_seed()?);
    secret[32..].copy_from_slice(&rift_crypto::random_seed()?);

    let (new_jobs, new_job_end) = spsc::ring(VERIFY_QUEUE);
    let (known_jobs, known_job_end) = spsc::ring(RENEW_QUEUE);
    let (outcomes, outcome_end) = spsc::ring(VERIFY_QUEUE + RENEW_QUEUE);
    let (forward_policies, forward_policy_end) = spsc::ring(4);
    let (verify_policies, verify_policy_end) = spsc::ring(4);

    let relay = Relay::new(config.limits(), key, secret);
    let (opened, opening) = std::sync::mpsc::channel();
    let (give_verifying, take_verifying) = std::sync::mpsc::channel();
    let forwarding = {
        let (uring, core) = (transport_config(config), config.core);
        let drain_ns = config.drain_seconds.saturating_mul(1_000_000_000);
        let (metrics, shutdown) = (Arc::clone(metrics), shutdown.clone());
        std::thread::Builder::new().name("relay-forward".to_owned()).spawn(move || {
            if let Some(core) = core
                && let Err(error) = cores::pin_to(core)
            {
                tracing::warn!(%error, core, "the forwarding thread could not be pinned");
            }
            cores::raise_priority(false);
            // The ring belongs to the thread that runs it.
            let transport = match UringUdp::open(uring) {
                Ok(transport) => transport,
                Err(error) => {
                    let _ = opened.send(Err(error));
                    return Ok(());
                }
            };
            let _ = opened.send(Ok((transport.waker(), transport.local_addr())));
            let Ok((verifying, fast)) = take_verifying.recv() else { return Ok(()) };
            let links = ForwarderLinks {
                new_jobs,
                known_jobs,
                outcomes: outcome_end,
                policies: forward_policy_end,
                verifying,
                metrics,
                shutdown,
            };
            Forwarder::new(transport, relay, links, drain_ns).with_fast_path(fast).run()
        })?
    };
    let (waker, local) = opening.recv().context("the forwarding thread ended before it began")??;
    shutdown.notify(waker.clone());
    let opened = fast_path::open(config, local)?;
    // Threads that are started from here on need nothing that others may not do.
    privileges::give_up();
    let ended = Arc::new(AtomicBool::new(false));
    let (fast, paths) = match &opened {
        Some(opened) => {
            let _ = metrics.fast_path.set(opened.counters());
            let (mut sides, paths) = fast_path::start(opened, local, &[config.sessions], metrics, &ended)?;
            (sides.pop(), Some(paths))
        }
        None => (None, None),
    };
    let verifying = {
        let links = VerifyingLinks {
            new_jobs: new_job_end,
            known_jobs: known_job_end,
            outcomes,
            policies: verify_policy_end,
            waker,
            metrics: Arc::clone(metrics),
        };
        let per_second = config.verifications_per_second;
        std::thread::Builder::new()
            .name("relay-verify".to_owned())
            .spawn(move || Verifying::new(verifier, links, per_second).run())?
    };
    let _ = give_verifying.send((verifying.thread().clone(), fast));
    Ok(Threads {
        forwarding,
        verifying,
        policies: [forward_policies, verify_policies],
        local,
        _fast_path: opened,
        paths,
        ended,
    })
}

/// Reads the lists again when they change, until the forwarding thread is done.
fn supervise(config: &Config, threads: &mut Threads) {
    let mut seen = list_times(config);
    while !threads.forwarding.is_finished() {
        std::thread::park_timeout(TICK / 4);
        let times = list_times(config);
        if times == seen {
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

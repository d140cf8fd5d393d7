//! Puts the host together and keeps it running: the main thread.
//!
//! Owns everything that may block: files, the terminal, signals. Invariant: whatever fails at start says
//! what to do about it, and whatever fails later ends in an orderly close.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use rift_core::Bitrate;
use rift_core::endpoint::{ControllerKind, HostConfig, HostEndpoint, StreamOffer};
use rift_core::message::proto::{Codec, Monitor, Resolution};
use rift_core::session::LinkConfig;
use rift_crypto::{AllowList, Identity, Pin};
use rift_relay::link::{self, Link};
use rift_relay::wire::Role;
use wavry_platform::x11::X11Injector;
use wavry_platform::{CaptureSource, InputInjector};
use wavry_runtime::shutdown::Shutdown;
use wavry_runtime::spsc::{self, Consumer};
use wavry_runtime::transport::Transport;
use wavry_runtime::uring::UringUdpConfig;
use wavry_runtime::{cores, kernel};
use wavry_session_loop::now;
use wavry_xdp::choice::{self, TransportConfig};

use crate::config::{Config, PairingMode, SourceChoice};
use crate::handoff;
use crate::network::{NetworkLinks, NetworkThread, Tracing};
use crate::notice::HostNotice;
use crate::trace::TraceFile;
use crate::video::{VideoConfig, VideoLinks, VideoThread, open_source};
use wavry_runtime::terminal::say;

/// Places in each ring between threads. They carry tens of messages a second.
const RING: usize = 256;
/// How often the main thread looks around when nothing wakes it.
const TICK: Duration = Duration::from_millis(200);

/// Serves clients until a signal, the end of the chosen duration, or the loss of the display.
///
/// # Errors
/// What kept the host from starting or going on, with what to do about it.
pub fn run(config: &Config) -> anyhow::Result<()> {
    let report = kernel::require()?;
    tracing::info!(kernel = %report.release, "kernel has what is needed");
    let shutdown = Shutdown::install().context("signals cannot be handled")?;

    let (identity, _) = Identity::load_or_create(&config.config_dir.join("identity"))?;
    let own_id = identity.wavry_id();
    let mut allowed = AllowList::load(&config.config_dir.join("allowed-clients"))?;
    let source = open_source(&config.source, config.fps).context("the display cannot be captured")?;
    let injector = open_injector(config)?;
    let link = relay_link(config)?;

    let mut endpoint = HostEndpoint::new(host_config(config, identity, &allowed, &*source)?, now());
    if let PairingMode::Open(span) = config.pairing() {
        let pin = Pin::generate()?;
        say(format_args!("Pairing PIN: {pin} (valid for {} s)", span.as_secs()));
        endpoint.open_pairing(pin, now() + span)?;
    }

    let Threads { notices, network, video, local } =
        start_threads(config, &shutdown, source, endpoint, injector, link)?;
    say(format_args!("wavry-server {own_id} listens on {local}"));
    if allowed.peers().is_empty() && !config.pair {
        say("No client is paired yet: start with --pair, then run `wavry pair` on the client.");
    }

    let ended = supervise(config, &shutdown, notices, &mut allowed, &video);
    shutdown.request();
    video.thread().unpark();
    join(network, "network")?;
    join(video, "video")?;
    ended
}

struct Threads {
    notices: Consumer<HostNotice>,
    network: JoinHandle<anyhow::Result<()>>,
    video: JoinHandle<anyhow::Result<()>>,
    local: std::net::SocketAddr,
}

fn open_injector(config: &Config) -> anyhow::Result<Option<Box<dyn InputInjector>>> {
    match &config.source {
        SourceChoice::X11(display) if !config.view_only => {
            let injector = X11Injector::open(display.as_deref())
                .context("input cannot be injected; --view-only streams without")?;
            Ok(Some(Box::new(injector)))
        }
        _ => Ok(None),
    }
}

fn host_config(
    config: &Config,
    identity: Identity,
    allowed: &AllowList,
    source: &dyn CaptureSource,
) -> anyhow::Result<HostConfig> {
    let geometry = source.geometry();
    let initial = Bitrate::from_mbps(config.bitrate_mbps);
    let monitors = source
        .monitors()
        .iter()
        .map(|m| Monitor { id: m.id, name: m.name.clone(), width: m.width, height: m.height })
        .collect();
    Ok(HostConfig {
        link: LinkConfig { datagram_len: usize::from(config.datagram_bytes), ..LinkConfig::default() },
        controller: if config.fixed_bitrate { ControllerKind::Fixed } else { config.controller.into() },
        allowed: allowed.peers().iter().map(|peer| peer.id).collect(),
        ..HostConfig::new(
            identity,
            rift_crypto::random_seed()?,
            StreamOffer {
                codec: Codec::H264,
                resolution: Resolution { width: geometry.width, height: geometry.height },
                fps: config.fps,
                initial_bitrate: initial,
                min_bitrate: Bitrate::from_mbps(1),
                max_bitrate: Bitrate::from_mbps(config.max_bitrate_mbps.max(config.bitrate_mbps)),
                monitors,
            },
        )
    })
}

/// The relay through which clients may come too, if one was named.
fn relay_link(config: &Config) -> anyhow::Result<Option<Link>> {
    let Some((relay, lease)) = config.relay.as_deref().zip(config.lease.as_deref()) else { return Ok(None) };
    anyhow::ensure!(
        usize::from(config.datagram_bytes) <= link::DATAGRAM_MAX,
        "--datagram-bytes {} does not fit through a relay: at most {}",
        config.datagram_bytes,
        link::DATAGRAM_MAX
    );
    let (identity, _) = Identity::load_or_create(&config.config_dir.join("identity"))?;
    Ok(Some(Link::prepare(identity, Role::Host, relay, lease)?))
}

fn start_threads(
    config: &Config,
    shutdown: &Shutdown,
    source: Box<dyn CaptureSource>,
    endpoint: HostEndpoint,
    injector: Option<Box<dyn InputInjector>>,
    link: Option<Link>,
) -> anyhow::Result<Threads> {
    let (slice_sender, slice_receiver) = handoff::slices();
    let (video_commands, video_command_end) = spsc::ring(RING);
    let (video_notices, video_notice_end) = spsc::ring(RING);
    let (notices, notice_end) = spsc::ring(RING);

    // The ring belongs to the thread that runs it, so the transport is opened there and tells how to be
    // woken, and that it could be opened, through this channel.
    let (opened, opening) = std::sync::mpsc::channel();
    let (give_video, take_video) = std::sync::mpsc::channel();
    let network = {
        let transport_config = TransportConfig {
            choice: config.transport,
            interface: config.interface.clone(),
            toward: None,
            udp: UringUdpConfig { busy_poll: config.busy_poll, ..UringUdpConfig::new(config.listen) },
        };
        let core = config.network_core;
        // A thread that sleeps between packets must run the moment one comes; one that spins would starve others.
        let realtime = !config.busy_poll;
        let tracing = Tracing { frames: config.trace.is_some(), decisions: config.rate_trace.is_some() };
        let shutdown = shutdown.clone();
        let main_thread = std::thread::current();
        std::thread::Builder::new().name("wavry-net".to_owned()).spawn(move || -> anyhow::Result<()> {
            settle(core, realtime);
            let transport = match choice::open(&transport_config) {
                Ok(transport) => transport,
                Err(error) => {
                    let _ = opened.send(Err(error));
                    return Ok(());
                }
            };
            let _ = opened.send(Ok((transport.waker(), transport.local_addr())));
            let Ok(video_thread) = take_video.recv() else { return Ok(()) };
            let links = NetworkLinks {
                slices: slice_receiver,
                video_notices: video_notice_end,
                video_commands,
                video_thread,
                notices,
                main_thread,
                shutdown,
            };
            let result = match link {
                Some(link) => {
                    NetworkThread::new(link.carry(transport), endpoint, injector, links, tracing).run()
                }
                None => NetworkThread::new(transport, endpoint, injector, links, tracing).run(),
            };
            result.map_err(Into::into)
        })?
    };
    let (waker, local) = opening.recv().context("the network thread ended before it began")??;
    shutdown.notify(waker.clone());

    let video = {
        let links = VideoLinks {
            commands: video_command_end,
            slices: slice_sender,
            notices: video_notices,
            network: waker,
            shutdown: shutdown.clone(),
        };
        let video_config = VideoConfig {
            source: config.source.clone(),
            encoder: config.encoder.into(),
            encoder_threads: config.threads(),
            slices: config.slices,
            fill: config.fill,
            fps: config.fps,
            bitrate_bps: Bitrate::from_mbps(config.bitrate_mbps).as_bps(),
        };
        let core = config.video_core;
        std::thread::Builder::new().name("wavry-video".to_owned()).spawn(move || {
            settle(core, false);
            VideoThread::new(video_config, links, source).run()
        })?
    };
    let _ = give_video.send(video.thread().clone());
    Ok(Threads { notices: notice_end, network, video, local })
}

/// Pins the thread if a core was chosen and asks for a priority that keeps latency down: `realtime` for one that
/// others wait for and that never computes for long.
fn settle(core: Option<usize>, realtime: bool) {
    if let Some(core) = core
        && let Err(error) = cores::pin_to(core)
    {
        tracing::warn!(%error, core, "the thread could not be pinned");
    }
    cores::raise_priority(realtime);
}

/// Reads notices until there is a reason to stop.
fn supervise(
    config: &Config,
    shutdown: &Shutdown,
    mut notices: Consumer<HostNotice>,
    allowed: &mut AllowList,
    video: &JoinHandle<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let mut trace = config.trace.as_deref().map(TraceFile::create).transpose()?;
    let mut rate_trace = config.rate_trace.as_deref().map(TraceFile::create).transpose()?;
    let end = config.duration.map(|duration| Instant::now() + duration);
    'running: loop {
        while let Some(notice) = notices.pop() {
            match notice {
                HostNotice::Started { peer, name } => say(format_args!("streaming to {name} ({peer})")),
                HostNotice::Ended { peer, reason } => say(format_args!("{peer} left: {reason}")),
                HostNotice::Paired { peer, name } => {
                    if let Err(error) = allowed.add(peer, &name) {
                        // It may connect until this program ends.
                        tracing::warn!(%error, "the paired client could not be remembered; pair it again later");
                    }
                    say(format_args!("paired with {name} ({peer})"));
                }
                HostNotice::PairingFailed { attempts_left: 0 } => {
                    say("wrong PIN three times: pairing has ended; start again with --pair for a new PIN");
                }
                HostNotice::PairingFailed { attempts_left } => {
                    say(format_args!("a client gave a wrong PIN; {attempts_left} attempts left"));
                }
                HostNotice::InjectionFailed(error) => tracing::warn!(%error, "input could not be injected"),
                HostNotice::Statistics(s) => tracing::info!(
                    fps = s.frames,
                    packets = s.packets,
                    mbps = s.bytes as f64 * 8e-6,
                    target_mbps = s.bitrate_bps as f64 * 1e-6,
                    rtt_us = s.rtt_us,
                    retransmitted = s.retransmitted,
                    slices_lost = s.slices_lost,
                    dropped = s.dropped_datagrams,
                    notices_lost = s.notices_lost,
                    "streaming"
                ),
                HostNotice::Decision(decision) => {
                    if let Some(file) = &mut rate_trace {
                        file.write(&decision);
                    }
                }
                HostNotice::Frame(frame) => {
                    if let Some(file) = &mut trace {
                        file.write(&frame);
                    }
                }
                HostNotice::Stopped => break 'running,
            }
        }
        if shutdown.requested() || end.is_some_and(|end| Instant::now() >= end) || video.is_finished() {
            break;
        }
        std::thread::park_timeout(TICK);
    }
    if let Some(file) = trace {
        file.finish()?;
    }
    if let Some(file) = rate_trace {
        file.finish()?;
    }
    Ok(())
}

fn join(thread: JoinHandle<anyhow::Result<()>>, name: &str) -> anyhow::Result<()> {
    match thread.join() {
        Ok(result) => result.with_context(|| format!("the {name} thread ended early")),
        Err(_) => anyhow::bail!("the {name} thread panicked; this is a fault of the program"),
    }
}

//! A session as the thread that looks after it sees it: starts the network and decode threads, reads what
//! they have to say, ends them.
//!
//! Owns everything that may block: files and the terminal. Invariant: whatever fails says what to do about
//! it.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rift_core::endpoint::{ClientConfig, ClientEndpoint, Path, Purpose};
use rift_core::session::CloseReason;
use rift_relay::link::Link;
use rift_relay::wire::Role;
use wavry_codec::{DecoderConfig, open_decoder};
use wavry_platform::Presenter;
use wavry_runtime::cores;
use wavry_runtime::shutdown::Shutdown;
use wavry_runtime::spsc::{self, Consumer};
use wavry_runtime::transport::Transport;
use wavry_runtime::uring::UringUdpConfig;
use wavry_session_loop::now;
use wavry_xdp::choice::{self, TransportConfig};

use crate::config::Config;
use crate::contact::{self, Home};
use crate::decode::{DecodeLinks, DecodeThread};
use crate::handoff::{self, SLICE_BYTES_MAX};
use crate::input::InputLink;
use crate::network::{NetworkLinks, NetworkThread};
use crate::notice::{ClientNotice, DecodeNotice};
use crate::trace::TraceFile;
use crate::verify::StripCheck;
use wavry_runtime::terminal::say;

/// Places in each ring between threads that carries a message per frame or less.
const RING: usize = 1024;
/// How often the main thread looks around when nothing wakes it.
const TICK: Duration = Duration::from_millis(100);

/// A running session: the network and decode threads, seen from the main thread.
pub(crate) struct Session {
    network: JoinHandle<std::io::Result<()>>,
    decode: JoinHandle<Option<StripCheck>>,
    notices: Consumer<ClientNotice>,
    decode_notices: Consumer<DecodeNotice>,
    trace: Option<TraceFile>,
    shutdown: Shutdown,
    target: String,
    end: Option<Instant>,
}

/// Whether a session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Running,
    Over,
}

impl Session {
    /// Starts both threads. Pictures go to `presenter`; what the user does goes into the [`InputLink`].
    pub(crate) fn start(
        config: &Config,
        shutdown: &Shutdown,
        presenter: Box<dyn Presenter>,
    ) -> anyhow::Result<(Self, InputLink)> {
        let home = Home::new(&config.config_dir);
        let link = relay_link(config, &home)?;
        // Behind a relay the host's name is only what it is known by.
        let remote = link.as_ref().map_or_else(|| config.host.resolve(), |link| Ok(link.relay()))?;
        let expect = contact::known_host(&home, &config.host)?;
        let endpoint_config = ClientConfig {
            expect: Some(expect),
            name: config.name.clone(),
            purpose: Purpose::Stream,
            ..ClientConfig::new(home.identity()?, rift_crypto::random_seed()?, Path::to(remote))
        };
        let decoder_config = DecoderConfig { slice_bytes_max: SLICE_BYTES_MAX, ..DecoderConfig::default() };
        let decoder = open_decoder(config.decoder.into(), &decoder_config)?;
        let trace = config.trace.as_deref().map(TraceFile::create).transpose()?;

        let (slices, slice_end) = handoff::slices()?;
        let (cursors, cursor_end) = spsc::ring(RING);
        let (outcomes, outcome_end) = spsc::ring(RING);
        let (commands, command_end) = spsc::ring(RING);
        let (notices, notice_end) = spsc::ring(RING);
        let (decode_notices, decode_notice_end) = spsc::ring(RING);

        // The ring belongs to the thread that runs it, so the transport is opened there and tells how to
        // be woken, and that it could be opened, through this channel.
        let (opened, opening) = std::sync::mpsc::channel();
        let (give_decode, take_decode) = std::sync::mpsc::channel();
        let network = {
            let transport_config = TransportConfig {
                choice: config.transport,
                interface: config.interface.clone(),
                toward: Some(remote.ip()),
                udp: UringUdpConfig {
                    busy_poll: config.busy_poll,
                    ..UringUdpConfig::new(contact::unspecified_like(remote))
                },
            };
            let core = config.network_core;
            // A thread that sleeps between packets must run the moment one comes; one that spins would starve
            // others.
            let realtime = !config.busy_poll;
            let shutdown = shutdown.clone();
            let main_thread = std::thread::current();
            std::thread::Builder::new().name("wavry-net".to_owned()).spawn(move || {
                settle(core, realtime);
                let transport = match choice::open(&transport_config) {
                    Ok(transport) => transport,
                    Err(error) => {
                        let _ = opened.send(Err(error));
                        return Ok(());
                    }
                };
                let _ = opened.send(Ok(transport.waker()));
                let Ok(decode_thread) = take_decode.recv() else { return Ok(()) };
                let endpoint = ClientEndpoint::new(endpoint_config, now());
                let links = NetworkLinks {
                    slices,
                    cursors,
                    outcomes: outcome_end,
                    decode_thread,
                    commands: command_end,
                    notices,
                    main_thread,
                    shutdown,
                };
                match link {
                    Some(link) => NetworkThread::new(link.carry(transport), endpoint, links).run(),
                    None => NetworkThread::new(transport, endpoint, links).run(),
                }
            })?
        };
        let waker = opening.recv().context("the network thread ended before it began")??;
        shutdown.notify(waker.clone());

        let decode = {
            let links = DecodeLinks {
                slices: slice_end,
                cursors: cursor_end,
                outcomes,
                network: waker.clone(),
                notices: decode_notices,
                main_thread: std::thread::current(),
                shutdown: shutdown.clone(),
            };
            let (core, tracing) = (config.decode_core, config.trace.is_some());
            let check = config.verify.map(StripCheck::new);
            std::thread::Builder::new().name("wavry-decode".to_owned()).spawn(move || {
                settle(core, false);
                DecodeThread::new(decoder, presenter, links, check, tracing).run()
            })?
        };
        let _ = give_decode.send(decode.thread().clone());
        let session = Self {
            network,
            decode,
            notices: notice_end,
            decode_notices: decode_notice_end,
            trace,
            shutdown: shutdown.clone(),
            target: config.host.to_string(),
            end: None,
        };
        Ok((session, InputLink::new(commands, waker)))
    }

    /// Reads what the threads have to say. Does not block.
    ///
    /// # Errors
    /// When the session failed.
    pub(crate) fn poll(&mut self, config: &Config) -> anyhow::Result<Progress> {
        while let Some(notice) = self.decode_notices.pop() {
            match notice {
                DecodeNotice::Frame(frame) => {
                    if let Some(file) = &mut self.trace {
                        file.write(&frame);
                    }
                }
                DecodeNotice::Failed(error) => bail!("showing the stream failed: {error}"),
            }
        }
        while let Some(notice) = self.notices.pop() {
            match notice {
                ClientNotice::Connected { peer, width, height, fps, one_round_trip } => {
                    let trips = if one_round_trip { "one round trip" } else { "two round trips" };
                    say(format_args!("connected to {peer} after {trips}: {width} x {height}, {fps} fps"));
                    self.end = config.duration.map(|duration| Instant::now() + duration);
                }
                ClientNotice::Closed(CloseReason::Unreachable) => bail!(
                    "{} does not answer; is wavry-server running there, and UDP open to it?",
                    self.target
                ),
                ClientNotice::Closed(CloseReason::Vanished) => {
                    bail!("{} does not answer any more: it, or the way to it, went away", self.target)
                }
                ClientNotice::Closed(reason) => {
                    ensure!(reason.is_orderly(), "{} ended the stream: {reason}", self.target);
                    say(format_args!("{} ended the stream: {reason}", self.target));
                    return Ok(Progress::Over);
                }
                ClientNotice::Refused(reason) => bail!("{} refuses: {reason}", self.target),
                ClientNotice::Statistics(s) => tracing::info!(
                    slices = s.slices,
                    datagrams = s.datagrams,
                    mbps = s.bytes as f64 * 8e-6,
                    rtt_us = s.rtt_us,
                    asked_again = s.asked_again,
                    repaired = s.repaired,
                    frames_dropped = s.frames_dropped,
                    slices_lost = s.slices_lost,
                    notices_lost = s.notices_lost,
                    "receiving"
                ),
                ClientNotice::Stopped => return Ok(Progress::Over),
            }
        }
        let over = self.shutdown.requested() || self.end.is_some_and(|end| Instant::now() >= end);
        Ok(if over { Progress::Over } else { Progress::Running })
    }

    /// Polls until the session is over.
    pub(crate) fn watch(&mut self, config: &Config) -> anyhow::Result<()> {
        while self.poll(config)? == Progress::Running {
            std::thread::park_timeout(TICK);
        }
        Ok(())
    }

    /// Ends both threads and says how it went.
    ///
    /// # Errors
    /// When a thread failed, or with `--verify` if a shown frame was not right.
    pub(crate) fn finish(mut self, config: &Config) -> anyhow::Result<()> {
        self.shutdown.request();
        self.decode.thread().unpark();
        let network = self.network.join();
        let decode = self.decode.join();
        while let Some(DecodeNotice::Frame(frame)) = self.decode_notices.pop() {
            if let Some(file) = &mut self.trace {
                file.write(&frame);
            }
        }
        let traced = self.trace.take().map_or(Ok(()), TraceFile::finish);
        let Ok(network) = network else {
            bail!("the network thread panicked; this is a fault of the program")
        };
        let Ok(check) = decode else { bail!("the decode thread panicked; this is a fault of the program") };
        network.context("the network thread ended early")?;
        if let Some(check) = check {
            say(format_args!("verified: {check}"));
            ensure!(check.passed() || config.verify.is_none(), "not every shown frame was right: {check}");
        }
        traced
    }
}

/// The relay to go through, if one was named.
fn relay_link(config: &Config, home: &Home) -> anyhow::Result<Option<Link>> {
    let Some((relay, lease)) = config.relay.as_deref().zip(config.lease.as_deref()) else { return Ok(None) };
    Ok(Some(Link::prepare(home.identity()?, Role::Client, relay, lease)?))
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

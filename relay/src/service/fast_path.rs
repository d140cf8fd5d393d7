//! The fast path beside the forwarding threads: opening it, telling its maps what the session logic wants, and finding ways.
//!
//! Owns the attached program for as long as the relay runs, and a thread that asks the kernel for routes and neighbours.
//! Never decides over a datagram. Invariant: whatever fails here, at start or later, leaves the session that it is about
//! to the slow path, and is counted and said; nothing here ends the program or keeps a forwarding thread waiting.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use anyhow::{Context, bail};
use wavry_runtime::clock::Clock;
use wavry_runtime::spsc::{self, Consumer, Producer};
use wavry_xdp::attach::{Attachment, Mode};
use wavry_xdp::interface::Interface;
use wavry_xdp::relay::{CounterMap, Paths, RelayConfig, RelayProgram, SessionMap, interface_of};

use super::metrics::{Metrics, add};
use crate::config::{Config, FastPathChoice};
use crate::core::{FastCommand, Now, Relay};

/// Questions for ways that may wait; what does not fit is asked again a second later.
const QUESTIONS: usize = 1024;
/// How often routes and neighbours are looked after.
const REFRESH: Duration = Duration::from_millis(100);

/// An attached program. Dropping it detaches.
pub(super) struct Opened {
    program: RelayProgram,
    interfaces: Vec<Interface>,
    _attachments: Vec<Attachment>,
}

impl Opened {
    pub(super) fn counters(&self) -> CounterMap {
        self.program.counters()
    }
}

/// Whether the interfaces that the configuration names are there.
///
/// # Errors
///
/// Names the one that is not.
pub(super) fn check(config: &Config) -> anyhow::Result<()> {
    if config.fast_path != FastPathChoice::Off {
        for name in &config.interfaces {
            Interface::named(name)?;
        }
    }
    Ok(())
}

/// Opens what the configuration asks for, and says what that came to. `None`: userspace does all of it.
///
/// # Errors
///
/// If it must be XDP and cannot.
pub(super) fn open(config: &Config, local: SocketAddr) -> anyhow::Result<Option<Opened>> {
    let why = match config.fast_path {
        FastPathChoice::Off => "it is off",
        FastPathChoice::Auto if config.threads > 1 => {
            "several threads forward (`threads` in the configuration)"
        }
        FastPathChoice::Auto if config.interfaces.is_empty() => {
            "no interface is named (`interfaces` in the configuration)"
        }
        _ => match load(config, local) {
            Ok(opened) => return Ok(Some(opened)),
            Err(error) if config.fast_path == FastPathChoice::Xdp => {
                return Err(error.context("the fast path must be XDP and cannot"));
            }
            Err(error) => {
                tracing::warn!("no fast path: {error:#}; userspace forwards everything");
                return Ok(None);
            }
        },
    };
    tracing::info!("no fast path: {why}; userspace forwards everything");
    Ok(None)
}

fn load(config: &Config, local: SocketAddr) -> anyhow::Result<Opened> {
    let interfaces = if config.interfaces.is_empty() {
        let found = interface_of(local.ip().to_canonical()).map_err(anyhow::Error::msg);
        vec![found.context("no interface is named, and none was found")?]
    } else {
        let named = config.interfaces.iter().map(|name| Interface::named(name));
        named.collect::<Result<Vec<_>, _>>()?
    };
    if local.ip().is_loopback() {
        bail!("{} is an address of the loopback device, which has nothing to gain", local.ip());
    }
    let sessions = config.fast_path_sessions.unwrap_or(config.sessions);
    let program = RelayProgram::load(&RelayConfig {
        port: local.port(),
        sessions: u32::try_from(sessions).unwrap_or(u32::MAX),
        absent_per_second: config.answers_per_second,
    })?;
    let (mode, attachments) = program.attach(&interfaces)?;
    let fallback = attachments.iter().find_map(|attachment| attachment.fallback().map(ToString::to_string));
    for interface in &interfaces {
        tracing::info!(
            interface = interface.name(),
            driver = interface.driver(),
            mode = %mode,
            fallback = fallback.as_deref().filter(|_| mode == Mode::Generic),
            sessions,
            "fast path in XDP"
        );
    }
    Ok(Opened { program, interfaces, _attachments: attachments })
}

/// Where the peers of a slot are.
struct Question {
    slot: u32,
    to: [SocketAddr; 2],
}

/// By which ways.
struct Answer {
    slot: u32,
    to: [SocketAddr; 2],
    ways: [Option<u16>; 2],
}

/// The side of one forwarding thread.
pub(super) struct FastPath {
    map: SessionMap,
    questions: Producer<Question>,
    answers: Consumer<Answer>,
    paths: Thread,
    /// Counts changes of routes.
    changes: Arc<AtomicU64>,
    seen_changes: u64,
    is_incomplete: bool,
    metrics: Arc<Metrics>,
}

impl FastPath {
    /// Does what the session logic wants done, and tells it what came of what it wanted before.
    pub(super) fn drive(&mut self, relay: &mut Relay, now: Now) {
        let changes = self.changes.load(Ordering::Acquire);
        if changes != self.seen_changes {
            self.seen_changes = changes;
            relay.handle_routes_changed();
        }
        while let Some(answer) = self.answers.pop() {
            relay.handle_ways(now, answer.slot, answer.to, answer.ways);
        }
        let mut asked = false;
        while let Some(command) = relay.poll_fast(now) {
            asked |= matches!(command, FastCommand::Find { .. });
            self.execute(relay, now, command);
        }
        if asked {
            self.paths.unpark();
        }
        self.metrics.fast_sessions.store(relay.handed_over() as u64, Ordering::Relaxed);
        let is_incomplete = relay.unknown_to_fast() > 0;
        if is_incomplete != self.is_incomplete && self.map.set_incomplete(is_incomplete).is_ok() {
            self.is_incomplete = is_incomplete;
            if is_incomplete {
                tracing::warn!("the fast path's map is full: userspace carries the sessions beyond");
            }
        }
    }

    fn execute(&mut self, relay: &mut Relay, now: Now, command: FastCommand) {
        let failed = match command {
            FastCommand::Know { id, slot } => {
                let known = self.map.put(&id.0, None);
                if known.is_err() {
                    relay.handle_unknown(slot);
                }
                known.err()
            }
            FastCommand::Forget { id } => self.map.remove(&id.0).err(),
            FastCommand::Find { slot, to } => {
                // If there is no room now, the session asks again.
                let _ = self.questions.push(Question { slot, to });
                None
            }
            FastCommand::HandOver { id, slot, entry, states } => {
                let handed = (0..)
                    .zip(&states)
                    .try_for_each(|(role, state)| {
                        self.map.write_state(entry.slot, role, entry.generation, state)
                    })
                    .and_then(|()| self.map.put(&id.0, Some(&entry)));
                if handed.is_ok() {
                    add(&self.metrics.handed_over, 1);
                } else {
                    relay.handle_refused(now, slot);
                }
                handed.err()
            }
            FastCommand::Update { id, slot, entry } => {
                let updated = self.map.put(&id.0, Some(&entry));
                if updated.is_err() {
                    relay.handle_stale(now, slot);
                }
                updated.err()
            }
            FastCommand::TakeBack { id, slot, entry_slot } => {
                add(&self.metrics.taken_back, 1);
                // One of the two works if there is a map at all.
                let withdrawn = self.map.put(&id.0, None).or_else(|_| self.map.remove(&id.0));
                self.map.settle();
                let states = [0, 1].map(|role| self.map.read_state(entry_slot, role));
                let failed = withdrawn.err().or(states.iter().find_map(|state| {
                    state.as_ref().err().map(|error| std::io::Error::other(error.to_string()))
                }));
                relay.handle_taken_back(slot, states.map(Result::ok));
                failed
            }
            FastCommand::Look { slot, entry_slot } => {
                let last = [0, 1].map(|role| self.map.last_ns(entry_slot, role).unwrap_or(0));
                relay.handle_activity(now, slot, last[0].max(last[1]));
                None
            }
        };
        if let Some(error) = failed {
            add(&self.metrics.fast_path_errors, 1);
            tracing::debug!(%error, "a map of the fast path refused something");
        }
    }
}

/// Starts the thread that finds ways; the side of the forwarding thread.
///
/// # Errors
///
/// When the kernel cannot be asked, or there can be no more threads.
pub(super) fn start(
    opened: &Opened,
    local: SocketAddr,
    metrics: &Arc<Metrics>,
    ended: &Arc<AtomicBool>,
) -> anyhow::Result<(FastPath, JoinHandle<()>)> {
    let listen = local.ip().to_canonical();
    let mut paths = Paths::open(opened.program.ways(), &opened.interfaces, listen)
        .context("the kernel cannot be asked for routes")?;
    let (questions, mut question_end) = spsc::ring::<Question>(QUESTIONS);
    let (mut answers, answer_end) = spsc::ring(QUESTIONS);
    let changes = Arc::new(AtomicU64::new(0));
    let thread = {
        let (changes, ended) = (Arc::clone(&changes), Arc::clone(ended));
        std::thread::Builder::new().name("relay-paths".to_owned()).spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let now_ns = Clock.now();
                if paths.refresh(now_ns) {
                    changes.fetch_add(1, Ordering::Release);
                }
                while let Some(Question { slot, to }) = question_end.pop() {
                    let ways = to.map(|to| paths.find(now_ns, to));
                    // If there is no room now, the session asks again.
                    let _ = answers.push(Answer { slot, to, ways });
                }
                std::thread::park_timeout(REFRESH);
            }
        })?
    };
    let fast_path = FastPath {
        map: opened.program.sessions(),
        questions,
        answers: answer_end,
        paths: thread.thread().clone(),
        changes,
        seen_changes: 0,
        is_incomplete: false,
        metrics: Arc::clone(metrics),
    };
    Ok((fast_path, thread))
}

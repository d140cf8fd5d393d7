//! The fast path beside the forwarding threads: opening it, telling its maps what the session logic wants, and finding ways.
//!
//! Owns the attached program for as long as the relay runs, and a thread that asks the kernel for routes and neighbours.
//! Where no program runs in the driver, the same maps serve one at the sockets, which keeps floods out of their queues (the
//! guard). Never decides over a datagram. Invariant: whatever fails here, at start or later, leaves the session that it is about
//! to the slow path, and is counted and said; nothing here ends the program or keeps a forwarding thread waiting.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use anyhow::{Context, bail};
use wavry_runtime::clock::Clock;
use wavry_runtime::spsc::{self, Consumer, Producer};
use wavry_xdp::attach::{Attachment, Mode, ModeChoice};
use wavry_xdp::interface::Interface;
use wavry_xdp::program::LoadError;
use wavry_xdp::relay::{Budgets, CounterMap, Paths, RelayConfig, RelayProgram, SessionMap, interface_of};

use super::metrics::Metrics;
use crate::challenge::ChallengeKeys;
use crate::config::{Config, FastPathChoice, XdpMode};
use crate::core::{FastCommand, Now, Relay};

/// Questions for ways that may wait; what does not fit is asked again a second later.
const QUESTIONS: usize = 1024;
/// How often routes and neighbours are looked after.
const REFRESH: Duration = Duration::from_millis(100);

/// A loaded program. Dropping it detaches.
pub(super) struct Opened {
    program: RelayProgram,
    interfaces: Vec<Interface>,
    /// None: it only guards.
    attachments: Vec<Attachment>,
    mode: Option<Mode>,
}

impl Opened {
    /// What the program at the interfaces counts, if there is one.
    pub(super) fn counters(&self) -> Option<CounterMap> {
        self.mode.map(|_| self.program.counters())
    }

    /// What the guard counts, if there is one.
    pub(super) fn guard_counters(&self) -> Option<CounterMap> {
        self.guards().then(|| self.program.counters())
    }

    /// The guard for one socket.
    pub(super) fn guard(&self) -> std::io::Result<Option<OwnedFd>> {
        self.guards().then(|| self.program.guard().as_fd().try_clone_to_owned()).transpose()
    }

    /// In the driver nothing is left for a guard to do.
    fn guards(&self) -> bool {
        self.mode != Some(Mode::Native)
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

/// Opens what the configuration asks for, and says what that came to. `None`: userspace does all of it, and nothing
/// guards its sockets.
///
/// # Errors
///
/// If it must be XDP and cannot.
pub(super) fn open(
    config: &Config,
    local: SocketAddr,
    challenges: &ChallengeKeys,
) -> anyhow::Result<Option<Opened>> {
    let why = match config.fast_path {
        FastPathChoice::Off => "it is off",
        FastPathChoice::Auto if config.interfaces.is_empty() => {
            "no interface is named (`interfaces` in the configuration)"
        }
        _ => match load(config, local, challenges) {
            Ok(opened) => return Ok(Some(opened)),
            Err(error) if config.fast_path == FastPathChoice::Xdp => {
                return Err(error.context("the fast path must be XDP and cannot"));
            }
            Err(error) => {
                tracing::warn!("no fast path: {error:#}; userspace forwards everything");
                return Ok(open_guard(config, local, challenges));
            }
        },
    };
    tracing::info!("no fast path: {why}; userspace forwards everything");
    Ok(open_guard(config, local, challenges))
}

/// The program for the sockets only.
fn open_guard(config: &Config, local: SocketAddr, challenges: &ChallengeKeys) -> Option<Opened> {
    if !config.guard {
        return None;
    }
    match load_program(config, local, challenges) {
        Ok(program) => Some(Opened { program, interfaces: Vec::new(), attachments: Vec::new(), mode: None }),
        Err(error) => {
            tracing::info!("a flood reaches the relay's thread: {error}");
            None
        }
    }
}

fn load_program(
    config: &Config,
    local: SocketAddr,
    challenges: &ChallengeKeys,
) -> Result<RelayProgram, LoadError> {
    let sessions = config.fast_path_sessions.unwrap_or(config.sessions);
    RelayProgram::load(&RelayConfig {
        port: local.port(),
        sessions: u32::try_from(sessions).unwrap_or(u32::MAX),
        slots: u32::try_from(config.sessions).unwrap_or(u32::MAX),
        challenge_keys: challenges.0,
        budgets: Budgets {
            // Half: that many answers would leave a thread little else to do.
            strangers: (config.answers_per_second / 2).max(1),
            answered: config.fast_path_answers_per_second,
            proved: config.verifications_per_second,
            known: config.verifications_per_second,
        },
    })
}

fn load(config: &Config, local: SocketAddr, challenges: &ChallengeKeys) -> anyhow::Result<Opened> {
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
    let program = load_program(config, local, challenges)?;
    let (mode, attachments) = program.attach(
        &interfaces,
        match config.xdp_mode {
            XdpMode::Auto => ModeChoice::Auto,
            XdpMode::Native => ModeChoice::Only(Mode::Native),
            XdpMode::Generic => ModeChoice::Only(Mode::Generic),
        },
    )?;
    let fallback = attachments.iter().find_map(|attachment| attachment.fallback().map(ToString::to_string));
    if mode == Mode::Generic {
        tracing::info!(
            "in generic mode datagrams that the kernel merges before the program sees them go through userspace: \
             `ethtool -K INTERFACE gro off` keeps them apart"
        );
    }
    for interface in &interfaces {
        tracing::info!(
            interface = interface.name(),
            driver = interface.driver(),
            mode = %mode,
            fallback = fallback.as_deref().filter(|_| mode == Mode::Generic),
            sessions = config.fast_path_sessions.unwrap_or(config.sessions),
            "fast path in XDP"
        );
    }
    Ok(Opened { program, interfaces, attachments, mode: Some(mode) })
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

/// What the forwarding threads share.
#[derive(Default)]
struct Shared {
    /// Counts changes of routes.
    changes: AtomicU64,
    /// Sessions that the map has no room for.
    unknown: AtomicUsize,
}

/// The thread that finds ways, seen from a forwarding thread.
struct Ways {
    questions: Producer<Question>,
    answers: Consumer<Answer>,
    thread: Thread,
}

/// The side of one forwarding thread.
pub(super) struct FastPath {
    map: SessionMap,
    /// Where its slots begin.
    base: u32,
    /// None: sessions only have to be known.
    ways: Option<Ways>,
    shared: Arc<Shared>,
    seen_changes: u64,
    unknown: usize,
    sessions: usize,
    metrics: Arc<Metrics>,
}

impl FastPath {
    /// Does what the session logic wants done, and tells it what came of what it wanted before.
    pub(super) fn drive(&mut self, relay: &mut Relay, now: Now) {
        let changes = self.shared.changes.load(Ordering::Acquire);
        if changes != self.seen_changes {
            self.seen_changes = changes;
            relay.handle_routes_changed();
        }
        while let Some(answer) = self.ways.as_mut().and_then(|ways| ways.answers.pop()) {
            relay.handle_ways(now, answer.slot, answer.to, answer.ways);
        }
        let mut asked = false;
        while let Some(command) = relay.poll_fast(now) {
            asked |= matches!(command, FastCommand::Find { .. });
            self.execute(relay, now, command);
        }
        if let (true, Some(ways)) = (asked, &self.ways) {
            ways.thread.unpark();
        }
        let sessions = relay.handed_over();
        if sessions != self.sessions {
            self.metrics
                .fast_sessions
                .fetch_add((sessions as u64).wrapping_sub(self.sessions as u64), Ordering::Relaxed);
            self.sessions = sessions;
        }
        if relay.unknown_to_fast() != self.unknown {
            self.tell_unknown(relay.unknown_to_fast());
        }
    }

    /// The slot in the map of the first session.
    pub(super) fn base(&self) -> u32 {
        self.base
    }

    /// Some sessions have no room in the map, or have it now.
    #[cold]
    fn tell_unknown(&mut self, unknown: usize) {
        let before = self.shared.unknown.fetch_add(unknown.wrapping_sub(self.unknown), Ordering::AcqRel);
        self.unknown = unknown;
        if before == 0 {
            tracing::warn!("the fast path's map is full: userspace carries the sessions beyond");
        }
        // Another thread may do the same; whoever comes last sets what is true by then.
        loop {
            let is_incomplete = self.shared.unknown.load(Ordering::Acquire) > 0;
            if let Err(error) = self.map.set_incomplete(is_incomplete) {
                self.count_error(&error);
            }
            if is_incomplete == (self.shared.unknown.load(Ordering::Acquire) > 0) {
                return;
            }
        }
    }

    fn count_error(&self, error: &std::io::Error) {
        self.metrics.fast_path_errors.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%error, "a map of the fast path refused something");
    }

    fn execute(&mut self, relay: &mut Relay, now: Now, command: FastCommand) {
        let failed = match command {
            FastCommand::Know { id, slot, entry_slot } => {
                let known = self.map.put_slow(&id.0, entry_slot);
                if known.is_err() {
                    relay.handle_unknown(slot);
                }
                known.err()
            }
            FastCommand::Forget { id } => self.map.remove(&id.0).err(),
            FastCommand::Find { slot, to } => {
                let ways = self.ways.as_mut();
                if ways.is_none_or(|ways| ways.questions.push(Question { slot, to }).is_err()) {
                    relay.handle_unasked(slot);
                }
                None
            }
            FastCommand::HandOver { id, slot, entry, states } => {
                let handed = (0..)
                    .zip(&states)
                    .try_for_each(|(role, state)| {
                        self.map.write_state(entry.slot, role, entry.generation, state)
                    })
                    .and_then(|()| self.map.put(&id.0, &entry));
                if handed.is_ok() {
                    self.metrics.handed_over.fetch_add(1, Ordering::Relaxed);
                } else {
                    relay.handle_refused(now, slot);
                }
                handed.err()
            }
            FastCommand::Update { id, slot, entry } => {
                let updated = self.map.put(&id.0, &entry);
                if updated.is_err() {
                    relay.handle_stale(now, slot);
                }
                updated.err()
            }
            FastCommand::TakeBack { id, slot, entry_slot } => {
                self.metrics.taken_back.fetch_add(1, Ordering::Relaxed);
                // One of the two works if there is a map at all.
                let withdrawn = self.map.put_slow(&id.0, entry_slot).or_else(|_| self.map.remove(&id.0));
                self.map.settle();
                let states = [0, 1].map(|role| self.map.take_state(entry_slot, role));
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
            self.count_error(&error);
        }
    }
}

/// Starts the thread that finds ways, if a program carries sessions; the sides of the forwarding threads, of which each has
/// so many slots.
///
/// # Errors
///
/// When the kernel cannot be asked, or there can be no more threads.
pub(super) fn start(
    opened: &Opened,
    local: SocketAddr,
    slots: &[usize],
    metrics: &Arc<Metrics>,
    ended: &Arc<AtomicBool>,
) -> anyhow::Result<(Vec<FastPath>, Option<JoinHandle<()>>)> {
    let shared = Arc::new(Shared::default());
    let bases = slots.iter().scan(0, |next, slots| {
        let base = *next;
        *next += *slots as u32;
        Some(base)
    });
    let sides = bases.map(|base| FastPath {
        map: opened.program.sessions(),
        base,
        ways: None,
        shared: Arc::clone(&shared),
        seen_changes: 0,
        unknown: 0,
        sessions: 0,
        metrics: Arc::clone(metrics),
    });
    let mut sides: Vec<FastPath> = sides.collect();
    if opened.attachments.is_empty() {
        return Ok((sides, None));
    }
    let listen = local.ip().to_canonical();
    let mut paths = Paths::open(opened.program.ways(), &opened.interfaces, listen)
        .context("the kernel cannot be asked for routes")?;
    let (mut asking, mut answering) = (Vec::new(), Vec::new());
    for _ in slots {
        let (questions, question_end) = spsc::ring::<Question>(QUESTIONS);
        let (answers, answer_end) = spsc::ring::<Answer>(QUESTIONS);
        asking.push((questions, answer_end));
        answering.push((question_end, answers));
    }
    let thread = {
        let (shared, ended) = (Arc::clone(&shared), Arc::clone(ended));
        std::thread::Builder::new().name("relay-paths".to_owned()).spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let now_ns = Clock.now();
                if paths.refresh(now_ns) {
                    shared.changes.fetch_add(1, Ordering::Release);
                }
                for (questions, answers) in &mut answering {
                    while let Some(Question { slot, to }) = questions.pop() {
                        let ways = to.map(|to| paths.find(now_ns, to));
                        // If there is no room now, the session asks again.
                        let _ = answers.push(Answer { slot, to, ways });
                    }
                }
                std::thread::park_timeout(REFRESH);
            }
        })?
    };
    for (side, (questions, answers)) in sides.iter_mut().zip(asking) {
        side.ways = Some(Ways { questions, answers, thread: thread.thread().clone() });
    }
    Ok((sides, Some(thread)))
}

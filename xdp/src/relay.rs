//! The program that forwards a relay's datagrams (`src/bpf/relay.bpf.c`), loaded, with its maps.
//!
//! Owns the program and its maps; memory for all sessions is taken when it is loaded. Never attaches it, never decides
//! which path carries a session. What the maps hold is a cache of what the relay knows, but for one thing: the
//! [`State`] of a direction (window, buckets, time of the last datagram) belongs to the program from the moment that
//! its session is [put](SessionMap::put) with the state's generation until it is put without one.
//!
//! How to hand a session over: write both states with a new generation, then put the session with it. How to take it
//! back: put it without one, [settle](SessionMap::settle), [take](SessionMap::take_state) both states. A run of the
//! program that began before and comes to the state only now finds another generation there, and lets its datagram
//! go up.
//!
//! Invariant: nothing here outlives the process. Maps and program are file descriptors, never pinned.

#![forbid(unsafe_code)]

mod counters;
mod layout;
mod paths;
mod table;

use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use wavry_runtime::clock::Clock;

use crate::attach::{self, AttachError, Attachment, Mode, ModeChoice};
use crate::interface::Interface;
use crate::program::{self, LoadError, Program};
use crate::skeleton::relay::RelaySkelBuilder;
pub use counters::{Counters, Dropped, Passed};
pub use layout::{BURST_MIN, Flow, Peer, Session, State, Way};
pub use paths::{Paths, interface_of};
use table::{Hash, Table};

/// Ways there can be (`WAYS_MAX` of the program).
pub const WAYS_MAX: u16 = 4096;
/// Addresses of the machine that are known (`LOCALS_MAX` of the program).
pub const LOCALS_MAX: usize = 1024;
/// Highest generation of a state.
pub const GENERATION_MAX: u16 = 0x7fff;
/// Longer than a run of the program takes on a processor that is not taken away meanwhile: 10 x its worst.
const SETTLE: Duration = Duration::from_micros(20);
/// How often a state that is locked is looked at again: a run was interrupted.
const READ_TRIES: u32 = 50;

/// What [`RelayProgram::load`] needs to know.
#[derive(Clone, Copy, Debug)]
pub struct RelayConfig {
    /// The relay's UDP port.
    pub port: u16,
    /// Sessions at most.
    pub sessions: u32,
    /// Slots for them; at least as many.
    pub slots: u32,
    /// The two keys of challenges: what userspace gives, the program knows, and the other way round.
    pub challenge_keys: [[u64; 2]; 2],
    /// What passes besides the sessions' own datagrams.
    pub budgets: Budgets,
}

/// How long after the start the sessions of a relay that was restarted may take to come back, all at once.
const SETTLED_NS: u64 = 3_000_000_000;

/// What may pass per second besides what sessions forward, each apart from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// Datagrams that anybody can have sent and that go up, because the program cannot answer them. Shared by the
    /// processors: a flood comes in on as many as it likes.
    pub strangers: u32,
    /// Those that the program answers: challenges, and probes. Shared by the processors.
    pub answered: u32,
    /// Proofs that answer a challenge, for each processor.
    pub proved: u32,
    /// What comes from the address of a bound peer, for each processor.
    pub known: u32,
}

impl Budgets {
    /// In the order of `enum claim` of the program, for one of so many processors.
    fn of_one(&self, processors: usize) -> [u32; 4] {
        // The program hands out four times as much for a moment.
        let share = |whole: u32| (whole / processors.max(1) as u32).clamp(1, u32::MAX / 4);
        [share(self.strangers), share(self.answered), self.proved.max(1), self.known.max(1)]
    }
}

#[derive(Debug)]
struct Maps {
    table: Table,
    states: MapHandle,
    ways: MapHandle,
    devices: MapHandle,
    locals: MapHandle,
    settings: MapHandle,
    counts: MapHandle,
    guard_counts: MapHandle,
}

/// The loaded program, and the one that guards sockets.
#[derive(Debug)]
pub struct RelayProgram {
    program: Program,
    guard: Program,
    maps: Arc<Maps>,
}

impl RelayProgram {
    /// Loads it. It forwards nothing before it has sessions and ways.
    ///
    /// # Errors
    ///
    /// [`LoadError`] names the missing capability, if that is what it is.
    pub fn load(config: &RelayConfig) -> Result<Self, LoadError> {
        program::quieten();
        let mut storage = MaybeUninit::uninit();
        let mut open = RelaySkelBuilder::default().open(&mut storage)?;
        if let Some(constants) = open.maps.rodata_data.as_mut() {
            constants.port = config.port;
            let [first, second] = config.challenge_keys;
            constants.challenge_keys = [first[0], first[1], second[0], second[1]];
            constants.settled_ns = Clock.now() + SETTLED_NS;
            constants.per_second = config.budgets.of_one(libbpf_rs::num_possible_cpus()?);
        }
        let sessions = config.sessions.max(1);
        let slots = config.slots.max(sessions);
        let hash = Hash::new(sessions);
        if let Some(constants) = open.maps.rodata_data.as_mut() {
            constants.table_keys = hash.keys();
            constants.table_buckets = hash.buckets();
        }
        open.maps.buckets.set_max_entries(hash.buckets())?;
        open.maps.sessions.set_max_entries(slots)?;
        open.maps.states.set_max_entries(slots.saturating_mul(2))?;
        let skeleton = open.load()?;
        let maps = Maps {
            table: Table::new(
                MapHandle::try_from(&skeleton.maps.buckets)?,
                MapHandle::try_from(&skeleton.maps.sessions)?,
                hash,
                sessions,
            ),
            states: MapHandle::try_from(&skeleton.maps.states)?,
            ways: MapHandle::try_from(&skeleton.maps.ways)?,
            devices: MapHandle::try_from(&skeleton.maps.devices)?,
            locals: MapHandle::try_from(&skeleton.maps.locals)?,
            settings: MapHandle::try_from(&skeleton.maps.settings)?,
            counts: MapHandle::try_from(&skeleton.maps.counts)?,
            guard_counts: MapHandle::try_from(&skeleton.maps.guard_counts)?,
        };
        let program = Program::keep(&skeleton.progs.relay)?;
        Ok(Self { program, guard: Program::keep(&skeleton.progs.guard)?, maps: Arc::new(maps) })
    }

    /// The program, for attaching it.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The program that looks at what is about to be queued for a relay's socket (`SO_ATTACH_BPF`), with the same sessions.
    /// What is for none of them it lets through only as far as the budgets go.
    #[must_use]
    pub fn guard(&self) -> &Program {
        &self.guard
    }

    /// Attaches it to every interface, in one mode. By itself it is native if all of them have it and none is a virtual
    /// cable, whose other end takes frames from a program only if it has one as well, and drops them silently
    /// otherwise; else generic. It is detached from those whose attachment is dropped.
    ///
    /// # Errors
    ///
    /// [`AttachError`] says what is in the way of which interface; then it is attached to none.
    pub fn attach(
        &self,
        interfaces: &[Interface],
        choice: ModeChoice,
    ) -> Result<(Mode, Vec<Attachment>), AttachError> {
        let all = |choice| {
            let each = interfaces.iter().map(|interface| attach::attach(&self.program, interface, choice));
            each.collect::<Result<Vec<_>, _>>()
        };
        let is_cable = |interface: &Interface| interface.driver() == "veth";
        let mut attachments = all(match choice {
            ModeChoice::Auto if interfaces.iter().any(is_cable) => ModeChoice::Only(Mode::Generic),
            choice => choice,
        })?;
        let mode = match attachments.iter().find(|attachment| attachment.mode() == Mode::Generic) {
            Some(_) => Mode::Generic,
            None => Mode::Native,
        };
        if attachments.iter().any(|attachment| attachment.mode() != mode) {
            drop(attachments);
            attachments = all(ModeChoice::Only(Mode::Generic))?;
        }
        // Until this is said, native rules hold for what may be merged; there are no sessions yet that they could harm.
        self.set_generic(mode == Mode::Generic).map_err(|source| AttachError::Refused {
            interface: interfaces.first().map(ToString::to_string).unwrap_or_default(),
            mode,
            source,
        })?;
        // Without this what is sent back over a cable is lost; a kernel that refuses it refused the above.
        let _ = self.maps.set(Setting::Cable, interfaces.iter().any(is_cable));
        Ok((mode, attachments))
    }

    /// Bytes that the maps take for so many sessions.
    #[must_use]
    pub fn bytes(sessions: usize) -> usize {
        sessions * (layout::SESSION_LEN + 2 * layout::STATE_LEN)
            + table::buckets(sessions) * layout::BUCKET_LEN
    }

    /// Whether the program runs in generic mode, where a frame may be several datagrams.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_generic(&self, is_generic: bool) -> io::Result<()> {
        self.maps.set(Setting::Generic, is_generic)
    }

    /// Access to the sessions, for the thread that owns them.
    #[must_use]
    pub fn sessions(&self) -> SessionMap {
        SessionMap(Arc::clone(&self.maps))
    }

    /// Access to the ways, for the thread that knows routes and neighbours.
    #[must_use]
    pub fn ways(&self) -> WayTable {
        WayTable { maps: Arc::clone(&self.maps), locals: Vec::new() }
    }

    /// Access to the counters.
    #[must_use]
    pub fn counters(&self) -> CounterMap {
        CounterMap(Arc::clone(&self.maps))
    }
}

#[derive(Clone, Copy)]
enum Setting {
    Incomplete,
    Generic,
    Cable,
}

/// Settings there are.
const SETTINGS: usize = 3;

impl Maps {
    fn set(&self, setting: Setting, value: bool) -> io::Result<()> {
        let mut all = [0; 4 * SETTINGS];
        self.settings.lookup_into(&[0; 4], &mut all, MapFlags::ANY).map_err(io::Error::other)?;
        let at = setting as usize * 4;
        all[at..at + 4].copy_from_slice(&u32::from(value).to_ne_bytes());
        self.settings.update(&[0; 4], &all, MapFlags::ANY).map_err(io::Error::other)
    }
}

/// The sessions. Cheap to clone; threads may hold one each if their sessions and slots differ.
#[derive(Clone, Debug)]
pub struct SessionMap(Arc<Maps>);

impl SessionMap {
    /// Enters a session at its slot, or replaces what is known of it there.
    ///
    /// # Errors
    ///
    /// When the map is full, and for a slot that is another session's or not below the number of slots.
    pub fn put(&self, id: &[u8; 16], session: &Session) -> io::Result<()> {
        self.0.table.put(id, session.slot, Some(session))
    }

    /// The same for one that userspace carries: it is there, and that is all.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn put_slow(&self, id: &[u8; 16], slot: u32) -> io::Result<()> {
        self.0.table.put(id, slot, None)
    }

    /// Takes a session out.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub fn remove(&self, id: &[u8; 16]) -> io::Result<()> {
        self.0.table.remove(id)
    }

    /// Writes what a direction remembers. Only while no session is put with the generation that it has.
    ///
    /// # Errors
    ///
    /// For a slot that is not below the number of slots.
    pub fn write_state(&self, slot: u32, role: u8, generation: u16, state: &State) -> io::Result<()> {
        let value = state.encode(generation);
        self.0.states.update(&state_key(slot, role), &value, MapFlags::ANY).map_err(io::Error::other)
    }

    /// Waits until no run of the program that began before is still at it, about 20 us.
    pub fn settle(&self) {
        let end = Instant::now() + SETTLE;
        while Instant::now() < end {
            std::hint::spin_loop();
        }
    }

    /// What a direction remembers. Exact once the session was put with another generation and things have
    /// [settled](Self::settle).
    ///
    /// # Errors
    ///
    /// For a slot that is not below the number of slots, and when the state stays locked: a processor was taken
    /// away from the machine in the middle of a run.
    pub fn read_state(&self, slot: u32, role: u8) -> io::Result<State> {
        let mut bytes = [0; layout::STATE_LEN];
        for _ in 0..READ_TRIES {
            let flags = MapFlags::ANY;
            let found = self.0.states.lookup_into(&state_key(slot, role), &mut bytes, flags);
            if !found.map_err(io::Error::other)? {
                return Err(io::Error::new(io::ErrorKind::NotFound, "there is no such slot"));
            }
            if let Some(state) = State::decode(&bytes) {
                return Ok(state);
            }
            self.settle();
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the state of a session stays locked"))
    }

    /// [`read_state`](Self::read_state), and closes it: a late run of the program finds no generation that it knows. What
    /// one does between the two, which are a microsecond apart, is lost.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn take_state(&self, slot: u32, role: u8) -> io::Result<State> {
        let state = self.read_state(slot, role);
        self.write_state(slot, role, 0, state.as_ref().unwrap_or(&State::default()))?;
        state
    }

    /// When a datagram of the direction last passed or was refused for its rate; exact at any time.
    ///
    /// # Errors
    ///
    /// For a slot that is not below the number of slots.
    pub fn last_ns(&self, slot: u32, role: u8) -> io::Result<u64> {
        let mut bytes = [0; layout::STATE_LEN];
        self.0
            .states
            .lookup_into(&state_key(slot, role), &mut bytes, MapFlags::ANY)
            .map_err(io::Error::other)?;
        Ok(State::refilled_ns(&bytes))
    }

    /// Whether sessions are missing: then whatever is not found goes up.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_incomplete(&self, is_incomplete: bool) -> io::Result<()> {
        self.0.set(Setting::Incomplete, is_incomplete)
    }
}

fn state_key(slot: u32, role: u8) -> [u8; 4] {
    slot.saturating_mul(2).saturating_add(u32::from(role)).to_ne_bytes()
}

/// The ways to neighbours, and the addresses of this machine.
#[derive(Debug)]
pub struct WayTable {
    maps: Arc<Maps>,
    locals: Vec<[u8; 16]>,
}

impl WayTable {
    /// Sets a way; sessions that use it use it as it is from now on.
    ///
    /// # Errors
    ///
    /// For a number of [`WAYS_MAX`] or more, and for a device that does not exist.
    pub fn set(&self, number: u16, way: &Way) -> io::Result<()> {
        let key = u32::from(number).to_ne_bytes();
        let device = way.device.to_ne_bytes();
        self.maps.devices.update(&key, &device, MapFlags::ANY).map_err(io::Error::other)?;
        self.maps.ways.update(&key, &way.encode(), MapFlags::ANY).map_err(io::Error::other)
    }

    /// Takes a way out; what would use it goes up.
    ///
    /// # Errors
    ///
    /// For a number of [`WAYS_MAX`] or more.
    pub fn clear(&self, number: u16) -> io::Result<()> {
        let key = u32::from(number).to_ne_bytes();
        self.maps.ways.update(&key, &[0; layout::WAY_LEN], MapFlags::ANY).map_err(io::Error::other)?;
        // The device stays: a run of the program that is past the way may still want it.
        Ok(())
    }

    /// The machine's addresses from now on; what is junk to the relay is dropped only if it was sent to one of them.
    ///
    /// # Errors
    ///
    /// When the kernel refuses an entry.
    pub fn set_locals(&mut self, addresses: &[IpAddr]) -> io::Result<()> {
        let wanted: Vec<_> = addresses.iter().take(LOCALS_MAX).map(|ip| layout::address(*ip)).collect();
        for gone in self.locals.iter().filter(|known| !wanted.contains(known)) {
            self.maps.locals.delete(gone).map_err(io::Error::other)?;
        }
        for address in &wanted {
            self.maps.locals.update(address, &[1], MapFlags::ANY).map_err(io::Error::other)?;
        }
        self.locals = wanted;
        Ok(())
    }
}

/// The counters of all processors.
#[derive(Clone, Debug)]
pub struct CounterMap(Arc<Maps>);

impl CounterMap {
    /// Their sums now.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn read(&self) -> io::Result<Counters> {
        Self::sum(&self.0.counts)
    }

    /// The sums of those of the guard, which forwards nothing.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn read_guard(&self) -> io::Result<Counters> {
        Self::sum(&self.0.guard_counts)
    }

    fn sum(map: &MapHandle) -> io::Result<Counters> {
        let values = map.lookup_percpu(&[0; 4], MapFlags::ANY).map_err(io::Error::other)?;
        Ok(Counters::sum(values.unwrap_or_default().iter().map(Vec::as_slice)))
    }
}

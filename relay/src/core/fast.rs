//! Which path carries a session, and what the fast path is told (RELAY-1 §10).
//!
//! Owns, for each session, whose it is now: while it has a generation, window, buckets and the time of its last datagram
//! are those of the fast path, and what this side has of them is old. Never touches a map: [`Relay::poll_fast`] says
//! what is to be done, and results come back as inputs. Invariants: a FORWARD is decided over by the path that the
//! session belongs to; a generation of a slot is never used twice in a row; nothing here is needed for forwarding: if
//! the fast path does nothing that it is told, sessions stay here.

use std::net::SocketAddr;

use rift_relay::wire::SessionId;
use wavry_xdp::relay::{GENERATION_MAX, Peer, Session as Entry, State as DirectionState};

use super::session::Session;
use super::{Now, Relay};

/// A session that went up stays with userspace for so long, and after each time twice as long.
const AGAIN_NS: u64 = 1_000_000_000;
/// At most so many doublings.
const DOUBLINGS_MAX: u32 = 6;
/// A session that the fast path carried for so long begins anew with that.
const CALM_NS: u64 = AGAIN_NS << DOUBLINGS_MAX;
/// Ways in use are asked for again so often. The keeper of ways forgets those that were not asked for in 5 minutes.
const CONFIRM_NS: u64 = 30_000_000_000;
/// The same while there is none.
const RETRY_NS: u64 = 1_000_000_000;
/// An answer about the last datagram is good for this long.
const LOOK_NS: u64 = 2_000_000_000;
/// No session is handed over that is so near the end of what a state has room for.
const NEXT_MAX: u64 = (1 << 48) - (1 << 32);

/// What is to be done with the fast path's maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FastCommand {
    /// Enter the session without a generation, so that it is not taken for absent. If that fails:
    /// [`Relay::handle_unknown`].
    Know {
        /// Whose.
        id: SessionId,
        /// Where.
        slot: u32,
        /// The slot in the map.
        entry_slot: u32,
    },
    /// Take it out.
    Forget {
        /// Whose.
        id: SessionId,
    },
    /// Find the ways to both peers; the answer is for [`Relay::handle_ways`]. If nobody can be asked now:
    /// [`Relay::handle_unasked`].
    Find {
        /// Whose.
        slot: u32,
        /// Client and host.
        to: [SocketAddr; 2],
    },
    /// Write both states and then the session. If that fails: [`Relay::handle_refused`].
    HandOver {
        /// Whose.
        id: SessionId,
        /// Where.
        slot: u32,
        /// What to write.
        entry: Entry,
        /// What client and host sent so far.
        states: [DirectionState; 2],
    },
    /// Write the session, whose lease or ways changed. If that fails: [`Relay::handle_stale`].
    Update {
        /// Whose.
        id: SessionId,
        /// Where.
        slot: u32,
        /// What to write.
        entry: Entry,
    },
    /// Enter it without a generation, settle, take both states; [`Relay::handle_taken_back`] takes them.
    TakeBack {
        /// Whose.
        id: SessionId,
        /// Where; the entry's slot.
        slot: u32,
        /// The slot in the map.
        entry_slot: u32,
    },
    /// Read when datagrams last came, for [`Relay::handle_activity`].
    Look {
        /// Where.
        slot: u32,
        /// The slot in the map.
        entry_slot: u32,
    },
}

/// What the relay remembers of all sessions together.
#[derive(Debug)]
pub(super) struct FastTable {
    /// Added to slots, so that several relays share a map.
    base: u32,
    /// Last generation of each slot.
    generations: Box<[u16]>,
    /// Slots with something to tell.
    pending: Vec<u32>,
    gone: Vec<SessionId>,
    known: usize,
    handed_over: usize,
}

/// What a session remembers.
#[derive(Debug, Default)]
pub(super) struct Fast {
    /// 0: it belongs to userspace.
    generation: u16,
    ways: [Option<u16>; 2],
    /// By role: the state that comes back is not that of an earlier epoch.
    keeps: [bool; 2],
    is_known: bool,
    is_listed: bool,
    has_found: bool,
    wants_back: bool,
    wants_ways: bool,
    wants_update: bool,
    wants_look: bool,
    ups: u8,
    asked_ns: u64,
    after_ns: u64,
    handed_ns: u64,
    looked_ns: u64,
}

impl Fast {
    pub(super) fn is_handed_over(&self) -> bool {
        self.generation != 0
    }

    /// A FORWARD went up that the fast path should have taken.
    pub(super) fn on_up(&mut self, now_ns: u64) {
        if self.wants_back {
            return;
        }
        if now_ns.saturating_sub(self.handed_ns) > CALM_NS {
            self.ups = 0;
        }
        self.after_ns = now_ns + (AGAIN_NS << u32::from(self.ups).min(DOUBLINGS_MAX));
        self.ups = self.ups.saturating_add(1);
        self.wants_back = true;
    }

    /// A peer began a new epoch.
    pub(super) fn on_epoch(&mut self, role: usize) {
        self.keeps[role] = false;
        self.on_moved(role);
    }

    /// A peer is elsewhere.
    pub(super) fn on_moved(&mut self, role: usize) {
        self.ways[role] = None;
        self.has_found = false;
        self.wants_back = true;
        self.wants_ways = true;
    }

    /// Its lease is another one.
    pub(super) fn on_renewed(&mut self) {
        self.wants_update = true;
    }

    /// Silent as far as is known here: whether the fast path has to be asked first.
    pub(super) fn must_look(&mut self, now_ns: u64) -> bool {
        let must = self.is_handed_over() && now_ns.saturating_sub(self.looked_ns) > LOOK_NS;
        self.wants_look |= must;
        must
    }

    /// Now and then; whether there is something to tell.
    fn tick(&mut self, now_ns: u64) -> bool {
        let every = if self.is_handed_over() { CONFIRM_NS } else { RETRY_NS };
        if now_ns >= self.after_ns && now_ns.saturating_sub(self.asked_ns) >= every {
            self.wants_ways = true;
        }
        self.wants_ways || !self.is_known
    }
}

impl Session {
    /// Addresses of both peers, if a frame from one can become a frame to the other.
    fn ends(&self) -> Option<[SocketAddr; 2]> {
        let [Some(client), Some(host)] = &self.peers else { return None };
        let canonical = |at: SocketAddr| match at {
            SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
                SocketAddr::new(at.ip().to_canonical(), at.port())
            }
            _ => at,
        };
        let ends = [canonical(client.address), canonical(host.address)];
        (ends[0].is_ipv4() == ends[1].is_ipv4()).then_some(ends)
    }

    fn entry(&self, entry_slot: u32, generation: u16) -> Option<(Entry, [DirectionState; 2])> {
        let [client_end, host_end] = self.ends()?;
        let ([Some(client), Some(host)], [Some(client_way), Some(host_way)]) = (&self.peers, self.fast.ways)
        else {
            return None;
        };
        let entry = Entry {
            slot: entry_slot,
            generation,
            peers: [Peer { address: client_end, way: client_way }, Peer { address: host_end, way: host_way }],
            flows: [client.direction.flow(), host.direction.flow()],
        };
        Some((entry, [client.direction.state(), host.direction.state()]))
    }

    /// What is to be done next for it, if anything.
    fn poll_fast(&mut self, now_ns: u64, slot: u32, entry_slot: u32, last: &mut u16) -> Option<FastCommand> {
        let id = self.id;
        if !self.fast.is_known {
            self.fast.is_known = true;
            return Some(FastCommand::Know { id, slot, entry_slot });
        }
        if std::mem::take(&mut self.fast.wants_back) && self.fast.is_handed_over() {
            self.fast.generation = 0;
            return Some(FastCommand::TakeBack { id, slot, entry_slot });
        }
        if std::mem::take(&mut self.fast.wants_look) && self.fast.is_handed_over() {
            return Some(FastCommand::Look { slot, entry_slot });
        }
        if std::mem::take(&mut self.fast.wants_update)
            && self.fast.is_handed_over()
            && let Some((entry, _)) = self.entry(entry_slot, self.fast.generation)
        {
            return Some(FastCommand::Update { id, slot, entry });
        }
        if now_ns < self.fast.after_ns {
            // The sweep comes back to it.
            return None;
        }
        if std::mem::take(&mut self.fast.wants_ways)
            && let Some(to) = self.ends()
        {
            self.fast.asked_ns = now_ns;
            return Some(FastCommand::Find { slot, to });
        }
        if !std::mem::take(&mut self.fast.has_found) || self.fast.is_handed_over() {
            return None;
        }
        let next = *last % GENERATION_MAX + 1;
        let (entry, states) = self.entry(entry_slot, next)?;
        if states.iter().any(|state| state.next >= NEXT_MAX) {
            return None;
        }
        *last = next;
        self.fast.generation = next;
        self.fast.keeps = [true; 2];
        (self.fast.handed_ns, self.fast.looked_ns) = (now_ns, now_ns);
        Some(FastCommand::HandOver { id, slot, entry, states })
    }
}

impl Relay {
    /// From now on there is a fast path; its map has room for this relay's sessions from slot `base` on.
    pub fn enable_fast_path(&mut self, base: u32) {
        let sessions = self.slots.len();
        self.fast = Some(FastTable {
            base,
            generations: vec![0; sessions].into(),
            pending: Vec::with_capacity(2 * sessions),
            gone: Vec::with_capacity(sessions),
            known: 0,
            handed_over: 0,
        });
    }

    /// What is to be done with the maps. To be asked after every input until there is nothing.
    pub fn poll_fast(&mut self, now: Now) -> Option<FastCommand> {
        let table = self.fast.as_mut()?;
        if let Some(id) = table.gone.pop() {
            return Some(FastCommand::Forget { id });
        }
        while let Some(&slot) = table.pending.last() {
            let index = slot as usize;
            if let Some(session) = self.slots[index].as_mut() {
                let was = (session.fast.is_known, session.fast.is_handed_over());
                let last = &mut table.generations[index];
                let command = session.poll_fast(now.ns, slot, table.base + slot, last);
                table.known += usize::from(!was.0 && session.fast.is_known);
                match (was.1, session.fast.is_handed_over()) {
                    (false, true) => table.handed_over += 1,
                    (true, false) => table.handed_over -= 1,
                    _ => {}
                }
                if command.is_some() {
                    return command;
                }
                session.fast.is_listed = false;
            }
            table.pending.pop();
        }
        None
    }

    /// Sessions that the fast path does not know of, for want of room.
    #[must_use]
    pub fn unknown_to_fast(&self) -> usize {
        self.fast.as_ref().map_or(0, |table| self.index.len() - table.known)
    }

    /// Sessions that the fast path carries.
    #[must_use]
    pub fn handed_over(&self) -> usize {
        self.fast.as_ref().map_or(0, |table| table.handed_over)
    }

    /// There was no room for a [`FastCommand::Know`]. It is tried again.
    pub fn handle_unknown(&mut self, slot: u32) {
        if let (Some(session), Some(table)) = (&mut self.slots[slot as usize], &mut self.fast) {
            session.fast.is_known = false;
            // The sweep lists it again; listed now, it would be tried for ever.
            session.fast.is_listed = false;
            table.pending.retain(|&pending| pending != slot);
            table.known -= 1;
        }
    }

    /// Nobody could be asked for a session's ways: the sweep comes back to it.
    pub fn handle_unasked(&mut self, slot: u32) {
        if let Some(session) = &mut self.slots[slot as usize] {
            session.fast.asked_ns = 0;
        }
    }

    /// The ways to `to`, which were the peers of a slot when they were asked for.
    pub fn handle_ways(&mut self, now: Now, slot: u32, to: [SocketAddr; 2], ways: [Option<u16>; 2]) {
        let Some(session) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        if session.ends() != Some(to) {
            return;
        }
        let fast = &mut session.fast;
        let changed = fast.ways != ways;
        fast.ways = ways;
        match (ways.iter().all(Option::is_some), fast.is_handed_over()) {
            (true, false) => fast.has_found = true,
            (true, true) => fast.wants_update |= changed,
            (false, true) => {
                fast.wants_back = true;
                fast.after_ns = now.ns + RETRY_NS;
            }
            (false, false) => return,
        }
        self.list(slot);
    }

    /// A [`FastCommand::HandOver`] failed: the session stays here, for a while at least.
    pub fn handle_refused(&mut self, now: Now, slot: u32) {
        if let (Some(session), Some(table)) = (&mut self.slots[slot as usize], &mut self.fast) {
            session.fast.generation = 0;
            session.fast.after_ns = now.ns + CALM_NS;
            table.handed_over -= 1;
        }
    }

    /// A [`FastCommand::Update`] failed: what the fast path goes by is old, so the session is taken back.
    pub fn handle_stale(&mut self, now: Now, slot: u32) {
        if let Some(session) = &mut self.slots[slot as usize] {
            session.fast.after_ns = now.ns + CALM_NS;
            session.fast.wants_back = true;
            self.list(slot);
        }
    }

    /// What the fast path made of a session's directions; `None` where it could not be read: then sequences that
    /// passed there may pass here once more.
    pub fn handle_taken_back(&mut self, slot: u32, states: [Option<DirectionState>; 2]) {
        let Some(session) = &mut self.slots[slot as usize] else { return };
        for (role, state) in states.iter().enumerate() {
            if let (Some(bound), Some(state), true) =
                (&mut session.peers[role], state, session.fast.keeps[role])
            {
                bound.direction.set_state(state);
                session.last_ns = session.last_ns.max(state.refilled_ns);
            }
        }
    }

    /// When a session's last datagram passed on the fast path.
    pub fn handle_activity(&mut self, now: Now, slot: u32, last_ns: u64) {
        if let Some(session) = &mut self.slots[slot as usize] {
            session.last_ns = session.last_ns.max(last_ns);
            session.fast.looked_ns = now.ns;
        }
    }

    /// Routes changed: every way is asked for again.
    pub fn handle_routes_changed(&mut self) {
        for slot in 0..self.slots.len() {
            if let Some(session) = &mut self.slots[slot] {
                session.fast.wants_ways = true;
                self.list(slot as u32);
            }
        }
    }

    /// Has [`poll_fast`](Self::poll_fast) look at a slot.
    pub(super) fn list(&mut self, slot: u32) {
        if let (Some(table), Some(session)) = (&mut self.fast, &mut self.slots[slot as usize])
            && !std::mem::replace(&mut session.fast.is_listed, true)
        {
            table.pending.push(slot);
        }
    }

    pub(super) fn tick_fast(&mut self, now: Now, slot: usize) {
        if self.fast.is_some()
            && let Some(session) = &mut self.slots[slot]
            && session.fast.tick(now.ns)
        {
            self.list(slot as u32);
        }
    }

    /// A session is gone.
    pub(super) fn forget_fast(&mut self, session: &Session) {
        let Some(table) = &mut self.fast else { return };
        table.handed_over -= usize::from(session.fast.is_handed_over());
        if session.fast.is_known {
            table.known -= 1;
            table.gone.push(session.id);
        }
    }

    /// Bytes that all of it takes besides the sessions themselves.
    pub(super) fn fast_bytes(&self) -> usize {
        self.fast.as_ref().map_or(0, |table| {
            table.generations.len() * 2
                + table.pending.capacity() * 4
                + table.gone.capacity() * size_of::<SessionId>()
        })
    }
}

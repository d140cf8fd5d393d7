//! Hosts and clients in a world with virtual time.
//!
//! Owns the streams, the traffic of others and the order of what happens. Each stream drives its endpoints
//! ([`pair`]); they meet in the queues of the [`stage`]. Invariant: scenario, seed and code decide every bit of a
//! run, which its fingerprint proves.

mod attacker;
mod oracle;
mod outcome;
mod pair;
mod pump;
mod stage;
mod wake;

use std::net::{SocketAddr, SocketAddrV4};

use fastrand::Rng;
use rift_core::endpoint::Ecn;
use rift_core::{FrameId, Timestamp};

use crate::check::Rule;
use crate::check::player::Picture;
use crate::cross::{Cross, CrossPacket};
use crate::endpoint::{Client, Host};
use crate::report::Report;
use crate::scenario::{Action, Controller, Scenario};
use crate::seeds::Seeds;

use pair::{Pair, TICK_US};
use stage::{Stage, Way};

/// Typing ends this long before the run does, so that the last events can arrive.
const QUIET_US: u64 = 2_000_000;

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Shows its display.
    Host,
    /// Looks at it.
    Client,
}

impl Side {
    /// As in the text form of scenarios.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Client => "client",
        }
    }

    /// The one at the other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Host => Self::Client,
            Self::Client => Self::Host,
        }
    }
}

/// Makes the endpoints of a run.
pub trait Peers {
    /// The sending end.
    type Host: Host;
    /// The receiving end.
    type Client: Client;

    /// A host, at the beginning of the run. All its randomness is `seed`.
    fn host(&mut self, scenario: &Scenario, seed: u64, now: Timestamp) -> Self::Host;
    /// A client of the host at `host`. `seed` differs each time.
    fn client(&mut self, scenario: &Scenario, seed: u64, host: SocketAddr, now: Timestamp) -> Self::Client;
}

/// Runs `scenario` with the endpoints that `peers` makes.
pub fn run_with<P: Peers>(scenario: &Scenario, seed: u64, peers: P) -> Report {
    let mut world = World::new(scenario.clone(), seed, peers);
    world.run();
    world.into_report()
}

/// Addresses are those of a world with IPv4 alone: they take a fifth of the room, and events are moved often.
#[derive(Debug)]
enum Event {
    Deliver {
        pair: usize,
        to: Side,
        from: SocketAddrV4,
        at: SocketAddrV4,
        datagram: Vec<u8>,
        ecn: Ecn,
        genuine: bool,
    },
    /// A packet has left the queue.
    Left(Way),
    /// Packets of cross traffic arrive, their sender hears of it, its timer is due.
    CrossArrived {
        source: usize,
        packet: CrossPacket,
    },
    CrossAcknowledged {
        source: usize,
        packet: CrossPacket,
    },
    CrossTimer(usize),
    /// A stream begins, has warmed up, ends.
    Start(usize),
    WarmedUp(usize),
    Stop(usize),
    /// Oracles look at the capacity.
    Oracle,
    Wake(usize, Side),
    Capture(usize),
    SliceReady {
        pair: usize,
        frame: FrameId,
        index: u32,
    },
    Decoded {
        pair: usize,
        client: u32,
        picture: Picture,
    },
    Show {
        pair: usize,
        client: u32,
        picture: Picture,
    },
    Type(usize),
    Tick,
    Act(usize),
}

struct World<P: Peers> {
    scenario: Scenario,
    seed: u64,
    peers: P,
    stage: Stage,
    pairs: Vec<Pair<P>>,
    cross: Vec<Cross>,
    /// When each source of cross traffic is known to be asked next.
    cross_due: Vec<Timestamp>,
    events: u64,
}

impl<P: Peers> World<P> {
    fn new(scenario: Scenario, seed: u64, mut peers: P) -> Self {
        let mut seeds = Rng::with_seed(seed);
        let count = 1 + scenario.flows.len();
        let path_seeds = Seeds::paths(&mut seeds);
        let stage = Stage::new(scenario.down.clone(), scenario.up.clone(), path_seeds, count);
        let flows = std::iter::once(scenario.main).chain(scenario.flows.iter().copied());
        let pairs = flows
            .enumerate()
            .map(|(index, flow)| Pair::new(index, &scenario, flow, seeds.u64(..), &mut peers))
            .collect();
        let cross: Vec<Cross> = scenario
            .cross
            .iter()
            .map(|config| Cross::new(config, scenario.rtt_us() + 2 * config.delay_us, seeds.u64(..)))
            .collect();
        let cross_due = vec![Timestamp::NEVER; cross.len()];
        let mut world = Self { scenario, seed, peers, stage, pairs, cross, cross_due, events: 0 };
        let missing: Vec<_> = world.scenario.missing_traces().collect();
        if !missing.is_empty() {
            let text = format!("not loaded: {}", missing.join(", "));
            world.stage.violations.add(Timestamp::ZERO, Rule::Trace, text);
            world.stage.halted = true;
            return world;
        }
        world.schedule();
        world
    }

    /// Queues everything whose time is known from the beginning.
    fn schedule(&mut self) {
        let at = Timestamp::from_micros;
        let queue = &mut self.stage.queue;
        for (i, &(us, _)) in self.scenario.timeline.iter().enumerate() {
            queue.push(at(us), Event::Act(i));
        }
        queue.push(at(TICK_US), Event::Tick);
        for pair in &self.pairs {
            let (index, flow) = (pair.index, &pair.flow);
            queue.push(at(flow.start_us), Event::Start(index));
            queue.push(at(flow.start_us + self.scenario.warmup_us), Event::WarmedUp(index));
            if let Some(stop_us) = flow.stop_us {
                queue.push(at(stop_us), Event::Stop(index));
            }
        }
        if self.pairs.iter().any(|pair| pair.scenario.controller == Controller::Oracle) {
            queue.push(Timestamp::ZERO, Event::Oracle);
        }
        for source in 0..self.cross.len() {
            self.rearm_cross(source);
        }
    }

    fn run(&mut self) {
        let end = Timestamp::from_micros(self.scenario.duration_us);
        while let Some((at, event)) = self.stage.queue.pop() {
            if at > end || self.stage.halted {
                break;
            }
            self.stage.now = at;
            self.events += 1;
            self.handle(event);
        }
        if !self.stage.halted {
            self.stage.now = end;
        }
        self.finish();
    }

    fn handle(&mut self, event: Event) {
        let stage = &mut self.stage;
        match event {
            Event::Deliver { pair, to, from, at, datagram, ecn, genuine } => {
                self.pairs[pair].deliver(stage, to, (from, at), datagram, ecn, genuine);
            }
            Event::Left(way) => stage.on_left(way),
            Event::CrossArrived { source, packet } => {
                let cross = &mut self.cross[source];
                if cross.on_arrived(&packet) {
                    let config = cross.config();
                    let back = if config.reverse { &self.scenario.down } else { &self.scenario.up };
                    stage.push(back.delay_us + config.delay_us, Event::CrossAcknowledged { source, packet });
                }
            }
            Event::CrossAcknowledged { source, packet } => {
                self.cross[source].on_acknowledged(stage.now, &packet);
                self.pump_cross(source);
            }
            Event::CrossTimer(source) => {
                self.cross_due[source] = Timestamp::NEVER;
                self.pump_cross(source);
            }
            Event::Start(pair) => {
                self.pairs[pair].start_client(stage, &mut self.peers);
                self.pairs[pair].pump(stage, Side::Host);
            }
            Event::WarmedUp(pair) => self.pairs[pair].warmed_up(stage),
            Event::Stop(pair) => self.pairs[pair].close(stage, Side::Client),
            Event::Oracle => self.consult_oracles(),
            Event::Wake(pair, side) => self.pairs[pair].wake(stage, side),
            Event::Capture(pair) => self.pairs[pair].capture(stage),
            Event::SliceReady { pair, frame, index } => self.pairs[pair].submit_slice(stage, frame, index),
            Event::Decoded { pair, client, picture } => self.pairs[pair].decoded(stage, client, &picture),
            Event::Show { pair, client, picture } => self.pairs[pair].show(stage, client, &picture),
            Event::Type(pair) => self.pairs[pair].type_next(stage),
            Event::Tick => {
                for pair in &mut self.pairs {
                    pair.tick(stage);
                }
                stage.push(TICK_US, Event::Tick);
            }
            Event::Act(i) => self.act(i),
        }
    }

    fn act(&mut self, i: usize) {
        let action = self.scenario.timeline[i].1.clone();
        self.stage.note(6, 0);
        let index = match action {
            Action::Down(config) => return self.stage.reconfigure(Way::Down, config),
            Action::Up(config) => return self.stage.reconfigure(Way::Up, config),
            Action::Pause(flow) | Action::Resume(flow) => flow.saturating_sub(1),
            _ => 0,
        };
        if let Some(pair) = self.pairs.get_mut(index) {
            pair.act(&mut self.stage, &mut self.peers, &action);
        }
    }

    /// Sends what a source of cross traffic has to send.
    fn pump_cross(&mut self, source: usize) {
        let cross = &mut self.cross[source];
        let way = if cross.config().reverse { Way::Up } else { Way::Down };
        let delay_us = cross.config().delay_us;
        while let Some(packet) = cross.poll_packet(self.stage.now) {
            self.stage.note(7, packet.number);
            self.stage.send_cross(way, source, packet, delay_us);
        }
        self.rearm_cross(source);
    }

    fn rearm_cross(&mut self, source: usize) {
        // A timer that is due now was served; what is still due waits for an acknowledgement.
        let at = self.cross[source].poll_at().max(self.stage.now.plus_micros(1));
        if at < self.cross_due[source] && at < Timestamp::NEVER {
            self.cross_due[source] = at;
            self.stage.queue.push(at, Event::CrossTimer(source));
        }
    }

    fn consult_oracles(&mut self) {
        for index in 0..self.pairs.len() {
            let pair = &self.pairs[index];
            if pair.scenario.controller != Controller::Oracle {
                continue;
            }
            let way = pair.way(Side::Host);
            let streams =
                self.pairs.iter().filter(|p| p.way(Side::Host) == way && p.is_on(self.stage.now)).count();
            let seen = oracle::look(&self.stage, way, streams, &self.cross);
            self.pairs[index].consult_oracle(&mut self.stage, seen);
        }
        self.stage.push(oracle::INTERVAL_US, Event::Oracle);
    }
}

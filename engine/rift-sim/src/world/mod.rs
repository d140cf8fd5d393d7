//! A host and a client in a world with virtual time.
//!
//! Owns time, the paths, the models at both ends, and the checkers; drives the endpoints as the
//! programs around them would: datagrams in, datagrams out, a call when a timer is due. Invariant: scenario,
//! seed and code decide every bit of a run, which its fingerprint proves.

mod attacker;
mod outcome;
mod pump;
mod wake;

use std::net::SocketAddr;

use fastrand::Rng;
use rift_core::endpoint::Ecn;
use rift_core::send::SenderCounters;
use rift_core::{Bitrate, DropCounters, FrameId, Timestamp};

use crate::check::input::InputModel;
use crate::check::player::{Picture, Player, ScreenLimits};
use crate::check::wire::WireWatch;
use crate::check::{Rule, Violations};
use crate::clock::Clock;
use crate::endpoint::{Client, EncodedSlice, Endpoint as _, Host};
use crate::fingerprint::Fingerprint;
use crate::link::{Fate, Link, LinkCounters};
use crate::metrics::StreamLog;
use crate::queue::EventQueue;
use crate::report::{KeyframeCounts, Report, Sample};
use crate::scenario::{Action, Controller, Scenario};
use crate::source::Source;

use attacker::{Attacker, Forged};
use wake::Wake;

/// Typing ends this long before the run does, so that the last events can arrive.
const QUIET_US: u64 = 2_000_000;
const TICK_US: u64 = 100_000;
/// More samples than a plot can show are not taken.
const SAMPLES_MAX: u64 = 6_000;
/// Buffer for one departure: what the largest GSO send holds.
const BUFFER_LEN: usize = 65_536;

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
}

/// Makes the endpoints of a run.
pub trait Peers {
    /// The sending end.
    type Host: Host;
    /// The receiving end.
    type Client: Client;

    /// The host, at the beginning of the run. All its randomness is `seed`.
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

#[derive(Debug)]
enum Event {
    Deliver {
        to: Side,
        from: SocketAddr,
        at: SocketAddr,
        datagram: Vec<u8>,
        ecn: Ecn,
        genuine: bool,
    },
    /// A packet has left the queue of the path that begins at this side.
    Left(Side),
    /// The oracle looks at the capacity.
    Oracle,
    WarmedUp,
    Wake(Side),
    Capture,
    SliceReady {
        frame: FrameId,
        index: u32,
    },
    Decoded {
        client: u32,
        picture: Picture,
    },
    Show {
        client: u32,
        picture: Picture,
    },
    Type,
    Tick,
    Act(usize),
}

/// A datagram under way.
struct OnPath {
    from: SocketAddr,
    to: SocketAddr,
    datagram: Vec<u8>,
}

/// What had happened by the end of the warm-up.
#[derive(Default)]
struct WarmUp {
    at: Timestamp,
    down: LinkCounters,
    up: LinkCounters,
    sender: SenderCounters,
}

/// How late the oracle learns of the capacity, how often it looks, and the share that it takes.
const ORACLE_LATE_US: u64 = 20_000;
const ORACLE_INTERVAL_US: u64 = 5_000;
const ORACLE_SHARE: f64 = 0.95;

struct World<P: Peers> {
    scenario: Scenario,
    seed: u64,
    peers: P,
    now: Timestamp,
    queue: EventQueue<Event>,
    seeds: Rng,

    host: P::Host,
    client: Option<P::Client>,
    /// Counts clients, so that what was meant for an earlier one does not reach a later one.
    client_number: u32,
    client_addr: SocketAddr,
    /// Both ends say that the session stands.
    client_connected: bool,
    streaming: bool,
    host_clock: Clock,
    client_clock: Clock,
    host_wake: Wake,
    client_wake: Wake,

    down: Link<OnPath>,
    up: Link<OnPath>,
    /// When the next packet is known to leave each of them.
    down_left: Timestamp,
    up_left: Timestamp,
    attacker: Attacker,

    source: Source,
    capture_pending: bool,
    typing_pending: bool,
    /// An endpoint never came to an end.
    halted: bool,
    player: Player,
    input: InputModel,
    wire: WireWatch,
    violations: Violations,

    log: Fingerprint,
    events: u64,
    frames: u64,
    keyframes: KeyframeCounts,
    invalidations: u64,
    slices_refused: u64,
    sessions: u64,
    host_drops: DropCounters,
    client_drops: DropCounters,
    first_picture: Option<Timestamp>,
    samples: Vec<Sample>,
    sample: Sample,
    stream: StreamLog,
    warm_up: WarmUp,
    sample_interval_us: u64,
    buffer: Vec<u8>,
    slice: Vec<u8>,
}

impl<P: Peers> World<P> {
    fn new(scenario: Scenario, seed: u64, mut peers: P) -> Self {
        let mut seeds = Rng::with_seed(seed);
        let host_clock = Clock::new(
            i64::try_from(scenario.host_clock.start_us).unwrap_or(i64::MAX),
            scenario.host_clock.drift_ppm,
        );
        let client_clock = Clock::new(
            i64::try_from(scenario.client_clock.start_us).unwrap_or(i64::MAX),
            scenario.client_clock.drift_ppm,
        );
        let host = peers.host(&scenario, seeds.u64(..), host_clock.local(Timestamp::ZERO));
        let limits =
            ScreenLimits { latency_us: scenario.limits.latency_us, freeze_us: scenario.gap_us_max() };
        let mut world = Self {
            seed,
            peers,
            now: Timestamp::ZERO,
            queue: EventQueue::new(),
            host,
            client: None,
            client_number: 0,
            client_addr: client_addr(0),
            client_connected: false,
            streaming: false,
            host_clock,
            client_clock,
            host_wake: Wake::default(),
            client_wake: Wake::default(),
            down: Link::new(scenario.down.clone(), seeds.u64(..)),
            up: Link::new(scenario.up.clone(), seeds.u64(..)),
            down_left: Timestamp::NEVER,
            up_left: Timestamp::NEVER,
            attacker: Attacker::new(scenario.attack, seeds.u64(..)),
            source: Source::new(scenario.source, seeds.u64(..)),
            capture_pending: false,
            typing_pending: false,
            halted: false,
            player: Player::new(limits),
            input: InputModel::new(scenario.limits.stuck_us.unwrap_or(u64::MAX), seeds.u64(..)),
            wire: WireWatch::default(),
            violations: Violations::default(),
            log: Fingerprint::new(),
            events: 0,
            frames: 0,
            keyframes: KeyframeCounts::default(),
            invalidations: 0,
            slices_refused: 0,
            sessions: 0,
            host_drops: DropCounters::default(),
            client_drops: DropCounters::default(),
            first_picture: None,
            samples: Vec::new(),
            sample: Sample::default(),
            stream: StreamLog::default(),
            warm_up: WarmUp::default(),
            sample_interval_us: TICK_US.max(scenario.duration_us / SAMPLES_MAX),
            buffer: vec![0; BUFFER_LEN],
            slice: Vec::new(),
            scenario,
            seeds,
        };
        for (i, &(at, _)) in world.scenario.timeline.iter().enumerate() {
            world.queue.push(Timestamp::from_micros(at), Event::Act(i));
        }
        world.queue.push(Timestamp::from_micros(TICK_US), Event::Tick);
        if world.scenario.warmup_us > 0 {
            world.queue.push(Timestamp::from_micros(world.scenario.warmup_us), Event::WarmedUp);
        }
        if world.scenario.controller == Controller::Oracle {
            world.queue.push(Timestamp::ZERO, Event::Oracle);
        }
        world.stream.on_target(0, world.source.rate());
        let missing: Vec<_> = world.scenario.missing_traces().collect();
        if !missing.is_empty() {
            let text = format!("not loaded: {}", missing.join(", "));
            world.violations.add(Timestamp::ZERO, Rule::Trace, text);
            world.halted = true;
            return world;
        }
        world.start_client();
        world.pump(Side::Host);
        world
    }

    fn run(&mut self) {
        let end = Timestamp::from_micros(self.scenario.duration_us);
        while let Some((at, event)) = self.queue.pop() {
            if at > end || self.halted {
                break;
            }
            self.now = at;
            self.events += 1;
            self.handle(event);
        }
        if !self.halted {
            self.now = end;
        }
        self.finish();
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { to, from, at, datagram, ecn, genuine } => {
                self.deliver(to, from, at, datagram, ecn, genuine);
            }
            Event::Left(side) => {
                *self.left_mut(side) = Timestamp::NEVER;
                self.drain(side);
            }
            Event::Oracle => self.consult_oracle(),
            Event::WarmedUp => {
                self.warm_up = WarmUp {
                    at: self.now,
                    down: *self.down.counters(),
                    up: *self.up.counters(),
                    sender: self.host.sender_counters().unwrap_or_default(),
                };
            }
            Event::Wake(side) => self.wake(side),
            Event::Capture => self.capture(),
            Event::SliceReady { frame, index } => self.submit_slice(frame, index),
            Event::Decoded { client, picture } => self.decoded(client, &picture),
            Event::Show { client, picture } => self.show(client, &picture),
            Event::Type => self.type_next(),
            Event::Tick => self.tick(),
            Event::Act(i) => {
                let action = self.scenario.timeline[i].1.clone();
                self.act(&action);
            }
        }
    }

    fn local(&self, side: Side) -> Timestamp {
        match side {
            Side::Host => self.host_clock.local(self.now),
            Side::Client => self.client_clock.local(self.now),
        }
    }

    fn note(&mut self, tag: u64, value: u64) {
        self.log.add(self.now.as_micros());
        self.log.add(tag << 56 ^ value);
    }

    fn start_client(&mut self) {
        let now = self.local(Side::Client);
        let seed = self.seeds.u64(..);
        self.client = Some(self.peers.client(&self.scenario, seed, HOST_ADDR, now));
        self.client_number += 1;
        self.client_addr = client_addr(self.client_number);
        self.client_connected = false;
        self.client_wake = Wake::default();
        self.player.restart();
        self.pump(Side::Client);
    }

    fn deliver(
        &mut self,
        to: Side,
        from: SocketAddr,
        at: SocketAddr,
        mut datagram: Vec<u8>,
        ecn: Ecn,
        genuine: bool,
    ) {
        if genuine {
            let peer = if to == Side::Host { self.client_addr } else { HOST_ADDR };
            if let Some(forged) = self.attacker.on_delivered(to, &datagram, peer) {
                let at = if forged.to == Side::Host { HOST_ADDR } else { self.client_addr };
                let Forged { to, from, after_us, datagram } = forged;
                let event = Event::Deliver { to, from, at, datagram, ecn: Ecn::NotEct, genuine: false };
                self.queue.push(self.now.plus_micros(after_us), event);
            }
        }
        let now = self.local(to);
        match to {
            Side::Host => {
                let mut head = [0; 32];
                let head_len = datagram.len().min(head.len());
                head[..head_len].copy_from_slice(&datagram[..head_len]);
                let result = self.host.handle_datagram(now, from, ecn, &mut datagram);
                self.wire.on_delivered_to_host(from, &head[..head_len], datagram.len(), result.is_ok());
                if let Err(reason) = result {
                    self.host_drops.add(reason);
                    self.note(1, reason as u64);
                }
            }
            Side::Client => {
                let Some(client) = self.client.as_mut().filter(|_| at == self.client_addr) else { return };
                if let Err(reason) = client.handle_datagram(now, from, ecn, &mut datagram) {
                    self.client_drops.add(reason);
                    self.note(2, reason as u64);
                }
            }
        }
        self.pump(to);
    }

    /// Puts `datagram` from `side` on the path to `to`.
    fn send(&mut self, side: Side, to: SocketAddr, ecn: Ecn, datagram: &[u8]) {
        self.wire.on_sent(self.now, side, to, datagram, &mut self.violations);
        self.log.add(self.now.as_micros());
        // Header and tag: the tag depends on every bit between them.
        let (head, tail) = datagram.split_at(datagram.len().min(18));
        self.log.add_bytes(head);
        self.log.add_bytes(&tail[tail.len().saturating_sub(16)..]);
        self.log.add(datagram.len() as u64);
        let (link, from, known) = match side {
            Side::Host => (&mut self.down, HOST_ADDR, to == self.client_addr),
            Side::Client => (&mut self.up, self.client_addr, to == HOST_ADDR),
        };
        if !known {
            // To an attacker, or to an address that the client has left.
            return;
        }
        if side == Side::Host {
            self.sample.down_bytes += datagram.len() as u64;
        }
        let len = datagram.len();
        let on_path = OnPath { from, to, datagram: datagram.to_vec() };
        if link.send(self.now, len, ecn, on_path).is_err() {
            self.sample.lost += u64::from(side == Side::Host);
        }
        self.drain(side);
    }

    /// Lets packets fly that have left the queue of the path from `side`.
    fn drain(&mut self, side: Side) {
        let (link, left, to) = match side {
            Side::Host => (&mut self.down, &mut self.down_left, Side::Client),
            Side::Client => (&mut self.up, &mut self.up_left, Side::Host),
        };
        while let Some((on_path, fate)) = link.poll(self.now) {
            let OnPath { from, to: at_addr, datagram: mut bytes } = on_path;
            let Fate::Arrives { at, again, flipped_bit, ecn } = fate else {
                self.sample.lost += u64::from(side == Side::Host);
                continue;
            };
            let deliver = |datagram| Event::Deliver { to, from, at: at_addr, datagram, ecn, genuine: true };
            if let Some(again) = again {
                self.queue.push(again, deliver(bytes.clone()));
            }
            if let Some(bit) = flipped_bit {
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            self.queue.push(at, deliver(bytes));
        }
        let at = link.poll_at();
        if at < *left {
            *left = at;
            self.queue.push(at, Event::Left(side));
        }
    }

    fn left_mut(&mut self, side: Side) -> &mut Timestamp {
        match side {
            Side::Host => &mut self.down_left,
            Side::Client => &mut self.up_left,
        }
    }

    /// Sets the encoder to what an all-knowing controller would.
    fn consult_oracle(&mut self) {
        let seen_us = self.now.as_micros().saturating_sub(ORACLE_LATE_US);
        if let Some(rate) = self.down.course().rate(seen_us) {
            let config = self.source.config();
            let least = config.rate_min.unwrap_or(Bitrate::from_bps(config.rate.as_bps() / 10));
            let most = config.rate_max.unwrap_or(Bitrate::from_bps(config.rate.as_bps() * 2));
            // What headers take of a full packet.
            let share = ORACLE_SHARE * (1.0 - HEADER_SHARE) / (1.0 + self.scenario.protocol.parity);
            let target =
                Bitrate::from_bps((rate.as_bps() as f64 * share) as u64).clamp(least, most.max(least));
            self.source.set_rate(target);
            self.stream.on_target(self.now.as_micros(), target);
        }
        self.queue.push(self.now.plus_micros(ORACLE_INTERVAL_US), Event::Oracle);
    }

    fn capture(&mut self) {
        self.capture_pending = false;
        if !self.streaming {
            return;
        }
        if let Some(truth) = self.source.capture(self.now) {
            self.frames += 1;
            let bytes: usize = truth.slices[..truth.slice_count as usize].iter().map(|&(len, _)| len).sum();
            self.stream.on_captured(truth.id, self.now.as_micros(), bytes as u64);
            if let Some(cause) = truth.keyframe {
                self.keyframes.add(cause);
                self.note(3, cause as u64);
            }
            for index in 0..truth.slice_count {
                let at = self.now.plus_micros(self.source.slice_ready_us(index).into());
                self.queue.push(at, Event::SliceReady { frame: truth.id, index });
            }
        }
        self.schedule_capture(self.source.interval_us());
    }

    fn schedule_capture(&mut self, after_us: u64) {
        if !self.capture_pending {
            self.capture_pending = true;
            self.queue.push(self.now.plus_micros(after_us), Event::Capture);
        }
    }

    fn submit_slice(&mut self, frame: FrameId, index: u32) {
        let mut data = std::mem::take(&mut self.slice);
        if self.streaming
            && self.source.emit_slice(frame, index, &mut data)
            && let Some(truth) = self.source.truth(frame)
        {
            let slice = EncodedSlice {
                frame_id: frame,
                index,
                last: index + 1 == truth.slice_count,
                keyframe: truth.keyframe.is_some(),
                reference: truth.reference,
                captured_at: self.host_clock.local(truth.captured_at),
                encode_us: self.source.slice_ready_us(index),
                data: &data,
            };
            if let Err(reason) = self.host.submit_slice(self.local(Side::Host), &slice) {
                self.slices_refused += 1;
                self.note(4, reason as u64);
            }
            self.pump(Side::Host);
        }
        self.slice = data;
    }

    fn decoded(&mut self, client_number: u32, picture: &Picture) {
        let now = self.local(Side::Client);
        let Some(client) = self.client.as_mut().filter(|_| client_number == self.client_number) else {
            return;
        };
        if picture.sound {
            client.on_decoded(now, picture.frame);
            if self.player.wants(now, picture) {
                let at = self.client_clock.world(picture.show_at.max(now), self.now);
                self.queue.push(at, Event::Show { client: client_number, picture: *picture });
            }
        } else {
            client.on_decode_failed(now, picture.frame);
        }
        self.pump(Side::Client);
    }

    fn show(&mut self, client_number: u32, picture: &Picture) {
        let now = self.local(Side::Client);
        let Some(client) = self.client.as_mut().filter(|_| client_number == self.client_number) else {
            return;
        };
        client.on_shown(now, picture.frame);
        self.player.on_shown(self.now, picture, &self.source, &mut self.violations);
        self.first_picture.get_or_insert(self.now);
        self.sample.shown += 1;
        if let Some(&latency_us) = self.player.latencies_us().last() {
            self.sample.latency_us = self.sample.latency_us.max(latency_us);
        }
        self.note(5, picture.frame.0);
        self.pump(Side::Client);
    }

    fn type_next(&mut self) {
        self.typing_pending = self.client_connected && self.streaming;
        if !self.typing_pending {
            return;
        }
        let quiet_from = self.scenario.duration_us.saturating_sub(QUIET_US);
        let (input, next_us) = if self.now.as_micros() < quiet_from {
            (Some(self.input.type_next(self.now)), self.typing_interval_us())
        } else {
            (self.input.release_next(self.now), 1_000)
        };
        self.queue.push(self.now.plus_micros(next_us), Event::Type);
        let now = self.local(Side::Client);
        if let (Some(input), Some(client)) = (input, self.client.as_mut()) {
            client.submit_input(now, input);
            self.pump(Side::Client);
        }
    }

    fn typing_interval_us(&self) -> u64 {
        1_000_000 / u64::from(self.scenario.input_per_s.max(1))
    }

    fn tick(&mut self) {
        self.input.check_stuck(self.now, 0, &mut self.violations);
        let due = self.samples.last().map_or(0, |s| s.at_us) + self.sample_interval_us;
        if self.now.as_micros() >= due {
            self.sample.at_us = self.now.as_micros();
            self.sample.queue_us = self.down.queue_us(self.now);
            let since_us = self.samples.last().map_or(0, |s| s.at_us);
            self.sample.offered_bytes =
                self.down.course().offered(since_us, self.now.as_micros()).unwrap_or(0);
            self.sample.target_kbps = self.source.rate().as_kbps();
            self.samples.push(std::mem::take(&mut self.sample));
        }
        self.queue.push(self.now.plus_micros(TICK_US), Event::Tick);
    }

    fn act(&mut self, action: &Action) {
        self.note(6, 0);
        match action {
            Action::Down(config) => {
                self.down.reconfigure(self.now, config.clone());
                self.drain(Side::Host);
            }
            Action::Up(config) => {
                self.up.reconfigure(self.now, config.clone());
                self.drain(Side::Client);
            }
            Action::Content(content) => self.source.set_content(*content),
            Action::ClockJump(side, by_us) => {
                match side {
                    Side::Host => self.host_clock.jump(*by_us),
                    Side::Client => self.client_clock.jump(*by_us),
                }
                // Timers that are due by the new reading fire now.
                self.rearm(*side);
            }
            Action::Rebind => self.client_addr.set_port(self.client_addr.port() + 1_000),
            Action::Vanish => {
                self.client = None;
                self.client_connected = false;
                self.player.restart();
                self.input.restart(self.now);
            }
            Action::Restart => {
                self.input.restart(self.now);
                self.start_client();
            }
            Action::Close(Side::Host) => {
                self.host.close(self.local(Side::Host));
                self.pump(Side::Host);
            }
            Action::Close(Side::Client) => {
                let now = self.local(Side::Client);
                if let Some(client) = self.client.as_mut() {
                    client.close(now);
                    self.pump(Side::Client);
                }
            }
        }
    }
}

/// Headers of a full packet of video, from chunk to IP, as a share of it.
const HEADER_SHARE: f64 = 0.07;

/// Where the host is.
const HOST_ADDR: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 4810);

/// Where the `number`th client is.
fn client_addr(number: u32) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], 40_000 + (number % 1_000) as u16))
}

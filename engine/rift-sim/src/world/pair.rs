//! A host and a client: one stream, its two ends, and the models around them.
//!
//! Owns both endpoints and what checks them; drives them as the programs around them would. What they send goes onto
//! the [`Stage`]. Invariant: an endpoint is called only with its own clock's time.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use fastrand::Rng;
use rift_core::endpoint::Ecn;
use rift_core::send::SenderCounters;
use rift_core::{Bitrate, DropCounters, FrameId, Timestamp};

use super::attacker::{Attacker, Forged};
use super::oracle::{Advice, Oracle, Seen};
use super::stage::{Stage, Way};
use super::wake::Wake;
use super::{Event, Peers, QUIET_US, Side};
use crate::check::input::InputModel;
use crate::check::player::{Picture, Player, ScreenLimits};
use crate::check::wire::WireWatch;
use crate::clock::Clock;
use crate::endpoint::{Client, EncodedSlice, Endpoint as _, Host};
use crate::metrics::{Idle, StreamLog};
use crate::report::{Decision, KeyframeCounts, PathCounters, Sample};
use crate::scenario::{Action, FlowConfig, Scenario};
use crate::seeds::Seeds;
use crate::source::Source;

/// More samples than a plot can show are not taken.
const SAMPLES_MAX: u64 = 6_000;
pub(super) const TICK_US: u64 = 100_000;

/// What had happened by the end of the warm-up.
#[derive(Default)]
pub(super) struct WarmUp {
    pub(super) at: Timestamp,
    pub(super) paths: [PathCounters; 2],
    pub(super) sender: SenderCounters,
}

/// One stream.
pub(super) struct Pair<P: Peers> {
    pub(super) index: usize,
    pub(super) scenario: Scenario,
    pub(super) flow: FlowConfig,
    pub(super) seeds: Rng,

    pub(super) host: P::Host,
    pub(super) client: Option<P::Client>,
    /// Counts clients, so that what was meant for an earlier one does not reach a later one.
    pub(super) client_number: u32,
    client_addr: SocketAddrV4,
    host_addr: SocketAddrV4,
    /// Both ends say that the session stands.
    pub(super) client_connected: bool,
    pub(super) streaming: bool,
    pub(super) host_clock: Clock,
    pub(super) client_clock: Clock,
    pub(super) host_wake: Wake,
    pub(super) client_wake: Wake,

    attacker: Attacker,
    pub(super) oracle: Oracle,
    pub(super) source: Source,
    capture_pending: bool,
    next_capture: Timestamp,
    /// The person at the host has paused the pictures.
    paused: bool,
    pub(super) typing_pending: bool,
    pub(super) player: Player,
    pub(super) input: InputModel,
    wire: WireWatch,

    pub(super) frames: u64,
    pub(super) keyframes: KeyframeCounts,
    pub(super) invalidations: u64,
    pub(super) slices_refused: u64,
    pub(super) sessions: u64,
    pub(super) host_drops: DropCounters,
    pub(super) client_drops: DropCounters,
    pub(super) first_picture: Option<Timestamp>,
    pub(super) samples: Vec<Sample>,
    sample: Sample,
    sampled: [PathCounters; 2],
    pub(super) stream: StreamLog,
    pub(super) decisions: Vec<Decision>,
    pub(super) warm_up: WarmUp,
    sample_interval_us: u64,
    slice: Vec<u8>,
}

impl<P: Peers> Pair<P> {
    /// The `index`th stream of a run of `scenario`. Its host is there from the beginning, its client from the flow's
    /// start.
    pub(super) fn new(index: usize, scenario: &Scenario, flow: FlowConfig, seed: u64, peers: &mut P) -> Self {
        let mut seeds = Rng::with_seed(seed);
        let mut scenario = scenario.clone();
        scenario.controller = flow.controller.unwrap_or(scenario.controller);
        let clock = |config: crate::scenario::ClockConfig| {
            Clock::new(i64::try_from(config.start_us).unwrap_or(i64::MAX), config.drift_ppm)
        };
        let (host_clock, client_clock) = (clock(scenario.host_clock), clock(scenario.client_clock));
        let [host_seed, source_seed] = Seeds::stream(&mut seeds);
        let host = peers.host(&scenario, host_seed, host_clock.local(Timestamp::ZERO));
        let limits =
            ScreenLimits { latency_us: scenario.limits.latency_us, freeze_us: scenario.gap_us_max() };
        let mut pair = Self {
            index,
            flow,
            host,
            client: None,
            client_number: 0,
            client_addr: client_addr(index, 0),
            host_addr: host_addr(index),
            client_connected: false,
            streaming: false,
            host_clock,
            client_clock,
            host_wake: Wake::default(),
            client_wake: Wake::default(),
            attacker: Attacker::new(scenario.attack, seeds.u64(..)),
            oracle: Oracle::default(),
            source: Source::new(scenario.source, source_seed),
            capture_pending: false,
            next_capture: Timestamp::ZERO,
            paused: false,
            typing_pending: false,
            player: Player::new(limits),
            input: InputModel::new(scenario.limits.stuck_us.unwrap_or(u64::MAX), seeds.u64(..)),
            wire: WireWatch::default(),
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
            sampled: [PathCounters::default(); 2],
            stream: StreamLog::default(),
            decisions: Vec::new(),
            warm_up: WarmUp::default(),
            sample_interval_us: TICK_US.max(scenario.duration_us / SAMPLES_MAX),
            slice: Vec::new(),
            scenario,
            seeds,
        };
        pair.stream.on_target(0, pair.source.rate());
        pair
    }

    /// The queue that packets of `side` go through.
    pub(super) fn way(&self, side: Side) -> Way {
        if (side == Side::Host) == self.flow.reverse { Way::Up } else { Way::Down }
    }

    pub(super) fn local(&self, side: Side, now: Timestamp) -> Timestamp {
        match side {
            Side::Host => self.host_clock.local(now),
            Side::Client => self.client_clock.local(now),
        }
    }

    /// Whether the stream is to run at `now`.
    pub(super) fn is_on(&self, now: Timestamp) -> bool {
        let at = now.as_micros();
        at >= self.flow.start_us && self.flow.stop_us.is_none_or(|stop| at < stop)
    }

    pub(super) fn warmed_up(&mut self, stage: &Stage) {
        self.warm_up = WarmUp {
            at: stage.now,
            paths: stage.accounts[self.index].counters,
            sender: self.host.sender_counters().unwrap_or_default(),
        };
    }

    pub(super) fn start_client(&mut self, stage: &mut Stage, peers: &mut P) {
        let now = self.local(Side::Client, stage.now);
        let seed = self.seeds.u64(..);
        self.client = Some(peers.client(&self.scenario, seed, self.host_addr.into(), now));
        self.client_number += 1;
        self.client_addr = client_addr(self.index, self.client_number);
        self.client_connected = false;
        self.client_wake = Wake::default();
        self.player.restart();
        self.stream.on_absent(stage.now.as_micros());
        self.pump(stage, Side::Client);
    }

    pub(super) fn deliver(
        &mut self,
        stage: &mut Stage,
        to: Side,
        (from, at): (SocketAddrV4, SocketAddrV4),
        mut datagram: Vec<u8>,
        ecn: Ecn,
        genuine: bool,
    ) {
        if genuine {
            let peer = if to == Side::Host { self.client_addr } else { self.host_addr };
            if let Some(forged) = self.attacker.on_delivered(to, &datagram, (peer, self.host_addr)) {
                let at = if forged.to == Side::Host { self.host_addr } else { self.client_addr };
                let Forged { to, from, after_us, datagram } = forged;
                let pair = self.index;
                let event = Event::Deliver { pair, to, from, at, datagram, ecn: Ecn::NotEct, genuine: false };
                stage.push(after_us, event);
            }
        }
        let now = self.local(to, stage.now);
        match to {
            Side::Host => {
                let mut head = [0; 32];
                let head_len = datagram.len().min(head.len());
                head[..head_len].copy_from_slice(&datagram[..head_len]);
                let result = self.host.handle_datagram(now, from.into(), ecn, &mut datagram);
                self.wire.on_delivered_to_host(
                    from.into(),
                    &head[..head_len],
                    datagram.len(),
                    result.is_ok(),
                );
                if let Err(reason) = result {
                    self.host_drops.add(reason);
                    stage.note(1, reason as u64);
                }
            }
            Side::Client => {
                let Some(client) = self.client.as_mut().filter(|_| at == self.client_addr) else { return };
                if let Err(reason) = client.handle_datagram(now, from.into(), ecn, &mut datagram) {
                    self.client_drops.add(reason);
                    stage.note(2, reason as u64);
                }
            }
        }
        stage.recycle(datagram);
        self.pump(stage, to);
    }

    /// Puts `datagram` from `side` on the path to `to`.
    pub(super) fn send(&mut self, stage: &mut Stage, side: Side, to: SocketAddr, ecn: Ecn, datagram: &[u8]) {
        self.wire.on_sent(stage.now, side, to, datagram, &mut stage.violations);
        stage.log.add(stage.now.as_micros());
        // Header and tag: the tag depends on every bit between them.
        let (head, tail) = datagram.split_at(datagram.len().min(18));
        stage.log.add_bytes(head);
        stage.log.add_bytes(&tail[tail.len().saturating_sub(16)..]);
        stage.log.add(datagram.len() as u64);
        let (from, peer) = match side {
            Side::Host => (self.host_addr, self.client_addr),
            Side::Client => (self.client_addr, self.host_addr),
        };
        if to != SocketAddr::V4(peer) {
            // To an attacker, or to an address that the client has left.
            return;
        }
        if side == Side::Host {
            self.sample.down_bytes += datagram.len() as u64;
        }
        let delay_us = self.flow.delay_us;
        stage.send(self.way(side), (self.index, side.other()), (from, peer), ecn, datagram, delay_us);
    }

    pub(super) fn consult_oracle(&mut self, stage: &mut Stage, seen: Seen) {
        let next_us = self.next_capture.micros_since(stage.now);
        let parity = self.scenario.protocol.parity;
        let times = (next_us, self.source.interval_us());
        let Some(advice) = self.oracle.advise(stage.now, seen, times, parity) else { return };
        let Advice { video, pace, held } = advice;
        let config = self.source.config();
        let (least, most) = config.bounds();
        let video = video.clamp(least, most);
        let fps = config.fps;
        self.source.on_held(held);
        let now = self.local(Side::Host, stage.now);
        self.host.set_target(now, video, fps, parity as f32, pace.max(Bitrate::from_kbps(100)));
        self.pump(stage, Side::Host);
    }

    pub(super) fn capture(&mut self, stage: &mut Stage) {
        self.capture_pending = false;
        if !self.streaming {
            return;
        }
        let now_us = stage.now.as_micros();
        let truth = if self.paused { None } else { self.source.capture(stage.now) };
        if let Some(truth) = truth {
            self.frames += 1;
            let bytes: usize = truth.slices[..truth.slice_count as usize].iter().sum();
            self.stream.on_captured(truth.id, now_us, bytes as u64);
            self.oracle.on_frame(stage.now, bytes as u64);
            if let Some(cause) = truth.keyframe {
                self.keyframes.add(cause);
                stage.note(3, cause as u64);
            }
            for index in 0..truth.slice_count {
                let after_us = self.source.slice_ready_us(index).into();
                stage.push(after_us, Event::SliceReady { pair: self.index, frame: truth.id, index });
            }
        } else {
            let why = match (self.paused, self.source.is_held()) {
                (true, _) => Idle::Paused,
                (false, true) => Idle::Held,
                (false, false) => Idle::Skipped,
            };
            self.stream.on_idle(now_us, why);
        }
        self.schedule_capture(stage, self.source.interval_us());
    }

    pub(super) fn schedule_capture(&mut self, stage: &mut Stage, after_us: u64) {
        if !self.capture_pending {
            self.capture_pending = true;
            self.next_capture = stage.now.plus_micros(after_us);
            stage.push(after_us, Event::Capture(self.index));
        }
    }

    pub(super) fn submit_slice(&mut self, stage: &mut Stage, frame: FrameId, index: u32) {
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
            let now = self.local(Side::Host, stage.now);
            if let Err(reason) = self.host.submit_slice(now, &slice) {
                self.slices_refused += 1;
                stage.note(4, reason as u64);
            }
            self.pump(stage, Side::Host);
        }
        self.slice = data;
    }

    pub(super) fn decoded(&mut self, stage: &mut Stage, client_number: u32, picture: &Picture) {
        let now = self.local(Side::Client, stage.now);
        let Some(client) = self.client.as_mut().filter(|_| client_number == self.client_number) else {
            return;
        };
        if picture.sound {
            client.on_decoded(now, picture.frame);
            if self.player.wants(now, picture) {
                let at = self.client_clock.world(picture.show_at.max(now), stage.now);
                let event = Event::Show { pair: self.index, client: client_number, picture: *picture };
                stage.queue.push(at, event);
            }
        } else {
            client.on_decode_failed(now, picture.frame);
        }
        self.pump(stage, Side::Client);
    }

    pub(super) fn show(&mut self, stage: &mut Stage, client_number: u32, picture: &Picture) {
        let now = self.local(Side::Client, stage.now);
        let Some(client) = self.client.as_mut().filter(|_| client_number == self.client_number) else {
            return;
        };
        client.on_shown(now, picture.frame);
        self.player.on_shown(stage.now, picture, &self.source, &mut stage.violations);
        self.first_picture.get_or_insert(stage.now);
        self.sample.shown += 1;
        if let Some(&latency_us) = self.player.latencies_us().last() {
            self.sample.latency_us = self.sample.latency_us.max(latency_us);
        }
        stage.note(5, picture.frame.0);
        self.pump(stage, Side::Client);
    }

    pub(super) fn type_next(&mut self, stage: &mut Stage) {
        self.typing_pending = self.client_connected && self.streaming;
        if !self.typing_pending {
            return;
        }
        let quiet_from = self.scenario.duration_us.saturating_sub(QUIET_US);
        let (input, next_us) = if stage.now.as_micros() < quiet_from {
            (Some(self.input.type_next(stage.now)), self.typing_interval_us())
        } else {
            (self.input.release_next(stage.now), 1_000)
        };
        stage.push(next_us, Event::Type(self.index));
        let now = self.local(Side::Client, stage.now);
        if let (Some(input), Some(client)) = (input, self.client.as_mut()) {
            client.submit_input(now, input);
            self.pump(stage, Side::Client);
        }
    }

    pub(super) fn typing_interval_us(&self) -> u64 {
        1_000_000 / u64::from(self.scenario.input_per_s.max(1))
    }

    pub(super) fn tick(&mut self, stage: &mut Stage) {
        self.input.check_stuck(stage.now, 0, &mut stage.violations);
        let now_us = stage.now.as_micros();
        let since_us = self.samples.last().map_or(0, |s| s.at_us);
        if now_us < since_us + self.sample_interval_us {
            return;
        }
        let counters = stage.accounts[self.index].counters;
        let (now, before) = (&counters[Side::Host as usize], &self.sampled[Side::Host as usize]);
        let link = stage.link(self.way(Side::Host));
        self.sample.at_us = now_us;
        self.sample.queue_us = link.queue_us(stage.now);
        self.sample.lost = now.gone - before.gone;
        self.sample.arrived_bytes = now.arrived_wire_bytes - before.arrived_wire_bytes;
        self.sample.offered_bytes = link.course().offered(since_us, now_us).unwrap_or(0);
        self.sample.target_kbps = self.source.rate().as_kbps();
        self.sample.sender = self
            .host
            .sender_counters()
            .map_or([0; 3], |c| [c.data_packets, c.parity_packets, c.retransmitted_packets]);
        self.sampled = counters;
        self.samples.push(std::mem::take(&mut self.sample));
    }

    /// Does what concerns this stream alone.
    pub(super) fn act(&mut self, stage: &mut Stage, peers: &mut P, action: &Action) {
        match action {
            Action::Content(content) => self.source.set_content(*content),
            Action::Pause(_) => self.paused = true,
            Action::Resume(_) => self.paused = false,
            Action::ClockJump(side, by_us) => {
                match side {
                    Side::Host => self.host_clock.jump(*by_us),
                    Side::Client => self.client_clock.jump(*by_us),
                }
                // Timers that are due by the new reading fire now.
                self.rearm(stage, *side);
            }
            Action::Rebind => self.client_addr.set_port(self.client_addr.port() + 1_000),
            Action::Vanish => {
                self.client = None;
                self.client_connected = false;
                self.stream.on_absent(stage.now.as_micros());
                self.player.restart();
                self.input.restart(stage.now);
            }
            Action::Restart => {
                self.input.restart(stage.now);
                self.start_client(stage, peers);
            }
            Action::Close(side) => self.close(stage, *side),
            Action::Down(_) | Action::Up(_) => {}
        }
    }

    pub(super) fn close(&mut self, stage: &mut Stage, side: Side) {
        let now = self.local(side, stage.now);
        match (side, &mut self.client) {
            (Side::Host, _) => self.host.close(now),
            (Side::Client, Some(client)) => client.close(now),
            (Side::Client, None) => return,
        }
        self.pump(stage, side);
    }
}

/// Where the `index`th host is.
fn host_addr(index: usize) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1 + (index % 200) as u8), 4810)
}

/// Where the `number`th client of the `index`th host is.
fn client_addr(index: usize, number: u32) -> SocketAddrV4 {
    let ip = Ipv4Addr::new(198, 51, 100, 7 + (index % 200) as u8);
    SocketAddrV4::new(ip, 40_000 + (number % 1_000) as u16)
}

//! What floods do to the sessions of a relay that runs, and how fast they go on after it was killed.
//!
//! Sessions send at a steady pace through a relay with the limits that it has by default, alone and beside each flood in
//! turn ([`turns`]); what they lose and what their latency gains is the figure. Floods come from an eBPF program but for the
//! bogus leases, whose senders answer challenges ([`attack`]). Everything is in namespaces ([`super::lab`]) and lasts for
//! seconds.
//!
//! What the machine itself does under such a flood is measured in the same turns. The floor of the fast path is what
//! forwards with no decision at all, an XDP program that drops what is not a session's, on a second machine with cables of its own, with
//! the kernel's routing beside it in the same rounds; that of the slow path is a C program that sends on what comes, at a socket that refuses the flood. On a machine where
//! generator, relay and receiver share two cores the floor is not zero, and a goal may be below it: then the machine misses it,
//! and the relay only if it is more than a quarter above. A cable holds 256 datagrams, a flood's 1.3 ms: what it had no room for,
//! because the relay's core was somewhere else for longer, is told beside what was lost.

mod attack;
mod newcomers;
mod restart;
mod turns;

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use rift_relay::wire::FORWARD_LEN;
use wavry_bench::estimate::Estimate;
use wavry_bench::machine::Machine;
use wavry_bench::report::{Goal, Report};
use wavry_netns::Namespace;
use wavry_xdp::attach::Mode;
use wavry_xdp::load::{Flow, Pace, Protocol, Settings, TAG};

use super::contender::{self, Contender, FORWARDER_PORT, FastPath, Running};
use super::lab::{self, FLOOR_IN, Floor, Lab, RECEIVER, RELAY, SENDER, SENDER_DEVICE};
use super::sessions::{self, Issuer, Place, Process, Sessions, forward_head};
use attack::{Attack, BogusSenders, flood};
use newcomers::{NEWCOMERS, Newcomers};
use turns::{Beside, Target, Took, Turn};

/// What is to be measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rounds; every figure is the median over them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Milliseconds per flood and round.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(100..=10_000))]
    span: u64,
    /// Datagrams of a flood per second.
    #[arg(long, default_value_t = 200_000)]
    rate: u32,
    /// Sessions that go on when the relay is killed and started again.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    sessions: u32,
    /// Who carries the sessions.
    #[arg(long, value_enum, default_value_t = FastPath::Native)]
    fast_path: FastPath,
    /// Further lines of the relay's configuration.
    #[arg(long, value_name = "TOML", default_value = "")]
    relay_config: String,
    /// The relay's program; the one beside this program unless given.
    #[arg(long, value_name = "FILE")]
    relay: Option<PathBuf>,
    /// Also write the figures to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Sessions that are measured, and what they send in total.
const STEADY: u32 = 16;
const PACE: Duration = Duration::from_micros(100);
/// UDP payload of everything, a flood's datagrams included.
const LEN: usize = 800;
const PORT: u16 = 7000;
/// By then a relay takes nobody for a session that comes back from before its start.
const SETTLED: Duration = Duration::from_millis(3200);
/// Where the flood goes that the kernel routes: nowhere.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(10, 81, 9, 9);
/// Most that the sessions may lose and gain beside a flood.
const LOST_MAX: f64 = 0.1;
const GAINED_MAX_US: f64 = 100.0;

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let place = Place::new()?;
    let lab = Lab::new(true)?;
    let issuer = Issuer::new(&place, arguments.relay.clone())?;
    // Attackers and peers of the restart have addresses of their own; answers to spoofed ones leave too.
    lab.sender.ip("route add local 10.96.0.0/11 dev lo")?;
    lab.receiver.ip("route add local 10.64.0.0/16 dev lo")?;
    lab.relay.ip("route add default via 10.81.1.2")?;
    lab.relay.ip("route add 10.64.0.0/16 via 10.81.2.2")?;
    lab.relay.ip("route add blackhole 10.81.9.0/24")?;
    lab.receiver.ip("route add default via 10.81.2.1")?;
    let mut report = Report::new(Machine::detect());
    floods(arguments, &lab, &place, &issuer, &mut report).context("measuring floods")?;
    restart::measure(arguments, &lab, &issuer, &mut report).context("killing the relay")?;
    report.print();
    if let Some(path) = &arguments.json {
        report.write_json(path)?;
    }
    Ok(())
}

/// Verification may use the generator's core: it is not the forwarding core's work.
fn start_relay(lab: &Lab, issuer: &Issuer, arguments: &Arguments) -> anyhow::Result<Process> {
    let Arguments { fast_path, relay_config, .. } = arguments;
    let extra =
        format!("core = {}\nsessions = 10000\n{}\n{relay_config}", lab.relay_core, fast_path.config());
    issuer.start_relay(&lab.relay, RELAY, &lab.both_cores(), &extra)
}

/// All rounds of all that is measured.
struct Found {
    floors: Vec<(Contender, Vec<Seen>)>,
    attacks: Vec<Vec<Seen>>,
    newcomers: Vec<Newcomers>,
}

fn floods(
    arguments: &Arguments,
    lab: &Lab,
    place: &Place,
    issuer: &Issuer,
    report: &mut Report,
) -> anyhow::Result<()> {
    let floors: &[Contender] = match arguments.fast_path {
        FastPath::Off => &[Contender::Echo],
        _ => &FAST_FLOORS,
    };
    let mut found = Found {
        floors: floors.iter().map(|&floor| (floor, Vec::new())).collect(),
        attacks: Attack::ALL.iter().map(|_| Vec::new()).collect(),
        newcomers: Vec::new(),
    };
    for _ in 0..arguments.rounds {
        lab::warm_memory().context("touching memory")?;
        // The first floor takes turns with the relay; the others have the relay's place to themselves.
        for (floor, seen) in found.floors.iter_mut().skip(1) {
            seen.push(measure_floor(*floor, arguments, lab, place, issuer)?);
        }
        round(arguments, lab, place, issuer, &mut found)?;
    }
    judge(&found, report);
    Ok(())
}

/// One round of everything that runs beside the relay.
fn round(
    arguments: &Arguments,
    lab: &Lab,
    place: &Place,
    issuer: &Issuer,
    found: &mut Found,
) -> anyhow::Result<()> {
    let relay = start_relay(lab, issuer, arguments)?;
    let started = Instant::now();
    let (mut sessions, flows) = steady_sessions(lab, issuer)?;
    let mut targets = vec![Target::new(flows.clone(), settings(lab), SENDER_DEVICE)];
    if let Some(mode) = arguments.fast_path.mode() {
        // A neighbour becomes known by what is sent to it. The same target as below: sequences go on where these end, and
        // are no replays.
        targets[0].take(lab, &Beside::Nothing)?;
        lab.wait_for_fast_sessions(STEADY, mode == Mode::Generic)?;
    }
    let bogus = BogusSenders::new(lab, issuer)?;
    let to = SocketAddrV4::new(RELAY, sessions::PORT);
    let rate = arguments.rate;
    let mut turns = vec![Turn { target: 0, beside: Beside::Nothing }];
    for attack in Attack::ALL {
        let beside = match attack {
            Attack::BogusLeases => Beside::BogusLeases(&bogus),
            _ => Beside::Flood(flood(lab, attack, to, LEN), attack.kind(rate)),
        };
        turns.push(Turn { target: 0, beside });
    }
    let (floor, cable, flooded) = start_floor(arguments, lab, place, issuer)?;
    targets.push(floor_target(&floor, &settings(lab), cable));
    let attack = Attack::UnknownSessions;
    for beside in [Beside::Nothing, Beside::Flood(flooded, attack.kind(rate))] {
        turns.push(Turn { target: 1, beside });
    }
    let span = Duration::from_millis(arguments.span);
    std::thread::sleep(SETTLED.saturating_sub(started.elapsed()));
    let results = turns::take(lab, &mut targets, &turns, span, || {
        // Keys do not age, but a peer that hears nothing asks.
        sessions.drive()?;
        Ok(())
    })?;
    let (own, floors) = results.split_at(1 + Attack::ALL.len());
    for (seen, beside) in found.attacks.iter_mut().zip(&own[1..]) {
        seen.push(Seen::new(&own[0], beside));
    }
    if let [alone, beside] = floors {
        found.floors[0].1.push(Seen::new(alone, beside));
    }
    drop(floor);
    let presents = Attack::Presents;
    lab.load.set_flood(&flood(lab, presents, to, LEN))?;
    let flooded = Settings { flood: Some(presents.kind(rate)), ..settings(lab) };
    found.newcomers.push(newcomers::come(lab, issuer, &flows[0], &flooded)?);
    drop(relay);
    Ok(())
}

fn judge(found: &Found, report: &mut Report) {
    type Figure = fn(&Seen) -> f64;
    let lost: Figure = |seen| seen.lost * 100.0;
    let gained: Figure = |seen| seen.gained_us;
    let estimate = |seen: &[Seen], figure: Figure| Estimate::of(seen.iter().map(figure).collect());
    for (floor, seen) in &found.floors {
        let name = format!("floor, {}", floor.name());
        report.note(format!("{name}: alone, p50"), estimate(seen, |s| s.alone_p50_us), "us");
        report.note(format!("{name}: alone, p99"), estimate(seen, |s| s.alone_us), "us");
        report.note(format!("{name}: lost"), estimate(seen, lost), "%");
        report.note(format!("{name}: no room in the cable"), estimate(seen, |s| s.refused * 100.0), "%");
        report.note(format!("{name}: gained p50"), estimate(seen, |s| s.gained_p50_us), "us");
        report.note(format!("{name}: gained p99"), estimate(seen, gained), "us");
    }
    // Bogus leases are few: what they do to a machine is nothing that a floor would show.
    let (_, floor) = &found.floors[0];
    for (attack, seen) in Attack::ALL.into_iter().zip(&found.attacks) {
        let name = attack.name();
        report.note(format!("{name}: sent"), estimate(seen, |s| s.rate / 1e3), "kpps");
        report.note(format!("{name}: sessions alone, p50"), estimate(seen, |s| s.alone_p50_us), "us");
        report.note(format!("{name}: sessions alone, p99"), estimate(seen, |s| s.alone_us), "us");
        report.note(format!("{name}: gained p50"), estimate(seen, |s| s.gained_p50_us), "us");
        report.note(format!("{name}: no room in the cable"), estimate(seen, |s| s.refused * 100.0), "%");
        let lost_name = format!("{name}: lost of sessions");
        let gained_name = format!("{name}: gained p99");
        if attack == Attack::BogusLeases {
            report.judge(lost_name, estimate(seen, lost), "%", Goal::AtMost(LOST_MAX));
            report.judge(gained_name, estimate(seen, gained), "us", Goal::AtMost(GAINED_MAX_US));
        } else {
            report.judge_beside(lost_name, estimate(seen, lost), "%", LOST_MAX, estimate(floor, lost));
            report.judge_beside(
                gained_name,
                estimate(seen, gained),
                "us",
                GAINED_MAX_US,
                estimate(floor, gained),
            );
        }
    }
    let of = |figure: fn(&Newcomers) -> f64| Estimate::of(found.newcomers.iter().map(figure).collect());
    let name = "LEASE_PRESENT, 1 M sources: newcomers";
    let all = Goal::AtLeast(NEWCOMERS.into());
    report.judge(format!("{name} bound, of {NEWCOMERS}"), of(|n| n.bound), "", all);
    report.note(format!("{name} bound within, slowest"), of(|n| n.slowest_ms), "ms");
}

/// What forwards without deciding, past the kernel's stack and through it; goals are set against the first.
const FAST_FLOORS: [Contender; 2] = [Contender::BareXdp, Contender::Routing];

/// The same sessions and the same flood, through what only forwards.
fn measure_floor(
    floor: Contender,
    arguments: &Arguments,
    lab: &Lab,
    place: &Place,
    issuer: &Issuer,
) -> anyhow::Result<Seen> {
    let running = contender::start(floor, lab, place, issuer, STEADY)?;
    let to = if floor == Contender::Routing { NOWHERE } else { RELAY };
    let len = running.flows[0].payload.len();
    let attack = Attack::UnknownSessions;
    let flood = flood(lab, attack, SocketAddrV4::new(to, sessions::PORT), len);
    let settings = Settings {
        protocol: running.protocol,
        stamp_sent_at: running.stamp_sent_at,
        stamp_got_at: running.stamp_got_at,
        ..settings(lab)
    };
    let mut target = [Target::new(running.flows.clone(), settings, SENDER_DEVICE)];
    let turns = [Beside::Nothing, Beside::Flood(flood, attack.kind(arguments.rate))]
        .map(|beside| Turn { target: 0, beside });
    let span = Duration::from_millis(arguments.span);
    let results = turns::take(lab, &mut target, &turns, span, || Ok(()))?;
    Ok(Seen::new(&results[0], &results[1]))
}

/// What one round found about a flood.
struct Seen {
    rate: f64,
    alone_p50_us: f64,
    alone_us: f64,
    lost: f64,
    gained_p50_us: f64,
    gained_us: f64,
    /// Of all datagrams.
    refused: f64,
}

impl Seen {
    fn new(alone: &Took, beside: &Took) -> Self {
        let refused = beside.refused as f64 / (beside.results.sent + beside.results.flood_sent) as f64;
        let (alone, beside) = (&alone.results, &beside.results);
        let gained = |share| beside.latency_us(share) - alone.latency_us(share);
        Self {
            rate: beside.flood_sent as f64 / beside.elapsed.as_secs_f64(),
            alone_p50_us: alone.latency_us(0.5),
            alone_us: alone.latency_us(0.99),
            lost: 1.0 - beside.received as f64 / beside.sent as f64,
            gained_p50_us: gained(0.5),
            gained_us: gained(0.99),
            refused,
        }
    }
}

/// Sessions through the relay, without a flood.
fn settings(lab: &Lab) -> Settings {
    Settings {
        device: lab.through.device,
        protocol: Protocol::Forward { payload_len: (LEN - FORWARD_LEN) as u16 },
        pace: Pace::Every(PACE),
        burst: 1,
        flows: STEADY,
        flow_step: 1,
        stamp_sent_at: FORWARD_LEN as u32,
        stamp_got_at: FORWARD_LEN as u32,
        flood: None,
        batch: 4,
    }
}

/// What takes turns with the relay, the cable that leads to it, and a flood for it.
fn start_floor(
    arguments: &Arguments,
    lab: &Lab,
    place: &Place,
    issuer: &Issuer,
) -> anyhow::Result<(Running, &'static str, Flow)> {
    let attack = Attack::UnknownSessions;
    if let Some(mode) = arguments.fast_path.mode() {
        // The floor has the relay's mode.
        let Floor { through, last_hop, machine } = lab.floor.as_ref().context("there is no floor")?;
        let running = contender::bare(machine, through, *last_hop, mode, STEADY)?;
        let flood = flood(lab, attack, SocketAddrV4::new(RELAY, sessions::PORT), LEN);
        Ok((running, FLOOR_IN, Flow { ethernet: through.ethernet, ..flood }))
    } else {
        let running = contender::start(Contender::Echo, lab, place, issuer, STEADY)?;
        let flood = flood(lab, attack, SocketAddrV4::new(RELAY, FORWARDER_PORT), LEN);
        Ok((running, SENDER_DEVICE, flood))
    }
}

/// The floor's flows, cut to the length of everything here.
fn floor_target(floor: &Running, relay: &Settings, cable: &'static str) -> Target {
    let cut = |flow: &Flow| Flow { payload: flow.payload[..LEN].to_vec(), ..flow.clone() };
    let settings = Settings {
        device: floor.device,
        protocol: floor.protocol,
        stamp_sent_at: floor.stamp_sent_at,
        stamp_got_at: floor.stamp_got_at,
        ..*relay
    };
    Target::new(floor.flows.iter().map(cut).collect(), settings, cable)
}

fn steady_sessions(lab: &Lab, issuer: &Issuer) -> anyhow::Result<(Sessions, Vec<Flow>)> {
    let bind = |namespace: &Namespace, address| namespace.with(|| UdpSocket::bind((address, PORT)));
    let clients = vec![bind(&lab.receiver, RECEIVER)?];
    let hosts = vec![bind(&lab.sender, SENDER)?];
    let relay = SocketAddrV4::new(RELAY, sessions::PORT);
    let mut sessions = Sessions::new(issuer, relay, STEADY, clients, hosts)?;
    sessions.bind(Duration::from_secs(10))?;
    let flows = sessions.host_keys().map(|(id, key)| {
        let mut payload = forward_head(id).to_vec();
        payload.resize(LEN, 0);
        payload[FORWARD_LEN + 8..FORWARD_LEN + 16].copy_from_slice(&TAG);
        let from = SocketAddrV4::new(SENDER, PORT);
        Flow { ethernet: lab.through.ethernet, from, to: relay, payload, key }
    });
    let flows = flows.collect();
    Ok((sessions, flows))
}

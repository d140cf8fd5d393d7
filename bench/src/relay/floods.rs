//! What floods do to the sessions of a relay that runs, and how fast they go on after it was killed.
//!
//! Sessions send at a steady pace through a relay with the limits that it has by default, first alone and then beside each
//! flood; what they lose and what their latency gains is the figure. Floods come from an eBPF program but for the bogus
//! leases, whose senders answer challenges. Everything is in namespaces ([`super::lab`]) and lasts for seconds.
//!
//! What the machine itself loses under such a flood is measured in the same rounds: the floor is what forwards with no
//! decision at all, an XDP program that drops what is not a session's, and the kernel's routing with the flood going
//! nowhere. On a machine where generator, relay and receiver share two cores the floor is not zero.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rift_relay::present::{Challenge, Present, Proof};
use rift_relay::wire::{FORWARD_LEN, Header, Kind, Role, SessionId};
use wavry_bench::estimate::Estimate;
use wavry_bench::machine::Machine;
use wavry_bench::report::{Goal, Report};
use wavry_netns::Namespace;
use wavry_xdp::load::{Flood, Flow, Pace, Protocol, Results, Settings, TAG};

use super::contender::{self, Contender};
use super::lab::{Lab, RELAY};
use super::sessions::{self, Issuer, Place, Process, Sessions, forward_head};

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
/// Sources of a flood that spoofs.
const SPOOFED: u32 = 1_000_000;
/// Senders of bogus leases, each in a network of its own, and what they send per second.
const BOGUS_SENDERS: usize = 512;
const BOGUS_PER_SECOND: u64 = 10_000;
/// Addresses at either end for the sessions of the restart.
const ADDRESSES: u32 = 64;
const PORT: u16 = 7000;
/// Where the floor's flood goes: nowhere.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(10, 81, 9, 9);
/// Newcomers that present their leases one after another beside a flood.
const NEWCOMERS: u32 = 20;

/// What comes beside the sessions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attack {
    Junk,
    UnknownSessions,
    Presents,
    BogusLeases,
}

impl Attack {
    /// For the generator.
    fn kind(self, rate: u32) -> (Flood, u32, u32) {
        match self {
            Self::Junk => (Flood::Junk, rate, 1),
            Self::UnknownSessions => (Flood::Sessions, rate, SPOOFED),
            Self::Presents | Self::BogusLeases => (Flood::Fixed, rate, SPOOFED),
        }
    }

    const ALL: [Self; 4] = [Self::Junk, Self::UnknownSessions, Self::Presents, Self::BogusLeases];

    fn name(self) -> &'static str {
        match self {
            Self::Junk => "junk",
            Self::UnknownSessions => "FORWARD of unknown sessions, 1 M sources",
            Self::Presents => "LEASE_PRESENT, 1 M sources",
            Self::BogusLeases => "bogus leases with proofs, 10 k/s",
        }
    }
}

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
    restart(arguments, &lab, &issuer, &mut report).context("killing the relay")?;
    report.print();
    if let Some(path) = &arguments.json {
        report.write_json(path)?;
    }
    Ok(())
}

/// Verification may use the generator's core: it is not the forwarding core's work.
fn start_relay(lab: &Lab, issuer: &Issuer, arguments: &Arguments) -> anyhow::Result<Process> {
    let extra = format!("core = {}\nsessions = 10000\n{}", lab.relay_core, arguments.relay_config);
    issuer.start_relay(&lab.relay, RELAY, &lab.both_cores(), &extra)
}

fn floods(
    arguments: &Arguments,
    lab: &Lab,
    place: &Place,
    issuer: &Issuer,
    report: &mut Report,
) -> anyhow::Result<()> {
    let span = Duration::from_millis(arguments.span);
    let mut seen: Vec<Vec<Seen>> = Attack::ALL.iter().map(|_| Vec::new()).collect();
    let mut floors: Vec<Vec<Seen>> = FLOORS.iter().map(|_| Vec::new()).collect();
    let mut newcomers = Vec::new();
    let is_xdp = arguments.relay_config.contains("\"xdp\"");
    for _ in 0..arguments.rounds {
        for (floor, seen) in FLOORS.into_iter().zip(&mut floors) {
            seen.push(measure_floor(floor, arguments, lab, place, issuer)?);
        }
        let relay = start_relay(lab, issuer, arguments)?;
        let (mut sessions, flows) = steady_sessions(lab, issuer)?;
        for (number, flow) in (0..).zip(&flows) {
            lab.load.set_flow(number, flow, 0)?;
        }
        if is_xdp {
            lab.wait_for_fast_sessions(STEADY, false)?;
        }
        for (attack, seen) in Attack::ALL.into_iter().zip(&mut seen) {
            let alone = measure(lab, &flows[0], None, span)?;
            let beside = match attack {
                Attack::BogusLeases => beside_bogus_leases(lab, issuer, &flows[0], span)?,
                _ => {
                    lab.load.set_flood(&flood(lab, attack, RELAY, LEN))?;
                    let results = measure(lab, &flows[0], Some(attack.kind(arguments.rate)), span)?;
                    let sent = results.flood_sent;
                    (results, sent)
                }
            };
            seen.push(Seen::new(&alone, &beside.0, beside.1));
            // Keys do not age, but a peer that hears nothing asks.
            sessions.drive()?;
        }
        lab.load.set_flood(&flood(lab, Attack::Presents, RELAY, LEN))?;
        newcomers.push(beside_newcomers(lab, issuer, &flows[0], Attack::Presents.kind(arguments.rate))?);
        drop(relay);
    }
    for (floor, seen) in FLOORS.into_iter().zip(&floors) {
        let of = |figure: fn(&Seen) -> f64| Estimate::of(seen.iter().map(figure).collect());
        let name = format!("floor, {}", floor.name());
        report.note(format!("{name}: lost of sessions"), of(|s| s.lost * 100.0), "%");
        report.note(format!("{name}: gained p99"), of(|s| s.gained_us), "us");
    }
    let floor = &floors[usize::from(!is_xdp)];
    for (attack, seen) in Attack::ALL.into_iter().zip(seen) {
        let of = |figure: fn(&Seen) -> f64| Estimate::of(seen.iter().map(figure).collect());
        let name = attack.name();
        report.note(format!("{name}: sent"), of(|s| s.rate / 1e3), "kpps");
        report.note(format!("{name}: sessions alone, p99"), of(|s| s.alone_us), "us");
        report.judge(format!("{name}: lost of sessions"), of(|s| s.lost * 100.0), "%", Goal::AtMost(0.1));
        report.judge(format!("{name}: gained p99"), of(|s| s.gained_us), "us", Goal::AtMost(100.0));
        if attack != Attack::BogusLeases {
            let beyond = |figure: fn(&Seen) -> f64| {
                let pairs = seen.iter().zip(floor);
                Estimate::of(pairs.map(|(seen, floor)| figure(seen) - figure(floor)).collect())
            };
            let lost = beyond(|s| s.lost * 100.0);
            report.judge(format!("{name}: lost beyond the floor"), lost, "%", Goal::AtMost(0.1));
            let gained = beyond(|s| s.gained_us);
            report.judge(format!("{name}: gained p99 beyond the floor"), gained, "us", Goal::AtMost(100.0));
        }
    }
    let of = |figure: fn(&Newcomers) -> f64| Estimate::of(newcomers.iter().map(figure).collect());
    let name = "LEASE_PRESENT, 1 M sources: newcomers";
    report.judge(
        format!("{name} bound, of {NEWCOMERS}"),
        of(|n| n.bound),
        "",
        Goal::AtLeast(NEWCOMERS.into()),
    );
    report.note(format!("{name} bound within, slowest"), of(|n| n.slowest_ms), "ms");
    Ok(())
}

/// What forwards without deciding.
const FLOORS: [Contender; 2] = [Contender::BareXdp, Contender::Routing];

/// The same sessions and the same flood, through what only forwards.
fn measure_floor(
    floor: Contender,
    arguments: &Arguments,
    lab: &Lab,
    place: &Place,
    issuer: &Issuer,
) -> anyhow::Result<Seen> {
    let running = contender::start(floor, lab, place, issuer, STEADY)?;
    for (number, flow) in (0..).zip(&running.flows) {
        lab.load.set_flow(number, flow, 0)?;
    }
    let to = if floor == Contender::Routing { NOWHERE } else { RELAY };
    let flow = &running.flows[0];
    lab.load.set_flood(&flood(lab, Attack::UnknownSessions, to, flow.payload.len()))?;
    let take = |flood| -> anyhow::Result<Results> {
        let settings = Settings {
            protocol: running.protocol,
            stamp_sent_at: running.stamp_sent_at,
            stamp_got_at: running.stamp_got_at,
            ..settings(lab, flood)
        };
        Ok(lab.measure(&settings, flow, Duration::from_millis(arguments.span), None)?.0)
    };
    let alone = take(None)?;
    let beside = take(Some(Attack::UnknownSessions.kind(arguments.rate)))?;
    Ok(Seen::new(&alone, &beside, beside.flood_sent))
}

/// How those fared who came while a flood of spoofed presentations went on.
struct Newcomers {
    bound: f64,
    slowest_ms: f64,
}

fn beside_newcomers(
    lab: &Lab,
    issuer: &Issuer,
    flow: &Flow,
    flood: (Flood, u32, u32),
) -> anyhow::Result<Newcomers> {
    // As long as a peer goes on asking.
    const PATIENCE: Duration = Duration::from_secs(4);
    let relay = SocketAddrV4::new(RELAY, sessions::PORT);
    let stop = AtomicBool::new(false);
    let settings = settings(lab, Some(flood));
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            lab.sender.with(|| -> anyhow::Result<()> {
                wavry_runtime::cores::pin_to(lab.generator_core)?;
                let most = (PATIENCE * NEWCOMERS).min(Duration::from_secs(20));
                lab.load.run(&settings, flow, most, || stop.load(Ordering::Relaxed))?;
                Ok(())
            })
        });
        let bind = |namespace: &Namespace, address, port: u16| {
            namespace.with(|| UdpSocket::bind((address, port)).map(|socket| vec![socket]))
        };
        let mut found = Newcomers { bound: 0.0, slowest_ms: 0.0 };
        for number in 0..NEWCOMERS {
            let port = PORT + 1 + number as u16;
            let clients = bind(&lab.receiver, super::lab::RECEIVER, port)?;
            let hosts = bind(&lab.sender, super::lab::SENDER, port)?;
            let mut sessions =
                Sessions::numbered(issuer, relay, STEADY + number..STEADY + number + 1, clients, hosts)?;
            let begun = Instant::now();
            if sessions.bind(PATIENCE).is_ok() {
                found.bound += 1.0;
            }
            found.slowest_ms = found.slowest_ms.max(begun.elapsed().as_secs_f64() * 1e3);
            if flooding.is_finished() {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        match flooding.join() {
            Ok(result) => result?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        Ok(found)
    })
}

/// What one round found about a flood.
struct Seen {
    rate: f64,
    alone_us: f64,
    lost: f64,
    gained_us: f64,
}

impl Seen {
    fn new(alone: &Results, beside: &Results, flood_sent: u64) -> Self {
        let (alone_us, beside_us) = (alone.latency_us(0.99), beside.latency_us(0.99));
        Self {
            rate: flood_sent as f64 / beside.elapsed.as_secs_f64(),
            alone_us,
            lost: 1.0 - beside.received as f64 / beside.sent as f64,
            gained_us: beside_us - alone_us,
        }
    }
}

fn measure(
    lab: &Lab,
    flow: &Flow,
    flood: Option<(Flood, u32, u32)>,
    span: Duration,
) -> anyhow::Result<Results> {
    let (results, _) = lab.measure(&settings(lab, flood), flow, span, None)?;
    ensure!(results.received > 0, "nothing of {} datagrams arrived", results.sent);
    Ok(results)
}

fn settings(lab: &Lab, flood: Option<(Flood, u32, u32)>) -> Settings {
    Settings {
        device: lab.through.device,
        protocol: Protocol::Forward { payload_len: (LEN - FORWARD_LEN) as u16 },
        pace: Pace::Every(PACE),
        burst: 1,
        flows: STEADY,
        flow_step: 1,
        stamp_sent_at: FORWARD_LEN as u32,
        stamp_got_at: FORWARD_LEN as u32,
        flood,
        batch: 4,
    }
}

fn steady_sessions(lab: &Lab, issuer: &Issuer) -> anyhow::Result<(Sessions, Vec<Flow>)> {
    let bind = |namespace: &Namespace, address| namespace.with(|| UdpSocket::bind((address, PORT)));
    let clients = vec![bind(&lab.receiver, super::lab::RECEIVER)?];
    let hosts = vec![bind(&lab.sender, super::lab::SENDER)?];
    let relay = SocketAddrV4::new(RELAY, sessions::PORT);
    let mut sessions = Sessions::new(issuer, relay, STEADY, clients, hosts)?;
    sessions.bind(Duration::from_secs(10))?;
    let flows = sessions.host_keys().map(|(id, key)| {
        let mut payload = forward_head(id).to_vec();
        payload.resize(LEN, 0);
        payload[FORWARD_LEN + 8..FORWARD_LEN + 16].copy_from_slice(&TAG);
        let from = SocketAddrV4::new(super::lab::SENDER, PORT);
        Flow { ethernet: lab.through.ethernet, from, to: relay, payload, key }
    });
    let flows = flows.collect();
    Ok((sessions, flows))
}

/// A datagram of a flood, as long as those of the sessions.
fn flood(lab: &Lab, attack: Attack, to: Ipv4Addr, len: usize) -> Flow {
    let mut payload = match attack {
        Attack::UnknownSessions => forward_head(SessionId([0xee; 16])).to_vec(),
        Attack::Presents => {
            // Header, role, token length, token, nonce, no proof. A relay does not look into the token before a proof.
            let token = vec![b'x'; len - 20 - 3 - 8 - 1];
            let present = Present {
                renew: false,
                session: SessionId([0xee; 16]),
                role: Role::Host,
                token: &token,
                nonce: 1,
                proof: None,
            };
            let mut out = Vec::new();
            present.encode(&mut out);
            // Beyond its head a flood has the content of the sessions' datagrams, which is zeroes.
            out.truncate(64);
            out
        }
        Attack::Junk | Attack::BogusLeases => Vec::new(),
    };
    payload.resize(len, 0);
    Flow {
        ethernet: lab.through.ethernet,
        from: SocketAddrV4::new(Ipv4Addr::new(11, 0, 0, 0), PORT),
        to: SocketAddrV4::new(to, sessions::PORT),
        payload,
        key: [0; 2],
    }
}

/// Leases whose signature is wrong, with proofs that answer a real challenge, so that the relay has to look at them.
fn beside_bogus_leases(
    lab: &Lab,
    issuer: &Issuer,
    flow: &Flow,
    span: Duration,
) -> anyhow::Result<(Results, u64)> {
    let relay = SocketAddrV4::new(RELAY, sessions::PORT);
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let session = SessionId([0xbb; 16]);
    let token = issuer.bogus_token(session)?;
    let mut senders = Vec::new();
    for number in 0..BOGUS_SENDERS {
        let address = Ipv4Addr::new(10, 96 + (number >> 8) as u8, number as u8, 1);
        let socket = lab.sender.with(|| UdpSocket::bind((address, PORT)))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut datagram = Vec::new();
        let present = Present {
            renew: false,
            session,
            role: Role::Host,
            token: token.as_bytes(),
            nonce: 1,
            proof: None,
        };
        present.encode(&mut datagram);
        let challenge = ask(&socket, relay, &datagram)?;
        datagram.clear();
        let proof = Proof { challenge: &challenge, public: &[9; 32], signature: &[7; 64] };
        Present { proof: Some(proof), ..present }.encode(&mut datagram);
        senders.push((socket, datagram));
    }
    let results = std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = wavry_runtime::cores::pin_to(lab.generator_core);
            let begun = Instant::now();
            for (number, (socket, datagram)) in (1..).zip(senders.iter().cycle()) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let _ = socket.send_to(datagram, relay);
                sent.store(number, Ordering::Relaxed);
                let due = Duration::from_nanos(number * 1_000_000_000 / BOGUS_PER_SECOND);
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
            }
        });
        let results = measure(lab, flow, None, span);
        stop.store(true, Ordering::Relaxed);
        results
    })?;
    Ok((results, sent.into_inner()))
}

fn ask(socket: &UdpSocket, relay: SocketAddrV4, datagram: &[u8]) -> anyhow::Result<[u8; 24]> {
    let mut answer = [0; 1500];
    for _ in 0..20 {
        socket.send_to(datagram, relay)?;
        let Ok(len) = socket.recv(&mut answer) else { continue };
        let Ok(header) = Header::decode(&answer[..len]) else { continue };
        if header.kind == Kind::LeaseChallenge
            && let Some(challenge) = Challenge::decode(&header, &answer[..len])
        {
            return Ok(challenge.challenge);
        }
    }
    anyhow::bail!("the relay gives no challenge")
}

/// Kills the relay while sessions run, starts it again, and notes when each goes on.
fn restart(arguments: &Arguments, lab: &Lab, issuer: &Issuer, report: &mut Report) -> anyhow::Result<()> {
    let bind = |namespace: &Namespace, second: u8| -> std::io::Result<Vec<UdpSocket>> {
        let address = |n: u32| Ipv4Addr::new(10, second, n as u8, 1);
        namespace.with(|| (0..ADDRESSES).map(|n| UdpSocket::bind((address(n), PORT))).collect())
    };
    let mut times = Vec::new();
    let mut from_kill = Vec::new();
    for _ in 0..arguments.rounds {
        let relay = start_relay(lab, issuer, arguments)?;
        let (clients, hosts) = (bind(&lab.receiver, 64)?, bind(&lab.sender, 100)?);
        let address = SocketAddrV4::new(RELAY, sessions::PORT);
        let mut sessions = Sessions::new(issuer, address, arguments.sessions, clients, hosts)?;
        sessions.bind(Duration::from_secs(20))?;
        ensure!(
            sessions.stream_until_all_arrive(Duration::from_secs(10))?.len() == arguments.sessions as usize
        );
        // As SIGKILL does it.
        let killed = Instant::now();
        drop(relay);
        let relay = start_relay(lab, issuer, arguments)?;
        let ready = Instant::now();
        let arrived: HashMap<usize, Instant> = sessions.stream_until_all_arrive(Duration::from_secs(20))?;
        let last = arrived.values().max().copied().unwrap_or(ready);
        ensure!(arrived.len() == arguments.sessions as usize, "only {} sessions went on", arrived.len());
        times.push(last.duration_since(ready).as_secs_f64());
        from_kill.push(last.duration_since(killed).as_secs_f64());
        drop(relay);
    }
    let name = format!("kill -9 and restart, {} sessions", arguments.sessions);
    report.judge(format!("{name}: all go on after it is ready"), Estimate::of(times), "s", Goal::AtMost(1.0));
    report.note(format!("{name}: all go on after the kill"), Estimate::of(from_kill), "s");
    Ok(())
}

//! What forwards: each contender with the way its datagrams look and enter.
//!
//! Owns a running contender until it is dropped. Invariant: every contender carries the same 1200 bytes of content; what
//! its protocol adds comes on top.

use std::net::{SocketAddrV4, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rift_relay::wire::{FORWARD_LEN, SessionId};
use wavry_netns::Namespace;
use wavry_xdp::attach::{Attachment, Mode, ModeChoice, attach};
use wavry_xdp::interface::Interface;
use wavry_xdp::load::{Flow, Protocol, TAG};
use wavry_xdp::relay::RelayProgram;
use wavry_xdp::rewrite::{Receiver, Rewrite};

use super::lab::{Lab, RECEIVER, RELAY, RELAY_IN_DEVICE, RELAY_OUT, RELAY_OUT_DEVICE, SENDER, Way};
use super::sessions::{self, Issuer, Place, Process, Sessions, forward_head};
use super::{program, turn};
use crate::bound::bound_in;

/// Bytes of content: time stamp and tag at its beginning, then zeroes.
pub(super) const CONTENT: usize = 1200;
pub(super) const FORWARDER_PORT: u16 = 5500;
/// That of the relay's forwarding thread (`wavry_runtime::cores`).
const ECHO_PRIORITY: &str = "40";
const TURN_PORT: u16 = 3478;
const SENDER_PORT: u16 = 5000;
pub(super) const RECEIVER_PORT: u16 = 6000;
/// Sockets at either end. Sessions share them, so that not every one needs its own.
const SOCKETS: u16 = 64;

/// Sessions that a relay has room for when it is to carry so many.
pub(super) fn room(flows: u32) -> usize {
    flows.max(1000).next_power_of_two() as usize
}

/// So many sessions show what it costs to find their state in memory.
pub(super) const SHUFFLED: u32 = 100_000;

/// Who carries what peers send each other through a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum FastPath {
    /// An XDP program in the driver: here the other ends have programs too.
    Native,
    /// An XDP program behind it, which a relay takes by itself on a virtual cable.
    Generic,
    /// The relay's threads.
    Off,
}

impl FastPath {
    /// As the relay's configuration says it.
    pub(super) fn config(self) -> String {
        let mode = match self {
            Self::Native => "native",
            Self::Generic => "auto",
            Self::Off => return "fast_path = \"off\"".to_owned(),
        };
        format!(
            "fast_path = \"xdp\"\nxdp_mode = \"{mode}\"\n\
             interfaces = [\"{RELAY_IN_DEVICE}\", \"{RELAY_OUT_DEVICE}\"]"
        )
    }

    /// The mode of the program.
    pub(super) fn mode(self) -> Option<Mode> {
        match self {
            Self::Native => Some(Mode::Native),
            Self::Generic => Some(Mode::Generic),
            Self::Off => None,
        }
    }
}

/// Who forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Contender {
    /// Nobody: the straight cable. What others add to its latency is theirs.
    Straight,
    Routing,
    BareXdp,
    BareXdpGeneric,
    CForwarder,
    /// One more, that lets the kernel merge and cut apart what it forwards, as the relay's slow path does.
    CMerging,
    /// The first of them, in real time, and its socket refuses what is not of the peers: what a flood does to a program that has
    /// nothing to decide. Measured beside floods only.
    Echo,
    Coturn,
    WavrySlow,
    WavryXdp,
    WavryGeneric,
    /// The relay's program with maps that are filled by hand: binding so many sessions takes longer than they may be silent.
    WavryProgram,
}

impl Contender {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Straight => "straight cable, no relay",
            Self::Routing => "kernel routing",
            Self::BareXdp => "XDP: lookup, rewrite, redirect",
            Self::BareXdpGeneric => "the same, generic XDP",
            Self::CForwarder => "C recvmmsg/sendmmsg",
            Self::CMerging => "C, merging (GRO and GSO)",
            Self::Echo => "C echo, flood refused at its socket",
            Self::Coturn => "coturn",
            Self::WavrySlow => "wavry-relay, slow path",
            Self::WavryXdp => "wavry-relay, XDP",
            Self::WavryGeneric => "wavry-relay, generic XDP",
            Self::WavryProgram => "its program, 100,000 sessions",
        }
    }

    /// Sessions that take turns where there are few. A lease ends at 10 Gbit/s, which is less than XDP forwards.
    pub(super) fn few(self) -> u32 {
        if matches!(self, Self::WavryXdp | Self::WavryGeneric | Self::WavryProgram) { 4 } else { 1 }
    }

    /// How many flows it is measured with besides one, where others have so many.
    pub(super) fn flows(self, others: u32) -> u32 {
        match self {
            Self::Coturn => 1,
            Self::WavryProgram => SHUFFLED,
            _ => others,
        }
    }
}

/// A contender that runs, and what to send to it.
pub(super) struct Running {
    pub(super) device: u32,
    pub(super) flows: Vec<Flow>,
    pub(super) protocol: Protocol,
    pub(super) stamp_sent_at: u32,
    pub(super) stamp_got_at: u32,
    pub(super) process: Option<u32>,
    _guard: Guard,
}

/// What ends with the contender.
#[allow(dead_code, reason = "kept for its drop")]
enum Guard {
    Nothing,
    Process(Process, Option<Box<Sessions>>),
    Program(Rewrite, Attachment),
    Relay(RelayProgram, Vec<Attachment>),
}

/// Starts a contender, with `flows` flows if it takes as many.
pub(super) fn start(
    contender: Contender,
    lab: &Lab,
    place: &Place,
    issuer: &Issuer,
    flows: u32,
) -> anyhow::Result<Running> {
    let to_relay = |port| SocketAddrV4::new(RELAY, port);
    let receiver = SocketAddrV4::new(RECEIVER, RECEIVER_PORT);
    let plain = |way: &Way, to: SocketAddrV4| -> Vec<Flow> {
        (0..flows).map(|n| flow(way, source(n), to, &[], [0; 2])).collect()
    };
    let running = |flows, guard| Running {
        device: lab.through.device,
        flows,
        protocol: Protocol::Plain,
        stamp_sent_at: 0,
        stamp_got_at: 0,
        process: None,
        _guard: guard,
    };
    Ok(match contender {
        Contender::Straight => {
            let to = SocketAddrV4::new(lab.straight.receiver, RECEIVER_PORT);
            Running { device: lab.straight.device, ..running(plain(&lab.straight, to), Guard::Nothing) }
        }
        Contender::Routing => running(plain(&lab.through, receiver), Guard::Nothing),
        Contender::BareXdp | Contender::BareXdpGeneric => {
            let mode = if contender == Contender::BareXdp { Mode::Native } else { Mode::Generic };
            bare(&lab.relay, &lab.through, lab.last_hop, mode, flows)?
        }
        Contender::WavryProgram => {
            let (program, attachments) = lab.relay.with(|| -> anyhow::Result<_> {
                let devices = [RELAY_IN_DEVICE, RELAY_OUT_DEVICE].map(Interface::named);
                let [input, output] = devices;
                let interfaces = [input?, output?];
                let program = program::load(lab, &interfaces, flows)?;
                let (_, attachments) = program.attach(&interfaces, ModeChoice::Only(Mode::Native))?;
                Ok((program, attachments))
            })?;
            let flows = (0..flows).map(|number| {
                let (head, from) = (forward_head(program::session(number)), source(number));
                flow(&lab.through, from, to_relay(sessions::PORT), &head, program::key(number))
            });
            let at = FORWARD_LEN as u32;
            Running {
                protocol: Protocol::Forward { payload_len: CONTENT as u16 },
                stamp_sent_at: at,
                stamp_got_at: at,
                ..running(flows.collect(), Guard::Relay(program, attachments))
            }
        }
        Contender::CForwarder | Contender::CMerging | Contender::Echo => {
            let name = if contender == Contender::CMerging { "merging" } else { "forwarder" };
            let program = sessions::compile(place, name)?;
            let mut command = if contender == Contender::Echo {
                // As the relay's thread runs.
                let mut command = pinned(lab, "chrt");
                command.args(["-f", ECHO_PRIORITY]).arg(program);
                command
            } else {
                pinned(lab, &program.to_string_lossy())
            };
            command.args([RELAY.to_string(), FORWARDER_PORT.to_string()]);
            command.args([SENDER.to_string(), SENDER_PORT.to_string()]);
            command.args([RECEIVER.to_string(), RECEIVER_PORT.to_string()]);
            command.args((contender == Contender::Echo).then_some("only"));
            let process = Process::start(command, "ready").context("the C forwarder")?;
            let id = process.0.id();
            let flows = plain(&lab.through, to_relay(FORWARDER_PORT));
            Running { process: Some(id), ..running(flows, Guard::Process(process, None)) }
        }
        Contender::Coturn => {
            let process = start_coturn(lab, place)?;
            let id = process.0.id();
            let socket = lab.sender.with(|| UdpSocket::bind((SENDER, SENDER_PORT)))?;
            open_channel(&socket, to_relay(TURN_PORT), receiver)?;
            let header = turn::channel_data_header(CONTENT as u16);
            let flow = flow(&lab.through, source(0), to_relay(TURN_PORT), &header, [0; 2]);
            Running {
                process: Some(id),
                stamp_sent_at: header.len() as u32,
                ..running(vec![flow], Guard::Process(process, None))
            }
        }
        Contender::WavrySlow | Contender::WavryXdp | Contender::WavryGeneric => {
            let fast_path = match contender {
                Contender::WavryXdp => FastPath::Native,
                Contender::WavryGeneric => FastPath::Generic,
                _ => FastPath::Off,
            };
            let extra = format!(
                "verifications_per_second = 1000000\nproofs_per_second = 1000000\nanswers_per_second = 1000000\n\
                 sessions = {}\n{}",
                room(flows),
                fast_path.config()
            );
            let process = issuer.start_relay(&lab.relay, RELAY, &lab.relay_core.to_string(), &extra)?;
            let id = process.0.id();
            let sockets = |namespace: &Namespace, address, first: u16| {
                namespace.with(|| (0..SOCKETS).map(|n| UdpSocket::bind((address, first + n))).collect())
            };
            let clients: std::io::Result<Vec<UdpSocket>> = sockets(&lab.receiver, RECEIVER, RECEIVER_PORT);
            let (clients, hosts) = (clients?, sockets(&lab.sender, SENDER, SENDER_PORT)?);
            let mut sessions = Sessions::new(issuer, to_relay(sessions::PORT), flows, clients, hosts)?;
            sessions.bind(Duration::from_secs(10 + u64::from(flows) / 500))?;
            if contender != Contender::WavrySlow {
                lab.wait_for_fast_sessions(flows, contender == Contender::WavryGeneric)?;
            }
            let flows: Vec<Flow> = (0..)
                .zip(sessions.host_keys())
                .map(|(number, (id, key))| {
                    let from = source(number % u32::from(SOCKETS));
                    flow(&lab.through, from, to_relay(sessions::PORT), &forward_head(id), key)
                })
                .collect();
            let at = FORWARD_LEN as u32;
            Running {
                protocol: Protocol::Forward { payload_len: CONTENT as u16 },
                stamp_sent_at: at,
                stamp_got_at: at,
                process: Some(id),
                ..running(flows, Guard::Process(process, Some(Box::new(sessions))))
            }
        }
    })
}

/// The bare program on a machine in the relay's place.
pub(super) fn bare(
    machine: &Namespace,
    way: &Way,
    last_hop: [[u8; 6]; 2],
    mode: Mode,
    flows: u32,
) -> anyhow::Result<Running> {
    let (program, attachment) = machine.with(|| -> anyhow::Result<_> {
        let program = Rewrite::load(&Interface::named(RELAY_OUT_DEVICE)?)?;
        let input = Interface::named(RELAY_IN_DEVICE)?;
        let attachment = attach(program.program(), &input, ModeChoice::Only(mode))?;
        Ok((program, attachment))
    })?;
    let from = SocketAddrV4::new(RELAY_OUT, sessions::PORT);
    let to = SocketAddrV4::new(RECEIVER, RECEIVER_PORT);
    let mut all = Vec::new();
    for number in 0..flows {
        let id = SessionId((u128::from(number) * 0x9e37_79b9_7f4a_7c15).to_be_bytes());
        program.insert(id.0, &Receiver { ethernet: last_hop, from, to })?;
        let relay = SocketAddrV4::new(RELAY, sessions::PORT);
        all.push(flow(way, source(number), relay, &forward_head(id), [0; 2]));
    }
    Ok(Running {
        device: way.device,
        flows: all,
        // The same work for the generator as with a relay.
        protocol: Protocol::Forward { payload_len: CONTENT as u16 },
        stamp_sent_at: FORWARD_LEN as u32,
        stamp_got_at: FORWARD_LEN as u32,
        process: None,
        _guard: Guard::Program(program, attachment),
    })
}

/// A program on the relay's core.
fn pinned(lab: &Lab, program: &str) -> Command {
    let mut command = bound_in(&lab.relay, "taskset");
    command.args(["-c", &lab.relay_core.to_string(), program]);
    command
}

pub(super) fn source(number: u32) -> SocketAddrV4 {
    SocketAddrV4::new(SENDER, SENDER_PORT + (number % 50_000) as u16)
}

pub(super) fn flow(way: &Way, from: SocketAddrV4, to: SocketAddrV4, head: &[u8], key: [u64; 2]) -> Flow {
    let mut payload = head.to_vec();
    payload.resize(head.len() + CONTENT, 0);
    payload[head.len() + 8..head.len() + 16].copy_from_slice(&TAG);
    Flow { ethernet: way.ethernet, from, to, payload, key }
}

/// One relay thread, no authentication, UDP only, no log. `turnutils_uclient`, which comes with it, is no source for
/// this: it takes more processor time per datagram than the server.
fn start_coturn(lab: &Lab, place: &Place) -> anyhow::Result<Process> {
    let mut command = pinned(lab, "turnserver");
    command
        .args(["-n", "--no-auth", "--no-tls", "--no-dtls", "--no-tcp", "--no-tcp-relay", "--no-cli"])
        .args(["--no-multicast-peers", "--no-rfc5780", "-m", "1", "--log-file", "/dev/null", "--simple-log"])
        .args(["--listening-ip", &RELAY.to_string(), "--relay-ip", &RELAY_OUT.to_string()])
        .args(["--listening-port", &TURN_PORT.to_string(), "--userdb"])
        .arg(place.0.join("turndb"))
        .arg("--pidfile")
        .arg(place.0.join("turn.pid"))
        .current_dir(&place.0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ok(Process(command.spawn()?))
}

fn open_channel(socket: &UdpSocket, server: SocketAddrV4, peer: SocketAddrV4) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match turn::open_channel(socket, server, peer) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > end => bail!("coturn did not start: {error:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Why coturn cannot be measured here, if it cannot.
pub(super) fn coturn_missing() -> Option<&'static str> {
    let found =
        Command::new("turnserver").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_err().then_some("coturn is not installed: apt-get install coturn")
}

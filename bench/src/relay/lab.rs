//! Three machines on one: sender, relay, receiver, each a network namespace, with cables between them and one straight
//! from sender to receiver.
//!
//! Owns namespaces, cables and the placement of the kernel's work: what arrives at the relay is received by a kernel
//! thread (threaded NAPI) on the relay's core, what arrives at the receiver by one on the generator's. So the relay's core
//! does the relay's work and nothing else. Never touches the machine's own network. Invariant: everything is gone when
//! the value is dropped.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::thread::{CpuSet, Pid, sched_setaffinity};
use wavry_netns::{Namespace, cable, unavailable};
use wavry_runtime::cores;
use wavry_runtime::shutdown::Shutdown;
use wavry_xdp::attach::{Attachment, ModeChoice, attach};
use wavry_xdp::interface::Interface;
use wavry_xdp::load::{Flow, Load, Results, Settings};

use super::sessions;

/// Addresses of sender, relay (both sides) and receiver, and of the two ends of the straight cable.
pub(super) const SENDER: Ipv4Addr = Ipv4Addr::new(10, 81, 1, 2);
pub(super) const RELAY: Ipv4Addr = Ipv4Addr::new(10, 81, 1, 1);
pub(super) const RELAY_OUT: Ipv4Addr = Ipv4Addr::new(10, 81, 2, 1);
pub(super) const RECEIVER: Ipv4Addr = Ipv4Addr::new(10, 81, 2, 2);
/// IPv4 from any source, and nothing that the kernel says by itself.
const PLAIN: &str = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; echo 0 > /proc/sys/net/ipv4/conf/default/rp_filter; \
                     echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter";
const STRAIGHT: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 81, 3, 1), Ipv4Addr::new(10, 81, 3, 2)];
/// The relay's device towards the sender, and the one towards the receiver.
pub(super) const RELAY_IN_DEVICE: &str = "wvr0";
pub(super) const RELAY_OUT_DEVICE: &str = "wvr1";
/// The sender's device towards the relay, and towards the floor; the receiver's from the floor.
pub(super) const SENDER_DEVICE: &str = "wvs0";
pub(super) const FLOOR_IN: &str = "wvs2";
const FLOOR_OUT: &str = "wvd2";

/// Where datagrams enter: number of the sender's device, and Ethernet addresses, of the next machine first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) device: u32,
    pub(super) ethernet: [[u8; 6]; 2],
    pub(super) receiver: Ipv4Addr,
}

/// A second machine in the relay's place, on the same core, with cables of its own: what only forwards can be measured there in
/// turns with a relay that runs.
pub(super) struct Floor {
    pub(super) through: Way,
    pub(super) last_hop: [[u8; 6]; 2],
    pub(super) machine: Namespace,
}

pub(super) struct Lab {
    pub(super) load: Load,
    /// Through the relay, and past it.
    pub(super) through: Way,
    pub(super) straight: Way,
    /// Of the receiver and of the relay's device towards it.
    pub(super) last_hop: [[u8; 6]; 2],
    pub(super) relay_core: usize,
    pub(super) generator_core: usize,
    /// The kernel thread that receives for the relay.
    napi: u32,
    shutdown: Shutdown,
    /// Keeps all cores from sleeping while it is open.
    _awake: Option<File>,
    // Dropped before the devices are gone.
    _attached: Vec<Attachment>,
    /// Only where floods are measured.
    pub(super) floor: Option<Floor>,
    pub(super) sender: Namespace,
    pub(super) relay: Namespace,
    pub(super) receiver: Namespace,
}

impl Lab {
    /// `receive_first`: the kernel's thread on the relay's core precedes every program, as interrupts do until they get
    /// too many. A cable's ring holds 256 frames, and none may be lost there when a flood is measured; but the thread
    /// then takes frames as they come and not several at a time, which costs every contender more.
    pub(super) fn new(receive_first: bool) -> anyhow::Result<Self> {
        if let Some(reason) = unavailable() {
            bail!("{reason}");
        }
        let allowed = cores::allowed()?;
        ensure!(allowed.len() > 1, "two cores are needed: one generates, one relays");
        let (generator_core, relay_core) = (allowed[0], allowed[allowed.len() - 1]);
        let shutdown = Shutdown::install()?;
        let (sender, relay, receiver) =
            (Namespace::new("sender")?, Namespace::new("relay")?, Namespace::new("receiver")?);
        for namespace in [&sender, &relay, &receiver] {
            shell(namespace, PLAIN)?;
        }
        shell(&relay, "echo 1 > /proc/sys/net/ipv4/ip_forward")?;
        cable((&sender, "wvs0"), (&relay, RELAY_IN_DEVICE), 1)?;
        cable((&relay, RELAY_OUT_DEVICE), (&receiver, "wvd0"), 1)?;
        cable((&sender, "wvs1"), (&receiver, "wvd1"), 1)?;
        let ends = [
            (&sender, "wvs0", SENDER),
            (&relay, RELAY_IN_DEVICE, RELAY),
            (&relay, RELAY_OUT_DEVICE, RELAY_OUT),
            (&receiver, "wvd0", RECEIVER),
            (&sender, "wvs1", STRAIGHT[0]),
            (&receiver, "wvd1", STRAIGHT[1]),
        ];
        let mut macs = [[0; 6]; 6];
        for (mac, (namespace, device, address)) in macs.iter_mut().zip(ends) {
            namespace.ip(&format!("address add {address}/24 dev {device}"))?;
            *mac = mac_of(namespace, device)?;
        }
        for pair in [[0, 1], [2, 3], [4, 5]] {
            for [here, there] in [pair, [pair[1], pair[0]]] {
                let (namespace, device, _) = ends[here];
                let (address, mac) = (ends[there].2, text_of(macs[there]));
                namespace.ip(&format!("neigh replace {address} lladdr {mac} dev {device} nud permanent"))?;
            }
        }
        sender.ip(&format!("route add 10.81.2.0/24 via {RELAY}"))?;
        receiver.ip(&format!("route add 10.81.1.0/24 via {RELAY_OUT}"))?;

        let napi = receive_on(&relay, RELAY_IN_DEVICE, relay_core, receive_first)?;
        // What the relay answers is not its core's work once it left.
        receive_on(&sender, "wvs0", generator_core, false)?;
        for device in ["wvd0", "wvd1"] {
            // Before everything else on its core: what arrived is stamped at once.
            receive_on(&receiver, device, generator_core, true)?;
        }
        let cores = [generator_core, relay_core];
        let floor = if receive_first { Some(lay_floor(&sender, &receiver, cores)?) } else { None };
        let load = Load::open()?;
        let sink = |device| -> anyhow::Result<Attachment> {
            let mode = ModeChoice::Only(wavry_xdp::attach::Mode::Native);
            receiver
                .with(|| attach(load.sink(), &Interface::named(device)?, mode).map_err(anyhow::Error::from))
        };
        sender.ip("link add wvi0 type veth peer name wvi1")?;
        let idle = sender.with(|| -> anyhow::Result<Attachment> {
            let mode = ModeChoice::Only(wavry_xdp::attach::Mode::Generic);
            Ok(attach(load.source(), &Interface::named("wvi0")?, mode)?)
        })?;
        let hole = sender.with(|| -> anyhow::Result<Attachment> {
            let mode = ModeChoice::Only(wavry_xdp::attach::Mode::Native);
            Ok(attach(load.hole(), &Interface::named("wvs0")?, mode)?)
        })?;
        let mut attached = vec![sink("wvd0")?, sink("wvd1")?, idle, hole];
        if floor.is_some() {
            attached.push(sink(FLOOR_OUT)?);
        }
        let index = |device| sender.with(|| Interface::named(device)).map(|found| found.index());
        Ok(Self {
            through: Way { device: index("wvs0")?, ethernet: [macs[1], macs[0]], receiver: RECEIVER },
            straight: Way { device: index("wvs1")?, ethernet: [macs[5], macs[4]], receiver: STRAIGHT[1] },
            last_hop: [macs[3], macs[2]],
            load,
            relay_core,
            generator_core,
            napi,
            shutdown,
            _awake: keep_awake(),
            _attached: attached,
            floor,
            sender,
            relay,
            receiver,
        })
    }

    /// Sends for a while; what arrived, and what the relay's core did meanwhile: processor time of the kernel thread
    /// that receives there and of all threads of the forwarder, in nanoseconds.
    pub(super) fn measure(
        &self,
        settings: &Settings,
        flow: &Flow,
        span: Duration,
        forwarder: Option<u32>,
    ) -> anyhow::Result<(Results, u64)> {
        let before = self.relay_ns(forwarder)?;
        let results = self.sender.with(|| -> anyhow::Result<Results> {
            cores::pin_to(self.generator_core)?;
            Ok(self.load.run(settings, flow, span, || self.shutdown.requested())?)
        })?;
        ensure!(!self.shutdown.requested(), "interrupted");
        Ok((results, self.relay_ns(forwarder)? - before))
    }

    /// Until the relay's fast path carries so many sessions, in the mode that is expected.
    pub(super) fn wait_for_fast_sessions(&self, count: u32, generic: bool) -> anyhow::Result<()> {
        let attached = self.relay.ip(&format!("link show dev {RELAY_IN_DEVICE}"))?;
        ensure!(attached.contains("xdp"), "the relay attached no program");
        ensure!(attached.contains("xdpgeneric") == generic, "the relay chose the other mode: {attached}");
        let end = Instant::now() + Duration::from_secs(10);
        let line = format!("wavry_relay_fast_sessions {count}");
        loop {
            let mut text = String::new();
            let mut stream = self.relay.with(|| TcpStream::connect(sessions::METRICS))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")?;
            stream.read_to_string(&mut text)?;
            if text.lines().any(|found| found == line) {
                return Ok(());
            }
            let found = text.lines().find(|line| line.starts_with("wavry_relay_fast_sessions "));
            ensure!(Instant::now() < end, "the fast path does not carry all {count} sessions: {found:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Datagrams so far that a cable from the sender did not take, because its 256 places were full: whoever empties them had
    /// no processor for so long.
    pub(super) fn refused(&self, cable: &str) -> anyhow::Result<u64> {
        let text = self.sender.run("ethtool", &format!("-S {cable}"))?;
        let errors = text.lines().filter_map(|line| line.trim().strip_prefix("tx_queue_0_xdp_xmit_errors: "));
        Ok(errors.map(str::parse::<u64>).next().context("the cable does not count")??)
    }

    /// For `taskset`.
    pub(super) fn both_cores(&self) -> String {
        format!("{},{}", self.generator_core, self.relay_core)
    }

    fn relay_ns(&self, forwarder: Option<u32>) -> anyhow::Result<u64> {
        Ok(thread_ns(&format!("/proc/{}", self.napi))? + forwarder.map_or(Ok(0), process_ns)?)
    }
}

/// The machine that is the floor, between the same sender and receiver.
fn lay_floor(
    sender: &Namespace,
    receiver: &Namespace,
    [generator_core, relay_core]: [usize; 2],
) -> anyhow::Result<Floor> {
    let machine = Namespace::new("floor")?;
    shell(&machine, PLAIN)?;
    cable((sender, FLOOR_IN), (&machine, RELAY_IN_DEVICE), 1)?;
    cable((&machine, RELAY_OUT_DEVICE), (receiver, FLOOR_OUT), 1)?;
    receive_on(&machine, RELAY_IN_DEVICE, relay_core, true)?;
    receive_on(receiver, FLOOR_OUT, generator_core, true)?;
    let device = sender.with(|| Interface::named(FLOOR_IN))?.index();
    let ethernet = [mac_of(&machine, RELAY_IN_DEVICE)?, mac_of(sender, FLOOR_IN)?];
    let last_hop = [mac_of(receiver, FLOOR_OUT)?, mac_of(&machine, RELAY_OUT_DEVICE)?];
    Ok(Floor { through: Way { device, ethernet, receiver: RECEIVER }, last_hop, machine })
}

/// Has the machine's host give it memory that is free, and tells what a page of it took, in nanoseconds. A virtual machine gets memory when it
/// touches it, which takes longer than a datagram, and may lose again what is free for seconds: a forwarder whose datagrams take ever new
/// pages would be measured by that, several times as slow, for as long as the host is not done.
pub(super) fn warm_memory() -> anyhow::Result<f64> {
    const MOST: usize = 1 << 30;
    const CHUNK: usize = 1 << 20;
    let info = fs::read_to_string("/proc/meminfo")?;
    let available = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = available.and_then(|rest| rest.split_whitespace().next()).context("no MemAvailable")?;
    let chunks = MOST.min(kib.parse::<usize>()? * 1024 / 8) / CHUNK;
    // Its pages are free again when it is closed.
    let mut memory = File::from(rustix::fs::memfd_create("warm", rustix::fs::MemfdFlags::CLOEXEC)?);
    let bytes = vec![1; CHUNK];
    let begun = Instant::now();
    for _ in 0..chunks {
        memory.write_all(&bytes)?;
    }
    Ok(begun.elapsed().as_nanos() as f64 / (chunks * CHUNK / 4096).max(1) as f64)
}

/// Asks for idle cores that poll (PM QoS), as on a machine that is tuned for latency: what waking a sleeping core costs is
/// tens of microseconds on a virtual one, says nothing about a relay, and hides what does.
fn keep_awake() -> Option<File> {
    let open = || -> std::io::Result<File> {
        let mut file = File::options().write(true).open("/dev/cpu_dma_latency")?;
        file.write_all(&0_i32.to_ne_bytes())?;
        Ok(file)
    };
    open()
        .inspect_err(|error| {
            eprintln!("cores may sleep, so latencies are longer: /dev/cpu_dma_latency: {error}");
        })
        .ok()
}

/// Runs a line of shell in a namespace.
pub(super) fn shell(namespace: &Namespace, line: &str) -> anyhow::Result<()> {
    let output = namespace.command("sh").args(["-ec", line]).output()?;
    ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Makes a kernel thread on one core receive what arrives at a device, and returns its number.
fn receive_on(namespace: &Namespace, device: &str, core: usize, first: bool) -> anyhow::Result<u32> {
    // A virtual cable has NAPI only with GRO or an XDP program, and drops redirected frames without it.
    namespace.run("ethtool", &format!("-K {device} gro on")).context("ethtool is needed")?;
    let known = napi_threads(device)?;
    shell(namespace, &format!("echo 1 > /sys/class/net/{device}/threaded"))?;
    let thread = napi_threads(device)?.into_iter().find(|thread| !known.contains(thread));
    let thread =
        thread.with_context(|| format!("{device} got no thread of its own: Linux 5.12 is needed"))?;
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(Pid::from_raw(thread as i32), &set)?;
    if first {
        let done = Command::new("chrt").args(["-f", "-p", "50", &thread.to_string()]).output()?;
        ensure!(done.status.success(), "chrt: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(thread)
}

/// Threads that receive for devices of this name, in any namespace.
fn napi_threads(device: &str) -> anyhow::Result<Vec<u32>> {
    let prefix = format!("napi/{device}-");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.starts_with(&prefix)) {
            found.push(number);
        }
    }
    Ok(found)
}

/// Time on a processor of all threads of a process, nanoseconds.
fn process_ns(pid: u32) -> anyhow::Result<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("the forwarder has ended")?;
    tasks.map(|task| thread_ns(&task?.path().to_string_lossy())).sum()
}

fn thread_ns(directory: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("{directory}/schedstat")).context("a thread has ended")?;
    Ok(text.split_whitespace().next().context("no schedstat")?.parse()?)
}

fn mac_of(namespace: &Namespace, device: &str) -> anyhow::Result<[u8; 6]> {
    let text = namespace.run("cat", &format!("/sys/class/net/{device}/address"))?;
    let bytes: Vec<u8> =
        text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("{device} has no Ethernet address"))
}

fn text_of(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

//! A relay in user space beside the smallest forwarder there can be: processor time and added latency per datagram, over
//! loopback.
//!
//! Owns both processes and two peers. Loopback has no device, so figures hold beside each other, not by themselves.

mod load;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use rift_crypto::Identity;
use rift_relay::lease::{Claims, IssuerKey};
use rift_relay::link::Link;
use rift_relay::wire::{Role, SessionId};
use wavry_runtime::uring::{UringUdp, UringUdpConfig};

use load::{Figures, Load};

/// What is to be measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Seconds per figure.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
}

/// Datagrams that leave at once.
const BURSTS: [usize; 2] = [1, 16];

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let place = Place::new()?;
    let span = Duration::from_secs(arguments.seconds);
    println!(
        "{:28} {:>6} {:>14} {:>12} {:>12} {:>8}",
        "", "burst", "ns processor", "Mpps/core", "p50 us", "lost"
    );
    for burst in BURSTS {
        let floor = measure_floor(&place, Load { burst, span })?;
        show("C recvmmsg/sendmmsg", burst, &floor);
        let relay = measure_relay(&place, Load { burst, span })?;
        show("wavry-relay, io_uring", burst, &relay);
        println!(
            "{:28} {burst:>6} {:>13.2}x  (goal: at most 1.0 x the C forwarder's processor time)",
            "ratio",
            relay.cpu_ns / floor.cpu_ns
        );
    }
    Ok(())
}

fn show(name: &str, burst: usize, figures: &Figures) {
    println!(
        "{name:28} {burst:>6} {:>14.0} {:>12.3} {:>12.1} {:>7.3}%",
        figures.cpu_ns,
        1e3 / figures.cpu_ns,
        figures.p50_us,
        figures.lost * 100.0
    );
}

fn measure_floor(place: &Place, load: Load) -> anyhow::Result<Figures> {
    let binary = place.0.join("forwarder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("relay/forwarder.c");
    let built = Command::new("cc").args(["-O2", "-o"]).arg(&binary).arg(source).status();
    ensure!(built.context("cc is missing: install gcc")?.success(), "the C forwarder does not build");
    let port = free_port()?;
    let (sender, receiver) = (open()?, open()?);
    let ports = [&sender, &receiver].map(|t| local_port(t).to_string());
    let mut command = Command::new(binary);
    command.arg(port.to_string()).args(ports);
    let process = Process::start(command, "ready")?;
    load.run(sender, receiver, SocketAddr::from(([127, 0, 0, 1], port)), process.0.id())
}

fn measure_relay(place: &Place, load: Load) -> anyhow::Result<Figures> {
    let issuer = IssuerKey::generate()?;
    let relay = Identity::load_or_create(&place.0.join("identity"))?.0;
    let (client, host) = (Identity::generate()?, Identity::generate()?);
    let port = free_port()?;
    fs::write(
        place.0.join("relay.toml"),
        format!(
            "listen = \"127.0.0.1:{port}\"\nidentity = {:?}\nissuers = [\"{}\"]\nhard_kbps_max = 10000000\n\
             soft_kbps_max = 10000000\ndrain_seconds = 0\nmetrics = \"127.0.0.1:{}\"\n",
            place.0.join("identity"),
            issuer.public(),
            free_port()?
        ),
    )?;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
    let token = issuer.mint(&Claims {
        id: SessionId([1; 16]),
        session: SessionId([2; 16]),
        relay: relay.wavry_id(),
        client: client.wavry_id(),
        host: host.wavry_id(),
        issued_ms: now_ms,
        not_before_ms: now_ms,
        expires_ms: now_ms + 3_600_000,
        soft_kbps: 10_000_000,
        hard_kbps: 10_000_000,
    });
    let program = std::env::current_exe()?.with_file_name("wavry-relay");
    ensure!(program.is_file(), "wavry-relay is not built: cargo build --release -p wavry-relay");
    let mut command = Command::new(program);
    command.arg("--config").arg(place.0.join("relay.toml")).env("WAVRY_LOG", "error");
    let process = Process::start(command, "listens on")?;
    let address = format!("127.0.0.1:{port}");
    let sender = Link::prepare(host, Role::Host, &address, &token)?.carry(open()?);
    let receiver = Link::prepare(client, Role::Client, &address, &token)?.carry(open()?);
    load.run(sender, receiver, address.parse()?, process.0.id())
}

fn open() -> anyhow::Result<UringUdp> {
    Ok(UringUdp::open(UringUdpConfig::new(SocketAddr::from(([127, 0, 0, 1], 0))))?)
}

fn local_port(transport: &UringUdp) -> u16 {
    use wavry_runtime::transport::Transport as _;
    transport.local_addr().port()
}

fn free_port() -> anyhow::Result<u16> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A directory, removed at the end.
struct Place(PathBuf);

impl Place {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("wavry-bench-relay-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A child, killed at the end.
struct Process(Child);

impl Process {
    fn start(mut command: Command, marker: &str) -> anyhow::Result<Self> {
        let mut process = Self(command.stdout(Stdio::piped()).spawn()?);
        let stdout = process.0.stdout.take().context("no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.contains(marker), "it did not start: {line}");
        Ok(process)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

//! Runs the engine as its users do: `wavry-server` and `wavry-client` as processes, really paired, encrypted.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use wavry_netns::Namespace;
use wavry_runtime::clock::Clock;

use super::process::{Lines, Program, Side, chatter, stolen_seconds};
use super::{Setting, WARM_UP};
use crate::bound::{bound, bound_in};

/// How long the programs may take to say that they are ready.
const PATIENCE: Duration = Duration::from_secs(10);

/// The programs that are measured.
#[derive(Debug)]
pub(crate) struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// Those in this directory, or beside the running program.
    ///
    /// # Errors
    /// When one is missing.
    pub(crate) fn find(directory: Option<&Path>) -> anyhow::Result<Self> {
        let directory = match directory {
            Some(directory) => directory.to_owned(),
            None => std::env::current_exe()?.parent().context("this program has no directory")?.to_owned(),
        };
        for name in ["wavry", "wavry-server", "wavry-client"] {
            ensure!(
                directory.join(name).is_file(),
                "{name} is not in {}; build it first: cargo build --release -p wavry -p wavry-server \
                 -p wavry-client --features wavry-server/x264,wavry-client/libavcodec",
                directory.display()
            );
        }
        Ok(Self { directory })
    }

    /// One of them, as it is measured.
    pub(crate) fn command(&self, name: &str) -> Command {
        Self::quiet(bound(self.directory.join(name)))
    }

    /// One of them in a network namespace.
    pub(crate) fn command_in(&self, namespace: &Namespace, name: &str) -> Command {
        Self::quiet(bound_in(namespace, self.directory.join(name)))
    }

    fn quiet(mut command: Command) -> Command {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(chatter()).env("WAVRY_LOG", "warn");
        command
    }
}

/// Times of one frame in microseconds of `CLOCK_MONOTONIC`, joined from both traces and from the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameTimes {
    /// The number in the picture.
    pub(crate) number: u32,
    /// The time in the picture.
    pub(crate) painted: u64,
    /// Encoding began.
    pub(crate) captured: u64,
    /// The first slice left the encoder.
    pub(crate) first_slice: u64,
    /// The last slice left the encoder.
    pub(crate) encoded: u64,
    /// The first slice was sealed.
    pub(crate) first_sealed: u64,
    /// The last slice was sealed.
    pub(crate) sealed: u64,
    /// The last slice was whole at the client.
    pub(crate) complete: u64,
    /// The picture was decoded.
    pub(crate) decoded: u64,
    /// The picture was presented.
    pub(crate) presented: u64,
}

/// One run of the engine.
#[derive(Debug, Clone)]
pub(crate) struct OwnRun {
    /// Shown frames of the measured time.
    pub(crate) frames: Vec<FrameTimes>,
    /// Frames that the host made in that time.
    pub(crate) sent: usize,
    /// Processor seconds of both programs per second of streaming.
    pub(crate) cpu: f64,
    /// Seconds per second in which a hypervisor gave cores of this machine to others while they had work.
    pub(crate) stolen: f64,
}

/// Streams once and joins what both sides wrote down.
///
/// # Errors
/// When a program fails, or no frame arrives.
pub(crate) fn measure(
    setting: &Setting,
    programs: &Programs,
    busy_poll: bool,
    keep: Option<&Path>,
) -> anyhow::Result<OwnRun> {
    let scratch = Scratch::new()?;
    let home = |name: &str| scratch.0.join(name);
    let (host_home, client_home) = (home("host"), home("client"));
    let (host_trace, client_trace, codes) = (home("host.csv"), home("client.csv"), home("codes.csv"));
    let address = free_address()?;
    let geometry = setting.stream.geometry;

    let mut host = programs.command("wavry-server");
    host.args(["--listen", &address, "--pair", "--fixed-bitrate"])
        .args(["--source", &format!("test:{}x{}", geometry.width, geometry.height)])
        .args(["--fps", &setting.stream.fps.to_string()])
        .args(["--bitrate-mbps", &setting.bitrate_mbps.to_string()])
        .args(["--encoder-threads", &setting.threads.to_string()])
        .args(["--slices", &setting.slices.to_string()])
        .arg("--config-dir")
        .arg(&host_home)
        .arg("--trace")
        .arg(&host_trace);
    let mut client = programs.command("wavry-client");
    client
        .args([&address, "--headless", "--config-dir"])
        .arg(&client_home)
        .arg("--trace")
        .arg(&client_trace)
        .arg("--codes")
        .arg(&codes);
    if busy_poll {
        host.arg("--busy-poll");
        client.arg("--busy-poll");
    }

    let mut host = Program::start("wavry-server", &mut host, Side::Host)?;
    let host_lines = Lines::of(host.child().stdout.take().context("wavry-server has no output")?);
    let pin_line = host_lines.wait_for("Pairing PIN: ", PATIENCE).context("wavry-server gave no PIN")?;
    let pin = pin_in(&pin_line).context("wavry-server gave no PIN")?;
    host_lines.wait_for("listens on", PATIENCE).context("wavry-server does not listen")?;
    pair(programs, &client_home, &address, &pin)?;

    let mut client = Program::start("wavry-client", &mut client, Side::Client)?;
    let client_lines = Lines::of(client.child().stdout.take().context("wavry-client has no output")?);
    client_lines.wait_for("connected to", PATIENCE).context("wavry-client does not connect")?;
    std::thread::sleep(WARM_UP);
    let (started, host_cpu, client_cpu) = (Clock.now(), host.cpu_seconds()?, client.cpu_seconds()?);
    let stolen_before = stolen_seconds()?;
    std::thread::sleep(setting.measured);
    let cpu = host.cpu_seconds()? - host_cpu + client.cpu_seconds()? - client_cpu;
    let stolen = stolen_seconds()? - stolen_before;
    let ended = Clock.now();
    ensure!(client.stop()?, "wavry-client failed");
    ensure!(host.stop()?, "wavry-server failed");

    if let Some(directory) = keep {
        std::fs::create_dir_all(directory)?;
        for file in [&host_trace, &client_trace, &codes] {
            let name = file.file_name().context("a trace has a name")?;
            std::fs::copy(file, directory.join(name))?;
        }
    }
    let measured = started / 1000..ended / 1000;
    let (host, client, codes) =
        (Table::read(&host_trace)?, Table::read(&client_trace)?, Table::read(&codes)?);
    let painted_at = host.column("captured_us")?;
    let sent = host.rows.values().filter(|row| measured.contains(&row[painted_at])).count();
    let mut frames = join(&host, &client, &codes)?;
    frames.retain(|frame| measured.contains(&frame.painted));
    ensure!(!frames.is_empty(), "no frame went through the engine");
    let seconds = (ended - started) as f64 / 1e9;
    Ok(OwnRun { frames, sent, cpu: cpu / seconds, stolen: stolen / seconds })
}

/// The six digits of a line like `Pairing PIN: 123 456 (valid for 120 s)`.
pub(crate) fn pin_in(line: &str) -> Option<String> {
    let (_, shown) = line.split_once("PIN: ")?;
    let digits: String = shown.split('(').next()?.chars().filter(char::is_ascii_digit).collect();
    (digits.len() == 6).then_some(digits)
}

fn pair(programs: &Programs, home: &Path, address: &str, pin: &str) -> anyhow::Result<()> {
    let paired = programs
        .command("wavry")
        .arg("--config-dir")
        .arg(home)
        .args(["pair", address, "--pin", pin])
        .output()
        .context("wavry cannot be started")?;
    ensure!(paired.status.success(), "wavry pair failed; see why with WAVRY_BENCH_VERBOSE=1");
    Ok(())
}

/// Frames that were shown and whose picture could be read, in their order.
fn join(host: &Table, client: &Table, codes: &Table) -> anyhow::Result<Vec<FrameTimes>> {
    let host_at = |name| host.column(name);
    let [captured, first_slice, encoded, first_sealed, sealed] = [
        host_at("captured_us")?,
        host_at("first_slice_us")?,
        host_at("encoded_us")?,
        host_at("first_sealed_us")?,
        host_at("last_sealed_us")?,
    ];
    let [complete, decoded, presented] =
        [client.column("complete_us")?, client.column("decoded_us")?, client.column("presented_us")?];
    let [number, painted] = [codes.column("code_frame")?, codes.column("code_us")?];
    let mut frames = Vec::with_capacity(codes.rows.len());
    for (frame, code) in &codes.rows {
        let (Some(h), Some(c)) = (host.rows.get(frame), client.rows.get(frame)) else { continue };
        frames.push(FrameTimes {
            number: u32::try_from(code[number])?,
            painted: code[painted],
            captured: h[captured],
            first_slice: h[first_slice],
            encoded: h[encoded],
            first_sealed: h[first_sealed],
            sealed: h[sealed],
            complete: c[complete],
            decoded: c[decoded],
            presented: c[presented],
        });
    }
    Ok(frames)
}

/// A CSV file of numbers, keyed by its first column.
#[derive(Debug)]
pub(crate) struct Table {
    path: PathBuf,
    columns: Vec<String>,
    pub(crate) rows: BTreeMap<u64, Vec<u64>>,
}

impl Table {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> anyhow::Result<Self> {
        let mut lines = text.lines();
        let header = lines.next().with_context(|| format!("{} is empty", path.display()))?;
        let columns: Vec<String> = header.split(',').map(str::to_owned).collect();
        let mut rows = BTreeMap::new();
        for (number, line) in (2..).zip(lines) {
            let row: Vec<u64> = line
                .split(',')
                .map(str::parse)
                .collect::<Result<_, _>>()
                .with_context(|| format!("{}, line {number}: not a number", path.display()))?;
            ensure!(row.len() == columns.len(), "{}, line {number}: columns are missing", path.display());
            rows.insert(row[0], row);
        }
        Ok(Self { path: path.to_owned(), columns, rows })
    }

    pub(crate) fn column(&self, name: &str) -> anyhow::Result<usize> {
        self.columns
            .iter()
            .position(|column| column == name)
            .with_context(|| format!("{} has no column {name}", self.path.display()))
    }
}

/// A directory that goes away with this.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("wavry-e2e-{}-{}", std::process::id(), Clock.now()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A UDP address on loopback that was free a moment ago.
pub(crate) fn free_address() -> anyhow::Result<String> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pin_is_found() {
        assert_eq!(pin_in("Pairing PIN: 012 345 (valid for 120 s)").as_deref(), Some("012345"));
        assert_eq!(pin_in("Pairing PIN: 12 (valid for 120 s)"), None);
    }

    #[test]
    fn traces_and_codes_are_joined_by_frame() {
        let table = |text| Table::parse(Path::new("x.csv"), text).unwrap();
        let host = table(
            "frame,captured_us,first_slice_us,encoded_us,first_sealed_us,last_sealed_us\n\
             7,10,20,30,21,31\n8,110,120,130,121,131\n",
        );
        let client = table("frame,complete_us,decoded_us,presented_us\n8,140,150,160\n9,1,1,1\n");
        let codes = table("frame,code_frame,code_us\n7,70,9\n8,80,109\n9,90,1\n");
        let frames = join(&host, &client, &codes).unwrap();
        let expected = FrameTimes {
            number: 80,
            painted: 109,
            captured: 110,
            first_slice: 120,
            encoded: 130,
            first_sealed: 121,
            sealed: 131,
            complete: 140,
            decoded: 150,
            presented: 160,
        };
        assert_eq!(frames, [expected]);
        assert!(Table::parse(Path::new("x"), "a,b\n1\n").is_err());
        assert!(Table::parse(Path::new("x"), "a,b\n1,z\n").is_err());
    }
}

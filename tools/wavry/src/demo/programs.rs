//! The real host and the real client, as processes.
//!
//! Owns the processes: each ends with its value. What they print is read by a thread each, so that
//! neither can block on a full pipe.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// How long a program may take to say what is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where the programs are.
pub(crate) struct Programs {
    directory: PathBuf,
}

/// The trace of the host's frames.
pub(crate) fn host_trace(out: &Path) -> PathBuf {
    out.join("host-frames.csv")
}

/// The trace of the client's frames.
pub(crate) fn client_trace(out: &Path) -> PathBuf {
    out.join("client-frames.csv")
}

impl Programs {
    /// The programs built together with this one.
    pub(crate) fn beside_this_one() -> anyhow::Result<Self> {
        let directory = std::env::current_exe()?.parent().context("this program lies nowhere")?.to_owned();
        for name in ["wavry-server", "wavry-client"] {
            ensure!(
                directory.join(name).is_file(),
                "{name} is not beside this program; build it: cargo build --release -p {name}"
            );
        }
        Ok(Self { directory })
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.directory.join(name));
        command.stdin(Stdio::null());
        command
    }

    /// Pairs the client's identity with the host, with the real command.
    pub(crate) fn pair(&self, host: &Host, pin: &str, out: &Path) -> anyhow::Result<()> {
        let output = self
            .command("wavry")
            .arg("--config-dir")
            .arg(out.join("client-config"))
            .args(["pair", &host.address, "--pin", pin, "--name", "demo"])
            .output()?;
        ensure!(
            output.status.success(),
            "pairing failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        print!("{}", String::from_utf8_lossy(&output.stdout));
        Ok(())
    }
}

/// A running program whose lines are read.
struct Running {
    name: &'static str,
    child: Child,
    lines: Receiver<String>,
    log: PathBuf,
    said: Vec<String>,
}

impl Running {
    fn start(name: &'static str, mut command: Command, out: &Path) -> anyhow::Result<Self> {
        let log = out.join(format!("{name}.log"));
        let errors = std::fs::File::create(&log)?;
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .with_context(|| format!("{name} could not be started"))?;
        let stdout = child.stdout.take().context("the pipe is missing")?;
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { name, child, lines, log, said: Vec::new() })
    }

    /// The rest of the first line that has `marker` in it.
    fn wait_for(&mut self, marker: &str) -> anyhow::Result<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let found = line.split_once(marker).map(|(_, rest)| rest.to_owned());
                    self.said.push(line);
                    if let Some(rest) = found {
                        return Ok(rest);
                    }
                }
                Err(_) => bail!("{} did not say \"{marker}\" in time.\n{}", self.name, self.last_words()),
            }
        }
    }

    fn check(&mut self) -> anyhow::Result<()> {
        self.said.extend(self.lines.try_iter());
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended too early ({status}).\n{}", self.name, self.last_words());
        }
        Ok(())
    }

    /// Asks the program to end, and waits.
    fn end(&mut self) -> anyhow::Result<()> {
        terminate(&self.child);
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                std::thread::sleep(Duration::from_millis(50));
                self.said.extend(self.lines.try_iter());
                ensure!(status.success(), "{} ended with {status}.\n{}", self.name, self.last_words());
                return Ok(());
            }
            if Instant::now() > end {
                bail!("{} does not end when it is asked to", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn last_words(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = std::fs::File::open(&self.log) {
            let _ = file.read_to_string(&mut text);
        }
        let lines: Vec<_> = self.said.iter().map(String::as_str).chain(text.lines()).collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends SIGTERM, through the shell's own kill, so that this crate needs no unsafe code.
pub(crate) fn terminate(child: &Child) {
    signal(child, "TERM");
}

/// Sends a signal by name.
pub(crate) fn signal(child: &Child, name: &str) {
    let _ = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
}

/// A running `wavry-server`.
pub(crate) struct Host {
    running: Running,
    /// Where it listens.
    pub(crate) address: String,
}

impl Host {
    /// Starts one that streams `display` on a free port.
    pub(crate) fn start(programs: &Programs, display: &str, fps: u32, out: &Path) -> anyhow::Result<Self> {
        let mut command = programs.command("wavry-server");
        command
            .args(["--listen", "127.0.0.1:0", "--pair", "--source", &format!("x11:{display}")])
            .args(["--fps", &fps.to_string()])
            .arg("--config-dir")
            .arg(out.join("host-config"))
            .arg("--trace")
            .arg(host_trace(out));
        let running = Running::start("wavry-server", command, out)?;
        Ok(Self { running, address: String::new() })
    }

    /// The PIN it shows; its address is known from then on.
    pub(crate) fn wait_for_pin(&mut self) -> anyhow::Result<String> {
        let rest = self.running.wait_for("Pairing PIN: ")?;
        let digits = rest.split_once('(').map_or(rest.as_str(), |(digits, _)| digits).trim().to_owned();
        self.address = self.running.wait_for("listens on ")?;
        Ok(digits)
    }

    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.running.check()
    }

    pub(crate) fn end(&mut self) -> anyhow::Result<()> {
        self.running.end()
    }
}

/// A running `wavry-client`.
pub(crate) struct Client {
    running: Running,
}

impl Client {
    /// Starts one in full screen on `display`.
    pub(crate) fn start(programs: &Programs, display: &str, host: &Host, out: &Path) -> anyhow::Result<Self> {
        let mut command = programs.command("wavry-client");
        command
            .env("DISPLAY", display)
            .env_remove("WAYLAND_DISPLAY")
            .args([&host.address, "--fullscreen", "--verify", "top", "--name", "demo"])
            .arg("--config-dir")
            .arg(out.join("client-config"))
            .arg("--trace")
            .arg(client_trace(out));
        Ok(Self { running: Running::start("wavry-client", command, out)? })
    }

    pub(crate) fn wait_until_connected(&mut self) -> anyhow::Result<()> {
        let to = self.running.wait_for("connected to ")?;
        say!("client connected to {to}");
        Ok(())
    }

    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.running.check()
    }

    pub(crate) fn end(&mut self) -> anyhow::Result<()> {
        self.running.end()
    }

    /// Its own last lines about what it showed.
    pub(crate) fn summary(&self) -> String {
        self.running
            .said
            .iter()
            .filter(|line| line.contains("frames"))
            .cloned()
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Whether every frame it showed was right, as it says itself.
    pub(crate) fn judge(&self) -> anyhow::Result<()> {
        let verdict = self.running.said.iter().find_map(|line| line.strip_prefix("verified: "));
        match verdict {
            Some(text) if text.starts_with("every shown frame") => Ok(()),
            Some(text) => bail!("the client showed wrong frames: {text}"),
            None => {
                bail!("the client did not say whether its frames were right.\n{}", self.running.last_words())
            }
        }
    }
}

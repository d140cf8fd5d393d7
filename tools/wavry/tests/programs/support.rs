//! Programs, places and hosts for tests.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long anything may take on a slow, busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn program(name: &str) -> Command {
    let path = Path::new(env!("CARGO_BIN_EXE_wavry")).with_file_name(name);
    assert!(path.is_file(), "{name} is not built: cargo build --workspace --bins");
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).env("WAVRY_LOG", "warn").env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
    command
}

/// A directory of its own for one test, removed at its end.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("wavry-programs-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running program, killed at the end of its test.
pub(crate) struct Running {
    pub(crate) child: Child,
    lines: Receiver<String>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    pub(crate) fn wait_for(&self, marker: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("never said {marker:?}"));
            if let Some((_, rest)) = line.split_once(marker) {
                return rest.to_owned();
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        assert!(
            Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap().success()
        );
    }

    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("does not end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A host that streams the test picture, small, and shows a PIN.
pub(crate) struct Host {
    pub(crate) running: Running,
    pub(crate) address: String,
    pub(crate) pin: String,
}

impl Host {
    pub(crate) fn start(place: &Place) -> Self {
        Self::start_with(place, &[])
    }

    /// The same with further arguments, which win over the usual ones.
    pub(crate) fn start_with(place: &Place, arguments: &[&str]) -> Self {
        let mut command = program("wavry-server");
        command.args(["--listen", "127.0.0.1:0", "--pair", "--config-dir"]).arg(place.join("host"));
        for (name, usual) in [("--source", "test:320x192"), ("--fps", "30")] {
            if !arguments.contains(&name) {
                command.args([name, usual]);
            }
        }
        command.args(arguments);
        let running = Running::start(command);
        let pin = running.wait_for("Pairing PIN: ");
        let pin = pin.split_once('(').unwrap().0.trim().to_owned();
        let address = running.wait_for("listens on ");
        Self { running, address, pin }
    }

    pub(crate) fn pair(&self, place: &Place, pin: &str) -> Output {
        let mut command = program("wavry");
        command.arg("--config-dir").arg(place.join("client")).args(["pair", &self.address, "--pin", pin]);
        command.output().unwrap()
    }

    pub(crate) fn ping(&self, place: &Place) -> Output {
        let mut command = program("wavry");
        command.arg("--config-dir").arg(place.join("client")).args(["ping", &self.address, "-c", "2"]);
        command.output().unwrap()
    }

    pub(crate) fn client(&self, place: &Place, seconds: &str) -> Command {
        let mut command = program("wavry-client");
        command
            .args([&self.address, "--headless", "--verify", "both", "--duration", seconds, "--config-dir"])
            .arg(place.join("client"));
        command
    }

    /// A client without checks, which shows its window unless told otherwise.
    pub(crate) fn windowed_client(&self, place: &Place, seconds: &str) -> Command {
        let mut command = program("wavry-client");
        command.args([&self.address, "--duration", seconds, "--config-dir"]).arg(place.join("client"));
        command
    }

    pub(crate) fn wrong_pin(&self) -> String {
        let digits = self.pin.replace(' ', "").parse::<u32>().unwrap();
        format!("{:06}", (digits + 1) % 1_000_000)
    }
}

/// Asserts that a program failed and said all of `words`.
pub(crate) fn assert_fails(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "succeeded: {text}");
    assert!(output.status.code().is_some(), "killed: {text}");
    assert!(!text.contains("panicked"), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

pub(crate) fn assert_succeeds(output: &Output) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}{}", output.status, String::from_utf8_lossy(&output.stdout));
}

/// A column of a trace.
pub(crate) fn column(trace: &Path, name: &str) -> Vec<u64> {
    let text = fs::read_to_string(trace).unwrap();
    let mut lines = text.lines();
    let at = lines.next().unwrap().split(',').position(|column| column == name).unwrap();
    lines.map(|line| line.split(',').nth(at).unwrap().parse().unwrap()).collect()
}

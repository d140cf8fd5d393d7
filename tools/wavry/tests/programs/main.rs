//! The real programs, as processes: what they do with bad input, and that nothing brings the host down.
//!
//! All traffic stays on the loopback interface. Needs the programs built: `cargo build --workspace --bins`.

// A test fails by panicking, wherever in it that happens.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long anything may take on a slow, busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn program(name: &str) -> Command {
    let path = Path::new(env!("CARGO_BIN_EXE_wavry")).with_file_name(name);
    assert!(path.is_file(), "{name} is not built: cargo build --workspace --bins");
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).env("WAVRY_LOG", "warn").env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
    command
}

/// A directory of its own for one test, removed at its end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("wavry-programs-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running program, killed at the end of its test.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Self {
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

    fn wait_for(&self, marker: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("never said {marker:?}"));
            if let Some((_, rest)) = line.split_once(marker) {
                return rest.to_owned();
            }
        }
    }

    fn signal(&self, name: &str) {
        assert!(
            Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap().success()
        );
    }

    fn exit_code(&mut self) -> Option<i32> {
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
struct Host {
    running: Running,
    address: String,
    pin: String,
}

impl Host {
    fn start(place: &Place) -> Self {
        let mut command = program("wavry-server");
        command
            .args([
                "--listen",
                "127.0.0.1:0",
                "--source",
                "test:320x192",
                "--fps",
                "30",
                "--pair",
                "--config-dir",
            ])
            .arg(place.join("host"));
        let running = Running::start(command);
        let pin = running.wait_for("Pairing PIN: ");
        let pin = pin.split_once('(').unwrap().0.trim().to_owned();
        let address = running.wait_for("listens on ");
        Self { running, address, pin }
    }

    fn pair(&self, place: &Place, pin: &str) -> Output {
        let mut command = program("wavry");
        command.arg("--config-dir").arg(place.join("client")).args(["pair", &self.address, "--pin", pin]);
        command.output().unwrap()
    }

    fn ping(&self, place: &Place) -> Output {
        let mut command = program("wavry");
        command.arg("--config-dir").arg(place.join("client")).args(["ping", &self.address, "-c", "2"]);
        command.output().unwrap()
    }

    fn client(&self, place: &Place, seconds: &str) -> Command {
        let mut command = program("wavry-client");
        command
            .args([&self.address, "--headless", "--verify", "both", "--duration", seconds, "--config-dir"])
            .arg(place.join("client"));
        command
    }

    fn wrong_pin(&self) -> String {
        let digits = self.pin.replace(' ', "").parse::<u32>().unwrap();
        format!("{:06}", (digits + 1) % 1_000_000)
    }
}

/// Asserts that a program failed and said all of `words`.
fn assert_fails(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "succeeded: {text}");
    assert!(output.status.code().is_some(), "killed: {text}");
    assert!(!text.contains("panicked"), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

fn assert_succeeds(output: &Output) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}{}", output.status, String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_port_in_use_is_named() {
    let place = Place::new("port");
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = program("wavry-server")
        .args(["--listen", &address, "--source", "test:320x192", "--config-dir"])
        .arg(place.join("host"))
        .output()
        .unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    assert_fails(&output, &[&port, "already in use"]);
}

#[test]
fn a_missing_display_is_named() {
    let place = Place::new("display");
    let server = |source: &str| {
        let mut command = program("wavry-server");
        command.args(["--listen", "127.0.0.1:0", "--source", source, "--config-dir"]).arg(place.join("host"));
        command.output().unwrap()
    };
    assert_fails(&server("x11"), &["DISPLAY"]);
    assert_fails(&server("x11::59"), &[":59"]);
    assert_fails(&server("camera"), &["known sources"]);
}

#[test]
fn a_key_file_that_others_can_read_or_nobody_can_is_refused() {
    let place = Place::new("key");
    let keygen =
        || program("wavry").arg("--config-dir").arg(place.join("keys")).arg("keygen").output().unwrap();
    let first = keygen();
    assert_succeeds(&first);
    assert_eq!(first.stdout, keygen().stdout, "made once");
    let file = place.join("keys").join("identity");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert_fails(&keygen(), &["identity", "chmod 600"]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, "not a key").unwrap();
    assert_fails(&keygen(), &["identity"]);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_fails(&keygen(), &["identity"]);
}

#[test]
fn an_unknown_host_and_a_silent_one_are_told_apart() {
    let place = Place::new("unknown");
    let client = |host: &str| {
        let mut command = program("wavry-client");
        command.args([host, "--headless", "--config-dir"]).arg(place.join("client"));
        command.output().unwrap()
    };
    assert_fails(&client("no-such-host.invalid"), &["no-such-host.invalid", "not known"]);
    assert_fails(&client("127.0.0.1:9"), &["not paired", "wavry pair"]);
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let output = program("wavry")
        .arg("--config-dir")
        .arg(place.join("client"))
        .args(["pair", &address, "--pin", "000000"])
        .output()
        .unwrap();
    assert_fails(&output, &[&address, "no answer"]);
}

#[test]
fn three_wrong_pins_end_pairing() {
    let place = Place::new("pin");
    let host = Host::start(&place);
    assert_fails(&host.pair(&place, "12345"), &["six digits"]);
    for _ in 0..2 {
        assert_fails(&host.pair(&place, &host.wrong_pin()), &["wrong PIN", "attempts left"]);
    }
    assert_fails(&host.pair(&place, &host.wrong_pin()), &["wrong PIN", "--pair"]);
    assert_fails(&host.pair(&place, &host.pin), &["pairing mode"]);
    assert_fails(&host.ping(&place), &["not paired"]);
}

#[test]
fn garbage_on_the_port_hurts_nobody() {
    let place = Place::new("garbage");
    let mut host = Host::start(&place);
    assert_succeeds(&host.pair(&place, &host.pin));
    let attacker = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut random = fs::File::open("/dev/urandom").unwrap();
    let mut bytes = [0u8; 1500];
    for round in 0..3000usize {
        random.read_exact(&mut bytes).unwrap();
        // From nothing to whole headers with nonsense behind them.
        match round % 4 {
            0 => bytes[..4].copy_from_slice(&[0x52, 0x49, 0, 1]),
            1 => bytes[..8].copy_from_slice(&[0x52, 0x49, 0, 1, 0, 0, 0, 0]),
            _ => {}
        }
        attacker.send_to(&bytes[..round % 1473], &host.address).unwrap();
    }
    assert_succeeds(&host.ping(&place));
    host.running.signal("TERM");
    assert_eq!(host.running.exit_code(), Some(0));
}

#[test]
fn the_host_survives_a_client_that_vanishes_and_serves_the_next() {
    let place = Place::new("vanish");
    let mut host = Host::start(&place);
    assert_succeeds(&host.pair(&place, &host.pin));
    let vanishing = Running::start(host.client(&place, "60"));
    vanishing.wait_for("connected to ");
    std::thread::sleep(Duration::from_millis(300));
    vanishing.signal("KILL");
    drop(vanishing);
    // The same identity takes its place at once, and every frame is right.
    assert_succeeds(&host.client(&place, "2").output().unwrap());
    assert_succeeds(&host.client(&place, "1").output().unwrap());
    host.running.signal("INT");
    assert_eq!(host.running.exit_code(), Some(0));
}

#[test]
fn the_client_is_told_when_the_host_goes() {
    let place = Place::new("leave");
    let mut host = Host::start(&place);
    assert_succeeds(&host.pair(&place, &host.pin));
    let mut client = Running::start(host.client(&place, "60"));
    client.wait_for("connected to ");
    std::thread::sleep(Duration::from_millis(500));
    host.running.signal("TERM");
    assert_eq!(host.running.exit_code(), Some(0));
    client.wait_for("SHUTTING_DOWN");
    assert_eq!(client.exit_code(), Some(0));
}

#[test]
fn a_trace_that_cannot_be_written_is_named() {
    let place = Place::new("trace");
    let output = program("wavry-server")
        .args(["--listen", "127.0.0.1:0", "--source", "test:320x192", "--duration", "1", "--trace"])
        .arg(place.join("no/such/directory/trace.csv"))
        .arg("--config-dir")
        .arg(place.join("host"))
        .output()
        .unwrap();
    assert_fails(&output, &["trace.csv"]);
}

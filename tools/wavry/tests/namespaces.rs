//! The real programs on two machines: a stream over `AF_XDP`, from one network namespace to another.
//!
//! Needs root and the programs built: `cargo build --workspace --bins`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, wherever in it that happens")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use wavry_netns::{Namespace, cable, unavailable};

/// A program in a namespace; its output is read to the end by whoever holds it.
fn program(at: &Namespace, name: &str) -> Command {
    let path = Path::new(env!("CARGO_BIN_EXE_wavry")).with_file_name(name);
    assert!(path.is_file(), "{name} is not built: cargo build --workspace --bins");
    let mut command = at.command(path);
    command.stdin(Stdio::null()).env("WAVRY_LOG", "info").env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
    command
}

/// A directory of its own, removed at the end.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Killed at the end of the test, if it still runs.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The rest of the first line with `marker`.
fn wait_for(lines: &mut impl Iterator<Item = std::io::Result<String>>, marker: &str) -> String {
    for line in lines.map_while(Result::ok) {
        if let Some((_, rest)) = line.split_once(marker) {
            return rest.to_owned();
        }
    }
    panic!("never said {marker:?}");
}

fn received_packets(at: &Namespace, device: &str) -> u64 {
    let path = format!("/sys/class/net/{device}/statistics/rx_packets");
    at.run("cat", &path).unwrap().trim().parse().unwrap()
}

/// UDP datagrams that reached a socket of the kernel's stack: `InDatagrams` of /proc/net/snmp.
fn kernel_datagrams(at: &Namespace) -> u64 {
    let snmp = at.run("cat", "/proc/net/snmp").unwrap();
    let numbers = snmp.lines().filter(|line| line.starts_with("Udp:")).nth(1).unwrap();
    numbers.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_stream_crosses_over_af_xdp() {
    if let Some(reason) = unavailable() {
        eprintln!("skipped: {reason}");
        return;
    }
    let place = Place(std::env::temp_dir().join(format!("wavry-namespaces-{}", std::process::id())));
    fs::create_dir_all(&place.0).unwrap();
    let (host, client) = (Namespace::new("host").unwrap(), Namespace::new("client").unwrap());
    cable((&host, "h0"), (&client, "c0"), 1).unwrap();
    host.ip("address add 10.78.0.1/24 dev h0").unwrap();
    client.ip("address add 10.78.0.2/24 dev c0").unwrap();

    let mut server = program(&host, "wavry-server");
    server.args(["--listen", "0.0.0.0:4810", "--source", "test:320x192", "--fps", "30", "--pair"]);
    // Named and tried: `auto` takes it.
    server.args(["--transport", "auto", "--interface", "h0", "--config-dir"]).arg(place.0.join("host"));
    let log = fs::File::create(place.0.join("host.log")).unwrap();
    let mut server = Running(server.stdout(Stdio::piped()).stderr(log).spawn().unwrap());
    let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
    let pin = wait_for(&mut lines, "Pairing PIN: ");
    let pin = pin.split_once('(').unwrap().0.trim();
    wait_for(&mut lines, "listens on ");
    let host_log = || fs::read_to_string(place.0.join("host.log")).unwrap();
    assert!(
        host_log().contains("transport: AF_XDP on h0 (driver veth, native mode, copy, 1 queue)"),
        "{}",
        host_log()
    );

    let mut pair = program(&client, "wavry");
    pair.arg("--config-dir").arg(place.0.join("client")).args(["pair", "10.78.0.1", "--pin", pin]);
    let paired = pair.output().unwrap();
    assert!(paired.status.success(), "{}", String::from_utf8_lossy(&paired.stderr));

    let before = (kernel_datagrams(&client), received_packets(&client, "c0"));
    let mut viewer = program(&client, "wavry-client");
    viewer.args(["10.78.0.1", "--headless", "--verify", "both", "--duration", "3"]);
    viewer.args(["--transport", "af-xdp", "--config-dir"]).arg(place.0.join("client"));
    let seen = viewer.output().unwrap();
    let log = String::from_utf8_lossy(&seen.stderr);
    assert!(seen.status.success(), "{log}");
    assert!(
        log.contains("transport: AF_XDP on c0 (driver veth, native mode, copy, 1 queue), as asked"),
        "{log}"
    );
    // The stream really came past the kernel's stack.
    let by_kernel = kernel_datagrams(&client) - before.0;
    let arrived = received_packets(&client, "c0") - before.1;
    assert!(
        arrived > 90 && by_kernel < 10,
        "{arrived} frames arrived, {by_kernel} datagrams through the kernel"
    );

    // A host that is killed leaves nothing behind, and the next one takes its place.
    server.0.kill().unwrap();
    server.0.wait().unwrap();
    for _ in 0..100 {
        if !host.ip("link show dev h0").unwrap().contains("prog/xdp") {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the killed host's program is still attached");
}

#[test]
fn without_privileges_the_host_says_which() {
    if let Some(reason) = unavailable() {
        eprintln!("skipped: {reason}");
        return;
    }
    let place = Place(std::env::temp_dir().join(format!("wavry-namespaces-p-{}", std::process::id())));
    fs::create_dir_all(&place.0).unwrap();
    let host = Namespace::new("plain").unwrap();
    host.ip("link add h0 type veth peer name h1").unwrap();
    host.ip("link set h0 up").unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_wavry")).with_file_name("wavry-server");
    let run = |transport: &str, capabilities: &str| {
        // Root in name, with no capability but these.
        let mut command = host.command("timeout");
        // A host that does not end by itself must not hold up the tests.
        command
            .args(["--kill-after=1", "20", "setpriv"])
            .args([format!("--bounding-set=-all{capabilities}"), format!("--inh-caps=-all{capabilities}")]);
        command.arg(&program);
        command.args(["--listen", "0.0.0.0:0", "--source", "test:320x192", "--duration", "0.2"]);
        command.args(["--transport", transport, "--interface", "h0", "--config-dir"]).arg(&place.0);
        let output = command.env("WAVRY_LOG", "info").output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (started, log) = run("af-xdp", "");
    assert!(!started && log.contains("CAP_BPF and CAP_NET_ADMIN are needed"), "{log}");
    // Where it is only preferred the host starts without, and says why.
    let (started, log) = run("auto", "");
    assert!(started && log.contains("transport: io_uring; AF_XDP cannot be used"), "{log}");
    // With the capabilities that the messages name it has all that it needs; the last one where packet memory is
    // more than the limit on locked memory.
    let (started, log) = run("af-xdp", ",+net_admin,+bpf,+net_raw,+ipc_lock");
    assert!(started && log.contains("transport: AF_XDP on h0"), "{log}");
}

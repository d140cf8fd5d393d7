//! What the programs say to bad input: a clear message each, and no panic.

use std::fs;
use std::io::Read;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::support::{Host, Place, assert_fails, assert_succeeds, program};

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
fn output_that_nobody_takes_ends_a_command_without_a_panic() {
    let place = Place::new("output");
    let keygen = |stdout: Stdio| {
        let mut command = program("wavry");
        command.arg("--config-dir").arg(place.join("keys")).arg("keygen");
        command.stdout(stdout).output().unwrap()
    };
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_fails(&keygen(full.into()), &["cannot write to standard output", "No space left"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let gone = keygen(writer.into());
    assert_eq!((gone.status.code(), gone.stderr), (Some(141), Vec::new()), "as other programs do");
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

//! What happens to a running stream when something fails: a program is killed or frozen, the disk is full.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Host, Place, Running, assert_fails, assert_succeeds, column, program};

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
fn a_host_that_vanishes_is_missed() {
    let place = Place::new("host-vanish");
    let host = Host::start(&place);
    assert_succeeds(&host.pair(&place, &host.pin));
    let mut command = host.client(&place, "60");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let client = command.spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    host.running.signal("KILL");
    let output = client.wait_with_output().unwrap();
    assert_fails(&output, &["does not answer any more", &host.address]);
}

/// A program that is stopped and goes on later sees its clock jump by that time.
#[test]
fn frozen_programs_go_on() {
    let place = Place::new("frozen");
    let mut host = Host::start(&place);
    assert_succeeds(&host.pair(&place, &host.pin));
    let trace = place.join("client.csv");
    let mut command = host.client(&place, "5");
    command.arg("--trace").arg(&trace);
    let mut client = Running::start(command);
    client.wait_for("connected to ");
    let second = Duration::from_secs(1);
    std::thread::sleep(second / 2);
    for frozen in [&host.running, &client] {
        frozen.signal("STOP");
        std::thread::sleep(second);
        frozen.signal("CONT");
        std::thread::sleep(second / 2);
    }
    client.wait_for("verified: every shown frame was right");
    assert_eq!(client.exit_code(), Some(0));
    assert_succeeds(&host.client(&place, "1").output().unwrap());
    host.running.signal("INT");
    assert_eq!(host.running.exit_code(), Some(0));

    // Frames were shown before, between and after the two stops, and at full rate in the end.
    let shown: Vec<u64> = column(&trace, "presented_us");
    let stops: Vec<usize> =
        (1..shown.len()).filter(|&i| shown[i].saturating_sub(shown[i - 1]) > 700_000).collect();
    assert!(stops.len() == 2, "gaps at {stops:?} of {} frames", shown.len());
    let after = &shown[stops[1]..];
    let span = Duration::from_micros(after[after.len() - 1] - after[0]).as_secs_f64();
    assert!(span > 0.5 && after.len() as f64 > span * 15.0, "{} frames in {span} s", after.len());
}

#[test]
fn output_that_nobody_can_take_ends_nothing() {
    let place = Place::new("output");
    let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let mut server = program("wavry-server");
    server
        .args(["--listen", "127.0.0.1:0", "--source", "test:320x192", "--pair", "--duration", "1"])
        .arg("--config-dir")
        .arg(place.join("host"))
        .env("WAVRY_LOG", "debug");
    let started = Instant::now();
    let status = server.stdout(full()).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(started.elapsed() >= Duration::from_secs(1), "it ended early");
}

/// A file system of 128 KiB, full but for what a test frees; gone with the value.
struct FullDisk<'a>(&'a Path);

impl<'a> FullDisk<'a> {
    /// `None`, and why on the terminal, where this user may not mount.
    fn mount(at: &'a Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=128k", "tmpfs"]).arg(at);
        match mount.stderr(Stdio::piped()).output() {
            Ok(output) if output.status.success() => {
                let disk = Self(at);
                disk.fill();
                Some(disk)
            }
            Ok(output) => {
                eprintln!(
                    "skipped: no file system can be mounted: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
                None
            }
            Err(error) => {
                eprintln!("skipped: mount(8) cannot be run: {error}");
                None
            }
        }
    }

    fn filler(&self) -> std::path::PathBuf {
        self.0.join("filler")
    }

    fn fill(&self) {
        let mut filler = File::options().create(true).append(true).open(self.filler()).unwrap();
        while filler.write_all(&[0; 512]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for FullDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_is_named_and_nothing_half_written_stays() {
    let place = Place::new("full-keys");
    let at = place.join("full");
    let Some(disk) = FullDisk::mount(&at) else { return };
    let keygen = || program("wavry").arg("--config-dir").arg(&at).arg("keygen").output().unwrap();
    assert_fails(&keygen(), &["identity", "No space left"]);
    disk.free();
    let made = keygen();
    assert_succeeds(&made);
    disk.fill();
    assert_eq!(keygen().stdout, made.stdout, "the identity is whole and read as before");

    // Pairing needs room on the client for the host's name.
    let host = Host::start(&place);
    let pair = || {
        let mut command = program("wavry");
        command.arg("--config-dir").arg(&at).args(["pair", &host.address, "--pin", &host.pin]);
        command.output().unwrap()
    };
    assert_fails(&pair(), &["could not be remembered", "No space left"]);
    let names: Vec<_> = fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().ends_with(".tmp")), "{names:?}");
}

#[test]
fn a_full_disk_ends_the_trace_and_not_the_stream() {
    let place = Place::new("full-trace");
    let at = place.join("full");
    let Some(_disk) = FullDisk::mount(&at) else { return };
    let mut host =
        Host::start_with(&place, &["--fps", "60", "--trace", at.join("host.csv").to_str().unwrap()]);
    assert_succeeds(&host.pair(&place, &host.pin));
    let mut command = host.client(&place, "4");
    command.arg("--trace").arg(at.join("client.csv"));
    let output = command.output().unwrap();
    assert_fails(&output, &["client.csv", "the stream goes on", "No space left", "is not complete"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let frames = said.split_once("every shown frame was right (").unwrap().1.split_once(' ').unwrap().0;
    assert!(frames.parse::<u32>().unwrap() > 120, "the stream ended with the trace: {said}");
    host.running.signal("INT");
    assert_eq!(host.running.exit_code(), Some(1), "the trace that was asked for is not there");
}

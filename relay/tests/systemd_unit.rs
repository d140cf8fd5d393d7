//! The unit file, as systemd itself reads and judges it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::PathBuf;
use std::process::{Command, Output};

/// Most that `systemd-analyze security` may find exposed, in tenths of 10. What is left is what the relay is there for:
/// sockets, real-time priority, and three capabilities until it has started.
const EXPOSURE_MAX: u32 = 25;

/// The unit with the program where it was built; removed when dropped.
struct Unit(PathBuf);

impl Unit {
    /// `None`, with the reason printed, without `systemd-analyze` of version 250 or newer.
    fn new(name: &str) -> Option<Self> {
        let version = Command::new("systemd-analyze").arg("--version").output();
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let number = version.ok().and_then(|text| text.split_whitespace().nth(1)?.parse::<u32>().ok());
        if number.is_none_or(|number| number < 250) {
            eprintln!("skipped: systemd-analyze of systemd 250 or newer is needed, and there is {number:?}");
            return None;
        }
        let directory = std::env::temp_dir().join(format!("wavry-relay-unit-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let text = include_str!("../systemd/wavry-relay.service");
        let text = text.replace("/usr/local/bin/wavry-relay", env!("CARGO_BIN_EXE_wavry-relay"));
        std::fs::write(directory.join("wavry-relay.service"), text).unwrap();
        Some(Self(directory))
    }

    fn path(&self) -> PathBuf {
        self.0.join("wavry-relay.service")
    }

    fn analyze(&self, arguments: &[&str]) -> Output {
        Command::new("systemd-analyze").args(arguments).arg(self.path()).output().unwrap()
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn systemd_understands_every_line() {
    let Some(unit) = Unit::new("verify") else { return };
    let arguments = ["verify", "--recursive-errors=one", "--man=no"];
    let output = unit.analyze(&arguments);
    assert!(output.status.success(), "{}", said(&output));
    assert!(!said(&output).contains("wavry-relay.service:"), "{}", said(&output));
    // It would say so if it did not.
    let text = std::fs::read_to_string(unit.path()).unwrap();
    std::fs::write(unit.path(), text.replace("NoNewPrivileges", "NoNewPriviledges")).unwrap();
    let output = unit.analyze(&arguments);
    assert!(said(&output).contains("NoNewPriviledges"), "{}", said(&output));
}

#[test]
fn little_is_exposed() {
    let Some(unit) = Unit::new("security") else { return };
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let output = unit.analyze(&["security", "--offline=true", "--no-pager", &threshold]);
    assert!(output.status.success(), "{}", said(&output));
    let text = std::fs::read_to_string(unit.path()).unwrap();
    std::fs::write(unit.path(), text.replace("CapabilityBoundingSet=", "#")).unwrap();
    let output = unit.analyze(&["security", "--offline=true", "--no-pager", &threshold]);
    assert!(!output.status.success(), "a unit that protects less is told apart: {}", said(&output));
}

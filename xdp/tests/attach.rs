//! Attaching the filter to a real device, and what is left of it afterwards.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Lan, skip};
use wavry_xdp::attach::{AttachError, Mode, ModeChoice, attach};
use wavry_xdp::filter::Filter;
use wavry_xdp::interface::Interface;

/// The lines of `ip link` about a device, which name an XDP program if it has one.
fn shows_program(lan: &Lan) -> bool {
    lan.left.ip("link show dev l0").unwrap().contains("prog/xdp")
}

#[test]
fn both_modes_attach_and_drop_detaches() {
    let Some(lan) = Lan::new(1).or_else(skip) else { return };
    lan.left.with(|| {
        let interface = Interface::named("l0").unwrap();
        let filter = Filter::load(4810, None).unwrap();
        for (choice, mode) in [
            (ModeChoice::Auto, Mode::Native),
            (ModeChoice::Only(Mode::Native), Mode::Native),
            (ModeChoice::Only(Mode::Generic), Mode::Generic),
        ] {
            assert!(!shows_program(&lan));
            let attachment = attach(filter.program(), &interface, choice).unwrap();
            assert_eq!(attachment.mode(), mode);
            assert!(attachment.fallback().is_none());
            assert!(shows_program(&lan));
            let second = attach(filter.program(), &interface, choice).unwrap_err();
            assert!(matches!(second, AttachError::Occupied { .. }), "{second}");
            drop(attachment);
        }
        assert!(!shows_program(&lan));
    });
}

#[test]
fn a_driver_without_native_mode_falls_back_and_says_so() {
    let Some(lan) = Lan::new(1).or_else(skip) else { return };
    // The loopback device has no native mode.
    lan.left.with(|| {
        let interface = Interface::named("lo").unwrap();
        let filter = Filter::load(4810, None).unwrap();
        let error = attach(filter.program(), &interface, ModeChoice::Only(Mode::Native)).unwrap_err();
        assert!(error.to_string().contains("does not have this mode"), "{error}");
        let attachment = attach(filter.program(), &interface, ModeChoice::Auto).unwrap();
        assert_eq!(attachment.mode(), Mode::Generic);
        assert!(attachment.fallback().is_some());
    });
}

/// Not a test by itself: the process that the next one kills.
#[test]
#[ignore = "started by killed_processes_leave_nothing_attached"]
fn hold_an_attachment() {
    let interface = Interface::named("l0").unwrap();
    let filter = Filter::load(4810, None).unwrap();
    let _attachment = attach(filter.program(), &interface, ModeChoice::Auto).unwrap();
    eprintln!("attached");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn killed_processes_leave_nothing_attached() {
    let Some(lan) = Lan::new(1).or_else(skip) else { return };
    let mut holder: Command = lan.left.command(std::env::current_exe().unwrap());
    let mut holder = holder
        .args(["--exact", "hold_an_attachment", "--ignored", "--nocapture"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("attached")), "the process ended early");
    assert!(shows_program(&lan));
    // SIGKILL: no code of the process runs after this.
    holder.kill().unwrap();
    holder.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(2);
    while shows_program(&lan) {
        assert!(Instant::now() < deadline, "the program is still attached");
        std::thread::sleep(Duration::from_millis(10));
    }
}

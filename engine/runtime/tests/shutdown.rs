//! Signals end a process that runs a transport: the first orderly, the second at once.
#![allow(missing_docs, unsafe_code, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use wavry_runtime::shutdown::{FORCED_EXIT_CODE, Shutdown};
use wavry_runtime::transport::Transport;
use wavry_runtime::uring::{UringUdp, UringUdpConfig};

const ROLE: &str = "WAVRY_RUNTIME_SHUTDOWN_ROLE";

/// Not a test by itself: what the other tests start as a process of its own.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let shutdown = Shutdown::install().unwrap();
    let mut udp = UringUdp::open(UringUdpConfig::new("127.0.0.1:0".parse().unwrap())).unwrap();
    shutdown.notify(udp.waker());
    println!("ready");
    while !shutdown.requested() {
        // No deadline: only the signal's wake-up ends it.
        udp.turn(None).unwrap();
    }
    println!("asked by {:?}", shutdown.signal());
    if role == "stubborn" {
        thread::sleep(Duration::from_secs(20));
    }
    println!("orderly");
}

fn start(role: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(ROLE, role)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    wait_for(&mut output, "ready");
    (child, output)
}

fn wait_for(output: &mut impl BufRead, what: &str) {
    let mut line = String::new();
    while output.read_line(&mut line).unwrap() > 0 {
        if line.contains(what) {
            return;
        }
        line.clear();
    }
    panic!("the child ended without saying {what:?}");
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: no pointers; the child has not been waited for, so its id is still its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

#[test]
fn the_first_signal_ends_orderly() {
    for (number, name) in [(libc::SIGTERM, "asked by Some(15)"), (libc::SIGINT, "asked by Some(2)")] {
        let (mut child, mut output) = start("willing");
        signal(&child, number);
        wait_for(&mut output, name);
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("orderly"), "{rest}");
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn the_second_signal_ends_at_once() {
    let (mut child, mut output) = start("stubborn");
    signal(&child, libc::SIGTERM);
    wait_for(&mut output, "asked by");
    let began = Instant::now();
    signal(&child, libc::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(FORCED_EXIT_CODE));
    assert!(began.elapsed() < Duration::from_secs(10));
}

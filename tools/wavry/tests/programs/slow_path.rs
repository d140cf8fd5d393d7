//! A stream over a path that is too slow for its picture: the real programs with an emulated network in between.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wavry_netem::Emulator;
use wavry_runtime::clock::Clock;
use wavry_runtime::uring::{UringUdp, UringUdpConfig};

use crate::support::{Host, Place, Running, assert_succeeds, column};

/// An emulated path to a host, on a thread of its own.
struct Path {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Path {
    /// Its time begins now.
    fn to(host: &str, scenario: &str) -> Self {
        let (host, scenario) = (host.parse().unwrap(), scenario.parse().unwrap());
        let over = Arc::new(AtomicBool::new(false));
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn({
            let over = Arc::clone(&over);
            move || {
                wavry_runtime::cores::raise_priority(true);
                let config = UringUdpConfig::new((Ipv4Addr::LOCALHOST, 0).into());
                let transport = UringUdp::open(UringUdpConfig { arrival_times: true, ..config }).unwrap();
                tell.send(wavry_runtime::transport::Transport::local_addr(&transport)).unwrap();
                let mut emulator = Emulator::new(transport, &scenario, 1, host, Clock.now());
                emulator.run(|_| over.load(Ordering::Acquire)).unwrap();
            }
        });
        Self { address: told.recv().unwrap(), over, thread: Some(thread) }
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Where the rate does not suffice for a picture it is coded smaller, and in full again when it does: the picture goes on
/// meanwhile, every shown one is right, and each change costs one keyframe.
#[test]
fn the_picture_becomes_smaller_and_large_again_without_a_freeze() {
    let place = Place::new("slow-path");
    let (host_trace, client_trace) = (place.join("host.csv"), place.join("client.csv"));
    let mut host = Host::start_with(
        &place,
        &[
            "--source",
            "test:640x384",
            "--fps",
            "60",
            "--bitrate-mbps",
            "3",
            "--trace",
            host_trace.to_str().unwrap(),
        ],
    );
    let path = Path::to(
        &host.address,
        "down rate 10Mbit/s delay 5ms queue 300ms; up delay 5ms;
         at 2s down rate 2.6Mbit/s; at 5s down rate 20Mbit/s",
    );
    host.address = path.address.to_string();
    assert_succeeds(&host.pair(&place, &host.pin));
    let mut command = host.client(&place, "18");
    command.arg("--trace").arg(&client_trace);
    let mut client = Running::start(command);
    client.wait_for("verified: every shown frame was right (");
    assert_eq!(client.exit_code(), Some(0));
    host.running.signal("INT");
    assert_eq!(host.running.exit_code(), Some(0));

    let mut widths = column(&host_trace, "width");
    let keyframes: u64 = column(&host_trace, "keyframe").iter().sum();
    widths.dedup();
    assert_eq!(widths, [640, 480, 640], "{keyframes} keyframes");
    assert_eq!(keyframes, 3, "the first, and one for each change");
    let presented = column(&client_trace, "presented_us");
    let longest = presented.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest < 400_000, "nothing new for {longest} us");
}

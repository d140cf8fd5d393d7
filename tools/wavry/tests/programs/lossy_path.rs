//! A stream over a path that loses, repeats and damages datagrams: the real programs with a bad network in between.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Host, Place, Running, assert_succeeds, column};

/// Forwards between one client and a host, and is as bad as it is told to be.
struct BadPath {
    address: SocketAddr,
    bad: Arc<AtomicBool>,
    cut: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    forwarder: Option<std::thread::JoinHandle<()>>,
}

impl BadPath {
    fn to(host: &str) -> Self {
        let (near, far) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        far.connect(host).unwrap();
        for socket in [&near, &far] {
            socket.set_nonblocking(true).unwrap();
        }
        let address = near.local_addr().unwrap();
        let [bad, cut, over] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
        let switches = [&bad, &cut, &over].map(Arc::clone);
        let forwarder = std::thread::spawn(move || forward(&near, &far, &switches));
        Self { address, bad, cut, over, forwarder: Some(forwarder) }
    }
}

impl Drop for BadPath {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.forwarder.take().map(std::thread::JoinHandle::join);
    }
}

fn forward(near: &UdpSocket, far: &UdpSocket, [bad, cut, over]: &[Arc<AtomicBool>; 3]) {
    let mut rng = fastrand::Rng::with_seed(11);
    let mut client = None;
    let mut bytes = [0u8; 2048];
    while !over.load(Ordering::Relaxed) {
        let mut idle = true;
        while let Ok((len, from)) = near.recv_from(&mut bytes) {
            idle = false;
            client = Some(from);
            let _ = far.send(&bytes[..len]);
        }
        while let Ok(len) = far.recv(&mut bytes) {
            idle = false;
            let Some(client) = client else { continue };
            if cut.load(Ordering::Relaxed) {
                continue;
            }
            let fate = if bad.load(Ordering::Relaxed) { rng.u8(..100) } else { u8::MAX };
            match fate {
                0..2 => continue,
                2 => bytes[rng.usize(..len)] ^= 1 << rng.u8(..8),
                3 => {
                    let _ = near.send_to(&bytes[..len], client);
                }
                _ => {}
            }
            let _ = near.send_to(&bytes[..len], client);
        }
        if idle {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Two in a hundred datagrams lost, one damaged, one repeated, and twice nothing at all for 150 ms: every shown frame
/// is right, the stream goes on, and the only keyframe is the first.
#[test]
fn losses_cost_no_keyframe() {
    let place = Place::new("lossy");
    let trace = place.join("host.csv");
    let mut host = Host::start_with(&place, &["--trace", trace.to_str().unwrap()]);
    let path = BadPath::to(&host.address);
    host.address = path.address.to_string();
    assert_succeeds(&host.pair(&place, &host.pin));
    let mut client = Running::start(host.client(&place, "5"));
    client.wait_for("connected to ");
    path.bad.store(true, Ordering::Relaxed);
    let started = Instant::now();
    // Late enough for the first long-term reference to be acknowledged.
    for at_ms in [1500, 3000] {
        std::thread::sleep(Duration::from_millis(at_ms).saturating_sub(started.elapsed()));
        path.cut.store(true, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(150));
        path.cut.store(false, Ordering::Relaxed);
    }
    let frames = client.wait_for("verified: every shown frame was right (");
    let frames: u32 = frames.split_once(' ').unwrap().0.parse().unwrap();
    assert_eq!(client.exit_code(), Some(0));
    assert!(frames > 100, "{frames} frames in 5 s");
    host.running.signal("INT");
    assert_eq!(host.running.exit_code(), Some(0));
    let keyframes: Vec<u64> = column(&trace, "keyframe");
    assert_eq!(keyframes.iter().sum::<u64>(), 1, "of {} frames", keyframes.len());
}

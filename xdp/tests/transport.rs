//! The transport between two machines on a cable, against the kernel's own UDP and against itself.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use support::{Lan, skip};
use wavry_netns::Namespace;
use wavry_runtime::clock::Clock;
use wavry_runtime::transport::{Ecn, TrafficClass, Transmit, Transport};
use wavry_runtime::uring::{OpenError, UringUdp, UringUdpConfig};
use wavry_xdp::attach::{Mode, ModeChoice};
use wavry_xdp::interface::Interface;
use wavry_xdp::udp::{XdpError, XdpUdp, XdpUdpConfig};

const PATIENCE: Duration = Duration::from_secs(10);

fn open(device: &str, bind: &str, busy_poll: bool, mode: ModeChoice) -> XdpUdp {
    let config = XdpUdpConfig {
        udp: UringUdpConfig { busy_poll, ..UringUdpConfig::new(bind.parse().unwrap()) },
        interface: Interface::named(device).unwrap(),
        vlan: None,
        mode,
    };
    // The tests beside this one start programs, and a child has copies of all descriptors until it executes its
    // program: a port that was just closed can be in use for that long.
    let end = Instant::now() + PATIENCE;
    loop {
        match XdpUdp::open(&config) {
            Err(XdpError::Udp(OpenError::PortInUse { .. })) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened.unwrap(),
        }
    }
}

fn socket(at: &Namespace, bind: &str) -> UdpSocket {
    let socket = at.with(|| UdpSocket::bind(bind).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Turns until `count` datagrams were received or patience is over: sender, ECN, payload of each.
fn receive(transport: &mut impl Transport, count: usize) -> Vec<(SocketAddr, Ecn, Vec<u8>)> {
    let end = Instant::now() + PATIENCE;
    let mut received = Vec::new();
    while received.len() < count && Instant::now() < end {
        transport.turn(Some(Clock.now() + 50_000_000)).unwrap();
        while let Some(batch) = transport.poll_receive() {
            let (from, ecn) = (batch.from, batch.ecn);
            received.extend(batch.datagrams().map(|datagram| (from, ecn, datagram.to_vec())));
        }
    }
    received
}

fn send(transport: &mut impl Transport, tx: impl FnOnce(&mut [u8]) -> Transmit) {
    let mut slot = transport.acquire().unwrap();
    let tx = tx(&mut slot);
    transport.commit(slot, tx);
    transport.flush().unwrap();
}

/// Sends until it goes directly, which it does as soon as the kernel knows the neighbour.
fn send_directly(transport: &mut XdpUdp, to: SocketAddr, payload: &[u8]) {
    let end = Instant::now() + PATIENCE;
    while transport.bypassed().sends == 0 {
        assert!(Instant::now() < end, "nothing was sent directly: {transport:?}");
        send(transport, |slot| {
            slot[..payload.len()].copy_from_slice(payload);
            Transmit::datagram(to, payload.len())
        });
        transport.turn(Some(Clock.now() + 10_000_000)).unwrap();
    }
}

#[test]
fn datagrams_go_both_ways_directly() {
    let Some(lan) = Lan::new(1).or_else(skip) else { return };
    for (mode, reached) in
        [(ModeChoice::Auto, Mode::Native), (ModeChoice::Only(Mode::Generic), Mode::Generic)]
    {
        for busy in [false, true] {
            for (left, right) in [("10.77.0.1:4810", "10.77.0.2:5000"), ("[fd77::1]:4810", "[fd77::2]:5000")]
            {
                let peer = socket(&lan.right, right);
                lan.left.with(|| {
                    let mut xdp = open("l0", "[::]:4810", busy, mode);
                    let summary = xdp.summary().clone();
                    assert_eq!((summary.mode, summary.queues, summary.zero_copy), (reached, 1, false));
                    assert_eq!(summary.driver, "veth");

                    let (left, right): (SocketAddr, SocketAddr) =
                        (left.parse().unwrap(), right.parse().unwrap());
                    peer.send_to(b"to the left", left).unwrap();
                    assert_eq!(receive(&mut xdp, 1), [(right, Ecn::NotEct, b"to the left".to_vec())]);
                    assert_eq!(xdp.bypassed().datagrams, 1, "{xdp:?}");

                    send_directly(&mut xdp, right, b"to the right");
                    let mut buffer = [0; 64];
                    let (len, from) = peer.recv_from(&mut buffer).unwrap();
                    assert_eq!((&buffer[..len], from), (&b"to the right"[..], left));
                    assert_eq!(xdp.counters().send_errors.total(), 0);
                });
            }
        }
    }
}

#[test]
fn batches_are_cut_and_arrive_whole_and_marked() {
    let Some(lan) = Lan::new(1).or_else(skip) else { return };
    let (left, right) = ("10.77.0.1:4810".parse().unwrap(), "10.77.0.2:4810".parse().unwrap());
    let ready = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        // Receives by the kernel's UDP, and sends GSO batches back.
        let echo = scope.spawn(|| {
            lan.right.with(|| {
                let mut uring = UringUdp::open(UringUdpConfig::new("0.0.0.0:4810".parse().unwrap())).unwrap();
                ready.wait();
                let mut got = Vec::new();
                // The first went ahead to make the neighbours known.
                while got.len() < 55 {
                    let more = receive(&mut uring, 1);
                    assert!(!more.is_empty(), "{} arrived: {uring:?}", got.len());
                    got.extend(more.into_iter().filter(|(_, _, payload)| payload != b"hello"));
                }
                send(&mut uring, |slot| {
                    slot[..64_000].fill(0x3c);
                    Transmit { ecn: Ecn::Ect1, ..Transmit::batch(left, 64_000, 1200) }
                });
                uring.turn(Some(Clock.now() + 100_000_000)).unwrap();
                got
            })
        });
        lan.left.with(|| {
            let mut xdp = open("l0", "10.77.0.1:4810", false, ModeChoice::Auto);
            ready.wait();
            send_directly(&mut xdp, right, b"hello");
            let before = *xdp.bypassed();
            let expected: Vec<u8> = (0..54 * 1200 + 700).map(|i| (i % 251) as u8).collect();
            send(&mut xdp, |slot| {
                slot[..expected.len()].copy_from_slice(&expected);
                Transmit {
                    class: TrafficClass::Af41,
                    ecn: Ecn::Ect0,
                    ..Transmit::batch(right, expected.len(), 1200)
                }
            });
            assert_eq!(xdp.bypassed().segments - before.segments, 55, "{xdp:?}");
            let back = receive(&mut xdp, 54);
            assert_eq!(back.iter().map(|(_, _, payload)| payload.len()).sum::<usize>(), 64_000);
            assert!(back.iter().all(|(from, ecn, payload)| {
                *from == right && *ecn == Ecn::Ect1 && payload.iter().all(|&byte| byte == 0x3c)
            }));
            assert_eq!(xdp.bypassed().datagrams, 54, "all came directly: {xdp:?}");

            let got = echo.join().unwrap();
            assert!(got.iter().all(|(from, ecn, _)| *from == left && *ecn == Ecn::Ect0));
            let joined: Vec<u8> = got.into_iter().flat_map(|(_, _, payload)| payload).collect();
            assert!(joined == expected, "bytes or order differ");
        });
    });
}

#[test]
fn two_of_them_stream_to_each_other_on_several_queues() {
    let Some(lan) = Lan::new(2).or_else(skip) else { return };
    const COUNT: u32 = 20_000;
    let ready = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            lan.right.with(|| {
                let mut xdp = open("r0", "[::]:4810", false, ModeChoice::Auto);
                assert_eq!(xdp.summary().queues, 2);
                ready.wait();
                let mut next = 0;
                let end = Instant::now() + PATIENCE;
                while next < COUNT && Instant::now() < end {
                    xdp.turn(Some(Clock.now() + 50_000_000)).unwrap();
                    let mut last = None;
                    while let Some(batch) = xdp.poll_receive() {
                        last = Some(batch.from);
                        for datagram in batch.datagrams() {
                            if datagram.len() == 1000 {
                                assert_eq!(u32::from_be_bytes(*datagram.first_chunk().unwrap()), next);
                                next += 1;
                            }
                        }
                    }
                    // Acknowledges, so that the sender never has more in flight than the rings hold.
                    if let Some(to) = last {
                        send(&mut xdp, |slot| {
                            slot[..4].copy_from_slice(&next.to_be_bytes());
                            Transmit::datagram(to, 4)
                        });
                    }
                }
                assert_eq!(next, COUNT, "{xdp:?}");
                *xdp.bypassed()
            })
        });
        let sent = lan.left.with(|| {
            ready.wait();
            let to: SocketAddr = "[fd77::2]:4810".parse().unwrap();
            let mut xdp = open("l0", "[::]:4810", false, ModeChoice::Auto);
            send_directly(&mut xdp, to, b"hello");
            let (mut next, mut acknowledged) = (0u32, 0u32);
            let end = Instant::now() + PATIENCE;
            while acknowledged < COUNT && Instant::now() < end {
                while next < COUNT && next - acknowledged < 256 {
                    let Some(mut slot) = xdp.acquire() else { break };
                    slot[..1000].fill(7);
                    slot[..4].copy_from_slice(&next.to_be_bytes());
                    xdp.commit(slot, Transmit::datagram(to, 1000));
                    next += 1;
                }
                xdp.turn(Some(Clock.now() + 50_000_000)).unwrap();
                while let Some(batch) = xdp.poll_receive() {
                    for datagram in batch.datagrams() {
                        let number = u32::from_be_bytes(*datagram.first_chunk().unwrap());
                        acknowledged = acknowledged.max(number);
                    }
                }
            }
            assert_eq!(acknowledged, COUNT, "{xdp:?}");
            *xdp.bypassed()
        });
        let received = receiver.join().unwrap();
        // Nearly all of it: a datagram now and then goes through the kernel to confirm the neighbour.
        assert!(sent.segments >= u64::from(COUNT) - 10, "{sent:?}");
        assert!(received.datagrams >= u64::from(COUNT) - 10, "{received:?}");
    });
}

#[test]
fn a_vlan_is_streamed_in_tagged_frames() {
    let Some(lan) = Lan::new(1).or_else(skip) else { return };
    for (machine, device, number) in [(&lan.left, "l0", 1), (&lan.right, "r0", 2)] {
        let added = machine.ip(&format!("link add link {device} name {device}.9 type vlan id 9"));
        if let Err(error) = added {
            eprintln!("skipped: this kernel has no VLAN devices ({error})");
            return;
        }
        machine.ip(&format!("address add 10.99.0.{number}/24 dev {device}.9")).unwrap();
        machine.ip(&format!("link set {device}.9 up")).unwrap();
        // veth would carry the tag beside the frame, where an XDP program does not see it.
        machine.run("ethtool", &format!("-K {device} txvlan off rxvlan off")).unwrap();
    }
    let peer = socket(&lan.right, "10.99.0.2:5000");
    lan.left.with(|| {
        let mut xdp = open("l0.9", "[::]:4810", false, ModeChoice::Auto);
        assert_eq!((xdp.summary().interface.as_str(), xdp.summary().vlan), ("l0", Some(9)));
        peer.send_to(b"tagged", "10.99.0.1:4810").unwrap();
        let right = "10.99.0.2:5000".parse().unwrap();
        assert_eq!(receive(&mut xdp, 1), [(right, Ecn::NotEct, b"tagged".to_vec())]);
        assert_eq!(xdp.bypassed().datagrams, 1, "{xdp:?}");
        send_directly(&mut xdp, right, b"back");
        let mut buffer = [0; 64];
        let (len, from) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from), (&b"back"[..], "10.99.0.1:4810".parse().unwrap()));
    });
}

#[test]
fn tagged_frames_go_both_ways() {
    let Some(lan) = Lan::new(1).or_else(skip) else { return };
    let tagged = |device, vlan| {
        XdpUdp::open(&XdpUdpConfig {
            udp: UringUdpConfig::new("[::]:4810".parse().unwrap()),
            interface: Interface::named(device).unwrap(),
            vlan,
            mode: ModeChoice::Auto,
        })
        .unwrap()
    };
    // The kernel would ask for its neighbours in frames without a tag; here it need not ask.
    for (machine, device, own, other) in [(&lan.left, "l0", 1, 2), (&lan.right, "r0", 2, 1)] {
        machine.ip(&format!("link set {device} address 02:00:00:00:00:0{own}")).unwrap();
        for ip in ["10.77.0", "fd77:"] {
            let separator = if ip.ends_with(':') { ":" } else { "." };
            let neighbour = format!("{ip}{separator}{other} lladdr 02:00:00:00:00:0{other}");
            machine.ip(&format!("neigh replace {neighbour} dev {device} nud permanent")).unwrap();
        }
    }
    let ready = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| {
            lan.right.with(|| {
                let mut xdp = tagged("r0", Some(9));
                ready.wait();
                let end = Instant::now() + PATIENCE;
                let mut wanted = 2;
                while wanted > 0 && Instant::now() < end {
                    for (from, ecn, payload) in receive(&mut xdp, 1) {
                        if payload == b"tagged" {
                            wanted -= 1;
                            send(&mut xdp, |slot| {
                                slot[..4].copy_from_slice(b"back");
                                Transmit { ecn, ..Transmit::datagram(from, 4) }
                            });
                        }
                    }
                }
                // Until the answers have left.
                xdp.turn(Some(Clock.now() + 20_000_000)).unwrap();
                (xdp.bypassed().datagrams, xdp.bypassed().sends)
            })
        });
        lan.left.with(|| {
            ready.wait();
            let mut xdp = tagged("l0", Some(9));
            for right in ["10.77.0.2:4810", "[fd77::2]:4810"] {
                let right: SocketAddr = right.parse().unwrap();
                xdp.turn(Some(Clock.now() + 5_000_000)).unwrap();
                send(&mut xdp, |slot| {
                    slot[..6].copy_from_slice(b"tagged");
                    Transmit::datagram(right, 6)
                });
                assert_eq!(receive(&mut xdp, 1), [(right, Ecn::NotEct, b"back".to_vec())]);
            }
            assert_eq!((xdp.bypassed().datagrams, xdp.bypassed().sends), (2, 2), "{xdp:?}");
        });
        assert_eq!(echo.join().unwrap(), (2, 2));
    });
    // An end without the tag hears nothing of the other directly.
    let untagged = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            lan.right.with(|| {
                let mut xdp = tagged("r0", None);
                untagged.wait();
                assert!(receive_for(&mut xdp, Duration::from_millis(300)).is_empty());
            });
        });
        lan.left.with(|| {
            let mut xdp = tagged("l0", Some(9));
            untagged.wait();
            send_directly(&mut xdp, "10.77.0.2:4810".parse().unwrap(), b"tagged");
        });
    });
}

/// What arrives directly in a span of time.
fn receive_for(xdp: &mut XdpUdp, span: Duration) -> Vec<Vec<u8>> {
    let end = Instant::now() + span;
    let before = xdp.bypassed().datagrams;
    let mut received = Vec::new();
    while Instant::now() < end {
        xdp.turn(Some(Clock.now() + 20_000_000)).unwrap();
        while let Some(batch) = xdp.poll_receive() {
            received.extend(batch.datagrams().map(|datagram| datagram.to_vec()));
        }
    }
    if xdp.bypassed().datagrams == before { Vec::new() } else { received }
}

#[test]
fn the_rest_of_the_machine_does_not_notice() {
    let Some(lan) = Lan::new(1).or_else(skip) else { return };
    let peer = socket(&lan.right, "10.77.0.2:5000");
    let other = socket(&lan.left, "10.77.0.1:4811");
    let local = socket(&lan.left, "127.0.0.1:5001");
    lan.left.with(|| {
        let mut xdp = open("l0", "0.0.0.0:4810", false, ModeChoice::Auto);
        let port = |port| SocketAddr::from(([10, 77, 0, 1], port));
        let right = peer.local_addr().unwrap();

        // Another port, TCP and ICMP belong to the kernel.
        peer.send_to(b"other port", port(4811)).unwrap();
        let mut buffer = [0; 4096];
        assert_eq!(other.recv_from(&mut buffer).unwrap(), (10, right));
        let listener = std::net::TcpListener::bind(port(4810)).unwrap();
        lan.right.with(|| std::net::TcpStream::connect_timeout(&port(4810), PATIENCE).unwrap());
        drop(listener);
        assert_eq!(xdp.bypassed().datagrams, 0);

        // Fragments come through the kernel, whole; and what is larger than the MTU leaves through it, where it
        // is refused as on any socket of the engine.
        let large: Vec<u8> = (0..3000).map(|i| (i % 253) as u8).collect();
        peer.send_to(&large, port(4810)).unwrap();
        assert_eq!(receive(&mut xdp, 1), [(right, Ecn::NotEct, large.clone())]);
        assert_eq!(xdp.bypassed().datagrams, 0, "{xdp:?}");
        send_directly(&mut xdp, right, b"small");
        send(&mut xdp, |_| Transmit::datagram(right, 3000));
        xdp.turn(Some(Clock.now() + 20_000_000)).unwrap();
        let refused = xdp.poll_send_error().unwrap();
        assert_eq!(refused.kind, wavry_runtime::counters::SendErrorKind::TooBig);

        // A peer on the loopback device is reached, though no frame to it leaves.
        let before = xdp.bypassed().sends;
        send(&mut xdp, |slot| {
            slot[..5].copy_from_slice(b"local");
            Transmit::datagram(local.local_addr().unwrap(), 5)
        });
        xdp.turn(Some(Clock.now() + 20_000_000)).unwrap();
        assert_eq!(local.recv_from(&mut buffer).unwrap().0, 5);
        assert_eq!(xdp.bypassed().sends, before);
    });
}

#[test]
fn wakers_and_deadlines_end_a_turn() {
    let Some(lan) = Lan::new(1).or_else(skip) else { return };
    for busy in [false, true] {
        lan.left.with(|| {
            let mut xdp = open("l0", "[::]:0", busy, ModeChoice::Auto);
            let started = Instant::now();
            while started.elapsed() < Duration::from_millis(30) {
                assert_eq!(xdp.turn(Some(Clock.now() + 30_000_000)).unwrap(), Default::default());
            }
            let waker = xdp.waker();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(20));
                    waker.wake();
                });
                let deadline = Clock.now() + 5_000_000_000;
                while !xdp.turn(Some(deadline)).unwrap().woken {
                    assert!(Clock.now() < deadline, "the waker was not noticed");
                }
            });
            // A wake-up before the turn is not lost either.
            xdp.waker().wake();
            assert!(xdp.turn(Some(Clock.now() + 5_000_000_000)).unwrap().woken);
        });
    }
}

#[test]
fn a_neighbour_that_moves_is_followed() {
    let Some(lan) = Lan::new(1).or_else(skip) else { return };
    lan.left.with(|| {
        let mut xdp = open("l0", "[::]:4810", false, ModeChoice::Auto);
        let to: SocketAddr = "10.77.0.2:5000".parse().unwrap();
        let peer = socket(&lan.right, "10.77.0.2:5000");
        send_directly(&mut xdp, to, b"one");
        let mut buffer = [0; 64];
        peer.recv_from(&mut buffer).unwrap();
        while {
            peer.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            peer.recv_from(&mut buffer).is_ok()
        } {}
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        // Another machine takes over the address: it announces itself, and the kernel's table changes.
        lan.right.ip("link set r0 address 02:00:00:00:00:77").unwrap();
        lan.left.ip("neigh replace 10.77.0.2 lladdr 02:00:00:00:00:77 dev l0 nud reachable").unwrap();
        let before = xdp.bypassed().sends;
        for _ in 0..3 {
            xdp.turn(Some(Clock.now() + 5_000_000)).unwrap();
        }
        send(&mut xdp, |slot| {
            slot[..3].copy_from_slice(b"two");
            Transmit::datagram(to, 3)
        });
        xdp.turn(Some(Clock.now() + 5_000_000)).unwrap();
        assert_eq!(xdp.bypassed().sends, before + 1, "directly: {xdp:?}");
        let (len, _) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"two");
    });
}

#[test]
fn errors_say_what_to_do() {
    let Some(lan) = Lan::new(1).or_else(skip) else { return };
    lan.left.with(|| {
        let config = |device| XdpUdpConfig {
            udp: UringUdpConfig::new("[::]:4810".parse().unwrap()),
            interface: Interface::named(device).unwrap(),
            vlan: None,
            mode: ModeChoice::Auto,
        };
        let error = XdpUdp::open(&config("lo")).unwrap_err();
        assert!(error.to_string().contains("name the device that leads to the network"), "{error}");
        let _first = XdpUdp::open(&config("l0")).unwrap();
        let second = XdpUdpConfig { udp: UringUdpConfig::new("[::]:0".parse().unwrap()), ..config("l0") };
        let error = XdpUdp::open(&second).unwrap_err();
        assert!(error.to_string().contains("already has an XDP program"), "{error}");
    });
}

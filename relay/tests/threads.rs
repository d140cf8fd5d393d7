//! Several forwarding threads, each with a socket on the same port: a session lives on one of them, whichever addresses
//! its peers have. And what a relay keeps of a datagram's marks.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[allow(dead_code, reason = "others use more of it")]
mod lab;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use rift_relay::link::Link;
use rift_relay::wire::Role;
use wavry_runtime::clock::Clock;
use wavry_runtime::transport::{Ecn, TrafficClass, Transmit, Transport};
use wavry_runtime::uring::{UringUdp, UringUdpConfig};

use lab::{Lab, PORT, talk};

const THREADS: u64 = 4;
const SESSIONS: u8 = 12;

/// Were datagrams spread by address, as the kernel does without being told otherwise, the two peers of a session would
/// mostly come to different threads, and hardly any session would come up.
#[test]
fn a_session_lives_on_one_thread_and_moves_with_its_peers() {
    let Some(lab) = Lab::new(&format!("threads = {THREADS}")) else { return };
    let mut pairs: Vec<_> = (1..=SESSIONS).map(|number| lab.pair(number, number % 3 == 0)).collect();
    for peers in &mut pairs {
        talk(peers, 20);
    }
    for thread in 0..THREADS {
        let sessions = lab.metric(&format!("wavry_relay_thread_sessions{{thread=\"{thread}\"}}"));
        assert_eq!(sessions, u64::from(SESSIONS) / THREADS, "thread {thread}: ids are counted up here");
    }
    assert_eq!(lab.metric("wavry_relay_sessions "), u64::from(SESSIONS));
    assert_eq!(lab.metric("wavry_relay_forwarded_datagrams_total"), u64::from(SESSIONS) * 40);

    // Another port, which the kernel would have spread to another thread.
    for [client, host] in &mut pairs {
        let ip = client.socket.local_addr().unwrap().ip();
        client.socket = lab.client.with(|| UdpSocket::bind((ip, 0)).unwrap());
        client.socket.set_nonblocking(true).unwrap();
        let begun = Instant::now();
        host.got.clear();
        while host.got.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(5), "a peer that moved is not found again");
            client.send(b"from elsewhere");
            std::thread::sleep(Duration::from_millis(20));
            client.pump();
            host.pump();
        }
    }
    for peers in &mut pairs {
        talk(peers, 5);
    }
    assert_eq!(lab.metric("wavry_relay_session_events_total{event=\"moved\"}"), u64::from(SESSIONS));
    assert_eq!(lab.metric("wavry_relay_sessions "), u64::from(SESSIONS), "none was made twice");
}

#[test]
fn threads_share_the_fast_path() {
    let extra = "threads = 3\nfast_path = \"xdp\"\ninterfaces = [\"r0\", \"r1\"]";
    let Some(lab) = Lab::new(extra) else { return };
    let mut pairs: Vec<_> = (1..=6).map(|number| lab.pair(number, false)).collect();
    // All peers are behind the same two neighbours.
    lab.wait_for_sessions(6, &mut pairs[0]);
    let before = lab.metric("wavry_relay_forwarded_datagrams_total");
    for peers in &mut pairs {
        talk(peers, 50);
    }
    assert_eq!(lab.metric("wavry_relay_forwarded_datagrams_total"), before, "userspace had nothing to do");
    for thread in 0..3 {
        assert_eq!(lab.metric(&format!("wavry_relay_thread_sessions{{thread=\"{thread}\"}}")), 2);
    }
}

#[test]
fn marks_of_a_datagram_are_kept() {
    let Some(lab) = Lab::new("fast_path = \"off\"") else { return };
    let (token, [client, host]) = lab.issuing.lease(1);
    let open = |ip: &str| UringUdp::open(UringUdpConfig::new(format!("{ip}:0").parse().unwrap())).unwrap();
    let marks = [
        (TrafficClass::Ef, Ecn::Ect1),
        (TrafficClass::BestEffort, Ecn::NotEct),
        (TrafficClass::Other(10), Ecn::Ce),
        (TrafficClass::Cs6, Ecn::Ect0),
    ];
    let end = Clock.now() + 10_000_000_000;
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            lab.host.enter().unwrap();
            let relay = format!("10.81.2.1:{PORT}");
            let mut host = Link::prepare(host, Role::Host, &relay, &token).unwrap().carry(open("10.81.2.2"));
            let mut got = Vec::new();
            while got.len() < marks.len() && Clock.now() < end {
                host.turn(Some(Clock.now() + 10_000_000)).unwrap();
                while let Some(batch) = host.poll_receive() {
                    let seen = (batch.class, batch.ecn);
                    if batch.count() > 0 && !got.contains(&seen) {
                        got.push(seen);
                    }
                }
            }
            got
        });
        lab.client.with(|| {
            let relay = format!("10.81.1.1:{PORT}");
            let mut link =
                Link::prepare(client, Role::Client, &relay, &token).unwrap().carry(open("10.81.1.2"));
            while !receiver.is_finished() && Clock.now() < end {
                for (class, ecn) in marks {
                    let slot = link.acquire().unwrap();
                    let to = relay.parse().unwrap();
                    link.commit(slot, Transmit { class, ecn, ..Transmit::datagram(to, 100) });
                }
                let due = Clock.now() + 20_000_000;
                while Clock.now() < due {
                    link.turn(Some(due)).unwrap();
                    while link.poll_receive().is_some() {}
                }
            }
        });
        let mut got = receiver.join().unwrap();
        got.sort_by_key(|(class, ecn)| marks.iter().position(|mark| *mark == (*class, *ecn)));
        assert_eq!(got, marks);
    });
}

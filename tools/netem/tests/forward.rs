//! Datagrams through an emulator on loopback: when they arrive, what they carry, and what is lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, wherever in it that happens")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rift_sim::Scenario;
use wavry_netem::{Emulator, Seen, unsupported};
use wavry_runtime::clock::Clock;
use wavry_runtime::transport::{Ecn, TrafficClass, Transmit, Transport as _};
use wavry_runtime::uring::{UringUdp, UringUdpConfig};

/// What arrived at one end: time in nanoseconds, first byte, mark, class.
type Arrival = (u64, u8, Ecn, TrafficClass);

fn open() -> UringUdp {
    UringUdp::open(UringUdpConfig::new((Ipv4Addr::LOCALHOST, 0).into())).unwrap()
}

fn send(from: &mut UringUdp, to: SocketAddr, bytes: &[u8], segment_len: usize) {
    let mut slot = from.acquire().unwrap();
    slot[..bytes.len()].copy_from_slice(bytes);
    let batch = Transmit::batch(to, bytes.len(), segment_len);
    from.commit(slot, Transmit { ecn: Ecn::Ect1, class: TrafficClass::Af41, ..batch });
    from.flush().unwrap();
}

/// Until `count` datagrams are there, or half a second has passed.
fn receive(at: &mut UringUdp, count: usize) -> Vec<Arrival> {
    let end = Clock.now() + 500_000_000;
    let mut arrivals = Vec::new();
    while arrivals.len() < count && Clock.now() < end {
        at.turn(Some(end)).unwrap();
        while let Some(batch) = at.poll_receive() {
            let (now, ecn, class) = (Clock.now(), batch.ecn, batch.class);
            arrivals.extend(batch.datagrams().map(|datagram| (now, datagram[0], ecn, class)));
        }
    }
    arrivals
}

/// Runs `ends` with a host, a client and the emulator's address between them.
fn between(scenario: &str, ends: impl FnOnce(&mut UringUdp, &mut UringUdp, SocketAddr)) -> Seen {
    let scenario: Scenario = scenario.parse().unwrap();
    assert_eq!(unsupported(&scenario), None);
    let (mut host, mut client, over) = (open(), open(), AtomicBool::new(false));
    let host_at = host.local_addr();
    let (tell, told) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let emulator = scope.spawn(|| {
            let config = UringUdpConfig { arrival_times: true, ..UringUdpConfig::new(open().local_addr()) };
            let transport = UringUdp::open(config).unwrap();
            tell.send(transport.local_addr()).unwrap();
            let mut emulator = Emulator::new(transport, &scenario, 1, host_at, Clock.now());
            emulator.run(|_| over.load(Ordering::Acquire)).unwrap();
            assert_eq!(emulator.unsent(), 0);
            emulator.seen()
        });
        let address = told.recv().unwrap();
        // The host learns where to answer to, and the emulator who the client is.
        send(&mut client, address, &[0], 1);
        assert_eq!(receive(&mut host, 1).len(), 1);
        ends(&mut host, &mut client, address);
        over.store(true, Ordering::Release);
        emulator.join().unwrap()
    })
}

/// A batch leaves as single datagrams, spaced by the link's rate, not before its delay has passed, with mark and
/// class as they were.
#[test]
fn a_batch_arrives_at_the_links_rate_and_after_its_delay() {
    let seen = between("down rate 8Mbit/s delay 20ms; up delay 1ms", |host, client, emulator| {
        let batch: Vec<u8> = (0..30_u8).flat_map(|number| [number; 972]).collect();
        let sent = Clock.now();
        send(host, emulator, &batch, 972);
        let arrivals = receive(client, 30);
        assert_eq!(arrivals.iter().map(|a| a.1).collect::<Vec<_>>(), (0..30).collect::<Vec<_>>());
        for (number, &(at, _, ecn, class)) in (1_u64..).zip(&arrivals) {
            assert_eq!((ecn, class), (Ecn::Ect1, TrafficClass::Af41));
            // 1000 bytes on the wire are 1 ms; time is counted in microseconds.
            let earliest = sent + number * 1_000_000 + 20_000_000 - 1_000;
            assert!(at >= earliest, "{number}: {} us early", (earliest - at) / 1000);
        }
        // The median's lateness: single threads may be held up.
        let mut late: Vec<_> = (1..).zip(&arrivals).map(|(n, a)| a.0 - sent - n * 1_000_000).collect();
        late.sort_unstable();
        assert!(late[15] < 25_000_000, "{} us for 20 ms", late[15] / 1000);
    });
    assert_eq!((seen.down.packets, seen.down.gone(), seen.up.packets), (30, 0, 1));
}

#[test]
fn what_the_queue_has_no_room_for_is_lost_and_marks_are_made() {
    let seen = between("down rate 8Mbit/s queue 5kB mark 0us 0us", |host, client, emulator| {
        let batch: Vec<u8> = (0..20_u8).flat_map(|number| [number; 972]).collect();
        send(host, emulator, &batch, 972);
        let arrivals = receive(client, 20);
        assert_eq!(arrivals.iter().map(|a| a.1).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert!(arrivals[1..].iter().all(|a| a.2 == Ecn::Ce), "{arrivals:?}");
    });
    assert_eq!(seen.down.queue_full, 15);
}

/// The link changes at its time, though nothing is under way then.
#[test]
fn the_timeline_changes_the_links() {
    between("down delay 1ms; at 1ms down delay 60ms", |host, client, emulator| {
        thread::sleep(std::time::Duration::from_millis(5));
        let sent = Clock.now();
        send(host, emulator, &[7], 1);
        let arrivals = receive(client, 1);
        assert!(arrivals[0].0 - sent >= 59_900_000, "{arrivals:?}");
    });
}

//! The ring transport over the loopback interface, through its public interface.
#![allow(missing_docs, clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use wavry_runtime::clock::Clock;
use wavry_runtime::counters::SendErrorKind;
use wavry_runtime::transport::{Ecn, MAX_SEGMENTS, TX_SLOT_LEN, TrafficClass, Transmit, Transport};
use wavry_runtime::uring::{OpenError, UringUdp, UringUdpConfig};

const V4: &str = "127.0.0.1:0";
const V6: &str = "[::1]:0";
const DUAL: &str = "[::]:0";

const PATIENCE_NS: u64 = 5_000_000_000;

fn config(bind: &str) -> UringUdpConfig {
    UringUdpConfig::new(bind.parse().unwrap())
}

fn open(bind: &str) -> UringUdp {
    UringUdp::open(config(bind)).unwrap()
}

/// Bytes that tell their place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 ^ (at / 1200) as u8).collect()
}

fn commit(udp: &mut UringUdp, bytes: &[u8], tx: Transmit) {
    let mut slot = udp.acquire().unwrap();
    slot[..bytes.len()].copy_from_slice(bytes);
    udp.commit(slot, tx);
}

struct Datagram {
    from: SocketAddr,
    to: Option<IpAddr>,
    ecn: Ecn,
    arrival_ns: Option<u64>,
    bytes: Vec<u8>,
}

/// Turns until `count` datagrams arrived.
fn receive(udp: &mut UringUdp, count: usize) -> Vec<Datagram> {
    let deadline = Clock.now() + PATIENCE_NS;
    let mut datagrams = Vec::new();
    while datagrams.len() < count {
        assert!(Clock.now() < deadline, "{} of {count} arrived; {:?}", datagrams.len(), udp.counters());
        udp.turn(Some(deadline)).unwrap();
        while let Some(batch) = udp.poll_receive() {
            let (from, to, ecn, arrival_ns) = (batch.from, batch.to, batch.ecn, batch.arrival_ns);
            for bytes in batch.datagrams() {
                datagrams.push(Datagram { from, to, ecn, arrival_ns, bytes: bytes.to_vec() });
            }
        }
    }
    assert_eq!(datagrams.len(), count);
    datagrams
}

fn at(ip: impl Into<IpAddr>, udp: &UringUdp) -> SocketAddr {
    SocketAddr::new(ip.into(), udp.local_addr().port())
}

#[test]
fn one_datagram_each_way_over_v4_and_v6() {
    for bind in [V4, V6] {
        let (mut a, mut b) = (open(bind), open(bind));
        for (sender, receiver) in [(0, 1), (1, 0)] {
            let both = [&mut a, &mut b];
            let (to, from) = (both[receiver].local_addr(), both[sender].local_addr());
            commit(both[sender], b"hello", Transmit::datagram(to, 5));
            both[sender].flush().unwrap();
            let got = receive(both[receiver], 1);
            assert_eq!((got[0].from, got[0].bytes.as_slice()), (from, b"hello".as_slice()));
            assert_eq!(got[0].to, Some(to.ip()));
            assert_eq!(got[0].ecn, Ecn::NotEct);
            assert_eq!(got[0].arrival_ns, None, "not asked for");
        }
    }
}

#[test]
fn a_dual_stack_socket_speaks_both_and_shows_plain_addresses() {
    let mut dual = open(DUAL);
    for (bind, ip) in [(V4, IpAddr::from(Ipv4Addr::LOCALHOST)), (V6, IpAddr::from(Ipv6Addr::LOCALHOST))] {
        let mut peer = open(bind);
        let to = at(ip, &dual);
        commit(&mut peer, &pattern(3000), Transmit::batch(to, 3000, 1200));
        peer.flush().unwrap();
        let got = receive(&mut dual, 3);
        assert_eq!(got[0].from, peer.local_addr());
        assert_eq!(got[0].to, Some(ip));

        let mut back = Transmit::batch(got[0].from, 3000, 1200);
        back.from = got[0].to;
        back.ecn = Ecn::Ect1;
        commit(&mut dual, &pattern(3000), back);
        dual.flush().unwrap();
        let answer = receive(&mut peer, 3);
        assert_eq!(answer[0].from, to, "answered from the address that was asked");
        assert_eq!(answer[2].ecn, Ecn::Ect1);
    }
}

#[test]
fn a_full_gso_batch_arrives_joined_with_every_byte_in_place() {
    for bind in [V4, V6] {
        let (mut a, mut b) = (open(bind), open(bind));
        let bytes = pattern(54 * 1200);
        commit(&mut a, &bytes, Transmit::batch(b.local_addr(), bytes.len(), 1200));
        a.flush().unwrap();
        let got = receive(&mut b, 54);
        for (datagram, expected) in got.iter().zip(bytes.chunks(1200)) {
            assert_eq!(datagram.bytes, expected);
        }
        assert_eq!((a.counters().sends, a.counters().segments), (1, 54));
        assert_eq!(a.counters().sent_bytes, 54 * 1200);
        assert_eq!((b.counters().receives, b.counters().datagrams), (1, 54), "GRO kept the batch whole");
        assert_eq!(b.counters().received_bytes, 54 * 1200);
    }
}

#[test]
fn segment_boundaries_survive_any_cut() {
    let (mut a, mut b) = (open(V4), open(V4));
    for (len, segment_len) in
        [(2500, 1000), (1001, 1000), (64, 1), (MAX_SEGMENTS * 1000, 1000), (2000, 1999), (700, 700), (5, 900)]
    {
        let bytes = pattern(len);
        commit(&mut a, &bytes, Transmit::batch(b.local_addr(), len, segment_len));
        a.flush().unwrap();
        let expected: Vec<&[u8]> = bytes.chunks(segment_len).collect();
        let got = receive(&mut b, expected.len());
        let got: Vec<&[u8]> = got.iter().map(|datagram| datagram.bytes.as_slice()).collect();
        assert_eq!(got, expected, "{len} in pieces of {segment_len}");
    }
}

#[test]
fn largest_and_empty_datagrams() {
    let (mut a, mut b) = (open(V4), open(V4));
    let bytes = pattern(TX_SLOT_LEN);
    commit(&mut a, &bytes, Transmit::datagram(b.local_addr(), bytes.len()));
    commit(&mut a, &[], Transmit::datagram(b.local_addr(), 0));
    commit(&mut a, b"end", Transmit::datagram(b.local_addr(), 3));
    a.flush().unwrap();
    let got = receive(&mut b, 2);
    assert_eq!(got[0].bytes, bytes);
    assert_eq!(got[1].bytes, b"end");
    assert_eq!(b.counters().receives, 3, "the empty one counts, and yields nothing");
}

#[test]
fn ecn_arrives_in_every_family() {
    let mut dual = open(DUAL);
    for (bind, ip) in [(V4, IpAddr::from(Ipv4Addr::LOCALHOST)), (V6, IpAddr::from(Ipv6Addr::LOCALHOST))] {
        let mut peer = open(bind);
        for ecn in [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce] {
            let mut tx = Transmit::datagram(at(ip, &dual), 1);
            tx.ecn = ecn;
            tx.class = TrafficClass::Ef;
            commit(&mut peer, b"x", tx);
            peer.flush().unwrap();
            assert_eq!(receive(&mut dual, 1)[0].ecn, ecn);
        }
    }
}

#[test]
fn each_traffic_class_is_in_the_ip_header() {
    for (sender_bind, receiver_bind) in [(V4, V4), (V6, V6), (DUAL, V4), (DUAL, V6)] {
        let mut sender = open(sender_bind);
        let receiver = UdpSocket::bind(receiver_bind).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        tos::enable(&receiver);
        let to = receiver.local_addr().unwrap();
        for class in [TrafficClass::BestEffort, TrafficClass::Af41, TrafficClass::Ef, TrafficClass::Cs6] {
            let mut tx = Transmit::datagram(to, 1);
            tx.class = class;
            tx.ecn = Ecn::Ect0;
            commit(&mut sender, b"x", tx);
            sender.flush().unwrap();
            assert_eq!(
                tos::receive(&receiver),
                class.tos(Ecn::Ect0),
                "{class:?} {sender_bind} {receiver_bind}"
            );
        }
    }
}

#[test]
fn a_burst_beyond_the_receive_ring_is_taken_in_pieces() {
    let mut udp = UringUdp::open(UringUdpConfig { rx_buffers: 4, ..config(V4) }).unwrap();
    let sender = UdpSocket::bind(V4).unwrap();
    // Arm the receive first, so that the burst meets it.
    udp.turn(Some(0)).unwrap();
    for number in 0..300u32 {
        sender.send_to(&number.to_ne_bytes(), udp.local_addr()).unwrap();
    }
    let numbers: Vec<u32> = receive(&mut udp, 300)
        .iter()
        .map(|datagram| u32::from_ne_bytes(*datagram.bytes.first_chunk().unwrap()))
        .collect();
    assert_eq!(numbers, (0..300).collect::<Vec<_>>(), "in order, none lost");
    assert!(udp.counters().receive_enobufs > 0, "the ring did run dry: {:?}", udp.counters());
    assert_eq!(udp.counters().receive_errors, 0);
}

#[test]
fn what_the_socket_dropped_is_known() {
    let mut udp = UringUdp::open(UringUdpConfig { receive_queue_bytes: 8192, ..config(V4) }).unwrap();
    let sender = UdpSocket::bind(V4).unwrap();
    for _ in 0..100 {
        sender.send_to(&[0; 1000], udp.local_addr()).unwrap();
    }
    let deadline = Clock.now() + PATIENCE_NS;
    let mut got = 0;
    while got + udp.counters().socket_drops < 101 && Clock.now() < deadline {
        // The count travels with the next datagram that is queued.
        sender.send_to(&[0; 10], udp.local_addr()).unwrap();
        udp.turn(Some(Clock.now() + 1_000_000)).unwrap();
        while udp.poll_receive().is_some() {
            got += 1;
        }
    }
    let drops = udp.counters().socket_drops;
    assert!((1..100).contains(&drops), "{drops} dropped, {got} received");
}

/// A frame of 1 MB: 17 GSO batches. One kernel entry sends it, and receiving it takes no more entries than
/// turns.
#[test]
fn a_burst_costs_one_kernel_entry_per_turn() {
    let (mut a, mut b) = (open(V4), open(V4));
    b.turn(Some(0)).unwrap();
    let bytes = pattern(54 * 1200);
    for _ in 0..17 {
        commit(&mut a, &bytes, Transmit::batch(b.local_addr(), bytes.len(), 1200));
    }
    assert_eq!(a.counters().syscalls, 0, "committing does not enter the kernel");
    a.flush().unwrap();
    assert_eq!(a.counters().syscalls, 1);
    a.flush().unwrap();
    assert_eq!(a.counters().syscalls, 1, "nothing to flush, nothing entered");

    let before = b.counters().syscalls;
    let (mut turns, mut datagrams) = (0, 0);
    while datagrams < 17 * 54 {
        turns += 1;
        b.turn(Some(Clock.now() + PATIENCE_NS)).unwrap();
        while let Some(batch) = b.poll_receive() {
            datagrams += batch.count();
        }
        assert!(turns <= 17, "{datagrams} datagrams in {turns} turns");
    }
    let entries = b.counters().syscalls - before;
    assert!(entries <= turns, "{entries} entries in {turns} turns");
    assert!(entries <= 6, "17 batches were waiting, and an entry brings at least 4: {entries} entries");
}

#[test]
fn sending_and_waiting_share_one_kernel_entry() {
    let (mut a, mut b) = (open(V4), open(V4));
    b.turn(Some(0)).unwrap();
    commit(&mut a, b"ping", Transmit::datagram(b.local_addr(), 4));
    let before = a.counters().syscalls;
    a.turn(Some(Clock.now() + 3_000_000)).unwrap();
    assert_eq!(a.counters().syscalls - before, 1, "a successful send does not end the wait");
    assert_eq!(receive(&mut b, 1)[0].bytes, b"ping");
}

#[test]
fn a_turn_sleeps_until_its_deadline() {
    for busy_poll in [false, true] {
        let mut udp = UringUdp::open(UringUdpConfig { busy_poll, ..config(V4) }).unwrap();
        udp.turn(Some(0)).unwrap();
        let late = (0..20).map(|_| {
            let deadline = Clock.now() + 2_000_000;
            let turn = udp.turn(Some(deadline)).unwrap();
            assert!(!turn.received && !turn.woken);
            Clock.now().checked_sub(deadline).expect("never early")
        });
        let best = late.min().unwrap();
        assert!(best < 500_000, "{best} ns late at best (busy: {busy_poll})");
    }
}

#[test]
fn a_passed_deadline_does_not_wait() {
    let mut udp = open(V4);
    let before = Clock.now();
    for _ in 0..100 {
        udp.turn(Some(0)).unwrap();
    }
    assert!(Clock.now() - before < 1_000_000_000);
}

#[test]
fn another_thread_ends_a_sleep() {
    for busy_poll in [false, true] {
        let mut udp = UringUdp::open(UringUdpConfig { busy_poll, ..config(V4) }).unwrap();
        for _ in 0..10 {
            let waker = udp.waker();
            let other = thread::spawn(move || {
                thread::sleep(Duration::from_millis(3));
                waker.wake();
                waker.wake();
            });
            let deadline = Clock.now() + PATIENCE_NS;
            let mut woken = 0;
            while woken == 0 {
                woken += u32::from(udp.turn(Some(deadline)).unwrap().woken);
                assert!(Clock.now() < deadline);
            }
            other.join().unwrap();
            // A wake-up between the two calls of the other thread leaves one more to be reported.
            let again = udp.turn(Some(0)).unwrap().woken;
            assert!(!udp.turn(Some(0)).unwrap().woken, "reported once (again: {again})");
        }
    }
}

#[test]
fn a_wake_up_before_the_turn_is_not_lost() {
    let mut udp = open(V4);
    udp.waker().wake();
    let before = Clock.now();
    assert!(udp.turn(None).unwrap().woken);
    assert!(Clock.now() - before < 1_000_000_000);
    assert_eq!(udp.counters().wakeups, 1);
}

/// Items pushed before a wake-up are seen after it: no wake-up is ever lost however the two threads meet.
#[test]
fn a_hundred_thousand_wake_ups_lose_nothing() {
    let mut udp = open(V4);
    let waker = udp.waker();
    let (mut producer, mut consumer) = wavry_runtime::spsc::ring::<u32>(16);
    let other = thread::spawn(move || {
        for number in 0..100_000u32 {
            while producer.push(number).is_err() {
                thread::yield_now();
            }
            waker.wake();
        }
    });
    let (mut expected, mut longest, mut last) = (0, 0, Clock.now());
    while expected < 100_000 {
        // Sleeping through to the deadline would mean that a wake-up was lost.
        udp.turn(Some(Clock.now() + PATIENCE_NS)).unwrap();
        while let Some(number) = consumer.pop() {
            assert_eq!(number, expected);
            expected += 1;
        }
        longest = longest.max(Clock.now() - last);
        last = Clock.now();
    }
    assert!(longest < PATIENCE_NS, "slept {longest} ns although items were due");
    other.join().unwrap();
    assert!(udp.counters().wakeups > 0);
}

#[test]
fn busy_polling_enters_the_kernel_only_when_something_came() {
    let mut udp = UringUdp::open(UringUdpConfig { busy_poll: true, ..config(V4) }).unwrap();
    udp.turn(Some(0)).unwrap();
    let before = udp.counters().syscalls;
    for _ in 0..5 {
        udp.turn(Some(Clock.now() + 1_000_000)).unwrap();
    }
    assert_eq!(udp.counters().syscalls, before, "5 ms of spinning without a system call");
    UdpSocket::bind(V4).unwrap().send_to(b"x", udp.local_addr()).unwrap();
    assert_eq!(receive(&mut udp, 1)[0].bytes, b"x");
    assert_eq!(udp.counters().syscalls, before + 1);
}

#[test]
fn arrival_times_are_on_the_clock() {
    let mut udp = UringUdp::open(UringUdpConfig { arrival_times: true, ..config(V4) }).unwrap();
    let sender = UdpSocket::bind(V4).unwrap();
    udp.turn(Some(0)).unwrap();
    let mut exact = 0;
    for _ in 0..200 {
        let before = Clock.now();
        sender.send_to(b"x", udp.local_addr()).unwrap();
        let after = Clock.now();
        thread::sleep(Duration::from_millis(2));
        let arrival = receive(&mut udp, 1)[0].arrival_ns.unwrap();
        let received = Clock.now();
        // The two clocks are read one after the other; allow for what lies between.
        let slack = 20_000;
        assert!(before < arrival + slack && arrival < received + slack, "{before} {arrival} {received}");
        // The kernel switches its stamps on a little after they were asked for; until then it stamps when it hands
        // the datagram over. From the first real one on, all are real.
        if arrival < after + slack {
            exact += 1;
        } else {
            assert_eq!(exact, 0, "{before} {arrival} {after}");
        }
        if exact == 10 {
            return;
        }
    }
    panic!("no stamp was taken on arrival");
}

#[test]
fn running_out_of_slots_is_counted() {
    let mut udp = UringUdp::open(UringUdpConfig { tx_slots: 3, ..config(V4) }).unwrap();
    let slots: Vec<_> = std::iter::from_fn(|| udp.acquire()).collect();
    assert_eq!((slots.len(), udp.counters().tx_exhausted), (3, 1));
    drop(slots);
    let to = udp.local_addr();
    for _ in 0..3 {
        commit(&mut udp, b"x", Transmit::datagram(to, 1));
    }
    assert!(udp.acquire().is_none(), "committed slots are in flight");
    udp.flush().unwrap();
    assert!(udp.acquire().is_some(), "free when the kernel has taken them");
}

#[test]
fn bad_sends_are_reported_and_harm_nobody() {
    let (mut a, mut b) = (open(V4), open(V4));
    let to = b.local_addr();
    let bad = [
        Transmit::datagram("[2001:db8::1]:1".parse().unwrap(), 10),
        Transmit { from: Some(Ipv6Addr::LOCALHOST.into()), ..Transmit::datagram(to, 10) },
        Transmit::datagram(to, TX_SLOT_LEN + 1),
        Transmit::batch(to, MAX_SEGMENTS * 10 + 1, 10),
        Transmit { segment_len: 0, ..Transmit::datagram(to, 10) },
    ];
    for tx in bad {
        let slot = a.acquire().unwrap();
        a.commit(slot, tx);
        let error = a.poll_send_error().unwrap();
        assert_eq!((error.kind, error.transmit), (SendErrorKind::Invalid, tx));
    }
    assert_eq!(a.counters().send_errors.invalid, 5);
    commit(&mut a, b"good", Transmit::datagram(to, 4));
    a.flush().unwrap();
    assert_eq!(receive(&mut b, 1)[0].bytes, b"good");
}

#[test]
fn refused_sends_are_reported_and_harm_nobody() {
    let (mut a, mut b) = (open(V6), open(V6));
    // 65507 bytes and 48 of headers exceed the loopback's 65536.
    let too_big = Transmit::datagram(b.local_addr(), TX_SLOT_LEN);
    // Nobody's address, from a socket that can only reach this machine.
    let unreachable =
        Transmit { from: Some("2001:db8::7".parse().unwrap()), ..Transmit::datagram(b.local_addr(), 9) };
    commit(&mut a, b"1", Transmit::datagram(b.local_addr(), 1));
    commit(&mut a, &pattern(TX_SLOT_LEN), too_big);
    commit(&mut a, b"2", Transmit::datagram(b.local_addr(), 1));
    commit(&mut a, &pattern(9), unreachable);
    commit(&mut a, b"3", Transmit::datagram(b.local_addr(), 1));
    a.flush().unwrap();
    let error = a.poll_send_error().unwrap();
    assert_eq!((error.kind, error.transmit), (SendErrorKind::TooBig, too_big));
    assert_eq!(a.poll_send_error().unwrap().transmit, unreachable);
    assert_eq!(a.poll_send_error(), None);
    let got: Vec<Vec<u8>> = receive(&mut b, 3).into_iter().map(|datagram| datagram.bytes).collect();
    assert_eq!(got, [b"1", b"2", b"3"]);
    assert_eq!((a.counters().sends, a.counters().send_errors.total()), (3, 2));
}

#[test]
fn a_peer_that_is_gone_does_not_end_the_transport() {
    let (mut a, mut b) = (open(V4), open(V4));
    let gone = UdpSocket::bind(V4).unwrap().local_addr().unwrap();
    for _ in 0..20 {
        commit(&mut a, b"x", Transmit::datagram(gone, 1));
        a.turn(Some(0)).unwrap();
    }
    commit(&mut b, b"still here", Transmit::datagram(a.local_addr(), 10));
    b.flush().unwrap();
    assert_eq!(receive(&mut a, 1)[0].bytes, b"still here");
}

#[test]
fn a_taken_port_says_so() {
    let first = open(V4);
    let mut second = config(V4);
    second.bind = first.local_addr();
    let error = UringUdp::open(second).unwrap_err();
    assert!(matches!(error, OpenError::PortInUse { .. }));
    let message = error.to_string();
    let port = first.local_addr().port();
    assert!(message.contains(&format!("UDP port {port} is already in use")), "{message}");
    assert!(message.contains("choose another port"), "{message}");
}

#[test]
fn the_port_is_free_when_the_transport_is_gone() {
    let mut udp = open(V4);
    let bind = udp.local_addr();
    for _ in 0..20 {
        udp.turn(Some(0)).unwrap();
        drop(udp);
        udp = UringUdp::open(UringUdpConfig { bind, ..config(V4) }).unwrap();
    }
}

/// Reads the whole TOS byte, which the transport does not report.
mod tos {
    #![allow(unsafe_code)]

    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;

    pub(super) fn enable(socket: &UdpSocket) {
        let on: libc::c_int = 1;
        let (level, option) = if socket.local_addr().unwrap().is_ipv4() {
            (libc::IPPROTO_IP, libc::IP_RECVTOS)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)
        };
        // SAFETY: `on` is valid for reads of 4 bytes.
        let result =
            unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), 4) };
        assert_eq!(result, 0);
    }

    pub(super) fn receive(socket: &UdpSocket) -> u8 {
        let mut payload = [0u8; 16];
        let mut control = [0u64; 8];
        let mut part = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
        // SAFETY: all zeroes is a valid `msghdr`.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: the message describes `payload` and `control`, which outlive the call.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
        assert!(received >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: the kernel filled the control data; one message was asked for.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            assert!(!header.is_null());
            // One byte for IPv4, an int for IPv6: little-endian, so the first byte either way.
            *libc::CMSG_DATA(header)
        }
    }
}

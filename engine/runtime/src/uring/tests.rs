//! What only the inside of a transport can provoke.

use super::*;
use crate::clock::Clock;

fn open() -> UringUdp {
    UringUdp::open(UringUdpConfig::new("127.0.0.1:0".parse().unwrap())).unwrap()
}

fn commit(udp: &mut UringUdp, byte: u8, tx: Transmit) {
    let mut slot = udp.acquire().unwrap();
    slot[..tx.len].fill(byte);
    udp.commit(slot, tx);
}

/// First byte and length of the next `count` datagrams.
fn receive(udp: &mut UringUdp, count: usize) -> Vec<(u8, usize)> {
    let deadline = Clock.now() + 5_000_000_000;
    let mut got = Vec::new();
    while got.len() < count {
        assert!(Clock.now() < deadline, "{got:?}");
        udp.turn(Some(deadline)).unwrap();
        while let Some(batch) = udp.poll_receive() {
            got.extend(batch.datagrams().map(|datagram| (datagram[0], datagram.len())));
        }
    }
    got
}

#[test]
fn a_route_without_gso_gets_single_datagrams() {
    let (mut a, mut b) = (open(), open());
    let to = b.local_addr();
    a.socket.set_no_checksum(true).unwrap();
    commit(&mut a, 1, Transmit::datagram(to, 50));
    commit(&mut a, 2, Transmit::batch(to, 250, 100));
    commit(&mut a, 3, Transmit::datagram(to, 60));
    a.flush().unwrap();
    // The batch is refused as a whole and tried again, so what was behind it in the same entry overtakes it.
    assert_eq!(receive(&mut b, 5), [(1, 50), (3, 60), (2, 100), (2, 100), (2, 50)]);
    assert_eq!(a.counters().gso_fallbacks, 1);
    assert_eq!((a.counters().sends, a.counters().segments, a.counters().sent_bytes), (3, 5, 360));

    // From now on nothing is tried as a batch, and order holds.
    commit(&mut a, 4, Transmit::datagram(to, 50));
    commit(&mut a, 5, Transmit::batch(to, 300, 100));
    commit(&mut a, 6, Transmit::datagram(to, 60));
    a.turn(Some(0)).unwrap();
    assert_eq!(receive(&mut b, 5), [(4, 50), (5, 100), (5, 100), (5, 100), (6, 60)]);
    assert_eq!(a.counters().gso_fallbacks, 2);
    assert_eq!(a.counters().send_errors.total(), 0);
}

#[test]
fn a_batch_that_cannot_leave_at_all_does_not_end_gso() {
    let (mut a, mut b) = (open(), open());
    // From a loopback address to elsewhere: refused by the routing table, so nothing leaves the machine.
    commit(&mut a, 1, Transmit::batch("192.0.2.1:9".parse().unwrap(), 200, 100));
    a.flush().unwrap();
    let errors = a.counters().send_errors.total();
    assert!(errors >= 1, "{:?}", a.counters());
    assert_eq!((a.counters().sends, a.counters().gso_fallbacks), (0, 0));
    commit(&mut a, 2, Transmit::batch(b.local_addr(), 200, 100));
    a.flush().unwrap();
    assert_eq!(receive(&mut b, 2).len(), 2);
    assert_eq!((a.counters().sends, a.counters().gso_fallbacks), (1, 0));
    assert_eq!(b.counters().receives, 1, "still as one batch");
}

/// Loopback has no small MTU, so the kernel's answer is put in place of its success.
#[test]
fn a_batch_too_large_for_its_route_leaves_alone_and_does_not_end_gso() {
    let (mut a, mut b) = (open(), open());
    let to = b.local_addr();
    commit(&mut a, 1, Transmit::batch(to, 250, 100));
    a.stage();
    a.tx.on_refused(0, libc::EMSGSIZE);
    a.enter(Wait::Submit).unwrap();
    assert_eq!(receive(&mut b, 3), [(1, 100), (1, 100), (1, 50)], "which did leave: the refusal was made up");
    a.flush().unwrap();
    assert_eq!(receive(&mut b, 3), [(1, 100), (1, 100), (1, 50)]);
    assert_eq!((a.counters().gso_fallbacks, a.counters().send_errors.total()), (1, 0));
    let receives = b.counters().receives;
    commit(&mut a, 2, Transmit::batch(to, 200, 100));
    a.flush().unwrap();
    assert_eq!(receive(&mut b, 2).len(), 2);
    assert_eq!(b.counters().receives, receives + 1, "later ones are batches again");
}

/// A full send queue cannot be had on the loopback interface, so the kernel's answer is put in its place.
#[test]
fn a_full_send_queue_delays_and_keeps_the_order() {
    let (mut a, mut b) = (open(), open());
    let to = b.local_addr();
    for byte in 1..=3 {
        commit(&mut a, byte, Transmit::datagram(to, 10));
    }
    a.stage();
    a.tx.on_refused(1, libc::EAGAIN);
    a.enter(Wait::Submit).unwrap();
    assert!(a.tx.is_blocked());
    assert_eq!((a.counters().tx_deferred, a.counters().sends), (1, 2));
    assert_eq!(a.pool.available(), 31, "the deferred one keeps its slot");
    // All three did leave: the refusal was made up.
    assert_eq!(receive(&mut b, 3), [(1, 10), (2, 10), (3, 10)]);

    // What is committed meanwhile waits behind it, and one flush does not get around that.
    commit(&mut a, 4, Transmit::datagram(to, 10));
    a.flush().unwrap();
    assert_eq!(a.counters().sends, 2);
    let deadline = Clock.now() + 5_000_000_000;
    while a.counters().sends < 4 {
        assert!(Clock.now() < deadline);
        a.turn(Some(deadline)).unwrap();
    }
    assert_eq!(receive(&mut b, 2), [(2, 10), (4, 10)]);
    assert_eq!(a.pool.available(), 32);
}

#[test]
fn a_socket_that_only_fails_is_given_up() {
    let mut udp = open();
    udp.turn(Some(0)).unwrap();
    udp.failures = ReceiveFailures { in_a_row: RECEIVE_FAILURES_MAX + 1, last_errno: libc::ENETDOWN };
    assert_eq!(udp.turn(Some(0)).unwrap_err().raw_os_error(), Some(libc::ENETDOWN));
}

#[test]
fn only_the_newest_failures_are_kept() {
    let mut udp = open();
    for len in 1..=40usize {
        commit(&mut udp, 0, Transmit::datagram("[2001:db8::1]:1".parse().unwrap(), len));
    }
    let kept: Vec<usize> =
        std::iter::from_fn(|| udp.poll_send_error()).map(|error| error.transmit.len).collect();
    assert_eq!(kept, (9..=40).collect::<Vec<_>>());
    assert_eq!(udp.counters().send_errors.invalid, 40);
}

#[test]
fn slots_of_another_pool_are_limited_too() {
    let (mut a, mut b) = (open(), open());
    let foreign = TxPool::new(40).unwrap();
    for _ in 0..40 {
        a.commit(foreign.acquire().unwrap(), Transmit::datagram(b.local_addr(), 1));
    }
    a.flush().unwrap();
    assert_eq!((a.counters().sends, a.counters().send_errors.no_buffers), (32, 8));
    assert_eq!(receive(&mut b, 32).len(), 32);
    assert_eq!(foreign.available(), 40);
}

/// Batches of three that begin alike, and end with their number.
fn commit_three(udp: &mut UringUdp, to: SocketAddr, number: u8) {
    let mut slot = udp.acquire().unwrap();
    for datagram in slot[..300].chunks_mut(100) {
        datagram.fill(0);
        datagram[..2].copy_from_slice(b"\x57\x01");
        datagram[99] = number;
    }
    udp.commit(slot, Transmit::batch(to, 300, 100));
    udp.flush().unwrap();
}

#[test]
fn what_was_merged_before_merging_ended_arrives_as_it_was_sent() {
    let mut a = open();
    let seam = |data: &[u8]| (data.len() > 100).then_some(100);
    let config = UringUdpConfig { merge: Merge::ByLoad { seam }, ..UringUdpConfig::new(a.local_addr()) };
    let mut b = UringUdp::open(UringUdpConfig { bind: "127.0.0.1:0".parse().unwrap(), ..config }).unwrap();
    let to = b.local_addr();
    for number in 1..=5 {
        commit_three(&mut a, to, number);
    }
    b.socket.set_merging(false).unwrap();
    b.rx.merging.as_mut().unwrap().done(false);
    for number in 6..=8 {
        commit_three(&mut a, to, number);
    }
    assert_eq!(receive(&mut b, 24), [(0x57, 100); 24], "in the queue, and after");
    assert_eq!(b.counters().receives, 5 + 9, "five merged, then one by one");
    // And what the option's end would have done without.
    let mut c = open();
    commit_three(&mut a, c.local_addr(), 1);
    c.socket.set_merging(false).unwrap();
    assert_eq!(receive(&mut c, 1), [(0x57, 300)], "the kernel tells no seams then");
}

#[test]
fn merging_follows_what_arrives() {
    let mut senders: Vec<UringUdp> = (0..8).map(|_| open()).collect();
    let bind = "127.0.0.1:0".parse().unwrap();
    let merge = Merge::ByLoad { seam: |_| None };
    let mut udp = UringUdp::open(UringUdpConfig { merge, ..UringUdpConfig::new(bind) }).unwrap();
    let to = udp.local_addr();
    while udp.counters().datagrams < 2048 {
        for sender in &mut senders {
            commit(sender, 1, Transmit::datagram(to, 100));
            sender.flush().unwrap();
        }
        receive(&mut udp, senders.len());
    }
    assert_eq!(udp.counters().merging_changes, 1, "eight in turn are eight receives");
    let alone = udp.counters().receives;
    let first = udp.counters().datagrams;
    while udp.counters().datagrams < first + 4096 {
        commit(&mut senders[0], 1, Transmit::batch(to, 1600, 100));
        senders[0].flush().unwrap();
        receive(&mut udp, 16);
    }
    assert_eq!(udp.counters().merging_changes, 2);
    assert!(udp.counters().receives - alone < 2048, "{:?}", udp.counters());
}

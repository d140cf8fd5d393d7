//! The filter, packet by packet through the kernel (`BPF_PROG_TEST_RUN`), against the same decision in Rust.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use wavry_xdp::filter::Filter;
use wavry_xdp::packet::{NotTaken, parse};
use wavry_xdp::program::{LoadError, Verdict};

const PORT: u16 = 4810;

fn addresses() -> [IpAddr; 2] {
    ["10.77.0.1".parse().unwrap(), "fd77::1".parse().unwrap()]
}

/// `None`, with the reason printed, where eBPF programs may not be loaded.
fn filter(vlan: Option<u16>) -> Option<Filter> {
    match Filter::load(PORT, vlan) {
        Ok(mut filter) => {
            filter.set_addresses(&addresses()).unwrap();
            Some(filter)
        }
        Err(error @ LoadError::NotPermitted) => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// What the filter must do, given a socket on the queue.
fn steered(frame: &[u8], vlan: Option<u16>) -> bool {
    parse(frame).is_ok_and(|datagram| {
        datagram.to.port() == PORT && datagram.vlan == vlan && addresses().contains(&datagram.to.ip())
    })
}

/// A frame that is close to being steered: valid, with some bytes changed and perhaps cut.
#[derive(Clone, Debug)]
struct Near {
    v6: bool,
    tag: Option<u16>,
    payload: usize,
    padding: usize,
    /// (position, value): most hit a header.
    changes: Vec<(usize, u8)>,
    cut: Option<usize>,
}

fn near() -> impl Strategy<Value = Near> {
    (
        any::<bool>(),
        proptest::option::of(prop_oneof![Just(100u16), 0u16..4096]),
        0usize..64,
        0usize..20,
        proptest::collection::vec((0usize..70, any::<u8>()), 0..3),
        proptest::option::weighted(0.2, 14usize..80),
    )
        .prop_map(|(v6, tag, payload, padding, changes, cut)| Near {
            v6,
            tag,
            payload,
            padding,
            changes,
            cut,
        })
}

impl Near {
    fn frame(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        if let Some(tag) = self.tag {
            frame.extend([0x81, 0x00]);
            frame.extend(tag.to_be_bytes());
        }
        let udp_len = 8 + self.payload;
        if self.v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((udp_len as u16).to_be_bytes());
            frame.extend([17, 64]);
            frame.extend("fd77::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
            frame.extend("fd77::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        } else {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend(((20 + udp_len) as u16).to_be_bytes());
            frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
            frame.extend([10, 77, 0, 2, 10, 77, 0, 1]);
        }
        frame.extend(4000u16.to_be_bytes());
        frame.extend(PORT.to_be_bytes());
        frame.extend((udp_len as u16).to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(std::iter::repeat_n(0x5a, self.payload + self.padding));
        for &(at, value) in &self.changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        if let Some(cut) = self.cut {
            frame.truncate(cut);
        }
        frame
    }
}

/// Whether the program steers the frame.
fn steers(filter: &Filter, frame: &[u8]) -> bool {
    let mut output = vec![0; frame.len() + 64];
    let run = filter.program().test_run(frame, &mut output, 1).unwrap();
    assert_eq!(&output[..run.len], frame, "the filter changes nothing");
    match run.verdict {
        Verdict::Redirect => true,
        Verdict::Pass => false,
        other => panic!("{other}"),
    }
}

#[test]
fn decides_as_the_parser_does() {
    for vlan in [None, Some(100)] {
        let Some(filter) = filter(vlan) else { return };
        let _socket = support::steer_queue_0(&filter);
        let mut seen = [0u32; 2];
        let mut runner =
            TestRunner::new(Config { cases: 3000, failure_persistence: None, ..Config::default() });
        let seen_in = std::cell::RefCell::new(&mut seen);
        runner
            .run(&near(), |near| {
                let frame = near.frame();
                let expected = steered(&frame, vlan);
                prop_assert_eq!(steers(&filter, &frame), expected, "{:02x?}", frame);
                seen_in.borrow_mut()[usize::from(expected)] += 1;
                Ok(())
            })
            .unwrap();
        // A comparison that only ever saw one answer would prove nothing.
        assert!(seen.iter().all(|&count| count > 100), "passed and steered: {seen:?}");
    }
}

#[test]
fn any_bytes_are_decided_alike() {
    let Some(filter) = filter(None) else { return };
    let _socket = support::steer_queue_0(&filter);
    let mut runner = TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
    runner
        .run(&proptest::collection::vec(any::<u8>(), 14..200), |frame| {
            prop_assert_eq!(steers(&filter, &frame), steered(&frame, None));
            Ok(())
        })
        .unwrap();
}

#[test]
fn what_is_unusual_is_left_to_the_kernel() {
    let Some(filter) = filter(None) else { return };
    let _socket = support::steer_queue_0(&filter);
    let plain = |v6| Near { v6, tag: None, payload: 30, padding: 0, changes: vec![], cut: None };
    let with = |v6, changes: &[(usize, u8)]| Near { changes: changes.to_vec(), ..plain(v6) }.frame();
    assert!(steers(&filter, &plain(false).frame()) && steers(&filter, &plain(true).frame()));
    for (what, frame, reason) in [
        ("first fragment", with(false, &[(20, 0x20)]), NotTaken::Unusual),
        ("later fragment", with(false, &[(21, 0x01)]), NotTaken::Unusual),
        ("IPv4 options", with(false, &[(14, 0x46)]), NotTaken::Unusual),
        ("IPv6 fragment", with(true, &[(20, 44)]), NotTaken::Unusual),
        ("IPv6 hop-by-hop", with(true, &[(20, 0)]), NotTaken::Unusual),
        ("TCP", with(false, &[(23, 6)]), NotTaken::NotUdp),
        ("ARP", with(false, &[(13, 0x06)]), NotTaken::NotUdp),
        ("two tags", with(false, &[(12, 0x88), (13, 0xa8)]), NotTaken::Unusual),
        ("UDP longer than IP", with(false, &[(39, 200)]), NotTaken::Malformed),
        ("cut", plain(false).frame()[..60].to_vec(), NotTaken::Malformed),
    ] {
        assert_eq!(parse(&frame), Err(reason), "{what}");
        assert!(!steers(&filter, &frame), "{what}");
    }
    // Whole, but not ours.
    for (what, frame) in [
        ("another port", with(false, &[(37, 0xcb)])),
        ("another address", with(false, &[(33, 9)])),
        ("another IPv6 address", with(true, &[(53, 9)])),
        ("a tag", Near { tag: Some(100), ..plain(false) }.frame()),
    ] {
        assert!(parse(&frame).is_ok(), "{what}");
        assert!(!steers(&filter, &frame), "{what}");
    }
}

#[test]
fn addresses_come_and_go() {
    let Some(mut filter) = filter(None) else { return };
    let _socket = support::steer_queue_0(&filter);
    let frame = Near { v6: false, tag: None, payload: 5, padding: 0, changes: vec![], cut: None }.frame();
    assert!(steers(&filter, &frame));
    filter.set_addresses(&addresses()[1..]).unwrap();
    assert!(!steers(&filter, &frame));
    filter.set_addresses(&addresses()).unwrap();
    assert!(steers(&filter, &frame));
}

mod support {
    use std::os::fd::{AsFd, FromRawFd, OwnedFd};

    use wavry_xdp::filter::Filter;

    /// A bare `AF_XDP` socket on queue 0 of the map: in a test run the program's verdict is then a redirect.
    /// The socket receives nothing; a test run only reports the verdict.
    #[allow(unsafe_code)]
    pub(crate) fn steer_queue_0(filter: &Filter) -> OwnedFd {
        // SAFETY: no pointers are passed; the result is checked.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0, "AF_XDP sockets need CAP_NET_RAW");
        // SAFETY: `fd` was just returned to us and has no other owner.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        filter.set_socket(0, socket.as_fd()).unwrap();
        socket
    }
}

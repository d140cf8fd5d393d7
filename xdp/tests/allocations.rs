//! The steady state of the transport allocates nothing.

#![allow(clippy::unwrap_used, unsafe_code, reason = "a counting allocator, and helpers of tests")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use support::{Lan, skip};
use wavry_runtime::clock::Clock;
use wavry_runtime::transport::{Transmit, Transport};
use wavry_runtime::uring::UringUdpConfig;
use wavry_xdp::attach::ModeChoice;
use wavry_xdp::interface::Interface;
use wavry_xdp::udp::{XdpUdp, XdpUdpConfig};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: hands everything on to the system's allocator and only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn turning_allocates_nothing() {
    let Some(lan) = Lan::new(1).or_else(skip) else { return };
    let peer = lan.right.with(|| UdpSocket::bind("10.77.0.2:5000").unwrap());
    peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let to: SocketAddr = "10.77.0.2:5000".parse().unwrap();
    let left: SocketAddr = "10.77.0.1:4810".parse().unwrap();
    lan.left.with(|| {
        let mut xdp = XdpUdp::open(&XdpUdpConfig {
            udp: UringUdpConfig::new("[::]:4810".parse().unwrap()),
            interface: Interface::named("l0").unwrap(),
            vlan: None,
            mode: ModeChoice::Auto,
        })
        .unwrap();
        let mut buffer = [0; 2048];
        let mut before = 0;
        let mut received = 0;
        for round in 0..600 {
            // The first rounds find the neighbour; the rest is the steady state.
            if round == 100 {
                before = ALLOCATIONS.get();
            }
            let slot = xdp.acquire().unwrap();
            xdp.commit(slot, Transmit::batch(to, 3 * 1200, 1200));
            xdp.flush().unwrap();
            for _ in 0..3 {
                peer.recv_from(&mut buffer).unwrap();
            }
            peer.send_to(&buffer[..500], left).unwrap();
            xdp.turn(Some(Clock.now() + 100_000_000)).unwrap();
            while let Some(batch) = xdp.poll_receive() {
                received += batch.count();
            }
        }
        assert_eq!(ALLOCATIONS.get() - before, 0);
        assert!(received >= 590 && xdp.bypassed().datagrams >= 590, "{received}: {xdp:?}");
        assert!(xdp.bypassed().sends > 590, "{xdp:?}");
    });
}

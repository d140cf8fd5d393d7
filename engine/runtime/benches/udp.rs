//! The ring transport against plain system calls doing the same, in one run, turn about.
//!
//! `cargo bench -p wavry-runtime --bench udp` prints a table of ratios, then criterion's figures.
//!
//! * send: slots of 54 x 1200 bytes as GSO, against `sendmsg` with `UDP_SEGMENT`, 16 batches at a time, into a
//!   socket with GRO that nobody reads
//! * receive: turn and poll, against `recvmsg` with GRO and the same control data, 16 batches waiting
//! * echo: one 64-byte datagram there and back, both ends on the transport (sleeping, busy), against both ends
//!   on blocking sockets; threads left to the scheduler, and pinned to two cores
#![allow(missing_docs, unsafe_code, clippy::unwrap_used)]

use std::hint::black_box;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use wavry_runtime::clock::Clock;
use wavry_runtime::cores;
use wavry_runtime::transport::{Transmit, Transport};
use wavry_runtime::uring::{UringUdp, UringUdpConfig};

const SEGMENT: usize = 1200;
const SEGMENTS: usize = 54;
const BATCH: usize = SEGMENT * SEGMENTS;
const BATCHES: usize = 16;
const PACKETS: u64 = (SEGMENTS * BATCHES) as u64;

/// Rounds of each contender per sample, samples, and echoes per sample, of the table.
const ROUNDS: u64 = 40;
const SAMPLES: usize = 31;
const ECHOES: usize = 2_000;

fn main() {
    // On a thread of its own, because it pins itself.
    thread::spawn(print_ratios).join().unwrap();
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    bench_send(&mut criterion);
    bench_receive(&mut criterion);
    criterion.final_summary();
}

fn open(busy_poll: bool) -> UringUdp {
    let bind = "127.0.0.1:0".parse().unwrap();
    UringUdp::open(UringUdpConfig { busy_poll, ..UringUdpConfig::new(bind) }).unwrap()
}

// ---- send

fn uring_send_ns(udp: &mut UringUdp, to: SocketAddr, rounds: u64) -> u64 {
    let begin = Clock.now();
    for _ in 0..rounds {
        for _ in 0..BATCHES {
            let slot = udp.acquire().unwrap();
            udp.commit(slot, Transmit::batch(to, BATCH, SEGMENT));
        }
        udp.flush().unwrap();
    }
    Clock.now() - begin
}

fn raw_send_ns(socket: &raw::Socket, buffers: &[Vec<u8>], to: SocketAddr, rounds: u64) -> u64 {
    let begin = Clock.now();
    for _ in 0..rounds {
        for buffer in buffers {
            socket.send_gso(buffer, to, SEGMENT as u16);
        }
    }
    Clock.now() - begin
}

struct Send {
    uring: UringUdp,
    raw: raw::Socket,
    buffers: Vec<Vec<u8>>,
    // Two sinks, so that neither contender finds the other's queue.
    uring_sink: UringUdp,
    raw_sink: UringUdp,
}

impl Send {
    fn new() -> Self {
        Self {
            uring: open(false),
            raw: raw::Socket::bind(1),
            // Not zeroes: those would all be the kernel's one zero page, which is always in the cache.
            buffers: vec![vec![1; BATCH]; BATCHES],
            uring_sink: open(false),
            raw_sink: open(false),
        }
    }

    fn uring_ns(&mut self, rounds: u64) -> u64 {
        uring_send_ns(&mut self.uring, self.uring_sink.local_addr(), rounds)
    }

    fn raw_ns(&mut self, rounds: u64) -> u64 {
        raw_send_ns(&self.raw, &self.buffers, self.raw_sink.local_addr(), rounds)
    }
}

fn bench_send(criterion: &mut Criterion) {
    let mut send = Send::new();
    let mut group = criterion.benchmark_group("send 16 x 54 x 1200 B");
    group.throughput(Throughput::Elements(PACKETS));
    group.bench_function("io_uring slots", |bencher| {
        bencher.iter_custom(|rounds| Duration::from_nanos(send.uring_ns(rounds)));
    });
    group.bench_function("raw sendmsg GSO", |bencher| {
        bencher.iter_custom(|rounds| Duration::from_nanos(send.raw_ns(rounds)));
    });
    group.finish();
}

// ---- receive

struct Receive {
    sender: raw::Socket,
    uring: UringUdp,
    raw: raw::Socket,
    batch: Vec<u8>,
}

impl Receive {
    fn new(raw_buffers: usize) -> Self {
        let mut uring = open(false);
        uring.turn(Some(0)).unwrap();
        Self {
            sender: raw::Socket::bind(1),
            uring,
            raw: raw::Socket::bind(raw_buffers),
            batch: vec![1; BATCH],
        }
    }

    /// Only the receiving is timed.
    fn uring_ns(&mut self, rounds: u64) -> u64 {
        let mut spent = 0;
        for _ in 0..rounds {
            for _ in 0..BATCHES {
                self.sender.send_gso(&self.batch, self.uring.local_addr(), SEGMENT as u16);
            }
            let begin = Clock.now();
            let mut datagrams = 0;
            while datagrams < PACKETS {
                self.uring.turn(None).unwrap();
                while let Some(batch) = self.uring.poll_receive() {
                    for datagram in batch.datagrams() {
                        black_box(&datagram[0]);
                        datagrams += 1;
                    }
                }
            }
            spent += Clock.now() - begin;
        }
        spent
    }

    fn raw_ns(&mut self, rounds: u64) -> u64 {
        let mut spent = 0;
        for _ in 0..rounds {
            for _ in 0..BATCHES {
                self.sender.send_gso(&self.batch, self.raw.local_addr(), SEGMENT as u16);
            }
            let begin = Clock.now();
            let mut datagrams = 0;
            while datagrams < PACKETS {
                let (buffer, segment) = self.raw.receive_gro();
                for datagram in buffer.chunks(segment) {
                    black_box(&datagram[0]);
                    datagrams += 1;
                }
            }
            spent += Clock.now() - begin;
        }
        spent
    }
}

fn bench_receive(criterion: &mut Criterion) {
    let mut receive = Receive::new(1);
    let mut group = criterion.benchmark_group("receive 16 x 54 x 1200 B");
    group.throughput(Throughput::Elements(PACKETS));
    group.bench_function("io_uring turn", |bencher| {
        bencher.iter_custom(|rounds| Duration::from_nanos(receive.uring_ns(rounds)));
    });
    group.bench_function("raw recvmsg GRO", |bencher| {
        bencher.iter_custom(|rounds| Duration::from_nanos(receive.raw_ns(rounds)));
    });
    group.finish();
}

// ---- echo

/// A peer that sends everything back, on the transport.
struct UringEcho {
    to: SocketAddr,
    stop: Arc<AtomicBool>,
    waker: wavry_runtime::Waker,
    thread: Option<thread::JoinHandle<()>>,
}

impl UringEcho {
    fn start(busy_poll: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (tell, told) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let mut udp = open(busy_poll);
            tell.send((udp.local_addr(), udp.waker())).unwrap();
            while !stopped.load(Ordering::Acquire) {
                udp.turn(None).unwrap();
                while let Some(mut slot) = udp.acquire() {
                    let Some(batch) = udp.poll_receive() else { break };
                    let (to, len) = (batch.from, batch.data.len());
                    slot[..len].copy_from_slice(batch.data);
                    udp.commit(slot, Transmit::datagram(to, len));
                }
            }
        });
        let (to, waker) = told.recv().unwrap();
        Self { to, stop, waker, thread: Some(thread) }
    }
}

impl Drop for UringEcho {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn uring_echo_p50_ns(udp: &mut UringUdp, to: SocketAddr) -> u64 {
    p50((0..ECHOES).map(|_| {
        let begin = Clock.now();
        let mut slot = udp.acquire().unwrap();
        slot[..64].fill(1);
        udp.commit(slot, Transmit::datagram(to, 64));
        loop {
            udp.turn(None).unwrap();
            if let Some(batch) = udp.poll_receive() {
                black_box(&batch.data[0]);
                return Clock.now() - begin;
            }
        }
    }))
}

struct BlockingEcho {
    to: SocketAddr,
    thread: Option<thread::JoinHandle<()>>,
}

impl BlockingEcho {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        let thread = thread::spawn(move || {
            let mut buffer = [0; 2048];
            loop {
                let (len, from) = socket.recv_from(&mut buffer).unwrap();
                if len == 0 {
                    return;
                }
                socket.send_to(&buffer[..len], from).unwrap();
            }
        });
        Self { to, thread: Some(thread) }
    }
}

impl Drop for BlockingEcho {
    fn drop(&mut self) {
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[], self.to).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn blocking_echo_p50_ns(socket: &UdpSocket, to: SocketAddr) -> u64 {
    let mut buffer = [1; 2048];
    p50((0..ECHOES).map(|_| {
        let begin = Clock.now();
        socket.send_to(&buffer[..64], to).unwrap();
        black_box(socket.recv_from(&mut buffer).unwrap());
        Clock.now() - begin
    }))
}

// ---- table

fn print_ratios() {
    println!("{:<40}{:^26}{:^26}", "", "median", "best");
    println!("{:<40}{:>9}{:>9}{:>8}{:>9}{:>9}{:>8}", "", "ours", "floor", "ratio", "ours", "floor", "ratio");
    {
        let mut send = Send::new();
        let per_packet = (ROUNDS * PACKETS) as f64;
        let samples = interleave(
            &mut send,
            |send| send.uring_ns(ROUNDS) as f64 / per_packet,
            |send| send.raw_ns(ROUNDS) as f64 / per_packet,
        );
        row("send, ns per 1200-byte packet", &samples);
    }
    // The floor with one buffer, always in the cache, and with as many as the transport has in use.
    for raw_buffers in [1, 4] {
        let mut receive = Receive::new(raw_buffers);
        let per_packet = (ROUNDS * PACKETS) as f64;
        let samples = interleave(
            &mut receive,
            |receive| receive.uring_ns(ROUNDS) as f64 / per_packet,
            |receive| receive.raw_ns(ROUNDS) as f64 / per_packet,
        );
        row(&format!("receive, ns, floor of {raw_buffers} buffers"), &samples);
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let cores = cores::allowed().unwrap();
    // Two cores is how the engine runs. Where the scheduler places two sleeping threads it often chooses one core
    // for both, which saves the wake-up across.
    let two_cores = Some((cores[0], *cores.last().unwrap()));
    for (placement, busy) in [(None, false), (None, true), (two_cores, false), (two_cores, true)] {
        let place = |core: Option<usize>| core.map_or(Ok(()), cores::pin_to).unwrap();
        // New threads stay on the core of the one that starts them.
        place(placement.map(|(_, there)| there));
        let (blocking, echo) = (BlockingEcho::start(), UringEcho::start(busy));
        place(placement.map(|(here, _)| here));
        let mut udp = open(busy);
        let samples = interleave(
            &mut udp,
            |udp| uring_echo_p50_ns(udp, echo.to) as f64 / 1000.0,
            |_| blocking_echo_p50_ns(&socket, blocking.to) as f64 / 1000.0,
        );
        let mode = if busy { "busy" } else { "sleeping" };
        let whereabouts = if placement.is_some() { "two cores" } else { "unpinned" };
        row(&format!("echo p50, us, {mode}, {whereabouts}"), &samples);
    }
}

/// Samples of the two contenders, measured turn about, sorted.
fn interleave<S>(
    state: &mut S,
    mut ours: impl FnMut(&mut S) -> f64,
    mut floor: impl FnMut(&mut S) -> f64,
) -> (Vec<f64>, Vec<f64>) {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        a.push(ours(state));
        b.push(floor(state));
    }
    a.sort_by(f64::total_cmp);
    b.sort_by(f64::total_cmp);
    (a, b)
}

/// The median says what a user gets on this machine as it is; the best sample, what others' load hides.
fn row(label: &str, (ours, floor): &(Vec<f64>, Vec<f64>)) {
    print!("{label:<40}");
    for at in [SAMPLES / 2, 0] {
        print!("{:>9.1}{:>9.1}{:>8.2}", ours[at], floor[at], ours[at] / floor[at]);
    }
    println!();
}

fn p50(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// The floor: the same socket options, one system call per batch.
mod raw {
    use std::net::{SocketAddr, UdpSocket};
    use std::os::fd::AsRawFd;

    pub(crate) struct Socket {
        socket: UdpSocket,
        local: SocketAddr,
        buffers: Vec<Vec<u8>>,
        next: usize,
    }

    impl Socket {
        /// Receives into `buffers` buffers in turn.
        pub(crate) fn bind(buffers: usize) -> Self {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            for (level, option, value) in [
                (libc::SOL_UDP, libc::UDP_GRO, 1),
                (libc::IPPROTO_IP, libc::IP_RECVTOS, 1),
                (libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1),
                (libc::SOL_SOCKET, libc::SO_RCVBUF, 4 << 20),
                (libc::SOL_SOCKET, libc::SO_SNDBUF, 4 << 20),
            ] {
                // SAFETY: `value` is valid for reads of 4 bytes.
                let result = unsafe {
                    libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), 4)
                };
                assert_eq!(result, 0);
            }
            let local = socket.local_addr().unwrap();
            Self { socket, local, buffers: vec![vec![0; 65_536]; buffers], next: 0 }
        }

        pub(crate) fn local_addr(&self) -> SocketAddr {
            self.local
        }

        pub(crate) fn send_gso(&self, payload: &[u8], to: SocketAddr, segment: u16) {
            let SocketAddr::V4(to) = to else { panic!("IPv4 only") };
            let mut name = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: to.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*to.ip()).to_be() },
                sin_zero: [0; 8],
            };
            let mut part =
                libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
            let mut control = [0u64; 3];
            // SAFETY: the message describes memory that outlives the call; the control data has room for one
            // `u16` with its header.
            let sent = unsafe {
                let mut message: libc::msghdr = std::mem::zeroed();
                message.msg_name = (&raw mut name).cast();
                message.msg_namelen = size_of_val(&name) as u32;
                message.msg_iov = &raw mut part;
                message.msg_iovlen = 1;
                message.msg_control = control.as_mut_ptr().cast();
                message.msg_controllen = libc::CMSG_SPACE(2) as usize;
                let header = libc::CMSG_FIRSTHDR(&raw const message);
                (*header).cmsg_level = libc::SOL_UDP;
                (*header).cmsg_type = libc::UDP_SEGMENT;
                (*header).cmsg_len = libc::CMSG_LEN(2) as usize;
                libc::CMSG_DATA(header).cast::<u16>().write_unaligned(segment);
                libc::sendmsg(self.socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT)
            };
            assert_eq!(sent, payload.len() as isize);
        }

        /// The payload and its segment length.
        pub(crate) fn receive_gro(&mut self) -> (&[u8], usize) {
            self.next = (self.next + 1) % self.buffers.len();
            let buffer = &mut self.buffers[self.next];
            let mut name = [0u64; 4];
            let mut control = [0u64; 26];
            let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            let mut segment = 0usize;
            // SAFETY: the message describes memory that outlives the call; the kernel's control data is walked
            // with its own macros.
            let received = unsafe {
                let mut message: libc::msghdr = std::mem::zeroed();
                message.msg_name = name.as_mut_ptr().cast();
                message.msg_namelen = size_of_val(&name) as u32;
                message.msg_iov = &raw mut part;
                message.msg_iovlen = 1;
                message.msg_control = control.as_mut_ptr().cast();
                message.msg_controllen = size_of_val(&control);
                let received = libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0);
                let mut header = libc::CMSG_FIRSTHDR(&raw const message);
                while !header.is_null() {
                    if (*header).cmsg_level == libc::SOL_UDP && (*header).cmsg_type == libc::UDP_GRO {
                        segment = libc::CMSG_DATA(header).cast::<i32>().read_unaligned() as usize;
                    }
                    header = libc::CMSG_NXTHDR(&raw const message, header);
                }
                received
            };
            let len = usize::try_from(received).unwrap();
            (&buffer[..len], if segment == 0 { len.max(1) } else { segment })
        }
    }
}

//! The UDP socket: created, tuned and bound once; everything after that goes through the ring.
//!
//! Owns the file descriptor. Never sends or receives. Invariant: an open [`Socket`] has GRO on, tells
//! ECN and local address with every receive, never fragments, and speaks both IP versions when it is bound to
//! the unspecified IPv6 address.

#![allow(unsafe_code)]

pub(crate) mod address;
pub(crate) mod control;
mod error;

pub use error::OpenError;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use address::{Family, NAME_LEN};

use crate::kernel::{Feature, Unsupported};
use crate::uring::Steer;

/// Microseconds that one receive attempt may poll the device's queue itself (`SO_BUSY_POLL`).
const BUSY_POLL_US: libc::c_int = 50;

/// How a socket is to be opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) bind: SocketAddr,
    pub(crate) reuse_port: bool,
    pub(crate) steer: Option<Steer>,
    pub(crate) busy_poll: bool,
    pub(crate) arrival_times: bool,
    pub(crate) receive_bytes: usize,
    pub(crate) send_bytes: usize,
}

/// Which datagrams a socket takes.
#[derive(Clone, Copy, Debug)]
pub enum Filter<'a> {
    /// Those for which a loaded eBPF program of the type socket filter says so. It sees them from the UDP header on.
    Program(BorrowedFd<'a>),
    /// Those whose first 32 bits of payload, big-endian and without the lowest 8, are among these; at most 200.
    Words(&'a [u32]),
}

/// A bound UDP socket.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    family: Family,
    local: SocketAddr,
}

impl Socket {
    /// Creates, tunes and binds. `[::]` on a machine without IPv6 becomes `0.0.0.0`.
    pub(crate) fn open(options: &Options) -> Result<Self, OpenError> {
        match Self::open_at(options.bind, options) {
            Err(OpenError::NoIpv6 { address }) if address.ip().is_unspecified() => {
                tracing::info!("this machine has no IPv6: listening on IPv4 only");
                Self::open_at((Ipv4Addr::UNSPECIFIED, address.port()).into(), options)
            }
            result => result,
        }
    }

    fn open_at(bind: SocketAddr, options: &Options) -> Result<Self, OpenError> {
        let (domain, family) = match bind {
            SocketAddr::V4(_) => (libc::AF_INET, Family::V4),
            SocketAddr::V6(_) => (libc::AF_INET6, Family::V6),
        };
        // SAFETY: no pointers are passed; the result is checked before it is used.
        let fd = unsafe { libc::socket(domain, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            let error = io::Error::last_os_error();
            return Err(match error.raw_os_error() {
                Some(libc::EAFNOSUPPORT) => OpenError::from_bind(bind, error),
                _ => OpenError::System { operation: "creating the UDP socket", source: error },
            });
        }
        // SAFETY: `fd` was just returned to us and has no other owner.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        tune(&fd, family, bind, options)?;
        bind_to(&fd, family, bind).map_err(|error| OpenError::from_bind(bind, error))?;
        if let Some(steer) = options.steer {
            attach_steering(&fd, steer).map_err(OpenError::system("setting SO_ATTACH_REUSEPORT_CBPF"))?;
        }
        let local = local_addr(&fd).map_err(OpenError::system("reading the bound address"))?;
        Ok(Self { fd, family, local })
    }

    pub(crate) fn family(&self) -> Family {
        self.family
    }

    /// The bound address, with the real port.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Whether the kernel merges what arrives. While it does not, it tells no seams of what it merged before.
    pub(crate) fn set_merging(&self, on: bool) -> io::Result<()> {
        set(&self.fd, libc::SOL_UDP, libc::UDP_GRO, i32::from(on))
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Has the kernel ask a program before it queues a datagram.
    pub(crate) fn set_filter(&self, filter: Filter<'_>) -> io::Result<()> {
        match filter {
            Filter::Program(program) => {
                set(&self.fd, libc::SOL_SOCKET, libc::SO_ATTACH_BPF, program.as_raw_fd())
            }
            Filter::Words(wanted) => attach_words(&self.fd, wanted),
        }
    }

    /// Forbids (or allows again) the checksum of IPv4 sends. Without one the kernel refuses GSO, which is
    /// how a device without checksum offload behaves.
    #[cfg(test)]
    pub(crate) fn set_no_checksum(&self, off: bool) -> io::Result<()> {
        set(&self.fd, libc::SOL_SOCKET, libc::SO_NO_CHECK, i32::from(off))
    }
}

fn tune(fd: &OwnedFd, family: Family, bind: SocketAddr, options: &Options) -> Result<(), OpenError> {
    let failed = OpenError::system;
    // GSO is asked for per send; setting it to 0 only proves that the kernel knows the option.
    set(fd, libc::SOL_UDP, libc::UDP_SEGMENT, 0).map_err(|_| Unsupported::missing(Feature::UdpSegment))?;
    set(fd, libc::SOL_UDP, libc::UDP_GRO, 1).map_err(|_| Unsupported::missing(Feature::UdpGro))?;

    // A socket that is bound to one address need not be told which it was.
    let any = i32::from(bind.ip().is_unspecified());
    if family == Family::V6 {
        let only = i32::from(!bind.ip().is_unspecified());
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only).map_err(failed("setting IPV6_V6ONLY"))?;
        for (option, value) in [
            (libc::IPV6_RECVTCLASS, 1),
            (libc::IPV6_RECVPKTINFO, any),
            // Never fragment and never believe a forged path MTU: the protocol above probes for itself.
            (libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
        ] {
            set(fd, libc::IPPROTO_IPV6, option, value).map_err(failed("setting an IPv6 socket option"))?;
        }
    }
    // An IPv6 socket takes these for the IPv4 traffic that reaches it. It tells the local address of both
    // versions by IPV6_PKTINFO.
    let pktinfo = if family == Family::V4 { any } else { 0 };
    for (option, value) in
        [(libc::IP_RECVTOS, 1), (libc::IP_PKTINFO, pktinfo), (libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)]
    {
        set(fd, libc::IPPROTO_IP, option, value).map_err(failed("setting an IPv4 socket option"))?;
    }

    set(fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1).map_err(failed("setting SO_RXQ_OVFL"))?;
    if options.arrival_times {
        set(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1).map_err(failed("setting SO_TIMESTAMPNS"))?;
    }
    if options.reuse_port || options.steer.is_some() {
        set(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).map_err(failed("setting SO_REUSEPORT"))?;
    }
    if options.busy_poll {
        // Raising it above the system's default needs CAP_NET_ADMIN; spinning works without.
        if let Err(error) = set(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, BUSY_POLL_US) {
            tracing::debug!(%error, "SO_BUSY_POLL is not available; spinning on completions only");
        }
    }
    size_queue(fd, Queue::RECEIVE, options.receive_bytes)?;
    size_queue(fd, Queue::SEND, options.send_bytes)
}

/// The two options that size one direction's queue, and the limit an administrator sets on it.
struct Queue {
    option: libc::c_int,
    force: libc::c_int,
    sysctl: &'static str,
}

impl Queue {
    const RECEIVE: Self =
        Self { option: libc::SO_RCVBUF, force: libc::SO_RCVBUFFORCE, sysctl: "net.core.rmem_max" };
    const SEND: Self =
        Self { option: libc::SO_SNDBUF, force: libc::SO_SNDBUFFORCE, sysctl: "net.core.wmem_max" };
}

/// Asks for a queue of `bytes`: past the administrator's limit where that is allowed, else up to it.
fn size_queue(fd: &OwnedFd, queue: Queue, bytes: usize) -> Result<(), OpenError> {
    let Ok(asked) = i32::try_from(bytes) else {
        return Err(OpenError::Size { what: "a socket queue", found: bytes, allowed: "below 2 GiB" });
    };
    if set(fd, libc::SOL_SOCKET, queue.force, asked).is_ok() {
        return Ok(());
    }
    set(fd, libc::SOL_SOCKET, queue.option, asked).map_err(OpenError::system("sizing a socket queue"))?;
    // The kernel reports twice what it granted: it counts its own overhead too.
    let granted = read(fd, libc::SOL_SOCKET, queue.option).unwrap_or(0) / 2;
    if granted < asked {
        tracing::warn!(
            "socket queue of {granted} bytes instead of {asked}: bursts may be lost; raise it with `sysctl -w {}={asked}`",
            queue.sysctl
        );
    }
    Ok(())
}

fn set(fd: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: `value` is valid for reads of the size that is passed.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Most words of a classic filter: its jumps reach no further.
const WORDS_MAX: usize = 200;

/// Takes only datagrams that begin with one of these words. Needs no privilege.
fn attach_words(fd: &OwnedFd, wanted: &[u32]) -> io::Result<()> {
    if wanted.len() > WORDS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many words for a filter"));
    }
    let step = |code: u32, jt: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf: 0, k };
    // The buffer begins with the UDP header. A datagram that ends before the word is refused by the load itself.
    let mut steps = vec![
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 8),
        step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0xffff_ff00),
    ];
    for (index, word) in wanted.iter().enumerate() {
        let to_end = (wanted.len() - index) as u8;
        steps.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, to_end, *word));
    }
    steps.push(step(libc::BPF_RET | libc::BPF_K, 0, 0));
    steps.push(step(libc::BPF_RET | libc::BPF_K, 0, u32::MAX));
    attach_classic(fd, libc::SO_ATTACH_FILTER, &mut steps)
}

fn attach_classic(fd: &OwnedFd, option: libc::c_int, steps: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: `program` is valid for reads of the size that is passed, and names `steps`, which is alive.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the sockets that share this one's port a program that chooses among them (socket(7)). The program sees a
/// datagram from the first byte of its payload on, and ends with 0 where it reads past the end.
fn attach_steering(fd: &OwnedFd, steer: Steer) -> io::Result<()> {
    let step = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, steer.offset),
        step(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, steer.sockets.max(1)),
        step(libc::BPF_RET | libc::BPF_A, 0),
    ];
    attach_classic(fd, libc::SO_ATTACH_REUSEPORT_CBPF, &mut steps)
}

fn read(fd: &OwnedFd, level: libc::c_int, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` is valid for writes of `len` bytes.
    let result =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut len) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// A name that is aligned as the kernel's own types are.
#[repr(C, align(8))]
struct Name([u8; NAME_LEN]);

fn bind_to(fd: &OwnedFd, family: Family, address: SocketAddr) -> io::Result<()> {
    let mut name = Name([0; NAME_LEN]);
    let len = address::encode(address, family, &mut name.0)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
    // SAFETY: `name` holds a socket address of `len` bytes.
    let result = unsafe { libc::bind(fd.as_raw_fd(), (&raw const name).cast(), len as libc::socklen_t) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn local_addr(fd: &OwnedFd) -> io::Result<SocketAddr> {
    let mut name = Name([0; NAME_LEN]);
    let mut len = NAME_LEN as libc::socklen_t;
    // SAFETY: `name` is valid for writes of `len` bytes.
    let result = unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut name).cast(), &raw mut len) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    address::decode(&name.0).ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(bind: &str) -> Options {
        Options {
            bind: bind.parse().unwrap(),
            reuse_port: false,
            steer: None,
            busy_poll: false,
            arrival_times: false,
            receive_bytes: 1 << 20,
            send_bytes: 1 << 20,
        }
    }

    #[test]
    fn a_taken_port_is_named() {
        let first = Socket::open(&options("127.0.0.1:0")).unwrap();
        let mut second = options("127.0.0.1:0");
        second.bind = first.local_addr();
        let error = Socket::open(&second).unwrap_err();
        assert!(matches!(error, OpenError::PortInUse { address } if address == first.local_addr()));
    }

    #[test]
    fn reuse_port_shares_it() {
        let mut shared = options("127.0.0.1:0");
        shared.reuse_port = true;
        let first = Socket::open(&shared).unwrap();
        shared.bind = first.local_addr();
        assert_eq!(Socket::open(&shared).unwrap().local_addr(), first.local_addr());
    }

    #[test]
    fn a_foreign_address_is_named() {
        // TEST-NET-1, RFC 5737: nobody's address.
        let error = Socket::open(&options("192.0.2.1:0")).unwrap_err();
        assert!(matches!(error, OpenError::AddressNotAvailable { .. }), "{error}");
    }

    #[test]
    fn only_datagrams_that_begin_with_the_words_are_queued() {
        let socket = Socket::open(&options("127.0.0.1:0")).unwrap();
        socket.set_filter(Filter::Words(&[0x5701_1000, 0x5701_2000])).unwrap();
        let receiver = std::net::UdpSocket::from(socket.fd.try_clone().unwrap());
        receiver.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let sent: [&[u8]; 6] =
            [b"\x57\x01\x10\x01a", b"\x57\x01\x11\x00", b"x", b"", b"\x57\x01\x20\x00b", b"\x57\x01\x10\xff"];
        for datagram in sent {
            sender.send_to(datagram, socket.local_addr()).unwrap();
        }
        for expected in [sent[0], sent[4], sent[5]] {
            let mut bytes = [0; 16];
            let len = receiver.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..len], expected);
        }
        assert!(socket.set_filter(Filter::Words(&[0; 300])).is_err());
    }

    #[test]
    fn an_impossible_queue_is_refused() {
        let mut huge = options("127.0.0.1:0");
        huge.receive_bytes = 1 << 40;
        assert!(matches!(Socket::open(&huge).unwrap_err(), OpenError::Size { .. }));
    }
}

//! A source and a sink of datagrams in eBPF (`src/bpf/load.bpf.c`), for benchmarks and tests of relays: several million
//! datagrams a second from one core, with the latency of each.
//!
//! Owns the programs and their maps. Never attaches the sink. Invariants: source and sink belong on one core, which
//! is that of the thread that calls [`Load::run`]; frames leave through the device of the settings only.

#![forbid(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::program::{self, LoadError, Program};
use crate::skeleton::load::LoadSkelBuilder;

/// Flows that there can be; the last place of the table is the flood's.
pub const FLOWS_MAX: usize = 131_071;
/// Resolution of latencies.
pub const BUCKET_NS: u64 = 100;
/// Behind the time stamp in every measured datagram, as it lies in memory.
pub const TAG: [u8; 8] = 0x4c4f_4144_2d54_4147_u64.to_ne_bytes();

const HEAD_LEN: usize = 96;
/// Bytes that the program takes off each frame.
const SLACK: usize = 4;
const ETH_LEN: usize = 14;
const IP_LEN: usize = 20;
const HEADERS_LEN: usize = ETH_LEN + IP_LEN + 8;
const BUCKETS: usize = 32_768;
const FLOW_LEN: usize = HEAD_LEN + 16 + 8 + 8;
const SETTINGS_LEN: usize = 112;
const RESULTS_LEN: usize = 24 + BUCKETS * 8;
/// A single call to the kernel lasts about this long, so that the caller can look at the clock.
const CALL: Duration = Duration::from_millis(20);

/// How measured datagrams are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// As the flow says.
    Plain,
    /// A FORWARD of the relay protocol of a host, with sequence and MAC, and so many bytes of payload.
    Forward {
        /// What the MAC is told.
        payload_len: u16,
    },
}

/// When measured datagrams leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Not at all.
    Never,
    /// As fast as they come out at the other end, at most so many under way.
    Window(u32),
    /// A burst each time this has passed.
    Every(Duration),
}

/// What the flood consists of. Its source addresses are counted up from that of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// The first four bytes of each are random.
    Junk,
    /// Bytes 4 to 7 of each are random: a session id that nobody has.
    Sessions,
    /// The same bytes each time.
    Fixed,
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Number of the device in the namespace of the calling thread.
    pub device: u32,
    /// How datagrams are made.
    pub protocol: Protocol,
    /// When they leave.
    pub pace: Pace,
    /// How many leave at once.
    pub burst: u32,
    /// The first so many flows take turns.
    pub flows: u32,
    /// From one datagram's flow to the next one's; odd and prime to `flows` visits all of them.
    pub flow_step: u32,
    /// Offset of the time stamp in the UDP payload as it is sent, at most 40.
    pub stamp_sent_at: u32,
    /// The same as it arrives.
    pub stamp_got_at: u32,
    /// Datagrams of the flood per second, and sources of it.
    pub flood: Option<(Flood, u32, u32)>,
    /// Frames that leave together at most: 1 for exact times, up to 256 for speed.
    pub batch: u32,
}

/// One flow: a datagram as it lies on the wire.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Ethernet addresses, of the receiver first.
    pub ethernet: [[u8; 6]; 2],
    /// Sender.
    pub from: SocketAddrV4,
    /// Receiver.
    pub to: SocketAddrV4,
    /// UDP payload, with zeroes for sequence, MAC and time stamp.
    pub payload: Vec<u8>,
    /// Key of the MAC, if the protocol has one.
    pub key: [u64; 2],
}

/// What happened.
#[derive(Clone, Debug)]
pub struct Results {
    /// Measured datagrams that left.
    pub sent: u64,
    /// Those of the flood.
    pub flood_sent: u64,
    /// Measured datagrams that arrived.
    pub received: u64,
    /// How long it took; shorter than the time asked for when the work came to an end earlier.
    pub elapsed: Duration,
    histogram: Vec<u64>,
}

impl Results {
    /// Takes what happened in another span, as if one had followed the other.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.flood_sent += other.flood_sent;
        self.received += other.received;
        self.elapsed += other.elapsed;
        for (here, there) in self.histogram.iter_mut().zip(&other.histogram) {
            *here += there;
        }
    }

    /// The latency that so great a share of the datagrams does not exceed, in microseconds; 0 if none arrived.
    #[must_use]
    pub fn latency_us(&self, share: f64) -> f64 {
        let total: u64 = self.histogram.iter().sum();
        let rank = (total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (place, &count) in self.histogram.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return (place as f64 + 0.5) * BUCKET_NS as f64 / 1e3;
            }
        }
        0.0
    }
}

/// The loaded programs.
#[derive(Debug)]
pub struct Load {
    source: Program,
    sink: Program,
    hole: Program,
    settings: MapHandle,
    flows: MapHandle,
    results: MapHandle,
}

impl Load {
    /// Loads both programs.
    ///
    /// # Errors
    ///
    /// [`LoadError`] names the missing capability, if that is what it is.
    pub fn open() -> Result<Self, LoadError> {
        program::quieten();
        let mut storage = MaybeUninit::uninit();
        let skeleton = LoadSkelBuilder::default().open(&mut storage)?.load()?;
        Ok(Self {
            source: Program::keep(&skeleton.progs.source)?,
            sink: Program::keep(&skeleton.progs.sink)?,
            hole: Program::keep(&skeleton.progs.hole)?,
            settings: MapHandle::try_from(&skeleton.maps.settings)?,
            flows: MapHandle::try_from(&skeleton.maps.flows)?,
            results: MapHandle::try_from(&skeleton.maps.results)?,
        })
    }

    /// To be attached, in generic mode, to a device that nothing ever arrives at: the kernel then keeps it among the
    /// programs that it calls directly, and does not have to wait for all cores with each call of [`run`](Self::run).
    #[must_use]
    pub fn source(&self) -> &Program {
        &self.source
    }

    /// To be attached where datagrams arrive.
    #[must_use]
    pub fn sink(&self) -> &Program {
        &self.sink
    }

    /// To be attached where answers to the sender arrive: those to the first /8 of the flood's sources end there.
    #[must_use]
    pub fn hole(&self) -> &Program {
        &self.hole
    }

    /// Enters a flow. Its sequence begins at `sequence`.
    ///
    /// # Errors
    ///
    /// For a number above [`FLOWS_MAX`].
    pub fn set_flow(&self, number: u32, flow: &Flow, sequence: u64) -> io::Result<()> {
        let frame = flow.frame();
        // Addresses of the pseudo header lie in front of the UDP header; protocol and length come on top.
        let udp_len = (frame.len() - ETH_LEN - IP_LEN) as u16;
        let udp_sum = sum(&frame[ETH_LEN + 12..]) + sum(&[0, 17]) + sum(&udp_len.to_be_bytes());
        self.put(number, &frame, flow.key, sequence, folded(udp_sum))
    }

    /// Enters what the flood sends.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_flood(&self, flow: &Flow) -> io::Result<()> {
        let frame = flow.frame();
        let mut ip: [u8; IP_LEN] = std::array::from_fn(|i| frame[ETH_LEN + i]);
        // Without checksum and source address: both are written per frame.
        ip[10..16].fill(0);
        self.put(FLOWS_MAX as u32, &frame, flow.key, 0, folded(sum(&ip)))
    }

    fn put(&self, number: u32, frame: &[u8], key: [u64; 2], sequence: u64, sum: u32) -> io::Result<()> {
        let mut value = [0; FLOW_LEN];
        value[..HEAD_LEN].copy_from_slice(&frame[..HEAD_LEN]);
        value[96..104].copy_from_slice(&key[0].to_ne_bytes());
        value[104..112].copy_from_slice(&key[1].to_ne_bytes());
        value[112..120].copy_from_slice(&sequence.to_ne_bytes());
        value[120..124].copy_from_slice(&sum.to_ne_bytes());
        self.flows.update(&number.to_ne_bytes(), &value, MapFlags::ANY).map_err(io::Error::other)
    }

    /// The next sequence of a flow.
    ///
    /// # Errors
    ///
    /// For a flow that there is not.
    pub fn sequence(&self, number: u32) -> io::Result<u64> {
        let value = self.flows.lookup(&number.to_ne_bytes(), MapFlags::ANY).map_err(io::Error::other)?;
        let value = value.ok_or_else(|| io::Error::other("no such flow"))?;
        Ok(u64::from_ne_bytes(value.get(112..).and_then(|v| v.first_chunk()).copied().unwrap_or_default()))
    }

    /// Sends for as long as `span`, from the calling thread, whose core belongs to it meanwhile. `frame` is a flow: all
    /// have its length and the bytes behind the first 96. `stop` ends it early.
    ///
    /// # Errors
    ///
    /// When the kernel refuses: before 5.18, or for a frame of less than 96 bytes or more than a page.
    pub fn run(
        &self,
        settings: &Settings,
        frame: &Flow,
        span: Duration,
        stop: impl Fn() -> bool,
    ) -> io::Result<Results> {
        let failed = io::Error::other;
        self.settings.update(&[0; 4], &settings.encode(), MapFlags::ANY).map_err(failed)?;
        self.results.update(&[0; 4], &vec![0; RESULTS_LEN], MapFlags::ANY).map_err(failed)?;
        let mut frame = frame.frame();
        if frame.len() < HEAD_LEN {
            return Err(io::Error::other("the frame is shorter than its head of 96 bytes"));
        }
        frame.extend([0; SLACK]);
        let begun = Instant::now();
        let mut repeat = 10_000;
        while begun.elapsed() < span && !stop() {
            let called = Instant::now();
            match self.source.run_live(&frame, repeat, settings.batch.clamp(1, 256)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            let ratio = CALL.as_secs_f64() / called.elapsed().as_secs_f64().max(1e-6);
            repeat = (f64::from(repeat) * ratio.clamp(0.5, 2.0)).clamp(1e3, 1e7) as u32;
        }
        let elapsed = begun.elapsed();
        // What is under way arrives now.
        std::thread::sleep(Duration::from_millis(5));
        let value = self.results.lookup(&[0; 4], MapFlags::ANY).map_err(failed)?.unwrap_or_default();
        let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.first_chunk().copied().unwrap_or_default());
        let words: Vec<u64> = value.chunks_exact(8).map(word).collect();
        let [sent, flood_sent, received, histogram @ ..] = &words[..] else {
            return Err(io::Error::other("the results are cut"));
        };
        Ok(Results {
            sent: *sent,
            flood_sent: *flood_sent,
            received: *received,
            elapsed,
            histogram: histogram.to_vec(),
        })
    }
}

impl Flow {
    /// The whole frame, with all checksums as they are without sequence, MAC and time stamp.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let udp_len = (8 + self.payload.len()) as u16;
        let mut frame = Vec::with_capacity(HEADERS_LEN + self.payload.len());
        frame.extend(self.ethernet[0]);
        frame.extend(self.ethernet[1]);
        frame.extend([8, 0]);
        frame.extend([0x45, 0]);
        frame.extend((IP_LEN as u16 + udp_len).to_be_bytes());
        // May not be fragmented.
        frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
        frame.extend(self.from.ip().octets());
        frame.extend(self.to.ip().octets());
        let ip_sum = folded(sum(&frame[ETH_LEN..]));
        frame[24..26].copy_from_slice(&(!(ip_sum as u16)).to_ne_bytes());
        frame.extend(self.from.port().to_be_bytes());
        frame.extend(self.to.port().to_be_bytes());
        frame.extend(udp_len.to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(&self.payload);
        frame
    }
}

/// Of 16-bit words as they lie in memory: the sum of the Internet checksum does not mind byte order (RFC 1071).
fn sum(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    bytes.chunks(2).map(word).sum()
}

/// Adds carries until 16 bits are left.
fn folded(mut sum: u64) -> u32 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u32
}

impl Settings {
    fn encode(&self) -> [u8; SETTINGS_LEN] {
        let gap = |per_second: u32| 1_000_000_000 / u64::from(per_second.max(1));
        let (gap_ns, window, burst) = match self.pace {
            Pace::Never => (0, 0, 0),
            Pace::Window(window) => (0, window, self.burst),
            Pace::Every(gap) => (gap.as_nanos() as u64, 0, self.burst),
        };
        let (flood, per_second, sources) = self.flood.map_or((0, 0, 1), |(flood, per_second, sources)| {
            let kind = match flood {
                Flood::Junk => 1,
                Flood::Sessions => 2,
                Flood::Fixed => 3,
            };
            (kind, per_second, sources)
        });
        let (protocol, mac_len) = match self.protocol {
            Protocol::Plain => (0, 0),
            Protocol::Forward { payload_len } => (1, u32::from(payload_len)),
        };
        let mut out = [0; SETTINGS_LEN];
        out[..8].copy_from_slice(&gap_ns.to_ne_bytes());
        out[8..16].copy_from_slice(&gap(per_second).to_ne_bytes());
        let words = [
            window,
            burst,
            self.flows,
            self.flow_step,
            protocol,
            mac_len,
            self.stamp_sent_at,
            self.stamp_got_at,
            self.device,
            flood,
            sources,
        ];
        for (place, word) in out[16..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        out
    }
}

//! What receiving costs beside the floor: copy, open in place, copy the body to where it belongs.
//!
//! `cargo bench -p rift-core --bench receiver` runs criterion's measurements and then prints the ratios,
//! measured turn about so that a busy machine slows both sides alike. A case is one frame, from the sealed
//! datagrams to the last slice handed out, including what an endpoint does around it for each packet:
//! header, replay window, message. The copy into the receive buffer is in both sides and stands for what the
//! kernel does.

#[path = "../tests/support/packetiser.rs"]
mod packetiser;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use packetiser::{FrameSpec, Packetiser, picture};
use rift_core::message::{self, ChunkReader, Incoming, MediaBody};
use rift_core::receive::{ReceiverConfig, VideoReceiver};
use rift_core::wire::{Header, TRANSPORT_HEADER_LEN, TRANSPORT_OVERHEAD, TransportHeader};
use rift_core::{Alias, PacketId, Timestamp};
use rift_crypto::{OpenKey, ReplayWindow, SealKey, Suite};

const FRAMES: [(&str, usize); 2] = [("42kB", 42_000), ("1MB", 1_000_000)];
/// Payload of a chunk in a datagram of 1200 bytes that leaves room for parity's fields.
const CHUNK_LEN: usize = 1200 - TRANSPORT_OVERHEAD - 64 - 56;
const SLICES: usize = 4;
/// Datagrams after which slices are drained: a small receive batch (GRO hands over up to 64 KiB).
const BATCH: usize = 16;

/// Seals one frame after the other; ids go on, as in a session.
struct Host {
    seal: SealKey,
    sender: Packetiser,
    frame: u64,
    frame_len: usize,
    drop_every: Option<usize>,
    datagrams: Vec<Vec<u8>>,
    data_packets: usize,
}

impl Host {
    fn new(frame_len: usize, parity_percent: usize, drop_every: Option<usize>) -> Self {
        Self {
            seal: SealKey::new(Suite::Aes256Gcm, [7; 32]),
            sender: Packetiser::new(CHUNK_LEN, 48, parity_percent),
            frame: 0,
            frame_len,
            drop_every,
            datagrams: Vec::new(),
            data_packets: 0,
        }
    }

    /// Makes the datagrams of the next frame.
    fn advance(&mut self) {
        let id = self.frame;
        self.frame += 1;
        let spec = if id == 0 { FrameSpec::keyframe(0) } else { FrameSpec::after(id, 1) };
        let slices: Vec<_> = (0..SLICES).map(|i| picture(id, i, self.frame_len / SLICES)).collect();
        let packets = self.sender.frame(spec, &slices);
        self.sender.history.clear();
        self.data_packets = packets.iter().filter(|p| !p.is_parity).count();
        self.datagrams.clear();
        for (n, packet) in packets.iter().enumerate() {
            if self.drop_every.is_some_and(|every| n % every == 7) {
                continue;
            }
            let header = TransportHeader { alias: Alias(1), packet_id: packet.id }.encode();
            let mut datagram = [&header[..], &packet.body].concat();
            let tag = self.seal.seal_in_place(packet.id.0, &header, &mut datagram[TRANSPORT_HEADER_LEN..]);
            datagram.extend_from_slice(&tag);
            self.datagrams.push(datagram);
        }
    }
}

/// What both sides read into, and the floor's picture.
struct Floor {
    open: OpenKey,
    buffer: Vec<u8>,
    picture: Vec<u8>,
}

impl Floor {
    fn new(frame_len: usize) -> Self {
        Self {
            open: OpenKey::new(Suite::Aes256Gcm, [7; 32]),
            buffer: vec![0; 2048],
            picture: vec![0; frame_len + frame_len / 4],
        }
    }

    fn frame(&mut self, datagrams: &[Vec<u8>]) {
        let mut at = 0;
        for datagram in datagrams {
            let packet = &mut self.buffer[..datagram.len()];
            packet.copy_from_slice(datagram);
            let id = u64::from_be_bytes(packet[8..16].try_into().expect("eight bytes"));
            let (header, sealed) = packet.split_first_chunk_mut().expect("a header");
            let body = self.open.open_in_place(id, header, sealed).expect("opens");
            self.picture[at..at + body.len()].copy_from_slice(body);
            at += body.len();
        }
        black_box(&mut self.picture);
    }
}

struct Client {
    open: OpenKey,
    buffer: Vec<u8>,
    receiver: VideoReceiver,
    chunks: ChunkReader,
    replay: ReplayWindow,
    now: Timestamp,
}

impl Client {
    fn new() -> Self {
        Self {
            open: OpenKey::new(Suite::Aes256Gcm, [7; 32]),
            buffer: vec![0; 2048],
            receiver: VideoReceiver::new(&ReceiverConfig::default()),
            chunks: ChunkReader::new(),
            replay: ReplayWindow::new(),
            now: Timestamp::from_micros(1_000_000),
        }
    }

    /// One frame; returns how many bytes were handed out.
    fn frame(&mut self, datagrams: &[Vec<u8>]) -> usize {
        self.now = self.now.plus_micros(16_667);
        let now = self.now;
        let mut handed_out = 0;
        for batch in datagrams.chunks(BATCH) {
            for datagram in batch {
                let packet = &mut self.buffer[..datagram.len()];
                packet.copy_from_slice(datagram);
                let Ok(Header::Transport(header)) = Header::decode(packet) else { continue };
                let id = header.packet_id;
                if self.replay.check(id.0).is_err() {
                    continue;
                }
                let (aad, sealed) = packet.split_first_chunk_mut().expect("a header");
                let body = self.open.open_in_place(id.0, aad, sealed).expect("opens");
                self.replay.mark(id.0);
                self.receiver.on_packet(now, id);
                let taken = if let Some(chunk) = self.chunks.read(body) {
                    self.receiver.handle_chunk(now, id, body, &chunk)
                } else {
                    match message::decode(body) {
                        Ok(Incoming::Media(MediaBody::Video(chunk))) => {
                            self.receiver.handle_chunk(now, id, body, &chunk)
                        }
                        Ok(Incoming::Media(MediaBody::Fec(fec))) => self.receiver.handle_fec(now, id, &fec),
                        _ => continue,
                    }
                };
                black_box(taken.is_ok());
            }
            while let Some(slice) = self.receiver.poll_slice(now) {
                handed_out += black_box(slice.data).len();
            }
            black_box(self.receiver.poll_nack(now, &mut [PacketId(0); 32]));
        }
        black_box(self.receiver.poll_request(now));
        handed_out
    }
}

/// A case: its name, its parity in percent, and one packet in how many is lost.
const CASES: [(&str, usize, Option<usize>); 3] =
    [("no parity", 0, None), ("parity 20 %", 20, None), ("parity 20 %, 2 % lost", 20, Some(50))];

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn measure(c: &mut Criterion) {
    for (name, len) in FRAMES {
        let mut host = Host::new(len, 0, None);
        host.advance();
        let mut group = c.benchmark_group(format!("receiver/{name}"));
        group.throughput(Throughput::Elements(host.data_packets as u64));
        let mut floor = Floor::new(len);
        group.bench_function("floor", |b| {
            b.iter_custom(|rounds| {
                let rounds = 0..rounds;
                rounds.map(|_| (host.advance(), timed(|| floor.frame(&host.datagrams))).1).sum()
            });
        });
        for (case, parity, drop_every) in CASES {
            let (mut host, mut client) = (Host::new(len, parity, drop_every), Client::new());
            group.bench_function(case, |b| {
                b.iter_custom(|rounds| {
                    let rounds = 0..rounds;
                    rounds
                        .map(|_| (host.advance(), timed(|| _ = black_box(client.frame(&host.datagrams)))).1)
                        .sum()
                });
            });
        }
        group.finish();
    }
}

/// The ratio is to the floor over as many datagrams, parity included: what parity costs the network is a
/// choice, what it costs the receiver is measured here.
fn print_ratios() {
    println!("\nframe  case                   datagrams  floor ns/datagram  receiver  ratio  ns/data packet");
    for (name, len) in FRAMES {
        for (case, parity, drop_every) in CASES {
            let (mut host, mut client) = (Host::new(len, parity, drop_every), Client::new());
            let mut floor = Floor::new(len * 2);
            let (mut floor_times, mut times) = (Vec::new(), Vec::new());
            for round in 0..if len > 100_000 { 120 } else { 1500 } {
                host.advance();
                let mut size = 0;
                let one = timed(|| floor.frame(&host.datagrams));
                let other = timed(|| size = client.frame(&host.datagrams));
                assert_eq!(size, len, "every byte is handed out");
                // The first round of the packet window touches its memory for the first time.
                if round * host.data_packets > 8192 {
                    floor_times.push(one);
                    times.push(other);
                }
            }
            let count = host.datagrams.len() as f64;
            let (floor_ns, ns) =
                (median(&mut floor_times).as_nanos() as f64, median(&mut times).as_nanos() as f64);
            println!(
                "{name:5}  {case:21}  {count:9}  {:17.0}  {:8.0}  {:5.2}  {:14.0}",
                floor_ns / count,
                ns / count,
                ns / floor_ns,
                ns / host.data_packets as f64
            );
        }
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
        .configure_from_args();
    measure(&mut criterion);
    criterion.final_summary();
    print_ratios();
}

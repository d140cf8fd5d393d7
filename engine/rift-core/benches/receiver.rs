//! What receiving costs beside the floor: copy, open in place, copy the body to where it belongs.
//!
//! `cargo bench -p rift-core --bench receiver` runs criterion's measurements and then prints the ratios,
//! measured turn about so that a busy machine slows both sides alike. A case is one frame, from the sealed
//! datagrams to the last slice handed out, including what an endpoint does around it for each packet:
//! header, replay window, message. Each round opens fresh copies of the same datagrams, and the copy is in
//! both sides: it stands for what the kernel does.

#[path = "../tests/support/packetiser.rs"]
mod packetiser;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use packetiser::{FrameSpec, Packetiser, picture};
use rift_core::message::{self, Incoming, MediaBody};
use rift_core::receive::{ReceiverConfig, VideoReceiver};
use rift_core::wire::{Header, TRANSPORT_HEADER_LEN, TRANSPORT_OVERHEAD, TransportHeader};
use rift_core::{Alias, PacketId, Timestamp};
use rift_crypto::{OpenKey, ReplayWindow, SealKey, Suite};

const FRAMES: [(&str, usize); 2] = [("42kB", 42_000), ("1MB", 1_000_000)];
/// Payload of a chunk in a datagram of 1200 bytes that leaves room for parity's fields.
const CHUNK_LEN: usize = 1200 - TRANSPORT_OVERHEAD - 64 - 56;
const SLICES: usize = 4;
/// Frames that are sealed beforehand and received again and again; ids and frame numbers go on, so each
/// round makes a new receiver.
const ROUND: u64 = 8;

/// The sealed datagrams of a few frames, in order.
struct Recording {
    frames: Vec<Vec<Vec<u8>>>,
    key: OpenKey,
    packets_per_frame: usize,
}

fn record(frame_len: usize, parity_percent: usize, drop_every: Option<usize>) -> Recording {
    let seal = SealKey::new(Suite::Aes256Gcm, [7; 32]);
    let mut sender = Packetiser::new(CHUNK_LEN, 48, parity_percent);
    let mut data_packets = 0;
    let frames = (0..ROUND)
        .map(|id| {
            let spec = if id == 0 { FrameSpec::keyframe(0) } else { FrameSpec::after(id, 1) };
            let slices: Vec<_> = (0..SLICES).map(|i| picture(id, i, frame_len / SLICES)).collect();
            let packets = sender.frame(spec, &slices);
            data_packets += packets.iter().filter(|p| !p.is_parity).count();
            let kept =
                packets.iter().enumerate().filter(|(n, _)| drop_every.is_none_or(|every| n % every != 7));
            kept.map(|(_, packet)| {
                let header = TransportHeader { alias: Alias(1), packet_id: packet.id }.encode();
                let mut datagram = [&header[..], &packet.body].concat();
                let tag = seal.seal_in_place(packet.id.0, &header, &mut datagram[TRANSPORT_HEADER_LEN..]);
                datagram.extend_from_slice(&tag);
                datagram
            })
            .collect()
        })
        .collect();
    let key = OpenKey::new(Suite::Aes256Gcm, [7; 32]);
    Recording { frames, key, packets_per_frame: data_packets / ROUND as usize }
}

/// The floor of one frame.
fn floor(recording: &Recording, frame: &[Vec<u8>], buffer: &mut [u8], picture: &mut [u8]) -> usize {
    let mut at = 0;
    for datagram in frame {
        let packet = &mut buffer[..datagram.len()];
        packet.copy_from_slice(datagram);
        let id = u64::from_be_bytes(packet[8..16].try_into().expect("eight bytes"));
        let (header, sealed) = packet.split_first_chunk_mut().expect("a header");
        let body = recording.key.open_in_place(id, header, sealed).expect("opens");
        if at + body.len() > picture.len() {
            at = 0;
        }
        picture[at..at + body.len()].copy_from_slice(body);
        at += body.len();
    }
    at
}

struct Client {
    receiver: VideoReceiver,
    replay: ReplayWindow,
}

impl Client {
    fn new() -> Self {
        Self { receiver: VideoReceiver::new(&ReceiverConfig::default()), replay: ReplayWindow::new() }
    }

    /// One frame; returns how many bytes were handed out.
    fn frame(&mut self, recording: &Recording, number: usize, buffer: &mut [u8]) -> usize {
        let now = Timestamp::from_micros(1_000_000 + number as u64 * 16_667);
        let mut handed_out = 0;
        for datagram in &recording.frames[number] {
            let packet = &mut buffer[..datagram.len()];
            packet.copy_from_slice(datagram);
            let Ok(Header::Transport(header)) = Header::decode(packet) else { continue };
            let id = header.packet_id;
            if self.replay.check(id.0).is_err() {
                continue;
            }
            let (aad, sealed) = packet.split_first_chunk_mut().expect("a header");
            let body = recording.key.open_in_place(id.0, aad, sealed).expect("opens");
            self.replay.mark(id.0);
            self.receiver.on_packet(now, id);
            let taken = match message::decode(body) {
                Ok(Incoming::Media(MediaBody::Video(chunk))) => {
                    self.receiver.handle_chunk(now, id, body, &chunk)
                }
                Ok(Incoming::Media(MediaBody::Fec(fec))) => self.receiver.handle_fec(now, id, &fec),
                _ => continue,
            };
            black_box(taken.is_ok());
            while let Some(slice) = self.receiver.poll_slice(now) {
                handed_out += black_box(slice.data).len();
            }
        }
        black_box(self.receiver.poll_nack(now, &mut [PacketId(0); 32]));
        black_box(self.receiver.poll_request(now));
        handed_out
    }
}

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
    let mut buffer = vec![0; 2048];
    for (name, len) in FRAMES {
        let plain = record(len, 0, None);
        let mut picture = vec![0; len + 4096];
        let mut group = c.benchmark_group(format!("receiver/{name}"));
        group.throughput(Throughput::Elements(plain.packets_per_frame as u64));
        let mut number = 0;
        group.bench_function("floor", |b| {
            b.iter(|| {
                number = (number + 1) % plain.frames.len();
                floor(&plain, &plain.frames[number], &mut buffer, &mut picture)
            });
        });
        for (case, recording) in [("no parity", &plain), ("parity 20 %", &record(len, 20, None))] {
            let mut client = Client::new();
            let mut number = 0;
            group.bench_function(case, |b| {
                b.iter(|| {
                    if number == recording.frames.len() {
                        // Ids cannot go back: what this costs is spread over the round's frames.
                        client = Client::new();
                        number = 0;
                    }
                    number += 1;
                    client.frame(recording, number - 1, &mut buffer)
                });
            });
        }
        group.finish();
    }
}

fn print_ratios() {
    println!("\nframe  packets  floor ns/packet  no parity  ratio  20 % parity  ratio  2 % recovered  ratio");
    let mut buffer = vec![0; 2048];
    for (name, len) in FRAMES {
        let cases = [record(len, 0, None), record(len, 20, None), record(len, 20, Some(50))];
        let mut picture = vec![0; len + 4096];
        let mut times: [Vec<Duration>; 4] = Default::default();
        let rounds = if len > 100_000 { 30 } else { 500 };
        for _ in 0..rounds {
            let mut clients = [Client::new(), Client::new(), Client::new()];
            for number in 0..ROUND as usize {
                let plain = &cases[0];
                let floor_time = timed(|| {
                    black_box(floor(plain, &plain.frames[number], &mut buffer, &mut picture));
                });
                let mut sizes = [0; 3];
                let mut case_times = [Duration::ZERO; 3];
                for case in 0..3 {
                    let (client, recording) = (&mut clients[case], &cases[case]);
                    case_times[case] = timed(|| sizes[case] = client.frame(recording, number, &mut buffer));
                }
                assert!(sizes.iter().all(|&s| s == len), "{name}: every byte is handed out, {sizes:?}");
                // The first frames touch memory for the first time, which happens once in a session.
                if number >= 2 {
                    times[0].push(floor_time);
                    times[1..].iter_mut().zip(case_times).for_each(|(all, one)| all.push(one));
                }
            }
        }
        let packets = cases[0].packets_per_frame;
        let ns = times.map(|mut t| median(&mut t).as_nanos() as f64 / packets as f64);
        println!(
            "{name:5}  {packets:7}  {:15.0}  {:9.0}  {:5.2}  {:11.0}  {:5.2}  {:13.0}  {:5.2}",
            ns[0],
            ns[1],
            ns[1] / ns[0],
            ns[2],
            ns[2] / ns[0],
            ns[3],
            ns[3] / ns[0],
        );
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    measure(&mut criterion);
    criterion.final_summary();
    print_ratios();
}

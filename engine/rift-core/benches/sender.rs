//! What the sender costs beside the floor: transport header, one copy of the body and the seal.
//!
//! `cargo bench -p rift-core --bench sender` runs criterion's measurements and then prints the ratios,
//! measured turn about so that a busy machine slows both sides alike. A case is one frame, from
//! `submit_slice` to the last sealed datagram in the transmit buffer; the floor seals the datagrams that
//! the sender makes of the same frame without parity, length by length. Neither sends.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use rift_core::send::{SenderConfig, SliceMeta, VideoSender};
use rift_core::wire::{TAG_LEN, TRANSPORT_HEADER_LEN, TransportHeader};
use rift_core::{Alias, Bitrate, FrameId, PacketId, Timestamp};
use rift_crypto::{SealKey, Suite};

/// One segmented send.
const TX_BUFFER_LEN: usize = 65_536;
/// A frame is acknowledged after this many newer ones have left.
const ACK_DELAY: u64 = 1;

/// A frame as the encoder hands it out.
struct Case {
    name: &'static str,
    len: usize,
    slices: usize,
}

/// A long frame in one piece is larger than the second-level cache, so that each byte is fetched anew when
/// it is sent; in slices it is not.
const CASES: [Case; 3] = [
    Case { name: "42kB", len: 42_000, slices: 1 },
    Case { name: "1MB", len: 1_000_000, slices: 1 },
    Case { name: "1MB/8", len: 1_000_000, slices: 8 },
];

struct Sealer {
    key: SealKey,
    next_id: PacketId,
    tx: Vec<u8>,
    at: usize,
}

impl Sealer {
    fn new() -> Self {
        let key = SealKey::new(Suite::Aes256Gcm, [7; 32]);
        Self { key, next_id: PacketId(0), tx: vec![0; TX_BUFFER_LEN], at: 0 }
    }

    /// Seals the datagram whose body `write` puts into the transmit buffer.
    #[inline]
    fn datagram(&mut self, write: impl FnOnce(PacketId, &mut [u8]) -> usize) {
        if self.tx.len() - self.at < 1500 {
            self.at = 0;
        }
        let id = self.next_id;
        self.next_id = id.next();
        let header = TransportHeader { alias: Alias(1), packet_id: id }.encode();
        let out = &mut self.tx[self.at..];
        out[..TRANSPORT_HEADER_LEN].copy_from_slice(&header);
        let body_max = out.len() - TAG_LEN - TRANSPORT_HEADER_LEN;
        let len = write(id, &mut out[TRANSPORT_HEADER_LEN..][..body_max]);
        let end = TRANSPORT_HEADER_LEN + len;
        let tag = self.key.seal_in_place(id.0, &header, &mut out[TRANSPORT_HEADER_LEN..end]);
        out[end..end + TAG_LEN].copy_from_slice(&tag);
        self.at += end + TAG_LEN;
    }
}

struct Host {
    sender: VideoSender,
    sealer: Sealer,
    frame: u64,
    now: Timestamp,
}

impl Host {
    fn new(parity: f32) -> Self {
        // Pacing that never waits: this measures work.
        let config = SenderConfig { parity, pacing: Bitrate::from_mbps(u32::MAX), ..SenderConfig::default() };
        let sender = VideoSender::new(&config);
        Self { sender, sealer: Sealer::new(), frame: 0, now: Timestamp::from_micros(1) }
    }

    /// Sends one frame, each slice before the next is submitted, and tells the length of every body.
    fn frame(&mut self, case: &Case, data: &[u8], mut on_body: impl FnMut(usize)) {
        self.now = self.now.plus_micros(16_667);
        let parts = data.chunks(data.len().div_ceil(case.slices));
        for (i, part) in parts.enumerate() {
            let meta = SliceMeta {
                frame_id: FrameId(self.frame),
                slice_index: i as u32,
                last_slice: i + 1 == case.slices,
                keyframe: self.frame == 0,
                reference: self.frame.checked_sub(1).map(FrameId),
                timestamp: self.now,
                capture_us: 1000,
                encode_us: 4000,
            };
            self.sender.submit_slice(self.now, &meta, part).expect("the frame fits");
            while let Some(batch) = self.sender.next_batch(self.now) {
                for _ in 0..batch.count {
                    let sender = &mut self.sender;
                    self.sealer.datagram(|id, out| {
                        let len = sender.write_body(id, out);
                        on_body(len);
                        len
                    });
                }
            }
        }
        if let Some(acked) = self.frame.checked_sub(ACK_DELAY) {
            self.sender.on_frame_acked(FrameId(acked));
        }
        self.frame += 1;
    }
}

/// The floor: every datagram of `lens` with one copy from `data`.
fn floor(sealer: &mut Sealer, data: &[u8], lens: &[usize]) {
    let mut at = 0;
    for &len in lens {
        // Bodies are a little longer than what they carry.
        let from = at.min(data.len() - len);
        sealer.datagram(|_, out| {
            out[..len].copy_from_slice(&data[from..from + len]);
            len
        });
        at += len;
    }
}

fn lens_of(case: &Case, data: &[u8]) -> Vec<usize> {
    let mut lens = Vec::new();
    Host::new(0.0).frame(case, data, |len| lens.push(len));
    lens
}

fn noise(len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(1);
    (0..len).map(|_| rng.u8(..)).collect()
}

fn measure(c: &mut Criterion) {
    for case in &CASES {
        let data = noise(case.len);
        let lens = lens_of(case, &data);
        let mut group = c.benchmark_group(format!("sender/{}", case.name));
        group.throughput(Throughput::Elements(lens.len() as u64));
        let mut sealer = Sealer::new();
        group.bench_function("floor", |b| b.iter(|| floor(&mut sealer, black_box(&data), &lens)));
        for parity in [0.0, 0.2] {
            let mut host = Host::new(parity);
            group.bench_function(format!("parity {parity}"), |b| {
                b.iter(|| host.frame(case, black_box(&data), |_| {}));
            });
        }
        group.finish();
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn print_ratios() {
    println!("\nframe  packets  floor ns/packet  sender ns/packet  ratio  with 20% parity  ratio");
    for case in &CASES {
        let data = noise(case.len);
        let lens = lens_of(case, &data);
        let (mut sealer, mut plain, mut protected) = (Sealer::new(), Host::new(0.0), Host::new(0.2));
        let mut times: [Vec<Duration>; 3] = Default::default();
        let rounds = if case.len > 100_000 { 400 } else { 8000 };
        for _ in 0..rounds {
            times[0].push(timed(|| floor(&mut sealer, black_box(&data), &lens)));
            times[1].push(timed(|| plain.frame(case, black_box(&data), |_| {})));
            times[2].push(timed(|| protected.frame(case, black_box(&data), |_| {})));
        }
        let ns = times.map(|mut t| median(&mut t).as_nanos() as f64 / lens.len() as f64);
        println!(
            "{:5}  {:7}  {:15.0}  {:16.0}  {:5.2}  {:15.0}  {:5.2}",
            case.name,
            lens.len(),
            ns[0],
            ns[1],
            ns[1] / ns[0],
            ns[2],
            ns[2] / ns[0]
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

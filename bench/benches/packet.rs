//! The parts of the packet path that need no socket, for a closer look than the ratios of `wavry-bench packet`.
//!
//! `cargo bench -p wavry-bench --bench packet`; with `-- --profile-time 5` a flame graph of each is left in
//! `target/criterion/<name>/profile/`.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs::File;
use std::hint::black_box;
use std::path::Path;

use criterion::profiler::Profiler;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rift_core::endpoint::{self, ClientEndpoint, Ecn, HostEndpoint};
use rift_core::send::SliceMeta;
use rift_core::{FrameId, Timestamp};
use wavry_bench::packet::floor::Floor;
use wavry_bench::packet::pair::{Settings, client_config, host_config};

/// As a send slot.
const BUFFER_LEN: usize = 65_507;

/// Host and client whose datagrams are handed over in memory, at a time that only they know.
struct Wire {
    now: Timestamp,
    host: HostEndpoint,
    client: ClientEndpoint,
    buffer: Vec<u8>,
    /// Sealed datagrams of a frame, and the length of each.
    sealed: Vec<u8>,
    lens: Vec<usize>,
    next_frame: u64,
}

const HOST: endpoint::Path = path(4810);
const CLIENT: endpoint::Path = path(5000);

const fn path(port: u16) -> endpoint::Path {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    endpoint::Path::to(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
}

impl Wire {
    fn connect(parity: f32) -> Self {
        let now = Timestamp::from_micros(1_000_000);
        let (client, id) = client_config(HOST.remote).unwrap();
        let settings = Settings { parity, paced: false, arrival_times: false };
        let mut wire = Self {
            now,
            host: HostEndpoint::new(host_config(id, settings).unwrap(), now),
            client: ClientEndpoint::new(client, now),
            buffer: vec![0; BUFFER_LEN],
            sealed: Vec::with_capacity(4 << 20),
            lens: Vec::with_capacity(4096),
            next_frame: 0,
        };
        for _ in 0..50 {
            wire.answer();
        }
        assert!(wire.client.session().is_some(), "no session");
        wire
    }

    fn answer(&mut self) {
        self.now = self.now.plus_micros(1000);
        self.client.handle_timeout(self.now);
        while let Some(out) = self.client.poll_transmit(self.now, &mut self.buffer) {
            let datagram = &mut self.buffer[..out.len];
            let _ = self.host.handle_datagram(self.now, CLIENT, Ecn::NotEct, datagram);
        }
        self.host.handle_timeout(self.now);
        self.seal();
        self.open();
        while self.host.poll_event().is_some() {}
        while self.client.poll_event().is_some() {}
    }

    fn submit(&mut self, data: &[u8]) {
        self.now = self.now.plus_micros(16_667);
        let meta = SliceMeta {
            frame_id: FrameId(self.next_frame),
            slice_index: 0,
            last_slice: true,
            keyframe: self.next_frame == 0,
            reference: self.next_frame.checked_sub(1).map(FrameId),
            timestamp: self.now,
            capture_us: 300,
            encode_us: 4000,
        };
        self.next_frame += 1;
        self.host.submit_slice(self.now, &meta, data).unwrap();
    }

    /// Everything that the host has to send, into the send buffer; kept for [`open`](Self::open).
    fn seal(&mut self) {
        self.sealed.clear();
        self.lens.clear();
        while let Some(out) = self.host.poll_transmit(self.now, &mut self.buffer) {
            self.sealed.extend_from_slice(&self.buffer[..out.len]);
            self.lens.extend(self.buffer[..out.len].chunks(out.segment_len).map(<[u8]>::len));
        }
    }

    fn open(&mut self) -> usize {
        let mut at = 0;
        for &len in &self.lens {
            let datagram = &mut self.sealed[at..at + len];
            let _ = self.client.handle_datagram(self.now, HOST, Ecn::NotEct, datagram);
            at += len;
        }
        let mut bytes = 0;
        while let Some(slice) = self.client.poll_slice(self.now) {
            let frame = slice.frame_id;
            bytes += black_box(slice.data).len();
            self.client.on_decoded(self.now, frame);
            self.client.on_shown(self.now, frame);
        }
        bytes
    }
}

fn bench(criterion: &mut Criterion) {
    for (name, len) in [("42kB", 42_000), ("1MB", 1_000_000)] {
        let data: Vec<u8> = (0..len as u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
        let mut group = criterion.benchmark_group("frame without sockets");
        group.throughput(Throughput::Bytes(len as u64));
        let mut floor = Floor::new(1200, len / 1100).unwrap();
        group.bench_function(BenchmarkId::new("seal, floor", name), |bencher| {
            bencher.iter(|| data.chunks(48 * 1166).map(|part| floor.seal(part).unwrap()).sum::<usize>());
        });
        for (what, parity) in [("seal and open", 0.0), ("seal and open, 20 % parity", 0.2)] {
            let mut wire = Wire::connect(parity);
            group.bench_function(BenchmarkId::new(what, name), |bencher| {
                bencher.iter(|| {
                    wire.submit(&data);
                    wire.seal();
                    assert_eq!(wire.open(), len);
                    wire.answer();
                });
            });
        }
        group.finish();
    }
}

/// Flame graphs of what criterion runs with `--profile-time`.
struct FlameGraphs(Option<pprof::ProfilerGuard<'static>>);

impl Profiler for FlameGraphs {
    fn start_profiling(&mut self, _: &str, _: &Path) {
        self.0 = Some(pprof::ProfilerGuard::new(997).unwrap());
    }

    fn stop_profiling(&mut self, _: &str, directory: &Path) {
        let Some(guard) = self.0.take() else { return };
        std::fs::create_dir_all(directory).unwrap();
        let file = File::create(directory.join("flamegraph.svg")).unwrap();
        guard.report().build().unwrap().flamegraph(file).unwrap();
    }
}

criterion_group! {
    name = packet;
    config = Criterion::default().with_profiler(FlameGraphs(None));
    targets = bench
}
criterion_main!(packet);

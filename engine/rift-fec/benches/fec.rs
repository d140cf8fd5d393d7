//! Encoding and decoding beside ISA-L used as its examples use it, and beside two crates, for 20 shards
//! of 1200 bytes and 4 parities. The table with goals is `wavry-bench fec`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use reed_solomon_erasure::galois_8::ReedSolomon;
use rift_fec::reference::Isal;
use rift_fec::{Encoder, Solver};

const SHARDS: usize = 20;
const PARITIES: usize = 4;
const LEN: usize = 1200;

fn shards() -> Vec<Vec<u8>> {
    let mut rng = fastrand::Rng::with_seed(1);
    (0..SHARDS).map(|_| std::iter::repeat_with(|| rng.u8(..)).take(LEN).collect()).collect()
}

fn encode(c: &mut Criterion) {
    let data = shards();
    let slices: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    let mut group = c.benchmark_group("encode");
    let mut encoder = Encoder::new(PARITIES, LEN);
    group.bench_function("at once", |b| b.iter(|| encoder.encode(black_box(&slices), PARITIES)));
    group.bench_function("stepwise", |b| {
        b.iter(|| {
            encoder.begin(PARITIES, LEN);
            slices.iter().enumerate().for_each(|(at, shard)| encoder.add(at, black_box(shard)));
        });
    });
    let mut isal = Isal::new(SHARDS, PARITIES, LEN);
    group.bench_function("ISA-L at once", |b| b.iter(|| isal.encode(black_box(&slices))));
    group.bench_function("ISA-L stepwise", |b| b.iter(|| isal.encode_stepwise(black_box(&slices))));
    group.bench_function("reed-solomon-simd", |b| {
        b.iter(|| reed_solomon_simd::encode(SHARDS, PARITIES, black_box(&slices)).expect("encodes"));
    });
    let erasure = ReedSolomon::new(SHARDS, PARITIES).expect("a code");
    let mut parity = vec![vec![0; LEN]; PARITIES];
    group.bench_function("reed-solomon-erasure", |b| {
        b.iter(|| erasure.encode_sep(black_box(&slices), &mut parity).expect("encodes"));
    });
    group.finish();
}

fn decode(c: &mut Criterion) {
    let data = shards();
    let slices: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    let mut group = c.benchmark_group("decode");
    let mut encoder = Encoder::new(PARITIES, LEN);
    encoder.encode(&slices, PARITIES);
    let mut isal = Isal::new(SHARDS, PARITIES, LEN);
    isal.encode(&slices);
    let parities: Vec<Vec<u8>> = (0..PARITIES).map(|p| isal.row(p).to_vec()).collect();
    let fragments: Vec<&[u8]> = slices.iter().copied().chain(parities.iter().map(Vec::as_slice)).collect();
    let mut solver = Solver::new(PARITIES, LEN);
    for count in 1..=PARITIES {
        let lost: Vec<u8> = (0..count as u8).map(|i| i * 5 + 2).collect();
        group.bench_function(format!("{count} lost"), |b| {
            b.iter(|| {
                assert!(solver.begin(black_box(&lost), (0..count).map(|p| (p as u8, encoder.parity(p)))));
                for (at, shard) in (0..).zip(&slices) {
                    if !lost.contains(&at) {
                        solver.subtract(at, shard);
                    }
                }
                solver.solve();
            });
        });
        let lost: Vec<usize> = lost.iter().map(|&i| usize::from(i)).collect();
        group.bench_function(format!("{count} lost, ISA-L inverting {SHARDS} x {SHARDS}"), |b| {
            b.iter(|| isal.decode(black_box(&fragments), &lost));
        });
    }
    group.finish();
}

criterion_group!(benches, encode, decode);
criterion_main!(benches);

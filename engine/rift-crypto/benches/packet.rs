//! Cost of sealing and opening one 1200-byte packet body, for each suite, and of the checks around.
//!
//! Run: `cargo bench -p rift-crypto --bench packet`

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rift_crypto::{HEADER_LEN, OpenKey, ReplayWindow, SealKey, Suite, TAG_LEN};

const BODY_LEN: usize = 1200;

fn packets(c: &mut Criterion) {
    let mut group = c.benchmark_group("packet_1200");
    group.throughput(Throughput::Bytes(BODY_LEN as u64));
    for suite in [Suite::ChaCha20Poly1305, Suite::Aes256Gcm] {
        let (seal, open) = (SealKey::new(suite, [1; 32]), OpenKey::new(suite, [1; 32]));
        let header = [7; HEADER_LEN];

        let (mut body, mut packet_id) = (vec![0x5a; BODY_LEN], 0);
        group.bench_function(format!("seal/{suite:?}"), |b| {
            b.iter(|| {
                packet_id += 1;
                black_box(seal.seal_in_place(packet_id, &header, &mut body))
            });
        });

        let mut sealed = vec![0x5a; BODY_LEN];
        let tag = seal.seal_in_place(0, &header, &mut sealed);
        sealed.extend_from_slice(&tag);
        // Opening destroys its input, so each round opens a fresh copy; only the opening is timed.
        group.bench_function(format!("open/{suite:?}"), |b| {
            b.iter_batched_ref(
                || sealed.clone(),
                |packet| black_box(open.open_in_place(0, &header, packet).map(|body| body.len())),
                BatchSize::SmallInput,
            );
        });
        assert_eq!(sealed.len(), BODY_LEN + TAG_LEN);
    }
    group.finish();

    let (mut window, mut packet_id) = (ReplayWindow::new(), 0);
    c.bench_function("replay/check_and_mark", |b| {
        b.iter(|| {
            packet_id += 1;
            let verdict = black_box(window.check(packet_id));
            window.mark(packet_id);
            verdict
        });
    });
}

criterion_group!(benches, packets);
criterion_main!(benches);

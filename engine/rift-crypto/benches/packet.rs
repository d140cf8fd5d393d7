//! Cost of sealing and opening one 1200-byte packet body, for each suite, of the replay check around
//! it, and of a whole handshake of both sides.
//!
//! Run: `cargo bench -p rift-crypto --bench packet`

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rift_crypto::{
    CookieKey, Established, HEADER_LEN, HandshakeError, Identity, Initiator, MAX_MESSAGE_LEN, OpenKey,
    ReplayWindow, Responder, SealKey, Suite, TAG_LEN,
};

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

fn handshakes(c: &mut Criterion) {
    let identity = |seed| Identity::from_seed([seed; 32]).expect("any seed is an identity");
    let (client, host) = (identity(1), identity(2));
    c.bench_function("handshake/xx_both_sides", |b| b.iter(|| black_box(xx(&client, &host))));
    c.bench_function("handshake/ik_both_sides", |b| b.iter(|| black_box(ik(&client, &host))));

    let cookies = CookieKey::new([1; 32]);
    let addr = "192.0.2.7:4810".parse().expect("an address");
    c.bench_function("cookie/issue", |b| b.iter(|| black_box(cookies.issue(&addr, 7, 9))));
}

fn xx(client: &Identity, host: &Identity) -> Result<Established, HandshakeError> {
    let mut buf = [0; MAX_MESSAGE_LEN];
    let mut initiator = Initiator::xx(client, Suite::supported())?;
    let mut responder = Responder::xx(host)?;
    let len = initiator.write_msg1(b"", &mut buf)?;
    responder.read_msg1(&buf[..len])?;
    let len = responder.write_msg2(Suite::ChaCha20Poly1305, b"", &mut buf)?;
    initiator.read_msg2(&buf[..len])?;
    let len = initiator.write_msg3(b"", &mut buf)?;
    responder.read_msg3(&buf[..len])?;
    initiator.into_keys()?;
    responder.into_keys()
}

fn ik(client: &Identity, host: &Identity) -> Result<Established, HandshakeError> {
    let mut buf = [0; MAX_MESSAGE_LEN];
    let mut initiator = Initiator::ik(client, host.static_public(), host.wavry_id(), Suite::supported())?;
    let mut responder = Responder::ik(host)?;
    let len = initiator.write_msg1(b"", &mut buf)?;
    responder.read_msg1(&buf[..len])?;
    let len = responder.write_msg2(Suite::ChaCha20Poly1305, b"", &mut buf)?;
    initiator.read_msg2(&buf[..len])?;
    initiator.into_keys()?;
    responder.into_keys()
}

criterion_group!(benches, packets, handshakes);
criterion_main!(benches);

//! What a frame costs: conversion, time to the first slice, the whole frame, decoding, and both ends in a
//! pipeline of two threads.
//!
//! `cargo bench -p wavry-codec --features x264,libavcodec --bench codec [-- FILTER]`
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{Pattern, Sent};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use wavry_codec::{
    DecoderChoice, DecoderConfig, Downscaler, EncodeReport, EncodeRequest, EncodedSlice, Encoder,
    EncoderChoice, EncoderConfig, FrameInput, I420Buffer, convert, open_decoder, open_encoder,
};

/// Pictures made before measuring; shown forwards and backwards so that motion never jumps.
const PICTURES: usize = 24;
/// 720p at 20 Mbit/s and 60 frames per second, 1080p likewise at 40.
const SIZES: [(u32, u32, u64); 2] = [(1280, 720, 20_000_000), (1920, 1080, 40_000_000)];

const ENCODERS: &[(&str, EncoderChoice, u32, u32)] = &[
    ("openh264/4 slices/1 thread", EncoderChoice::OpenH264, 4, 1),
    ("openh264/4 slices/2 threads", EncoderChoice::OpenH264, 4, 2),
    #[cfg(feature = "x264")]
    ("x264/4 slices/1 thread", EncoderChoice::X264, 4, 1),
    #[cfg(feature = "x264")]
    ("x264/8 slices/1 thread", EncoderChoice::X264, 8, 1),
    #[cfg(feature = "x264")]
    ("x264/8 slices/2 threads", EncoderChoice::X264, 8, 2),
];

const DECODERS: &[(&str, DecoderChoice)] = &[
    ("openh264", DecoderChoice::OpenH264),
    #[cfg(feature = "libavcodec")]
    ("libavcodec", DecoderChoice::Libavcodec),
];

/// Pictures and a running frame id.
struct Source {
    width: u32,
    pictures: Vec<Vec<u8>>,
    next: u64,
}

impl Source {
    fn new(width: u32, height: u32) -> Self {
        let mut pattern = Pattern::new(width, height);
        let pictures = (0..PICTURES as u64).map(|number| pattern.frame(number).to_vec()).collect();
        Self { width, pictures, next: 0 }
    }

    fn encode(
        &mut self,
        encoder: &mut dyn Encoder,
        sink: &mut (dyn FnMut(EncodedSlice<'_>) + Send),
    ) -> EncodeReport {
        let at = self.next as usize % (2 * PICTURES - 2);
        let data = &self.pictures[if at < PICTURES { at } else { 2 * PICTURES - 2 - at }];
        let request = EncodeRequest::frame(self.next);
        self.next += 1;
        encoder.encode(FrameInput::Bgrx { data, stride: self.width as usize * 4 }, &request, sink).unwrap()
    }
}

fn open(choice: EncoderChoice, size: (u32, u32, u64), slices: u32, threads: u32) -> Box<dyn Encoder> {
    let (width, height, bitrate) = size;
    open_encoder(choice, &EncoderConfig { slices, threads, ..EncoderConfig::new(width, height, 60, bitrate) })
        .unwrap()
}

fn owned(slice: &EncodedSlice<'_>) -> Sent {
    Sent {
        frame_id: slice.frame_id,
        index: slice.index,
        last: slice.last,
        keyframe: slice.keyframe,
        reference: slice.reference,
        data: slice.data.to_vec(),
    }
}

fn conversion(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("convert");
    for (width, height, _) in SIZES {
        let source = Source::new(width, height);
        let mut picture = I420Buffer::new(width, height);
        let stride = width as usize * 4;
        group.bench_function(BenchmarkId::new("bgrx to i420", height), |bencher| {
            bencher.iter(|| {
                convert::bgrx_to_i420(&source.pictures[0], stride, width, height, &mut picture).unwrap();
            });
        });
        for (what, to) in
            [("three quarters", (width / 4 * 3, height / 4 * 3)), ("half", (width / 2, height / 2))]
        {
            let mut scaler = Downscaler::new((width, height), to).unwrap();
            group.bench_function(BenchmarkId::new(format!("to {what}"), height), |bencher| {
                bencher.iter(|| scaler.shrink(&source.pictures[0], stride).unwrap().1);
            });
        }
        let mut pixels = source.pictures[0].clone();
        group.bench_function(BenchmarkId::new("i420 to bgrx", height), |bencher| {
            let color = wavry_codec::ColorSpace::default();
            bencher.iter(|| convert::i420_to_bgrx(&picture.view(), color, &mut pixels, stride).unwrap());
        });
    }
}

fn encoding(criterion: &mut Criterion) {
    for size in SIZES {
        let mut source = Source::new(size.0, size.1);
        for &(name, choice, slices, threads) in ENCODERS {
            let mut group = criterion.benchmark_group(format!("encode {}p", size.1));
            for (what, duration) in [
                ("first slice", (|report| report.first_slice) as fn(&EncodeReport) -> Duration),
                ("whole frame", |report| report.total),
            ] {
                let mut encoder = open(choice, size, slices, threads);
                source.next = 0;
                group.bench_function(BenchmarkId::new(name, what), |bencher| {
                    bencher.iter_custom(|count| {
                        (0..count).map(|_| duration(&source.encode(&mut *encoder, &mut |_| ()))).sum()
                    });
                });
            }
        }
    }
}

fn decoding(criterion: &mut Criterion) {
    for size in SIZES {
        let mut source = Source::new(size.0, size.1);
        for &(stream, choice, slices, threads) in ENCODERS {
            if threads > 1 {
                continue;
            }
            let mut encoder = open(choice, size, slices, threads);
            source.next = 0;
            let mut frames: Vec<Vec<Sent>> = Vec::new();
            for _ in 0..2 * (2 * PICTURES - 2) {
                let mut slices = Vec::new();
                source.encode(&mut *encoder, &mut |slice| slices.push(owned(&slice)));
                frames.push(slices);
            }
            for &(name, decoder) in DECODERS {
                let mut group = criterion.benchmark_group(format!("decode {}p {stream}", size.1));
                for (what, from_last) in [("whole frame", false), ("after last slice", true)] {
                    let mut decoder = open_decoder(decoder, &DecoderConfig::default()).unwrap();
                    let mut next = 0;
                    group.bench_function(BenchmarkId::new(name, what), |bencher| {
                        bencher.iter_custom(|count| {
                            let mut sum = Duration::ZERO;
                            for _ in 0..count {
                                let mut start = Instant::now();
                                for slice in &frames[next] {
                                    if slice.last && from_last {
                                        start = Instant::now();
                                    }
                                    decoder
                                        .push_slice(slice.frame_id, slice.index, slice.last, &slice.data)
                                        .unwrap();
                                }
                                assert!(decoder.poll_frame().unwrap().is_some());
                                sum += start.elapsed();
                                next = (next + 1) % frames.len();
                                if next == 0 {
                                    decoder.reset().unwrap();
                                }
                            }
                            sum
                        });
                    });
                }
            }
        }
    }
}

/// Encoder and decoder on a thread each, slices handed over as they are made.
fn pipeline(criterion: &mut Criterion) {
    for size in SIZES {
        let mut source = Source::new(size.0, size.1);
        for &(stream, choice, slices, threads) in ENCODERS {
            for &(name, decoder) in DECODERS {
                let mut encoder = open(choice, size, slices, threads);
                source.next = 0;
                let (sender, receiver) = mpsc::channel::<Sent>();
                let (done_sender, done) = mpsc::channel::<Instant>();
                let mut decoder = open_decoder(decoder, &DecoderConfig::default()).unwrap();
                let thread = std::thread::spawn(move || {
                    for slice in receiver {
                        decoder.push_slice(slice.frame_id, slice.index, slice.last, &slice.data).unwrap();
                        if decoder.poll_frame().unwrap().is_some() {
                            done_sender.send(Instant::now()).unwrap();
                        }
                    }
                });
                let mut group = criterion.benchmark_group(format!("pipeline {}p", size.1));
                for (what, from_last) in [("total", false), ("after last slice", true)] {
                    group.bench_function(BenchmarkId::new(format!("{stream} to {name}"), what), |bencher| {
                        bencher.iter_custom(|count| {
                            let mut sum = Duration::ZERO;
                            for _ in 0..count {
                                let start = Instant::now();
                                let report = source
                                    .encode(&mut *encoder, &mut |slice| sender.send(owned(&slice)).unwrap());
                                let end = done.recv().unwrap();
                                let from = if from_last { start + report.total } else { start };
                                sum += end.saturating_duration_since(from);
                            }
                            sum
                        });
                    });
                }
                drop(group);
                drop(sender);
                thread.join().unwrap();
            }
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .without_plots();
    targets = conversion, encoding, decoding, pipeline
}
criterion_main!(benches);

//! What x264 is there for: slices that leave while the frame is being coded.
#![cfg(feature = "x264")]
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::Pattern;
use wavry_codec::{
    DecoderChoice, DecoderConfig, EncodeRequest, EncodedSlice, EncoderChoice, EncoderConfig, FrameInput,
    open_decoder, open_encoder,
};

const WIDTH: u32 = 1280;
const HEIGHT: u32 = 720;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn slices_come_spread_over_the_encode_time() {
    let config = EncoderConfig { slices: 8, ..EncoderConfig::new(WIDTH, HEIGHT, 60, 20_000_000) };
    let mut encoder = open_encoder(EncoderChoice::X264, &config).unwrap();
    assert!(encoder.capabilities().early_slices);
    let mut pattern = Pattern::new(WIDTH, HEIGHT);
    let (mut firsts, mut middles) = (Vec::new(), Vec::new());
    for id in 0..30 {
        let data = pattern.frame(id);
        let mut times: Vec<Duration> = Vec::new();
        let start = Instant::now();
        let mut sink = |_: EncodedSlice<'_>| times.push(start.elapsed());
        let frame = FrameInput::Bgrx { data, stride: WIDTH as usize * 4 };
        let report = encoder.encode(frame, &EncodeRequest::frame(id), &mut sink).unwrap();
        assert_eq!(times.len(), 8);
        assert!(report.convert <= report.first_slice && report.first_slice <= report.total);
        // Of the time in the library: conversion comes before and is measured by itself.
        let coding = (report.total - report.convert).as_secs_f64();
        let share = |at: usize| times[at].saturating_sub(report.convert).as_secs_f64() / coding;
        if id > 0 {
            firsts.push(share(0));
            middles.push(share(4));
        }
    }
    // One eighth plus what comes before the first slice; generous, as the machine may be busy.
    let (first, middle) = (median(firsts), median(middles));
    assert!(first < 0.40, "first slice at {first:.2} of the encode time");
    assert!((0.35..0.90).contains(&middle), "fifth slice at {middle:.2} of the encode time");
}

#[test]
fn intra_refresh_needs_no_keyframe() {
    let config = EncoderConfig {
        intra_refresh: true,
        keyframe_interval: Some(20),
        ..EncoderConfig::new(640, 368, 60, 12_000_000)
    };
    let mut encoder = open_encoder(EncoderChoice::X264, &config).unwrap();
    let capabilities = encoder.capabilities();
    assert!(capabilities.intra_refresh && !capabilities.reference_invalidation);
    assert!(open_encoder(EncoderChoice::OpenH264, &config).is_err(), "it has none, and says so");
    let mut decoder = open_decoder(DecoderChoice::Auto, &DecoderConfig::default()).unwrap();
    let mut pattern = Pattern::new(640, 368);
    for id in 0..60 {
        let (sent, report) = common::encode(&mut *encoder, &mut pattern, &EncodeRequest::frame(id));
        assert_eq!(report.keyframe, id == 0, "frame {id}");
        common::push(&mut *decoder, &sent).unwrap();
        let original = pattern.reference(id);
        let quality = common::psnr(&original.view(), &decoder.poll_frame().unwrap().unwrap().picture);
        assert!(quality > 28.0, "frame {id}: {quality:.1} dB");
    }
}

#[test]
fn a_panic_in_the_sink_comes_out_of_encode() {
    let config = EncoderConfig { threads: 2, ..EncoderConfig::new(640, 368, 60, 12_000_000) };
    let mut pattern = Pattern::new(640, 368);
    let result = std::panic::catch_unwind(move || {
        let mut encoder = open_encoder(EncoderChoice::X264, &config).unwrap();
        let frame = FrameInput::Bgrx { data: pattern.frame(0), stride: 640 * 4 };
        let _ = encoder.encode(frame, &EncodeRequest::frame(0), &mut |_| panic!("no more"));
    });
    assert_eq!(result.unwrap_err().downcast_ref::<&str>(), Some(&"no more"));
}

//! What encoding and decoding cost by themselves: the same pictures through the same codec, one after the
//! other on one thread, at the pace of the stream and with nothing in between.
//!
//! This is what every path through a network is measured against: a path that does everything in sequence
//! cannot be faster than the sum, and whatever it needs more is its overhead.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use wavry_codec::{
    DecoderChoice, DecoderConfig, EncodeRequest, EncodedSlice, EncoderChoice, EncoderConfig, FrameInput,
    open_decoder, open_encoder,
};
use wavry_platform::Picture;
use wavry_platform::testsource::{Code, Position, Scene, paint_code};
use wavry_runtime::clock::Clock;
use wavry_runtime::cores;

use super::{Setting, WARM_UP};

/// Codec times of one picture, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CodecTime {
    /// Conversion and encoding of all slices.
    pub(crate) encode_ms: f64,
    /// Decoding of all slices.
    pub(crate) decode_ms: f64,
}

impl CodecTime {
    /// Both, one after the other.
    pub(crate) fn sum_ms(&self) -> f64 {
        self.encode_ms + self.decode_ms
    }
}

/// By the number that the picture carries.
pub(crate) type CodecTimes = BTreeMap<u32, CodecTime>;

/// Encodes and decodes as many pictures as a run of the stream has.
///
/// # Errors
/// When the codec fails or loses a picture.
pub(crate) fn measure(setting: &Setting) -> anyhow::Result<CodecTimes> {
    let setting = *setting;
    // A thread of its own, so that its priority is that of the programs' media threads and ends with it.
    let measuring = std::thread::spawn(move || {
        cores::raise_priority(false);
        encode_and_decode(&setting)
    });
    measuring.join().map_err(|_| anyhow::anyhow!("the codec measurement panicked"))?
}

fn encode_and_decode(setting: &Setting) -> anyhow::Result<CodecTimes> {
    let (geometry, fps) = (setting.stream.geometry, setting.stream.fps);
    let mut encoder = open_encoder(
        EncoderChoice::Auto,
        &EncoderConfig {
            slices: setting.slices,
            threads: setting.threads,
            ..EncoderConfig::new(
                geometry.width,
                geometry.height,
                fps,
                u64::from(setting.bitrate_mbps) * 1_000_000,
            )
        },
    )?;
    let mut decoder = open_decoder(DecoderChoice::Auto, &DecoderConfig::default())?;
    let scene = Scene::new(geometry);
    let mut picture = Picture::new(geometry);
    let mut slices: Vec<Vec<u8>> = Vec::new();
    let clock = Clock;
    let warm_up = frames_in(WARM_UP, fps);
    let mut times = CodecTimes::new();
    let started = clock.now();
    for frame in 0..warm_up + frames_in(setting.measured, fps) {
        let due = started + u64::from(frame) * setting.stream.interval_ns();
        std::thread::sleep(Duration::from_nanos(due.saturating_sub(clock.now())));
        let mut canvas = picture.as_bgrx_mut();
        scene.paint(&mut canvas, frame);
        let code = Code { frame, timestamp_us: clock.now() / 1000 };
        paint_code(&mut canvas, Position::Top, &code);
        paint_code(&mut canvas, Position::Bottom, &code);

        let mut count = 0;
        let mut keep = |slice: EncodedSlice<'_>| {
            if slices.len() == count {
                slices.push(Vec::with_capacity(1 << 18));
            }
            slices[count].clear();
            slices[count].extend_from_slice(slice.data);
            count += 1;
        };
        let input = FrameInput::Bgrx { data: picture.data(), stride: picture.stride() };
        let encode_started = clock.now();
        encoder.encode(input, &EncodeRequest::frame(frame.into()), &mut keep)?;
        let encoded = clock.now();
        for (index, slice) in (0..).zip(&slices[..count]) {
            decoder.push_slice(frame.into(), index, index as usize + 1 == count, slice)?;
        }
        decoder.poll_frame()?.context("the decoder lost a picture")?;
        let decoded = clock.now();
        if frame >= warm_up {
            let time =
                CodecTime { encode_ms: ms(encoded - encode_started), decode_ms: ms(decoded - encoded) };
            times.insert(frame, time);
        }
    }
    Ok(times)
}

fn frames_in(span: Duration, fps: u32) -> u32 {
    (span.as_secs_f64() * f64::from(fps)) as u32
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

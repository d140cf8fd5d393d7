//! What every pair of encoder and decoder must do.
#![allow(clippy::unwrap_used)] // the helpers here are tests too

mod common;

use common::{Pattern, encode, psnr, push};
use wavry_codec::{
    DecodeError, Decoder, DecoderChoice, DecoderConfig, EncodeRequest, Encoder, EncoderChoice, EncoderConfig,
    open_decoder, open_encoder,
};

const WIDTH: u32 = 640;
const HEIGHT: u32 = 368;

/// One pair under test.
struct Pair {
    encoder: Box<dyn Encoder>,
    decoder: Box<dyn Decoder>,
    pattern: Pattern,
}

impl Pair {
    fn open(encoder: EncoderChoice, decoder: DecoderChoice, config: &EncoderConfig) -> Self {
        Self {
            encoder: open_encoder(encoder, config).unwrap(),
            decoder: open_decoder(decoder, &DecoderConfig::default()).unwrap(),
            pattern: Pattern::new(config.width, config.height),
        }
    }

    /// Encodes and decodes one frame and returns its PSNR and whether it was a keyframe.
    fn pass(&mut self, request: &EncodeRequest) -> (f64, bool) {
        let (slices, report) = encode(&mut *self.encoder, &mut self.pattern, request);
        push(&mut *self.decoder, &slices).unwrap();
        let original = self.pattern.reference(request.frame_id);
        let frame = self.decoder.poll_frame().unwrap().expect("a frame after its last slice");
        assert_eq!((frame.frame_id, frame.keyframe), (request.frame_id, report.keyframe));
        (psnr(&original.view(), &frame.picture), report.keyframe)
    }
}

fn config() -> EncoderConfig {
    EncoderConfig::new(WIDTH, HEIGHT, 60, 12_000_000)
}

fn picture_survives(encoder: EncoderChoice, decoder: DecoderChoice) {
    let mut pair = Pair::open(encoder, decoder, &config());
    for id in 0..40 {
        let (quality, keyframe) = pair.pass(&EncodeRequest::frame(id));
        assert!(quality > 30.0, "frame {id}: {quality:.1} dB");
        assert_eq!(keyframe, id == 0, "only the first frame is a keyframe unasked, not {id}");
    }
    assert!(pair.decoder.poll_frame().unwrap().is_none(), "a frame is handed out once");
}

fn color_is_right(encoder: EncoderChoice, decoder: DecoderChoice) {
    let mut pair = Pair::open(encoder, decoder, &config());
    let (slices, _) = encode(&mut *pair.encoder, &mut pair.pattern, &EncodeRequest::frame(0));
    push(&mut *pair.decoder, &slices).unwrap();
    let frame = pair.decoder.poll_frame().unwrap().unwrap();
    assert_eq!(frame.color, wavry_codec::ColorSpace::default(), "BT.709 limited, as written in the VUI");
    let mut pixels = vec![0; (WIDTH * HEIGHT * 4) as usize];
    wavry_codec::convert::i420_to_bgrx(&frame.picture, frame.color, &mut pixels, WIDTH as usize * 4).unwrap();
    let original = pair.pattern.frame(0);
    let mut error = [0u64; 3];
    for (a, b) in original.chunks_exact(4).zip(pixels.chunks_exact(4)) {
        for channel in 0..3 {
            error[channel] += u64::from(a[channel].abs_diff(b[channel]));
        }
    }
    for sum in error {
        let mean = sum as f64 / f64::from(WIDTH * HEIGHT);
        assert!(mean < 12.0, "mean error of a channel {mean:.1}");
    }
}

fn slices_are_counted_and_ordered(encoder: EncoderChoice, decoder: DecoderChoice) {
    for (slices, threads) in [(1, 1), (4, 1), (8, 1), (4, 2), (8, 2)] {
        let config = EncoderConfig { slices, threads, ..config() };
        let mut pair = Pair::open(encoder, decoder, &config);
        for id in 10..14 {
            let (sent, report) = encode(&mut *pair.encoder, &mut pair.pattern, &EncodeRequest::frame(id));
            assert_eq!(sent.len() as u32, slices, "{slices} slices on {threads} threads");
            assert_eq!(report.slices, slices);
            assert_eq!(report.bytes as usize, sent.iter().map(|slice| slice.data.len()).sum::<usize>());
            for (index, slice) in sent.iter().enumerate() {
                assert_eq!((slice.frame_id, slice.index), (id, index as u32));
                assert_eq!(slice.last, index + 1 == sent.len());
                assert_eq!(slice.keyframe, id == 10);
                assert_eq!(slice.reference, (id > 10).then(|| id - 1));
                assert!(slice.data.starts_with(&[0, 0, 0, 1]) || slice.data.starts_with(&[0, 0, 1]));
            }
            push(&mut *pair.decoder, &sent).unwrap();
            assert_eq!(pair.decoder.poll_frame().unwrap().map(|frame| frame.frame_id), Some(id));
        }
    }
}

fn keyframe_on_request(encoder: EncoderChoice, decoder: DecoderChoice) {
    let mut pair = Pair::open(encoder, decoder, &config());
    for id in 0..20 {
        let request = EncodeRequest { force_keyframe: id == 7 || id == 13, ..EncodeRequest::frame(id) };
        let (sent, report) = encode(&mut *pair.encoder, &mut pair.pattern, &request);
        assert_eq!(report.keyframe, matches!(id, 0 | 7 | 13), "frame {id}");
        // A decoder that starts here must be able to show it.
        if id == 13 {
            pair.decoder.reset().unwrap();
        }
        if id >= 13 {
            push(&mut *pair.decoder, &sent).unwrap();
            assert_eq!(pair.decoder.poll_frame().unwrap().map(|frame| frame.frame_id), Some(id));
        }
    }
}

fn reset_takes_a_new_stream(encoder: EncoderChoice, decoder: DecoderChoice) {
    let mut pair = Pair::open(encoder, decoder, &config());
    for id in 50..55 {
        pair.pass(&EncodeRequest::frame(id));
    }
    pair.decoder.reset().unwrap();
    pair.encoder = open_encoder(encoder, &config()).unwrap();
    for id in 0..5 {
        let (quality, _) = pair.pass(&EncodeRequest::frame(id));
        assert!(quality > 30.0, "frame {id} of the second stream: {quality:.1} dB");
    }
}

fn keyframe_at_interval(encoder: EncoderChoice, decoder: DecoderChoice) {
    let mut pair = Pair::open(encoder, decoder, &EncoderConfig { keyframe_interval: Some(5), ..config() });
    let keyframes: Vec<_> = (0..16).filter(|&id| pair.pass(&EncodeRequest::frame(id)).1).collect();
    assert_eq!(keyframes, [0, 5, 10, 15]);
}

fn bitrate_steps_are_followed(encoder: EncoderChoice, decoder: DecoderChoice) {
    let mut pair = Pair::open(encoder, decoder, &EncoderConfig { bitrate_bps: 8_000_000, ..config() });
    let mut id = 0;
    for _ in 0..30 {
        pair.pass(&EncodeRequest::frame(id));
        id += 1;
    }
    for bitrate in [8_000_000u64, 4_000_000, 12_000_000, 6_000_000, 9_000_000, 3_000_000] {
        pair.encoder.set_bitrate(bitrate).unwrap();
        let mut bytes = 0;
        for _ in 0..10 {
            let (sent, report) = encode(&mut *pair.encoder, &mut pair.pattern, &EncodeRequest::frame(id));
            assert!(!report.keyframe, "a step of bitrate makes no keyframe");
            push(&mut *pair.decoder, &sent).unwrap();
            bytes += u64::from(report.bytes);
            id += 1;
        }
        let ratio = bytes as f64 * 8.0 / (bitrate as f64 / 6.0);
        assert!((0.8..1.2).contains(&ratio), "{bitrate} bit/s: {ratio:.2} of the target in ten frames");
    }
    pair.encoder.set_bitrate(8_000_000).unwrap();
    pair.encoder.set_frame_rate(30.0).unwrap();
    let bytes: u64 = (id..id + 10)
        .map(|id| {
            let report = encode(&mut *pair.encoder, &mut pair.pattern, &EncodeRequest::frame(id)).1;
            assert!(!report.keyframe);
            u64::from(report.bytes)
        })
        .sum();
    let ratio = bytes as f64 * 8.0 / (8_000_000.0 / 3.0);
    assert!((0.8..1.2).contains(&ratio), "half the frame rate: {ratio:.2}");
}

/// Loses `lost` frames from `first` on, tells the encoder one frame later, and demands clean frames without a
/// keyframe from then on.
fn recovers_by_reference(encoder: EncoderChoice, decoder: DecoderChoice, acknowledge: bool) {
    let mut pair = Pair::open(encoder, decoder, &config());
    let mut lost_at: Vec<std::ops::Range<u64>> = vec![9..10, 30..32, 70..71, 100..104, 106..107];
    lost_at.reverse();
    let mut recoveries = 0;
    let mut broken_since = None;
    for id in 0..130 {
        let mut request = EncodeRequest::frame(id);
        let lost = lost_at.last().is_some_and(|range| range.contains(&id));
        let reported = lost_at.last().is_some_and(|range| id == range.end + 1);
        if reported {
            let range = lost_at.pop().unwrap();
            request.reference_at_most = Some(range.start - 1);
            recoveries += 1;
        }
        let (sent, report) = encode(&mut *pair.encoder, &mut pair.pattern, &request);
        assert_eq!(report.keyframe, id == 0, "frame {id}: recovery needs no keyframe");
        if let Some(newest) = request.reference_at_most {
            assert!(report.reference.is_some_and(|reference| reference <= newest), "{report:?}");
            broken_since = None;
        }
        if lost {
            broken_since = broken_since.or(Some(id));
            continue;
        }
        let pushed = push(&mut *pair.decoder, &sent);
        if broken_since.is_some() {
            assert_eq!(pushed, Err(DecodeError::ReferenceLost { frame_id: id }));
            assert!(pair.decoder.poll_frame().unwrap().is_none());
            continue;
        }
        assert_eq!(pushed, Ok(()), "frame {id}");
        let original = pair.pattern.reference(id);
        let frame = pair.decoder.poll_frame().unwrap().unwrap();
        let quality = psnr(&original.view(), &frame.picture);
        assert!(quality > 28.0, "frame {id} after {recoveries} recoveries: {quality:.1} dB");
        if acknowledge {
            pair.encoder.on_acknowledged(id);
        }
    }
    assert_eq!(recoveries, 5);
}

fn lost_keyframe_makes_a_keyframe(encoder: EncoderChoice, decoder: DecoderChoice) {
    let mut pair = Pair::open(encoder, decoder, &config());
    for id in 0..6 {
        pair.pass(&EncodeRequest::frame(id));
    }
    let forced = EncodeRequest { force_keyframe: true, ..EncodeRequest::frame(6) };
    encode(&mut *pair.encoder, &mut pair.pattern, &forced);
    let (sent, _) = encode(&mut *pair.encoder, &mut pair.pattern, &EncodeRequest::frame(7));
    assert!(push(&mut *pair.decoder, &sent).is_err());
    let request = EncodeRequest { reference_at_most: Some(5), ..EncodeRequest::frame(8) };
    let (quality, keyframe) = pair.pass(&request);
    assert!(keyframe && quality > 30.0, "nothing from before a keyframe can be referenced");
}

fn lost_slice_costs_its_frame_only(encoder: EncoderChoice, decoder: DecoderChoice) {
    let mut pair = Pair::open(encoder, decoder, &config());
    for id in 0..12 {
        pair.pass(&EncodeRequest::frame(id));
    }
    // Often enough that a picture buffer leaked by each would be missed.
    for round in 0..60 {
        let missing = round % 4;
        let id = 12 + 3 * round as u64;
        let (mut sent, _) = encode(&mut *pair.encoder, &mut pair.pattern, &EncodeRequest::frame(id));
        sent.remove(missing);
        let pushed = push(&mut *pair.decoder, &sent);
        if missing < 3 {
            let index = missing as u32 + 1;
            assert_eq!(pushed, Err(DecodeError::SliceMissing { frame_id: id, index, expected: index - 1 }));
        }
        assert!(pair.decoder.poll_frame().unwrap().is_none());
        let request = EncodeRequest { reference_at_most: Some(id - 1), ..EncodeRequest::frame(id + 1) };
        let (quality, keyframe) = pair.pass(&request);
        assert!(!keyframe && quality > 28.0, "after losing slice {missing}: {quality:.1} dB");
        pair.pass(&EncodeRequest::frame(id + 2));
    }
}

fn garbage_does_no_harm(encoder: EncoderChoice, decoder: DecoderChoice) {
    let mut pair = Pair::open(encoder, decoder, &config());
    let mut rng = fastrand::Rng::with_seed(11);
    assert!(matches!(
        pair.decoder.push_slice(0, 0, true, b"\0\0\0\x01\x41\x9a\x22\x11"),
        Err(DecodeError::KeyframeNeeded { .. })
    ));
    assert!(pair.decoder.push_slice(1, 0, true, &[]).is_err());
    let mut id = 2;
    let mut errors = 0;
    for round in 0..120 {
        let force_keyframe = round % 4 == 0;
        let request = EncodeRequest { force_keyframe, ..EncodeRequest::frame(id) };
        let (mut sent, _) = encode(&mut *pair.encoder, &mut pair.pattern, &request);
        let damaged = rng.usize(..sent.len());
        let data = &mut sent[damaged].data;
        match round % 3 {
            0 => data.truncate(rng.usize(..data.len())),
            1 => (0..1 + rng.usize(..20)).for_each(|_| {
                let at = rng.usize(..data.len());
                data[at] = rng.u8(..);
            }),
            _ => data.iter_mut().skip(8).for_each(|byte| *byte = rng.u8(..)),
        }
        errors += u32::from(push(&mut *pair.decoder, &sent).is_err());
        let _ = pair.decoder.poll_frame();
        id += 1;
        if round % 10 == 9 {
            let request = EncodeRequest { force_keyframe: true, ..EncodeRequest::frame(id) };
            let (sent, _) = encode(&mut *pair.encoder, &mut pair.pattern, &request);
            // A decoder that lost its state says so and is opened again; any other error recovers by itself.
            if let Err(DecodeError::Backend { .. }) = push(&mut *pair.decoder, &sent) {
                pair.decoder.reset().unwrap();
                push(&mut *pair.decoder, &sent).unwrap();
            }
            let original = pair.pattern.reference(id);
            let frame = pair.decoder.poll_frame().unwrap().expect("a keyframe after garbage");
            let quality = psnr(&original.view(), &frame.picture);
            assert!(quality > 28.0, "round {round}: {quality:.1} dB");
            id += 1;
        }
    }
    assert!(errors > 60, "damage is noticed: {errors} of 120");
}

fn odd_sizes(encoder: EncoderChoice, decoder: DecoderChoice) {
    for (width, height) in [(321, 179), (322, 181), (16, 16), (330, 240)] {
        let config = EncoderConfig { slices: 1, ..EncoderConfig::new(width, height, 30, 6_000_000) };
        let mut pair = Pair::open(encoder, decoder, &config);
        let coded = (width.next_multiple_of(2), height.next_multiple_of(2));
        assert_eq!(pair.encoder.capabilities().coded_size, coded);
        for id in 0..5 {
            let (quality, _) = pair.pass(&EncodeRequest::frame(id));
            assert!(quality > 30.0, "{width}x{height} frame {id}: {quality:.1} dB");
        }
        let (sent, _) = encode(&mut *pair.encoder, &mut pair.pattern, &EncodeRequest::frame(5));
        push(&mut *pair.decoder, &sent).unwrap();
        let frame = pair.decoder.poll_frame().unwrap().unwrap();
        assert_eq!((frame.picture.width, frame.picture.height), coded);
    }
}

fn bad_input_is_refused(encoder: EncoderChoice, decoder: DecoderChoice) {
    let mut pair = Pair::open(encoder, decoder, &config());
    let short = vec![0; (WIDTH * HEIGHT * 4 - 1) as usize];
    let frame = wavry_codec::FrameInput::Bgrx { data: &short, stride: WIDTH as usize * 4 };
    assert!(pair.encoder.encode(frame, &EncodeRequest::frame(0), &mut |_| panic!("no slice")).is_err());
    pair.pass(&EncodeRequest::frame(5));
    let data = pair.pattern.frame(5).to_vec();
    let frame = wavry_codec::FrameInput::Bgrx { data: &data, stride: WIDTH as usize * 4 };
    assert!(pair.encoder.encode(frame, &EncodeRequest::frame(5), &mut |_| panic!("no slice")).is_err());
    assert!(pair.encoder.set_bitrate(0).is_err());
    assert!(pair.encoder.set_frame_rate(f32::NAN).is_err());
    pair.pass(&EncodeRequest::frame(6));
    for broken in [
        EncoderConfig { width: 8, ..config() },
        EncoderConfig { height: 8000, ..config() },
        EncoderConfig { fps: 0, ..config() },
        EncoderConfig { slices: 24, ..config() },
        EncoderConfig { threads: 0, ..config() },
        EncoderConfig { keyframe_interval: Some(0), ..config() },
    ] {
        assert!(open_encoder(encoder, &broken).is_err(), "{broken:?}");
    }
}

macro_rules! pairs {
    ($($(#[$attribute:meta])* $name:ident: $encoder:ident, $decoder:ident;)*) => {$(
        $(#[$attribute])*
        mod $name {
            use wavry_codec::{DecoderChoice, EncoderChoice};

            const ENCODER: EncoderChoice = EncoderChoice::$encoder;
            const DECODER: DecoderChoice = DecoderChoice::$decoder;

            #[test]
            fn picture_survives() {
                super::picture_survives(ENCODER, DECODER);
            }
            #[test]
            fn color_is_right() {
                super::color_is_right(ENCODER, DECODER);
            }
            #[test]
            fn slices_are_counted_and_ordered() {
                super::slices_are_counted_and_ordered(ENCODER, DECODER);
            }
            #[test]
            fn keyframe_on_request() {
                super::keyframe_on_request(ENCODER, DECODER);
            }
            #[test]
            fn reset_takes_a_new_stream() {
                super::reset_takes_a_new_stream(ENCODER, DECODER);
            }
            #[test]
            fn keyframe_at_interval() {
                super::keyframe_at_interval(ENCODER, DECODER);
            }
            #[test]
            fn bitrate_steps_are_followed() {
                super::bitrate_steps_are_followed(ENCODER, DECODER);
            }
            #[test]
            fn recovers_by_reference() {
                super::recovers_by_reference(ENCODER, DECODER, false);
            }
            #[test]
            fn recovers_by_acknowledged_reference() {
                super::recovers_by_reference(ENCODER, DECODER, true);
            }
            #[test]
            fn lost_keyframe_makes_a_keyframe() {
                super::lost_keyframe_makes_a_keyframe(ENCODER, DECODER);
            }
            #[test]
            fn lost_slice_costs_its_frame_only() {
                super::lost_slice_costs_its_frame_only(ENCODER, DECODER);
            }
            #[test]
            fn garbage_does_no_harm() {
                super::garbage_does_no_harm(ENCODER, DECODER);
            }
            #[test]
            fn odd_sizes() {
                super::odd_sizes(ENCODER, DECODER);
            }
            #[test]
            fn bad_input_is_refused() {
                super::bad_input_is_refused(ENCODER, DECODER);
            }
        }
    )*};
}

pairs! {
    openh264_to_openh264: OpenH264, OpenH264;
    #[cfg(feature = "x264")]
    x264_to_openh264: X264, OpenH264;
    #[cfg(feature = "libavcodec")]
    openh264_to_libavcodec: OpenH264, Libavcodec;
    #[cfg(all(feature = "x264", feature = "libavcodec"))]
    x264_to_libavcodec: X264, Libavcodec;
}

#[cfg(not(feature = "x264"))]
#[test]
fn a_backend_that_is_not_built_in_says_so() {
    let error = open_encoder(EncoderChoice::X264, &config()).err().unwrap();
    assert!(error.to_string().contains("cargo feature x264"), "{error}");
    assert_eq!(open_encoder(EncoderChoice::Auto, &config()).unwrap().capabilities().backend, "openh264");
}

#[test]
fn other_codecs_are_refused() {
    use wavry_codec::{CodecError, VideoCodec};
    let hevc = EncoderConfig { codec: VideoCodec::Hevc, ..config() };
    assert_eq!(
        open_encoder(EncoderChoice::Auto, &hevc).err(),
        Some(CodecError::UnsupportedCodec(VideoCodec::Hevc))
    );
    let av1 = DecoderConfig { codec: VideoCodec::Av1, ..DecoderConfig::default() };
    assert_eq!(
        open_decoder(DecoderChoice::Auto, &av1).err(),
        Some(CodecError::UnsupportedCodec(VideoCodec::Av1))
    );
}

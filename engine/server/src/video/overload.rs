//! Encoders that are too slow: the real video thread, with an encoder that takes its time.

use std::thread;
use std::time::{Duration, Instant};

use wavry_codec::{EncodeReport, EncoderCapabilities, SliceSink};
use wavry_runtime::spsc;

use super::*;
use crate::handoff;

const GEOMETRY: Geometry = Geometry::new(320, 192);

/// Takes as long as its pictures are large, and hands out their width as their only slice.
struct Slow {
    width: u32,
    takes: Duration,
}

impl Slow {
    fn open(config: &EncoderConfig, full: Duration) -> Box<dyn Encoder> {
        let share = f64::from(config.width * config.height) / f64::from(GEOMETRY.width * GEOMETRY.height);
        Box::new(Self { width: config.width, takes: full.mul_f64(share) })
    }
}

impl Encoder for Slow {
    fn encode(
        &mut self,
        _: FrameInput<'_>,
        request: &EncodeRequest,
        sink: &mut SliceSink<'_>,
    ) -> Result<EncodeReport, CodecError> {
        let begun = Instant::now();
        thread::sleep(self.takes);
        let keyframe = request.force_keyframe;
        let reference = request.frame_id.checked_sub(1).filter(|_| !keyframe);
        let data = self.width.to_le_bytes();
        sink(EncodedSlice {
            frame_id: request.frame_id,
            index: 0,
            last: true,
            keyframe,
            reference,
            data: &data,
        });
        Ok(EncodeReport {
            frame_id: request.frame_id,
            keyframe,
            reference,
            slices: 1,
            bytes: 4,
            budget_bytes: 4,
            qp: 30,
            convert: Duration::ZERO,
            first_slice: begun.elapsed(),
            total: begun.elapsed(),
        })
    }
    fn set_bitrate(&mut self, _: u64) -> Result<(), CodecError> {
        Ok(())
    }
    fn set_frame_rate(&mut self, _: f32) -> Result<(), CodecError> {
        Ok(())
    }
    fn capabilities(&self) -> EncoderCapabilities {
        unreachable!("nobody asks")
    }
}

/// A frame that left the thread.
#[derive(Debug)]
struct Frame {
    captured_us: u64,
    /// From a whole captured picture to the slice at the network thread.
    took_us: u64,
    width: u32,
    keyframe: bool,
}

/// Frames of a thread with 60 pictures per second that runs for `span`, from one second after its start on.
fn frames(open: OpenFn, span: Duration) -> Vec<Frame> {
    let (mut commands, command_end) = spsc::ring(16);
    let (notices, _notices) = spsc::ring(16);
    let (slices, mut slice_end) = handoff::slices();
    let shutdown = Shutdown::new();
    let links = VideoLinks {
        commands: command_end,
        slices,
        notices,
        network: Waker::new().unwrap(),
        shutdown: shutdown.clone(),
    };
    let config = VideoConfig {
        source: SourceChoice::Test(GEOMETRY),
        encoder: EncoderChoice::Auto,
        encoder_threads: 1,
        slices: 1,
        fill: false,
        fps: 60,
        bitrate_bps: 1_000_000,
    };
    let source = open_source(&config.source, config.fps).unwrap();
    let mut video = VideoThread::new(config, links, source);
    video.open = open;
    commands.push(VideoCommand::Rate { bitrate_bps: 1_000_000, fps: 60 }).unwrap();
    commands.push(VideoCommand::Start).unwrap();
    let video = thread::spawn(move || video.run());
    let (mut frames, begun) = (Vec::new(), Instant::now());
    while begun.elapsed() < span {
        while let Some(slice) = slice_end.pop() {
            if begun.elapsed() >= Duration::from_secs(1) {
                frames.push(Frame {
                    captured_us: slice.times.captured / 1000,
                    took_us: (Clock.now() - slice.times.captured) / 1000,
                    width: u32::from_le_bytes(slice.data.as_slice().try_into().unwrap()),
                    keyframe: slice.meta.keyframe,
                });
            }
            slice_end.give_back(slice.data);
        }
        thread::sleep(Duration::from_millis(1));
    }
    shutdown.request();
    video.thread().unpark();
    video.join().unwrap().unwrap();
    frames
}

fn fps(frames: &[Frame]) -> f64 {
    let span_us = frames.last().unwrap().captured_us - frames[0].captured_us;
    (frames.len() - 1) as f64 * 1e6 / span_us as f64
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

/// An encoder that takes 30 % more than the frames' time gets as many frames as it can take, evenly, within the first
/// second; none of them waits for another.
#[test]
fn an_encoder_that_is_a_third_too_slow_gets_fewer_frames() {
    const TAKES: Duration = Duration::from_micros(21_667);
    let frames = frames(|_, config| Ok(Slow::open(config, TAKES)), Duration::from_millis(2500));
    let rate = fps(&frames);
    assert!((30.0..44.5).contains(&rate), "{rate} frames per second");
    assert!(frames.iter().all(|frame| frame.width == GEOMETRY.width && !frame.keyframe));
    let took = median(frames.iter().map(|frame| frame.took_us).collect());
    assert!((21_000..26_000).contains(&took), "{took} us from capture to the network thread");
    let gaps: Vec<_> = frames.windows(2).map(|pair| pair[1].captured_us - pair[0].captured_us).collect();
    // Paced to what was set, not as fast as the encoder goes.
    assert!(median(gaps.clone()) > 22_500, "{gaps:?}");
}

/// One that takes three times the frames' time gets smaller pictures: then it makes more than half of them, sooner than
/// it would have made a large one.
#[test]
fn an_encoder_that_is_far_too_slow_gets_smaller_pictures() {
    const TAKES: Duration = Duration::from_millis(50);
    let frames = frames(|_, config| Ok(Slow::open(config, TAKES)), Duration::from_millis(2500));
    let rate = fps(&frames);
    assert!((24.0..36.0).contains(&rate), "{rate} frames per second");
    assert!(frames.iter().all(|frame| frame.width == 240), "{frames:?}");
    let took = median(frames.iter().map(|frame| frame.took_us).collect());
    assert!((28_000..33_500).contains(&took), "{took} us from capture to the network thread");
}

//! The video thread: waits for the picture to change, captures, encodes, hands slices over.
//!
//! Owns the capture source and the encoder. Never touches the network and never queues pictures: what
//! happened on the screen during an encode is in the next picture or in none. How many pictures are made, and how
//! large, is the least of what the network and the encoder bear. Invariant: a frame of which a slice was lost on the
//! way is never referenced again.

use std::time::{Duration, Instant};

use rift_core::delta2::Scale;
use rift_core::send::SliceMeta;
use rift_core::{FrameId, Timestamp};
use wavry_codec::{
    CodecError, EncodeRequest, EncodedSlice, Encoder, EncoderChoice, EncoderConfig, FrameInput, filled,
    open_encoder,
};
use wavry_platform::testsource::TestSource;
use wavry_platform::x11::{X11Capture, X11CaptureConfig};
use wavry_platform::{CaptureSource, CapturedFrame, CursorUpdate, FramePixels, Geometry, Rect};
use wavry_runtime::Waker;
use wavry_runtime::clock::Clock;
use wavry_runtime::shutdown::Shutdown;
use wavry_runtime::spsc::{Consumer, Producer};

use crate::config::SourceChoice;
use crate::handoff::{SliceSender, SliceTimes};
use crate::load::EncoderLoad;
use crate::notice::VideoNotice;
use crate::size::PictureSize;

/// How long a capture waits for a change before it looks for commands again.
const COMMAND_INTERVAL: Duration = Duration::from_millis(8);
/// How often a picture that no longer changes is encoded again, so that its last state is seen sharp and
/// not in the quality that motion was coded in.
const REFINEMENTS: u32 = 3;
/// Pause before a display that went away is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

/// What the network thread asks of the video thread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum VideoCommand {
    /// Somebody watches: begin with a keyframe.
    Start,
    /// Nobody watches: sleep.
    Stop,
    /// The next frame must be a keyframe.
    Keyframe,
    /// Predict only from this frame or an older one.
    ReferenceAtMost(FrameId),
    /// Better predict the next frame from this one or an older one, unless that takes a keyframe.
    PreferReference(FrameId),
    /// The client has this frame and all that it was predicted from.
    Acknowledged(FrameId),
    /// New targets.
    Rate { bitrate_bps: u64, fps: u32 },
    /// The rate suffices for pictures of this size.
    Scale(Scale),
    /// Leave out this many frames.
    Skip(u32),
    /// Encode nothing until told otherwise.
    Hold(bool),
    /// Capture this monitor.
    SelectMonitor(u32),
}

/// Settings that stay for the life of the thread.
#[derive(Debug, Clone)]
pub(crate) struct VideoConfig {
    pub(crate) source: SourceChoice,
    pub(crate) encoder: EncoderChoice,
    pub(crate) encoder_threads: u32,
    pub(crate) slices: u32,
    /// Frames are filled up to their share of the rate.
    pub(crate) fill: bool,
    pub(crate) fps: u32,
    pub(crate) bitrate_bps: u64,
}

/// The ends of the rings that the thread holds, and how it wakes the network thread.
pub(crate) struct VideoLinks {
    pub(crate) commands: Consumer<VideoCommand>,
    pub(crate) slices: SliceSender,
    pub(crate) notices: Producer<VideoNotice>,
    pub(crate) network: Waker,
    pub(crate) shutdown: Shutdown,
}

/// How an encoder is opened.
type OpenFn = fn(EncoderChoice, &EncoderConfig) -> Result<Box<dyn Encoder>, CodecError>;

/// The thread's state.
pub(crate) struct VideoThread {
    config: VideoConfig,
    links: VideoLinks,
    source: Box<dyn CaptureSource>,
    open: OpenFn,
    encoder: Option<OpenEncoder>,
    /// What the network bears.
    rate: (u64, u32),
    scale: Scale,
    /// What the encoder bears.
    load: EncoderLoad,
    wishes: Wishes,
    next_frame: FrameId,
    watched: bool,
    refinements_left: u32,
    shape_serial: Option<u32>,
    /// The part of the screen that was last announced.
    area: Option<Rect>,
}

struct OpenEncoder {
    encoder: Box<dyn Encoder>,
    size: PictureSize,
}

/// What the next frame has to be.
#[derive(Debug, Default)]
struct Wishes {
    keyframe: bool,
    reference_at_most: Option<FrameId>,
    preferred_reference: Option<FrameId>,
    skip: u32,
    held: bool,
}

/// Opens the source that was chosen.
pub(crate) fn open_source(choice: &SourceChoice, fps: u32) -> anyhow::Result<Box<dyn CaptureSource>> {
    Ok(match choice {
        SourceChoice::X11(display) => Box::new(X11Capture::open(&X11CaptureConfig {
            display: display.clone(),
            max_fps: fps as f32,
            ..X11CaptureConfig::default()
        })?),
        SourceChoice::Test(geometry) => Box::new(TestSource::new(*geometry, fps as f32)?),
    })
}

impl VideoThread {
    /// A thread state that captures from `source`.
    pub(crate) fn new(config: VideoConfig, links: VideoLinks, source: Box<dyn CaptureSource>) -> Self {
        Self {
            rate: (config.bitrate_bps, config.fps),
            config,
            links,
            source,
            open: open_encoder,
            encoder: None,
            scale: Scale::Full,
            load: EncoderLoad::default(),
            wishes: Wishes::default(),
            next_frame: FrameId(0),
            watched: false,
            refinements_left: 0,
            shape_serial: None,
            area: None,
        }
    }

    /// Runs until told to stop. An error is the end of streaming: the device is gone for good.
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        while !self.links.shutdown.requested() {
            self.take_commands();
            if !self.watched {
                // Unparked by the network thread together with each command.
                std::thread::park_timeout(Duration::from_secs(1));
                continue;
            }
            if self.wishes.held {
                // What changes meanwhile is in the first frame after it. The command that ends it unparks.
                std::thread::park_timeout(COMMAND_INTERVAL);
                continue;
            }
            if let Err(fault) = self.capture_and_encode() {
                self.recover(fault)?;
            }
        }
        Ok(())
    }

    fn take_commands(&mut self) {
        while let Some(command) = self.links.commands.pop() {
            match command {
                VideoCommand::Start => {
                    self.watched = true;
                    self.wishes = Wishes { keyframe: true, ..Wishes::default() };
                    self.shape_serial = None;
                    self.scale = Scale::Full;
                    self.source.refresh();
                }
                VideoCommand::Stop => {
                    self.watched = false;
                    // A keyframe for the next viewer costs less than keeping an encoder warm.
                    self.encoder = None;
                }
                VideoCommand::Keyframe => {
                    self.wishes.keyframe = true;
                    self.source.refresh();
                }
                VideoCommand::ReferenceAtMost(frame) => {
                    self.wishes.limit_reference(frame);
                    self.source.refresh();
                }
                VideoCommand::PreferReference(frame) => self.wishes.preferred_reference = Some(frame),
                VideoCommand::Acknowledged(frame) => {
                    if let Some(open) = &mut self.encoder {
                        open.encoder.on_acknowledged(frame.0);
                    }
                }
                VideoCommand::Rate { bitrate_bps, fps } => {
                    self.rate = (bitrate_bps, fps);
                    self.apply_rate();
                }
                // The next picture is of the new size; an encoder has only one.
                VideoCommand::Scale(scale) => {
                    self.scale = scale;
                    self.source.refresh();
                }
                VideoCommand::Skip(frames) => self.wishes.skip = frames,
                VideoCommand::Hold(held) => self.wishes.held = held,
                VideoCommand::SelectMonitor(id) => {
                    if let Err(error) = self.source.select_monitor(id) {
                        tracing::warn!(%error, "the client chose a monitor that is not there");
                    } else {
                        self.wishes.keyframe = true;
                    }
                }
            }
        }
    }

    /// Sets source and encoder to what both sides bear.
    fn apply_rate(&mut self) {
        let (bitrate_bps, fps) = (self.rate.0, self.load.fps(self.rate.1));
        self.source.set_max_fps(fps as f32);
        if let Some(open) = &mut self.encoder {
            let set =
                open.encoder.set_bitrate(bitrate_bps).and_then(|()| open.encoder.set_frame_rate(fps as f32));
            if let Err(error) = set {
                tracing::warn!(%error, bitrate_bps, fps, "the encoder did not take its new rate");
            }
        }
    }

    fn capture_and_encode(&mut self) -> Result<(), VideoFault> {
        // Pictures have another size, and the pointer over them too though it may not move.
        if let (Some(open), None, Some(cursor)) = (&self.encoder, self.shape_serial, self.source.cursor()) {
            announce_cursor(&cursor, Clock.now(), &open.size, &mut self.shape_serial, &mut self.links);
        }
        let deadline = Instant::now() + COMMAND_INTERVAL;
        let Some(frame) = self.source.capture(Some(deadline)).map_err(VideoFault::Capture)? else {
            if self.refinements_left > 0 {
                self.refinements_left -= 1;
                self.source.refresh();
            }
            return Ok(());
        };
        announce_area(&frame, &mut self.area, &mut self.links);
        let scale = self.scale.min(self.load.scale());
        let is_open = self.encoder.as_ref().is_some_and(|open| open.size.is_for(frame.geometry, scale));
        if !is_open {
            let (bitrate_bps, fps) = (self.rate.0, self.load.fps(self.rate.1));
            let size = PictureSize::new(frame.geometry, scale);
            let config = encoder_config(&self.config, size.coded(), bitrate_bps, fps);
            let mut encoder = (self.open)(self.config.encoder, &config)?;
            if self.config.fill {
                encoder = filled(encoder, bitrate_bps, fps as f32)?;
            }
            self.encoder = Some(OpenEncoder { encoder, size });
            // It is drawn over pictures of this size from now on.
            self.shape_serial = None;
            self.wishes.keyframe = true;
        }
        let Some(open) = &mut self.encoder else { return Ok(()) };
        if let Some(cursor) = &frame.cursor {
            let at_ns = frame.captured_at_ns;
            announce_cursor(cursor, at_ns, &open.size, &mut self.shape_serial, &mut self.links);
        }
        if self.wishes.skip > 0 {
            self.wishes.skip -= 1;
            return Ok(());
        }
        if frame.damage.is_empty() && !self.wishes.any() {
            return Ok(());
        }
        let refining = is_refinement(&frame, self.refinements_left);
        if !refining {
            self.refinements_left = REFINEMENTS;
        }
        let id = self.next_frame;
        self.next_frame = id.next();
        let begun = Clock.now();
        encode(open, &frame, id, &mut self.wishes, &mut self.links)?;
        let ended = Clock.now();
        let now = Timestamp::from_micros(ended / 1000);
        if self.load.on_encoded(now, (ended - begun) / 1000, self.rate.1) {
            let (fps, scale) = (self.load.fps(self.rate.1), self.load.scale());
            tracing::info!(wanted = self.rate.1, fps, ?scale, "what the encoder can keep up with changed");
            self.apply_rate();
        }
        Ok(())
    }

    /// Opens again what can be opened again.
    fn recover(&mut self, fault: VideoFault) -> anyhow::Result<()> {
        match fault {
            VideoFault::Capture(error) => {
                tracing::warn!(%error, "capture failed; opening the display again");
                std::thread::sleep(REOPEN_PAUSE);
                match open_source(&self.config.source, self.config.fps) {
                    Ok(source) => self.source = source,
                    Err(error) => {
                        let _ = self.links.notices.push(VideoNotice::Failed);
                        self.links.network.wake();
                        return Err(error.context("the display went away and could not be opened again"));
                    }
                }
            }
            VideoFault::Encode(error) => {
                tracing::warn!(%error, "encoding failed; opening a new encoder");
                self.encoder = None;
            }
        }
        self.wishes.keyframe = true;
        Ok(())
    }
}

impl Wishes {
    fn any(&self) -> bool {
        self.keyframe || self.reference_at_most.is_some()
    }

    fn limit_reference(&mut self, frame: FrameId) {
        self.reference_at_most = Some(self.reference_at_most.map_or(frame, |limit| limit.min(frame)));
    }
}

enum VideoFault {
    Capture(wavry_platform::CaptureError),
    Encode(wavry_codec::CodecError),
}

impl From<wavry_codec::CodecError> for VideoFault {
    fn from(error: wavry_codec::CodecError) -> Self {
        Self::Encode(error)
    }
}

/// A picture that was fetched again though nothing on the screen had changed.
fn is_refinement(frame: &CapturedFrame<'_>, refinements_left: u32) -> bool {
    refinements_left < REFINEMENTS && frame.damage == [frame.geometry.as_rect()]
}

fn encoder_config(config: &VideoConfig, size: Geometry, bitrate_bps: u64, fps: u32) -> EncoderConfig {
    let slices = match config.slices {
        0 => config.encoder.suitable_slices(size.height, config.encoder_threads),
        asked_for => asked_for.min(size.height.div_ceil(16)).max(1),
    };
    EncoderConfig {
        slices,
        threads: config.encoder_threads,
        ..EncoderConfig::new(size.width, size.height, fps, bitrate_bps)
    }
}

fn encode(
    open: &mut OpenEncoder,
    frame: &CapturedFrame<'_>,
    id: FrameId,
    wishes: &mut Wishes,
    links: &mut VideoLinks,
) -> Result<(), VideoFault> {
    let FramePixels::Bgrx { data, stride } = frame.pixels else {
        // The enum is open for DMA-BUF; no source of this build makes one.
        return Ok(());
    };
    let limit = wishes.reference_at_most.take();
    let preferred = wishes.preferred_reference.take();
    let preferred = preferred.filter(|_| limit.is_none() && open.encoder.capabilities().keeps_acknowledged);
    let request = EncodeRequest {
        frame_id: id.0,
        force_keyframe: std::mem::take(&mut wishes.keyframe),
        reference_at_most: limit.or(preferred).map(|limit| limit.0),
    };
    let clock = Clock;
    let (started, captured) = (frame.started_at_ns, frame.captured_at_ns);
    let Geometry { width, height } = open.size.coded();
    let mut lost = false;
    let VideoLinks { slices, network, .. } = links;
    let mut sink = |slice: EncodedSlice<'_>| {
        let encoded = clock.now();
        let meta = SliceMeta {
            frame_id: id,
            slice_index: slice.index,
            last_slice: slice.last,
            keyframe: slice.keyframe,
            reference: slice.reference.map(FrameId),
            timestamp: Timestamp::from_micros(started / 1000),
            capture_us: micros(captured.saturating_sub(started)),
            encode_us: micros(encoded.saturating_sub(captured)),
        };
        let times = SliceTimes { capture_started: started, captured, encoded, width, height };
        lost |= slices.send(meta, times, slice.data).is_err();
        network.wake();
    };
    let (data, stride) = open.size.apply(data, stride)?;
    let report = open.encoder.encode(FrameInput::Bgrx { data, stride }, &request, &mut sink)?;
    if lost {
        // The client will never have this frame whole, so nothing may be predicted from it.
        tracing::debug!(frame = id.0, bytes = report.bytes, "a slice did not reach the network thread");
        match id.0.checked_sub(1) {
            Some(before) if !report.keyframe => wishes.limit_reference(FrameId(before)),
            _ => wishes.keyframe = true,
        }
    }
    Ok(())
}

/// Tells where on the screen the picture lies, when that changed. If there was no room for it, the next frame
/// tells it.
fn announce_area(frame: &CapturedFrame<'_>, announced: &mut Option<Rect>, links: &mut VideoLinks) {
    let area = Some(frame.area());
    if *announced != area && links.notices.push(VideoNotice::Area(frame.area())).is_ok() {
        *announced = area;
        links.network.wake();
    }
}

fn announce_cursor(
    cursor: &CursorUpdate<'_>,
    at_ns: u64,
    size: &PictureSize,
    shape_serial: &mut Option<u32>,
    links: &mut VideoLinks,
) {
    if *shape_serial != Some(cursor.shape.serial) {
        // Rare (the pointer changed its picture), so the allocation is no matter.
        let shape = Box::new(size.shape(&cursor.shape));
        if links.notices.push(VideoNotice::CursorShape(shape)).is_ok() {
            *shape_serial = Some(cursor.shape.serial);
        }
    }
    let (x, y) = size.place(cursor.x, cursor.y);
    // A lost position is made good by the next one.
    let _ = links.notices.push(VideoNotice::CursorPosition {
        at_ns,
        x,
        y,
        visible: cursor.visible,
        shape_serial: size.serial(cursor.shape.serial),
    });
    links.network.wake();
}

fn micros(ns: u64) -> u32 {
    u32::try_from(ns / 1000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod overload;

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use wavry_codec::{EncodeReport, EncoderCapabilities, SliceSink};
    use wavry_platform::{CaptureError, Monitor};
    use wavry_runtime::spsc;

    use super::*;
    use crate::handoff;

    /// Notes what it is told; encodes nothing.
    struct Recorder {
        acknowledged: Arc<Mutex<Vec<u64>>>,
        /// What each frame was to predict from at most.
        limits: Arc<Mutex<Vec<Option<u64>>>>,
        keeps_acknowledged: bool,
    }

    impl Encoder for Recorder {
        fn encode(
            &mut self,
            _: FrameInput<'_>,
            request: &EncodeRequest,
            _: &mut SliceSink<'_>,
        ) -> Result<EncodeReport, CodecError> {
            self.limits.lock().unwrap().push(request.reference_at_most);
            Ok(EncodeReport {
                frame_id: request.frame_id,
                keyframe: false,
                reference: None,
                slices: 0,
                bytes: 0,
                budget_bytes: 0,
                qp: 30,
                convert: Duration::ZERO,
                first_slice: Duration::ZERO,
                total: Duration::ZERO,
            })
        }
        fn set_bitrate(&mut self, _: u64) -> Result<(), CodecError> {
            Ok(())
        }
        fn set_frame_rate(&mut self, _: f32) -> Result<(), CodecError> {
            Ok(())
        }
        fn on_acknowledged(&mut self, frame_id: u64) {
            self.acknowledged.lock().unwrap().push(frame_id);
        }
        fn capabilities(&self) -> EncoderCapabilities {
            EncoderCapabilities {
                backend: "recorder",
                early_slices: false,
                reference_invalidation: true,
                reference_depth: 16,
                keeps_acknowledged: self.keeps_acknowledged,
                intra_refresh: false,
                coded_size: (16, 16),
            }
        }
    }

    /// A small picture at a place that the test chooses.
    struct Placed {
        origins: Vec<(i32, i32)>,
        damage: [Rect; 1],
    }

    impl CaptureSource for Placed {
        fn geometry(&self) -> Geometry {
            Geometry::new(16, 16)
        }
        fn capture(&mut self, _: Option<Instant>) -> Result<Option<CapturedFrame<'_>>, CaptureError> {
            Ok(self.origins.pop().map(|origin| CapturedFrame {
                geometry: Geometry::new(16, 16),
                origin,
                pixels: FramePixels::Bgrx { data: &[0; 1024], stride: 64 },
                damage: &self.damage,
                started_at_ns: 0,
                captured_at_ns: 0,
                cursor: None::<CursorUpdate<'_>>,
            }))
        }
        fn refresh(&mut self) {}
        fn set_max_fps(&mut self, _: f32) {}
        fn monitors(&self) -> &[Monitor] {
            &[]
        }
        fn select_monitor(&mut self, _: u32) -> Result<(), CaptureError> {
            Ok(())
        }
    }

    struct World {
        thread: VideoThread,
        commands: Producer<VideoCommand>,
        notices: Consumer<VideoNotice>,
        acknowledged: Arc<Mutex<Vec<u64>>>,
        limits: Arc<Mutex<Vec<Option<u64>>>>,
    }

    /// A thread with a recording encoder, whose source shows these places in turn, the last one first.
    fn world(origins: &[(i32, i32)]) -> World {
        world_with(origins, true)
    }

    fn world_with(origins: &[(i32, i32)], keeps_acknowledged: bool) -> World {
        let (commands, command_end) = spsc::ring(16);
        let (notice_end, notices) = spsc::ring(16);
        let links = VideoLinks {
            commands: command_end,
            slices: handoff::slices().0,
            notices: notice_end,
            network: Waker::new().unwrap(),
            shutdown: Shutdown::new(),
        };
        let config = VideoConfig {
            source: SourceChoice::Test(Geometry::new(320, 96)),
            encoder: EncoderChoice::Auto,
            encoder_threads: 1,
            slices: 1,
            fill: false,
            fps: 60,
            bitrate_bps: 1_000_000,
        };
        let source = Placed { origins: origins.to_vec(), damage: [Rect::new(0, 0, 16, 16)] };
        let mut thread = VideoThread::new(config, links, Box::new(source));
        let (acknowledged, limits) = (Arc::default(), Arc::default());
        let encoder = Box::new(Recorder {
            acknowledged: Arc::clone(&acknowledged),
            limits: Arc::clone(&limits),
            keeps_acknowledged,
        });
        let size = PictureSize::new(Geometry::new(16, 16), Scale::Full);
        thread.encoder = Some(OpenEncoder { encoder, size });
        World { thread, commands, notices, acknowledged, limits }
    }

    #[test]
    fn acknowledgements_reach_the_encoder() {
        let mut world = world(&[]);
        for frame in [3, 4, 9] {
            world.commands.push(VideoCommand::Acknowledged(FrameId(frame))).unwrap();
        }
        world.thread.take_commands();
        assert_eq!(*world.acknowledged.lock().unwrap(), [3, 4, 9]);
        // Without an encoder there is nobody to tell.
        world.commands.push(VideoCommand::Stop).unwrap();
        world.commands.push(VideoCommand::Acknowledged(FrameId(10))).unwrap();
        world.thread.take_commands();
        assert_eq!(world.acknowledged.lock().unwrap().len(), 3);
    }

    #[test]
    fn a_preferred_reference_is_for_one_frame_and_not_for_every_encoder() {
        for keeps in [true, false] {
            let mut world = world_with(&[(0, 0); 3], keeps);
            for commands in [
                &[VideoCommand::PreferReference(FrameId(5))][..],
                &[],
                &[VideoCommand::ReferenceAtMost(FrameId(3)), VideoCommand::PreferReference(FrameId(6))],
            ] {
                for &command in commands {
                    world.commands.push(command).unwrap();
                }
                world.thread.take_commands();
                assert!(world.thread.capture_and_encode().is_ok());
            }
            assert_eq!(*world.limits.lock().unwrap(), [keeps.then_some(5), None, Some(3)]);
        }
    }

    #[test]
    fn the_place_of_the_picture_is_told_when_it_changes() {
        let mut world = world(&[(0, 0), (1280, 0), (1280, 0)]);
        for _ in 0..3 {
            assert!(world.thread.capture_and_encode().is_ok());
        }
        let areas: Vec<Rect> = std::iter::from_fn(|| world.notices.pop())
            .filter_map(|notice| if let VideoNotice::Area(area) = notice { Some(area) } else { None })
            .collect();
        assert_eq!(areas, [Rect::new(1280, 0, 16, 16), Rect::new(0, 0, 16, 16)]);
    }
}

//! The decode thread: slices in, pictures out.
//!
//! Owns the decoder and the presenter. Decodes each slice when it comes, converts the finished picture
//! straight into the presenter's memory, and shows it when it is due. Never queues pictures: one that is
//! finished while another waits to be shown replaces it.

use std::thread::Thread;
use std::time::Duration;

use rift_core::FrameId;
use wavry_codec::convert::i420_to_bgrx;
use wavry_codec::{CodecError, DecodeError, DecodedFrame, Decoder};
use wavry_platform::{CursorImage, CursorUpdate, FrameInfo, Geometry, Presenter};
use wavry_runtime::Waker;
use wavry_runtime::clock::Clock;
use wavry_runtime::shutdown::Shutdown;
use wavry_runtime::spsc::{Consumer, Producer};

use crate::handoff::SliceBuffer;
use crate::notice::{CursorNotice, DecodeNotice, DecodeOutcome};
use crate::trace::FrameTrace;
use crate::verify::{StripCheck, Strips};

/// A picture that is due in less than this is shown at once: waking up takes as long.
const SHOW_EARLY_NS: u64 = 200_000;
/// How long the thread sleeps when nothing happens, so that it sees the end of the program.
const IDLE: Duration = Duration::from_millis(100);

/// The ends of the rings that the thread holds.
pub(crate) struct DecodeLinks {
    pub(crate) slices: Consumer<SliceBuffer>,
    pub(crate) cursors: Consumer<CursorNotice>,
    pub(crate) outcomes: Producer<DecodeOutcome>,
    pub(crate) network: Waker,
    pub(crate) notices: Producer<DecodeNotice>,
    pub(crate) main_thread: Thread,
    pub(crate) shutdown: Shutdown,
}

/// The thread's state.
pub(crate) struct DecodeThread {
    decoder: Box<dyn Decoder>,
    presenter: Box<dyn Presenter>,
    links: DecodeLinks,
    frame: FrameTrace,
    /// What the thread has worked on the frame, in nanoseconds; the showing of one before it counts too.
    busy_ns: u64,
    waiting: Option<Waiting>,
    cursor: Cursor,
    check: Option<StripCheck>,
    tracing: bool,
}

/// A picture that is painted and not yet due.
struct Waiting {
    info: FrameInfo,
    show_at_ns: u64,
    trace: FrameTrace,
    strips: Option<Strips>,
}

#[derive(Default)]
struct Cursor {
    image: CursorImage,
    x: i32,
    y: i32,
    visible: bool,
}

impl DecodeThread {
    /// A thread state around a decoder and a presenter.
    pub(crate) fn new(
        decoder: Box<dyn Decoder>,
        presenter: Box<dyn Presenter>,
        links: DecodeLinks,
        check: Option<StripCheck>,
        tracing: bool,
    ) -> Self {
        Self {
            decoder,
            presenter,
            links,
            frame: FrameTrace::default(),
            busy_ns: 0,
            waiting: None,
            cursor: Cursor::default(),
            check,
            tracing,
        }
    }

    /// Runs until told to stop or until the presenter is gone. Gives back what the strips said.
    pub(crate) fn run(mut self) -> Option<StripCheck> {
        while !self.links.shutdown.requested() {
            match self.turn() {
                Ok(()) => {}
                Err(error) => {
                    let _ = self.links.notices.push(DecodeNotice::Failed(error));
                    self.links.main_thread.unpark();
                    break;
                }
            }
        }
        self.check
    }

    fn turn(&mut self) -> Result<(), String> {
        self.take_cursors()?;
        let now = Clock.now();
        if let Some(slice) = self.links.slices.pop() {
            self.decode(&slice)?;
            self.busy_ns += Clock.now() - now;
            if slice.meta.last {
                let _ = self.links.outcomes.push(DecodeOutcome::Worked(self.busy_ns / 1000));
                self.links.network.wake();
                self.busy_ns = 0;
            }
            return Ok(());
        }
        match self.waiting.as_ref().map(|w| w.show_at_ns) {
            Some(due) if due <= now + SHOW_EARLY_NS => {
                self.show()?;
                self.busy_ns += Clock.now() - now;
                Ok(())
            }
            Some(due) => {
                std::thread::park_timeout(Duration::from_nanos(due - now));
                Ok(())
            }
            None => {
                std::thread::park_timeout(IDLE);
                Ok(())
            }
        }
    }

    fn decode(&mut self, slice: &SliceBuffer) -> Result<(), String> {
        let meta = &slice.meta;
        let started_us = Clock.now() / 1000;
        if meta.index == 0 {
            self.frame = FrameTrace {
                frame: meta.frame_id.0,
                first_arrival_us: meta.first_arrival_us,
                decode_started_us: started_us,
                ..FrameTrace::default()
            };
        }
        // The last slice decides: the frame's time may have run out since its first.
        self.frame.shown = meta.show;
        self.frame.last_arrival_us = meta.complete_us;
        self.frame.complete_us = meta.complete_us;
        self.frame.repaired |= meta.repaired;
        let pushed = self.decoder.push_slice(meta.frame_id.0, meta.index, meta.last, &slice.data);
        if let Err(error) = pushed {
            return self.on_decode_error(meta.frame_id, &error);
        }
        if !meta.last {
            return Ok(());
        }
        // A picture that still waits is overtaken by this one; it is shown now if that is still in time.
        if self.waiting.is_some() {
            self.show()?;
        }
        self.paint(meta.frame_id, meta.show, meta.show_at_us)
    }

    /// Converts the finished picture into the presenter's memory.
    fn paint(&mut self, id: FrameId, show: bool, show_at_us: u64) -> Result<(), String> {
        let picture = match self.decoder.poll_frame() {
            Ok(Some(picture)) => picture,
            Ok(None) => return Ok(()),
            Err(error) => return self.on_decode_error(id, &error),
        };
        let ready_at_ns = Clock.now();
        self.frame.decoded_us = ready_at_ns / 1000;
        if !show {
            self.frame.presented_us = self.frame.decoded_us;
            let frame = self.frame;
            self.report(DecodeOutcome::Decoded(id), frame);
            return Ok(());
        }
        let strips = convert(&picture, &mut *self.presenter, self.check.as_ref())
            .map_err(|error| error.to_string())?;
        let info = FrameInfo { frame_id: id.0, ready_at_ns };
        let show_at_ns = show_at_us.saturating_mul(1000);
        self.waiting = Some(Waiting { info, show_at_ns, trace: self.frame, strips });
        if show_at_ns <= Clock.now() + SHOW_EARLY_NS { self.show() } else { Ok(()) }
    }

    fn show(&mut self) -> Result<(), String> {
        let Some(waiting) = self.waiting.take() else { return Ok(()) };
        self.presenter.present(waiting.info).map_err(|error| error.to_string())?;
        if let (Some(check), Some(strips)) = (&mut self.check, waiting.strips) {
            check.on_shown(strips);
        }
        let trace = FrameTrace { presented_us: Clock.now() / 1000, ..waiting.trace };
        self.report(DecodeOutcome::Shown(FrameId(waiting.info.frame_id)), trace);
        Ok(())
    }

    fn on_decode_error(&mut self, id: FrameId, error: &DecodeError) -> Result<(), String> {
        tracing::debug!(frame = id.0, %error, "frame not decoded");
        let _ = self.links.outcomes.push(DecodeOutcome::Failed(id));
        self.links.network.wake();
        Ok(())
    }

    fn report(&mut self, outcome: DecodeOutcome, trace: FrameTrace) {
        let _ = self.links.outcomes.push(outcome);
        self.links.network.wake();
        if self.tracing && self.links.notices.push(DecodeNotice::Frame(trace)).is_ok() {
            self.links.main_thread.unpark();
        }
    }

    fn take_cursors(&mut self) -> Result<(), String> {
        let mut changed = false;
        while let Some(notice) = self.links.cursors.pop() {
            changed = true;
            match notice {
                CursorNotice::Shape(shape) => {
                    self.cursor.image = CursorImage {
                        serial: shape.serial as u32,
                        width: shape.width,
                        height: shape.height,
                        hot_x: shape.hotspot_x,
                        hot_y: shape.hotspot_y,
                        pixels: shape.bgra,
                    };
                }
                CursorNotice::Position(position) => {
                    self.cursor.x = position.x;
                    self.cursor.y = position.y;
                    self.cursor.visible = position.visible;
                }
            }
        }
        if !changed {
            return Ok(());
        }
        let update = CursorUpdate {
            shape: self.cursor.image.as_shape(),
            x: self.cursor.x,
            y: self.cursor.y,
            visible: self.cursor.visible,
        };
        self.presenter.set_cursor(&update).map_err(|error| error.to_string())
    }
}

/// Paints the picture for the presenter, and reads its strips if they are to be checked.
fn convert(
    frame: &DecodedFrame<'_>,
    presenter: &mut dyn Presenter,
    check: Option<&StripCheck>,
) -> Result<Option<Strips>, CodecError> {
    let mut back = presenter.back(Geometry::new(frame.picture.width, frame.picture.height));
    let stride = back.stride();
    i420_to_bgrx(&frame.picture, frame.color, back.data_mut(), stride)?;
    Ok(check.map(|check| check.read(back.as_bgrx())))
}

#[cfg(test)]
mod overload;

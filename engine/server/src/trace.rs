//! One line of times per frame, for finding out where latency comes from, and one per decision of the
//! controller, for finding out why the picture was as it was.
//!
//! All times are microseconds of `CLOCK_MONOTONIC`, so that the lines of a host and a client on the same
//! machine can be joined by frame number.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rift_core::delta2::DecisionTrace;

/// Times of one frame on the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FrameTrace {
    pub(crate) frame: u64,
    pub(crate) keyframe: bool,
    pub(crate) slices: u32,
    pub(crate) bytes: u64,
    pub(crate) capture_started_us: u64,
    pub(crate) captured_us: u64,
    pub(crate) first_slice_us: u64,
    pub(crate) encoded_us: u64,
    pub(crate) first_sealed_us: u64,
    pub(crate) last_sealed_us: u64,
    /// Of the coded picture.
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// What a trace has a line of.
pub(crate) trait Line {
    /// Names of the columns.
    const HEADER: &'static str;

    /// Writes one line.
    fn write_to(&self, out: &mut impl Write) -> std::io::Result<()>;
}

/// The file they go to. Owned by the main thread: writing may block. A file that can no longer be written, as
/// on a full disk, ends the trace and not the stream; [`TraceFile::finish`] says so once more.
pub(crate) struct TraceFile<L> {
    path: PathBuf,
    out: BufWriter<File>,
    failed: Option<std::io::Error>,
    lines: PhantomData<L>,
}

impl<L: Line> TraceFile<L> {
    /// Creates or empties the file.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot write the trace {}", path.display()))?;
        let mut out = BufWriter::new(file);
        writeln!(out, "{}", L::HEADER)?;
        Ok(Self { path: path.to_owned(), out, failed: None, lines: PhantomData })
    }

    /// Adds a line.
    pub(crate) fn write(&mut self, line: &L) {
        if self.failed.is_some() {
            return;
        }
        if let Err(error) = line.write_to(&mut self.out) {
            tracing::warn!(path = %self.path.display(), %error, "the trace ends here; the stream goes on");
            self.failed = Some(error);
        }
    }

    /// Brings everything to the file.
    ///
    /// # Errors
    /// When some of it could not be written, now or earlier.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        let written = self.failed.take().map_or_else(|| self.out.flush(), Err);
        written.with_context(|| format!("the trace {} is not complete", self.path.display()))
    }
}

impl Line for FrameTrace {
    const HEADER: &'static str = "frame,keyframe,slices,bytes,capture_started_us,captured_us,first_slice_us,\
                                  encoded_us,first_sealed_us,last_sealed_us,width,height";

    fn write_to(&self, out: &mut impl Write) -> std::io::Result<()> {
        writeln!(
            out,
            "{},{},{},{},{},{},{},{},{},{},{},{}",
            self.frame,
            u8::from(self.keyframe),
            self.slices,
            self.bytes,
            self.capture_started_us,
            self.captured_us,
            self.first_slice_us,
            self.encoded_us,
            self.first_sealed_us,
            self.last_sealed_us,
            self.width,
            self.height
        )
    }
}

impl Line for DecisionTrace {
    const HEADER: &'static str = "at_us,state,reason,rate_kbps,video_kbps,capacity_kbps,queue_us,noise_us,\
                                  rtt_us,loss_ppm,parity,fps,held";

    fn write_to(&self, out: &mut impl Write) -> std::io::Result<()> {
        writeln!(
            out,
            "{},{:?},{:?},{},{},{},{},{},{},{},{:.3},{},{}",
            self.at.as_micros(),
            self.state,
            self.reason,
            self.rate.as_kbps(),
            self.video.as_kbps(),
            self.capacity.as_kbps(),
            self.queue_us,
            self.noise_us,
            self.rtt_us,
            self.loss_ppm,
            self.parity,
            self.fps,
            u8::from(self.held)
        )
    }
}

//! One line of times per frame, for finding out where latency comes from.
//!
//! All times are microseconds of `CLOCK_MONOTONIC`, so that the lines of a host and a client on the same
//! machine can be joined by frame number.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

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
}

/// Names of the columns.
const HEADER: &str = "frame,keyframe,slices,bytes,capture_started_us,captured_us,first_slice_us,encoded_us,\
                      first_sealed_us,last_sealed_us";

/// The file they go to. Owned by the main thread: writing may block. A file that can no longer be written, as
/// on a full disk, ends the trace and not the stream; [`TraceFile::finish`] says so once more.
pub(crate) struct TraceFile {
    path: PathBuf,
    out: BufWriter<File>,
    failed: Option<std::io::Error>,
}

impl TraceFile {
    /// Creates or empties the file.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot write the trace {}", path.display()))?;
        let mut out = BufWriter::new(file);
        writeln!(out, "{HEADER}")?;
        Ok(Self { path: path.to_owned(), out, failed: None })
    }

    /// Adds a line.
    pub(crate) fn write(&mut self, frame: &FrameTrace) {
        if self.failed.is_some() {
            return;
        }
        if let Err(error) = self.write_line(frame) {
            tracing::warn!(path = %self.path.display(), %error, "the trace ends here; the stream goes on");
            self.failed = Some(error);
        }
    }

    fn write_line(&mut self, f: &FrameTrace) -> std::io::Result<()> {
        writeln!(
            self.out,
            "{},{},{},{},{},{},{},{},{},{}",
            f.frame,
            u8::from(f.keyframe),
            f.slices,
            f.bytes,
            f.capture_started_us,
            f.captured_us,
            f.first_slice_us,
            f.encoded_us,
            f.first_sealed_us,
            f.last_sealed_us
        )
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

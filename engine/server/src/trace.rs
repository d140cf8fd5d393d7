//! One line of times per frame, for finding out where latency comes from.
//!
//! All times are microseconds of `CLOCK_MONOTONIC`, so that the lines of a host and a client on the same
//! machine can be joined by frame number.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

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

/// The file they go to. Owned by the main thread: writing may block.
pub(crate) struct TraceFile(BufWriter<File>);

impl TraceFile {
    /// Creates or empties the file.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot write the trace {}", path.display()))?;
        let mut out = BufWriter::new(file);
        writeln!(out, "{HEADER}")?;
        Ok(Self(out))
    }

    /// Adds a line.
    pub(crate) fn write(&mut self, f: &FrameTrace) -> std::io::Result<()> {
        writeln!(
            self.0,
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
    pub(crate) fn finish(mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

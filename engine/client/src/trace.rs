//! One line of times per frame; see the host's trace, whose lines it can be joined with.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use wavry_platform::headless::ShownRecord;

/// Times of one frame on the client, in microseconds of `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FrameTrace {
    pub(crate) frame: u64,
    pub(crate) first_arrival_us: u64,
    pub(crate) last_arrival_us: u64,
    pub(crate) complete_us: u64,
    pub(crate) decode_started_us: u64,
    pub(crate) decoded_us: u64,
    pub(crate) presented_us: u64,
    pub(crate) shown: bool,
    pub(crate) repaired: bool,
}

const HEADER: &str = "frame,first_arrival_us,last_arrival_us,complete_us,decode_started_us,decoded_us,presented_us,\
                      shown,repaired";

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
            "{},{},{},{},{},{},{},{},{}",
            f.frame,
            f.first_arrival_us,
            f.last_arrival_us,
            f.complete_us,
            f.decode_started_us,
            f.decoded_us,
            f.presented_us,
            u8::from(f.shown),
            u8::from(f.repaired)
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

/// Writes one line per picture whose code could be read: frame of the stream, number and time painted into
/// the picture, when it was decoded, and when it was shown.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write_codes(path: &Path, records: &[ShownRecord]) -> anyhow::Result<()> {
    let lines = || -> std::io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        writeln!(out, "frame,code_frame,code_us,decoded_us,shown_us")?;
        for ShownRecord { shown, code } in records {
            let Some(code) = code else { continue };
            writeln!(
                out,
                "{},{},{},{},{}",
                shown.info.frame_id,
                code.frame,
                code.timestamp_us,
                shown.info.ready_at_ns / 1000,
                shown.shown_at_ns / 1000
            )?;
        }
        out.flush()
    };
    lines().with_context(|| format!("cannot write the codes to {}", path.display()))
}

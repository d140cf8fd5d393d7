//! One line of times per frame, for finding out where latency comes from.
//!
//! All times are microseconds of `CLOCK_MONOTONIC`, so that the lines of a host and a client on the same
//! machine can be joined by frame number.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

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

/// Names of the columns.
const RATE_HEADER: &str = "at_us,state,reason,rate_kbps,video_kbps,capacity_kbps,queue_us,noise_us,rtt_us,loss_ppm,\
                           parity,fps,held";

/// The file of the controller's decisions. Owned by the main thread: writing may block.
pub(crate) struct RateTraceFile(BufWriter<File>);

impl RateTraceFile {
    /// Creates or empties the file.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot write the rate trace {}", path.display()))?;
        let mut out = BufWriter::new(file);
        writeln!(out, "{RATE_HEADER}")?;
        Ok(Self(out))
    }

    /// Adds a line.
    pub(crate) fn write(&mut self, d: &DecisionTrace) -> std::io::Result<()> {
        writeln!(
            self.0,
            "{},{:?},{:?},{},{},{},{},{},{},{},{:.3},{},{}",
            d.at.as_micros(),
            d.state,
            d.reason,
            d.rate.as_kbps(),
            d.video.as_kbps(),
            d.capacity.as_kbps(),
            d.queue_us,
            d.noise_us,
            d.rtt_us,
            d.loss_ppm,
            d.parity,
            d.fps,
            u8::from(d.held)
        )
    }

    /// Brings everything to the file.
    pub(crate) fn finish(mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

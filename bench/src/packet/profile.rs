//! A flame graph of a run.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Samples per second of CPU time; a prime, so that it does not beat with anything periodic.
const FREQUENCY: i32 = 997;

/// A running profile.
pub(super) struct Profile {
    guard: pprof::ProfilerGuard<'static>,
    file: PathBuf,
}

impl Profile {
    /// Begins to sample.
    pub(super) fn start(file: &Path) -> anyhow::Result<Self> {
        let guard = pprof::ProfilerGuard::new(FREQUENCY).context("the profiler cannot start")?;
        Ok(Self { guard, file: file.to_owned() })
    }

    /// Writes what was sampled.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        let file =
            File::create(&self.file).with_context(|| format!("{} cannot be written", self.file.display()))?;
        let report = self.guard.report().build().context("the samples cannot be resolved")?;
        report.flamegraph(file).context("the flame graph cannot be drawn")
    }
}

//! Where measured capacities come from: a directory that the user names.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use rift_sim::Scenario;
use rift_sim::link::Trace;

/// Names the directory with traces. They are not part of Wavry, because others measured them.
pub(super) const VARIABLE: &str = "WAVRY_TRACES";

/// Loads what `scenario` needs.
pub(super) fn load(scenario: &mut Scenario) -> anyhow::Result<()> {
    let Some(first) = scenario.missing_traces().next().map(str::to_owned) else { return Ok(()) };
    let directory = std::env::var_os(VARIABLE)
        .map(PathBuf::from)
        .with_context(|| format!("set {VARIABLE} to the directory with the trace {first}"))?;
    scenario.load_traces(|name| {
        let path = directory.join(name);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("the trace {} was not read", path.display()))?;
        let trace: Trace = text.parse().with_context(|| format!("{} is not a trace", path.display()))?;
        Ok(Arc::new(trace))
    })
}

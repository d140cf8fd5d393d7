//! On what, and of what, the figures are.

use std::fs;
use std::process::Command;

use serde::Serialize;

/// Machine, kernel and commit of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor as the kernel names it.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// Commit of the working tree, with `+` if it has changes; `unknown` outside of one.
    pub commit: String,
    /// Optimised, or a build whose figures say little.
    pub optimised: bool,
    /// Load of the last minute when the run began: with more than there are cores, figures are noisy.
    pub load: f64,
}

impl Machine {
    /// Looks at the machine.
    #[must_use]
    pub fn detect() -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            cpu: cpu.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            commit: commit().unwrap_or_else(|| "unknown".to_owned()),
            optimised: !cfg!(debug_assertions),
            load: load.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}, {} cores, Linux {}, commit {}, load {}",
            self.cpu, self.cores, self.kernel, self.commit, self.load
        )?;
        if self.optimised { Ok(()) } else { f.write_str(" (not a release build: the figures say little)") }
    }
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let mut commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    if !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty() {
        commit.push('+');
    }
    Some(commit)
}

//! Child processes that never outlive the measurement, and the processor time they used.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use wavry_runtime::cores;

/// How long a program may take to end after it was asked to.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clock ticks per second in /proc: USER_HZ, the same 100 on every Linux architecture in use.
const TICKS_PER_SECOND: f64 = 100.0;

/// Where a program or thread runs: host and client are two machines in use, and share no core here either where
/// there are two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The lower half of the cores.
    Host,
    /// The upper half.
    Client,
}

impl Side {
    /// Keeps the calling thread, and what it starts, on the cores of this side.
    ///
    /// # Errors
    /// What the system refuses.
    pub(crate) fn enter(self) -> anyhow::Result<()> {
        let allowed = cores::allowed()?;
        let (lower, upper) = allowed.split_at(allowed.len() / 2);
        let half = match self {
            Self::Host if !lower.is_empty() => lower,
            _ => upper,
        };
        let mut set = CpuSet::new();
        half.iter().for_each(|&core| set.set(core));
        sched_setaffinity(None, &set).context("a thread cannot be kept on some cores")
    }

    /// Runs `start` on the cores of this side.
    fn within<T>(self, start: impl FnOnce() -> T) -> anyhow::Result<T> {
        let before = sched_getaffinity(None)?;
        self.enter()?;
        let started = start();
        sched_setaffinity(None, &before)?;
        Ok(started)
    }
}

/// A running program. Ended, if need be by force, when it is dropped.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    child: Child,
}

impl Program {
    /// Starts it on the cores of a side. Its standard streams are what `command` says.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(name: &str, command: &mut Command, side: Side) -> anyhow::Result<Self> {
        let child = side.within(|| command.spawn())?.with_context(|| format!("{name} cannot be started"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// The child itself, for its pipes.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Processor seconds, user and system, of all its threads so far (proc(5), `/proc/PID/stat`).
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat =
            std::fs::read_to_string(&path).with_context(|| format!("{} has ended early", self.name))?;
        // The name in parentheses may hold anything; the fields after it are numbers, the third overall first.
        let ticks = stat.rsplit_once(')').and_then(|(_, fields)| {
            let mut fields = fields.split_ascii_whitespace().skip(11);
            let user: u64 = fields.next()?.parse().ok()?;
            let system: u64 = fields.next()?.parse().ok()?;
            Some(user + system)
        });
        Ok(ticks.with_context(|| format!("{path} is not understood"))? as f64 / TICKS_PER_SECOND)
    }

    /// Asks it to end by SIGINT and waits. True if it ended well.
    ///
    /// # Errors
    /// When it does not end in time.
    pub(crate) fn stop(&mut self) -> anyhow::Result<bool> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status.success());
        }
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.success());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("{} does not end", self.name)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The lines that a program prints, read by a thread so that the program never waits for a reader.
#[derive(Debug)]
pub(crate) struct Lines(Receiver<String>);

impl Lines {
    /// Of this pipe, until the program closes it.
    pub(crate) fn of(pipe: ChildStdout) -> Self {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self(receiver)
    }

    /// The next line that has this in it.
    ///
    /// # Errors
    /// When it does not come in time or the program closes its output.
    pub(crate) fn wait_for(&self, part: &str, patience: Duration) -> anyhow::Result<String> {
        let end = Instant::now() + patience;
        loop {
            match self.0.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(part) => return Ok(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => bail!("no line with '{part}' within {patience:?}"),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the program ended without a line with '{part}'")
                }
            }
        }
    }
}

/// Standard error of a measured program: to the terminal with `WAVRY_BENCH_VERBOSE` set, else nowhere.
pub(crate) fn chatter() -> Stdio {
    if std::env::var_os("WAVRY_BENCH_VERBOSE").is_some() { Stdio::inherit() } else { Stdio::null() }
}

/// Seconds, summed over the cores, that a hypervisor gave to others so far while this machine had work for them: the
/// field `steal` of proc(5), `/proc/stat`. Nothing on hardware of its own.
///
/// # Errors
/// Without such a file.
pub(crate) fn stolen_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let ticks = stolen_ticks(&stat).context("/proc/stat is not understood")?;
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

fn stolen_ticks(stat: &str) -> Option<u64> {
    stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace().nth(7)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_used_is_seen_and_the_end_is_orderly() {
        // Whoever started the tests may have had the signal ignored, which a shell does not undo.
        let mut sh = Command::new("env");
        sh.args(["--default-signal=INT", "sh", "-c", "while :; do :; done"]);
        let mut busy = Program::start("sh", &mut sh, Side::Host).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(busy.cpu_seconds().unwrap() > 0.0);
        assert!(!busy.stop().unwrap(), "a signal is not success");
        assert!(busy.child().try_wait().unwrap().is_some());
    }

    #[test]
    fn stolen_time_is_the_eighth_field() {
        assert_eq!(stolen_ticks("cpu  10 2 30 400 5 6 7 88 9 0\ncpu0 1 1 1 1 1 1 1 1 1 0\n"), Some(88));
        assert_eq!(stolen_ticks("intr 1"), None);
        let before = stolen_seconds().unwrap();
        assert!(stolen_seconds().unwrap() >= before, "it only grows");
    }

    #[test]
    fn lines_are_found() {
        let mut echo = Program::start(
            "sh",
            Command::new("sh").args(["-c", "echo a; echo bc"]).stdout(Stdio::piped()),
            Side::Client,
        )
        .unwrap();
        let lines = Lines::of(echo.child().stdout.take().unwrap());
        assert_eq!(lines.wait_for("b", Duration::from_secs(5)).unwrap(), "bc");
        assert!(lines.wait_for("z", Duration::from_secs(5)).is_err());
    }
}

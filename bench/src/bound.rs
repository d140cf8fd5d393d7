//! Programs that end with the bench, however that ends.
//!
//! Owns how they are started. Never waits for them or reads what they print. Invariant: what runs is the program itself, not
//! a parent of it.

use std::ffi::OsStr;
use std::process::Command;

use wavry_netns::Namespace;

/// Has the kernel end what follows when the thread that started it ends, and becomes it.
const BOUND: [&str; 3] = ["setpriv", "--pdeathsig", "KILL"];

/// A program which the kernel ends when the thread that starts it ends before it does: a bench that is killed leaves none
/// behind.
pub(crate) fn bound(program: impl AsRef<OsStr>) -> Command {
    before(Command::new(BOUND[0]), program)
}

/// The same, run in a network namespace.
pub(crate) fn bound_in(namespace: &Namespace, program: impl AsRef<OsStr>) -> Command {
    before(namespace.command(BOUND[0]), program)
}

fn before(mut command: Command, program: impl AsRef<OsStr>) -> Command {
    command.args(&BOUND[1..]).arg(program);
    command
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn a_program_ends_with_the_thread_that_started_it() {
        let end = Instant::now() + PATIENCE;
        let starting = std::thread::spawn(move || {
            let child = bound("sleep").arg("60").spawn().unwrap();
            // Only then is it bound.
            let name = format!("/proc/{}/comm", child.id());
            while std::fs::read_to_string(&name).unwrap().trim() != "sleep" {
                assert!(Instant::now() < end, "it does not start");
                std::thread::sleep(Duration::from_millis(5));
            }
            child
        });
        let mut child = starting.join().unwrap();
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "it goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

//! Network namespaces for tests and benchmarks: machines of their own, as far as networking goes, joined by
//! virtual cables.
//!
//! Owns the namespaces it made, by names with the process's number in them, and removes them when dropped, with
//! every device in them. What a process left behind that was killed, the next one that makes a namespace removes. Never touches the namespace that the process is in. Needs root and iproute2; whoever
//! uses it asks [`unavailable`] first and skips with the reason that it gives.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Why namespaces cannot be made here; `None` if they can.
#[must_use]
pub fn unavailable() -> Option<String> {
    match Namespace::new("probe") {
        Ok(_) => None,
        Err(error) => Some(format!("network namespaces cannot be made ({error}): run as root with iproute2")),
    }
}

/// A network namespace with the loopback device up. Removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one. `label` is part of its name, for whoever looks at `ip netns`.
    ///
    /// # Errors
    ///
    /// Without root or iproute2.
    pub fn new(label: &str) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        static LEFT_BEHIND: Once = Once::new();
        LEFT_BEHIND.call_once(remove_left_behind);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("wavry-{}-{number}-{label}", std::process::id());
        checked(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// What `ip netns` calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in it, with arguments separated by spaces, and returns what it printed.
    ///
    /// # Errors
    ///
    /// When it fails; the error says what it printed.
    pub fn ip(&self, arguments: &str) -> io::Result<String> {
        checked(Command::new("ip").args(["-n", &self.name]).args(arguments.split_whitespace()))
    }

    /// A program to be run in it. The process that is started is the program itself.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a program in it to its end and returns what it printed.
    ///
    /// # Errors
    ///
    /// When it fails; the error says what it printed.
    pub fn run(&self, program: &str, arguments: &str) -> io::Result<String> {
        checked(self.command(program).args(arguments.split_whitespace()))
    }

    /// Moves the calling thread into it, for good: a thread of its own is the way to use this.
    ///
    /// # Errors
    ///
    /// When the namespace is gone or the process may not.
    pub fn enter(&self) -> io::Result<()> {
        let file = File::open(format!("/run/netns/{}", self.name))?;
        Ok(move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))?)
    }

    /// Runs `work` on a thread in it and returns its result.
    ///
    /// # Panics
    ///
    /// When the namespace cannot be entered, or `work` panics.
    pub fn with<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter().unwrap_or_else(|error| panic!("{} cannot be entered: {error}", self.name));
                work()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What cannot be removed is left to the operator; the next run takes another name.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// Removes the namespaces of processes that are gone. Those of a process whose number another one has by now stay until that
/// one is gone too.
fn remove_left_behind() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let owner = name.strip_prefix("wavry-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists()) {
            // Another process may do the same at this moment.
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

/// Lays a cable (a `veth` pair) between two namespaces and brings both ends up. `queues` receive and transmit
/// queues at each end.
///
/// Addresses come afterwards, by [`Namespace::ip`]: `address add 10.0.0.1/24 dev NAME`, and for IPv6 with
/// `nodad`, or the address is not usable for its first two seconds.
///
/// # Errors
///
/// When iproute2 or the kernel refuses.
pub fn cable(left: (&Namespace, &str), right: (&Namespace, &str), queues: u32) -> io::Result<()> {
    let peer = &right.0.name;
    left.0.ip(&format!(
        "link add {} numrxqueues {queues} numtxqueues {queues} type veth peer name {} numrxqueues {queues} \
         numtxqueues {queues} netns {peer}",
        left.1, right.1
    ))?;
    left.0.ip(&format!("link set {} up", left.1))?;
    right.0.ip(&format!("link set {} up", right.1))?;
    Ok(())
}

fn checked(command: &mut Command) -> io::Result<String> {
    let Output { status, stdout, stderr } = command.output()?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&stderr);
    Err(io::Error::other(format!("{command:?}: {status}: {}", said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::time::Duration;

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        if let Some(reason) = unavailable() {
            eprintln!("skipped: {reason}");
            return;
        }
        let mut gone = Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        let names = [format!("wavry-{}-0-left", gone.id()), "wavry-test-of-netns".to_owned()];
        for name in &names {
            checked(Command::new("ip").args(["netns", "add", name])).unwrap();
        }
        let own = Namespace::new("own").unwrap();
        remove_left_behind();
        let exists = |name: &str| Path::new("/run/netns").join(name).exists();
        assert!(!exists(&names[0]) && exists(&names[1]) && exists(own.name()));
        checked(Command::new("ip").args(["netns", "del", &names[1]])).unwrap();
    }

    #[test]
    fn a_datagram_crosses_a_cable_and_nothing_is_left() {
        if let Some(reason) = unavailable() {
            eprintln!("skipped: {reason}");
            return;
        }
        let (left, right) = (Namespace::new("left").unwrap(), Namespace::new("right").unwrap());
        cable((&left, "l0"), (&right, "r0"), 1).unwrap();
        left.ip("address add 10.9.0.1/24 dev l0").unwrap();
        right.ip("address add 10.9.0.2/24 dev r0").unwrap();
        let receiver = right.with(|| UdpSocket::bind("10.9.0.2:7000").unwrap());
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        left.with(|| UdpSocket::bind("10.9.0.1:0").unwrap().send_to(b"hello", "10.9.0.2:7000").unwrap());
        let mut buffer = [0; 16];
        let (len, from) = receiver.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from.ip().to_string().as_str()), (&b"hello"[..], "10.9.0.1"));
        assert!(left.ip("link show dev no-such-device").is_err());

        let name = left.name().to_owned();
        drop((left, right));
        let listed = Command::new("ip").arg("netns").output().unwrap();
        assert!(!String::from_utf8_lossy(&listed.stdout).contains(&name));
    }
}

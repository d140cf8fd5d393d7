//! The relay's program between two machines on two cables, and peers that talk through it over real sockets.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod peers;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rift_crypto::Identity;
use wavry_netns::{Namespace, cable, unavailable};

pub(crate) use peers::{Issuing, PORT, Peer, metric, talk, wait};

/// The user of that name.
const NOBODY: u32 = 65_534;

/// The relay's machine has `r0` towards the client's `c0` and `r1` towards the host's `h0`; 10.81.1.0/24 and
/// fd81:1::/64 are on the first cable, 10.81.2.0/24 and fd81:2::/64 on the second, the relay is .1.
pub(crate) struct Lab {
    pub(crate) relay: Namespace,
    pub(crate) client: Namespace,
    pub(crate) host: Namespace,
    pub(crate) process: Option<Child>,
    /// Lines of the log, so far.
    pub(crate) log: PathBuf,
    place: PathBuf,
    pub(crate) issuing: Issuing,
    as_nobody: Option<&'static str>,
}

impl Lab {
    /// `None`, with the reason printed, where namespaces cannot be made.
    pub(crate) fn new(extra: &str) -> Option<Self> {
        Self::start(extra, None)
    }

    /// As [`new`](Self::new), but the relay is the user nobody, with these capabilities.
    pub(crate) fn as_nobody(extra: &str, capabilities: &'static str) -> Option<Self> {
        Self::start(extra, Some(capabilities))
    }

    fn start(extra: &str, as_nobody: Option<&'static str>) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if let Some(reason) = unavailable() {
            eprintln!("skipped: {reason}");
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let place = std::env::temp_dir().join(format!("wavry-relay-lab-{}-{number}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        let issuing = Issuing::new(Identity::load_or_create(&place.join("identity")).unwrap().0);
        let mut lab = Self {
            relay: Namespace::new("relay").unwrap(),
            client: Namespace::new("client").unwrap(),
            host: Namespace::new("host").unwrap(),
            process: None,
            log: place.join("log"),
            place,
            issuing,
            as_nobody,
        };
        cable((&lab.client, "c0"), (&lab.relay, "r0"), 1).unwrap();
        cable((&lab.host, "h0"), (&lab.relay, "r1"), 1).unwrap();
        let ends = [(&lab.client, "c0", "r0", 1), (&lab.host, "h0", "r1", 2)];
        for (machine, device, relay_device, net) in ends {
            lab.relay.ip(&format!("address add 10.81.{net}.1/24 dev {relay_device}")).unwrap();
            lab.relay.ip(&format!("address add fd81:{net}::1/64 dev {relay_device} nodad")).unwrap();
            machine.ip(&format!("address add 10.81.{net}.2/24 dev {device}")).unwrap();
            machine.ip(&format!("address add fd81:{net}::2/64 dev {device} nodad")).unwrap();
            // A virtual cable takes frames from a program only if its other end has one as well, or GRO.
            machine.run("ethtool", &format!("-K {device} gro on")).unwrap();
        }
        fs::write(
            lab.place.join("relay.toml"),
            format!(
                "listen = \"[::]:{PORT}\"\nidentity = {:?}\nissuers = [\"{}\"]\nmetrics = \"127.0.0.1:9482\"\n\
                 drain_seconds = 1\nsoft_kbps_max = 1000000\nhard_kbps_max = 1000000\n{extra}\n",
                lab.place.join("identity"),
                lab.issuing.issuer.public(),
            ),
        )
        .unwrap();
        lab.start_relay();
        Some(lab)
    }

    pub(crate) fn start_relay(&mut self) {
        let log = fs::File::create(&self.log).unwrap();
        let program = env!("CARGO_BIN_EXE_wavry-relay");
        let mut command = match self.as_nobody {
            None => self.relay.command(program),
            Some(capabilities) => {
                // Where nobody can read it.
                let copy = self.place.join("wavry-relay");
                fs::copy(program, &copy).unwrap();
                for path in [&self.place, &self.place.join("identity")] {
                    std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
                }
                let mut command = self.relay.command("setpriv");
                command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]);
                command.args(["--clear-groups".to_owned(), format!("--inh-caps=-all{capabilities}")]);
                command.arg(format!("--ambient-caps=-all{capabilities}")).arg(copy);
                command
            }
        };
        command.arg("--config").arg(self.place.join("relay.toml")).env("WAVRY_LOG", "debug");
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.process = Some(child);
        assert!(line.contains("listens on"), "{line} {}", self.said());
    }

    /// What the relay logged.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The sum of the metrics whose names begin so.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        self.relay.with(|| metric(name))
    }

    /// Client and host of a session of their own, bound.
    pub(crate) fn pair(&self, number: u8, is_v6: bool) -> [Peer; 2] {
        self.pair_at(number, is_v6, [(&self.client, 1, 2), (&self.host, 2, 2)])
    }

    /// The same, each on a machine with a cable and an address of its own on it.
    pub(crate) fn pair_at(&self, number: u8, is_v6: bool, places: [(&Namespace, u8, u8); 2]) -> [Peer; 2] {
        self.issuing.pair_at(number, is_v6, places)
    }

    /// Until the fast path has so many sessions.
    pub(crate) fn wait_for_sessions(&self, count: u64, peers: &mut [Peer]) {
        wait(&format!("{count} sessions on the fast path"), || {
            // A neighbour becomes known by what is sent to it.
            talk(peers, 1);
            std::thread::sleep(Duration::from_millis(20));
            self.metric("wavry_relay_fast_sessions ") == count
        });
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
        let _ = fs::remove_dir_all(&self.place);
    }
}

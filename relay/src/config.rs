//! What the operator wrote into the configuration file.
//!
//! Owns names, defaults and ranges. Never guesses: an unknown name or an impossible value is an error that says so.

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use rift_relay::lease::{IssuerPublic, KeyRing};
use serde::Deserialize;

use crate::core::RelayLimits;
use crate::verify::Policy;

/// Most threads that forward.
pub const THREADS_MAX: usize = 64;
/// The UDP port of a relay unless another is given.
pub const DEFAULT_PORT: u16 = 4820;

/// Which path carries what peers send each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FastPathChoice {
    /// XDP if an interface is named and it works there; userspace otherwise.
    #[default]
    Auto,
    /// XDP, or the relay does not start.
    Xdp,
    /// Userspace.
    Off,
}

impl FromStr for FastPathChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "xdp" => Ok(Self::Xdp),
            "off" => Ok(Self::Off),
            _ => Err("there is auto, xdp and off".to_owned()),
        }
    }
}

impl fmt::Display for FastPathChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Xdp => "xdp",
            Self::Off => "off",
        })
    }
}

/// Where the program of the fast path runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver where that works for certain; else generic.
    #[default]
    Auto,
    /// In the driver. Frames to a virtual cable (veth) are lost unless its other end has an XDP program.
    Native,
    /// In the kernel's stack, with any driver; slower.
    Generic,
}

/// The configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and UDP port. `[::]` takes IPv4 and IPv6; on a machine with several addresses, name the one that leases
    /// are used with.
    pub listen: SocketAddr,
    /// The relay's identity; made on first start. Leases name it, so it must be kept.
    pub identity: PathBuf,
    /// Public keys (`k4.public...`) of those who may sign leases. To rotate: add the new one, wait until the last lease
    /// of the old one is over, take the old one out.
    pub issuers: Vec<String>,
    /// File of Wavry IDs that are refused, one a line. Read again when it changes.
    pub banned: Option<PathBuf>,
    /// File of lease ids and session ids that are refused, one a line. Read again when it changes.
    pub revoked: Option<PathBuf>,
    /// Address of the metrics, health and ready endpoints; none if empty.
    pub metrics: Option<SocketAddr>,
    /// Threads that forward, each with sessions of its own. With a fast path they have little left to do.
    pub threads: usize,
    /// Core of the forwarding thread; of several, the first one's, and the others follow.
    pub core: Option<usize>,
    /// Poll the network instead of sleeping.
    pub busy_poll: bool,
    /// Which path carries what peers send each other; `auto` is XDP if `interfaces` names any.
    pub fast_path: FastPathChoice,
    /// Network interfaces that peers are reached through, for the fast path. Empty: the one that has the address of
    /// `listen`, or that of the default route.
    pub interfaces: Vec<String>,
    /// Where the fast path's program runs: `native` is in the driver, `generic` with any driver, `auto` native where
    /// that works for certain.
    pub xdp_mode: XdpMode,
    /// Sessions that the fast path has room for; all of them if not given.
    pub fast_path_sessions: Option<usize>,
    /// Have the kernel drop what is for no session before it is queued for the relay, where no program in the driver does. It
    /// needs the capabilities of the fast path; without them only what is not of the protocol is dropped there.
    pub guard: bool,
    /// Seconds that sessions may go on after SIGTERM or SIGINT.
    pub drain_seconds: u64,
    /// Sessions at most.
    pub sessions: usize,
    /// Leases and proofs that are verified per second at most.
    pub verifications_per_second: u32,
    /// Answers per second to those who did not prove anything, where userspace gives them.
    pub answers_per_second: u32,
    /// The same where the fast path's program gives them, which costs a tenth. Above what a flood brings, newcomers are
    /// answered beside it.
    pub fast_path_answers_per_second: u32,
    /// Proofs per second of one IPv4 address or IPv6 /64.
    pub proofs_per_second: u32,
    /// Average rate that no lease exceeds, kbit/s per peer.
    pub soft_kbps_max: u32,
    /// Short-term rate that no lease exceeds, kbit/s per peer.
    pub hard_kbps_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        let limits = RelayLimits::default();
        Self {
            listen: SocketAddr::from(([0u16; 8], DEFAULT_PORT)),
            identity: PathBuf::from("/var/lib/wavry-relay/identity"),
            issuers: Vec::new(),
            banned: None,
            revoked: None,
            metrics: Some(SocketAddr::from(([127, 0, 0, 1], 9482))),
            threads: 1,
            core: None,
            busy_poll: false,
            fast_path: FastPathChoice::Auto,
            interfaces: Vec::new(),
            xdp_mode: XdpMode::Auto,
            fast_path_sessions: None,
            guard: true,
            drain_seconds: 30,
            sessions: limits.sessions,
            verifications_per_second: 4000,
            answers_per_second: limits.answers_per_second,
            fast_path_answers_per_second: 500_000,
            proofs_per_second: limits.proofs_per_second,
            soft_kbps_max: limits.soft_kbps_max,
            hard_kbps_max: limits.hard_kbps_max,
        }
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("the configuration {} cannot be read", path.display()))?;
        Self::parse(&text).with_context(|| format!("the configuration {} is not right", path.display()))
    }

    /// Checks a text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = toml::from_str(text)?;
        ensure!(
            !config.issuers.is_empty(),
            "issuers is empty: add the public key that `wavry lease keygen` shows"
        );
        ensure!((1..=1_000_000).contains(&config.sessions), "sessions must be from 1 to 1000000");
        ensure!(
            config.fast_path_sessions.is_none_or(|sessions| (1..=config.sessions).contains(&sessions)),
            "fast_path_sessions must be from 1 to the number of sessions"
        );
        config.check_threads()?;
        ensure!(config.verifications_per_second > 0, "verifications_per_second must be above 0");
        ensure!(config.soft_kbps_max <= config.hard_kbps_max, "soft_kbps_max must not exceed hard_kbps_max");
        config.key_ring()?;
        Ok(config)
    }

    /// Whether there may be so many threads.
    ///
    /// # Errors
    /// Why not.
    pub fn check_threads(&self) -> anyhow::Result<()> {
        ensure!((1..=THREADS_MAX).contains(&self.threads), "threads must be from 1 to {THREADS_MAX}");
        Ok(())
    }

    /// The limits of the session logic of one thread: its share of those of the relay.
    #[must_use]
    pub fn limits(&self) -> RelayLimits {
        let default = RelayLimits::default();
        let threads = self.threads.max(1);
        let share = |whole: u32| whole.div_ceil(threads as u32);
        RelayLimits {
            sessions: self.sessions.div_ceil(threads),
            answers_per_second: share(self.answers_per_second),
            proofs_per_second: share(self.proofs_per_second),
            proofs_burst: share(default.proofs_burst),
            violations: share(default.violations),
            soft_kbps_max: self.soft_kbps_max,
            hard_kbps_max: self.hard_kbps_max,
        }
    }

    /// Issuers and lists, as the files say now.
    ///
    /// # Errors
    /// A file that cannot be read, or a line that is not understood.
    pub fn policy(&self) -> anyhow::Result<Policy> {
        Ok(Policy {
            issuers: self.key_ring()?,
            banned: read_list(self.banned.as_deref(), "a Wavry ID")?,
            revoked: read_list(self.revoked.as_deref(), "a lease id or session id")?,
        })
    }

    fn key_ring(&self) -> anyhow::Result<KeyRing> {
        let keys = self.issuers.iter().map(|text| text.parse::<IssuerPublic>());
        Ok(KeyRing::new(keys.collect::<Result<_, _>>().context("issuers has a line that is no key")?))
    }
}

fn read_list<T: FromStr + Eq + Hash>(path: Option<&Path>, what: &str) -> anyhow::Result<HashSet<T>> {
    let Some(path) = path else { return Ok(HashSet::new()) };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(HashSet::new()),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
    };
    let mut found = HashSet::new();
    for (number, line) in text.lines().enumerate() {
        let word = line.split('#').next().unwrap_or_default().trim();
        if word.is_empty() {
            continue;
        }
        let Ok(entry) = word.parse() else { bail!("{} line {}: not {what}", path.display(), number + 1) };
        found.insert(entry);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = r#"issuers = ["k4.public.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]"#;

    #[test]
    fn the_smallest_configuration_is_an_issuer() {
        let config = Config::parse(ISSUER).unwrap();
        assert_eq!(config.listen.port(), DEFAULT_PORT);
        assert!(!config.policy().unwrap().issuers.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("", "issuers"),
            ("issuers = [\"k4.public.x\"]", "issuers"),
            (&format!("{ISSUER}\nsesions = 5"), "sesions"),
            (&format!("{ISSUER}\nsessions = 0"), "sessions"),
            (&format!("{ISSUER}\nfast_path = \"fast\""), "fast_path"),
            (&format!("{ISSUER}\nfast_path_sessions = 2000000"), "fast_path_sessions"),
            (&format!("{ISSUER}\nthreads = 0"), "threads"),
            (&format!("{ISSUER}\nlisten = \"here\""), "listen"),
            (&format!("{ISSUER}\nsoft_kbps_max = 300000"), "soft_kbps_max"),
        ] {
            let error = format!("{:?}", Config::parse(text).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn threads_share_the_limits() {
        let config = Config::parse(&format!("{ISSUER}\nthreads = 4\nsessions = 1001")).unwrap();
        let (one, whole) = (config.limits(), Config::parse(ISSUER).unwrap().limits());
        assert_eq!((one.sessions, one.proofs_burst), (251, whole.proofs_burst / 4));
        assert_eq!(4 * one.answers_per_second, whole.answers_per_second);
    }

    #[test]
    fn choices_are_read_and_shown() {
        for choice in [FastPathChoice::Auto, FastPathChoice::Xdp, FastPathChoice::Off] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
            let text = format!("{ISSUER}\nfast_path = \"{choice}\"");
            assert_eq!(Config::parse(&text).unwrap().fast_path, choice);
        }
        assert!("on".parse::<FastPathChoice>().unwrap_err().contains("off"));
    }

    #[test]
    fn lists_have_comments_and_name_bad_lines() {
        let path = std::env::temp_dir().join(format!("wavry-relay-list-{}", std::process::id()));
        std::fs::write(&path, "# who\n\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA  # him\n").unwrap();
        let list: HashSet<rift_crypto::WavryId> = read_list(Some(&path), "a Wavry ID").unwrap();
        assert_eq!(list.len(), 1);
        std::fs::write(&path, "\nsomebody\n").unwrap();
        let error = read_list::<rift_crypto::WavryId>(Some(&path), "a Wavry ID").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        std::fs::remove_file(&path).unwrap();
    }
}

//! What the user chose.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use wavry_codec::DecoderChoice;
use wavry_xdp::choice::TransportChoice;

/// The UDP port of a host unless another is given.
const DEFAULT_PORT: u16 = 4810;

/// Shows the display of a Wavry host that this client is paired with. Always encrypted.
#[derive(Parser, Debug, Clone)]
#[command(name = "wavry-client", version, max_term_width = 100)]
pub struct Config {
    /// The host: an address or name, with a port if it is not 4810. IPv6 addresses in brackets.
    pub host: Target,

    /// Decode and check without showing anything. Needs no display.
    #[arg(long)]
    pub headless: bool,

    /// Begin in full screen. F11 switches.
    #[arg(long, conflicts_with = "headless")]
    pub fullscreen: bool,

    /// Video decoder.
    #[arg(long, value_enum, default_value = "auto")]
    pub decoder: DecoderOption,

    /// How late a frame may be shown, in milliseconds after it was expected, before it is left out.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(5..=2000))]
    pub deadline_ms: u32,

    /// Directory of this client's identity and of the hosts it is paired with.
    #[arg(long, value_name = "DIR", default_value_os_t = default_directory())]
    pub config_dir: PathBuf,

    /// The name by which the host's operator knows this client.
    #[arg(long, default_value_t = host_name())]
    pub name: String,

    /// Poll the network instead of sleeping: lower latency, one core fully used.
    #[arg(long)]
    pub busy_poll: bool,

    /// How datagrams travel: `io-uring`, the kernel's UDP; `af-xdp`, past the kernel's network stack and its
    /// firewall, which needs CAP_NET_ADMIN, CAP_BPF and CAP_NET_RAW; or `auto`: af-xdp if an interface is named
    /// and its driver has native XDP, io-uring otherwise.
    #[arg(long, default_value_t, value_name = "auto|io-uring|af-xdp")]
    pub transport: TransportChoice,

    /// Network interface for af-xdp, such as eth0 or a VLAN's eth0.9; the one that leads to the host if not given.
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,

    /// Core to pin the network thread to.
    #[arg(long, value_name = "CORE")]
    pub network_core: Option<usize>,

    /// Core to pin the decode thread to.
    #[arg(long, value_name = "CORE")]
    pub decode_core: Option<usize>,

    /// Stop after this many seconds of streaming.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub duration: Option<Duration>,

    /// Write one line of times per frame to this file (CSV, microseconds of CLOCK_MONOTONIC).
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,

    /// Write what the picture of each shown frame said about itself to this file (CSV, headless only): the
    /// number and time painted into it, and when it was decoded and shown.
    #[arg(long, value_name = "FILE", requires = "headless")]
    pub codes: Option<PathBuf>,

    /// Write the last picture to this file when the stream ends (PNG, headless only).
    #[arg(long, value_name = "FILE", requires = "headless")]
    pub screenshot: Option<PathBuf>,

    /// The picture has numbered strips in it, as the test picture has at the top and at the bottom: fail
    /// unless those of every shown frame could be read and were in order.
    #[arg(long, value_enum, value_name = "STRIPS")]
    pub verify: Option<VerifyStrips>,
}

/// Which numbered strips every shown frame must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VerifyStrips {
    /// One at the top.
    Top,
    /// One at the top and one at the bottom, with the same number.
    Both,
}

/// Decoders that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DecoderOption {
    /// The best one that this build has.
    Auto,
    /// Cisco's OpenH264, always there.
    Openh264,
    /// FFmpeg's, if built with the feature `libavcodec`.
    Libavcodec,
}

impl From<DecoderOption> for DecoderChoice {
    fn from(option: DecoderOption) -> Self {
        match option {
            DecoderOption::Auto => Self::Auto,
            DecoderOption::Openh264 => Self::OpenH264,
            DecoderOption::Libavcodec => Self::Libavcodec,
        }
    }
}

/// A host as the user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
}

impl Target {
    /// Its addresses, in the resolver's order.
    ///
    /// # Errors
    /// When the name is not known.
    pub fn resolve(&self) -> anyhow::Result<SocketAddr> {
        (self.host.as_str(), self.port)
            .to_socket_addrs()
            .with_context(|| {
                format!("the host name {} is not known; check its spelling or give an address", self.host)
            })?
            .next()
            .with_context(|| format!("the host name {} has no address", self.host))
    }
}

impl FromStr for Target {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let port = |p: &str| p.parse::<u16>().ok().filter(|&p| p != 0).ok_or(format!("'{p}' is not a port"));
        if let Some(rest) = text.strip_prefix('[') {
            let (host, after) = rest.split_once(']').ok_or("a bracket is not closed")?;
            let port = if after.is_empty() { DEFAULT_PORT } else { port(after.trim_start_matches(':'))? };
            return Ok(Self { host: host.to_owned(), port });
        }
        match text.split_once(':') {
            Some((_, rest)) if rest.contains(':') => Ok(Self { host: text.to_owned(), port: DEFAULT_PORT }),
            Some((host, p)) if !host.is_empty() => Ok(Self { host: host.to_owned(), port: port(p)? }),
            None if !text.is_empty() => Ok(Self { host: text.to_owned(), port: DEFAULT_PORT }),
            _ => Err("a host is given as NAME, ADDRESS, NAME:PORT or [IPv6]:PORT".to_owned()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// `$XDG_CONFIG_HOME/wavry`, else `~/.config/wavry` (XDG Base Directory Specification).
#[must_use]
pub fn default_directory() -> PathBuf {
    let non_empty = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    non_empty("XDG_CONFIG_HOME")
        .or_else(|| non_empty("HOME").map(|home| home.join(".config")))
        .unwrap_or_else(|| PathBuf::from("."))
        .join("wavry")
}

/// The machine's name, as the kernel has it.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "wavry-client".to_owned())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds < 1e9 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a number of seconds above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_shown() {
        for (text, shown) in [
            ("box", "box:4810"),
            ("box:99", "box:99"),
            ("10.0.0.7", "10.0.0.7:4810"),
            ("::1", "[::1]:4810"),
            ("[fe80::1]:77", "[fe80::1]:77"),
            ("[::1]", "[::1]:4810"),
        ] {
            assert_eq!(Target::from_str(text).map(|t| t.to_string()), Ok(shown.to_owned()));
        }
        for wrong in ["", ":80", "box:0", "box:70000", "box:x", "[::1"] {
            assert!(Target::from_str(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_resolves_to_itself() {
        let target = Target::from_str("127.0.0.1:5").unwrap();
        assert_eq!(target.resolve().unwrap(), "127.0.0.1:5".parse().unwrap());
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Config::command().debug_assert();
    }
}

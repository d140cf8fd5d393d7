//! What the operator chose.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use rift_core::endpoint::ControllerKind;
use wavry_codec::EncoderChoice;
use wavry_platform::Geometry;
use wavry_xdp::choice::TransportChoice;

/// The UDP port of a host unless another is given.
const DEFAULT_PORT: u16 = 4810;

/// Streams this machine's display to a paired Wavry client. Always encrypted.
#[derive(Parser, Debug, Clone)]
#[command(name = "wavry-server", version, max_term_width = 100)]
pub struct Config {
    /// Address and UDP port to listen on. `[::]` takes IPv4 and IPv6.
    #[arg(long, default_value_t = SocketAddr::from(([0u16; 8], DEFAULT_PORT)))]
    pub listen: SocketAddr,

    /// What to stream: `x11` (the display in $DISPLAY), `x11::1` (that display), or `test:1280x720` (a
    /// moving test picture with frame number and time painted into it).
    #[arg(long, default_value = "x11", value_parser = SourceChoice::parse)]
    pub source: SourceChoice,

    /// Frames per second at most. An idle display costs none.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=240))]
    pub fps: u32,

    /// Bitrate to begin with, in Mbit/s; the controller takes over from there.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub bitrate_mbps: u32,

    /// Bitrate that the controller never exceeds, in Mbit/s.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub max_bitrate_mbps: u32,

    /// What decides on bitrate, frame rate and pacing.
    #[arg(long, value_enum, default_value = "delta2")]
    pub controller: ControllerOption,

    /// Keep the bitrate where it began, for measuring: the same as `--controller fixed`.
    #[arg(long)]
    pub fixed_bitrate: bool,

    /// Fill every frame up to its share of the bitrate, whatever is in the picture: for measuring networks.
    #[arg(long)]
    pub fill: bool,

    /// Video encoder.
    #[arg(long, value_enum, default_value = "auto")]
    pub encoder: EncoderOption,

    /// Encoder threads; 0 chooses by the number of cores.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=16))]
    pub encoder_threads: u32,

    /// Slices per frame. Each is sent, and decoded, as soon as it is ready. 0 chooses by encoder and picture.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=32))]
    pub slices: u32,

    /// Bytes per datagram. Raise it only on a network that is known to carry more.
    #[arg(long, default_value_t = 1200, value_parser = clap::value_parser!(u16).range(1200..=1424))]
    pub datagram_bytes: u16,

    /// Offer pairing for two minutes: prints a 6-digit PIN that a new client must give.
    #[arg(long)]
    pub pair: bool,

    /// Do not let clients move the pointer or press keys.
    #[arg(long)]
    pub view_only: bool,

    /// Directory of this host's identity and of the list of clients that may connect.
    #[arg(long, value_name = "DIR", default_value_os_t = default_directory())]
    pub config_dir: PathBuf,

    /// Poll the network instead of sleeping: lower latency, one core fully used.
    #[arg(long)]
    pub busy_poll: bool,

    /// Go through this relay (HOST:PORT). Needs a lease for it.
    #[arg(long, value_name = "HOST:PORT", requires = "lease")]
    pub relay: Option<String>,

    /// The lease for the relay: the token itself, or a file that holds it. A file is read again when it changes, and the
    /// lease renewed without interruption.
    #[arg(long, value_name = "TOKEN|FILE", requires = "relay")]
    pub lease: Option<String>,

    /// How datagrams travel: `io-uring`, the kernel's UDP; `af-xdp`, past the kernel's network stack and its
    /// firewall, which needs CAP_NET_ADMIN, CAP_BPF and CAP_NET_RAW; or `auto`: af-xdp if an interface is named
    /// and its driver has native XDP, io-uring otherwise.
    #[arg(long, default_value_t, value_name = "auto|io-uring|af-xdp")]
    pub transport: TransportChoice,

    /// Network interface for af-xdp, such as eth0 or a VLAN's eth0.9.
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,

    /// Core to pin the network thread to.
    #[arg(long, value_name = "CORE")]
    pub network_core: Option<usize>,

    /// Core to pin the video thread to.
    #[arg(long, value_name = "CORE")]
    pub video_core: Option<usize>,

    /// Write one line of times per frame to this file (CSV, microseconds of CLOCK_MONOTONIC).
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,

    /// Write one line per decision of the controller to this file (CSV): state, reason, capacity, delay, rate.
    #[arg(long, value_name = "FILE")]
    pub rate_trace: Option<PathBuf>,

    /// Stop after this many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub duration: Option<Duration>,
}

/// Where pictures come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceChoice {
    /// An X display; `None` is the one in `$DISPLAY`.
    X11(Option<String>),
    /// The test picture.
    Test(Geometry),
}

impl SourceChoice {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(size) = text.strip_prefix("test:") {
            let (width, height) = size.split_once('x').ok_or("the size is given as test:WIDTHxHEIGHT")?;
            let number = |s: &str| s.parse::<u32>().map_err(|_| format!("'{s}' is not a number of pixels"));
            return Ok(Self::Test(Geometry::new(number(width)?, number(height)?)));
        }
        match text {
            "x11" => Ok(Self::X11(None)),
            "test" => Ok(Self::Test(Geometry::new(1280, 720))),
            _ => match text.strip_prefix("x11:") {
                Some(display) if !display.is_empty() => Ok(Self::X11(Some(display.to_owned()))),
                _ => Err("known sources: x11, x11:DISPLAY, test, test:WIDTHxHEIGHT".to_owned()),
            },
        }
    }
}

/// Whether and how unknown clients may pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairingMode {
    /// They may not.
    Closed,
    /// With the PIN that is printed, for this long.
    Open(Duration),
}

impl Config {
    /// How unknown clients are treated.
    #[must_use]
    pub fn pairing(&self) -> PairingMode {
        if self.pair { PairingMode::Open(Duration::from_secs(120)) } else { PairingMode::Closed }
    }

    /// Encoder threads to use on this machine: one core is left to the network and the games.
    #[must_use]
    pub fn threads(&self) -> u32 {
        match self.encoder_threads {
            0 => {
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                (cores as u32).saturating_sub(1).clamp(1, 4)
            }
            n => n,
        }
    }
}

/// Controllers that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ControllerOption {
    /// DELTA 2: measures the path.
    Delta2,
    /// DELTA 1.1 as published.
    DeltaV1,
    /// The bitrate to begin with, for ever.
    Fixed,
}

impl From<ControllerOption> for ControllerKind {
    fn from(option: ControllerOption) -> Self {
        match option {
            ControllerOption::Delta2 => Self::Delta2,
            ControllerOption::DeltaV1 => Self::DeltaV1,
            ControllerOption::Fixed => Self::Fixed,
        }
    }
}

/// Encoders that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EncoderOption {
    /// The best one that this build has.
    Auto,
    /// Cisco's OpenH264, always there.
    Openh264,
    /// x264, if built with the feature of that name.
    X264,
}

impl From<EncoderOption> for EncoderChoice {
    fn from(option: EncoderOption) -> Self {
        match option {
            EncoderOption::Auto => Self::Auto,
            EncoderOption::Openh264 => Self::OpenH264,
            EncoderOption::X264 => Self::X264,
        }
    }
}

/// `$XDG_CONFIG_HOME/wavry`, else `~/.config/wavry` (XDG Base Directory Specification).
fn default_directory() -> PathBuf {
    let non_empty = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    non_empty("XDG_CONFIG_HOME")
        .or_else(|| non_empty("HOME").map(|home| home.join(".config")))
        .unwrap_or_else(|| PathBuf::from("."))
        .join("wavry")
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
    fn sources_are_read() {
        assert_eq!(SourceChoice::parse("x11"), Ok(SourceChoice::X11(None)));
        assert_eq!(SourceChoice::parse("x11::7"), Ok(SourceChoice::X11(Some(":7".to_owned()))));
        assert_eq!(SourceChoice::parse("test:640x360"), Ok(SourceChoice::Test(Geometry::new(640, 360))));
        for wrong in ["", "x12", "x11:", "test:640", "test:ax1", "test:-1x4"] {
            assert!(SourceChoice::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Config::command().debug_assert();
    }

    #[test]
    fn out_of_range_is_refused() {
        for wrong in [["--fps", "0"], ["--datagram-bytes", "9000"], ["--duration", "-1"]] {
            assert!(Config::try_parse_from(["wavry-server", wrong[0], wrong[1]]).is_err(), "{wrong:?}");
        }
    }
}

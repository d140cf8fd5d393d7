//! The `wavry` command line: keys, pairing, measuring, simulation, the demonstration.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context;
use clap::{Parser, Subcommand};
use rift_crypto::Pin;
use tracing_subscriber::EnvFilter;
use wavry_client::contact::{self, Home};
use wavry_client::{Target, default_directory};
use wavry_platform::x11::{X11Capture, X11CaptureConfig};
use wavry_runtime::kernel::Unsupported;

#[macro_use]
mod output;

mod demo;
mod latency;
mod lease;
mod netem;
mod netsim;

/// Tools for Wavry hosts and clients.
#[derive(Parser)]
#[command(name = "wavry", version, max_term_width = 100)]
struct Arguments {
    /// Directory of this machine's identity and of its paired hosts and clients.
    #[arg(long, global = true, value_name = "DIR", default_value_os_t = default_directory())]
    config_dir: PathBuf,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make this machine's identity, if it has none, and show its Wavry ID.
    Keygen,
    /// Show this machine's Wavry ID.
    ShowId,
    /// Pair with a host that was started with --pair.
    Pair {
        /// The host: NAME, ADDRESS, NAME:PORT or [IPv6]:PORT.
        host: Target,
        /// The six digits that the host shows. Asked for when left out.
        #[arg(long)]
        pin: Option<String>,
        /// The name by which the host's operator will know this client.
        #[arg(long, default_value = "wavry-client")]
        name: String,
    },
    /// Measure the round trip to a paired host through the sealed channel.
    Ping {
        /// The host.
        host: Target,
        /// How many round trips.
        #[arg(long, short, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        count: u32,
    },
    /// Check what this machine offers: kernel, network, display.
    Doctor,
    /// Keys and leases for a relay without a gateway.
    #[command(subcommand)]
    Lease(lease::Command),
    /// Run the protocol in a simulated network.
    Netsim(netsim::Arguments),
    /// Put a simulated network between a real client and a real host.
    Netem(netem::Arguments),
    /// Stream a real display from a host to a client on this machine and measure it.
    Demo(demo::Arguments),
    /// Join the traces of a host and a client to a latency table and a plot.
    Latency(latency::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("WAVRY_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wavry: {error:#}");
            match error.downcast_ref::<Unsupported>() {
                Some(unsupported) => ExitCode::from(unsupported.exit_code()),
                None => ExitCode::FAILURE,
            }
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let home = Home::new(&arguments.config_dir);
    match arguments.command {
        Command::Keygen => {
            say!("{}", home.identity()?.wavry_id());
            Ok(())
        }
        Command::ShowId => {
            let path = arguments.config_dir.join(contact::IDENTITY_FILE);
            say!("{}", rift_crypto::Identity::load(&path)?.wavry_id());
            Ok(())
        }
        Command::Pair { host, pin, name } => {
            let digits = match pin {
                Some(digits) => digits,
                None => ask_for_pin()?,
            };
            let pin = Pin::from_str(&digits).context("the PIN is the six digits that the host shows")?;
            let paired = contact::pair(&home, &host, &name, pin)?;
            say!("paired with {host} ({})", paired.id);
            Ok(())
        }
        Command::Ping { host, count } => {
            let mut all = Vec::with_capacity(count as usize);
            contact::ping(&home, &host, "wavry ping", count, |n, rtt_us| {
                say!("{host}: reply {n}, {:.3} ms", rtt_us as f64 / 1000.0);
                all.push(rtt_us);
            })?;
            all.sort_unstable();
            if let (Some(least), Some(most)) = (all.first(), all.last()) {
                let median = all[all.len() / 2];
                let ms = |us: u64| us as f64 / 1000.0;
                say!("least {:.3} ms, median {:.3} ms, most {:.3} ms", ms(*least), ms(median), ms(*most));
            }
            Ok(())
        }
        Command::Doctor => doctor(),
        Command::Lease(command) => lease::run(command),
        Command::Netsim(arguments) => netsim::run(&arguments),
        Command::Netem(arguments) => netem::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Latency(arguments) => latency::run(&arguments),
    }
}

fn ask_for_pin() -> anyhow::Result<String> {
    print!("PIN: ");
    std::io::stdout().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("the PIN could not be read; give it with --pin")?;
    Ok(line)
}

fn doctor() -> anyhow::Result<()> {
    let report = wavry_runtime::kernel::require()?;
    say!("kernel      {} has everything that is needed", report.release);
    say!(
        "receiving   {}",
        if report.gro_joined { "in batches (UDP_GRO)" } else { "one by one: UDP_GRO did not join" }
    );
    say!("cores       {}", std::thread::available_parallelism().map_or(1, usize::from));
    match std::env::var("DISPLAY") {
        Ok(display) => match X11Capture::open(&X11CaptureConfig::default()) {
            Ok(_) => say!("display     {display} can be captured"),
            Err(error) => say!("display     {display} cannot be captured: {error}"),
        },
        Err(_) => say!("display     none: $DISPLAY is not set"),
    }
    Ok(())
}

//! `wavry-relay`: see the library.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use wavry_relay::config::{Config, FastPathChoice};
use wavry_relay::{bench, service};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Forwards sealed datagrams between two peers that hold a lease. Cannot read them.
#[derive(Parser, Debug)]
#[command(name = "wavry-relay", version, max_term_width = 100)]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", default_value = "/etc/wavry-relay.toml")]
    config: PathBuf,

    /// Check the configuration, the identity and the port, and end.
    #[arg(long)]
    dry_run: bool,

    /// What carries the datagrams of sessions: auto, xdp or off. Instead of what the configuration says.
    #[arg(long, value_name = "PATH")]
    fast_path: Option<FastPathChoice>,

    /// Network interface that peers are reached through; several if given several times. Instead of what the
    /// configuration says.
    #[arg(long = "interface", value_name = "NAME")]
    interfaces: Vec<String>,

    /// Threads that forward. Instead of what the configuration says.
    #[arg(long, value_name = "COUNT")]
    threads: Option<usize>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Measure what this machine can decide and verify, to size it. Needs no configuration and no network.
    Bench {
        /// Sessions to spread datagrams over.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        sessions: u32,
    },
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("WAVRY_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Some(Command::Bench { sessions }) => bench::run(sessions),
        None => Config::load(&arguments.config).and_then(|mut config| {
            config.fast_path = arguments.fast_path.unwrap_or(config.fast_path);
            if !arguments.interfaces.is_empty() {
                config.interfaces = arguments.interfaces;
            }
            config.threads = arguments.threads.unwrap_or(config.threads);
            config.check_threads()?;
            service::run(&config, arguments.dry_run)
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wavry-relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

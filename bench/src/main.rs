//! `wavry-bench`: what the engine's parts cost, and what the whole of it needs from picture to picture.
//!
//! Every figure is measured beside what it is compared with, in the same run and turn about, so that a
//! busy or slow machine changes the figures and not the ratios.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod e2e;

/// Measures the engine.
#[derive(Parser)]
#[command(name = "wavry-bench", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Latency of the real programs, from a picture painted to the same picture decoded.
    E2e(e2e::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::E2e(arguments) => e2e::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wavry-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

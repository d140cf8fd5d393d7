//! `wavry-server`: see [`wavry_server`].

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use wavry_runtime::kernel::Unsupported;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let config = wavry_server::Config::parse();
    let filter = EnvFilter::try_from_env("WAVRY_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        // A log that cannot be written must not end the stream.
        .log_internal_errors(false)
        .init();
    match wavry_server::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "wavry-server: {error:#}");
            match error.downcast_ref::<Unsupported>() {
                Some(unsupported) => ExitCode::from(unsupported.exit_code()),
                None => ExitCode::FAILURE,
            }
        }
    }
}

//! `wavry-bench`: how fast the engine is on this machine, against floors, peers and goals.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use wavry_bench::{fec, packet, xdp};

mod bound;
mod e2e;
mod emulate;
mod relay;

/// The same as in `wavry-server` and `wavry-client`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "wavry-bench", version, about = "Measures the Wavry engine against floors, peers and goals")]
struct Cli {
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Subcommand)]
enum Measurement {
    /// The packet path: time per packet, throughput, input round trip, bursts.
    Packet(packet::Arguments),
    /// Error correction beside ISA-L itself and other codecs.
    Fec(fec::Arguments),
    /// Latency of the real programs, from a picture painted to the same picture decoded.
    E2e(e2e::Arguments),
    /// The simulator beside real links in real time, for the same scenarios. Needs root.
    Emulate(emulate::Arguments),
    /// The relay beside coturn, a C forwarder, kernel routing and bare XDP. Needs root.
    Relay(relay::Arguments),
    /// What floods and a restart do to the sessions of a relay. Needs root.
    RelayFloods(relay::floods::Arguments),
    /// AF_XDP beside io_uring on a virtual cable. Needs root.
    Xdp(xdp::Arguments),
}

fn main() -> ExitCode {
    let done = match Cli::parse().measurement {
        Measurement::Packet(arguments) => packet::run(&arguments),
        Measurement::Fec(arguments) => fec::run(&arguments),
        Measurement::E2e(arguments) => e2e::run(&arguments),
        Measurement::Emulate(arguments) => emulate::run(&arguments),
        Measurement::Relay(arguments) => relay::run(&arguments),
        Measurement::RelayFloods(arguments) => relay::floods::run(&arguments),
        Measurement::Xdp(arguments) => xdp::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wavry-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! `wavry-fuzz TARGET`: fuzzes one target, or lists them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use wavry_fuzz::driver::{self, Plan};
use wavry_fuzz::{TARGETS, Target, coverage};

/// Fuzzes one of Wavry's decoders or endpoints.
#[derive(Debug, Parser)]
struct Args {
    /// What to fuzz; without it, the targets are listed.
    target: Option<String>,
    /// How long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Decides the changes to inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where inputs are read from and new ones written to.
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Run this one input and nothing else.
    #[arg(long)]
    input: Option<PathBuf>,
    /// Reduce the corpus to inputs that each reach something of their own.
    #[arg(long)]
    minimise: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let Some(name) = args.target else {
        for target in TARGETS {
            println!("{:14} {}", target.name, target.about);
        }
        return Ok(ExitCode::SUCCESS);
    };
    let Some(target) = Target::find(&name) else {
        anyhow::bail!("there is no target `{name}`; without arguments they are listed");
    };
    if let Some(path) = args.input {
        (target.run)(&std::fs::read(path)?);
        return Ok(ExitCode::SUCCESS);
    }
    if !coverage::is_available() {
        eprintln!("no coverage counters: inputs are changed blindly; `tools/fuzz/run` builds with them");
    }
    let corpus = args.corpus.unwrap_or_else(|| driver::corpus_of(target));
    if args.minimise {
        anyhow::ensure!(coverage::is_available(), "reducing a corpus needs coverage counters");
        println!("{name}: {} inputs kept", driver::minimise(target, &corpus)?);
        return Ok(ExitCode::SUCCESS);
    }
    let findings = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("findings");
    let plan = Plan { time: Duration::from_secs(args.seconds), seed: args.seed, corpus, findings };
    let outcome = driver::fuzz(target, &plan)?;
    let Some(path) = outcome.finding else { return Ok(ExitCode::SUCCESS) };
    eprintln!("{name} broke; repeat with: wavry-fuzz {name} --input {}", path.display());
    Ok(ExitCode::FAILURE)
}

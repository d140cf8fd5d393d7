//! The loop: change an input, run the target, keep what reached something new.
//!
//! Owns the corpus while it runs. A finding is a panic, or a run of more than ten seconds; its input is
//! written to `tools/fuzz/findings/` before the program ends.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rift_sim::Fingerprint;

use crate::coverage::{self, Reached};
use crate::mutate::mutate;
use crate::target::Target;

/// A run that takes longer hangs.
const HANG: Duration = Duration::from_secs(10);
/// Inputs to keep where there is no coverage to tell which are worth it.
const BLIND_CORPUS_MAX: usize = 64;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How long.
    pub time: Duration,
    /// Decides the changes.
    pub seed: u64,
    /// Where inputs are read from, and new ones written to.
    pub corpus: PathBuf,
    /// Where a finding's input goes.
    pub findings: PathBuf,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Runs of the target.
    pub runs: u64,
    /// Inputs in the corpus.
    pub inputs: usize,
    /// Edges reached; 0 without instrumentation.
    pub edges: usize,
    /// The input that broke something, and where it was written.
    pub finding: Option<PathBuf>,
}

/// The folder of a target's corpus in this repository.
#[must_use]
pub fn corpus_of(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// In a corpus folder, the file that holds many inputs, each behind its length (u32, little-endian). All other
/// files are one input each.
const PACK: &str = "pack";

/// The inputs in `folder`, in the order of their names. No folder means no inputs.
///
/// # Errors
/// A file that cannot be read.
pub fn read_corpus(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut paths: Vec<_> = match fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(Result::ok).map(|entry| entry.path()).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    paths.sort();
    let mut inputs = Vec::new();
    for path in paths {
        let bytes = fs::read(&path)?;
        if path.file_name().is_some_and(|name| name == PACK) {
            unpack(&bytes, &mut inputs);
        } else {
            inputs.push(bytes);
        }
    }
    Ok(inputs)
}

fn unpack(mut rest: &[u8], inputs: &mut Vec<Vec<u8>>) {
    while let Some((len, behind)) = rest.split_first_chunk() {
        let (input, next) = behind.split_at((u32::from_le_bytes(*len) as usize).min(behind.len()));
        inputs.push(input.to_vec());
        rest = next;
    }
}

fn pack(inputs: &[Vec<u8>]) -> Vec<u8> {
    let with_len = |input: &Vec<u8>| [&(input.len() as u32).to_le_bytes()[..], input].concat();
    inputs.iter().flat_map(with_len).collect()
}

/// Fuzzes `target`.
///
/// # Errors
/// The corpus cannot be read or written.
pub fn fuzz(target: &Target, plan: &Plan) -> io::Result<Outcome> {
    let mut rng = Rng::with_seed(plan.seed);
    let watch = Watch::start(plan.findings.clone(), target.name);
    let mut reached = Reached::new();
    let mut outcome = Outcome { runs: 0, inputs: 0, edges: 0, finding: None };
    let mut inputs = read_corpus(&plan.corpus)?;
    inputs.extend((target.seeds)());
    let mut corpus = Vec::new();
    for input in inputs {
        match run_once(target, &input, &watch) {
            Ok(()) if reached.merge() > 0 || !coverage::is_available() => corpus.push(input),
            Ok(()) => {}
            Err(Panicked) => {
                outcome.finding = Some(write_finding(&plan.findings, target.name, &input)?);
                return Ok(outcome);
            }
        }
    }
    corpus.push(Vec::new());
    let begun = Instant::now();
    let mut told = begun;
    while begun.elapsed() < plan.time {
        outcome.runs += 1;
        // Newer inputs reach newer code: every other time one of the last few.
        let recent = if rng.bool() { corpus.len().saturating_sub(16) } else { 0 };
        let mut input = corpus[rng.usize(recent..corpus.len())].clone();
        let other = rng.usize(..corpus.len());
        mutate(&mut input, &corpus[other], target.input_len_max, &mut rng);
        if run_once(target, &input, &watch).is_err() {
            outcome.finding = Some(write_finding(&plan.findings, target.name, &input)?);
            break;
        }
        if reached.merge() > 0 {
            write_input(&plan.corpus, &input)?;
            corpus.push(input);
        } else if !coverage::is_available() && corpus.len() < BLIND_CORPUS_MAX {
            corpus.push(input);
        }
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            report(target, &outcome, &corpus, &reached, begun);
        }
    }
    outcome.inputs = corpus.len();
    outcome.edges = reached.edges();
    report(target, &outcome, &corpus, &reached, begun);
    Ok(outcome)
}

/// Reduces the inputs in `folder` to a few that together reach the same edges: the longest first, as they reach
/// the most, each kept only if it adds one, all in one file. Needs instrumentation. Returns how many were kept.
///
/// # Errors
/// The corpus cannot be read or written.
pub fn minimise(target: &Target, folder: &Path) -> io::Result<usize> {
    let mut inputs = read_corpus(folder)?;
    inputs.extend((target.seeds)());
    inputs.sort_by(|a, b| (b.len(), b).cmp(&(a.len(), a)));
    let mut reached = Reached::new();
    let mut kept = Vec::new();
    let watch = Watch::start(folder.to_owned(), target.name);
    for input in inputs {
        if run_once(target, &input, &watch).is_ok() && reached.merge_edges() > 0 {
            kept.push(input);
        }
    }
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    fs::write(folder.join(PACK), pack(&kept))?;
    Ok(kept.len())
}

struct Panicked;

fn run_once(target: &Target, input: &[u8], watch: &Watch) -> Result<(), Panicked> {
    watch.begin(input);
    coverage::reset();
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|_| Panicked)
}

fn report(target: &Target, outcome: &Outcome, corpus: &[Vec<u8>], reached: &Reached, begun: Instant) {
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{}: {} runs, {:.0} per second, {} inputs, {} edges",
        target.name,
        outcome.runs,
        outcome.runs as f64 / seconds.max(1e-3),
        corpus.len(),
        reached.edges()
    );
}

fn write_input(folder: &Path, input: &[u8]) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("{:016x}", Fingerprint::of(input)));
    fs::write(&path, input)?;
    Ok(path)
}

fn write_finding(folder: &Path, target: &str, input: &[u8]) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("{target}-{:016x}", Fingerprint::of(input)));
    fs::write(&path, input)?;
    Ok(path)
}

/// Ends the program when a run hangs, and leaves its input behind.
struct Watch {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    input: Mutex<Vec<u8>>,
    runs: AtomicU64,
    over: AtomicBool,
}

impl Watch {
    fn start(findings: PathBuf, target: &'static str) -> Self {
        let shared = Arc::new(Shared::default());
        let watched = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut last = u64::MAX;
            while !watched.over.load(Ordering::Relaxed) {
                let runs = watched.runs.load(Ordering::Relaxed);
                if runs == last && runs > 0 {
                    let input = watched.input.lock().unwrap_or_else(PoisonError::into_inner);
                    let place = write_finding(&findings, target, &input);
                    eprintln!("{target} hangs; input: {place:?}");
                    std::process::exit(1);
                }
                last = runs;
                std::thread::sleep(HANG);
            }
        });
        Self { shared }
    }

    fn begin(&self, input: &[u8]) {
        let mut current = self.shared.input.lock().unwrap_or_else(PoisonError::into_inner);
        current.clear();
        current.extend_from_slice(input);
        self.shared.runs.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let inputs = vec![b"one".to_vec(), Vec::new(), vec![7; 300]];
        let mut back = Vec::new();
        unpack(&pack(&inputs), &mut back);
        assert_eq!(back, inputs);
        unpack(&[255, 255, 255, 255, 1], &mut back);
        assert_eq!(back.last(), Some(&vec![1]), "a damaged length takes what there is");
    }
}

//! Error correction: `rift-fec` beside ISA-L used as its own examples use it, and beside two crates.
//!
//! All contenders take turns in blocks, as everywhere in this bench. A decode counts everything from
//! "these are lost" to the bytes: choosing and preparing the matrix too.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use reed_solomon_erasure::galois_8::ReedSolomon;
use rift_fec::reference::Isal;
use rift_fec::{Encoder, Solver};

use crate::estimate::Estimate;
use crate::machine::Machine;
use crate::report::{Goal, Report};

/// Arguments of `wavry-bench fec`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// A tenth of the rounds: a look, not a record
    #[arg(long)]
    pub quick: bool,
    /// Exit with 1 if a goal is missed by more than the noise
    #[arg(long)]
    pub check: bool,
    /// Also write everything to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Shard length, in bytes: a full datagram.
const LEN: usize = 1200;
/// Groups for encoding, in shards and parities. The second is the one that the goals name.
const SHAPES: [(usize, usize); 3] = [(10, 2), (20, 4), (50, 10)];
/// The shape for decoding.
const SHARDS: usize = 20;
/// Most shards that are lost.
const PARITIES: usize = 4;
/// Encoding, as a multiple of ISA-L's own loop.
const ENCODE_MAX: f64 = 1.2;
/// Decoding `e` losses: this and [`EACH_US`] for each, in microseconds.
const DECODE_US: f64 = 3.0;
const EACH_US: f64 = 1.5;

/// Measures and prints the table.
///
/// # Errors
/// A contender that gives wrong bytes; with `--check` also a missed goal.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (blocks, rounds) = if arguments.quick { (5, 200) } else { (25, 1000) };
    let mut report = Report::new(Machine::detect());
    for (shards, parities) in SHAPES {
        encode(blocks, rounds, shards, parities, &mut report)?;
    }
    for lost in 1..=PARITIES {
        decode(blocks, rounds, lost, &mut report)?;
    }
    report.print();
    if let Some(file) = &arguments.json {
        report.write_json(file)?;
    }
    if arguments.check && report.missed() > 0 {
        bail!("{} goals are missed", report.missed());
    }
    Ok(())
}

/// One thing to be timed, by name.
type Contender<'a> = (&'static str, Box<dyn FnMut() + 'a>);

/// Microseconds per call for each contender, one figure per block.
fn compare(blocks: usize, rounds: usize, contenders: &mut [Contender<'_>]) -> Vec<Vec<f64>> {
    let mut figures = vec![Vec::with_capacity(blocks); contenders.len()];
    for _ in 0..blocks {
        for ((_, work), figures) in contenders.iter_mut().zip(&mut figures) {
            work();
            let start = Instant::now();
            (0..rounds).for_each(|_| work());
            figures.push(start.elapsed().as_nanos() as f64 / rounds as f64 / 1e3);
        }
    }
    figures
}

/// Bytes that no contender can guess.
fn random_shards(count: usize) -> Vec<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..count).map(|_| std::iter::repeat_with(&mut byte).take(LEN).collect()).collect()
}

fn slices(shards: &[Vec<u8>]) -> Vec<&[u8]> {
    shards.iter().map(Vec::as_slice).collect()
}

fn encode(blocks: usize, rounds: usize, k: usize, m: usize, report: &mut Report) -> anyhow::Result<()> {
    let shards = random_shards(k);
    let shards = slices(&shards);
    let [mut at_once, mut stepwise] = [Encoder::new(m, LEN), Encoder::new(m, LEN)];
    let [mut isal, mut isal_stepwise] = [Isal::new(k, m, LEN), Isal::new(k, m, LEN)];
    let erasure = ReedSolomon::new(k, m).context("reed-solomon-erasure has no such code")?;
    let mut simd = reed_solomon_simd::ReedSolomonEncoder::new(k, m, LEN)?;
    let mut rows = vec![vec![0; LEN]; m];
    let mut contenders: [Contender<'_>; 6] = [
        ("at once", Box::new(|| _ = at_once.encode(black_box(&shards), m))),
        ("ISA-L at once", Box::new(|| isal.encode(black_box(&shards)))),
        (
            "shard by shard",
            Box::new(|| {
                stepwise.begin(m, LEN);
                black_box(&shards).iter().enumerate().for_each(|(at, shard)| stepwise.add(at, shard));
            }),
        ),
        ("ISA-L shard by shard", Box::new(|| isal_stepwise.encode_stepwise(black_box(&shards)))),
        (
            "reed-solomon-simd",
            Box::new(|| {
                for shard in black_box(&shards) {
                    simd.add_original_shard(shard).expect("a shard of the right length");
                }
                black_box(simd.encode().expect("all shards were added"));
            }),
        ),
        (
            "reed-solomon-erasure",
            Box::new(|| erasure.encode_sep(black_box(&shards), &mut rows).expect("the right shards")),
        ),
    ];
    let figures = compare(blocks, rounds, &mut contenders);
    let names = contenders.map(|(name, _)| name);
    ensure!((0..m).all(|p| at_once.parity(p) == stepwise.parity(p)), "two ways of encoding disagree");
    ensure!((0..m).all(|p| isal.row(p) == isal_stepwise.row(p)), "two ways of ISA-L disagree");
    for (name, figures) in names.iter().zip(&figures) {
        report.note(format!("encode {k}+{m}, {name}"), Estimate::of(figures.clone()), "us");
    }
    for (ours, isal, how) in [(0, 1, "at once"), (2, 3, "shard by shard")] {
        let ratio = Estimate::ratio(&figures[ours], &figures[isal]);
        report.judge(format!("encode {k}+{m}, {how}, to ISA-L"), ratio, "x", Goal::AtMost(ENCODE_MAX));
    }
    Ok(())
}

fn decode(blocks: usize, rounds: usize, lost_count: usize, report: &mut Report) -> anyhow::Result<()> {
    let (k, m) = (SHARDS, PARITIES);
    let shards = random_shards(k);
    let shards = slices(&shards);
    let lost: Vec<u8> = (0..lost_count as u8).map(|i| i * 5 + 2).collect();
    let lost_at: Vec<usize> = lost.iter().map(|&i| i.into()).collect();

    let mut encoder = Encoder::new(m, LEN);
    encoder.encode(&shards, m);
    let mut solver = Solver::new(m, LEN);

    let mut isal = Isal::new(k, m, LEN);
    isal.encode(&shards);
    let isal_parity: Vec<Vec<u8>> = (0..m).map(|p| isal.row(p).to_vec()).collect();
    let fragments: Vec<&[u8]> = shards.iter().copied().chain(isal_parity.iter().map(Vec::as_slice)).collect();

    let simd_parity = reed_solomon_simd::encode(k, m, &shards)?;
    let mut simd = reed_solomon_simd::ReedSolomonDecoder::new(k, m, LEN)?;

    let erasure = ReedSolomon::new(k, m).context("reed-solomon-erasure has no such code")?;
    let mut rows = vec![vec![0; LEN]; m];
    erasure.encode_sep(&shards, &mut rows)?;
    let mut held: Vec<(Vec<u8>, bool)> =
        shards.iter().map(|s| s.to_vec()).chain(rows).map(|bytes| (bytes, true)).collect();

    let mut contenders: [Contender<'_>; 4] = [
        (
            "rift-fec",
            Box::new(|| {
                let parities = (0..m as u8).map(|p| (p, encoder.parity(p.into())));
                assert!(solver.begin(black_box(&lost), parities));
                for (at, shard) in (0..).zip(&shards) {
                    if !lost.contains(&at) {
                        solver.subtract(at, shard);
                    }
                }
                solver.solve();
            }),
        ),
        ("ISA-L inverting k x k", Box::new(|| isal.decode(black_box(&fragments), &lost_at))),
        (
            "reed-solomon-simd",
            Box::new(|| {
                for (at, shard) in shards.iter().enumerate().filter(|(at, _)| !lost_at.contains(at)) {
                    simd.add_original_shard(at, shard).expect("a shard of the right length");
                }
                for (at, parity) in simd_parity.iter().enumerate().take(lost_at.len()) {
                    simd.add_recovery_shard(at, parity).expect("a parity of the right length");
                }
                black_box(simd.decode().expect("enough shards"));
            }),
        ),
        (
            "reed-solomon-erasure",
            Box::new(|| {
                for &at in &lost_at {
                    held[at].1 = false;
                }
                erasure.reconstruct_data(&mut held).expect("enough shards");
            }),
        ),
    ];
    let figures = compare(blocks, rounds, &mut contenders);
    let names = contenders.map(|(name, _)| name);
    for (at, &index) in lost_at.iter().enumerate() {
        let right = shards[index];
        ensure!(solver.shard(at) == right && isal.row(at) == right && held[index].0 == right, "wrong bytes");
    }
    for (name, figures) in names.iter().zip(&figures) {
        let what = format!("decode {k}+{m}, {lost_count} lost, {name}");
        let figure = Estimate::of(figures.clone());
        if *name == names[0] {
            let goal = Goal::AtMost(DECODE_US + EACH_US * lost_count as f64);
            report.judge(what, figure, "us", goal);
        } else {
            report.note(what, figure, "us");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contender_gives_the_right_bytes() {
        let mut report = Report::new(Machine::detect());
        encode(1, 1, 20, 4, &mut report).unwrap();
        for lost in 1..=PARITIES {
            decode(1, 1, lost, &mut report).unwrap();
        }
        assert_eq!(report.rows.len(), 8 + 4 * PARITIES);
    }
}

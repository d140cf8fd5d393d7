//! The sliding code against plain elimination over all that came, from the definition.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rift_fec::{SLIDING_SPAN, SlidingEncoder, SlidingSolver, field, sliding_coefficient};

const LEN_MAX: usize = 40;

fn shard(key: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(key);
    let mut bytes = vec![0; 1 + rng.usize(..LEN_MAX)];
    rng.fill(&mut bytes);
    bytes
}

/// The parity in `row` over the shards `keys`.
fn parity(encoder: &mut SlidingEncoder, row: u8, keys: &[u64]) -> Vec<u8> {
    let shards: Vec<_> = keys.iter().map(|&key| shard(key)).collect();
    let len = shards.iter().map(Vec::len).max().unwrap_or(0);
    assert_eq!(encoder.begin(row, 1, len), 1);
    keys.iter().zip(&shards).for_each(|(&key, shard)| encoder.add(key as u8, shard));
    encoder.parity(0).to_vec()
}

/// Gives a parity to the solver and takes out what is found.
fn feed(
    solver: &mut SlidingSolver,
    known: &mut BTreeMap<u64, Vec<u8>>,
    row: u8,
    keys: &[u64],
    parity: &[u8],
) {
    assert!(solver.begin(row, parity));
    for &key in keys {
        match known.get(&key) {
            Some(shard) => solver.subtract(key, shard),
            None => assert!(solver.lack(key)),
        }
    }
    solver.finish();
    while let Some((key, bytes)) = solver.poll() {
        let expected = shard(key);
        assert_eq!(bytes[..expected.len()], expected[..], "shard {key}");
        assert!(bytes[expected.len()..].iter().all(|&b| b == 0), "padding of {key}");
        assert!(known.insert(key, expected).is_none(), "{key} was known");
    }
}

/// Which of `unknowns` the equations determine: those with a row of their own in the reduced echelon form.
fn determined(equations: &[(u8, Vec<u64>)], unknowns: &[u64]) -> Vec<u64> {
    let coefficient = |row: u8, keys: &[u64], key: u64| {
        if keys.contains(&key) { sliding_coefficient(row, key as u8) } else { 0 }
    };
    let mut matrix: Vec<Vec<u8>> = equations
        .iter()
        .map(|(row, keys)| unknowns.iter().map(|&key| coefficient(*row, keys, key)).collect())
        .collect();
    let mut rank = 0;
    for column in 0..unknowns.len() {
        let Some(at) = (rank..matrix.len()).find(|&at| matrix[at][column] != 0) else { continue };
        matrix.swap(rank, at);
        let inverse = field::inverse(matrix[rank][column]);
        matrix[rank].iter_mut().for_each(|c| *c = field::product(*c, inverse));
        let pivot = matrix[rank].clone();
        for (_, other) in matrix.iter_mut().enumerate().filter(|(at, _)| *at != rank) {
            let factor = other[column];
            other.iter_mut().zip(&pivot).for_each(|(c, &p)| *c ^= field::product(factor, p));
        }
        rank += 1;
    }
    let single = |row: &Vec<u8>| row.iter().filter(|&&c| c != 0).count() == 1;
    let place = |row: &Vec<u8>| row.iter().position(|&c| c != 0);
    let mut found: Vec<u64> =
        matrix.iter().filter(|row| single(row)).filter_map(|row| Some(unknowns[place(row)?])).collect();
    found.sort_unstable();
    found
}

#[test]
fn parities_are_those_of_the_definition() {
    let keys: Vec<u64> = (250..310).collect();
    let mut encoder = SlidingEncoder::new(4, LEN_MAX);
    for row in [0, 1, 126, 127] {
        let made = parity(&mut encoder, row, &keys);
        for (position, &byte) in made.iter().enumerate() {
            let sum = keys.iter().fold(0, |sum, &key| {
                let c = field::inverse((128 + row) ^ (key % 128) as u8);
                sum ^ field::product(c, shard(key).get(position).copied().unwrap_or(0))
            });
            assert_eq!(byte, sum);
        }
    }
}

/// The matrix of any rows and columns is a Cauchy matrix: whatever is lost of one window, as many parities give it
/// back.
#[test]
fn as_many_parities_of_one_window_give_back_any_loss() {
    let mut rng = fastrand::Rng::with_seed(5);
    let mut encoder = SlidingEncoder::new(1, LEN_MAX);
    for _ in 0..200 {
        let first = rng.u64(..1 << 40);
        let keys: Vec<u64> = (first..first + SLIDING_SPAN as u64).filter(|_| rng.u8(..4) > 0).collect();
        let lost = 1 + rng.usize(..8);
        let mut known: BTreeMap<u64, Vec<u8>> = keys.iter().map(|&key| (key, shard(key))).collect();
        (0..lost).for_each(|_| drop(known.remove(&keys[rng.usize(..keys.len())])));
        let lost = keys.len() - known.len();
        let mut solver = SlidingSolver::new(8, 8, LEN_MAX);
        let first_row = rng.u8(..128);
        for n in 0..lost as u8 {
            assert!(known.len() < keys.len(), "not before there are as many as were lost");
            let row = (first_row + n) % 128;
            let parity = parity(&mut encoder, row, &keys);
            feed(&mut solver, &mut known, row, &keys, &parity);
        }
        assert_eq!(known.len(), keys.len());
        assert!(solver.is_empty());
    }
}

proptest! {
    /// Proves that nothing which is determined stays unknown, whatever overlaps and in whatever order it comes.
    #[test]
    fn what_is_determined_is_found(
        seed: u64,
        windows in prop::collection::vec((0u64..40, 1u64..60), 1..12),
        loss in 1u8..60,
    ) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let lost: Vec<u64> = (0..100).filter(|_| rng.u8(..) < loss).collect();
        let mut known: BTreeMap<u64, Vec<u8>> =
            (0..100).filter(|key| !lost.contains(key)).map(|key| (key, shard(key))).collect();
        let mut encoder = SlidingEncoder::new(1, LEN_MAX);
        let mut solver = SlidingSolver::new(20, 100, LEN_MAX);
        let mut equations = Vec::new();
        for (row, &(first, len)) in (0u8..).zip(&windows) {
            let keys: Vec<u64> = (first..(first + len).min(100)).collect();
            let parity = parity(&mut encoder, row, &keys);
            feed(&mut solver, &mut known, row, &keys, &parity);
            equations.push((row, keys));
            // Now and then a lost one comes some other way, or there is no more hope for the oldest.
            if rng.u8(..) < 40 && let Some(&key) = lost.get(rng.usize(..lost.len().max(1))) && !known.contains_key(&key) {
                solver.learn(key, &shard(key));
                known.insert(key, shard(key));
            }
        }
        feed(&mut solver, &mut known, 99, &[0], &parity(&mut encoder, 99, &[0]));
        equations.push((99, vec![0]));
        let found = determined(&equations, &lost);
        let is_found = |key: &u64| known.contains_key(key);
        prop_assert!(found.iter().all(is_found), "{:?} of {:?}", found, lost);
        prop_assert!(solver.unknowns().all(|key| !known.contains_key(&key)));
    }

    #[test]
    fn what_is_given_up_costs_one_equation(seed: u64, rows in 2u8..10) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let keys: Vec<u64> = (0..60).collect();
        let old = rng.u64(..10);
        let young: Vec<u64> = (1..rows).map(|n| 20 + u64::from(n) * 3).collect();
        let mut known: BTreeMap<u64, Vec<u8>> = keys.iter().map(|&key| (key, shard(key))).collect();
        known.remove(&old);
        young.iter().for_each(|key| drop(known.remove(key)));
        let mut encoder = SlidingEncoder::new(1, LEN_MAX);
        let mut solver = SlidingSolver::new(16, 16, LEN_MAX);
        for row in 0..rows - 1 {
            let parity = parity(&mut encoder, row, &keys);
            feed(&mut solver, &mut known, row, &keys, &parity);
        }
        prop_assert_eq!(known.len(), 60 - usize::from(rows));
        solver.forget_before(10);
        prop_assert!(solver.poll().is_none());
        // Over those that are left, as many parities as unknowns are there with one more.
        let rest: Vec<u64> = (10..60).collect();
        let last = parity(&mut encoder, 100, &rest);
        feed(&mut solver, &mut known, 100, &rest, &last);
        // Elimination keeps all that was known about the others.
        let mut equations: Vec<_> = (0..rows - 1).map(|row| (row, keys.clone())).collect();
        equations.push((100, rest));
        let mut lost = young.clone();
        lost.insert(0, old);
        let found = determined(&equations, &lost);
        prop_assert_eq!(young.iter().filter(|key| known.contains_key(key)).count(), found.iter().filter(|key| **key != old).count());
        prop_assert!(!known.contains_key(&old) && solver.unknowns().all(|key| key != old));
    }

    #[test]
    fn nothing_that_comes_takes_more_room(seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut solver = SlidingSolver::new(3, 5, LEN_MAX);
        for _ in 0..200 {
            let parity = vec![rng.u8(..); rng.usize(..LEN_MAX + 4)];
            if solver.begin(rng.u8(..), &parity) {
                for _ in 0..rng.u8(..8) {
                    if rng.bool() {
                        solver.subtract(rng.u64(..30), &shard(rng.u64(..30)));
                    } else if !solver.lack(if rng.u8(..50) == 0 { u64::MAX } else { rng.u64(..30) }) {
                        break;
                    }
                }
                if rng.bool() {
                    solver.finish();
                }
            }
            match rng.u8(..4) {
                0 => while solver.poll().is_some() {},
                1 => solver.learn(rng.u64(..30), &shard(3)),
                2 => solver.forget_before(rng.u64(..30)),
                _ => {}
            }
            prop_assert!(solver.unknowns().count() <= 5);
            prop_assert!(solver.equations_with(|_| true) <= 3);
        }
        solver.clear();
        prop_assert!(solver.is_empty() && solver.poll().is_none());
    }
}

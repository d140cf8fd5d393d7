//! The code against a model that does everything byte by byte, from the definition.

use proptest::prelude::*;
use rift_fec::{Encoder, PARITIES_MAX, SHARDS_MAX, Solver, coefficient, field};

/// Parity by the definition.
fn model(shards: &[Vec<u8>], parity: u8) -> Vec<u8> {
    let len = shards.iter().map(Vec::len).max().unwrap_or(0);
    let at = |position: usize| {
        (0..).zip(shards).fold(0, |sum, (index, shard)| {
            sum ^ field::product(coefficient(parity, index), shard.get(position).copied().unwrap_or(0))
        })
    };
    (0..len).map(at).collect()
}

fn slices(shards: &[Vec<u8>]) -> Vec<&[u8]> {
    shards.iter().map(Vec::as_slice).collect()
}

/// Loses `lost`, solves from the parities `used`, and compares.
fn check_recovery(shards: &[Vec<u8>], encoder: &Encoder, solver: &mut Solver, lost: &[u8], used: &[u8]) {
    assert!(solver.begin(lost, used.iter().map(|&p| (p, encoder.parity(p.into())))));
    for (index, shard) in (0u8..).zip(shards) {
        if !lost.contains(&index) {
            solver.subtract(index, shard);
        }
    }
    solver.solve();
    for (at, &index) in lost.iter().enumerate() {
        let shard = &shards[usize::from(index)];
        let solved = solver.shard(at);
        assert_eq!(&solved[..shard.len()], &shard[..], "shard {index} of {lost:?} from {used:?}");
        assert!(solved[shard.len()..].iter().all(|&b| b == 0), "padding of shard {index}");
    }
    assert!(solver.shard(lost.len()).is_empty());
}

/// The positions of the bits of `mask`.
fn bits(mask: u32) -> Vec<u8> {
    (0..32).filter(|bit| mask >> bit & 1 != 0).collect()
}

#[test]
fn the_matrix_is_the_one_that_isa_l_makes() {
    // `gf_gen_cauchy1_matrix(a, 128, 64)`: row i and column j of the lower half hold 1 / (i xor j).
    for parity in 0..PARITIES_MAX as u8 {
        for shard in 0..SHARDS_MAX as u8 {
            assert_eq!(field::product(coefficient(parity, shard), (64 + parity) ^ shard), 1);
        }
    }
}

/// Every erasure pattern that the parity can repair, of every group of up to 6 shards and 4 parities.
#[test]
fn every_pattern_of_losses_of_small_groups_is_repaired() {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut encoder = Encoder::new(4, 80);
    let mut solver = Solver::new(4, 80);
    let mut patterns = 0;
    for shard_count in 1..=6u32 {
        for parity_count in 1..=4u32 {
            let shards: Vec<Vec<u8>> = (0..shard_count)
                .map(|_| {
                    let len = rng.usize(60..=80);
                    std::iter::repeat_with(|| rng.u8(..)).take(len).collect()
                })
                .collect();
            assert_eq!(encoder.encode(&slices(&shards), parity_count as usize), parity_count as usize);
            for lost in 1..1u32 << shard_count {
                for used in 1..1u32 << parity_count {
                    if lost.count_ones() == used.count_ones() {
                        check_recovery(&shards, &encoder, &mut solver, &bits(lost), &bits(used));
                        patterns += 1;
                    }
                }
            }
        }
    }
    // Sum over k of 1..=6 and m of 1..=4 of (k + m choose m) - 1.
    assert_eq!(patterns, 756);
}

proptest! {
    #[test]
    fn both_ways_of_encoding_agree_with_the_model(
        shards in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..=SHARDS_MAX),
        parities in 1usize..=12,
        order: u64,
    ) {
        let mut whole = Encoder::new(12, 300);
        let mut stepwise = Encoder::new(12, 300);
        // What an earlier, larger group left behind must not show.
        whole.encode(&[&[0xaa; 300][..]; 64], 12);
        stepwise.encode(&[&[0xaa; 300][..]; 64], 12);
        prop_assert_eq!(whole.encode(&slices(&shards), parities), parities);
        let longest = shards.iter().map(Vec::len).max().unwrap();
        prop_assert_eq!(stepwise.begin(parities, longest), parities);
        let mut shuffled: Vec<usize> = (0..shards.len()).collect();
        fastrand::Rng::with_seed(order).shuffle(&mut shuffled);
        for index in shuffled {
            stepwise.add(index, &shards[index]);
        }
        for parity in 0..parities {
            let expected = model(&shards, parity as u8);
            prop_assert_eq!(whole.parity(parity), &expected[..]);
            prop_assert_eq!(stepwise.parity(parity), &expected[..]);
        }
        prop_assert!(whole.parity(parities).is_empty());
    }

    #[test]
    fn what_was_lost_comes_back_from_any_parities(
        shards in prop::collection::vec(prop::collection::vec(any::<u8>(), 100..400), 1..=SHARDS_MAX),
        lost in 1usize..=PARITIES_MAX,
        seed: u64,
    ) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut encoder = Encoder::new(PARITIES_MAX, 400);
        let mut solver = Solver::new(PARITIES_MAX, 400);
        encoder.encode(&slices(&shards), PARITIES_MAX);
        let lost = lost.min(shards.len());
        let mut indices: Vec<u8> = (0..shards.len() as u8).collect();
        rng.shuffle(&mut indices);
        let mut parities: Vec<u8> = (0..PARITIES_MAX as u8).collect();
        rng.shuffle(&mut parities);
        check_recovery(&shards, &encoder, &mut solver, &indices[..lost], &parities[..lost]);
    }
}

#[test]
fn what_cannot_be_solved_is_refused() {
    let mut solver = Solver::new(3, 100);
    let parity = |index| (index, &[7u8; 100][..]);
    assert!(solver.begin(&[1, 2], [parity(0), parity(5)]));
    assert!(!solver.begin(&[1, 2], [parity(0)]), "too few parities");
    assert!(solver.shard(0).is_empty());
    assert!(!solver.begin(&[1, 2], [parity(3), parity(3)]), "one parity twice");
    assert!(!solver.begin(&[2, 2], [parity(0), parity(1)]), "one shard twice");
    assert!(!solver.begin(&[64], [parity(0)]), "no such shard");
    assert!(!solver.begin(&[1], [parity(64)]), "no such parity");
    assert!(!solver.begin(&[1, 2], [parity(0), (1, &[7; 99][..])]), "lengths differ");
    assert!(!solver.begin(&[1], [(0, &[7; 101][..])]), "longer than there is room for");
    assert!(!solver.begin(&[0, 1, 2, 3], (0..4).map(parity)), "more than there is room for");
    solver.subtract(1, &[1; 100]);
    solver.solve();
    assert!(solver.shard(0).is_empty());
    // Beyond what there is room for: cut or ignored.
    let mut encoder = Encoder::new(2, 4);
    assert_eq!(encoder.begin(9, 9), 2);
    encoder.add(0, &[1; 9]);
    encoder.add(64, &[1; 4]);
    assert_eq!(encoder.parity(0), [coefficient(0, 0); 4]);
    assert!(encoder.parity(2).is_empty());
    assert_eq!(encoder.encode(&[], 2), 2);
    assert!(encoder.parity(0).is_empty());
}

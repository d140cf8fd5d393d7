//! Changes to inputs.

use fastrand::Rng;

const NUMBERS: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 56,
    u64::MAX >> 1,
    u64::MAX,
];

/// Changes `input` in one to eight places. `other` is another input to take pieces from.
pub(crate) fn mutate(input: &mut Vec<u8>, other: &[u8], len_max: usize, rng: &mut Rng) {
    for _ in 0..1 << rng.u32(0..4) {
        step(input, other, rng);
    }
    input.truncate(len_max);
}

fn step(input: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    if input.is_empty() {
        input.push(rng.u8(..));
        return;
    }
    let at = rng.usize(..input.len());
    match rng.u8(..11) {
        0 => input[at] ^= 1 << rng.u8(..8),
        1 => input[at] = rng.u8(..),
        2 => input[at] = input[at].wrapping_add(rng.u8(1..9)),
        3 => input[at] = input[at].wrapping_sub(rng.u8(1..9)),
        4 => drop(input.drain(at..(at + rng.usize(1..17)).min(input.len()))),
        5 => insert(input, at, &[rng.u8(..); 8][..rng.usize(1..9)]),
        6 => {
            let piece = piece(input, rng).to_vec();
            insert(input, at, &piece);
        }
        7 => insert(input, at, piece(other, rng)),
        8 => overwrite(input, at, piece(other, rng)),
        9 => {
            let number = NUMBERS[rng.usize(..NUMBERS.len())];
            let bytes = if rng.bool() { number.to_be_bytes() } else { number.to_le_bytes() };
            let width = 1 << rng.u32(0..4);
            overwrite(input, at, if rng.bool() { &bytes[..width] } else { &bytes[8 - width..] });
        }
        _ => insert(input, at, &varint(NUMBERS[rng.usize(..NUMBERS.len())])),
    }
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    input.splice(at..at, bytes.iter().copied());
}

fn overwrite(input: &mut [u8], at: usize, bytes: &[u8]) {
    let len = bytes.len().min(input.len() - at);
    input[at..at + len].copy_from_slice(&bytes[..len]);
}

fn piece<'a>(from: &'a [u8], rng: &mut Rng) -> &'a [u8] {
    if from.is_empty() {
        return from;
    }
    let at = rng.usize(..from.len());
    &from[at..(at + rng.usize(1..65)).min(from.len())]
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_change_and_stay_within_their_limit() {
        let mut rng = Rng::with_seed(1);
        let mut changed = 0;
        for len in 0..200 {
            let mut input = vec![7; len];
            mutate(&mut input, b"another input", 100, &mut rng);
            assert!(input.len() <= 100);
            changed += u32::from(input != vec![7; len]);
        }
        assert!(changed > 190);
    }

    #[test]
    fn varints_are_those_of_protocol_buffers() {
        assert_eq!(varint(300), [0xac, 2]);
        assert_eq!(varint(0), [0]);
    }
}

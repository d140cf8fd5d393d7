//! GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1, one element at a time.
//!
//! ISA-L's field. For coefficients only: shards are multiplied by wider means.

/// The reduction polynomial without its highest term.
const POLYNOMIAL: u8 = 0x1d;
/// Elements other than 0.
const ORDER: usize = 255;

/// Powers of 2, twice over, so that a sum of two logarithms needs no reduction.
const POWERS: [u8; 2 * ORDER] = {
    let mut powers = [0; 2 * ORDER];
    let mut power = 1u8;
    let mut at = 0;
    while at < ORDER {
        powers[at] = power;
        powers[at + ORDER] = power;
        power = (power << 1) ^ if power & 0x80 != 0 { POLYNOMIAL } else { 0 };
        at += 1;
    }
    powers
};

/// Logarithms to base 2; that of 0 means nothing.
const LOGARITHMS: [u8; 256] = {
    let mut logarithms = [0; 256];
    let mut at = 0;
    while at < ORDER {
        logarithms[POWERS[at] as usize] = at as u8;
        at += 1;
    }
    logarithms
};

/// The inverse of each element; 0 for 0.
const INVERSES: [u8; 256] = {
    let mut inverses = [0; 256];
    let mut at = 1;
    while at < 256 {
        inverses[at] = POWERS[ORDER - LOGARITHMS[at] as usize];
        at += 1;
    }
    inverses
};

/// The product of two elements.
#[must_use]
#[inline]
pub const fn product(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 {
        return 0;
    }
    POWERS[LOGARITHMS[a as usize] as usize + LOGARITHMS[b as usize] as usize]
}

/// The inverse of an element; 0 for 0, which has none.
#[must_use]
#[inline]
pub const fn inverse(a: u8) -> u8 {
    INVERSES[a as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition: multiply polynomials, then take the remainder.
    fn by_hand(a: u8, b: u8) -> u8 {
        let mut wide =
            (0..8).filter(|bit| b >> bit & 1 != 0).fold(0u16, |sum, bit| sum ^ u16::from(a) << bit);
        for bit in (8..16).rev() {
            if wide >> bit & 1 != 0 {
                wide ^= 0x11d << (bit - 8);
            }
        }
        wide as u8
    }

    #[test]
    fn products_are_those_of_the_definition_and_inverses_invert() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(product(a, b), by_hand(a, b), "{a} * {b}");
            }
            assert_eq!(by_hand(a, inverse(a)), u8::from(a != 0));
        }
    }
}

//! The six digits a person carries from one screen to the other.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::CryptoError;

/// A pairing PIN: six decimal digits. Wiped on drop, shown only by `Display`, never by `Debug`, and
/// compared only by what is derived from it.
pub struct Pin(Zeroizing<[u8; Pin::DIGITS]>);

impl Pin {
    /// How many digits a PIN has.
    pub const DIGITS: usize = 6;

    const COUNT: u32 = 1_000_000;

    /// Draws a PIN, all equally likely, from the operating system.
    ///
    /// # Errors
    /// [`CryptoError::Randomness`].
    pub fn generate() -> Result<Self, CryptoError> {
        loop {
            let mut bytes = [0; 4];
            aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CryptoError::Randomness)?;
            if let Some(pin) = Self::from_uniform(u32::from_ne_bytes(bytes)) {
                return Ok(pin);
            }
        }
    }

    /// The PIN of a uniform number, `None` in the uneven rest at the top of the range, which would
    /// make some PINs likelier than others.
    fn from_uniform(number: u32) -> Option<Self> {
        if number >= u32::MAX - u32::MAX % Self::COUNT {
            return None;
        }
        let mut rest = number % Self::COUNT;
        let mut digits = Zeroizing::new([0; Self::DIGITS]);
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        Some(Self(digits))
    }

    /// The digits in ASCII.
    pub(super) fn digits(&self) -> &[u8; Self::DIGITS] {
        &self.0
    }
}

/// As it is shown to a person: `123 456`.
impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, digit) in self.0.iter().enumerate() {
            let gap = if index == Self::DIGITS / 2 { " " } else { "" };
            write!(f, "{gap}{}", char::from(*digit))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(..)")
    }
}

/// The text is not a PIN. It is not repeated here, since it may be one with a typing error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a PIN has six digits")]
pub struct ParsePinError;

/// Takes the digits as a person types them, with spaces anywhere.
impl FromStr for Pin {
    type Err = ParsePinError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut digits = Zeroizing::new([0; Self::DIGITS]);
        let mut len = 0;
        for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
            if !byte.is_ascii_digit() || len == Self::DIGITS {
                return Err(ParsePinError);
            }
            digits[len] = byte;
            len += 1;
        }
        if len == Self::DIGITS { Ok(Self(digits)) } else { Err(ParsePinError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spaces_do_not_matter_and_debug_hides_the_digits() {
        for text in ["123456", "123 456", " 1 2 3 4 5 6\n"] {
            assert_eq!(text.parse::<Pin>().unwrap().to_string(), "123 456");
        }
        assert_eq!(format!("{:?}", "123456".parse::<Pin>().unwrap()), "Pin(..)");
    }

    #[test]
    fn what_is_not_six_digits_is_no_pin() {
        for text in ["", "12345", "1234567", "12345a", "123-456", "１２３４５６"] {
            assert_eq!(text.parse::<Pin>().err(), Some(ParsePinError), "{text}");
        }
    }

    #[test]
    fn numbers_map_evenly_onto_pins() {
        assert_eq!(Pin::from_uniform(0).unwrap().digits(), b"000000");
        assert_eq!(Pin::from_uniform(999_999).unwrap().digits(), b"999999");
        assert_eq!(Pin::from_uniform(1_000_042).unwrap().digits(), b"000042");
        // 4294 whole rounds of a million; what lies above is drawn again.
        assert_eq!(Pin::from_uniform(4_293_999_999).unwrap().digits(), b"999999");
        assert!(Pin::from_uniform(4_294_000_000).is_none());
        assert!(Pin::from_uniform(u32::MAX).is_none());
    }

    #[test]
    fn generated_pins_differ_and_reach_every_first_digit() {
        let mut seen = [0; 10];
        for _ in 0..1000 {
            seen[usize::from(Pin::generate().unwrap().digits()[0] - b'0')] += 1;
        }
        // Each is expected 100 times; the chance that any is under 40 is below one in 10^9.
        assert!(seen.iter().all(|&count| count > 40), "{seen:?}");
    }

    proptest! {
        #[test]
        fn any_text_parses_or_fails_without_panic(text in "[0-9 a]{0,9}|.{0,9}") {
            let digits = text.chars().filter(|c| !c.is_ascii_whitespace());
            let is_pin = digits.clone().count() == 6 && digits.clone().all(|c| c.is_ascii_digit());
            prop_assert_eq!(text.parse::<Pin>().is_ok(), is_pin);
        }
    }
}

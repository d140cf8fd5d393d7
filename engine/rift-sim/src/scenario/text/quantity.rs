//! Single words of a scenario's text: numbers with their units, shares, sides.

use core::str::FromStr;

use rift_core::Bitrate;

use crate::world::Side;

/// What is left of a statement.
pub(super) type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

pub(super) fn word<'a>(words: &mut Words<'a>) -> Result<&'a str, String> {
    words.next().ok_or_else(|| "a word is missing at the end".into())
}

pub(super) fn number<T: FromStr>(words: &mut Words<'_>) -> Result<T, String> {
    let word = word(words)?;
    word.parse().map_err(|_| format!("`{word}` is not a number that fits"))
}

pub(super) fn side(words: &mut Words<'_>) -> Result<Side, String> {
    match word(words)? {
        "host" => Ok(Side::Host),
        "client" => Ok(Side::Client),
        other => Err(format!("`{other}` is neither `host` nor `client`")),
    }
}

/// A number directly followed by one of `units`, each with its factor.
pub(super) fn quantity(words: &mut Words<'_>, units: &[(&str, f64)]) -> Result<f64, String> {
    let word = word(words)?;
    let split = word.find(|c: char| c.is_ascii_alphabetic() || c == '%').unwrap_or(word.len());
    let (value, unit) = word.split_at(split);
    let value: f64 = value.parse().map_err(|_| format!("`{word}` does not begin with a number"))?;
    let known = units.iter().find(|&&(name, _)| name == unit).filter(|_| value.is_finite());
    known.map(|&(_, factor)| value * factor).ok_or_else(|| {
        let names: Vec<_> = units.iter().map(|&(name, _)| name).collect();
        format!("`{word}` needs a unit: {}", names.join(", "))
    })
}

pub(super) fn signed_time(words: &mut Words<'_>) -> Result<i64, String> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("min", 60e6), ("h", 3600e6)];
    quantity(words, &units).map(|us| us.round() as i64)
}

pub(super) fn time(words: &mut Words<'_>) -> Result<u64, String> {
    u64::try_from(signed_time(words)?).map_err(|_| "a time must not be negative".into())
}

pub(super) fn size(words: &mut Words<'_>) -> Result<u64, String> {
    quantity(words, &[("B", 1.0), ("kB", 1e3), ("MB", 1e6)]).map(|bytes| bytes.round() as u64)
}

pub(super) fn rate(words: &mut Words<'_>) -> Result<Bitrate, String> {
    let units = [("bit/s", 1.0), ("kbit/s", 1e3), ("Mbit/s", 1e6), ("Gbit/s", 1e9)];
    quantity(words, &units).map(|bps| Bitrate::from_bps(bps.round() as u64))
}

pub(super) fn share(words: &mut Words<'_>) -> Result<f64, String> {
    // Rounded as `percent` does, so that what is written is read back exactly.
    let share = (quantity(words, &[("%", 1.0)])? * 1e9).round() / 1e11;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a share is from 0% to 100%".into()) }
}

//! Points in time as the claims write them: RFC 3339, to the second or finer.
//!
//! Owns the calendar arithmetic (proleptic Gregorian, days from civil). Invariant: what is formatted parses back to the
//! same millisecond.

/// `2026-01-31T23:59:59Z`, with milliseconds if there are any.
#[must_use]
pub fn format_rfc3339(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (hour, minute, second, fraction) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:03}") };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Milliseconds since 1970 of an RFC 3339 time from then on, offset applied; `None` if it is none.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    if !text.is_ascii() || text.len() < 20 {
        return None;
    }
    let (clock, rest) = text.split_at(19);
    let number = |from: usize, to: usize| {
        let digits = &clock[from..to];
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten()
    };
    let bytes = clock.as_bytes();
    let separated =
        [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')].iter().all(|&(at, c)| bytes[at] == c);
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let in_range = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !separated || !in_range {
        return None;
    }
    let (fraction_ms, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let end = rest.bytes().position(|b| !b.is_ascii_digit())?;
            if !(1..=9).contains(&end) {
                return None;
            }
            (format!("{:0<3}", &rest[..end])[..3].parse().ok()?, &rest[end..])
        }
        None => (0, rest),
    };
    let offset_ms = match zone.as_bytes() {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let digit = |b: &u8| b.is_ascii_digit().then(|| i64::from(b - b'0'));
            let minutes = (digit(h1)? * 10 + digit(h2)?) * 60 + digit(m1)? * 10 + digit(m2)?;
            minutes * 60_000 * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let ms = (seconds * 1000 + fraction_ms).checked_add_signed(-offset_ms)?;
    // An offset can lead beyond the year 9999, which has no text.
    (ms < 253_402_300_800_000).then_some(ms)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let years = year - 1;
    let leap_days = years / 4 - years / 100 + years / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
    (year - 1970) * 365 + leap_days + (1..month).map(|m| days_in(year, m)).sum::<u64>() + day - 1
}

fn civil(days: u64) -> (u64, u64, u64) {
    // At most 366 days in a year, so this guess is never too late, and at most a few years early.
    let mut year = 1970 + days / 366;
    while days_from_civil(year + 1, 1, 1) <= days {
        year += 1;
    }
    let mut left = days - days_from_civil(year, 1, 1);
    let mut month = 1;
    while left >= days_in(year, month) {
        left -= days_in(year, month);
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600_000),
            ("2022-01-01T00:00:00Z", 1_640_995_200_000),
            ("2038-01-19T03:14:08.500Z", 2_147_483_648_500),
        ] {
            assert_eq!(parse_rfc3339(text), Some(ms), "{text}");
            assert_eq!(format_rfc3339(ms), text);
        }
        assert_eq!(parse_rfc3339("2022-01-01T01:30:00+01:30"), Some(1_640_995_200_000));
        assert_eq!(parse_rfc3339("2021-12-31T23:00:00-01:00"), Some(1_640_995_200_000));
    }

    #[test]
    fn what_is_no_time() {
        for text in [
            "",
            "2022-01-01",
            "2022-13-01T00:00:00Z",
            "2022-02-29T00:00:00Z",
            "2022-01-01T24:00:00Z",
            "2022-01-01 00:00:00Z",
            "2022-01-01T00:00:00",
            "2022-01-01T00:00:00.Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
            "2022-01-01T00:00:00+0100",
            "+022-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(ms in 0_u64..253_402_300_800_000) {
            prop_assert_eq!(parse_rfc3339(&format_rfc3339(ms)), Some(ms));
        }

        #[test]
        fn any_text_parses_or_not(text in "\\PC{0,40}") {
            let _ = parse_rfc3339(&text);
        }
    }
}

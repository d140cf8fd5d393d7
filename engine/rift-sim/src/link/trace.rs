//! Measured capacities, as files hold them.
//!
//! Owns the two formats that are in use and nothing about links. Invariant: a trace that was parsed offers
//! something and lasts for some time.

use core::str::FromStr;

/// Bytes that one opportunity of a mahimahi trace delivers (Netravali et al., USENIX ATC 2015).
const OPPORTUNITY_BYTES: f64 = 1500.0;
/// A longer trace is not read: more than a day of a link that is always busy.
const LINES_MAX: usize = 100_000_000;

/// A measured capacity over time, which repeats.
#[derive(Clone, Debug, PartialEq)]
pub enum Trace {
    /// Chances to deliver 1500 bytes, in milliseconds from the start, in order (mahimahi). The period is the
    /// last one and a millisecond.
    Opportunities(Vec<u64>),
    /// From when on, in microseconds, a link has so many bits per second. The last value holds for as long
    /// as the one before it.
    Rates(Vec<(u64, u64)>),
}

/// The text is not a trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct TraceError {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub fault: &'static str,
}

impl Trace {
    /// Time after which the trace begins again, in microseconds.
    #[must_use]
    pub fn period_us(&self) -> u64 {
        match self {
            Self::Opportunities(at_ms) => at_ms.last().map_or(1_000, |last| (last + 1) * 1_000),
            Self::Rates(rates) => match rates.as_slice() {
                [.., (before, _), (last, _)] => last + (last - before),
                _ => 1_000_000,
            },
        }
    }

    /// Bytes that each opportunity delivers where capacity is multiplied by `scale`.
    #[must_use]
    pub(super) fn opportunity_bytes(scale: f64) -> u32 {
        (OPPORTUNITY_BYTES * scale).round() as u32
    }
}

impl FromStr for Trace {
    type Err = TraceError;

    /// Reads either format: one number on each line is a mahimahi trace in milliseconds, two are seconds and
    /// Mbit/s.
    fn from_str(text: &str) -> Result<Self, TraceError> {
        let lines = || text.lines().enumerate().take(LINES_MAX).filter(|(_, line)| !line.trim().is_empty());
        let (_, first) = lines().next().ok_or(TraceError { line: 1, fault: "there is nothing in it" })?;
        if first.split_whitespace().count() == 1 {
            let mut at_ms: Vec<u64> = Vec::new();
            for (i, line) in lines() {
                let fault = |fault| TraceError { line: i + 1, fault };
                let ms = line.trim().parse().map_err(|_| fault("not a whole number of milliseconds"))?;
                if at_ms.last().is_some_and(|&last| ms < last) {
                    return Err(fault("earlier than the line before"));
                }
                if ms > u64::from(u32::MAX) {
                    return Err(fault("later than 49 days"));
                }
                at_ms.push(ms);
            }
            return Ok(Self::Opportunities(at_ms));
        }
        let mut rates: Vec<(u64, u64)> = Vec::new();
        for (i, line) in lines() {
            let fault = |fault| TraceError { line: i + 1, fault };
            let mut words = line.split_whitespace().map(str::parse::<f64>);
            let (Some(Ok(seconds)), Some(Ok(mbps)), None) = (words.next(), words.next(), words.next()) else {
                return Err(fault("not two numbers: seconds and Mbit/s"));
            };
            if !(0.0..4e9).contains(&seconds) || !(0.0..1e7).contains(&mbps) {
                return Err(fault("a number out of range"));
            }
            let at_us = (seconds * 1e6).round() as u64;
            if rates.last().map_or(at_us != 0, |&(last, _)| at_us <= last) {
                return Err(fault("times must begin at 0 and grow"));
            }
            rates.push((at_us, (mbps * 1e6).round() as u64));
        }
        if rates.iter().all(|&(_, bps)| bps == 0) {
            return Err(TraceError { line: 1, fault: "it never has any capacity" });
        }
        Ok(Self::Rates(rates))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read() {
        let trace: Trace = "0\n0\n3\n10\n".parse().unwrap();
        assert_eq!(trace, Trace::Opportunities(vec![0, 0, 3, 10]));
        assert_eq!(trace.period_us(), 11_000);
        let trace: Trace = "0.0\t23.2\n1.0\t7.5\n".parse().unwrap();
        assert_eq!(trace, Trace::Rates(vec![(0, 23_200_000), (1_000_000, 7_500_000)]));
        assert_eq!(trace.period_us(), 2_000_000);
    }

    #[test]
    fn what_is_no_trace_is_told_with_its_line() {
        for (text, line) in [
            ("", 1),
            ("5\n4", 2),
            ("1\nx", 2),
            ("0 5\n1", 2),
            ("0 5\n0 6", 2),
            ("1 5", 1),
            ("0 -1", 1),
            ("0 0", 1),
            ("0 inf", 1),
        ] {
            assert_eq!(text.parse::<Trace>().unwrap_err().line, line, "{text:?}");
        }
    }
}

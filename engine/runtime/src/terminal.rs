//! What a program that runs for long says to the person who started it.
//!
//! Invariant: saying it never fails. A stream goes on though nobody reads any more, or the disk that the output
//! goes to is full.

#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::Write;

/// A line on standard output.
pub fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

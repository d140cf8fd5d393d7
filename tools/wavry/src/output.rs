//! What a command says on standard output.
//!
//! Invariant: a reader that has gone away (`| head`) ends the command as quietly as it ends any other; an output that
//! cannot take the line, such as a full disk, ends it with the reason and exit code 1, never with a panic.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::process::exit;

/// Exit code of a program whose reader has gone, as shells report it: 128 and SIGPIPE.
const READER_GONE: i32 = 141;

/// As `println!`, by [`line`].
macro_rules! say {
    ($($content:tt)*) => { $crate::output::line(format_args!($($content)*)) };
}

/// Writes a line.
pub(crate) fn line(content: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let Err(error) = writeln!(out, "{content}").and_then(|()| out.flush()) else { return };
    if error.kind() == ErrorKind::BrokenPipe {
        exit(READER_GONE);
    }
    let _ = writeln!(std::io::stderr(), "wavry: cannot write to standard output: {error}");
    exit(1);
}

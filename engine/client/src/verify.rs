//! Reads the numbered strips of decoded pictures and keeps count of what was wrong with them.
//!
//! Works on what was painted for the presenter, after decoding and conversion, so that a wrong slice, a
//! torn picture or a frame out of order shows.

use std::fmt;

use wavry_platform::Bgrx;
use wavry_platform::testsource::{Code, PictureRef, Position, read_code};

use crate::config::VerifyStrips;

/// What the strips said so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StripCheck {
    strips: VerifyStrips,
    newest: Option<u32>,
    right: u64,
    unreadable: u64,
    torn: u64,
    backwards: u64,
}

/// What the strips of one picture said; `None` where one could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Strips {
    top: Option<Code>,
    bottom: Option<Code>,
}

impl StripCheck {
    pub(crate) fn new(strips: VerifyStrips) -> Self {
        Self { strips, newest: None, right: 0, unreadable: 0, torn: 0, backwards: 0 }
    }

    /// Reads the strips of a picture that is painted and may yet be shown.
    pub(crate) fn read(&self, picture: Bgrx<'_>) -> Strips {
        let picture = PictureRef::from(picture);
        let top = read_code(&picture, Position::Top);
        let bottom = match self.strips {
            VerifyStrips::Top => top,
            VerifyStrips::Both => read_code(&picture, Position::Bottom),
        };
        Strips { top, bottom }
    }

    /// Counts the strips of a picture that is shown.
    pub(crate) fn on_shown(&mut self, strips: Strips) {
        let Strips { top: Some(top), bottom: Some(bottom) } = strips else {
            self.unreadable += 1;
            return;
        };
        if top != bottom {
            self.torn += 1;
        } else if self.newest.is_some_and(|newest| top.frame < newest) {
            self.backwards += 1;
        } else {
            self.newest = Some(top.frame);
            self.right += 1;
        }
    }

    /// Whether there were pictures and all were right.
    pub(crate) fn passed(&self) -> bool {
        self.right > 0 && self.unreadable + self.torn + self.backwards == 0
    }
}

impl fmt::Display for StripCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.passed() {
            return write!(f, "every shown frame was right ({} frames)", self.right);
        }
        write!(
            f,
            "{} frames right, {} unreadable, {} torn, {} out of order",
            self.right, self.unreadable, self.torn, self.backwards
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(frame: u32) -> Option<Code> {
        Some(Code { frame, timestamp_us: u64::from(frame) })
    }

    #[test]
    fn each_fault_is_told_from_the_others() {
        let mut check = StripCheck::new(VerifyStrips::Both);
        assert!(!check.passed(), "nothing shown is nothing proved");
        for (top, bottom) in [(code(4), code(4)), (code(4), code(4)), (code(9), code(9))] {
            check.on_shown(Strips { top, bottom });
        }
        assert!(check.passed());
        for (top, bottom) in [(code(10), code(9)), (code(8), code(8)), (None, code(9)), (code(9), None)] {
            let mut faulty = check;
            faulty.on_shown(Strips { top, bottom });
            assert!(!faulty.passed(), "{top:?} {bottom:?}");
        }
    }
}

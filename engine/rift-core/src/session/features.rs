//! Which extensions a session uses (RIFT section 5, table of features).

/// A set of extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Features(u64);

impl Features {
    /// None: what published peers understand.
    pub const NONE: Self = Self(0);
    /// Slices, and which frame a frame predicts from.
    pub const SLICES: Self = Self(1);
    /// Repeated, numbered input with state.
    pub const INPUT_BATCH: Self = Self(1 << 1);
    /// Reliable control messages.
    pub const RELIABLE: Self = Self(1 << 2);
    /// Arrival times of every packet.
    pub const ARRIVAL_FEEDBACK: Self = Self(1 << 3);
    /// Renewal of keys within a session.
    pub const KEY_UPDATE: Self = Self(1 << 4);
    /// Frame acknowledgements and keyframe requests.
    pub const FRAME_ACK: Self = Self(1 << 5);
    /// Cursor shape and position apart from the picture.
    pub const CURSOR: Self = Self(1 << 6);
    /// Parity of any count with short lists of lengths.
    pub const FEC_REGULAR: Self = Self(1 << 7);
    /// Requests for another display mode.
    pub const DISPLAY_MODE: Self = Self(1 << 8);
    /// Sound other than the published format.
    pub const AUDIO_FORMAT: Self = Self(1 << 9);
    /// Mouse motion without a position.
    pub const RELATIVE_MOUSE: Self = Self(1 << 10);
    /// Parity by Reed-Solomon, over groups of a whole frame.
    pub const FEC_RS: Self = Self(1 << 11);
    /// Parity over a window of several frames.
    pub const FEC_SLIDING: Self = Self(1 << 12);
    /// All that this version understands.
    pub const ALL: Self = Self((1 << 13) - 1);

    /// From the bits on the wire; unknown ones are forgotten.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// The bits on the wire.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether all of `other` are in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What either set has.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What both sets have.
    #[must_use]
    pub const fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// This set without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_bits_are_forgotten() {
        assert_eq!(Features::from_bits(u64::MAX), Features::ALL);
        assert_eq!(Features::from_bits(1 << 40), Features::NONE);
        assert!(Features::ALL.contains(Features::RELATIVE_MOUSE));
        assert!(!Features::ALL.without(Features::CURSOR).contains(Features::CURSOR));
    }
}

//! What the relay's program counted.
//!
//! Owns the lists of reasons, in the order of `src/bpf/relay.h`, and the names by which metrics know them.

use super::layout::word;

macro_rules! reasons {
    ($(#[$what:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$what])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The value of the metric's label.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}

reasons! {
    /// Why a datagram was dropped.
    Dropped {
        /// Shorter than a header.
        Size = "size",
        /// Another protocol.
        Magic = "magic",
        /// Another version.
        Version = "version",
        /// Not well formed.
        Header = "header",
        /// Unknown type, or one that only a relay sends.
        Kind = "type",
        /// For a session that is not there, beyond the budget of those that go up.
        UnknownSession = "unknown_session",
        /// A proof of a challenge that was not given, or is too old.
        Challenge = "challenge",
        /// A lease or a probe beyond the budget of those that are answered or go up.
        AnswerLimit = "answer_limit",
        /// The MAC is wrong.
        Mac = "mac",
        /// A lease of one of the peers is over.
        Expired = "expired",
        /// Seen before.
        Replay = "replay",
        /// Too far behind to be told from one seen before.
        Old = "old",
        /// Too far ahead.
        FarAhead = "far_ahead",
        /// Above the short-term rate.
        HardLimit = "hard_limit",
        /// Above the average rate.
        SoftLimit = "soft_limit",
    }
}

reasons! {
    /// Why a datagram for the relay went up to userspace.
    Passed {
        /// A lease or a probe.
        Control = "control",
        /// For a session that is not there, within the budget.
        Absent = "absent",
        /// Userspace carries the session for now.
        Slow = "slow",
        /// A right MAC from another address.
        Address = "address",
        /// To or from somewhere that is not served, or too long for its way.
        Way = "way",
        /// Not how datagrams come.
        Unusual = "unusual",
    }
}

/// Counts since the program was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams that were sent on.
    pub forwarded: u64,
    /// Their bytes, from the relay's header on.
    pub forwarded_bytes: u64,
    /// Challenges given and probes answered.
    pub answered: u64,
    passed: [u64; Passed::ALL.len()],
    dropped: [u64; Dropped::ALL.len()],
}

impl Counters {
    /// Datagrams that went up for a reason.
    #[must_use]
    pub fn passed(&self, reason: Passed) -> u64 {
        self.passed[reason as usize]
    }

    /// Datagrams that were dropped for a reason.
    #[must_use]
    pub fn dropped(&self, reason: Dropped) -> u64 {
        self.dropped[reason as usize]
    }

    /// Of the values of all processors.
    pub(super) fn sum<'a>(processors: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut sum = Self::default();
        for bytes in processors {
            sum.forwarded += word(bytes, 0);
            sum.forwarded_bytes += word(bytes, 1);
            sum.answered += word(bytes, 2);
            let counts = sum.passed.iter_mut().chain(&mut sum.dropped);
            for (index, count) in counts.enumerate() {
                *count += word(bytes, 3 + index);
            }
        }
        sum
    }
}

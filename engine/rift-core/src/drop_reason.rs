//! Why a single datagram or message was not used.

use core::fmt;

/// Why a datagram was dropped. Cheap to copy, the label of a counter, never logged above trace level:
/// whoever sends garbage must not be able to fill a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// Fewer bytes than the header or tag needs.
    TooShort,
    /// Not RIFT.
    BadMagic,
    /// Another RIFT version.
    BadVersion,
    /// Header damaged.
    BadChecksum,
    /// Header fields that no sender produces.
    BadHeader,
    /// No session has this alias.
    UnknownAlias,
    /// The packet id was seen before.
    Replayed,
    /// The packet id lies before the replay window.
    TooOld,
    /// The seal did not open: forged, damaged, or sealed with another key.
    BadSeal,
    /// The body is not a message, or one with impossible fields.
    Malformed,
    /// The message is not one that this side takes, or not now.
    Unexpected,
    /// Media for a frame that was shown, skipped or given up.
    Stale,
    /// A copy of something that is there already.
    Duplicate,
    /// A pool sized at start is full.
    NoRoom,
    /// A handshake message that does not fit its handshake.
    BadHandshake,
    /// Too many handshakes under way, or from one place.
    RateLimited,
}

impl DropReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::TooShort,
        Self::BadMagic,
        Self::BadVersion,
        Self::BadChecksum,
        Self::BadHeader,
        Self::UnknownAlias,
        Self::Replayed,
        Self::TooOld,
        Self::BadSeal,
        Self::Malformed,
        Self::Unexpected,
        Self::Stale,
        Self::Duplicate,
        Self::NoRoom,
        Self::BadHandshake,
        Self::RateLimited,
    ];

    /// The value of the `reason` label in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::BadMagic => "bad_magic",
            Self::BadVersion => "bad_version",
            Self::BadChecksum => "bad_checksum",
            Self::BadHeader => "bad_header",
            Self::UnknownAlias => "unknown_alias",
            Self::Replayed => "replayed",
            Self::TooOld => "too_old",
            Self::BadSeal => "bad_seal",
            Self::Malformed => "malformed",
            Self::Unexpected => "unexpected",
            Self::Stale => "stale",
            Self::Duplicate => "duplicate",
            Self::NoRoom => "no_room",
            Self::BadHandshake => "bad_handshake",
            Self::RateLimited => "rate_limited",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// How many datagrams were dropped for each reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DropCounters([u64; DropReason::ALL.len()]);

impl DropCounters {
    /// Counts one drop.
    pub fn add(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// How many were dropped for `reason`.
    #[must_use]
    pub fn count(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// Every reason that occurred, with its count.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().map(|r| (r, self.count(r))).filter(|&(_, n)| n > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_label() {
        let mut counters = DropCounters::default();
        for (i, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
            counters.add(reason);
        }
        assert!(counters.iter().all(|(_, n)| n == 1));
        let mut labels: Vec<_> = DropReason::ALL.iter().map(|r| r.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), DropReason::ALL.len());
    }
}

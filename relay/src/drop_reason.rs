//! Why a datagram goes no further.
//!
//! Owns the list and the names by which metrics know them.

use rift_relay::wire::Malformed;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $label:literal,)*) => {
        /// Why a datagram was dropped. Each is a counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])* $variant,)* }

        impl DropReason {
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
    /// Shorter than 20 or longer than 1500 bytes.
    Size = "size",
    /// Another protocol.
    Magic = "magic",
    /// Another version.
    Version = "version",
    /// Not well formed.
    Header = "header",
    /// Unknown type, or one that only a relay sends.
    Kind = "type",
    /// A network that was blocked for its violations.
    Blocked = "blocked",
    /// More proofs from an address than it may send.
    AddressLimit = "address_limit",
    /// No budget left for answers to those who did not prove anything.
    AnswerLimit = "answer_limit",
    /// A FORWARD for a session that is not here.
    UnknownSession = "unknown_session",
    /// A FORWARD of a peer that has not presented.
    Unbound = "unbound",
    /// The MAC is wrong.
    Mac = "mac",
    /// A right MAC from another address: a fresh proof is asked for.
    Address = "address",
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
    /// The other peer has not presented yet.
    NoPeer = "no_peer",
    /// A challenge that this relay did not give to this address, or that is too old.
    Challenge = "challenge",
    /// A proof that was used before.
    StaleProof = "stale_proof",
    /// The threads that verify have enough to do.
    VerifyQueue = "verify_queue",
    /// No send buffer.
    NoBuffer = "no_buffer",
}

impl From<Malformed> for DropReason {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Size => Self::Size,
            Malformed::Magic => Self::Magic,
            Malformed::Version => Self::Version,
            Malformed::Header => Self::Header,
            Malformed::Kind => Self::Kind,
        }
    }
}

//! Why a session ended, and whose doing that was.

pub use crate::message::proto::CloseCode;

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// This side ended it.
    Local(CloseCode),
    /// The peer ended it and said why.
    Remote(CloseCode),
    /// Nobody answered the handshake.
    Unreachable,
    /// Nothing arrived from the peer for the time limit.
    Vanished,
    /// The peer's handshake is wrong: it is not the one that was expected, or cannot prove who it is.
    WrongPeer,
    /// The peer broke the protocol in a way that cannot be passed over.
    Protocol(Violation),
    /// The peer never acknowledged a key update, or packet ids ran out; going on would not be safe.
    KeyExhausted,
    /// This machine could not do the cryptography (no randomness).
    CryptoFailed,
}

/// How the peer broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A reliable message longer than is accepted.
    MessageTooLong,
    /// A reliable message that is not well formed.
    MalformedMessage,
    /// A key update out of turn.
    KeyUpdate,
    /// Acknowledged what was never sent.
    Acknowledgement,
    /// Nothing reliable is acknowledged any more, though packets arrive.
    Unacknowledged,
    /// A message in the wrong phase of the session.
    OutOfPhase,
}

impl CloseReason {
    /// What the peer is told.
    #[must_use]
    pub fn code(self) -> CloseCode {
        match self {
            Self::Local(code) | Self::Remote(code) => code,
            Self::Unreachable | Self::Vanished => CloseCode::TimedOut,
            Self::WrongPeer | Self::Protocol(_) => CloseCode::ProtocolError,
            Self::KeyExhausted => CloseCode::KeyExhausted,
            Self::CryptoFailed => CloseCode::DeviceFailed,
        }
    }

    /// Whether it ended as somebody wished.
    #[must_use]
    pub fn is_orderly(self) -> bool {
        let (Self::Local(code) | Self::Remote(code)) = self else { return false };
        matches!(code, CloseCode::Normal | CloseCode::ShuttingDown | CloseCode::Replaced)
    }
}

impl core::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Local(code) => write!(f, "ended here ({})", code.as_str_name()),
            Self::Remote(code) => write!(f, "ended by the peer ({})", code.as_str_name()),
            Self::Unreachable => f.write_str("no answer"),
            Self::Vanished => f.write_str("the peer vanished"),
            Self::WrongPeer => f.write_str("the peer is not who it should be"),
            Self::Protocol(violation) => write!(f, "the peer broke the protocol ({violation:?})"),
            Self::KeyExhausted => f.write_str("the session's keys are used up"),
            Self::CryptoFailed => f.write_str("cryptography failed on this machine"),
        }
    }
}

//! Names of things on the wire. Each is its own type, so that one cannot be passed for another.

use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl $name {
            /// The id that follows this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.wrapping_add(1))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id! {
    /// Number of a sealed packet in one direction of a session: from 0, shared by all channels,
    /// never repeated under one key (RIFT section 2).
    PacketId(u64)
}
id! {
    /// Number of a captured frame, from 0, in capture order.
    FrameId(u64)
}
id! {
    /// Number of a forward error correction group, from 0.
    GroupId(u64)
}
id! {
    /// By which a receiver recognises a session's transport packets; never 0 (RIFT section 2).
    Alias(u32)
}
id! {
    /// Chosen at random by the initiator, echoed by the responder; keeps concurrent and
    /// retransmitted handshakes apart (RIFT section 2).
    HandshakeId(u64)
}

//! The two datagram headers (RIFT section 2).
//!
//! Owns framing: which header a datagram carries, its checksum, its fields. Never looks at what is
//! sealed behind it. Invariant: [`Header::decode`] accepts exactly the datagrams whose `encode` gives
//! the same bytes back, and never panics.

mod checksum;
mod handshake;
mod transport;

pub use checksum::crc16_kermit;
pub use handshake::{HandshakeHeader, HandshakeKind};
pub use transport::TransportHeader;

use crate::DropReason;

/// "RI".
pub const MAGIC: u16 = 0x5249;
/// RIFT 1.
pub const VERSION: u16 = 1;
/// Length of a handshake header in bytes.
pub const HANDSHAKE_HEADER_LEN: usize = 30;
/// Length of a transport header in bytes.
pub const TRANSPORT_HEADER_LEN: usize = 18;
/// The authentication tag behind every sealed body, in bytes.
pub const TAG_LEN: usize = rift_crypto::TAG_LEN;
/// What a transport datagram holds besides its body, in bytes.
pub const TRANSPORT_OVERHEAD: usize = TRANSPORT_HEADER_LEN + TAG_LEN;
/// The size of a full datagram unless the path is known to carry more: passes every IPv4 and IPv6
/// path, with room for a relay's header (RFC 8085 section 3.2).
pub const DEFAULT_DATAGRAM_LEN: usize = 1200;
/// The largest datagram this implementation makes: an Ethernet frame less IPv6, UDP and the relay header.
pub const MAX_DATAGRAM_LEN: usize = 1424;

/// The header of a datagram, whichever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Opens a session; followed by a Noise message.
    Handshake(HandshakeHeader),
    /// Followed by a sealed body.
    Transport(TransportHeader),
}

impl Header {
    /// Reads the header at the start of `datagram`.
    ///
    /// # Errors
    /// The reason to drop the datagram silently.
    #[inline]
    pub fn decode(datagram: &[u8]) -> Result<Self, DropReason> {
        match datagram {
            [_, _, _, _, 0, 0, 0, 0, ..] if datagram.len() >= HANDSHAKE_HEADER_LEN => {
                HandshakeHeader::decode(datagram).map(Self::Handshake)
            }
            _ => TransportHeader::decode(datagram).map(Self::Transport),
        }
    }
}

/// Checks what both headers begin with.
fn check_preamble(header: &[u8]) -> Result<(), DropReason> {
    if header[..2] != MAGIC.to_be_bytes() {
        Err(DropReason::BadMagic)
    } else if header[2..4] != VERSION.to_be_bytes() {
        Err(DropReason::BadVersion)
    } else {
        Ok(())
    }
}

fn be_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be_u32(bytes: &[u8], at: usize) -> u32 {
    (u32::from(be_u16(bytes, at)) << 16) | u32::from(be_u16(bytes, at + 2))
}

fn be_u64(bytes: &[u8], at: usize) -> u64 {
    (u64::from(be_u32(bytes, at)) << 32) | u64::from(be_u32(bytes, at + 4))
}

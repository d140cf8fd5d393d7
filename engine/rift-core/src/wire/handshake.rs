//! Handshake header (RIFT section 2).
//!
//! ```text
//!  0               2               4
//! +---------------+---------------+-------------------------------+
//! | magic 5249    | version 0001  | 0                             |
//! +-------+-----------------------+-------------------------------+
//! | kind  | 0                     | handshake id ...              |
//! +-------+-----------------------+-------------------------------+
//! | ... handshake id              | packet id ...                 |
//! +-------------------------------+---------------+---------------+
//! | ... packet id                 | checksum      |
//! +-------------------------------+---------------+
//! ```
//! Bytes 4 to 19 are the published session id; the four zeros at its start tell this header from a
//! transport header. The checksum is CRC-16/KERMIT over the 28 bytes before it.

use super::{HANDSHAKE_HEADER_LEN, MAGIC, VERSION, be_u16, be_u64, check_preamble, crc16_kermit};
use crate::{DropReason, HandshakeId, PacketId};

/// What follows the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HandshakeKind {
    /// First Noise message, padded.
    Msg1 = 1,
    /// Second Noise message.
    Msg2 = 2,
    /// Third Noise message (XX only).
    Msg3 = 3,
    /// A cookie to repeat MSG1 with.
    Retry = 4,
    /// The responder does not go on; a reason follows.
    Reject = 5,
}

impl HandshakeKind {
    fn from_wire(kind: u8) -> Option<Self> {
        [Self::Msg1, Self::Msg2, Self::Msg3, Self::Retry, Self::Reject].into_iter().find(|k| *k as u8 == kind)
    }
}

/// What stands before every handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeHeader {
    /// What follows.
    pub kind: HandshakeKind,
    /// The initiator's random name for this handshake.
    pub handshake_id: HandshakeId,
    /// Counts the datagrams of this handshake in this direction, retransmissions included.
    pub packet_id: PacketId,
}

impl HandshakeHeader {
    /// The bytes of this header, checksum included.
    #[must_use]
    pub fn encode(&self) -> [u8; HANDSHAKE_HEADER_LEN] {
        let mut bytes = [0; HANDSHAKE_HEADER_LEN];
        bytes[..2].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[2..4].copy_from_slice(&VERSION.to_be_bytes());
        bytes[8] = self.kind as u8;
        bytes[12..20].copy_from_slice(&self.handshake_id.0.to_be_bytes());
        bytes[20..28].copy_from_slice(&self.packet_id.0.to_be_bytes());
        let checksum = crc16_kermit(&bytes[..28]);
        bytes[28..].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// Reads the header at the start of `datagram`.
    ///
    /// # Errors
    /// The reason to drop the datagram. Reserved bytes must be zero, so that they can mean something
    /// one day without an older peer guessing.
    pub fn decode(datagram: &[u8]) -> Result<Self, DropReason> {
        let header = datagram.get(..HANDSHAKE_HEADER_LEN).ok_or(DropReason::TooShort)?;
        check_preamble(header)?;
        if be_u16(header, 28) != crc16_kermit(&header[..28]) {
            return Err(DropReason::BadChecksum);
        }
        let kind = HandshakeKind::from_wire(header[8]).ok_or(DropReason::BadHeader)?;
        if header[4..8] != [0; 4] || header[9..12] != [0; 3] {
            return Err(DropReason::BadHeader);
        }
        Ok(Self {
            kind,
            handshake_id: HandshakeId(be_u64(header, 12)),
            packet_id: PacketId(be_u64(header, 20)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Header;
    use super::*;

    fn msg1() -> HandshakeHeader {
        HandshakeHeader {
            kind: HandshakeKind::Msg1,
            handshake_id: HandshakeId(0x1122_3344_5566_7788),
            packet_id: PacketId(1),
        }
    }

    #[test]
    fn golden_vector() {
        let bytes = msg1().encode();
        assert_eq!(bytes[..8], [0x52, 0x49, 0, 1, 0, 0, 0, 0]);
        assert_eq!(bytes[8..12], [1, 0, 0, 0]);
        assert_eq!(bytes[12..20], [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);
        assert_eq!(bytes[20..28], [0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(HandshakeHeader::decode(&bytes), Ok(msg1()));
        assert_eq!(Header::decode(&bytes), Ok(Header::Handshake(msg1())));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = msg1().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_short_datagram_with_zero_alias_is_neither() {
        let bytes = msg1().encode();
        assert!(Header::decode(&bytes[..29]).is_err());
    }

    #[test]
    fn reserved_bytes_must_be_zero() {
        let mut bytes = msg1().encode();
        bytes[9] = 1;
        let checksum = crc16_kermit(&bytes[..28]);
        bytes[28..].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(Header::decode(&bytes), Err(DropReason::BadHeader));
    }
}

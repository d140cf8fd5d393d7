//! Transport header (RIFT section 2).
//!
//! ```text
//!  0               2               4
//! +---------------+---------------+-------------------------------+
//! | magic 5249    | version 0001  | session alias (not 0)         |
//! +---------------+---------------+-------------------------------+
//! | packet id                                                     |
//! +---------------+-----------------------------------------------+
//! | checksum      | CRC-16/KERMIT over the 16 bytes before it
//! +---------------+
//! ```
//! All 18 bytes are the additional data of the seal, so that nobody on the path can change one bit.

use super::{MAGIC, TRANSPORT_HEADER_LEN, VERSION, be_u16, be_u32, be_u64, check_preamble, crc16_kermit};
use crate::{Alias, DropReason, PacketId};

/// What stands before every sealed body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportHeader {
    /// The receiver's name for the session.
    pub alias: Alias,
    /// Also the nonce of the seal.
    pub packet_id: PacketId,
}

impl TransportHeader {
    /// The bytes of this header, checksum included.
    #[must_use]
    #[inline]
    pub fn encode(&self) -> [u8; TRANSPORT_HEADER_LEN] {
        let mut bytes = [0; TRANSPORT_HEADER_LEN];
        bytes[..2].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[2..4].copy_from_slice(&VERSION.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.alias.0.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.packet_id.0.to_be_bytes());
        let checksum = crc16_kermit(&bytes[..16]);
        bytes[16..].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// Reads the header at the start of `datagram`.
    ///
    /// # Errors
    /// The reason to drop the datagram: too short, another protocol or version, damaged, alias 0.
    #[inline]
    pub fn decode(datagram: &[u8]) -> Result<Self, DropReason> {
        let header = datagram.get(..TRANSPORT_HEADER_LEN).ok_or(DropReason::TooShort)?;
        check_preamble(header)?;
        if be_u16(header, 16) != crc16_kermit(&header[..16]) {
            return Err(DropReason::BadChecksum);
        }
        let alias = Alias(be_u32(header, 4));
        if alias == Alias(0) {
            return Err(DropReason::BadHeader);
        }
        Ok(Self { alias, packet_id: PacketId(be_u64(header, 8)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_vector() {
        let header =
            TransportHeader { alias: Alias(0xdead_beef), packet_id: PacketId(0x0102_0304_0506_0708) };
        let bytes = header.encode();
        assert_eq!(bytes[..16], [0x52, 0x49, 0, 1, 0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(TransportHeader::decode(&bytes), Ok(header));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = TransportHeader { alias: Alias(77), packet_id: PacketId(1 << 40) }.encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(TransportHeader::decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn each_fault_has_its_reason() {
        let good = TransportHeader { alias: Alias(1), packet_id: PacketId(0) }.encode();
        assert_eq!(TransportHeader::decode(&good[..17]), Err(DropReason::TooShort));
        let mut magic = good;
        magic[0] = 0;
        assert_eq!(TransportHeader::decode(&magic), Err(DropReason::BadMagic));
        let mut version = good;
        version[3] = 2;
        assert_eq!(TransportHeader::decode(&version), Err(DropReason::BadVersion));
        let alias_zero = TransportHeader { alias: Alias(0), packet_id: PacketId(0) }.encode();
        assert_eq!(TransportHeader::decode(&alias_zero), Err(DropReason::BadHeader));
    }
}

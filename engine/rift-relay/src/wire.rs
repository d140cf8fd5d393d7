//! The datagrams of the relay protocol, as bytes (RELAY-1 §2).
//!
//! ```text
//!  0       1       2       3       4
//! +-------+-------+-------+-------+-------------------------------+
//! | 57    | 01    | type  | flags | session id [16] ...           |
//! +-------+-------+-------+-------+-------------------------------+
//! FORWARD continues at 20:
//! | sequence u64                  | mac u64                       | payload (at most 1400)
//! ```
//!
//! Owns offsets and sizes. Never allocates; every reader returns `None` for what is not well formed.

use std::fmt;

/// First byte of every datagram.
pub const MAGIC: u8 = 0x57;
/// Second byte.
pub const VERSION: u8 = 0x01;
/// Bytes of the common header.
pub const HEADER_LEN: usize = 20;
/// Bytes before the payload of a FORWARD.
pub const FORWARD_LEN: usize = 36;
/// Most payload bytes of a FORWARD.
pub const PAYLOAD_MAX: usize = 1400;
/// Longest datagram that a relay looks at.
pub const DATAGRAM_MAX: usize = 1500;
/// The type of a FORWARD.
pub const FORWARD: u8 = 0x10;
/// Flags bit 0: the sender's role.
pub const FLAG_ROLE: u8 = 0x01;
/// Flags bit 1 of a LEASE_CHALLENGE: the relay has no such session, so present rather than renew.
pub const FLAG_UNKNOWN: u8 = 0x02;

/// The number of a session on a relay; chosen at random by whoever signs the lease.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

impl std::str::FromStr for SessionId {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "a session id is 32 hexadecimal digits";
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(wrong);
        }
        u128::from_str_radix(text, 16).map(|n| Self(n.to_be_bytes())).map_err(|_| wrong)
    }
}

/// Which of a session's two peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// The one that shows the stream.
    Client = 0,
    /// The one that sends it.
    Host = 1,
}

impl Role {
    /// Both, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Client, Self::Host];

    /// From the wire.
    #[must_use]
    pub const fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Client),
            1 => Some(Self::Host),
            _ => None,
        }
    }

    /// The other peer.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Host,
            Self::Host => Self::Client,
        }
    }
}

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A peer shows its lease, at first without and then with a proof.
    LeasePresent = 0x01,
    /// The relay took it.
    LeaseAck = 0x02,
    /// The relay did not.
    LeaseReject = 0x03,
    /// Like a present, for a session that goes on: a newer lease, or a new address.
    LeaseRenew = 0x04,
    /// The relay wants a proof (this project's own).
    LeaseChallenge = 0x05,
    /// To the other peer.
    Forward = FORWARD,
    /// Is there a relay, and how far?
    ProbeReq = 0x20,
    /// Its answer.
    ProbeRsp = 0x21,
}

impl Kind {
    /// From the wire.
    #[must_use]
    pub const fn from_wire(byte: u8) -> Option<Self> {
        Some(match byte {
            0x01 => Self::LeasePresent,
            0x02 => Self::LeaseAck,
            0x03 => Self::LeaseReject,
            0x04 => Self::LeaseRenew,
            0x05 => Self::LeaseChallenge,
            FORWARD => Self::Forward,
            0x20 => Self::ProbeReq,
            0x21 => Self::ProbeRsp,
            _ => return None,
        })
    }
}

/// The common header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub kind: Kind,
    /// See [`FLAG_ROLE`] and [`FLAG_UNKNOWN`].
    pub flags: u8,
    /// Whose.
    pub session: SessionId,
}

/// Why bytes are no datagram of this protocol. In the order in which things are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// Shorter than a header or longer than 1500 bytes.
    Size,
    /// Does not begin with the magic.
    Magic,
    /// Another version.
    Version,
    /// Unknown flags for its type, or a body that is not well formed.
    Header,
    /// Unknown type.
    Kind,
}

impl Header {
    /// Reads the header of a whole datagram.
    ///
    /// # Errors
    /// What is wrong with it first.
    #[inline]
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let Some((header, _)) = datagram.split_first_chunk::<HEADER_LEN>() else {
            return Err(Malformed::Size);
        };
        if datagram.len() > DATAGRAM_MAX {
            return Err(Malformed::Size);
        }
        if header[0] != MAGIC {
            return Err(Malformed::Magic);
        }
        if header[1] != VERSION {
            return Err(Malformed::Version);
        }
        let kind = Kind::from_wire(header[2]).ok_or(Malformed::Kind)?;
        let flags = header[3];
        let known = match kind {
            Kind::LeaseChallenge => FLAG_UNKNOWN,
            Kind::Forward => FLAG_ROLE,
            _ => 0,
        };
        if flags & !known != 0 {
            return Err(Malformed::Header);
        }
        let mut session = SessionId::default();
        session.0.copy_from_slice(&header[4..]);
        Ok(Self { kind, flags, session })
    }

    /// Writes it to the first [`HEADER_LEN`] bytes of `out`.
    #[inline]
    pub fn encode(&self, out: &mut [u8; HEADER_LEN]) {
        out[0] = MAGIC;
        out[1] = VERSION;
        out[2] = self.kind as u8;
        out[3] = self.flags;
        out[4..].copy_from_slice(&self.session.0);
    }
}

/// What a FORWARD says before its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Whose.
    pub session: SessionId,
    /// Which peer sent it.
    pub role: Role,
    /// Counted per peer and key, from 0.
    pub sequence: u64,
    /// See [`crate::mac`].
    pub mac: u64,
    /// Bytes behind.
    pub payload_len: u16,
}

impl Forward {
    /// Reads a datagram whose header is already known to be that of a FORWARD.
    #[inline]
    #[must_use]
    pub fn decode(header: &Header, datagram: &[u8]) -> Option<Self> {
        let (head, payload) = datagram.split_first_chunk::<FORWARD_LEN>()?;
        if header.kind != Kind::Forward || payload.is_empty() || payload.len() > PAYLOAD_MAX {
            return None;
        }
        Some(Self {
            session: header.session,
            role: if header.flags & FLAG_ROLE == 0 { Role::Client } else { Role::Host },
            sequence: read_u64(head, 20),
            mac: read_u64(head, 28),
            payload_len: payload.len() as u16,
        })
    }

    /// Writes it in front of a payload.
    #[inline]
    pub fn encode(&self, out: &mut [u8; FORWARD_LEN]) {
        let header = Header { kind: Kind::Forward, flags: self.role as u8, session: self.session };
        let mut head = [0; HEADER_LEN];
        header.encode(&mut head);
        out[..HEADER_LEN].copy_from_slice(&head);
        out[20..28].copy_from_slice(&self.sequence.to_be_bytes());
        out[28..36].copy_from_slice(&self.mac.to_be_bytes());
    }
}

/// The big-endian number at `at`; 0 beyond the end.
#[inline]
pub(crate) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(payload: usize) -> Vec<u8> {
        let forward = Forward {
            session: SessionId([0xab; 16]),
            role: Role::Host,
            sequence: 0x0102_0304_0506_0708,
            mac: 0x1112_1314_1516_1718,
            payload_len: payload as u16,
        };
        let mut head = [0; FORWARD_LEN];
        forward.encode(&mut head);
        let mut bytes = head.to_vec();
        bytes.resize(FORWARD_LEN + payload, 9);
        bytes
    }

    /// Proves RELAY-WIRE-1: the layout, byte for byte.
    #[test]
    fn golden_forward() {
        let bytes = forward(1);
        assert_eq!(bytes[..4], [0x57, 0x01, 0x10, 0x01]);
        assert_eq!(bytes[4..20], [0xab; 16]);
        assert_eq!(bytes[20..28], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(bytes[28..36], [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
        let header = Header::decode(&bytes).unwrap();
        let read = Forward::decode(&header, &bytes).unwrap();
        assert_eq!((read.role, read.sequence, read.payload_len), (Role::Host, 0x0102_0304_0506_0708, 1));
    }

    /// Proves RELAY-WIRE-2, RELAY-WIRE-3, RELAY-WIRE-4: what is refused, and for what first.
    #[test]
    fn truncated_jumbo_and_foreign_datagrams_are_named() {
        let good = forward(10);
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            Header::decode(&bytes)
        };
        assert_eq!(Header::decode(&good[..19]), Err(Malformed::Size));
        assert_eq!(Header::decode(&[]), Err(Malformed::Size));
        assert_eq!(Header::decode(&[0x57; 1501]), Err(Malformed::Size));
        assert_eq!(with(0, 0x52), Err(Malformed::Magic));
        assert_eq!(with(1, 2), Err(Malformed::Version));
        assert_eq!(with(2, 0x11), Err(Malformed::Kind));
        assert_eq!(with(3, 2), Err(Malformed::Header));
        let header = Header::decode(&good).unwrap();
        assert!(Forward::decode(&header, &good[..FORWARD_LEN]).is_none(), "no payload");
        assert!(Forward::decode(&header, &good[..30]).is_none());
        assert!(Forward::decode(&header, &forward(1401)).is_none());
        assert!(Forward::decode(&header, &forward(1400)).is_some());
    }

    #[test]
    fn session_ids_are_read_and_shown() {
        let id = SessionId(std::array::from_fn(|i| i as u8));
        assert_eq!(id.to_string(), "000102030405060708090a0b0c0d0e0f");
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "00", "000102030405060708090A0B0C0D0E0F", "+00102030405060708090a0b0c0d0e0f"] {
            assert!(wrong.parse::<SessionId>().is_err(), "{wrong}");
        }
    }
}

//! Bodies of handshake datagrams, and what the Noise payloads carry for us (RIFT section 3).
//!
//! ```text
//! MSG1    pattern u8 (1 XX, 2 IK) | cookie length u8 (0 or 16) | Noise length u16 | cookie | Noise | zeros
//! MSG2    Noise message          payload: host alias u32
//! MSG3    Noise message          payload: client alias u32 | Hello      (in IK: of MSG1)
//! RETRY   cookie [16]
//! REJECT  reason u8
//! ```

use prost::Message as _;
use rift_crypto::{COOKIE_LEN, MAX_APP_LEN};

use crate::message::proto::Hello;
use crate::wire::{HANDSHAKE_HEADER_LEN, HandshakeHeader, HandshakeKind};
use crate::{Alias, DropReason, HandshakeId, PacketId};

/// The shortest datagram of a MSG1 (RIFT R-HAND-5).
pub(crate) const MSG1_DATAGRAM_LEN: usize = 1200;
/// What of a name is sent, in bytes.
const NAME_MAX: usize = 100;
/// What of a list of codecs is sent.
const CODECS_MAX: usize = 16;

/// Which Noise handshake it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Pattern {
    Xx = 1,
    Ik = 2,
}

/// Why a responder does not go on. Nothing protects it: an initiator must not believe more than that
/// this attempt is in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RejectReason {
    /// The message was not made for this host's key, or it cannot vouch for its sender.
    CannotRead = 1,
    /// None of the suites is known here.
    NoCommonSuite = 2,
}

/// The body of a MSG1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Msg1Body<'a> {
    pub(crate) pattern: Pattern,
    pub(crate) cookie: Option<[u8; COOKIE_LEN]>,
    pub(crate) noise: &'a [u8],
}

impl<'a> Msg1Body<'a> {
    /// Reads the body behind the handshake header of a MSG1 datagram.
    pub(crate) fn decode(datagram: &'a [u8]) -> Result<Self, DropReason> {
        if datagram.len() < MSG1_DATAGRAM_LEN {
            return Err(DropReason::TooShort);
        }
        let body = &datagram[HANDSHAKE_HEADER_LEN..];
        let [pattern, cookie_len, high, low, rest @ ..] = body else { return Err(DropReason::TooShort) };
        let pattern = match pattern {
            1 => Pattern::Xx,
            2 => Pattern::Ik,
            _ => return Err(DropReason::BadHandshake),
        };
        let (cookie, rest) = match usize::from(*cookie_len) {
            0 => (None, rest),
            COOKIE_LEN => {
                let (cookie, rest) = rest.split_first_chunk().ok_or(DropReason::BadHandshake)?;
                (Some(*cookie), rest)
            }
            _ => return Err(DropReason::BadHandshake),
        };
        let noise_len = usize::from(u16::from_be_bytes([*high, *low]));
        let noise = rest.get(..noise_len).ok_or(DropReason::BadHandshake)?;
        Ok(Self { pattern, cookie, noise })
    }

    /// The body, padded so that the datagram is long enough.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(MSG1_DATAGRAM_LEN - HANDSHAKE_HEADER_LEN);
        let cookie = self.cookie.as_ref().map_or(&[][..], |c| &c[..]);
        body.extend([self.pattern as u8, cookie.len() as u8]);
        body.extend((self.noise.len() as u16).to_be_bytes());
        body.extend(cookie);
        body.extend(self.noise);
        body.resize(body.len().max(MSG1_DATAGRAM_LEN - HANDSHAKE_HEADER_LEN), 0);
        body
    }
}

/// Writes a handshake datagram to the start of `out` and returns its length.
pub(crate) fn write_datagram(
    kind: HandshakeKind,
    handshake_id: HandshakeId,
    packet_id: u64,
    body: &[u8],
    out: &mut [u8],
) -> Option<usize> {
    let header = HandshakeHeader { kind, handshake_id, packet_id: PacketId(packet_id) }.encode();
    let out = out.get_mut(..header.len() + body.len())?;
    out[..header.len()].copy_from_slice(&header);
    out[header.len()..].copy_from_slice(body);
    Some(out.len())
}

/// What the client tells of itself: its alias and its Hello.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Introduction {
    pub(crate) alias: Alias,
    pub(crate) hello: Hello,
}

impl Introduction {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut app = self.alias.0.to_be_bytes().to_vec();
        app.extend(self.hello.encode_to_vec());
        debug_assert!(app.len() <= MAX_APP_LEN);
        app
    }

    pub(crate) fn decode(app: &[u8]) -> Result<Self, DropReason> {
        let (alias, hello) = decode_alias(app)?;
        let hello = Hello::decode(hello).map_err(|_| DropReason::Malformed)?;
        Ok(Self { alias, hello })
    }
}

/// Reads the alias at the start of a payload; what follows belongs to a newer version.
pub(crate) fn decode_alias(app: &[u8]) -> Result<(Alias, &[u8]), DropReason> {
    let (alias, rest) = app.split_first_chunk().ok_or(DropReason::Malformed)?;
    let alias = Alias(u32::from_be_bytes(*alias));
    if alias == Alias(0) { Err(DropReason::Malformed) } else { Ok((alias, rest)) }
}

/// Cuts what a user or a caller may have made too long, so that the payload always fits.
pub(crate) fn bounded(mut hello: Hello) -> Hello {
    while hello.client_name.len() > NAME_MAX {
        hello.client_name.pop();
    }
    hello.supported_codecs.truncate(CODECS_MAX);
    hello
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn msg1_round_trips_and_fills_its_datagram() {
        for cookie in [None, Some([7; COOKIE_LEN])] {
            for noise_len in [0, 41, 900] {
                let noise = vec![3; noise_len];
                let msg1 = Msg1Body { pattern: Pattern::Ik, cookie, noise: &noise };
                let mut datagram = [0xaa; 1500];
                let len =
                    write_datagram(HandshakeKind::Msg1, HandshakeId(4), 0, &msg1.encode(), &mut datagram);
                assert_eq!(len, Some(MSG1_DATAGRAM_LEN));
                assert_eq!(Msg1Body::decode(&datagram[..MSG1_DATAGRAM_LEN]), Ok(msg1));
            }
        }
    }

    /// Proves R-HAND-5.
    #[test]
    fn a_short_msg1_is_dropped() {
        let body = Msg1Body { pattern: Pattern::Xx, cookie: None, noise: &[1; 41] }.encode();
        let mut datagram = [0; 1500];
        let len = write_datagram(HandshakeKind::Msg1, HandshakeId(4), 0, &body, &mut datagram).unwrap();
        assert!(Msg1Body::decode(&datagram[..len]).is_ok());
        assert_eq!(Msg1Body::decode(&datagram[..len - 1]), Err(DropReason::TooShort));
    }

    #[test]
    fn the_longest_introduction_fits_its_payload() {
        let hello = bounded(Hello {
            client_name: "ü".repeat(1000),
            supported_codecs: vec![i32::MAX; 1000],
            max_fps: u32::MAX,
            input_caps: u32::MAX,
            protocol_version: u32::MAX,
            features: u64::MAX,
            pairing: true,
            ..Default::default()
        });
        let introduction = Introduction { alias: Alias(u32::MAX), hello };
        let app = introduction.encode();
        assert!(app.len() <= MAX_APP_LEN, "{}", app.len());
        assert_eq!(Introduction::decode(&app), Ok(introduction));
    }

    #[test]
    fn alias_zero_is_refused() {
        assert_eq!(Introduction::decode(&[0; 4]), Err(DropReason::Malformed));
        assert_eq!(decode_alias(&[0, 0, 1]), Err(DropReason::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..1400)) {
            let mut datagram = bytes.clone();
            datagram.resize(datagram.len().max(MSG1_DATAGRAM_LEN), 0);
            if let Ok(msg1) = Msg1Body::decode(&datagram) {
                prop_assert!(msg1.noise.len() < datagram.len());
            }
            let _ = Introduction::decode(&bytes);
        }
    }
}

//! Watches every datagram that an endpoint sends, as an observer on the path could.
//!
//! Knows the headers from the specification (RIFT-1 section 2), not from the code under test.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rift_core::Timestamp;

use super::{Rule, Violations};
use crate::source::Source;
use crate::world::Side;

const TRANSPORT_HEADER_LEN: usize = 18;
const HANDSHAKE_HEADER_LEN: usize = 30;
const TAG_LEN: usize = 16;
const MSG1: u8 = 1;
const MSG3: u8 = 3;
const MSG1_DATAGRAM_LEN_MIN: usize = 1200;
/// Ethernet less IPv6 and UDP headers and a relay's header.
const DATAGRAM_LEN_MAX: usize = 1424;
/// Datagrams searched for plaintext; afterwards one in 64.
const SEARCHED_ALL: u64 = 2_000;

/// The kinds of datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Handshake(u8),
    Transport { alias: u32, packet_id: u64 },
}

/// The observer.
#[derive(Debug, Default)]
pub struct WireWatch {
    newest: BTreeMap<(Side, u32), u64>,
    ledgers: BTreeMap<SocketAddr, Ledger>,
    seen: u64,
}

/// What passed between the host and an address.
#[derive(Debug, Default)]
struct Ledger {
    to_host: u64,
    from_host: u64,
    validated: bool,
}

impl WireWatch {
    /// `side` sends `datagram` to `to`.
    pub fn on_sent(
        &mut self,
        now: Timestamp,
        side: Side,
        to: SocketAddr,
        datagram: &[u8],
        violations: &mut Violations,
    ) {
        self.seen += 1;
        match parse(datagram) {
            Err(fault) => violations.add(now, Rule::Framing, format_args!("{side:?} sent {fault}")),
            Ok(Kind::Handshake(MSG1)) if datagram.len() < MSG1_DATAGRAM_LEN_MIN => {
                violations.add(now, Rule::Framing, format_args!("MSG1 of {} bytes", datagram.len()));
            }
            Ok(Kind::Transport { alias, packet_id }) => {
                if let Some(newest) = self.newest.insert((side, alias), packet_id)
                    && packet_id <= newest
                {
                    violations.add(
                        now,
                        Rule::NonceOnce,
                        format_args!("{side:?} sent packet id {packet_id} after {newest} to alias {alias}"),
                    );
                }
            }
            Ok(Kind::Handshake(_)) => {}
        }
        if datagram.len() > DATAGRAM_LEN_MAX {
            violations.add(now, Rule::Framing, format_args!("a datagram of {} bytes", datagram.len()));
        }
        if (self.seen < SEARCHED_ALL || self.seen.is_multiple_of(64)) && contains(datagram, Source::MARK) {
            violations.add(now, Rule::Sealed, format_args!("{side:?} sent a slice in the clear"));
        }
        if side == Side::Host {
            let ledger = self.ledgers.entry(to).or_default();
            ledger.from_host += datagram.len() as u64;
            if !ledger.validated && ledger.from_host > ledger.to_host {
                violations.add(
                    now,
                    Rule::Amplification,
                    format_args!("{} bytes to {to}, {} from it", ledger.from_host, ledger.to_host),
                );
                // Told once per address.
                ledger.validated = true;
            }
        }
    }

    /// The host was given a datagram of `len` bytes from `from` that begins with `head` (at least 32 bytes,
    /// if there are so many), and took it if `accepted`.
    pub fn on_delivered_to_host(&mut self, from: SocketAddr, head: &[u8], len: usize, accepted: bool) {
        let ledger = self.ledgers.entry(from).or_default();
        ledger.to_host += len as u64;
        if accepted {
            ledger.validated |= match head {
                [_, _, _, _, 0, 0, 0, 0, kind, ..] => match *kind {
                    MSG3 => true,
                    // With a cookie: its length stands behind the pattern.
                    MSG1 => head.get(HANDSHAKE_HEADER_LEN + 1) == Some(&16),
                    _ => false,
                },
                _ => true,
            };
        }
    }
}

fn parse(datagram: &[u8]) -> Result<Kind, &'static str> {
    let head = datagram.get(..8).ok_or("less than a header")?;
    if head[..4] != [0x52, 0x49, 0, 1] {
        return Err("something that does not begin as RIFT 1");
    }
    let (kind, header_len) = if head[4..] == [0; 4] {
        let kind = *datagram.get(8).ok_or("less than a header")?;
        (Kind::Handshake(kind), HANDSHAKE_HEADER_LEN)
    } else {
        let header = datagram.get(..TRANSPORT_HEADER_LEN).ok_or("less than a header")?;
        let alias = header[4..8].iter().fold(0, |n, &b| n << 8 | u32::from(b));
        let packet_id = header[8..16].iter().fold(0, |n, &b| n << 8 | u64::from(b));
        (Kind::Transport { alias, packet_id }, TRANSPORT_HEADER_LEN)
    };
    let header = datagram.get(..header_len).ok_or("less than a header")?;
    let (covered, checksum) = header.split_at(header_len - 2);
    if crc16(covered).to_be_bytes() != checksum {
        return Err("a wrong checksum");
    }
    match kind {
        Kind::Handshake(1..=5) => Ok(kind),
        Kind::Handshake(_) => Err("a handshake message of unknown kind"),
        Kind::Transport { .. } if datagram.len() < TRANSPORT_HEADER_LEN + TAG_LEN => Err("less than a tag"),
        Kind::Transport { .. } => Ok(kind),
    }
}

/// CRC-16/KERMIT of up to [`HANDSHAKE_HEADER_LEN`] bytes: what each contributes by its place, from tables.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().rev().zip(&CONTRIBUTIONS).fold(0, |crc, (&byte, by_value)| crc ^ by_value[usize::from(byte)])
}

/// By how many bytes follow, and by value.
static CONTRIBUTIONS: [[u16; 256]; HANDSHAKE_HEADER_LEN] = contributions();

const fn contributions() -> [[u16; 256]; HANDSHAKE_HEADER_LEN] {
    let mut tables = [[0; 256]; HANDSHAKE_HEADER_LEN];
    let mut value = 0;
    while value < 256 {
        // Bit by bit, with as many zero bytes behind it as there are places.
        let mut crc = value as u16;
        let mut place = 0;
        while place < HANDSHAKE_HEADER_LEN {
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0x8408 } else { crc >> 1 };
                bit += 1;
            }
            tables[place][value] = crc;
            place += 1;
        }
        value += 1;
    }
    tables
}

fn contains(haystack: &[u8], needle: [u8; 16]) -> bool {
    // As one number: comparing slices calls a function for each place.
    let needle = u128::from_ne_bytes(needle);
    haystack.windows(16).any(|window| window.try_into().is_ok_and(|w| u128::from_ne_bytes(w) == needle))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rift_core::wire::{HandshakeHeader, HandshakeKind, TransportHeader};
    use rift_core::{Alias, HandshakeId, PacketId};

    fn packet(alias: u32, id: u64) -> Vec<u8> {
        let mut bytes = TransportHeader { alias: Alias(alias), packet_id: PacketId(id) }.encode().to_vec();
        bytes.resize(100, 0xee);
        bytes
    }

    fn handshake(kind: HandshakeKind, len: usize) -> Vec<u8> {
        let header = HandshakeHeader { kind, handshake_id: HandshakeId(1), packet_id: PacketId(0) };
        let mut bytes = header.encode().to_vec();
        bytes.resize(len, 0);
        bytes
    }

    fn to() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 9))
    }

    fn broken(steps: impl FnOnce(&mut WireWatch, &mut Violations)) -> Vec<Rule> {
        let (mut watch, mut violations) = (WireWatch::default(), Violations::default());
        steps(&mut watch, &mut violations);
        violations.kept().iter().map(|v| v.rule).collect()
    }

    #[test]
    fn a_repeated_packet_id_is_seen() {
        let rules = broken(|watch, v| {
            for (alias, id) in [(5, 0), (5, 1), (6, 1), (5, 1)] {
                watch.on_sent(Timestamp::ZERO, Side::Client, to(), &packet(alias, id), v);
            }
        });
        assert_eq!(rules, [Rule::NonceOnce]);
    }

    /// The check value of the catalogue of parametrised CRC algorithms.
    #[test]
    fn the_checksum_is_kermit() {
        assert_eq!(crc16(b"123456789"), 0x2189);
    }

    #[test]
    fn bad_framing_is_seen() {
        let rules = broken(|watch, v| {
            let mut damaged = packet(1, 1);
            damaged[10] ^= 1;
            watch.on_sent(Timestamp::ZERO, Side::Client, to(), &damaged, v);
            watch.on_sent(Timestamp::ZERO, Side::Client, to(), &packet(1, 1)[..30], v);
            watch.on_sent(Timestamp::ZERO, Side::Client, to(), &handshake(HandshakeKind::Msg1, 1199), v);
            watch.on_sent(Timestamp::ZERO, Side::Client, to(), &handshake(HandshakeKind::Msg1, 1200), v);
        });
        assert_eq!(rules, [Rule::Framing; 3]);
    }

    #[test]
    fn plaintext_is_seen() {
        let rules = broken(|watch, v| {
            let mut bytes = packet(1, 1);
            bytes.extend_from_slice(&Source::MARK);
            watch.on_sent(Timestamp::ZERO, Side::Host, to(), &[0; 0], v);
            watch.on_delivered_to_host(to(), &[0; 32], 2_000, false);
            watch.on_sent(Timestamp::ZERO, Side::Host, to(), &bytes, v);
        });
        assert_eq!(rules, [Rule::Framing, Rule::Sealed]);
    }

    #[test]
    fn an_unvalidated_address_gets_no_more_than_it_sent() {
        let msg1 = handshake(HandshakeKind::Msg1, 1200);
        let rules = broken(|watch, v| {
            watch.on_delivered_to_host(to(), &msg1[..32], msg1.len(), true);
            for id in 0..13 {
                watch.on_sent(Timestamp::ZERO, Side::Host, to(), &packet(1, id), v);
            }
        });
        assert_eq!(rules, [Rule::Amplification]);
        let rules = broken(|watch, v| {
            watch.on_delivered_to_host(to(), &msg1[..32], msg1.len(), true);
            watch.on_delivered_to_host(to(), &packet(2, 0)[..32], 100, true);
            for id in 0..30 {
                watch.on_sent(Timestamp::ZERO, Side::Host, to(), &packet(1, id), v);
            }
        });
        assert_eq!(rules, []);
    }
}

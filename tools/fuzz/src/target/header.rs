//! Both datagram headers.

use rift_core::wire::{HandshakeHeader, HandshakeKind, Header, TransportHeader, crc16_kermit};
use rift_core::{Alias, HandshakeId, PacketId};

pub(super) fn run(data: &[u8]) {
    check(data);
    // The same bytes with the checksums made right, which mutation alone does not find.
    for covered in [16, 28] {
        let mut fixed = data.to_vec();
        if fixed.len() >= covered + 2 {
            let checksum = crc16_kermit(&fixed[..covered]).to_be_bytes();
            fixed[covered..covered + 2].copy_from_slice(&checksum);
            check(&fixed);
        }
    }
}

fn check(data: &[u8]) {
    match Header::decode(data) {
        Ok(Header::Handshake(header)) => assert_eq!(header.encode(), data[..30]),
        Ok(Header::Transport(header)) => {
            assert_ne!(header.alias, Alias(0));
            assert_eq!(header.encode(), data[..18]);
        }
        Err(_) => {}
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let handshake = |kind| {
        HandshakeHeader { kind, handshake_id: HandshakeId(77), packet_id: PacketId(1) }.encode().to_vec()
    };
    vec![
        TransportHeader { alias: Alias(7), packet_id: PacketId(1 << 33) }.encode().to_vec(),
        handshake(HandshakeKind::Msg1),
        handshake(HandshakeKind::Reject),
    ]
}

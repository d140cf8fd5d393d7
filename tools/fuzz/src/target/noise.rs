//! Handshake messages as the responder and the initiator read them.

use std::sync::LazyLock;

use rift_crypto::{
    EphemeralSecret, HandshakeError, Identity, Initiator, MAX_MESSAGE_LEN, Responder, Suite, payload,
};

/// Which reader the rest of the input is for.
const READERS: u8 = 6;

struct Peers {
    host: Identity,
    client: Identity,
}

static PEERS: LazyLock<Peers> = LazyLock::new(|| Peers { host: identity(1), client: identity(2) });

fn identity(byte: u8) -> Identity {
    Identity::from_seed([byte; 32]).expect("every seed gives an identity")
}

fn secret(byte: u8) -> EphemeralSecret {
    EphemeralSecret::from_bytes([byte; 32])
}

fn initiator(ik: bool) -> Option<Initiator> {
    let peers = &*PEERS;
    let suites = Suite::supported();
    if ik {
        let host = &peers.host;
        Initiator::ik_with(&peers.client, host.static_public(), host.wavry_id(), suites, secret(3)).ok()
    } else {
        Initiator::xx_with(&peers.client, suites, secret(3)).ok()
    }
}

fn responder(ik: bool) -> Option<Responder> {
    let host = &PEERS.host;
    if ik { Responder::ik_with(host, secret(4)).ok() } else { Responder::xx_with(host, secret(4)).ok() }
}

pub(super) fn run(data: &[u8]) {
    let Some((&reader, message)) = data.split_first() else { return };
    let ik = reader & 1 == 1;
    let mut out = [0; MAX_MESSAGE_LEN];
    match reader % READERS {
        0 | 1 => {
            let Some(mut responder) = responder(ik) else { return };
            if let Ok(msg1) = responder.read_msg1(message) {
                assert!(msg1.app.len() <= payload::MAX_APP_LEN);
                assert_eq!(msg1.peer.is_some(), ik, "only IK's first message proves anything");
                if let Some(suite) = Suite::choose(Suite::supported(), &msg1.suites) {
                    let _ = responder.write_msg2(suite, b"alias", &mut out);
                }
            }
        }
        2 | 3 => {
            let Some(mut initiator) = initiator(ik) else { return };
            let Ok(len) = initiator.write_msg1(b"hello", &mut out) else { return };
            let genuine = genuine_msg2(ik, &out[..len]);
            if let Ok(msg2) = initiator.read_msg2(message) {
                // Only the host can have made it.
                assert_eq!(msg2.peer.id, PEERS.host.wavry_id());
            } else if let Some(genuine) = genuine {
                assert!(initiator.read_msg2(&genuine).is_ok(), "a forged message spoiled the handshake");
            }
        }
        4 => {
            let Some((mut responder, mut initiator)) = responder(false).zip(initiator(false)) else { return };
            let Some(msg3) = exchange(&mut responder, &mut initiator) else { return };
            match responder.read_msg3(message) {
                Ok(read) => assert_eq!(read.peer.id, PEERS.client.wavry_id()),
                Err(HandshakeError::NotAuthentic) => {
                    assert!(responder.read_msg3(&msg3).is_ok(), "a forged message spoiled the handshake");
                }
                Err(_) => {}
            }
        }
        _ => {
            if let Ok((suites, rest)) = payload::decode_offer(message) {
                assert!(suites.as_slice().len() <= 8);
                if let Ok((_, app)) = payload::decode_proof(rest) {
                    let _ = payload::decode_app(app);
                }
            }
            if let Ok((suite, _)) = payload::decode_choice(message) {
                assert_eq!(Some(&suite.to_wire()), message.first());
            }
        }
    }
}

/// What the host would answer to `msg1`.
fn genuine_msg2(ik: bool, msg1: &[u8]) -> Option<Vec<u8>> {
    let mut responder = responder(ik)?;
    responder.read_msg1(msg1).ok()?;
    let mut out = [0; MAX_MESSAGE_LEN];
    let len = responder.write_msg2(Suite::ChaCha20Poly1305, b"alias", &mut out).ok()?;
    Some(out[..len].to_vec())
}

/// XX up to the third message, which is returned.
fn exchange(responder: &mut Responder, initiator: &mut Initiator) -> Option<Vec<u8>> {
    let mut out = [0; MAX_MESSAGE_LEN];
    let len = initiator.write_msg1(b"hello", &mut out).ok()?;
    responder.read_msg1(&out[..len]).ok()?;
    let len = responder.write_msg2(Suite::ChaCha20Poly1305, b"alias", &mut out).ok()?;
    initiator.read_msg2(&out[..len]).ok()?;
    let len = initiator.write_msg3(b"alias, hello", &mut out).ok()?;
    Some(out[..len].to_vec())
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut out = [0; MAX_MESSAGE_LEN];
    let mut seeds = vec![vec![5, 2, 2, 1, 9], vec![5, 1]];
    for ik in [false, true] {
        let Some(mut initiator) = initiator(ik) else { continue };
        let Ok(len) = initiator.write_msg1(b"hello", &mut out) else { continue };
        seeds.push([&[u8::from(ik)], &out[..len]].concat());
        if let Some(msg2) = genuine_msg2(ik, &out[..len]) {
            seeds.push([&[2 + u8::from(ik)], &msg2[..]].concat());
        }
    }
    if let Some((mut responder, mut initiator)) = responder(false).zip(initiator(false))
        && let Some(msg3) = exchange(&mut responder, &mut initiator)
    {
        seeds.push([&[4], &msg3[..]].concat());
    }
    seeds
}

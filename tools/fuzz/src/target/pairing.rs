//! Pairing messages, decoded and answered.

use rift_crypto::{EphemeralSecret, PairingClient, PairingError, PairingGate, PairingMessage, Pin, Refusal};

use super::script::{script, steps};

const HASH: [u8; 32] = [9; 32];

fn pin() -> Option<Pin> {
    "123456".parse().ok()
}

fn secret(byte: u8) -> EphemeralSecret {
    EphemeralSecret::from_bytes([byte; 32])
}

/// Somebody without the PIN talks to a host in pairing mode and to a client.
pub(super) fn run(data: &[u8]) {
    let Some(mut gate) = pin().and_then(|pin| PairingGate::open(pin).ok()) else { return };
    let mut attempt = None;
    for step in steps(data).take(8) {
        let Ok(message) = PairingMessage::decode(step) else { continue };
        assert_eq!(message.encode(), step);
        match message {
            PairingMessage::Start(start) => {
                attempt = gate.respond_with(&HASH, &start, secret(2)).ok().map(|(host, _)| host);
            }
            PairingMessage::Confirm(confirm) => {
                let Some(host) = attempt.take() else { continue };
                let before = gate.attempts_left();
                match gate.verify(host, &confirm) {
                    Ok(_) => panic!("paired without the PIN"),
                    Err(PairingError::WrongPin) => assert_eq!(gate.attempts_left() + 1, before),
                    Err(_) => assert_eq!(gate.attempts_left(), before),
                }
                assert_eq!(gate.is_open(), gate.attempts_left() > 0);
            }
            PairingMessage::Reply(reply) => {
                let Some((client, _)) =
                    pin().and_then(|pin| PairingClient::start_with(&pin, &HASH, secret(3)).ok())
                else {
                    return;
                };
                if let Ok((confirmed, _)) = client.confirm(&reply) {
                    assert!(confirmed.finish(&[0; 32]).is_err(), "a host without the PIN was believed");
                }
            }
            PairingMessage::Accept(_) | PairingMessage::Refuse(_) => {}
        }
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut start = None;
    if let Some((_, message)) = pin().and_then(|pin| PairingClient::start_with(&pin, &HASH, secret(3)).ok()) {
        start = Some(PairingMessage::Start(message).encode());
    }
    let start = start.unwrap_or_default();
    let reply =
        PairingMessage::Reply(start.get(1..34).and_then(|b| b.try_into().ok()).unwrap_or([0; 33])).encode();
    let confirm = PairingMessage::Confirm([1; 32]).encode();
    let accept = PairingMessage::Accept([1; 32]).encode();
    let refuse = PairingMessage::Refuse(Refusal::WrongPin { attempts_left: 2 }).encode();
    vec![script([&start[..], &confirm[..]]), script([&reply[..]]), script([&accept[..], &refuse[..]])]
}

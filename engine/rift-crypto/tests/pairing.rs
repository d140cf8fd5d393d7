//! Pairing: the right PIN pairs, a wrong one is noticed by both sides and counted, and nobody in
//! between gains anything.

#![allow(clippy::unwrap_used)] // helper functions here are test code too

use proptest::prelude::*;
use rift_crypto::{CONFIRM_LEN, EphemeralSecret, PairingClient, PairingError, PairingGate, Pin};

const HASH: [u8; 32] = [0x42; 32];

fn pin(digits: &str) -> Pin {
    digits.parse().unwrap()
}

fn gate(digits: &str) -> PairingGate {
    PairingGate::open(pin(digits)).unwrap()
}

/// One whole attempt. The error is the host's.
fn attempt(
    gate: &mut PairingGate,
    typed: &str,
    client_hash: [u8; 32],
    host_hash: [u8; 32],
) -> Result<(), PairingError> {
    let (client, start) = PairingClient::start(&pin(typed), &client_hash).unwrap();
    let (host, reply) = gate.respond(&host_hash, &start)?;
    let (client, confirm) = client.confirm(&reply).unwrap();
    let accept = gate.verify(host, &confirm)?;
    client.finish(&accept)
}

#[test]
fn right_pin_pairs_once_and_closes_the_gate() {
    let mut gate = gate("123456");
    assert_eq!(attempt(&mut gate, "123 456", HASH, HASH), Ok(()));
    assert!(!gate.is_open());
    assert_eq!(attempt(&mut gate, "123456", HASH, HASH), Err(PairingError::NotPairing));
}

#[test]
fn wrong_pin_is_noticed_by_the_host_before_it_proves_anything() {
    let mut gate = gate("123456");
    assert_eq!(attempt(&mut gate, "123457", HASH, HASH), Err(PairingError::WrongPin));
    assert_eq!(gate.attempts_left(), 2);
    assert_eq!(attempt(&mut gate, "123456", HASH, HASH), Ok(()), "the person may correct a typing error");
}

#[test]
fn wrong_pin_is_noticed_by_the_client_when_a_host_accepts_without_knowing_it() {
    // An impostor shows no PIN, makes one up, and accepts whatever it is sent.
    let impostor = gate("000000");
    let (client, start) = PairingClient::start(&pin("123456"), &HASH).unwrap();
    let (_, reply) = impostor.respond(&HASH, &start).unwrap();
    let (client, confirm) = client.confirm(&reply).unwrap();
    // The best it can send: a confirmation made with its own guess, or the client's own, sent back.
    let mut guessing = gate("000000");
    let (other, other_start) = PairingClient::start(&pin("000000"), &HASH).unwrap();
    let (host, other_reply) = guessing.respond(&HASH, &other_start).unwrap();
    let (_, other_confirm) = other.confirm(&other_reply).unwrap();
    let guess = guessing.verify(host, &other_confirm).unwrap();
    for accept in [guess, confirm, [0; CONFIRM_LEN]] {
        let (client, start) = PairingClient::start(&pin("123456"), &HASH).unwrap();
        let (_, reply) = impostor.respond(&HASH, &start).unwrap();
        let (client, _) = client.confirm(&reply).unwrap();
        assert_eq!(client.finish(&accept), Err(PairingError::WrongPin));
    }
    assert_eq!(client.finish(&confirm), Err(PairingError::WrongPin), "reflected confirmation");
}

#[test]
fn third_wrong_pin_ends_pairing_mode_even_for_the_right_one() {
    let mut gate = gate("123456");
    for left in [2, 1, 0] {
        assert!(gate.is_open());
        assert_eq!(attempt(&mut gate, "654321", HASH, HASH), Err(PairingError::WrongPin));
        assert_eq!(gate.attempts_left(), left);
    }
    assert!(!gate.is_open());
    assert_eq!(attempt(&mut gate, "123456", HASH, HASH), Err(PairingError::NotPairing));
}

#[test]
fn attempts_opened_in_parallel_are_counted_together() {
    let mut gate = gate("123456");
    let attempts: Vec<_> = (0..10)
        .map(|guess| {
            let (client, start) = PairingClient::start(&pin(&format!("00000{guess}")), &HASH).unwrap();
            let (host, reply) = gate.respond(&HASH, &start).unwrap();
            (host, client.confirm(&reply).unwrap().1)
        })
        .collect();
    let (right, start) = PairingClient::start(&pin("123456"), &HASH).unwrap();
    let (right_host, reply) = gate.respond(&HASH, &start).unwrap();
    let (_, right_confirm) = right.confirm(&reply).unwrap();

    let verdicts: Vec<_> =
        attempts.into_iter().map(|(host, confirm)| gate.verify(host, &confirm).unwrap_err()).collect();
    assert_eq!(verdicts[..3], [PairingError::WrongPin; 3]);
    assert_eq!(verdicts[3..], [PairingError::NotPairing; 7]);
    assert_eq!(gate.verify(right_host, &right_confirm), Err(PairingError::NotPairing));
}

/// Proves R-PAIR-1.
#[test]
fn pairing_relayed_between_two_handshakes_fails_at_both_ends() {
    // Somebody holds one channel with the client and another with the host and passes on every
    // pairing message unchanged; the PIN is right.
    let mut gate = gate("123456");
    let (client, start) = PairingClient::start(&pin("123456"), &[1; 32]).unwrap();
    let (host, reply) = gate.respond(&[2; 32], &start).unwrap();
    let (client, confirm) = client.confirm(&reply).unwrap();
    assert_eq!(gate.verify(host, &confirm), Err(PairingError::WrongPin));
    assert_eq!(gate.attempts_left(), 2);

    // Even with the host's honest confirmation for its own channel, the client refuses.
    let (own, own_start) = PairingClient::start(&pin("123456"), &[2; 32]).unwrap();
    let (host, own_reply) = gate.respond(&[2; 32], &own_start).unwrap();
    let (_, own_confirm) = own.confirm(&own_reply).unwrap();
    let accept = gate.verify(host, &own_confirm).unwrap();
    assert_eq!(client.finish(&accept), Err(PairingError::WrongPin));
}

#[test]
fn replayed_confirmation_is_a_wrong_pin() {
    let mut first = gate("123456");
    let (client, start) = PairingClient::start(&pin("123456"), &HASH).unwrap();
    let (host, reply) = first.respond(&HASH, &start).unwrap();
    let (_, confirm) = client.confirm(&reply).unwrap();
    first.verify(host, &confirm).unwrap();

    // The same PIN again, the same Start and Confirm from the recording; the Reply is fresh.
    let mut second = gate("123456");
    let (host, fresh_reply) = second.respond(&HASH, &start).unwrap();
    assert_ne!(fresh_reply, reply);
    assert_eq!(second.verify(host, &confirm), Err(PairingError::WrongPin));
}

#[test]
fn attempt_begun_under_an_earlier_pin_is_void() {
    let old = gate("111111");
    let (client, start) = PairingClient::start(&pin("111111"), &HASH).unwrap();
    let (host, reply) = old.respond(&HASH, &start).unwrap();
    let (_, confirm) = client.confirm(&reply).unwrap();
    let mut new = gate("222222");
    assert_eq!(new.verify(host, &confirm), Err(PairingError::NotPairing));
    assert_eq!(new.attempts_left(), PairingGate::ATTEMPTS);
}

#[test]
fn closing_the_gate_by_hand_ends_the_mode() {
    let mut gate = gate("123456");
    gate.close();
    assert_eq!((gate.is_open(), gate.attempts_left()), (false, 0));
    assert_eq!(attempt(&mut gate, "123456", HASH, HASH), Err(PairingError::NotPairing));
}

#[test]
fn what_is_no_exchange_is_malformed_and_costs_no_attempt() {
    let gate = gate("123456");
    let (client, start) = PairingClient::start(&pin("123456"), &HASH).unwrap();
    let mut wrong_side = start;
    wrong_side[0] = b'B';
    let mut no_point = [0; 33]; // y = 2 is on no point of the curve
    (no_point[0], no_point[1]) = (b'A', 2);
    for bytes in [wrong_side, no_point] {
        assert_eq!(gate.respond(&HASH, &bytes).err(), Some(PairingError::Malformed));
    }
    assert_eq!(gate.attempts_left(), 3);
    assert_eq!(client.confirm(&start).err(), Some(PairingError::Malformed), "own message sent back");
}

/// Proves R-PAIR-2.
#[test]
fn messages_do_not_depend_on_the_pin_in_any_visible_way() {
    // Same secret, other PIN: the message is another one, so the secret hides which PIN it was.
    let start = |digits, secret| {
        PairingClient::start_with(&pin(digits), &HASH, EphemeralSecret::from_bytes([secret; 32])).unwrap().1
    };
    assert_eq!(start("123456", 1), start("123456", 1));
    assert_ne!(start("123456", 1), start("123456", 2));
    assert_ne!(start("123456", 1), start("123457", 1));
}

/// The exchange is that of python-spake2 over Ed25519, so a change of its constants or encoding in
/// the crate below would be noticed here. Printed by `tests/golden.py`.
#[test]
fn exchange_matches_golden_messages() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let gate = gate("123456");
    let secret = |byte| EphemeralSecret::from_bytes([byte; 32]);
    let (client, start) = PairingClient::start_with(&pin("123456"), &HASH, secret(5)).unwrap();
    assert_eq!(hex(&start), "4148bedc565d2db5db0ac81de01944dd20a490923bca6497ff8f7f4ece239d9654");
    let (_, reply) = gate.respond_with(&HASH, &start, secret(6)).unwrap();
    assert_eq!(hex(&reply), "42eac43b4d34d171f1823563381ed81903e60e9e8b9a0f945694cb633def364317");
    let (_, confirm) = client.confirm(&reply).unwrap();
    assert_eq!(hex(&confirm), "d6f03fee46b376af746b3e133ccf51c2f33ccc128f1c8f9ac42a3caccef41af2");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_bytes_in_place_of_a_message_are_an_error_not_a_panic(
        side in prop_oneof![Just(b'A'), Just(b'B'), any::<u8>()],
        point: [u8; 32],
        confirm: [u8; 32],
    ) {
        let mut bytes = [side; 33];
        bytes[1..].copy_from_slice(&point);
        let mut gate = gate("123456");
        if let Ok((host, _)) = gate.respond(&HASH, &bytes) {
            prop_assert_eq!(gate.verify(host, &confirm), Err(PairingError::WrongPin));
        }
        let (client, _) = PairingClient::start(&pin("123456"), &HASH).unwrap();
        if let Ok((client, _)) = client.confirm(&bytes) {
            prop_assert_eq!(client.finish(&confirm), Err(PairingError::WrongPin));
        }
    }
}

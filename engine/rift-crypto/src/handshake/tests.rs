//! Handshake tests that need what the public interface rightly does not offer: an impostor's proof
//! and the published Noise vectors, whose prologue and payloads are not RIFT's.

use super::*;
use crate::{EphemeralSecret, Initiator, Responder};
use payload::STATIC_KEY_LABEL;

fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32]).unwrap()
}

/// `signer`'s identity vouching for `victim`'s static key: the wrong key, validly signed.
fn proof_for_other_key(signer: &Identity, victim: &Identity) -> [u8; PROOF_LEN] {
    let mut proof = [0; PROOF_LEN];
    proof[..32].copy_from_slice(&signer.wavry_id().0);
    let message = [STATIC_KEY_LABEL, &victim.static_public()].concat();
    proof[32..].copy_from_slice(&signer.sign(&message));
    proof
}

/// The victim's own proof: valid, public to everyone it ever talked to, for its own static key.
fn stolen_proof(victim: &Identity) -> [u8; PROOF_LEN] {
    *victim.proof()
}

fn unlabelled_proof(own: &Identity) -> [u8; PROOF_LEN] {
    let mut proof = *own.proof();
    proof[32..].copy_from_slice(&own.sign(&own.static_public()));
    proof
}

/// Every way to claim an identity without its private key.
fn forged_proofs(impostor: u8, victim: &Identity) -> Vec<Identity> {
    let own = identity(impostor);
    let mut flipped = *own.proof();
    flipped[95] ^= 1;
    [proof_for_other_key(&own, victim), stolen_proof(victim), unlabelled_proof(&own), flipped]
        .into_iter()
        .map(|proof| identity(impostor).with_forged_proof(proof))
        .collect()
}

#[test]
fn host_with_a_bad_static_signature_is_refused() {
    for host in forged_proofs(66, &identity(2)) {
        let mut buf = [0; MAX_MESSAGE_LEN];
        let client = identity(1);
        let mut initiator = Initiator::xx(&client, &[Suite::ChaCha20Poly1305]).unwrap();
        let mut responder = Responder::xx(&host).unwrap();
        let len = initiator.write_msg1(b"", &mut buf).unwrap();
        responder.read_msg1(&buf[..len]).unwrap();
        let len = responder.write_msg2(Suite::ChaCha20Poly1305, b"", &mut buf).unwrap();
        assert_eq!(initiator.read_msg2(&buf[..len]), Err(HandshakeError::BadSignature));
        assert_eq!(initiator.write_msg3(b"", &mut buf), Err(HandshakeError::OutOfOrder));
        assert_eq!(initiator.into_keys().err(), Some(HandshakeError::OutOfOrder));
    }
}

#[test]
fn client_with_a_bad_static_signature_is_refused_in_xx_and_ik() {
    for client in forged_proofs(66, &identity(1)) {
        let mut buf = [0; MAX_MESSAGE_LEN];
        let host = identity(2);
        let mut initiator = Initiator::xx(&client, &[Suite::ChaCha20Poly1305]).unwrap();
        let mut responder = Responder::xx(&host).unwrap();
        let len = initiator.write_msg1(b"", &mut buf).unwrap();
        responder.read_msg1(&buf[..len]).unwrap();
        let len = responder.write_msg2(Suite::ChaCha20Poly1305, b"", &mut buf).unwrap();
        initiator.read_msg2(&buf[..len]).unwrap();
        let len = initiator.write_msg3(b"", &mut buf).unwrap();
        assert_eq!(responder.read_msg3(&buf[..len]), Err(HandshakeError::BadSignature));
        assert_eq!(responder.into_keys().err(), Some(HandshakeError::OutOfOrder));

        let mut initiator =
            Initiator::ik(&client, host.static_public(), host.wavry_id(), &[Suite::ChaCha20Poly1305])
                .unwrap();
        let mut responder = Responder::ik(&host).unwrap();
        let len = initiator.write_msg1(b"", &mut buf).unwrap();
        assert_eq!(responder.read_msg1(&buf[..len]), Err(HandshakeError::BadSignature));
        assert_eq!(
            responder.write_msg2(Suite::ChaCha20Poly1305, b"", &mut buf),
            Err(HandshakeError::OutOfOrder)
        );
    }
}

#[test]
fn packet_keys_are_the_split_keys_and_not_the_handshake_hash() {
    let (client, host) = (identity(1), identity(2));
    let mut buf = [0; MAX_MESSAGE_LEN];
    let ephemeral = |byte| EphemeralSecret::from_bytes([byte; 32]);
    let mut initiator = Initiator::xx_with(&client, &[Suite::Aes256Gcm], ephemeral(3)).unwrap();
    let mut responder = Responder::xx_with(&host, ephemeral(4)).unwrap();

    // The same handshake once more, driven through snow alone, whose transport mode also uses the
    // keys of Split().
    let mut plain_initiator = builder(Pattern::Xx, ephemeral(3).into_bytes())
        .unwrap()
        .local_private_key(&**client.static_private())
        .unwrap()
        .build_initiator()
        .unwrap();
    let mut plain_buf = [0; MAX_MESSAGE_LEN];

    let len = initiator.write_msg1(b"", &mut buf).unwrap();
    let plain_len = plain_initiator.write_message(&[1, 2], &mut plain_buf).unwrap();
    assert_eq!(buf[..len], plain_buf[..plain_len]);
    responder.read_msg1(&buf[..len]).unwrap();
    let len = responder.write_msg2(Suite::Aes256Gcm, b"", &mut buf).unwrap();
    plain_initiator.read_message(&buf[..len], &mut plain_buf).unwrap();
    initiator.read_msg2(&buf[..len]).unwrap();
    let len = initiator.write_msg3(b"", &mut buf).unwrap();
    let plain_len = plain_initiator.write_message(client.proof(), &mut plain_buf).unwrap();
    assert_eq!(buf[..len], plain_buf[..plain_len]);

    let split = plain_initiator.dangerously_get_raw_split();
    let hash: [u8; 32] = plain_initiator.get_handshake_hash().try_into().unwrap();
    let established = initiator.into_keys().unwrap();
    assert_eq!(established.handshake_hash, hash);
    let header = [0; 18];
    let sealed_by = |secret| SealKey::new(Suite::Aes256Gcm, secret).seal_in_place(0, &header, &mut [0; 32]);
    let tag = established.keys.seal.seal_in_place(0, &header, &mut [0; 32]);
    assert_eq!(tag, sealed_by(split.0));
    assert_ne!(tag, sealed_by(split.1));
    assert_ne!(tag, sealed_by(hash));
}

/// A host that follows Noise to the letter and puts whatever it likes into its payload.
fn answer_with(payload: impl Fn(&Identity) -> Vec<u8>) -> Result<Msg2, HandshakeError> {
    let (client, host) = (identity(1), identity(2));
    let mut buf = [0; MAX_MESSAGE_LEN];
    let mut initiator = Initiator::xx(&client, &[Suite::ChaCha20Poly1305]).unwrap();
    let mut noise = builder(Pattern::Xx, EphemeralSecret::generate().unwrap().into_bytes())
        .unwrap()
        .local_private_key(&**host.static_private())
        .unwrap()
        .build_responder()
        .unwrap();
    let len = initiator.write_msg1(b"", &mut buf).unwrap();
    noise.read_message(&buf[..len], &mut [0; MAX_MESSAGE_LEN]).unwrap();
    let mut out = [0; 2048];
    let len = noise.write_message(&payload(&host), &mut out).unwrap();
    let result = initiator.read_msg2(&out[..len]);
    assert_eq!(result.is_ok(), initiator.write_msg3(b"", &mut buf).is_ok());
    result
}

#[test]
fn authentic_message_with_a_bad_payload_ends_the_handshake() {
    let payload =
        |suite: u8, app: usize| move |host: &Identity| [&[suite][..], host.proof(), &vec![0; app]].concat();
    assert!(answer_with(payload(1, 0)).is_ok());
    assert!(answer_with(payload(1, payload::MAX_APP_LEN)).is_ok());
    assert_eq!(answer_with(payload(2, 0)), Err(HandshakeError::SuiteNotOffered));
    assert_eq!(answer_with(payload(77, 0)), Err(HandshakeError::SuiteNotOffered));
    assert_eq!(answer_with(payload(1, payload::MAX_APP_LEN + 1)), Err(HandshakeError::Malformed));
    assert_eq!(answer_with(payload(1, 900)), Err(HandshakeError::Malformed));
    assert_eq!(answer_with(|_| Vec::new()), Err(HandshakeError::Malformed));
    assert_eq!(answer_with(|host| [&[1], &host.proof()[..95]].concat()), Err(HandshakeError::Malformed));
}

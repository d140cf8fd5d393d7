//! What attackers of every kind can do to a session: watch it, change it, repeat it, pose as one of
//! its ends. Each test is named for what it proves.

#![allow(clippy::unwrap_used)] // helper functions here are test code too

use aws_lc_rs::digest;
use aws_lc_rs::hkdf;
use blake2::{Blake2s256, Digest as _};
use proptest::prelude::*;
use rift_crypto::{
    EphemeralSecret, Established, HEADER_LEN, HandshakeError, Identity, Initiator, MAX_APP_LEN,
    MAX_MESSAGE_LEN, OpenError, OpenKey, Replay, ReplayWindow, Responder, SealKey, Suite, TAG_LEN, WavryId,
};

const BOTH: &[Suite] = &[Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
const HEADER: [u8; HEADER_LEN] = *b"RI\0\x01alias packetid";

fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32]).unwrap()
}

fn client() -> Identity {
    identity(1)
}

fn host() -> Identity {
    identity(2)
}

/// A finished session and everything that crossed the wire to make it.
struct Session {
    client: Established,
    host: Established,
    messages: Vec<Vec<u8>>,
}

fn xx(suite: Suite, apps: [&[u8]; 3]) -> Session {
    let mut buf = [0; MAX_MESSAGE_LEN];
    let mut initiator = Initiator::xx(&client(), BOTH).unwrap();
    let mut responder = Responder::xx(&host()).unwrap();
    let mut messages = Vec::new();
    let len = initiator.write_msg1(apps[0], &mut buf).unwrap();
    messages.push(buf[..len].to_vec());
    responder.read_msg1(&buf[..len]).unwrap();
    let len = responder.write_msg2(suite, apps[1], &mut buf).unwrap();
    messages.push(buf[..len].to_vec());
    initiator.read_msg2(&buf[..len]).unwrap();
    let len = initiator.write_msg3(apps[2], &mut buf).unwrap();
    messages.push(buf[..len].to_vec());
    responder.read_msg3(&buf[..len]).unwrap();
    Session { client: initiator.into_keys().unwrap(), host: responder.into_keys().unwrap(), messages }
}

fn ik(suite: Suite, apps: [&[u8]; 2]) -> Session {
    let mut buf = [0; MAX_MESSAGE_LEN];
    let mut initiator = ik_initiator(&client());
    let mut responder = Responder::ik(&host()).unwrap();
    let mut messages = Vec::new();
    let len = initiator.write_msg1(apps[0], &mut buf).unwrap();
    messages.push(buf[..len].to_vec());
    responder.read_msg1(&buf[..len]).unwrap();
    let len = responder.write_msg2(suite, apps[1], &mut buf).unwrap();
    messages.push(buf[..len].to_vec());
    initiator.read_msg2(&buf[..len]).unwrap();
    Session { client: initiator.into_keys().unwrap(), host: responder.into_keys().unwrap(), messages }
}

fn ik_initiator(identity: &Identity) -> Initiator {
    Initiator::ik(identity, host().static_public(), host().wavry_id(), BOTH).unwrap()
}

fn sealed(key: &SealKey, packet_id: u64, body: &[u8]) -> Vec<u8> {
    let mut packet = body.to_vec();
    let tag = key.seal_in_place(packet_id, &HEADER, &mut packet);
    packet.extend(tag);
    packet
}

fn opened(key: &OpenKey, packet_id: u64, packet: &[u8]) -> Result<Vec<u8>, OpenError> {
    let in_place = key.open_in_place(packet_id, &HEADER, &mut packet.to_vec()).map(|body| body.to_vec());
    let mut body = vec![0; packet.len().saturating_sub(TAG_LEN)];
    let elsewhere = key.open_into(packet_id, &HEADER, packet, &mut body).map(|()| body);
    assert_eq!(in_place, elsewhere, "both ways of opening agree");
    in_place
}

// --- The passive observer -------------------------------------------------------------------

/// Every 32-byte key that hashing the public material in any of the usual ways gives.
fn guesses(material: &[&[u8]]) -> Vec<[u8; 32]> {
    let mut inputs: Vec<Vec<u8>> = material.iter().map(|part| part.to_vec()).collect();
    inputs.push(material.concat());
    for first in material {
        for second in material {
            inputs.push([*first, *second].concat());
        }
    }
    let mut keys = Vec::new();
    for input in &inputs {
        keys.extend(input.windows(32).map(|window| <[u8; 32]>::try_from(window).unwrap()));
        for label in ["", "rift", "rift/1", "rift-key-update-v1", "c2s", "s2c", "client", "host", "key"] {
            for input in [[input.as_slice(), label.as_bytes()].concat(), [label.as_bytes(), input].concat()] {
                keys.push(Blake2s256::digest(&input).into());
                keys.push(digest::digest(&digest::SHA256, &input).as_ref().try_into().unwrap());
                let sha512 = digest::digest(&digest::SHA512, &input);
                keys.push(sha512.as_ref()[..32].try_into().unwrap());
                keys.push(sha512.as_ref()[32..].try_into().unwrap());
            }
            let mut okm = [0; 64];
            let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(input);
            prk.expand(&[label.as_bytes()], Sixty4).unwrap().fill(&mut okm).unwrap();
            keys.push(okm[..32].try_into().unwrap());
            keys.push(okm[32..].try_into().unwrap());
        }
    }
    keys
}

struct Sixty4;

impl hkdf::KeyType for Sixty4 {
    fn len(&self) -> usize {
        64
    }
}

fn find_opening_key(guesses: &[[u8; 32]], suite: Suite, packet: &[u8]) -> Option<[u8; 32]> {
    guesses.iter().copied().find(|guess| opened(&OpenKey::new(suite, *guess), 0, packet).is_ok())
}

fn assert_absent(haystack: &[u8], secret: &[u8], what: &str) {
    for window in secret.windows(8) {
        assert!(!haystack.windows(8).any(|seen| seen == window), "{what} shows on the wire");
    }
}

/// Proves R-HAND-2.
#[test]
fn passive_observer_with_the_whole_transcript_gets_neither_keys_nor_plaintext() {
    let body = b"the pixels of a private screen, and keys pressed on it";
    for (session, apps) in [
        (xx(Suite::ChaCha20Poly1305, [b"", b"alias of the host", b"Hello, I am Anna"]), 3),
        (xx(Suite::Aes256Gcm, [b"", b"alias of the host", b"Hello, I am Anna"]), 3),
        (ik(Suite::Aes256Gcm, [b"Hello, I am Anna", b"alias of the host"]), 2),
    ] {
        assert_eq!(session.messages.len(), apps);
        let suite = session.client.suite;
        let packets = [sealed(&session.client.keys.seal, 0, body), sealed(&session.host.keys.seal, 0, body)];

        // All that crossed the wire, all public keys, and even the handshake hash.
        let (client, host) = (client(), host());
        let (client_id, host_id) = (client.wavry_id().0, host.wavry_id().0);
        let (client_static, host_static) = (client.static_public(), host.static_public());
        let mut material: Vec<&[u8]> = session.messages.iter().map(Vec::as_slice).collect();
        material.extend([
            &session.client.handshake_hash[..],
            &client_id,
            &host_id,
            &client_static,
            &host_static,
            &session.messages[0][..32],
            &session.messages[1][..32],
        ]);
        let guesses = guesses(&material);
        for packet in &packets {
            assert_eq!(find_opening_key(&guesses, suite, packet), None);
        }
        // The search does find a key that is made from the hash, as it was in an older design.
        let weak: [u8; 32] =
            digest::digest(&digest::SHA256, &session.client.handshake_hash).as_ref().try_into().unwrap();
        let weak_packet = sealed(&SealKey::new(suite, weak), 0, body);
        assert_eq!(find_opening_key(&guesses, suite, &weak_packet), Some(weak));

        let wire = [session.messages.concat(), packets.concat()].concat();
        assert_absent(&wire, body, "packet body");
        assert_absent(&wire, b"alias of the host", "host's application part");
        assert_absent(&wire, b"Hello, I am Anna", "client's application part");
        assert_absent(&wire, &client_id, "client's identity");
        assert_absent(&wire, &host_id, "host's identity");
        assert_absent(&wire, &client_static, "client's static key");
        assert_absent(&wire, &host_static, "host's static key");
    }
}

#[test]
fn two_sessions_of_the_same_peers_share_no_key() {
    let (first, second) = (xx(Suite::Aes256Gcm, [b"", b"", b""]), xx(Suite::Aes256Gcm, [b"", b"", b""]));
    let packet = sealed(&first.host.keys.seal, 0, b"body");
    assert!(opened(&first.client.keys.open, 0, &packet).is_ok());
    assert_eq!(opened(&second.client.keys.open, 0, &packet), Err(OpenError::Forged));
    assert_ne!(first.client.handshake_hash, second.client.handshake_hash);
}

// --- The handshake under attack -------------------------------------------------------------

/// Proves R-HAND-3.
#[test]
fn stripping_a_suite_from_the_offer_breaks_the_handshake() {
    let mut buf = [0; MAX_MESSAGE_LEN];
    let mut initiator = Initiator::xx(&client(), BOTH).unwrap();
    let mut responder = Responder::xx(&host()).unwrap();
    let len = initiator.write_msg1(b"", &mut buf).unwrap();
    assert_eq!(buf[32..len], [2, 2, 1], "an offer of AES and ChaCha20, in the clear");

    let stripped = [&buf[..32], &[1, 1]].concat();
    let msg1 = responder.read_msg1(&stripped).unwrap();
    assert_eq!(msg1.suites.as_slice(), [Suite::ChaCha20Poly1305], "the host sees the weaker offer");
    let len = responder.write_msg2(Suite::ChaCha20Poly1305, b"", &mut buf).unwrap();
    assert_eq!(initiator.read_msg2(&buf[..len]), Err(HandshakeError::NotAuthentic));
}

#[test]
fn any_flipped_bit_of_the_first_message_breaks_the_handshake() {
    let mut original = [0; MAX_MESSAGE_LEN];
    let mut initiator = Initiator::xx(&client(), BOTH).unwrap();
    let len = initiator.write_msg1(b"app", &mut original).unwrap();
    let mut buf = [0; MAX_MESSAGE_LEN];
    for bit in 0..len * 8 {
        let mut message = original[..len].to_vec();
        message[bit / 8] ^= 1 << (bit % 8);
        let mut responder = Responder::xx(&host()).unwrap();
        let Ok(msg1) = responder.read_msg1(&message) else { continue };
        let Some(suite) = Suite::choose(BOTH, &msg1.suites) else { continue };
        // Bit 255 of an X25519 key is ignored by the key agreement, but not by the transcript.
        let Ok(len) = responder.write_msg2(suite, b"", &mut buf) else { continue };
        assert_eq!(initiator.read_msg2(&buf[..len]), Err(HandshakeError::NotAuthentic), "bit {bit}");
    }
}

/// Proves R-HAND-3.
#[test]
fn any_flipped_bit_of_the_choice_or_proof_is_refused_and_the_genuine_message_still_works() {
    let mut buf = [0; MAX_MESSAGE_LEN];
    let mut initiator = Initiator::xx(&client(), BOTH).unwrap();
    let mut responder = Responder::xx(&host()).unwrap();
    let len = initiator.write_msg1(b"", &mut buf).unwrap();
    responder.read_msg1(&buf[..len]).unwrap();
    let len = responder.write_msg2(Suite::Aes256Gcm, b"app", &mut buf).unwrap();
    let genuine = buf[..len].to_vec();
    for bit in 0..genuine.len() * 8 {
        let mut message = genuine.clone();
        message[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(initiator.read_msg2(&message), Err(HandshakeError::NotAuthentic), "bit {bit}");
    }
    assert_eq!(initiator.read_msg2(&genuine).unwrap().suite, Suite::Aes256Gcm);

    let len = initiator.write_msg3(b"Hello", &mut buf).unwrap();
    let genuine = buf[..len].to_vec();
    for bit in 0..genuine.len() * 8 {
        let mut message = genuine.clone();
        message[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(responder.read_msg3(&message), Err(HandshakeError::NotAuthentic), "bit {bit}");
    }
    assert_eq!(responder.read_msg3(&genuine).unwrap().app, b"Hello");
    let (client_side, host_side) = (initiator.into_keys().unwrap(), responder.into_keys().unwrap());
    let packet = sealed(&host_side.keys.seal, 0, b"first frame");
    assert_eq!(opened(&client_side.keys.open, 0, &packet).unwrap(), b"first frame");
}

#[test]
fn forged_answers_do_not_stop_an_ik_handshake() {
    let mut buf = [0; MAX_MESSAGE_LEN];
    let mut initiator = ik_initiator(&client());
    let mut responder = Responder::ik(&host()).unwrap();
    let len = initiator.write_msg1(b"Hello", &mut buf).unwrap();
    let genuine = buf[..len].to_vec();
    for bit in 0..genuine.len() * 8 {
        let mut message = genuine.clone();
        message[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(responder.read_msg1(&message), Err(HandshakeError::NotAuthentic), "bit {bit}");
    }
    assert_eq!(responder.read_msg1(&genuine).unwrap().peer.unwrap().id, client().wavry_id());
    let len = responder.write_msg2(Suite::Aes256Gcm, b"", &mut buf).unwrap();
    let genuine = buf[..len].to_vec();
    for bit in 0..genuine.len() * 8 {
        let mut message = genuine.clone();
        message[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(initiator.read_msg2(&message), Err(HandshakeError::NotAuthentic), "bit {bit}");
    }
    assert!(initiator.read_msg2(&genuine).is_ok());
}

#[test]
fn wrong_identity_is_refused_by_either_side() {
    let stranger = WavryId([9; 32]);
    let mut buf = [0; MAX_MESSAGE_LEN];

    let mut initiator = Initiator::xx(&client(), BOTH).unwrap().expect_peer(stranger);
    let mut responder = Responder::xx(&host()).unwrap();
    let len = initiator.write_msg1(b"", &mut buf).unwrap();
    responder.read_msg1(&buf[..len]).unwrap();
    let len = responder.write_msg2(Suite::Aes256Gcm, b"", &mut buf).unwrap();
    assert_eq!(initiator.read_msg2(&buf[..len]), Err(HandshakeError::WrongIdentity));
    assert_eq!(initiator.into_keys().err(), Some(HandshakeError::OutOfOrder));

    let mut initiator = Initiator::xx(&client(), BOTH).unwrap().expect_peer(host().wavry_id());
    let mut responder = Responder::xx(&host()).unwrap().expect_peer(stranger);
    let len = initiator.write_msg1(b"", &mut buf).unwrap();
    responder.read_msg1(&buf[..len]).unwrap();
    let len = responder.write_msg2(Suite::Aes256Gcm, b"", &mut buf).unwrap();
    initiator.read_msg2(&buf[..len]).unwrap();
    let len = initiator.write_msg3(b"", &mut buf).unwrap();
    assert_eq!(responder.read_msg3(&buf[..len]), Err(HandshakeError::WrongIdentity));

    let mut initiator = Initiator::ik(&client(), host().static_public(), stranger, BOTH).unwrap();
    let mut responder = Responder::ik(&host()).unwrap();
    let len = initiator.write_msg1(b"", &mut buf).unwrap();
    responder.read_msg1(&buf[..len]).unwrap();
    let len = responder.write_msg2(Suite::Aes256Gcm, b"", &mut buf).unwrap();
    assert_eq!(initiator.read_msg2(&buf[..len]), Err(HandshakeError::WrongIdentity));

    let mut responder = Responder::ik(&host()).unwrap().expect_peer(stranger);
    let len = ik_initiator(&client()).write_msg1(b"", &mut buf).unwrap();
    assert_eq!(responder.read_msg1(&buf[..len]), Err(HandshakeError::WrongIdentity));
}

#[test]
fn ik_to_a_host_with_another_static_key_cannot_be_read() {
    let mut buf = [0; MAX_MESSAGE_LEN];
    let len = ik_initiator(&client()).write_msg1(b"Hello", &mut buf).unwrap();
    let mut impostor = Responder::ik(&identity(3)).unwrap();
    assert_eq!(impostor.read_msg1(&buf[..len]), Err(HandshakeError::NotAuthentic));
    let mut worthless = Initiator::ik(&client(), [0; 32], host().wavry_id(), BOTH).unwrap();
    assert_eq!(worthless.write_msg1(b"", &mut buf), Err(HandshakeError::NotAuthentic));
}

#[test]
fn replayed_ik_message_leaves_the_host_with_keys_nobody_else_has() {
    let recorded = ik(Suite::Aes256Gcm, [b"Hello", b""]);
    let mut buf = [0; MAX_MESSAGE_LEN];
    let mut responder = Responder::ik(&host()).unwrap();
    let msg1 = responder.read_msg1(&recorded.messages[0]).unwrap();
    assert_eq!(msg1.peer.unwrap().id, client().wavry_id(), "the replay reads like the original");
    responder.write_msg2(Suite::Aes256Gcm, b"", &mut buf).unwrap();
    let replayed = responder.into_keys().unwrap();
    assert!(!replayed.peer_is_live, "so it must not count as the client being there");
    assert!(!recorded.host.peer_is_live);
    assert!(recorded.client.peer_is_live, "message 2 proved the host to the client");

    // Whatever the client sent in the recorded session does not open in the new one.
    for packet_id in 0..3 {
        let packet = sealed(&recorded.client.keys.seal, packet_id, b"key press");
        assert!(opened(&recorded.host.keys.open, packet_id, &packet).is_ok());
        assert_eq!(opened(&replayed.keys.open, packet_id, &packet), Err(OpenError::Forged));
    }
}

#[test]
fn the_two_patterns_do_not_read_each_other() {
    let mut buf = [0; MAX_MESSAGE_LEN];
    let len = Initiator::xx(&client(), BOTH).unwrap().write_msg1(&[0; 300], &mut buf).unwrap();
    assert_eq!(Responder::ik(&host()).unwrap().read_msg1(&buf[..len]), Err(HandshakeError::NotAuthentic));
    let len = ik_initiator(&client()).write_msg1(b"", &mut buf).unwrap();
    let mut responder = Responder::xx(&host()).unwrap();
    let mut initiator = ik_initiator(&client());
    initiator.write_msg1(b"", &mut [0; MAX_MESSAGE_LEN]).unwrap();
    if responder.read_msg1(&buf[..len]).is_ok_and(|msg1| msg1.suites.contains(Suite::Aes256Gcm)) {
        let len = responder.write_msg2(Suite::Aes256Gcm, b"", &mut buf).unwrap();
        assert_eq!(initiator.read_msg2(&buf[..len]), Err(HandshakeError::NotAuthentic));
    }
}

#[test]
fn steps_out_of_order_fail_and_change_nothing() {
    let mut buf = [0; MAX_MESSAGE_LEN];
    let mut initiator = Initiator::xx(&client(), BOTH).unwrap();
    let mut responder = Responder::xx(&host()).unwrap();
    assert_eq!(initiator.read_msg2(&[0; 200]), Err(HandshakeError::OutOfOrder));
    assert_eq!(initiator.write_msg3(b"", &mut buf), Err(HandshakeError::OutOfOrder));
    assert_eq!(responder.write_msg2(Suite::Aes256Gcm, b"", &mut buf), Err(HandshakeError::OutOfOrder));
    assert_eq!(responder.read_msg3(&[0; 200]), Err(HandshakeError::OutOfOrder));
    let len = initiator.write_msg1(b"", &mut buf).unwrap();
    assert_eq!(initiator.write_msg1(b"", &mut [0; MAX_MESSAGE_LEN]), Err(HandshakeError::OutOfOrder));
    responder.read_msg1(&buf[..len]).unwrap();
    assert_eq!(responder.read_msg1(&buf[..len]), Err(HandshakeError::OutOfOrder));
    let len = responder.write_msg2(Suite::Aes256Gcm, b"", &mut buf).unwrap();
    assert!(initiator.read_msg2(&buf[..len]).is_ok());
    assert_eq!(responder.into_keys().err(), Some(HandshakeError::OutOfOrder));
    assert_eq!(initiator.into_keys().err(), Some(HandshakeError::OutOfOrder));
}

#[test]
fn bad_arguments_are_refused_and_the_step_can_be_repeated() {
    let mut buf = [0; MAX_MESSAGE_LEN];
    assert_eq!(Initiator::xx(&client(), &[]).err(), Some(HandshakeError::NoSuites));
    let mut initiator = Initiator::xx(&client(), &[Suite::ChaCha20Poly1305]).unwrap();
    assert_eq!(initiator.write_msg1(&[0; MAX_APP_LEN + 1], &mut buf), Err(HandshakeError::AppTooLong));
    assert_eq!(initiator.write_msg1(b"abc", &mut buf[..36]), Err(HandshakeError::BufferTooSmall));
    let len = initiator.write_msg1(b"abc", &mut buf[..37]).unwrap();
    assert_eq!(len, 37, "the exact length is enough");

    let mut responder = Responder::xx(&host()).unwrap();
    responder.read_msg1(&buf[..len]).unwrap();
    assert_eq!(responder.write_msg2(Suite::Aes256Gcm, b"", &mut buf), Err(HandshakeError::SuiteNotOffered));
    let too_long = [0; MAX_APP_LEN + 1];
    assert_eq!(
        responder.write_msg2(Suite::ChaCha20Poly1305, &too_long, &mut buf),
        Err(HandshakeError::AppTooLong)
    );
    assert_eq!(
        responder.write_msg2(Suite::ChaCha20Poly1305, b"", &mut buf[..192]),
        Err(HandshakeError::BufferTooSmall)
    );
    let len = responder.write_msg2(Suite::ChaCha20Poly1305, b"", &mut buf[..193]).unwrap();
    initiator.read_msg2(&buf[..len]).unwrap();
    assert_eq!(initiator.write_msg3(b"", &mut buf[..159]), Err(HandshakeError::BufferTooSmall));
    let len = initiator.write_msg3(b"", &mut buf[..160]).unwrap();
    responder.read_msg3(&buf[..len]).unwrap();
}

#[test]
fn longest_application_parts_fit_the_largest_message() {
    let app = [0x5a; MAX_APP_LEN];
    let session = xx(Suite::Aes256Gcm, [&app, &app, &app]);
    assert!(session.messages.iter().all(|message| message.len() <= MAX_MESSAGE_LEN));
    let session = ik(Suite::Aes256Gcm, [&app, &app]);
    assert!(session.messages.iter().all(|message| message.len() <= MAX_MESSAGE_LEN));
    const { assert!(MAX_MESSAGE_LEN + 30 <= 1200, "a handshake datagram fits the smallest path") };
}

#[test]
fn same_ephemeral_keys_repeat_a_handshake_bit_for_bit() {
    let message = || {
        let mut buf = [0; MAX_MESSAGE_LEN];
        let ephemeral = EphemeralSecret::from_bytes([7; 32]);
        let len = Initiator::xx_with(&client(), BOTH, ephemeral).unwrap().write_msg1(b"", &mut buf).unwrap();
        buf[..len].to_vec()
    };
    assert_eq!(message(), message());
    let mut buf = [0; MAX_MESSAGE_LEN];
    let len = Initiator::xx(&client(), BOTH).unwrap().write_msg1(b"", &mut buf).unwrap();
    assert_ne!(buf[..len], message());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_in_place_of_a_message_are_an_error_not_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..1100),
    ) {
        let mut buf = [0; MAX_MESSAGE_LEN];
        let mut ik_responder = Responder::ik(&host()).unwrap();
        prop_assert!(ik_responder.read_msg1(&bytes).is_err());

        let mut initiator = Initiator::xx(&client(), BOTH).unwrap();
        let len = initiator.write_msg1(b"", &mut buf).unwrap();
        prop_assert!(initiator.read_msg2(&bytes).is_err());

        let mut responder = Responder::xx(&host()).unwrap();
        if let Ok(msg1) = responder.read_msg1(&bytes) {
            prop_assert!(msg1.app.len() <= MAX_APP_LEN);
        }
        let mut responder = Responder::xx(&host()).unwrap();
        responder.read_msg1(&buf[..len]).unwrap();
        let len = responder.write_msg2(Suite::Aes256Gcm, b"", &mut buf).unwrap();
        prop_assert!(responder.read_msg3(&bytes).is_err());
        prop_assert!(initiator.read_msg2(&buf[..len]).is_ok());
    }
}

// --- Packets under attack -------------------------------------------------------------------

#[test]
fn any_flipped_bit_of_header_body_or_tag_fails_to_open() {
    for suite in [Suite::ChaCha20Poly1305, Suite::Aes256Gcm] {
        let (seal, open) = (SealKey::new(suite, [1; 32]), OpenKey::new(suite, [1; 32]));
        let packet = sealed(&seal, 5, b"a video chunk");
        for bit in 0..HEADER_LEN * 8 {
            let mut header = HEADER;
            header[bit / 8] ^= 1 << (bit % 8);
            let result = open.open_in_place(5, &header, &mut packet.clone()).map(|body| body.len());
            assert_eq!(result, Err(OpenError::Forged), "{suite:?} header bit {bit}");
        }
        for bit in 0..packet.len() * 8 {
            let mut packet = packet.clone();
            packet[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opened(&open, 5, &packet), Err(OpenError::Forged), "{suite:?} bit {bit}");
        }
        for bit in 0..64 {
            assert_eq!(
                opened(&open, 5 ^ (1 << bit), &packet),
                Err(OpenError::Forged),
                "{suite:?} id bit {bit}"
            );
        }
        assert_eq!(opened(&open, 5, &packet).unwrap(), b"a video chunk");
    }
}

#[test]
fn truncated_packets_fail_to_open() {
    let (seal, open) = (SealKey::new(Suite::Aes256Gcm, [1; 32]), OpenKey::new(Suite::Aes256Gcm, [1; 32]));
    let packet = sealed(&seal, 5, b"a video chunk");
    for len in 0..packet.len() {
        let expected = if len < TAG_LEN { OpenError::TooShort } else { OpenError::Forged };
        assert_eq!(opened(&open, 5, &packet[..len]), Err(expected), "{len} bytes");
    }
    assert_eq!(opened(&open, 6, &sealed(&seal, 6, b"")).unwrap(), b"", "an empty body is a packet");
}

#[test]
fn reflected_packet_does_not_open_at_its_sender() {
    for session in [xx(Suite::Aes256Gcm, [b"", b"", b""]), ik(Suite::ChaCha20Poly1305, [b"", b""])] {
        for (sender, receiver) in [(&session.client, &session.host), (&session.host, &session.client)] {
            let packet = sealed(&sender.keys.seal, 0, b"own words");
            assert_eq!(opened(&sender.keys.open, 0, &packet), Err(OpenError::Forged));
            assert_eq!(opened(&receiver.keys.open, 0, &packet).unwrap(), b"own words");
        }
    }
}

#[test]
fn replayed_packet_opens_but_the_window_refuses_it_first() {
    let session = xx(Suite::Aes256Gcm, [b"", b"", b""]);
    let mut window = ReplayWindow::new();
    let packet = sealed(&session.client.keys.seal, 41, b"key press");
    assert_eq!(window.check(41), Ok(()));
    assert!(opened(&session.host.keys.open, 41, &packet).is_ok());
    window.mark(41);
    assert!(opened(&session.host.keys.open, 41, &packet).is_ok(), "the cipher alone does not notice");
    assert_eq!(window.check(41), Err(Replay::Duplicate));
}

#[test]
fn keys_are_renewed_in_both_directions_and_generations_do_not_mix() {
    for suite in [Suite::ChaCha20Poly1305, Suite::Aes256Gcm] {
        let session = xx(suite, [b"", b"", b""]);
        for (sender, receiver) in [(session.client, session.host)] {
            for (mut seal, mut open) in
                [(sender.keys.seal, receiver.keys.open), (receiver.keys.seal, sender.keys.open)]
            {
                assert_eq!(seal.suite(), suite);
                for generation in 0..5 {
                    let packet_id = 1000 + generation;
                    let packet = sealed(&seal, packet_id, b"under way");
                    let next = open.next_generation();
                    assert_eq!(opened(&open, packet_id, &packet).unwrap(), b"under way");
                    assert_eq!(opened(&next, packet_id, &packet), Err(OpenError::Forged));
                    let renewed = seal.next_generation();
                    let packet = sealed(&renewed, packet_id, b"under way");
                    assert_eq!(opened(&open, packet_id, &packet), Err(OpenError::Forged));
                    assert_eq!(opened(&next, packet_id, &packet).unwrap(), b"under way");
                    (seal, open) = (renewed, next);
                }
            }
        }
    }
}

#[test]
fn everything_can_move_to_the_thread_that_uses_it() {
    fn assert_send<T: Send>() {}
    assert_send::<Identity>();
    assert_send::<Initiator>();
    assert_send::<Responder>();
    assert_send::<Established>();
    assert_send::<ReplayWindow>();
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let session = xx(Suite::Aes256Gcm, [b"", b"", b""]);
    let text = format!("{:?}", session.client.keys);
    assert_eq!(text, "PacketKeys { seal: SealKey(Aes256Gcm, ..), open: OpenKey(Aes256Gcm, ..) }");
    assert_eq!(format!("{:?}", client()), format!("Identity({})", client().wavry_id()));
    assert_eq!(format!("{:?}", EphemeralSecret::from_bytes([1; 32])), "EphemeralSecret(..)");
}

proptest! {
    #[test]
    fn what_is_sealed_opens_to_the_same_body(
        aes: bool, secret: [u8; 32], packet_id: u64, header: [u8; HEADER_LEN],
        body in proptest::collection::vec(any::<u8>(), 0..1500),
    ) {
        let suite = if aes { Suite::Aes256Gcm } else { Suite::ChaCha20Poly1305 };
        let mut packet = body.clone();
        let tag = SealKey::new(suite, secret).seal_in_place(packet_id, &header, &mut packet);
        packet.extend(tag);
        let mut elsewhere = vec![0; body.len() + TAG_LEN];
        SealKey::new(suite, secret).seal_into(packet_id, &header, &body, &mut elsewhere);
        prop_assert_eq!(&elsewhere, &packet);
        let open = OpenKey::new(suite, secret);
        let mut place = vec![0; body.len()];
        prop_assert_eq!(open.open_into(packet_id, &header, &packet, &mut place), Ok(()));
        prop_assert_eq!(&place, &body);
        place.push(0);
        prop_assert_eq!(open.open_into(packet_id, &header, &packet, &mut place), Err(OpenError::TooShort));
        prop_assert_eq!(open.open_in_place(packet_id, &header, &mut packet).map(|body| body.to_vec()), Ok(body));
    }
}

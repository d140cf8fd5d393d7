//! Golden vectors: with fixed keys, every byte this crate puts on the wire is the byte an independent
//! implementation puts there.
//!
//! The expected values are those that `tests/golden.py` prints, which was written from the
//! specifications (Noise revision 34 on hashlib's BLAKE2s; X25519, Ed25519, AEADs and HKDF of the
//! Python package `cryptography`) and shares no code with this crate.
//!
//! Seeds: client identity 01.., host identity 02.., client ephemeral 03.., host ephemeral 04...

#![allow(clippy::unwrap_used)] // helper functions here are test code too

use rift_crypto::{
    EphemeralSecret, Established, Identity, Initiator, MAX_MESSAGE_LEN, OpenKey, PeerProof, Responder,
    SealKey, Suite,
};

const HEADER: [u8; 18] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17];
const BODY: &[u8] = b"a slice of a frame";
const OFFER: &[Suite] = &[Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

fn client() -> Identity {
    Identity::from_seed([1; 32]).unwrap()
}

fn host() -> Identity {
    Identity::from_seed([2; 32]).unwrap()
}

fn proof_of(identity: &Identity) -> PeerProof {
    PeerProof { id: identity.wavry_id(), static_public: identity.static_public() }
}

fn ephemeral(byte: u8) -> EphemeralSecret {
    EphemeralSecret::from_bytes([byte; 32])
}

fn sealed(key: &SealKey, packet_id: u64) -> String {
    let mut packet = BODY.to_vec();
    let tag = key.seal_in_place(packet_id, &HEADER, &mut packet);
    packet.extend(tag);
    hex(&packet)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check_established(client_side: &Established, host_side: &Established, hash: &str, up: &str, down: &str) {
    assert_eq!(hex(&client_side.handshake_hash), hash);
    assert_eq!(hex(&host_side.handshake_hash), hash);
    assert_eq!(sealed(&client_side.keys.seal, 0), up);
    assert_eq!(sealed(&host_side.keys.seal, 0), down);
    assert_eq!((client_side.peer, client_side.suite), (proof_of(&host()), Suite::Aes256Gcm));
    assert_eq!((host_side.peer, host_side.suite), (proof_of(&client()), Suite::Aes256Gcm));
    assert!(client_side.peer_is_live);
}

#[test]
fn identity_derives_the_golden_keys_and_signature() {
    let identity = client();
    assert_eq!(identity.wavry_id().to_string(), "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w");
    assert_eq!(
        hex(&identity.static_public()),
        "f3ec2508efcf1f816b77b46aeb69cbc33d3fe8bfb1db509dd4375a68526b913b"
    );
    let message = [&b"rift-static-v1"[..], &identity.static_public()].concat();
    let signature = identity.sign(&message);
    assert_eq!(
        hex(&signature),
        "ee56b057e26c0f1ecf35030b0600746f6a526fedc96f0438d55526eceab0c4e88d851f1c312936fba490\
         94bdeb271037e03c57e9d7c85d0de98da58528b37307"
    );
    assert!(identity.wavry_id().verify(&message, &signature));
    assert!(!host().wavry_id().verify(&message, &signature));
}

#[test]
fn sealing_matches_golden_packets_of_both_suites() {
    for (suite, packet_id, expected) in [
        (Suite::ChaCha20Poly1305, 0, "c49ce4fa10faf679a8246863ca49655fcc548c3ef2dec5e1c6fb2e2ef713518def97"),
        (
            Suite::ChaCha20Poly1305,
            0x0123_4567_89ab_cdef,
            "8b6adea36502b8bb0f3685fe63708d4c85b4cbbb2850a17d2bba6414fcc3bfcd687f",
        ),
        (Suite::Aes256Gcm, 0, "a5ea6d0b88ccf8b96e7c9d64fb94a8ee9c0556fd00fbe252bf07a7e83d5a2e9570c7"),
        (
            Suite::Aes256Gcm,
            0x0123_4567_89ab_cdef,
            "2a7eb18bbd5d03c1267f17758faf3747e79d3832475b0bd56d5fe3895b9c6f6d91da",
        ),
    ] {
        let key = SealKey::new(suite, [0x11; 32]);
        assert_eq!(sealed(&key, packet_id), expected, "{suite:?} {packet_id:x}");

        let mut packet = BODY.to_vec();
        let tag = key.seal_in_place(packet_id, &HEADER, &mut packet);
        packet.extend(tag);
        let opened =
            OpenKey::new(suite, [0x11; 32]).open_in_place(packet_id, &HEADER, &mut packet).unwrap().to_vec();
        assert_eq!(opened, BODY);
    }
}

#[test]
fn key_update_ratchet_matches_golden_packets() {
    for (suite, expected) in [
        (Suite::ChaCha20Poly1305, "e8027a4339a939b9c1c13c62ab72196f45abc72a6b32a6759ac95eb255b8671949dc"),
        (Suite::Aes256Gcm, "3a9b6595e5eb32abeaeb90d7fd0295a75701f7cf753301f0492d8fa0233ff78ee8cb"),
    ] {
        assert_eq!(sealed(&SealKey::new(suite, [0x11; 32]).next_generation(), 7), expected, "{suite:?}");
    }
}

#[test]
fn noise_xx_matches_the_golden_transcript() {
    let mut buf = [0; MAX_MESSAGE_LEN];
    let mut initiator = Initiator::xx_with(&client(), OFFER, ephemeral(3)).unwrap();
    let mut responder = Responder::xx_with(&host(), ephemeral(4)).unwrap();

    let len = initiator.write_msg1(b"one", &mut buf).unwrap();
    assert_eq!(
        hex(&buf[..len]),
        "5dfedd3b6bd47f6fa28ee15d969d5bb0ea53774d488bdaf9df1c6e0124b3ef220202016f6e65"
    );
    let msg1 = responder.read_msg1(&buf[..len]).unwrap();
    assert_eq!((msg1.suites.as_slice(), msg1.peer, &msg1.app[..]), (OFFER, None, &b"one"[..]));

    let len = responder.write_msg2(Suite::Aes256Gcm, b"two", &mut buf).unwrap();
    assert_eq!(
        hex(&buf[..len]),
        "ac01b2209e86354fb853237b5de0f4fab13c7fcbf433a61c019369617fecf10b1ec446fbc7900c25356c\
         11ec48f37aed5a3b8e5cbcfbd3a635b0d2c2bb4ac8a74531a0c1338e3730f901e22c1dd23251ae29921f\
         8aaf1a239f4650a400448089bb8d8cabcbce34e70a6766b6ee2a55324acf8cabde754a0cdf1a68ef1ca3\
         7665590342a87e652c3093028591c11a58bd3632631843f04f9a6aa139e6e337064ad618e956562c1115\
         4a728c82b58a5dbccbee7529ea0fa359e827078f2dca1909bbbb6340"
    );
    let msg2 = initiator.read_msg2(&buf[..len]).unwrap();
    assert_eq!((msg2.suite, msg2.peer, &msg2.app[..]), (Suite::Aes256Gcm, proof_of(&host()), &b"two"[..]));

    let len = initiator.write_msg3(b"three", &mut buf).unwrap();
    assert_eq!(
        hex(&buf[..len]),
        "a65f440d1fceadb3a490e6c39ab26c63e25012512331d445668d98d894c9e710df99b2ef977638968ece\
         34d33c32b5e32e177d0f30ab5ffbc1ca77bdf60d89181e3ed63827a26dc30d5df4eaf97eecb417af3569\
         8e6e8eb4a12d1aee70f26ee10b752fe847c31784464175f387f4a5a945e2b4c7cd5047d2e562f018d507\
         5ee52387bbbf8a1dd09fb6f01dd336ab204a0d6f16af4737ba54ee59c6bbafa51630f5961f3e6a"
    );
    let msg3 = responder.read_msg3(&buf[..len]).unwrap();
    assert_eq!((msg3.peer, &msg3.app[..]), (proof_of(&client()), &b"three"[..]));

    let (client_side, host_side) = (initiator.into_keys().unwrap(), responder.into_keys().unwrap());
    assert!(host_side.peer_is_live);
    check_established(
        &client_side,
        &host_side,
        "d40fcea56da066236f0bd69a8d817e5a3388768185131896812b5260a31c92dd",
        "1d2ab504bb8ce3d7ac10b5dda92aac424bdab822abfdc5805340eb61d6790235d7b9",
        "4dad7a155236286dcf1688901b5351f04c263e64c86ad20bcf74f92df5170f19cc72",
    );
}

#[test]
fn noise_ik_matches_the_golden_transcript() {
    let mut buf = [0; MAX_MESSAGE_LEN];
    let (host_static, host_id) = (host().static_public(), host().wavry_id());
    let mut initiator = Initiator::ik_with(&client(), host_static, host_id, OFFER, ephemeral(3)).unwrap();
    let mut responder = Responder::ik_with(&host(), ephemeral(4)).unwrap();

    let len = initiator.write_msg1(b"one", &mut buf).unwrap();
    assert_eq!(
        hex(&buf[..len]),
        "5dfedd3b6bd47f6fa28ee15d969d5bb0ea53774d488bdaf9df1c6e0124b3ef221e5ed91f378cbb68f767\
         6b964769653c9c0c698930d7fcaef6b6ac043e355343f0d0b11921d960c459917370df3e80af9a9f6d9c\
         c938612999f88cd8a679e225a8e6bbd5cbf6bcec4631f94d07a12405de618c0d6c0c1545874dce470185\
         bfadd5ac13a50832318bffbd35eed80bc09ff4dc19d9e9f9ea3bc1f5072e8bd064ae8efc49543924ae7d\
         e7b07e6be3757f43fa6d608033adbeaaa5be5db9b0d4f4ecd87fa623a15e"
    );
    let msg1 = responder.read_msg1(&buf[..len]).unwrap();
    assert_eq!(
        (msg1.suites.as_slice(), msg1.peer, &msg1.app[..]),
        (OFFER, Some(proof_of(&client())), &b"one"[..])
    );

    let len = responder.write_msg2(Suite::Aes256Gcm, b"two", &mut buf).unwrap();
    assert_eq!(
        hex(&buf[..len]),
        "ac01b2209e86354fb853237b5de0f4fab13c7fcbf433a61c019369617fecf10bdc9a5d585f059173046f\
         a42cb6f8493acb63d6f1f2349b20d51372584041f3fa5a1a6dd4809849edc14db60e6416b2446bf38ad4\
         7c17200f26ebd38afdcf31f1daea3dfc16c4dfcfb198224b32a6279e02a3b45e20cb6f1cf86d75f3195c\
         0f5668f662e8d4f01402f6fc6f6093d0e7e4f745bcd9"
    );
    let msg2 = initiator.read_msg2(&buf[..len]).unwrap();
    assert_eq!((msg2.suite, msg2.peer, &msg2.app[..]), (Suite::Aes256Gcm, proof_of(&host()), &b"two"[..]));

    let (client_side, host_side) = (initiator.into_keys().unwrap(), responder.into_keys().unwrap());
    assert!(!host_side.peer_is_live);
    check_established(
        &client_side,
        &host_side,
        "1b36a049b0ba2f1ccbfaf24a4ca13c01b6b28520b32d7b7db542792b28489a1a",
        "e5e8f5acaff5c660ef76b1f7cfdb746381c926d1a31a8c3f259fc91e4ad243396ab6",
        "85f21573a4472d612aceee002820ba1bdf0b8d41b51021d09b20f465b51a730bf58a",
    );
}

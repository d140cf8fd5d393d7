//! The Noise handshakes XX and IK (Noise revision 34; RIFT §3), from first message to packet keys.
//!
//! Owns the Noise state of one handshake, what its payloads carry, and the checks on the peer's
//! identity. Never sends, retransmits, pads, times out or remembers other handshakes: it turns
//! bytes into bytes, and the same inputs with the same [`EphemeralSecret`](crate::EphemeralSecret)
//! give the same outputs.
//!
//! Invariants:
//! * Nothing about the peer is reported before its signature over its static key verified.
//! * A message that fails authentication leaves the handshake as it was, so a forged copy cannot
//!   keep the genuine message from being read afterwards.
//! * Keys come out only of a handshake in which every step succeeded.
//!
//! `Noise_XX_25519_ChaChaPoly_BLAKE2s`, when the host's static key is not known yet:
//!
//! ```text
//! initiator                                    responder
//! write_msg1  -> e                    offer    read_msg1
//! read_msg2   <- e, ee, s, es  choice, proof   write_msg2
//! write_msg3  -> s, se                proof    read_msg3
//! into_keys                                    into_keys
//! ```
//!
//! `Noise_IK_25519_ChaChaPoly_BLAKE2s`, when it is:
//!
//! ```text
//! write_msg1  -> e, es, s, ss  offer, proof    read_msg1
//! read_msg2   <- e, ee, se    choice, proof    write_msg2
//! into_keys                                    into_keys, peer not live yet
//! ```

pub(crate) mod initiator;
pub mod payload;
mod resolver;
pub(crate) mod responder;
#[cfg(test)]
mod tests;

use snow::params::NoiseParams;
use snow::{Builder, HandshakeState};
use zeroize::{Zeroize as _, Zeroizing};

use crate::identity::signed_static;
use crate::{CryptoError, Identity, OpenKey, PacketKeys, SealKey, Suite, SuiteList, TAG_LEN, WavryId};
use payload::{MAX_PAYLOAD_LEN, PROOF_LEN};

/// Longest handshake message in bytes, which is IK's first: an ephemeral key, an encrypted static
/// key and the longest payload. A buffer of this size fits any of them.
pub const MAX_MESSAGE_LEN: usize = KEY_LEN + (KEY_LEN + TAG_LEN) + (MAX_PAYLOAD_LEN + TAG_LEN);

/// Mixed into the transcript by both sides first, so that no other protocol's messages fit.
const PROLOGUE: &[u8] = b"rift/1";

/// Who the peer proved to be: the holder of `id` vouched for `static_public` by signature, and the
/// handshake proved possession of the latter's private half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerProof {
    /// The peer's identity.
    pub id: WavryId,
    /// The peer's X25519 static key, which a later IK handshake needs.
    pub static_public: [u8; 32],
}

/// What the responder learns from the first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Msg1 {
    /// The suites the initiator offers, in its order; those this version does not know left out.
    pub suites: SuiteList,
    /// The initiator's identity: proved in IK, `None` in XX where it comes with the third message.
    ///
    /// A proof in a first message can be a replay of an old one; see
    /// [`Established::peer_is_live`].
    pub peer: Option<PeerProof>,
    /// The application's part. In XX anybody on the path can read it; in IK it is secret as long as
    /// the responder's static key is, and possibly a replay.
    pub app: Vec<u8>,
}

/// What the initiator learns from the second message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Msg2 {
    /// The suite the responder chose, one of those offered.
    pub suite: Suite,
    /// The responder's identity.
    pub peer: PeerProof,
    /// The application's part.
    pub app: Vec<u8>,
}

/// What the responder learns from the third message of XX.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Msg3 {
    /// The initiator's identity.
    pub peer: PeerProof,
    /// The application's part.
    pub app: Vec<u8>,
}

/// The result of a handshake.
#[derive(Debug)]
pub struct Established {
    /// The packet keys of both directions, generation 0.
    pub keys: PacketKeys,
    /// Who the peer is.
    pub peer: PeerProof,
    /// Names this very handshake, for binding a pairing to it. Not a secret: an observer of XX
    /// cannot compute it, but nothing may rest on that.
    pub handshake_hash: [u8; 32],
    /// How packets are sealed.
    pub suite: Suite,
    /// Whether the peer is known to be there now.
    ///
    /// False only for the responder of IK. Its first message, proof, application part and all, may
    /// be a copy of an old one sent by anybody; such a sender cannot compute these keys. So until
    /// a first packet opens under [`PacketKeys::open`], the keys are for sending only, within the
    /// limit for unvalidated addresses, and the message's content must have no effect: no input
    /// injected, no setting changed, no session of the same peer replaced. The packet that opens
    /// makes the peer live.
    pub peer_is_live: bool,
}

/// Why a handshake step failed, and whose doing that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HandshakeError {
    /// Caller: this step is not the next one, or an earlier one ended the handshake.
    #[error("handshake step called out of order")]
    OutOfOrder,
    /// Caller: the output buffer is smaller than the message; [`MAX_MESSAGE_LEN`] always fits.
    #[error("output buffer is too small for the handshake message")]
    BufferTooSmall,
    /// Caller: the application part is longer than [`MAX_APP_LEN`](crate::MAX_APP_LEN).
    #[error("application part of a handshake message is too long")]
    AppTooLong,
    /// Caller: no suite to offer.
    #[error("no cipher suite to offer")]
    NoSuites,
    /// Caller or peer: the choice is not among the suites offered.
    #[error("cipher suite was not offered")]
    SuiteNotOffered,
    /// Sender: too short, too long, or the payload does not parse.
    #[error("malformed handshake message")]
    Malformed,
    /// Sender: the message is not authentic. Changed on the way, meant for another handshake or
    /// another host key, or made with a worthless public key. The handshake can go on with the
    /// genuine message.
    #[error("handshake message is not authentic")]
    NotAuthentic,
    /// Peer: the identity key did not sign the static key. Ends the handshake.
    #[error("peer's identity does not vouch for its static key")]
    BadSignature,
    /// Peer: proved to be somebody else than the caller expected. Ends the handshake.
    #[error("peer is not the one that was expected")]
    WrongIdentity,
    /// This machine: see [`CryptoError`].
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pattern {
    Xx,
    Ik,
}

impl Pattern {
    fn name(self) -> &'static str {
        match self {
            Pattern::Xx => "Noise_XX_25519_ChaChaPoly_BLAKE2s",
            Pattern::Ik => "Noise_IK_25519_ChaChaPoly_BLAKE2s",
        }
    }

    /// What Noise adds to the payload of the first message, in bytes.
    fn msg1_overhead(self) -> usize {
        match self {
            Pattern::Xx => KEY_LEN,
            Pattern::Ik => KEY_LEN + (KEY_LEN + TAG_LEN) + TAG_LEN,
        }
    }

    /// What Noise adds to the payload of the second message, in bytes.
    fn msg2_overhead(self) -> usize {
        match self {
            Pattern::Xx => KEY_LEN + (KEY_LEN + TAG_LEN) + TAG_LEN,
            Pattern::Ik => KEY_LEN + TAG_LEN,
        }
    }
}

/// What Noise adds to the payload of the third message of XX, in bytes.
const MSG3_OVERHEAD: usize = (KEY_LEN + TAG_LEN) + TAG_LEN;

/// Length of an X25519 public key, in bytes.
const KEY_LEN: usize = 32;

/// A Noise state before its first message.
fn builder(pattern: Pattern, ephemeral: Zeroizing<[u8; 32]>) -> Result<Builder<'static>, HandshakeError> {
    let params: NoiseParams = pattern.name().parse().map_err(|_| CryptoError::Key)?;
    let resolver = Box::new(resolver::Resolver::new(ephemeral));
    Builder::with_resolver(params, resolver).prologue(PROLOGUE).map_err(setup_error)
}

/// Writes the next message of `noise`, which is `overhead` bytes longer than its payload.
///
/// The room in `out` is checked before the Noise state is asked, because that state cannot take a
/// half-made step back.
fn write_message(
    noise: &mut HandshakeState,
    overhead: usize,
    payload: &[u8],
    out: &mut [u8],
) -> Result<usize, HandshakeError> {
    let out = out.get_mut(..overhead + payload.len()).ok_or(HandshakeError::BufferTooSmall)?;
    // Noise demands room for a tag even where it writes none.
    let mut message = [0; MAX_MESSAGE_LEN];
    let len = noise.write_message(payload, &mut message).map_err(|error| match error {
        snow::Error::Dh => HandshakeError::NotAuthentic,
        _ => HandshakeError::Crypto(CryptoError::Key),
    })?;
    debug_assert_eq!(len, out.len());
    out.copy_from_slice(&message[..len]);
    Ok(len)
}

/// Reads the next message of `noise` into `payload` and returns the part that was filled.
fn read_message<'a>(
    noise: &mut HandshakeState,
    message: &[u8],
    payload: &'a mut [u8; MAX_MESSAGE_LEN],
) -> Result<&'a [u8], HandshakeError> {
    if message.len() > MAX_MESSAGE_LEN {
        return Err(HandshakeError::Malformed);
    }
    let len = noise.read_message(message, payload).map_err(|error| match error {
        snow::Error::Input => HandshakeError::Malformed,
        _ => HandshakeError::NotAuthentic,
    })?;
    Ok(&payload[..len])
}

/// Verifies that the identity in `proof` signed the static key Noise authenticated, and that it is
/// the expected one if there is such.
fn verify_proof(
    noise: &HandshakeState,
    proof: &[u8; PROOF_LEN],
    expect: Option<WavryId>,
) -> Result<PeerProof, HandshakeError> {
    let static_public: [u8; 32] =
        noise.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(HandshakeError::OutOfOrder)?;
    let (mut id, mut signature) = (WavryId([0; 32]), [0; 64]);
    id.0.copy_from_slice(&proof[..32]);
    signature.copy_from_slice(&proof[32..]);
    if !id.verify(&signed_static(&static_public), &signature) {
        return Err(HandshakeError::BadSignature);
    }
    if expect.is_some_and(|expected| expected != id) {
        return Err(HandshakeError::WrongIdentity);
    }
    Ok(PeerProof { id, static_public })
}

/// Turns a finished Noise state into packet keys: `Split()` yields the initiator's sending key
/// first (Noise §5.2).
fn establish(
    mut noise: HandshakeState,
    suite: Suite,
    peer: PeerProof,
    peer_is_live: bool,
) -> Result<Established, HandshakeError> {
    if !noise.is_handshake_finished() {
        return Err(HandshakeError::OutOfOrder);
    }
    let handshake_hash = noise.get_handshake_hash().try_into().map_err(|_| HandshakeError::OutOfOrder)?;
    let mut split = noise.dangerously_get_raw_split();
    let (seal, open) = if noise.is_initiator() { (split.0, split.1) } else { (split.1, split.0) };
    let keys = PacketKeys { seal: SealKey::new(suite, seal), open: OpenKey::new(suite, open) };
    split.0.zeroize();
    split.1.zeroize();
    Ok(Established { keys, peer, handshake_hash, suite, peer_is_live })
}

/// `snow` refused what it was built from, which only a bug here could cause.
fn setup_error(_: snow::Error) -> HandshakeError {
    HandshakeError::Crypto(CryptoError::Key)
}

/// What either side sends about itself.
struct Local {
    static_private: Zeroizing<[u8; 32]>,
    proof: [u8; PROOF_LEN],
}

impl Local {
    fn of(identity: &Identity) -> Self {
        Self { static_private: identity.static_private().clone(), proof: *identity.proof() }
    }
}

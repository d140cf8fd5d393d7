//! Packet protection: sealing and opening one transport datagram in place (RIFT §3.1 to §3.3, §3.9).
//!
//! Owns the traffic secret of one direction and the cipher made from it. Never counts packets and
//! never remembers one: the caller hands in the packet id and answers for its uniqueness per key.
//! Invariant: after construction no call allocates, locks or enters the kernel.
//!
//! ```text
//! nonce  00 00 00 00 | packet id, u64 little-endian          (12 bytes)
//! AAD    the whole transport header                          (18 bytes)
//! wire   header (18) | body, encrypted (n) | tag (16)
//! ```

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::{Suite, kdf};

/// Length of the authentication tag behind every sealed body, in bytes.
pub const TAG_LEN: usize = 16;

/// Length of the transport header, all of which is authenticated, in bytes.
pub const HEADER_LEN: usize = 18;

/// HKDF label of one step of the key-update ratchet.
const KEY_UPDATE_LABEL: &[u8] = b"rift-key-update-v1";

/// The two directions of an established session.
#[derive(Debug)]
pub struct PacketKeys {
    /// Protects what this side sends.
    pub seal: SealKey,
    /// Opens what the peer sends.
    pub open: OpenKey,
}

/// Seals packets of one direction and one key generation.
pub struct SealKey(DirectionKey);

impl SealKey {
    /// The key of `secret`: one of the two outputs of Noise `Split()`, used as the cipher key as
    /// it is. Sessions get theirs from a handshake; this is for test vectors and benchmarks.
    #[must_use]
    pub fn new(suite: Suite, secret: [u8; 32]) -> Self {
        Self(DirectionKey::new(suite, Zeroizing::new(secret)))
    }

    /// Encrypts `body` in place and returns the tag that goes behind it on the wire.
    ///
    /// `packet_id` must never repeat under one key, not even across a restart of the caller's
    /// counter: two packets with one id reveal the difference of their bodies and let an attacker
    /// forge more.
    ///
    /// # Panics
    /// If `body` is longer than 64 GiB, the limit of the ciphers.
    #[inline]
    #[must_use]
    pub fn seal_in_place(&self, packet_id: u64, header: &[u8; HEADER_LEN], body: &mut [u8]) -> [u8; TAG_LEN] {
        let sealed = self.0.aead.seal_in_place_separate_tag(nonce(packet_id), Aad::from(header), body);
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(sealed.expect("a datagram is within the cipher's length limit").as_ref());
        tag
    }

    /// Encrypts `body` into `sealed`, the tag behind it: the one copy that a packet needs on its way out.
    ///
    /// As with [`seal_in_place`](Self::seal_in_place), `packet_id` must never repeat under one key.
    ///
    /// # Panics
    /// If `sealed` is not [`TAG_LEN`] longer than `body`, or `body` is longer than 64 GiB.
    #[inline]
    pub fn seal_into(&self, packet_id: u64, header: &[u8; HEADER_LEN], body: &[u8], sealed: &mut [u8]) {
        let (encrypted, tag) = sealed.split_at_mut(body.len());
        self.0
            .aead
            .seal_out_of_place_scatter(nonce(packet_id), Aad::from(header), body, encrypted, &[], tag)
            .expect("a datagram is within the cipher's length limit, and the tag has its room");
    }

    /// The key after this one: `secret' = HKDF-SHA256(secret, info = "rift-key-update-v1")`.
    ///
    /// The step is one-way, so once the old key is dropped, which wipes it, packets sealed under
    /// it stay closed to whoever steals the new one. Packet ids continue; they do not restart.
    #[must_use]
    pub fn next_generation(&self) -> SealKey {
        SealKey(self.0.next_generation())
    }

    /// The suite this key belongs to.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.0.suite
    }
}

/// Opens packets of one direction and one key generation.
pub struct OpenKey(DirectionKey);

impl OpenKey {
    /// The key that opens what [`SealKey::new`] with the same arguments seals.
    #[must_use]
    pub fn new(suite: Suite, secret: [u8; 32]) -> Self {
        Self(DirectionKey::new(suite, Zeroizing::new(secret)))
    }

    /// Verifies and decrypts `body_and_tag` in place and returns the body.
    ///
    /// Check the [`ReplayWindow`](crate::ReplayWindow) before and mark it after. On an error the
    /// buffer holds nothing usable.
    ///
    /// # Errors
    /// [`OpenError`]. Neither case says anything about the session: anybody can send such bytes.
    #[inline]
    pub fn open_in_place<'a>(
        &self,
        packet_id: u64,
        header: &[u8; HEADER_LEN],
        body_and_tag: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        let (body, tag) = body_and_tag.split_last_chunk_mut::<TAG_LEN>().ok_or(OpenError::TooShort)?;
        self.0
            .aead
            .open_in_place_separate_tag(nonce(packet_id), Aad::from(header), tag, body)
            .map_err(|_| OpenError::Forged)
    }

    /// As [`open_in_place`](Self::open_in_place), but decrypts into `body`: the one copy that a packet needs on its way
    /// in. Nothing in `body` is to be trusted, or shown to anybody, before this has returned without an error; after
    /// one it holds nothing usable.
    ///
    /// # Errors
    /// [`OpenError`]; also if `body` has not the length of what was sealed.
    #[inline]
    pub fn open_into(
        &self,
        packet_id: u64,
        header: &[u8; HEADER_LEN],
        body_and_tag: &[u8],
        body: &mut [u8],
    ) -> Result<(), OpenError> {
        let (sealed, tag) = body_and_tag.split_last_chunk::<TAG_LEN>().ok_or(OpenError::TooShort)?;
        if sealed.len() != body.len() {
            return Err(OpenError::TooShort);
        }
        self.0
            .aead
            .open_separate_gather(nonce(packet_id), Aad::from(header), sealed, tag, body)
            .map_err(|_| OpenError::Forged)
    }

    /// The key after this one; see [`SealKey::next_generation`]. The old key is still needed for
    /// packets that were under way when the peer changed.
    #[must_use]
    pub fn next_generation(&self) -> OpenKey {
        OpenKey(self.0.next_generation())
    }

    /// The suite this key belongs to.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.0.suite
    }
}

/// Why a packet did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum OpenError {
    /// Not even a tag's length.
    #[error("shorter than an authentication tag")]
    TooShort,
    /// The tag does not match: changed on the way, sealed under another key, or invented.
    #[error("authentication failed")]
    Forged,
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealKey({:?}, ..)", self.0.suite)
    }
}

impl std::fmt::Debug for OpenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenKey({:?}, ..)", self.0.suite)
    }
}

/// One secret and its cipher. The library wipes its key schedule when it frees it, `Zeroizing`
/// wipes the secret.
struct DirectionKey {
    aead: LessSafeKey,
    secret: Zeroizing<[u8; 32]>,
    suite: Suite,
}

impl DirectionKey {
    fn new(suite: Suite, secret: Zeroizing<[u8; 32]>) -> Self {
        let algorithm = match suite {
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Suite::Aes256Gcm => &AES_256_GCM,
        };
        let key = UnboundKey::new(algorithm, &*secret).expect("both ciphers take any 32-byte key");
        Self { aead: LessSafeKey::new(key), secret, suite }
    }

    fn next_generation(&self) -> Self {
        Self::new(self.suite, kdf::derive(&self.secret, KEY_UPDATE_LABEL))
    }
}

#[inline]
fn nonce(packet_id: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&packet_id.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

//! The primitives behind `snow`: X25519 and ChaCha20-Poly1305 from aws-lc-rs, BLAKE2s from `blake2`.
//!
//! Owns no protocol logic. Invariant: the only "random" bytes it can give out are the ephemeral key
//! it was made with, once, so a handshake depends on nothing but its inputs.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use blake2::{Blake2s256, Digest as _};
use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use zeroize::Zeroizing;

use crate::TAG_LEN;

/// Resolves exactly the primitives of `25519_ChaChaPoly_BLAKE2s`.
pub(super) struct Resolver {
    ephemeral: Zeroizing<[u8; 32]>,
}

impl Resolver {
    /// `ephemeral` becomes the private ephemeral key of the one handshake this resolver serves.
    pub(super) fn new(ephemeral: Zeroizing<[u8; 32]>) -> Self {
        Self { ephemeral }
    }
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(OneKey(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(X25519Key::default()) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::Blake2s).then(|| Box::new(Blake2s(Blake2s256::new())) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::ChaChaPoly)
            .then(|| Box::new(ChaChaPoly(chacha20_poly1305(&[0; 32]))) as Box<dyn Cipher>)
    }
}

/// Gives out the ephemeral key at the first request and fails from then on.
struct OneKey(Option<Zeroizing<[u8; 32]>>);

impl Random for OneKey {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        let key = self.0.take().ok_or(Error::Rng)?;
        if dest.len() != key.len() {
            return Err(Error::Rng);
        }
        dest.copy_from_slice(&*key);
        Ok(())
    }
}

/// X25519 (RFC 7748). A peer key of small order is an error, as its shared secret would be zero.
#[derive(Default)]
struct X25519Key {
    private: Zeroizing<[u8; 32]>,
    public: [u8; 32],
    key: Option<PrivateKey>,
}

impl Dh for X25519Key {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    /// The trait leaves no way to report a refused key, so one stays absent and fails in `dh`.
    fn set(&mut self, privkey: &[u8]) {
        self.key = None;
        let Ok(private) = <[u8; 32]>::try_from(privkey) else { return };
        self.private = Zeroizing::new(private);
        let Ok(key) = PrivateKey::from_private_key(&X25519, &*self.private) else { return };
        let Ok(public) = key.compute_public_key() else { return };
        let Ok(public) = public.as_ref().try_into() else { return };
        self.public = public;
        self.key = Some(key);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut private = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(&mut *private)?;
        self.set(&*private);
        if self.key.is_some() { Ok(()) } else { Err(Error::Dh) }
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &*self.private
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let (Some(key), Some(peer)) = (&self.key, pubkey.get(..32)) else { return Err(Error::Dh) };
        agreement::agree(key, UnparsedPublicKey::new(&X25519, peer), Error::Dh, |secret| {
            out.get_mut(..secret.len()).ok_or(Error::Dh)?.copy_from_slice(secret);
            Ok(())
        })
    }
}

/// ChaCha20-Poly1305 (RFC 8439) with Noise's nonce: four zero bytes, then the counter little-endian.
struct ChaChaPoly(LessSafeKey);

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = chacha20_poly1305(key);
    }

    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let (body, rest) = out.split_at_mut(plaintext.len());
        body.copy_from_slice(plaintext);
        let tag = self
            .0
            .seal_in_place_separate_tag(noise_nonce(nonce), Aad::from(authtext), body)
            .expect("a handshake message is within the cipher's length limit");
        rest[..TAG_LEN].copy_from_slice(tag.as_ref());
        plaintext.len() + TAG_LEN
    }

    fn decrypt(
        &self,
        nonce: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let (body, tag) = ciphertext.split_last_chunk::<TAG_LEN>().ok_or(Error::Decrypt)?;
        let out = out.get_mut(..body.len()).ok_or(Error::Decrypt)?;
        self.0
            .open_separate_gather(noise_nonce(nonce), Aad::from(authtext), body, tag, out)
            .map_err(|_| Error::Decrypt)?;
        Ok(body.len())
    }
}

/// BLAKE2s with 32 bytes of output (RFC 7693). `snow` builds HMAC and HKDF from it.
struct Blake2s(Blake2s256);

impl Hash for Blake2s {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = Blake2s256::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        out[..32].copy_from_slice(&self.0.finalize_reset());
    }
}

fn chacha20_poly1305(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("the cipher takes any 32-byte key"))
}

fn noise_nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ephemeral_key_is_given_out_once() {
        let mut rng = Resolver::new(Zeroizing::new([7; 32])).resolve_rng().unwrap();
        let mut out = [0; 32];
        assert_eq!(rng.try_fill_bytes(&mut out), Ok(()));
        assert_eq!(out, [7; 32]);
        assert_eq!(rng.try_fill_bytes(&mut out), Err(Error::Rng));
    }

    #[test]
    fn peer_key_of_small_order_is_refused() {
        let mut key = X25519Key::default();
        key.set(&[5; 32]);
        let mut out = [0; 32];
        assert_eq!(key.dh(&[0; 32], &mut out), Err(Error::Dh));
        let mut one = [0; 32];
        one[0] = 1;
        assert_eq!(key.dh(&one, &mut out), Err(Error::Dh));
    }

    #[test]
    fn primitives_outside_the_suite_are_not_offered() {
        let resolver = Resolver::new(Zeroizing::new([0; 32]));
        assert!(resolver.resolve_dh(&DHChoice::Curve448).is_none());
        assert!(resolver.resolve_hash(&HashChoice::SHA256).is_none());
        assert!(resolver.resolve_cipher(&CipherChoice::AESGCM).is_none());
    }
}

//! The Ed25519 keys that sign leases, in the text forms of PASERK (`k4.secret.`, `k4.public.`, `k4.pid.`).
//!
//! Owns key texts and ids. The secret half belongs to whoever allocates relays (the gateway, or an operator's
//! `wavry lease`); a relay only ever holds public ones. Secrets are wiped on drop.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use blake2::digest::{Update, VariableOutput};
use rift_crypto::{Identity, WavryId};
use zeroize::Zeroizing;

const SECRET: &str = "k4.secret.";
const PUBLIC: &str = "k4.public.";
const ID: &str = "k4.pid.";
/// Bytes of the hash in a key id.
const ID_LEN: usize = 33;

/// A text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a public key.
    #[error("not an issuer's public key: it begins with k4.public. and has 53 characters")]
    Public,
    /// Not a secret key.
    #[error("not an issuer's secret key: it begins with k4.secret. and has 96 characters")]
    Secret,
    /// No randomness, or a key that the library refuses.
    #[error("no key could be made")]
    Crypto,
}

/// The half that signs.
pub struct IssuerKey {
    seed: Zeroizing<[u8; 32]>,
    identity: Identity,
}

impl IssuerKey {
    /// A new key from the operating system's randomness.
    ///
    /// # Errors
    /// [`KeyError::Crypto`].
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).map_err(|_| KeyError::Crypto)?;
        Self::from_seed(seed)
    }

    /// The key that an Ed25519 seed stands for.
    ///
    /// # Errors
    /// [`KeyError::Crypto`].
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, KeyError> {
        let identity = Identity::from_seed(seed).map_err(|_| KeyError::Crypto)?;
        Ok(Self { seed: Zeroizing::new(seed), identity })
    }

    /// The half that verifies.
    #[must_use]
    pub fn public(&self) -> IssuerPublic {
        IssuerPublic(self.identity.wavry_id())
    }

    /// `k4.secret.` and 64 bytes: seed and public key. To be kept in a file that only its owner can read.
    #[must_use]
    pub fn to_secret_text(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new([&self.seed[..], &self.public().0.0].concat());
        let mut text = Zeroizing::new(String::with_capacity(96));
        text.push_str(SECRET);
        URL_SAFE_NO_PAD.encode_string(&*bytes, &mut text);
        text
    }

    /// Reads what [`to_secret_text`](Self::to_secret_text) wrote.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_secret_text(text: &str) -> Result<Self, KeyError> {
        let body = text.trim().strip_prefix(SECRET).ok_or(KeyError::Secret)?;
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(body).map_err(|_| KeyError::Secret)?);
        let (seed, public) = bytes.split_first_chunk::<32>().ok_or(KeyError::Secret)?;
        let key = Self::from_seed(*seed)?;
        if public == key.public().0.0 { Ok(key) } else { Err(KeyError::Secret) }
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.identity.sign(message)
    }
}

impl fmt::Debug for IssuerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuerKey({})", self.public().id())
    }
}

/// The half that verifies.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IssuerPublic(WavryId);

impl IssuerPublic {
    /// The PASERK id: `k4.pid.` | base64url(BLAKE2b-264(`k4.pid.` | `k4.public.` text)).
    #[must_use]
    pub fn id(&self) -> String {
        let mut hash = [0; ID_LEN];
        // 33 bytes are within what BLAKE2b gives (64), so neither call can fail.
        if let Ok(mut state) = blake2::Blake2bVar::new(ID_LEN) {
            state.update(ID.as_bytes());
            state.update(self.to_string().as_bytes());
            let _ = state.finalize_variable(&mut hash);
        }
        format!("{ID}{}", URL_SAFE_NO_PAD.encode(hash))
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify(message, signature)
    }
}

impl fmt::Display for IssuerPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC}{}", self.0)
    }
}

impl fmt::Debug for IssuerPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuerPublic({self})")
    }
}

impl FromStr for IssuerPublic {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let key = text.trim().strip_prefix(PUBLIC).ok_or(KeyError::Public)?;
        key.parse().map(Self).map_err(|_| KeyError::Public)
    }
}

/// The keys that a relay trusts.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    keys: Vec<(String, IssuerPublic)>,
}

impl KeyRing {
    /// A ring of these.
    #[must_use]
    pub fn new(keys: Vec<IssuerPublic>) -> Self {
        Self { keys: keys.into_iter().map(|key| (key.id(), key)).collect() }
    }

    /// Whether nobody can sign.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn find(&self, id: &str) -> Option<&IssuerPublic> {
        self.keys.iter().find(|(known, _)| known == id).map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From paseto-standard/test-vectors, PASERK k4.pid.json: the key of 32 zero bytes.
    #[test]
    fn published_key_id() {
        let key: IssuerPublic = "k4.public.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".parse().unwrap();
        assert_eq!(key.id(), "k4.pid.S_XQmeEwHbbvRmiyfXfHYpLGjXGzjTRSDoT1YtTakWFE");
    }

    /// From PASERK k4.secret.json: the seed of 32 zero bytes.
    #[test]
    fn published_secret_text() {
        let key = IssuerKey::from_seed([0; 32]).unwrap();
        let text = "k4.secret.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA7aie8zrakLWKjqNAqbw1zZTIVdx3iQ6Y6wEihi1naKQ";
        assert_eq!(key.to_secret_text().as_str(), text);
        assert_eq!(IssuerKey::from_secret_text(text).unwrap().public(), key.public());
        assert!(
            IssuerKey::from_secret_text(&text.replace("KQ", "KA")).is_err(),
            "public half of another key"
        );
        assert!(IssuerKey::from_secret_text("k4.secret.AAAA").is_err());
        assert!("k4.local.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".parse::<IssuerPublic>().is_err());
    }
}

//! HKDF-SHA256 (RFC 5869) as used for every key that is derived rather than agreed.

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

/// Derives 32 bytes from `secret`, with no salt. `label` is the HKDF `info` and keeps uses of one
/// secret apart.
pub(crate) fn derive(secret: &[u8; 32], label: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    Salt::new(HKDF_SHA256, &[])
        .extract(secret)
        .expand(&[label], HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut *out))
        .expect("one hash length is always within HKDF's limit of 255");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by `tests/golden.py`.
    #[test]
    fn derive_matches_an_independent_hkdf() {
        let okm = derive(&[0x0b; 32], b"rift-key-update-v1");
        assert_eq!(
            *okm,
            [
                0x3b, 0x00, 0xcf, 0xdd, 0xbb, 0x8b, 0xaa, 0xb5, 0x99, 0x78, 0x59, 0xd4, 0x43, 0x52, 0xbd,
                0xe6, 0x01, 0x75, 0x33, 0xf2, 0x89, 0x04, 0xbc, 0x58, 0xd4, 0xd8, 0x3e, 0xc5, 0x60, 0x4b,
                0x7f, 0xe6
            ]
        );
    }

    #[test]
    fn labels_separate_the_keys_of_one_secret() {
        assert_ne!(derive(&[1; 32], b"a"), derive(&[1; 32], b"b"));
    }
}

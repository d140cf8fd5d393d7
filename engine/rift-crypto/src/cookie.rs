//! The RETRY cookie: proof that an initiator receives at its source address, without keeping any
//! state for it (RIFT §3.7).
//!
//! Owns the MAC key and the one before it. Never reads a clock: the caller passes the minute.
//! Invariant: a cookie is good for one address, one handshake id and at most two minutes.
//!
//! ```text
//! cookie = HMAC-SHA256(key, ip [16] | scope u32 | port u16 | handshake id u64 | minute u64)[..16]
//! ```
//! Integers are big-endian; an IPv4 address stands as its IPv4-mapped IPv6 address, so a cookie
//! survives a dual-stack socket reporting the same peer in either form.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use zeroize::Zeroizing;

use crate::CryptoError;

/// Length of a cookie in bytes. Half an HMAC-SHA256 is 128 bits, out of reach of guessing within
/// the two minutes a cookie lives.
pub const COOKIE_LEN: usize = 16;

const INPUT_LEN: usize = 16 + 4 + 2 + 8 + 8;

/// Issues and verifies cookies.
pub struct CookieKey {
    current: hmac::Key,
    previous: Option<hmac::Key>,
}

impl CookieKey {
    /// A key from 32 secret bytes.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self { current: mac_key(secret), previous: None }
    }

    /// A key from the operating system's randomness.
    ///
    /// # Errors
    /// [`CryptoError::Randomness`].
    pub fn generate() -> Result<Self, CryptoError> {
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| CryptoError::Randomness)?;
        Ok(Self::new(secret))
    }

    /// Changes to a new secret. Cookies of the last one stay valid within their minutes, those of
    /// the one before do not.
    pub fn rotate(&mut self, secret: [u8; 32]) {
        self.previous = Some(std::mem::replace(&mut self.current, mac_key(secret)));
    }

    /// The cookie for an initiator at `addr` that uses `handshake_id`, in `minute` (minutes on any
    /// clock that goes forward).
    #[must_use]
    pub fn issue(&self, addr: &SocketAddr, handshake_id: u64, minute: u64) -> [u8; COOKIE_LEN] {
        mac(&self.current, &input(addr, handshake_id, minute))
    }

    /// Whether `cookie` was issued to this address for this handshake in `minute` or the one
    /// before. The comparison takes the same time wherever the bytes differ.
    #[must_use]
    pub fn verify(&self, addr: &SocketAddr, handshake_id: u64, minute: u64, cookie: &[u8]) -> bool {
        [Some(minute), minute.checked_sub(1)].into_iter().flatten().any(|minute| {
            let input = input(addr, handshake_id, minute);
            [Some(&self.current), self.previous.as_ref()]
                .into_iter()
                .flatten()
                .any(|key| verify_slices_are_equal(&mac(key, &input), cookie).is_ok())
        })
    }
}

impl std::fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CookieKey(..)")
    }
}

fn mac_key(secret: [u8; 32]) -> hmac::Key {
    hmac::Key::new(HMAC_SHA256, &*Zeroizing::new(secret))
}

fn mac(key: &hmac::Key, input: &[u8; INPUT_LEN]) -> [u8; COOKIE_LEN] {
    let mut cookie = [0; COOKIE_LEN];
    cookie.copy_from_slice(&hmac::sign(key, input).as_ref()[..COOKIE_LEN]);
    cookie
}

fn input(addr: &SocketAddr, handshake_id: u64, minute: u64) -> [u8; INPUT_LEN] {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let scope = match addr {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(addr) => addr.scope_id(),
    };
    let mut input = [0; INPUT_LEN];
    input[..16].copy_from_slice(&ip.octets());
    input[16..20].copy_from_slice(&scope.to_be_bytes());
    input[20..22].copy_from_slice(&addr.port().to_be_bytes());
    input[22..30].copy_from_slice(&handshake_id.to_be_bytes());
    input[30..].copy_from_slice(&minute.to_be_bytes());
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 29_000_000;

    fn key() -> CookieKey {
        CookieKey::new([9; 32])
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Printed by `tests/golden.py`.
    #[test]
    fn cookie_matches_an_independent_hmac() {
        let cookie = key().issue(&addr("192.0.2.7:4810"), 0x0102_0304_0506_0708, MINUTE);
        assert_eq!(
            cookie,
            [0x20, 0xfc, 0x0d, 0xec, 0xf1, 0x59, 0x22, 0x35, 0x3c, 0x98, 0xf1, 0x8e, 0xdd, 0xfe, 0x2d, 0xfe]
        );
    }

    #[test]
    fn cookie_holds_in_its_minute_and_the_next_only() {
        let (from, key) = (addr("192.0.2.7:4810"), key());
        let cookie = key.issue(&from, 1, MINUTE);
        assert!(key.verify(&from, 1, MINUTE, &cookie));
        assert!(key.verify(&from, 1, MINUTE + 1, &cookie));
        assert!(!key.verify(&from, 1, MINUTE + 2, &cookie));
        assert!(!key.verify(&from, 1, MINUTE - 1, &cookie));
        assert!(key.verify(&from, 1, 0, &key.issue(&from, 1, 0)));
    }

    #[test]
    fn stolen_cookie_is_worthless_from_another_address_or_handshake() {
        let key = key();
        let cookie = key.issue(&addr("192.0.2.7:4810"), 1, MINUTE);
        assert!(!key.verify(&addr("192.0.2.8:4810"), 1, MINUTE, &cookie));
        assert!(!key.verify(&addr("192.0.2.7:4811"), 1, MINUTE, &cookie));
        assert!(!key.verify(&addr("[2001:db8::7]:4810"), 1, MINUTE, &cookie));
        assert!(!key.verify(&addr("192.0.2.7:4810"), 2, MINUTE, &cookie));
        let link_local = key.issue(&addr("[fe80::1%1]:4810"), 1, MINUTE);
        assert!(!key.verify(&addr("[fe80::1%2]:4810"), 1, MINUTE, &link_local));
    }

    #[test]
    fn ipv4_and_its_mapped_form_are_one_address() {
        let key = key();
        let cookie = key.issue(&addr("192.0.2.7:4810"), 1, MINUTE);
        assert!(key.verify(&addr("[::ffff:192.0.2.7]:4810"), 1, MINUTE, &cookie));
    }

    #[test]
    fn altered_and_cut_cookies_fail() {
        let (from, key) = (addr("192.0.2.7:4810"), key());
        let cookie = key.issue(&from, 1, MINUTE);
        for bit in 0..COOKIE_LEN * 8 {
            let mut altered = cookie;
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.verify(&from, 1, MINUTE, &altered));
        }
        assert!(!key.verify(&from, 1, MINUTE, &cookie[..15]));
        assert!(!key.verify(&from, 1, MINUTE, &[]));
        assert!(!key.verify(&from, 1, MINUTE, &[cookie, cookie].concat()));
    }

    #[test]
    fn rotation_keeps_one_older_secret() {
        let (from, mut key) = (addr("192.0.2.7:4810"), key());
        let cookie = key.issue(&from, 1, MINUTE);
        key.rotate([10; 32]);
        assert!(key.verify(&from, 1, MINUTE, &cookie));
        assert_ne!(key.issue(&from, 1, MINUTE), cookie);
        key.rotate([11; 32]);
        assert!(!key.verify(&from, 1, MINUTE, &cookie));
    }
}

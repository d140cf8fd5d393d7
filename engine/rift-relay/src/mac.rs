//! The MAC of a forwarded datagram (RELAY-1 §6).
//!
//! Owns the formula. The same one is computed by the peer that sends, by the relay in userspace and by the relay's
//! eBPF program; it needs no session id because each key belongs to one peer of one session.
//!
//! ```text
//! mac = SipHash-2-4(key, LE64(sequence) | LE64(payload length | role << 16 | 0x10 << 24 | 1 << 32))
//! ```

use crate::siphash::{self, SipKey};
use crate::wire::{FORWARD, Role, VERSION};

/// The MAC over what a relay acts upon: sequence, payload length, the sender's role, type and version.
#[inline]
#[must_use]
pub fn forward_mac(key: SipKey, sequence: u64, payload_len: u16, role: Role) -> u64 {
    siphash::hash_words(key, [sequence, header_word(payload_len, role)])
}

/// The second word of the MAC's input.
#[inline]
#[must_use]
pub const fn header_word(payload_len: u16, role: Role) -> u64 {
    payload_len as u64 | (role as u64) << 16 | (FORWARD as u64) << 24 | (VERSION as u64) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_acted_upon_is_covered() {
        let key = siphash::key([3; 16]);
        let mac = forward_mac(key, 7, 1200, Role::Host);
        assert_ne!(mac, forward_mac(key, 8, 1200, Role::Host));
        assert_ne!(mac, forward_mac(key, 7 | 1 << 63, 1200, Role::Host));
        assert_ne!(mac, forward_mac(key, 7, 1201, Role::Host));
        assert_ne!(mac, forward_mac(key, 7, 1200, Role::Client));
        assert_ne!(mac, forward_mac(siphash::key([4; 16]), 7, 1200, Role::Host));
    }

    #[test]
    fn golden_value() {
        let key = siphash::key(std::array::from_fn(|i| i as u8));
        let bytes = [[1, 0, 0, 0, 0, 0, 0, 0], [0xb0, 0x04, 1, 0x10, 1, 0, 0, 0]].concat();
        assert_eq!(forward_mac(key, 1, 1200, Role::Host), siphash::hash(key, &bytes));
    }
}

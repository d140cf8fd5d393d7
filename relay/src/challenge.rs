//! Challenges (RELAY-1 §4): what shows that whoever presents a lease receives where it sends from.
//!
//! Owns the keys. Keeps nothing of what it gave: a challenge is the relay's time and a MAC over it and over who asked for
//! what. `xdp/src/bpf/challenge.h` computes the same; the two are compared through the kernel. Invariant: the time is the
//! relay's own, so proofs have an order and no peer's clock matters.

use std::net::{IpAddr, SocketAddr};

use rift_relay::present::CHALLENGE_LEN;
use rift_relay::siphash::{self, SipKey};
use rift_relay::wire::{Role, SessionId};

/// How long a challenge is good for.
pub const CHALLENGE_LIFE_MS: u64 = 30_000;
/// Bytes that the MAC covers: address, port, session, role, time.
const COVERED_LEN: usize = 43;

/// The keys of one start of a relay, one for each half of the MAC.
#[derive(Clone, Copy, Debug)]
pub struct ChallengeKeys(pub [SipKey; 2]);

impl ChallengeKeys {
    /// Those of a secret that is new with every start.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self([0, 16].map(|at: usize| siphash::key(std::array::from_fn(|i| secret[at + i]))))
    }

    /// The challenge of a moment, in milliseconds of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn give(
        &self,
        from: SocketAddr,
        session: SessionId,
        role: Role,
        time_ms: u64,
    ) -> [u8; CHALLENGE_LEN] {
        let ip = match from.ip().to_canonical() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut covered = [0; COVERED_LEN];
        covered[..16].copy_from_slice(&ip.octets());
        covered[16..18].copy_from_slice(&from.port().to_be_bytes());
        covered[18..34].copy_from_slice(&session.0);
        covered[34] = role as u8;
        covered[35..].copy_from_slice(&time_ms.to_be_bytes());
        let mut out = [0; CHALLENGE_LEN];
        out[..8].copy_from_slice(&time_ms.to_be_bytes());
        for (half, key) in out[8..].chunks_exact_mut(8).zip(self.0) {
            half.copy_from_slice(&siphash::hash(key, &covered).to_be_bytes());
        }
        out
    }

    /// When a challenge was given, if it was, to this address, for this peer, and lately.
    #[must_use]
    pub fn time_of(
        &self,
        now_ms: u64,
        from: SocketAddr,
        session: SessionId,
        role: Role,
        challenge: &[u8; CHALLENGE_LEN],
    ) -> Option<u64> {
        let time_ms = u64::from_be_bytes(*challenge.first_chunk()?);
        let age_ms = now_ms.checked_sub(time_ms)?;
        let ours = self.give(from, session, role, time_ms);
        let differ = ours.iter().zip(challenge).fold(0, |differ, (a, b)| differ | (a ^ b));
        (differ == 0 && age_ms <= CHALLENGE_LIFE_MS).then_some(time_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves RELAY-CHAL-3.
    #[test]
    fn good_from_its_address_for_its_peer_and_its_time_only() {
        let keys = ChallengeKeys::new([7; 32]);
        let (from, session) = ("10.0.0.1:5".parse().unwrap(), SessionId([3; 16]));
        let challenge = keys.give(from, session, Role::Host, 1000);
        let time = |now_ms, from: &str, session, role| {
            keys.time_of(now_ms, from.parse().unwrap(), session, role, &challenge)
        };
        assert_eq!(time(1000, "10.0.0.1:5", session, Role::Host), Some(1000));
        assert_eq!(time(31_000, "[::ffff:10.0.0.1]:5", session, Role::Host), Some(1000));
        assert_eq!(time(31_001, "10.0.0.1:5", session, Role::Host), None);
        assert_eq!(time(999, "10.0.0.1:5", session, Role::Host), None);
        assert_eq!(time(1000, "10.0.0.1:6", session, Role::Host), None);
        assert_eq!(time(1000, "10.0.0.2:5", session, Role::Host), None);
        assert_eq!(time(1000, "10.0.0.1:5", SessionId([4; 16]), Role::Host), None);
        assert_eq!(time(1000, "10.0.0.1:5", session, Role::Client), None);
        for bit in 0..8 * CHALLENGE_LEN {
            let mut other = challenge;
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(keys.time_of(1000, from, session, Role::Host, &other), None);
        }
    }
}

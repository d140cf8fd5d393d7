//! What an address, a network, and all who proved nothing may ask of a relay (RELAY-1 §9).
//!
//! Owns fixed tables. An address gets an entry only after it answered a challenge, so spoofed sources fill nothing; a full
//! set forgets its oldest entry, so a crowd fails open and never locks newcomers out. The last line of defence is the
//! fixed number of verifications per second, not these tables.

use std::net::{IpAddr, SocketAddr};

use rift_relay::siphash::{self, SipKey};

/// Entries that share a place.
const WAYS: usize = 4;
/// Sets of entries, however many sessions there may be: the budget of an address is full again two seconds after its last proof, and then its
/// entry says nothing; so many can be verified meanwhile. Networks are blocked for a minute, but there are fewer that offend.
pub const PROOF_PLACES: usize = 2048;
/// The same for networks.
pub const NETWORK_PLACES: usize = 1024;
/// Span over which violations of a network are counted.
const VIOLATION_SPAN_NS: u64 = 60_000_000_000;
/// How long a network stays blocked.
const BLOCK_NS: u64 = 60_000_000_000;

/// So many per second, with a burst.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    per_second: u32,
    burst: u32,
    level: u64,
    at_ns: u64,
}

impl Budget {
    /// A full budget.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second, burst, level: u64::from(burst) * 1_000_000_000, at_ns: 0 }
    }

    /// Takes one, if there is one.
    #[inline]
    pub fn take(&mut self, now_ns: u64) -> bool {
        let span = now_ns.saturating_sub(self.at_ns).min(10_000_000_000);
        self.at_ns = self.at_ns.max(now_ns);
        let full = u64::from(self.burst) * 1_000_000_000;
        self.level = (self.level + span * u64::from(self.per_second)).min(full);
        let enough = self.level >= 1_000_000_000;
        if enough {
            self.level -= 1_000_000_000;
        }
        enough
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry<V> {
    /// 0 for an empty one.
    key: u64,
    used_ns: u64,
    value: V,
}

#[derive(Debug)]
struct Table<V> {
    secret: SipKey,
    entries: Box<[Entry<V>]>,
}

impl<V: Copy + Default> Table<V> {
    fn new(secret: SipKey, places: usize) -> Self {
        let places = places.max(1).next_power_of_two() * WAYS;
        Self { secret, entries: vec![Entry::default(); places].into_boxed_slice() }
    }

    fn set(&self, prefix: &[u8]) -> (u64, usize) {
        let key = siphash::hash(self.secret, prefix).max(1);
        (key, key as usize % (self.entries.len() / WAYS) * WAYS)
    }

    fn find(&self, prefix: &[u8]) -> Option<&V> {
        let (key, at) = self.set(prefix);
        self.entries[at..at + WAYS].iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The entry of a prefix, made in place of the oldest of its set if there was none.
    fn entry(&mut self, prefix: &[u8], now_ns: u64) -> (&mut V, bool) {
        let (key, at) = self.set(prefix);
        let set = &mut self.entries[at..at + WAYS];
        let index = set.iter().position(|entry| entry.key == key);
        let index = index
            .unwrap_or_else(|| (0..WAYS).min_by_key(|&i| (set[i].key != 0, set[i].used_ns)).unwrap_or(0));
        let entry = &mut set[index];
        let fresh = entry.key != key;
        if fresh {
            *entry = Entry { key, ..Entry::default() };
        }
        entry.used_ns = now_ns;
        (&mut entry.value, fresh)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Violations {
    since_ns: u64,
    count: u32,
    blocked_until_ns: u64,
}

/// The tables of one relay.
#[derive(Debug)]
pub struct AddressLimits {
    proofs: Table<Option<Budget>>,
    networks: Table<Violations>,
    per_second: u32,
    burst: u32,
    violations_max: u32,
}

impl AddressLimits {
    /// Tables with so many sets of four entries, for addresses and for networks; `per_second` proofs and `burst` at once for each IPv4 address or
    /// IPv6 /64; a /24 or /48 is blocked for a minute after `violations_max` within one.
    #[must_use]
    pub fn new(
        secret: SipKey,
        [proofs, networks]: [usize; 2],
        per_second: u32,
        burst: u32,
        violations_max: u32,
    ) -> Self {
        Self {
            proofs: Table::new(secret, proofs),
            networks: Table::new([secret[0] ^ 1, secret[1]], networks),
            per_second,
            burst,
            violations_max,
        }
    }

    /// Whether an address, which answered a challenge, may have a proof looked at.
    pub fn admit(&mut self, now_ns: u64, from: SocketAddr) -> bool {
        let (budget, fresh) = self.proofs.entry(&address_prefix(from.ip()), now_ns);
        if fresh || budget.is_none() {
            let mut new = Budget::new(self.per_second, self.burst);
            new.at_ns = now_ns;
            *budget = Some(new);
        }
        budget.as_mut().is_some_and(|budget| budget.take(now_ns))
    }

    /// Whether the network of an address is blocked.
    #[must_use]
    pub fn is_blocked(&self, now_ns: u64, from: SocketAddr) -> bool {
        self.networks.find(&network_prefix(from.ip())).is_some_and(|seen| now_ns < seen.blocked_until_ns)
    }

    /// An address, which answered a challenge, sent a lease or proof that is wrong.
    pub fn on_violation(&mut self, now_ns: u64, from: SocketAddr) {
        let max = self.violations_max;
        let (seen, _) = self.networks.entry(&network_prefix(from.ip()), now_ns);
        if now_ns.saturating_sub(seen.since_ns) > VIOLATION_SPAN_NS {
            (seen.since_ns, seen.count) = (now_ns, 0);
        }
        seen.count += 1;
        if seen.count >= max {
            seen.blocked_until_ns = now_ns + BLOCK_NS;
        }
    }
}

/// The whole IPv4 address, or the /64 of an IPv6 one.
fn address_prefix(ip: IpAddr) -> [u8; 9] {
    prefix(ip, 4, 8)
}

/// The /24 of an IPv4 address, or the /48 of an IPv6 one.
fn network_prefix(ip: IpAddr) -> [u8; 9] {
    prefix(ip, 3, 6)
}

fn prefix(ip: IpAddr, v4: usize, v6: usize) -> [u8; 9] {
    let mut out = [0; 9];
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            out[0] = 4;
            out[1..=v4].copy_from_slice(&ip.octets()[..v4]);
        }
        IpAddr::V6(ip) => {
            out[0] = 6;
            out[1..=v6].copy_from_slice(&ip.octets()[..v6]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn limits() -> AddressLimits {
        AddressLimits::new([1, 2], [64, 64], 5, 10, 100)
    }

    fn v4(n: u32) -> SocketAddr {
        SocketAddr::from((n.to_be_bytes(), 1000))
    }

    #[test]
    fn an_address_has_its_rate_and_its_burst() {
        let mut limits = limits();
        let admitted = (0..100).filter(|_| limits.admit(SECOND, v4(7))).count();
        assert_eq!(admitted, 10);
        assert!(limits.admit(SECOND, v4(8)), "another address is not concerned");
        assert_eq!((0..100).filter(|_| limits.admit(2 * SECOND, v4(7))).count(), 5);
    }

    #[test]
    fn one_64_is_one_address_and_mapped_is_v4() {
        let mut limits = limits();
        let v6 = |text: &str| SocketAddr::new(text.parse().unwrap(), 1);
        for n in 0..10 {
            assert!(limits.admit(SECOND, v6(&format!("2001:db8::{n:x}"))));
        }
        assert!(!limits.admit(SECOND, v6("2001:db8::ffff:1:2")));
        assert!(limits.admit(SECOND, v6("2001:db8:0:1::1")));
        assert_eq!((0..20).filter(|_| limits.admit(SECOND, v4(0x0a00_0001))).count(), 10);
        assert!(!limits.admit(SECOND, v6("::ffff:10.0.0.1")));
    }

    /// Proves RELAY-LIMIT-3: the published table locked newcomers out once it was full.
    #[test]
    fn full_address_table_lets_newcomers_in() {
        let mut limits = limits();
        for n in 0..1_000_000 {
            assert!(limits.admit(SECOND, v4(n)));
        }
        assert!((2_000_000..2_001_000).all(|n| limits.admit(SECOND, v4(n))));
    }

    #[test]
    fn a_network_is_blocked_for_violations_and_for_a_minute() {
        let mut limits = limits();
        for n in 0..100 {
            assert!(!limits.is_blocked(SECOND, v4(0x0a00_0005)));
            limits.on_violation(SECOND, v4(0x0a00_0000 + n));
        }
        assert!(limits.is_blocked(SECOND, v4(0x0a00_00ff)));
        assert!(!limits.is_blocked(SECOND, v4(0x0a00_0100)));
        assert!(!limits.is_blocked(62 * SECOND, v4(0x0a00_0005)));
    }
}

//! What the maps of the relay's program hold, as bytes: the same as `src/bpf/relay.h`, in Rust.
//!
//! Owns offsets. Never interprets. Bytes are the machine's own, but for addresses and ports, which are the network's.

use std::net::{IpAddr, SocketAddr};

use crate::netlink::Mac;

/// Bytes of the key of a session.
pub(super) const ID_LEN: usize = 16;
/// Bytes of `struct session`.
pub(super) const SESSION_LEN: usize = 128;
/// Those of its id and word.
const SESSION_HEAD: usize = ID_LEN + 4;
/// Bytes of `struct bucket`.
pub(super) const BUCKET_LEN: usize = 8 * PLACES;
/// Places of a bucket.
pub(super) const PLACES: usize = 8;
/// Bytes of `struct state`.
pub(super) const STATE_LEN: usize = 64;
/// Bytes of `struct way`.
pub(super) const WAY_LEN: usize = 36;

/// `vlan` of a way without a tag.
const VLAN_NONE: u16 = 0xffff;
const WORD_GENERATION_BITS: u32 = 0x7fff;
const WORD_ENTERED: u32 = 0x8000;
const WORD_CHANGES_AT: u32 = 16;
const LOCKED: u64 = 1 << 63;
const GENERATION_AT: u32 = 48;
const NEXT_BITS: u64 = (1 << GENERATION_AT) - 1;

/// One of the two peers of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// The way to it.
    pub way: u16,
}

/// What the lease of a peer says about what it sends. Its buckets are as deep as [`Flow::hard_depth`] and [`Flow::soft_depth`] say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Of the MAC.
    pub key: [u64; 2],
    /// When it ends, `CLOCK_MONOTONIC`.
    pub expires_ns: u64,
    /// Short-term rate, bytes per second.
    pub hard_rate: u32,
    /// Average rate, bytes per second.
    pub soft_rate: u32,
}

/// A session. Both peers are of one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Where its states are.
    pub slot: u32,
    /// Of its states; 0: its datagrams go up.
    pub generation: u16,
    /// Client and host.
    pub peers: [Peer; 2],
    /// What each sends.
    pub flows: [Flow; 2],
}

/// What a direction remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Highest sequence that passed plus one, below 2^48; 0 before any.
    pub next: u64,
    /// Which of the sequences below passed.
    pub seen: [u64; 4],
    /// When the buckets were filled, `CLOCK_MONOTONIC`.
    pub refilled_ns: u64,
    /// What the short-term bucket holds, billionths of a byte.
    pub hard: u64,
    /// What the average's bucket holds.
    pub soft: u64,
}

/// How frames to a neighbour leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Number of the device.
    pub device: u32,
    /// Tag of its frames, if they have one.
    pub vlan: Option<u16>,
    /// Largest IP packet.
    pub mtu: u16,
    /// The neighbour's Ethernet address.
    pub to_mac: Mac,
    /// The device's.
    pub from_mac: Mac,
    /// Source address of what leaves, and destination of what comes from there.
    pub source: IpAddr,
}

/// A burst at least: one frame's burst of the stream protocol (128 kB) in datagrams with headers of the relay.
pub const BURST_MIN: u32 = 144 * 1024;
/// Parts of a second that the short-term bucket is deep: 5 ms, so that no 100 ms pass more than 5 % above the rate once the
/// burst is used up.
const HARD_DEPTH_PARTS: u32 = 200;
/// So that a full bucket plus two seconds of the highest rate fit 64 bits of nano-bytes.
const DEPTH_MAX: u32 = 1 << 30;

impl Flow {
    /// Depth of the short-term bucket, bytes: follows from the rate, so that no memory is read for it.
    #[must_use]
    pub fn hard_depth(hard_rate: u32) -> u32 {
        (hard_rate / HARD_DEPTH_PARTS).clamp(BURST_MIN, DEPTH_MAX)
    }

    /// Depth of the average's bucket, bytes: a second's.
    #[must_use]
    pub fn soft_depth(soft_rate: u32) -> u32 {
        soft_rate.clamp(BURST_MIN, DEPTH_MAX)
    }
}

/// Fills bytes from the front.
struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        let (head, tail) = std::mem::take(&mut self.0).split_at_mut(bytes.len());
        head.copy_from_slice(bytes);
        self.0 = tail;
        self
    }
}

/// `struct address`: IPv6, or IPv4 mapped into it.
pub(super) fn address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

impl Session {
    /// All but its id and word.
    pub(super) fn encode(&self) -> [u8; SESSION_LEN] {
        let mut bytes = [0; SESSION_LEN];
        let mut out = Writer(&mut bytes[SESSION_HEAD..]);
        for peer in &self.peers {
            out.put(&address(peer.address.ip()))
                .put(&peer.address.port().to_be_bytes())
                .put(&peer.way.to_ne_bytes());
        }
        out.put(&[0; 4]);
        for flow in &self.flows {
            out.put(&flow.key[0].to_ne_bytes())
                .put(&flow.key[1].to_ne_bytes())
                .put(&flow.expires_ns.to_ne_bytes())
                .put(&flow.hard_rate.to_ne_bytes())
                .put(&flow.soft_rate.to_ne_bytes());
        }
        bytes
    }
}

/// `word` of a session in the map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    /// Of the states; 0: userspace carries it.
    pub(super) generation: u16,
    /// A bucket says that it is here.
    pub(super) is_entered: bool,
    /// Counts changes.
    pub(super) changes: u16,
}

impl Word {
    pub(super) fn of(session: &[u8; SESSION_LEN]) -> Self {
        let word = number(&session[ID_LEN..]);
        Self {
            generation: (word & WORD_GENERATION_BITS) as u16,
            is_entered: word & WORD_ENTERED != 0,
            changes: (word >> WORD_CHANGES_AT) as u16,
        }
    }

    pub(super) fn write_to(self, session: &mut [u8; SESSION_LEN]) {
        let word = u32::from(self.generation) & WORD_GENERATION_BITS
            | u32::from(self.is_entered) << WORD_ENTERED.trailing_zeros()
            | u32::from(self.changes) << WORD_CHANGES_AT;
        session[ID_LEN..SESSION_HEAD].copy_from_slice(&word.to_ne_bytes());
    }
}

/// The 32-bit word that bytes begin with; 0 if they are too few.
pub(super) fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |word| u32::from_ne_bytes(*word))
}

impl State {
    pub(super) fn encode(&self, generation: u16) -> [u8; STATE_LEN] {
        let mut bytes = [0; STATE_LEN];
        let head = u64::from(generation) << GENERATION_AT & !LOCKED | self.next & NEXT_BITS;
        let mut out = Writer(&mut bytes);
        out.put(&head.to_ne_bytes());
        for word in self.seen.iter().chain([&self.refilled_ns, &self.hard, &self.soft]) {
            out.put(&word.to_ne_bytes());
        }
        bytes
    }

    /// `None` while it is locked.
    pub(super) fn decode(bytes: &[u8; STATE_LEN]) -> Option<Self> {
        let head = word(bytes, 0);
        (head & LOCKED == 0).then(|| Self {
            next: head & NEXT_BITS,
            seen: std::array::from_fn(|index| word(bytes, 1 + index)),
            refilled_ns: word(bytes, 5),
            hard: word(bytes, 6),
            soft: word(bytes, 7),
        })
    }

    pub(super) fn refilled_ns(bytes: &[u8; STATE_LEN]) -> u64 {
        word(bytes, 5)
    }
}

/// The 64-bit word with this index; 0 beyond the end.
pub(super) fn word(bytes: &[u8], index: usize) -> u64 {
    bytes.get(index * 8..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from_ne_bytes(*word))
}

impl Way {
    pub(super) fn encode(&self) -> [u8; WAY_LEN] {
        let mut bytes = [0; WAY_LEN];
        Writer(&mut bytes)
            .put(&self.device.to_ne_bytes())
            .put(&self.vlan.unwrap_or(VLAN_NONE).to_ne_bytes())
            .put(&self.mtu.to_ne_bytes())
            .put(&self.to_mac)
            .put(&self.from_mac)
            .put(&address(self.source));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_comes_back() {
        let mut bytes = [0; SESSION_LEN];
        for word in [
            Word::default(),
            Word { generation: super::super::GENERATION_MAX, is_entered: true, changes: u16::MAX },
            Word { generation: 1, is_entered: false, changes: 2 },
        ] {
            word.write_to(&mut bytes);
            assert_eq!(Word::of(&bytes), word);
        }
    }

    #[test]
    fn a_state_comes_back_and_a_locked_one_does_not() {
        let state =
            State { next: (1 << 48) - 1, seen: [1, 2, 3, u64::MAX], refilled_ns: 5, hard: 6, soft: 7 };
        let mut bytes = state.encode(super::super::GENERATION_MAX);
        assert_eq!(State::decode(&bytes), Some(state));
        assert_eq!(State::refilled_ns(&bytes), 5);
        let head = word(&bytes, 0) | LOCKED;
        bytes[..8].copy_from_slice(&head.to_ne_bytes());
        assert_eq!(State::decode(&bytes), None);
    }
}

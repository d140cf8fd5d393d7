//! Whether the kernel merges what arrives (`UDP_GRO`), by what merging brings.
//!
//! Owns the estimate and the decision; sets no option itself. Datagrams of one sender that come together arrive as one
//! batch and cost a fraction. Where senders take turns there is nothing to merge, and the search for it costs every datagram:
//! its checksum is verified early, and it waits among others for one to join.
//!
//! While the kernel merges, the mean length of batches tells what it brings. While it does not, the mean length of the
//! batches that there might be: a datagram belongs to one if its sender's last came at most [`TOGETHER_NS`] before. That
//! they do not merge then (each was received before the next came) is seen only by trying; a trial that brought nothing doubles
//! the time until the next.
//!
//! The kernel tells seams only while it merges (udp(7)): batches that wait in the socket when the option goes off arrive as
//! one datagram. Until the socket was seen empty their seams are found in what they carry ([`Merge::ByLoad`]).

#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use crate::transport::Received;

/// Whether the kernel may merge datagrams of one sender that arrive together.
#[derive(Clone, Copy, Debug)]
pub enum Merge {
    /// Always: for a transport with few peers.
    Always,
    /// While it brings something: for one with many, who may take turns.
    ByLoad {
        /// Where the second datagram begins, if there is one: of what may be several datagrams of equal length, the last perhaps
        /// shorter. Asked only for what the kernel had merged already when it was told to stop.
        seam: fn(&[u8]) -> Option<usize>,
    },
}

/// Datagrams on which a decision rests: a few milliseconds where it matters.
const SPAN: u32 = 1024;
/// Mean length of batches below which the kernel stops merging, and of possible ones from which on it tries to.
const STOP_BELOW: u32 = 2;
const TRY_FROM: u32 = 4;
/// Datagrams of a sender at this distance might merge: its burst, and not its pace.
const TOGETHER_NS: u64 = 20_000;
/// Spans to wait after a trial that brought nothing, at most.
const PAUSE_MAX: u32 = 64;
/// Senders that are told apart; a power of two.
const SENDERS: usize = 256;
/// A request that received fewer datagrams at once and goes on has found the socket empty: the kernel interrupts one after
/// 32 (`MULTISHOT_MAX_RETRY`, `io_uring/net.c`).
const EMPTY_BELOW: u16 = 32;
/// Batches that a socket's queue can hold: what was merged is received after so many, even if it never seemed empty.
const QUEUE_MAX: u32 = 1 << 15;

/// What is known of a sender: that it is the one, and when its last datagram was received.
#[derive(Clone, Copy, Default)]
struct Sender {
    hash: u64,
    at_ns: u64,
}

/// See the module.
pub(super) struct Merging {
    seam: fn(&[u8]) -> Option<usize>,
    on: bool,
    datagrams: u32,
    /// Real batches, or possible ones.
    batches: u32,
    /// Spans since the kernel began or stopped to merge.
    age: u32,
    /// Spans until the next trial, and how long the next pause is.
    pause: u32,
    next_pause: u32,
    now_ns: u64,
    senders: Box<[Sender; SENDERS]>,
    /// Batches that may yet arrive without their seams, at most.
    residue: u32,
}

impl Merging {
    /// The kernel merges at first.
    pub(super) fn new(seam: fn(&[u8]) -> Option<usize>) -> Self {
        Self {
            seam,
            on: true,
            datagrams: 0,
            batches: 0,
            age: 0,
            pause: 0,
            next_pause: 1,
            now_ns: 0,
            senders: Box::new([Sender::default(); SENDERS]),
            residue: 0,
        }
    }

    /// Whether the time is needed with the next entry.
    #[inline]
    pub(super) fn wants_time(&self) -> bool {
        !self.on
    }

    /// A kernel entry brought so many batches by `now_ns`, so many wait to be received, and the request goes on or ended.
    #[inline]
    pub(super) fn on_entered(&mut self, now_ns: u64, batches: u16, waiting: u32, goes_on: bool) {
        self.now_ns = now_ns;
        if self.residue > 0 && goes_on && (1..EMPTY_BELOW).contains(&batches) {
            // These are the last.
            self.residue = waiting;
        }
    }

    /// Looks at what arrived; gives it its seams if the kernel did not.
    #[inline]
    pub(super) fn on_received(&mut self, received: &mut Received<'_>) {
        if self.residue > 0 {
            self.residue -= 1;
            if received.count() == 1
                && let Some(at) = (self.seam)(received.data)
                && at > 0
            {
                received.segment_len = at;
            }
        }
        self.datagrams += received.count().max(1) as u32;
        self.batches += u32::from(self.on || !self.is_together(received.from));
    }

    /// What the kernel is to do from now on, if something else than before. Told with [`done`](Self::done).
    #[inline]
    pub(super) fn decide(&mut self) -> Option<bool> {
        (self.datagrams >= SPAN).then(|| self.decide_span()).flatten()
    }

    fn decide_span(&mut self) -> Option<bool> {
        let batches = self.batches.max(1);
        let (few, many) = (self.datagrams < STOP_BELOW * batches, self.datagrams >= TRY_FROM * batches);
        (self.datagrams, self.batches) = (0, 0);
        self.age = self.age.saturating_add(1);
        if self.on {
            return few.then_some(false);
        }
        self.pause = self.pause.saturating_sub(1);
        (many && self.pause == 0).then_some(true)
    }

    /// The kernel does as decided.
    pub(super) fn done(&mut self, on: bool) {
        if !on {
            // Merging that lasted was worth it.
            self.next_pause = if self.age > 1 { 1 } else { (self.next_pause * 2).min(PAUSE_MAX) };
            self.pause = self.next_pause;
            self.residue = QUEUE_MAX;
        }
        (self.on, self.age) = (on, 0);
        (self.datagrams, self.batches) = (0, 0);
    }

    /// Whether the sender's last datagram came just before; remembers this one.
    #[inline]
    fn is_together(&mut self, from: SocketAddr) -> bool {
        let hash = hash_of(from);
        let sender = &mut self.senders[(hash >> 56) as usize % SENDERS];
        let together = sender.hash == hash && self.now_ns.saturating_sub(sender.at_ns) <= TOGETHER_NS;
        *sender = Sender { hash, at_ns: self.now_ns };
        together
    }
}

/// Senders who arrange that theirs collide are taken for others and change a decision, which costs little either way.
#[inline]
fn hash_of(from: SocketAddr) -> u64 {
    let address = match from.ip() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64 ^ ip.to_bits() as u64,
    };
    (address ^ u64::from(from.port()) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Ecn, TrafficClass};

    fn seam(data: &[u8]) -> Option<usize> {
        data.get(1..)?.iter().position(|&byte| byte == data[0]).map(|at| at + 1)
    }

    fn receive(merging: &mut Merging, port: u16, data: &mut [u8], segment_len: usize) -> usize {
        let from = SocketAddr::from(([10, 0, 0, 1], port));
        let (ecn, class) = (Ecn::NotEct, TrafficClass::BestEffort);
        let mut received = Received { from, to: None, ecn, class, data, segment_len, arrival_ns: None };
        merging.on_received(&mut received);
        received.segment_len
    }

    /// Entries with one datagram each of so many senders, or batches of `merged` while the kernel merges; what was decided.
    fn entries(merging: &mut Merging, count: u32, gap_ns: u64, senders: u16, merged: usize) -> Vec<bool> {
        let mut decided = Vec::new();
        for number in 0..count {
            let now_ns = merging.now_ns + gap_ns;
            merging.on_entered(now_ns, senders, senders.into(), true);
            for port in 0..senders {
                let len = if merging.on { merged } else { 1 };
                receive(merging, port, &mut vec![0; len], 1);
            }
            if let Some(on) = merging.decide() {
                merging.done(on);
                decided.push(on);
                assert!(number > 0, "not at once");
            }
        }
        decided
    }

    #[test]
    fn senders_who_take_turns_end_merging_and_a_burst_brings_it_back() {
        let mut merging = Merging::new(|_| None);
        assert!(entries(&mut merging, 2000, 100_000, 4, 8).is_empty(), "batches of eight stay");
        assert_eq!(entries(&mut merging, 2000, 200_000, 64, 1), [false], "64 in turn: once, and for good");
        // One sender whose datagrams come 5 us apart, and merge.
        assert_eq!(entries(&mut merging, 5000, 5_000, 1, 16), [true]);
    }

    #[test]
    fn a_trial_that_brings_nothing_is_repeated_ever_later() {
        let mut merging = Merging::new(|_| None);
        // Close enough to merge, but never merged.
        let decided = entries(&mut merging, SPAN * 200, 5_000, 1, 1);
        assert!((10..20).contains(&decided.len()), "{}", decided.len());
        assert_eq!(merging.next_pause, PAUSE_MAX);
        // A span that merges makes up for it.
        let many = entries(&mut merging, SPAN * 200, 5_000, 1, 8);
        assert_eq!(many, if merging.on && decided.last() == Some(&true) { vec![] } else { vec![true] });
        assert_eq!(entries(&mut merging, SPAN * 2, 100_000, 1, 1), [false]);
        assert_eq!(merging.next_pause, 1);
    }

    #[test]
    fn senders_at_their_pace_are_not_tried() {
        let mut merging = Merging::new(|_| None);
        assert_eq!(entries(&mut merging, SPAN * 20, TOGETHER_NS + 1, 1, 1), [false]);
    }

    #[test]
    fn what_was_merged_before_gets_its_seams_until_the_socket_was_empty() {
        let mut merging = Merging::new(seam);
        let mut several = *b"a12a34a5";
        assert_eq!(receive(&mut merging, 1, &mut several, 8), 8, "while the kernel merges it says so itself");
        merging.done(false);
        assert_eq!(receive(&mut merging, 1, &mut several, 8), 3);
        assert_eq!(receive(&mut merging, 1, &mut b"a12".to_owned(), 3), 3, "one is one");
        merging.on_entered(0, EMPTY_BELOW, EMPTY_BELOW.into(), true);
        merging.on_entered(0, 2, 2, false);
        assert_eq!(receive(&mut merging, 1, &mut several, 8), 3, "there may be more");
        merging.on_entered(0, 2, 2, true);
        assert_eq!([(); 3].map(|()| receive(&mut merging, 1, &mut several, 8)), [3, 3, 8]);
    }
}

//! What all streams of a run have in common: time, what is to come, and the two queues that they share.
//!
//! Owns packets while they are under way and the account of whose they were. Invariant: a packet that is handed
//! over is delivered, lost or still under way, and its record says which.

use std::net::SocketAddrV4;

use rift_core::Timestamp;
use rift_core::endpoint::Ecn;

use super::{Event, Side};
use crate::check::Violations;
use crate::cross::CrossPacket;
use crate::fingerprint::Fingerprint;
use crate::link::{Fate, IP_UDP_HEADER_LEN, Link, LinkConfig};
use crate::queue::EventQueue;
use crate::report::{PacketRecord, PathCounters};

/// Buffer for one departure: what the largest GSO send holds.
const BUFFER_LEN: usize = 65_536;

/// In [`EventQueue`]: for each [`Way`] what leaves its queue and what arrives.
const LANES: usize = 4;

/// Which of the two queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// `down` of the scenario.
    Down,
    /// `up` of the scenario.
    Up,
}

/// A packet under way.
pub(super) enum Load {
    Datagram {
        pair: usize,
        to: Side,
        from: SocketAddrV4,
        at: SocketAddrV4,
        datagram: Vec<u8>,
        /// Of the packet's record.
        record: usize,
        /// Beyond the delay of the path, in microseconds.
        delay_us: u64,
    },
    Cross {
        source: usize,
        packet: CrossPacket,
        delay_us: u64,
    },
}

/// One direction of the path.
struct Path {
    link: Link<Load>,
    /// When the next packet is known to leave its queue.
    left: Timestamp,
}

/// What a pair put on the path, by the side that it came from.
#[derive(Default)]
pub(super) struct Account {
    pub(super) counters: [PathCounters; 2],
    pub(super) records: [Vec<PacketRecord>; 2],
}

/// What all streams have in common.
pub(super) struct Stage {
    pub(super) now: Timestamp,
    pub(super) queue: EventQueue<Event, LANES>,
    paths: [Path; 2],
    pub(super) accounts: Vec<Account>,
    pub(super) violations: Violations,
    pub(super) log: Fingerprint,
    /// An endpoint never came to an end.
    pub(super) halted: bool,
    pub(super) buffer: Vec<u8>,
    /// Of datagrams that have come to their end, for the next.
    spare: Vec<Vec<u8>>,
}

impl Stage {
    pub(super) fn new(down: LinkConfig, up: LinkConfig, seeds: [u64; 2], pairs: usize) -> Self {
        let path = |config, seed| Path { link: Link::new(config, seed), left: Timestamp::NEVER };
        Self {
            now: Timestamp::ZERO,
            queue: EventQueue::new(),
            paths: [path(down, seeds[0]), path(up, seeds[1])],
            accounts: (0..pairs).map(|_| Account::default()).collect(),
            violations: Violations::default(),
            log: Fingerprint::new(),
            halted: false,
            buffer: vec![0; BUFFER_LEN],
            spare: Vec::new(),
        }
    }

    pub(super) fn link(&self, way: Way) -> &Link<Load> {
        &self.paths[way as usize].link
    }

    pub(super) fn push(&mut self, after_us: u64, event: Event) {
        self.queue.push(self.now.plus_micros(after_us), event);
    }

    pub(super) fn note(&mut self, tag: u64, value: u64) {
        self.log.add(self.now.as_micros());
        self.log.add(tag << 56 ^ value);
    }

    pub(super) fn reconfigure(&mut self, way: Way, config: LinkConfig) {
        self.paths[way as usize].link.reconfigure(self.now, config);
        self.drain(way);
    }

    /// Puts a datagram of `pair` on the path to `to`.
    #[allow(clippy::too_many_arguments, reason = "all of it is the datagram")]
    pub(super) fn send(
        &mut self,
        way: Way,
        (pair, to): (usize, Side),
        (from, at): (SocketAddrV4, SocketAddrV4),
        ecn: Ecn,
        datagram: &[u8],
        delay_us: u64,
    ) {
        let len = datagram.len();
        let by = to.other() as usize;
        let account = &mut self.accounts[pair];
        let wire_bytes = len as u64 + IP_UDP_HEADER_LEN;
        account.counters[by].packets += 1;
        account.counters[by].wire_bytes += wire_bytes;
        let record = account.records[by].len();
        account.records[by].push(PacketRecord {
            sent_us: self.now.as_micros(),
            arrived_us: PacketRecord::UNDER_WAY,
            wire_bytes: wire_bytes as u32,
        });
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.extend_from_slice(datagram);
        let load = Load::Datagram { pair, to, from, at, datagram: copy, record, delay_us };
        if let Err(load) = self.paths[way as usize].link.send(self.now, len, ecn, load) {
            self.on_gone(load);
        }
        self.drain(way);
    }

    /// Puts a packet of cross traffic on the path.
    pub(super) fn send_cross(&mut self, way: Way, source: usize, packet: CrossPacket, delay_us: u64) {
        let len = packet.wire_bytes.saturating_sub(IP_UDP_HEADER_LEN) as usize;
        let load = Load::Cross { source, packet, delay_us };
        // Whoever sent it notices by himself that it is gone.
        let _ = self.paths[way as usize].link.send(self.now, len, Ecn::NotEct, load);
        self.drain(way);
    }

    /// A packet has left the queue.
    pub(super) fn on_left(&mut self, way: Way) {
        self.paths[way as usize].left = Timestamp::NEVER;
        self.drain(way);
    }

    /// Lets packets fly that have left the queue.
    fn drain(&mut self, way: Way) {
        let (leaving, arriving) = (way as usize * 2, way as usize * 2 + 1);
        while let Some((load, fate)) = self.paths[way as usize].link.poll(self.now) {
            let Fate::Arrives { at: when, again, flipped_bit, ecn } = fate else {
                self.on_gone(load);
                continue;
            };
            match load {
                Load::Cross { source, packet, delay_us } => {
                    let event = Event::CrossArrived { source, packet };
                    self.queue.push_in_line(arriving, when.plus_micros(delay_us), event);
                }
                Load::Datagram { pair, to, from, at, mut datagram, record, delay_us } => {
                    let account = &mut self.accounts[pair];
                    let by = to.other() as usize;
                    let when = when.plus_micros(delay_us);
                    account.records[by][record].arrived_us = when.as_micros();
                    account.counters[by].arrived_wire_bytes +=
                        u64::from(account.records[by][record].wire_bytes);
                    let deliver =
                        |datagram| Event::Deliver { pair, to, from, at, datagram, ecn, genuine: true };
                    if let Some(again) = again {
                        self.queue.push(again.plus_micros(delay_us), deliver(datagram.clone()));
                    }
                    if let Some(bit) = flipped_bit {
                        datagram[bit / 8] ^= 1 << (bit % 8);
                        // For whoever waits for it, it is lost.
                        account.records[by][record].arrived_us = PacketRecord::LOST;
                    }
                    self.queue.push_in_line(arriving, when, deliver(datagram));
                }
            }
        }
        let path = &mut self.paths[way as usize];
        let at = path.link.poll_at();
        if at < path.left {
            path.left = at;
            self.queue.push_in_line(leaving, at, Event::Left(way));
        }
    }

    /// Takes a datagram that is at its end.
    pub(super) fn recycle(&mut self, mut datagram: Vec<u8>) {
        datagram.clear();
        self.spare.push(datagram);
    }

    fn on_gone(&mut self, load: Load) {
        if let Load::Datagram { pair, to, record, datagram, .. } = load {
            let account = &mut self.accounts[pair];
            let by = to.other() as usize;
            account.counters[by].gone += 1;
            account.records[by][record].arrived_us = PacketRecord::LOST;
            self.recycle(datagram);
        }
    }
}

//! Traffic of others on the same queues: bulk transfers, web downloads, and whatever sends at a rate.
//!
//! Models of senders and receivers, not of routers; what becomes of their packets the link decides. They begin and
//! end by the scenario. Acknowledgements come back over a path that never is congested. Invariant: time and
//! seed decide every packet.

mod cbr;
mod cubic;
mod hystart;
mod tcp;
mod web;

use rift_core::{Bitrate, Timestamp};

use cbr::Cbr;
pub use tcp::TcpCounters;
use tcp::{Tcp, TcpConfig};
use web::Web;

/// Bytes of a full packet of any kind of cross traffic on the wire: an Ethernet payload.
pub const WIRE_BYTES: u64 = 1_500;
/// TCP payload of a full packet, behind IPv4 and TCP headers with timestamps.
pub const SEGMENT_BYTES: u64 = 1_448;

/// Somebody else's traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossConfig {
    /// What it is.
    pub kind: CrossKind,
    /// When it begins, in microseconds.
    pub start_us: u64,
    /// When it ends, in microseconds; never where `None`. What is under way then still arrives.
    pub stop_us: Option<u64>,
    /// Propagation delay beyond that of the path, each way, in microseconds.
    pub delay_us: u64,
    /// From client to host, not from host to client.
    pub reverse: bool,
}

/// What kind of traffic it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CrossKind {
    /// A transfer without end, with CUBIC (RFC 9438).
    Cubic {
        /// Whether slow start ends at growing delay (RFC 9406), not only at losses.
        hystart: bool,
    },
    /// Downloads that come by chance (Poisson), each over a connection of its own that begins in slow start.
    Web {
        /// Time between arrivals on average, in microseconds.
        every_us: u64,
        /// Size on average, in bytes; Pareto-distributed with shape 1.5, cut at a hundred times this.
        bytes: u64,
    },
    /// Packets at a constant rate.
    Cbr {
        /// Headers included.
        rate: Bitrate,
        /// For so long in microseconds, and ...
        on_us: u64,
        /// ... then nothing for so long; without pause where 0.
        off_us: u64,
    },
}

/// A packet of cross traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrossPacket {
    /// Bytes on the wire.
    pub wire_bytes: u64,
    /// Which connection of its source it belongs to.
    pub connection: u32,
    /// Which transmission of that connection it is.
    pub number: u64,
}

/// What a source did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrossCounters {
    /// Packets sent.
    pub packets: u64,
    /// Packets among them that arrived.
    pub arrived: u64,
    /// Bytes on the wire of those that arrived.
    pub arrived_bytes: u64,
    /// Downloads that are complete.
    pub downloads: u64,
}

/// A source of cross traffic with its receiver.
#[derive(Debug)]
pub struct Cross {
    config: CrossConfig,
    kind: Kind,
    counters: CrossCounters,
}

#[derive(Debug)]
enum Kind {
    Cubic(Box<Tcp>),
    Web(Box<Web>),
    Cbr(Cbr),
}

impl Cross {
    /// A source that has not begun. `rtt_us` is the round trip without queues; `seed` decides all that comes by
    /// chance.
    #[must_use]
    pub fn new(config: &CrossConfig, rtt_us: u64, seed: u64) -> Self {
        let start = Timestamp::from_micros(config.start_us);
        let stop = config.stop_us.map_or(Timestamp::NEVER, Timestamp::from_micros);
        let kind = match config.kind {
            CrossKind::Cubic { hystart } => {
                Kind::Cubic(Box::new(Tcp::new(TcpConfig { hystart, segments: None }, start, stop)))
            }
            CrossKind::Web { every_us, bytes } => {
                Kind::Web(Box::new(Web::new(every_us, bytes, rtt_us, start, stop, seed)))
            }
            CrossKind::Cbr { rate, on_us, off_us } => Kind::Cbr(Cbr::new(rate, on_us, off_us, start, stop)),
        };
        Self { config: *config, kind, counters: CrossCounters::default() }
    }

    /// What it is.
    #[must_use]
    pub fn config(&self) -> &CrossConfig {
        &self.config
    }

    /// What it did so far.
    #[must_use]
    pub fn counters(&self) -> CrossCounters {
        let downloads = if let Kind::Web(web) = &self.kind { web.done() } else { 0 };
        CrossCounters { downloads, ..self.counters }
    }

    /// When [`poll_packet`](Self::poll_packet) should be asked again if nothing arrives.
    #[must_use]
    pub fn poll_at(&self) -> Timestamp {
        match &self.kind {
            Kind::Cubic(tcp) => tcp.poll_at(),
            Kind::Web(web) => web.poll_at(),
            Kind::Cbr(cbr) => cbr.poll_at(),
        }
    }

    /// The next packet that leaves at `now`.
    pub fn poll_packet(&mut self, now: Timestamp) -> Option<CrossPacket> {
        let packet = match &mut self.kind {
            Kind::Cubic(tcp) => tcp.poll_packet(now).map(|number| CrossPacket {
                wire_bytes: WIRE_BYTES,
                connection: 0,
                number,
            }),
            Kind::Web(web) => web.poll_packet(now),
            Kind::Cbr(cbr) => cbr.poll_packet(now),
        };
        self.counters.packets += u64::from(packet.is_some());
        packet
    }

    /// `packet` has arrived at its receiver. True if the sender is told of it, a way back later.
    pub fn on_arrived(&mut self, packet: &CrossPacket) -> bool {
        self.counters.arrived += 1;
        self.counters.arrived_bytes += packet.wire_bytes;
        !matches!(self.kind, Kind::Cbr(_))
    }

    /// The sender is told that `packet` has arrived.
    pub fn on_acknowledged(&mut self, now: Timestamp, packet: &CrossPacket) {
        match &mut self.kind {
            Kind::Cubic(tcp) => tcp.on_acknowledged(now, packet.number),
            Kind::Web(web) => web.on_acknowledged(now, packet),
            Kind::Cbr(_) => {}
        }
    }

    /// Whether its share of the path follows from what others leave it, and how much it takes otherwise.
    #[must_use]
    pub fn demand(&self, now: Timestamp) -> Demand {
        let at = now.as_micros();
        let is_on = at >= self.config.start_us && self.config.stop_us.is_none_or(|stop| at < stop);
        match &self.kind {
            _ if !is_on => Demand::None,
            Kind::Cubic(_) => Demand::Share,
            Kind::Web(web) if web.is_busy() => Demand::Share,
            Kind::Web(_) => Demand::None,
            Kind::Cbr(cbr) => cbr.rate_at(now).map_or(Demand::None, Demand::Rate),
        }
    }
}

/// What a source wants of a path at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Nothing.
    None,
    /// As much as everybody else.
    Share,
    /// So much, whatever there is.
    Rate(Bitrate),
}

#[cfg(test)]
pub(crate) mod bench {
    //! A bottleneck for tests of senders: one queue, drop-tail.

    use super::*;
    use crate::link::{Capacity, Fate, Link, LinkConfig, QueueLimit};
    use crate::loss::Loss;
    use crate::queue::EventQueue;
    use rift_core::endpoint::Ecn;

    /// What came out.
    pub(crate) struct Outcome {
        /// Bytes that arrived in each second, of each source.
        pub(crate) per_second: Vec<Vec<u64>>,
        /// The longest wait in each second, in microseconds.
        pub(crate) wait_us: Vec<u64>,
        pub(crate) counters: Vec<CrossCounters>,
        pub(crate) dropped: u64,
    }

    enum Event {
        Left,
        Arrived(usize, CrossPacket),
        Acked(usize, CrossPacket),
        Timer(usize),
    }

    /// Runs `sources` through one link for `seconds`.
    pub(crate) fn run(
        configs: &[CrossConfig],
        mbps: u32,
        one_way_us: u64,
        queue_us: u64,
        loss: Loss,
        seconds: u64,
    ) -> Outcome {
        let config = LinkConfig {
            capacity: Capacity::Constant(Bitrate::from_mbps(mbps)),
            delay_us: one_way_us,
            queue: QueueLimit::Time(queue_us),
            loss,
            ..LinkConfig::default()
        };
        let mut link: Link<(usize, CrossPacket)> = Link::new(config, 1);
        let rtt_us = |c: &CrossConfig| 2 * (one_way_us + c.delay_us);
        let mut sources: Vec<_> =
            configs.iter().zip(1..).map(|(c, seed)| Cross::new(c, rtt_us(c), seed)).collect();
        let mut out = Outcome {
            per_second: vec![vec![0; seconds as usize + 1]; sources.len()],
            wait_us: vec![0; seconds as usize + 1],
            counters: Vec::new(),
            dropped: 0,
        };
        let mut queue = EventQueue::<_, 0>::new();
        let mut due: Vec<_> = sources.iter().map(Cross::poll_at).collect();
        for (i, &at) in due.iter().enumerate() {
            queue.push(at, Event::Timer(i));
        }
        let mut left = Timestamp::NEVER;
        let end = Timestamp::from_micros(seconds * 1_000_000);
        while let Some((now, event)) = queue.pop() {
            if now > end {
                break;
            }
            let second = (now.as_micros() / 1_000_000) as usize;
            let touched = match event {
                Event::Left => {
                    left = Timestamp::NEVER;
                    None
                }
                Event::Arrived(i, packet) => {
                    out.per_second[i][second] += packet.wire_bytes;
                    if sources[i].on_arrived(&packet) {
                        let back = one_way_us + 2 * configs[i].delay_us;
                        queue.push(now.plus_micros(back), Event::Acked(i, packet));
                    }
                    None
                }
                Event::Acked(i, packet) => {
                    sources[i].on_acknowledged(now, &packet);
                    Some(i)
                }
                Event::Timer(i) => {
                    due[i] = Timestamp::NEVER;
                    Some(i)
                }
            };
            if let Some(i) = touched {
                while let Some(packet) = sources[i].poll_packet(now) {
                    let len = (packet.wire_bytes - crate::link::IP_UDP_HEADER_LEN) as usize;
                    if link.send(now, len, Ecn::NotEct, (i, packet)).is_err() {
                        out.dropped += 1;
                    }
                }
                let at = sources[i].poll_at().max(now.plus_micros(1));
                if at < due[i] {
                    due[i] = at;
                    queue.push(at, Event::Timer(i));
                }
            }
            out.wait_us[second] = out.wait_us[second].max(link.queue_us(now));
            while let Some(((i, packet), fate)) = link.poll(now) {
                if let Fate::Arrives { at, .. } = fate {
                    queue.push(at, Event::Arrived(i, packet));
                }
            }
            if link.poll_at() < left {
                left = link.poll_at();
                queue.push(left, Event::Left);
            }
        }
        out.counters = sources.iter().map(Cross::counters).collect();
        out
    }

    pub(crate) fn cubic(start_s: u64, stop_s: Option<u64>) -> CrossConfig {
        CrossConfig {
            kind: CrossKind::Cubic { hystart: false },
            start_us: start_s * 1_000_000,
            stop_us: stop_s.map(|s| s * 1_000_000),
            delay_us: 0,
            reverse: false,
        }
    }
}

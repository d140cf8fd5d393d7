//! The loop: datagrams into links, and out of them in time.

use std::io;
use std::net::SocketAddr;

use rift_core::Timestamp;
use rift_core::endpoint::Ecn;
use rift_sim::link::{Course, Fate, Link, LinkConfig, LinkCounters};
use rift_sim::scenario::Action;
use rift_sim::{EventQueue, Scenario, Seeds};
use wavry_runtime::clock::Clock;
use wavry_runtime::transport::{self, TrafficClass, Transmit, Transport};

use crate::Lateness;

/// How long [`Emulator::run`] sleeps at most, so that it sees that it is to end, in nanoseconds.
const TICK_NS: u64 = 20_000_000;

/// A datagram on a link.
#[derive(Clone, Debug)]
struct Packet {
    bytes: Vec<u8>,
    class: TrafficClass,
}

/// A datagram that has left its link and is on the last stretch, or due.
#[derive(Debug)]
struct Due {
    down: bool,
    packet: Packet,
    ecn: Ecn,
}

/// What went over a link so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// From host to client.
    pub down: LinkCounters,
    /// From client to host.
    pub up: LinkCounters,
}

/// What of a scenario an emulator cannot do; `None` if it can do all. What concerns the ends (source, clocks, input) is
/// not its business.
#[must_use]
pub fn unsupported(scenario: &Scenario) -> Option<&'static str> {
    if !scenario.cross.is_empty() {
        return Some("other traffic (`cross`): run a real one through the emulator instead");
    }
    if !scenario.flows.is_empty() || scenario.main.reverse || scenario.main.delay_us > 0 {
        return Some("several streams (`flow`), or one that is turned around or further away (`main`)");
    }
    if scenario.missing_traces().next().is_some() {
        return Some("a trace that was not loaded");
    }
    None
}

/// Both links of a scenario between a host and whoever else sends to the transport, who is the client.
#[derive(Debug)]
pub struct Emulator<T> {
    transport: T,
    /// Down and up.
    links: [Link<Packet>; 2],
    flying: EventQueue<Due>,
    timeline: Vec<(u64, bool, LinkConfig)>,
    acted: usize,
    host: SocketAddr,
    client: Option<SocketAddr>,
    epoch_ns: u64,
    lateness: Lateness,
    unsent: u64,
}

impl<T: Transport> Emulator<T> {
    /// An emulator of the paths of `scenario` before `host`. Its time begins at `epoch_ns` of [`Clock`]; `seed` decides
    /// what is random, as in a simulated run.
    pub fn new(transport: T, scenario: &Scenario, seed: u64, host: SocketAddr, epoch_ns: u64) -> Self {
        let seeds = Seeds::of(seed);
        let timeline = scenario.timeline.iter().filter_map(|(at, action)| match action {
            Action::Down(link) => Some((*at, true, link.clone())),
            Action::Up(link) => Some((*at, false, link.clone())),
            _ => None,
        });
        Self {
            transport,
            links: [Link::new(scenario.down.clone(), seeds.down), Link::new(scenario.up.clone(), seeds.up)],
            flying: EventQueue::new(),
            timeline: timeline.collect(),
            acted: 0,
            host,
            client: None,
            epoch_ns,
            lateness: Lateness::default(),
            unsent: 0,
        }
    }

    /// Forwards until `over` says so; it is asked at least every 20 ms.
    ///
    /// # Errors
    /// As [`Transport::turn`].
    pub fn run(&mut self, mut over: impl FnMut(&Self) -> bool) -> io::Result<()> {
        while !over(self) {
            let now_ns = Clock.now();
            let due_ns = self.due_ns().min(now_ns + TICK_NS);
            self.transport.turn(Some(due_ns))?;
            self.take();
            self.act();
            self.release()?;
        }
        Ok(())
    }

    /// What went over the links.
    #[must_use]
    pub fn seen(&self) -> Seen {
        Seen { down: *self.links[0].counters(), up: *self.links[1].counters() }
    }

    /// What the link from host to client could carry.
    #[must_use]
    pub fn course(&self) -> &Course {
        self.links[0].course()
    }

    /// The shortest waits on it, as of [`Link::standing_us`].
    #[must_use]
    pub fn standing_us(&self) -> &[(u32, u32)] {
        self.links[0].standing_us()
    }

    /// How late datagrams left.
    #[must_use]
    pub fn lateness(&self) -> &Lateness {
        &self.lateness
    }

    /// Datagrams that the kernel or a full pool kept from leaving.
    #[must_use]
    pub fn unsent(&self) -> u64 {
        self.unsent
    }

    /// The client, once it has sent something.
    #[must_use]
    pub fn client(&self) -> Option<SocketAddr> {
        self.client
    }

    fn local(&self, ns: u64) -> Timestamp {
        Timestamp::from_micros(ns.saturating_sub(self.epoch_ns) / 1000)
    }

    /// When there is something to do next, by [`Clock`].
    fn due_ns(&self) -> u64 {
        // Nothing arrives sooner after it left its queue than the link's delay.
        let lands = |link: &Link<Packet>| link.poll_at().plus_micros(link.config().delay_us);
        let links = self.links.iter().map(lands).fold(Timestamp::NEVER, Timestamp::min);
        let action =
            self.timeline.get(self.acted).map_or(Timestamp::NEVER, |at| Timestamp::from_micros(at.0));
        let at = links.min(self.flying.next_at()).min(action);
        if at == Timestamp::NEVER {
            return u64::MAX;
        }
        self.epoch_ns.saturating_add(at.as_micros().saturating_mul(1000))
    }

    /// Puts what arrived on the links, at the time at which the kernel got it.
    fn take(&mut self) {
        while let Some(batch) = self.transport.poll_receive() {
            let at_ns = batch.arrival_ns.unwrap_or_else(|| Clock.now());
            let at = Timestamp::from_micros(at_ns.saturating_sub(self.epoch_ns) / 1000);
            let down = batch.from == self.host;
            if !down {
                self.client = Some(batch.from);
            }
            let (class, ecn) = (batch.class, Ecn::from_bits(batch.ecn as u8));
            let link = &mut self.links[usize::from(!down)];
            // What has left by then makes room.
            settle(link, down, at, &mut self.flying);
            for datagram in batch.datagrams() {
                let packet = Packet { bytes: datagram.to_vec(), class };
                // A full queue counts what it drops.
                let _ = link.send(at, datagram.len(), ecn, packet);
            }
        }
    }

    /// Changes the links when their time has come.
    fn act(&mut self) {
        let now = self.local(Clock.now());
        while let Some((at, down, config)) = self.timeline.get(self.acted)
            && Timestamp::from_micros(*at) <= now
        {
            let (at, link) = (Timestamp::from_micros(*at), &mut self.links[usize::from(!*down)]);
            settle(link, *down, at, &mut self.flying);
            link.reconfigure(at, config.clone());
            self.acted += 1;
        }
    }

    /// Lets leave what is due.
    fn release(&mut self) -> io::Result<()> {
        let now = self.local(Clock.now());
        for (link, down) in self.links.iter_mut().zip([true, false]) {
            settle(link, down, now, &mut self.flying);
        }
        while self.flying.next_at() <= now {
            let Some((at, due)) = self.flying.pop() else { break };
            self.lateness.add(now.micros_since(at));
            self.send(&due)?;
        }
        while self.transport.poll_send_error().is_some() {
            self.unsent += 1;
        }
        Ok(())
    }

    fn send(&mut self, due: &Due) -> io::Result<()> {
        let Some(to) = (if due.down { self.client } else { Some(self.host) }) else { return Ok(()) };
        let mut slot = self.transport.acquire();
        if slot.is_none() {
            self.transport.flush()?;
            slot = self.transport.acquire();
        }
        let bytes = &due.packet.bytes;
        match slot {
            Some(mut slot) if bytes.len() <= slot.len() => {
                slot[..bytes.len()].copy_from_slice(bytes);
                let ecn = match due.ecn {
                    Ecn::NotEct => transport::Ecn::NotEct,
                    Ecn::Ect0 => transport::Ecn::Ect0,
                    Ecn::Ect1 => transport::Ecn::Ect1,
                    Ecn::Ce => transport::Ecn::Ce,
                };
                let class = due.packet.class;
                let out = Transmit { class, ecn, ..Transmit::datagram(to, bytes.len()) };
                self.transport.commit(slot, out);
            }
            _ => self.unsent += 1,
        }
        Ok(())
    }
}

/// Takes what has left its queue by `until` to where it waits for its arrival.
fn settle(link: &mut Link<Packet>, down: bool, until: Timestamp, flying: &mut EventQueue<Due>) {
    while let Some((mut packet, fate)) = link.poll(until) {
        let Fate::Arrives { at, again, flipped_bit, ecn } = fate else { continue };
        if let Some(again) = again {
            flying.push(again, Due { down, packet: packet.clone(), ecn });
        }
        if let Some(bit) = flipped_bit {
            packet.bytes[bit / 8] ^= 1 << (bit % 8);
        }
        flying.push(at, Due { down, packet, ecn });
    }
}

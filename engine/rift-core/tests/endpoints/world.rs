//! A host and clients in one process, joined by a network that the test controls.

use std::net::SocketAddr;

use rift_core::endpoint::{
    ClientConfig, ClientEndpoint, ClientEvent, ControllerKind, Ecn, ExpectedHost, HostConfig, HostEndpoint,
    HostEvent, Path, Purpose, StreamOffer, Transmit,
};
use rift_core::message::proto::{Codec, Monitor, Resolution};
use rift_core::send::SliceMeta;
use rift_core::{Bitrate, DropReason, FrameId, Timestamp};
use rift_crypto::{Identity, WavryId};

pub const HOST_SEED: [u8; 32] = [1; 32];

/// What the network does to a datagram.
#[derive(Clone, Debug)]
pub enum Fate {
    Deliver,
    Lose,
    /// Arrives later by so many microseconds.
    Late(u64),
    Twice,
}

/// A datagram under way.
#[derive(Clone, Debug)]
pub struct Datagram {
    pub at: Timestamp,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

pub struct Client {
    pub address: SocketAddr,
    pub endpoint: ClientEndpoint,
    pub events: Vec<ClientEvent>,
    pub drops: Vec<DropReason>,
    /// Slices handed out: frame, index, bytes.
    pub slices: Vec<(FrameId, u32, Vec<u8>)>,
    /// Report frames as decoded when their last slice comes.
    pub decodes: bool,
    pub is_gone: bool,
    /// Its clock less the world's.
    pub clock_us: i64,
}

type Fault = Box<dyn FnMut(&mut Datagram) -> Fate>;

pub struct World {
    pub now: Timestamp,
    pub host: HostEndpoint,
    pub host_address: SocketAddr,
    pub host_events: Vec<HostEvent>,
    pub clients: Vec<Client>,
    pub network: Vec<Datagram>,
    pub delay_us: u64,
    /// The host's clock less the world's.
    pub host_clock_us: i64,
    pub fault: Fault,
    /// Every datagram that was sent, if wanted.
    pub tap: Option<Vec<Datagram>>,
    pub host_drops: Vec<DropReason>,
    /// Clients with one address each get what comes there.
    pub is_shared: bool,
    buf: Vec<u8>,
}

pub fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32]).unwrap()
}

pub fn offer() -> StreamOffer {
    StreamOffer {
        codec: Codec::H264,
        resolution: Resolution { width: 1280, height: 720 },
        fps: 60,
        initial_bitrate: Bitrate::from_mbps(10),
        min_bitrate: Bitrate::from_mbps(1),
        max_bitrate: Bitrate::from_mbps(50),
        monitors: vec![Monitor { id: 3, name: "left".into(), width: 1280, height: 720 }],
    }
}

pub fn host_config(allowed: &[u8]) -> HostConfig {
    let mut config = HostConfig::new(identity(100), HOST_SEED, offer());
    config.allowed = allowed.iter().map(|&seed| identity(seed).wavry_id()).collect();
    config
}

pub fn client_config(seed: u8, purpose: Purpose) -> ClientConfig {
    let mut config = ClientConfig::new(identity(seed), [seed; 32], Path::to(host_address()));
    config.purpose = purpose;
    config.name = format!("client {seed}");
    config
}

pub fn host_address() -> SocketAddr {
    "10.0.0.100:4810".parse().unwrap()
}

pub fn known_host() -> ExpectedHost {
    let host = identity(100);
    ExpectedHost { id: host.wavry_id(), static_public: Some(host.static_public()) }
}

impl World {
    pub fn new(config: HostConfig) -> Self {
        let now = Timestamp::from_micros(1_000_000_000);
        Self {
            now,
            host: HostEndpoint::new(config, now),
            host_address: host_address(),
            host_events: vec![],
            clients: vec![],
            network: vec![],
            delay_us: 5_000,
            host_clock_us: 0,
            fault: Box::new(|_| Fate::Deliver),
            tap: None,
            host_drops: vec![],
            is_shared: false,
            buf: vec![0; 65_536],
        }
    }

    /// A host that allows client 1, and that client, connecting.
    pub fn with_client() -> Self {
        let mut world = Self::new(host_config(&[1]));
        world.connect(client_config(1, Purpose::Stream));
        world
    }

    /// As [`with_client`](Self::with_client), connected.
    pub fn streaming() -> Self {
        let mut world = Self::with_client();
        world.run_ms(100);
        assert!(world.is_connected(0), "{:?}", world.clients[0].events);
        world
    }

    /// The same with another controller than the default.
    pub fn streaming_with(controller: ControllerKind) -> Self {
        let mut config = host_config(&[1]);
        config.controller = controller;
        let mut world = Self::new(config);
        world.connect(client_config(1, Purpose::Stream));
        world.run_ms(100);
        assert!(world.is_connected(0), "{:?}", world.clients[0].events);
        world
    }

    pub fn connect(&mut self, config: ClientConfig) -> usize {
        let n = self.clients.len() + 1;
        self.clients.push(Client {
            address: format!("10.0.0.{n}:{}", 5000 + n).parse().unwrap(),
            endpoint: ClientEndpoint::new(config, self.now),
            events: vec![],
            drops: vec![],
            slices: vec![],
            decodes: true,
            is_gone: false,
            clock_us: 0,
        });
        n - 1
    }

    pub fn is_connected(&self, client: usize) -> bool {
        self.clients[client].events.iter().any(|e| matches!(e, ClientEvent::Connected { .. }))
    }

    pub fn closed(&self, client: usize) -> Vec<rift_core::session::CloseReason> {
        let reason = |e: &ClientEvent| if let ClientEvent::Closed(r) = e { Some(*r) } else { None };
        self.clients[client].events.iter().filter_map(reason).collect()
    }

    pub fn ended(&self) -> Vec<(WavryId, rift_core::session::CloseReason)> {
        let ended = |e: &HostEvent| {
            if let HostEvent::SessionEnded { peer, reason } = e { Some((*peer, *reason)) } else { None }
        };
        self.host_events.iter().filter_map(ended).collect()
    }

    pub fn host_now(&self) -> Timestamp {
        shifted(self.now, self.host_clock_us)
    }

    pub fn client_now(&self, client: usize) -> Timestamp {
        shifted(self.now, self.clients[client].clock_us)
    }

    pub fn run_ms(&mut self, ms: u64) {
        self.run_until(self.now.plus_micros(ms * 1000));
    }

    /// Lets time pass up to `end`, event by event.
    pub fn run_until(&mut self, end: Timestamp) {
        let mut idle_turns = 0;
        loop {
            let progress = self.turn();
            let mut next = world_time(self.host.poll_timeout(), self.host_clock_us);
            for client in self.clients.iter().filter(|c| !c.is_gone) {
                next = next.min(world_time(client.endpoint.poll_timeout(), client.clock_us));
            }
            next = self.network.iter().map(|d| d.at).fold(next, Timestamp::min);
            if next > end {
                self.now = end;
                self.turn();
                return;
            }
            if next > self.now {
                self.now = next;
                idle_turns = 0;
            } else {
                idle_turns += u32::from(!progress);
                assert!(idle_turns < 20, "an endpoint asks to be called at once and does nothing: busy loop");
            }
        }
    }

    /// Delivers what is due and drains everybody. Whether anything moved.
    pub fn turn(&mut self) -> bool {
        let mut progress = false;
        while let Some(at) = self.network.iter().position(|d| d.at <= self.now) {
            let datagram = self.network.remove(at);
            self.deliver(datagram);
            progress = true;
        }
        let host_now = self.host_now();
        self.host.handle_timeout(host_now);
        for client in self.clients.iter_mut().filter(|c| !c.is_gone) {
            client.endpoint.handle_timeout(shifted(self.now, client.clock_us));
        }
        progress | self.drain()
    }

    /// Takes everything out of the endpoints.
    pub fn drain(&mut self) -> bool {
        let mut progress = false;
        while let Some(transmit) = self.host.poll_transmit(self.host_now(), &mut self.buf) {
            progress = true;
            let from = self.host_address;
            self.send(from, &transmit);
        }
        self.host_events.extend(core::iter::from_fn(|| self.host.poll_event()));
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            if client.is_gone {
                continue;
            }
            let now = shifted(self.now, client.clock_us);
            let mut decoded = vec![];
            while let Some(slice) = client.endpoint.poll_slice(now) {
                client.slices.push((slice.frame_id, slice.index, slice.data.to_vec()));
                if slice.last {
                    decoded.push(slice.frame_id);
                }
            }
            for frame in decoded.into_iter().filter(|_| client.decodes) {
                client.endpoint.on_decoded(now, frame);
            }
            let from = client.address;
            while let Some(transmit) = self.clients[index].endpoint.poll_transmit(now, &mut self.buf) {
                progress = true;
                self.send(from, &transmit);
            }
            let client = &mut self.clients[index];
            client.events.extend(core::iter::from_fn(|| client.endpoint.poll_event()));
        }
        progress
    }

    fn send(&mut self, from: SocketAddr, transmit: &Transmit) {
        assert!(transmit.len <= self.buf.len() && transmit.segment_len > 0);
        for bytes in self.buf[..transmit.len].to_vec().chunks(transmit.segment_len) {
            let mut datagram = Datagram {
                at: self.now.plus_micros(self.delay_us),
                from,
                to: transmit.path.remote,
                bytes: bytes.to_vec(),
            };
            if let Some(tap) = &mut self.tap {
                tap.push(datagram.clone());
            }
            match (self.fault)(&mut datagram) {
                Fate::Deliver => self.network.push(datagram),
                Fate::Lose => {}
                Fate::Late(us) => {
                    datagram.at = datagram.at.plus_micros(us);
                    self.network.push(datagram);
                }
                Fate::Twice => self.network.extend([datagram.clone(), datagram]),
            }
        }
    }

    pub fn deliver(&mut self, mut datagram: Datagram) {
        let path = Path::to(datagram.from);
        if datagram.to == self.host_address {
            let host_now = self.host_now();
            let result = self.host.handle_datagram(host_now, path, Ecn::NotEct, &mut datagram.bytes);
            self.host_drops.extend(result.err());
            return;
        }
        let is_shared = self.is_shared;
        for client in self.clients.iter_mut().filter(|c| !c.is_gone && c.address == datagram.to) {
            let now = shifted(self.now, client.clock_us);
            let mut bytes = datagram.bytes.clone();
            let result = client.endpoint.handle_datagram(now, path, Ecn::NotEct, &mut bytes);
            client.drops.extend(result.err());
            if !is_shared {
                return;
            }
        }
    }

    /// Submits frame `id` of `len` bytes in `slices` slices; the first frame is a keyframe.
    pub fn submit_frame(&mut self, id: u64, len: usize, slices: u32) -> Vec<Vec<u8>> {
        let (submitted, refused) = self.try_submit(id, len, slices);
        assert_eq!(refused, None);
        submitted
    }

    /// As [`submit_frame`](Self::submit_frame), where the host may refuse it.
    pub fn submit_frame_quietly(&mut self, id: u64, len: usize, slices: u32) {
        self.try_submit(id, len, slices);
    }

    fn try_submit(&mut self, id: u64, len: usize, slices: u32) -> (Vec<Vec<u8>>, Option<DropReason>) {
        let mut refused = None;
        let mut submitted = vec![];
        for index in 0..slices {
            let meta = SliceMeta {
                frame_id: FrameId(id),
                slice_index: index,
                last_slice: index + 1 == slices,
                keyframe: id == 0,
                reference: (id > 0).then(|| FrameId(id - 1)),
                timestamp: self.host_now(),
                capture_us: 300,
                encode_us: 2000,
            };
            let data: Vec<u8> = (0..len / slices as usize)
                .map(|i| (i as u64 * 31 + id * 7 + u64::from(index)) as u8)
                .collect();
            refused = refused.or(self.host.submit_slice(self.host_now(), &meta, &data).err());
            submitted.push(data);
        }
        self.drain();
        (submitted, refused)
    }
}

/// The world's time as a clock shows it that is `clock_us` ahead.
fn shifted(time: Timestamp, clock_us: i64) -> Timestamp {
    Timestamp::from_micros(time.as_micros().saturating_add_signed(clock_us))
}

/// A clock's time in the world's.
fn world_time(time: Timestamp, clock_us: i64) -> Timestamp {
    if time == Timestamp::NEVER || time == Timestamp::ZERO { time } else { shifted(time, -clock_us) }
}

//! A host and a client with a session between them, over real sockets, driven by one thread.
//!
//! Owns both ends. The steps of a network thread's turn can be called apart here, so that each can be
//! timed apart; they are those of the loop that `wavry-server` and `wavry-client` run.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use rift_core::endpoint::{
    self, ClientConfig, ClientEndpoint, ControllerKind, HostConfig, HostEndpoint, Path, StreamOffer,
};
use rift_core::message::proto::{Codec, Resolution};
use rift_core::send::{SenderConfig, SliceMeta};
use rift_core::{Bitrate, FrameId, Timestamp};
use rift_crypto::{Identity, WavryId};
use wavry_runtime::transport::Transport;
use wavry_runtime::uring::{UringUdp, UringUdpConfig};
use wavry_session_loop::{SessionLoop, now};

/// How long a handshake or a frame may take, in microseconds.
const PATIENCE_US: u64 = 2_000_000;

/// A host takes a frame in slices, as its encoder makes them: no longer than an eighth of a frame of 1 MB, in bytes.
const SLICE_MAX: usize = 128 << 10;

/// What differs between measurements.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Parity packets per data packet.
    pub parity: f32,
    /// Pacing as in use; otherwise nothing ever waits, which leaves only the work.
    pub paced: bool,
    /// Whether the client's socket tells when datagrams arrived.
    pub arrival_times: bool,
}

/// The pair.
pub struct Pair {
    host: SessionLoop<UringUdp, HostEndpoint>,
    client: SessionLoop<UringUdp, ClientEndpoint>,
    next_frame: u64,
    /// The frame of the slice that the host took last.
    newest: FrameId,
    /// The slices of the next frame, and empty buffers behind them.
    slices: Vec<Vec<u8>>,
    arrivals: Option<(u64, u64)>,
}

impl Pair {
    /// Opens both ends on loopback and connects them.
    ///
    /// # Errors
    /// What the system refuses, or a handshake that does not end.
    pub fn connect(settings: Settings) -> anyhow::Result<Self> {
        let loopback = UringUdpConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)));
        let host_udp = UringUdp::open(loopback)?;
        let arrival_times = settings.arrival_times;
        let client_udp = UringUdp::open(UringUdpConfig { arrival_times, ..loopback })?;
        let (client_config, client_id) = client_config(host_udp.local_addr())?;
        let host_config = host_config(client_id, settings)?;
        let mut pair = Self {
            host: SessionLoop::new(host_udp, HostEndpoint::new(host_config, now())),
            client: SessionLoop::new(client_udp, ClientEndpoint::new(client_config, now())),
            next_frame: 0,
            newest: FrameId(0),
            slices: Vec::new(),
            arrivals: None,
        };
        let end = now().plus_micros(PATIENCE_US);
        while pair.host.endpoint().session().is_none() || pair.client.endpoint().session().is_none() {
            ensure!(now() < end, "the client could not connect");
            pair.answer()?;
        }
        // What the two have to tell each other at the start.
        for _ in 0..20 {
            pair.answer()?;
        }
        Ok(pair)
    }

    /// Writes the slices of the next frame into buffers that the host gave for earlier ones, as an encoder does.
    pub fn prepare(&mut self, data: &[u8]) {
        self.slices.resize(self.slices.len().max(data.len().div_ceil(SLICE_MAX)), Vec::new());
        for (buffer, slice) in self.slices.iter_mut().zip(data.chunks(SLICE_MAX)) {
            buffer.extend_from_slice(slice);
        }
    }

    /// Hands the frame that was prepared to the host slice by slice, and seals and sends all that may leave after each,
    /// as the host's network thread does.
    ///
    /// # Errors
    /// If the host does not take it, or a broken socket.
    #[inline]
    pub fn send_frame(&mut self) -> anyhow::Result<()> {
        self.send_frame_and(|_| {})
    }

    /// As [`send_frame`](Self::send_frame), and calls `on_video` with each batch of video.
    ///
    /// # Errors
    /// If the host does not take it, or a broken socket.
    #[inline]
    pub fn send_frame_and(&mut self, mut on_video: impl FnMut(&endpoint::Transmit)) -> anyhow::Result<()> {
        let count = self.slices.iter().take_while(|slice| !slice.is_empty()).count();
        for index in 0..count {
            self.submit_slice(index, index + 1 == count)?;
            self.send_and(&mut on_video)?;
        }
        Ok(())
    }

    fn submit_slice(&mut self, index: usize, last_slice: bool) -> anyhow::Result<()> {
        let now = now();
        let meta = SliceMeta {
            frame_id: FrameId(self.next_frame),
            slice_index: index as u32,
            last_slice,
            keyframe: self.next_frame == 0,
            reference: self.next_frame.checked_sub(1).map(FrameId),
            timestamp: now,
            capture_us: 300,
            encode_us: 4000,
        };
        self.newest = meta.frame_id;
        self.next_frame += u64::from(last_slice);
        self.host
            .endpoint_mut()
            .submit_buffer(now, &meta, &mut self.slices[index])
            .map_err(|reason| anyhow::anyhow!("the host refused a frame: {reason:?}"))
    }

    /// Seals and sends all that may leave now.
    ///
    /// # Errors
    /// A broken socket.
    #[inline]
    pub fn send(&mut self) -> anyhow::Result<()> {
        self.send_and(|_| {})
    }

    /// As [`send`](Self::send), and calls `on_video` with each batch of video.
    ///
    /// # Errors
    /// A broken socket.
    #[inline]
    pub fn send_and(&mut self, mut on_video: impl FnMut(&endpoint::Transmit)) -> anyhow::Result<()> {
        loop {
            let all = self.host.transmit_and(now(), |out| {
                if out.class == endpoint::TrafficClass::Video {
                    on_video(out);
                }
            });
            self.host.flush()?;
            if all {
                return Ok(());
            }
        }
    }

    /// Sends the frame that was prepared as pacing allows it, waiting in between, until as many packets with its data as
    /// it has, `packets`, have left.
    ///
    /// # Errors
    /// A broken socket, or a frame that does not leave.
    pub fn send_paced(&mut self, packets: u64) -> anyhow::Result<()> {
        let end = now().plus_micros(PATIENCE_US);
        let whole = self.data_packets() + packets;
        self.send_frame()?;
        loop {
            self.send()?;
            if self.data_packets() >= whole {
                return Ok(());
            }
            ensure!(now() < end, "a frame did not leave");
            self.host.turn(end)?;
            self.host_receive();
        }
    }

    /// As [`send_frame`](Self::send_frame), but what has arrived is taken after each slice, as by a client that its core
    /// is given to whenever something is there for it.
    ///
    /// # Errors
    /// As both.
    #[inline]
    pub fn send_and_receive(&mut self, mut on_frame: impl FnMut(&[u8])) -> anyhow::Result<()> {
        let count = self.slices.iter().take_while(|slice| !slice.is_empty()).count();
        for index in 0..count {
            self.submit_slice(index, index + 1 == count)?;
            self.send()?;
            if index + 1 < count {
                self.receive_turn(Timestamp::ZERO, &mut on_frame)?;
            }
        }
        self.receive(on_frame)
    }

    /// Receives at the client until the newest frame is whole, and gives its bytes to `on_frame`.
    ///
    /// # Errors
    /// A frame that does not arrive.
    #[inline]
    pub fn receive(&mut self, mut on_frame: impl FnMut(&[u8])) -> anyhow::Result<()> {
        let end = now().plus_micros(PATIENCE_US);
        self.arrivals = None;
        while !self.receive_turn(end, &mut on_frame)? {
            if now() >= end {
                bail!("a frame did not arrive: {:?}", self.client.endpoint().receiver_counters());
            }
        }
        Ok(())
    }

    /// A turn of the client, which waits until `end` for something to arrive; whether the newest frame is whole then.
    ///
    /// # Errors
    /// A broken socket.
    #[inline]
    fn receive_turn(&mut self, end: Timestamp, on_frame: &mut impl FnMut(&[u8])) -> anyhow::Result<bool> {
        let newest = self.newest;
        self.client.turn(end)?;
        let now = now();
        self.client_receive(now);
        let client = self.client.endpoint_mut();
        let mut whole = false;
        while let Some(slice) = client.poll_slice(now) {
            let (frame, last) = (slice.frame_id, slice.last);
            if frame == newest {
                on_frame(slice.data);
            }
            if last {
                client.on_decoded(now, frame);
                client.on_shown(now, frame);
            }
            whole |= frame == newest && last;
        }
        Ok(whole)
    }

    /// Lets each end say what it has to say besides video, and hear the other.
    ///
    /// # Errors
    /// A broken socket.
    #[inline]
    pub fn answer(&mut self) -> anyhow::Result<()> {
        self.client.turn(Timestamp::ZERO)?;
        let at = now();
        self.client_receive(at);
        self.client.transmit(at);
        self.client.flush()?;
        self.host.turn(Timestamp::ZERO)?;
        self.host_receive();
        self.send()
    }

    /// When the kernel got the first and the last batch of the frame received last, in nanoseconds.
    #[must_use]
    pub fn arrivals(&self) -> Option<(u64, u64)> {
        self.arrivals
    }

    /// Lost, asked for again, or given up so far: of a sound measurement nothing.
    #[must_use]
    pub fn losses(&self) -> u64 {
        let sender = self
            .host
            .endpoint()
            .sender_counters()
            .map_or(0, |c| c.retransmitted_packets + c.frames_dropped_stale);
        let receiver = self.client.endpoint().receiver_counters().map_or(0, |c| c.frames_dropped);
        sender + receiver + self.client.transport().counters().socket_drops
    }

    fn data_packets(&self) -> u64 {
        self.host.endpoint().sender_counters().map_or(0, |counters| counters.data_packets)
    }

    /// What is refused shows as a frame that does not arrive.
    #[inline]
    fn client_receive(&mut self, now: Timestamp) {
        let arrivals = &mut self.arrivals;
        self.client.receive_and(now, |batch| {
            if let Some(at) = batch.arrival_ns {
                *arrivals = Some((arrivals.map_or(at, |(first, _)| first), at));
            }
        });
        while self.client.endpoint_mut().poll_event().is_some() {}
    }

    #[inline]
    fn host_receive(&mut self) {
        self.host.receive(now());
        while self.host.endpoint_mut().poll_event().is_some() {}
    }
}

/// A client of the host at `host`, and its name.
///
/// # Errors
/// A system without randomness.
pub fn client_config(host: SocketAddr) -> anyhow::Result<(ClientConfig, WavryId)> {
    let identity = Identity::generate().context("no identity could be made")?;
    let id = identity.wavry_id();
    Ok((ClientConfig::new(identity, rift_crypto::random_seed()?, Path::to(host)), id))
}

/// A host that only `client` may use, at a fixed rate.
///
/// # Errors
/// A system without randomness.
pub fn host_config(client: WavryId, settings: Settings) -> anyhow::Result<HostConfig> {
    let identity = Identity::generate().context("no identity could be made")?;
    let offer = StreamOffer {
        codec: Codec::H264,
        resolution: Resolution { width: 1280, height: 720 },
        fps: 60,
        initial_bitrate: Bitrate::from_mbps(20),
        min_bitrate: Bitrate::from_mbps(1),
        max_bitrate: Bitrate::from_mbps(50),
        monitors: Vec::new(),
    };
    let mut sender = SenderConfig { parity: settings.parity, ..SenderConfig::default() };
    if !settings.paced {
        sender.pacing = Bitrate::from_mbps(u32::MAX);
    }
    Ok(HostConfig {
        sender,
        controller: ControllerKind::Fixed,
        allowed: vec![client],
        ..HostConfig::new(identity, rift_crypto::random_seed()?, offer)
    })
}

/// What a decoder does with a slice that is not looked at.
#[inline]
pub fn keep(slice: &[u8]) {
    let _ = std::hint::black_box(slice);
}

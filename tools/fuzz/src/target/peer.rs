//! Our own peers with real keys, so that fuzzed bodies get past the seal of an endpoint.

use std::net::SocketAddr;
use std::sync::LazyLock;

use prost::Message as _;
use rift_core::endpoint::{
    ClientConfig, ClientEndpoint, Ecn, ExpectedHost, HostConfig, HostEndpoint, Path, StreamOffer,
};
use rift_core::message::proto::{Codec, Hello, Resolution};
use rift_core::receive::ReceiverConfig;
use rift_core::send::SenderConfig;
use rift_core::session::Features;
use rift_core::wire::{HandshakeHeader, HandshakeKind, TransportHeader};
use rift_core::{Alias, Bitrate, DropReason, HandshakeId, PacketId, Timestamp};
use rift_crypto::{
    EphemeralSecret, Identity, Initiator, MAX_MESSAGE_LEN, PacketKeys, Responder, Suite, WavryId,
};

/// One packet of a GSO send is all that is looked at.
pub(super) const BUFFER_LEN: usize = 65_536;
/// More sends than this at one moment are a loop.
const SENDS_MAX: u32 = 5_000;
const HANDSHAKE_HEADER_LEN: usize = 30;

/// What is known of host and client without asking them: deriving keys takes longer than a run.
struct Known {
    client_id: WavryId,
    host_id: WavryId,
    host_static: [u8; 32],
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let (host, client) = (identity(1), identity(2));
    Known { client_id: client.wavry_id(), host_id: host.wavry_id(), host_static: host.static_public() }
});

fn identity(byte: u8) -> Identity {
    Identity::from_seed([byte; 32]).expect("every seed gives an identity")
}

pub(super) fn path() -> Path {
    Path::to(SocketAddr::from(([192, 0, 2, 1], 4810)))
}

/// The time at which every run begins.
pub(super) const START: Timestamp = Timestamp::from_micros(1_000_000);

/// A host that allows our client, with small pools.
pub(super) fn host() -> HostEndpoint {
    let offer = StreamOffer {
        codec: Codec::H264,
        resolution: Resolution { width: 640, height: 480 },
        fps: 60,
        initial_bitrate: Bitrate::from_mbps(5),
        min_bitrate: Bitrate::from_mbps(1),
        max_bitrate: Bitrate::from_mbps(20),
        monitors: Vec::new(),
    };
    let mut config = HostConfig::new(identity(1), [7; 32], offer);
    config.allowed = vec![KNOWN.client_id];
    config.sender = SenderConfig {
        frames: 4,
        frame_bytes_max: 65_536,
        slices_max: 8,
        history_packets: 256,
        parity: 0.2,
        ..SenderConfig::default()
    };
    HostEndpoint::new(config, START)
}

/// A client that knows our host, with small pools.
pub(super) fn client() -> ClientEndpoint {
    let mut config = ClientConfig::new(identity(2), [8; 32], path());
    config.expect = Some(ExpectedHost { id: KNOWN.host_id, static_public: Some(KNOWN.host_static) });
    config.receiver = ReceiverConfig {
        frames: 4,
        frame_bytes_max: 65_536,
        slices_max: 8,
        window_packets: 256,
        ..ReceiverConfig::default()
    };
    ClientEndpoint::new(config, START)
}

/// The keys of a session and what is needed to use them.
pub(super) struct Channel {
    keys: PacketKeys,
    alias: Alias,
    next: u64,
}

impl Channel {
    /// `body`, sealed with packet id `next + skip`.
    pub(super) fn seal(&mut self, body: &[u8], skip: u8) -> Vec<u8> {
        let packet_id = PacketId(self.next + u64::from(skip));
        self.next = packet_id.0 + 1;
        let header = TransportHeader { alias: self.alias, packet_id }.encode();
        let mut body = body.to_vec();
        let tag = self.keys.seal.seal_in_place(packet_id.0, &header, &mut body);
        [&header[..], &body, &tag].concat()
    }
}

/// Our client's side of an IK handshake with `host`.
pub(super) fn join_host(host: &mut HostEndpoint) -> Option<Channel> {
    let mut initiator = Initiator::ik_with(
        &identity(2),
        KNOWN.host_static,
        KNOWN.host_id,
        Suite::supported(),
        EphemeralSecret::from_bytes([5; 32]),
    )
    .ok()?;
    let hello = Hello {
        client_name: "fuzz".into(),
        supported_codecs: vec![Codec::H264 as i32],
        max_resolution: Some(Resolution { width: 1920, height: 1080 }),
        max_fps: 60,
        protocol_version: 1,
        features: Features::ALL.bits(),
        ..Default::default()
    };
    let introduction = [&77u32.to_be_bytes()[..], &hello.encode_to_vec()].concat();
    let mut noise = [0; MAX_MESSAGE_LEN];
    let len = initiator.write_msg1(&introduction, &mut noise).ok()?;
    let header =
        HandshakeHeader { kind: HandshakeKind::Msg1, handshake_id: HandshakeId(9), packet_id: PacketId(0) };
    let mut datagram = header.encode().to_vec();
    datagram.extend([2, 0]);
    datagram.extend(u16::try_from(len).ok()?.to_be_bytes());
    datagram.extend(&noise[..len]);
    datagram.resize(datagram.len().max(1_200), 0);
    host.handle_datagram(START, path(), Ecn::NotEct, &mut datagram).ok()?;
    let mut buf = vec![0; BUFFER_LEN];
    let sent = host.poll_transmit(START, &mut buf)?;
    let msg2 = initiator.read_msg2(buf.get(HANDSHAKE_HEADER_LEN..sent.len)?).ok()?;
    let alias = Alias(u32::from_be_bytes(*msg2.app.first_chunk()?));
    let keys = initiator.into_keys().ok()?.keys;
    Some(Channel { keys, alias, next: 0 })
}

/// Our host's side of the IK handshake that `client` begins.
pub(super) fn join_client(client: &mut ClientEndpoint) -> Option<Channel> {
    let mut buf = vec![0; BUFFER_LEN];
    let sent = client.poll_transmit(START, &mut buf)?;
    let datagram = &buf[..sent.len];
    let body = datagram.get(HANDSHAKE_HEADER_LEN..)?;
    let noise_len = usize::from(u16::from_be_bytes([*body.get(2)?, *body.get(3)?]));
    let mut responder = Responder::ik_with(&identity(1), EphemeralSecret::from_bytes([6; 32])).ok()?;
    let msg1 = responder.read_msg1(body.get(4..4 + noise_len)?).ok()?;
    let alias = Alias(u32::from_be_bytes(*msg1.app.first_chunk()?));
    let suite = Suite::choose(Suite::supported(), &msg1.suites)?;
    let mut noise = [0; MAX_MESSAGE_LEN];
    let len = responder.write_msg2(suite, &55u32.to_be_bytes(), &mut noise).ok()?;
    let handshake_id = HandshakeId(u64::from_be_bytes(*datagram.get(12..20)?.first_chunk()?));
    let header = HandshakeHeader { kind: HandshakeKind::Msg2, handshake_id, packet_id: PacketId(0) };
    let mut answer = [&header.encode()[..], &noise[..len]].concat();
    client.handle_datagram(START, path(), Ecn::NotEct, &mut answer).ok()?;
    Some(Channel { keys: responder.into_keys().ok()?.keys, alias, next: 0 })
}

/// Calls `send` until it has nothing, which must come soon.
pub(super) fn drain(mut send: impl FnMut(&mut [u8]) -> Option<usize>) {
    let mut buf = vec![0; BUFFER_LEN];
    let mut sends = 0;
    while let Some(len) = send(&mut buf) {
        assert!(len > 0 && len <= buf.len());
        sends += 1;
        assert!(sends < SENDS_MAX, "never stops sending");
    }
}

/// A result whose reason does not matter here.
pub(super) fn ignore(_: Result<(), DropReason>) {}

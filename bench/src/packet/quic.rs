//! The peer that one would take off the shelf: QUIC with unreliable datagrams (RFC 9221) by quinn.
//!
//! Set up to do well: both ends in one single-threaded runtime, large socket buffers, segmentation offload, no
//! probing for larger datagrams, AES-256-GCM or what TLS prefers, buffers that hold a frame.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, ServerConfig, TransportConfig};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::runtime::Runtime;

use super::floor::set_option;

/// Bytes of every UDP payload, as the engine's.
const DATAGRAM_LEN: u16 = 1200;
/// What is carried; static, so that quinn need not copy it.
static PAYLOAD: [u8; DATAGRAM_LEN as usize] = [1; DATAGRAM_LEN as usize];
const BUFFER_LEN: usize = 16 << 20;
/// After this long without a datagram the rest of a frame counts as lost.
const PATIENCE: Duration = Duration::from_millis(100);
/// The share of a frame that must arrive for a round to count.
const WHOLE: f64 = 0.99;

/// A connection over loopback and what drives both its ends.
pub(super) struct Quic {
    runtime: Runtime,
    sender: Connection,
    receiver: Connection,
    /// Bytes in a datagram, what QUIC adds not counted.
    payload_len: usize,
    _ends: [Endpoint; 2],
}

impl Quic {
    /// Connects.
    pub(super) fn connect() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let chain: CertificateDer<'static> = certificate.cert.der().clone();
        let key = PrivateKeyDer::Pkcs8(certificate.signing_key.serialize_der().into());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(chain.clone())?;
        let transport = Arc::new(transport());
        let mut server = ServerConfig::with_single_cert(vec![chain], key)?;
        server.transport_config(Arc::clone(&transport));
        let mut client = ClientConfig::with_root_certificates(Arc::new(roots))?;
        client.transport_config(transport);

        let (sender, receiver, ends) = runtime.block_on(async {
            let host = endpoint(Some(server))?;
            let viewer = endpoint(None)?;
            let connecting = viewer.connect_with(client, host.local_addr()?, "localhost")?;
            let accepting =
                async { host.accept().await.context("no connection came")?.await.map_err(Into::into) };
            let (receiver, sender): (Connection, Connection) =
                tokio::try_join!(async { connecting.await.map_err(anyhow::Error::from) }, accepting)?;
            anyhow::Ok((sender, receiver, [host, viewer]))
        })?;
        let payload_len = sender.max_datagram_size().context("QUIC without datagrams")?;
        Ok(Self { runtime, sender, receiver, payload_len, _ends: ends })
    }

    /// Carries at least `len` bytes and returns how many arrived.
    pub(super) fn carry(&mut self, len: usize) -> anyhow::Result<usize> {
        let count = len.div_ceil(self.payload_len);
        let payload = &PAYLOAD[..self.payload_len.min(PAYLOAD.len())];
        let (sender, receiver) = (&self.sender, &self.receiver);
        let carried = self.runtime.block_on(async {
            let sending = async {
                for _ in 0..count {
                    sender.send_datagram_wait(payload.into()).await?;
                }
                anyhow::Ok(())
            };
            let receiving = async {
                let mut carried = 0;
                for _ in 0..count {
                    match tokio::time::timeout(PATIENCE, receiver.read_datagram()).await {
                        Ok(datagram) => carried += datagram?.len(),
                        Err(_) => break,
                    }
                }
                anyhow::Ok(carried)
            };
            let ((), carried) = tokio::try_join!(sending, receiving)?;
            anyhow::Ok(carried)
        })?;
        ensure!(carried as f64 >= len as f64 * WHOLE, "QUIC lost {} of {len} bytes", len - carried);
        Ok(carried)
    }
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .initial_mtu(DATAGRAM_LEN)
        .min_mtu(DATAGRAM_LEN)
        .mtu_discovery_config(None)
        .datagram_receive_buffer_size(Some(BUFFER_LEN))
        .datagram_send_buffer_size(BUFFER_LEN);
    transport
}

fn endpoint(server: Option<ServerConfig>) -> anyhow::Result<Endpoint> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 4 << 20)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, 4 << 20)?;
    let runtime = Arc::new(quinn::TokioRuntime);
    Ok(Endpoint::new(EndpointConfig::default(), server, socket, runtime)?)
}

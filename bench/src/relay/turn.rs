//! As much of a TURN client (RFC 8656) as opens a channel through a server without authentication.
//!
//! Owns nothing. The measured datagrams are ChannelData of this channel; the server sends their content on to a plain UDP
//! peer. A second TURN client at the far end would have the server do everything twice, which would be unfair to it.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

const COOKIE: u32 = 0x2112_a442;
const ALLOCATE: u16 = 0x0003;
const CHANNEL_BIND: u16 = 0x0009;
const SUCCESS: u16 = 0x0100;
const CHANNEL_NUMBER: u16 = 0x000c;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const REQUESTED_TRANSPORT: u16 = 0x0019;
/// The first channel there is.
const CHANNEL: u16 = 0x4000;

/// Allocates a relayed address and binds a channel of it to `peer`.
pub(super) fn open_channel(
    socket: &UdpSocket,
    server: SocketAddrV4,
    peer: SocketAddrV4,
) -> anyhow::Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    // UDP is protocol 17.
    ask(socket, server, ALLOCATE, &attribute(REQUESTED_TRANSPORT, &[17, 0, 0, 0]))
        .context("the TURN server gives no relayed address")?;
    let mut attributes = attribute(CHANNEL_NUMBER, &[(CHANNEL >> 8) as u8, CHANNEL as u8, 0, 0]);
    attributes.extend(attribute(XOR_PEER_ADDRESS, &xor_address(peer)));
    ask(socket, server, CHANNEL_BIND, &attributes).context("the TURN server binds no channel")
}

/// What precedes the content of a ChannelData message: channel number, length.
pub(super) fn channel_data_header(len: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (CHANNEL.to_be_bytes(), len.to_be_bytes());
    [a, b, c, d]
}

fn ask(socket: &UdpSocket, server: SocketAddrV4, method: u16, attributes: &[u8]) -> anyhow::Result<()> {
    let mut message = Vec::new();
    message.extend(method.to_be_bytes());
    message.extend((attributes.len() as u16).to_be_bytes());
    message.extend(COOKIE.to_be_bytes());
    message.extend([method as u8; 12]);
    message.extend(attributes);
    let mut answer = [0; 1500];
    for _ in 0..10 {
        socket.send_to(&message, server)?;
        let Ok((len, _)) = socket.recv_from(&mut answer) else { continue };
        ensure!(len >= 20 && answer[4..20] == message[4..20], "an answer to something else");
        let kind = u16::from_be_bytes([answer[0], answer[1]]);
        ensure!(kind == method | SUCCESS, "refused: message type {kind:#06x}");
        return Ok(());
    }
    bail!("no answer")
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), &(value.len() as u16).to_be_bytes(), value].concat()
}

/// Family, port and address, masked with the cookie.
fn xor_address(address: SocketAddrV4) -> [u8; 8] {
    let port = address.port() ^ (COOKIE >> 16) as u16;
    let ip = Ipv4Addr::from_bits(address.ip().to_bits() ^ COOKIE).octets();
    [0, 1, (port >> 8) as u8, port as u8, ip[0], ip[1], ip[2], ip[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The IPv4 example of RFC 5769, 2.2: 192.0.2.1 port 32853.
    #[test]
    fn addresses_are_masked_with_the_cookie() {
        let address = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 32853);
        assert_eq!(xor_address(address), [0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
    }
}

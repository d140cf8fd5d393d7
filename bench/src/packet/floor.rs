//! The least that sealed video over UDP can cost on this machine.
//!
//! Sender: header, one copy of the body, AES-256-GCM, one segmented send for each 48 datagrams. Receiver:
//! a joined receive, opening in place, one copy to where the frame is put together. No protocol, no
//! session, no loss, no order; nothing that an engine may leave out.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use anyhow::{Context, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rift_core::wire::{TAG_LEN, TRANSPORT_HEADER_LEN, TransportHeader};
use rift_core::{Alias, PacketId};

/// Datagrams in a send, as many as the engine's.
const BATCH: usize = 48;
/// A joined receive brings at most this.
const RECEIVE_LEN: usize = 65_536;
const OVERHEAD: usize = TRANSPORT_HEADER_LEN + TAG_LEN;

/// Both sides of the floor, for frames of one size.
pub struct Floor {
    key: LessSafeKey,
    next_id: u64,
    sender: UdpSocket,
    receiver: UdpSocket,
    to: SocketAddr,
    datagram_len: usize,
    packets: usize,
    batch: Vec<u8>,
    joined: Vec<u8>,
    frame: Vec<u8>,
}

impl Floor {
    /// For frames that leave in `packets` datagrams of `datagram_len` bytes.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn new(datagram_len: usize, packets: usize) -> anyhow::Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).context("no AES-256-GCM")?;
        let sender = UdpSocket::bind("127.0.0.1:0")?;
        let receiver = UdpSocket::bind("127.0.0.1:0")?;
        set_option(&sender, libc::SOL_UDP, libc::UDP_SEGMENT, datagram_len.try_into()?)?;
        set_option(&sender, libc::SOL_SOCKET, libc::SO_SNDBUF, 4 << 20)?;
        set_option(&receiver, libc::SOL_SOCKET, libc::SO_RCVBUF, 4 << 20)?;
        set_option(&receiver, libc::SOL_UDP, libc::UDP_GRO, 1)?;
        receiver.set_read_timeout(Some(std::time::Duration::from_secs(2)))?;
        Ok(Self {
            key: LessSafeKey::new(key),
            next_id: 0,
            to: receiver.local_addr()?,
            sender,
            receiver,
            datagram_len,
            packets,
            batch: vec![0; BATCH * datagram_len],
            joined: vec![0; RECEIVE_LEN],
            frame: vec![0; packets * (datagram_len - OVERHEAD)],
        })
    }

    /// Bytes of a frame that [`send`](Self::send) takes.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        self.frame.len()
    }

    /// Seals and sends a frame.
    ///
    /// # Errors
    /// A broken socket.
    #[inline]
    pub fn send(&mut self, data: &[u8]) -> anyhow::Result<()> {
        let body_len = self.datagram_len - OVERHEAD;
        for part in data.chunks(BATCH * body_len) {
            let len = self.seal(part)?;
            self.sender.send_to(&self.batch[..len], self.to)?;
        }
        Ok(())
    }

    /// Receives, opens and places a frame.
    ///
    /// # Errors
    /// A datagram that does not open, or none within two seconds.
    #[inline]
    pub fn receive(&mut self) -> anyhow::Result<&[u8]> {
        let body_len = self.datagram_len - OVERHEAD;
        let mut received = 0;
        while received < self.packets {
            let (len, _) = self.receiver.recv_from(&mut self.joined)?;
            for datagram in self.joined[..len].chunks_mut(self.datagram_len) {
                let (header, sealed) = datagram
                    .split_first_chunk_mut::<TRANSPORT_HEADER_LEN>()
                    .context("a datagram of the floor is too short")?;
                let id = u64::from_be_bytes(header[8..].first_chunk().copied().unwrap_or_default());
                let id = id % self.packets as u64;
                let opened = self.key.open_in_place(nonce(header), Aad::from(&*header), sealed);
                let body = opened.ok().context("a datagram of the floor did not open")?;
                let at = id as usize * body_len;
                let place = self.frame.get_mut(at..at + body.len());
                place.context("a datagram of the floor is too long")?.copy_from_slice(body);
                received += 1;
            }
        }
        ensure!(received == self.packets, "the floor received more than was sent");
        Ok(&self.frame)
    }

    /// Seals the datagrams of one send into the batch and returns its length.
    ///
    /// # Errors
    /// Never for bodies of a datagram's length.
    #[inline]
    pub fn seal(&mut self, part: &[u8]) -> anyhow::Result<usize> {
        let mut len = 0;
        for body in part.chunks(self.datagram_len - OVERHEAD) {
            let header = TransportHeader { alias: Alias(1), packet_id: PacketId(self.next_id) }.encode();
            self.next_id += 1;
            let datagram = &mut self.batch[len..len + OVERHEAD + body.len()];
            let (head, sealed) = datagram.split_at_mut(TRANSPORT_HEADER_LEN);
            let (place, end) = sealed.split_at_mut(body.len());
            head.copy_from_slice(&header);
            place.copy_from_slice(body);
            let tag = self.key.seal_in_place_separate_tag(nonce(&header), Aad::from(&header), place);
            end.copy_from_slice(tag.ok().context("a datagram of the floor could not be sealed")?.as_ref());
            len += OVERHEAD + body.len();
        }
        Ok(len)
    }
}

/// From the packet id in the header, as the engine's.
#[inline]
fn nonce(header: &[u8; TRANSPORT_HEADER_LEN]) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&header[8..16]);
    Nonce::assume_unique_for_key(bytes)
}

/// Sets an integer option of a socket.
#[allow(unsafe_code)]
pub(super) fn set_option(
    socket: &UdpSocket,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of_val(&value)` bytes of `value`, which lives across the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

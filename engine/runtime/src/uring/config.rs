//! How a ring transport is configured, and the one place where its pools are sized.

#![forbid(unsafe_code)]

use std::net::SocketAddr;

use super::merging::Merge;
use crate::socket::OpenError;
use crate::transport::MAX_SEGMENTS;

/// What [`UringUdp::open`](super::UringUdp::open) needs to know.
#[derive(Clone, Copy, Debug)]
pub struct UringUdpConfig {
    /// Address and port; `[::]` takes IPv4 and IPv6 together, port 0 any free port.
    pub bind: SocketAddr,
    /// Spin instead of sleeping: lowest latency, one whole core.
    pub busy_poll: bool,
    /// Let several sockets (one per core) share the port. The kernel then spreads peers over them, and a
    /// port that another program of the same user holds is no longer noticed.
    pub reuse_port: bool,
    /// Spread datagrams over the sockets that share the port by their content instead; set it on all of them.
    pub steer: Option<Steer>,
    /// Whether the kernel merges datagrams that arrive together.
    pub merge: Merge,
    /// Report when the kernel got each batch ([`Received::arrival_ns`](crate::transport::Received)). Costs
    /// the kernel one clock read per packet. For some milliseconds after opening, the stamp may instead be the
    /// moment at which the kernel handed the batch over.
    pub arrival_times: bool,
    /// Receive buffers of 64 KiB; a power of two, 2 to 4096. Each holds one GRO batch.
    pub rx_buffers: usize,
    /// Send slots of 64 KiB, 1 to 1024.
    pub tx_slots: usize,
    /// Bytes that may queue in the socket before the thread takes them.
    pub receive_queue_bytes: usize,
    /// Bytes that may queue between the socket and the device.
    pub send_queue_bytes: usize,
}

/// Which of the sockets that share a port gets a datagram: the one whose number, in the order of their opening, is a
/// 32-bit word of the datagram modulo their count. Datagrams that end before it go to the first socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steer {
    /// Offset of the word, which is big-endian.
    pub offset: u32,
    /// Sockets that share the port; at least 1.
    pub sockets: u32,
}

impl UringUdpConfig {
    /// A sleeping transport for one core with the default pools:
    ///
    /// * 64 receive buffers (4 MiB): what one turn can bring when lone datagrams arrive. Of full GRO batches a turn
    ///   brings 4, in buffers that stay in the cache. What does not fit waits in the socket.
    /// * 32 send slots (2 MiB): a frame of 1 MB with 20 % parity is 20 slots of 54 datagrams, and the next
    ///   frame may be cut while they are in flight.
    /// * 4 MiB of queue in the kernel each way: 3 ms at 10 Gbit/s, which covers a thread that was not
    ///   scheduled for that long.
    #[must_use]
    pub fn new(bind: SocketAddr) -> Self {
        Self {
            bind,
            busy_poll: false,
            reuse_port: false,
            steer: None,
            merge: Merge::Always,
            arrival_times: false,
            rx_buffers: 64,
            tx_slots: 32,
            receive_queue_bytes: 4 << 20,
            send_queue_bytes: 4 << 20,
        }
    }

    pub(super) fn check(&self) -> Result<(), OpenError> {
        let size = |what, found, allowed| OpenError::Size { what, found, allowed };
        if !self.rx_buffers.is_power_of_two() || !(2..=4096).contains(&self.rx_buffers) {
            return Err(size("rx_buffers", self.rx_buffers, "a power of two from 2 to 4096"));
        }
        if !(1..=1024).contains(&self.tx_slots) {
            return Err(size("tx_slots", self.tx_slots, "from 1 to 1024"));
        }
        Ok(())
    }

    /// The sizes of everything that follows from the configuration.
    pub(super) fn sizes(&self) -> Sizes {
        // One header per send of a batch: every slot at once, or one slot cut into single datagrams.
        let tx_headers = self.tx_slots.max(MAX_SEGMENTS);
        // The submission queue holds all of them and the three requests that are armed once in a while:
        // receive, wake-up, writable.
        let submissions = (tx_headers + 3).next_power_of_two();
        // A completion is posted per filled receive buffer, per failed send, and per armed request. The
        // queue is emptied after every kernel entry, so it never overflows at this size; wake-ups and
        // receive errors can come twice in one entry.
        let completions = (self.rx_buffers + tx_headers + 16).next_power_of_two().max(submissions);
        Sizes { tx_headers, submissions: submissions as u32, completions: completions as u32 }
    }
}

/// See [`UringUdpConfig::sizes`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) tx_headers: usize,
    pub(super) submissions: u32,
    pub(super) completions: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_pools_are_refused() {
        let config = UringUdpConfig::new("127.0.0.1:0".parse().unwrap());
        assert!(config.check().is_ok());
        for rx_buffers in [0, 1, 3, 8192] {
            assert!(UringUdpConfig { rx_buffers, ..config }.check().is_err());
        }
        for tx_slots in [0, 1025] {
            assert!(UringUdpConfig { tx_slots, ..config }.check().is_err());
        }
    }

    #[test]
    fn queues_hold_the_worst_case() {
        for (rx_buffers, tx_slots) in [(2, 1), (64, 32), (4096, 1024)] {
            let config = UringUdpConfig {
                rx_buffers,
                tx_slots,
                ..UringUdpConfig::new("127.0.0.1:0".parse().unwrap())
            };
            let sizes = config.sizes();
            assert!(sizes.tx_headers >= tx_slots && sizes.tx_headers >= MAX_SEGMENTS);
            assert!(sizes.submissions as usize >= sizes.tx_headers + 3);
            assert!(sizes.completions as usize >= rx_buffers + sizes.tx_headers + 4);
        }
    }
}

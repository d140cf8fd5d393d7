//! Timing and limits of a session.

use crate::PacketId;
use crate::wire::DEFAULT_DATAGRAM_LEN;

/// Timing and limits of a session, the same for both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// The longest datagram to send, in bytes, at least 1200.
    pub datagram_len: usize,
    /// How often to ping, in microseconds; at most 500 ms (RIFT R-SESS-3).
    pub ping_interval_us: u64,
    /// How long nothing may arrive before the peer has vanished, in microseconds.
    pub timeout_us: u64,
    /// Packets sealed with one key before it is renewed (RIFT R-SEAL-6).
    pub rekey_packets: u64,
    /// How long one key is used before it is renewed, in microseconds (RIFT R-SEAL-6).
    pub rekey_us: u64,
    /// The first packet id. 0, except in a test of what happens at large ids.
    pub first_packet_id: PacketId,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            datagram_len: DEFAULT_DATAGRAM_LEN,
            ping_interval_us: 100_000,
            timeout_us: 3_000_000,
            rekey_packets: 1 << 28,
            rekey_us: 3_600_000_000,
            first_packet_id: PacketId(0),
        }
    }
}

//! The packet that comes next if nothing is lost or overtakes, which is nearly every one.
//!
//! Its body is opened straight into the frame, and what is known of the packet before is known of it. Invariant:
//! whatever is taken here, [`VideoReceiver::handle_chunk`] would take with the same result; everything else is left to
//! it.

use super::VideoReceiver;
use super::frame::Expected;
use super::window::WRAPPER_MAX;
use crate::message::{EDGE, Look};
use crate::receive::RecoveredBy;
use crate::{PacketId, Timestamp};

/// The next packet in line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Next {
    id: PacketId,
    chunk: Expected,
    timestamp_us: u64,
    head_len: usize,
    body_len: usize,
}

impl Next {
    /// The chunk's number in its slice.
    #[inline]
    pub(crate) fn chunk_index(&self) -> u32 {
        self.chunk.at.chunk
    }
}

impl VideoReceiver {
    /// What packet `id` is if it is the next in line, with a body that looks like the one before. `None`: nothing can
    /// be said.
    #[inline]
    pub(crate) fn expect(&self, id: PacketId, look: &Look) -> Option<Next> {
        let (newest, front) = self.window.front()?;
        let payload = look.payload();
        let around_len = look.body_len() - payload.len();
        // Where parity may need all of a body, it is kept in one piece.
        let is_next = id.0 == newest.wrapping_add(1)
            && id.0 == self.window.next_id()
            && around_len <= WRAPPER_MAX
            && payload.start > 0
            && !self.sliding.is_active();
        if !is_next || front.frame < self.frames.floor() {
            return None;
        }
        let chunk = self.frames.expect(front, look.fields(), payload.len(), id.0)?;
        let timestamp_us = look.fields().timestamp_us;
        Some(Next { id, chunk, timestamp_us, head_len: payload.start, body_len: look.body_len() })
    }

    /// Lends `write` the place for the body of the next packet. Nothing of what it writes counts before
    /// [`handle_next`](Self::handle_next). `None` if there is no such place.
    #[inline]
    pub(crate) fn lend<T>(&mut self, next: &Next, write: impl FnOnce(&mut [u8]) -> T) -> Option<T> {
        self.frames.lend(&next.chunk, next.head_len, next.body_len, write)
    }

    /// Takes the next packet, whose body was written to its place, is authentic, and is the chunk that was expected,
    /// after [`on_packet`](Self::on_packet).
    #[inline]
    pub(crate) fn handle_next(&mut self, now: Timestamp, next: &Next) {
        let Next { id, chunk, timestamp_us, head_len, body_len } = next;
        let tail_len = body_len - head_len - chunk.payload_len;
        let placed = self.frames.count_expected(now, chunk);
        self.learn_spacing(placed.gap_us);
        if let Some(wrapper) = self.frames.around()[EDGE - head_len..].first_chunk() {
            self.window.note_next(id.0, chunk.at, chunk.payload_len, (*head_len, tail_len), wrapper);
        }
        self.on_placed(now, chunk.at.frame, *timestamp_us, RecoveredBy::Nothing, placed, true);
        if !self.parities.is_empty() {
            self.retry_parities(now);
        }
    }
}

#[cfg(test)]
mod tests;

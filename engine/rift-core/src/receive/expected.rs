//! The packet that comes next if nothing is lost or overtakes, which is nearly every one.
//!
//! Its body is opened straight into the frame, and what is known of the packet before is known of it. Invariant:
//! whatever is taken here, [`VideoReceiver::handle_chunk`] would take with the same result; everything else is left to
//! it. What is known of the next packet holds only until anything else is done with the receiver: every function that
//! changes frames, window or parity forgets it.

use super::VideoReceiver;
use super::frame::Expected;
use super::window::WRAPPER_MAX;
use crate::message::{EDGE, Look};
use crate::{PacketId, Timestamp};

/// The next packet in line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next {
    id: PacketId,
    chunk: Expected,
    head_len: usize,
    body_len: usize,
}

impl VideoReceiver {
    /// Whether packet `id`, with a body of `body_len` bytes, is the next in line if its body looks like the one before,
    /// which is `look`. If so, [`lend`](Self::lend) and [`handle_next`](Self::handle_next) are for it.
    #[inline]
    pub(crate) fn expect(&mut self, id: PacketId, body_len: usize, look: Option<&Look>) -> bool {
        // Mostly nothing else was done since the packet before, and then all that there is to ask was asked for that.
        if let Some(next) = &self.line
            && next.id == id
        {
            return next.body_len == body_len;
        }
        self.line = look.filter(|look| look.body_len() == body_len).and_then(|look| self.find_next(id, look));
        self.line.is_some()
    }

    fn find_next(&self, id: PacketId, look: &Look) -> Option<Next> {
        let (newest, front) = self.window.front()?;
        let payload = look.payload();
        let around_len = look.body_len() - payload.len();
        // Where parity may need all of a body, it is kept in one piece.
        let is_next = id.0 == newest.checked_add(1)?
            && self.window.is_in_line(id.0)
            && around_len <= WRAPPER_MAX
            && (1..=EDGE).contains(&payload.start)
            && !self.sliding.is_active();
        if !is_next || front.frame < self.frames.floor() {
            return None;
        }
        let chunk = self.frames.expect(front, look.fields(), payload.len(), id.0)?;
        Some(Next { id, chunk, head_len: payload.start, body_len: look.body_len() })
    }

    /// Lends `write` the place for the body of the next packet, and tells the index of its chunk. Nothing of what it
    /// writes counts before [`handle_next`](Self::handle_next). `None` if there is no such place.
    #[inline]
    pub(crate) fn lend<T>(&mut self, write: impl FnOnce(u32, &mut [u8]) -> T) -> Option<T> {
        let next = self.line.as_ref()?;
        self.frames.lend(&next.chunk, next.head_len, next.body_len, |place| write(next.chunk.at.chunk, place))
    }

    /// Takes the next packet, whose body was written to its place, is authentic, and is the chunk that was expected.
    /// It is not given to [`on_packet`](Self::on_packet).
    #[inline]
    pub(crate) fn handle_next(&mut self, now: Timestamp) {
        let Some(next) = &mut self.line else { return };
        let Next { id, chunk, head_len, body_len } = next;
        let tail_len = *body_len - *head_len - chunk.payload_len;
        let placed = self.frames.count_expected(now, chunk);
        if let Some(wrapper) = self.frames.around()[EDGE - *head_len..].first_chunk() {
            let edges = (*head_len, tail_len);
            self.window.arrive_in_line(now, id.0, chunk.at, chunk.payload_len, edges, wrapper);
        }
        self.counters.packets += 1;
        self.counters.chunks += 1;
        self.playout.on_gap(placed.gap_us);
        let frame = chunk.at.frame;
        id.0 += 1;
        if placed.frame_whole || !self.parities.is_empty() || !self.frames.advance(chunk, id.0) {
            self.line = None;
        }
        self.learn_spacing(placed.gap_us);
        if placed.frame_whole {
            self.on_frame_whole(now, frame);
        }
        if !self.parities.is_empty() {
            self.retry_parities(now);
        }
    }
}

#[cfg(test)]
mod tests;

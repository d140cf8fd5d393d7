//! Receive buffers: a ring of 64 KiB buffers that the kernel fills and the thread reads in place.
//!
//! Owns the buffers and the ring that offers them (`io_uring_buf_ring`, io_uring.h). Never copies a payload.
//!
//! Invariant: each buffer is in exactly one place: `spare`, offered to the kernel, waiting in `ready`, or `current`
//! (handed out by the last poll). Only offered buffers are written by the kernel, and only inside a kernel
//! entry of this thread (`DEFER_TASKRUN`).
//!
//! The kernel fills offered buffers in turn. If all were offered, a stream of full GRO batches would walk through
//! all of their memory and find none of it in the cache: that doubles the cost per packet with 64 buffers. So only a
//! `window` of them is in use, those used last, as many as hold [`WINDOW_BYTES`] at the present mix of batches
//! and lone datagrams.
//!
//! A filled buffer (`struct io_uring_recvmsg_out`, io_uring.h), for the lengths that [`RxRing::request`] names:
//!
//! ```text
//!  0        16          48             256
//!  | lengths | sockaddr  | control data  | payload: one datagram, or a GRO batch of equal ones
//! ```

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::counters::Counters;
use crate::socket::address;
use crate::socket::control::{self, RECEIVE_LEN};
use crate::sys::{self, Region};
use crate::transport::Received;

use super::merging::{Merge, Merging};

/// Lengths of name, control data and payload, and flags, each `u32`.
const LENGTHS: usize = 16;
/// Room for a `sockaddr_in6`, padded so that the control data begins aligned.
const NAME: usize = 32;
const CONTROL_AT: usize = LENGTHS + NAME;
const PAYLOAD_AT: usize = CONTROL_AT + RECEIVE_LEN;
/// The largest GRO batch is a 64 KiB packet.
const PAYLOAD: usize = 65_536;
/// Buffers whose beginnings lie at the same place in a cache would push each other out: each lies the length of a lone
/// datagram further than the one before.
const STRIDE: usize = PAYLOAD_AT + PAYLOAD + 21 * 64;
const BUFFER_LEN: usize = PAYLOAD_AT + PAYLOAD;

/// Buffers in use at least. One is filled while the other is offered, so that the request stays armed; with more of
/// them, those that nothing fills at the same time would come out of the cache in turn.
const WINDOW_MIN: u16 = 2;
/// Buffers in use for full batches: 256 KiB, which a second-level cache keeps beside everything else. Fewer would cost
/// kernel entries, more would cost cache: 4 is where the two cross on the machines that were measured.
const WINDOW_FULL: u16 = 4;
/// What one kernel entry should at most bring: the window grows when it ran dry with less than half of this in it,
/// and shrinks when it held more.
const WINDOW_BYTES: usize = WINDOW_FULL as usize * PAYLOAD;
/// The window also shrinks after so many kernel entries in a row that brought no more than one buffer.
const CALM_ENTRIES: u16 = 256;

const _: () = assert!(NAME >= address::NAME_LEN && PAYLOAD_AT.is_multiple_of(64));

/// The receive side of a transport.
pub(super) struct RxRing {
    entries: Region,
    buffers: Region,
    count: u16,
    tail: u16,
    /// Buffers that wait for the window to grow; the last was used last.
    spare: Vec<u16>,
    /// Buffers that the kernel may fill now.
    offered: u16,
    /// Most buffers outside `spare`.
    window: u16,
    /// What the present kernel entry brought, and in how many buffers.
    entry_bytes: usize,
    entry_buffers: u16,
    /// Kernel entries since one brought more than one buffer.
    calm: u16,
    /// Tells the kernel how to lay out a filled buffer. Boxed: its address is part of the request.
    layout: Box<libc::msghdr>,
    ready: VecDeque<Ready>,
    current: Option<u16>,
    /// `CLOCK_MONOTONIC` minus `CLOCK_REALTIME`, modulo 2^64, at the last kernel entry; `None`: not asked for.
    realtime_to_monotonic: Option<u64>,
    socket_drops: u32,
    /// The one local address, if there is only one: the kernel does not tell it then.
    local: Option<IpAddr>,
    pub(super) merging: Option<Merging>,
}

/// A filled buffer.
#[derive(Clone, Copy)]
struct Ready {
    buffer: u16,
    len: u32,
}

impl RxRing {
    /// Maps `count` buffers (a power of two up to 4096) and offers the first of them.
    #[allow(unsafe_code)]
    pub(super) fn new(
        count: usize,
        arrival_times: bool,
        local: Option<IpAddr>,
        merge: Merge,
    ) -> io::Result<Self> {
        let entries = Region::map(count * size_of::<BufRingEntry>())?;
        let buffers = Region::map(count * STRIDE)?;
        // SAFETY: all zeroes is a valid `msghdr`: null pointers and lengths of 0.
        let mut layout: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        layout.msg_namelen = NAME as libc::socklen_t;
        layout.msg_controllen = RECEIVE_LEN as _;
        let mut ring = Self {
            entries,
            buffers,
            count: count as u16,
            tail: 0,
            // The first ones last, to be taken first.
            spare: (0..count as u16).rev().collect(),
            offered: 0,
            window: WINDOW_MIN.min(count as u16),
            entry_bytes: 0,
            entry_buffers: 0,
            calm: 0,
            layout,
            ready: VecDeque::with_capacity(count),
            current: None,
            realtime_to_monotonic: arrival_times.then_some(0),
            socket_drops: 0,
            local,
            merging: match merge {
                Merge::Always => None,
                Merge::ByLoad { seam } => Some(Merging::new(seam)),
            },
        };
        ring.fill_window();
        Ok(ring)
    }

    /// Where the ring of entries lies, and how many there are, for registering it.
    pub(super) fn registration(&self) -> (u64, u16) {
        (self.entries.base() as u64, self.count)
    }

    /// The layout to name in the receive request. Valid while `self` is.
    pub(super) fn request(&self) -> *const libc::msghdr {
        &raw const *self.layout
    }

    /// Whether the kernel has a buffer left to fill.
    #[inline]
    pub(super) fn has_offered(&self) -> bool {
        self.offered > 0
    }

    /// Whether a batch waits to be polled.
    #[inline]
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The kernel filled `buffer` with `len` bytes, lengths and all.
    #[inline]
    pub(super) fn on_filled(&mut self, buffer: u16, len: u32) {
        if buffer < self.count && self.offered > 0 {
            self.offered -= 1;
            self.entry_bytes += len as usize;
            self.entry_buffers += 1;
            self.ready.push_back(Ready { buffer, len });
        }
    }

    /// The kernel gave `buffer` back unused.
    pub(super) fn on_unused(&mut self, buffer: u16) {
        if buffer < self.count && self.offered > 0 {
            self.offered -= 1;
            self.offer(buffer);
        }
    }

    /// The kernel found no buffer: the window is too small for what arrives, unless it was full of batches.
    pub(super) fn on_dry(&mut self) {
        if self.window < WINDOW_FULL || self.entry_bytes < WINDOW_BYTES / 2 {
            self.window = (self.window * 2).min(self.count);
        }
    }

    /// A kernel entry ended: the moment to size the window, and to compare the two clocks.
    #[inline]
    pub(super) fn on_entered(&mut self, goes_on: bool) {
        if let Some(merging) = &mut self.merging {
            let now_ns = if merging.wants_time() { sys::monotonic_ns() } else { 0 };
            merging.on_entered(now_ns, self.entry_buffers, self.ready.len() as u32, goes_on);
        }
        match self.entry_buffers {
            0 => {}
            1 => self.calm += 1,
            _ => self.calm = 0,
        }
        if self.entry_bytes > WINDOW_BYTES && self.window > WINDOW_FULL {
            self.window /= 2;
        } else if self.calm == CALM_ENTRIES {
            self.window = (self.window / 2).max(WINDOW_MIN.min(self.count));
            self.calm = 0;
        }
        (self.entry_bytes, self.entry_buffers) = (0, 0);
        self.fill_window();
        if let Some(offset) = &mut self.realtime_to_monotonic {
            *offset = sys::monotonic_minus_realtime_ns();
        }
    }

    /// Offers the buffer of the last poll to the kernel again.
    #[inline]
    pub(super) fn release_current(&mut self) {
        if let Some(buffer) = self.current.take() {
            if self.used() < self.window {
                self.offer(buffer);
            } else {
                self.spare.push(buffer);
            }
        }
    }

    /// The next batch. Buffers that hold nothing usable are counted and skipped.
    #[inline]
    #[allow(unsafe_code)]
    pub(super) fn poll(&mut self, counters: &mut Counters) -> Option<Received<'_>> {
        loop {
            self.release_current();
            let Ready { buffer, len } = self.ready.pop_front()?;
            self.current = Some(buffer);
            let len = (len as usize).min(BUFFER_LEN);
            // SAFETY: `buffer` is below `count`, so the range lies in `buffers`; it is initialised (zeroed
            // when mapped). It was filled and is not offered again before `release_current`, so the
            // kernel does not write to it; `poll` borrows `self` for as long as the slice lives, so no
            // second slice of it exists.
            let filled = unsafe {
                std::slice::from_raw_parts_mut(self.buffers.base().add(usize::from(buffer) * STRIDE), len)
            };
            if let Some(batch) = parse(filled) {
                if let Some(drops) = batch.socket_drops {
                    counters.socket_drops += u64::from(drops.wrapping_sub(self.socket_drops));
                    self.socket_drops = drops;
                }
                let mut received = batch.received;
                received.arrival_ns = received
                    .arrival_ns
                    .zip(self.realtime_to_monotonic)
                    .map(|(arrival, offset)| arrival.wrapping_add(offset));
                received.to = received.to.or(self.local);
                if let Some(merging) = &mut self.merging {
                    merging.on_received(&mut received);
                }
                counters.receives += 1;
                counters.datagrams += received.count().max(1) as u64;
                counters.received_bytes += received.data.len() as u64;
                return Some(received);
            }
            counters.receive_malformed += 1;
        }
    }

    /// Buffers outside `spare`. There are at most `count`, so the lengths fit.
    #[inline]
    fn used(&self) -> u16 {
        self.offered + self.ready.len() as u16 + u16::from(self.current.is_some())
    }

    #[inline]
    fn fill_window(&mut self) {
        while self.used() < self.window {
            let Some(buffer) = self.spare.pop() else { return };
            self.offer(buffer);
        }
    }

    /// Appends `buffer` to the ring of entries and publishes it.
    #[inline]
    #[allow(unsafe_code)]
    fn offer(&mut self, buffer: u16) {
        let base = self.entries.base().cast::<BufRingEntry>();
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: `at` is below `count`, for which `entries` was mapped, zeroed and page-aligned. The kernel
        // reads this entry only after the tail below names it. No other reference to it exists.
        unsafe {
            let entry = &mut *base.add(at);
            entry.set_addr(self.buffers.base().add(usize::from(buffer) * STRIDE) as u64);
            entry.set_len(BUFFER_LEN as u32);
            entry.set_bid(buffer);
        }
        self.offered += 1;
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the unused field of the first entry, aligned, and is written only here,
        // atomically; release makes the entry visible to the kernel before the tail.
        unsafe {
            AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut()).store(self.tail, Ordering::Release);
        }
    }
}

struct Batch<'a> {
    /// `arrival_ns` is still on the kernel's real-time scale.
    received: Received<'a>,
    socket_drops: Option<u32>,
}

/// Reads a filled buffer. `None`: truncated, or without a usable address.
#[inline]
fn parse(filled: &mut [u8]) -> Option<Batch<'_>> {
    let (head, payload) = filled.split_at_mut_checked(PAYLOAD_AT)?;
    let word = |at: usize| head.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    let (name_len, control_len, payload_len) = (word(0)? as usize, word(4)? as usize, word(8)? as usize);
    let flags = word(12)?.cast_signed();
    // A cut payload cannot be opened, and without its control data a batch cannot be told from a datagram.
    if flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return None;
    }
    let from = address::decode(&head[LENGTHS..LENGTHS + name_len.min(NAME)])?;
    let ancillary = control::parse(&head[CONTROL_AT..CONTROL_AT + control_len.min(RECEIVE_LEN)]);
    let data = payload.get_mut(..payload_len)?;
    let segment_len = ancillary.segment_len.map_or(data.len(), usize::from).clamp(1, data.len().max(1));
    Some(Batch {
        received: Received {
            from,
            to: ancillary.to,
            ecn: ancillary.ecn,
            class: ancillary.class,
            data,
            segment_len,
            arrival_ns: ancillary.realtime_ns,
        },
        socket_drops: ancillary.socket_drops,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filled(payload: &[u8], flags: i32) -> Vec<u8> {
        let mut name = [0; address::NAME_LEN];
        let name_len =
            address::encode("10.1.2.3:99".parse().unwrap(), address::Family::V4, &mut name).unwrap();
        let mut bytes = Vec::new();
        bytes.extend((name_len as u32).to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend((payload.len() as u32).to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(&name[..name_len]);
        bytes.resize(PAYLOAD_AT, 0);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn reads_a_lone_datagram() {
        let mut bytes = filled(b"hello", 0);
        let batch = parse(&mut bytes).unwrap();
        assert_eq!(batch.received.from, "10.1.2.3:99".parse().unwrap());
        assert_eq!(batch.received.data, b"hello");
        assert_eq!(batch.received.segment_len, 5);
    }

    #[test]
    fn an_empty_datagram_has_no_segments_but_a_length() {
        let mut bytes = filled(b"", 0);
        let batch = parse(&mut bytes).unwrap();
        assert_eq!((batch.received.segment_len, batch.received.count()), (1, 0));
    }

    #[test]
    fn cut_ones_are_refused() {
        assert!(parse(&mut filled(b"hello", libc::MSG_TRUNC)).is_none());
        assert!(parse(&mut filled(b"hello", libc::MSG_CTRUNC)).is_none());
        let mut bytes = filled(b"hello", 0);
        bytes.pop();
        assert!(parse(&mut bytes).is_none(), "fewer bytes than announced");
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&mut bytes);
        }
    }

    fn used_and_spare(ring: &RxRing) -> (u16, usize) {
        assert_eq!(
            usize::from(ring.used()) + ring.spare.len(),
            usize::from(ring.count),
            "none lost or doubled"
        );
        (ring.used(), ring.spare.len())
    }

    /// The kernel fills every offered buffer with `len` bytes and wants one more.
    fn run_dry(ring: &mut RxRing, len: u32) -> usize {
        // Which buffers they are does not matter to the accounting.
        let filled = ring.offered;
        for buffer in 0..filled {
            ring.on_filled(buffer, len);
        }
        ring.on_dry();
        ring.on_entered(true);
        let mut counters = Counters::default();
        while ring.poll(&mut counters).is_some() {}
        usize::from(filled)
    }

    #[test]
    fn every_buffer_is_offered_again() {
        let mut ring = RxRing::new(2, false, None, Merge::Always).unwrap();
        let mut counters = Counters::default();
        assert!(ring.has_offered());
        for buffer in 0..2 {
            ring.on_filled(buffer, 10);
        }
        assert!(!ring.has_offered());
        assert!(ring.poll(&mut counters).is_none());
        assert_eq!(counters.receive_malformed, 2, "ten bytes are no message");
        assert!(ring.has_offered());
        assert_eq!(ring.tail, 4, "two at start, two again");
        ring.on_filled(2, 10);
        assert!(!ring.has_ready(), "no such buffer");
    }

    #[test]
    fn lone_datagrams_widen_the_window_and_batches_narrow_it() {
        let mut ring = RxRing::new(64, false, None, Merge::Always).unwrap();
        assert_eq!(used_and_spare(&ring), (2, 62));
        for expected in [2, 4, 8, 16, 32, 64, 64] {
            assert_eq!(run_dry(&mut ring, 1456), expected);
            used_and_spare(&ring);
        }
        for expected in [64, 32, 16, 8, 4, 4] {
            assert_eq!(run_dry(&mut ring, BUFFER_LEN as u32), expected);
            used_and_spare(&ring);
        }
    }

    #[test]
    fn batches_that_come_one_by_one_narrow_the_window_in_the_end() {
        let mut ring = RxRing::new(64, false, None, Merge::Always).unwrap();
        for expected in [2, 4, 4] {
            assert_eq!(run_dry(&mut ring, BUFFER_LEN as u32), expected);
        }
        let mut counters = Counters::default();
        let mut entry = |ring: &mut RxRing, filled: u16| {
            (0..filled).for_each(|buffer| ring.on_filled(buffer, 40_000));
            ring.on_entered(true);
            while ring.poll(&mut counters).is_some() {}
        };
        (1..CALM_ENTRIES).for_each(|_| entry(&mut ring, 1));
        entry(&mut ring, 2);
        (1..CALM_ENTRIES).for_each(|_| entry(&mut ring, 1));
        entry(&mut ring, 0);
        assert_eq!(used_and_spare(&ring), (4, 60), "not in a row, or not enough");
        entry(&mut ring, 1);
        entry(&mut ring, 1);
        assert_eq!(used_and_spare(&ring), (2, 62));
    }

    #[test]
    fn an_unused_buffer_stays_offered() {
        let mut ring = RxRing::new(2, false, None, Merge::Always).unwrap();
        ring.on_unused(1);
        assert_eq!((ring.offered, ring.tail), (2, 3));
        assert_eq!(used_and_spare(&ring), (2, 0));
    }
}

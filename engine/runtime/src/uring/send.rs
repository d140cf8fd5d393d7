//! Committed sends on their way into the kernel.
//!
//! Owns the queue of committed slots and the message headers of those that are staged in the submission
//! queue. Never waits.
//!
//! Every send is `MSG_DONTWAIT` with `IOSQE_CQE_SKIP_SUCCESS`: the kernel has copied (or refused) it when the
//! entry returns, success posts no completion, failure posts one. Invariant: after [`TxQueue::finish`] the
//! kernel refers to no slot and no header.
//!
//! What can happen to a staged send:
//!
//! | errno | meaning | then |
//! |---|---|---|
//! | none | it left | the slot is free |
//! | `EAGAIN` | the socket's queue is full | it stays first in line until the socket is writable |
//! | `EIO`, `EINVAL` of a batch | this route cannot do GSO | it leaves as single datagrams, and so do all later ones |
//! | `EMSGSIZE` of a batch | its datagrams do not fit this route | it leaves as single datagrams: the last, shorter one may fit |
//! | other | see [`SendErrorKind`] | counted, reported, the slot is free |

use std::collections::VecDeque;

use io_uring::squeue::{Entry, Flags};
use io_uring::{SubmissionQueue, opcode, types};

use crate::counters::{Counters, SendErrorKind};
use crate::socket::address::{self, Family, NAME_LEN};
use crate::socket::control::{self, SEND_LEN};
use crate::transport::{MAX_SEGMENTS, SendError, Transmit, TxSlot};

/// Failed sends that are kept for [`Transport::poll_send_error`](crate::transport::Transport).
const ERRORS_KEPT: usize = 32;

/// The send side of a transport.
pub(super) struct TxQueue {
    family: Family,
    /// Committed and not yet finished; the first `staged` ones are in the submission queue.
    pending: VecDeque<Queued>,
    staged: Staged,
    headers: Box<[Header]>,
    /// `errno` of each staged send, 0 while none was reported.
    outcomes: Box<[i32]>,
    /// Those to be tried again, while a batch is being finished.
    again: VecDeque<Queued>,
    /// The socket's queue is full: nothing is staged until it is writable.
    blocked: bool,
    /// Whether GSO is used; off for good once a batch left as single datagrams that did not as a whole.
    gso: bool,
    errors: VecDeque<SendError>,
}

struct Queued {
    slot: TxSlot,
    transmit: Transmit,
    /// GSO was refused for this one.
    split: bool,
    /// Not because the route cannot do it, but because of its MTU.
    oversize: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Staged {
    Nothing,
    /// The first so many of `pending`, one message each.
    Whole(usize),
    /// The first of `pending`, in so many datagrams.
    Split(usize),
}

impl Staged {
    fn messages(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Whole(count) | Self::Split(count) => count,
        }
    }
}

/// One message as the kernel reads it; in one place from staging to finishing.
#[repr(C, align(64))]
struct Header {
    message: libc::msghdr,
    payload: libc::iovec,
    control: Control,
    name: Name,
}

#[repr(C, align(8))]
struct Control([u8; SEND_LEN]);

#[repr(C, align(8))]
struct Name([u8; NAME_LEN]);

impl TxQueue {
    /// Room for `slots` committed slots and `headers` staged messages (at least [`MAX_SEGMENTS`]).
    #[allow(unsafe_code)]
    pub(super) fn new(family: Family, slots: usize, headers: usize) -> Self {
        let headers = headers.max(MAX_SEGMENTS);
        Self {
            family,
            pending: VecDeque::with_capacity(slots),
            staged: Staged::Nothing,
            // SAFETY: all zeroes is a valid header: null pointers, lengths of 0, bytes.
            headers: (0..headers).map(|_| unsafe { std::mem::zeroed() }).collect(),
            outcomes: vec![0; headers].into_boxed_slice(),
            again: VecDeque::with_capacity(slots),
            blocked: false,
            gso: true,
            errors: VecDeque::with_capacity(ERRORS_KEPT),
        }
    }

    /// Queues a slot. One that cannot be sent is reported and freed.
    #[inline]
    pub(super) fn commit(&mut self, slot: TxSlot, transmit: Transmit, counters: &mut Counters) {
        if !self.is_valid(&slot, &transmit) {
            self.fail(transmit, SendErrorKind::Invalid, counters);
        } else if self.pending.len() == self.pending.capacity() {
            // Only with slots of another transport's pool.
            counters.tx_exhausted += 1;
            self.fail(transmit, SendErrorKind::NoBuffers, counters);
        } else {
            self.pending.push_back(Queued { slot, transmit, split: false, oversize: false });
        }
    }

    /// Whether something is committed that could be staged now.
    #[inline]
    pub(super) fn wants_stage(&self) -> bool {
        !self.pending.is_empty() && !self.blocked && self.staged == Staged::Nothing
    }

    /// Whether sends wait for the socket to become writable.
    #[inline]
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// The socket is writable again.
    pub(super) fn on_writable(&mut self) {
        self.blocked = false;
    }

    /// Whether messages are in the submission queue.
    #[inline]
    pub(super) fn is_staged(&self) -> bool {
        self.staged != Staged::Nothing
    }

    /// Puts committed sends into the submission queue, tagging each with `tag` plus its number.
    #[inline]
    pub(super) fn stage(&mut self, queue: &mut SubmissionQueue<'_>, socket: types::Fixed, tag: u64) {
        if !self.wants_stage() {
            return;
        }
        let room = (queue.capacity() - queue.len()).min(self.headers.len());
        let Some(first) = self.pending.front() else { return };
        if self.is_split(first) {
            self.stage_split(queue, room, socket, tag);
        } else {
            self.stage_whole(queue, room, socket, tag);
        }
    }

    /// The kernel refused staged message number `index` with `errno`.
    pub(super) fn on_refused(&mut self, index: usize, errno: i32) {
        if let Some(outcome) = self.outcomes.get_mut(index) {
            *outcome = errno;
        }
    }

    /// The kernel took everything that was staged: frees what left or failed, keeps what must be tried again.
    #[inline]
    pub(super) fn finish(&mut self, counters: &mut Counters) {
        match std::mem::replace(&mut self.staged, Staged::Nothing) {
            Staged::Nothing => {}
            Staged::Whole(count) => self.finish_whole(count, counters),
            Staged::Split(count) => self.finish_split(count, counters),
        }
    }

    /// The next failure, oldest first.
    pub(super) fn poll_error(&mut self) -> Option<SendError> {
        self.errors.pop_front()
    }

    fn is_valid(&self, slot: &TxSlot, transmit: &Transmit) -> bool {
        let reachable = self.family == Family::V6 || transmit.to.ip().to_canonical().is_ipv4();
        let same_family = transmit
            .from
            .is_none_or(|from| from.to_canonical().is_ipv4() == transmit.to.ip().to_canonical().is_ipv4());
        let fits = transmit.len <= slot.len() && transmit.segments() <= MAX_SEGMENTS;
        // A batch's segment length is below its length, so it fits the kernel's u16; 0 would be no batch.
        let cut = transmit.segment_len > 0 || transmit.len == 0;
        reachable && same_family && fits && cut
    }

    #[inline]
    fn is_split(&self, queued: &Queued) -> bool {
        queued.transmit.is_batch() && (queued.split || !self.gso)
    }

    #[inline]
    fn stage_whole(&mut self, queue: &mut SubmissionQueue<'_>, room: usize, socket: types::Fixed, tag: u64) {
        let mut count = 0;
        while count < room {
            let Some(queued) = self.pending.get(count) else { break };
            if self.is_split(queued) {
                break;
            }
            let header = &mut self.headers[count];
            header.write(&queued.slot[..queued.transmit.len], &queued.transmit, self.family);
            push(queue, header, socket, tag + count as u64);
            count += 1;
        }
        self.outcomes[..count].fill(0);
        if count > 0 {
            self.staged = Staged::Whole(count);
        }
    }

    /// Stages the first slot as single datagrams, if there is room for all of them.
    fn stage_split(&mut self, queue: &mut SubmissionQueue<'_>, room: usize, socket: types::Fixed, tag: u64) {
        let Some(queued) = self.pending.front() else { return };
        let count = queued.transmit.segments();
        if count > room {
            return;
        }
        let datagrams = queued.slot[..queued.transmit.len].chunks(queued.transmit.segment_len);
        for (index, (datagram, header)) in datagrams.zip(&mut self.headers).enumerate() {
            let alone = Transmit { len: datagram.len(), segment_len: datagram.len(), ..queued.transmit };
            header.write(datagram, &alone, self.family);
            push(queue, header, socket, tag + index as u64);
        }
        self.outcomes[..count].fill(0);
        self.staged = Staged::Split(count);
    }

    #[inline]
    fn finish_whole(&mut self, count: usize, counters: &mut Counters) {
        for index in 0..count {
            let Some(mut queued) = self.pending.pop_front() else { break };
            match self.outcomes[index] {
                0 => {
                    counters.sends += 1;
                    counters.segments += queued.transmit.segments() as u64;
                    counters.sent_bytes += queued.transmit.len as u64;
                }
                libc::EAGAIN => {
                    counters.tx_deferred += 1;
                    self.blocked = true;
                    self.again.push_back(queued);
                }
                libc::EIO | libc::EINVAL if queued.transmit.is_batch() => {
                    queued.split = true;
                    self.again.push_back(queued);
                }
                libc::EMSGSIZE if queued.transmit.is_batch() => {
                    (queued.split, queued.oversize) = (true, true);
                    self.again.push_back(queued);
                }
                errno => self.fail(queued.transmit, SendErrorKind::from_errno(errno), counters),
            }
        }
        while let Some(queued) = self.again.pop_back() {
            self.pending.push_front(queued);
        }
    }

    fn finish_split(&mut self, count: usize, counters: &mut Counters) {
        let Some(queued) = self.pending.pop_front() else { return };
        let transmit = queued.transmit;
        let mut left = 0;
        for (index, datagram) in queued.slot[..transmit.len].chunks(transmit.segment_len).enumerate() {
            let alone = Transmit { len: datagram.len(), segment_len: datagram.len(), ..transmit };
            match self.outcomes[index.min(count - 1)] {
                0 => {
                    left += 1;
                    counters.sent_bytes += datagram.len() as u64;
                }
                // Later ones may have left already, so waiting would only turn the order around.
                libc::EAGAIN => self.fail(alone, SendErrorKind::NoBuffers, counters),
                errno => self.fail(alone, SendErrorKind::from_errno(errno), counters),
            }
        }
        if left == 0 {
            return;
        }
        counters.sends += 1;
        counters.segments += left;
        counters.gso_fallbacks += 1;
        if self.gso && !queued.oversize {
            self.gso = false;
            tracing::warn!(
                "the route to {} cannot send batches (UDP GSO): sending single datagrams from now on, at several \
                 times the cost",
                transmit.to
            );
        }
    }

    fn fail(&mut self, transmit: Transmit, kind: SendErrorKind, counters: &mut Counters) {
        counters.send_errors.count(kind);
        if self.errors.len() == ERRORS_KEPT {
            self.errors.pop_front();
        }
        self.errors.push_back(SendError { transmit, kind });
    }
}

impl std::fmt::Debug for TxQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TxQueue")
            .field("pending", &self.pending.len())
            .field("staged", &self.staged.messages())
            .field("blocked", &self.blocked)
            .field("gso", &self.gso)
            .finish_non_exhaustive()
    }
}

impl Header {
    /// Describes one message. `transmit` was validated when it was committed.
    #[inline]
    fn write(&mut self, payload: &[u8], transmit: &Transmit, family: Family) {
        // Both are `Some` for a validated transmit; a name of no bytes would be refused by the kernel.
        let name_len = address::encode(transmit.to, family, &mut self.name.0).unwrap_or(0);
        let control_len = control::write(transmit, family, &mut self.control.0).unwrap_or(0);
        // The kernel only reads through these pointers.
        self.payload.iov_base = payload.as_ptr().cast_mut().cast();
        self.payload.iov_len = payload.len();
        self.message.msg_name = (&raw mut self.name).cast();
        self.message.msg_namelen = name_len as libc::socklen_t;
        self.message.msg_iov = &raw mut self.payload;
        self.message.msg_iovlen = 1;
        self.message.msg_control =
            if control_len == 0 { std::ptr::null_mut() } else { (&raw mut self.control).cast() };
        self.message.msg_controllen = control_len as _;
    }
}

#[inline]
#[allow(unsafe_code)]
fn push(queue: &mut SubmissionQueue<'_>, header: &Header, socket: types::Fixed, user_data: u64) {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let entry: Entry = if header.message.msg_controllen == 0 {
        // Without control data the kernel need not read a message header and what it refers to.
        opcode::Send::new(socket, header.payload.iov_base.cast(), header.payload.iov_len as u32)
            .flags(flags)
            .dest_addr((&raw const header.name).cast())
            .dest_addr_len(header.message.msg_namelen)
            .build()
    } else {
        opcode::SendMsg::new(socket, &raw const header.message).flags(flags.cast_unsigned()).build()
    };
    let entry = entry.flags(Flags::SKIP_SUCCESS).user_data(user_data);
    // SAFETY: header, control data, name and payload stay where they are until `finish`: headers are boxed
    // for the queue's lifetime, and the slot stays in `pending`. The request is `MSG_DONTWAIT`, so the kernel
    // is done with all of them when the entry that takes it returns.
    let pushed = unsafe { queue.push(&entry) };
    debug_assert!(pushed.is_ok(), "staging never exceeds the room in the queue");
}

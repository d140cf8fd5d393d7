//! Handing out what leaves for the first time, and its parity.

use super::super::frame_store::ChunkRef;
use super::super::span::RunNumbers;
use super::super::template::{NO_LENGTHS, Template};
use super::super::{Batch, BatchKind};
use super::{Active, Covers, PPM, PendingParity, VideoSender};
use crate::fec::{COVERED_SPAN, Code, Runs};
use crate::message::{FecPacket, PackedVarints};
use crate::{FrameId, GroupId, PacketId, Timestamp};

impl VideoSender {
    pub(super) fn begin_parity(&mut self) -> Option<Active> {
        let pending = self.pending_parity.take()?;
        let mut numbers = [0; COVERED_SPAN as usize];
        let (code, len, first, count, payload_len) = match &pending.covers {
            Covers::Group(runs) => {
                let mut of_group = RunNumbers::default();
                let len = runs.encode(&mut of_group);
                numbers[..of_group.len()].copy_from_slice(&of_group);
                let payload_len =
                    if self.code == Code::Xor { pending.each } else { self.span.parity(0).len() };
                (self.code, len, runs.first(), runs.shards().into(), payload_len)
            }
            Covers::Window(covered) => {
                let len = covered.encode(&mut numbers)?;
                (Code::Sliding, len, covered.first(), covered.count(), self.sliding.parity(0).len())
            }
        };
        let fields = FecPacket {
            group_id: pending.group_id,
            first_packet_id: PacketId(first),
            shard_count: count,
            parity_index: 0,
            payload: &[],
            shard_lengths: NO_LENGTHS,
            parity_count: pending.parity_count as u32,
            frame_id: pending.frame_id,
            code: code.to_wire(),
            // One byte each, so they are their own encoding.
            runs: PackedVarints::checked(&numbers[..len]).unwrap_or_else(|_| PackedVarints::empty()),
        };
        self.template = Template::parity(&fields, pending.each as u32, pending.last as u32, payload_len);
        let body_len = self.template.body_len();
        let kind = BatchKind::Parity;
        let (count, frame_id) = (pending.parity_count, pending.frame_id);
        Some(Active {
            code,
            ..Active::new(Batch { count, body_len, last_body_len: body_len, kind, frame_id })
        })
    }

    pub(super) fn begin_data(&mut self, now: Timestamp) -> Option<Active> {
        let (at, chunks) = self.next_data()?;
        if self.data_opens_at(at, &chunks) > now {
            self.pacer.hold();
            return None;
        }
        let (slot, slice) = self.store.find(at)?;
        let count = chunks.len();
        let (frame_id, parity_ppm) = (slot.frame_id, slice.parity_ppm);
        if !self.has_room(frame_id, count, parity_ppm) {
            self.close(parity_ppm);
            if let Some(parity) = self.begin_parity() {
                return Some(parity);
            }
        }
        self.choose_code(parity_ppm);
        let (slot, slice) = self.store.find(at)?;
        let last = chunks.end - 1;
        self.template = slot.template(slice, chunks.start);
        self.last_template = slot.template(slice, last);
        let batch = Batch {
            count,
            body_len: self.template.body_len(),
            last_body_len: self.last_template.body_len(),
            kind: BatchKind::Data,
            frame_id: slot.frame_id,
        };
        let frame_id = slot.frame_id;
        let encoded_bytes = (slice.payload(last).end - slice.payload(chunks.start).start) as u64;
        let (group_count, last_slice, parity_ppm) = (slice.group_count, slice.last_slice, slice.parity_ppm);
        let is_protected = slice.is_protected;
        self.pacer.admit(frame_id, encoded_bytes);
        self.retransmissions.on_sent(encoded_bytes);
        let parity_count = match self.code {
            Code::Xor if is_protected => self.parities(count, parity_ppm),
            _ => 0,
        };
        let parity_count = self.parity.begin(parity_count, batch.body_len);
        self.next_group += 1;
        let ends_slice = self.next_group == group_count;
        let ends_frame = ends_slice && last_slice;
        if ends_slice {
            self.next_group = 0;
            self.queue.pop_front();
        }
        if ends_frame {
            self.last_whole = Some(frame_id);
        }
        Some(Active { first: at, parity_count, parity_ppm, is_protected, ends_frame, ..Active::new(batch) })
    }

    /// The first chunk and the chunks of the group that leaves next.
    pub(super) fn next_data(&self) -> Option<(ChunkRef, core::ops::Range<u32>)> {
        let front = self.queue.front()?;
        let serial = self.store.serial(front.slot);
        let at = ChunkRef { slot: front.slot, slice: front.slice, serial, chunk: 0 };
        let chunks = self.store.find(at)?.1.group(self.next_group);
        Some((ChunkRef { chunk: chunks.start, ..at }, chunks))
    }

    pub(super) fn data_opens_at(&self, at: ChunkRef, chunks: &core::ops::Range<u32>) -> Timestamp {
        self.store.find(at).map_or(Timestamp::NEVER, |(slot, slice)| {
            let encoded = slice.payload(chunks.end - 1).end - slice.payload(chunks.start).start;
            self.pacer.opens_at(slot.frame_id, encoded as u64)
        })
    }

    #[inline]
    pub(super) fn seal_data(
        &mut self,
        packet_id: PacketId,
        active: &Active,
        seal: impl FnOnce(&[u8]) -> Option<usize>,
    ) -> Option<usize> {
        let chunk = ChunkRef { chunk: active.first.chunk + active.written as u32, ..active.first };
        let (slot, slice) = self.store.find(chunk)?;
        let last = active.written + 1 == active.batch.count;
        let template = if last { &self.last_template } else { &self.template };
        let len = template.body_len();
        let frame_id = slot.frame_id;
        // A body that parity needs later is put together where it is kept, and sealed from there.
        let sealed = if self.code == Code::ReedSolomon && active.is_protected && self.is_sliding {
            let place = self.sliding.next_place(packet_id, len)?;
            template.write(chunk.chunk, slot.payload(slice, chunk.chunk), place)?;
            let sealed = seal(place)?;
            self.sliding.push(packet_id, frame_id, len);
            sealed
        } else if self.code == Code::ReedSolomon && active.is_protected {
            let place = self.span.next_place(len)?;
            template.write(chunk.chunk, slot.payload(slice, chunk.chunk), place)?;
            let sealed = seal(place)?;
            let fits = self.span.push(packet_id, frame_id, chunk, len);
            self.counters.parity_abandoned += u64::from(!fits);
            sealed
        } else {
            template.write(chunk.chunk, slot.payload(slice, chunk.chunk), &mut self.scratch)?;
            let sealed = seal(&self.scratch[..len])?;
            if self.code == Code::Xor {
                self.parity.accumulate(active.written, &self.scratch[..len]);
            }
            sealed
        };
        self.history.record(packet_id, chunk);
        if let Some(active) = &mut self.active {
            if active.written == 0 {
                active.first_packet_id = packet_id;
            }
            active.consecutive &= packet_id.0.wrapping_sub(active.first_packet_id.0) == active.written as u64;
        }
        Some(sealed)
    }

    pub(super) fn finish_data(&mut self) {
        let Some(active) = self.active else { return };
        if self.code == Code::ReedSolomon {
            if active.ends_frame {
                self.close(active.parity_ppm);
            }
            return;
        }
        if active.parity_count == 0 {
            return;
        }
        if !active.consecutive {
            self.counters.parity_abandoned += 1;
            return;
        }
        let Some((slot, _)) = self.store.find(active.first) else { return };
        self.pending_parity = Some(PendingParity {
            frame_id: slot.frame_id,
            group_id: self.next_group_id,
            covers: Covers::Group(Runs::consecutive(active.first_packet_id.0, active.batch.count)),
            parity_count: active.parity_count,
            each: active.batch.body_len,
            last: active.batch.last_body_len,
        });
        self.next_group_id = self.next_group_id.next();
    }

    /// Whether `count` more packets may leave before parity is made of those that have.
    fn has_room(&self, frame_id: FrameId, count: usize, parity_ppm: u32) -> bool {
        match self.code {
            Code::Xor => true,
            _ if self.is_sliding => self.sliding.has_room(count),
            _ => self.span.has_room(frame_id, count, parity_ppm),
        }
    }

    /// Between two groups, parity may begin or cease to reach back.
    fn choose_code(&mut self, parity_ppm: u32) {
        if self.span.open().is_some() || self.sliding.fresh() > 0 {
            return;
        }
        // What is asked for whatever is lost is for each frame.
        let is_sliding = self.may_slide && parity_ppm == 0 && self.protection.reach() > 0;
        if self.is_sliding && !is_sliding {
            self.sliding.clear();
        }
        self.is_sliding = is_sliding;
    }

    /// Makes the parity of what has left; it leaves next.
    fn close(&mut self, parity_ppm: u32) {
        if self.is_sliding { self.close_window() } else { self.close_span(parity_ppm) }
    }

    /// The parity of the packets since it was made last, which reaches back over those before.
    fn close_window(&mut self) {
        let Some((frame_id, newest)) = self.sliding.newest() else { return };
        let reach = self.protection.reach();
        let parities = self.protection.sliding_parities(self.sliding.fresh());
        // Groups have no names here. What that and small numbers save is room for runs.
        let spare = FecPacket::OVERHEAD_MAX - FecPacket::sliding_overhead(newest, frame_id);
        let Some(made) = self.sliding.make(parities, reach, spare) else { return };
        self.pending_parity = Some(PendingParity {
            frame_id,
            group_id: GroupId(0),
            covers: Covers::Window(made.covered),
            parity_count: made.parities,
            each: 0,
            last: 0,
        });
    }

    /// Closes the open Reed-Solomon group; its parity leaves next.
    fn close_span(&mut self, parity_ppm: u32) {
        let Some((frame_id, first)) = self.span.open() else { return };
        if self.store.find(first).is_none() {
            self.span.clear();
            return;
        }
        let parities = self.parities(self.span.len(), parity_ppm);
        let (runs, parity_count) = self.span.close(parities);
        if parity_count == 0 {
            return;
        }
        self.pending_parity = Some(PendingParity {
            frame_id,
            group_id: self.next_group_id,
            covers: Covers::Group(runs),
            parity_count,
            each: 0,
            last: 0,
        });
        self.next_group_id = self.next_group_id.next();
    }

    /// How many parities a group of `packets` gets, but not fewer than `parity_ppm` says: to the nearest number, since
    /// a fraction too many for each group would be a tenth more than is asked for.
    fn parities(&mut self, packets: usize, parity_ppm: u32) -> usize {
        let wanted = u64::from(parity_ppm) * packets as u64;
        let least = ((wanted + u64::from(PPM) / 2) / u64::from(PPM)).max(u64::from(wanted > 0)) as usize;
        self.protection.parities(packets).max(least)
    }
}

//! From units that several threads finish in any order to slices in order.
//!
//! Owns: the buffers that slices wait in, and what is learnt from the first slice of a frame.
//! Never: holds a slice back whose turn it is. Invariant: slices leave in raster order, each once.
//!
//! One lock serialises the threads. It is taken once per slice and covers the copy that escapes it (about a
//! millisecond per 10 MB); with one encoder thread nobody contends for it.

use std::any::Any;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::ffi::{Unit, UnitReceiver};
use crate::h264::{
    Nal, NalUnits, ParameterSets, PictureReferences, SPS_BYTES_MAX, SliceHeader, UNIT_IDR_SLICE, UNIT_PPS,
    UNIT_SLICE, UNIT_SPS, write_sps_with_frame_num_gaps,
};
use crate::{EncodedSlice, SliceSink};

/// Buffers for one frame, reused for all.
pub(super) struct SliceBuffers {
    /// The slice on its way out; before it a keyframe's parameter sets.
    outgoing: Vec<u8>,
    waiting: Vec<Waiting>,
    scratch: Vec<u8>,
}

/// A slice whose turn has not come.
struct Waiting {
    first_macroblock: u32,
    last_macroblock: u32,
    occupied: bool,
    bytes: Vec<u8>,
}

impl SliceBuffers {
    /// For `slices` slices of which one thread at a time delivers in order.
    pub(super) fn new(slices: u32, threads: u32, slice_bytes_max: usize) -> Self {
        let waiting = if threads > 1 { slices } else { 0 };
        Self {
            outgoing: Vec::with_capacity(slice_bytes_max + 2 * SPS_BYTES_MAX),
            waiting: (0..waiting)
                .map(|_| Waiting {
                    first_macroblock: 0,
                    last_macroblock: 0,
                    occupied: false,
                    bytes: Vec::with_capacity(slice_bytes_max),
                })
                .collect(),
            scratch: Vec::with_capacity(2 * SPS_BYTES_MAX),
        }
    }
}

/// What a frame became.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FrameSummary {
    pub(super) header: Option<SliceHeader>,
    pub(super) reference: Option<u64>,
    pub(super) slices: u32,
    pub(super) bytes: u32,
    pub(super) complete: bool,
    pub(super) first_slice: Duration,
}

/// Takes the units of one frame.
pub(super) struct FrameOutput<'a> {
    state: Mutex<State<'a>>,
}

struct State<'a> {
    frame_id: u64,
    start: Instant,
    macroblocks: u32,
    next_macroblock: u32,
    sets: &'a mut ParameterSets,
    references: &'a PictureReferences,
    buffers: &'a mut SliceBuffers,
    sink: &'a mut SliceSink<'a>,
    summary: FrameSummary,
    panic: Option<Box<dyn Any + Send>>,
}

impl<'a> FrameOutput<'a> {
    pub(super) fn new(
        frame_id: u64,
        start: Instant,
        macroblocks: u32,
        sets: &'a mut ParameterSets,
        references: &'a PictureReferences,
        buffers: &'a mut SliceBuffers,
        sink: &'a mut SliceSink<'a>,
    ) -> Self {
        buffers.outgoing.clear();
        for waiting in &mut buffers.waiting {
            waiting.occupied = false;
        }
        let summary = FrameSummary::default();
        let state = State {
            frame_id,
            start,
            macroblocks,
            next_macroblock: 0,
            sets,
            references,
            buffers,
            sink,
            summary,
            panic: None,
        };
        Self { state: Mutex::new(state) }
    }

    /// What came of it, once the library has returned. Continues a panic of the sink.
    pub(super) fn finish(self) -> FrameSummary {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(payload) = state.panic {
            std::panic::resume_unwind(payload);
        }
        state.summary
    }
}

impl UnitReceiver for FrameOutput<'_> {
    fn on_unit(&self, unit: &Unit) {
        // A panic of the sink poisons the lock; what is left then only counts.
        let Ok(mut state) = self.state.lock() else { return };
        match u8::try_from(unit.unit_type) {
            Ok(UNIT_SPS | UNIT_PPS) => state.on_parameter_set(unit),
            Ok(UNIT_SLICE | UNIT_IDR_SLICE) => state.on_slice(unit),
            _ => {} // supplemental information: the version string
        }
    }

    fn on_panic(&self, payload: Box<dyn Any + Send>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.panic.get_or_insert(payload);
    }
}

impl State<'_> {
    fn on_parameter_set(&mut self, unit: &Unit) {
        let SliceBuffers { outgoing, scratch, .. } = &mut *self.buffers;
        scratch.clear();
        unit.append_to(scratch);
        let Some(nal) = NalUnits::new(scratch).next() else { return };
        self.sets.record(&nal);
        append_parameter_set(outgoing, scratch, &nal);
    }

    fn on_slice(&mut self, unit: &Unit) {
        if unit.first_macroblock == self.next_macroblock {
            unit.append_to(&mut self.buffers.outgoing);
            self.hand_out(unit.last_macroblock);
            self.hand_out_waiting();
        } else if let Some(free) = self.buffers.waiting.iter_mut().find(|waiting| !waiting.occupied) {
            free.bytes.clear();
            unit.append_to(&mut free.bytes);
            free.first_macroblock = unit.first_macroblock;
            free.last_macroblock = unit.last_macroblock;
            free.occupied = true;
        }
    }

    fn hand_out_waiting(&mut self) {
        loop {
            let next = self.next_macroblock;
            let SliceBuffers { outgoing, waiting, .. } = &mut *self.buffers;
            let due = waiting.iter_mut().find(|waiting| waiting.occupied && waiting.first_macroblock == next);
            let Some(due) = due else { return };
            due.occupied = false;
            outgoing.extend_from_slice(&due.bytes);
            let last_macroblock = due.last_macroblock;
            self.hand_out(last_macroblock);
        }
    }

    /// Hands out what is in the outgoing buffer.
    fn hand_out(&mut self, last_macroblock: u32) {
        let data = self.buffers.outgoing.as_slice();
        let summary = &mut self.summary;
        if summary.slices == 0 {
            let slice = NalUnits::new(data).find(Nal::is_slice);
            summary.header = slice.and_then(|nal| SliceHeader::parse(&nal, self.sets));
            summary.reference =
                summary.header.and_then(|header| self.references.resolve(self.frame_id, &header));
            summary.first_slice = self.start.elapsed();
        }
        self.next_macroblock = last_macroblock + 1;
        let index = summary.slices;
        summary.slices += 1;
        summary.bytes += data.len() as u32;
        summary.complete = self.next_macroblock >= self.macroblocks;
        (self.sink)(EncodedSlice {
            frame_id: self.frame_id,
            index,
            last: summary.complete,
            keyframe: summary.header.is_some_and(|header| header.idr),
            reference: summary.reference,
            data,
        });
        self.buffers.outgoing.clear();
    }
}

/// Copies a parameter set, a sequence parameter set with gaps in `frame_num` allowed.
fn append_parameter_set(to: &mut Vec<u8>, unit: &[u8], nal: &Nal<'_>) {
    let mut rewritten = [0; SPS_BYTES_MAX];
    match write_sps_with_frame_num_gaps(nal, &mut rewritten) {
        Some(length) if nal.unit_type() == UNIT_SPS => to.extend_from_slice(&rewritten[..length]),
        _ => to.extend_from_slice(unit),
    }
}

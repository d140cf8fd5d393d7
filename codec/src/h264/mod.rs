//! As much of ITU-T H.264 as is needed to know what a slice predicts from.
//!
//! Owns: Annex B splitting, the fields of parameter sets and slice headers up to reference marking, and
//! the model of which pictures a decoder holds.
//! Never: decodes pictures; trusts a length or a count from the bitstream.
//! Invariant: malformed input gives `None`, never a panic and never an endless loop.

mod admission;
mod bits;
mod nal;
mod parameter_sets;
mod references;
mod slice_header;

pub use nal::{Nal, NalUnits, UNIT_IDR_SLICE, UNIT_PPS, UNIT_SLICE, UNIT_SPS};
pub use parameter_sets::{ParameterSets, Pps, Sps, write_sps_with_frame_num_gaps};
pub use references::{PictureReferences, Reference};
pub use slice_header::{LongTermMark, SliceHeader};

pub(crate) use admission::{Admission, FinishedFrame, Verdict};
pub(crate) use parameter_sets::SPS_BYTES_MAX;

//! Slice headers up to reference picture marking (ITU-T H.264 section 7.3.3).
//!
//! Owns: which picture a P slice names first and which long-term marks it carries.
//! Never: reads slice data. Invariant: only frame pictures with one reference list are accepted.

use super::bits::BitReader;
use super::nal::{Nal, UNIT_IDR_SLICE};
use super::parameter_sets::{ParameterSets, Pps, Sps};
use super::references::Reference;

/// A picture becomes a long-term reference (section 8.2.5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LongTermMark {
    /// This picture takes the long-term index.
    Current {
        /// `long_term_frame_idx`.
        index: u8,
    },
    /// The short-term picture that is `difference` of `frame_num` back takes the long-term index.
    Earlier {
        /// `difference_of_pic_nums_minus1 + 1`.
        difference: u32,
        /// `long_term_frame_idx`.
        index: u8,
    },
}

/// What this crate needs of a slice header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceHeader {
    /// First macroblock of the slice in raster order.
    pub first_macroblock: u32,
    /// `pic_parameter_set_id`.
    pub pps_id: u8,
    /// `frame_num`.
    pub frame_num: u32,
    /// Bits of `frame_num` in this sequence.
    pub frame_num_bits: u32,
    /// The picture is an IDR picture.
    pub idr: bool,
    /// `idr_pic_id`, 0 for other pictures.
    pub idr_id: u32,
    /// The first entry of reference list 0; `None` for I slices.
    pub reference: Option<Reference>,
    /// Other pictures may predict from this one.
    pub is_reference: bool,
    /// The long-term mark it carries, if any. Encoders here never carry two.
    pub mark: Option<LongTermMark>,
}

impl SliceHeader {
    /// Reads the header of a slice. `None` if malformed, if a parameter set is missing, or for B, SP and SI
    /// slices.
    pub fn parse(nal: &Nal<'_>, parameter_sets: &ParameterSets) -> Option<Self> {
        let mut reader = BitReader::new(nal.payload());
        let idr = nal.unit_type() == UNIT_IDR_SLICE;
        let first_macroblock = reader.unsigned()?;
        let predicted = match reader.unsigned()? % 5 {
            0 => true,
            2 => false,
            _ => return None,
        };
        let pps_id = u8::try_from(reader.unsigned()?).ok()?;
        let (sps, pps) = parameter_sets.find(pps_id)?;
        if first_macroblock >= sps.macroblocks() || (idr && predicted) {
            return None;
        }
        let frame_num = reader.bits(sps.frame_num_bits)?;
        let idr_id = if idr { reader.unsigned()? } else { 0 };
        if sps.order_count_type == 0 {
            reader.bits(sps.order_count_bits)?;
            if pps.order_count_deltas {
                reader.signed()?;
            }
        }
        if pps.redundant_pictures && reader.unsigned()? != 0 {
            return None;
        }
        let reference =
            if predicted { Some(parse_reference(&mut reader, &sps, &pps, frame_num)?) } else { None };
        let is_reference = nal.is_reference();
        let mark = if is_reference { parse_marking(&mut reader, idr)? } else { None };
        let frame_num_bits = sps.frame_num_bits;
        Some(Self {
            first_macroblock,
            pps_id,
            frame_num,
            frame_num_bits,
            idr,
            idr_id,
            reference,
            is_reference,
            mark,
        })
    }
}

/// `num_ref_idx` override and `ref_pic_list_modification`: only the first entry matters to encoders that search
/// one picture.
fn parse_reference(reader: &mut BitReader<'_>, sps: &Sps, pps: &Pps, frame_num: u32) -> Option<Reference> {
    if reader.bit()? {
        reader.unsigned()?;
    }
    let mut first = None;
    if reader.bit()? {
        let modulus = 1u32 << sps.frame_num_bits;
        for _ in 0..=33 {
            let operation = reader.unsigned()?;
            if operation == 3 {
                break;
            }
            let value = reader.unsigned()?;
            let named = match operation {
                0 => Reference::ShortTerm {
                    frame_num: frame_num.wrapping_sub(value.wrapping_add(1)) & (modulus - 1),
                },
                1 => Reference::ShortTerm {
                    frame_num: frame_num.wrapping_add(value.wrapping_add(1)) & (modulus - 1),
                },
                2 => Reference::LongTerm { index: u8::try_from(value).ok()? },
                _ => return None,
            };
            first = first.or(Some(named));
        }
    }
    if pps.weighted_prediction {
        return None; // its table lies between here and the marking; no encoder here writes one
    }
    Some(first.unwrap_or(Reference::Newest))
}

/// `dec_ref_pic_marking`.
fn parse_marking(reader: &mut BitReader<'_>, idr: bool) -> Option<Option<LongTermMark>> {
    if idr {
        reader.bit()?; // no_output_of_prior_pics_flag
        return Some(reader.bit()?.then_some(LongTermMark::Current { index: 0 }));
    }
    let mut mark = None;
    if reader.bit()? {
        for _ in 0..=66 {
            match reader.unsigned()? {
                0 => return Some(mark),
                1 | 2 | 4 => {
                    reader.unsigned()?;
                }
                3 => {
                    let difference = reader.unsigned()?.checked_add(1)?;
                    let index = u8::try_from(reader.unsigned()?).ok()?;
                    mark = Some(LongTermMark::Earlier { difference, index });
                }
                6 => mark = Some(LongTermMark::Current { index: u8::try_from(reader.unsigned()?).ok()? }),
                _ => return None,
            }
        }
        return None;
    }
    Some(mark)
}

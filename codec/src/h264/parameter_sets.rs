//! Sequence and picture parameter sets (ITU-T H.264 section 7.3.2.1.1, 7.3.2.2).
//!
//! Owns: the fields that slice headers depend on, and setting `gaps_in_frame_num_value_allowed_flag`.
//! Never: accepts interlaced or non-4:2:0 streams. Invariant: widths fit the reads that use them.

use super::bits::BitReader;
use super::nal::{Nal, UNIT_PPS, UNIT_SPS};
use crate::{ColorMatrix, ColorSpace};

/// Largest sequence parameter set that is rewritten. Ours have about 30 bytes.
pub(crate) const SPS_BYTES_MAX: usize = 256;

/// What slices need from a sequence parameter set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sps {
    /// `seq_parameter_set_id`, 0..=31.
    pub id: u8,
    /// `profile_idc`.
    pub profile: u8,
    /// Bits of `frame_num`, 4..=16.
    pub frame_num_bits: u32,
    /// `pic_order_cnt_type`, 0 or 2.
    pub order_count_type: u8,
    /// Bits of `pic_order_cnt_lsb` when the type is 0, 4..=16.
    pub order_count_bits: u32,
    /// `max_num_ref_frames`.
    pub reference_frames: u32,
    /// `gaps_in_frame_num_value_allowed_flag`.
    pub frame_num_gaps: bool,
    /// Picture width in macroblocks.
    pub width_macroblocks: u32,
    /// Picture height in macroblocks.
    pub height_macroblocks: u32,
    /// Colour as the VUI says, or BT.601 limited when it says nothing.
    pub color: ColorSpace,
    /// Where `gaps_in_frame_num_value_allowed_flag` is, in bits from the payload's start.
    gaps_flag_position: usize,
}

impl Sps {
    /// Reads one; `None` if malformed or of a kind that this crate does not decode.
    pub fn parse(nal: &Nal<'_>) -> Option<Self> {
        let mut reader = BitReader::new(nal.payload());
        let profile = reader.bits(8)? as u8;
        reader.bits(16)?; // constraint flags, level
        let id = u8::try_from(reader.unsigned()?).ok().filter(|&id| id < 32)?;
        if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128) {
            let chroma_format = reader.unsigned()?;
            let (luma_depth, chroma_depth) = (reader.unsigned()?, reader.unsigned()?);
            reader.bit()?; // qpprime_y_zero_transform_bypass_flag
            let scaling_matrix = reader.bit()?;
            if chroma_format != 1 || luma_depth != 0 || chroma_depth != 0 || scaling_matrix {
                return None;
            }
        }
        let frame_num_bits = reader.unsigned()?.checked_add(4).filter(|&bits| bits <= 16)?;
        let order_count_type = reader.unsigned()? as u8;
        let order_count_bits = match order_count_type {
            0 => reader.unsigned()?.checked_add(4).filter(|&bits| bits <= 16)?,
            2 => 0,
            _ => return None,
        };
        let reference_frames = reader.unsigned()?;
        let gaps_flag_position = reader.position();
        let frame_num_gaps = reader.bit()?;
        let width_macroblocks = reader.unsigned()?.checked_add(1).filter(|&count| count <= 1024)?;
        let height_macroblocks = reader.unsigned()?.checked_add(1).filter(|&count| count <= 1024)?;
        let frames_only = reader.bit()?;
        if !frames_only || reference_frames > 16 {
            return None;
        }
        reader.bit()?; // direct_8x8_inference_flag
        if reader.bit()? {
            for _ in 0..4 {
                reader.unsigned()?; // cropping
            }
        }
        let color = if reader.bit()? { parse_vui_color(&mut reader)? } else { UNSAID };
        Some(Self {
            id,
            profile,
            frame_num_bits,
            order_count_type,
            order_count_bits,
            reference_frames,
            frame_num_gaps,
            width_macroblocks,
            height_macroblocks,
            color,
            gaps_flag_position,
        })
    }

    /// Macroblocks in a picture.
    pub fn macroblocks(&self) -> u32 {
        self.width_macroblocks * self.height_macroblocks
    }
}

/// What slices need from a picture parameter set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pps {
    /// `pic_parameter_set_id`, 0..=255.
    pub id: u8,
    /// `seq_parameter_set_id` that it builds on.
    pub sps_id: u8,
    /// `bottom_field_pic_order_in_frame_present_flag`.
    pub order_count_deltas: bool,
    /// `weighted_pred_flag`.
    pub weighted_prediction: bool,
    /// `redundant_pic_cnt_present_flag`.
    pub redundant_pictures: bool,
}

impl Pps {
    /// Reads one; `None` if malformed or with slice groups.
    pub fn parse(nal: &Nal<'_>) -> Option<Self> {
        let mut reader = BitReader::new(nal.payload());
        let id = u8::try_from(reader.unsigned()?).ok()?;
        let sps_id = u8::try_from(reader.unsigned()?).ok()?;
        reader.bit()?; // entropy_coding_mode_flag
        let order_count_deltas = reader.bit()?;
        if reader.unsigned()? != 0 {
            return None; // slice groups
        }
        reader.unsigned()?; // num_ref_idx_l0_default_active_minus1
        reader.unsigned()?;
        let weighted_prediction = reader.bit()?;
        reader.bits(2)?;
        for _ in 0..3 {
            reader.signed()?; // quantiser starts and chroma offset
        }
        reader.bits(2)?; // deblocking control, constrained intra prediction
        let redundant_pictures = reader.bit()?;
        Some(Self { id, sps_id, order_count_deltas, weighted_prediction, redundant_pictures })
    }
}

/// The parameter sets in force.
#[derive(Debug, Clone)]
pub struct ParameterSets {
    sps: [Option<Sps>; 32],
    pps: Box<[Option<Pps>; 256]>,
}

impl Default for ParameterSets {
    fn default() -> Self {
        Self { sps: [None; 32], pps: Box::new([None; 256]) }
    }
}

impl ParameterSets {
    /// Takes a parameter set in, replacing one with the same id. `None` if it is one but cannot be read; other
    /// units are ignored.
    pub fn record(&mut self, nal: &Nal<'_>) -> Option<()> {
        match nal.unit_type() {
            UNIT_SPS => {
                let sps = Sps::parse(nal)?;
                self.sps[usize::from(sps.id)] = Some(sps);
            }
            UNIT_PPS => {
                let pps = Pps::parse(nal)?;
                self.pps[usize::from(pps.id)] = Some(pps);
            }
            _ => {}
        }
        Some(())
    }

    /// The sets that a slice with this `pic_parameter_set_id` uses.
    pub fn find(&self, pps_id: u8) -> Option<(Sps, Pps)> {
        let pps = self.pps[usize::from(pps_id)]?;
        Some(((*self.sps.get(usize::from(pps.sps_id))?)?, pps))
    }
}

/// Copies a sequence parameter set (start code, then unit) with `gaps_in_frame_num_value_allowed_flag` set and
/// returns the length, or `None` if it cannot be read or does not fit.
///
/// With that flag (section 8.2.5.2) a decoder takes frames that never came for absent instead of calling the
/// stream broken, which is what makes recovery without a keyframe possible.
pub fn write_sps_with_frame_num_gaps(nal: &Nal<'_>, out: &mut [u8; SPS_BYTES_MAX]) -> Option<usize> {
    let sps = Sps::parse(nal)?;
    let mut raw = [0u8; SPS_BYTES_MAX];
    let mut raw_length = 0;
    let mut zeros = 0;
    for &byte in nal.bytes {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        *raw.get_mut(raw_length)? = byte;
        raw_length += 1;
    }
    *raw.get_mut(1 + sps.gaps_flag_position / 8)? |= 0x80 >> (sps.gaps_flag_position % 8);

    out.get_mut(..4)?.copy_from_slice(&[0, 0, 0, 1]);
    let mut length = 4;
    zeros = 0;
    for &byte in raw.get(..raw_length)? {
        if zeros >= 2 && byte <= 3 {
            *out.get_mut(length)? = 3;
            length += 1;
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        *out.get_mut(length)? = byte;
        length += 1;
    }
    Some(length)
}

/// What decoders assume when a stream does not say.
const UNSAID: ColorSpace = ColorSpace { matrix: ColorMatrix::Bt601, full_range: false };

/// The VUI up to the colour description (section E.1.1).
fn parse_vui_color(reader: &mut BitReader<'_>) -> Option<ColorSpace> {
    if reader.bit()? && reader.bits(8)? == 255 {
        reader.bits(32)?; // extended sample aspect ratio
    }
    if reader.bit()? {
        reader.bit()?; // overscan_appropriate_flag
    }
    if !reader.bit()? {
        return Some(UNSAID);
    }
    reader.bits(3)?; // video_format
    let full_range = reader.bit()?;
    let described = reader.bit()?;
    let matrix = if described { reader.bits(24)? & 0xff } else { 2 };
    let matrix = if matrix == 1 { ColorMatrix::Bt709 } else { ColorMatrix::Bt601 };
    Some(ColorSpace { matrix, full_range })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1280x720, baseline, order count type 2, one reference, no cropping, BT.709 in the VUI; bits written by hand.
    fn sample() -> Vec<u8> {
        let mut bits = String::from("01000010" /* 66 */);
        bits += "11000000"; // constraints
        bits += "00011111"; // level 31
        bits += "1"; // id 0
        bits += "1"; // 4 bits of frame_num
        bits += "011"; // order count type 2
        bits += "010"; // one reference
        bits += "0"; // no gaps
        bits += "0000001010000"; // 79
        bits += "00000101101"; // 44
        bits += "1"; // frames only
        bits += "1"; // direct 8x8
        bits += "0"; // no cropping
        bits += "1"; // vui
        bits += "0"; // no aspect ratio
        bits += "0"; // no overscan
        bits += "1"; // video signal
        bits += "101"; // unspecified format
        bits += "0"; // limited range
        bits += "1"; // description
        bits += "00000001"; // primaries
        bits += "00000001"; // transfer
        bits += "00000001"; // matrix
        bits += "000000"; // nothing else
        bits += "1"; // stop
        let mut bytes = vec![0x67];
        for chunk in bits.as_bytes().chunks(8) {
            let byte = chunk.iter().fold(0u8, |byte, &bit| byte << 1 | (bit - b'0'));
            bytes.push(byte << (8 - chunk.len()));
        }
        bytes
    }

    #[test]
    fn reads_the_fields() {
        let bytes = sample();
        let sps = Sps::parse(&Nal { bytes: &bytes }).unwrap();
        assert_eq!((sps.width_macroblocks, sps.height_macroblocks), (80, 45));
        assert_eq!((sps.frame_num_bits, sps.order_count_type, sps.reference_frames), (4, 2, 1));
        assert_eq!(sps.color, ColorSpace { matrix: ColorMatrix::Bt709, full_range: false });
        assert!(!sps.frame_num_gaps);
    }

    #[test]
    fn setting_the_gaps_flag_changes_nothing_else() {
        let bytes = sample();
        let before = Sps::parse(&Nal { bytes: &bytes }).unwrap();
        let mut out = [0; SPS_BYTES_MAX];
        let length = write_sps_with_frame_num_gaps(&Nal { bytes: &bytes }, &mut out).unwrap();
        assert_eq!(length, bytes.len() + 4);
        let after = Sps::parse(&Nal { bytes: &out[4..length] }).unwrap();
        assert_eq!(after, Sps { frame_num_gaps: true, ..before });
    }

    #[test]
    fn every_truncation_is_refused_or_read() {
        let bytes = sample();
        for length in 1..bytes.len() {
            let _ = Sps::parse(&Nal { bytes: &bytes[..length] });
            let _ = Pps::parse(&Nal { bytes: &bytes[..length] });
        }
        assert_eq!(Sps::parse(&Nal { bytes: &bytes[..6] }), None);
    }
}

//! Splitting a byte stream into NAL units (ITU-T H.264 Annex B).
//!
//! Owns: finding start codes. Never: copies. Invariant: every unit yielded has at least its header byte.

/// `nal_unit_type` of a slice of a non-IDR picture.
pub const UNIT_SLICE: u8 = 1;
/// `nal_unit_type` of a slice of an IDR picture.
pub const UNIT_IDR_SLICE: u8 = 5;
/// `nal_unit_type` of a sequence parameter set.
pub const UNIT_SPS: u8 = 7;
/// `nal_unit_type` of a picture parameter set.
pub const UNIT_PPS: u8 = 8;

/// One NAL unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nal<'a> {
    /// Header byte and payload, without the start code.
    pub bytes: &'a [u8],
}

impl<'a> Nal<'a> {
    /// `nal_unit_type`.
    pub fn unit_type(&self) -> u8 {
        self.bytes[0] & 0x1f
    }

    /// `nal_ref_idc` is not zero: other pictures may predict from this one.
    pub fn is_reference(&self) -> bool {
        self.bytes[0] & 0x60 != 0
    }

    /// Whether it is a slice this crate decodes.
    pub fn is_slice(&self) -> bool {
        matches!(self.unit_type(), UNIT_SLICE | UNIT_IDR_SLICE)
    }

    /// The bytes after the header byte.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[1..]
    }
}

/// The NAL units of an Annex B byte string, in order.
#[derive(Debug, Clone)]
pub struct NalUnits<'a> {
    rest: &'a [u8],
}

impl<'a> NalUnits<'a> {
    /// Starts before the first start code; bytes before it are skipped.
    pub fn new(stream: &'a [u8]) -> Self {
        let rest = start_code(stream).map_or(&[][..], |at| &stream[at + 3..]);
        Self { rest }
    }
}

impl<'a> Iterator for NalUnits<'a> {
    type Item = Nal<'a>;

    fn next(&mut self) -> Option<Nal<'a>> {
        while !self.rest.is_empty() {
            // A slice ends with a one bit, so zeros before a start code belong to the code.
            let (unit, rest) = match start_code(self.rest) {
                Some(at) => (&self.rest[..at], &self.rest[at + 3..]),
                None => (self.rest, &[][..]),
            };
            self.rest = rest;
            let length = unit.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
            if length > 0 {
                return Some(Nal { bytes: &unit[..length] });
            }
        }
        None
    }
}

/// Where `00 00 01` starts.
fn start_code(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    // Looks at every third byte while it is above 1, as none of the three can then be part of a code.
    while at + 2 < bytes.len() {
        match bytes[at + 2] {
            0 => at += 1,
            1 if bytes[at] == 0 && bytes[at + 1] == 0 => return Some(at),
            _ => at += 3,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_short_and_long_start_codes() {
        let stream = [9, 9, 0, 0, 0, 1, 0x67, 5, 0, 0, 1, 0x68, 6, 0, 0, 0, 1, 0x65, 0, 3, 1];
        let units: Vec<_> = NalUnits::new(&stream).map(|nal| nal.bytes.to_vec()).collect();
        assert_eq!(units, [vec![0x67, 5], vec![0x68, 6], vec![0x65, 0, 3, 1]]);
        assert_eq!(NalUnits::new(&stream).map(|nal| nal.unit_type()).collect::<Vec<_>>(), [7, 8, 5]);
    }

    #[test]
    fn nothing_from_nothing() {
        for stream in [&[][..], &[0, 0], &[0, 0, 1], &[0, 0, 1, 0, 0, 1, 0, 0], &[1, 2, 3, 4]] {
            assert_eq!(NalUnits::new(stream).count(), 0, "{stream:?}");
        }
    }

    #[test]
    fn start_code_at_every_offset() {
        for offset in 0..9 {
            let mut stream = vec![1u8; offset];
            stream.extend([0, 0, 1, 0x41]);
            assert_eq!(NalUnits::new(&stream).next().unwrap().bytes, [0x41], "offset {offset}");
        }
    }
}

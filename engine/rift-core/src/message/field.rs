//! Protocol Buffers wire format, as far as RIFT needs it, without allocation.
//!
//! Source: the Protocol Buffers encoding specification. Varints, length-delimited fields and skipping
//! of unknown fields; fixed-width fields are skipped, groups are refused.

/// Bytes that `value` takes as a varint.
#[inline]
#[must_use]
pub(crate) const fn varint_len(value: u64) -> usize {
    // ceil(bits / 7) with at least one byte.
    (((64 - (value | 1).leading_zeros()) as usize) * 9 + 64) / 64
}

/// Bytes of a varint field, 0 where the value is the default and so is left out.
#[inline]
pub(crate) const fn varint_field_len(number: u32, value: u64) -> usize {
    if value == 0 { 0 } else { tag_len(number) + varint_len(value) }
}

/// Bytes of a length-delimited field with `len` bytes of content, always written.
#[inline]
pub(crate) const fn bytes_field_len(number: u32, len: usize) -> usize {
    tag_len(number) + varint_len(len as u64) + len
}

#[inline]
const fn tag_len(number: u32) -> usize {
    varint_len((number as u64) << 3)
}

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH_DELIMITED: u32 = 2;
const FIXED32: u32 = 5;

/// Writes fields into a buffer whose length the caller has computed.
pub(crate) struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    /// Writes from the start of `out`, which must hold all that follows.
    pub(crate) fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0 }
    }

    #[inline]
    pub(crate) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out[self.at] = value as u8 | 0x80;
            self.at += 1;
            value >>= 7;
        }
        self.out[self.at] = value as u8;
        self.at += 1;
    }

    /// A varint field, left out where the value is the default.
    #[inline]
    pub(crate) fn varint_field(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.varint(u64::from(number << 3 | VARINT));
            self.varint(value);
        }
    }

    /// The tag and length of a length-delimited field; its content must follow.
    #[inline]
    pub(crate) fn length_prefix(&mut self, number: u32, len: usize) {
        self.varint(u64::from(number << 3 | LENGTH_DELIMITED));
        self.varint(len as u64);
    }

    /// A bytes field, left out where empty.
    #[inline]
    pub(crate) fn bytes_field(&mut self, number: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.length_prefix(number, bytes.len());
            self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
            self.at += bytes.len();
        }
    }

    /// A 32-bit float field, left out where the bits are zero.
    #[inline]
    pub(crate) fn float_field(&mut self, number: u32, value: f32) {
        if value.to_bits() != 0 {
            self.varint(u64::from(number << 3 | FIXED32));
            self.out[self.at..self.at + 4].copy_from_slice(&value.to_le_bytes());
            self.at += 4;
        }
    }

    /// How many bytes were written.
    pub(crate) fn len(&self) -> usize {
        self.at
    }
}

/// Bytes of a 32-bit float field.
#[inline]
pub(crate) const fn float_field_len(number: u32, value: f32) -> usize {
    if value.to_bits() == 0 { 0 } else { tag_len(number) + 4 }
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
    Fixed64,
}

impl<'a> Value<'a> {
    /// The number, if that is what the field must hold.
    pub(crate) fn number(self) -> Result<u64, Malformed> {
        if let Self::Varint(v) = self { Ok(v) } else { Err(Malformed) }
    }

    /// The number cut to 32 bits, as Protocol Buffers parsers do.
    pub(crate) fn number32(self) -> Result<u32, Malformed> {
        self.number().map(|v| v as u32)
    }

    /// The bytes, if that is what the field must hold.
    pub(crate) fn bytes(self) -> Result<&'a [u8], Malformed> {
        if let Self::Bytes(b) = self { Ok(b) } else { Err(Malformed) }
    }

    /// The float, if that is what the field must hold.
    pub(crate) fn float(self) -> Result<f32, Malformed> {
        if let Self::Fixed32(bits) = self { Ok(f32::from_bits(bits)) } else { Err(Malformed) }
    }
}

/// The bytes are not a well-formed message of the expected shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message")]
pub struct Malformed;

/// Reads fields from a buffer.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes that were not read yet.
    #[inline(always)]
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next varint. Most are one byte: tags below 16, flags, small counts.
    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    #[inline(always)]
    fn long_varint(&mut self) -> Result<u64, Malformed> {
        if let Some(bytes) = self.rest.first_chunk() {
            let word = u64::from_le_bytes(*bytes);
            let ends = !word & 0x8080_8080_8080_8080;
            if ends != 0 {
                // Everything up to the first byte without the mark, which is what a varint is.
                let value = word & (ends ^ (ends - 1)) & 0x7f7f_7f7f_7f7f_7f7f;
                self.rest = &self.rest[ends.trailing_zeros() as usize / 8 + 1..];
                return Ok(gather(value));
            }
        }
        self.bytewise_varint()
    }

    /// Near the end of the buffer, and where it is longer than eight bytes.
    #[inline(never)]
    fn bytewise_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        let mut shift = 0;
        let mut rest = self.rest;
        while let [byte, behind @ ..] = rest {
            rest = behind;
            value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                // The tenth byte holds the last of 64 bits.
                if shift == 63 && *byte > 1 {
                    return Err(Malformed);
                }
                self.rest = rest;
                return Ok(value);
            }
            shift += 7;
            if shift > 63 {
                break;
            }
        }
        Err(Malformed)
    }

    /// Skips the tag of field `NUMBER` with wire type `kind` if it is next and written in the shortest form.
    #[inline(always)]
    fn skip_tag<const NUMBER: u32>(&mut self, kind: u32) -> bool {
        let tag = NUMBER << 3 | kind;
        self.rest = match self.rest {
            [byte, rest @ ..] if tag < 0x80 && u32::from(*byte) == tag => rest,
            [low, high, rest @ ..]
                if tag >= 0x80 && u32::from(*low) == tag & 0x7f | 0x80 && u32::from(*high) == tag >> 7 =>
            {
                rest
            }
            _ => return false,
        };
        true
    }

    /// Enters field `NUMBER`, which must be below 2048, if all that is left is this one field.
    #[inline(always)]
    pub(crate) fn envelope<const NUMBER: u32>(&mut self) -> Option<()> {
        if !self.skip_tag::<NUMBER>(LENGTH_DELIMITED) {
            return None;
        }
        let len = self.varint().ok()?;
        (len == self.rest.len() as u64).then_some(())
    }

    /// The number in field `NUMBER`, which must be below 2048, if that is the next field; else 0, its default.
    #[inline(always)]
    pub(crate) fn varint_if<const NUMBER: u32>(&mut self) -> Result<u64, Malformed> {
        if self.skip_tag::<NUMBER>(VARINT) { self.varint() } else { Ok(0) }
    }

    /// The bytes in field `NUMBER`, which must be below 2048, if that is the next field; else none.
    #[inline(always)]
    pub(crate) fn bytes_if<const NUMBER: u32>(&mut self) -> Result<&'a [u8], Malformed> {
        if !self.skip_tag::<NUMBER>(LENGTH_DELIMITED) {
            return Ok(&[]);
        }
        let len = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
        self.take(len)
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = tail;
        Ok(head)
    }

    /// The next field, or `None` at the end.
    #[inline(always)]
    pub(crate) fn field(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = u32::try_from(self.varint()?).map_err(|_| Malformed)?;
        let number = tag >> 3;
        if number == 0 {
            return Err(Malformed);
        }
        let value = match tag & 7 {
            VARINT => Value::Varint(self.varint()?),
            LENGTH_DELIMITED => {
                let len = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Value::Bytes(self.take(len)?)
            }
            FIXED32 => {
                let b = self.take(4)?;
                Value::Fixed32(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            }
            FIXED64 => {
                self.take(8)?;
                Value::Fixed64
            }
            _ => return Err(Malformed),
        };
        Ok(Some((number, value)))
    }
}

/// Joins the low seven bits of each byte of `word`; the eighth must be clear.
#[inline(always)]
pub(crate) const fn gather(word: u64) -> u64 {
    let word = (word & 0x7f00_7f00_7f00_7f00) >> 1 | (word & 0x007f_007f_007f_007f);
    let word = (word & 0x3fff_0000_3fff_0000) >> 2 | (word & 0x0000_3fff_0000_3fff);
    (word & 0x0fff_ffff_0000_0000) >> 4 | (word & 0x0fff_ffff)
}

/// A `repeated uint64` field in packed form, read lazily.
#[derive(Clone, Debug)]
pub struct PackedVarints<'a>(pub(crate) Reader<'a>);

impl Iterator for PackedVarints<'_> {
    type Item = u64;
    fn next(&mut self) -> Option<u64> {
        if self.0.is_empty() {
            return None;
        }
        // Checked when the message was decoded.
        self.0.varint().ok()
    }
}

impl<'a> PackedVarints<'a> {
    /// No numbers.
    #[must_use]
    pub fn empty() -> Self {
        Self(Reader::new(&[]))
    }

    /// Takes `bytes` if they are nothing but whole varints.
    pub(crate) fn checked(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            reader.varint()?;
        }
        Ok(Self(Reader::new(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varint_lengths_match_what_is_written() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut buf = [0; 10];
                let mut w = Writer::new(&mut buf);
                w.varint(value);
                let len = w.len();
                assert_eq!(len, varint_len(value), "{value}");
                assert_eq!(Reader::new(&buf[..len]).varint(), Ok(value));
            }
        }
    }

    #[test]
    fn a_varint_reads_the_same_with_and_without_bytes_behind_it() {
        for seed in 0..4096u64 {
            let mut bytes = [seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes(); 2].concat();
            bytes[..seed as usize % 12].iter_mut().for_each(|b| *b |= 0x80);
            let mut long = Reader::new(&bytes);
            let read = long.varint();
            let used = bytes.len() - long.left();
            if read.is_ok() {
                assert_eq!(Reader::new(&bytes[..used]).varint(), read, "{bytes:x?}");
                assert_eq!(Reader::new(&bytes[..used - 1]).varint(), Err(Malformed), "{bytes:x?}");
            }
            let mut bytewise = Reader::new(&bytes);
            assert_eq!((bytewise.bytewise_varint(), bytewise.left()), (read, long.left()), "{bytes:x?}");
        }
    }

    #[test]
    fn an_overlong_varint_is_refused() {
        assert_eq!(Reader::new(&[0xff; 11]).varint(), Err(Malformed));
        assert_eq!(Reader::new(&[0xff, 0xff]).varint(), Err(Malformed));
    }
}

//! Pictures as they enter an encoder and leave a decoder.
//!
//! Owns: borrowed views of pixels with their strides and colour meaning, and one reusable I420 buffer.
//! Never: converts (see [`crate::convert`]) or allocates after construction.
//! Invariant: a view that exists has planes large enough for its size and strides.

use crate::CodecError;

/// One plane of 8-bit samples.
#[derive(Debug, Clone, Copy)]
pub struct Plane<'a> {
    /// Samples, row after row.
    pub data: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
}

impl<'a> Plane<'a> {
    /// Row `y`, cut to `width` samples.
    #[inline]
    pub fn row(&self, y: usize, width: usize) -> &'a [u8] {
        &self.data[y * self.stride..][..width]
    }

    /// Whether `rows` rows of `width` samples lie inside.
    pub(crate) fn holds(&self, width: usize, rows: usize) -> bool {
        self.stride >= width && rows > 0 && self.data.len() >= (rows - 1) * self.stride + width
    }
}

/// Coefficients by which RGB became YUV (ITU-T H.264 table E-5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ColorMatrix {
    /// ITU-R BT.709, `matrix_coefficients` 1. What this crate's encoders write.
    #[default]
    Bt709,
    /// ITU-R BT.601, `matrix_coefficients` 5 or 6.
    Bt601,
}

/// What the numbers of a picture mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ColorSpace {
    /// RGB to YUV coefficients.
    pub matrix: ColorMatrix,
    /// Luma 0..=255 when true, 16..=235 when false (what this crate's encoders write).
    pub full_range: bool,
}

/// A picture in planar 4:2:0. Chroma planes have half the size, rounded up.
#[derive(Debug, Clone, Copy)]
pub struct I420View<'a> {
    /// Width in luma samples.
    pub width: u32,
    /// Height in luma samples.
    pub height: u32,
    /// Luma.
    pub y: Plane<'a>,
    /// Blue difference.
    pub u: Plane<'a>,
    /// Red difference.
    pub v: Plane<'a>,
}

impl I420View<'_> {
    /// Fails when a plane is too small for the size and its stride.
    pub fn check(&self) -> Result<(), CodecError> {
        let (width, height) = (self.width as usize, self.height as usize);
        let (chroma_width, chroma_height) = (width.div_ceil(2), height.div_ceil(2));
        let whole = self.y.holds(width, height)
            && self.u.holds(chroma_width, chroma_height)
            && self.v.holds(chroma_width, chroma_height);
        if whole { Ok(()) } else { Err(CodecError::Input("an I420 plane is too small")) }
    }
}

/// The picture to encode. More kinds (DMA-BUF) will join.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum FrameInput<'a> {
    /// Four bytes per pixel: blue, green, red, ignored. What X11 and KMS give (`DRM_FORMAT_XRGB8888`).
    Bgrx {
        /// Pixels, row after row; the last has all its `stride` bytes too.
        data: &'a [u8],
        /// Bytes from one row to the next.
        stride: usize,
    },
    /// Planar 4:2:0 in BT.709 limited range, of the encoder's own size.
    I420(I420View<'a>),
}

/// An owned I420 picture of fixed, even size, reused for every frame.
#[derive(Debug, Clone)]
pub struct I420Buffer {
    width: usize,
    height: usize,
    data: Box<[u8]>,
}

impl I420Buffer {
    /// A black picture of at least `width` x `height`; both are rounded up to even, since H.264 4:2:0 cannot
    /// say an odd size.
    pub fn new(width: u32, height: u32) -> Self {
        let (width, height) = (width.next_multiple_of(2) as usize, height.next_multiple_of(2) as usize);
        let luma = width * height;
        let mut data = vec![128u8; luma * 3 / 2].into_boxed_slice();
        data[..luma].fill(16);
        Self { width, height, data }
    }

    /// Width in luma samples, even.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in luma samples, even.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The three planes, writable, without padding: luma, blue and red difference.
    pub fn planes_mut(&mut self) -> (&mut [u8], &mut [u8], &mut [u8]) {
        let luma = self.width * self.height;
        let (y, chroma) = self.data.split_at_mut(luma);
        let (u, v) = chroma.split_at_mut(luma / 4);
        (y, u, v)
    }

    /// The picture for reading.
    pub fn view(&self) -> I420View<'_> {
        let luma = self.width * self.height;
        let (y, chroma) = self.data.split_at(luma);
        let (u, v) = chroma.split_at(luma / 4);
        I420View {
            width: self.width as u32,
            height: self.height as u32,
            y: Plane { data: y, stride: self.width },
            u: Plane { data: u, stride: self.width / 2 },
            v: Plane { data: v, stride: self.width / 2 },
        }
    }

    /// Copies a picture of at most this size in, repeating its last column and row where it is one short.
    pub fn copy_from(&mut self, source: &I420View<'_>) -> Result<(), CodecError> {
        source.check()?;
        if (source.width.next_multiple_of(2) as usize, source.height.next_multiple_of(2) as usize)
            != (self.width, self.height)
        {
            return Err(CodecError::Input("the picture does not have the size that was configured"));
        }
        let (width, height) = (self.width, self.height);
        let (y, u, v) = self.planes_mut();
        copy_plane(y, width, height, source.y, source.width as usize, source.height as usize);
        let (chroma_width, chroma_height) = (width / 2, height / 2);
        copy_plane(u, chroma_width, chroma_height, source.u, chroma_width, chroma_height);
        copy_plane(v, chroma_width, chroma_height, source.v, chroma_width, chroma_height);
        Ok(())
    }
}

fn copy_plane(
    to: &mut [u8],
    width: usize,
    height: usize,
    from: Plane<'_>,
    from_width: usize,
    from_height: usize,
) {
    for (y, row) in to.chunks_exact_mut(width).take(height).enumerate() {
        row[..from_width].copy_from_slice(from.row(y.min(from_height - 1), from_width));
        if from_width < width {
            row[from_width] = row[from_width - 1];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_sizes_repeat_the_edge() {
        let (y, c) = ([1u8, 2, 3, 4, 5, 6, 7, 8, 9], [100u8, 101, 102, 103]);
        let view = I420View {
            width: 3,
            height: 3,
            y: Plane { data: &y, stride: 3 },
            u: Plane { data: &c, stride: 2 },
            v: Plane { data: &c, stride: 2 },
        };
        let mut buffer = I420Buffer::new(3, 3);
        buffer.copy_from(&view).unwrap();
        let copied = buffer.view();
        assert_eq!(copied.y.data, [1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9, 7, 8, 9, 9]);
        assert_eq!(copied.u.data, c);
    }

    #[test]
    fn a_plane_one_byte_short_is_refused() {
        let data = [0u8; 15];
        let plane = Plane { data: &data, stride: 4 };
        let view = I420View { width: 4, height: 4, y: plane, u: plane, v: plane };
        assert!(view.check().is_err());
        assert!(I420Buffer::new(4, 4).copy_from(&view).is_err());
    }
}

//! The pointer's picture and place, apart from the screen's picture, so that the far side can draw it without waiting
//! for a frame. Owns shapes; never draws.
//!
//! Pixels are BGRA, four bytes each, colour already multiplied by alpha (as XFixes and Wayland hand them out).
#![forbid(unsafe_code)]

use crate::picture::Geometry;

/// A pointer's picture, borrowed from whoever captured or received it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CursorShape<'a> {
    /// Changes whenever the picture does. Two shapes of one source with the same serial are the same picture.
    pub serial: u32,
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Column of the pixel that points.
    pub hot_x: u32,
    /// Row of the pixel that points.
    pub hot_y: u32,
    /// `width * height` BGRA pixels, premultiplied, tightly packed.
    pub pixels: &'a [u8],
}

/// Where the pointer is and what it looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CursorUpdate<'a> {
    /// Its picture. Always there; compare serials to see whether it is a new one.
    pub shape: CursorShape<'a>,
    /// Column of the pointing pixel in the captured picture; may lie outside of it.
    pub x: i32,
    /// Row of the pointing pixel in the captured picture; may lie outside of it.
    pub y: i32,
    /// Whether a user sees it: it lies on the captured monitor and has a pixel that is not transparent.
    pub visible: bool,
}

/// A pointer's picture with memory of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CursorImage {
    /// See [`CursorShape::serial`].
    pub serial: u32,
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Column of the pixel that points.
    pub hot_x: u32,
    /// Row of the pixel that points.
    pub hot_y: u32,
    /// BGRA pixels, premultiplied.
    pub pixels: Vec<u8>,
}

impl CursorImage {
    /// Takes over `shape`; keeps its memory. A shape whose pixels do not fit its size becomes an empty one.
    pub fn copy_from(&mut self, shape: &CursorShape<'_>) {
        let needed = Geometry::new(shape.width, shape.height).bgrx_len();
        let whole = needed == Some(shape.pixels.len());
        self.serial = shape.serial;
        (self.width, self.height) = if whole { (shape.width, shape.height) } else { (0, 0) };
        (self.hot_x, self.hot_y) = (shape.hot_x, shape.hot_y);
        self.pixels.clear();
        self.pixels.extend_from_slice(if whole { shape.pixels } else { &[] });
    }

    /// The picture, borrowed.
    pub fn as_shape(&self) -> CursorShape<'_> {
        CursorShape {
            serial: self.serial,
            width: self.width,
            height: self.height,
            hot_x: self.hot_x,
            hot_y: self.hot_y,
            pixels: &self.pixels,
        }
    }

    /// Whether any pixel can be seen. Games hide the pointer by giving it a transparent picture.
    pub fn is_opaque_anywhere(&self) -> bool {
        self.pixels.as_chunks::<4>().0.iter().any(|pixel| pixel[3] != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_lies_about_its_size_is_empty() {
        let lie =
            CursorShape { serial: 7, width: u32::MAX, height: u32::MAX, hot_x: 0, hot_y: 0, pixels: &[1; 8] };
        let mut image = CursorImage::default();
        image.copy_from(&lie);
        assert_eq!((image.serial, image.width, image.height, image.pixels.len()), (7, 0, 0, 0));
    }

    #[test]
    fn transparency_is_seen() {
        let mut image =
            CursorImage { width: 2, height: 1, pixels: vec![9, 9, 9, 0, 9, 9, 9, 0], ..Default::default() };
        assert!(!image.is_opaque_anywhere());
        image.pixels[7] = 1;
        assert!(image.is_opaque_anywhere());
    }
}

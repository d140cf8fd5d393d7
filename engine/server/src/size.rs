//! How large pictures are encoded, and what follows from that for the pointer.
//!
//! Owns the way from a captured picture to the one that the encoder gets. Never decides on a scale. Invariant: a place at
//! a share of the captured picture's width and height is at the same share of the encoded one's, so that positions
//! that clients send as shares stay right.

use rift_core::delta2::Scale;
use wavry_codec::{CodecError, Downscaler};
use wavry_platform::{CursorShape, Geometry};

use crate::notice::CursorShapeNotice;

/// Smaller pictures than this are not made: there is nothing left to be seen.
const SMALLEST: Geometry = Geometry::new(160, 96);

/// From captured to encoded pictures.
#[derive(Debug)]
pub(crate) struct PictureSize {
    captured: Geometry,
    scale: Scale,
    coded: Geometry,
    scaler: Option<Downscaler>,
}

impl PictureSize {
    /// For pictures of this size.
    pub(crate) fn new(captured: Geometry, scale: Scale) -> Self {
        let coded = coded(captured, scale);
        let [from, to] = [captured, coded].map(|size| (size.width, size.height));
        // Where a size cannot be made, pictures stay as they are.
        let scaler = (from != to).then(|| Downscaler::new(from, to).ok()).flatten();
        let coded = if scaler.is_some() { coded } else { captured };
        Self { captured, scale, coded, scaler }
    }

    /// Whether it is for these.
    pub(crate) fn is_for(&self, captured: Geometry, scale: Scale) -> bool {
        self.captured == captured && self.scale == scale
    }

    /// Of the encoded picture.
    pub(crate) fn coded(&self) -> Geometry {
        self.coded
    }

    /// The picture to encode, and the bytes from one of its rows to the next.
    pub(crate) fn apply<'a>(
        &'a mut self,
        data: &'a [u8],
        stride: usize,
    ) -> Result<(&'a [u8], usize), CodecError> {
        match &mut self.scaler {
            Some(scaler) => scaler.shrink(data, stride),
            None => Ok((data, stride)),
        }
    }

    /// A place in the captured picture, in the encoded one.
    pub(crate) fn place(&self, x: i32, y: i32) -> (i32, i32) {
        let scaled = |at: i32, to: u32, from: u32| {
            let at = (i64::from(at) * i64::from(to)).div_euclid(i64::from(from.max(1)));
            i32::try_from(at).unwrap_or(0)
        };
        (scaled(x, self.coded.width, self.captured.width), scaled(y, self.coded.height, self.captured.height))
    }

    /// The number of a pointer's shape at this size: the same shape has another picture at another size.
    pub(crate) fn serial(&self, serial: u32) -> u32 {
        serial.wrapping_mul(4) | self.scale as u32
    }

    /// The pointer as it is drawn over the encoded picture. One that is too small for it keeps its size.
    pub(crate) fn shape(&self, shape: &CursorShape<'_>) -> CursorShapeNotice {
        let mut notice = CursorShapeNotice { serial: self.serial(shape.serial), ..shape.into() };
        let (width, height) = (
            scaled_up(shape.width, self.coded.width, self.captured.width),
            scaled_up(shape.height, self.coded.height, self.captured.height),
        );
        if (width, height) == (shape.width, shape.height) {
            return notice;
        }
        let scaled = Downscaler::new((shape.width, shape.height), (width, height)).and_then(|mut scaler| {
            scaler.shrink(shape.pixels, shape.width as usize * 4).map(|(pixels, _)| pixels.to_vec())
        });
        if let Ok(bgra) = scaled {
            let hot = |at: u32, to: u32, from: u32| (u64::from(at) * u64::from(to) / u64::from(from)) as u32;
            let (hot_x, hot_y) =
                (hot(shape.hot_x, width, shape.width), hot(shape.hot_y, height, shape.height));
            notice = CursorShapeNotice { width, height, hot_x, hot_y, bgra, ..notice };
        }
        notice
    }
}

/// Even, as encoders want it.
fn coded(captured: Geometry, scale: Scale) -> Geometry {
    let (parts, of) = match scale {
        Scale::Full => return captured,
        Scale::ThreeQuarters => (3, 4),
        Scale::Half => (1, 2),
    };
    // Rounded up, so that half of an odd size is not less than half.
    let scaled = |size: u32| (size * parts).div_ceil(of).next_multiple_of(2).min(size);
    let coded = Geometry::new(scaled(captured.width), scaled(captured.height));
    if coded.width < SMALLEST.width || coded.height < SMALLEST.height { captured } else { coded }
}

fn scaled_up(size: u32, to: u32, from: u32) -> u32 {
    (u64::from(size) * u64::from(to)).div_ceil(u64::from(from.max(1))) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_even_and_not_too_small() {
        let size = |width, height, scale| {
            let size = PictureSize::new(Geometry::new(width, height), scale);
            (size.coded().width, size.coded().height)
        };
        assert_eq!(size(1280, 720, Scale::ThreeQuarters), (960, 540));
        assert_eq!(size(1280, 720, Scale::Half), (640, 360));
        assert_eq!(size(1366, 767, Scale::ThreeQuarters), (1026, 576));
        assert_eq!(size(1919, 1081, Scale::Half), (960, 542));
        assert_eq!(size(1919, 1081, Scale::Full), (1919, 1081));
        assert_eq!(size(300, 180, Scale::Half), (300, 180));
    }

    /// A pointer at a share of the captured picture is at the same share of the encoded one.
    #[test]
    fn places_keep_their_share() {
        let size = PictureSize::new(Geometry::new(1366, 768), Scale::ThreeQuarters);
        assert_eq!(size.place(0, 0), (0, 0));
        assert_eq!(size.place(1366, 768), (1026, 576));
        assert_eq!(size.place(683, -4), (513, -3));
        let full = PictureSize::new(Geometry::new(1366, 768), Scale::Full);
        assert_eq!(full.place(683, -4), (683, -4));
    }

    #[test]
    fn the_pointer_shrinks_with_the_picture() {
        let pixels = vec![200; 24 * 20 * 4];
        let shape = CursorShape { serial: 5, width: 24, height: 20, hot_x: 12, hot_y: 19, pixels: &pixels };
        let full = PictureSize::new(Geometry::new(1280, 720), Scale::Full).shape(&shape);
        assert_eq!((full.width, full.height, full.hot_x, full.hot_y), (24, 20, 12, 19));
        let half = PictureSize::new(Geometry::new(1280, 720), Scale::Half).shape(&shape);
        assert_eq!((half.width, half.height, half.hot_x, half.hot_y), (12, 10, 6, 9));
        assert_eq!(half.bgra, vec![200; 12 * 10 * 4]);
        assert_ne!(half.serial, full.serial, "it is another picture");
        let tiny = CursorShape { width: 1, height: 1, pixels: &pixels[..4], ..shape };
        let tiny = PictureSize::new(Geometry::new(1280, 720), Scale::Half).shape(&tiny);
        assert_eq!((tiny.width, tiny.height, tiny.bgra.len()), (1, 1, 4));
    }

    #[test]
    fn pictures_get_the_coded_size() {
        let mut size = PictureSize::new(Geometry::new(320, 192), Scale::Half);
        let data = vec![7; 320 * 192 * 4];
        let (small, stride) = size.apply(&data, 320 * 4).unwrap();
        assert_eq!((small.len(), stride), (160 * 96 * 4, 160 * 4));
        assert!(small.iter().all(|&byte| byte == 7));
        assert!(size.is_for(Geometry::new(320, 192), Scale::Half));
        assert!(!size.is_for(Geometry::new(320, 192), Scale::Full));
    }
}

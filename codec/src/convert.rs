//! Between screen pixels (BGRX) and planar 4:2:0 in BT.709 limited range.
//!
//! Owns: the two conversions, in fixed point of 8 bits. Written as plain loops over rows that the compiler
//! turns into SIMD (see `kernel`). Never: scales, allocates, or converts from another matrix than the one it is told.
//! Invariant: every luma, chroma and colour value is within the bound that the tests state of the exact one
//! (ITU-R BT.709 section 3, ITU-T H.264 equations E-20 to E-25).

mod kernel;

use crate::{CodecError, ColorMatrix, ColorSpace, I420Buffer, I420View};

/// Fills `to` from four-byte pixels (blue, green, red, ignored). `width` and `height` are the picture's own
/// size; where one is odd the last column or row is repeated in the buffer, which is one larger.
pub fn bgrx_to_i420(
    data: &[u8],
    stride: usize,
    width: u32,
    height: u32,
    to: &mut I420Buffer,
) -> Result<(), CodecError> {
    let (width, height) = (width as usize, height as usize);
    if (width.next_multiple_of(2), height.next_multiple_of(2)) != (to.width(), to.height()) {
        return Err(CodecError::Input("the buffer does not have the picture's size"));
    }
    if width == 0 || height == 0 || stride < width * 4 || data.len() < (height - 1) * stride + width * 4 {
        return Err(CodecError::Input("the pixels do not cover the picture"));
    }
    let coded_width = to.width();
    let (luma, blue, red) = to.planes_mut();
    let rows = luma.chunks_exact_mut(2 * coded_width).zip(blue.chunks_exact_mut(coded_width / 2));
    for (pair, ((y, u), v)) in rows.zip(red.chunks_exact_mut(coded_width / 2)).enumerate() {
        let top = &data[2 * pair * stride..][..width * 4];
        let bottom = &data[(2 * pair + 1).min(height - 1) * stride..][..width * 4];
        let (y_top, y_bottom) = y.split_at_mut(coded_width);
        kernel::luma_row(top, &mut y_top[..width]);
        kernel::luma_row(bottom, &mut y_bottom[..width]);
        kernel::chroma_row(top, bottom, &mut u[..width / 2], &mut v[..width / 2]);
        if width % 2 == 1 {
            y_top[width] = y_top[width - 1];
            y_bottom[width] = y_bottom[width - 1];
            let (edge, edge_below) = (twice(&top[(width - 1) * 4..]), twice(&bottom[(width - 1) * 4..]));
            kernel::chroma_row(&edge, &edge_below, &mut u[width / 2..], &mut v[width / 2..]);
        }
    }
    Ok(())
}

/// Fills four-byte pixels (blue, green, red, 255) from a picture. `stride` is in bytes.
pub fn i420_to_bgrx(
    picture: &I420View<'_>,
    color: ColorSpace,
    to: &mut [u8],
    stride: usize,
) -> Result<(), CodecError> {
    picture.check()?;
    let (width, height) = (picture.width as usize, picture.height as usize);
    if stride < width * 4 || to.len() < (height - 1) * stride + width * 4 {
        return Err(CodecError::Input("the pixels do not cover the picture"));
    }
    let chroma_width = width.div_ceil(2);
    let factors = Factors::of(color);
    for (y, row) in to.chunks_mut(stride).take(height).enumerate() {
        let luma = picture.y.row(y, width);
        let (u, v) = (picture.u.row(y / 2, chroma_width), picture.v.row(y / 2, chroma_width));
        kernel::pixel_row(luma, u, v, factors, &mut row[..width * 4]);
    }
    Ok(())
}

/// YUV to RGB in 1/256.
#[derive(Debug, Clone, Copy)]
struct Factors {
    luma_offset: i32,
    luma: i32,
    red_v: i32,
    green_u: i32,
    green_v: i32,
    blue_u: i32,
}

impl Factors {
    fn of(color: ColorSpace) -> Self {
        // 256 x 255/219 and 256 x 255/224 x 2(1-K) for limited range, 256 and 256 x 2(1-K) for full.
        let (luma_offset, luma) = if color.full_range { (0, 256) } else { (16, 298) };
        let [red_v, green_u, green_v, blue_u] = match (color.matrix, color.full_range) {
            (ColorMatrix::Bt709, false) => [459, 55, 136, 541],
            (ColorMatrix::Bt709, true) => [403, 48, 120, 475],
            (ColorMatrix::Bt601, false) => [409, 100, 208, 516],
            (ColorMatrix::Bt601, true) => [359, 88, 183, 454],
        };
        Self { luma_offset, luma, red_v, green_u, green_v, blue_u }
    }
}

/// A pixel beside itself.
fn twice(pixel: &[u8]) -> [u8; 8] {
    let pixel = [pixel[0], pixel[1], pixel[2], pixel[3]];
    (u64::from(u32::from_le_bytes(pixel)) << 32 | u64::from(u32::from_le_bytes(pixel))).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(r: f64, g: f64, b: f64) -> [f64; 3] {
        let y = 0.2126 * r + 0.7152 * g + 0.0722 * b;
        [
            16.0 + y * 219.0 / 255.0,
            128.0 + (b - y) / 1.8556 * 224.0 / 255.0,
            128.0 + (r - y) / 1.5748 * 224.0 / 255.0,
        ]
    }

    #[test]
    fn yuv_is_within_one_of_exact_for_every_color() {
        let mut buffer = I420Buffer::new(2, 2);
        for r in (0..=255u8).step_by(5) {
            for g in (0..=255u8).step_by(5) {
                for b in (0..=255u8).step_by(5) {
                    bgrx_to_i420(&[b, g, r, 9].repeat(4), 8, 2, 2, &mut buffer).unwrap();
                    let view = buffer.view();
                    let exact = exact(r.into(), g.into(), b.into());
                    for (plane, exact) in [view.y, view.u, view.v].iter().zip(exact) {
                        let difference = (f64::from(plane.data[0]) - exact).abs();
                        assert!(difference <= 1.2, "{r} {g} {b}: {} against {exact}", plane.data[0]);
                    }
                }
            }
        }
    }

    #[test]
    fn black_white_and_grey_are_exact() {
        for (grey, luma) in [(0u8, 16u8), (255, 235), (128, 126)] {
            let mut buffer = I420Buffer::new(2, 2);
            bgrx_to_i420(&[grey; 16], 8, 2, 2, &mut buffer).unwrap();
            let view = buffer.view();
            assert_eq!((view.y.data[0], view.u.data[0], view.v.data[0]), (luma, 128, 128));
            let mut pixels = [0; 16];
            i420_to_bgrx(&view, ColorSpace::default(), &mut pixels, 8).unwrap();
            assert_eq!(pixels[..4], [grey, grey, grey, 255]);
        }
    }

    #[test]
    fn there_and_back_stays_within_three() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut buffer = I420Buffer::new(64, 32);
        let mut back = vec![0; 64 * 32 * 4];
        // One color per 2x2 block, so that chroma is not averaged over different ones.
        let blocks: Vec<[u8; 4]> = (0..32 * 16).map(|_| [rng.u8(..), rng.u8(..), rng.u8(..), 255]).collect();
        let pixels: Vec<u8> = (0..64 * 32).flat_map(|at| blocks[at / 128 * 32 + at % 64 / 2]).collect();
        bgrx_to_i420(&pixels, 256, 64, 32, &mut buffer).unwrap();
        i420_to_bgrx(&buffer.view(), ColorSpace::default(), &mut back, 256).unwrap();
        let worst = pixels.iter().zip(&back).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(worst <= 3, "{worst}");
    }

    #[test]
    fn odd_sizes_and_strides() {
        let (width, height, stride) = (5usize, 3usize, 40usize);
        let mut pixels = vec![77; stride * height];
        for y in 0..height {
            for x in 0..width {
                pixels[y * stride + 4 * x..][..4].copy_from_slice(&[255, 255, 255, 0]);
            }
        }
        let mut buffer = I420Buffer::new(5, 3);
        bgrx_to_i420(&pixels, stride, 5, 3, &mut buffer).unwrap();
        let view = buffer.view();
        assert!(view.y.data.iter().all(|&y| y == 235), "{:?}", view.y.data);
        assert!(view.u.data.iter().chain(view.v.data).all(|&c| c == 128));
        assert!(bgrx_to_i420(&pixels[..pixels.len() - 25], stride, 5, 3, &mut buffer).is_err());
    }
}

//! Between screen pixels (BGRX) and planar 4:2:0 in BT.709 limited range.
//!
//! Owns: what the encoders' conversion asks of the crate `yuv`, which has its loops (13 bits of fixed point in SIMD),
//! the edges of odd sizes, and the way back in 8 bits (see `kernel`). Never: scales, allocates, or converts from another matrix than the one it is told.
//! Invariant: every luma, chroma and colour value is within the bound that the tests state of the exact one
//! (ITU-R BT.709 section 3, ITU-T H.264 equations E-20 to E-25).

mod kernel;

use yuv::{
    BufferStoreMut, YuvConversionMode, YuvPlanarImageMut, YuvRange, YuvStandardMatrix, bgra_to_yuv420,
};

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
    let (columns, rows) = (width as usize, height as usize);
    if (columns.next_multiple_of(2), rows.next_multiple_of(2)) != (to.width(), to.height()) {
        return Err(CodecError::Input("the buffer does not have the picture's size"));
    }
    let data = covered(columns, rows, stride).and_then(|len| data.get(..len)).ok_or(TOO_FEW_PIXELS)?;
    let coded_width = to.width();
    let (luma, blue, red) = to.planes_mut();
    // The library pairs rows of all planes, so luma must not have the row that repeats the last one.
    let mut picture = YuvPlanarImageMut {
        y_plane: BufferStoreMut::Borrowed(&mut luma[..rows * coded_width]),
        y_stride: coded_width as u32,
        u_plane: BufferStoreMut::Borrowed(blue),
        u_stride: coded_width as u32 / 2,
        v_plane: BufferStoreMut::Borrowed(red),
        v_stride: coded_width as u32 / 2,
        width,
        height,
    };
    let (range, matrix) = (YuvRange::Limited, YuvStandardMatrix::Bt709);
    bgra_to_yuv420(&mut picture, data, stride as u32, range, matrix, YuvConversionMode::Balanced)
        .map_err(|_| TOO_FEW_PIXELS)?;
    if columns < coded_width {
        for row in luma.chunks_exact_mut(coded_width).take(rows) {
            row[columns] = row[columns - 1];
        }
    }
    if rows % 2 == 1 {
        luma.copy_within((rows - 1) * coded_width..rows * coded_width, rows * coded_width);
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
        return Err(TOO_FEW_PIXELS);
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

const TOO_FEW_PIXELS: CodecError = CodecError::Input("the pixels do not cover the picture");

/// Bytes of a picture of four-byte pixels in whole rows; `None` where there is no such picture. Whole, because the
/// library leaves out a last pair of rows that is shorter than its stride, and says nothing.
fn covered(width: usize, height: usize, stride: usize) -> Option<usize> {
    let row =
        width.checked_mul(4).filter(|&row| row > 0 && row <= stride && u32::try_from(stride).is_ok())?;
    height.checked_mul(stride).filter(|&len| len >= row)
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

    #[test]
    fn every_small_size_is_as_exact_as_any_other() {
        let mut rng = fastrand::Rng::with_seed(7);
        // Past the 32 pixels that the widest loop takes at once, with bytes behind every row and the last.
        for (width, height) in (1..=70u32).flat_map(|width| (1..=5u32).map(move |height| (width, height))) {
            let (columns, rows) = (width as usize, height as usize);
            let stride = columns * 4 + 12;
            let pixels: Vec<u8> = (0..stride * (rows + 2)).map(|_| rng.u8(..)).collect();
            let mut buffer = I420Buffer::new(width, height);
            bgrx_to_i420(&pixels, stride, width, height, &mut buffer).unwrap();
            let view = buffer.view();
            // The pixel there or, beyond the edge, the nearest: red, green and blue.
            let at = |x: usize, y: usize| {
                let pixel = &pixels[y.min(rows - 1) * stride + x.min(columns - 1) * 4..];
                [pixel[2], pixel[1], pixel[0]].map(f64::from)
            };
            for y in 0..buffer.height() {
                for x in 0..buffer.width() {
                    let [r, g, b] = at(x, y);
                    let found = f64::from(view.y.row(y, buffer.width())[x]);
                    assert!(
                        (found - exact(r, g, b)[0]).abs() <= 1.2,
                        "{width}x{height}: luma at {x}, {y}: {found} for {r} {g} {b}, {:?}",
                        view.y.data
                    );
                    let block = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(i, j)| at((x & !1) + i, (y & !1) + j));
                    let mean = [0, 1, 2].map(|c| block.iter().map(|pixel| pixel[c]).sum::<f64>() / 4.0);
                    let [_, u, v] = exact(mean[0], mean[1], mean[2]);
                    for (plane, exact) in [(view.u, u), (view.v, v)] {
                        let found = f64::from(plane.row(y / 2, buffer.width() / 2)[x / 2]);
                        assert!((found - exact).abs() <= 1.7, "{width}x{height}: chroma at {x}, {y}");
                    }
                }
            }
            // The same planes read as a picture of the odd size, which leaves samples behind its rows.
            let own = I420View { width, height, ..view };
            for (matrix, full_range) in
                [ColorMatrix::Bt709, ColorMatrix::Bt601].into_iter().flat_map(|m| [(m, false), (m, true)])
            {
                let mut back = vec![7; stride * (rows + 2)];
                i420_to_bgrx(&own, ColorSpace { matrix, full_range }, &mut back, stride).unwrap();
                for (y, row) in back.chunks(stride).enumerate() {
                    let used = if y < rows { columns * 4 } else { 0 };
                    for (x, pixel) in row[..used].chunks(4).enumerate() {
                        let sample =
                            [view.y.row(y, columns)[x], view.u.row(y / 2, columns.div_ceil(2))[x / 2]];
                        let v = view.v.row(y / 2, columns.div_ceil(2))[x / 2];
                        let exact = exact_pixel([sample[0], sample[1], v], matrix, full_range);
                        for (found, exact) in pixel.iter().zip(exact) {
                            let difference = (f64::from(*found) - exact).abs();
                            assert!(difference <= 1.5, "{width}x{height}: {pixel:?} against {exact:?}");
                        }
                    }
                    assert!(row[used..].iter().all(|&byte| byte == 7), "{width}x{height}: beside row {y}");
                }
            }
        }
    }

    /// Blue, green, red and 255.
    fn exact_pixel([y, u, v]: [u8; 3], matrix: ColorMatrix, full_range: bool) -> [f64; 4] {
        let (kr, kb) = match matrix {
            ColorMatrix::Bt709 => (0.2126, 0.0722),
            ColorMatrix::Bt601 => (0.299, 0.114),
        };
        let (offset, luma, chroma) = if full_range { (0.0, 255.0, 255.0) } else { (16.0, 219.0, 224.0) };
        let y = (f64::from(y) - offset) / luma;
        let [u, v] = [u, v].map(|sample| (f64::from(sample) - 128.0) / chroma);
        let (b, r) = (y + u * 2.0 * (1.0 - kb), y + v * 2.0 * (1.0 - kr));
        let g = (y - kr * r - kb * b) / (1.0 - kr - kb);
        let [b, g, r] = [b, g, r].map(|value| (value * 255.0).clamp(0.0, 255.0));
        [b, g, r, 255.0]
    }
}

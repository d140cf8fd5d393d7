//! Brings a picture to the size of the window: as large as fits, shape kept, black bars around it.
//!
//! Owns two scaled rows and the column table. A picture of the window's size is copied; any other is scaled linearly in
//! both directions, each source row across once, then pairs of rows down. Down is worked on byte by byte in 16-bit
//! numbers, which the compiler turns into vector instructions that every x86-64 has.
#![forbid(unsafe_code)]

use crate::cursor::CursorImage;
use crate::picture::{BYTES_PER_PIXEL, Bgrx, Geometry, Rect};

/// Where a picture of size `picture` lies in a window of size `window`.
pub fn letterbox(picture: Geometry, window: Geometry) -> Rect {
    if picture.as_rect().is_empty() || window.as_rect().is_empty() {
        return Rect::default();
    }
    let (pw, ph) = (u64::from(picture.width), u64::from(picture.height));
    let (ww, wh) = (u64::from(window.width), u64::from(window.height));
    let (width, height) =
        if pw * wh > ww * ph { (ww, (ww * ph / pw).max(1)) } else { ((wh * pw / ph).max(1), wh) };
    let (x, y) = ((ww - width) / 2, (wh - height) / 2);
    Rect::new(x as i32, y as i32, width as u32, height as u32)
}

/// Draws pictures into windows; keeps its tables from one to the next.
#[derive(Debug, Default)]
pub struct Scaler {
    /// For each column of the target: the left source column, and the weight of the right one in 256ths.
    columns: Vec<(u32, u32)>,
    from_width: u32,
    rows: [ScaledRow; 2],
    blended: Vec<[u8; BYTES_PER_PIXEL]>,
}

#[derive(Debug, Default)]
struct ScaledRow {
    source: Option<u32>,
    pixels: Vec<[u8; BYTES_PER_PIXEL]>,
}

impl Scaler {
    /// Draws `picture` into `place` of a window of `width` columns whose pixels are `0x00RRGGBB`, and paints the rest
    /// black. `place` lies inside of the window.
    pub fn draw(&mut self, picture: &Bgrx<'_>, place: Rect, window: &mut [u32], width: u32) {
        let (left, right) = (place.x as usize, place.right() as usize);
        let (top, bottom) = (place.y as usize, place.bottom() as usize);
        self.prepare(picture.geometry(), place);
        for (y, row) in window.chunks_exact_mut(width.max(1) as usize).enumerate() {
            if !(top..bottom).contains(&y) {
                row.fill(0);
                continue;
            }
            row[..left].fill(0);
            row[right..].fill(0);
            let target = &mut row[left..right];
            if picture.geometry() == Geometry::new(place.width, place.height) {
                copy_row(picture.row((y - top) as u32), target);
            } else {
                self.scale_row(picture, place, (y - top) as u32, target);
            }
        }
    }

    fn prepare(&mut self, from: Geometry, place: Rect) {
        if self.columns.len() != place.width as usize || self.from_width != from.width {
            self.columns.clear();
            self.columns.extend((0..place.width).map(|x| sample(x, place.width, from.width)));
            self.from_width = from.width;
        }
        for row in &mut self.rows {
            row.source = None;
            row.pixels.resize(place.width as usize, [0; BYTES_PER_PIXEL]);
        }
        self.blended.resize(place.width as usize, [0; BYTES_PER_PIXEL]);
    }

    fn scale_row(&mut self, picture: &Bgrx<'_>, place: Rect, y: u32, target: &mut [u32]) {
        let height = picture.geometry().height;
        let (upper, weight) = sample(y, place.height, height);
        let lower = (upper + 1).min(height - 1);
        // Going down, what was the lower row becomes the upper one.
        if self.rows[1].source == Some(upper) {
            self.rows.swap(0, 1);
        }
        let columns = &self.columns;
        for (row, source) in self.rows.iter_mut().zip([upper, lower]) {
            if row.source != Some(source) {
                scale_across(picture.row(source), columns, &mut row.pixels);
                row.source = Some(source);
            }
        }
        let [upper, lower] = &self.rows;
        blend_rows(&upper.pixels, &lower.pixels, weight, &mut self.blended);
        copy_row(self.blended.as_flattened(), target);
    }
}

/// Draws the pointer over a window's pixels: `x`, `y` is its pointing pixel in the picture, which lies at `place`.
pub fn draw_cursor(
    image: &CursorImage,
    (x, y): (i32, i32),
    picture: Geometry,
    place: Rect,
    window: &mut [u32],
    width: u32,
) {
    if picture.as_rect().is_empty() || place.is_empty() {
        return;
    }
    // What lies a million pixels away is not seen; the bound keeps sums of what a peer sent in range.
    let at = |value: i32, from: u32, to: u32| {
        (i64::from(value) * i64::from(to)).div_euclid(i64::from(from)).clamp(-1_000_000, 1_000_000) as i32
    };
    let left = at(x.saturating_sub_unsigned(image.hot_x), picture.width, place.width) + place.x;
    let top = at(y.saturating_sub_unsigned(image.hot_y), picture.height, place.height) + place.y;
    let size =
        |len: u32, from: u32, to: u32| (u64::from(len) * u64::from(to)).div_ceil(u64::from(from)) as u32;
    let drawn = Rect::new(
        left,
        top,
        size(image.width, picture.width, place.width),
        size(image.height, picture.height, place.height),
    );
    let Some(inside) = drawn.intersection(&place) else { return };
    let source = |at: i32, from: u32, to: u32| {
        (u64::from(at.unsigned_abs()) * u64::from(from) / u64::from(to)) as usize
    };
    let pixels = image.pixels.as_chunks::<4>().0;
    for y in inside.y..inside.bottom() {
        let source_y = source(y - top, image.height, drawn.height);
        let row = &mut window[y as usize * width as usize..][inside.x as usize..inside.right() as usize];
        for (x, under) in (inside.x..).zip(row) {
            let source_x = source(x - left, image.width, drawn.width);
            let [b, g, r, a] = pixels[source_y * image.width as usize + source_x];
            let over = u32::from_le_bytes([b, g, r, 0]);
            // Premultiplied: what shines through is added. Saturating, as a shape may lie about its alpha.
            let through = blend(*under, 0, u32::from(a) + u32::from(a >> 7));
            *under = add(over, through);
        }
    }
}

/// Left (or upper) source place of a target place, and the weight of its neighbour in 256ths: centres on centres.
fn sample(target: u32, target_len: u32, source_len: u32) -> (u32, u32) {
    let centre = (2 * u64::from(target) + 1) * u64::from(source_len) * 128 / u64::from(target_len.max(1));
    let at = centre.saturating_sub(128);
    let last = source_len.saturating_sub(1);
    let index = (at / 256) as u32;
    if index >= last { (last, 0) } else { (index, (at % 256) as u32) }
}

fn copy_row(from: &[u8], to: &mut [u32]) {
    for (to, from) in to.iter_mut().zip(from.as_chunks().0) {
        *to = u32::from_le_bytes(*from) & 0x00ff_ffff;
    }
}

fn scale_across(from: &[u8], columns: &[(u32, u32)], to: &mut [[u8; BYTES_PER_PIXEL]]) {
    let from = from.as_chunks().0;
    let last = from.len() - 1;
    for (to, &(column, weight)) in to.iter_mut().zip(columns) {
        let column = column as usize;
        let (left, right) = (from[column], from[(column + 1).min(last)]);
        *to = blend(u32::from_le_bytes(left), u32::from_le_bytes(right), weight).to_le_bytes();
    }
}

/// Between two rows; `weight` of the second one in 256ths.
fn blend_rows(
    a: &[[u8; BYTES_PER_PIXEL]],
    b: &[[u8; BYTES_PER_PIXEL]],
    weight: u32,
    to: &mut [[u8; BYTES_PER_PIXEL]],
) {
    // At most 255 * 256, which fits.
    let (rest, weight) = (256 - weight as u16, weight as u16);
    for ((to, &a), &b) in to.as_flattened_mut().iter_mut().zip(a.as_flattened()).zip(b.as_flattened()) {
        *to = ((u16::from(a) * rest + u16::from(b) * weight) >> 8) as u8;
    }
}

/// Between two colours; `weight` of the second one in 256ths.
fn blend(a: u32, b: u32, weight: u32) -> u32 {
    let (rb, g) = (0x00ff_00ff, 0x0000_ff00);
    let rest = 256 - weight;
    let red_blue = ((a & rb) * rest + (b & rb) * weight) >> 8 & rb;
    let green = ((a & g) * rest + (b & g) * weight) >> 8 & g;
    red_blue | green
}

fn add(a: u32, b: u32) -> u32 {
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    u32::from_le_bytes([a[0].saturating_add(b[0]), a[1].saturating_add(b[1]), a[2].saturating_add(b[2]), 0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::Picture;

    fn drawn(picture: &Picture, window: Geometry) -> Vec<u32> {
        let mut pixels = vec![0xdead_beef; (window.width * window.height) as usize];
        let place = letterbox(picture.geometry(), window);
        Scaler::default().draw(&picture.as_bgrx(), place, &mut pixels, window.width);
        pixels
    }

    #[test]
    fn shape_is_kept() {
        let hd = Geometry::new(1280, 720);
        assert_eq!(letterbox(hd, hd), hd.as_rect());
        assert_eq!(letterbox(hd, Geometry::new(1000, 1000)), Rect::new(0, 219, 1000, 562));
        assert_eq!(letterbox(hd, Geometry::new(3000, 720)), Rect::new(860, 0, 1280, 720));
        assert_eq!(letterbox(hd, Geometry::new(1, 1)), Rect::new(0, 0, 1, 1));
        assert!(
            letterbox(hd, Geometry::default()).is_empty() && letterbox(Geometry::default(), hd).is_empty()
        );
    }

    #[test]
    fn a_picture_of_the_windows_size_is_copied() {
        let mut picture = Picture::new(Geometry::new(31, 7));
        picture
            .as_bgrx_mut()
            .data_mut()
            .iter_mut()
            .enumerate()
            .for_each(|(at, byte)| *byte = (at * 37) as u8);
        let pixels = drawn(&picture, picture.geometry());
        for (pixel, bytes) in pixels.iter().zip(picture.data().as_chunks::<4>().0) {
            assert_eq!(pixel.to_le_bytes(), [bytes[0], bytes[1], bytes[2], 0]);
        }
    }

    #[test]
    fn one_colour_stays_one_colour_in_any_size_and_bars_are_black() {
        let mut picture = Picture::new(Geometry::new(40, 30));
        picture.as_bgrx_mut().fill(Rect::new(0, 0, 40, 30), [0x33, 0x22, 0x11, 0xff]);
        for (width, height) in [(1, 1), (13, 30), (40, 31), (41, 30), (80, 60), (200, 33)] {
            let window = Geometry::new(width, height);
            let place = letterbox(picture.geometry(), window);
            for (at, &pixel) in (0..).zip(&drawn(&picture, window)) {
                let inside = place.contains((at % width) as i32, (at / width) as i32);
                assert_eq!(pixel, if inside { 0x0011_2233 } else { 0 }, "{window:?} at {at}");
            }
        }
    }

    #[test]
    fn scaling_is_close_to_exact_arithmetic() {
        let mut picture = Picture::new(Geometry::new(23, 17));
        let mut rng = fastrand::Rng::with_seed(4);
        picture.as_bgrx_mut().data_mut().iter_mut().for_each(|byte| *byte = rng.u8(..));
        for (width, height) in [(46, 34), (69, 51), (30, 22), (11, 8)] {
            let window = Geometry::new(width, height);
            let place = letterbox(picture.geometry(), window);
            let pixels = drawn(&picture, window);
            for y in 0..place.height {
                for x in 0..place.width {
                    let exact = |channel: usize| {
                        let at = |target: u32, to: u32, from: u32| {
                            ((f64::from(target) + 0.5) * f64::from(from) / f64::from(to) - 0.5)
                                .clamp(0.0, f64::from(from - 1))
                        };
                        let (fx, fy) = (at(x, place.width, 23), at(y, place.height, 17));
                        let value = |x: f64, y: f64| {
                            f64::from(picture.pixel(x.min(22.0) as u32, y.min(16.0) as u32)[channel])
                        };
                        let (x0, y0) = (fx.floor(), fy.floor());
                        let (wx, wy) = (fx - x0, fy - y0);
                        let upper = value(x0, y0) * (1.0 - wx) + value(x0 + 1.0, y0) * wx;
                        let lower = value(x0, y0 + 1.0) * (1.0 - wx) + value(x0 + 1.0, y0 + 1.0) * wx;
                        upper * (1.0 - wy) + lower * wy
                    };
                    let at = (y + place.y as u32) * width + x + place.x as u32;
                    let pixel = pixels[at as usize].to_le_bytes();
                    for (channel, &value) in pixel[..3].iter().enumerate() {
                        let difference = (f64::from(value) - exact(channel)).abs();
                        assert!(
                            difference < 4.0,
                            "{window:?} {x},{y} channel {channel}: off by {difference}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_pointer_is_blended_scaled_and_cut() {
        let size = Geometry::new(10, 10);
        let mut image = CursorImage { width: 2, height: 1, hot_x: 1, hot_y: 0, ..Default::default() };
        // Opaque red, and half transparent white over what is there.
        image.pixels = vec![0, 0, 0xff, 0xff, 0x80, 0x80, 0x80, 0x80];
        let mut window = vec![0x0000_0040; 100];
        draw_cursor(&image, (4, 3), size, size.as_rect(), &mut window, 10);
        assert_eq!(window[33], 0x00ff_0000);
        let half = window[34].to_le_bytes();
        assert!(half[0].abs_diff(0x80 + 0x20) <= 1 && half[1] == 0x80, "{half:x?}");
        assert_eq!(window.iter().filter(|&&pixel| pixel != 0x0000_0040).count(), 2);

        let mut window = vec![0; 400];
        draw_cursor(&image, (4, 3), size, Rect::new(0, 0, 20, 20), &mut window, 20);
        assert_eq!(window.iter().filter(|&&pixel| pixel == 0x00ff_0000).count(), 4, "twice as large");
        for at in [(-100, 0), (0, -100), (100, 100), (0, 0), (9, 9), (i32::MAX / 2, i32::MIN / 2)] {
            draw_cursor(&image, at, size, Rect::new(3, 3, 7, 7), &mut vec![0; 100], 10);
        }
    }
}

//! The moving picture of the test source: a drifting textured ground with boxes that cross it.
//!
//! Owns one texture of the picture's size, made at construction. Painting is row copies and fills, cheap enough not to
//! disturb what it is there to measure. Integers only, so that every machine paints the same bytes. The motion is what
//! encoders find hard and games have: everything moves in every frame, by whole pixels, with edges in all directions.

use crate::picture::{BYTES_PER_PIXEL, BgrxMut, Geometry, Picture, Rect};

/// Pixels by which the ground moves to the left, per frame.
const DRIFT_X: u64 = 3;
/// Pixels by which the ground moves up, per frame.
const DRIFT_Y: u64 = 1;
/// Edge of the texture's tiles, in pixels.
const TILE: u32 = 64;

/// Colour of each box, and its steps per frame to the right and down.
const BOXES: [([u8; BYTES_PER_PIXEL], u64, u64); 5] = [
    ([40, 40, 230, 0], 7, 4),
    ([60, 220, 60, 0], 5, 6),
    ([230, 90, 40, 0], 9, 2),
    ([30, 220, 230, 0], 3, 5),
    ([235, 235, 235, 0], 11, 7),
];

/// A deterministic moving picture of one size.
#[derive(Debug)]
pub struct Scene {
    ground: Picture,
}

impl Scene {
    /// Prepares a scene of this size.
    pub fn new(geometry: Geometry) -> Self {
        let mut ground = Picture::new(geometry);
        let mut canvas = ground.as_bgrx_mut();
        for y in 0..geometry.height {
            for (x, pixel) in (0..).zip(canvas.row_mut(y).as_chunks_mut().0) {
                *pixel = texel(geometry, x, y);
            }
        }
        Self { ground }
    }

    /// Paints frame number `frame`. A picture of another size than the scene's is painted where they overlap.
    pub fn paint(&self, picture: &mut BgrxMut<'_>, frame: u32) {
        let ground = self.ground.geometry();
        if ground.as_rect().is_empty() {
            return;
        }
        let shift_x = (u64::from(frame) * DRIFT_X % u64::from(ground.width)) as usize * BYTES_PER_PIXEL;
        let shift_y = u64::from(frame) * DRIFT_Y;
        let rows = picture.geometry().height.min(ground.height);
        for y in 0..rows {
            let from =
                self.ground.as_bgrx().row(((u64::from(y) + shift_y) % u64::from(ground.height)) as u32);
            let to = picture.row_mut(y);
            let len = to.len().min(from.len());
            let (head, tail) = (from[shift_x..].len().min(len), len.saturating_sub(from.len() - shift_x));
            to[..head].copy_from_slice(&from[shift_x..shift_x + head]);
            to[head..head + tail].copy_from_slice(&from[..tail]);
        }
        for (index, (colour, step_x, step_y)) in (0..).zip(BOXES) {
            let (width, height) = (ground.width / 8, ground.height / 6);
            let x = bounce(u64::from(frame) * step_x + index * 131, ground.width - width);
            let y = bounce(u64::from(frame) * step_y + index * 71, ground.height - height);
            picture.fill(Rect::new(x, y, width, height), colour);
        }
    }
}

/// Goes to and fro between 0 and `span`.
fn bounce(at: u64, span: u32) -> i32 {
    let span = u64::from(span.max(1));
    let at = at % (2 * span);
    at.min(2 * span - at) as i32
}

/// A pixel of the ground: a gradient, tiles of different brightness, and in every other tile marks like small text.
///
/// Marks and the gaps between them have odd lengths. Of even ones every edge would fall between two chroma samples of
/// 4:2:0 in one frame and into the middle of one in the next, as the ground moves by odd steps: the sharp frame cannot
/// be predicted from the blurred one, the blurred one can, and the sizes of frames would alternate by a factor of 5.
fn texel(geometry: Geometry, x: u32, y: u32) -> [u8; BYTES_PER_PIXEL] {
    let (tile_x, tile_y) = (x / TILE, y / TILE);
    let across = (u64::from(x) * 120 / u64::from(geometry.width)) as u32;
    let down = (u64::from(y) * 120 / u64::from(geometry.height)) as u32;
    let lift = mix(tile_x, tile_y) % 64;
    let text =
        (tile_x + tile_y) % 2 == 1 && y % 15 < 9 && x % 9 < 6 && mix(x / 3, y / 3 + 7919).is_multiple_of(3);
    if text {
        return [20, 20, 20, 0];
    }
    [(40 + across + lift) as u8, (60 + down + lift) as u8, (50 + (240 - across - down) / 2 + lift) as u8, 0]
}

/// Scatters two numbers over 32 bits.
fn mix(a: u32, b: u32) -> u32 {
    let mut v = a.wrapping_mul(0x9e37_79b1) ^ b.wrapping_mul(0x85eb_ca77);
    v ^= v >> 15;
    v = v.wrapping_mul(0x2c1b_3c6d);
    v ^ v >> 13
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screenshot::compare;

    const SIZE: Geometry = Geometry::new(322, 182);

    fn painted(scene: &Scene, frame: u32) -> Picture {
        let mut picture = Picture::new(SIZE);
        picture.as_bgrx_mut().data_mut().fill(0xcd);
        scene.paint(&mut picture.as_bgrx_mut(), frame);
        picture
    }

    #[test]
    fn a_frame_depends_on_its_number_only() {
        let (one, other) = (Scene::new(SIZE), Scene::new(SIZE));
        for frame in [0, 1, 2, 1000, u32::MAX, 3] {
            assert_eq!(painted(&one, frame), painted(&other, frame), "frame {frame}");
        }
    }

    #[test]
    fn every_pixel_is_painted_and_every_frame_differs() {
        let scene = Scene::new(SIZE);
        for frame in 0..400 {
            let (now, next) = (painted(&scene, frame), painted(&scene, frame + 1));
            assert!(now.data().as_chunks().0.iter().all(|pixel| *pixel != [0xcd; 4]), "frame {frame}");
            let moved = compare(&now.as_bgrx(), &next.as_bgrx()).unwrap();
            assert!(moved.pixels_different > 30_000, "frame {frame}: {moved:?}");
        }
    }

    #[test]
    fn a_picture_of_another_size_is_painted_where_it_overlaps() {
        let scene = Scene::new(SIZE);
        for geometry in
            [Geometry::new(1, 1), Geometry::new(400, 100), Geometry::new(100, 400), Geometry::default()]
        {
            scene.paint(&mut Picture::new(geometry).as_bgrx_mut(), 77);
        }
        Scene::new(Geometry::default()).paint(&mut Picture::new(SIZE).as_bgrx_mut(), 3);
    }
}

//! Pictures in memory and their geometry. Owns nothing but pixels; never knows where they came from.
//!
//! Invariant: a [`Bgrx`] or [`BgrxMut`] that exists covers its whole picture: `data` holds `stride * (height - 1) +
//! width * 4` bytes at least, and `stride >= width * 4`. It is checked once, at construction, so that code which
//! walks rows needs no further check.
#![forbid(unsafe_code)]

/// Bytes per pixel of BGRX.
pub const BYTES_PER_PIXEL: usize = 4;

/// Size of a picture in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Geometry {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Geometry {
    /// A picture of `width` by `height` pixels.
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// The rectangle that covers the whole picture.
    pub const fn as_rect(self) -> Rect {
        Rect { x: 0, y: 0, width: self.width, height: self.height }
    }

    /// Bytes of a tightly packed BGRX picture, or `None` if that does not fit a `usize`.
    pub fn bgrx_len(self) -> Option<usize> {
        (self.width as usize).checked_mul(self.height as usize)?.checked_mul(BYTES_PER_PIXEL)
    }
}

/// A rectangle in pixels, origin at the top left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rect {
    /// Left edge.
    pub x: i32,
    /// Top edge.
    pub y: i32,
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Rect {
    /// A rectangle at `x`, `y`.
    pub const fn new(x: i32, y: i32, width: u32, height: u32) -> Self {
        Self { x, y, width, height }
    }

    /// Whether it covers no pixel.
    pub const fn is_empty(&self) -> bool {
        self.width == 0 || self.height == 0
    }

    /// First column right of it.
    pub fn right(&self) -> i32 {
        self.x.saturating_add_unsigned(self.width)
    }

    /// First row below it.
    pub fn bottom(&self) -> i32 {
        self.y.saturating_add_unsigned(self.height)
    }

    /// What both cover, or `None` if that is nothing.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let (x, y) = (self.x.max(other.x), self.y.max(other.y));
        let (right, bottom) = (self.right().min(other.right()), self.bottom().min(other.bottom()));
        (x < right && y < bottom).then(|| Self::new(x, y, right.abs_diff(x), bottom.abs_diff(y)))
    }

    /// The smallest rectangle that covers both.
    pub fn union(&self, other: &Self) -> Self {
        if self.is_empty() {
            return *other;
        }
        if other.is_empty() {
            return *self;
        }
        let (x, y) = (self.x.min(other.x), self.y.min(other.y));
        let (right, bottom) = (self.right().max(other.right()), self.bottom().max(other.bottom()));
        Self::new(x, y, right.abs_diff(x), bottom.abs_diff(y))
    }

    /// Whether it covers the pixel at `x`, `y`.
    pub fn contains(&self, x: i32, y: i32) -> bool {
        x >= self.x && y >= self.y && x < self.right() && y < self.bottom()
    }
}

/// A borrowed BGRX picture.
#[derive(Debug, Clone, Copy)]
pub struct Bgrx<'a> {
    data: &'a [u8],
    stride: usize,
    geometry: Geometry,
}

impl<'a> Bgrx<'a> {
    /// A picture of `geometry` in `data` with rows `stride` bytes apart; `None` if `data` does not cover it.
    pub fn new(data: &'a [u8], stride: usize, geometry: Geometry) -> Option<Self> {
        covers(data.len(), stride, geometry).then_some(Self { data, stride, geometry })
    }

    /// Size in pixels.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Bytes from one row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// All bytes, padding between rows included.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The `width * 4` bytes of row `y`. Panics if there is no such row.
    pub fn row(&self, y: u32) -> &'a [u8] {
        assert!(y < self.geometry.height, "row {y} of {}", self.geometry.height);
        let start = y as usize * self.stride;
        &self.data[start..start + self.geometry.width as usize * BYTES_PER_PIXEL]
    }

    /// A copy of its own.
    pub fn to_picture(&self) -> Picture {
        let mut picture = Picture::default();
        picture.copy_from(self);
        picture
    }
}

/// A borrowed BGRX picture that can be painted.
#[derive(Debug)]
pub struct BgrxMut<'a> {
    data: &'a mut [u8],
    stride: usize,
    geometry: Geometry,
}

impl<'a> BgrxMut<'a> {
    /// A picture of `geometry` in `data` with rows `stride` bytes apart; `None` if `data` does not cover it.
    pub fn new(data: &'a mut [u8], stride: usize, geometry: Geometry) -> Option<Self> {
        covers(data.len(), stride, geometry).then_some(Self { data, stride, geometry })
    }

    /// Size in pixels.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Bytes from one row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// All bytes, padding between rows included.
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.data
    }

    /// The `width * 4` bytes of row `y`. Panics if there is no such row.
    pub fn row_mut(&mut self, y: u32) -> &mut [u8] {
        assert!(y < self.geometry.height, "row {y} of {}", self.geometry.height);
        let start = y as usize * self.stride;
        &mut self.data[start..start + self.geometry.width as usize * BYTES_PER_PIXEL]
    }

    /// Paints `rect` with one BGRX colour; what lies outside of the picture is left out.
    pub fn fill(&mut self, rect: Rect, colour: [u8; BYTES_PER_PIXEL]) {
        let Some(inside) = rect.intersection(&self.geometry.as_rect()) else { return };
        let (from, to) = (inside.x as usize * BYTES_PER_PIXEL, inside.right() as usize * BYTES_PER_PIXEL);
        for y in inside.y..inside.bottom() {
            for pixel in self.row_mut(y as u32)[from..to].as_chunks_mut().0 {
                *pixel = colour;
            }
        }
    }

    /// The same picture, to read.
    pub fn as_bgrx(&self) -> Bgrx<'_> {
        Bgrx { data: self.data, stride: self.stride, geometry: self.geometry }
    }
}

/// A BGRX picture with memory of its own, tightly packed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture {
    data: Vec<u8>,
    geometry: Geometry,
}

impl Picture {
    /// A black picture.
    pub fn new(geometry: Geometry) -> Self {
        let mut picture = Self::default();
        picture.resize(geometry);
        picture
    }

    /// Changes the size; keeps the memory if it is large enough. The pixels are then of no meaning.
    pub fn resize(&mut self, geometry: Geometry) {
        // A length that does not fit a usize cannot be allocated either; resize reports that as any other
        // exhausted memory.
        self.data.resize(geometry.bgrx_len().unwrap_or(usize::MAX), 0);
        self.geometry = geometry;
    }

    /// Takes over size and pixels of `other`.
    pub fn copy_from(&mut self, other: &Bgrx<'_>) {
        self.resize(other.geometry());
        let row_len = self.stride();
        for (y, row) in self.data.chunks_exact_mut(row_len.max(1)).enumerate() {
            row.copy_from_slice(other.row(y as u32));
        }
    }

    /// Size in pixels.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Bytes from one row to the next.
    pub fn stride(&self) -> usize {
        self.geometry.width as usize * BYTES_PER_PIXEL
    }

    /// All bytes.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The picture, borrowed to read.
    pub fn as_bgrx(&self) -> Bgrx<'_> {
        Bgrx { data: &self.data, stride: self.stride(), geometry: self.geometry }
    }

    /// The picture, borrowed to paint.
    pub fn as_bgrx_mut(&mut self) -> BgrxMut<'_> {
        let stride = self.stride();
        BgrxMut { data: &mut self.data, stride, geometry: self.geometry }
    }

    /// The BGRX bytes of the pixel at `x`, `y`. Panics outside of the picture.
    pub fn pixel(&self, x: u32, y: u32) -> [u8; BYTES_PER_PIXEL] {
        self.as_bgrx().row(y).as_chunks().0[x as usize]
    }
}

fn covers(len: usize, stride: usize, geometry: Geometry) -> bool {
    if geometry.width == 0 || geometry.height == 0 {
        return true;
    }
    let Some(row) = (geometry.width as usize).checked_mul(BYTES_PER_PIXEL) else { return false };
    let last_row = stride.checked_mul(geometry.height as usize - 1);
    stride >= row && last_row.and_then(|at| at.checked_add(row)).is_some_and(|needed| len >= needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_data_is_refused() {
        let data = [0; 2 * 20 - 4];
        assert!(Bgrx::new(&data, 20, Geometry::new(4, 2)).is_some(), "the last row needs no padding");
        assert!(Bgrx::new(&data[1..], 20, Geometry::new(4, 2)).is_none());
        assert!(Bgrx::new(&data, 15, Geometry::new(4, 2)).is_none(), "stride below a row");
        assert!(Bgrx::new(&data, usize::MAX, Geometry::new(4, 3)).is_none());
        assert!(Bgrx::new(&data, 4, Geometry::new(u32::MAX, u32::MAX)).is_none());
    }

    #[test]
    fn rectangles_intersect_and_unite() {
        let (a, b) = (Rect::new(-5, 2, 10, 10), Rect::new(0, 0, 4, 4));
        assert_eq!(a.intersection(&b), Some(Rect::new(0, 2, 4, 2)));
        assert_eq!(a.union(&b), Rect::new(-5, 0, 10, 12));
        assert_eq!(Rect::new(4, 0, 1, 1).intersection(&b), None);
        assert_eq!(Rect::default().union(&b), b);
        assert!(b.contains(3, 3) && !b.contains(4, 3) && !b.contains(0, -1));
    }

    #[test]
    fn fill_is_clipped() {
        let mut picture = Picture::new(Geometry::new(3, 2));
        picture.as_bgrx_mut().fill(Rect::new(2, 1, 100, 100), [1, 2, 3, 4]);
        picture.as_bgrx_mut().fill(Rect::new(-9, -9, 2, 2), [9; 4]);
        assert_eq!(picture.pixel(2, 1), [1, 2, 3, 4]);
        assert_eq!(picture.data().iter().filter(|&&byte| byte != 0).count(), 4);
    }

    #[test]
    fn copy_drops_the_padding() {
        let data: Vec<u8> = (0..24).collect();
        let padded = Bgrx::new(&data, 12, Geometry::new(2, 2)).unwrap();
        assert_eq!(padded.to_picture().data(), [0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15, 16, 17, 18, 19]);
    }
}

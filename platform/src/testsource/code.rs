//! The machine-readable strip: frame number and time as black and white cells, painted and read back.
//!
//! Four rows of forty cells. A cell is a fortieth of the width and a ninetieth of the height, eight pixels at least, so
//! that it covers whole transform blocks of a video codec; a picture that was scaled to three quarters or half can be read
//! as well. Each row starts and ends with four sync cells, its own pattern at the left and the
//! inverse at the right; between them are 32 bits, most significant first:
//!
//! ```text
//! row 0   sync  frame number                 ~sync
//! row 1   sync  timestamp, upper 32 bits     ~sync
//! row 2   sync  timestamp, lower 32 bits     ~sync
//! row 3   sync  CRC-32 of the twelve bytes   ~sync
//! ```
//!
//! White is 1. The sync cells are known in advance: they give the levels of black and white, and with the CRC they
//! keep chance pictures out (one in 2^64). Reading looks at brightness only, so it works on a luma plane too. It
//! never panics, whatever the picture holds.

use crate::picture::{BYTES_PER_PIXEL, Bgrx, BgrxMut, Geometry, Rect};

/// Cells per row.
const COLUMNS: u32 = 40;
/// Rows of a strip.
const ROWS: u32 = 4;
/// Sync cells at each end of a row.
const SYNC_CELLS: u32 = 4;
/// Left sync pattern of each row, most significant bit first; the right one is its inverse.
const SYNC: [u8; ROWS as usize] = [0b1010, 0b1100, 0b0110, 0b1001];
/// Smallest edge of a cell, in pixels.
const CELL_MIN: u32 = 8;
/// Cells are this fraction of the height.
const CELLS_PER_HEIGHT: u32 = 90;
/// White must be brighter than black by this much, of 255, for a strip to be taken for one.
const CONTRAST_MIN: i32 = 48;

const BLACK: [u8; BYTES_PER_PIXEL] = [0, 0, 0, 0];
const WHITE: [u8; BYTES_PER_PIXEL] = [255, 255, 255, 0];

/// What a strip says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code {
    /// Frame number.
    pub frame: u32,
    /// Time at which the picture was whole, in microseconds of the painter's clock.
    pub timestamp_us: u64,
}

/// Which of a picture's two strips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The first rows.
    Top,
    /// The last rows.
    Bottom,
}

/// A picture to read a code from.
#[derive(Debug, Clone, Copy)]
pub enum PictureRef<'a> {
    /// A BGRX picture.
    Bgrx(Bgrx<'a>),
    /// The luma plane of a YUV picture, one byte per pixel, full or limited range.
    Luma {
        /// All rows.
        data: &'a [u8],
        /// Bytes from one row to the next.
        stride: usize,
        /// Size of the plane.
        geometry: Geometry,
    },
}

impl<'a> From<Bgrx<'a>> for PictureRef<'a> {
    fn from(picture: Bgrx<'a>) -> Self {
        Self::Bgrx(picture)
    }
}

/// Height of one strip in a picture of this size, in pixels.
pub fn strip_height(geometry: Geometry) -> u32 {
    ROWS * cell_height(geometry)
}

/// Paints `code` at `position`. A picture with no room for two strips is left as it is.
pub fn paint_code(picture: &mut BgrxMut<'_>, position: Position, code: &Code) {
    let geometry = picture.geometry();
    let Some(top) = strip_top(geometry, position) else { return };
    let cell_height = cell_height(geometry);
    for (row, word) in words(code).into_iter().enumerate() {
        let y = (top + row as u32 * cell_height) as i32;
        let cells = row_cells(row, word);
        for column in 0..COLUMNS {
            let (left, right) = (edge(geometry, column), edge(geometry, column + 1));
            let colour = if cell(cells, column) { WHITE } else { BLACK };
            picture.fill(Rect::new(left as i32, y, right - left, cell_height), colour);
        }
    }
}

/// Reads the code at `position`; `None` if there is none, or none that can be trusted. The picture may have been scaled to
/// three quarters or half of what was painted.
pub fn read_code(picture: &PictureRef<'_>, position: Position) -> Option<Code> {
    let geometry = picture.checked_geometry()?;
    [4, 3, 2].into_iter().find_map(|quarters| read_scaled(picture, geometry, position, quarters))
}

/// Reads the code of a picture that has so many quarters of the size that it was painted in.
fn read_scaled(
    picture: &PictureRef<'_>,
    geometry: Geometry,
    position: Position,
    quarters: u32,
) -> Option<Code> {
    let whole = |size: u32| size.saturating_mul(4) / quarters;
    let painted = Geometry::new(whole(geometry.width), whole(geometry.height));
    strip_top(painted, position)?;
    // In quarters of a pixel.
    let cell_height = cell_height(painted) * quarters;
    let top = match position {
        Position::Top => 0,
        Position::Bottom => geometry.height.saturating_mul(4).checked_sub(ROWS * cell_height)?,
    };
    let mut words = [0u32; ROWS as usize];
    for (row, word) in (0..).zip(&mut words) {
        let [y, end] = [row, row + 1].map(|row| (top + row * cell_height) / 4);
        let mut levels = [0i32; COLUMNS as usize];
        for (column, level) in (0..).zip(&mut levels) {
            *level = picture.cell_level(edge(geometry, column), edge(geometry, column + 1), y, end - y);
        }
        *word = read_row(row as usize, &levels)?;
    }
    let code = Code { frame: words[0], timestamp_us: u64::from(words[1]) << 32 | u64::from(words[2]) };
    (crc32(&code) == words[3]).then_some(code)
}

impl PictureRef<'_> {
    /// Size, if the data really covers it.
    fn checked_geometry(&self) -> Option<Geometry> {
        match *self {
            Self::Bgrx(picture) => Some(picture.geometry()),
            Self::Luma { data, stride, geometry } => {
                let (width, last) = (geometry.width as usize, (geometry.height as usize).checked_sub(1)?);
                let needed = stride.checked_mul(last)?.checked_add(width)?;
                (stride >= width && data.len() >= needed).then_some(geometry)
            }
        }
    }

    /// Mean brightness of the inner half of a cell: codecs and scalers smear its edges.
    fn cell_level(&self, left: u32, right: u32, y: u32, height: u32) -> i32 {
        let (inset_x, inset_y) = ((right - left) / 4, height / 4);
        let (from, to) = ((left + inset_x) as usize, (right - inset_x) as usize);
        let (mut sum, mut count) = (0u32, 0u32);
        for y in y + inset_y..y + height - inset_y {
            match *self {
                Self::Bgrx(picture) => {
                    let pixels = &picture.row(y).as_chunks::<BYTES_PER_PIXEL>().0[from..to];
                    sum += pixels.iter().map(luma).sum::<u32>();
                }
                Self::Luma { data, stride, .. } => {
                    let row = &data[y as usize * stride..];
                    sum += row[from..to].iter().copied().map(u32::from).sum::<u32>();
                }
            }
            count += (to - from) as u32;
        }
        // A cell has four by four pixels at least, so its inner half has some.
        (sum / count.max(1)) as i32
    }
}

/// The 32 bits of a row, or `None` if its sync cells are not what they must be.
fn read_row(row: usize, levels: &[i32; COLUMNS as usize]) -> Option<u32> {
    let expected = row_cells(row, 0);
    let is_sync = |column: u32| !(SYNC_CELLS..COLUMNS - SYNC_CELLS).contains(&column);
    let (mut white, mut black) = (0, 0);
    for (column, &level) in (0..).zip(levels).filter(|&(column, _)| is_sync(column)) {
        *(if cell(expected, column) { &mut white } else { &mut black }) += level;
    }
    // Every row has four white and four black sync cells: the right pattern is the inverse of the left one.
    let (white, black) = (white / SYNC_CELLS as i32, black / SYNC_CELLS as i32);
    if white - black < CONTRAST_MIN {
        return None;
    }
    let threshold = (white + black) / 2;
    let mut word = 0;
    for (column, &level) in (0..).zip(levels) {
        let bit = level > threshold;
        if is_sync(column) {
            if bit != cell(expected, column) {
                return None;
            }
        } else {
            word = word << 1 | u32::from(bit);
        }
    }
    Some(word)
}

/// The cells of a row as bits, the leftmost in bit 39.
fn row_cells(row: usize, word: u32) -> u64 {
    let sync = u64::from(SYNC[row]);
    sync << 36 | u64::from(word) << 4 | (!sync & 0xf)
}

fn cell(cells: u64, column: u32) -> bool {
    cells >> (COLUMNS - 1 - column) & 1 == 1
}

fn words(code: &Code) -> [u32; ROWS as usize] {
    [code.frame, (code.timestamp_us >> 32) as u32, code.timestamp_us as u32, crc32(code)]
}

fn cell_height(geometry: Geometry) -> u32 {
    (geometry.height / CELLS_PER_HEIGHT).max(CELL_MIN)
}

/// Left edge of a column, in pixels.
fn edge(geometry: Geometry, column: u32) -> u32 {
    (u64::from(column) * u64::from(geometry.width) / u64::from(COLUMNS)) as u32
}

/// First row of a strip, if the picture has room for both.
fn strip_top(geometry: Geometry, position: Position) -> Option<u32> {
    let strip = strip_height(geometry);
    if geometry.width < COLUMNS * CELL_MIN || geometry.height < strip * 2 {
        return None;
    }
    Some(match position {
        Position::Top => 0,
        Position::Bottom => geometry.height - strip,
    })
}

/// Brightness of a pixel, BT.709 weights in 256ths.
fn luma(&[b, g, r, _]: &[u8; BYTES_PER_PIXEL]) -> u32 {
    (u32::from(r) * 54 + u32::from(g) * 183 + u32::from(b) * 19) >> 8
}

/// CRC-32 (ISO-HDLC: reflected 0x04C11DB7) of frame number and timestamp, big-endian.
fn crc32(code: &Code) -> u32 {
    let bytes = code.frame.to_be_bytes().into_iter().chain(code.timestamp_us.to_be_bytes());
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::picture::Picture;
    use crate::testsource::Scene;

    const CODE: Code = Code { frame: 0x1234_5678, timestamp_us: 0x0123_4567_89ab_cdef };

    fn painted(geometry: Geometry, code: &Code) -> Picture {
        let mut picture = Picture::new(geometry);
        let mut canvas = picture.as_bgrx_mut();
        Scene::new(geometry).paint(&mut canvas, code.frame);
        paint_code(&mut canvas, Position::Top, code);
        paint_code(&mut canvas, Position::Bottom, code);
        picture
    }

    fn read(picture: &Picture, position: Position) -> Option<Code> {
        read_code(&picture.as_bgrx().into(), position)
    }

    fn luma_plane(picture: &Picture) -> Vec<u8> {
        // Limited range, as every H.264 stream of this project.
        picture.data().as_chunks().0.iter().map(|pixel| 16 + (luma(pixel) * 219 / 255) as u8).collect()
    }

    /// Smears and shrinks brightness as a codec at low bitrate does: means of 8x8 blocks, coarse steps, noise.
    fn quantise(plane: &mut [u8], width: usize, step: i32, noise: i32, rng: &mut fastrand::Rng) {
        let height = plane.len() / width;
        for by in (0..height).step_by(8) {
            for bx in (0..width).step_by(8) {
                let (rows, columns) = (by..(by + 8).min(height), bx..(bx + 8).min(width));
                let count = (rows.len() * columns.len()) as i32;
                let sum: i32 = rows
                    .clone()
                    .flat_map(|y| &plane[y * width..][columns.clone()])
                    .map(|&v| i32::from(v))
                    .sum();
                let mean = sum / count;
                for y in rows {
                    for value in &mut plane[y * width..][columns.clone()] {
                        let blurred = (mean * 3 + i32::from(*value)) / 4;
                        *value = (blurred / step * step + rng.i32(-noise..=noise)).clamp(0, 255) as u8;
                    }
                }
            }
        }
    }

    #[test]
    fn check_value_of_the_crc() {
        // "123456789012" has the well-known prefix; the whole was computed with an independent implementation.
        let code =
            Code { frame: u32::from_be_bytes(*b"1234"), timestamp_us: u64::from_be_bytes(*b"56789012") };
        assert_eq!(crc32(&code), CRC_OF_123456789012);
    }

    const CRC_OF_123456789012: u32 = 0x5d34_eb96;

    #[test]
    fn reads_what_was_painted() {
        for (width, height) in
            [(320, 96), (321, 97), (640, 360), (1280, 720), (1366, 768), (1920, 1080), (3840, 2160)]
        {
            let geometry = Geometry::new(width, height);
            let picture = painted(geometry, &CODE);
            assert_eq!(read(&picture, Position::Top), Some(CODE), "{geometry:?}");
            assert_eq!(read(&picture, Position::Bottom), Some(CODE), "{geometry:?}");
            let luma = luma_plane(&picture);
            let plane = PictureRef::Luma { data: &luma, stride: width as usize, geometry };
            assert_eq!(read_code(&plane, Position::Bottom), Some(CODE), "{geometry:?} luma");
        }
    }

    #[test]
    fn survives_coarse_coding() {
        let mut rng = fastrand::Rng::with_seed(1);
        for (width, height) in [(320, 96), (1280, 720), (1366, 768)] {
            let geometry = Geometry::new(width, height);
            let mut plane = luma_plane(&painted(geometry, &CODE));
            quantise(&mut plane, width as usize, 40, 30, &mut rng);
            let plane = PictureRef::Luma { data: &plane, stride: width as usize, geometry };
            assert_eq!(read_code(&plane, Position::Top), Some(CODE), "{geometry:?}");
            assert_eq!(read_code(&plane, Position::Bottom), Some(CODE), "{geometry:?}");
        }
    }

    #[test]
    fn a_scaled_picture_can_be_read() {
        for (from, width, height) in [
            ((1920, 1080), 1280, 720),
            ((1920, 1080), 1600, 900),
            ((1920, 1080), 2560, 1440),
            ((1920, 1080), 1440, 810),
            ((1920, 1080), 960, 540),
            ((640, 384), 480, 288),
            ((640, 384), 320, 192),
            ((320, 192), 240, 144),
        ] {
            let painted = painted(Geometry::new(from.0, from.1), &CODE);
            let mut to = Picture::new(Geometry::new(width, height));
            for y in 0..height {
                for x in 0..width {
                    let pixel = painted.pixel(x * from.0 / width, y * from.1 / height);
                    to.as_bgrx_mut().row_mut(y)[x as usize * 4..][..4].copy_from_slice(&pixel);
                }
            }
            assert_eq!(read(&to, Position::Top), Some(CODE), "{width}x{height}");
            assert_eq!(read(&to, Position::Bottom), Some(CODE), "{width}x{height}");
        }
    }

    #[test]
    fn one_wrong_cell_is_refused() {
        let geometry = Geometry::new(640, 360);
        for row in 0..ROWS {
            for column in 0..COLUMNS {
                let mut picture = painted(geometry, &CODE);
                let rect = Rect::new(edge(geometry, column) as i32, (row * 8) as i32, 16, 8);
                let was = picture.pixel(rect.x as u32 + 8, rect.y as u32 + 4);
                picture.as_bgrx_mut().fill(rect, if was == WHITE { BLACK } else { WHITE });
                assert_eq!(read(&picture, Position::Top), None, "row {row} column {column}");
                assert_eq!(read(&picture, Position::Bottom), Some(CODE));
            }
        }
    }

    #[test]
    fn low_contrast_and_plain_pictures_hold_no_code() {
        let geometry = Geometry::new(640, 360);
        for value in [0, 17, 128, 255] {
            let data = vec![value; 640 * 360];
            let plane = PictureRef::Luma { data: &data, stride: 640, geometry };
            assert_eq!(read_code(&plane, Position::Top), None);
        }
        let mut faint = luma_plane(&painted(geometry, &CODE));
        faint.iter_mut().for_each(|value| *value = 100 + *value / 8);
        let plane = PictureRef::Luma { data: &faint, stride: 640, geometry };
        assert_eq!(read_code(&plane, Position::Top), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_code_round_trips(frame: u32, timestamp_us: u64, width in 320u32..700, height in 64u32..400) {
            let code = Code { frame, timestamp_us };
            let mut picture = Picture::new(Geometry::new(width, height));
            paint_code(&mut picture.as_bgrx_mut(), Position::Top, &code);
            paint_code(&mut picture.as_bgrx_mut(), Position::Bottom, &code);
            prop_assert_eq!(read(&picture, Position::Top), Some(code));
            prop_assert_eq!(read(&picture, Position::Bottom), Some(code));
        }

        #[test]
        fn random_pictures_hold_no_code(seed: u64, width in 0u32..700, height in 0u32..200, coarse: bool) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut picture = Picture::new(Geometry::new(width, height));
            // Coarse noise is black and white like a real strip, which gets past the contrast test.
            for pixel in picture.as_bgrx_mut().data_mut().as_chunks_mut::<4>().0 {
                *pixel = if coarse { [255 * rng.u8(0..=1); 4] } else { rng.u32(..).to_ne_bytes() };
            }
            prop_assert_eq!(read(&picture, Position::Top), None);
            prop_assert_eq!(read(&picture, Position::Bottom), None);
        }

        #[test]
        fn random_cells_hold_no_code(rows: [u32; ROWS as usize]) {
            // Right sync, random bits: only the CRC stands between them and a code.
            let geometry = Geometry::new(320, 64);
            let mut picture = Picture::new(geometry);
            for (row, &word) in rows.iter().enumerate() {
                for column in (0..COLUMNS).filter(|&column| cell(row_cells(row, word), column)) {
                    let rect = Rect::new((column * 8) as i32, (row * 8) as i32, 8, 8);
                    picture.as_bgrx_mut().fill(rect, WHITE);
                }
            }
            prop_assert_eq!(read(&picture, Position::Top), None);
        }

        #[test]
        fn a_luma_plane_that_lies_about_its_size_is_refused(len in 0usize..4000, stride: usize, width: u32, height: u32) {
            let data = vec![0; len];
            let plane = PictureRef::Luma { data: &data, stride, geometry: Geometry::new(width, height) };
            prop_assert_eq!(read_code(&plane, Position::Top), None);
            prop_assert_eq!(read_code(&plane, Position::Bottom), None);
        }
    }
}

//! Pictures to and from PNG files, a screenshot of a whole X display, and how alike two pictures are.
//!
//! Not for the hot path: everything here allocates and may touch files. It keeps no state.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use x11rb::connection::Connection as _;
use x11rb::protocol::xproto::{ConnectionExt as _, ImageFormat};

use crate::error::{DeviceError, DeviceFault, Retry};
use crate::picture::{BYTES_PER_PIXEL, Bgrx, Geometry, Picture};
use crate::x11::display::Display;

/// How alike two pictures are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// Peak signal-to-noise ratio over blue, green and red, in dB; infinite for equal pictures.
    pub psnr_db: f64,
    /// Largest difference of any one channel.
    pub difference_max: u8,
    /// Pixels that differ in any channel.
    pub pixels_different: u64,
}

/// Compares two pictures; `None` if their sizes differ or they are empty. The unused byte does not count.
pub fn compare(a: &Bgrx<'_>, b: &Bgrx<'_>) -> Option<Comparison> {
    let geometry = a.geometry();
    if geometry != b.geometry() || geometry.as_rect().is_empty() {
        return None;
    }
    let (mut squares, mut difference_max, mut pixels_different) = (0u64, 0u8, 0u64);
    for y in 0..geometry.height {
        let (row_a, row_b) = (a.row(y).as_chunks::<4>().0, b.row(y).as_chunks::<4>().0);
        for (p, q) in row_a.iter().zip(row_b) {
            let differences = [p[0].abs_diff(q[0]), p[1].abs_diff(q[1]), p[2].abs_diff(q[2])];
            let largest = differences.into_iter().fold(0, u8::max);
            squares += differences.iter().map(|&d| u64::from(d) * u64::from(d)).sum::<u64>();
            difference_max = difference_max.max(largest);
            pixels_different += u64::from(largest != 0);
        }
    }
    let samples = f64::from(geometry.width) * f64::from(geometry.height) * 3.0;
    let psnr_db =
        if squares == 0 { f64::INFINITY } else { 10.0 * (255.0 * 255.0 * samples / squares as f64).log10() };
    Some(Comparison { psnr_db, difference_max, pixels_different })
}

/// Writes a picture as a PNG file, 8-bit RGB.
///
/// # Errors
/// When the picture is empty or the file cannot be written.
pub fn save_png(path: &Path, picture: &Bgrx<'_>) -> Result<(), DeviceError> {
    let geometry = picture.geometry();
    if geometry.as_rect().is_empty() {
        let advice = "There is no picture yet: nothing was shown.";
        return Err(DeviceError::new(
            name(path),
            "write",
            DeviceFault::InvalidArgument,
            Retry::Later,
            advice,
        ));
    }
    let mut rgb = Vec::with_capacity(geometry.width as usize * geometry.height as usize * 3);
    for y in 0..geometry.height {
        rgb.extend(picture.row(y).as_chunks::<4>().0.iter().flat_map(|&[b, g, r, _]| [r, g, b]));
    }
    let file = File::create(path).map_err(|e| file_error(path, "create", e))?;
    let mut encoder = png::Encoder::new(BufWriter::new(file), geometry.width, geometry.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().map_err(|e| file_error(path, "write", e))?;
    writer.write_image_data(&rgb).map_err(|e| file_error(path, "write", e))?;
    writer.finish().map_err(|e| file_error(path, "write", e))
}

/// Reads a PNG file of 8 bits per channel.
///
/// # Errors
/// When the file cannot be read or is no such PNG.
pub fn load_png(path: &Path) -> Result<Picture, DeviceError> {
    let file = File::open(path).map_err(|e| file_error(path, "open", e))?;
    let mut decoder = png::Decoder::new(BufReader::new(file));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(|e| file_error(path, "read", e))?;
    let too_large = || file_error(path, "read", "the picture is too large");
    let mut bytes = vec![0; reader.output_buffer_size().ok_or_else(too_large)?];
    let info = reader.next_frame(&mut bytes).map_err(|e| file_error(path, "read", e))?;
    let mut picture = Picture::new(Geometry::new(info.width, info.height));
    let samples = info.color_type.samples();
    let mut out = picture.as_bgrx_mut();
    for (to, from) in out.data_mut().as_chunks_mut::<4>().0.iter_mut().zip(bytes.chunks_exact(samples)) {
        *to = match *from {
            [grey] | [grey, _] => [grey, grey, grey, 0],
            [r, g, b, ..] => [b, g, r, 0],
            [] => [0; 4],
        };
    }
    Ok(picture)
}

/// The whole picture of an X display (`None`: the one in `DISPLAY`), as its user sees it but without the pointer.
///
/// # Errors
/// When the display cannot be reached or has a pixel format that is not handled.
pub fn capture_display(display: Option<&str>) -> Result<Picture, DeviceError> {
    let display = Display::connect(display)?;
    display.require_bgrx()?;
    let root = display.root();
    let fail = |e: x11rb::errors::ReplyError| display.reply_error("get image", e);
    let lost = |e| display.connection_error("get image", e);
    let size = display.conn().get_geometry(root).map_err(lost)?.reply().map_err(fail)?;
    let geometry = Geometry::new(u32::from(size.width), u32::from(size.height));
    let mut picture = Picture::new(geometry);
    let stride = picture.stride();
    // One request of everything could exceed what one reply may carry; bands of 64 rows never do.
    let rows_max = 64;
    for (band, bytes) in picture.as_bgrx_mut().data_mut().chunks_mut(stride * rows_max).enumerate() {
        let (y, rows) = (band * rows_max, bytes.len() / stride);
        let reply = display
            .conn()
            .get_image(ImageFormat::Z_PIXMAP, root, 0, y as i16, size.width, rows as u16, u32::MAX)
            .map_err(lost)?
            .reply()
            .map_err(fail)?;
        let len = bytes.len().min(reply.data.len() / BYTES_PER_PIXEL * BYTES_PER_PIXEL);
        bytes[..len].copy_from_slice(&reply.data[..len]);
    }
    // A server that shows nothing through an error is none; what is left of the queue goes with the connection.
    display.conn().flush().map_err(lost)?;
    Ok(picture)
}

fn name(path: &Path) -> String {
    format!("file {}", path.display())
}

fn file_error(
    path: &Path,
    operation: &'static str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> DeviceError {
    let advice = "Check that the folder exists, is writable and has space, and that the file is a PNG.";
    DeviceError::new(name(path), operation, DeviceFault::System, Retry::Never, advice).caused_by(source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::Rect;

    fn sample() -> Picture {
        let mut picture = Picture::new(Geometry::new(33, 17));
        for (at, byte) in picture.as_bgrx_mut().data_mut().iter_mut().enumerate() {
            *byte = if at % 4 == 3 { 0 } else { (at * 7) as u8 };
        }
        picture
    }

    #[test]
    fn png_round_trip() {
        let path = std::env::temp_dir().join(format!("wavry-png-{}.png", std::process::id()));
        let picture = sample();
        save_png(&path, &picture.as_bgrx()).unwrap();
        let read = load_png(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read.unwrap(), picture);
    }

    #[test]
    fn file_errors_name_the_file() {
        let missing = Path::new("/nonexistent/picture.png");
        assert!(load_png(missing).unwrap_err().to_string().contains("/nonexistent/picture.png: open"));
        assert!(save_png(missing, &sample().as_bgrx()).unwrap_err().to_string().contains("create"));
        let empty = save_png(missing, &Picture::default().as_bgrx()).unwrap_err();
        assert_eq!(empty.fault(), DeviceFault::InvalidArgument);
    }

    #[test]
    fn comparison_counts_what_differs() {
        let (a, mut b) = (sample(), sample());
        assert_eq!(compare(&a.as_bgrx(), &b.as_bgrx()).unwrap().psnr_db, f64::INFINITY);
        b.as_bgrx_mut().row_mut(3)[8] ^= 0x10;
        b.as_bgrx_mut().row_mut(4)[3] = 77;
        let one = compare(&a.as_bgrx(), &b.as_bgrx()).unwrap();
        assert_eq!((one.difference_max, one.pixels_different), (16, 1), "the unused byte does not count");
        let expected = 10.0 * (255.0f64 * 255.0 * 33.0 * 17.0 * 3.0 / 256.0).log10();
        assert!((one.psnr_db - expected).abs() < 1e-9);
        b.as_bgrx_mut().fill(Rect::new(0, 0, 33, 17), [255; 4]);
        assert!(compare(&a.as_bgrx(), &b.as_bgrx()).unwrap().psnr_db < 10.0);
        assert!(compare(&a.as_bgrx(), &Picture::new(Geometry::new(33, 16)).as_bgrx()).is_none());
    }
}

//! Size and rate of a stream, as they are written on the command line.

use std::fmt;
use std::str::FromStr;

use wavry_platform::Geometry;

/// Size and rate of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stream {
    /// Size of its pictures.
    pub(crate) geometry: Geometry,
    /// Frames per second.
    pub(crate) fps: u32,
}

impl Stream {
    /// Time between two frames.
    pub(crate) fn interval_ns(&self) -> u64 {
        1_000_000_000 / u64::from(self.fps)
    }
}

impl FromStr for Stream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not WIDTHxHEIGHT@FPS");
        let (size, fps) = text.split_once('@').ok_or_else(wrong)?;
        let (width, height) = size.split_once('x').ok_or_else(wrong)?;
        let number = |digits: &str| digits.parse::<u32>().map_err(|_| wrong());
        let (width, height, fps) = (number(width)?, number(height)?, number(fps)?);
        // The peers' raw video has no room for odd sizes.
        let fits = (320..=4096).contains(&width)
            && (96..=2304).contains(&height)
            && width % 4 == 0
            && height % 2 == 0
            && (1..=240).contains(&fps);
        if !fits {
            return Err("from 320x96 to 4096x2304, width by four, height even, 1 to 240 fps".to_owned());
        }
        Ok(Self { geometry: Geometry::new(width, height), fps })
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}@{}", self.geometry.width, self.geometry.height, self.fps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_read_and_shown() {
        assert_eq!(Stream::from_str("1280x720@60").unwrap().to_string(), "1280x720@60");
        for wrong in ["", "1280x720", "1280@60", "1281x720@60", "1280x720@0", "64x64@60"] {
            assert!(Stream::from_str(wrong).is_err(), "{wrong}");
        }
    }
}

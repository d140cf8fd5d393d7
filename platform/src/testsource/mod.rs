//! A capture source without a display: a deterministic moving picture that carries its own frame number and time.
//!
//! Frame `n` of a size is the same picture in every process and however many frames came before, except for the
//! timestamp in its code. Both codes of a picture are equal, and its timestamp is the moment at which the picture was
//! whole, so `captured_at_ns / 1000` equals it and what is measured from it holds no painting time. It never falls
//! behind: frames that were not asked for in time are skipped, not made up for.
#![forbid(unsafe_code)]

mod code;
mod scene;

use std::thread;
use std::time::{Duration, Instant};

pub use code::{Code, PictureRef, Position, paint_code, read_code, strip_height};
pub use scene::Scene;

use crate::capture::{CaptureError, CaptureSource, CapturedFrame, FramePixels, Monitor, MonitorId};
use crate::clock::{left_until, monotonic_ns};
use crate::error::{DeviceError, DeviceFault, Retry};
use crate::pacer::FramePacer;
use crate::picture::{Geometry, Picture, Rect};

/// Smallest picture that has room for both codes and something that moves.
pub const GEOMETRY_MIN: Geometry = Geometry::new(320, 96);
/// Largest picture: what H.264 level 6.2 and an X screen can carry.
pub const GEOMETRY_MAX: Geometry = Geometry::new(16_384, 16_384);

const DEVICE: &str = "test source";

/// A moving picture with a code at top and bottom.
#[derive(Debug)]
pub struct TestSource {
    scene: Scene,
    picture: Picture,
    damage: [Rect; 1],
    monitors: [Monitor; 1],
    pacer: FramePacer,
    next_frame: u32,
    refresh: bool,
}

impl TestSource {
    /// A source of `geometry` at `fps` frames per second.
    ///
    /// # Errors
    /// [`UnsupportedFormat`](DeviceFault::UnsupportedFormat) below [`GEOMETRY_MIN`] or above [`GEOMETRY_MAX`].
    pub fn new(geometry: Geometry, fps: f32) -> Result<Self, CaptureError> {
        let fits = (GEOMETRY_MIN.width..=GEOMETRY_MAX.width).contains(&geometry.width)
            && (GEOMETRY_MIN.height..=GEOMETRY_MAX.height).contains(&geometry.height);
        if !fits {
            let advice = format!(
                "{}x{} is not possible: choose a size from {}x{} to {}x{}.",
                geometry.width,
                geometry.height,
                GEOMETRY_MIN.width,
                GEOMETRY_MIN.height,
                GEOMETRY_MAX.width,
                GEOMETRY_MAX.height
            );
            return Err(DeviceError::new(
                DEVICE,
                "open",
                DeviceFault::UnsupportedFormat,
                Retry::Never,
                advice,
            ));
        }
        let monitor = Monitor {
            id: 1,
            name: "test".into(),
            x: 0,
            y: 0,
            width: geometry.width,
            height: geometry.height,
            refresh_hz: fps,
            primary: true,
        };
        Ok(Self {
            scene: Scene::new(geometry),
            picture: Picture::new(geometry),
            damage: [geometry.as_rect()],
            monitors: [monitor],
            pacer: FramePacer::new(fps),
            next_frame: 0,
            refresh: true,
        })
    }

    /// The number the next frame will carry.
    pub fn next_frame(&self) -> u32 {
        self.next_frame
    }

    fn paint(&mut self) -> CapturedFrame<'_> {
        let started_at_ns = monotonic_ns();
        let frame = self.next_frame;
        self.next_frame = frame.wrapping_add(1);
        let mut canvas = self.picture.as_bgrx_mut();
        self.scene.paint(&mut canvas, frame);
        let captured_at_ns = monotonic_ns();
        let code = Code { frame, timestamp_us: captured_at_ns / 1000 };
        paint_code(&mut canvas, Position::Top, &code);
        paint_code(&mut canvas, Position::Bottom, &code);
        CapturedFrame {
            geometry: self.picture.geometry(),
            origin: (0, 0),
            pixels: FramePixels::Bgrx { data: self.picture.data(), stride: self.picture.stride() },
            damage: &self.damage,
            started_at_ns,
            captured_at_ns,
            cursor: None,
        }
    }
}

impl CaptureSource for TestSource {
    fn geometry(&self) -> Geometry {
        self.picture.geometry()
    }

    fn capture(&mut self, deadline: Option<Instant>) -> Result<Option<CapturedFrame<'_>>, CaptureError> {
        if !std::mem::take(&mut self.refresh) {
            let wait = Duration::from_nanos(self.pacer.due_ns().saturating_sub(monotonic_ns()));
            let left = deadline.map(left_until);
            if let Some(left) = left.filter(|&left| left < wait) {
                thread::sleep(left);
                return Ok(None);
            }
            thread::sleep(wait);
        }
        self.pacer.on_frame(monotonic_ns());
        Ok(Some(self.paint()))
    }

    fn refresh(&mut self) {
        self.refresh = true;
    }

    fn set_max_fps(&mut self, fps: f32) {
        self.pacer.set_fps(fps);
    }

    fn monitors(&self) -> &[Monitor] {
        &self.monitors
    }

    fn select_monitor(&mut self, id: MonitorId) -> Result<(), CaptureError> {
        if id == Monitor::WHOLE_SCREEN || id == self.monitors[0].id {
            return Ok(());
        }
        let advice = format!("There is no monitor {id}; the test source has one, number 1.");
        Err(DeviceError::new(DEVICE, "select monitor", DeviceFault::InvalidArgument, Retry::Never, advice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_numbered_stamped_and_paced() {
        let mut source = TestSource::new(Geometry::new(640, 360), 100.0).unwrap();
        let started = Instant::now();
        let mut last_us = 0;
        for expected in 0..20 {
            let frame = source.capture(None).unwrap().unwrap();
            let picture = PictureRef::from(frame.as_bgrx().unwrap());
            let code = read_code(&picture, Position::Top).unwrap();
            assert_eq!(read_code(&picture, Position::Bottom), Some(code));
            assert_eq!(code.frame, expected);
            assert_eq!(code.timestamp_us, frame.captured_at_ns / 1000);
            assert!(code.timestamp_us > last_us);
            assert!(frame.started_at_ns <= frame.captured_at_ns);
            assert_eq!(frame.damage, [Rect::new(0, 0, 640, 360)]);
            last_us = code.timestamp_us;
        }
        assert!(
            started.elapsed() >= Duration::from_millis(180),
            "{:?} for 20 frames at 100 fps",
            started.elapsed()
        );
    }

    #[test]
    fn a_deadline_before_the_frame_gives_none() {
        let mut source = TestSource::new(Geometry::new(320, 96), 2.0).unwrap();
        assert!(source.capture(None).unwrap().is_some());
        let started = Instant::now();
        assert!(source.capture(Some(started + Duration::from_millis(20))).unwrap().is_none());
        assert!(started.elapsed() >= Duration::from_millis(20));
        source.refresh();
        let frame = source.capture(Some(Instant::now())).unwrap();
        assert!(frame.is_some(), "refresh does not wait");
    }

    #[test]
    fn impossible_sizes_and_monitors_are_refused() {
        for (width, height) in [(319, 96), (320, 95), (16_385, 96), (0, 0)] {
            let error = TestSource::new(Geometry::new(width, height), 60.0).unwrap_err();
            assert_eq!(error.fault(), DeviceFault::UnsupportedFormat);
        }
        let mut source = TestSource::new(GEOMETRY_MIN, 60.0).unwrap();
        assert!(source.select_monitor(1).is_ok());
        assert_eq!(source.select_monitor(2).unwrap_err().fault(), DeviceFault::InvalidArgument);
    }
}

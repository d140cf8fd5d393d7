//! Capture of an X screen: shared memory for the pixels, XDamage for what changed, XFixes for the pointer.
//!
//! Owns a connection, one shared segment of the monitor's size, and a damage object on the root window. An idle screen
//! costs nothing: the thread sleeps in poll(2) until the server says that something changed. A changed one is fetched
//! at once, up to the frame rate that was set, in one round trip: subtract the damage, ask which rectangles it was,
//! read the pixels, ask for the pointer. Only the rows between the first and the last changed one are copied; the rest
//! of the segment still holds the picture from before.
//!
//! While another program holds the server (`XGrabServer`: window managers do, for moments) a capture that has begun
//! waits for it and can overrun its deadline; so this belongs on the video thread, never on the network thread.
//!
//! Invariant: no change is missed. The server works through requests in order, so what changed before the subtraction
//! is in the fetched rectangles and pixels, and what changed after it comes as a new notice, told apart by its
//! sequence number.
#![forbid(unsafe_code)]

use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use x11rb::connection::{Connection as _, RequestConnection as _, SequenceNumber};
use x11rb::cookie::Cookie;
use x11rb::errors::{ConnectionError, ReplyError};
use x11rb::protocol::damage::{self, ConnectionExt as _, ReportLevel};
use x11rb::protocol::randr::{self, ConnectionExt as _, NotifyMask};
use x11rb::protocol::xfixes::{self, ConnectionExt as _};
use x11rb::protocol::xproto::{
    ChangeWindowAttributesAux, ConnectionExt as _, EventMask, ImageFormat, Rectangle,
};
use x11rb::protocol::{ErrorKind, Event, shm};
use x11rb::rust_connection::RustConnection;

use super::display::Display;
use super::layout::Layout;
use super::pointer::Pointer;
use super::shm::Segment;
use crate::capture::{CaptureError, CaptureSource, CapturedFrame, FramePixels, Monitor, MonitorId};
use crate::clock::{left_until, monotonic_ns, timespec};
use crate::cursor::CursorUpdate;
use crate::error::{DeviceError, DeviceFault, Retry};
use crate::pacer::FramePacer;
use crate::picture::{BYTES_PER_PIXEL, Geometry, Rect};

/// Rectangles told per frame; more are united into one that covers them. Encoders gain nothing from a longer list.
pub const DAMAGE_RECTS_MAX: usize = 64;

/// How to capture.
#[derive(Debug, Clone)]
pub struct X11CaptureConfig {
    /// The display, such as `:0`; `None` for the one in `DISPLAY`.
    pub display: Option<String>,
    /// The monitor to begin with; `None` for the primary one.
    pub monitor: Option<MonitorId>,
    /// Frames per second at most.
    pub max_fps: f32,
}

impl Default for X11CaptureConfig {
    fn default() -> Self {
        Self { display: None, monitor: None, max_fps: 60.0 }
    }
}

/// Captures a monitor of an X display.
#[derive(Debug)]
pub struct X11Capture {
    display: Display,
    layout: Layout,
    wanted: Option<MonitorId>,
    area: Rect,
    segment: Segment,
    damage: damage::Damage,
    region: xfixes::Region,
    /// Box around what changed since the last subtraction, on the screen.
    pending: Option<Rect>,
    /// The last subtraction: notices from before it are settled.
    settled: SequenceNumber,
    layout_changed: bool,
    refresh: bool,
    pointer: Pointer,
    pacer: FramePacer,
    rects: Vec<Rect>,
    cursor_changed: bool,
    started_at_ns: u64,
    captured_at_ns: u64,
}

impl X11Capture {
    /// Opens the display.
    ///
    /// # Errors
    /// When the display cannot be reached, lacks an extension (MIT-SHM, DAMAGE, XFIXES), has a pixel format that is not
    /// handled, does not share memory with this process, or has no such monitor.
    pub fn open(config: &X11CaptureConfig) -> Result<Self, CaptureError> {
        let display = Display::connect(config.display.as_deref())?;
        display.require_bgrx()?;
        display.require(shm::X11_EXTENSION_NAME, "capture through shared memory")?;
        display.require(damage::X11_EXTENSION_NAME, "notices of changes")?;
        display.require(xfixes::X11_EXTENSION_NAME, "the pointer's picture")?;
        let (damage, region) = watch_root(&display)?;
        let pointer = Pointer::watch(&display).map_err(|e| display.reply_error("watch the pointer", e))?;
        let layout = Layout::query(&display)?;
        if let Some(id) = config.monitor {
            require_monitor(&display, &layout, id)?;
        }
        let area = layout.choose(config.monitor);
        let segment = Segment::new(&display, picture_len(&display, area)?)?;
        Ok(Self {
            layout,
            wanted: config.monitor,
            area,
            segment,
            damage,
            region,
            pending: None,
            settled: 0,
            layout_changed: false,
            refresh: true,
            pointer,
            pacer: FramePacer::new(config.max_fps),
            rects: Vec::with_capacity(DAMAGE_RECTS_MAX),
            cursor_changed: false,
            started_at_ns: 0,
            captured_at_ns: 0,
            display,
        })
    }

    /// Waits for something new and fetches it; whether there was something by `deadline`.
    fn fetch_newest(&mut self, deadline: Option<Instant>) -> Result<bool, CaptureError> {
        loop {
            self.take_notices()?;
            if self.layout_changed {
                self.follow_layout()?;
            }
            let wanted = self.refresh || self.pending.is_some() || self.pointer.may_have_changed();
            let early = Duration::from_nanos(self.pacer.due_ns().saturating_sub(monotonic_ns()));
            if wanted && (self.refresh || early.is_zero()) {
                if self.fetch()? {
                    return Ok(true);
                }
                continue;
            }
            let left = deadline.map(left_until);
            if left == Some(Duration::ZERO) {
                return Ok(false);
            }
            if wanted {
                // Further notices change nothing before the frame is due, so they need not wake this thread.
                thread::sleep(left.map_or(early, |left| left.min(early)));
            } else {
                self.wait_for_notice(left)?;
            }
        }
    }

    /// Reads what the server sent, without waiting.
    fn take_notices(&mut self) -> Result<(), CaptureError> {
        loop {
            let next = self.display.conn().poll_for_event_with_sequence();
            let Some((event, sequence)) =
                next.map_err(|e| self.display.connection_error("wait for changes", e))?
            else {
                return Ok(());
            };
            match event {
                Event::DamageNotify(notice) if sequence >= self.settled => {
                    let changed = rect(&notice.area);
                    self.pending = Some(self.pending.map_or(changed, |pending| pending.union(&changed)));
                }
                Event::RandrScreenChangeNotify(_) | Event::RandrNotify(_) | Event::ConfigureNotify(_) => {
                    self.layout_changed = true;
                }
                other => self.pointer.on_event(&other),
            }
        }
    }

    fn wait_for_notice(&self, left: Option<Duration>) -> Result<(), CaptureError> {
        let conn = self.display.conn();
        conn.flush().map_err(|e| self.display.connection_error("wait for changes", e))?;
        let mut ready = [PollFd::new(conn.stream(), PollFlags::IN)];
        match poll(&mut ready, left.map(timespec).as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => {
                let advice = "poll(2) failed on the connection to the X server.";
                Err(DeviceError::new(
                    self.display.name(),
                    "wait for changes",
                    DeviceFault::System,
                    Retry::Later,
                    advice,
                )
                .caused_by(error))
            }
        }
    }

    /// One capture; whether it found anything that a reader has to know.
    fn fetch(&mut self) -> Result<bool, CaptureError> {
        self.started_at_ns = monotonic_ns();
        let whole = self.refresh;
        let damaged = whole || self.pending.is_some();
        let outcome = if damaged { self.fetch_picture(whole) } else { self.fetch_pointer() };
        match outcome {
            Ok(()) => {}
            // The screen shrank under the request; the notice of it is on its way or here.
            Err(ReplyError::X11Error(error)) if error.error_kind == ErrorKind::Match => {
                self.layout_changed = true;
                return Ok(false);
            }
            Err(error) => return Err(self.display.reply_error("capture", error)),
        }
        self.captured_at_ns = monotonic_ns();
        let found = !self.rects.is_empty() || self.cursor_changed;
        if found {
            self.pacer.on_frame(self.started_at_ns);
        }
        Ok(found)
    }

    fn fetch_pointer(&mut self) -> Result<(), ReplyError> {
        self.rects.clear();
        let query = self.pointer.ask(&self.display)?;
        self.cursor_changed = self.pointer.on_answer(query, self.area)?;
        Ok(())
    }

    fn fetch_picture(&mut self, whole: bool) -> Result<(), ReplyError> {
        let conn = self.display.conn();
        // All requests leave together, and the server works through them in this order.
        let settled = conn.damage_subtract(self.damage, x11rb::NONE, self.region)?.sequence_number();
        let region = conn.xfixes_fetch_region(self.region)?;
        let expected =
            if whole { Some(self.area) } else { self.pending.and_then(|p| p.intersection(&self.area)) };
        let pixels =
            expected.map(|rows| ask_rows(&self.display, &self.segment, self.area, rows)).transpose()?;
        let pointer = self.pointer.ask(&self.display)?;

        let region = region.reply()?;
        self.settled = settled;
        self.pending = None;
        if let Some(pixels) = pixels {
            pixels.reply()?;
        }
        self.cursor_changed = self.pointer.on_answer(pointer, self.area)?;

        // What changed between the last notice and the subtraction can lie above or below the rows asked for.
        let changed = rect(&region.extents).intersection(&self.area);
        if let Some(changed) = changed {
            let covered =
                expected.is_some_and(|rows| rows.y <= changed.y && changed.bottom() <= rows.bottom());
            if !covered {
                ask_rows(&self.display, &self.segment, self.area, changed)?.reply()?;
            }
        }
        if whole {
            self.refresh = false;
            self.rects.clear();
            self.rects.push(Rect::new(0, 0, self.area.width, self.area.height));
        } else {
            tell_rects(&region.rectangles, self.area, &mut self.rects);
        }
        Ok(())
    }

    /// The screen was resized or its monitors changed.
    fn follow_layout(&mut self) -> Result<(), CaptureError> {
        self.layout_changed = false;
        self.layout = Layout::query(&self.display)?;
        self.set_area(self.layout.choose(self.wanted))
    }

    fn set_area(&mut self, area: Rect) -> Result<(), CaptureError> {
        let len = picture_len(&self.display, area)?;
        if len > self.segment.len() {
            let larger = Segment::new(&self.display, len)?;
            std::mem::replace(&mut self.segment, larger).release(&self.display)?;
        }
        self.area = area;
        self.refresh = true;
        Ok(())
    }

    fn picture(&self) -> FramePixels<'_> {
        let stride = self.area.width as usize * BYTES_PER_PIXEL;
        FramePixels::Bgrx { data: &self.segment.bytes()[..stride * self.area.height as usize], stride }
    }
}

impl CaptureSource for X11Capture {
    fn geometry(&self) -> Geometry {
        Geometry::new(self.area.width, self.area.height)
    }

    fn capture(&mut self, deadline: Option<Instant>) -> Result<Option<CapturedFrame<'_>>, CaptureError> {
        if !self.fetch_newest(deadline)? {
            return Ok(None);
        }
        Ok(Some(CapturedFrame {
            geometry: self.geometry(),
            origin: (self.area.x, self.area.y),
            pixels: self.picture(),
            damage: &self.rects,
            started_at_ns: self.started_at_ns,
            captured_at_ns: self.captured_at_ns,
            cursor: self.cursor_changed.then(|| self.pointer.update()),
        }))
    }

    fn refresh(&mut self) {
        self.refresh = true;
    }

    fn cursor(&self) -> Option<CursorUpdate<'_>> {
        Some(self.pointer.update())
    }

    fn set_max_fps(&mut self, fps: f32) {
        self.pacer.set_fps(fps);
    }

    fn monitors(&self) -> &[Monitor] {
        &self.layout.monitors
    }

    fn select_monitor(&mut self, id: MonitorId) -> Result<(), CaptureError> {
        require_monitor(&self.display, &self.layout, id)?;
        self.wanted = Some(id);
        self.set_area(self.layout.choose(self.wanted))
    }
}

/// Asks for notices of every change of the picture, its size and the monitors.
fn watch_root(display: &Display) -> Result<(damage::Damage, xfixes::Region), CaptureError> {
    let (conn, root) = (display.conn(), display.root());
    let ids = || Ok((conn.generate_id()?, conn.generate_id()?));
    let (damage, region) = ids().map_err(|e| display.id_error("watch the screen", e))?;
    let watch = || -> Result<(), ReplyError> {
        // Each extension is unusable before the client has said which version of it it speaks.
        conn.xfixes_query_version(5, 0)?.reply()?;
        conn.damage_query_version(1, 1)?.reply()?;
        conn.xfixes_create_region(region, &[])?.check()?;
        conn.damage_create(damage, root, ReportLevel::BOUNDING_BOX)?.check()?;
        let notices = ChangeWindowAttributesAux::new().event_mask(EventMask::STRUCTURE_NOTIFY);
        conn.change_window_attributes(root, &notices)?.check()?;
        if conn.extension_information(randr::X11_EXTENSION_NAME)?.is_some() {
            let mask = NotifyMask::SCREEN_CHANGE | NotifyMask::CRTC_CHANGE | NotifyMask::OUTPUT_CHANGE;
            conn.randr_select_input(root, mask)?.check()?;
        }
        Ok(())
    };
    watch().map_err(|e| display.reply_error("watch the screen", e))?;
    Ok((damage, region))
}

fn require_monitor(display: &Display, layout: &Layout, id: MonitorId) -> Result<(), CaptureError> {
    if id == Monitor::WHOLE_SCREEN || layout.monitors.iter().any(|monitor| monitor.id == id) {
        return Ok(());
    }
    let there: Vec<_> = layout.monitors.iter().map(|m| format!("{} ({})", m.id, m.name)).collect();
    let advice = format!("There is no monitor {id}. There are: {}.", there.join(", "));
    let fault = DeviceFault::InvalidArgument;
    Err(DeviceError::new(display.name(), "select monitor", fault, Retry::Never, advice))
}

fn picture_len(display: &Display, area: Rect) -> Result<usize, CaptureError> {
    let len = Geometry::new(area.width, area.height).bgrx_len().filter(|&len| u32::try_from(len).is_ok());
    len.ok_or_else(|| {
        let advice = format!("A picture of {}x{} is too large to capture.", area.width, area.height);
        DeviceError::new(display.name(), "capture", DeviceFault::UnsupportedFormat, Retry::Never, advice)
    })
}

/// Has the server write the rows that `changed` touches, over the whole width of `area`, where they belong.
fn ask_rows<'c>(
    display: &'c Display,
    segment: &Segment,
    area: Rect,
    changed: Rect,
) -> Result<Cookie<'c, RustConnection, shm::GetImageReply>, ConnectionError> {
    let offset = (changed.y - area.y) as usize * area.width as usize * BYTES_PER_PIXEL;
    // X coordinates have 16 bits and the area lies on the screen, so nothing is cut off here.
    shm::get_image(
        display.conn(),
        display.root(),
        area.x as i16,
        changed.y as i16,
        area.width as u16,
        changed.height as u16,
        u32::MAX,
        ImageFormat::Z_PIXMAP.into(),
        segment.id(),
        offset as u32,
    )
}

/// Rectangles of the screen as rectangles of the picture, few enough.
fn tell_rects(changed: &[Rectangle], area: Rect, rects: &mut Vec<Rect>) {
    rects.clear();
    let inside = changed.iter().filter_map(|changed| rect(changed).intersection(&area));
    let in_picture = inside.map(|r| Rect::new(r.x - area.x, r.y - area.y, r.width, r.height));
    if changed.len() <= DAMAGE_RECTS_MAX {
        rects.extend(in_picture);
    } else {
        rects.extend(in_picture.reduce(|a, b| a.union(&b)));
    }
}

fn rect(r: &Rectangle) -> Rect {
    Rect::new(i32::from(r.x), i32::from(r.y), u32::from(r.width), u32::from(r.height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rectangles_are_cut_moved_and_bounded() {
        let area = Rect::new(100, 50, 200, 100);
        let at = |x, y| Rectangle { x, y, width: 20, height: 10 };
        let mut rects = Vec::new();
        tell_rects(&[at(90, 45), at(0, 0), at(250, 120)], area, &mut rects);
        assert_eq!(rects, [Rect::new(0, 0, 10, 5), Rect::new(150, 70, 20, 10)]);
        let many: Vec<_> = (0..65).map(|n| at(100 + n, 60)).collect();
        tell_rects(&many, area, &mut rects);
        assert_eq!(rects, [Rect::new(0, 10, 84, 10)]);
        tell_rects(&[], area, &mut rects);
        assert!(rects.is_empty());
    }
}

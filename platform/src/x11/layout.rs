//! The monitors of an X screen: where they are, how fast they are, which one is captured.
//!
//! Owns the list as the server last told it. Without RandR 1.5 the whole screen is the only monitor.
#![forbid(unsafe_code)]

use x11rb::connection::RequestConnection as _;
use x11rb::errors::ReplyError;
use x11rb::protocol::randr::{self, ConnectionExt as _};
use x11rb::protocol::xproto::ConnectionExt as _;

use super::display::Display;
use crate::capture::{Monitor, MonitorId};
use crate::error::DeviceError;
use crate::picture::{Geometry, Rect};

/// Monitors and screen of a display.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    pub(super) screen: Geometry,
    pub(super) monitors: Vec<Monitor>,
}

impl Layout {
    /// Asks the server. Some round trips: for the start and for changes, not for frames.
    pub(super) fn query(display: &Display) -> Result<Self, DeviceError> {
        const OPERATION: &str = "query monitors";
        Self::ask(display).map_err(|error| display.reply_error(OPERATION, error))
    }

    /// The monitor to capture when `wanted` is: that one, or if it is gone, the primary one, or the first.
    pub(super) fn choose(&self, wanted: Option<MonitorId>) -> Rect {
        if wanted == Some(Monitor::WHOLE_SCREEN) {
            return self.screen.as_rect();
        }
        let by_id = self.monitors.iter().find(|monitor| Some(monitor.id) == wanted);
        let primary = || self.monitors.iter().find(|monitor| monitor.primary).or(self.monitors.first());
        // A monitor may be told to lie partly outside of the screen while the server changes modes.
        by_id
            .or_else(primary)
            .and_then(|monitor| monitor.rect().intersection(&self.screen.as_rect()))
            .unwrap_or(self.screen.as_rect())
    }

    fn ask(display: &Display) -> Result<Self, ReplyError> {
        let (conn, root) = (display.conn(), display.root());
        let geometry = conn.get_geometry(root)?.reply()?;
        let screen = Geometry::new(u32::from(geometry.width), u32::from(geometry.height));
        let mut monitors = Vec::new();
        if has_monitors(display)? {
            let rates = Rates::ask(display)?;
            let reply = conn.randr_get_monitors(root, true)?.reply()?;
            for monitor in reply.monitors.iter().filter(|monitor| monitor.width > 0 && monitor.height > 0) {
                let name = conn.get_atom_name(monitor.name)?.reply()?.name;
                monitors.push(Monitor {
                    id: monitor.name,
                    name: String::from_utf8_lossy(&name).into_owned(),
                    x: i32::from(monitor.x),
                    y: i32::from(monitor.y),
                    width: u32::from(monitor.width),
                    height: u32::from(monitor.height),
                    refresh_hz: monitor.outputs.iter().find_map(|&output| rates.of(output)).unwrap_or(0.0),
                    primary: monitor.primary,
                });
            }
        }
        if monitors.is_empty() {
            monitors.push(Monitor {
                id: root,
                name: "screen".into(),
                x: 0,
                y: 0,
                width: screen.width,
                height: screen.height,
                refresh_hz: 0.0,
                primary: true,
            });
        }
        Ok(Self { screen, monitors })
    }
}

/// Whether the server tells monitors: RandR 1.5.
fn has_monitors(display: &Display) -> Result<bool, ReplyError> {
    if display.conn().extension_information(randr::X11_EXTENSION_NAME)?.is_none() {
        return Ok(false);
    }
    let version = display.conn().randr_query_version(1, 5)?.reply()?;
    Ok((version.major_version, version.minor_version) >= (1, 5))
}

/// Refresh rates of the outputs that show something.
struct Rates(Vec<(randr::Output, f32)>);

impl Rates {
    fn ask(display: &Display) -> Result<Self, ReplyError> {
        let conn = display.conn();
        let resources = conn.randr_get_screen_resources_current(display.root())?.reply()?;
        let mut rates = Vec::new();
        for &id in &resources.crtcs {
            let crtc = conn.randr_get_crtc_info(id, resources.config_timestamp)?.reply()?;
            let Some(mode) = resources.modes.iter().find(|mode| mode.id == crtc.mode) else { continue };
            rates.extend(crtc.outputs.iter().map(|&output| (output, refresh_hz(mode))));
        }
        Ok(Self(rates))
    }

    fn of(&self, output: randr::Output) -> Option<f32> {
        self.0.iter().find(|(of, _)| *of == output).map(|(_, rate)| *rate)
    }
}

fn refresh_hz(mode: &randr::ModeInfo) -> f32 {
    let mut lines = f32::from(mode.vtotal);
    if mode.mode_flags.contains(randr::ModeFlag::DOUBLE_SCAN) {
        lines *= 2.0;
    }
    if mode.mode_flags.contains(randr::ModeFlag::INTERLACE) {
        lines /= 2.0;
    }
    let pixels = f32::from(mode.htotal) * lines;
    if pixels > 0.0 { mode.dot_clock as f32 / pixels } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn monitor(id: u32, x: i32, primary: bool) -> Monitor {
        Monitor { id, name: String::new(), x, y: 0, width: 100, height: 80, refresh_hz: 60.0, primary }
    }

    #[test]
    fn the_wanted_monitor_or_the_primary_is_chosen() {
        let monitors = vec![monitor(7, 0, false), monitor(8, 100, true)];
        let layout = Layout { screen: Geometry::new(200, 80), monitors };
        assert_eq!(layout.choose(Some(7)), Rect::new(0, 0, 100, 80));
        assert_eq!(layout.choose(None), Rect::new(100, 0, 100, 80));
        assert_eq!(layout.choose(Some(99)), Rect::new(100, 0, 100, 80), "gone");
        assert_eq!(layout.choose(Some(Monitor::WHOLE_SCREEN)), Rect::new(0, 0, 200, 80));
    }

    #[test]
    fn a_monitor_outside_of_the_screen_is_cut() {
        let layout = Layout { screen: Geometry::new(150, 60), monitors: vec![monitor(7, 100, true)] };
        assert_eq!(layout.choose(None), Rect::new(100, 0, 50, 60));
        let gone = Layout { screen: Geometry::new(50, 60), ..layout };
        assert_eq!(gone.choose(None), Rect::new(0, 0, 50, 60));
    }

    #[test]
    fn refresh_rate_follows_the_mode() {
        let mut mode =
            randr::ModeInfo { dot_clock: 148_500_000, htotal: 2200, vtotal: 1125, ..Default::default() };
        assert_eq!(refresh_hz(&mode), 60.0);
        mode.mode_flags = randr::ModeFlag::INTERLACE;
        assert_eq!(refresh_hz(&mode), 120.0);
        mode.vtotal = 0;
        assert_eq!(refresh_hz(&mode), 0.0);
    }
}

//! An X server without a screen, for tests, demonstrations and hosts without a display.
//!
//! Owns the server's process; it ends with the value. The server picks a free display number by itself, so any
//! number of them can be started at once.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process};

use x11rb::errors::ReplyError;
use x11rb::protocol::randr::{self, ConnectionExt as _, ModeInfo, SetConfig};
use x11rb::protocol::xproto::ConnectionExt as _;

use super::display::Display;
use crate::error::{DeviceError, DeviceFault, Retry};

const PROGRAM: &str = "Xvfb";
/// How long the server may take to end before it is killed.
const END_WAIT: Duration = Duration::from_secs(2);

/// A running Xvfb.
#[derive(Debug)]
pub struct Xvfb {
    server: Child,
    display: String,
}

impl Xvfb {
    /// Starts a server with one screen of this size and depth 24, and waits until it accepts clients. Clients of the
    /// same user on this machine can connect; nothing listens on the network.
    ///
    /// # Errors
    /// When the program is missing (package `xvfb`) or does not start.
    pub fn start(width: u32, height: u32) -> Result<Self, DeviceError> {
        Self::start_with(width, height, &[])
    }

    /// The same with further arguments, such as `["-extension", "XTEST"]`; they win over the usual ones.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(width: u32, height: u32, arguments: &[&str]) -> Result<Self, DeviceError> {
        // Complaints go to a file in memory: a pipe that nobody reads could block the server.
        let mut complaints = File::from(
            memfd_create("xvfb-stderr", MemfdFlags::CLOEXEC).map_err(|e| start_error(&e.to_string()))?,
        );
        let stderr = complaints.try_clone().map_err(|e| start_error(&e.to_string()))?;
        let mut server = Command::new(PROGRAM)
            // The server writes the display number it took to this descriptor once it accepts clients.
            .args(["-displayfd", "1", "-screen", "0", &format!("{width}x{height}x24")])
            // Without -noreset the server forgets everything when its last client leaves.
            .args(["-nolisten", "tcp", "-noreset"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(|e| start_error(&e.to_string()))?;
        let mut number = String::new();
        // An error leaves the line empty as well: then the server is told to end, and why it did not start is read.
        let _ = server.stdout.as_mut().map(|stdout| BufReader::new(stdout).read_line(&mut number));
        let started = Self { server, display: format!(":{}", number.trim()) };
        if number.trim().parse::<u32>().is_ok() {
            return Ok(started);
        }
        drop(started);
        let mut complaint = String::new();
        let _ = complaints.rewind().and_then(|()| complaints.read_to_string(&mut complaint));
        Err(start_error(complaint.trim()))
    }

    /// Its name, for `DISPLAY` and for `connect`.
    pub fn display(&self) -> &str {
        &self.display
    }

    /// Gives the screen another size, as a user's display settings do: by a mode of the screen's one output, which
    /// is made if there is none of that size.
    ///
    /// # Errors
    /// When the server has gone or refuses the size (it cannot grow beyond the size it was started with).
    pub fn resize(&self, width: u16, height: u16) -> Result<(), DeviceError> {
        const OPERATION: &str = "resize";
        let display = Display::connect(Some(&self.display))?;
        // Nobody sees the states in between, and nobody's questions come in between. The connection's end frees the
        // server again.
        display.conn().grab_server().map_err(|e| display.connection_error(OPERATION, e))?;
        if set_mode(&display, width, height).map_err(|e| display.reply_error(OPERATION, e))? {
            return Ok(());
        }
        let advice = format!("The server does not show {width}x{height}: start it with a larger screen.");
        let fault = DeviceFault::InvalidArgument;
        Err(DeviceError::new(display.name(), OPERATION, fault, Retry::Never, advice))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.server.id()
    }
}

impl Drop for Xvfb {
    fn drop(&mut self) {
        // A polite end removes the server's socket and lock file.
        if let Some(pid) = i32::try_from(self.server.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let patience = Instant::now() + END_WAIT;
        while matches!(self.server.try_wait(), Ok(None)) {
            if Instant::now() >= patience {
                let _ = self.server.kill();
                let _ = self.server.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Whether the server took the mode.
fn set_mode(display: &Display, width: u16, height: u16) -> Result<bool, ReplyError> {
    let (conn, root) = (display.conn(), display.root());
    let resources = conn.randr_get_screen_resources(root)?.reply()?;
    let (Some(&crtc), Some(&output)) = (resources.crtcs.first(), resources.outputs.first()) else {
        return Ok(false);
    };
    let known = resources.modes.iter().find(|mode| (mode.width, mode.height) == (width, height));
    let mode = match known {
        Some(mode) => mode.id,
        None => {
            let name = format!("{width}x{height}");
            let info = ModeInfo {
                width,
                height,
                dot_clock: u32::from(width) * u32::from(height) * 60,
                htotal: width,
                vtotal: height,
                name_len: name.len() as u16,
                ..Default::default()
            };
            let mode = conn.randr_create_mode(root, info, name.as_bytes())?.reply()?.mode;
            conn.randr_add_output_mode(output, mode)?.check()?;
            mode
        }
    };
    let now = resources.config_timestamp;
    let set = |mode, outputs: &[randr::Output]| -> Result<bool, ReplyError> {
        let answer = conn.randr_set_crtc_config(crtc, 0, now, 0, 0, mode, 1u16.into(), outputs)?.reply()?;
        Ok(answer.status == SetConfig::SUCCESS)
    };
    // The screen may not shrink below what is shown, so nothing is while it changes. Its size in millimetres is
    // made up.
    let off = set(0, &[])?;
    conn.randr_set_screen_size(root, width, height, 300, 200)?.check()?;
    Ok(off && set(mode, &[output])?)
}

fn start_error(complaint: &str) -> DeviceError {
    let advice = format!(
        "It could not be started: {complaint}. Install the package that has it (Debian and Ubuntu: apt-get install \
         xvfb)."
    );
    DeviceError::new(PROGRAM, "start", DeviceFault::System, Retry::Never, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_servers_run_side_by_side_and_end_with_their_values() {
        let (one, other) = (Xvfb::start(320, 200).unwrap(), Xvfb::start(640, 480).unwrap());
        assert_ne!(one.display(), other.display());
        let screen = Display::connect(Some(other.display())).unwrap();
        assert_eq!((screen.screen().width_in_pixels, screen.screen().height_in_pixels), (640, 480));
        assert!(screen.require_bgrx().is_ok());
        let name = one.display().to_owned();
        drop(one);
        assert!(Display::connect(Some(&name)).is_err());
    }

    #[test]
    fn a_server_that_does_not_start_tells_why() {
        let error = Xvfb::start(0, 0).unwrap_err();
        assert!(error.to_string().starts_with("Xvfb: start: It could not be started: "), "{error}");
    }
}

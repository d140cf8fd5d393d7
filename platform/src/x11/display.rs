//! A connection to an X server, and what its failures mean to the person who has to fix them.
//!
//! Owns the connection and the server's name. It knows extensions and pixel formats, no windows and no pictures.
#![forbid(unsafe_code)]

use std::io;

use x11rb::connection::{Connection as _, RequestConnection as _};
use x11rb::errors::{ConnectError, ConnectionError, ReplyError, ReplyOrIdError};
use x11rb::protocol::xproto::{ImageOrder, Screen, Window};
use x11rb::rust_connection::RustConnection;

use crate::error::{DeviceError, DeviceFault, Retry};

/// Highest display number: display N is TCP port 6000 + N.
const DISPLAY_NUMBER_MAX: u64 = 65_535 - 6000;

/// A connected X display.
#[derive(Debug)]
pub struct Display {
    conn: RustConnection,
    screen: usize,
    name: String,
}

impl Display {
    /// Connects to `name`, or to what `DISPLAY` says.
    ///
    /// # Errors
    /// [`NoDisplay`](DeviceFault::NoDisplay) or [`NotAuthorised`](DeviceFault::NotAuthorised), with what to do.
    pub fn connect(name: Option<&str>) -> Result<Self, DeviceError> {
        let named = name.map(str::to_owned).or_else(|| std::env::var("DISPLAY").ok());
        let Some(named) = named.filter(|named| !named.is_empty()) else {
            let advice = "DISPLAY is not set. Run this inside a graphical session, name a display such as :0, \
                          or start one without a screen: Xvfb :1 -screen 0 1920x1080x24 (package xvfb).";
            return Err(DeviceError::new(
                "X display",
                "connect",
                DeviceFault::NoDisplay,
                Retry::Never,
                advice,
            ));
        };
        // x11rb adds the number to the first TCP port and would overflow.
        if number_of(&named).is_some_and(|number| number > DISPLAY_NUMBER_MAX) {
            return Err(connect_error(&named, ConnectError::InvalidScreen));
        }
        match RustConnection::connect(Some(&named)) {
            Ok((conn, screen)) => Ok(Self { conn, screen, name: format!("X display {named}") }),
            Err(error) => Err(connect_error(&named, error)),
        }
    }

    /// The connection.
    pub fn conn(&self) -> &RustConnection {
        &self.conn
    }

    /// Its name for people, such as `X display :0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The screen this connection is for.
    pub fn screen(&self) -> &Screen {
        // x11rb refuses to connect to a screen that the server does not have.
        &self.conn.setup().roots[self.screen]
    }

    /// The window that covers the screen.
    pub fn root(&self) -> Window {
        self.screen().root
    }

    /// Checks that the server has this extension.
    ///
    /// # Errors
    /// [`MissingExtension`](DeviceFault::MissingExtension) by the name that `xdpyinfo` shows.
    pub fn require(&self, extension: &'static str, needed_for: &str) -> Result<(), DeviceError> {
        let found = self
            .conn
            .extension_information(extension)
            .map_err(|e| self.connection_error("query extension", e))?;
        if found.is_some() {
            return Ok(());
        }
        let advice = format!(
            "The server has no {extension} extension, which is needed for {needed_for}. Start the X server \
             without options that turn it off (-extension {extension}), or use another one: Xorg and Xvfb have it."
        );
        let fault = DeviceFault::MissingExtension(extension);
        Err(DeviceError::new(&self.name, "query extension", fault, Retry::Never, advice))
    }

    /// Checks that pictures of this screen are BGRX: 32 bits per pixel, blue in the lowest byte.
    ///
    /// # Errors
    /// [`UnsupportedFormat`](DeviceFault::UnsupportedFormat).
    pub fn require_bgrx(&self) -> Result<(), DeviceError> {
        let (setup, screen) = (self.conn.setup(), self.screen());
        let depth = screen.root_depth;
        let bits = setup.pixmap_formats.iter().find(|f| f.depth == depth).map_or(0, |f| f.bits_per_pixel);
        let visual = screen
            .allowed_depths
            .iter()
            .flat_map(|allowed| &allowed.visuals)
            .find(|visual| visual.visual_id == screen.root_visual);
        let masks = visual.map_or([0; 3], |v| [v.red_mask, v.green_mask, v.blue_mask]);
        let is_bgrx = bits == 32
            && setup.image_byte_order == ImageOrder::LSB_FIRST
            && masks == [0x00ff_0000, 0x0000_ff00, 0x0000_00ff];
        if is_bgrx {
            return Ok(());
        }
        let advice = format!(
            "The screen has depth {depth} with {bits} bits per pixel; only depth 24 with 32 bits, 8 per colour, is \
             handled. Start the X server with depth 24 (Xvfb: -screen 0 1920x1080x24)."
        );
        Err(DeviceError::new(
            &self.name,
            "check pixel format",
            DeviceFault::UnsupportedFormat,
            Retry::Never,
            advice,
        ))
    }

    /// A failed connection as a device error.
    pub(crate) fn connection_error(&self, operation: &'static str, error: ConnectionError) -> DeviceError {
        let advice = "The connection to the X server broke: it was stopped or closed this client.";
        DeviceError::new(&self.name, operation, DeviceFault::Lost, Retry::Reopen, advice).caused_by(error)
    }

    /// A failed request as a device error.
    pub(crate) fn reply_error(&self, operation: &'static str, error: ReplyError) -> DeviceError {
        match error {
            ReplyError::ConnectionError(error) => self.connection_error(operation, error),
            ReplyError::X11Error(error) => {
                let advice = format!("The X server refused it: {:?}.", error.error_kind);
                DeviceError::new(&self.name, operation, DeviceFault::System, Retry::Later, advice)
            }
        }
    }

    /// A failed request for an id, or with one, as a device error.
    pub(crate) fn id_error(&self, operation: &'static str, error: ReplyOrIdError) -> DeviceError {
        match error {
            ReplyOrIdError::ConnectionError(error) => self.connection_error(operation, error),
            ReplyOrIdError::X11Error(error) => self.reply_error(operation, ReplyError::X11Error(error)),
            ReplyOrIdError::IdsExhausted => {
                let advice = "The X server has no resource ids left for this connection.";
                DeviceError::new(&self.name, operation, DeviceFault::System, Retry::Reopen, advice)
            }
        }
    }
}

/// The number in a display's name: `host:NUMBER.screen`.
fn number_of(named: &str) -> Option<u64> {
    let (_, number) = named.rsplit_once(':')?;
    number.split('.').next()?.parse().ok()
}

fn connect_error(named: &str, error: ConnectError) -> DeviceError {
    let (fault, retry, advice) = match &error {
        ConnectError::SetupAuthenticate(_) | ConnectError::SetupFailed(_) => (
            DeviceFault::NotAuthorised,
            Retry::Never,
            "The X server refuses this user. Set XAUTHORITY to the cookie file of the session that owns the display, \
             or allow this user there: xhost +si:localuser:USER."
                .to_owned(),
        ),
        ConnectError::DisplayParsingError(_) | ConnectError::InvalidScreen => (
            DeviceFault::NoDisplay,
            Retry::Never,
            format!("\"{named}\" names no display. A display looks like :0 or :0.0, a remote one like host:0."),
        ),
        ConnectError::IoError(io) => match io.kind() {
            io::ErrorKind::PermissionDenied => (
                DeviceFault::NotAuthorised,
                Retry::Never,
                "This user may not open the X server's socket in /tmp/.X11-unix.".to_owned(),
            ),
            _ => (
                DeviceFault::NoDisplay,
                Retry::Later,
                format!(
                    "No X server answers at {named}. Check DISPLAY, or start a server: \
                     Xvfb {named} -screen 0 1920x1080x24 (package xvfb)."
                ),
            ),
        },
        _ => (
            DeviceFault::NoDisplay,
            Retry::Later,
            "The X server answered something that could not be understood, or went away while connecting.".to_owned(),
        ),
    };
    DeviceError::new(format!("X display {named}"), "connect", fault, retry, advice).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_display_that_is_not_there_says_what_to_do() {
        let error = Display::connect(Some(":59535")).unwrap_err();
        assert_eq!((error.fault(), error.retry()), (DeviceFault::NoDisplay, Retry::Later));
        let text = error.to_string();
        assert!(text.starts_with("X display :59535: connect: No X server answers at :59535."), "{text}");
        assert!(text.contains("Xvfb :59535"), "{text}");
    }

    #[test]
    fn a_name_that_is_none_is_told_so() {
        for name in ["nonsense", ":x", ":0.77x", ":59536", ":60000.0", "host:65535"] {
            let error = Display::connect(Some(name)).unwrap_err();
            assert_eq!((error.fault(), error.retry()), (DeviceFault::NoDisplay, Retry::Never), "{error}");
        }
        assert!(Display::connect(Some("")).unwrap_err().to_string().contains("DISPLAY is not set"));
    }
}

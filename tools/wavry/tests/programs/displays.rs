//! Streams of real X displays: several monitors, and a display whose size changes under the stream.

use std::time::{Duration, Instant};

use wavry_platform::x11::display::Display;
use wavry_platform::x11::{CodeWindow, X11Injector, Xvfb};
use wavry_platform::{Geometry, InputEvent, InputInjector};
use x11rb::protocol::randr::{ConnectionExt as _, MonitorInfo};
use x11rb::protocol::xproto::ConnectionExt as _;

use crate::support::{Host, PATIENCE, Place, Running, assert_succeeds};

/// Says that `area` of the display is a monitor, the primary one if asked.
fn set_monitor(display: &Display, name: &str, (x, width): (i16, u16), height: u16, primary: bool) {
    let conn = display.conn();
    let name = conn.intern_atom(false, name.as_bytes()).unwrap().reply().unwrap().atom;
    let info = MonitorInfo { name, x, y: 0, width, height, primary, ..Default::default() };
    conn.randr_set_monitor(display.root(), info).unwrap().check().unwrap();
}

fn pointer(display: &Display) -> (i16, i16) {
    let reply = display.conn().query_pointer(display.root()).unwrap().reply().unwrap();
    (reply.root_x, reply.root_y)
}

/// Moves the viewer's pointer until the host's is where it should be.
fn point(viewer: &mut X11Injector, at: (f32, f32), host: &Display, expected: (i16, i16)) {
    let end = Instant::now() + PATIENCE;
    let mut seen = (0, 0);
    while Instant::now() < end {
        // A motion to where the pointer is already is none, so it goes there from elsewhere.
        viewer.inject(&InputEvent::MouseMoveAbs { x: 0.9, y: 0.9 }).unwrap();
        viewer.inject(&InputEvent::MouseMoveAbs { x: at.0, y: at.1 }).unwrap();
        viewer.flush().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        seen = pointer(host);
        if seen == expected {
            return;
        }
    }
    panic!("the host's pointer is at {seen:?}, not at {expected:?}");
}

/// The client's pointer lands on the captured monitor, and follows it when another one becomes it.
#[test]
fn the_pointer_keeps_to_the_captured_monitor() {
    let place = Place::new("monitors");
    let (server, viewer) = (Xvfb::start(2560, 720).unwrap(), Xvfb::start(1280, 720).unwrap());
    let screen = Display::connect(Some(server.display())).unwrap();
    set_monitor(&screen, "left", (0, 1280), 720, false);
    set_monitor(&screen, "right", (1280, 1280), 720, true);
    let host = Host::start_with(&place, &["--source", &format!("x11:{}", server.display())]);
    assert_succeeds(&host.pair(&place, &host.pin));
    let mut command = host.windowed_client(&place, "60");
    command.arg("--fullscreen").env("DISPLAY", viewer.display());
    let mut client = Running::start(command);
    client.wait_for("connected to ");

    let mut user = X11Injector::open(Some(viewer.display())).unwrap();
    let at = (160.5 / 1280.0, 100.5 / 720.0);
    point(&mut user, at, &screen, (1280 + 160, 100));
    set_monitor(&screen, "main", (0, 1280), 720, true);
    point(&mut user, at, &screen, (160, 100));
    client.signal("INT");
    assert_eq!(client.exit_code(), Some(0));
}

/// The host's display changes its size twice; the stream goes on in the new size and every shown frame is right.
#[test]
fn a_display_that_changes_its_size_is_followed() {
    let place = Place::new("resize");
    let server = Xvfb::start(1280, 720).unwrap();
    let host = Host::start_with(&place, &["--source", &format!("x11:{}", server.display())]);
    assert_succeeds(&host.pair(&place, &host.pin));
    let picture = place.join("last.png");
    let mut command = host.windowed_client(&place, "60");
    command.args(["--headless", "--screenshot"]).arg(&picture);
    let mut client = Running::start(command);
    client.wait_for("connected to ");
    let mut code = 0;
    let mut paint = |size: Geometry| {
        // Its width is the display's, as strips are read.
        let mut window = CodeWindow::open(Some(server.display()), size).unwrap();
        for _ in 0..20 {
            code += 1;
            window.paint(code).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    paint(Geometry::new(1280, 720));
    for (width, height) in [(800, 600), (1024, 700)] {
        server.resize(width, height).unwrap();
        paint(Geometry::new(width.into(), height.into()));
    }
    client.signal("INT");
    assert_eq!(client.exit_code(), Some(0));
    let last = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(picture).unwrap()))
        .read_info()
        .unwrap();
    assert_eq!((last.info().width, last.info().height), (1024, 700));
}

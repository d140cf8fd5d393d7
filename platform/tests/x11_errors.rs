//! What goes wrong with a display is told with what to do about it. Each case is a real server that lacks something.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use wavry_platform::x11::{X11Capture, X11CaptureConfig, X11Injector, Xvfb};
use wavry_platform::{CaptureSource as _, DeviceError, DeviceFault, Retry, screenshot};

fn capture_error(server: &Xvfb) -> DeviceError {
    let config = X11CaptureConfig { display: Some(server.display().into()), ..X11CaptureConfig::default() };
    X11Capture::open(&config).unwrap_err()
}

fn assert_missing(error: &DeviceError, server: &Xvfb, extension: &'static str) {
    assert_eq!((error.fault(), error.retry()), (DeviceFault::MissingExtension(extension), Retry::Never));
    let text = error.to_string();
    assert!(text.starts_with(&format!("X display {}: query extension: ", server.display())), "{text}");
    assert!(text.contains(&format!("no {extension} extension")), "{text}");
}

#[test]
fn a_missing_extension_is_named() {
    for extension in ["MIT-SHM", "DAMAGE", "XFIXES"] {
        let server = Xvfb::start_with(320, 200, &["-extension", extension]).unwrap();
        assert_missing(&capture_error(&server), &server, extension);
    }
    let server = Xvfb::start_with(320, 200, &["-extension", "XTEST"]).unwrap();
    assert_missing(&X11Injector::open(Some(server.display())).unwrap_err(), &server, "XTEST");
}

#[test]
fn capture_works_without_the_extensions_it_can_miss() {
    for extension in ["RANDR", "XInputExtension"] {
        let server = Xvfb::start_with(320, 200, &["-extension", extension]).unwrap();
        let config =
            X11CaptureConfig { display: Some(server.display().into()), ..X11CaptureConfig::default() };
        let mut capture =
            X11Capture::open(&config).unwrap_or_else(|error| panic!("without {extension}: {error}"));
        let frame = capture.capture(None).unwrap().unwrap();
        assert_eq!((frame.geometry.width, frame.geometry.height), (320, 200));
        assert_eq!(capture.monitors().len(), 1);
    }
}

#[test]
fn a_pixel_format_that_is_not_handled_is_told() {
    let server = Xvfb::start_with(320, 200, &["-screen", "0", "320x200x16"]).unwrap();
    for error in [capture_error(&server), screenshot::capture_display(Some(server.display())).unwrap_err()] {
        assert_eq!((error.fault(), error.retry()), (DeviceFault::UnsupportedFormat, Retry::Never));
        assert!(error.to_string().contains("depth 16"), "{error}");
    }
}

#[test]
fn a_display_of_someone_else_is_told() {
    // With a cookie file the server trusts nobody who does not show a cookie from it.
    let path = std::env::temp_dir().join(format!("wavry-xauth-{}", std::process::id()));
    // Xauthority: family (local), then address, number, name and data, each with its length in front.
    let mut record = 0x0100u16.to_be_bytes().to_vec();
    for bytes in [&b"nohost"[..], b"4000000000", b"MIT-MAGIC-COOKIE-1", &[7; 16]] {
        record.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        record.extend_from_slice(bytes);
    }
    std::fs::write(&path, record).unwrap();
    let server = Xvfb::start_with(320, 200, &["-auth", path.to_str().unwrap()]).unwrap();
    let error = X11Injector::open(Some(server.display())).unwrap_err();
    std::fs::remove_file(&path).unwrap();
    assert_eq!((error.fault(), error.retry()), (DeviceFault::NotAuthorised, Retry::Never), "{error}");
    assert!(error.to_string().contains("XAUTHORITY"), "{error}");
}

//! Capture of a real X server, seen against what a client draws on it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::{Duration, Instant};

use support::{Client, PATIENCE, motley};
use wavry_platform::capture::{CaptureSource, CapturedFrame, Monitor};
use wavry_platform::picture::{Geometry, Picture, Rect};
use wavry_platform::x11::{X11Capture, X11CaptureConfig, Xvfb};
use wavry_platform::{DeviceFault, Retry, screenshot};
use x11rb::connection::Connection as _;
use x11rb::protocol::randr::{ConnectionExt as _, MonitorInfo};
use x11rb::protocol::xfixes::ConnectionExt as _;
use x11rb::protocol::xproto::{ChangeWindowAttributesAux, ConnectionExt as _};

const SIZE: Geometry = Geometry::new(1280, 720);
/// Long enough for any wake-up, short enough to wait for when nothing must happen.
const QUIET: Duration = Duration::from_millis(150);

fn open(server: &Xvfb, max_fps: f32) -> X11Capture {
    X11Capture::open(&X11CaptureConfig { display: Some(server.display().into()), monitor: None, max_fps })
        .unwrap()
}

fn soon() -> Option<Instant> {
    Some(Instant::now() + PATIENCE)
}

fn quiet() -> Option<Instant> {
    Some(Instant::now() + QUIET)
}

/// Captures until nothing changes any more.
fn settle(capture: &mut X11Capture) {
    while capture.capture(quiet()).unwrap().is_some() {}
}

/// Whether the pixels are the same; the unused byte does not count.
fn same(a: &Picture, b: &Picture) -> bool {
    screenshot::compare(&a.as_bgrx(), &b.as_bgrx()).is_some_and(|c| c.pixels_different == 0)
}

fn copy(frame: &CapturedFrame<'_>) -> Picture {
    frame.as_bgrx().unwrap().to_picture()
}

fn area(rects: &[Rect]) -> Rect {
    rects.iter().fold(Rect::default(), |all, rect| all.union(rect))
}

#[test]
fn captured_pixels_equal_what_was_drawn() {
    let server = Xvfb::start(SIZE.width, SIZE.height).unwrap();
    let client = Client::open(server.display());
    let mut expected = motley(SIZE, 1);
    client.draw(&expected.as_bgrx(), 0, 0);
    let mut capture = open(&server, 1000.0);
    assert_eq!(capture.geometry(), SIZE);

    let first = capture.capture(soon()).unwrap().expect("the first frame comes at once");
    assert_eq!(first.damage, [SIZE.as_rect()]);
    assert_eq!(first.geometry, SIZE);
    assert!(first.started_at_ns < first.captured_at_ns);
    assert!(same(&copy(&first), &expected));
    settle(&mut capture);

    // Changes of all kinds of places, each seen in whole and told where.
    let mut rng = fastrand::Rng::with_seed(2);
    for seed in 0..40 {
        let size = Geometry::new(rng.u32(1..300), rng.u32(1..200));
        let at = (rng.u32(0..=SIZE.width - size.width), rng.u32(0..=SIZE.height - size.height));
        let patch = motley(size, seed);
        client.draw(&patch.as_bgrx(), at.0 as i16, at.1 as i16);
        let row_len = size.width as usize * 4;
        for y in 0..size.height {
            let start = at.0 as usize * 4;
            expected.as_bgrx_mut().row_mut(at.1 + y)[start..start + row_len]
                .copy_from_slice(patch.as_bgrx().row(y));
        }
        let changed = Rect::new(at.0 as i32, at.1 as i32, size.width, size.height);
        let mut told = Rect::default();
        let mut last = None;
        while told.intersection(&changed) != Some(changed) {
            let frame = capture.capture(soon()).unwrap().expect("the change is seen");
            told = told.union(&area(frame.damage));
            last = Some(copy(&frame));
        }
        assert_eq!(told, changed, "no more than the change is told");
        assert!(same(&last.unwrap(), &expected), "patch {seed} at {changed:?}");
    }
}

#[test]
fn two_changes_at_once_are_two_rectangles() {
    let server = Xvfb::start(SIZE.width, SIZE.height).unwrap();
    let client = Client::open(server.display());
    let mut capture = open(&server, 1000.0);
    settle(&mut capture);
    client.conn.grab_server().unwrap();
    client.fill(Rect::new(10, 20, 30, 40), 0x00ff_0000);
    client.fill(Rect::new(900, 600, 50, 60), 0x0000_ff00);
    client.conn.ungrab_server().unwrap();
    client.sync();
    let mut told = Vec::new();
    while told.len() < 2 {
        let frame = capture.capture(soon()).unwrap().expect("the change is seen");
        told.extend_from_slice(frame.damage);
        let picture = copy(&frame);
        if told.len() == 2 {
            assert_eq!(picture.pixel(10, 20)[..3], [0, 0, 0xff]);
            assert_eq!(picture.pixel(949, 659)[..3], [0, 0xff, 0]);
        }
    }
    assert_eq!(told, [Rect::new(10, 20, 30, 40), Rect::new(900, 600, 50, 60)]);
}

#[test]
fn no_change_is_missed_while_drawing_goes_on() {
    let server = Xvfb::start(SIZE.width, SIZE.height).unwrap();
    let client = Client::open(server.display());
    let mut capture = open(&server, 1000.0);
    settle(&mut capture);
    let painter = std::thread::spawn(move || {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut expected = Picture::new(SIZE);
        for _ in 0..3000 {
            let rect = Rect::new(rng.i32(0..1200), rng.i32(0..700), rng.u32(1..80), rng.u32(1..20));
            let colour = rng.u32(..) & 0x00ff_ffff;
            client.fill(rect, colour);
            expected.as_bgrx_mut().fill(rect, colour.to_le_bytes());
        }
        (expected, client)
    });
    // A copy kept up only by the told rectangles must end up equal: damage covers every change.
    let mut kept = Picture::new(SIZE);
    let mut last = Picture::default();
    loop {
        let done = painter.is_finished();
        match capture.capture(quiet()).unwrap() {
            Some(frame) => {
                last = copy(&frame);
                for rect in frame.damage {
                    for y in rect.y..rect.bottom() {
                        let columns = rect.x as usize * 4..rect.right() as usize * 4;
                        kept.as_bgrx_mut().row_mut(y as u32)[columns.clone()]
                            .copy_from_slice(&last.as_bgrx().row(y as u32)[columns]);
                    }
                }
            }
            None if done => break,
            None => {}
        }
    }
    let (expected, _client) = painter.join().unwrap();
    assert!(same(&last, &expected), "the newest picture is what was drawn");
    assert!(same(&kept, &expected), "the rectangles cover every change");
}

#[test]
fn an_idle_screen_gives_nothing_until_the_deadline_and_costs_nothing() {
    let server = Xvfb::start(SIZE.width, SIZE.height).unwrap();
    let mut capture = open(&server, 1000.0);
    settle(&mut capture);
    let (started, used) = (Instant::now(), cpu_time());
    assert!(capture.capture(Some(started + Duration::from_millis(500))).unwrap().is_none());
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(500) && waited < Duration::from_secs(3), "{waited:?}");
    let spent = cpu_time() - used;
    assert!(spent < Duration::from_millis(20), "{spent:?} of this thread's time in {waited:?}");
    assert!(capture.capture(Some(Instant::now())).unwrap().is_none(), "a passed deadline does not wait");
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn a_change_wakes_the_capture_and_refresh_needs_none() {
    let server = Xvfb::start(SIZE.width, SIZE.height).unwrap();
    let client = Client::open(server.display());
    let mut capture = open(&server, 1000.0);
    settle(&mut capture);
    let drawing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        client.fill(Rect::new(5, 5, 5, 5), 0x00ff_ffff);
        (Instant::now(), client)
    });
    let frame = capture.capture(None).unwrap().expect("without a deadline it waits for a change");
    assert_eq!(frame.damage, [Rect::new(5, 5, 5, 5)]);
    let (drawn, _client) = drawing.join().unwrap();
    assert!(drawn.elapsed() < Duration::from_secs(1));

    settle(&mut capture);
    capture.refresh();
    let frame = capture.capture(Some(Instant::now())).unwrap().expect("refresh captures at once");
    assert_eq!(frame.damage, [SIZE.as_rect()]);
    assert_eq!(copy(&frame).pixel(7, 7)[..3], [0xff; 3]);
}

#[test]
fn the_frame_rate_is_bounded() {
    let server = Xvfb::start(320, 200).unwrap();
    let client = Client::open(server.display());
    let mut capture = open(&server, 50.0);
    settle(&mut capture);
    let stop = Instant::now() + Duration::from_secs(1);
    let painter = std::thread::spawn(move || {
        let mut colour = 0;
        while Instant::now() < stop {
            colour += 1;
            client.fill(Rect::new(0, 0, 10, 10), colour);
        }
        (colour, client)
    });
    let mut frames = 0;
    while capture.capture(Some(stop)).unwrap().is_some() {
        frames += 1;
    }
    let (changes, _client) = painter.join().unwrap();
    assert!(changes > 500, "{changes} changes");
    assert!((20..=53).contains(&frames), "{frames} frames of {changes} changes in a second at 50 fps");
}

#[test]
fn the_pointer_is_told_apart_from_the_picture() {
    let server = Xvfb::start(SIZE.width, SIZE.height).unwrap();
    let client = Client::open(server.display());
    let mut capture = open(&server, 1000.0);
    settle(&mut capture);
    let plain = capture.cursor().unwrap().shape.serial;

    // A red pointer with a hot spot, over a black window.
    let conn = &client.conn;
    let (pixmap, gc, cursor) =
        (conn.generate_id().unwrap(), conn.generate_id().unwrap(), conn.generate_id().unwrap());
    conn.create_pixmap(1, pixmap, client.root, 16, 12).unwrap();
    conn.create_gc(gc, pixmap, &x11rb::protocol::xproto::CreateGCAux::new().foreground(1)).unwrap();
    let all = x11rb::protocol::xproto::Rectangle { x: 0, y: 0, width: 16, height: 12 };
    conn.poly_fill_rectangle(pixmap, gc, &[all]).unwrap();
    conn.create_cursor(cursor, pixmap, pixmap, 0xffff, 0, 0, 0, 0, 0, 3, 5).unwrap();
    conn.change_window_attributes(client.window, &ChangeWindowAttributesAux::new().cursor(cursor)).unwrap();
    conn.warp_pointer(x11rb::NONE, client.root, 0, 0, 0, 0, 200, 300).unwrap();
    client.sync();

    let deadline = Instant::now() + PATIENCE;
    let mut seen = false;
    while !seen && Instant::now() < deadline {
        let Some(frame) = capture.capture(quiet()).unwrap() else { continue };
        let black = copy(&frame).data().as_chunks::<4>().0.iter().all(|pixel| pixel[..3] == [0; 3]);
        assert!(black, "the pointer is not in the picture");
        let Some(update) = frame.cursor else { continue };
        seen = update.shape.serial != plain && (update.x, update.y) == (200, 300);
        if seen {
            assert!(update.visible);
            assert_eq!((update.shape.width, update.shape.height), (16, 12));
            assert_eq!((update.shape.hot_x, update.shape.hot_y), (3, 5));
            assert!(update.shape.pixels.as_chunks().0.iter().all(|pixel| *pixel == [0, 0, 0xff, 0xff]));
            assert_eq!(frame.damage, [], "a pointer over an idle screen is no change of the picture");
        }
    }
    assert!(seen, "the new pointer was told");
    let serial = capture.cursor().unwrap().shape.serial;

    // Movement by a device wakes the capture and keeps the shape.
    settle(&mut capture);
    let mut injector = wavry_platform::x11::X11Injector::open(Some(server.display())).unwrap();
    let (x, y) = (640.5 / 1280.0, 360.5 / 720.0);
    wavry_platform::InputInjector::inject(&mut injector, &wavry_platform::InputEvent::MouseMoveAbs { x, y })
        .unwrap();
    wavry_platform::InputInjector::flush(&mut injector).unwrap();
    let frame = capture.capture(soon()).unwrap().expect("movement is told without a change of the picture");
    let update = frame.cursor.unwrap();
    assert_eq!((update.x, update.y, update.shape.serial), (640, 360, serial));

    // A transparent pointer is an invisible one.
    let none = conn.generate_id().unwrap();
    let empty = conn.generate_id().unwrap();
    conn.create_pixmap(1, empty, client.root, 8, 8).unwrap();
    let clear = conn.generate_id().unwrap();
    conn.create_gc(clear, empty, &x11rb::protocol::xproto::CreateGCAux::new().foreground(0)).unwrap();
    conn.poly_fill_rectangle(empty, clear, &[all]).unwrap();
    conn.create_cursor(none, empty, empty, 0, 0, 0, 0, 0, 0, 0, 0).unwrap();
    conn.change_window_attributes(client.window, &ChangeWindowAttributesAux::new().cursor(none)).unwrap();
    client.sync();
    let frame = capture.capture(soon()).unwrap().expect("a new shape is told");
    assert!(!frame.cursor.unwrap().visible);
}

#[test]
fn a_resize_is_followed() {
    let server = Xvfb::start(SIZE.width, SIZE.height).unwrap();
    let client = Client::open(server.display());
    let expected = motley(SIZE, 5);
    client.draw(&expected.as_bgrx(), 0, 0);
    let mut capture = open(&server, 1000.0);
    settle(&mut capture);
    for (width, height) in [(800, 600), (1280, 720), (1024, 333)] {
        server.resize(width, height).unwrap();
        client.draw(&expected.as_bgrx(), 0, 0);
        let geometry = Geometry::new(width.into(), height.into());
        let deadline = Instant::now() + PATIENCE;
        let mut followed = false;
        while !followed && Instant::now() < deadline {
            let Some(frame) = capture.capture(quiet()).unwrap() else { continue };
            let picture = copy(&frame);
            followed = frame.geometry == geometry
                && (0..geometry.height).all(|y| {
                    let (row, drawn) = (picture.as_bgrx().row(y), expected.as_bgrx().row(y));
                    row.chunks(4).zip(drawn.chunks(4)).all(|(a, b)| a[..3] == b[..3])
                });
        }
        assert!(followed, "{width}x{height} was not seen");
        assert_eq!(capture.geometry(), geometry);
        let monitor = &capture.monitors()[0];
        assert_eq!((monitor.width, monitor.height), (width.into(), height.into()));
    }
    assert_eq!(capture.monitors()[0].refresh_hz.round(), 60.0);
}

#[test]
fn a_monitor_can_be_chosen() {
    let server = Xvfb::start(SIZE.width, SIZE.height).unwrap();
    let client = Client::open(server.display());
    let drawn = motley(SIZE, 6);
    client.draw(&drawn.as_bgrx(), 0, 0);
    let atom = client.conn.intern_atom(false, b"right").unwrap().reply().unwrap().atom;
    let right = MonitorInfo {
        name: atom,
        x: 500,
        y: 100,
        width: 640,
        height: 480,
        width_in_millimeters: 160,
        height_in_millimeters: 120,
        ..Default::default()
    };
    client.conn.randr_set_monitor(client.root, right).unwrap().check().unwrap();
    let mut capture = open(&server, 1000.0);
    let monitor = capture.monitors().iter().find(|monitor| monitor.name == "right").unwrap();
    assert_eq!((monitor.rect(), monitor.id), (Rect::new(500, 100, 640, 480), atom));

    capture.select_monitor(atom).unwrap();
    let frame = capture.capture(soon()).unwrap().unwrap();
    assert_eq!(frame.area(), Rect::new(500, 100, 640, 480));
    assert_eq!((frame.geometry, frame.damage), (Geometry::new(640, 480), &[Rect::new(0, 0, 640, 480)][..]));
    let picture = copy(&frame);
    for (x, y) in [(0, 0), (639, 479), (17, 333)] {
        assert_eq!(picture.pixel(x, y)[..3], drawn.pixel(x + 500, y + 100)[..3], "at {x}, {y}");
    }
    settle(&mut capture);
    client.fill(Rect::new(490, 120, 20, 10), 0x0012_3456);
    let frame = capture.capture(soon()).unwrap().unwrap();
    assert_eq!(frame.damage, [Rect::new(0, 20, 10, 10)]);
    let picture = copy(&frame);
    assert_eq!(picture.pixel(9, 29)[..3], [0x56, 0x34, 0x12]);
    assert_eq!(picture.pixel(10, 29)[..3], drawn.pixel(510, 129)[..3]);
    client.fill(Rect::new(0, 0, 20, 10), 0x0012_3456);
    assert!(capture.capture(quiet()).unwrap().is_none(), "a change beside the monitor is none");

    capture.select_monitor(Monitor::WHOLE_SCREEN).unwrap();
    assert_eq!(capture.capture(soon()).unwrap().unwrap().geometry, SIZE);
    let error = capture.select_monitor(4_000_000).unwrap_err();
    assert_eq!(error.fault(), DeviceFault::InvalidArgument);
    assert!(error.to_string().contains("(right)"), "{error}");
}

#[test]
fn a_server_that_ends_is_told_and_nothing_hangs() {
    let server = Xvfb::start(320, 200).unwrap();
    let mut capture = open(&server, 60.0);
    settle(&mut capture);
    let waiting =
        std::thread::spawn(move || capture.capture(soon()).map(|frame| frame.is_some()).unwrap_err());
    std::thread::sleep(Duration::from_millis(50));
    drop(server);
    let error = waiting.join().unwrap();
    assert_eq!((error.fault(), error.retry()), (DeviceFault::Lost, Retry::Reopen), "{error}");
}

#[test]
fn a_screenshot_shows_the_whole_display() {
    let server = Xvfb::start(1000, 701).unwrap();
    let client = Client::open(server.display());
    let drawn = motley(client.geometry(), 7);
    client.draw(&drawn.as_bgrx(), 0, 0);
    let shot = screenshot::capture_display(Some(server.display())).unwrap();
    assert!(same(&shot, &drawn));
}

#[test]
fn the_pointer_over_a_changed_screen_is_not_in_the_picture() {
    let server = Xvfb::start(320, 200).unwrap();
    let client = Client::open(server.display());
    client.conn.xfixes_query_version(5, 0).unwrap().reply().unwrap();
    let mut capture = open(&server, 1000.0);
    client.conn.warp_pointer(x11rb::NONE, client.root, 0, 0, 0, 0, 100, 100).unwrap();
    settle(&mut capture);
    client.fill(Rect::new(0, 0, 320, 200), 0x0000_ff00);
    let frame = capture.capture(soon()).unwrap().unwrap();
    assert!(copy(&frame).data().as_chunks::<4>().0.iter().all(|pixel| pixel[..3] == [0, 0xff, 0]));
}

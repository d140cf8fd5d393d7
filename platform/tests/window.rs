//! The client's window on a real X server: what it shows is what it was given, what is typed comes out as evdev codes.
//!
//! One test function: the window library allows one loop per process. It runs itself again as a child, because the
//! library takes the display from the environment, which a process cannot soundly change for itself.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::{PATIENCE, motley};
use wavry_platform::clock::monotonic_ns;
use wavry_platform::cursor::{CursorShape, CursorUpdate};
use wavry_platform::input::{BTN_LEFT, BTN_SIDE, InputEvent};
use wavry_platform::picture::{Geometry, Picture};
use wavry_platform::present::{FrameInfo, Presenter as _};
use wavry_platform::window::{MouseMode, Window, WindowConfig, WindowEvent, WindowEvents, WindowPresenter};
use wavry_platform::x11::{X11Injector, Xvfb};
use wavry_platform::{DeviceFault, InputInjector as _, screenshot};
use x11rb::connection::Connection as _;
use x11rb::protocol::xproto::{
    AtomEnum, ConfigureWindowAux, ConnectionExt as _, InputFocus, Window as XWindow,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

const SIZE: Geometry = Geometry::new(640, 360);

/// Names the display to the child.
const CHILD_DISPLAY: &str = "WAVRY_WINDOW_TEST_DISPLAY";

struct World {
    display: String,
    conn: RustConnection,
    native: XWindow,
    presenter: WindowPresenter,
    events: WindowEvents,
    injector: X11Injector,
    next_frame: u64,
}

impl World {
    /// What the whole display shows where the window is.
    fn shot(&self) -> Picture {
        screenshot::capture_display(Some(&self.display)).unwrap()
    }

    fn event<T>(&self, what: &str, mut pick: impl FnMut(WindowEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(found) = self.events.wait_event(Duration::from_millis(50)).and_then(&mut pick) {
                return found;
            }
        }
        panic!("no {what} within {PATIENCE:?}");
    }

    fn inputs(&self, count: usize) -> Vec<InputEvent> {
        (0..count)
            .map(|_| {
                self.event("input", |event| match event {
                    WindowEvent::Input { event: InputEvent::MouseMoveAbs { .. }, .. } => None,
                    WindowEvent::Input { event, at_ns } => (at_ns > 0).then_some(event),
                    _ => None,
                })
            })
            .collect()
    }

    fn inject(&mut self, events: &[InputEvent]) {
        for event in events {
            self.injector.inject(event).unwrap();
        }
        self.injector.flush().unwrap();
    }

    /// Presents a picture and waits until it is shown.
    fn present(&mut self, picture: &Picture) {
        self.next_frame += 1;
        let frame_id = self.next_frame;
        self.presenter.present_copy(&picture.as_bgrx(), FrameInfo { frame_id, ready_at_ns: 7 }).unwrap();
        let shown = self.event("shown frame", |event| match event {
            WindowEvent::Shown(shown) if shown.info.frame_id == frame_id => Some(shown),
            _ => None,
        });
        assert_eq!(shown.info.ready_at_ns, 7);
    }

    /// Waits until the display shows what `right` wants.
    fn shows(&self, what: &str, right: impl Fn(&Picture) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if right(&self.shot()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let path = std::env::temp_dir().join("wavry-window-test.png");
        screenshot::save_png(&path, &self.shot().as_bgrx()).unwrap();
        panic!("the display never showed {what}; see {}", path.display());
    }
}

fn key(keycode: u32, pressed: bool) -> InputEvent {
    InputEvent::Key { keycode, pressed }
}

/// Whether `shot` shows `picture` at its top left corner.
fn shows_picture(shot: &Picture, picture: &Picture) -> bool {
    let size = picture.geometry();
    (0..size.height).all(|y| {
        let (a, b) = (shot.as_bgrx().row(y), picture.as_bgrx().row(y));
        a.as_chunks::<4>().0.iter().zip(b.as_chunks::<4>().0).all(|(a, b)| a[..3] == b[..3])
    })
}

fn find_window(conn: &RustConnection, root: XWindow) -> XWindow {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for child in conn.query_tree(root).unwrap().reply().unwrap().children {
            let class = conn.get_property(false, child, AtomEnum::WM_CLASS, AtomEnum::STRING, 0, 64).unwrap();
            if class.reply().is_ok_and(|class| class.value.starts_with(b"wavry-client")) {
                return child;
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("no window within {PATIENCE:?}");
}

#[test]
fn a_window_from_opening_to_closing() {
    let Ok(display) = std::env::var(CHILD_DISPLAY) else {
        let server = Xvfb::start(1280, 720).unwrap();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_window_from_opening_to_closing", "--nocapture"])
            .env(CHILD_DISPLAY, server.display())
            .env("DISPLAY", server.display())
            .env_remove("WAYLAND_DISPLAY")
            .status()
            .unwrap();
        assert!(status.success(), "the child failed: {status}");
        return;
    };
    let notices = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&notices);
    let config = WindowConfig {
        title: "test".into(),
        geometry: SIZE,
        notify: Some(Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        })),
        ..WindowConfig::default()
    };
    let (window, presenter, events) = Window::open(config).unwrap();
    let handle = window.handle();
    let driver = std::thread::spawn(move || {
        let (conn, screen) = x11rb::connect(Some(&display)).unwrap();
        let root = conn.setup().roots[screen].root;
        let native = find_window(&conn, root);
        // There is no window manager to do these two.
        conn.configure_window(native, &ConfigureWindowAux::new().x(0).y(0)).unwrap();
        conn.set_input_focus(InputFocus::POINTER_ROOT, native, 0u32).unwrap();
        conn.sync().unwrap();
        let injector = X11Injector::open(Some(&display)).unwrap();
        let mut world = World { display, conn, native, presenter, events, injector, next_frame: 0 };
        world.event("focus", |event| matches!(event, WindowEvent::Focused(true)).then_some(()));

        pictures_are_shown(&mut world);
        pictures_are_shown_soon(&mut world);
        latest_wins(&mut world);
        keys_arrive(&mut world);
        mouse_arrives(&mut world);
        a_resize_letterboxes(&mut world);
        the_remote_pointer_is_drawn(&mut world);
        the_mouse_can_be_locked(&mut world);
        losing_the_keyboard_releases(&mut world);

        handle.close().unwrap();
        world.event("end", |event| matches!(event, WindowEvent::Closed).then_some(()));
        let lost = (0..1000).find_map(|_| {
            std::thread::sleep(Duration::from_millis(1));
            world.presenter.present(FrameInfo::default()).err()
        });
        assert_eq!(lost.expect("a closed window is told").fault(), DeviceFault::Lost);
    });
    // If the driver fails the window must not stay open for ever.
    let closer = window.handle();
    let joiner = std::thread::spawn(move || {
        let result = driver.join();
        let _ = closer.close();
        result
    });
    window.run().unwrap();
    joiner.join().unwrap().unwrap();
    assert!(notices.load(Ordering::Relaxed) > 0);
}

fn pictures_are_shown(world: &mut World) {
    for seed in 0..5 {
        let picture = motley(SIZE, seed);
        world.present(&picture);
        world.shows("the picture", |shot| shows_picture(shot, &picture));
    }
}

/// From the hand-over of a picture to the hand-over to the display, at 60 frames per second.
fn pictures_are_shown_soon(world: &mut World) {
    let picture = motley(SIZE, 50);
    let mut took_us = Vec::new();
    for frame_id in 100..160 {
        let ready_at_ns = monotonic_ns();
        world.presenter.present_copy(&picture.as_bgrx(), FrameInfo { frame_id, ready_at_ns }).unwrap();
        took_us.push(world.event("shown frame", |event| match event {
            WindowEvent::Shown(shown) => Some((shown.shown_at_ns - shown.info.ready_at_ns) / 1000),
            _ => None,
        }));
        std::thread::sleep(Duration::from_millis(16));
    }
    took_us.sort_unstable();
    println!("640x360 to the display: p50 {} us, max {} us", took_us[30], took_us[59]);
    assert!(took_us[30] < 100_000, "{took_us:?}");
}

fn latest_wins(world: &mut World) {
    let before = world.presenter.stats();
    let picture = motley(SIZE, 99);
    for frame_id in 1000..1200 {
        world.presenter.present_copy(&picture.as_bgrx(), FrameInfo { frame_id, ready_at_ns: 0 }).unwrap();
    }
    let mut last = 0;
    world.event("the last frame", |event| {
        let WindowEvent::Shown(shown) = event else { return None };
        assert!(shown.info.frame_id > last, "never backwards");
        last = shown.info.frame_id;
        (last == 1199).then_some(())
    });
    let after = world.presenter.stats();
    assert_eq!(after.presented - before.presented, 200);
    assert_eq!(after.shown + after.dropped - before.shown - before.dropped, 200, "shown or counted");
}

fn keys_arrive(world: &mut World) {
    for keycode in [1, 16, 30, 42, 57, 86, 96, 100, 105, 111, 125, 183] {
        world.inject(&[key(keycode, true), key(keycode, false)]);
        assert_eq!(world.inputs(2), [key(keycode, true), key(keycode, false)]);
    }
    // Held keys repeat on the server; the repeats do not come out. F11 does not come out at all.
    world.inject(&[key(30, true)]);
    std::thread::sleep(Duration::from_millis(800));
    world.inject(&[key(87, true), key(87, false), key(30, false)]);
    assert_eq!(world.inputs(2), [key(30, true), key(30, false)]);
    world.inject(&[key(87, true), key(87, false)]);
}

fn mouse_arrives(world: &mut World) {
    for (x, y) in [(0u32, 0u32), (639, 359), (123, 45)] {
        let at = InputEvent::MouseMoveAbs { x: (x as f32 + 0.5) / 1280.0, y: (y as f32 + 0.5) / 720.0 };
        world.inject(&[at]);
        world.event("the place", |event| match event {
            WindowEvent::Input { event: InputEvent::MouseMoveAbs { x: fx, y: fy }, .. } => {
                (((fx * 640.0) as u32, (fy * 360.0) as u32) == (x, y)).then_some(())
            }
            _ => None,
        });
    }
    for button in [BTN_LEFT, BTN_SIDE] {
        let both = [true, false].map(|pressed| InputEvent::MouseButton { button, pressed });
        world.inject(&both);
        assert_eq!(world.inputs(2), both);
    }
    for (dx, dy) in [(0.0, 1.0), (0.0, -1.0), (1.0, 0.0), (-1.0, 0.0)] {
        world.inject(&[InputEvent::Scroll { dx, dy }]);
        // The library tells press and release of a wheel without axes, such as XTest's, as one notch each.
        assert_eq!(world.inputs(2), [InputEvent::Scroll { dx, dy }; 2], "same direction there and here");
    }
}

fn a_resize_letterboxes(world: &mut World) {
    let mut picture = Picture::new(SIZE);
    picture.as_bgrx_mut().fill(SIZE.as_rect(), [0x30, 0x60, 0x90, 0]);
    world.present(&picture);
    world.conn.configure_window(world.native, &ConfigureWindowAux::new().width(400).height(400)).unwrap();
    world.conn.sync().unwrap();
    world.event("resize", |event| match event {
        WindowEvent::Resized(size) => (size == Geometry::new(400, 400)).then_some(()),
        _ => None,
    });
    // 640x360 in 400x400 is 400x225 with 87 rows of black above.
    world.shows("bars and the picture", |shot| {
        let colour = |x, y| shot.pixel(x, y)[..3] == [0x30, 0x60, 0x90];
        let black = |x, y| shot.pixel(x, y)[..3] == [0; 3];
        black(200, 86) && black(0, 399) && colour(0, 87) && colour(399, 311) && black(399, 312)
    });
    // The middle of the window is the middle of the picture, its bars are the edge.
    world.inject(&[InputEvent::MouseMoveAbs { x: 200.5 / 1280.0, y: 10.5 / 720.0 }]);
    world.event("the edge", |event| match event {
        WindowEvent::Input { event: InputEvent::MouseMoveAbs { x, y }, .. } => {
            (y == 0.0 && (x - 0.50125).abs() < 1e-4).then_some(())
        }
        _ => None,
    });
    world.conn.configure_window(world.native, &ConfigureWindowAux::new().width(640).height(360)).unwrap();
    world.conn.sync().unwrap();
    world.event("resize", |event| match event {
        WindowEvent::Resized(size) => (size == SIZE).then_some(()),
        _ => None,
    });
}

fn the_remote_pointer_is_drawn(world: &mut World) {
    let picture = Picture::new(SIZE);
    world.present(&picture);
    // The local pointer is outside, so the remote one is drawn.
    world.inject(&[InputEvent::MouseMoveAbs { x: 0.9, y: 0.9 }]);
    let pixels = [0, 0xff, 0, 0xff].repeat(16);
    let shape = CursorShape { serial: 5, width: 4, height: 4, hot_x: 1, hot_y: 2, pixels: &pixels };
    world.presenter.set_cursor(&CursorUpdate { shape, x: 100, y: 200, visible: true }).unwrap();
    let green = |shot: &Picture, x, y| shot.pixel(x, y)[..3] == [0, 0xff, 0];
    world
        .shows("the pointer", |shot| green(shot, 99, 198) && green(shot, 102, 201) && !green(shot, 103, 198));
    world.presenter.set_cursor(&CursorUpdate { shape, x: 300, y: 50, visible: true }).unwrap();
    world.shows("the pointer elsewhere", |shot| green(shot, 300, 50) && !green(shot, 100, 200));
    world.presenter.set_cursor(&CursorUpdate { shape, x: 300, y: 50, visible: false }).unwrap();
    world.shows("no pointer", |shot| !green(shot, 300, 50));
}

fn the_mouse_can_be_locked(world: &mut World) {
    world.inject(&[InputEvent::MouseMoveAbs { x: 0.25, y: 0.25 }]);
    let chord = [key(29, true), key(56, true), key(42, true)];
    let mode = |world: &World, expected| {
        world.event("mouse mode", |event| (event == WindowEvent::MouseMode(expected)).then_some(()));
    };
    let title = |world: &World| {
        let reply = world.conn.get_property(false, world.native, AtomEnum::WM_NAME, AtomEnum::ANY, 0, 256);
        String::from_utf8(reply.unwrap().reply().unwrap().value).unwrap()
    };
    world.inject(&chord);
    mode(world, MouseMode::Relative);
    assert!(title(world).contains("test (Ctrl+Alt+Shift releases the mouse"), "{}", title(world));
    world.inject(&chord.map(|event| match event {
        InputEvent::Key { keycode, .. } => key(keycode, false),
        other => other,
    }));
    world.inject(&[InputEvent::MouseMoveRel { dx: 7.0, dy: -3.0 }]);
    world.event("relative motion", |event| match event {
        WindowEvent::Input { event: InputEvent::MouseMoveAbs { .. }, .. } => panic!("absolute while locked"),
        WindowEvent::Input { event, .. } => {
            (event == InputEvent::MouseMoveRel { dx: 7.0, dy: -3.0 }).then_some(())
        }
        _ => None,
    });
    // Locked: the pointer cannot leave the window.
    world.inject(&[InputEvent::MouseMoveRel { dx: 5000.0, dy: 5000.0 }]);
    world.event("relative motion", |event| match event {
        WindowEvent::Input { event: InputEvent::MouseMoveRel { dx, .. }, .. } => (dx == 5000.0).then_some(()),
        _ => None,
    });
    let pointer = world.conn.query_pointer(world.native).unwrap().reply().unwrap();
    assert!(pointer.win_x < 640 && pointer.win_y < 360, "{pointer:?}");
    world.inject(&chord);
    mode(world, MouseMode::Absolute);
    world.injector.release_all().unwrap();
    assert!(title(world).contains("locks the mouse"));
}

fn losing_the_keyboard_releases(world: &mut World) {
    while world.events.poll_event().is_some() {}
    world.inject(&[key(30, true)]);
    world.event("press", |event| match event {
        WindowEvent::Input { event, .. } => (event == key(30, true)).then_some(()),
        _ => None,
    });
    world.conn.set_input_focus(InputFocus::NONE, x11rb::NONE, 0u32).unwrap();
    world.conn.sync().unwrap();
    let mut released = false;
    world.event("loss of the keyboard", |event| match event {
        WindowEvent::Input { event, .. } => {
            released |= event == key(30, false);
            None
        }
        WindowEvent::Focused(false) => Some(()),
        _ => None,
    });
    assert!(released, "released before the loss is told");
    world.injector.release_all().unwrap();
}

//! Injection into a real X server, seen by a real client's window.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::{Duration, Instant};

use support::Client;
use wavry_platform::input::{BTN_BACK, BTN_EXTRA, BTN_LEFT, BTN_MIDDLE, BTN_RIGHT, BTN_SIDE, InputEvent};
use wavry_platform::picture::Rect;
use wavry_platform::x11::{X11Injector, Xvfb};
use wavry_platform::{DeviceFault, InputInjector as _, Retry};
use x11rb::protocol::Event;
use x11rb::protocol::xproto::ConnectionExt as _;

const KEY_A: u32 = 30;
const KEY_LEFTSHIFT: u32 = 42;

struct World {
    injector: X11Injector,
    client: Client,
    server: Xvfb,
}

impl World {
    fn new() -> Self {
        let server = Xvfb::start(1280, 720).unwrap();
        let client = Client::open(server.display());
        let mut injector = X11Injector::open(Some(server.display())).unwrap();
        injector.inject(&InputEvent::MouseMoveAbs { x: 0.5, y: 0.5 }).unwrap();
        injector.flush().unwrap();
        client.expect("first motion", |event| matches!(event, Event::MotionNotify(_)).then_some(()));
        Self { injector, client, server }
    }

    fn inject(&mut self, events: &[InputEvent]) {
        for event in events {
            self.injector.inject(event).unwrap();
        }
        self.injector.flush().unwrap();
    }

    fn pointer(&self) -> (i16, i16) {
        let reply = self.client.conn.query_pointer(self.client.root).unwrap().reply().unwrap();
        (reply.root_x, reply.root_y)
    }

    /// Which of the server's 256 key codes are down.
    fn keys_down(&self) -> Vec<u8> {
        let keys = self.client.conn.query_keymap().unwrap().reply().unwrap().keys;
        (0..=255).filter(|&code: &u8| keys[usize::from(code / 8)] >> (code % 8) & 1 == 1).collect()
    }

    /// What the client's window got: key codes and buttons, positive down, negative up.
    fn presses(&self, count: usize) -> Vec<i32> {
        (0..count)
            .map(|_| {
                self.client.expect("key or button", |event| match event {
                    Event::KeyPress(e) => Some(i32::from(e.detail)),
                    Event::ButtonPress(e) => Some(i32::from(e.detail)),
                    Event::KeyRelease(e) => Some(-i32::from(e.detail)),
                    Event::ButtonRelease(e) => Some(-i32::from(e.detail)),
                    _ => None,
                })
            })
            .collect()
    }
}

fn key(keycode: u32, pressed: bool) -> InputEvent {
    InputEvent::Key { keycode, pressed }
}

fn button(button: u32, pressed: bool) -> InputEvent {
    InputEvent::MouseButton { button, pressed }
}

#[test]
fn keys_arrive_as_physical_keys() {
    let mut world = World::new();
    world.inject(&[key(KEY_LEFTSHIFT, true), key(KEY_A, true), key(KEY_A, false), key(KEY_LEFTSHIFT, false)]);
    assert_eq!(world.presses(4), [50, 38, -38, -50]);
    assert_eq!(world.keys_down(), []);
}

#[test]
fn buttons_arrive_with_their_x_numbers() {
    let mut world = World::new();
    let all = [(BTN_LEFT, 1), (BTN_MIDDLE, 2), (BTN_RIGHT, 3), (BTN_SIDE, 8), (BTN_EXTRA, 9)];
    for (code, expected) in all {
        world.inject(&[button(code, true), button(code, false)]);
        assert_eq!(world.presses(2), [expected, -expected], "button {code:#x}");
    }
    // A server without a device of that many buttons ignores the rest; it must not be an error.
    world.inject(&[button(BTN_BACK, true), button(BTN_BACK, false)]);
}

#[test]
fn absolute_motion_hits_the_pixel_and_keeps_to_the_area() {
    let mut world = World::new();
    for (x, y) in [(0, 0), (1279, 719), (333, 77)] {
        let (fx, fy) = ((x as f32 + 0.5) / 1280.0, (y as f32 + 0.5) / 720.0);
        world.inject(&[InputEvent::MouseMoveAbs { x: fx, y: fy }]);
        world.client.expect("motion", |event| match event {
            Event::MotionNotify(e) => ((e.root_x, e.root_y) == (x, y)).then_some(()),
            _ => None,
        });
    }
    world.injector.set_area(Rect::new(500, 100, 640, 480));
    world.inject(&[InputEvent::MouseMoveAbs { x: 0.0, y: 1.0 }]);
    world.client.expect("motion", |event| match event {
        Event::MotionNotify(e) => ((e.root_x, e.root_y) == (500, 579)).then_some(()),
        _ => None,
    });
}

#[test]
fn relative_motion_adds_up_without_losing_fractions() {
    let mut world = World::new();
    let start = world.pointer();
    world.inject(&[InputEvent::MouseMoveRel { dx: 0.25, dy: -0.5 }; 40]);
    let deadline = Instant::now() + support::PATIENCE;
    let goal = (start.0 + 10, start.1 - 20);
    while world.pointer() != goal && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(world.pointer(), goal);
}

#[test]
fn scrolling_is_wheel_buttons() {
    let mut world = World::new();
    world.inject(&[InputEvent::Scroll { dx: 0.0, dy: 2.0 }]);
    assert_eq!(world.presses(4), [4, -4, 4, -4], "away from the user scrolls up");
    world.inject(&[InputEvent::Scroll { dx: 1.0, dy: -1.0 }]);
    assert_eq!(world.presses(4), [5, -5, 7, -7]);
    world.inject(&[InputEvent::Scroll { dx: -0.5, dy: 0.0 }; 2]);
    assert_eq!(world.presses(2), [6, -6], "two halves are one notch");
}

#[test]
fn repeats_and_releases_of_what_is_up_do_nothing() {
    let mut world = World::new();
    world.inject(&[
        key(KEY_A, false),
        key(KEY_A, true),
        key(KEY_A, true),
        key(KEY_A, false),
        key(KEY_A, false),
    ]);
    world.inject(&[
        button(BTN_LEFT, false),
        button(BTN_LEFT, true),
        button(BTN_LEFT, true),
        button(BTN_LEFT, false),
    ]);
    assert_eq!(world.presses(4), [38, -38, 1, -1]);
}

#[test]
fn release_all_leaves_nothing_down() {
    let mut world = World::new();
    let held = [key(KEY_A, true), key(KEY_LEFTSHIFT, true), key(100, true), button(BTN_RIGHT, true)];
    world.inject(&held);
    world.presses(4);
    assert_eq!(world.keys_down(), [38, 50, 108]);
    world.injector.release_all().unwrap();
    let mut released = world.presses(4);
    released.sort_unstable();
    assert_eq!(released, [-108, -50, -38, -3]);
    assert_eq!(world.keys_down(), []);
    world.injector.release_all().unwrap();
    world.inject(&[key(KEY_A, true)]);
    assert_eq!(world.presses(1), [38], "what was released can be pressed again");
}

#[test]
fn a_dropped_injector_releases_what_it_held() {
    let world = World::new();
    let World { mut injector, client, server: _server } = world;
    injector.inject(&key(KEY_A, true)).unwrap();
    injector.flush().unwrap();
    client.expect("press", |event| matches!(event, Event::KeyPress(_)).then_some(()));
    drop(injector);
    client.expect("release", |event| matches!(event, Event::KeyRelease(_)).then_some(()));
}

#[test]
fn what_cannot_be_expressed_is_refused_and_changes_nothing() {
    let mut world = World::new();
    let hostile = [
        key(0, true),
        key(248, true),
        key(u32::MAX, true),
        button(0, true),
        button(0x2ff, true),
        InputEvent::MouseMoveAbs { x: f32::NAN, y: 0.0 },
        InputEvent::MouseMoveRel { dx: 0.0, dy: f32::INFINITY },
        InputEvent::Scroll { dx: f32::NEG_INFINITY, dy: 0.0 },
    ];
    for event in hostile {
        let error = world.injector.inject(&event).unwrap_err();
        assert_eq!((error.fault(), error.retry()), (DeviceFault::InvalidArgument, Retry::Never), "{event:?}");
    }
    world.inject(&[
        InputEvent::Scroll { dx: 0.0, dy: 1e30 },
        InputEvent::MouseMoveRel { dx: -1e30, dy: 1e30 },
    ]);
    assert_eq!(world.presses(62), [4, -4].repeat(31), "a hostile wheel is bounded");
    world.inject(&[key(KEY_A, true), key(KEY_A, false)]);
    assert_eq!(world.presses(2), [38, -38]);
}

#[test]
fn a_held_server_delays_nothing_and_loses_no_release() {
    let mut world = World::new();
    // While another program holds the server, it takes no input and the socket to it fills up.
    world.client.conn.grab_server().unwrap();
    world.client.sync();
    world.inject(&[key(KEY_A, true)]);
    let started = Instant::now();
    let mut refused = 0;
    for step in 0..5000 {
        let dx = if step % 2 == 0 { 1.0 } else { -1.0 };
        let result = world.injector.inject(&InputEvent::MouseMoveRel { dx, dy: 0.0 });
        for error in [result, world.injector.flush()].into_iter().filter_map(Result::err) {
            assert_eq!((error.fault(), error.retry()), (DeviceFault::Busy, Retry::Later));
            refused += 1;
        }
    }
    let took = started.elapsed();
    assert!(refused > 0, "the socket never filled up: this test shows nothing");
    assert!(took < Duration::from_secs(1), "{took:?} for 5000 events at a server that is held");
    world.injector.release_all().unwrap_err();
    world.client.conn.ungrab_server().unwrap();
    world.client.sync();
    let deadline = Instant::now() + support::PATIENCE;
    while world.injector.flush().is_err() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(world.presses(2), [38, -38], "what was queued happens in order once the server is free");
    assert_eq!(world.keys_down(), []);
}

#[test]
fn a_server_that_ends_is_told() {
    let World { mut injector, client, server } = World::new();
    drop(client);
    drop(server);
    let lost = (0..1000).find_map(|_| {
        std::thread::sleep(Duration::from_millis(1));
        injector.inject(&key(KEY_A, true)).and_then(|()| injector.flush()).err()
    });
    let error = lost.expect("an ended server is noticed");
    assert_eq!((error.fault(), error.retry()), (DeviceFault::Lost, Retry::Reopen));
}

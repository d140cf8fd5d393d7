//! What a frame costs on this side of the codec: capture of an X screen, painting and reading of the test source, and
//! bringing a decoded picture to the size of a window.
//!
//! Run: `cargo bench -p wavry-platform`. Needs Xvfb; the capture figures include its copy.
#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on stops")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use wavry_platform::capture::CaptureSource as _;
use wavry_platform::picture::{Geometry, Picture};
use wavry_platform::testsource::{Code, Position, Scene, paint_code, read_code};
use wavry_platform::window::scale::{Scaler, letterbox};
use wavry_platform::x11::{X11Capture, X11CaptureConfig, Xvfb};

const SIZES: [(&str, Geometry); 2] =
    [("720p", Geometry::new(1280, 720)), ("1080p", Geometry::new(1920, 1080))];

fn capture(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("capture whole screen");
    for (name, size) in SIZES {
        let server = Xvfb::start(size.width, size.height).unwrap();
        let config =
            X11CaptureConfig { display: Some(server.display().into()), monitor: None, max_fps: 1000.0 };
        let mut source = X11Capture::open(&config).unwrap();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                source.refresh();
                black_box(source.capture(None).unwrap().unwrap().captured_at_ns)
            });
        });
    }
}

fn testsource(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("test source");
    for (name, size) in SIZES {
        let (scene, mut picture) = (Scene::new(size), Picture::new(size));
        let mut frame = 0;
        group.bench_function(format!("paint {name}"), |bencher| {
            bencher.iter(|| {
                frame += 1;
                let mut canvas = picture.as_bgrx_mut();
                scene.paint(&mut canvas, frame);
                let code = Code { frame, timestamp_us: 1 };
                paint_code(&mut canvas, Position::Top, &code);
                paint_code(&mut canvas, Position::Bottom, &code);
            });
        });
        group.bench_function(format!("read both codes {name}"), |bencher| {
            bencher.iter(|| {
                let picture = black_box(picture.as_bgrx()).into();
                (read_code(&picture, Position::Top).unwrap(), read_code(&picture, Position::Bottom).unwrap())
            });
        });
    }
}

/// The window's part of showing a picture; what the display server does with it comes on top.
fn window(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("picture to window");
    let sizes = [
        (SIZES[0].1, SIZES[0].1),
        (SIZES[1].1, SIZES[1].1),
        (SIZES[0].1, SIZES[1].1),
        (SIZES[1].1, SIZES[0].1),
    ];
    for (from, to) in sizes {
        let (picture, mut scaler) = (Picture::new(from), Scaler::default());
        let mut pixels = vec![0; (to.width * to.height) as usize];
        let place = letterbox(from, to);
        group.bench_function(
            format!("{}x{} in {}x{}", from.width, from.height, to.width, to.height),
            |bencher| {
                bencher.iter(|| scaler.draw(&picture.as_bgrx(), place, black_box(&mut pixels), to.width));
            },
        );
    }
}

criterion_group!(benches, capture, testsource, window);
criterion_main!(benches);

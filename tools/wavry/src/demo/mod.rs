//! The demonstration: a real display, streamed by the real host to the real client on this machine.
//!
//! Starts everything it needs and ends all of it, also when it fails. Invariant: it succeeds only if every
//! shown frame was decoded and carried the number painted into it, input arrived, and both displays look
//! the same in the end.

mod desktop;
mod programs;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use wavry_platform::screenshot;
use wavry_platform::x11::{X11Injector, Xvfb};
use wavry_platform::{Geometry, InputEvent, InputInjector};

use crate::latency;
use desktop::Desktop;
use programs::{Client, Host, Programs};

/// Arguments of `wavry demo`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Directory for the latency table, the plot and the screenshots.
    #[arg(long, value_name = "DIR", default_value = "demo-out")]
    out: PathBuf,
    /// Seconds of streaming.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(3..=3600))]
    seconds: u32,
    /// Stream a display of its own even if $DISPLAY names one.
    #[arg(long)]
    own_display: bool,
    /// Frames per second.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=240))]
    fps: u32,
}

/// Size of a display that the demonstration starts.
const OWN_DISPLAY: Geometry = Geometry::new(1280, 720);
/// What is typed on the client's side.
const SENTENCE: &str = "typed on the client";
/// The least likeness of both displays, in dB. Text that was coded once more after it stopped moving
/// reaches 35 and more; one missing window falls below 20.
const LIKENESS_DB: f64 = 30.0;

/// Runs `wavry demo`.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let programs = Programs::beside_this_one()?;
    std::fs::create_dir_all(&arguments.out)
        .with_context(|| format!("cannot make the directory {}", arguments.out.display()))?;
    let out = arguments.out.canonicalize()?;

    let own = std::env::var("DISPLAY").ok().filter(|_| !arguments.own_display);
    let (display, _server) = match own {
        Some(display) if screenshot::capture_display(Some(&display)).is_ok() => (display, None),
        _ => {
            let server = Xvfb::start(OWN_DISPLAY.width, OWN_DISPLAY.height)?;
            (server.display().to_owned(), Some(server))
        }
    };
    let size = screenshot::capture_display(Some(&display))?.geometry();
    say!("host display {display}, {} x {}", size.width, size.height);
    let viewer = Xvfb::start(size.width, size.height)?;
    say!("client display {}", viewer.display());

    let mut desktop = Desktop::start(&display, size)?;
    let mut host = Host::start(&programs, &display, arguments.fps, &out)?;
    let pin = host.wait_for_pin()?;
    say!("the host shows PIN {pin}; pairing");
    programs.pair(&host, &pin, &out)?;
    let mut client = Client::start(&programs, viewer.display(), &host, &out)?;
    client.wait_until_connected()?;

    let input = stream(arguments.seconds, &mut desktop, &mut host, &mut client, viewer.display());
    let alike = input.and_then(|()| compare_displays(&mut desktop, &display, viewer.display(), &out));
    // Both are ended before anything is judged, so that a failure leaves nothing running.
    let ended = client.end().and_then(|()| host.end());
    let likeness = alike?;
    ended?;

    report(&out, &client, likeness)
}

/// Streams for a while; in the middle of it, types on the client's side and looks for the text on the host's.
fn stream(
    seconds: u32,
    desktop: &mut Desktop,
    host: &mut Host,
    client: &mut Client,
    viewer: &str,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut typed = false;
    while start.elapsed() < Duration::from_secs(seconds.into()) {
        let elapsed = start.elapsed().as_secs_f64();
        progress(&format!("streaming, {elapsed:.0} of {seconds} s"));
        if !typed && elapsed > f64::from(seconds) / 3.0 {
            typed = true;
            let took = type_and_wait(desktop, viewer)?;
            say!(
                "\rinput: \"{SENTENCE}\" arrived in the host's terminal after {:.0} ms",
                took.as_secs_f64() * 1e3
            );
        }
        desktop.check()?;
        host.check()?;
        client.check()?;
        std::thread::sleep(Duration::from_millis(200));
    }
    say!("\rstreamed for {seconds} s          ");
    Ok(())
}

/// Clicks into the client's window where the host's terminal is seen, types, and waits for the shell there.
fn type_and_wait(desktop: &Desktop, viewer: &str) -> anyhow::Result<Duration> {
    let mut user = X11Injector::open(Some(viewer))?;
    let (x, y) = desktop.terminal_at();
    let button = wavry_platform::input::BTN_LEFT;
    user.inject(&InputEvent::MouseMoveAbs { x, y })?;
    user.flush()?;
    std::thread::sleep(Duration::from_millis(150));
    for pressed in [true, false] {
        user.inject(&InputEvent::MouseButton { button, pressed })?;
    }
    user.flush()?;
    std::thread::sleep(Duration::from_millis(150));
    let start = Instant::now();
    for key in SENTENCE.chars().chain(['\n']).filter_map(desktop::keycode) {
        for pressed in [true, false] {
            user.inject(&InputEvent::Key { keycode: key, pressed })?;
        }
        user.flush()?;
        std::thread::sleep(Duration::from_millis(8));
    }
    while start.elapsed() < Duration::from_secs(5) {
        if desktop.received_line().as_deref() == Some(SENTENCE) {
            return Ok(start.elapsed());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    anyhow::bail!(
        "what was typed on the client did not reach the host: expected {SENTENCE:?}, found {:?}",
        desktop.received_line()
    )
}

/// Stops what moves, waits for the stream to settle, and takes a picture of both displays. Returns their
/// likeness in dB.
fn compare_displays(desktop: &mut Desktop, host: &str, client: &str, out: &Path) -> anyhow::Result<f64> {
    desktop.freeze();
    let mut best = f64::NEG_INFINITY;
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(250));
        let a = screenshot::capture_display(Some(host))?;
        let b = screenshot::capture_display(Some(client))?;
        let Some(comparison) = screenshot::compare(&a.as_bgrx(), &b.as_bgrx()) else {
            anyhow::bail!("the displays differ in size");
        };
        if comparison.psnr_db > best {
            best = comparison.psnr_db;
            screenshot::save_png(&out.join("host.png"), &a.as_bgrx())?;
            screenshot::save_png(&out.join("client.png"), &b.as_bgrx())?;
        }
        if best >= LIKENESS_DB {
            break;
        }
    }
    Ok(best)
}

/// Writes the table and the plot, and says whether all is well.
fn report(out: &Path, client: &Client, likeness: f64) -> anyhow::Result<()> {
    let frames = latency::join(&programs::host_trace(out), &programs::client_trace(out))?;
    ensure!(!frames.is_empty(), "no frame was shown");
    let table = latency::table(&frames);
    std::fs::write(out.join("latency.txt"), &table)?;
    latency::plot(&frames, &out.join("latency.svg"))?;
    say!("\n{table}");
    say!("{}", client.summary());
    say!("likeness of both displays: {likeness:.1} dB (at least {LIKENESS_DB} wanted)");
    say!("latency table, plot and screenshots: {}", out.display());
    client.judge()?;
    ensure!(
        likeness >= LIKENESS_DB,
        "the client's display does not show what the host's does: {likeness:.1} dB"
    );
    say!("\nall frames were decoded, input arrived, both displays agree");
    Ok(())
}

fn progress(text: &str) {
    use std::io::{IsTerminal, Write};
    if std::io::stdout().is_terminal() {
        print!("\r{text} ");
        let _ = std::io::stdout().flush();
    }
}

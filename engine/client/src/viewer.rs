//! The session in a window.
//!
//! The window's loop has the main thread, as window systems want it; the session is looked after by a
//! thread of its own, which also passes on what the user does.

use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use anyhow::Context;
use wavry_platform::Geometry;
use wavry_platform::window::{Window, WindowConfig, WindowEvent, WindowEvents, WindowHandle};
use wavry_runtime::shutdown::Shutdown;

use crate::config::Config;
use crate::input::InputLink;
use crate::session::{Progress, Session};

/// How often the session is looked at when nothing happens.
const TICK: Duration = Duration::from_millis(100);

/// Streams in a window until it is closed or the session is over.
pub(crate) fn run(config: &Config, shutdown: &Shutdown) -> anyhow::Result<()> {
    let keeper: Arc<OnceLock<Thread>> = Arc::default();
    let to_wake = Arc::clone(&keeper);
    let notify = Box::new(move || {
        if let Some(thread) = to_wake.get() {
            thread.unpark();
        }
    });
    let (window, presenter, events) = Window::open(WindowConfig {
        title: format!("{} - Wavry", config.host),
        geometry: Geometry::new(1280, 720),
        fullscreen: config.fullscreen,
        notify: Some(notify),
        ..WindowConfig::default()
    })
    .context("no window can be opened; --headless streams without")?;
    let handle = window.handle();
    let (config, shutdown) = (config.clone(), shutdown.clone());
    let session = std::thread::Builder::new().name("wavry-session".to_owned()).spawn(move || {
        let _ = keeper.set(std::thread::current());
        let ended = keep(&config, &shutdown, Box::new(presenter), &events);
        close(&handle);
        ended
    })?;
    let shown = window.run();
    // The window is gone, whoever closed it; the keeper hears of it through its events.
    session.thread().unpark();
    let Ok(ended) = session.join() else {
        anyhow::bail!("the session's thread panicked; this is a fault of the program");
    };
    ended.and(shown.context("the window failed"))
}

/// Looks after a session until it is over.
fn keep(
    config: &Config,
    shutdown: &Shutdown,
    presenter: Box<dyn wavry_platform::Presenter>,
    events: &WindowEvents,
) -> anyhow::Result<()> {
    let (mut session, mut input) = Session::start(config, shutdown, presenter)?;
    let ended = loop {
        if !pass_on(events, &mut input) {
            break Ok(());
        }
        match session.poll(config) {
            Ok(Progress::Running) => std::thread::park_timeout(TICK),
            Ok(Progress::Over) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    input.close();
    ended.and(session.finish(config))
}

/// Sends what the user did. False once the window is closed.
fn pass_on(events: &WindowEvents, input: &mut InputLink) -> bool {
    while let Some(event) = events.poll_event() {
        match event {
            WindowEvent::Input { event, .. } => input.send(&event),
            WindowEvent::Closed => return false,
            // Lost events need no answer: each batch carries the state of all keys.
            _ => {}
        }
    }
    true
}

fn close(handle: &WindowHandle) {
    // Closed already is as good.
    let _ = handle.close();
}

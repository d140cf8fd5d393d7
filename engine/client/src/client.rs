//! What `wavry-client` does: a session in a window, or one without any.

use anyhow::Context;
use wavry_platform::headless::{HeadlessScreen, headless};
use wavry_runtime::kernel;
use wavry_runtime::shutdown::Shutdown;

use crate::config::Config;
use crate::session::Session;
use crate::trace::write_codes;
use crate::viewer;
use wavry_runtime::terminal::say;

/// Streams until the host ends it, the window is closed, a signal comes or the chosen duration is over.
///
/// # Errors
/// What kept the client from starting or going on, with what to do about it; and with `--verify`, if a
/// shown frame was not right.
pub fn run(config: &Config) -> anyhow::Result<()> {
    kernel::require()?;
    let shutdown = Shutdown::install().context("signals cannot be handled")?;
    if config.headless {
        let (presenter, screen) = headless();
        let (mut session, _input) = Session::start(config, &shutdown, Box::new(presenter))?;
        let ended = session.watch(config);
        let finished = session.finish(config);
        keep_picture(config, &screen)?;
        if let Some(path) = &config.codes {
            write_codes(path, &screen.take_records())?;
        }
        ended.and(finished)
    } else {
        viewer::run(config, &shutdown)
    }
}

fn keep_picture(config: &Config, screen: &HeadlessScreen) -> anyhow::Result<()> {
    if let Some(path) = &config.screenshot {
        screen.save_png(path)?;
        say(format_args!("the last picture is in {}", path.display()));
    }
    Ok(())
}

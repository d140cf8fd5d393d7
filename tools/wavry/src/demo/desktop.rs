//! Real programs drawing on the host's display, and a painter that numbers its frames.
//!
//! Owns the processes it starts and the painter's thread; all end with the value.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use wavry_platform::Geometry;
use wavry_platform::x11::CodeWindow;

use super::programs::{signal, terminate};

/// Frames that the painter numbers in a second.
const PAINTER_FPS: u32 = 60;

/// What is to be seen on the host's display.
pub(crate) struct Desktop {
    programs: Vec<Child>,
    painter: Option<JoinHandle<anyhow::Result<()>>>,
    painting: Arc<AtomicBool>,
    typed: PathBuf,
    size: Geometry,
    terminal: (i32, i32),
}

impl Desktop {
    /// Starts programs on `display`: two that move, one that follows the pointer, a terminal that takes what
    /// is typed, and a strip along the top edge with frame number and time in it.
    pub(crate) fn start(display: &str, size: Geometry) -> anyhow::Result<Self> {
        let typed = std::env::temp_dir().join(format!("wavry-demo-{}.txt", std::process::id()));
        std::fs::write(&typed, "")?;
        let terminal = (40, 130);
        let shell = format!("echo 'Type on the client:'; head -n 1 > '{}'; sleep 3600", typed.display());
        let terminal_place = format!("70x14+{}+{}", terminal.0, terminal.1);
        let right = size.width.saturating_sub(360);
        let place = |width: u32, height: u32, y: u32| format!("{width}x{height}+{right}+{y}");
        let commands: [&[&str]; 4] = [
            &[
                "xterm",
                "-geometry",
                &terminal_place,
                "-bg",
                "#10202f",
                "-fg",
                "#e8e8e8",
                "-e",
                "sh",
                "-c",
                &shell,
            ],
            &["xclock", "-update", "1", "-geometry", &place(160, 160, 130)],
            &["xeyes", "-geometry", &place(160, 110, 320)],
            &["ico", "-faces", "-sleep", "0.016", "-geometry", &place(240, 240, 450)],
        ];
        let mut desktop = Self {
            programs: Vec::new(),
            painter: None,
            painting: Arc::new(AtomicBool::new(true)),
            typed,
            size,
            terminal,
        };
        for words in commands {
            let child = Command::new(words[0])
                .args(&words[1..])
                .env("DISPLAY", display)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .with_context(|| {
                    format!("{} could not be started; packages x11-apps and xterm have it", words[0])
                })?;
            desktop.programs.push(child);
        }
        let mut window = CodeWindow::open(Some(display), size)?;
        let painting = Arc::clone(&desktop.painting);
        desktop.painter = Some(std::thread::spawn(move || {
            let start = Instant::now();
            let mut frame = 0;
            while painting.load(Ordering::Acquire) {
                window.paint(frame)?;
                frame += 1;
                let due = start + Duration::from_secs(1) * frame / PAINTER_FPS;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            // The window stays until the display was compared.
            std::thread::park();
            Ok(())
        }));
        std::thread::sleep(Duration::from_millis(700));
        desktop.check()?;
        Ok(desktop)
    }

    /// Fails if one of the programs is gone.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        for child in &mut self.programs {
            if let Some(status) = child.try_wait()? {
                anyhow::bail!("a program on the host's display ended ({status})");
            }
        }
        Ok(())
    }

    /// A place in the terminal, as fractions of the display.
    pub(crate) fn terminal_at(&self) -> (f32, f32) {
        let at = |offset: i32, extent: u32| (offset + 60) as f32 / extent as f32;
        (at(self.terminal.0, self.size.width), at(self.terminal.1, self.size.height))
    }

    /// The line that the terminal took, once it is whole.
    pub(crate) fn received_line(&self) -> Option<String> {
        let text = std::fs::read_to_string(&self.typed).ok()?;
        text.strip_suffix('\n').map(str::to_owned)
    }

    /// Stops everything that moves, and leaves it to be seen.
    pub(crate) fn freeze(&mut self) {
        self.painting.store(false, Ordering::Release);
        for child in &self.programs {
            signal(child, "STOP");
        }
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        self.painting.store(false, Ordering::Release);
        if let Some(painter) = self.painter.take() {
            painter.thread().unpark();
            let _ = painter.join();
        }
        for child in &mut self.programs {
            signal(child, "CONT");
            terminate(child);
            let _ = child.wait();
        }
        let _ = std::fs::remove_file(&self.typed);
    }
}

/// The evdev code of the key for a lower-case letter, a space or a line end on a US keyboard
/// (linux/input-event-codes.h).
pub(crate) fn keycode(character: char) -> Option<u32> {
    const ROWS: [(&str, u32); 3] = [("qwertyuiop", 16), ("asdfghjkl", 30), ("zxcvbnm", 44)];
    match character {
        ' ' => Some(57),
        '\n' => Some(28),
        _ => ROWS.iter().find_map(|(row, first)| row.find(character).map(|at| first + at as u32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_us_keyboard() {
        assert_eq!(keycode('q'), Some(16));
        assert_eq!(keycode('p'), Some(25));
        assert_eq!(keycode('a'), Some(30));
        assert_eq!(keycode('m'), Some(50));
        assert_eq!(keycode(' '), Some(57));
        assert_eq!(keycode('\n'), Some(28));
        assert_eq!(keycode('!'), None);
    }
}

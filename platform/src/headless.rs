//! A presenter without a display: checks what it is shown and keeps the last picture.
//!
//! Owns the last picture, counts, and one record per shown frame up to [`RECORDS_MAX`]. It looks for the test source's
//! codes in every picture; a picture that is torn, damaged or out of order shows up in [`CodeStats`]. It never opens a
//! display.
#![forbid(unsafe_code)]

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::monotonic_ns;
use crate::cursor::{CursorImage, CursorUpdate};
use crate::error::DeviceError;
use crate::picture::{BgrxMut, Geometry, Picture};
use crate::present::{FrameInfo, PresentError, PresentStats, Presenter, ShownFrame};
use crate::screenshot;
use crate::testsource::{Code, PictureRef, Position, read_code};

/// Records kept before further ones are only counted: 18 minutes at 60 frames per second, 3 MiB.
pub const RECORDS_MAX: usize = 65_536;

/// A presenter for the decode thread and a screen to look at from elsewhere.
pub fn headless() -> (HeadlessPresenter, HeadlessScreen) {
    let shared = Arc::new(Mutex::new(State { records: Vec::with_capacity(RECORDS_MAX), ..State::default() }));
    (HeadlessPresenter { back: Picture::default(), shared: Arc::clone(&shared) }, HeadlessScreen { shared })
}

/// What the codes in the shown pictures said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CodeStats {
    /// Pictures with the same readable code at top and bottom.
    pub intact: u64,
    /// Pictures with two different codes: top and bottom are of different frames.
    pub torn: u64,
    /// Pictures with only one readable code.
    pub half: u64,
    /// Pictures without any: not from the test source, or damaged beyond reading.
    pub unreadable: u64,
    /// Intact pictures with the same frame number as the one before.
    pub repeated: u64,
    /// Intact pictures with a lower frame number than the one before.
    pub backwards: u64,
    /// Frame numbers left out between two intact pictures.
    pub skipped: u64,
}

/// One shown picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownRecord {
    /// Which picture, and when it was shown.
    pub shown: ShownFrame,
    /// The code in it, if top and bottom agree.
    pub code: Option<Code>,
}

/// The presenting end, for the decode thread.
#[derive(Debug)]
pub struct HeadlessPresenter {
    back: Picture,
    shared: Arc<Mutex<State>>,
}

impl Presenter for HeadlessPresenter {
    fn back(&mut self, geometry: Geometry) -> BgrxMut<'_> {
        if self.back.geometry() != geometry {
            self.back.resize(geometry);
        }
        self.back.as_bgrx_mut()
    }

    fn present(&mut self, info: FrameInfo) -> Result<(), PresentError> {
        let shown = ShownFrame { info, shown_at_ns: monotonic_ns() };
        let picture = PictureRef::from(self.back.as_bgrx());
        let (top, bottom) = (read_code(&picture, Position::Top), read_code(&picture, Position::Bottom));
        let mut state = lock(&self.shared);
        let code = state.on_codes(top, bottom);
        state.stats.presented += 1;
        state.stats.shown += 1;
        if state.records.len() < RECORDS_MAX {
            state.records.push(ShownRecord { shown, code });
        }
        std::mem::swap(&mut state.last, &mut self.back);
        Ok(())
    }

    fn set_cursor(&mut self, cursor: &CursorUpdate<'_>) -> Result<(), PresentError> {
        let mut state = lock(&self.shared);
        if state.cursor.serial != cursor.shape.serial || state.cursor_updates == 0 {
            state.cursor.copy_from(&cursor.shape);
        }
        state.cursor_updates += 1;
        Ok(())
    }

    fn stats(&self) -> PresentStats {
        lock(&self.shared).stats
    }
}

/// The looking end.
#[derive(Debug, Clone)]
pub struct HeadlessScreen {
    shared: Arc<Mutex<State>>,
}

impl HeadlessScreen {
    /// Counts so far.
    pub fn stats(&self) -> PresentStats {
        lock(&self.shared).stats
    }

    /// What the codes said so far.
    pub fn code_stats(&self) -> CodeStats {
        lock(&self.shared).codes
    }

    /// The last intact code.
    pub fn last_code(&self) -> Option<Code> {
        lock(&self.shared).last_code
    }

    /// Takes the records made since the last call, oldest first.
    pub fn take_records(&self) -> Vec<ShownRecord> {
        let mut state = lock(&self.shared);
        std::mem::replace(&mut state.records, Vec::with_capacity(RECORDS_MAX))
    }

    /// A copy of the last picture; empty before the first.
    pub fn last_picture(&self) -> Picture {
        lock(&self.shared).last.clone()
    }

    /// A copy of the last pointer picture, if one came.
    pub fn cursor(&self) -> Option<CursorImage> {
        let state = lock(&self.shared);
        (state.cursor_updates > 0).then(|| state.cursor.clone())
    }

    /// Writes the last picture as a PNG file.
    ///
    /// # Errors
    /// When no picture came yet or the file cannot be written.
    pub fn save_png(&self, path: &Path) -> Result<(), DeviceError> {
        screenshot::save_png(path, &self.last_picture().as_bgrx())
    }
}

#[derive(Debug, Default)]
struct State {
    last: Picture,
    last_code: Option<Code>,
    cursor: CursorImage,
    cursor_updates: u64,
    stats: PresentStats,
    codes: CodeStats,
    records: Vec<ShownRecord>,
}

impl State {
    fn on_codes(&mut self, top: Option<Code>, bottom: Option<Code>) -> Option<Code> {
        let code = match (top, bottom) {
            (Some(top), Some(bottom)) if top == bottom => top,
            (Some(_), Some(_)) => {
                self.codes.torn += 1;
                return None;
            }
            (None, None) => {
                self.codes.unreadable += 1;
                return None;
            }
            _ => {
                self.codes.half += 1;
                return None;
            }
        };
        self.codes.intact += 1;
        if let Some(before) = self.last_code.replace(code) {
            match code.frame.wrapping_sub(before.frame) {
                0 => self.codes.repeated += 1,
                step if step > u32::MAX / 2 => self.codes.backwards += 1,
                step => self.codes.skipped += u64::from(step - 1),
            }
        }
        Some(code)
    }
}

fn lock(shared: &Mutex<State>) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testsource::{Scene, paint_code};

    const SIZE: Geometry = Geometry::new(640, 360);

    fn present(presenter: &mut HeadlessPresenter, top: u32, bottom: u32) {
        let mut back = presenter.back(SIZE);
        Scene::new(SIZE).paint(&mut back, top);
        paint_code(&mut back, Position::Top, &Code { frame: top, timestamp_us: 5 });
        paint_code(&mut back, Position::Bottom, &Code { frame: bottom, timestamp_us: 5 });
        presenter.present(FrameInfo { frame_id: u64::from(top), ready_at_ns: 1 }).unwrap();
    }

    #[test]
    fn codes_are_judged() {
        let (mut presenter, screen) = headless();
        for (top, bottom) in [(4, 4), (5, 5), (8, 8), (8, 8), (7, 7), (9, 8)] {
            present(&mut presenter, top, bottom);
        }
        presenter.back(SIZE).data_mut().fill(0);
        presenter.present(FrameInfo::default()).unwrap();
        let expected =
            CodeStats { intact: 5, torn: 1, unreadable: 1, repeated: 1, backwards: 1, skipped: 2, half: 0 };
        assert_eq!(screen.code_stats(), expected);
        assert_eq!(screen.stats(), PresentStats { presented: 7, shown: 7, dropped: 0 });
        assert_eq!(screen.last_code().map(|code| code.frame), Some(7));
        let records = screen.take_records();
        assert_eq!(records.len(), 7);
        assert_eq!(records[1].code, Some(Code { frame: 5, timestamp_us: 5 }));
        assert_eq!(records[5].code, None);
        assert!(screen.take_records().is_empty());
    }

    #[test]
    fn one_damaged_strip_is_half() {
        let (mut presenter, screen) = headless();
        let mut back = presenter.back(SIZE);
        Scene::new(SIZE).paint(&mut back, 1);
        paint_code(&mut back, Position::Bottom, &Code { frame: 1, timestamp_us: 1 });
        presenter.present(FrameInfo::default()).unwrap();
        assert_eq!(screen.code_stats(), CodeStats { half: 1, ..CodeStats::default() });
    }

    #[test]
    fn the_last_picture_is_kept() {
        let (mut presenter, screen) = headless();
        presenter.back(Geometry::new(2, 1)).data_mut().copy_from_slice(&[1, 2, 3, 0, 4, 5, 6, 0]);
        presenter.present(FrameInfo::default()).unwrap();
        presenter.back(Geometry::new(2, 1)).data_mut().fill(9);
        assert_eq!(screen.last_picture().data(), [1, 2, 3, 0, 4, 5, 6, 0], "painting goes elsewhere");
    }
}

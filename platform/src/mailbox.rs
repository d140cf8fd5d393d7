//! Three pictures between a writer and a reader: one is painted, one is the newest finished, one is shown.
//!
//! Owns the pictures. Invariant: the reader always gets the newest finished picture, the writer always has one to
//! paint, neither waits for the other. The lock is held while two pictures' handles are swapped (some tens of
//! nanoseconds), never while pixels are touched.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::picture::{BgrxMut, Geometry, Picture};
use crate::present::{FrameInfo, PresentStats};

/// A connected writer and reader.
pub fn mailbox() -> (PictureWriter, PictureReader) {
    let shared = Arc::new(Shared::default());
    (
        PictureWriter { back: Picture::default(), shared: Arc::clone(&shared) },
        PictureReader { front: Picture::default(), info: FrameInfo::default(), shared },
    )
}

/// The painting end.
#[derive(Debug)]
pub struct PictureWriter {
    back: Picture,
    shared: Arc<Shared>,
}

impl PictureWriter {
    /// The picture to paint next. What it holds is of no meaning.
    pub fn back(&mut self, geometry: Geometry) -> BgrxMut<'_> {
        if self.back.geometry() != geometry {
            self.back.resize(geometry);
        }
        self.back.as_bgrx_mut()
    }

    /// Makes the painted picture the newest.
    pub fn publish(&mut self, info: FrameInfo) {
        let mut middle = self.shared.middle();
        std::mem::swap(&mut middle.picture, &mut self.back);
        middle.info = info;
        let overtaken = std::mem::replace(&mut middle.fresh, true);
        drop(middle);
        self.shared.presented.fetch_add(1, Ordering::Relaxed);
        if overtaken {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts so far.
    pub fn stats(&self) -> PresentStats {
        self.shared.stats()
    }
}

/// The showing end.
#[derive(Debug)]
pub struct PictureReader {
    front: Picture,
    info: FrameInfo,
    shared: Arc<Shared>,
}

impl PictureReader {
    /// Takes the newest picture, if there is one that was not taken yet.
    pub fn take(&mut self) -> bool {
        let mut middle = self.shared.middle();
        let fresh = std::mem::replace(&mut middle.fresh, false);
        if fresh {
            std::mem::swap(&mut middle.picture, &mut self.front);
            self.info = middle.info;
        }
        fresh
    }

    /// The picture last taken; empty before the first.
    pub fn front(&self) -> &Picture {
        &self.front
    }

    /// What was published with it.
    pub fn info(&self) -> FrameInfo {
        self.info
    }

    /// The picture last taken was shown.
    pub fn on_shown(&self) {
        self.shared.shown.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts so far.
    pub fn stats(&self) -> PresentStats {
        self.shared.stats()
    }
}

#[derive(Debug, Default)]
struct Shared {
    middle: Mutex<Middle>,
    presented: AtomicU64,
    shown: AtomicU64,
    dropped: AtomicU64,
}

impl Shared {
    fn middle(&self) -> MutexGuard<'_, Middle> {
        // Nothing under the lock can panic half-way, so a poisoned lock still guards a whole value.
        self.middle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stats(&self) -> PresentStats {
        PresentStats {
            presented: self.presented.load(Ordering::Relaxed),
            shown: self.shown.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }
}

#[derive(Debug, Default)]
struct Middle {
    picture: Picture,
    info: FrameInfo,
    fresh: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(writer: &mut PictureWriter, geometry: Geometry, value: u8) {
        writer.back(geometry).data_mut().fill(value);
        writer.publish(FrameInfo { frame_id: u64::from(value), ready_at_ns: 0 });
    }

    #[test]
    fn latest_wins_and_the_overtaken_are_counted() {
        let (mut writer, mut reader) = mailbox();
        assert!(!reader.take());
        for value in 1..=3 {
            publish(&mut writer, Geometry::new(2, 2), value);
        }
        assert!(reader.take());
        assert_eq!(reader.front().data(), [3; 16]);
        assert_eq!(reader.info().frame_id, 3);
        assert!(!reader.take(), "taken once");
        reader.on_shown();
        assert_eq!(writer.stats(), PresentStats { presented: 3, shown: 1, dropped: 2 });
    }

    #[test]
    fn the_front_picture_is_not_painted_over() {
        let (mut writer, mut reader) = mailbox();
        publish(&mut writer, Geometry::new(2, 1), 1);
        assert!(reader.take());
        for value in 2..9 {
            publish(&mut writer, Geometry::new(1, u32::from(value)), value);
        }
        assert_eq!(reader.front().data(), [1; 8]);
        assert!(reader.take());
        assert_eq!(reader.front().geometry(), Geometry::new(1, 8));
        assert_eq!(reader.front().data(), [8; 32]);
    }

    #[test]
    fn two_threads_never_see_a_torn_picture() {
        let (mut writer, mut reader) = mailbox();
        let painter = std::thread::spawn(move || {
            for frame in 0..2000u32 {
                publish(&mut writer, Geometry::new(32, 8), frame as u8);
            }
            writer.stats()
        });
        let mut taken = 0;
        loop {
            let done = painter.is_finished();
            if reader.take() {
                let first = reader.front().data()[0];
                assert!(reader.front().data().iter().all(|&byte| byte == first));
                assert_eq!(reader.info().frame_id as u8, first);
                taken += 1;
            } else if done {
                break;
            }
        }
        let stats = painter.join().unwrap();
        assert_eq!(stats.presented, 2000);
        assert_eq!(stats.dropped + taken, 2000);
    }
}

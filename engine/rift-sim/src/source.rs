//! A model of a video encoder: frames of the size that the target rate asks for, in slices, with
//! references that can be invalidated.
//!
//! Owns the truth about every frame: what it references and what its bytes are, against which the player's
//! side is checked. Invariant: a frame references only frames that the encoder still
//! holds and that were not invalidated.

use std::collections::VecDeque;

use fastrand::Rng;
use rift_core::{Bitrate, FrameId, Timestamp};

use crate::link::{next_after, normal};

/// Newest frames the encoder can still reference: with two long-term ones, 16 reference pictures (H.264 annex A).
const REFERENCES_MAX: usize = 14;
/// Frames from one that is known to be there to the next that is kept until that is known.
const MARK_FRAMES: u64 = 4;
/// Frames of which the truth is kept: far more than are ever on their way.
const TRUTHS_MAX: usize = 1024;
/// Random bytes that slices are cut from: a prime number, so that pieces do not repeat in step with packets.
const POOL_LEN: usize = 262_139;
/// Most slices in a frame.
pub const SLICES_MAX: usize = 8;

/// What the encoder makes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SourceConfig {
    /// Frames per second.
    pub fps: u32,
    /// Video rate before the controller says otherwise.
    pub rate: Bitrate,
    /// Slices per frame, 1 to 8.
    pub slices: u32,
    /// Time to encode a frame in microseconds; slices come out evenly over it.
    pub encode_us: u32,
    /// A keyframe is this many times as large as other frames.
    pub keyframe_factor: f64,
    /// Deviation of frame sizes as a share of the mean; they are normally distributed.
    pub noise: f64,
    /// A frame after a change of scene is this many times as large as others.
    pub scene_factor: f64,
    /// Time between changes of scene in microseconds: at random, so long on average; 0 for none.
    pub scene_us: u64,
    /// What the pictures need at most, whatever the target; nothing where `None`.
    pub content: Option<Bitrate>,
    /// Whether the encoder follows the rates that the host asks for.
    pub adaptive: bool,
    /// The least and the most that the controller may ask for; a tenth and twice of `rate` where `None`.
    pub rate_min: Option<Bitrate>,
    /// See `rate_min`.
    pub rate_max: Option<Bitrate>,
}

impl SourceConfig {
    /// The least and the most that a controller may ask for.
    #[must_use]
    pub fn bounds(&self) -> (Bitrate, Bitrate) {
        let bps = self.rate.as_bps();
        let least = self.rate_min.unwrap_or(Bitrate::from_bps(bps / 10));
        (least, self.rate_max.unwrap_or(Bitrate::from_bps(bps.saturating_mul(2))).max(least))
    }
}

impl Default for SourceConfig {
    /// 60 frames per second at 20 Mbit/s in four slices.
    fn default() -> Self {
        Self {
            fps: 60,
            rate: Bitrate::from_mbps(20),
            slices: 4,
            encode_us: 4_000,
            keyframe_factor: 5.0,
            noise: 0.15,
            scene_factor: 2.5,
            scene_us: 0,
            content: None,
            adaptive: true,
            rate_min: None,
            rate_max: None,
        }
    }
}

/// Why a frame is a keyframe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyframeCause {
    /// The session's first.
    First,
    /// The host asked for it.
    Requested,
    /// The frame that was named as the last good one is not there any more.
    NoReference,
}

/// What is true of an encoded frame.
#[derive(Clone, Copy, Debug)]
pub struct FrameTruth {
    /// The frame.
    pub id: FrameId,
    /// Virtual time of capture.
    pub captured_at: Timestamp,
    /// Whether it is a keyframe, and why.
    pub keyframe: Option<KeyframeCause>,
    /// What it predicts from.
    pub reference: Option<FrameId>,
    /// Length of each slice.
    pub slices: [usize; SLICES_MAX],
    /// How many slices it has.
    pub slice_count: u32,
}

/// The encoder model.
#[derive(Debug)]
pub struct Source {
    config: SourceConfig,
    rng: Rng,
    seed: u64,
    next: FrameId,
    rate: Bitrate,
    fps: u32,
    skip: u32,
    /// The picture changes altogether at this moment.
    scene_at: Timestamp,
    held: bool,
    keyframe: Option<KeyframeCause>,
    references: VecDeque<FrameId>,
    /// Long-term references: one that the client is known to have decoded, and one that is to take its place once that
    /// is known of it.
    confirmed: Option<FrameId>,
    pending: Option<FrameId>,
    /// The next frame should reference nothing newer.
    preferred: Option<FrameId>,
    truths: VecDeque<FrameTruth>,
    pool: Vec<u8>,
}

impl Source {
    /// An encoder whose first frame will be a keyframe.
    #[must_use]
    pub fn new(config: SourceConfig, seed: u64) -> Self {
        let mut source = Self::before_first(config, seed);
        source.scene_at = source.next_scene(Timestamp::ZERO);
        source
    }

    fn before_first(config: SourceConfig, seed: u64) -> Self {
        let config = SourceConfig {
            fps: config.fps.max(1),
            slices: config.slices.clamp(1, SLICES_MAX as u32),
            ..config
        };
        let mut pool = vec![0; POOL_LEN];
        Rng::with_seed(!seed).fill(&mut pool);
        Self {
            pool,
            config,
            rng: Rng::with_seed(seed),
            seed,
            next: FrameId(0),
            rate: config.rate,
            fps: config.fps,
            skip: 0,
            scene_at: Timestamp::ZERO,
            held: false,
            keyframe: Some(KeyframeCause::First),
            references: VecDeque::with_capacity(REFERENCES_MAX),
            confirmed: None,
            pending: None,
            preferred: None,
            truths: VecDeque::with_capacity(TRUTHS_MAX),
        }
    }

    /// A new client: begins with a keyframe. Frame ids go on.
    pub fn restart(&mut self) {
        self.keyframe = Some(KeyframeCause::First);
        self.skip = 0;
        self.held = false;
    }

    /// Encodes a frame captured at `now`, unless it is to be skipped.
    pub fn capture(&mut self, now: Timestamp) -> Option<FrameTruth> {
        if self.held {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        let id = self.next;
        self.next = id.next();
        let preferred = self.preferred.take().and_then(|known| self.at_most(known));
        if let Some(limit) = preferred {
            self.pending = self.pending.filter(|&id| id <= limit);
        }
        let reference = preferred.or(self.references.back().copied()).or(self.confirmed);
        let keyframe = self.keyframe.take().or(reference.is_none().then_some(KeyframeCause::NoReference));
        let reference = if keyframe.is_some() { None } else { reference };
        if keyframe.is_some() {
            self.references.clear();
            (self.confirmed, self.pending) = (None, None);
        }
        if self.pending.is_none() && self.confirmed.is_none_or(|known| id.0 >= known.0 + MARK_FRAMES) {
            self.pending = Some(id);
        }
        let mut slices = [0; SLICES_MAX];
        let slice_len =
            self.frame_len(now, keyframe.is_some()).div_ceil(u64::from(self.config.slices)).max(1);
        for (_, len) in (0..self.config.slices).zip(&mut slices) {
            *len = usize::try_from(slice_len).unwrap_or(usize::MAX);
        }
        if self.references.len() == REFERENCES_MAX {
            self.references.pop_front();
        }
        self.references.push_back(id);
        let truth =
            FrameTruth { id, captured_at: now, keyframe, reference, slices, slice_count: self.config.slices };
        if self.truths.len() == TRUTHS_MAX {
            self.truths.pop_front();
        }
        self.truths.push_back(truth);
        Some(truth)
    }

    /// Writes slice `index` of frame `id` into `out`. The same slice always has the same bytes. False if there is no
    /// such slice.
    pub fn emit_slice(&self, id: FrameId, index: u32, out: &mut Vec<u8>) -> bool {
        let Some(len) = self.slice_len(id, index) else { return false };
        out.clear();
        let (own, mut at) = self.slice_bytes(id, index);
        out.extend_from_slice(&own[..len.min(own.len())]);
        while out.len() < len {
            let end = POOL_LEN.min(at + len - out.len());
            out.extend_from_slice(&self.pool[at..end]);
            at = 0;
        }
        true
    }

    /// Whether `data` is slice `index` of frame `id`, byte for byte.
    #[must_use]
    pub fn is_slice(&self, id: FrameId, index: u32, data: &[u8]) -> bool {
        if self.slice_len(id, index) != Some(data.len()) {
            return false;
        }
        let (own, mut at) = self.slice_bytes(id, index);
        let (head, mut rest) = data.split_at(data.len().min(own.len()));
        if head != &own[..head.len()] {
            return false;
        }
        while !rest.is_empty() {
            let piece = &self.pool[at..POOL_LEN.min(at + rest.len())];
            let (here, after) = rest.split_at(piece.len());
            if here != piece {
                return false;
            }
            (rest, at) = (after, 0);
        }
        true
    }

    fn slice_len(&self, id: FrameId, index: u32) -> Option<usize> {
        let truth = self.truth(id).filter(|truth| index < truth.slice_count)?;
        truth.slices.get(index as usize).copied()
    }

    /// How a slice begins, and where in the pool it goes on: with a stretch of random bytes of its own, of a pool that
    /// is made once, as bytes are not what a run is about.
    fn slice_bytes(&self, id: FrameId, index: u32) -> ([u8; 24], usize) {
        let stream = self.seed ^ id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(index) << 56;
        let mut own = [0; 24];
        // Recognisable if it ever left unsealed.
        own[..16].copy_from_slice(&Self::MARK);
        own[16..].copy_from_slice(&stream.to_le_bytes());
        (own, (Rng::with_seed(stream).usize(..POOL_LEN) + own.len()) % POOL_LEN)
    }

    /// How each slice begins.
    pub const MARK: [u8; 16] = *b"plaintext slice:";

    /// What is true of frame `id`, if it was made and not long ago.
    #[must_use]
    pub fn truth(&self, id: FrameId) -> Option<&FrameTruth> {
        self.truths.get(self.position(id)?)
    }

    /// The next frame must be a keyframe.
    pub fn on_keyframe_needed(&mut self) {
        self.keyframe.get_or_insert(KeyframeCause::Requested);
    }

    /// Nothing newer than `last_valid` may be referenced.
    pub fn on_reference_invalidated(&mut self, last_valid: FrameId) {
        self.references.retain(|&id| id <= last_valid);
        self.confirmed = self.confirmed.filter(|&id| id <= last_valid);
        self.pending = self.pending.filter(|&id| id <= last_valid);
    }

    /// The next frame should predict from `known`, which the client has, if that is still here.
    pub fn on_reference_preferred(&mut self, known: FrameId) {
        self.preferred = Some(known);
    }

    /// The client has decoded `frame` and all that it was predicted from.
    pub fn on_acknowledged(&mut self, frame: FrameId) {
        if let Some(marked) = self.pending.take_if(|marked| *marked <= frame) {
            self.confirmed = Some(marked);
        }
    }

    /// `known`, or the long-term reference if that is older.
    fn at_most(&self, known: FrameId) -> Option<FrameId> {
        let here = self.references.contains(&known).then_some(known);
        here.or(self.confirmed.filter(|&id| id <= known))
    }

    /// Follows the controller, where the encoder is adaptive.
    pub fn on_rate_changed(&mut self, rate: Bitrate, fps: u32) {
        if self.config.adaptive {
            self.rate = rate;
            self.fps = fps.clamp(1, self.config.fps);
        }
    }

    /// Leaves out the next `frames` captures.
    pub fn on_skip_frames(&mut self, frames: u32) {
        self.skip = self.skip.max(frames.min(8));
    }

    /// What the pictures need at most from now on.
    pub fn set_content(&mut self, content: Option<Bitrate>) {
        self.config.content = content;
    }

    /// What the encoder makes.
    #[must_use]
    pub fn config(&self) -> &SourceConfig {
        &self.config
    }

    /// Encodes nothing until told otherwise.
    pub fn on_held(&mut self, held: bool) {
        self.held = held;
    }

    /// Whether nothing is encoded for now.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// The target rate.
    #[must_use]
    pub fn rate(&self) -> Bitrate {
        self.rate
    }

    /// Time between captures in microseconds.
    #[must_use]
    pub fn interval_us(&self) -> u64 {
        1_000_000 / u64::from(self.fps)
    }

    /// When slice `index` is ready, in microseconds after capture.
    #[must_use]
    pub fn slice_ready_us(&self, index: u32) -> u32 {
        self.config.encode_us / self.config.slices * (index + 1)
    }

    fn position(&self, id: FrameId) -> Option<usize> {
        let oldest = self.truths.front()?.id;
        usize::try_from(id.0.checked_sub(oldest.0)?).ok()
    }

    fn frame_len(&mut self, now: Timestamp, keyframe: bool) -> u64 {
        let rate = self.config.content.map_or(self.rate, |content| content.min(self.rate));
        let mean = rate.bytes_in(self.interval_us()) as f64;
        let noise = 1.0 + self.config.noise * normal(&mut self.rng).clamp(-3.0, 3.0);
        let scene = now >= self.scene_at;
        if scene {
            self.scene_at = self.next_scene(now);
        }
        let factor = if keyframe { self.config.keyframe_factor } else { 1.0 };
        let factor = if scene { self.config.scene_factor.max(factor) } else { factor };
        (mean * noise.max(0.1) * factor).max(1.0) as u64
    }

    fn next_scene(&mut self, now: Timestamp) -> Timestamp {
        match self.config.scene_us {
            0 => Timestamp::NEVER,
            us => now.plus_micros(next_after(&mut self.rng, us as f64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(source: &mut Source, count: u64) -> Vec<FrameTruth> {
        (0..count).filter_map(|i| source.capture(Timestamp::from_micros(i))).collect()
    }

    #[test]
    fn frames_follow_the_rate_and_reference_the_one_before() {
        let mut source = Source::new(SourceConfig::default(), 1);
        let frames = frames(&mut source, 600);
        assert_eq!(frames[0].keyframe, Some(KeyframeCause::First));
        for pair in frames.windows(2) {
            assert_eq!(pair[1].reference, Some(pair[0].id));
        }
        let bytes: usize = frames[1..].iter().flat_map(|f| f.slices).sum();
        let mbps = bytes as f64 * 8.0 / (599.0 / 60.0) / 1e6;
        assert!((19.5..20.6).contains(&mbps), "{mbps}");
    }

    #[test]
    fn an_invalidated_frame_is_never_referenced_again() {
        let mut source = Source::new(SourceConfig::default(), 1);
        frames(&mut source, 10);
        source.on_reference_invalidated(FrameId(6));
        let next = frames(&mut source, 2);
        assert_eq!((next[0].reference, next[0].keyframe), (Some(FrameId(6)), None));
        assert_eq!(next[1].reference, Some(next[0].id));
    }

    #[test]
    fn what_was_acknowledged_is_held_however_long_that_took() {
        let mut source = Source::new(SourceConfig::default(), 1);
        frames(&mut source, 40);
        source.on_acknowledged(FrameId(7));
        let first = frames(&mut source, 40);
        assert!(first.windows(2).all(|pair| pair[1].reference == Some(pair[0].id)));
        source.on_acknowledged(FrameId(60));
        // The mark of frame 0 was confirmed by 7, that of the frame after the acknowledgement by 60.
        source.on_reference_preferred(FrameId(60));
        assert_eq!(frames(&mut source, 1)[0].reference, Some(FrameId(40)));
        source.on_reference_invalidated(FrameId(60));
        let next = frames(&mut source, 2);
        assert_eq!((next[0].reference, next[0].keyframe), (Some(FrameId(40)), None));
        assert_eq!(next[1].reference, Some(next[0].id));
    }

    #[test]
    fn a_preference_is_for_one_frame_and_takes_no_keyframe() {
        let mut source = Source::new(SourceConfig::default(), 1);
        frames(&mut source, 20);
        source.on_reference_preferred(FrameId(15));
        let next = frames(&mut source, 2);
        assert_eq!(next[0].reference, Some(FrameId(15)));
        assert_eq!(next[1].reference, Some(next[0].id), "and nothing was forgotten");
        source.on_reference_preferred(FrameId(2));
        let next = frames(&mut source, 1);
        assert_eq!((next[0].reference, next[0].keyframe), (Some(FrameId(21)), None), "long gone");
    }

    #[test]
    fn without_a_reference_there_is_a_keyframe() {
        let mut source = Source::new(SourceConfig::default(), 1);
        frames(&mut source, 40);
        source.on_reference_invalidated(FrameId(3));
        let next = source.capture(Timestamp::ZERO).unwrap();
        assert_eq!((next.reference, next.keyframe), (None, Some(KeyframeCause::NoReference)));
        source.on_keyframe_needed();
        assert_eq!(source.capture(Timestamp::ZERO).unwrap().keyframe, Some(KeyframeCause::Requested));
    }

    #[test]
    fn the_bytes_of_a_slice_are_reproducible_and_its_own() {
        let mut source = Source::new(SourceConfig::default(), 9);
        frames(&mut source, 3);
        let bytes = |frame, index| {
            let mut out = Vec::new();
            assert!(source.emit_slice(FrameId(frame), index, &mut out));
            out
        };
        assert_eq!(bytes(1, 1), bytes(1, 1));
        assert_ne!(bytes(1, 1), bytes(1, 2));
        assert_ne!(bytes(1, 1), bytes(2, 1));
    }

    /// In frames of any size: shorter than what makes a slice its own, and longer than the pool.
    #[test]
    fn every_byte_of_a_slice_counts() {
        for mbps in [0, 1, 20, 800] {
            let rate = Bitrate::from_bps(1 + mbps * 1_000_000);
            let mut source = Source::new(SourceConfig { rate, ..SourceConfig::default() }, 9);
            frames(&mut source, 2);
            let mut out = Vec::new();
            assert!(source.emit_slice(FrameId(1), 1, &mut out));
            assert!(source.is_slice(FrameId(1), 1, &out), "{mbps}");
            for at in (0..out.len()).step_by(1 + out.len() / 500) {
                out[at] ^= 1;
                assert!(!source.is_slice(FrameId(1), 1, &out), "{mbps}: {at} of {}", out.len());
                out[at] ^= 1;
            }
            out.push(0);
            assert!(!source.is_slice(FrameId(1), 1, &out), "{mbps}: longer");
            assert!(!source.is_slice(FrameId(1), 1, &out[..out.len() - 2]), "{mbps}: shorter");
            assert!(!source.is_slice(FrameId(1), 4, &[]) && !source.is_slice(FrameId(7), 0, &[]));
        }
    }

    #[test]
    fn scenes_change_at_their_pace_and_content_caps_the_rate() {
        let config = SourceConfig { noise: 0.0, scene_us: 4_000_000, ..SourceConfig::default() };
        let mut source = Source::new(config, 1);
        let sizes: Vec<_> = (1..36_000u64)
            .filter_map(|i| source.capture(Timestamp::from_micros(i * 16_667)))
            .map(|frame| frame.slices[0])
            .collect();
        let usual = sizes[1..].iter().min().unwrap();
        let large = sizes[1..].iter().filter(|&&size| size > usual * 2).count();
        assert!((110..190).contains(&large), "150 in ten minutes, on average: {large}");
        source.set_content(Some(Bitrate::from_mbps(2)));
        assert!(source.capture(Timestamp::ZERO).unwrap().slices[0] * 9 < *usual);
    }

    #[test]
    fn skipped_frames_are_not_encoded() {
        let mut source = Source::new(SourceConfig::default(), 1);
        source.on_skip_frames(2);
        assert_eq!(frames(&mut source, 5).len(), 3);
    }
}

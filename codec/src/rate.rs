//! From a target bitrate to a quantiser for every single frame.
//!
//! Owns: the bit budget of the next frame, the debt of the past ones, and a model of how many bits a frame
//! takes at a quantiser. Encoders run at a fixed quantiser per frame and have no buffer model of their own: a
//! library's own rate control looks at seconds, delays the first slice, and reacts to a new target over many
//! frames, while congestion control needs the very next frame to be smaller.
//! Never: skips a frame, asks for a keyframe, or looks at pixels.
//! Invariant: debt and credit are bounded, so an idle screen cannot save up for a burst that a queue then holds.
//!
//! The model is the usual one for transform codecs, bits = complexity x 2^(-slope x QP / 6): the quantiser step
//! doubles every 6 QP (ITU-T H.264 section 8.5), and slope is near 1. Complexity follows the last frames and
//! slope is learnt from the changes of QP that the stream makes anyway.
//!
//! The quantiser is an integer, one step of which is 12 % of a frame's size on most pictures, so single frames
//! are that far off and their mean is not.

/// Smallest quantiser used: below it bits grow and nobody sees it.
pub const QP_MIN: u8 = 12;
/// Largest quantiser of the standard.
pub const QP_MAX: u8 = 51;

/// Frames over which a debt is paid back. Short, as the receiver has no buffer to speak of.
const PAYBACK_FRAMES: f64 = 6.0;
/// Most credit that an idle stretch leaves, in frames.
const CREDIT_FRAMES_MAX: f64 = 0.5;
/// Most debt that is remembered, in frames. A scene that cannot be made smaller must not starve the next.
const DEBT_FRAMES_MAX: f64 = 8.0;
/// Share of a frame's budget that paying back leaves at least.
const BUDGET_SHARE_MIN: f64 = 0.35;
/// What a keyframe may take, in frames. It travels this many frame times at the target rate.
const KEYFRAME_FRAMES: f64 = 3.0;
/// How fast complexity follows the last frame.
const COMPLEXITY_WEIGHT: f64 = 0.6;
/// Range in which the slope is believed. Faint noise vanishes within a few QP, which looks very steep.
const SLOPE_RANGE: (f64, f64) = (0.6, 4.0);

/// What to encode the next frame with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramePlan {
    /// Bits set aside for it.
    pub budget_bits: u32,
    /// Quantiser that should meet it.
    pub qp: u8,
}

/// Bits as a function of the quantiser, for one kind of frame.
#[derive(Debug, Clone, Copy)]
struct SizeModel {
    /// log2 of the bits at QP 0.
    complexity: f64,
    /// Halvings of size per 6 QP.
    slope: f64,
    /// QP and log2 of bits of the last frame.
    last: Option<(f64, f64)>,
}

impl SizeModel {
    fn new(pixels: f64, bits_per_pixel_at_26: f64) -> Self {
        Self { complexity: (pixels * bits_per_pixel_at_26).log2() + 26.0 / 6.0, slope: 1.0, last: None }
    }

    fn qp_for(&self, bits: f64) -> f64 {
        (self.complexity - bits.max(1.0).log2()) * 6.0 / self.slope
    }

    fn on_frame(&mut self, qp: f64, bits: f64) {
        let bits = bits.max(256.0).log2();
        if let Some((last_qp, last_bits)) = self.last {
            let step = qp - last_qp;
            // Content changes too, so only a clear change of QP says anything about the slope.
            if step.abs() >= 2.0 {
                let seen = ((last_bits - bits) * 6.0 / step).clamp(SLOPE_RANGE.0, SLOPE_RANGE.1);
                let old = self.slope;
                self.slope += 0.3 * (seen - self.slope);
                // The new slope must say the same as the old one about the frame before.
                self.complexity += (self.slope - old) * last_qp / 6.0;
            }
        }
        let seen = bits + self.slope * qp / 6.0;
        let weight = if self.last.is_none() { 1.0 } else { COMPLEXITY_WEIGHT };
        self.complexity += weight * (seen - self.complexity);
        self.last = Some((qp, bits));
    }
}

/// Chooses the quantiser of every frame so that their sizes follow the target.
#[derive(Debug, Clone)]
pub struct RateController {
    bitrate_bps: f64,
    fps: f64,
    /// Bits spent beyond the target; negative is credit.
    debt_bits: f64,
    intra: SizeModel,
    inter: SizeModel,
    last_qp: Option<u8>,
}

impl RateController {
    /// For pictures of `pixels` luma samples.
    pub fn new(pixels: u32, bitrate_bps: u64, fps: f32) -> Self {
        let pixels = f64::from(pixels);
        Self {
            bitrate_bps: bitrate_bps as f64,
            fps: f64::from(fps),
            debt_bits: 0.0,
            // Typical for screen and game pictures; replaced by the first frame of each kind.
            intra: SizeModel::new(pixels, 0.9),
            inter: SizeModel::new(pixels, 0.12),
            last_qp: None,
        }
    }

    /// A new target, from the next frame on. Debt in frames stays what it was, so that a step down is not
    /// followed by paying for frames that the old rate carried well.
    pub fn set_bitrate(&mut self, bitrate_bps: u64) {
        self.debt_bits *= bitrate_bps as f64 / self.bitrate_bps;
        self.bitrate_bps = bitrate_bps as f64;
    }

    /// A new frame rate, from the next frame on.
    pub fn set_frame_rate(&mut self, fps: f32) {
        self.fps = f64::from(fps);
    }

    /// Bits that one frame has at the target, debt aside.
    pub fn frame_bits(&self) -> f64 {
        self.bitrate_bps / self.fps
    }

    /// The next frame.
    pub fn plan(&self, keyframe: bool) -> FramePlan {
        let frame = self.frame_bits();
        let (model, budget) = if keyframe {
            (&self.intra, frame * KEYFRAME_FRAMES)
        } else {
            (&self.inter, (frame - self.debt_bits / PAYBACK_FRAMES).max(frame * BUDGET_SHARE_MIN))
        };
        let mut qp = model.qp_for(budget).round().clamp(f64::from(QP_MIN), f64::from(QP_MAX)) as u8;
        // One step of QP is 12 % of size: staying put within that stops flicker, debt corrects the mean.
        if let Some(last) = self.last_qp
            && !keyframe
            && qp.abs_diff(last) == 1
            && (model.qp_for(budget) - f64::from(last)).abs() < 0.7
        {
            qp = last;
        }
        FramePlan { budget_bits: budget.min(f64::from(u32::MAX)) as u32, qp }
    }

    /// What became of it.
    pub fn on_encoded(&mut self, keyframe: bool, qp: u8, bytes: u32) {
        let bits = f64::from(bytes) * 8.0;
        let frame = self.frame_bits();
        let model = if keyframe { &mut self.intra } else { &mut self.inter };
        model.on_frame(f64::from(qp), bits);
        if keyframe && self.inter.last.is_none() {
            // Until a predicted frame was seen, guess from the keyframe.
            self.inter.complexity = self.intra.complexity - 2.0;
        }
        if !keyframe {
            self.last_qp = Some(qp);
        }
        self.debt_bits =
            (self.debt_bits + bits - frame).clamp(-CREDIT_FRAMES_MAX * frame, DEBT_FRAMES_MAX * frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture whose size follows its own law, with noise; not the controller's model (slope 1.25, floor).
    struct Content {
        complexity: f64,
        noise: fastrand::Rng,
    }

    impl Content {
        fn bytes(&mut self, qp: u8, keyframe: bool) -> u32 {
            let kind = if keyframe { 4.0 } else { 1.0 };
            let noise = 0.95 + 0.1 * self.noise.f64();
            ((self.complexity * kind * noise * 2f64.powf(-1.25 * f64::from(qp) / 6.0) + 800.0) / 8.0) as u32
        }
    }

    fn run(rate: &mut RateController, content: &mut Content, frames: usize) -> f64 {
        let mut sum = 0.0;
        for _ in 0..frames {
            let plan = rate.plan(false);
            let bytes = content.bytes(plan.qp, false);
            rate.on_encoded(false, plan.qp, bytes);
            sum += f64::from(bytes) * 8.0;
        }
        sum
    }

    fn started() -> (RateController, Content) {
        let mut rate = RateController::new(1280 * 720, 10_000_000, 60.0);
        let mut content = Content { complexity: 4e7, noise: fastrand::Rng::with_seed(7) };
        let plan = rate.plan(true);
        rate.on_encoded(true, plan.qp, content.bytes(plan.qp, true));
        run(&mut rate, &mut content, 30);
        (rate, content)
    }

    #[test]
    fn sums_follow_every_step_within_ten_frames() {
        let (mut rate, mut content) = started();
        for bitrate in [10_000_000u64, 5_000_000, 20_000_000, 3_000_000, 12_000_000] {
            rate.set_bitrate(bitrate);
            let sum = run(&mut rate, &mut content, 10);
            let target = bitrate as f64 / 6.0;
            assert!((sum / target - 1.0).abs() < 0.15, "{bitrate}: {:.3}", sum / target);
        }
    }

    #[test]
    fn the_very_next_frame_obeys() {
        let (mut rate, mut content) = started();
        rate.set_bitrate(4_000_000);
        let plan = rate.plan(false);
        let bits = f64::from(content.bytes(plan.qp, false)) * 8.0;
        assert!(bits < 1.35 * 4e6 / 60.0, "{bits}");
    }

    #[test]
    fn a_scene_twice_as_complex_is_absorbed() {
        let (mut rate, mut content) = started();
        content.complexity *= 2.0;
        let sum = run(&mut rate, &mut content, 20);
        assert!((sum / (1e7 / 3.0) - 1.0).abs() < 0.15, "{}", sum / (1e7 / 3.0));
    }

    #[test]
    fn an_idle_screen_saves_up_less_than_a_frame() {
        let (mut rate, _) = started();
        for _ in 0..1000 {
            let plan = rate.plan(false);
            rate.on_encoded(false, plan.qp, 40);
        }
        let budget = f64::from(rate.plan(false).budget_bits);
        assert!(budget <= rate.frame_bits() * 1.1, "{budget}");
    }

    #[test]
    fn frame_rate_changes_the_share_of_a_frame() {
        let (mut rate, _) = started();
        let before = rate.frame_bits();
        rate.set_frame_rate(30.0);
        assert_eq!(rate.frame_bits(), before * 2.0);
    }
}

//! A moving picture to code, and what to measure on the other side.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)] // every test program uses its own part

use wavry_codec::{
    DecodeError, Decoder, EncodeReport, EncodeRequest, Encoder, FrameInput, I420Buffer, I420View, SliceSink,
    convert,
};

/// A slice as it would travel.
#[derive(Debug, Clone)]
pub struct Sent {
    pub frame_id: u64,
    pub index: u32,
    pub last: bool,
    pub keyframe: bool,
    pub reference: Option<u64>,
    pub data: Vec<u8>,
}

/// A textured background that scrolls, boxes that cross it, and a little noise: something to code in every
/// frame, at every bitrate.
pub struct Pattern {
    pub width: u32,
    pub height: u32,
    texture: Vec<[u8; 3]>,
    pixels: Vec<u8>,
}

const TEXTURE: usize = 256;

impl Pattern {
    pub fn new(width: u32, height: u32) -> Self {
        let mut rng = fastrand::Rng::with_seed(42);
        // Noise summed over several scales, so that there is detail at all of them.
        let mut texture = vec![[0u8; 3]; TEXTURE * TEXTURE];
        let mut sums = vec![[0f32; 3]; TEXTURE * TEXTURE];
        for scale in [64usize, 32, 16, 8, 4] {
            let cells = TEXTURE / scale;
            let grid: Vec<[f32; 3]> = (0..cells * cells).map(|_| [rng.f32(), rng.f32(), rng.f32()]).collect();
            let weight = scale as f32 / 124.0;
            for (at, sum) in sums.iter_mut().enumerate() {
                let (x, y) = (at % TEXTURE, at / TEXTURE);
                let (fx, fy) = ((x % scale) as f32 / scale as f32, (y % scale) as f32 / scale as f32);
                let cell =
                    |dx: usize, dy: usize| grid[(y / scale + dy) % cells * cells + (x / scale + dx) % cells];
                for (channel, sum) in sum.iter_mut().enumerate() {
                    let top = cell(0, 0)[channel] * (1.0 - fx) + cell(1, 0)[channel] * fx;
                    let bottom = cell(0, 1)[channel] * (1.0 - fx) + cell(1, 1)[channel] * fx;
                    *sum += weight * (top * (1.0 - fy) + bottom * fy);
                }
            }
        }
        for (pixel, sum) in texture.iter_mut().zip(&sums) {
            let grain = 40.0 * (rng.f32() - 0.5);
            *pixel = sum.map(|value| (value * 255.0 + grain).clamp(0.0, 255.0) as u8);
        }
        Self { width, height, texture, pixels: vec![0; (width * height * 4) as usize] }
    }

    /// Frame `number` as BGRX without padding.
    pub fn frame(&mut self, number: u64) -> &[u8] {
        let (width, height, n) = (self.width as usize, self.height as usize, number as usize);
        let mut rng = fastrand::Rng::with_seed(number);
        for y in 0..height {
            for x in 0..width {
                let scroll = self.texture[(y + n) % TEXTURE * TEXTURE + (x + 3 * n) % TEXTURE];
                let box_x = (x + width * 8 - 5 * n % width) % width;
                let in_box = box_x < width / 5 && (y + 2 * n) % height < height / 4;
                let [b, g, r] = if in_box { [40, 180u8.wrapping_add(n as u8), 220] } else { scroll };
                let noise = rng.u8(..12);
                self.pixels[(y * width + x) * 4..][..4].copy_from_slice(&[
                    b.saturating_add(noise),
                    g.saturating_add(noise),
                    r.saturating_add(noise),
                    0,
                ]);
            }
        }
        &self.pixels
    }

    /// Frame `number` as the encoder sees it.
    pub fn reference(&mut self, number: u64) -> I420Buffer {
        let (width, height) = (self.width, self.height);
        let mut buffer = I420Buffer::new(width, height);
        convert::bgrx_to_i420(self.frame(number), width as usize * 4, width, height, &mut buffer).unwrap();
        buffer
    }
}

/// Encodes frame `request.frame_id` of the pattern and collects its slices.
pub fn encode(
    encoder: &mut dyn Encoder,
    pattern: &mut Pattern,
    request: &EncodeRequest,
) -> (Vec<Sent>, EncodeReport) {
    let mut sent = Vec::new();
    let stride = pattern.width as usize * 4;
    let mut sink = |slice: wavry_codec::EncodedSlice<'_>| {
        sent.push(Sent {
            frame_id: slice.frame_id,
            index: slice.index,
            last: slice.last,
            keyframe: slice.keyframe,
            reference: slice.reference,
            data: slice.data.to_vec(),
        });
    };
    let sink: &mut SliceSink<'_> = &mut sink;
    let frame = FrameInput::Bgrx { data: pattern.frame(request.frame_id), stride };
    let report = encoder.encode(frame, request, sink).unwrap();
    (sent, report)
}

/// Pushes all slices of a frame; the first error if any.
pub fn push(decoder: &mut dyn Decoder, slices: &[Sent]) -> Result<(), DecodeError> {
    let mut result = Ok(());
    for slice in slices {
        result = result.and(decoder.push_slice(slice.frame_id, slice.index, slice.last, &slice.data));
    }
    result
}

/// Luma PSNR in dB over the common size.
pub fn psnr(a: &I420View<'_>, b: &I420View<'_>) -> f64 {
    let (width, height) = (a.width.min(b.width) as usize, a.height.min(b.height) as usize);
    let mut sum = 0u64;
    for y in 0..height {
        for (&a, &b) in a.y.row(y, width).iter().zip(b.y.row(y, width)) {
            sum += u64::from(a.abs_diff(b)).pow(2);
        }
    }
    let mean = sum as f64 / (width * height) as f64;
    10.0 * (255.0f64.powi(2) / mean.max(1e-9)).log10()
}
